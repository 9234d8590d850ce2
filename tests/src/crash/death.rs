//! The ways in which a relay is made to die.

use std::fmt;
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use fastrand::Rng;

use super::arena::Arena;
use super::point::Point;

/// When a relay dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// So long after its start, whatever it does then.
    AfterStart(Duration),
    /// So long after its first delivery.
    AtWork(Duration),
    /// At a point, at this pass of it, counted from 1.
    At(Point, u64),
}

impl Death {
    /// Half of them come to the program under test, from outside, at a random instant. The others come to the same relay
    /// in a process that dies by itself: at each point in turn, each third time at the first pass.
    pub fn draw(turn: usize, rng: &mut Rng) -> Self {
        match turn % 2 {
            0 => match rng.u8(..4) {
                0 => Self::AfterStart(Duration::from_millis(rng.u64(..400))),
                _ => Self::AtWork(Duration::from_micros(rng.u64(..100_000))),
            },
            _ => {
                let (points, round) = (Point::value_variants(), turn / 2);
                let point = points[round % points.len()];
                let first = (round / points.len()).is_multiple_of(3);
                Self::At(point, if first { 1 } else { rng.u64(1..=point.passes()) })
            }
        }
    }

    /// Starts a relay, with this many calls at once, and lets it die.
    pub fn befall(self, arena: &mut Arena, concurrency: usize) {
        let concurrency = ["--concurrency", &concurrency.to_string()];
        let mut relay = match self {
            Self::At(point, pass) => {
                let at = ["--die-at", &point.name(), "--pass", &pass.to_string()];
                arena.crash_relay(&[at.as_slice(), &concurrency].concat())
            }
            Self::AfterStart(_) | Self::AtWork(_) => arena.relay_with(&self.to_string(), &concurrency),
        };
        match self {
            Self::At(..) => relay.wait_for_its_death(),
            Self::AfterStart(time) => {
                thread::sleep(time);
                relay.kill();
            }
            Self::AtWork(time) => {
                arena.first_delivery(&relay);
                thread::sleep(time);
                relay.kill();
            }
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AfterStart(time) => write!(f, "killed {time:?} after its start"),
            Self::AtWork(time) => write!(f, "killed {time:?} after its first delivery"),
            Self::At(point, pass) => write!(f, "dies at {}, pass {pass}", point.name()),
        }
    }
}
