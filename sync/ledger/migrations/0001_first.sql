-- Times are epoch seconds (UTC). JSON stands in TEXT. The same text runs on SQLite and on PostgreSQL.

CREATE TABLE events (
  id          TEXT PRIMARY KEY,
  source      TEXT NOT NULL,
  key         TEXT NOT NULL,              -- keyed hash of what the event says: the deduplication
  type        TEXT NOT NULL,
  name        TEXT NOT NULL,              -- the vendor's own word
  chat        TEXT,
  occurred_at DOUBLE PRECISION NOT NULL,
  received_at DOUBLE PRECISION NOT NULL,
  payload     TEXT NOT NULL,
  state       TEXT NOT NULL CHECK (state IN ('applied', 'kept', 'unreadable')),
  flags       TEXT NOT NULL,              -- JSON list
  error       TEXT,
  copies      INTEGER NOT NULL DEFAULT 1, -- how often it was delivered to us
  UNIQUE (source, key)
);
CREATE INDEX events_unreadable ON events (received_at) WHERE state = 'unreadable';
CREATE INDEX events_chat ON events (source, chat);
CREATE INDEX events_state ON events (state, copies);  -- counting them must not read every payload

CREATE TABLE contacts (
  id         TEXT PRIMARY KEY,
  uid        TEXT NOT NULL UNIQUE,        -- ours, stable, sent to CRMs that take an external id
  name       TEXT,
  email      TEXT,
  phone      TEXT,
  attributes TEXT NOT NULL,               -- JSON object
  clocks     TEXT NOT NULL,               -- JSON object: field -> the order key that set it
  version    INTEGER NOT NULL,
  joined     TEXT REFERENCES contacts (id),
  created_at DOUBLE PRECISION NOT NULL,
  updated_at DOUBLE PRECISION NOT NULL,
  erased_at  DOUBLE PRECISION
);
CREATE INDEX contacts_joined ON contacts (joined) WHERE joined IS NOT NULL;

CREATE TABLE identities (
  kind    TEXT NOT NULL,
  value   TEXT NOT NULL,
  contact TEXT NOT NULL REFERENCES contacts (id),
  PRIMARY KEY (kind, value, contact)
);
CREATE UNIQUE INDEX identities_email ON identities (kind, value) WHERE kind = 'email';
CREATE INDEX identities_contact ON identities (contact);

CREATE TABLE chats (
  id              TEXT PRIMARY KEY,
  source          TEXT NOT NULL,
  chat            TEXT NOT NULL,          -- carries its family: v1:172
  contact         TEXT REFERENCES contacts (id),
  email           TEXT,                   -- the email it said last
  said            TEXT NOT NULL,          -- JSON object: field -> [value, order key]
  started_at      DOUBLE PRECISION,
  accepted_at     DOUBLE PRECISION,
  closed_at       DOUBLE PRECISION,
  wait            DOUBLE PRECISION,
  duration        DOUBLE PRECISION,
  agent           TEXT,
  transcript      TEXT NOT NULL,          -- JSON list
  last_message_at DOUBLE PRECISION,
  version         INTEGER NOT NULL,
  updated_at      DOUBLE PRECISION NOT NULL,
  UNIQUE (source, chat)
);
CREATE INDEX chats_contact ON chats (contact);

CREATE TABLE deliveries (
  id          TEXT PRIMARY KEY,
  destination TEXT NOT NULL,
  kind        TEXT NOT NULL,
  subject     TEXT NOT NULL,
  state       TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'ignored', 'unknown', 'dead')),
  wanted      INTEGER NOT NULL,           -- the version that is owed
  done        INTEGER NOT NULL DEFAULT 0, -- the version that the last settled attempt carried
  claim       INTEGER NOT NULL DEFAULT 0, -- the fence: only grows
  claimed_at  DOUBLE PRECISION,           -- when the newest claim was made
  attempts    INTEGER NOT NULL DEFAULT 0, -- failures of this subject since it was last owed
  waited      DOUBLE PRECISION NOT NULL DEFAULT 0, -- seconds of backoff granted since then: its age
  owed_at     DOUBLE PRECISION NOT NULL,
  ready_at    DOUBLE PRECISION NOT NULL,  -- not to be sent before
  due_at      DOUBLE PRECISION,           -- NULL: waits for its contact
  lease_until DOUBLE PRECISION,           -- NULL: nobody holds it
  again       INTEGER NOT NULL DEFAULT 0, -- 1: a late answer arrived during the claim, so send once more
  replayed    INTEGER NOT NULL DEFAULT 0, -- 1: owed by replay or resync, not by a new event
  intended_at DOUBLE PRECISION,           -- when an attempt announced that it would create the record
  remote_id   TEXT,
  ours        INTEGER NOT NULL DEFAULT 0, -- 1: we created the remote record
  error       TEXT,                       -- the reason of its state, for a person
  settled_at  DOUBLE PRECISION,
  UNIQUE (destination, kind, subject)
);
CREATE INDEX deliveries_due ON deliveries (destination, kind, due_at) WHERE state = 'pending' AND due_at IS NOT NULL;
CREATE INDEX deliveries_subject ON deliveries (subject);
CREATE INDEX deliveries_remote ON deliveries (remote_id) WHERE kind = 'contact' AND remote_id IS NOT NULL;

CREATE TABLE failures (
  id       TEXT PRIMARY KEY,
  delivery TEXT NOT NULL,
  at       DOUBLE PRECISION NOT NULL,
  outcome  TEXT NOT NULL,
  status   INTEGER,
  error    TEXT NOT NULL
);
CREATE INDEX failures_at ON failures (at);
CREATE INDEX failures_delivery ON failures (delivery);

CREATE TABLE joins (
  loser       TEXT NOT NULL REFERENCES contacts (id),
  winner      TEXT NOT NULL REFERENCES contacts (id),
  state       TEXT NOT NULL CHECK (state IN ('joined', 'possible', 'undone')),
  reason      TEXT NOT NULL,
  at          DOUBLE PRECISION NOT NULL,
  PRIMARY KEY (loser, winner)
);

CREATE TABLE strays (
  destination TEXT NOT NULL,
  contact     TEXT NOT NULL REFERENCES contacts (id),
  remote_id   TEXT NOT NULL,
  at          DOUBLE PRECISION NOT NULL,
  PRIMARY KEY (destination, remote_id)
);

CREATE TABLE destinations (
  name         TEXT PRIMARY KEY,
  pace         DOUBLE PRECISION NOT NULL DEFAULT 0, -- GCRA: when the next call would be exactly on time
  paused_at    DOUBLE PRECISION,          -- when the pause began that is still on
  paused_until DOUBLE PRECISION,          -- NULL: not paused
  probe_until  DOUBLE PRECISION,          -- the one call that may end the pause is under way until
  culprit      TEXT,                      -- the delivery that closed the lane: another one probes, where there is one
  pauses       INTEGER NOT NULL DEFAULT 0, -- pauses in a row: the backoff
  needs_person INTEGER NOT NULL DEFAULT 0,
  suspects     TEXT NOT NULL DEFAULT '[]', -- JSON list: the different subjects of the 500s in a row
  reason       TEXT,
  status       INTEGER
);

CREATE TABLE counters (name TEXT PRIMARY KEY, n INTEGER NOT NULL, at DOUBLE PRECISION NOT NULL);
CREATE TABLE alarms (key TEXT PRIMARY KEY, text TEXT NOT NULL, raised_at DOUBLE PRECISION NOT NULL,
  cleared_at DOUBLE PRECISION, told_at DOUBLE PRECISION, told_clear_at DOUBLE PRECISION);
CREATE TABLE marks (name TEXT PRIMARY KEY, value TEXT NOT NULL);
