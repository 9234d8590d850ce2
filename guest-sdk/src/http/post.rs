use std::time::Duration;

use wasip2::{
    clocks::monotonic_clock,
    http::{
        outgoing_handler,
        types::{
            ErrorCode, Fields, FutureIncomingResponse, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
            RequestOptions, Scheme,
        },
    },
    io::{
        poll::poll,
        streams::{OutputStream, StreamError},
    },
};

use super::{Response, Url};
use crate::Error;

/// How many bytes of a response's body are read, for an error's reason ...
const BODY_BYTES: usize = 500;
/// ... and how long this may take: the body explains the status, and changes nothing about it.
const BODY_TIME: Duration = Duration::from_secs(1);

/// Posts `body` with these headers (and `content-length`), and waits for the response: for its status, and, unless it
/// is a 2xx, for the beginning of its body. A response that comes before all of `body` was sent counts. `timeout`
/// applies to the connection, and to the first byte of the response; the relay's own limit for the whole call overrides
/// it.
///
/// # Errors
///
/// [Unavailable](Error::unavailable) if the request could not be sent: the relay denies it, the name is unknown, the
/// destination refuses the connection, cannot be reached in time, or is not trusted. No event is to blame for that, and
/// none could be delivered. [Retryable](Error::retryable) if the network fails later: this event may be the cause.
/// [Rejected](Error::rejected) if a header is invalid.
///
/// ```no_run
/// use std::time::{Duration, SystemTime};
/// use outbox_guest::http::{self, Url};
/// # fn send() -> Result<(), outbox_guest::Error> {
/// let url: Url = "https://hooks.example.com/orders".parse().map_err(outbox_guest::Error::unavailable)?;
/// let response = http::post(&url, &[("content-type", "application/json")], b"{}", Duration::from_secs(10))?;
/// response.to_result(SystemTime::now())
/// # }
/// ```
pub fn post(url: &Url, headers: &[(&str, &str)], body: &[u8], timeout: Duration) -> Result<Response, Error> {
    send(url, headers, body, timeout).map(|response| read(url, &response))
}

/// The same as [`post`], and reads the whole body of a response whose status is a 2xx: at most `body_max` bytes, in at most
/// `timeout`. A destination that takes several events with one request may say in it which of them failed.
///
/// # Errors
///
/// Those of [`post`]. [Retryable](Error::retryable) if the body is longer, does not end in time, or breaks off.
pub fn post_and_read(
    url: &Url,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout: Duration,
    body_max: usize,
) -> Result<Response, Error> {
    let response = send(url, headers, body, timeout)?;
    let read = read(url, &response);
    if !is_success(read.status) {
        return Ok(read);
    }
    let (body, is_whole) = beginning_of_body(&response, body_max, timeout);
    let incomplete =
        || Error::retryable(format!("the answer of {url} is longer than {body_max} bytes, or does not end"));
    if is_whole { Ok(Response { body, ..read }) } else { Err(incomplete()) }
}

fn send(url: &Url, headers: &[(&str, &str)], body: &[u8], timeout: Duration) -> Result<IncomingResponse, Error> {
    let failed = |code| error(url, &code);
    let request = request(url, headers, body.len())?;
    let outgoing = request.body().map_err(|()| Error::retryable("the request has no body to write to"))?;
    let response = outgoing_handler::handle(request, Some(options(timeout)?)).map_err(failed)?;
    // A server may answer and hang up before it has read everything: its answer counts, not the broken pipe.
    let written = write(outgoing, body, &response);
    match wait(&response).map_err(failed)? {
        Some(response) => Ok(response),
        None => Err(written.err().unwrap_or_else(|| Error::retryable("the response is gone"))),
    }
}

fn request(url: &Url, headers: &[(&str, &str)], length: usize) -> Result<OutgoingRequest, Error> {
    let length = length.to_string();
    let entries: Vec<(String, Vec<u8>)> = headers
        .iter()
        .chain(&[("content-length", length.as_str())])
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    let fields =
        Fields::from_list(&entries).map_err(|error| Error::rejected(format!("a header is refused: {error}")))?;
    let request = OutgoingRequest::new(fields);
    let scheme = if url.https { Scheme::Https } else { Scheme::Http };
    request
        .set_method(&Method::Post)
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(&url.authority)))
        .and_then(|()| request.set_path_with_query(Some(&url.path_with_query)))
        .map_err(|()| Error::unavailable(format!("the URL {url} is refused")))?;
    Ok(request)
}

fn options(timeout: Duration) -> Result<RequestOptions, Error> {
    let nanoseconds = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    let options = RequestOptions::new();
    options
        .set_connect_timeout(Some(nanoseconds))
        .and_then(|()| options.set_first_byte_timeout(Some(nanoseconds)))
        .and_then(|()| options.set_between_bytes_timeout(Some(nanoseconds)))
        .map_err(|()| Error::unavailable("the relay does not support HTTP time-outs"))?;
    Ok(options)
}

fn write(outgoing: OutgoingBody, body: &[u8], response: &FutureIncomingResponse) -> Result<(), Error> {
    let stream = outgoing.write().map_err(|()| Error::retryable("the request's body is gone"))?;
    let written = write_until_answered(&stream, body, response);
    drop(stream); // a body is finished only when nothing can write to it any more
    match written.map_err(Error::retryable)? {
        Written::Whole => OutgoingBody::finish(outgoing, None).map_err(Error::retryable),
        Written::Answered => Ok(()),
    }
}

enum Written {
    Whole,
    /// The server answered before the end of the body: it need not read the rest.
    Answered,
}

fn write_until_answered(
    stream: &OutputStream,
    mut body: &[u8],
    response: &FutureIncomingResponse,
) -> Result<Written, StreamError> {
    let (room, answered) = (stream.subscribe(), response.subscribe());
    let mut flushed = false;
    loop {
        let room_for = usize::try_from(stream.check_write()?).unwrap_or(usize::MAX);
        if room_for == 0 {
            poll(&[&room, &answered]);
            if answered.ready() {
                return Ok(Written::Answered);
            }
        } else if let Some((part, rest)) = body.split_at_checked(room_for.min(body.len())).filter(|_| !body.is_empty())
        {
            stream.write(part)?;
            body = rest;
        } else if flushed {
            return Ok(Written::Whole);
        } else {
            stream.flush()?;
            flushed = true;
        }
    }
}

fn wait(response: &FutureIncomingResponse) -> Result<Option<IncomingResponse>, ErrorCode> {
    response.subscribe().block();
    match response.get() {
        Some(Ok(result)) => result.map(Some),
        Some(Err(())) | None => Ok(None),
    }
}

fn read(url: &Url, response: &IncomingResponse) -> Response {
    let status = response.status();
    let retry_after =
        response.headers().get("retry-after").into_iter().next().and_then(|value| String::from_utf8(value).ok());
    let body = if is_success(status) { String::new() } else { beginning_of_body(response, BODY_BYTES, BODY_TIME).0 };
    Response { from: url.clone(), status, retry_after, body }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Reads the beginning of the body, and says whether it is all of it. Of a failure, the status is the answer, even if the
/// body breaks off or does not end.
fn beginning_of_body(response: &IncomingResponse, bytes_max: usize, time: Duration) -> (String, bool) {
    let Ok(incoming) = response.consume() else { return (String::new(), false) };
    let Ok(stream) = incoming.stream() else { return (String::new(), false) };
    let more = stream.subscribe();
    let late = monotonic_clock::subscribe_duration(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    let (mut body, mut is_whole) = (Vec::new(), false);
    while body.len() <= bytes_max {
        match stream.read((bytes_max + 1 - body.len()) as u64) {
            Ok(bytes) if bytes.is_empty() && poll(&[&more, &late]).contains(&1) => break,
            Ok(bytes) => body.extend_from_slice(&bytes),
            Err(StreamError::Closed) => {
                is_whole = true;
                break;
            }
            Err(_) => break,
        }
    }
    body.truncate(bytes_max);
    (String::from_utf8_lossy(&body).into_owned(), is_whole)
}

/// A failure before anything was sent has nothing to do with the event: no other event could be delivered either, and
/// none should use up attempts for it. The event may be the cause of a later failure.
fn error(url: &Url, code: &ErrorCode) -> Error {
    let name = format!("{code:?}").replace("ErrorCode::", "");
    match code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => Error::unavailable(format!(
            "the relay denied the request to {url} ({name}): the publisher has no grant for it"
        )),
        ErrorCode::DnsTimeout
        | ErrorCode::DnsError(_)
        | ErrorCode::DestinationNotFound
        | ErrorCode::DestinationUnavailable
        | ErrorCode::DestinationIpUnroutable
        | ErrorCode::ConnectionRefused
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionLimitReached
        | ErrorCode::TlsProtocolError
        | ErrorCode::TlsCertificateError
        | ErrorCode::TlsAlertReceived(_)
        | ErrorCode::HttpRequestUriInvalid
        | ErrorCode::ConfigurationError => Error::unavailable(format!("the request to {url} failed: {name}")),
        _ => Error::retryable(format!("the request to {url} failed: {name}")),
    }
}
