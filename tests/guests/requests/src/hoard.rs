//! Makes the host hold as much as it will, and keeps it.

use std::mem::forget;

use outbox_guest::Error;
use wasip2::http::types::{Fields, Method, OutgoingBody, OutgoingRequest};

use crate::Script;
use crate::http::{failed, get, refused, request, start, wait};

/// Hoards `what`, `count` times, each of `bytes` bytes. Ok if the host allows it.
pub fn hoard(script: &Script) -> Result<(), Error> {
    let part: fn(&Script) -> Result<(), Error> = match script.what.as_str() {
        "methods" => |script| keep(|request| request.set_method(&Method::Other(text(script)))),
        "authorities" => |script| keep(|request| request.set_authority(Some(&text(script)))),
        "paths" => |script| keep(|request| request.set_path_with_query(Some(&format!("/{}", text(script))))),
        "headers" => headers,
        "small headers" => small_headers,
        "copies" => copies,
        "trailers" => trailers,
        "bodies" => body,
        "requests" => under_way,
        "answers" => |script| get(&script.url).map(forget).map_err(failed),
        "connections" => return connections(script),
        other => return Err(Error::rejected(format!("no such thing: {other}"))),
    };
    (0..script.count).try_for_each(|_| part(script))
}

fn text(script: &Script) -> String {
    "a".repeat(script.bytes)
}

fn keep(set: impl Fn(&OutgoingRequest) -> Result<(), ()>) -> Result<(), Error> {
    let request = OutgoingRequest::new(Fields::new());
    set(&request).map_err(|()| Error::retryable("it is refused"))?;
    forget(request);
    Ok(())
}

fn fields(script: &Script) -> Result<Fields, Error> {
    let fields = Fields::new();
    fields.append("x-hoarded", text(script).as_bytes()).map_err(refused)?;
    Ok(fields)
}

fn headers(script: &Script) -> Result<(), Error> {
    forget(fields(script)?);
    Ok(())
}

/// In many small pieces, each of which takes more than itself.
fn small_headers(script: &Script) -> Result<(), Error> {
    let fields = Fields::new();
    let piece = || ("x".to_owned(), b"v".to_vec());
    forget(Fields::from_list(&vec![piece(); script.bytes]).map_err(refused)?);
    forget(fields);
    Ok(())
}

/// A changed copy shares nothing with its original.
fn copies(script: &Script) -> Result<(), Error> {
    let original = fields(script)?;
    let copy = original.clone();
    copy.append("x", b"y").map_err(refused)?;
    forget((original, copy));
    Ok(())
}

fn trailers(script: &Script) -> Result<(), Error> {
    let request = OutgoingRequest::new(Fields::new());
    let body = request.body().expect("it is asked for once");
    OutgoingBody::finish(body, Some(fields(script)?)).map_err(failed)?;
    forget(request);
    Ok(())
}

/// A request that is never sent, and as much of its body as the host takes.
fn body(_: &Script) -> Result<(), Error> {
    let request = OutgoingRequest::new(Fields::new());
    let body = request.body().expect("it is asked for once");
    let stream = body.write().expect("it is asked for once");
    let bytes = stream.check_write().map_err(Error::retryable)?;
    stream.write(&vec![b'b'; bytes as usize]).map_err(Error::retryable)?;
    forget((request, body, stream));
    Ok(())
}

/// A request that is sent, and whose answer does not come.
fn under_way(script: &Script) -> Result<(), Error> {
    forget(start(request(&script.url, fields(script)?)).map_err(failed)?);
    Ok(())
}

/// All of them at once, with its number for each `#` in the address; then waits for the last one's answer.
fn connections(script: &Script) -> Result<(), Error> {
    let url = |number: usize| script.url.replace('#', &number.to_string());
    let responses: Result<Vec<_>, _> =
        (0..script.count).map(|number| start(request(&url(number), Fields::new()))).collect();
    match responses.map_err(failed)?.last() {
        Some(last) => wait(last).map(|_| ()).map_err(failed),
        None => Ok(()),
    }
}
