-- Up to when the transcript of a chat was pruned: what was said by then is no news when it is told again.

ALTER TABLE chats ADD COLUMN pruned_until DOUBLE PRECISION;

-- Of what was pruned before this was remembered: such a transcript is empty, and when its last line came is known still.
UPDATE chats SET pruned_until =
  CASE WHEN closed_at IS NULL OR closed_at < last_message_at THEN last_message_at ELSE closed_at END
WHERE transcript = '[]' AND last_message_at IS NOT NULL;

-- Where a pull that broke off would have gone on: older releases noted emails there. The next pull begins anew.
DELETE FROM cursors WHERE name LIKE 'pull:%';
