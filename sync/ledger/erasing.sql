-- The queries of forgetting a person (erasing.py, persons.py). See queries.sql for how they are written.

-- name: any_erasure
-- Was anybody ever forgotten? Until then no event has to be hashed.
SELECT 1 AS one FROM erasures LIMIT 1

-- name: erased
SELECT e.hash, e.at FROM {rows r: hash text} JOIN erasures e ON e.hash = r.hash

-- name: insert_erasures
INSERT INTO erasures (hash, at) SELECT r.hash, :now FROM {rows r: hash text}
WHERE true
ON CONFLICT (hash) DO UPDATE SET at = excluded.at

-- name: identities_of_family
SELECT i.kind, i.value, i.contact FROM {rows r: id text} JOIN identities i ON i.contact = r.id

-- name: deliveries_of_subjects
-- Everything that is owed about these contacts and chats.
SELECT d.*, NULL AS joined FROM {rows r: id text} JOIN deliveries d ON d.subject = r.id WHERE d.kind <> 'erasure' {locked d}

-- name: strays_of_family
SELECT s.destination, s.contact, s.remote_id FROM {rows r: id text} JOIN strays s ON s.contact = r.id

-- name: mails_of_chats
SELECT e.* FROM {rows r: id text} JOIN emails e ON e.chat = r.id

-- name: failures_of_deliveries
SELECT f.delivery, f.at, f.outcome, f.status, f.error FROM {rows r: id text} JOIN failures f ON f.delivery = r.id
ORDER BY f.at, f.id

-- name: all_alarms
SELECT key, text FROM alarms

-- name: events_mentioning
-- An email can stand in a webhook that is not about its person any more, or that could not be read. Reads all of them.
-- LOWER knows ASCII only.
SELECT e.id FROM events e WHERE e.id > :after AND e.payload <> ''
  AND EXISTS (SELECT 1 FROM {rows n: needle text} WHERE LOWER(e.payload) LIKE n.needle ESCAPE '!')
ORDER BY e.id LIMIT :limit

-- name: events_disguising
-- Webhooks that may name an email in other characters: as base64, escaped, or, for these parts of an email that is not
-- ASCII, in other letters. Which of them do, is seen when they are read.
SELECT e.id, e.payload FROM events e WHERE e.id > :after AND e.payload <> ''
  AND (e.payload LIKE 'base64:%' OR e.payload LIKE '%\u%' ESCAPE '!' OR e.payload LIKE '%!%%' ESCAPE '!'
    OR EXISTS (SELECT 1 FROM {rows n: needle text} WHERE LOWER(e.payload) LIKE n.needle ESCAPE '!'))
ORDER BY e.id LIMIT :limit

-- name: events_of_places
SELECT e.* FROM {rows r: source text, chat text} JOIN events e ON e.source = r.source AND e.chat = r.chat
ORDER BY e.received_at, e.id

-- name: erase_events
-- The keys stay: by them a webhook that comes again is known to be old.
UPDATE events SET payload = '', chat = NULL, state = 'kept', error = NULL, flags = :flags
FROM {rows r: source text, chat text} WHERE events.source = r.source AND events.chat = r.chat

-- name: blank_payloads
-- What cannot be read any more is not waited for either.
UPDATE events SET payload = '', state = CASE state WHEN 'unreadable' THEN 'kept' ELSE state END
FROM {rows r: id text} WHERE events.id = r.id AND events.payload <> ''

-- name: erase_failures
UPDATE failures SET error = :reason FROM {rows r: id text} WHERE failures.delivery = r.id

-- name: erase_mails
UPDATE emails SET rendered = NULL FROM {rows r: id text} WHERE emails.chat = r.id AND emails.rendered IS NOT NULL

-- name: erase_alarm
UPDATE alarms SET text = :text WHERE key = :key

-- name: withdraw_deliveries
-- What went out stays counted as that, and so does a mail of which nobody knows.
UPDATE deliveries SET
  state = CASE WHEN kind = 'email' AND state IN ('delivered', 'unknown') THEN state ELSE 'ignored' END,
  error = CASE WHEN kind = 'email' AND state = 'delivered' THEN NULL
    WHEN kind = 'email' AND state = 'unknown' THEN 'its answer was lost, and ' || :reason ELSE :reason END,
  due_at = NULL, lease_until = NULL, again = 0, attempts = 0, waited = 0, intended_at = NULL, replayed = 0
FROM {rows r: id text} WHERE deliveries.id = r.id

-- name: owe_erasures
-- One for each record. What was left to a person before may be owed now; what is gone is not asked for twice.
INSERT INTO deliveries (id, destination, kind, subject, state, wanted, owed_at, ready_at, due_at, error, remote_id, ours)
SELECT r.id, r.destination, 'erasure', r.remote_id, r.state, 1, :now, :now,
  CASE WHEN r.state = 'pending' THEN :now END, r.error, r.remote_id, r.ours
FROM {rows r: id text, destination text, remote_id text, state text, error text, ours integer}
WHERE true
ON CONFLICT (destination, kind, subject) DO UPDATE SET state = excluded.state, owed_at = excluded.owed_at,
  due_at = excluded.due_at, attempts = 0, waited = 0, error = excluded.error, ours = excluded.ours, done = 0
WHERE deliveries.state <> 'pending'

-- name: going_records
-- Which of these records are to be deleted? Whoever found one as somebody new waits for that.
SELECT r.subject AS asked FROM {rows r: destination text, remote_id text, subject text}
JOIN deliveries d ON d.destination = r.destination AND d.kind = 'erasure' AND d.subject = r.remote_id
WHERE d.state = 'pending'

-- name: erasure_states
SELECT d.destination, d.subject AS remote_id, d.state, d.error, d.settled_at
FROM {rows r: destination text, remote_id text} JOIN deliveries d
  ON d.destination = r.destination AND d.kind = 'erasure' AND d.subject = r.remote_id

-- name: erase_identities
DELETE FROM identities WHERE contact IN (SELECT r.id FROM {rows r: id text})

-- name: erase_joins
DELETE FROM joins WHERE loser IN (SELECT r.id FROM {rows r: id text}) OR winner IN (SELECT s.id FROM {rows s: id text})

-- name: erase_strays
DELETE FROM strays WHERE contact IN (SELECT r.id FROM {rows r: id text})

-- name: erase_chats
-- What is left has no name by which a later event could find it.
UPDATE chats SET chat = 'erased:' || chats.id, email = NULL, said = '{}', transcript = '[]', agent = NULL,
  started_at = NULL, accepted_at = NULL, closed_at = NULL, wait = NULL, duration = NULL, last_message_at = NULL,
  pruned_until = NULL, updated_at = :now
FROM {rows r: id text} WHERE chats.id = r.id

-- name: erase_contacts
UPDATE contacts SET name = NULL, email = NULL, phone = NULL, attributes = '{}', clocks = '{}', erased_at = :now,
  updated_at = :now
FROM {rows r: id text} WHERE contacts.id = r.id

-- name: receipts
SELECT value FROM marks WHERE name LIKE 'forgotten:%' AND value LIKE :holds ORDER BY name

-- name: check_erased_with_data
SELECT COUNT(*) AS n, MIN(c.id) AS example FROM contacts c
WHERE c.erased_at IS NOT NULL AND (c.name IS NOT NULL OR c.email IS NOT NULL OR c.phone IS NOT NULL
  OR c.attributes <> '{}' OR c.clocks <> '{}' OR EXISTS (SELECT 1 FROM identities i WHERE i.contact = c.id)
  OR EXISTS (SELECT 1 FROM chats x WHERE x.contact = c.id AND (x.said <> '{}' OR x.transcript <> '[]')))

-- name: check_erased_still_owed
SELECT COUNT(*) AS n, MIN(d.id) AS example FROM deliveries d
LEFT JOIN chats x ON d.kind IN ('chat', 'email') AND x.id = d.subject
JOIN contacts c ON c.id = COALESCE(x.contact, d.subject)
WHERE c.erased_at IS NOT NULL AND (d.state IN ('pending', 'dead') OR (d.state = 'delivered' AND d.kind <> 'email'))
