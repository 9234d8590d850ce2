//! Does with HTTP what the event's data says, most of it nothing that a publisher should:
//!
//! | do | and then |
//! |---|---|
//! | `get` | reads the answer of `url` to its end; ok where it is a 200 |
//! | `follow` | asks `url` where it is redirected to, and goes there |
//! | `scan` | asks each of the first `count` ports of a few hosts |
//! | `head` | sends `count` headers of `bytes` bytes each to `url` |
//! | `send` | sends a body without an end to `url` |
//! | `post` | sends a body of `bytes` bytes to `url`, and looks for the answer only then |
//! | `ask` | sends a request with the method `what` to `url`, and the headers and trailers `authorization` and `x-key` |
//! | `many` | asks `url` `count` times at once, and reads all the answers |
//! | `unfinished` | sends requests that lack something, for ever |
//! | `hoard` | keeps as many as it can get: see [`hoard`] |

mod hoard;
mod http;

use outbox_guest::{Error, Publisher, Recorded};
use serde::Deserialize;

use http::{failed, refused};
use wasip2::http::types::{ErrorCode, Fields, Method, OutgoingBody, OutgoingRequest};

#[derive(Default)]
struct Requests;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Script {
    r#do: String,
    url: String,
    what: String,
    count: usize,
    bytes: usize,
}

impl Publisher for Requests {
    fn publish(&mut self, event: Recorded) -> Result<(), Error> {
        let script: Script = event.data().unwrap_or_default();
        match script.r#do.as_str() {
            "get" => get(&script.url),
            "follow" => follow(&script.url),
            "scan" => scan(script.count),
            "head" => head(&script),
            "send" => send(&script.url),
            "post" => post(&script),
            "ask" => ask(&script),
            "many" => many(&script),
            "unfinished" => unfinished(),
            "hoard" => hoard::hoard(&script),
            _ => Ok(()),
        }
    }
}

fn get(url: &str) -> Result<(), Error> {
    let response = http::get(url).map_err(failed)?;
    let read = http::read(&response);
    answered(url, response.status()).and(read.map(|_| ()))
}

fn follow(url: &str) -> Result<(), Error> {
    let response = http::get(url).map_err(failed)?;
    eprintln!("answered {}", response.status());
    let location = response.headers().get("location").pop().ok_or_else(|| Error::rejected("no location"))?;
    get(&String::from_utf8_lossy(&location))
}

/// Distinguishes whether the host let the request out: an answer, or any other failure, shows that it did.
fn scan(ports: usize) -> Result<(), Error> {
    let (mut denied, mut let_out) = (0, 0);
    for host in ["127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.0.1", "[::1]", "localhost"] {
        for port in 1..=ports {
            match http::get(&format!("http://{host}:{port}")) {
                Err(ErrorCode::HttpRequestDenied) => denied += 1,
                _ => let_out += 1,
            }
        }
    }
    Err(Error::retryable(format!("{denied} denied, {let_out} let out")))
}

fn head(script: &Script) -> Result<(), Error> {
    let fields = Fields::new();
    let value = vec![b'v'; script.bytes];
    for number in 0..script.count {
        fields.append(&format!("x-{number}"), &value).map_err(refused)?;
    }
    let response = http::start(http::request(&script.url, fields)).map_err(failed)?;
    http::wait(&response).map(|_| ()).map_err(failed)
}

fn send(url: &str) -> Result<(), Error> {
    let request = http::request(url, Fields::new());
    request.set_method(&Method::Post).expect("it is a method");
    let body = request.body().expect("it is asked for once");
    let stream = body.write().expect("it is asked for once");
    let _response = http::start(request).map_err(failed)?;
    loop {
        stream.blocking_write_and_flush(&[b'b'; 4096]).map_err(Error::retryable)?;
    }
}

fn post(script: &Script) -> Result<(), Error> {
    let request = http::request(&script.url, Fields::new());
    request.set_method(&Method::Post).expect("it is a method");
    let body = request.body().expect("it is asked for once");
    let stream = body.write().expect("it is asked for once");
    let response = http::start(request).map_err(failed)?;
    let written = vec![b'b'; script.bytes].chunks(4096).try_for_each(|chunk| stream.blocking_write_and_flush(chunk));
    drop(stream);
    drop(written.map(|()| OutgoingBody::finish(body, None)));
    answered(&script.url, http::wait(&response).map_err(failed)?.status())
}

fn ask(script: &Script) -> Result<(), Error> {
    let fields = || {
        let own = ["authorization", "x-key"].map(|name| (name.to_owned(), b"the guest's own".to_vec()));
        Fields::from_list(&own).map_err(refused)
    };
    let headers = fields()?;
    headers.append("trailer", b"authorization, x-key, x-more").map_err(refused)?;
    let request = http::request(&script.url, headers);
    request.set_method(&Method::Other(script.what.clone())).map_err(|()| Error::rejected("no method"))?;
    let body = request.body().expect("it is asked for once");
    let response = http::start(request).map_err(failed)?;
    body.write().expect("it is asked for once").blocking_write_and_flush(b"body").map_err(Error::retryable)?;
    let trailers = fields()?;
    trailers.append("x-more", b"more").map_err(refused)?;
    OutgoingBody::finish(body, Some(trailers)).map_err(failed)?;
    answered(&script.url, http::wait(&response).map_err(failed)?.status())
}

fn answered(url: &str, status: u16) -> Result<(), Error> {
    if status == 200 { Ok(()) } else { Err(Error::retryable(format!("{url} answered {status}"))) }
}

fn many(script: &Script) -> Result<(), Error> {
    let started: Result<Vec<_>, _> =
        (0..script.count).map(|_| http::start(http::request(&script.url, Fields::new()))).collect();
    for response in started.map_err(failed)? {
        http::read(&http::wait(&response).map_err(failed)?)?;
    }
    Ok(())
}

fn unfinished() -> Result<(), Error> {
    loop {
        drop(http::start(OutgoingRequest::new(Fields::new())));
        let request = OutgoingRequest::new(Fields::new());
        request.set_authority(Some("127.0.0.1:1")).expect("it is an authority");
        drop(http::start(request));
    }
}

outbox_guest::export!(Requests);
