//! Asks the clocks for more than they are for.

use std::hint::black_box;
use std::mem::forget;

use outbox_guest::Error;
use wasip2::clocks::monotonic_clock::{now, subscribe_duration, subscribe_instant};
use wasip2::io::poll::poll;

pub fn abuse(how: &str) -> Result<(), Error> {
    match how {
        "end-of-time" => subscribe_instant(u64::MAX).block(),
        "forever" => subscribe_duration(u64::MAX).block(),
        "million-timers" => (0..1_000_000).for_each(|_| forget(subscribe_duration(3_600_000_000_000))),
        // As quickly as it can: each of them is due already.
        "past" => loop {
            subscribe_instant(now().saturating_sub(1)).block();
        },
        "ready" => {
            let past = subscribe_instant(0);
            loop {
                black_box(past.ready());
            }
        }
        "huge-list" => {
            let timer = subscribe_duration(3_600_000_000_000);
            drop(poll(&vec![&timer; 1_000_000]));
        }
        // As long as may be held at once, over and over again.
        "long-list" => {
            let timers: Vec<_> = (0..400).map(|_| subscribe_duration(3_600_000_000_000)).collect();
            let due = subscribe_instant(0);
            let list: Vec<_> = timers.iter().chain([&due]).collect();
            loop {
                drop(poll(&list));
            }
        }
        "empty-list" => drop(poll(&[])),
        _ => {}
    }
    Ok(())
}
