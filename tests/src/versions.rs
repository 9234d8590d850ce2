//! Versions of one publisher: the guest `versioned`, changed as a rebuild would change it.

use std::collections::HashMap;
use std::ops::Range;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outbox_host::publisher::component::{GuestStream, Limits, OutputSink, Settings};
use serde_json::json;
use uuid::Uuid;

/// What a version does.
#[derive(Debug, Clone, Copy)]
pub struct Sheet {
    /// Printed with each event.
    pub version: u32,
    /// How many of a hundred events fail, chosen by their uuid.
    pub fails: u32,
    /// How long each call takes.
    pub sleeps: Duration,
    /// What `configure` does: `ok`, `refuse`, `hang`, `spin` or `trap`.
    pub configure: &'static str,
}

impl Sheet {
    /// A version that does what it should.
    pub fn good(version: u32) -> Self {
        Self { version, fails: 0, sleeps: Duration::ZERO, configure: "ok" }
    }

    /// The component.
    pub fn bytes(self) -> Vec<u8> {
        let mut bytes = std::fs::read(crate::guest("versioned")).unwrap();
        let plain = b"<sheet version=000 fails=000 sleeps=00000 configure=ok.... >";
        let Self { version, fails, sleeps, configure } = self;
        let sleeps = sleeps.as_millis();
        let sheet =
            format!("<sheet version={version:03} fails={fails:03} sleeps={sleeps:05} configure={configure:.<6} >");
        let at = bytes.windows(plain.len()).position(|window| window == plain).unwrap();
        bytes[at..at + plain.len()].copy_from_slice(sheet.as_bytes());
        bytes
    }
}

/// A call that ended with a delivery.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delivered {
    pub uuid: Uuid,
    pub version: u32,
    pub attempt: u32,
}

/// The deliveries of the versions, in order.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<Vec<Delivered>>>);

impl Ledger {
    /// Settings that collect the output of guests.
    pub fn settings(&self) -> Settings {
        let ledger = self.0.clone();
        let output = OutputSink::new(move |line| {
            if line.stream == GuestStream::Stderr {
                return;
            }
            let mut parts = line.line.split(' ');
            let mut next = || parts.next().unwrap_or_else(|| panic!("{}", line.line));
            let (version, uuid, attempt) = (number(next()), Uuid::parse_str(next()).unwrap(), number(next()));
            ledger.lock().unwrap().push(Delivered { uuid, version, attempt });
        });
        let limits = Limits { log_bytes_per_second: u64::MAX, ..Limits::default() };
        Settings { output, limits, ..Settings::default() }
    }

    pub fn all(&self) -> Vec<Delivered> {
        self.0.lock().unwrap().clone()
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    /// How many each version delivered.
    pub fn by_version(&self) -> HashMap<u32, usize> {
        let mut counts = HashMap::new();
        self.all().iter().for_each(|delivered| *counts.entry(delivered.version).or_default() += 1);
        counts
    }
}

/// Lines for `outbox append`: events of this many streams in turn, each with its number in its uuid.
pub fn numbered_lines(streams: u32, numbers: Range<u32>) -> String {
    let line = |number: u32| {
        let uuid = Uuid::from_u128(u128::from(number) << 96 | 0x4000_8000_0000_0000_0000);
        let stream = format!("order-{}", number % streams);
        json!({"name": "order.placed", "stream_id": stream, "uuid": uuid.to_string(), "data": {}}).to_string() + "\n"
    };
    numbers.map(line).collect()
}

/// The number of an event of [`numbered_lines`].
pub fn number_in(uuid: &str) -> u32 {
    u32::from_str_radix(&uuid[..8], 16).unwrap()
}

/// The deliveries in a relay's log, in order: the number of each event, and the version.
pub fn logged(log: &str) -> Vec<(u32, u32)> {
    // A line without an end is still being written.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().filter_map(|line| line.split_once(" outbox::guest: "));
    lines
        .map(|(_, line)| {
            let mut parts = line.split(' ');
            let (version, uuid) = (parts.next().unwrap(), parts.next().unwrap());
            (number_in(uuid), number(version))
        })
        .collect()
}

fn number<T: FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text}"))
}
