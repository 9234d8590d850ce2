-- The table that applications append to: docs/table.md is its contract.
--
-- position: the sequence gives numbers one by one, so that within a transaction, and behind a lock, they grow. ALWAYS: a
-- position of somebody's own would be read out of order.
-- share: a stream lies wholly in one of 64 shares. All spellings of the default tenant are in the same share.
-- The settings: a relay deletes all the time, so that vacuum has to come often, be quick, and not lock the table.
CREATE TABLE IF NOT EXISTS outbox (
  position      bigint GENERATED ALWAYS AS IDENTITY,
  tenant_id     text NOT NULL DEFAULT 'default',
  stream_id     text NOT NULL,
  stream_name   text,
  category      text,
  uuid          uuid NOT NULL DEFAULT gen_random_uuid(),
  name          text NOT NULL,
  version       bigint,
  created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  content_type  text,
  context       text NOT NULL DEFAULT '{}',
  publish_after timestamptz,
  expires_at    timestamptz,
  data          text,
  data_bytes    bytea,
  share         smallint GENERATED ALWAYS AS ((hashtextextended(
                  coalesce(nullif(tenant_id, ''), 'default') || chr(31) || stream_id COLLATE "C", 0) & 63)::smallint) STORED,
  PRIMARY KEY (share, position),
  CONSTRAINT outbox_has_data CHECK (num_nonnulls(data, data_bytes) = 1)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
        vacuum_truncate = off);

-- An explicit NULL, which many mappers write, stands for the default.
CREATE OR REPLACE FUNCTION outbox_defaults() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.tenant_id := coalesce(NEW.tenant_id, 'default');
  NEW.uuid := coalesce(NEW.uuid, gen_random_uuid());
  NEW.created_at := coalesce(NEW.created_at, clock_timestamp());
  NEW.context := coalesce(NEW.context, '{}');
  RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER outbox_defaults BEFORE INSERT ON outbox FOR EACH ROW
  WHEN (NEW.tenant_id IS NULL OR NEW.uuid IS NULL OR NEW.created_at IS NULL OR NEW.context IS NULL)
  EXECUTE FUNCTION outbox_defaults();
