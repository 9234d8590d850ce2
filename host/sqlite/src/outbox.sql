-- The table that applications append to: docs/table.md is its contract.
--
-- This is the hot table. It has no state, and no index beside its key, since each would cost a fifth of the relay's
-- speed. AUTOINCREMENT: otherwise an emptied table would give old positions again. ON CONFLICT REPLACE: an explicit
-- NULL, which many mappers write, stands for the default. data comes last, so that the columns before it can be read
-- without it.
CREATE TABLE IF NOT EXISTS outbox (
  position     INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant_id    TEXT NOT NULL ON CONFLICT REPLACE DEFAULT 'default',
  stream_id    TEXT NOT NULL,
  stream_name  TEXT,
  category     TEXT,
  uuid         TEXT NOT NULL ON CONFLICT REPLACE DEFAULT (lower(
                 hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-' ||
                 substr('89AB', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))),
  name         TEXT NOT NULL,
  version      INTEGER,
  created_at   TEXT NOT NULL ON CONFLICT REPLACE DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
  content_type TEXT,
  context      TEXT NOT NULL ON CONFLICT REPLACE DEFAULT '{}',
  publish_after TEXT,
  expires_at   TEXT,
  data         TEXT NOT NULL
);
