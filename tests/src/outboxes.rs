//! Outboxes for tests: each storage that keeps entries, behind one trait, so that one suite holds for all.

use std::path::PathBuf;
use std::sync::Arc;

pub use outbox_conformance::TestStorage as Kept;
pub use outbox_conformance::helpers::{entry_at, event, row};
use outbox_host::outbox::sqlite::rusqlite::types::{ToSqlOutput, ValueRef};
use outbox_host::outbox::sqlite::rusqlite::{Connection, params};
use outbox_host::{Field, MemoryOutbox, Payload, Recorded, Row, SqliteOutbox, StreamId, WrappedEvent};
pub use outbox_tests_postgres::Postgres;

/// Runs each of these functions, `fn name<K: Kept>(kept: &K)`, as a test of each storage. A new storage is a line here.
#[macro_export]
macro_rules! for_each_storage {
    ($($name:ident)*) => {
        $crate::for_each_storage!(@storage sqlite Sqlite $($name)*);
        $crate::for_each_storage!(@storage memory Memory $($name)*);
        $crate::for_each_storage!(@storage postgres Postgres $($name)*);
    };
    (@storage $module:ident $storage:ident $($name:ident)*) => {
        mod $module {
            use $crate::outboxes::{Kept, $storage};
            $(
                #[test]
                fn $name() {
                    if $storage::is_there() {
                        super::$name(&$storage::new());
                    }
                }
            )*
        }
    };
}

/// The same without PostgreSQL, for example for tests of rows that a table with types refuses.
#[macro_export]
macro_rules! for_each_untyped_storage {
    ($($name:ident)*) => {
        $crate::for_each_storage!(@storage untyped_sqlite Sqlite $($name)*);
        $crate::for_each_storage!(@storage untyped_memory Memory $($name)*);
    };
}

/// A SQLite outbox in a folder of its own.
pub struct Sqlite {
    folder: Arc<tempfile::TempDir>,
}

impl Sqlite {
    /// The database's file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    /// A connection of the application's.
    pub fn connection(&self) -> Connection {
        Connection::open(self.file()).unwrap()
    }
}

impl Kept for Sqlite {
    type Strategy = SqliteOutbox;

    fn new() -> Self {
        let new = Self { folder: Arc::new(tempfile::tempdir().unwrap()) };
        SqliteOutbox::init(&new.file()).unwrap();
        new
    }

    fn open(&self) -> SqliteOutbox {
        SqliteOutbox::open(&self.file()).unwrap()
    }

    /// Uses a table without constraints if the row needs it: an application may have made the table itself.
    fn insert(&self, row: Row<'_>) -> i64 {
        let connection = self.connection();
        let insert = |connection: &Connection| {
            connection.execute(
                "INSERT INTO outbox (tenant_id, stream_id, stream_name, category, uuid, name, version, created_at,
                                     content_type, context, data, publish_after, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
                params![
                    value(&row.tenant_id),
                    value(&row.stream_id),
                    value(&row.stream_name),
                    value(&row.category),
                    value(&row.uuid),
                    value(&row.name),
                    value(&row.version),
                    value(&row.created_at),
                    value(&row.content_type),
                    value(&row.context),
                    value(&row.data),
                    value(&row.publish_after),
                    value(&row.expires_at)
                ],
            )
        };
        if insert(&connection).is_err() {
            self.loosen();
            insert(&connection).unwrap();
        }
        connection.last_insert_rowid()
    }

    fn loosen(&self) {
        let loose = "
            ALTER TABLE outbox RENAME TO strict_outbox;
            CREATE TABLE outbox (position INTEGER PRIMARY KEY AUTOINCREMENT, tenant_id, stream_id, stream_name, category,
                                 uuid, name, version, created_at, content_type, context, publish_after,
                                 expires_at, data);
            INSERT INTO outbox SELECT * FROM strict_outbox;
            DROP TABLE strict_outbox;";
        self.connection().execute_batch(loose).unwrap();
    }

    fn index_tenants(&self) {
        SqliteOutbox::index_tenants(&self.file()).unwrap();
    }
}

/// As SQLite keeps it; its text need not be UTF-8.
fn value<'f>(field: &'f Field<'_>) -> ToSqlOutput<'f> {
    ToSqlOutput::Borrowed(match field {
        Field::Null => ValueRef::Null,
        Field::Integer(number) => ValueRef::Integer(*number),
        Field::Real(number) => ValueRef::Real(*number),
        Field::Text(text) => ValueRef::Text(text),
        Field::Bytes(bytes) => ValueRef::Blob(bytes),
        Field::TooLong(_) => unreachable!("it is what is read, never what is written"),
    })
}

/// An outbox in memory.
pub struct Memory(MemoryOutbox);

impl Kept for Memory {
    type Strategy = MemoryOutbox;

    fn new() -> Self {
        Self(MemoryOutbox::default())
    }

    fn open(&self) -> MemoryOutbox {
        self.0.clone()
    }

    fn insert(&self, row: Row<'_>) -> i64 {
        self.0.append_raw(&row)
    }

    fn loosen(&self) {}
}

/// An event as a publisher gets it, with this data.
pub fn recorded(data: impl Into<String>) -> Recorded {
    Recorded {
        wrapped_event: WrappedEvent {
            uuid: uuid::Uuid::from_u128(0x1234),
            name: "order.paid".into(),
            version: Some(1),
            created_at: "2026-01-31T12:00:00.000Z".into(),
            data: Payload::Json(data.into()),
            context: "{}".into(),
        },
        stream_id: StreamId::new("order-1"),
        position: 1,
        tenant_id: "default".into(),
        attempt: 1,
    }
}

/// JSON of this many bytes, whatever a language makes of it: one character is far from the others, so that a string of
/// characters of one size takes the larger one for all of them.
pub fn large_json(bytes: usize) -> String {
    let (head, tail) = ("\"€", "\"");
    format!("{head}{}{tail}", "x".repeat(bytes - head.len() - tail.len()))
}
