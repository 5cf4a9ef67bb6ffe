-- The queries of an import (importing.py).

-- name: holders_of
-- Who holds these records? Not who was forgotten. The destination comes with each: as a parameter, SQLite would look
-- through all of its rows.
SELECT d.remote_id, d.subject FROM {rows r: destination text, remote_id text}
JOIN deliveries d ON d.kind = 'contact' AND d.remote_id = r.remote_id AND d.destination = r.destination
JOIN contacts c ON c.id = d.subject AND c.joined IS NULL AND c.erased_at IS NULL

-- name: adopt_records
-- These contacts have a record there already, which is not ours. Nothing is owed for that alone; what is owed stays so.
INSERT INTO deliveries (id, destination, kind, subject, state, wanted, done, owed_at, ready_at, remote_id, ours,
  settled_at)
SELECT r.id, :destination, 'contact', r.subject, 'delivered', r.version, r.version, :now, :now, r.remote_id, 0, :now
FROM {rows r: id text, subject text, remote_id text, version integer}
WHERE true
ON CONFLICT (destination, kind, subject) DO UPDATE SET remote_id = excluded.remote_id, ours = 0
WHERE deliveries.remote_id IS NULL

-- name: import_place
SELECT value FROM cursors WHERE name = :name

-- name: note_import_place
INSERT INTO cursors (name, value, at) VALUES (:name, :value, :now)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at

-- name: drop_import_place
DELETE FROM cursors WHERE name = :name
