//! The connections of one publisher: made to checked addresses only, and used again across calls and instances.
//!
//! They live on a thread of their own with a runtime of its own. A connection's background task belongs to the runtime
//! that made it: on a relay worker's it would stand still while a guest computes there, and end with that worker,
//! while the pool is shared by all of them. The price is one hand-over between threads for each request.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::client::conn::http1;
use hyper::{Request, Response, Uri};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions};

use super::address::AddressClass;
use super::destination::{Destination, Host, Scheme};
use super::grants::AddressRule;
use super::http::GuestBody;
use super::http_pool::{Connection, Home, Permit, Pool, PooledBody};

/// The most bytes of a response before its body, and of what is read ahead of it.
pub(super) const HEAD_BYTES_MAX: usize = 128 * 1024;
/// The most name look-ups at once: each takes a thread.
const LOOKUPS_MAX: usize = 8;

/// The HTTP client of one publisher. Its thread is started by the first request and ends with the client.
#[derive(Default)]
pub(super) struct HttpClient {
    io: OnceLock<io::Result<IoThread>>,
    pool: Arc<Pool>,
}

/// A request on its way to a destination that was granted.
pub(super) struct Exchange {
    pub(super) request: Request<GuestBody>,
    pub(super) destination: Destination,
    pub(super) rule: AddressRule,
    pub(super) timeouts: Timeouts,
}

/// Why there is no response.
pub(super) enum SendError {
    /// The destination's name resolves to addresses of this class only, which were not granted.
    Denied(AddressClass),
    /// What the guest is told.
    Http(Error),
}

impl From<Error> for SendError {
    fn from(error: Error) -> Self {
        Self::Http(match error {
            Error::Hyper(error) if error.is_parse_too_large() => Error::HttpResponseHeaderSectionSize(None),
            error => error,
        })
    }
}

/// The time limits of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timeouts {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Timeouts {
    /// What the guest asks for, where that is shorter than a call may take.
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
    /// The runtime that all connections live on.
    pub(super) fn runtime(&self) -> Result<&Handle, Error> {
        let io = self.io.get_or_init(IoThread::start).as_ref();
        let io = io.map_err(|error| Error::InternalError(Some(format!("no thread for connections: {error}"))))?;
        Ok(&io.runtime)
    }

    /// The addresses of `host` that `rule` allows.
    pub(super) async fn lookup(&self, host: Host, rule: AddressRule) -> Result<Vec<IpAddr>, SendError> {
        let mut task = AbortOnDrop(self.runtime()?.spawn(async move { resolve(&host, 0, rule).await }));
        let resolved = (&mut task.0).await;
        let resolved =
            resolved.map_err(|ended| Error::InternalError(Some(format!("the look-up was ended: {ended}"))))?;
        Ok(resolved?.iter().map(SocketAddr::ip).collect())
    }

    /// Sends a request and waits for the head of its response. Dropping the future closes the connection.
    pub(super) async fn send(&self, exchange: Exchange) -> Result<Response<PooledBody>, SendError> {
        let task = self.runtime()?.spawn(exchange.run(self.pool.clone()));
        let mut task = AbortOnDrop(task);
        match (&mut task.0).await {
            Ok(response) => response,
            Err(ended) => Err(Error::InternalError(Some(format!("the request was ended: {ended}"))).into()),
        }
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
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
            // A name look-up cannot be interrupted: it is left to end by itself.
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, _stop: stop })
    }
}

impl Exchange {
    async fn run(self, pool: Arc<Pool>) -> Result<Response<PooledBody>, SendError> {
        let Self { request, destination, rule, timeouts } = self;
        let mut request = origin_form(request)?;
        while let Some(connection) = pool.take(&destination) {
            match exchange(connection, request, timeouts, &pool, &destination).await {
                Ok(response) => return Ok(response),
                // The server closed it while it was idle, and nothing was sent: another one serves as well.
                Err(Failed { unsent: Some(unsent), .. }) => request = *unsent,
                Err(failed) => return Err(failed.error.into()),
            }
        }
        let deadline = Instant::now() + timeouts.connect;
        let permit = timeout_at(deadline, pool.permit()).await.map_err(|_| Error::ConnectionLimitReached)?;
        let connected = timeout_at(deadline, connect(&destination, rule, permit)).await;
        let connection = connected.map_err(|_| Error::ConnectionTimeout)??;
        let response = exchange(connection, request, timeouts, &pool, &destination).await;
        response.map_err(|failed| failed.error.into())
    }
}

struct Failed {
    error: Error,
    /// The request, where nothing of it has left.
    unsent: Option<Box<Request<GuestBody>>>,
}

async fn exchange(
    mut connection: Connection,
    request: Request<GuestBody>,
    timeouts: Timeouts,
    pool: &Arc<Pool>,
    destination: &Destination,
) -> Result<Response<PooledBody>, Failed> {
    match timeout(timeouts.first_byte, connection.try_send_request(request)).await {
        Err(_) => Err(Failed { error: Error::ConnectionReadTimeout, unsent: None }),
        Ok(Err(mut failed)) => {
            let unsent = failed.take_message().map(Box::new);
            Err(Failed { error: failed.into_error().into(), unsent })
        }
        Ok(Ok(response)) => {
            let home = Home { connection, pool: pool.clone(), destination: destination.clone() };
            Ok(response.map(|incoming| PooledBody::new(incoming, home, timeouts.between_bytes)))
        }
    }
}

/// Connects to an address that the destination may have, and to no other: the name is not resolved again.
async fn connect(destination: &Destination, rule: AddressRule, permit: Permit) -> Result<Connection, SendError> {
    let addresses = resolve(&destination.host, destination.port, rule).await?;
    let stream = TcpStream::connect(addresses.as_slice()).await.map_err(Error::Connect)?;
    stream.set_nodelay(true).map_err(Error::Connect)?;
    match destination.scheme {
        Scheme::Http => handshake(TokioIo::new(stream), permit).await,
        Scheme::Https => {
            let name = server_name(&destination.host)?;
            let stream = tls().connect(name, stream).await.map_err(Error::Tls)?;
            handshake(TokioIo::new(stream), permit).await
        }
    }
}

async fn resolve(host: &Host, port: u16, rule: AddressRule) -> Result<Vec<SocketAddr>, SendError> {
    let resolved: Vec<SocketAddr> = match host {
        Host::Ip(ip) => vec![SocketAddr::new(*ip, port)],
        Host::Name(name) => tokio::net::lookup_host((name.as_str(), port)).await.map_err(dns_error)?.collect(),
    };
    let (mut allowed, mut denied) = (Vec::new(), None);
    for address in resolved {
        match rule.check(address.ip()) {
            Ok(()) => allowed.push(address),
            Err(class) => denied = Some(class),
        }
    }
    match denied {
        Some(class) if allowed.is_empty() => Err(SendError::Denied(class)),
        _ if allowed.is_empty() => Err(Error::DestinationNotFound.into()),
        _ => Ok(allowed),
    }
}

fn dns_error(error: io::Error) -> Error {
    Error::DnsError { rcode: Some(error.to_string()), info_code: None }
}

async fn handshake<S>(stream: S, permit: Permit) -> Result<Connection, SendError>
where
    S: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (sender, connection) = builder.handshake(stream).await.map_err(Error::Hyper)?;
    tokio::spawn(async move {
        // What ends the connection is told to the request under way.
        let _ = connection.await;
        drop(permit);
    });
    Ok(sender)
}

fn server_name(host: &Host) -> Result<ServerName<'static>, Error> {
    match host {
        Host::Ip(ip) => Ok(ServerName::from(*ip)),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| Error::HttpRequestUriInvalid),
    }
}

/// TLS with the certificate authorities that Mozilla trusts.
fn tls() -> TlsConnector {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(tokio_rustls::rustls::ALL_VERSIONS);
        #[expect(clippy::expect_used, reason = "the provider is linked in and has suites for both versions")]
        let config = config.expect("ring supports TLS 1.2 and 1.3");
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    });
    TlsConnector::from(config.clone())
}

/// A server expects the path alone: scheme and authority are for proxies, and the `host` header is set already.
fn origin_form(mut request: Request<GuestBody>) -> Result<Request<GuestBody>, Error> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    *request.uri_mut() = path.parse::<Uri>().map_err(|_| Error::HttpRequestUriInvalid)?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_may_shorten_its_time_limits_and_not_lengthen_them() {
        let call_time = Duration::from_secs(30);
        let asked = RequestOptions {
            connect_timeout: Some(Duration::from_secs(1)),
            first_byte_timeout: Some(Duration::from_secs(600)),
            between_bytes_timeout: None,
        };
        let timeouts = Timeouts::clamped(asked, call_time);
        assert_eq!(timeouts.connect, Duration::from_secs(1));
        assert_eq!(timeouts.first_byte, call_time);
        assert_eq!(timeouts.between_bytes, call_time);
    }
}
