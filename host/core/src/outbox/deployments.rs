//! The versions of publishers that an outbox keeps: which exist, which are at work, and which is requested.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error::StorageError;
use super::operator::Act;

mod transitions;

pub use transitions::{NewVersion, Versions};

/// The most bytes that a module may have: a row in SQLite has room for 1,000,000,000.
pub const MODULE_BYTES_MAX: usize = 999_000_000;
/// The most characters of a publisher's name.
const NAME_CHARS_MAX: usize = 64;

/// The publishers' side of a storage. Operators request versions; the relay that holds the lease activates them.
///
/// Each method is one transaction. Operators' methods come first, and are recorded in the audit table; the relay's come
/// last. A transition whose start state no longer holds (somebody removed or superseded the version meanwhile) changes
/// nothing and returns false.
pub trait Deployments: Send + Sync {
    /// Stores a new version of a publisher, and requests it. A version that was requested before is retired.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; nothing is stored then.
    fn deploy(
        &self,
        publisher: &str,
        bytes: &[u8],
        canary: Option<CanaryShare>,
        note: &str,
        by: &Act,
    ) -> Result<Deployed, StorageError>;

    /// The versions of one publisher, or of all, by name and number.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn versions(&self, publisher: Option<&str>) -> Result<Vec<PublisherVersion>, StorageError>;

    /// The bytes with this digest. None if they are not kept.
    ///
    /// # Errors
    ///
    /// [`StorageError::DamagedModule`] if they have another digest by now.
    fn module(&self, digest: &str) -> Result<Option<Vec<u8>>, StorageError>;

    /// Takes a request back, or requests an earlier version again.
    ///
    /// Without a version, it withdraws the requested version; if there is none, the canary; if there is none either, it
    /// requests the version that was active before. With the active version, it withdraws everything else that is
    /// requested. With another version, it requests that version.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; nothing is changed then.
    fn rollback(&self, publisher: &str, version: Option<u32>, by: &Act) -> Result<RolledBack, StorageError>;

    /// Removes a version that is neither requested nor at work, or the whole publisher. Returns how many versions it
    /// removed.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; nothing is removed then.
    fn remove(&self, publisher: &str, version: Option<u32>, by: &Act) -> Result<u32, StorageError>;

    /// Notes that an activation begins. Returns how many have begun and not ended, including this one. None if the
    /// version is neither requested nor at work.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn begin_activation(&self, publisher: &str, version: u32) -> Result<Option<u32>, StorageError>;

    /// Notes that an activation was given up through no fault of the version, for example because the relay stops.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn activation_given_up(&self, publisher: &str, version: u32) -> Result<(), StorageError>;

    /// Makes a requested version, or the canary, active, and retires the version that was active and another canary.
    /// For the active version, it only notes that the activation ended.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn activated(&self, publisher: &str, version: u32, at: Timestamp) -> Result<bool, StorageError>;

    /// Makes a requested version the canary, and retires another canary. For the canary, it only notes that the
    /// activation ended.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn canary_started(&self, publisher: &str, version: u32, at: Timestamp) -> Result<bool, StorageError>;

    /// Refuses a version that is requested or at work. The attempts that a canary used up are given back: entries that
    /// wait for a retry are due at once.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn refused(&self, publisher: &str, version: u32, reason: &str) -> Result<bool, StorageError>;

    /// Gives back the attempts of a withdrawn canary that ended after its withdrawal.
    ///
    /// # Errors
    ///
    /// [`StorageError`]; nothing is given back then.
    fn give_back(&self, publisher: &str, digest: &str) -> Result<(), StorageError>;

    /// Adds to the counts of a version. [`registry_generation`](Self::registry_generation) does not change.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn count(&self, publisher: &str, version: u32, more: Counts) -> Result<(), StorageError>;

    /// A number that grows with every change of a version, except changes of its counts.
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    fn registry_generation(&self) -> Result<u64, StorageError>;
}

/// Where a version is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionState {
    /// It is requested, and not activated yet.
    Stored,
    /// It publishes a share of the streams, on trial.
    Canary,
    /// Publishes.
    Active,
    /// It was superseded or withdrawn, and may be requested again.
    Retired,
    /// It could not be activated, or failed its trial, and may be requested again.
    Refused,
}

impl VersionState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Stored, Self::Canary, Self::Active, Self::Retired, Self::Refused];

    /// The state's name, as it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Canary => "canary",
            Self::Active => "active",
            Self::Retired => "retired",
            Self::Refused => "refused",
        }
    }
}

/// A version of a publisher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublisherVersion {
    /// The publisher's name.
    pub publisher: String,
    /// The version's number, from 1. No number is given twice.
    pub version: u32,
    /// The sha256 digest of its bytes, in hex.
    pub digest: String,
    /// How many bytes it has.
    pub size: u64,
    /// Where it is in its life.
    pub state: VersionState,
    /// Why it was retired or refused.
    pub reason: String,
    /// A note by the person who deployed it.
    pub note: String,
    /// When it was deployed.
    pub deployed_at: Timestamp,
    /// By whom.
    pub deployed_by: String,
    /// Grows with each request: the version with the highest number was requested last.
    pub requested: u64,
    /// When it last became active. None if it never was.
    pub activated_at: Option<Timestamp>,
    /// When it last became the canary.
    pub canary_since: Option<Timestamp>,
    /// Its share as a canary, in the future, now or in the past. None if it becomes active without a trial.
    pub canary: Option<CanaryShare>,
    /// How many activations have begun and not ended.
    pub tries: u32,
    /// The outcomes of its calls so far.
    pub counts: Counts,
}

/// The outcomes of a version's calls.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Entries that it delivered.
    pub delivered: u64,
    /// Attempts that failed with an answer of its own.
    pub failed: u64,
    /// Attempts that ended in a trap or a limit.
    pub trapped: u64,
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        self.delivered = self.delivered.saturating_add(more.delivered);
        self.failed = self.failed.saturating_add(more.failed);
        self.trapped = self.trapped.saturating_add(more.trapped);
    }
}

/// The share of the streams that a canary publishes: more than none, and less than all. It is written as `5%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct CanaryShare(u32);

impl CanaryShare {
    /// The whole, in parts.
    pub const WHOLE: u32 = 10_000;

    /// A share in parts of 10,000. None for no part and for all.
    pub fn from_parts(parts: u32) -> Option<Self> {
        (1..Self::WHOLE).contains(&parts).then_some(Self(parts))
    }

    /// How many of 10,000 parts.
    pub fn parts(self) -> u32 {
        self.0
    }
}

impl fmt::Display for CanaryShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, hundredths) = (self.0 / 100, self.0 % 100);
        match hundredths {
            0 => write!(f, "{whole}%"),
            tenths if tenths % 10 == 0 => write!(f, "{whole}.{}%", tenths / 10),
            _ => write!(f, "{whole}.{hundredths:02}%"),
        }
    }
}

impl FromStr for CanaryShare {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = || {
            let (whole, fraction) = text.strip_suffix('%')?.split_once('.').unwrap_or((text.strip_suffix('%')?, "0"));
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            if !digits(whole) || !digits(fraction) || fraction.len() > 2 {
                return None;
            }
            let hundredths: u32 = format!("{fraction:0<2}").parse().ok()?;
            Self::from_parts(whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(hundredths)?)
        };
        parts().ok_or_else(|| format!("`{text}` is no share: write a percentage from 0.01% to 99.99%, for example 5%"))
    }
}

/// What a deployment did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deployed {
    /// The version: a new one, or the active one if that has the same bytes.
    pub version: u32,
    /// The digest of its bytes.
    pub digest: String,
    /// Whether it is a new version, and requested.
    pub new: bool,
    /// The version that was requested before, and is now retired.
    pub superseded: Option<u32>,
}

/// What a rollback did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RolledBack {
    /// The versions that were requested or on trial, and are now retired.
    pub withdrawn: Vec<u32>,
    /// The version that is requested again.
    pub requested: Option<u32>,
    /// The active version; another version may be requested.
    pub active: Option<u32>,
}

/// A deployment, as the audit table has it.
pub fn deployment(publisher: &str, deployed: &Deployed, canary: Option<CanaryShare>) -> String {
    let canary = canary.map_or_else(String::new, |share| format!(", canary {share}"));
    format!("{publisher}: version {}, digest {}{canary}", deployed.version, deployed.digest)
}

/// A rollback, as the audit table has it.
pub fn rolled_back(publisher: &str, done: &RolledBack) -> String {
    let withdrawn = done.withdrawn.iter().map(|version| format!("version {version} withdrawn"));
    let requested = done.requested.iter().map(|version| format!("version {version} asked for"));
    format!("{publisher}: {}", withdrawn.chain(requested).collect::<Vec<_>>().join(", "))
}

/// A removal, as the audit table has it.
pub fn removal(publisher: &str, version: Option<u32>, removed: u32) -> String {
    let what = version.map_or_else(|| format!("all {removed} versions"), |version| format!("version {version}"));
    format!("{publisher}: {what}")
}

/// The sha256 digest of these bytes, in hex.
pub fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Checks that these bytes still have this digest, and returns them.
///
/// # Errors
///
/// [`StorageError::DamagedModule`] where they have not.
pub fn verified(digest: &str, bytes: Vec<u8>) -> Result<Vec<u8>, StorageError> {
    let found = self::digest(&bytes);
    if found != digest {
        return Err(StorageError::DamagedModule { digest: digest.to_owned(), found });
    }
    Ok(bytes)
}

/// Checks the publisher's name and the size of its bytes.
///
/// # Errors
///
/// [`StorageError::Declined`] if it may not: the publisher's name is invalid, or the module is empty or too large.
pub fn check(publisher: &str, bytes: &[u8]) -> Result<(), StorageError> {
    let may = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if !(1..=NAME_CHARS_MAX).contains(&publisher.len()) || !publisher.bytes().all(may) {
        return Err(StorageError::Declined(format!(
            "`{publisher}` is no name of a publisher: a name has 1 to {NAME_CHARS_MAX} of the characters a-z, 0-9, _ and -"
        )));
    }
    match bytes.len() {
        0 => Err(StorageError::Declined(format!("the module for {publisher} is empty"))),
        bytes if bytes > MODULE_BYTES_MAX => Err(StorageError::Declined(format!(
            "the module for {publisher} has {bytes} bytes, and a row of the database has room for {MODULE_BYTES_MAX}: \
             build it without debug information, or strip it"
        ))),
        _ => Ok(()),
    }
}

/// The error for an unknown publisher: it names those that exist.
pub fn unknown(publisher: &str, names: &[String]) -> StorageError {
    StorageError::Declined(match names {
        [] => format!("there is no publisher {publisher}; none was deployed yet"),
        names => format!("there is no publisher {publisher}; there is {}", names.join(", ")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_read_and_shown_as_a_percentage() {
        for (text, parts) in [("5%", 500), ("0.5%", 50), ("0.01%", 1), ("12.34%", 1_234), ("99.99%", 9_999)] {
            let share: CanaryShare = text.parse().unwrap();
            assert_eq!((share.parts(), share.to_string().as_str()), (parts, text));
        }
        assert_eq!("07.50%".parse::<CanaryShare>().unwrap().to_string(), "7.5%");
        for text in ["", "%", "5", "0%", "100%", "-1%", "5.%", ".5%", "1.234%", "1e1%", "+5%", "99999999999%", "5 %"] {
            let error = text.parse::<CanaryShare>().unwrap_err();
            assert!(error.contains("from 0.01% to 99.99%"), "{text}: {error}");
        }
    }
}
