//! How fast a publisher may be given entries.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

/// The units of a rate, and their names.
const UNITS: [(&[&str], u64); 4] = [
    (&["s", "sec", "second"], 1),
    (&["m", "min", "minute"], 60),
    (&["h", "hour"], 60 * 60),
    (&["d", "day"], 24 * 60 * 60),
];
/// Without a burst of its own, a limit lets pass at once what its rate gives in this time.
const BURST_TIME: Duration = Duration::from_millis(100);

/// So many entries in so much time: `100/s`, `30/min`, `1000/h`.
///
/// ```
/// use outbox_engine::Rate;
///
/// let rate: Rate = "100/s".parse()?;
/// assert_eq!(rate.interval().as_millis(), 10);
/// assert_eq!("6000/min".parse::<Rate>()?.interval(), rate.interval());
/// assert!("100".parse::<Rate>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    entries: NonZeroU32,
    per: Duration,
}

impl Rate {
    /// So many entries in so much time; `per` is at least a nanosecond for each.
    pub fn new(entries: NonZeroU32, per: Duration) -> Self {
        Self { entries, per: per.max(Duration::from_nanos(entries.get().into())) }
    }

    /// The time from one entry to the next.
    pub fn interval(self) -> Duration {
        self.per / self.entries.get()
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}` is no rate: write a whole number from 1 on and a unit, for example \"100/s\" (s, min, h or d)"
            )
        };
        let (entries, unit) = text.split_once('/').ok_or_else(wrong)?;
        let entries = entries.trim().replace('_', "").parse().map_err(|_| wrong())?;
        let known = UNITS.iter().find(|(names, _)| names.contains(&unit.trim()));
        known.map(|(_, seconds)| Self::new(entries, Duration::from_secs(*seconds))).ok_or_else(wrong)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} in {:?}", self.entries, self.per)
    }
}

/// A limit to how fast a publisher is given entries, retries included. It is a token bucket: after a pause, `burst` entries
/// pass at once, and then one in each [`interval`](Rate::interval). Time is monotonic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// How many entries in how much time.
    pub rate: Rate,
    /// How many entries pass at once after a pause. None for what the rate gives in 100 ms, at least one.
    pub burst: Option<NonZeroU32>,
    /// Whose entries share a limit.
    pub by: RateBy,
}

/// Whose entries share a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateBy {
    /// All that go to the publisher.
    #[default]
    Publisher,
    /// Those of a tenant: each tenant has a limit of its own.
    Tenant,
    /// Those of a stream.
    Stream,
    /// Those of a category of streams; the streams without one share one.
    Category,
}

impl RateLimit {
    /// A limit for all entries of a publisher.
    ///
    /// ```
    /// use outbox_engine::{RateBy, RateLimit};
    ///
    /// let for_each_tenant = RateLimit { by: RateBy::Tenant, ..RateLimit::of("100/s".parse()?) };
    /// assert_eq!(for_each_tenant.burst().get(), 10);
    /// # Ok::<(), String>(())
    /// ```
    pub fn of(rate: Rate) -> Self {
        Self { rate, burst: None, by: RateBy::default() }
    }

    /// How many entries pass at once after a pause.
    pub fn burst(&self) -> NonZeroU32 {
        let own = BURST_TIME.as_nanos() / self.rate.interval().as_nanos().max(1);
        let own = u32::try_from(own).unwrap_or(u32::MAX);
        self.burst.or(NonZeroU32::new(own)).unwrap_or(NonZeroU32::MIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_rate_and_what_is_none() {
        let intervals =
            [("1/s", 1_000), ("4 / min", 15_000), ("1_000/h", 3_600), ("24/day", 3_600_000), ("1/m", 60_000)];
        for (text, milliseconds) in intervals {
            assert_eq!(text.parse::<Rate>().unwrap().interval(), Duration::from_millis(milliseconds), "{text}");
        }
        for text in ["", "/", "100", "0/s", "-1/s", "1.5/s", "1/", "/s", "1/week", "99999999999/s", "100/s/s"] {
            assert!(text.parse::<Rate>().unwrap_err().contains(&format!("`{text}` is no rate")), "{text}");
        }
    }

    #[test]
    fn the_fastest_rate_still_has_an_interval() {
        assert_eq!(format!("{}/s", u32::MAX).parse::<Rate>().unwrap().interval(), Duration::from_nanos(1));
    }

    #[test]
    fn a_burst_is_what_comes_in_a_tenth_of_a_second_unless_it_is_given() {
        let burst = |text: &str| RateLimit::of(text.parse().unwrap()).burst().get();
        assert_eq!([burst("1/h"), burst("10/s"), burst("11/s"), burst("5000/s")], [1, 1, 1, 500]);
        let given = RateLimit { burst: NonZeroU32::new(7), ..RateLimit::of("5000/s".parse().unwrap()) };
        assert_eq!(given.burst().get(), 7);
    }
}
