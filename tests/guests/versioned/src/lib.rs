//! One source of many versions: how it behaves is written in its own bytes, where a test changes it (`versions.rs` in
//! `tests/src`) as a rebuild would.

use std::hint::black_box;
use std::time::Duration;

use outbox_guest::{BoxError, Error, Lifecycle, Publisher, Recorded};

/// `version` is printed with each event; of a hundred events `fails` fail; each call takes `sleeps` milliseconds.
static SHEET: &str = "<sheet version=000 fails=000 sleeps=00000 configure=ok.... >";

struct Versioned {
    version: u32,
    fails: u32,
    sleeps: Duration,
}

fn entry(key: &str) -> &'static str {
    // The compiler must not know its content.
    let sheet = black_box(SHEET);
    let value = sheet.split(' ').find_map(|entry| entry.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_default()
}

fn number(key: &str) -> u32 {
    entry(key).parse().unwrap_or(0)
}

impl Lifecycle for Versioned {
    fn configure() -> Result<Self, BoxError> {
        match entry("configure") {
            "refuse" => return Err("not today".into()),
            "hang.." => std::thread::sleep(Duration::from_secs(3_600)),
            "spin.." => loop {
                black_box(());
            },
            "trap.." => panic!("out of luck"),
            _ => {}
        }
        let sleeps = Duration::from_millis(number("sleeps").into());
        Ok(Self { version: number("version"), fails: number("fails"), sleeps })
    }
}

impl Publisher for Versioned {
    fn publish(&mut self, event: Recorded) -> Result<(), Error> {
        if !self.sleeps.is_zero() {
            std::thread::sleep(self.sleeps);
        }
        let uuid = &event.wrapped_event.uuid;
        let hash = uuid
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        if (hash >> 32) % 100 < u64::from(self.fails) {
            return Err(Error::retryable(format!("version {} cannot", self.version)));
        }
        println!("{} {uuid} {}", self.version, event.attempt);
        Ok(())
    }
}

outbox_guest::export!(Versioned, lifecycle);
