-- The queries of who was heard when (hearing.py). Ids sort by the time they were made, so no index on times is needed.
-- What was pulled came because we asked: it is no sign of life of the webhooks.

-- name: counted_at
SELECT at FROM counters WHERE name = :name

-- name: newest_event_of
SELECT received_at FROM events WHERE source = :source AND name NOT LIKE 'PULLED%' ORDER BY id DESC LIMIT 1

-- name: next_event_of
SELECT id, received_at FROM events WHERE source = :source AND name NOT LIKE 'PULLED%' AND id > :after ORDER BY id LIMIT 1

-- name: last_event_until
-- The last of the events between two ids: everything between is passed over unread.
SELECT id, received_at FROM events WHERE source = :source AND name NOT LIKE 'PULLED%' AND id > :after AND id < :until
ORDER BY id DESC LIMIT 1
