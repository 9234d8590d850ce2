//! The HTTP client of one publisher. Its connections are used again across calls and instances.
//!
//! The connections live on a thread with a runtime of its own. A connection's background task belongs to the runtime
//! that made it. On a caller's runtime it would stand still while a guest computes there, and end with that caller,
//! although all callers share the pool. The price is one hand-over between threads for each request.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::timeout;
use wasmtime_wasi_http::{Error, RequestOptions};

use super::descriptors::{Descriptor, Descriptors, Share};
use super::destination::{Destination, Host};
use super::grants::AddressRule;
use super::guest_body::GuestBody;
use super::http_body::ResponseBody;
use super::http_connect::Connector;
use super::http_pool::{AbortOnDrop, Connection, Home, OPEN_MAX, Pool, Times, Turn};
use super::http_resend::{KeptBytes, SentBody, Source};
use super::resolver::{LOOKUPS_MAX, Lookups};
use super::send_error::SendError;
use super::settings::Net;

/// The HTTP client of one publisher. Its thread is started by the first request and ends with the client.
pub(super) struct HttpClient {
    io: Mutex<Option<IoThread>>,
    share: Arc<Share>,
    connector: Arc<Connector>,
    kept: Arc<KeptBytes>,
}

/// A request on its way to a destination that was granted.
pub(super) struct Exchange {
    pub(super) request: Request<GuestBody>,
    pub(super) destination: Destination,
    pub(super) rule: AddressRule,
    pub(super) timeouts: Timeouts,
}

/// The time limits of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timeouts {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Timeouts {
    /// The guest's own limits, but never longer than a call may take.
    pub(super) fn clamped(asked: RequestOptions, call_time: Duration) -> Self {
        let clamp = |asked: Option<Duration>| asked.unwrap_or(call_time).min(call_time);
        Self {
            connect: clamp(asked.connect_timeout),
            first_byte: clamp(asked.first_byte_timeout),
            between_bytes: clamp(asked.between_bytes_timeout),
        }
    }
}

impl HttpClient {
    pub(super) fn new(net: &Net) -> Self {
        Self::with(net, Descriptors::of_process(), Times::default())
    }

    fn with(net: &Net, process: Arc<Descriptors>, times: Times) -> Self {
        let share = Share::new(process, OPEN_MAX);
        let Net { authorities, proxy, resolver } = net.clone();
        let (pool, lookups) = (Pool::new(share.clone(), times), Lookups::new(resolver, share.clone()));
        let connector = Arc::new(Connector { pool, lookups, authorities, proxy });
        Self { io: Mutex::default(), share, connector, kept: Arc::default() }
    }

    /// The runtime that all connections live on.
    pub(super) fn runtime(&self) -> Result<Handle, Error> {
        let mut io = self.io.lock();
        if let Some(io) = &*io {
            return Ok(io.runtime.clone());
        }
        let failed = |error| Error::InternalError(Some(format!("no thread for connections: {error}")));
        let started = IoThread::start().map_err(failed)?;
        Ok(io.insert(started).runtime.clone())
    }

    /// A file descriptor for a socket of the guest, if one is left.
    pub(super) fn descriptor(&self) -> Option<Descriptor> {
        self.share.try_take()
    }

    /// The addresses of `host` that `rule` allows.
    pub(super) async fn lookup(&self, host: Host, rule: AddressRule) -> Result<Vec<IpAddr>, SendError> {
        let connector = self.connector.clone();
        self.run(async move { connector.resolve(&host, rule).await }).await
    }

    /// Sends a request and waits for the head of its response. Dropping the future closes the connection.
    pub(super) async fn send(&self, exchange: Exchange) -> Result<Response<ResponseBody>, SendError> {
        self.run(exchange.run(self.connector.clone(), self.kept.clone())).await
    }

    /// Runs a future on the thread of the connections. Dropping the result ends it.
    async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, SendError>> + Send + 'static,
    ) -> Result<T, SendError> {
        let mut task = AbortOnDrop(self.runtime()?.spawn(task));
        let ended = |error| Err(Error::InternalError(Some(format!("the request was ended: {error}"))).into());
        (&mut task.0).await.unwrap_or_else(ended)
    }
}

/// The thread that all connections live on; dropping this ends it.
struct IoThread {
    runtime: Handle,
    _stop: oneshot::Sender<()>,
}

impl IoThread {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(LOOKUPS_MAX).build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        std::thread::Builder::new().name("outbox-http".into()).spawn(move || {
            let _ = runtime.block_on(stopped);
            // A name look-up cannot be interrupted: it ends by itself.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, _stop: stop })
    }
}

impl Exchange {
    async fn run(self, connector: Arc<Connector>, kept: Arc<KeptBytes>) -> Result<Response<ResponseBody>, SendError> {
        let Self { request, destination, rule, timeouts } = self;
        let turn = timeout(timeouts.connect, connector.pool.turn(&destination)).await;
        let turn = turn.ok().flatten().ok_or_else(SendError::no_turn)?;
        let (head, body) = origin_form(request)?.into_parts();
        let source = Source::new(body, kept);
        let request = |body| Request::from_parts(head.clone(), body);
        let mut closed = None;
        if let Some(connection) = connector.pool.take(&destination) {
            match exchange(connection, request(source.body()), timeouts.first_byte).await {
                Ok(answered) => {
                    source.forget();
                    return Ok(answered.response(turn, &connector, destination, timeouts));
                }
                // The server had closed the idle connection: try once on a new one.
                Err(Failed { error, unanswered: true }) => closed = Some(error),
                Err(failed) => return Err(failed.error.into()),
            }
        }
        let body = source.again().ok_or_else(|| closed.unwrap_or(Error::ConnectionTerminated))?;
        let connection = connector.connect(&destination, rule, timeouts.connect).await?;
        let answered = exchange(connection, request(body), timeouts.first_byte).await.map_err(|failed| failed.error)?;
        Ok(answered.response(turn, &connector, destination, timeouts))
    }
}

/// The head of a response, and the connection that the rest of it comes over.
struct Answered {
    response: Response<Incoming>,
    connection: Connection,
}

struct Failed {
    error: Error,
    /// Whether the connection ended before the server sent a byte.
    unanswered: bool,
}

async fn exchange(
    mut connection: Connection,
    request: Request<SentBody>,
    first_byte: Duration,
) -> Result<Answered, Failed> {
    let before = connection.read.count();
    match timeout(first_byte, connection.sender.try_send_request(request)).await {
        Err(_) => Err(Failed { error: Error::ConnectionReadTimeout, unanswered: false }),
        Ok(Ok(response)) => Ok(Answered { response, connection }),
        Ok(Err(failed)) => {
            let error = failed.into_error();
            let unanswered = connection.read.count() == before && !error.is_user();
            Err(Failed { error: error.into(), unanswered })
        }
    }
}

impl Answered {
    fn response(
        self,
        turn: Turn,
        connector: &Connector,
        destination: Destination,
        timeouts: Timeouts,
    ) -> Response<ResponseBody> {
        let Self { response, connection } = self;
        let home = Home { connection, turn, pool: connector.pool.clone(), destination };
        response.map(|incoming| ResponseBody::start(incoming, home, timeouts.between_bytes))
    }
}

/// Reduces the URI to its path, as a server expects: scheme and authority are for proxies, and the `host` header is
/// already set.
fn origin_form(mut request: Request<GuestBody>) -> Result<Request<GuestBody>, Error> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    *request.uri_mut() = path.parse::<Uri>().map_err(|_| Error::HttpRequestUriInvalid)?;
    Ok(request)
}

#[cfg(test)]
mod tests;
