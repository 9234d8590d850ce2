use std::time::{Duration, SystemTime};

use super::Url;
use crate::Error;

/// The response to a request.
///
/// ```
/// use std::time::SystemTime;
/// use outbox_guest::http::Response;
///
/// let response = Response::example("https://a.example/in", 422, "no such order");
/// let error = response.to_result(SystemTime::UNIX_EPOCH).unwrap_err();
/// assert!(error.is_rejected());
/// assert_eq!(error.to_string(), "https://a.example/in answered 422: no such order");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Response {
    /// Where it came from.
    pub from: Url,
    /// Its status.
    pub status: u16,
    /// Its header `Retry-After`.
    pub retry_after: Option<String>,
    /// The beginning of its body where the status is no 2xx: at most 500 bytes, what is no UTF-8 replaced.
    pub body: String,
}

impl Response {
    /// Makes a response for the tests of a publisher.
    ///
    /// # Panics
    ///
    /// When `from` is no URL.
    #[allow(clippy::panic, reason = "a test that names no URL should fail")]
    pub fn example(from: &str, status: u16, body: &str) -> Self {
        let from = from.parse().unwrap_or_else(|error| panic!("{from} {error}"));
        Self { from, status, retry_after: None, body: body.into() }
    }

    /// What the status means for an event that was sent: 2xx that it was delivered; 429 and 503 that the destination is
    /// unavailable, for as long as `Retry-After` says, if it does; another 4xx than 408 and 409 that it will never take this
    /// event; anything else that it may take it later.
    ///
    /// # Errors
    ///
    /// An [`Error`] of that kind, whose reason has the status and the beginning of the body.
    pub fn to_result(&self, now: SystemTime) -> Result<(), Error> {
        let Self { from, status, retry_after, body } = self;
        let reason = || match body.trim() {
            "" => format!("{from} answered {status}"),
            body => format!("{from} answered {status}: {body}"),
        };
        match status {
            200..=299 => Ok(()),
            429 | 503 => Err(match retry_after.as_deref().and_then(|value| wait(value, now)) {
                Some(time) => Error::unavailable(reason()).retry_after(time),
                None => Error::unavailable(reason()),
            }),
            408 | 409 => Err(Error::retryable(reason())),
            400..=499 => Err(Error::rejected(reason())),
            _ => Err(Error::retryable(reason())),
        }
    }
}

/// `Retry-After` is a number of seconds, or a date.
fn wait(retry_after: &str, now: SystemTime) -> Option<Duration> {
    let value = retry_after.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, retry_after: Option<&str>) -> Result<(), Error> {
        let now = httpdate::parse_http_date("Sat, 31 Jan 2026 12:00:00 GMT").unwrap();
        let response = Response::example("https://a.example/in", status, "");
        Response { retry_after: retry_after.map(Into::into), ..response }.to_result(now)
    }

    fn status(status: u16) -> Result<(), Error> {
        answer(status, None)
    }

    #[test]
    fn each_status_has_its_meaning() {
        for ok in [200, 202, 204] {
            assert_eq!(status(ok), Ok(()));
        }
        for rejected in [400, 401, 404, 410, 422] {
            assert!(status(rejected).unwrap_err().is_rejected());
        }
        for retryable in [301, 302, 408, 409, 500, 502, 504] {
            assert!(status(retryable).unwrap_err().is_retryable());
        }
        for unavailable in [429, 503] {
            assert!(status(unavailable).unwrap_err().is_unavailable());
        }
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_by_date() {
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sat, 31 Jan 2026 12:00:30 GMT", Some(30)),
            ("Sat, 31 Jan 2026 11:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(
                answer(503, Some(value)).unwrap_err().shortest_wait(),
                seconds.map(Duration::from_secs),
                "{value}"
            );
        }
    }
}
