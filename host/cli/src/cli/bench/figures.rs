//! The figures, and how they are shown.

use std::fmt;

use crate::cli::terminal::say;
use anyhow::Result;
use serde::{Serialize, Serializer};

/// The result of a scenario.
#[derive(Serialize)]
pub struct Measured {
    /// What was done, with its numbers.
    pub what: String,
    #[serde(serialize_with = "by_name")]
    pub figures: Vec<Figure>,
}

/// A figure, measured once or several times.
#[derive(Serialize)]
pub struct Figure {
    #[serde(skip)]
    name: String,
    /// Empty for a ratio.
    unit: &'static str,
    median: f64,
    samples: Vec<f64>,
}

impl Figure {
    pub fn new(name: impl Into<String>, unit: &'static str, samples: Vec<f64>) -> Self {
        Self { name: name.into(), unit, median: median(&samples), samples }
    }

    pub fn once(name: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self::new(name, unit, vec![value])
    }

    /// The ratio of each pair.
    pub fn ratio(name: impl Into<String>, one: &[f64], other: &[f64]) -> Self {
        Self::new(name, "", one.iter().zip(other).map(|(one, other)| one / other).collect())
    }
}

fn by_name<S: Serializer>(figures: &[Figure], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(figures.iter().map(|figure| (&figure.name, figure)))
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.what)?;
        for Figure { name, unit, median, .. } in &self.figures {
            let decimals = if matches!(*unit, "/s" | "KiB") { 0 } else { 2 };
            write!(f, "\n  {name:<48} {median:>10.decimals$} {unit}")?;
        }
        Ok(())
    }
}

/// One side of a comparison: measures itself once.
pub type Side<'a> = &'a mut dyn FnMut() -> Result<f64>;

/// Lets each side measure itself, in turn, several times. So what else the machine does affects all sides alike.
pub fn in_turn<const N: usize>(what: &str, repeat: usize, mut sides: [Side<'_>; N]) -> Result<[Vec<f64>; N]> {
    let mut samples = [const { Vec::new() }; N];
    for turn in 0..repeat {
        say(format_args!("{what}: {} of {repeat}", turn + 1));
        for (side, samples) in sides.iter_mut().zip(&mut samples) {
            samples.push(side()?);
        }
    }
    Ok(samples)
}

pub fn median(samples: &[f64]) -> f64 {
    percentile(samples, 50)
}

/// The value below which `percent` of a hundred samples lie.
pub fn percentile(samples: &[f64], percent: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or(f64::NAN)
}
