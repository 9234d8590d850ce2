//! What an entry costs in an outbox with many entries, and in one with few. The same number is drained of both.

use anyhow::Result;

use super::bed::{self, Bed, STREAMS};
use super::figures::{Figure, Measured, in_turn};

const FEW: usize = 10_000;
/// Small entries, so that ten million of them fit on the disk.
const BYTES: usize = 100;
/// A drain of few entries is short: it is repeated more often than those of other scenarios.
const REPEATED: usize = 5;

pub fn measure(bed: &Bed) -> Result<Measured> {
    let repeat = bed.repeat * REPEATED;
    // The large outbox gets smaller with each turn.
    let few = FEW.min((bed.backlog / repeat).max(1));
    let (small, large) = (bed.filled(few, BYTES, STREAMS)?, bed.filled(bed.backlog.max(repeat), BYTES, STREAMS)?);
    let publisher = bed.publisher()?;
    let [in_small, in_large] = in_turn(
        "backlog",
        repeat,
        [&mut || bed::drain(&bed.copy(&small)?, &publisher, few), &mut || bed::drain(&large, &publisher, few)],
    )?;
    Ok(Measured {
        what: format!("drain of {few} entries of {BYTES} bytes, of {few} and of {}", bed.backlog),
        figures: vec![
            Figure::ratio("cost of an entry, many / few", &in_small, &in_large),
            Figure::new(format!("of {few} entries"), "/s", in_small),
            Figure::new(format!("of {} entries", bed.backlog), "/s", in_large),
        ],
    })
}
