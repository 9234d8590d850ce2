//! The index by which entries are found by their tenants. It is made only if somebody asks for it: each insert and each
//! delete has to keep it up.

use std::sync::LazyLock;

use outbox_engine::outbox::TenantName;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior};

use super::page;
use super::times::TimeColumns;

pub(super) const INDEX: &str = "outbox_tenant";

/// The name by which a tenant's turn is known: all spellings of a tenant have the same, as in `outbox_engine::TenantKey`.
/// It is short, whatever the column contains, and never NULL. Every version of SQLite must make the same of a value, or
/// the index would be damaged: so no text is made of a number with a fraction.
pub(super) const NAME: &str = "
    CASE typeof(tenant_id)
      WHEN 'text' THEN CASE WHEN tenant_id = '' THEN 'default' ELSE substr(tenant_id, 1, 255) END
      WHEN 'null' THEN 'default'
      WHEN 'integer' THEN CAST(tenant_id AS TEXT)
      WHEN 'real' THEN CASE WHEN tenant_id = CAST(tenant_id AS INTEGER) THEN CAST(CAST(tenant_id AS INTEGER) AS TEXT)
                            ELSE '' END
      ELSE CASE WHEN length(tenant_id) = 16
                THEN lower(substr(hex(tenant_id), 1, 8) || '-' || substr(hex(tenant_id), 9, 4) || '-' ||
                           substr(hex(tenant_id), 13, 4) || '-' || substr(hex(tenant_id), 17, 4) || '-' ||
                           substr(hex(tenant_id), 21))
                ELSE '' END
    END";
/// A longer value is not looked at.
const BYTES_MAX: usize = 1024 * 1024;

static FIRST: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {NAME} FROM outbox INDEXED BY {INDEX} WHERE {NAME} >= '' ORDER BY {NAME} LIMIT 1")
});
static NEXT: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {NAME} FROM outbox INDEXED BY {INDEX} WHERE {NAME} > ?1 ORDER BY {NAME} LIMIT 1"));
static NEWS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT position, CASE WHEN octet_length(tenant_id) <= {BYTES_MAX} OR tenant_id IS NULL THEN {NAME} ELSE '' END
         FROM outbox WHERE position >= ?1 ORDER BY position LIMIT ?2"
    )
});

/// Makes the index, in place of another with its name, if it is not there. Returns whether it was made now.
pub(super) fn index(connection: &mut Connection) -> rusqlite::Result<bool> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let is_missing = !has_index(&transaction)?;
    if is_missing {
        let make = format!("DROP INDEX IF EXISTS {INDEX}; CREATE INDEX {INDEX} ON outbox ({NAME})");
        transaction.execute_batch(&make)?;
        transaction.commit()?;
    }
    Ok(is_missing)
}

/// Whether entries can be found by their tenants.
pub(super) fn has_index(connection: &Connection) -> rusqlite::Result<bool> {
    // An index of something else would be gone through from its beginning to its end.
    let plan = format!("EXPLAIN QUERY PLAN {}", TimeColumns::default().choose(&page::ENTRIES_OF));
    let first: rusqlite::Result<String> = connection.query_row(&plan, (0, 0, 0, ""), |row| row.get(3));
    match first {
        Ok(step) => Ok(step.contains("(<expr>=?")),
        // No such index, or one that is of no use.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The first tenant behind this one.
pub(super) fn after(connection: &Connection, tenant: Option<&TenantName>) -> rusqlite::Result<Option<TenantName>> {
    let name = |row: &rusqlite::Row<'_>| Ok(name(row.get_ref(0)?));
    match tenant {
        None => connection.prepare_cached(&FIRST)?.query_row([], name),
        Some(tenant) => connection.prepare_cached(&NEXT)?.query_row([text(tenant)], name),
    }
    .optional()
}

/// The entries from this position on, and their tenants.
pub(super) fn from(connection: &Connection, position: i64, max: usize) -> rusqlite::Result<Vec<(i64, TenantName)>> {
    let mut news = connection.prepare_cached(&NEWS)?;
    let rows = news.query_map((position, i64::try_from(max).unwrap_or(i64::MAX)), |row| {
        Ok((row.get(0)?, name(row.get_ref(1)?)))
    })?;
    rows.collect()
}

/// The highest position.
pub(super) fn last_position(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT max(position) FROM outbox")?.query_row([], |row| row.get(0))
}

/// A name as the index has it; it need not be UTF-8.
pub(super) fn text(tenant: &TenantName) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Text(tenant))
}

fn name(value: ValueRef<'_>) -> TenantName {
    match value {
        ValueRef::Text(name) => name.into(),
        _ => [].into(),
    }
}

#[cfg(test)]
mod tests {
    use outbox_engine::{Field, TenantKey};

    use super::*;
    use crate::value;

    fn table(tenants: &[rusqlite::types::Value]) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE outbox (position INTEGER PRIMARY KEY, tenant_id COLLATE NOCASE, stream_id, stream_name, category,
                                      uuid, name, version, created_at, content_type, context, data)",
            )
            .unwrap();
        for tenant in tenants {
            connection.execute("INSERT INTO outbox (tenant_id) VALUES (?1)", [tenant]).unwrap();
        }
        connection
    }

    #[test]
    fn all_spellings_of_a_tenant_have_one_name_and_it_has_the_key_of_its_entries() {
        use rusqlite::types::Value::{Blob, Integer, Null, Real, Text};
        let text = |text: &str| Text(text.into());
        let uuid = "00010203-0405-0607-0809-0a0b0c0d0e0f";
        let groups = [
            vec![Null, text(""), text("default")],
            vec![Integer(42), Real(42.0), text("42")],
            vec![Integer(0), Real(-0.0)],
            vec![Integer(-7), Real(-7.0), text("-7")],
            vec![Integer(i64::MAX), text("9223372036854775807")],
            vec![Blob((0..16).collect()), text(uuid)],
            vec![text("acme")],
            vec![text("ACME")],
            vec![text("é")],
            vec![text(&"é".repeat(300)), text(&"é".repeat(301))],
            vec![text("a\0b"), text("a")],
            vec![Blob(vec![1]), Blob(vec![]), Real(0.5), Real(f64::INFINITY)],
        ];
        let all: Vec<_> = groups.iter().flatten().cloned().collect();
        let mut connection = table(&all);
        index(&mut connection).unwrap();
        let named = from(&connection, i64::MIN, 100).unwrap();
        let mut named_rows = named.iter();
        let mut names = std::collections::BTreeSet::new();
        for group in &groups {
            let of_group: Vec<&TenantName> = group.iter().map(|_| &named_rows.next().unwrap().1).collect();
            assert!(of_group.windows(2).all(|pair| pair[0] == pair[1]), "{group:?}: {of_group:?}");
            assert!(names.insert(of_group[0].clone()), "{group:?} has the name of another");
            for value in group {
                let field: Field<'_> = value::field(value.into());
                if !matches!(value, Real(number) if !number.is_finite() || number.fract() != 0.0) {
                    assert_eq!(TenantKey::of(of_group[0]), TenantKey::of_entry(&field), "{value:?}");
                }
            }
        }
        let listed: Vec<TenantName> =
            std::iter::successors(after(&connection, None).unwrap(), |last| after(&connection, Some(last)).unwrap())
                .collect();
        assert_eq!(listed, names.into_iter().collect::<Vec<_>>(), "each once, in order");
    }

    #[test]
    fn an_index_of_something_else_is_replaced() {
        let mut connection = table(&[]);
        assert!(!has_index(&connection).unwrap());
        connection.execute_batch("CREATE INDEX outbox_tenant ON outbox (tenant_id)").unwrap();
        assert!(!has_index(&connection).unwrap());
        index(&mut connection).unwrap();
        assert!(has_index(&connection).unwrap());
    }

    #[test]
    fn a_tenants_entries_are_found_by_the_index_in_order() {
        let mut connection = table(&[]);
        index(&mut connection).unwrap();
        let plan = |sql: &str| {
            let mut explain = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let parameters = vec![rusqlite::types::Value::Null; explain.parameter_count()];
            let steps = explain.query_map(rusqlite::params_from_iter(parameters), |row| row.get::<_, String>(3));
            steps.unwrap().map(Result::unwrap).collect::<Vec<_>>()
        };
        let entries = TimeColumns::default().choose(&page::ENTRIES_OF);
        for sql in [entries, page::NEXT_KEY_OF.as_str()] {
            let found = plan(sql);
            assert!(found[0].starts_with("SEARCH outbox USING INDEX outbox_tenant (<expr>=? AND rowid>? AND rowid<?)"));
            assert_eq!(found.len(), 1, "nothing is sorted: {found:?}");
        }
        assert_eq!(plan(&NEXT).len(), 1);
        assert!(plan(&NEWS)[0].contains("INTEGER PRIMARY KEY"));
    }
}
