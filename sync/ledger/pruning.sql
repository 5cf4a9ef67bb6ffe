-- The queries of pruning (pruning.py). See queries.sql for how they are written.

-- name: payloads_page
-- The next events by id, which is by the time they came, and how much each holds.
SELECT id, received_at AS at, LENGTH(payload) AS size, state FROM events
WHERE id > :after ORDER BY id LIMIT :limit

-- name: transcripts_page
-- The next chats. One is settled when none of these destinations is owed it any more, nor failed on it for good.
SELECT c.id, COALESCE(c.closed_at, c.last_message_at, c.updated_at) AS at, c.closed_at, c.last_message_at, c.pruned_until,
  CASE WHEN c.transcript = '[]' THEN 0 ELSE LENGTH(c.transcript) END AS size,
  CASE WHEN EXISTS (SELECT 1 FROM deliveries d
    WHERE d.subject = c.id AND (d.state IN ('unknown', 'dead')
      OR (d.state = 'pending' AND d.destination IN (SELECT t.name FROM {takers t: name text})))
  ) THEN 'owed' ELSE 'settled' END AS state
FROM chats c WHERE c.id > :after ORDER BY c.id LIMIT :limit

-- name: failures_page
SELECT f.id, f.at, LENGTH(f.error) AS size,
  CASE WHEN d.state IN ('pending', 'unknown', 'dead') THEN 'owed' ELSE 'settled' END AS state
FROM failures f JOIN deliveries d ON d.id = f.delivery
WHERE f.id > :after ORDER BY f.id LIMIT :limit

-- name: mails_page
SELECT e.chat AS id, e.begun_at AS at, COALESCE(LENGTH(e.rendered), 0) AS size,
  CASE WHEN d.state IN ('pending', 'unknown') THEN 'owed' ELSE 'settled' END AS state
FROM emails e LEFT JOIN deliveries d ON d.subject = e.chat AND d.kind = 'email'
WHERE e.chat > :after ORDER BY e.chat LIMIT :limit

-- name: prune_transcripts
-- Up to when is kept: a source tells its whole history again and again.
UPDATE chats SET transcript = '[]', pruned_until = r.until FROM {rows r: id text, until real} WHERE chats.id = r.id

-- name: prune_notes
-- What was written to a CRM stays there: should the chat ever go on, that becomes a note of its own.
UPDATE deliveries SET remote_id = NULL, intended_at = NULL
FROM {rows r: id text} WHERE deliveries.subject = r.id AND deliveries.kind = 'chat'

-- name: prune_failures
DELETE FROM failures WHERE id IN (SELECT r.id FROM {rows r: id text})

-- name: get_cursor_at
SELECT value, at FROM cursors WHERE name = :name

-- name: keep_cursor
INSERT INTO cursors (name, value, at) VALUES (:name, :value, :now)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at
