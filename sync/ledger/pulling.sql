-- The queries of the pull (pulling.py). See queries.sql for how they are written.

-- name: cursors
-- Where something that is read page by page goes on, and what its pages were.
SELECT name, value FROM cursors WHERE name = :name OR name LIKE :under ORDER BY name

-- name: set_cursor
INSERT INTO cursors (name, value, at) VALUES (:name, :value, :now)
ON CONFLICT (name) DO UPDATE SET value = excluded.value, at = excluded.at

-- name: drop_cursors
DELETE FROM cursors WHERE name = :name OR name LIKE :under

-- name: told_types
-- Which types of webhooks are stored about these chats: what was pulled is no webhook.
SELECT DISTINCT e.chat, e.type FROM {rows r: source text, chat text}
JOIN events e ON e.source = r.source AND e.chat = r.chat
WHERE e.state = 'applied' AND e.name NOT LIKE 'PULLED%'

-- name: chat_payloads
-- What was said about one chat, the newest first; an empty payload was pruned.
SELECT id, received_at, payload FROM events WHERE source = :source AND chat = :chat AND state = 'applied'
ORDER BY received_at DESC, id DESC LIMIT :limit

-- name: forgotten_chats
-- When the chats were forgotten that may have begun since a time: that they did is not kept.
SELECT updated_at AS at FROM chats WHERE source = :source AND chat LIKE 'erased:%' AND updated_at >= :since

-- name: chat_starts
-- When the chats of some days began.
SELECT started_at FROM chats
WHERE source = :source AND chat LIKE :family AND started_at >= :since AND started_at < :until
