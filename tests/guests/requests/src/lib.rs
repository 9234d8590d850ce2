//! Does with HTTP what the event's data says, most of it nothing that a publisher should:
//!
//! | do | and then |
//! |---|---|
//! | `get` | reads the answer of `url` to its end; ok where it is a 200 |
//! | `follow` | asks `url` where it is redirected to, and goes there |
//! | `scan` | asks each of the first `count` ports of a few hosts |
//! | `head` | sends `count` headers of `bytes` bytes each to `url` |
//! | `send` | sends a body without an end to `url` |
//! | `many` | asks `url` `count` times at once, and reads all the answers |
//! | `unfinished` | sends requests that lack something, for ever |
//! | `hoard` | keeps as many as it can get: see [`hoard`] |

mod hoard;
mod http;

use outbox_guest::{Error, Publisher, Recorded};
use serde::Deserialize;

use http::{failed, refused};
use wasip2::http::types::{ErrorCode, Fields, Method, OutgoingRequest};

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
    match response.status() {
        200 => read.map(|_| ()),
        status => Err(Error::retryable(format!("{url} answered {status}"))),
    }
}

fn follow(url: &str) -> Result<(), Error> {
    let response = http::get(url).map_err(failed)?;
    eprintln!("answered {}", response.status());
    let location = response.headers().get("location").pop().ok_or_else(|| Error::rejected("no location"))?;
    get(&String::from_utf8_lossy(&location))
}

/// What is told apart is whether the host let it out: an answer, or any other failure, would say that it did.
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
