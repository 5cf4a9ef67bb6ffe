-- The queries of the follow-up emails (mailing.py). See queries.sql for how they are written.

-- name: owe_mails
-- Decided anew at every event of a chat, until sending has begun.
INSERT INTO deliveries (id, destination, kind, subject, state, wanted, owed_at, ready_at, due_at, error)
SELECT r.id, r.destination, 'email', r.subject, r.state, 1, :now, COALESCE(r.due_at, :now), r.due_at, r.error
FROM {rows r: id text, destination text, subject text, state text, due_at real, error text}
WHERE true
ON CONFLICT (destination, kind, subject) DO UPDATE SET state = excluded.state, ready_at = excluded.ready_at,
  due_at = excluded.due_at, error = excluded.error,
  owed_at = CASE deliveries.state WHEN 'pending' THEN deliveries.owed_at ELSE excluded.owed_at END
WHERE deliveries.state IN ('pending', 'ignored')
  AND NOT EXISTS (SELECT 1 FROM emails WHERE emails.chat = deliveries.subject)

-- name: mail_history
-- For each chat: when its person's newest mail about another chat was begun, and how many chats began after it was over.
WITH RECURSIVE asked (chat, root, over_at) AS (
  SELECT r.chat, r.contact, r.over_at FROM {rows r: chat text, contact text, over_at real}
), family (root, id) AS (
  SELECT asked.root, asked.root FROM asked
  UNION SELECT family.root, c.id FROM family JOIN contacts c ON c.joined = family.id
)
SELECT asked.chat,
  (SELECT MAX(e.begun_at) FROM family f JOIN chats x ON x.contact = f.id JOIN emails e ON e.chat = x.id
    WHERE f.root = asked.root AND x.id <> asked.chat AND e.went = 1) AS last_mail_at,
  (SELECT COUNT(*) FROM family f JOIN chats x ON x.contact = f.id
    WHERE f.root = asked.root AND x.id <> asked.chat AND x.started_at > asked.over_at) AS newer_chats
FROM asked

-- name: begun_since
SELECT begun_at FROM emails WHERE went = 1 AND begun_at > :since ORDER BY begun_at

-- name: suppressed
SELECT s.hash, s.reason FROM {rows r: hash text} JOIN suppressions s ON s.hash = r.hash

-- name: suppress
INSERT INTO suppressions (hash, reason, at) VALUES (:hash, :reason, :now) ON CONFLICT (hash) DO NOTHING

-- name: unsuppress
DELETE FROM suppressions WHERE hash = :hash

-- name: suppressions
SELECT hash, reason, at FROM suppressions ORDER BY at DESC LIMIT :limit

-- name: count_suppressions
SELECT reason, COUNT(*) AS n FROM suppressions GROUP BY reason ORDER BY n DESC

-- name: get_mail
SELECT * FROM emails WHERE chat = :chat AND template = :template

-- name: mail_subject
-- A chat, and whom it belongs to, joins followed.
WITH RECURSIVE up (id) AS (
  SELECT contact FROM chats WHERE chats.id = :chat AND contact IS NOT NULL
  UNION SELECT c.joined FROM up JOIN contacts c ON c.id = up.id WHERE c.joined IS NOT NULL
)
SELECT chats.*, (SELECT c.id FROM up JOIN contacts c ON c.id = up.id WHERE c.joined IS NULL) AS root
FROM chats WHERE chats.id = :chat

-- name: write_mail
-- Before it leaves: from now on it counts as gone out, until an attempt is known to have sent nothing.
INSERT INTO emails (chat, template, mailer, turn, key, rendered, begun_at, went)
VALUES (:chat, :template, :mailer, :turn, :key, :rendered, :now, 1)
ON CONFLICT (chat, template) DO UPDATE SET mailer = excluded.mailer, turn = excluded.turn, key = excluded.key,
  rendered = excluded.rendered, begun_at = excluded.begun_at, went = 1

-- name: mails_not_sent
UPDATE emails SET went = 0 FROM {rows r: chat text} WHERE emails.chat = r.chat

-- name: mails_not_sent_now
-- Only what was handed over for the first time: of a mail that is repeated, an attempt before may have gone out.
UPDATE emails SET went = 0 FROM {rows r: chat text, delivery text} JOIN deliveries d ON d.id = r.delivery
WHERE emails.chat = r.chat AND emails.begun_at >= d.claimed_at

-- name: mails_begun_before
-- Of these deliveries those whose mail an attempt before the present one may have sent.
SELECT d.id FROM {rows r: id text} JOIN deliveries d ON d.id = r.id JOIN emails e ON e.chat = d.subject
WHERE d.kind = 'email' AND e.went = 1 AND e.begun_at < d.claimed_at

-- name: resume_mails
-- We ended in the middle of handing over, and this mailer can be asked again under the same key without a second mail.
UPDATE deliveries SET state = 'pending', due_at = :now, lease_until = NULL
WHERE destination = :destination AND kind = 'email' AND state = 'unknown' AND lease_until IS NOT NULL
  AND (lease_until <= :now OR lease_until > :now + 86400)
  AND subject IN (SELECT chat FROM emails WHERE mailer = :mailer AND went = 1 AND begun_at > :now - :window)

-- name: unknown_mails
-- Nobody knows whether these went out: a person decides. One that is being sent right now is none of them.
SELECT d.subject, chats.chat, chats.source, d.error, e.begun_at, e.mailer FROM deliveries d
JOIN chats ON chats.id = d.subject JOIN emails e ON e.chat = d.subject
WHERE d.kind = 'email' AND d.state = 'unknown' AND (d.lease_until IS NULL OR d.lease_until <= :now)
ORDER BY e.begun_at

-- name: mail_delivery
SELECT d.*, NULL AS joined FROM deliveries d
WHERE d.destination = :destination AND d.kind = 'email' AND d.subject = :chat {locked d}

-- name: sending_mails
-- How many are being handed over right now: until that is over they stand as unknown.
SELECT COUNT(*) AS n FROM deliveries
WHERE destination = :destination AND kind = 'email' AND state = 'unknown' AND lease_until > :now

-- name: followups
-- What became of the follow-ups of these chats.
SELECT d.*, e.mailer, e.begun_at FROM {rows r: id text}
JOIN deliveries d ON d.destination = :destination AND d.kind = 'email' AND d.subject = r.id
LEFT JOIN emails e ON e.chat = d.subject

-- name: chats_ending
-- Chats by the last part of the source's id: 172 where the source says v1:172.
SELECT id, chat FROM chats
WHERE LENGTH(chat) > LENGTH(:ending) AND SUBSTR(chat, LENGTH(chat) - LENGTH(:ending) + 1) = :ending
ORDER BY source, chat LIMIT 10

-- name: get_suppression
SELECT reason, at FROM suppressions WHERE hash = :hash
