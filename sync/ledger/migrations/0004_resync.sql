-- What a scheduled re-sync remembers, and whom we were asked to forget.

CREATE TABLE cursors (
  name  TEXT PRIMARY KEY,       -- what is read page by page: pull:acquire, verify:hubspot ...
  value TEXT NOT NULL,          -- JSON: where to go on
  at    DOUBLE PRECISION NOT NULL
);

CREATE TABLE locks (
  name  TEXT PRIMARY KEY,       -- what only one may do at a time
  owner TEXT NOT NULL,          -- who does it: host and process
  since DOUBLE PRECISION NOT NULL,
  until DOUBLE PRECISION NOT NULL -- a lease: who died lets go by itself
);

CREATE TABLE erasures (
  hash TEXT PRIMARY KEY,        -- keyed hash of an email, a phone, a visitor id or a chat of a person who was forgotten
  at   DOUBLE PRECISION NOT NULL -- what was said at or before this time is not taken any more
);
