use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

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
    /// The beginning of its body, unless the status is a 2xx: at most 500 bytes; bytes that are no UTF-8 are replaced. Of a
    /// 2xx, [`post_and_read`](super::post_and_read) has all of it.
    pub body: String,
}

impl Response {
    /// Makes a response for the tests of a publisher.
    ///
    /// # Panics
    ///
    /// If `from` is no URL.
    #[allow(clippy::panic, reason = "a test that names no URL should fail")]
    pub fn example(from: &str, status: u16, body: &str) -> Self {
        let from = from.parse().unwrap_or_else(|error| panic!("{from} {error}"));
        Self { from, status, retry_after: None, body: body.into() }
    }

    /// What the status means for an event that was sent, with 404 and 410 as a [rejection](NotFound::Rejected).
    ///
    /// | status | the event |
    /// |---|---|
    /// | 2xx | was delivered |
    /// | 401, 403, 407 | cannot be delivered now, and no other can: what is to be mended is a token |
    /// | 429, 503 | cannot be delivered now, and no other can: the destination asks for a pause |
    /// | 404, 410 | is what [`NotFound`] says |
    /// | 408, 409, 421, 423, 425 | may be taken later |
    /// | another 4xx | will never be taken |
    /// | 3xx, which is not followed, 5xx, any other | may be taken later |
    ///
    /// If it may be taken later, `Retry-After` is the shortest time to wait.
    ///
    /// # Errors
    ///
    /// An [`Error`] of that kind, whose reason has the status and the beginning of the body.
    pub fn to_result(&self, now: SystemTime) -> Result<(), Error> {
        self.to_result_with(now, NotFound::default())
    }

    /// The same as [`to_result`](Self::to_result), with what 404 and 410 mean.
    ///
    /// # Errors
    ///
    /// Those of [`to_result`](Self::to_result).
    ///
    /// ```
    /// use std::time::SystemTime;
    /// use outbox_guest::http::{NotFound, Response};
    ///
    /// let not_found: NotFound = "unavailable".parse()?;
    /// let response = Response::example("https://a.example/in", 404, "");
    /// assert!(response.to_result_with(SystemTime::now(), not_found).unwrap_err().is_unavailable());
    /// # Ok::<(), String>(())
    /// ```
    pub fn to_result_with(&self, now: SystemTime, not_found: NotFound) -> Result<(), Error> {
        let error = match self.status {
            200..=299 => return Ok(()),
            401 | 403 | 407 | 429 | 503 => Error::unavailable(self.reason()),
            404 | 410 => not_found.error(self.reason()),
            408 | 409 | 421 | 423 | 425 => Error::retryable(self.reason()),
            400..=499 => Error::rejected(self.reason()),
            _ => Error::retryable(self.reason()),
        };
        Err(match self.retry_after.as_deref().and_then(|value| wait(value, now)) {
            Some(time) if !error.is_rejected() => error.retry_after(time),
            _ => error,
        })
    }

    fn reason(&self) -> String {
        let Self { from, status, body, .. } = self;
        match body.trim() {
            "" => format!("{from} answered {status}"),
            body => format!("{from} answered {status}: {body}"),
        }
    }
}

/// What 404 and 410 mean: only someone who knows the destination can tell whether the event is wrong, or the URL. It is
/// written as the kind of the [`Error`] that it becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NotFound {
    /// The URL may exist later.
    Retryable,
    /// The destination lacks what the event is about: the event becomes a dead letter.
    #[default]
    Rejected,
    /// The URL is wrong, or the destination is being set up: no event can be delivered.
    Unavailable,
}

impl NotFound {
    fn error(self, reason: String) -> Error {
        match self {
            Self::Retryable => Error::retryable(reason),
            Self::Rejected => Error::rejected(reason),
            Self::Unavailable => Error::unavailable(reason),
        }
    }
}

impl FromStr for NotFound {
    /// What is wrong with it, as the rest of a sentence.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "retryable" => Ok(Self::Retryable),
            "rejected" => Ok(Self::Rejected),
            "unavailable" => Ok(Self::Unavailable),
            other => Err(format!("is {other:?}: retryable, rejected and unavailable are possible")),
        }
    }
}

/// `Retry-After` is a number of seconds, or a date in one of the three formats of HTTP.
fn wait(retry_after: &str, now: SystemTime) -> Option<Duration> {
    let value = retry_after.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
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
        for rejected in [400, 402, 404, 405, 410, 413, 415, 422, 451] {
            assert!(status(rejected).unwrap_err().is_rejected());
        }
        for retryable in [301, 302, 408, 409, 421, 423, 425, 500, 502, 504] {
            assert!(status(retryable).unwrap_err().is_retryable());
        }
        for unavailable in [401, 403, 407, 429, 503] {
            assert!(status(unavailable).unwrap_err().is_unavailable());
        }
    }

    #[test]
    fn what_is_not_found_is_what_the_operator_says() {
        let answer = |not_found: &str| {
            let gone = Response::example("https://a.example/in", 410, "");
            gone.to_result_with(SystemTime::UNIX_EPOCH, not_found.parse().unwrap()).unwrap_err()
        };
        assert!(answer("retryable").is_retryable());
        assert!(answer("rejected").is_rejected());
        assert!(answer("unavailable").is_unavailable());
        assert!("lost".parse::<NotFound>().is_err());
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_by_date() {
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sat, 31 Jan 2026 12:00:30 GMT", Some(30)),
            ("Saturday, 31-Jan-26 12:00:30 GMT", Some(30)),
            ("Sat Jan 31 12:00:30 2026", Some(30)),
            ("Sat, 31 Jan 2026 11:00:00 GMT", Some(0)),
            ("99999999999999999999", Some(u64::MAX)),
            ("soon", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("", None),
        ] {
            for status in [401, 429, 503, 302, 408, 425, 500] {
                let wait = answer(status, Some(value)).unwrap_err().shortest_wait();
                assert_eq!(wait, seconds.map(Duration::from_secs), "{status} {value}");
            }
            assert_eq!(answer(422, Some(value)).unwrap_err().shortest_wait(), None);
        }
    }
}
