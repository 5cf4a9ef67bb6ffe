-- Read-only views with plain names and ISO times, for `sqlite-utils`, Datasette or psql beside the running service.

CREATE VIEW people AS
SELECT id, name, email, phone, version, {iso created_at} AS created, {iso updated_at} AS changed
FROM contacts WHERE joined IS NULL AND erased_at IS NULL;

CREATE VIEW conversations AS
SELECT chats.id, chats.source, chats.chat, chats.contact, people.name, people.email,
  {iso chats.started_at} AS started, {iso chats.closed_at} AS closed, chats.wait, chats.duration, chats.agent
FROM chats LEFT JOIN people ON people.id = chats.contact;

CREATE VIEW received AS
SELECT id, source, name AS event, chat, state, error, copies, {iso occurred_at} AS occurred, {iso received_at} AS received
FROM events;

CREATE VIEW outstanding AS
SELECT id, destination, kind, subject, state, error AS reason, attempts, {iso owed_at} AS owed, {iso due_at} AS due
FROM deliveries WHERE state IN ('pending', 'unknown', 'dead');
