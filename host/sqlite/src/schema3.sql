-- The relay's own tables, version 3: records of an entry contain its uuid too. A position alone may be given again, in
-- a table that was restored or rebuilt, or that has no AUTOINCREMENT.

-- undeletable: the entry was delivered, and the database refused to remove it. It is not published again.
ALTER TABLE outbox_waiting ADD COLUMN uuid;
ALTER TABLE outbox_waiting ADD COLUMN undeletable INTEGER NOT NULL DEFAULT 0;
UPDATE outbox_waiting SET uuid = (SELECT uuid FROM outbox WHERE outbox.position = outbox_waiting.position);

ALTER TABLE outbox_attempts ADD COLUMN uuid;
UPDATE outbox_attempts SET uuid = coalesce(
  (SELECT uuid FROM outbox_dead_letters WHERE outbox_dead_letters.position = outbox_attempts.position),
  (SELECT uuid FROM outbox WHERE outbox.position = outbox_attempts.position));

-- Copied twice instead of renamed: SQLite refuses to rename a table while any view or trigger of the application is
-- broken.
CREATE TABLE outbox_dead_letters_of_version_2 AS SELECT * FROM outbox_dead_letters;
DROP TABLE outbox_dead_letters;
CREATE TABLE outbox_dead_letters (
  id           INTEGER PRIMARY KEY,
  position     INTEGER NOT NULL,
  tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context, data,
  attempts     INTEGER NOT NULL,
  outcome      TEXT NOT NULL,
  reason       TEXT NOT NULL,
  died_at_ms   INTEGER NOT NULL,
  parks_stream INTEGER NOT NULL,
  delivered_to TEXT
);
INSERT INTO outbox_dead_letters (position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at,
                                 content_type, context, data, attempts, outcome, reason, died_at_ms, parks_stream,
                                 delivered_to)
SELECT position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context,
       data, attempts, outcome, reason, died_at_ms, parks_stream, delivered_to
FROM outbox_dead_letters_of_version_2 ORDER BY position;
DROP TABLE outbox_dead_letters_of_version_2;
CREATE INDEX outbox_dead_letters_position ON outbox_dead_letters (position);
CREATE INDEX outbox_dead_letters_parking ON outbox_dead_letters (position) WHERE parks_stream;

-- The columns that the table outbox has beside ours: kept with a dead letter, and put back with it.
CREATE TABLE outbox_dead_letter_columns (
  dead_letter INTEGER NOT NULL,
  name        TEXT NOT NULL,
  value,
  PRIMARY KEY (dead_letter, name)
) WITHOUT ROWID;
