//! Secrets that the host adds to a publisher's requests: the guest uses them, and never has them.

use std::fmt;
use std::sync::Arc;

use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};

use super::destination::Destination;
use super::grants::HttpGrant;

/// The fewest characters of a secret: a shorter one would be found, and blotted out, all over ordinary text.
const CHARS_MIN: usize = 8;
/// The shortest beginning of a secret that is blotted out at the end of a line that was cut.
const CUT_CHARS_MIN: usize = 4;
/// Headers that say where a request goes and where it ends: only the HTTP client sets them.
const RESERVED: [HeaderName; 5] =
    [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE];

/// A secret for a header of the requests to one destination. Only its name is ever shown.
///
/// ```
/// use outbox_wasm::HeaderSecret;
///
/// let to = "https://api.example.com".parse()?;
/// let secret = HeaderSecret::new("api_token", "k-12345678", "authorization", "Bearer ", to)?;
/// assert!(!format!("{secret:?}").contains("12345678"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct HeaderSecret {
    name: String,
    secret: String,
    header: HeaderName,
    /// The prefix and the secret.
    value: HeaderValue,
    destination: HttpGrant,
}

impl HeaderSecret {
    /// The secret `name`, which goes to `destination` in `header`, after `prefix`.
    ///
    /// # Errors
    ///
    /// An [`InvalidSecret`] if the secret is too short to be kept out of logs, or cannot be a header's value.
    pub fn new(
        name: &str,
        secret: &str,
        header: &str,
        prefix: &str,
        destination: HttpGrant,
    ) -> Result<Self, InvalidSecret> {
        let invalid = |reason: &str| InvalidSecret { name: name.to_owned(), reason: reason.to_owned() };
        if secret.chars().count() < CHARS_MIN {
            return Err(invalid("it has fewer than 8 characters"));
        }
        let header: HeaderName = header.parse().map_err(|_| invalid("its header has no valid name"))?;
        if RESERVED.contains(&header) {
            return Err(invalid("its header is one that the relay sets itself"));
        }
        // Other characters would appear in forms that `Redactor` does not know.
        if !secret.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Err(invalid("it is not one line of visible ASCII characters"));
        }
        let value = HeaderValue::from_str(&format!("{prefix}{secret}"));
        let mut value = value.map_err(|_| invalid("its prefix cannot stand in a header"))?;
        value.set_sensitive(true);
        Ok(Self { name: name.to_owned(), secret: secret.to_owned(), header, value, destination })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The destination of the requests to which it is added.
    pub fn destination(&self) -> &HttpGrant {
        &self.destination
    }

    /// Sets the header of a request to `destination`, replacing what the guest has set. Returns the header's name.
    pub(super) fn add_to(&self, headers: &mut HeaderMap, destination: &Destination) -> Option<HeaderName> {
        if !self.destination.allows(destination) {
            return None;
        }
        headers.insert(self.header.clone(), self.value.clone());
        Some(self.header.clone())
    }
}

impl fmt::Debug for HeaderSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, header, destination, .. } = self;
        write!(f, "HeaderSecret({name}, {header} of {destination})")
    }
}

/// A secret that cannot be used. The error does not show it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secret `{name}` cannot be used: {reason}")]
pub struct InvalidSecret {
    name: String,
    reason: String,
}

impl InvalidSecret {
    pub(super) fn not_granted(secret: &HeaderSecret) -> Self {
        let to = &secret.destination;
        let reason = format!("it is for {to}, which is not granted; to grant it: allow_http = [\"{to}\"]");
        Self { name: secret.name.clone(), reason }
    }
}

/// Blots secrets out of text that a guest has influenced. A destination may send back what it received: the guest then
/// knows the secret, but the secret as it is reaches no log and no record.
#[derive(Clone, Default)]
pub(super) struct Redactor(Arc<[Blot]>);

struct Blot {
    secret: String,
    mark: String,
}

impl Redactor {
    pub(super) fn of(secrets: &[HeaderSecret]) -> Self {
        let mut blots = Vec::with_capacity(secrets.len());
        for HeaderSecret { name, secret, .. } in secrets {
            let mark = format!("[secret {name}]");
            let in_json = serde_json::Value::from(secret.as_str()).to_string();
            let in_json = in_json.trim_matches('"').to_owned();
            if in_json != *secret {
                blots.push(Blot { secret: in_json, mark: mark.clone() });
            }
            blots.push(Blot { secret: secret.clone(), mark });
        }
        // A secret that contains another one goes first: otherwise its rest would stay.
        blots.sort_by_key(|blot| std::cmp::Reverse(blot.secret.len()));
        Self(blots.into())
    }

    /// `text` with each secret replaced by its name.
    pub(super) fn redacted(&self, mut text: String) -> String {
        for Blot { secret, mark } in self.0.iter() {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), mark);
            }
        }
        text
    }

    /// The same for a text that was cut off, perhaps within a secret.
    pub(super) fn redacted_beginning(&self, text: String) -> String {
        let mut text = self.redacted(text);
        for Blot { secret, mark } in self.0.iter() {
            let beginnings = (CUT_CHARS_MIN..secret.len()).rev().filter_map(|length| secret.get(..length));
            if let Some(kept) = beginnings.into_iter().find_map(|beginning| text.strip_suffix(beginning)) {
                text.truncate(kept.len());
                text.push_str(mark);
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str, secret: &str, header: &str) -> Result<HeaderSecret, String> {
        let destination = "https://api.example.com".parse().unwrap();
        HeaderSecret::new(name, secret, header, "Bearer ", destination).map_err(|error| error.to_string())
    }

    #[test]
    fn the_header_is_set_for_its_destination_only_and_replaces_the_guests() {
        let secret = secret("token", "s3cr3t-value", "Authorization").unwrap();
        let mut headers = HeaderMap::new();
        headers.append("authorization", "Basic guess".parse().unwrap());
        headers.append("authorization", "Basic again".parse().unwrap());
        let destination = |uri: &str| Destination::of(&uri.parse().unwrap()).unwrap();
        secret.add_to(&mut headers, &destination("http://api.example.com/"));
        assert_eq!(headers["authorization"], "Basic guess");
        secret.add_to(&mut headers, &destination("https://api.example.com/x"));
        let values: Vec<_> = headers.get_all("authorization").iter().collect();
        assert_eq!(values, ["Bearer s3cr3t-value"]);
    }

    #[test]
    fn nothing_shows_it() {
        let kept = secret("token", "s3cr3t-value", "authorization").unwrap();
        let mut headers = HeaderMap::new();
        kept.add_to(&mut headers, &Destination::of(&"https://api.example.com".parse().unwrap()).unwrap());
        let grants = super::super::Grants { secrets: vec![kept.clone()], ..Default::default() };
        let shown = format!("{kept:?} {kept:#?} {grants:?} {headers:?}");
        assert!(!shown.contains("s3cr3t") && shown.contains("token, authorization of https://api"), "{shown}");
        let refused = secret("token", "s3cr3t\nvalue", "authorization").unwrap_err();
        assert!(!refused.contains("s3cr3t") && refused.contains("one line"), "{refused}");
    }

    #[test]
    fn what_cannot_be_kept_or_sent_is_refused() {
        for (value, header, reason) in [
            ("", "authorization", "fewer than 8"),
            ("short", "authorization", "fewer than 8"),
            ("naïve-secret", "authorization", "ASCII"),
            ("s3cr3t-value", "not a header", "no valid name"),
            ("s3cr3t-value", "Host", "relay sets itself"),
            ("s3cr3t-value", "content-length", "relay sets itself"),
        ] {
            let refused = secret("token", value, header).unwrap_err();
            assert!(refused.contains(reason) && refused.contains("`token`"), "{value} {header}: {refused}");
        }
    }

    #[test]
    fn secrets_are_blotted_out_of_text() {
        let of = |name, value| secret(name, value, "authorization").unwrap();
        let secrets = [of("short", "abcdefgh"), of("long", "abcdefgh-ijk"), of("odd", r#"quo"te\d-key"#)];
        let redactor = Redactor::of(&secrets);
        let redacted = |text: &str| redactor.redacted(text.into());
        assert_eq!(redacted("Bearer abcdefgh, abcdefgh-ijk!"), "Bearer [secret short], [secret long]!");
        assert_eq!(redacted(r#"quo"te\d-key in {"a":"quo\"te\\d-key"}"#), r#"[secret odd] in {"a":"[secret odd]"}"#);
        assert_eq!(redacted("abcdefg"), "abcdefg");
        assert_eq!(redactor.redacted_beginning("got abcdefgh-i".into()), "got [secret short]-i");
        assert_eq!(redactor.redacted_beginning("got quo\"te".into()), "got [secret odd]");
        assert_eq!(redactor.redacted_beginning("got abc".into()), "got abc");
        assert_eq!(Redactor::default().redacted("abcdefgh".into()), "abcdefgh");
    }
}
