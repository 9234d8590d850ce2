//! Values that settings are written as.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use outbox_host::publisher::component::Time;
use outbox_host::{BATCH_BYTES_MAX, BATCH_MAX, BATCH_WAIT_MAX, Rate};
use serde::{Deserialize, Deserializer, de};

/// A fraction from 0 to 1, written as `"5%"`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentage(pub f64);

impl FromStr for Percentage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let share = percent.filter(|percent| (0.0..=100.0).contains(percent)).map(|percent| percent / 100.0);
        share.map(Self).ok_or_else(|| format!("`{text}` is no percentage: write for example \"5%\""))
    }
}

impl<'de> Deserialize<'de> for Percentage {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A rate, written as `"100/s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateConfig(pub Rate);

impl<'de> Deserialize<'de> for RateConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(de::Error::custom)
    }
}

/// A list of texts, each of which is parsed.
pub fn parsed<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(de::Error::custom)).collect()
}

/// The most events of a call.
pub fn batch_max<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    within(1..=BATCH_MAX, "batch_max", deserializer)
}

/// The most bytes of events of a call.
pub fn batch_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    within(1..=BATCH_BYTES_MAX, "batch_bytes", deserializer)
}

/// How long a call may be collected.
pub fn batch_wait<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let time = Time::deserialize(deserializer)?;
    match time.0 <= BATCH_WAIT_MAX {
        true => Ok(Some(time)),
        false => Err(de::Error::custom(format!("batch_wait is at most {} s", BATCH_WAIT_MAX.as_secs()))),
    }
}

fn within<'de, D: Deserializer<'de>>(
    range: RangeInclusive<usize>,
    key: &str,
    deserializer: D,
) -> Result<Option<usize>, D::Error> {
    let number = usize::deserialize(deserializer)?;
    match range.contains(&number) {
        true => Ok(Some(number)),
        false => Err(de::Error::custom(format!("{key} is {} to {}", range.start(), range.end()))),
    }
}
