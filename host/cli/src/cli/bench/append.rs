//! An application's transaction with an event in it: with `outbox::append`, and with a plain INSERT.

use std::time::Instant;

use anyhow::Result;
use outbox_host::outbox::sqlite::rusqlite::{Connection, Transaction};
use outbox_host::{NewEvent, StreamId};

use super::bed::{self, Bed};
use super::figures::{Figure, Measured, in_turn};

/// How many events the larger transactions have.
const MANY: usize = 100;
const INSERT: &str = "INSERT INTO outbox (stream_id, name, data) VALUES (?1, ?2, ?3)";

pub fn measure(bed: &Bed) -> Result<Measured> {
    let (singles, events) = (bed.entries.div_ceil(100), bed.entries.div_ceil(4));
    let data = bed::order(bed.bytes);
    let append = |transaction: &Transaction<'_>| -> Result<()> {
        let event = NewEvent::json(StreamId::new("order-1"), "order.placed", data.as_str());
        outbox_host::outbox::append(transaction, &event)?;
        Ok(())
    };
    let insert = |transaction: &Transaction<'_>| -> Result<()> {
        transaction.prepare_cached(INSERT)?.execute(["order-1", "order.placed", &data])?;
        Ok(())
    };
    let [one_appended, one_inserted, appended, inserted] = in_turn(
        "append",
        bed.repeat,
        [
            &mut || rate(bed, singles, 1, &append),
            &mut || rate(bed, singles, 1, &insert),
            &mut || rate(bed, events, MANY, &append),
            &mut || rate(bed, events, MANY, &insert),
        ],
    )?;
    Ok(Measured {
        what: format!("append of events of {} bytes, with an order each, synchronous=FULL", bed.bytes),
        figures: vec![
            Figure::ratio("append / INSERT, one a transaction", &one_appended, &one_inserted),
            Figure::ratio(format!("append / INSERT, {MANY} a transaction"), &appended, &inserted),
            Figure::new("append, one a transaction", "/s", one_appended),
            Figure::new("INSERT, one a transaction", "/s", one_inserted),
            Figure::new(format!("append, {MANY} a transaction"), "/s", appended),
            Figure::new(format!("INSERT, {MANY} a transaction"), "/s", inserted),
        ],
    })
}

fn rate(bed: &Bed, events: usize, at_once: usize, append: &dyn Fn(&Transaction<'_>) -> Result<()>) -> Result<f64> {
    let db = bed.empty()?;
    let mut connection = Connection::open(&*db)?;
    connection.execute_batch("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT)")?;
    let began = Instant::now();
    for group in (0..events).step_by(at_once) {
        let transaction = connection.transaction()?;
        for _ in group..events.min(group + at_once) {
            transaction.prepare_cached("INSERT INTO orders (item) VALUES ('book')")?.execute([])?;
            append(&transaction)?;
        }
        transaction.commit()?;
    }
    Ok(bed::per_second(events, began))
}
