use std::io::{Read, Write};

use outbox_guest::Error;
use wasip2::http::{
    outgoing_handler,
    types::{
        ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingResponse, Method, OutgoingBody,
        OutgoingRequest, RequestOptions, Scheme,
    },
};

use crate::{answer::Response, destination::Destination};

const TIMEOUT_NS: u64 = 10_000_000_000;
/// Of a response's body, so much goes into an error's reason ...
const BODY_KEPT_BYTES: usize = 500;
/// ... and so much is read, so that the connection can be used again.
const BODY_READ_BYTES: u64 = 1 << 20;

/// Posts `body`, and waits for the whole response.
pub fn post(destination: &Destination, headers: &[(&str, &str)], body: &[u8]) -> Result<Response, Error> {
    let failed = |code| error(destination, &code);
    let request = request(destination, headers, body.len())?;
    let outgoing = request.body().map_err(|()| Error::retryable("the request has no body to write to"))?;
    let response = outgoing_handler::handle(request, Some(options()?)).map_err(failed)?;
    // A server may answer, and hang up, before it has read everything: its answer counts, not the broken pipe.
    let written = write(outgoing, body);
    match wait(&response).map_err(failed)? {
        Some(response) => read(&response),
        None => Err(written.err().unwrap_or_else(|| Error::retryable("the response is gone"))),
    }
}

fn request(destination: &Destination, headers: &[(&str, &str)], length: usize) -> Result<OutgoingRequest, Error> {
    let length = length.to_string();
    let entries: Vec<(String, Vec<u8>)> = headers
        .iter()
        .chain(&[("content-length", length.as_str())])
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect();
    let fields =
        Fields::from_list(&entries).map_err(|error| Error::rejected(format!("a header is refused: {error}")))?;
    let request = OutgoingRequest::new(fields);
    let scheme = if destination.https { Scheme::Https } else { Scheme::Http };
    request
        .set_method(&Method::Post)
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(&destination.authority)))
        .and_then(|()| request.set_path_with_query(Some(&destination.path_with_query)))
        .map_err(|()| Error::unavailable(format!("WEBHOOK_URL is refused: {destination}")))?;
    Ok(request)
}

fn options() -> Result<RequestOptions, Error> {
    let options = RequestOptions::new();
    options
        .set_connect_timeout(Some(TIMEOUT_NS))
        .and_then(|()| options.set_first_byte_timeout(Some(TIMEOUT_NS)))
        .and_then(|()| options.set_between_bytes_timeout(Some(TIMEOUT_NS)))
        .map_err(|()| Error::unavailable("the relay does not support HTTP time-outs"))?;
    Ok(options)
}

fn write(outgoing: OutgoingBody, body: &[u8]) -> Result<(), Error> {
    let mut stream = outgoing.write().map_err(|()| Error::retryable("the request's body is gone"))?;
    stream.write_all(body)?;
    Write::flush(&mut stream)?;
    drop(stream); // a body is finished only when nothing can write to it any more
    OutgoingBody::finish(outgoing, None).map_err(Error::retryable)
}

fn wait(response: &FutureIncomingResponse) -> Result<Option<IncomingResponse>, ErrorCode> {
    response.subscribe().block();
    match response.get() {
        Some(Ok(result)) => result.map(Some),
        Some(Err(())) | None => Ok(None),
    }
}

fn read(response: &IncomingResponse) -> Result<Response, Error> {
    let status = response.status();
    let retry_after =
        response.headers().get("retry-after").into_iter().next().and_then(|value| String::from_utf8(value).ok());
    Ok(Response { status, retry_after, body: beginning_of_body(response) })
}

/// The status is the answer: a body that breaks off takes nothing from it.
fn beginning_of_body(response: &IncomingResponse) -> String {
    let Ok(incoming) = response.consume() else { return String::new() };
    let mut body = Vec::new();
    if let Ok(stream) = incoming.stream() {
        let mut chunk = [0; 8 * 1024];
        let mut limited = stream.take(BODY_READ_BYTES);
        while let Ok(length @ 1..) = limited.read(&mut chunk) {
            let wanted = length.min(BODY_KEPT_BYTES - body.len());
            body.extend_from_slice(&chunk[..wanted]);
        }
    }
    drop(IncomingBody::finish(incoming));
    String::from_utf8_lossy(&body).into_owned()
}

/// A request that the relay denied is the operator's to allow: no event can be delivered before that, and none of them
/// is to blame. Anything else is the network's, and may pass.
fn error(destination: &Destination, code: &ErrorCode) -> Error {
    let name = format!("{code:?}").replace("ErrorCode::", "");
    match code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => Error::unavailable(format!(
            "the relay denied the request to {destination} ({name}): the publisher has no grant for it"
        )),
        _ => Error::retryable(format!("the request to {destination} failed: {name}")),
    }
}
