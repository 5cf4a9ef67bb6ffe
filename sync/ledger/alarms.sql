-- The queries of alarms that are told by mail (sync/alarms.py); the others stand in queries.sql.

-- name: ended_alarms
SELECT a.key, a.text, a.raised_at FROM {rows r: key text} JOIN alarms a ON a.key = r.key
WHERE a.cleared_at IS NOT NULL
