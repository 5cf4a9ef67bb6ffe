-- Every query of the ledger: one text for two databases. A line says why each is there.
-- {rows r: id text} is the JSON list of the parameter :rows as a table r; see queries.py.
-- :now is the injected clock on SQLite and the server's own clock on PostgreSQL.

-- name: known_events
-- Which of these events were seen before: the deduplication.
SELECT e.source, e.key, e.id
FROM {rows r: source text, key text} JOIN events e ON e.source = r.source AND e.key = r.key

-- name: insert_events
INSERT INTO events (id, source, key, type, name, chat, occurred_at, received_at, payload, state, flags, error, copies)
SELECT r.id, r.source, r.key, r.type, r.name, r.chat, r.occurred_at, r.received_at, r.payload, r.state, r.flags,
  r.error, r.copies
FROM {rows r: id text, source text, key text, type text, name text, chat text, occurred_at real, received_at real,
  payload text, state text, flags text, error text, copies integer}

-- name: count_copies
-- A redelivery changes nothing but this number.
UPDATE events SET copies = events.copies + r.n FROM {rows r: id text, n integer} WHERE events.id = r.id

-- name: reread_events
-- Replay: what an event says may be understood better by a newer release.
UPDATE events SET key = r.key, type = r.type, name = r.name, chat = r.chat, occurred_at = r.occurred_at,
  state = r.state, flags = r.flags, error = r.error
FROM {rows r: id text, key text, type text, name text, chat text, occurred_at real, state text, flags text, error text}
WHERE events.id = r.id

-- name: load_chats
SELECT c.* FROM {rows r: source text, chat text} JOIN chats c ON c.source = r.source AND c.chat = r.chat

-- name: load_contacts
-- Every contact that these chats and identities lead to, and whom those were joined into.
WITH RECURSIVE found (id) AS (
  SELECT c.contact FROM {places p: source text, chat text} JOIN chats c ON c.source = p.source AND c.chat = p.chat
  WHERE c.contact IS NOT NULL
  UNION SELECT i.contact FROM {keys k: kind text, value text} JOIN identities i ON i.kind = k.kind AND i.value = k.value
  UNION SELECT c.joined FROM found JOIN contacts c ON c.id = found.id WHERE c.joined IS NOT NULL
)
SELECT contacts.* FROM found JOIN contacts ON contacts.id = found.id

-- name: load_identities
SELECT i.kind, i.value, i.contact
FROM {rows r: kind text, value text} JOIN identities i ON i.kind = r.kind AND i.value = r.value

-- name: load_family
-- These contacts and all that were joined into them.
WITH RECURSIVE family (id) AS (
  SELECT r.id FROM {rows r: id text}
  UNION SELECT c.id FROM family JOIN contacts c ON c.joined = family.id
)
SELECT contacts.* FROM family JOIN contacts ON contacts.id = family.id

-- name: load_family_chats
WITH RECURSIVE family (id) AS (
  SELECT r.id FROM {rows r: id text}
  UNION SELECT c.id FROM family JOIN contacts c ON c.joined = family.id
)
SELECT chats.* FROM family CROSS JOIN chats WHERE chats.contact = family.id

-- name: foreign_records
-- Behind which of these contacts stands a remote record that we did not create?
SELECT DISTINCT d.subject FROM {rows r: id text} JOIN deliveries d ON d.subject = r.id
WHERE d.kind = 'contact' AND d.remote_id IS NOT NULL AND d.ours = 0

-- name: write_contacts
INSERT INTO contacts (id, uid, name, email, phone, attributes, clocks, version, joined, created_at, updated_at)
SELECT r.id, r.uid, r.name, r.email, r.phone, r.attributes, r.clocks, r.version, NULL, r.created_at, r.updated_at
FROM {rows r: id text, uid text, name text, email text, phone text, attributes text, clocks text, version integer,
  created_at real, updated_at real}
WHERE true
ON CONFLICT (id) DO UPDATE SET name = excluded.name, email = excluded.email, phone = excluded.phone,
  attributes = excluded.attributes, clocks = excluded.clocks, version = excluded.version,
  updated_at = excluded.updated_at

-- name: write_joined
-- After write_contacts, so that the winner is there.
UPDATE contacts SET joined = r.winner FROM {rows r: loser text, winner text} WHERE contacts.id = r.loser

-- name: write_chats
INSERT INTO chats (id, source, chat, contact, email, said, started_at, accepted_at, closed_at, wait, duration, agent,
  transcript, last_message_at, version, updated_at)
SELECT r.id, r.source, r.chat, r.contact, r.email, r.said, r.started_at, r.accepted_at, r.closed_at, r.wait, r.duration,
  r.agent, r.transcript, r.last_message_at, r.version, r.updated_at
FROM {rows r: id text, source text, chat text, contact text, email text, said text, started_at real, accepted_at real,
  closed_at real, wait real, duration real, agent text, transcript text, last_message_at real, version integer,
  updated_at real}
WHERE true
ON CONFLICT (id) DO UPDATE SET contact = excluded.contact, email = excluded.email, said = excluded.said,
  started_at = excluded.started_at, accepted_at = excluded.accepted_at, closed_at = excluded.closed_at,
  wait = excluded.wait, duration = excluded.duration, agent = excluded.agent, transcript = excluded.transcript,
  last_message_at = excluded.last_message_at, version = excluded.version, updated_at = excluded.updated_at

-- name: drop_identities
DELETE FROM identities
WHERE (kind, value, contact) IN (SELECT r.kind, r.value, r.contact FROM {rows r: kind text, value text, contact text})

-- name: insert_identities
INSERT INTO identities (kind, value, contact)
SELECT r.kind, r.value, r.contact FROM {rows r: kind text, value text, contact text}
WHERE true
ON CONFLICT (kind, value, contact) DO NOTHING

-- name: insert_joins
-- A pair that a person has taken apart is not suspected again.
INSERT INTO joins (loser, winner, state, reason, at)
SELECT r.loser, r.winner, r.state, r.reason, :now FROM {rows r: loser text, winner text, state text, reason text}
WHERE true
ON CONFLICT (loser, winner) DO UPDATE SET state = excluded.state, reason = excluded.reason, at = excluded.at
WHERE joins.state <> 'undone' OR excluded.state = 'joined'

-- name: owe_contacts
-- The promise that these contacts reach these destinations in at least this version. Idempotent; see the state machine.
INSERT INTO deliveries (id, destination, kind, subject, state, wanted, owed_at, ready_at, due_at, error, replayed)
SELECT r.id, r.destination, 'contact', r.subject, r.state, r.version, :now, :now,
  CASE WHEN r.state = 'pending' THEN :now END, r.error, r.replayed
FROM {rows r: id text, destination text, subject text, state text, version integer, error text, replayed integer}
WHERE true
ON CONFLICT (destination, kind, subject) DO UPDATE SET
  wanted = excluded.wanted,
  state = CASE deliveries.state WHEN 'pending' THEN 'pending' ELSE excluded.state END,
  owed_at = CASE deliveries.state WHEN 'pending' THEN deliveries.owed_at ELSE excluded.owed_at END,
  due_at = CASE deliveries.state WHEN 'pending' THEN deliveries.due_at ELSE excluded.due_at END,
  attempts = CASE deliveries.state WHEN 'pending' THEN deliveries.attempts ELSE 0 END,
  waited = CASE deliveries.state WHEN 'pending' THEN deliveries.waited ELSE 0 END,
  error = CASE deliveries.state WHEN 'pending' THEN deliveries.error ELSE excluded.error END,
  replayed = CASE WHEN deliveries.state = 'pending' AND deliveries.replayed = 0 THEN 0 ELSE excluded.replayed END
WHERE (deliveries.state = 'pending' AND excluded.wanted > deliveries.wanted)
  OR (deliveries.state IN ('delivered', 'ignored', 'dead') AND excluded.wanted > deliveries.done)

-- name: owe_chats
-- A chat waits (no due time) until its contact is there, and is ignored where its contact is ignored or dead. Unlike a
-- contact's, its due time follows the conversation: a new message puts it off, the close brings it forward.
INSERT INTO deliveries (id, destination, kind, subject, state, wanted, owed_at, ready_at, due_at, error, replayed)
SELECT r.id, r.destination, 'chat', r.subject,
  CASE WHEN c.remote_id IS NULL AND c.state IN ('ignored', 'dead') THEN 'ignored' ELSE 'pending' END,
  r.version, :now, r.ready_at,
  CASE WHEN c.remote_id IS NOT NULL THEN r.ready_at END,
  CASE WHEN c.remote_id IS NULL AND c.state IN ('ignored', 'dead') THEN 'its contact is ' || c.state || ' there' END,
  r.replayed
FROM {rows r: id text, destination text, subject text, contact text, version integer, ready_at real, replayed integer}
LEFT JOIN deliveries c ON c.destination = r.destination AND c.kind = 'contact' AND c.subject = r.contact
WHERE true
ON CONFLICT (destination, kind, subject) DO UPDATE SET
  wanted = excluded.wanted,
  ready_at = excluded.ready_at,
  state = excluded.state,
  owed_at = CASE deliveries.state WHEN 'pending' THEN deliveries.owed_at ELSE excluded.owed_at END,
  due_at = CASE WHEN deliveries.state = 'pending' AND deliveries.attempts > 0 THEN deliveries.due_at
    ELSE excluded.due_at END,
  attempts = CASE deliveries.state WHEN 'pending' THEN deliveries.attempts ELSE 0 END,
  waited = CASE deliveries.state WHEN 'pending' THEN deliveries.waited ELSE 0 END,
  error = CASE WHEN excluded.state = 'pending' AND deliveries.state = 'pending' THEN deliveries.error
    ELSE excluded.error END,
  replayed = CASE WHEN deliveries.state = 'pending' AND deliveries.replayed = 0 THEN 0 ELSE excluded.replayed END
WHERE (deliveries.state = 'pending' AND excluded.wanted >= deliveries.wanted)
  OR (deliveries.state IN ('delivered', 'ignored', 'dead') AND excluded.wanted > deliveries.done)

-- name: wake_chats
-- The contact is there now: its chats may follow as soon as they are ready. CROSS JOIN: SQLite keeps to that order, and
-- looks up each; else it reads all deliveries for every group that is settled.
WITH RECURSIVE family (destination, id) AS (
  SELECT r.destination, r.contact FROM {rows r: destination text, contact text}
  UNION SELECT family.destination, c.id FROM family JOIN contacts c ON c.joined = family.id
)
UPDATE deliveries SET state = 'pending', error = NULL,
  due_at = CASE WHEN deliveries.ready_at > :now THEN deliveries.ready_at ELSE :now END
WHERE id IN (
  SELECT d.id FROM family CROSS JOIN chats CROSS JOIN deliveries d
  WHERE chats.contact = family.id AND d.subject = chats.id AND d.destination = family.destination AND d.kind = 'chat'
    AND ((d.state = 'pending' AND d.due_at IS NULL) OR (d.state = 'ignored' AND d.error LIKE 'its contact is %'))
)

-- name: ignore_chats
-- The contact will not get there: say so of its chats, until it does after all.
WITH RECURSIVE family (destination, id) AS (
  SELECT r.destination, r.contact FROM {rows r: destination text, contact text}
  UNION SELECT family.destination, c.id FROM family JOIN contacts c ON c.joined = family.id
)
UPDATE deliveries SET state = 'ignored', error = 'its contact is ' || :state || ' there'
WHERE id IN (
  SELECT d.id FROM family CROSS JOIN chats CROSS JOIN deliveries d
  WHERE chats.contact = family.id AND d.subject = chats.id AND d.destination = family.destination AND d.kind = 'chat'
    AND d.state = 'pending' AND d.due_at IS NULL
)

-- name: load_deliveries
SELECT d.*, c.joined FROM {rows r: id text} JOIN deliveries d ON d.id = r.id
LEFT JOIN contacts c ON d.kind = 'contact' AND c.id = d.subject {locked d}

-- name: load_contact_deliveries
-- The deliveries of these contacts: what a join has to bring together.
SELECT d.*, NULL AS joined FROM {rows r: id text} JOIN deliveries d ON d.subject = r.id WHERE d.kind = 'contact' {locked d}

-- name: write_deliveries
-- The fence: a row that was claimed since it was read is left alone.
UPDATE deliveries SET state = r.state, done = r.done, attempts = r.attempts, waited = r.waited, ready_at = r.ready_at,
  due_at = r.due_at, lease_until = r.lease_until, again = r.again, intended_at = r.intended_at, remote_id = r.remote_id,
  ours = r.ours, replayed = r.replayed, error = r.error, settled_at = r.settled_at
FROM {rows r: id text, claim integer, state text, done integer, attempts integer, waited real, ready_at real,
  due_at real, lease_until real, again integer, intended_at real, remote_id text, ours integer, replayed integer,
  error text, settled_at real}
WHERE deliveries.id = r.id AND deliveries.claim = r.claim

-- name: insert_failures
INSERT INTO failures (id, delivery, at, outcome, status, error)
SELECT r.id, r.delivery, :now, r.outcome, r.status, r.error
FROM {rows r: id text, delivery text, outcome text, status integer, error text}

-- name: insert_strays
INSERT INTO strays (destination, contact, remote_id, at)
SELECT r.destination, r.contact, r.remote_id, :now FROM {rows r: destination text, contact text, remote_id text}
WHERE true
ON CONFLICT (destination, remote_id) DO NOTHING

-- name: claim
-- A lease: nobody else gets these until it ends. One that ends in more than a day is left over from a clock that jumped:
-- no lease is that long, also not that of a host with other timeouts.
UPDATE deliveries SET claim = deliveries.claim + 1, claimed_at = :now, lease_until = :now + :lease
WHERE id {in}
  SELECT id FROM deliveries
  WHERE destination = :destination AND kind = :kind AND state = 'pending' AND due_at <= :now AND id <> :except_
    AND (lease_until IS NULL OR lease_until <= :now OR lease_until > :now + 86400)
  ORDER BY due_at, id LIMIT :limit
{picked}
RETURNING id, subject, wanted, claim, lease_until, attempts, waited, replayed, intended_at, remote_id,
  ours

-- name: claimed_contacts
SELECT c.* FROM {rows r: id text} JOIN contacts c ON c.id = r.id

-- name: claimed_chats
-- The chats, each with the record of its contact (or of whom that was joined into) at this destination.
WITH RECURSIVE up (chat, contact) AS (
  SELECT chats.id, chats.contact FROM {rows r: id text} JOIN chats ON chats.id = r.id
  UNION SELECT up.chat, c.joined FROM up JOIN contacts c ON c.id = up.contact WHERE c.joined IS NOT NULL
)
SELECT chats.*, (
  SELECT d.remote_id FROM up JOIN contacts c ON c.id = up.contact AND c.joined IS NULL
  JOIN deliveries d ON d.destination = :destination AND d.kind = 'contact' AND d.subject = up.contact
  WHERE up.chat = chats.id
) AS contact_remote_id
FROM {rows s: id text} JOIN chats ON chats.id = s.id

-- name: intend
-- Announce that these deliveries are about to create their record, so that a lost answer is known to be ours. Not of
-- those that somebody else has claimed since.
UPDATE deliveries SET intended_at = :at FROM {rows r: id text, claim integer}
WHERE deliveries.id = r.id AND deliveries.claim = r.claim

-- name: next_due
-- When does the next delivery of a destination become due? (One whose lease lapses is found by asking again.)
SELECT MIN(due_at) AS at FROM deliveries
WHERE destination = :destination AND kind = :kind AND state = 'pending' AND due_at > :now

-- name: add_destination
INSERT INTO destinations (name) VALUES (:name) ON CONFLICT (name) DO NOTHING

-- name: load_destination
SELECT * FROM destinations WHERE name = :name {locked}

-- name: load_destinations
SELECT * FROM destinations ORDER BY name

-- name: write_destination
UPDATE destinations SET paused_at = :paused_at, paused_until = :paused_until, probe_until = :probe_until,
  culprit = :culprit, pauses = :pauses, needs_person = :needs_person, suspects = :suspects, reason = :reason,
  status = :status
WHERE name = :name

-- name: take_pace
-- GCRA: every call moves the time at which the next one would be exactly on time. One row, so all hosts share it. A time
-- further ahead than anybody would take a place is left over from a clock that jumped.
UPDATE destinations
SET pace = CASE WHEN pace > :now AND pace < :now + :furthest THEN pace ELSE :now END + :cost
WHERE name = :name
  AND CASE WHEN pace > :now AND pace < :now + :furthest THEN pace ELSE :now END - :burst - :now <= :within
RETURNING pace - :cost - :burst AS place

-- name: next_place
SELECT CASE WHEN pace > :now AND pace < :now + :furthest THEN pace ELSE :now END - :burst AS place
FROM destinations WHERE name = :name

-- name: revive_dead
-- Replay of dead letters: a person says that the cause is gone.
UPDATE deliveries SET state = 'pending', due_at = :now, owed_at = :now, attempts = 0, waited = 0, error = NULL
WHERE destination = :destination AND state = 'dead'

-- name: dismiss_dead
-- A person has seen it, and nothing is to be done: it counts as ignored until something newer is said of its subject.
UPDATE deliveries SET state = 'ignored', settled_at = :now, error = :words || COALESCE(error, 'no reason was given')
WHERE state = 'dead' AND (id = :id OR destination = :destination)

-- name: dismiss_alike
UPDATE deliveries SET state = 'ignored', settled_at = :now, error = :words || COALESCE(error, 'no reason was given')
WHERE state = 'dead' AND destination = :destination AND kind = :kind AND COALESCE(error, '') = :error

-- name: dismiss_unreadable
UPDATE events SET state = 'kept', error = :words || COALESCE(error, 'no reason was given')
WHERE state = 'unreadable' AND (id = :id OR :id = '')

-- name: count_dead
SELECT COUNT(*) AS n FROM deliveries WHERE destination = :destination AND state = 'dead'

-- name: owe_again
-- Replay of events: deliver once more what these subjects are now, without a new word from the source. A chat that is
-- ignored because of its contact follows when the contact is there; a mail is never sent again.
UPDATE deliveries SET state = 'pending', due_at = :now, owed_at = :now, attempts = 0, waited = 0, replayed = 1,
  error = NULL
FROM {rows r: id text}
WHERE deliveries.subject = r.id AND deliveries.kind IN ('contact', 'chat')
  AND deliveries.state IN ('delivered', 'ignored', 'dead')
  AND (deliveries.error IS NULL OR (deliveries.error <> 'joined' AND deliveries.error NOT LIKE 'its contact is %'))

-- name: all_contacts
-- Everybody, in pages: what a new destination is owed.
SELECT * FROM contacts WHERE joined IS NULL AND erased_at IS NULL AND id > :after ORDER BY id LIMIT :limit

-- name: all_chats
SELECT * FROM chats WHERE id > :after AND contact IS NOT NULL
  AND (closed_at IS NOT NULL OR last_message_at IS NOT NULL) ORDER BY id LIMIT :limit

-- name: roots
-- Whom these contacts were joined into, to the end.
WITH RECURSIVE up (start, id) AS (
  SELECT r.id, r.id FROM {rows r: id text}
  UNION SELECT up.start, c.joined FROM up JOIN contacts c ON c.id = up.id WHERE c.joined IS NOT NULL
)
SELECT up.start, up.id AS root FROM up JOIN contacts c ON c.id = up.id WHERE c.joined IS NULL

-- name: count
INSERT INTO counters (name, n, at) VALUES (:name, :n, :now)
ON CONFLICT (name) DO UPDATE SET n = counters.n + excluded.n, at = excluded.at

-- name: counters
SELECT name, n, at FROM counters ORDER BY name

-- name: event_states
SELECT state, COUNT(*) AS n, SUM(copies - 1) AS copies FROM events GROUP BY state

-- name: unreadable_events
SELECT * FROM events WHERE state = 'unreadable' AND id > :after ORDER BY id LIMIT :limit

-- name: newest_unreadable
SELECT id, source, received_at, error FROM events WHERE state = 'unreadable' ORDER BY received_at DESC LIMIT 5

-- name: count_contacts
SELECT COUNT(*) AS n FROM contacts WHERE joined IS NULL AND erased_at IS NULL

-- name: delivery_states
SELECT destination, kind, state, COUNT(*) AS n FROM deliveries GROUP BY destination, kind, state

-- name: waiting
-- What each destination still owes: how many calls are under way, and since when the oldest waits though it could go.
SELECT destination,
  SUM(CASE WHEN lease_until > :now THEN 1 ELSE 0 END) AS in_flight,
  MIN(CASE WHEN due_at IS NULL OR ready_at > :now THEN NULL WHEN ready_at > owed_at THEN ready_at ELSE owed_at END)
    AS oldest
FROM deliveries WHERE state = 'pending' GROUP BY destination

-- name: dead_causes
-- The different reasons for which deliveries died, each with its count and its first time.
SELECT destination, kind, error, COUNT(*) AS n, MIN(settled_at) AS first_at, MAX(id) AS example FROM deliveries
WHERE state = 'dead' GROUP BY destination, kind, error ORDER BY n DESC

-- name: ignored_causes
SELECT destination, kind, error, COUNT(*) AS n FROM deliveries
WHERE state = 'ignored' GROUP BY destination, kind, error ORDER BY n DESC

-- name: count_strays
SELECT destination, COUNT(*) AS n FROM strays GROUP BY destination

-- name: find_contacts
SELECT id, name, email, phone, version, created_at, updated_at FROM contacts
WHERE joined IS NULL AND erased_at IS NULL AND (:like = '%' OR LOWER(COALESCE(name, '')) LIKE LOWER(:like)
  OR LOWER(COALESCE(email, '')) LIKE LOWER(:like) OR COALESCE(phone, '') LIKE :like OR id = :exact)
ORDER BY updated_at DESC, id DESC LIMIT :limit

-- name: get_event
SELECT * FROM events WHERE id = :id

-- name: get_contact
SELECT * FROM contacts WHERE id = :id

-- name: get_chat
SELECT * FROM chats WHERE id = :id

-- name: get_delivery
SELECT * FROM deliveries WHERE id = :id

-- name: deliveries_of
SELECT * FROM deliveries WHERE subject = :subject ORDER BY destination, kind

-- name: failures_of
SELECT at, outcome, status, error FROM failures WHERE delivery = :delivery ORDER BY at DESC LIMIT 20

-- name: events_of_chat
SELECT id, name, type, occurred_at, received_at, state, copies, flags FROM events
WHERE source = :source AND chat = :chat ORDER BY occurred_at, received_at, id

-- name: identities_of
SELECT kind, value FROM identities WHERE contact = :contact ORDER BY kind, value

-- name: joins_of
SELECT j.*, w.email AS winner_email, l.email AS loser_email FROM joins j
JOIN contacts w ON w.id = j.winner JOIN contacts l ON l.id = j.loser
WHERE j.state IN ('joined', 'possible') ORDER BY j.at DESC LIMIT :limit

-- name: get_join
SELECT * FROM joins WHERE loser = :loser AND state = 'joined'

-- name: shared_identities
-- Phones and visitor ids that lead to more than one person: possible duplicates for a person to look at.
SELECT i.kind, i.value, COUNT(*) AS n, MIN(c.id) AS one, MAX(c.id) AS another
FROM identities i JOIN contacts c ON c.id = i.contact
WHERE c.joined IS NULL AND i.kind <> 'email' GROUP BY i.kind, i.value HAVING COUNT(*) > 1 ORDER BY n DESC LIMIT :limit

-- name: list_strays
SELECT s.destination, s.contact, s.remote_id, s.at FROM strays s ORDER BY s.at DESC LIMIT :limit

-- name: undo_join
UPDATE contacts SET joined = NULL WHERE id = :loser

-- name: mark_undone
UPDATE joins SET state = 'undone', at = :now WHERE loser = :loser AND state = 'joined'

-- name: open_alarms
SELECT key, text, raised_at, told_at FROM alarms WHERE cleared_at IS NULL ORDER BY raised_at

-- name: untold_alarms
SELECT key, text, raised_at, cleared_at, told_at, told_clear_at FROM alarms
WHERE told_at IS NULL OR (cleared_at IS NOT NULL AND told_clear_at IS NULL) ORDER BY raised_at

-- name: raise_alarm
-- One alarm a cause: raised again only after it was cleared.
INSERT INTO alarms (key, text, raised_at) VALUES (:key, :text, :now)
ON CONFLICT (key) DO UPDATE SET text = excluded.text, raised_at = excluded.raised_at, cleared_at = NULL, told_at = NULL,
  told_clear_at = NULL
WHERE alarms.cleared_at IS NOT NULL

-- name: clear_alarm
UPDATE alarms SET cleared_at = :now WHERE key = :key AND cleared_at IS NULL

-- name: alarm_told
UPDATE alarms SET told_at = COALESCE(told_at, :now),
  told_clear_at = CASE WHEN cleared_at IS NOT NULL THEN :now ELSE told_clear_at END
WHERE key = :key

-- name: probe_write
-- Is the ledger writable? Writes, and means nothing.
INSERT INTO marks (name, value) VALUES ('written', :value) ON CONFLICT (name) DO UPDATE SET value = excluded.value

-- name: shorten_leases
-- The one server of this file has just started: nobody can hold a lease any more. A moment is left for what the process
-- before had already sent.
UPDATE deliveries SET lease_until = :now + :grace
WHERE state IN ('pending', 'unknown') AND lease_until IS NOT NULL AND lease_until > :now + :grace

-- name: waiting_kinds
-- What is still owed, kind by kind. `later`: chats that are not over yet, mails whose time has not come.
SELECT destination, kind, COUNT(*) AS n, SUM(CASE WHEN ready_at > :now THEN 1 ELSE 0 END) AS later
FROM deliveries WHERE state = 'pending' GROUP BY destination, kind

-- name: failures_at
-- The newest failures of one destination.
SELECT f.at, f.delivery, d.kind, d.subject, f.outcome, f.status, f.error
FROM failures f JOIN deliveries d ON d.id = f.delivery
WHERE d.destination = :destination ORDER BY f.at DESC, f.id DESC LIMIT :limit

-- name: join_states
SELECT state, COUNT(*) AS n FROM joins GROUP BY state

-- name: newest_event
-- Ids sort by the time they were made.
SELECT id, received_at FROM events ORDER BY id DESC LIMIT 1

-- name: find_chats
SELECT * FROM chats WHERE chat = :chat ORDER BY source

-- name: contacts_with_email
-- Also those that were joined into others: their email leads to nobody any more.
SELECT id FROM contacts WHERE LOWER(email) = LOWER(:email) AND erased_at IS NULL ORDER BY id

-- name: standings
-- Where these contacts stand at each destination.
SELECT d.subject, d.destination, d.state, d.remote_id FROM {rows r: id text} JOIN deliveries d ON d.subject = r.id
WHERE d.kind = 'contact' ORDER BY d.destination

-- name: joins_with
SELECT * FROM joins WHERE loser = :contact OR winner = :contact ORDER BY at DESC

-- name: strays_of
SELECT destination, remote_id, at FROM strays WHERE contact = :contact ORDER BY at DESC

-- name: undone_joins
SELECT loser, winner FROM joins WHERE state = 'undone'

-- name: drop_strays
-- The record belongs to somebody else after all.
DELETE FROM strays WHERE EXISTS (
  SELECT 1 FROM {rows r: destination text, contact text, remote_id text}
  WHERE r.destination = strays.destination AND r.contact = strays.contact AND r.remote_id = strays.remote_id
)

-- name: owed_already
-- Which of these subjects are known to a destination: what a page of `owe` adds is the rest. CROSS JOIN: SQLite keeps to
-- that order, and looks up each; else it reads the destination's whole index for every page.
SELECT d.subject FROM {rows r: id text} CROSS JOIN deliveries d
WHERE d.destination = :destination AND d.kind = :kind AND d.subject = r.id

-- name: park_chats
-- Due, but their contact has no record there (any more): they wait for it without a due time.
UPDATE deliveries SET due_at = NULL, lease_until = NULL FROM {rows r: id text} WHERE deliveries.id = r.id

-- name: free_stranded
-- No legal wait is that long, and nothing was owed or claimed in the future: it is left over from a clock that jumped.
UPDATE deliveries SET due_at = :now, owed_at = CASE WHEN owed_at > :now THEN :now ELSE owed_at END,
  ready_at = CASE WHEN ready_at > :now THEN :now ELSE ready_at END
WHERE destination = :destination AND kind = :kind AND state = 'pending' AND due_at > :now
  AND (due_at > :now + :absurd OR owed_at > :now + 60 OR claimed_at > :now + 60)

-- name: settled_after
SELECT id FROM deliveries WHERE id = :id AND (settled_at > :at OR claimed_at > :at)

-- name: free_paused
-- What waits only for a pause that a person may have ended. Chats that are not ready keep their time.
UPDATE deliveries SET due_at = :now
WHERE state = 'pending' AND due_at > :now AND ready_at <= :now AND attempts = 0
  AND destination IN (SELECT name FROM destinations WHERE needs_person = 1)

-- name: ask_persons_again
-- Where a person had to act, they may have: the next claim asks, as a probe.
UPDATE destinations SET paused_until = :now WHERE needs_person = 1 AND paused_until > :now

-- name: forget_probes
-- The one server of this file has just started: no probe is under way.
UPDATE destinations SET probe_until = NULL WHERE probe_until IS NOT NULL

-- name: holders
-- Which other persons of ours hold these remote records? Two people in one record is what must never be.
SELECT d.*, NULL AS joined, r.subject AS asked FROM {rows r: destination text, remote_id text, subject text}
JOIN deliveries d ON d.destination = r.destination AND d.kind = 'contact' AND d.remote_id = r.remote_id
  AND d.subject <> r.subject
JOIN contacts c ON c.id = d.subject AND c.joined IS NULL AND c.erased_at IS NULL

-- The checks of `ledger check`: each says how many rows are not as they must be, with an example to look at.

-- name: check_lost_chats
SELECT COUNT(*) AS n, MIN(chats.id) AS example FROM chats LEFT JOIN contacts c ON c.id = chats.contact
WHERE chats.contact IS NOT NULL AND c.id IS NULL

-- name: check_lost_identities
-- The example is whom it leads to: the value may be somebody's email.
SELECT COUNT(*) AS n, MIN(i.contact) AS example FROM identities i LEFT JOIN contacts c ON c.id = i.contact
WHERE c.id IS NULL

-- name: check_lost_deliveries
SELECT COUNT(*) AS n, MIN(d.id) AS example FROM deliveries d
LEFT JOIN contacts ON d.kind = 'contact' AND contacts.id = d.subject
LEFT JOIN chats ON d.kind IN ('chat', 'email') AND chats.id = d.subject
WHERE (d.kind = 'contact' AND contacts.id IS NULL) OR (d.kind IN ('chat', 'email') AND chats.id IS NULL)

-- name: check_lost_failures
SELECT COUNT(*) AS n, MIN(f.id) AS example FROM failures f LEFT JOIN deliveries d ON d.id = f.delivery
WHERE d.id IS NULL

-- name: check_lost_joins
SELECT COUNT(*) AS n, MIN(j.loser) AS example FROM joins j
LEFT JOIN contacts l ON l.id = j.loser LEFT JOIN contacts w ON w.id = j.winner
WHERE l.id IS NULL OR w.id IS NULL

-- name: check_lost_strays
SELECT COUNT(*) AS n, MIN(s.contact) AS example FROM strays s LEFT JOIN contacts c ON c.id = s.contact
WHERE c.id IS NULL

-- name: check_joined_to_nobody
-- Everybody is found from those who were joined into nobody; who is not, goes in a circle or to a contact that is gone.
WITH RECURSIVE found (id) AS (
  SELECT id FROM contacts WHERE joined IS NULL
  UNION ALL SELECT c.id FROM found JOIN contacts c ON c.joined = found.id
)
SELECT COUNT(*) AS n, MIN(contacts.id) AS example FROM contacts LEFT JOIN found ON found.id = contacts.id
WHERE found.id IS NULL

-- name: check_waiting_in_vain
-- While the contact itself is pending it is fine: that it was delivered will wake them.
WITH RECURSIVE up (delivery, destination, contact) AS (
  SELECT d.id, d.destination, chats.contact FROM deliveries d JOIN chats ON chats.id = d.subject
  WHERE d.kind = 'chat' AND d.state = 'pending' AND d.due_at IS NULL
  UNION SELECT up.delivery, up.destination, c.joined FROM up JOIN contacts c ON c.id = up.contact
  WHERE c.joined IS NOT NULL
)
SELECT COUNT(*) AS n, MIN(up.delivery) AS example FROM up JOIN contacts c ON c.id = up.contact AND c.joined IS NULL
JOIN deliveries d ON d.destination = up.destination AND d.kind = 'contact' AND d.subject = up.contact
WHERE d.remote_id IS NOT NULL AND d.state <> 'pending'

-- name: check_waiting_for_nobody
WITH RECURSIVE up (delivery, destination, contact) AS (
  SELECT d.id, d.destination, chats.contact FROM deliveries d JOIN chats ON chats.id = d.subject
  WHERE d.kind = 'chat' AND d.state = 'pending'
  UNION SELECT up.delivery, up.destination, c.joined FROM up JOIN contacts c ON c.id = up.contact
  WHERE c.joined IS NOT NULL
)
SELECT COUNT(*) AS n, MIN(up.delivery) AS example FROM up JOIN contacts c ON c.id = up.contact AND c.joined IS NULL
LEFT JOIN deliveries d ON d.destination = up.destination AND d.kind = 'contact' AND d.subject = up.contact
WHERE d.id IS NULL

-- name: check_contacts_without_time
-- Only chats wait without a due time.
SELECT COUNT(*) AS n, MIN(id) AS example FROM deliveries WHERE kind = 'contact' AND state = 'pending' AND due_at IS NULL

-- name: check_delivered_behind
SELECT COUNT(*) AS n, MIN(id) AS example FROM deliveries WHERE state = 'delivered' AND done < wanted

-- name: check_versions
-- What is wanted in a version that is never reached is sent for ever; what was done in one hides the news before it.
-- Merely more done than wanted is fine: so it is where a destination was away for a while, as an attempt carries the
-- newest version.
SELECT COUNT(*) AS n, MIN(d.id) AS example FROM deliveries d
LEFT JOIN contacts ON d.kind = 'contact' AND contacts.id = d.subject
LEFT JOIN chats ON d.kind = 'chat' AND chats.id = d.subject
WHERE d.wanted > COALESCE(contacts.version, chats.version) OR d.done > COALESCE(contacts.version, chats.version)

-- name: check_leases
SELECT COUNT(*) AS n, MIN(id) AS example FROM deliveries WHERE lease_until > :now + :far

-- name: check_identities_of_joined
SELECT COUNT(*) AS n, MIN(c.id) AS example FROM identities i JOIN contacts c ON c.id = i.contact
WHERE i.kind = 'email' AND c.joined IS NOT NULL

-- name: check_emails_without_identity
-- NOT IN: as NOT EXISTS, both databases look through all emails for each contact.
SELECT COUNT(*) AS n, MIN(c.id) AS example FROM contacts c
WHERE c.email IS NOT NULL AND c.joined IS NULL AND c.erased_at IS NULL
  AND c.id NOT IN (SELECT contact FROM identities WHERE kind = 'email')

-- name: check_shared_records
SELECT COUNT(*) AS n, MIN(example) AS example FROM (
  SELECT MIN(d.subject) AS example FROM deliveries d
  JOIN contacts c ON c.id = d.subject AND c.joined IS NULL AND c.erased_at IS NULL
  WHERE d.kind = 'contact' AND d.remote_id IS NOT NULL
  GROUP BY d.destination, d.remote_id HAVING COUNT(*) > 1
) AS shared

-- name: check_mails_without_row
-- A mail that is unknown or delivered was written down before it left.
SELECT COUNT(*) AS n, MIN(d.id) AS example FROM deliveries d LEFT JOIN emails e ON e.chat = d.subject
WHERE d.kind = 'email' AND d.state IN ('unknown', 'delivered') AND e.chat IS NULL

-- name: get_mark
SELECT value FROM marks WHERE name = :name

-- name: set_mark
INSERT INTO marks (name, value) VALUES (:name, :value) ON CONFLICT (name) DO UPDATE SET value = excluded.value

-- name: set_back_deliveries
-- The clock was set back: what waits by it ends as much earlier. Mails keep their hour.
UPDATE deliveries SET due_at = due_at + :by,
  ready_at = CASE WHEN ready_at > :now THEN ready_at + :by ELSE ready_at END,
  owed_at = CASE WHEN owed_at > :now THEN owed_at + :by ELSE owed_at END,
  claimed_at = CASE WHEN claimed_at > :now THEN claimed_at + :by ELSE claimed_at END,
  lease_until = CASE WHEN lease_until > :now THEN lease_until + :by ELSE lease_until END,
  settled_at = CASE WHEN settled_at > :now THEN settled_at + :by ELSE settled_at END
WHERE state = 'pending' AND kind <> 'email'
  AND (due_at > :now OR (due_at IS NULL AND ready_at > :now) OR lease_until > :now)

-- name: set_back_destinations
UPDATE destinations SET
  paused_at = CASE WHEN paused_at > :now THEN paused_at + :by ELSE paused_at END,
  pace = CASE WHEN pace > :now THEN pace + :by ELSE pace END,
  paused_until = CASE WHEN paused_until > :now THEN paused_until + :by ELSE paused_until END,
  probe_until = CASE WHEN probe_until > :now THEN probe_until + :by ELSE probe_until END
WHERE pace > :now OR paused_until > :now OR probe_until > :now

-- name: forget_pause
-- Another mailer: what closed the lane of the one before does not concern it.
UPDATE destinations SET paused_at = NULL, paused_until = NULL, probe_until = NULL, culprit = NULL, pauses = 0,
  needs_person = 0, suspects = '[]', reason = NULL, status = NULL
WHERE name = :name
