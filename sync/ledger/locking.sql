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

-- name: count_due
-- What could go now, or is on its way: what a re-sync waits for.
SELECT COUNT(*) AS n FROM deliveries WHERE state = 'pending' AND due_at <= :now
