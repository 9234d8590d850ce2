//! A whole drain: bare SQLite in one thread, the relay with a native closure, with a component, and with the same
//! component without any limit.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use outbox_host::Recorded;
use outbox_host::outbox::sqlite::rusqlite::Connection;

use super::bed::{self, Bed, STREAMS};
use super::figures::{Figure, Measured, in_turn};
use super::unlimited::Unlimited;

/// How many entries the baseline deletes with one transaction.
const GROUP: usize = 1_000;

pub fn measure(bed: &Bed) -> Result<Measured> {
    let entries = bed.entries;
    let full = bed.filled(entries, bed.bytes, STREAMS)?;
    let (publisher, unlimited) = (bed.publisher()?, Unlimited::load(&bed.publisher)?);
    let nothing = |_: &Recorded| Ok(());
    let [bare, closure, component, without] = in_turn(
        "drain",
        bed.repeat,
        [
            &mut || drain_bare(&bed.copy(&full)?, entries),
            &mut || bed::drain(&bed.copy(&full)?, &nothing, entries),
            &mut || bed::drain(&bed.copy(&full)?, &publisher, entries),
            &mut || bed::drain(&bed.copy(&full)?, &unlimited, entries),
        ],
    )?;
    Ok(Measured {
        what: format!("drain of {entries} entries of {} bytes, synchronous=FULL", bed.bytes),
        figures: vec![
            Figure::ratio("component / bare SQLite", &component, &bare),
            Figure::ratio("component / native closure", &component, &closure),
            Figure::ratio("component / without limits", &component, &without),
            Figure::new(format!("bare SQLite, one thread, groups of {GROUP}"), "/s", bare),
            Figure::new("native closure", "/s", closure),
            Figure::new("component", "/s", component),
            Figure::new("component without limits", "/s", without),
        ],
    })
}

/// The baseline: reads a whole group, deletes it, and commits, with the relay's pragmas.
fn drain_bare(db: &Path, entries: usize) -> Result<f64> {
    let connection = Connection::open(db)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", 4_000)?;
    let mut read = connection.prepare(
        "SELECT position, tenant_id, stream_id, stream_name, category, uuid, name, version, created_at, content_type, context,
                data
         FROM outbox ORDER BY position LIMIT ?1",
    )?;
    let mut delete = connection.prepare("DELETE FROM outbox WHERE position BETWEEN ?1 AND ?2")?;
    let began = Instant::now();
    loop {
        let mut group: Vec<(i64, Vec<String>)> = Vec::with_capacity(GROUP);
        let mut rows = read.query([i64::try_from(GROUP)?])?;
        while let Some(row) = rows.next()? {
            let texts = [1, 2, 5, 6, 8, 10, 11].map(|column| row.get(column));
            group.push((row.get(0)?, texts.into_iter().collect::<Result<_, _>>()?));
        }
        drop(rows);
        let (Some(first), Some(last)) = (group.first(), group.last()) else { break };
        connection.execute_batch("BEGIN IMMEDIATE")?;
        delete.execute([first.0, last.0])?;
        connection.execute_batch("COMMIT")?;
    }
    Ok(bed::per_second(entries, began))
}
