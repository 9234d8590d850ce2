-- The relays' own tables, version 1, beside the table of outbox.sql.

-- One row for each relay: its lease. Whatever a relay changes, it changes only while its row is there.
-- presence: the key of an advisory lock that the relay's connection holds while it lives.
CREATE TABLE outbox_relay (
  id            uuid PRIMARY KEY,
  name          text NOT NULL,
  ttl           interval NOT NULL,
  expires_at    timestamptz NOT NULL,
  presence      bigint NOT NULL,
  config_digest text,
  state         text
) WITH (fillfactor = 50);

-- Who has which share of the streams. unclean: its last holder did not release it.
CREATE TABLE outbox_share (
  share         smallint PRIMARY KEY,
  relay         uuid REFERENCES outbox_relay ON DELETE SET NULL,
  taken         bigint NOT NULL DEFAULT 0,
  unclean       boolean NOT NULL DEFAULT false,
  registry_seen bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO outbox_share (share) SELECT generate_series(0, 63);

-- Entries of the outbox that failed, and wait for a retry. undeletable: the entry was delivered, and the database refused
-- to remove it. It is not published again.
CREATE TABLE outbox_waiting (
  position     bigint NOT NULL,
  share        smallint NOT NULL,
  uuid         uuid NOT NULL,
  tenant_id    text,
  stream_id    text,
  attempts     bigint NOT NULL,
  host_deaths  bigint NOT NULL,
  failed_at_ms bigint NOT NULL,
  retry_at_ms  bigint NOT NULL,
  reason       text NOT NULL,
  delivered_to text,
  undeletable  boolean NOT NULL DEFAULT false,
  PRIMARY KEY (position, share)
);

-- Failed attempts, kept for as long as their entry, or its dead letter.
CREATE TABLE outbox_attempts (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  position   bigint NOT NULL,
  uuid       uuid NOT NULL,
  attempt    bigint NOT NULL,
  at_ms      bigint NOT NULL,
  outcome    text NOT NULL,
  reason     text NOT NULL,
  digest     text,
  stderr     text NOT NULL,
  publisher  text,
  given_back boolean NOT NULL DEFAULT false
);
CREATE INDEX outbox_attempts_position ON outbox_attempts (position);

-- Entries that were set aside, whole.
CREATE TABLE outbox_dead_letters (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  position      bigint NOT NULL,
  tenant_id     text,
  stream_id     text,
  stream_name   text,
  category      text,
  uuid          uuid,
  name          text,
  version       bigint,
  created_at    timestamptz,
  content_type  text,
  context       text,
  publish_after timestamptz,
  expires_at    timestamptz,
  data          text,
  data_bytes    bytea,
  attempts      bigint NOT NULL,
  outcome       text NOT NULL,
  reason        text NOT NULL,
  died_at_ms    bigint NOT NULL,
  parks_stream  boolean NOT NULL,
  delivered_to  text
);
CREATE INDEX outbox_dead_letters_position ON outbox_dead_letters (position);
CREATE INDEX outbox_dead_letters_parking ON outbox_dead_letters (position) WHERE parks_stream;

-- Entries that are put off until they are due, whole. They are not in the table outbox meanwhile. wake_ms: when to bring it
-- back; later than due_ms if the table outbox has refused it.
CREATE TABLE outbox_delayed (
  id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  position      bigint NOT NULL,
  due_ms        bigint NOT NULL,
  wake_ms       bigint NOT NULL,
  refused       text,
  tenant_id     text,
  stream_id     text,
  stream_name   text,
  category      text,
  uuid          uuid NOT NULL,
  name          text,
  version       bigint,
  created_at    timestamptz,
  content_type  text,
  context       text,
  publish_after timestamptz,
  expires_at    timestamptz,
  data          text,
  data_bytes    bytea
);
CREATE INDEX outbox_delayed_wake ON outbox_delayed (wake_ms, position);
-- An application cancels an entry by its uuid.
CREATE INDEX outbox_delayed_uuid ON outbox_delayed (uuid);

-- What operators did.
CREATE TABLE outbox_audit (
  id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at_ms    bigint NOT NULL,
  who      text NOT NULL,
  act      text NOT NULL,
  position bigint,
  uuid     text,
  detail   text NOT NULL
);

-- The bytes of publishers, each content once; digest is their sha256, in hex.
CREATE TABLE outbox_modules (
  digest text PRIMARY KEY,
  size   bigint NOT NULL,
  bytes  bytea NOT NULL
);
ALTER TABLE outbox_modules ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- Every publisher that has or had versions, and the highest number that was given.
CREATE TABLE outbox_publishers (
  publisher    text PRIMARY KEY,
  last_version bigint NOT NULL
);

-- requested_at: the registry's generation at the request. canary_share: in parts of 10,000. tries: activations that have
-- begun and not ended.
CREATE TABLE outbox_versions (
  publisher       text COLLATE "C" NOT NULL,
  version         bigint NOT NULL,
  digest          text NOT NULL REFERENCES outbox_modules (digest),
  state           text NOT NULL,
  reason          text NOT NULL,
  note            text NOT NULL,
  deployed_at_ms  bigint NOT NULL,
  deployed_by     text NOT NULL,
  requested_at    bigint NOT NULL,
  activated_at_ms bigint,
  canary_since_ms bigint,
  canary_share    bigint,
  tries           bigint NOT NULL,
  delivered       bigint NOT NULL,
  failed          bigint NOT NULL,
  trapped         bigint NOT NULL,
  PRIMARY KEY (publisher, version)
);

-- schema_version: the version of these tables. generation: raised by each act of an operator; registry_generation: by each
-- change of a version, so that a relay at work notices them.
CREATE TABLE outbox_meta (
  key   text PRIMARY KEY,
  value bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO outbox_meta VALUES ('schema_version', 1), ('generation', 0), ('registry_generation', 0);
