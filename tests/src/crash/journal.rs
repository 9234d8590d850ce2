//! The writer's record of what it did: the truth with which deliveries are compared.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// An event, and its place in its stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    pub uuid: Uuid,
    pub stream: String,
    /// From 1, without a gap.
    pub sequence: i64,
}

/// A transaction that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    pub committed: bool,
    pub events: Vec<Written>,
}

/// The file in which a writer notes its transactions, each after its end.
pub struct Journal(File);

impl Journal {
    pub fn open(path: &Path) -> std::io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(path).map(Self)
    }

    pub fn note(&mut self, transaction: &Transaction) -> std::io::Result<()> {
        let mut line = serde_json::to_string(transaction)?;
        line.push('\n');
        self.0.write_all(line.as_bytes())
    }
}

/// All transactions of a writer that has ended.
pub fn read(path: &Path) -> Vec<Transaction> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}
