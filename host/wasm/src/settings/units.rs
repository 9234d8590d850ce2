//! The units that limits are written in.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::{Deserialize, Deserializer, de};

const BYTES_OF_A_MIB: usize = 1024 * 1024;

/// A length of time: `"500ms"`, `"1m 30s"`, `"30d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("`{text}` is no duration: write for example \"500ms\", \"1m 30s\" or \"30d\"");
        let signed = text.parse::<SignedDuration>().or_else(|_| {
            let span: Span = text.parse()?;
            span.to_duration(SpanRelativeTo::days_are_24_hours())
        });
        Duration::try_from(signed.map_err(|_| invalid())?).map(Self).map_err(|_| invalid())
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SignedDuration::try_from(self.0) {
            Ok(signed) => write!(f, "{signed:#}"),
            // No time that can be written is as long.
            Err(_) => write!(f, "{:?}", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl From<Time> for Duration {
    fn from(time: Time) -> Self {
        time.0
    }
}

/// A number of mebibytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Mib(pub usize);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Its bytes.
impl From<Mib> for usize {
    fn from(mib: Mib) -> Self {
        mib.0.saturating_mul(BYTES_OF_A_MIB)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_as_it_may_be_written() {
        for text in ["30s", "1m", "500ms", "1m 30s", "2h"] {
            let time: Time = text.parse().unwrap();
            assert_eq!(time.to_string().parse(), Ok(time), "{text} is shown as {time}");
        }
        assert_eq!("30d".parse(), Ok(Time(Duration::from_secs(30 * 24 * 3_600))));
        assert!("soon".parse::<Time>().is_err() && "-1s".parse::<Time>().is_err());
        assert!(!Time(Duration::MAX).to_string().is_empty());
    }

    #[test]
    fn any_number_of_mebibytes_is_a_number_of_bytes() {
        assert_eq!(usize::from(Mib(2)), 2 * 1024 * 1024);
        assert_eq!(usize::from(Mib(usize::MAX)), usize::MAX);
    }
}
