//! How the command line names dead letters.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use anyhow::{Result, ensure};
use outbox_host::outbox::{DeadLetter, Selection};

/// A dead letter's position, or its event's uuid: positions can be given again.
#[derive(Debug, Clone, PartialEq)]
pub enum Id {
    Position(i64),
    Uuid(String),
}

impl FromStr for Id {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.parse().map_or_else(|_| Self::Uuid(text.to_owned()), Self::Position))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position(position) => position.fmt(f),
            Self::Uuid(uuid) => uuid.fmt(f),
        }
    }
}

impl Id {
    fn is_of(&self, dead: &DeadLetter) -> bool {
        match self {
            Self::Position(position) => *position == dead.position,
            Self::Uuid(uuid) => *uuid == dead.uuid,
        }
    }

    pub fn selection(ids: &[Self]) -> Result<Selection> {
        let positions: Vec<i64> =
            ids.iter().filter_map(|id| if let Self::Position(it) = id { Some(*it) } else { None }).collect();
        let uuids: Vec<String> =
            ids.iter().filter_map(|id| if let Self::Uuid(it) = id { Some(it.clone()) } else { None }).collect();
        ensure!(positions.is_empty() || uuids.is_empty(), "name all of them by their positions, or all by their uuids");
        Ok(if uuids.is_empty() { Selection::Positions(positions) } else { Selection::Uuids(uuids) })
    }
}

/// Fails if some of those that the command line names are missing.
pub fn report_missing(asked: &[Id], found: &[DeadLetter], done: usize, what: &str) -> Result<()> {
    let is_missing = |id: &&Id| !found.iter().any(|dead| id.is_of(dead));
    let missing: Vec<String> = asked.iter().filter(is_missing).map(ToString::to_string).collect();
    ensure!(missing.is_empty(), "{done} {what}; there is no dead letter {}", missing.join(", "));
    Ok(())
}
