//! The conformance suite on PostgreSQL.

outbox_conformance::conformance_tests!(outbox_tests_postgres::Postgres);
