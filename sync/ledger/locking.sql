-- What only one may do at a time (locking.py).

-- name: take_lock
-- A lease: whoever died lets go by itself. One that ends absurdly late is left over from a clock that jumped.
INSERT INTO locks (name, owner, since, until) VALUES (:name, :owner, :now, :now + :lease)
ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, since = excluded.since, until = excluded.until
WHERE locks.until <= :now OR locks.until > :now + 10 * :lease

-- name: renew_lock
UPDATE locks SET until = :now + :lease WHERE name = :name AND owner = :owner

-- name: drop_lock
DELETE FROM locks WHERE name = :name AND owner = :owner

-- name: get_lock
SELECT owner, since, until FROM locks WHERE name = :name

-- name: left_over
-- What each destination is owed and could have by now, a backoff of one subject among it. `due`: could go now, or is on
-- its way. `stuck`: was due at :since already, or stands behind a pause, wherever that has put it. `free_at`: when the
-- first of those that are due may be claimed. A chat that waits for its contact is not counted: the contact is. (Else
-- this would read all that was ever delivered.)
SELECT d.destination, t.paused_until, t.needs_person, t.reason, COUNT(*) AS n,
  SUM(CASE WHEN d.due_at <= :now THEN 1 ELSE 0 END) AS due,
  SUM(CASE WHEN t.paused_until IS NOT NULL OR d.due_at <= :since THEN 1 ELSE 0 END) AS stuck,
  MIN(CASE WHEN d.due_at > :now THEN NULL WHEN d.lease_until > :now THEN d.lease_until ELSE :now END)
    AS free_at
FROM deliveries d LEFT JOIN destinations t ON t.name = d.destination
WHERE d.state = 'pending' AND d.due_at IS NOT NULL AND (d.due_at <= :now OR d.ready_at <= :now)
GROUP BY d.destination, t.paused_until, t.needs_person, t.reason
ORDER BY d.destination
