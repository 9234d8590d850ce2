//! Outboxes in PostgreSQL for tests: see [`Postgres`].

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests' own helpers, which end with the first panic"
)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use outbox_conformance::TestStorage;
use outbox_engine::{Field, Row};
use outbox_postgres::{PostgresOptions, PostgresOutbox};
use tokio_postgres::types::ToSql;

pub use self::server::{Server, Session, server};

mod server;

/// An outbox in a schema of its own, of the test process's server.
pub struct Postgres {
    schema: String,
    folder: tempfile::TempDir,
}

impl Postgres {
    /// How a relay or an application opens it.
    pub fn options(&self) -> PostgresOptions {
        let url = server().expect("there is no PostgreSQL here").url();
        PostgresOptions::new(&url).unwrap().with_schema(&self.schema).with_marks(self.folder.path().join("calls"))
    }

    /// The same with a lease that runs out soon.
    pub fn open_with_lease(&self, lease: Duration) -> PostgresOutbox {
        PostgresOutbox::open(self.options().with_lease(lease)).unwrap()
    }

    /// A connection of the application's.
    pub fn session(&self) -> Session {
        let session = Session::of(&server().expect("there is no PostgreSQL here").url());
        session.run(&format!("SET search_path = {}", self.schema));
        session
    }

    /// The schema's name.
    pub fn schema(&self) -> &str {
        &self.schema
    }
}

impl TestStorage for Postgres {
    type Strategy = PostgresOutbox;

    const TAKES_ANYTHING: bool = false;
    const ONE_BY_ONE: bool = false;

    fn is_there() -> bool {
        server().is_some()
    }

    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let schema = format!("outbox_{}", MADE.fetch_add(1, Ordering::Relaxed));
        let new = Self { schema, folder: tempfile::tempdir().unwrap() };
        PostgresOutbox::init(&new.options()).unwrap();
        new
    }

    fn open(&self) -> PostgresOutbox {
        PostgresOutbox::open(self.options()).unwrap()
    }

    /// Text stands for all other types: PostgreSQL makes of it what its columns have.
    fn insert(&self, row: Row<'_>) -> i64 {
        let (data, data_bytes) = match &row.data {
            Field::Bytes(bytes) => (None, Some(bytes.to_vec())),
            other => (text(other), None),
        };
        let uuid = match &row.uuid {
            Field::Bytes(bytes) => uuid::Uuid::from_slice(bytes).ok().map(|uuid| uuid.to_string()),
            other => text(other),
        };
        let [tenant_id, stream_id, stream_name, category, name, version, created_at, content_type, context] = [
            &row.tenant_id,
            &row.stream_id,
            &row.stream_name,
            &row.category,
            &row.name,
            &row.version,
            &row.created_at,
            &row.content_type,
            &row.context,
        ]
        .map(text);
        let [publish_after, expires_at] = [&row.publish_after, &row.expires_at].map(text);
        let sql = "
            INSERT INTO outbox (tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type,
                                context, publish_after, expires_at, data, data_bytes)
            VALUES ($1, $2, $3, $4, $5::text::uuid, $6, $7::text::bigint, $8::text::timestamptz, $9, $10,
                    $11::text::timestamptz, $12::text::timestamptz, $13, $14) RETURNING position";
        let values: [&(dyn ToSql + Sync); 14] = [
            &tenant_id,
            &stream_id,
            &stream_name,
            &category,
            &uuid,
            &name,
            &version,
            &created_at,
            &content_type,
            &context,
            &publish_after,
            &expires_at,
            &data,
            &data_bytes,
        ];
        let session = self.session();
        session.wait(session.client.query_one(sql, &values)).unwrap_or_else(|error| panic!("{error:?}")).get(0)
    }
}

fn text(field: &Field<'_>) -> Option<String> {
    match field {
        Field::Null | Field::TooLong(_) => None,
        Field::Integer(number) => Some(number.to_string()),
        Field::Real(number) => Some(number.to_string()),
        Field::Text(bytes) | Field::Bytes(bytes) => Some(String::from_utf8(bytes.to_vec()).unwrap()),
    }
}
