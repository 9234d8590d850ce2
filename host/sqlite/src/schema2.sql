-- The relay's own tables, version 2: the versions of publishers.

-- The bytes of publishers, each content once; digest is their sha256, in hex.
CREATE TABLE outbox_modules (
  digest TEXT PRIMARY KEY,
  size   INTEGER NOT NULL,
  bytes  BLOB NOT NULL
);

-- Every publisher that has or had versions, and the highest number that was given. It stays when the versions are
-- removed.
CREATE TABLE outbox_publishers (
  publisher    TEXT PRIMARY KEY,
  last_version INTEGER NOT NULL
) WITHOUT ROWID;

-- requested_at: the registry's generation at the request; the version with the highest was requested last.
-- canary_share: in parts of 10,000. tries: activations that have begun and not ended.
CREATE TABLE outbox_versions (
  publisher       TEXT NOT NULL,
  version         INTEGER NOT NULL,
  digest          TEXT NOT NULL REFERENCES outbox_modules (digest),
  state           TEXT NOT NULL,
  reason          TEXT NOT NULL,
  note            TEXT NOT NULL,
  deployed_at_ms  INTEGER NOT NULL,
  deployed_by     TEXT NOT NULL,
  requested_at    INTEGER NOT NULL,
  activated_at_ms INTEGER,
  canary_since_ms INTEGER,
  canary_share    INTEGER,
  tries           INTEGER NOT NULL,
  delivered       INTEGER NOT NULL,
  failed          INTEGER NOT NULL,
  trapped         INTEGER NOT NULL,
  PRIMARY KEY (publisher, version)
) WITHOUT ROWID;

-- publisher: the publisher that made the attempt. given_back: whether it no longer counts, because a canary made it
-- that was later withdrawn.
ALTER TABLE outbox_attempts ADD COLUMN publisher TEXT;
ALTER TABLE outbox_attempts ADD COLUMN given_back INTEGER NOT NULL DEFAULT 0;
-- The publishers that have already delivered the entry.
ALTER TABLE outbox_waiting ADD COLUMN delivered_to TEXT;
ALTER TABLE outbox_dead_letters ADD COLUMN delivered_to TEXT;

-- registry_generation: raised by each change of a version, so that a relay at work notices it.
INSERT INTO outbox_meta VALUES ('registry_generation', 0);
