//! The tables, and their versions.

use outbox_engine::StorageError;

use super::error::{Fault, PostgresError};
use super::link::{Link, quoted};

/// The version of the tables that this program works with.
pub const SCHEMA_VERSION: i64 = 1;

/// The table that applications append to. It is made if it is missing: somebody may have dropped it.
const OUTBOX: &str = include_str!("outbox.sql");
/// The scripts that upgrade version n - 1 to version n, from n = 1 on.
const STEPS: [&str; 1] = [include_str!("schema.sql")];

/// Only one program makes or upgrades the tables at a time.
const INIT_LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('outbox-wasm init ' || current_schema(), 0))";
const COLUMNS: &str = "
    SELECT attname::text, atttypid::regtype::text FROM pg_attribute
    WHERE attrelid = to_regclass('outbox') AND attnum > 0 AND NOT attisdropped";
/// The columns of the table `outbox`, with their types.
const EXPECTED: [(&str, &str); 16] = [
    ("position", "bigint"),
    ("tenant_id", "text"),
    ("stream_id", "text"),
    ("stream_name", "text"),
    ("category", "text"),
    ("uuid", "uuid"),
    ("name", "text"),
    ("version", "bigint"),
    ("created_at", "timestamp with time zone"),
    ("content_type", "text"),
    ("context", "text"),
    ("publish_after", "timestamp with time zone"),
    ("expires_at", "timestamp with time zone"),
    ("data", "text"),
    ("data_bytes", "bytea"),
    ("share", "smallint"),
];

/// What [`PostgresOutbox::init`](super::PostgresOutbox::init) did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initialised {
    /// The version that was there before; 0 if there was none.
    pub before: i64,
    /// The version that is there now.
    pub now: i64,
}

pub(super) fn init(link: &mut Link, schema: &str) -> Result<Initialised, Fault> {
    link.transaction(|link| {
        let there = "SELECT 1 FROM pg_namespace WHERE nspname = $1";
        if link.first(there, &[&schema])?.is_none() {
            link.script(&format!("CREATE SCHEMA {}", quoted(schema)))?;
        }
        link.query(INIT_LOCK, &[])?;
        let before = version(link)?;
        check_not_newer(before, schema)?;
        check_shape(link, schema)?;
        link.script(OUTBOX)?;
        for (step, sql) in (1..).zip(STEPS).filter(|(step, _)| *step > before) {
            link.script(sql)?;
            link.execute("UPDATE outbox_meta SET value = $1 WHERE key = 'schema_version'", &[&step])?;
        }
        Ok(Initialised { before, now: SCHEMA_VERSION })
    })
}

/// The statements that make the tables in a schema, for people's own migrations.
pub(super) fn script(schema: &str) -> String {
    let schema = quoted(schema);
    let steps = STEPS.concat();
    format!("CREATE SCHEMA IF NOT EXISTS {schema};\nSET search_path = {schema}, pg_catalog;\n\n{OUTBOX}\n{steps}")
}

/// Whether this program can work with the outbox in this schema.
pub(super) fn check(link: &mut Link, schema: &str) -> Result<(), Fault> {
    let found = version(link)?;
    check_not_newer(found, schema)?;
    if found != SCHEMA_VERSION || !check_shape(link, schema)? {
        return Err(StorageError::from(PostgresError::NotInitialised(schema.to_owned())).into());
    }
    Ok(())
}

fn version(link: &mut Link) -> Result<i64, Fault> {
    if link.first("SELECT 1 WHERE to_regclass('outbox_meta') IS NOT NULL", &[])?.is_none() {
        return Ok(0);
    }
    let row = link.first("SELECT value FROM outbox_meta WHERE key = 'schema_version'", &[])?;
    Ok(row.map_or(Ok(0), |row| row.try_get(0))?)
}

fn check_not_newer(found: i64, schema: &str) -> Result<(), Fault> {
    if found > SCHEMA_VERSION {
        let schema = schema.to_owned();
        return Err(StorageError::from(PostgresError::Newer { schema, found, supported: SCHEMA_VERSION }).into());
    }
    Ok(())
}

/// Whether there is a table `outbox`. One of another shape is an error.
fn check_shape(link: &mut Link, schema: &str) -> Result<bool, Fault> {
    let mut there: Vec<(String, String)> = Vec::new();
    for row in link.query(COLUMNS, &[])? {
        there.push((row.try_get(0)?, row.try_get(1)?));
    }
    if there.is_empty() {
        return Ok(false);
    }
    for (name, kind) in EXPECTED {
        let reason = match there.iter().find(|(there, _)| there == name) {
            Some((_, found)) if found == kind => continue,
            Some((_, found)) => format!("the column {name} has the type {found}, not {kind}"),
            None => format!("it has no column {name}"),
        };
        return Err(StorageError::from(PostgresError::ForeignTable { schema: schema.to_owned(), reason }).into());
    }
    Ok(true)
}

/// Raised by each act of an operator on entries and dead letters.
pub(super) const GENERATION: &str = "generation";
/// Raised by each change of a version of a publisher.
pub(super) const REGISTRY_GENERATION: &str = "registry_generation";

/// One of the two numbers above.
pub(super) fn generation(link: &mut Link, key: &str) -> Result<u64, Fault> {
    let row = link.first("SELECT value FROM outbox_meta WHERE key = $1", &[&key])?;
    Ok(row.map_or(Ok(0), |row| row.try_get::<_, i64>(0))?.cast_unsigned())
}

/// A number that differs after each act of an operator, after the table was made anew, and after the connection was.
pub(super) fn state(link: &mut Link) -> Result<u64, Fault> {
    let sql = "SELECT value, 'outbox'::regclass::oid::bigint FROM outbox_meta WHERE key = 'generation'";
    let row = link.first(sql, &[])?;
    let (value, table): (i64, i64) = match row {
        Some(row) => (row.try_get(0)?, row.try_get(1)?),
        None => (0, 0),
    };
    Ok(value.cast_unsigned() ^ table.cast_unsigned().rotate_left(40) ^ link.made().rotate_left(20))
}

/// Raises the number. Others that raise it wait until the transaction ends.
pub(super) fn raise(link: &mut Link, key: &str) -> Result<u64, Fault> {
    let sql = "INSERT INTO outbox_meta (key, value) VALUES ($1, 1)
               ON CONFLICT (key) DO UPDATE SET value = outbox_meta.value + 1 RETURNING value";
    let row = link.first(sql, &[&key])?;
    Ok(row.map_or(Ok(0), |row| row.try_get::<_, i64>(0))?.cast_unsigned())
}
