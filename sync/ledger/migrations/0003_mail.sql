-- The follow-up emails. What goes out is written down before it does.

CREATE TABLE emails (
  chat     TEXT NOT NULL,
  template TEXT NOT NULL,
  mailer   TEXT NOT NULL,             -- which vendor it was handed to
  turn     INTEGER NOT NULL,          -- how often it was written: each time it has a new key
  key      TEXT NOT NULL,             -- the idempotency key
  rendered TEXT,                      -- JSON: the mail as it went out; NULL once it was pruned
  begun_at DOUBLE PRECISION NOT NULL, -- when sending began
  went     INTEGER NOT NULL,          -- 1: it went out, or may have; 0: it is known that it did not
  PRIMARY KEY (chat, template)
);
CREATE INDEX emails_begun ON emails (begun_at);

CREATE TABLE suppressions (
  hash   TEXT PRIMARY KEY,            -- keyed hash of the address, so that it outlives the person's erasure
  reason TEXT NOT NULL,
  at     DOUBLE PRECISION NOT NULL
);
