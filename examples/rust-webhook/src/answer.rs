use std::time::{Duration, SystemTime};

use outbox_guest::Error;

use crate::destination::Destination;

/// What a publisher needs of a response.
#[derive(Default)]
pub struct Response {
    pub status: u16,
    pub retry_after: Option<String>,
    /// The beginning of the body.
    pub body: String,
}

/// What the status of a response means for the event.
pub fn to_result(destination: &Destination, response: &Response, now: SystemTime) -> Result<(), Error> {
    let reason = || match response.body.trim() {
        "" => format!("{destination} answered {}", response.status),
        body => format!("{destination} answered {}: {body}", response.status),
    };
    match response.status {
        200..=299 => Ok(()),
        429 | 503 => Err(match response.retry_after.as_deref().and_then(|value| wait(value, now)) {
            Some(time) => Error::unavailable(reason()).retry_after(time),
            None => Error::unavailable(reason()),
        }),
        408 | 409 => Err(Error::retryable(reason())),
        400..=499 => Err(Error::rejected(reason())),
        _ => Err(Error::retryable(reason())),
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

    fn answer(response: Response) -> Result<(), Error> {
        let now = httpdate::parse_http_date("Sat, 31 Jan 2026 12:00:00 GMT").unwrap();
        to_result(&"https://a.example/in".parse().unwrap(), &response, now)
    }

    fn status(status: u16) -> Result<(), Error> {
        answer(Response { status, ..Response::default() })
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
            let response = Response { status: 503, retry_after: Some(value.into()), body: String::new() };
            assert_eq!(answer(response).unwrap_err().shortest_wait(), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn the_reason_has_the_status_and_the_body() {
        let response = Response { status: 422, body: "no such order\n".into(), retry_after: None };
        assert_eq!(answer(response).unwrap_err().to_string(), "https://a.example/in answered 422: no such order");
    }
}
