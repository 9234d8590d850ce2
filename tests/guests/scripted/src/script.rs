//! Does what the event's data says, so that a test decides how a publisher behaves:
//!
//! ```json
//! {"do": "unavailable", "reason": "closed", "after_ms": 500, "until_attempt": 3}
//! ```
//!
//! | do | and then |
//! |---|---|
//! | `ok`, nothing, anything else, data that is no such object | ok |
//! | `retry`, `unavailable` | that error, with `reason` and `after_ms` |
//! | `reject` | that error, with `reason` |
//! | `trap` | panics, with `reason` |
//! | `exit` | exits, which a component must not |
//! | `recurse` | overflows the stack |
//! | `spin` | computes for ever |
//! | `sleep` | sleeps for `ms` (an hour where there is none), then ok |
//! | `allocate` | takes `bytes` of memory and keeps them (all there is, where there is none), then ok |
//! | `print` | prints `bytes` bytes in lines of 100, then ok |
//!
//! With `until_attempt` it does so while the attempt is lower, and is ok from then on.

use std::{hint::black_box, time::Duration};

use outbox_guest::{Error, Recorded};
use serde::Deserialize;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Script {
    r#do: String,
    reason: Option<String>,
    after_ms: Option<u64>,
    until_attempt: Option<u32>,
    ms: Option<u64>,
    bytes: Option<usize>,
}

pub fn publish(event: &Recorded) -> Result<(), Error> {
    println!("published {} {} attempt={}", event.wrapped_event.uuid, event.wrapped_event.name, event.attempt);
    let script: Script = event.data().unwrap_or_default();
    if script.until_attempt.is_some_and(|attempt| event.attempt >= attempt) {
        return Ok(());
    }
    script.play()
}

impl Script {
    fn play(self) -> Result<(), Error> {
        match self.r#do.as_str() {
            "retry" => Err(self.error(Error::retryable)),
            "reject" => Err(self.error(Error::rejected)),
            "unavailable" => Err(self.error(Error::unavailable)),
            "trap" => panic!("{}", self.reason()),
            "exit" => {
                eprintln!("exiting");
                std::process::exit(1)
            }
            "recurse" => {
                eprintln!("recursing");
                black_box(recurse(1));
                Ok(())
            }
            "spin" => {
                eprintln!("spinning");
                loop {
                    black_box(());
                }
            }
            "sleep" => {
                eprintln!("sleeping");
                std::thread::sleep(Duration::from_millis(self.ms.unwrap_or(3_600_000)));
                Ok(())
            }
            "allocate" => {
                eprintln!("allocating");
                allocate(self.bytes.unwrap_or(usize::MAX));
                Ok(())
            }
            "print" => {
                print(self.bytes.unwrap_or(1_000));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn error(&self, kind: fn(String) -> Error) -> Error {
        let reason = self.reason();
        eprintln!("failing: {reason}");
        match self.after_ms {
            Some(ms) => kind(reason).retry_after(Duration::from_millis(ms)),
            None => kind(reason),
        }
    }

    fn reason(&self) -> String {
        self.reason.clone().unwrap_or_else(|| "as scripted".into())
    }
}

#[allow(unconditional_recursion, reason = "that is what it is for")]
fn recurse(depth: u64) -> u64 {
    black_box(recurse(black_box(depth + 1)) + depth)
}

/// In pieces of 1 MiB that are written to, so that the memory is really taken.
fn allocate(bytes: usize) {
    const PIECE: usize = 1 << 20;
    let mut taken = 0;
    while taken < bytes {
        black_box(vec![1_u8; PIECE].leak());
        taken += PIECE;
    }
}

fn print(bytes: usize) {
    let line = "x".repeat(99);
    for _ in 0..bytes.div_ceil(100) {
        println!("{line}");
    }
}
