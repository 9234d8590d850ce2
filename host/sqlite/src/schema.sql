-- The relay's own tables, version 1, beside the table of outbox.sql.

-- Entries of the outbox that failed, and wait for a retry.
CREATE TABLE outbox_waiting (
  position    INTEGER PRIMARY KEY,
  tenant_id,
  stream_id,
  attempts    INTEGER NOT NULL,
  host_deaths INTEGER NOT NULL,
  failed_at_ms INTEGER NOT NULL,
  retry_at_ms INTEGER NOT NULL,
  reason      TEXT NOT NULL
);

-- Failed attempts, kept for as long as their entry, or its dead letter.
CREATE TABLE outbox_attempts (
  id       INTEGER PRIMARY KEY,
  position INTEGER NOT NULL,
  attempt  INTEGER NOT NULL,
  at_ms    INTEGER NOT NULL,
  outcome  TEXT NOT NULL,
  reason   TEXT NOT NULL,
  digest   TEXT,
  stderr   TEXT NOT NULL
);
CREATE INDEX outbox_attempts_position ON outbox_attempts (position);

-- Entries that were set aside, whole. The columns are those of the outbox, without types, so that any value stays as it
-- is.
CREATE TABLE outbox_dead_letters (
  position     INTEGER PRIMARY KEY,
  tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context, data,
  attempts     INTEGER NOT NULL,
  outcome      TEXT NOT NULL,
  reason       TEXT NOT NULL,
  died_at_ms   INTEGER NOT NULL,
  parks_stream INTEGER NOT NULL
);
CREATE INDEX outbox_dead_letters_parking ON outbox_dead_letters (position) WHERE parks_stream;

-- What operators did.
CREATE TABLE outbox_audit (
  id       INTEGER PRIMARY KEY,
  at_ms    INTEGER NOT NULL,
  who      TEXT NOT NULL,
  act      TEXT NOT NULL,
  position INTEGER,
  uuid     TEXT,
  detail   TEXT NOT NULL
);

-- schema_version: the version of these tables. It is here because PRAGMA user_version belongs to the application.
-- generation: raised by each act of an operator, so that a relay at work notices it.
CREATE TABLE outbox_meta (
  key   TEXT PRIMARY KEY,
  value INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO outbox_meta VALUES ('schema_version', 1), ('generation', 0);
