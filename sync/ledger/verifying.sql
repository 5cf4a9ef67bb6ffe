-- Queries for comparing a destination with the ledger. They read; only `owe_drifted` changes a delivery.

-- name: delivered_contacts
-- Who has a record at a destination by the ledger, in pages; who is owed anything now is not among them.
SELECT d.id, d.subject, d.claim, d.remote_id, d.ours, d.settled_at
FROM deliveries d JOIN contacts c ON c.id = d.subject
WHERE d.destination = :destination AND d.kind = 'contact' AND d.subject > :after AND d.state = 'delivered'
  AND d.remote_id IS NOT NULL AND COALESCE(d.settled_at, 0) >= :since AND c.joined IS NULL AND c.erased_at IS NULL
ORDER BY d.subject LIMIT :limit

-- name: delivered_some
-- The same of these contacts. CROSS JOIN: SQLite keeps to that order, and looks up each; else it reads the whole index.
SELECT d.id, d.subject, d.claim, d.remote_id, d.ours, d.settled_at
FROM {rows r: id text} CROSS JOIN deliveries d CROSS JOIN contacts c
WHERE d.destination = :destination AND d.kind = 'contact' AND d.subject = r.id AND c.id = r.id AND d.state = 'delivered'
  AND d.remote_id IS NOT NULL AND c.joined IS NULL AND c.erased_at IS NULL

-- name: still_delivered
-- Of these deliveries those about which nothing has happened since they were read. Held until the commit.
SELECT d.id FROM {rows r: id text, claim integer, remote_id text, version integer}
JOIN deliveries d ON d.id = r.id JOIN contacts c ON c.id = d.subject
WHERE d.state = 'delivered' AND d.claim = r.claim AND d.remote_id = r.remote_id AND c.version = r.version
  AND c.joined IS NULL AND c.erased_at IS NULL {locked d}

-- name: owe_drifted
-- What stands there is not what we think: deliver once more, without a new word from the source, to the record that it
-- is now known by. The fence: a row that was claimed since it was read is left alone.
UPDATE deliveries SET state = 'pending', due_at = :now, owed_at = :now, attempts = 0, waited = 0, replayed = 1,
  error = NULL, intended_at = NULL, remote_id = r.remote_id, ours = r.ours
FROM {rows r: id text, claim integer, remote_id text, ours integer}
WHERE deliveries.id = r.id AND deliveries.claim = r.claim AND deliveries.state = 'delivered'

-- name: load_notes_of
-- Where a reading page by page stands: its own cursor, and what it noted on the way (`name/1` …).
SELECT name, value, at FROM cursors WHERE name = :name OR SUBSTR(name, 1, LENGTH(:name) + 1) = :name || '/'
ORDER BY name

-- name: write_note
INSERT INTO cursors (name, value, at) VALUES (:name, :value, :now)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at

-- name: drop_notes_of
DELETE FROM cursors WHERE name = :name OR SUBSTR(name, 1, LENGTH(:name) + 1) = :name || '/'
