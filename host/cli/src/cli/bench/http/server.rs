//! The destination: reads each request, and answers it.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Result;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use tokio::net::TcpListener;
use wasmtime_wasi_http::io::TokioIo;

use super::super::bed;
use crate::cli::terminal::print;

/// Requests to this path are answered after a while.
pub const WAITS: &str = "/waits";
const WAIT: Duration = Duration::from_millis(10);
/// Requests to this path are answered after a long while.
pub const SLOW: &str = "/slow";
const SLOW_WAIT: Duration = Duration::from_secs(2);
/// Requests to this path are answered with 503.
pub const DOWN: &str = "/down";

/// The other process: prints its address, and serves until its standard input closes.
pub fn serve() -> Result<()> {
    let runtime = bed::runtime()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    print(listener.local_addr()?)?;
    let (open, closed) = tokio::sync::oneshot::channel::<Infallible>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(open);
    });
    runtime.block_on(async {
        tokio::select! {
            _ = closed => Ok(()),
            ended = accept(listener) => ended,
        }
    })
}

async fn accept(listener: TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    let mut response = Response::new(Empty::new());
    match request.uri().path() {
        WAITS => tokio::time::sleep(WAIT).await,
        SLOW => tokio::time::sleep(SLOW_WAIT).await,
        DOWN => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
        _ => {}
    }
    // A client that ends its request early gets no answer.
    let _ = request.into_body().collect().await;
    Ok(response)
}
