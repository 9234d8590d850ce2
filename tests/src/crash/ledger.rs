//! The sink's ledger, read as it grows, and understood.

use std::collections::HashSet;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

use uuid::Uuid;

use crate::sink::Delivery;

/// A delivery, as the sink saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub at_ns: u64,
    /// The time before which it was not to be delivered.
    pub due_ns: Option<u64>,
    /// The relay that made it.
    pub relay: String,
    pub uuid: Uuid,
    pub name: String,
    pub stream: String,
    /// The event's number in its stream, where its data has one.
    pub sequence: i64,
    pub position: u64,
    pub attempt: u64,
}

impl Seen {
    fn new(delivery: &Delivery) -> Self {
        let event = delivery.json();
        let text = |key: &str| event[key].as_str().unwrap_or_else(|| panic!("no {key}: {event}")).to_owned();
        assert_eq!(delivery.idempotency_key.as_deref(), event["id"].as_str(), "the key is not the event's id: {event}");
        let due: Option<jiff::Timestamp> = event["data"]["due"].as_str().map(|due| due.parse().unwrap());
        let due_ns = due.map(|due| u64::try_from(due.as_nanosecond()).unwrap());
        assert!(due_ns.is_none_or(|due| delivery.at_ns >= due), "delivered early, at {}: {event}", delivery.at_ns);
        Self {
            at_ns: delivery.at_ns,
            due_ns,
            relay: text("source"),
            uuid: text("id").parse().unwrap(),
            name: text("type"),
            stream: text("subject"),
            sequence: event["data"]["sequence"].as_i64().unwrap_or_default(),
            position: text("outboxposition").parse().unwrap(),
            attempt: event["outboxattempt"].as_u64().unwrap(),
        }
    }
}

/// All deliveries so far, in the order in which they came.
pub struct Ledger {
    path: PathBuf,
    file: Option<File>,
    unfinished: Vec<u8>,
    pub seen: Vec<Seen>,
}

impl Ledger {
    pub fn new(path: PathBuf) -> Self {
        Self { path, file: None, unfinished: Vec::new(), seen: Vec::new() }
    }

    /// Reads the new lines.
    pub fn read_on(&mut self) {
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == ErrorKind::NotFound => return,
                Err(error) => panic!("{}: {error}", self.path.display()),
            }
        }
        let Some(file) = &mut self.file else { return };
        file.read_to_end(&mut self.unfinished).unwrap();
        let whole = self.unfinished.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for line in self.unfinished.drain(..whole).collect::<Vec<_>>().split(|byte| *byte == b'\n') {
            if !line.is_empty() {
                self.seen.push(Seen::new(&serde_json::from_slice(line).unwrap()));
            }
        }
    }

    /// The deliveries of one relay.
    pub fn of<'a>(&'a self, relay: &'a str) -> impl Iterator<Item = &'a Seen> {
        self.seen.iter().filter(move |seen| seen.relay == relay)
    }

    /// All events that were delivered.
    pub fn uuids(&self) -> HashSet<Uuid> {
        self.seen.iter().map(|seen| seen.uuid).collect()
    }
}
