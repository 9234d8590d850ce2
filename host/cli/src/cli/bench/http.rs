//! Webhooks over real HTTP, to a server in another process: the relay's, and those of a native client with as many
//! connections. The server answers after 10 ms, as destinations do, or at once.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use outbox_host::RelayOptions;
use outbox_host::publisher::component::{ComponentPublisher, Grants, HttpAnswer, HttpTap, SeenRequest, Settings};
use tokio::net::TcpStream;
use wasmtime_wasi_http::io::TokioIo;

use super::bed::{self, Bed};
use super::figures::{Figure, Measured, in_turn};
use super::other::{Other, Part};

pub mod server;

/// The calls of the relay at once, and the connections of the native client.
const CONNECTIONS: usize = 64;

pub fn measure(bed: &Bed) -> Result<Measured> {
    let mut server = Other::start(bed, Part::Serve, None, 1)?;
    let address = server.line()?.context("the server did not start")?;
    let rounds = (bed.entries / 2_000).clamp(1, 100);
    let requests = CONNECTIONS * rounds;
    let full = bed.filled(requests, bed.bytes, CONNECTIONS)?;
    let mut figures = Vec::new();
    for (path, answers) in [(server::WAITS, "answered after 10 ms"), ("/", "answered at once")] {
        let url = format!("http://{address}{path}");
        let request = request(bed, &url)?;
        let webhook = ComponentPublisher::load(bed.given(&bed.webhook)?, settings(&url)?)?;
        let options = || RelayOptions { concurrency: CONNECTIONS, ..RelayOptions::default() };
        let [native, relay] = in_turn(
            &format!("http, {answers}"),
            bed.repeat,
            [&mut || post(&address, path, &request, requests), &mut || {
                bed::drain_with(&bed.copy(&full)?, &webhook, requests, options())
            }],
        )?;
        figures.extend([
            Figure::ratio(format!("relay / native client, {answers}"), &relay, &native),
            Figure::new(format!("native client, {answers}"), "/s", native),
            Figure::new(format!("relay with the webhook, {answers}"), "/s", relay),
        ]);
    }
    server.end()?;
    Ok(Measured { what: format!("webhooks of {} bytes over HTTP, {CONNECTIONS} at once", bed.bytes), figures })
}

/// Settings of a webhook that posts to this URL.
pub fn settings(url: &str) -> Result<Settings> {
    let origin = url.rsplit_once('/').map_or(url, |(origin, _)| origin);
    let grant = origin.parse().map_err(|error| anyhow::anyhow!("{error}"))?;
    let env = [("WEBHOOK_URL".to_owned(), url.to_owned())].into();
    Ok(Settings { grants: Grants { allow_http: vec![grant], env, ..Grants::default() }, ..bed::settings() })
}

/// What the component sends for an entry, so that the native client can send the same.
fn request(bed: &Bed, url: &str) -> Result<SeenRequest> {
    let ok = HttpAnswer { method: None, url: None, status: 200, headers: Vec::new(), body: String::new() };
    let tap = Arc::new(HttpTap::answering(vec![ok]));
    let settings = Settings { http_tap: Some(tap.clone()), ..settings(url)? };
    let webhook = ComponentPublisher::load(bed.given(&bed.webhook)?, settings)?;
    bed::drain(&bed.filled(1, bed.bytes, 1)?, &webhook, 1)?;
    tap.take().pop().context("the webhook sends no request")
}

fn post(address: &str, path: &str, request: &SeenRequest, requests: usize) -> Result<f64> {
    let (runtime, body) = (bed::runtime()?, Bytes::from(request.body.clone()));
    let began = Instant::now();
    runtime.block_on(try_join_all((0..CONNECTIONS).map(|_| {
        let body = body.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            for _ in 0..requests / CONNECTIONS {
                let mut post = Request::post(path).header("host", address);
                for (name, value) in request.headers.iter().filter(|(name, _)| name != "host") {
                    post = post.header(name, value);
                }
                sender.ready().await?;
                let response = sender.send_request(post.body(Full::new(body.clone()))?).await?;
                ensure!(response.status() == 200, "the server answered {}", response.status());
                response.into_body().collect().await?;
            }
            anyhow::Ok(())
        }
    })))?;
    Ok(bed::per_second(requests, began))
}
