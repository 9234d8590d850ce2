//! The named points of a relay's work at which a process can be told to kill itself.

use std::sync::atomic::{AtomicU64, Ordering};

use clap::ValueEnum;

/// A point between an entry's claim and its leaving the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Point {
    /// Entries were read from the outbox.
    Claimed,
    /// A call is about to be put on record.
    BeforeMark,
    /// It is on record.
    Marked,
    /// The publisher is about to be called.
    BeforePublish,
    /// The publisher has returned, and nothing was reported.
    Published,
    /// Settled entries are about to be committed.
    BeforeCommit,
    /// They are committed, and the relay does not know it.
    Committed,
    /// Entries that were put off are about to come back.
    BeforeBringBack,
    /// They are back, and the relay does not know it.
    BroughtBack,
    /// The record of the calls under way is about to be forgotten.
    BeforeClear,
    /// It is forgotten.
    Cleared,
}

impl Point {
    /// The name, as it is written on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// How many times a relay with enough to do passes it within about a second, roughly.
    pub fn passes(self) -> u64 {
        match self {
            // At the start of a relay's life, and at an orderly end.
            Self::BeforeClear | Self::Cleared => 1,
            Self::BeforeBringBack | Self::BroughtBack => 3,
            Self::Claimed | Self::BeforeCommit | Self::Committed => 15,
            Self::BeforeMark | Self::Marked | Self::BeforePublish | Self::Published => 300,
        }
    }
}

/// Kills its own process, with SIGKILL, when it passes one point often enough.
#[derive(Debug)]
pub struct Doom {
    at: Option<(Point, u64)>,
    passes: AtomicU64,
}

impl Doom {
    /// Dies at this pass of this point, counted from 1. None means never.
    pub fn new(at: Option<(Point, u64)>) -> Self {
        Self { at, passes: AtomicU64::new(0) }
    }

    /// The process is at this point.
    pub fn pass(&self, point: Point) {
        if let Some((fatal, pass)) = self.at
            && fatal == point
            && self.passes.fetch_add(1, Ordering::SeqCst) + 1 == pass
        {
            die();
        }
    }
}

/// Ends this process as a SIGKILL from outside does.
pub fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    unreachable!("SIGKILL is not survived")
}
