//! The connections of one publisher: how many there may be, those that are idle, and the response bodies that bring them
//! back.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::SendRequest;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use wasmtime_wasi_http::Error;

use super::destination::Destination;
use super::http::GuestBody;

/// An idle connection is closed after this time: servers close theirs after a minute or more.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// The most connections that are open at once, in use or idle: each takes a file descriptor of the host's.
pub(super) const OPEN_MAX: usize = 256;
/// What is read of a response that the guest did not read to its end, to be able to use the connection again.
const DRAIN_BYTES_MAX: usize = 64 * 1024;
/// How long that may take.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// A connection that a request can be sent on.
pub(super) type Connection = SendRequest<GuestBody>;

/// That there may be one more connection; it is given back when that is closed.
pub(super) type Permit = Option<OwnedSemaphorePermit>;

/// The connections that wait for their next request.
pub(super) struct Pool {
    idle: Mutex<HashMap<Destination, Vec<Idle>>>,
    room: Arc<Semaphore>,
}

impl Default for Pool {
    fn default() -> Self {
        Self { idle: Mutex::default(), room: Arc::new(Semaphore::new(OPEN_MAX)) }
    }
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Idle {
    fn is_usable(&self) -> bool {
        self.connection.is_ready() && self.since.elapsed() < IDLE_TIME_MAX
    }
}

impl Pool {
    /// The connection to `destination` that was used last, if one is open.
    pub(super) fn take(&self, destination: &Destination) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = idle.get_mut(destination)?;
        let usable = std::iter::from_fn(|| waiting.pop()).find(Idle::is_usable);
        if waiting.is_empty() {
            idle.remove(destination);
        }
        usable.map(|idle| idle.connection)
    }

    /// Waits until there may be one more connection; an idle one is closed for it where there is one.
    pub(super) async fn permit(&self) -> Permit {
        if self.is_full() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.values_mut().find_map(Vec::pop);
        }
        // None where the semaphore is closed, which it never is.
        self.room.clone().acquire_owned().await.ok()
    }

    fn is_full(&self) -> bool {
        self.room.available_permits() == 0
    }

    /// Keeps a connection, unless a request may be waiting for there to be one less.
    fn put(&self, destination: Destination, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, waiting| {
            waiting.retain(Idle::is_usable);
            !waiting.is_empty()
        });
        if !self.is_full() {
            idle.entry(destination).or_default().push(Idle { connection, since: Instant::now() });
        }
    }
}

/// Where a connection goes when its response has been read.
pub(super) struct Home {
    pub(super) connection: Connection,
    pub(super) pool: Arc<Pool>,
    pub(super) destination: Destination,
}

impl Home {
    async fn bring(mut self, incoming: Option<Incoming>) {
        if let Some(incoming) = incoming
            && !matches!(timeout(DRAIN_TIME_MAX, drain(incoming)).await, Ok(true))
        {
            return;
        }
        if self.connection.ready().await.is_ok() {
            self.pool.put(self.destination, self.connection);
        }
    }
}

/// Reads the rest of a response; whether it came to its end.
async fn drain(mut incoming: Incoming) -> bool {
    let mut bytes = 0;
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else { return false };
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > DRAIN_BYTES_MAX {
            return false;
        }
    }
    true
}

/// The body of a response. When it is dropped, its connection goes back to the pool.
pub(super) struct PooledBody {
    incoming: Option<Incoming>,
    home: Option<Home>,
    runtime: Handle,
    timeout: Option<Pin<Box<tokio::time::Sleep>>>,
    between_bytes: Duration,
}

impl PooledBody {
    /// Has to be called on the runtime that the connection lives on.
    pub(super) fn new(incoming: Incoming, home: Home, between_bytes: Duration) -> Self {
        let runtime = Handle::current();
        Self { incoming: Some(incoming), home: Some(home), runtime, timeout: None, between_bytes }
    }
}

impl Drop for PooledBody {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            self.runtime.spawn(home.bring(self.incoming.take()));
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        if let Poll::Ready(frame) = Pin::new(incoming).poll_frame(context) {
            self.timeout = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::Hyper)));
        }
        let between_bytes = self.between_bytes;
        let timeout = self.timeout.get_or_insert_with(|| Box::pin(tokio::time::sleep(between_bytes)));
        ready!(timeout.as_mut().poll(context));
        self.home = None;
        self.incoming = None;
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
