//! A request in a few words.

use outbox_guest::Error;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, HeaderError, IncomingResponse, OutgoingRequest, Scheme,
};
use wasip2::io::streams::StreamError;

/// A GET of this `http:` URL.
pub fn request(url: &str, fields: Fields) -> OutgoingRequest {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let request = OutgoingRequest::new(fields);
    let set = request.set_scheme(Some(&Scheme::Http)).and_then(|()| request.set_authority(Some(authority)));
    set.and_then(|()| request.set_path_with_query(Some(path))).expect("it is a URL");
    request
}

pub fn start(request: OutgoingRequest) -> Result<FutureIncomingResponse, ErrorCode> {
    outgoing_handler::handle(request, None)
}

pub fn wait(response: &FutureIncomingResponse) -> Result<IncomingResponse, ErrorCode> {
    response.subscribe().block();
    response.get().expect("it is ready").expect("it is asked for once")
}

/// Asks, and waits for the head of the answer.
pub fn get(url: &str) -> Result<IncomingResponse, ErrorCode> {
    wait(&start(request(url, Fields::new()))?)
}

/// Reads a body to its end, and forgets it; how many bytes there were.
pub fn read(response: &IncomingResponse) -> Result<u64, Error> {
    let body = response.consume().expect("it is consumed once");
    let stream = body.stream().expect("it is read once");
    let mut bytes = 0;
    loop {
        match stream.blocking_read(64 * 1024) {
            Ok(read) => bytes += read.len() as u64,
            Err(StreamError::Closed) => return Ok(bytes),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(Error::retryable(format!("after {bytes} bytes: {}", error.to_debug_string())));
            }
        }
    }
}

pub fn failed(code: ErrorCode) -> Error {
    Error::retryable(format!("{code:?}").replace("ErrorCode::", ""))
}

pub fn refused(error: HeaderError) -> Error {
    Error::retryable(format!("{error:?}"))
}
