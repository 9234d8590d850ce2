-- The relay's own tables, version 4: entries that are put off until they are due.

-- Whole entries, which are not in the table outbox meanwhile. The columns are those of the outbox, without types, so that
-- any value stays as it is. wake_ms: when to bring it back; later than due_ms if the table outbox has refused it.
CREATE TABLE outbox_delayed (
  id       INTEGER PRIMARY KEY,
  position INTEGER NOT NULL,
  due_ms   INTEGER NOT NULL,
  wake_ms  INTEGER NOT NULL,
  refused  TEXT,
  tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context, publish_after,
  expires_at, data
);
CREATE INDEX outbox_delayed_wake ON outbox_delayed (wake_ms, position);
-- An application cancels an entry by its uuid.
CREATE INDEX outbox_delayed_uuid ON outbox_delayed (uuid);

-- The columns that the table outbox has beside ours.
CREATE TABLE outbox_delayed_columns (
  delayed INTEGER NOT NULL,
  name    TEXT NOT NULL,
  value,
  PRIMARY KEY (delayed, name)
) WITHOUT ROWID;
CREATE TRIGGER outbox_delayed_gone AFTER DELETE ON outbox_delayed BEGIN
  DELETE FROM outbox_delayed_columns WHERE delayed = old.id;
END;
