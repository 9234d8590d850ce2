//! Makes connections: only to checked addresses, and to the first of them that answers (RFC 8305).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hyper::client::conn::http1;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::io::TokioIo;

use super::authorities::Authorities;
use super::descriptors::Descriptor;
use super::destination::{Destination, Host, Scheme};
use super::grants::AddressRule;
use super::http_pool::{AbortOnDrop, Connection, Pool};
use super::http_wire::{BytesRead, Wire};
use super::proxy::HttpsProxy;
use super::resolver::Lookups;
use super::send_error::SendError;

/// The most bytes of a response's head, and of what is read ahead.
pub(super) const HEAD_BYTES_MAX: usize = 128 * 1024;
/// The most addresses of a name that are tried.
const TRIED_MAX: usize = 8;
/// An address has this long to answer before the next one is tried beside it ...
const HEAD_START: Duration = Duration::from_millis(250);
/// ... or less, if there would otherwise be no time for the next address.
const HEAD_START_MIN: Duration = Duration::from_millis(10);

/// Makes the connections of one publisher.
pub(super) struct Connector {
    pub(super) pool: Arc<Pool>,
    pub(super) lookups: Arc<Lookups>,
    pub(super) authorities: Authorities,
    pub(super) proxy: HttpsProxy,
}

impl Connector {
    /// Connects to an address that the destination may have, and to no other: the name is not resolved again. If there
    /// is a proxy, the proxy looks the name up.
    pub(super) async fn connect(
        &self,
        destination: &Destination,
        rule: AddressRule,
        time: Duration,
    ) -> Result<Connection, SendError> {
        let deadline = Instant::now() + time;
        let (host, port, rule) = match self.proxy.of(destination) {
            Some(proxy) => (&proxy.host, proxy.port, AddressRule::Any),
            None => (&destination.host, destination.port, rule),
        };
        let addresses = timeout_at(deadline, self.resolve(host, rule));
        let addresses = addresses.await.map_err(|_| Error::DnsTimeout)??;
        let descriptor = timeout_at(deadline, self.pool.descriptor()).await.map_err(|_| SendError::no_descriptor())?;
        let addresses = interleaved(&addresses).map(|ip| SocketAddr::new(ip, port)).take(TRIED_MAX);
        let connected = timeout_at(deadline, self.open(destination, addresses.collect(), descriptor, time));
        connected.await.map_err(|_| Error::ConnectionTimeout)?
    }

    /// The addresses of `host` that `rule` allows.
    pub(super) async fn resolve(&self, host: &Host, rule: AddressRule) -> Result<Vec<IpAddr>, SendError> {
        let resolved: Arc<[IpAddr]> = match host {
            Host::Ip(ip) => Arc::new([*ip]),
            Host::Name(name) => self.lookups.addresses(name).await.map_err(dns_error)?,
        };
        let (mut allowed, mut denied) = (Vec::new(), None);
        for ip in resolved.iter() {
            match rule.check(*ip) {
                Ok(()) => allowed.push(*ip),
                Err(class) => denied = Some(class),
            }
        }
        match denied {
            Some(class) if allowed.is_empty() => Err(SendError::Denied(class)),
            _ if allowed.is_empty() => Err(Error::DestinationNotFound.into()),
            _ => Ok(allowed),
        }
    }

    async fn open(
        &self,
        destination: &Destination,
        addresses: Vec<SocketAddr>,
        descriptor: Descriptor,
        time: Duration,
    ) -> Result<Connection, SendError> {
        let tries = u32::try_from(addresses.len()).unwrap_or(u32::MAX).saturating_add(1);
        let head_start = (time / tries).clamp(HEAD_START_MIN, HEAD_START);
        let (mut stream, descriptor) = self.first(addresses, descriptor, head_start).await.map_err(Error::Connect)?;
        stream.set_nodelay(true).map_err(Error::Connect)?;
        if let Some(proxy) = self.proxy.of(destination) {
            proxy.tunnel(&mut stream, destination).await?;
        }
        match destination.scheme {
            Scheme::Http => handshake(stream, descriptor).await,
            Scheme::Https => {
                let name = server_name(&destination.host)?;
                let tls = TlsConnector::from(self.authorities.client());
                let stream = tls.connect(name, stream).await.map_err(Error::Tls)?;
                handshake(stream, descriptor).await
            }
        }
    }

    /// Connects to the first of these addresses that answers. Each address is tried when the one before it has failed,
    /// or has not answered for a while and a descriptor is left.
    async fn first(
        &self,
        addresses: Vec<SocketAddr>,
        descriptor: Descriptor,
        head_start: Duration,
    ) -> io::Result<(TcpStream, Descriptor)> {
        let (mut waiting, mut trying) = (addresses.into_iter(), FuturesUnordered::new());
        let (mut spare, mut failed) = (Some(descriptor), None);
        loop {
            if waiting.len() > 0
                && let Some(descriptor) = spare.take().or_else(|| self.pool.spare_descriptor())
            {
                trying.extend(waiting.next().map(|address| attempt(address, descriptor)));
            }
            tokio::select! {
                Some((connected, descriptor)) = trying.next() => match connected {
                    Ok(stream) => return Ok((stream, descriptor)),
                    Err(error) => {
                        // The first address is the preferred one, so its error is reported.
                        failed.get_or_insert(error);
                        spare = Some(descriptor);
                    }
                },
                () = sleep(head_start), if waiting.len() > 0 => {}
                else => return Err(failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into())),
            }
        }
    }
}

async fn attempt(address: SocketAddr, descriptor: Descriptor) -> (io::Result<TcpStream>, Descriptor) {
    (TcpStream::connect(address).await, descriptor)
}

/// The addresses with the two families in turn, starting with the preferred one's.
fn interleaved(addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let is_v4 = addresses.first().is_some_and(IpAddr::is_ipv4);
    let (preferred, others): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|ip| ip.is_ipv4() == is_v4);
    let (mut preferred, mut others) = (preferred.into_iter(), others.into_iter());
    let mut turn = false;
    std::iter::from_fn(move || {
        turn = !turn;
        if turn { preferred.next().or_else(|| others.next()) } else { others.next().or_else(|| preferred.next()) }
    })
}

fn dns_error(error: Arc<str>) -> Error {
    Error::DnsError { rcode: Some(error.to_string()), info_code: None }
}

async fn handshake<S>(stream: S, descriptor: Descriptor) -> Result<Connection, SendError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let read = BytesRead::default();
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let stream = TokioIo::new(Wire::new(stream, read.clone()));
    let (sender, connection) = builder.handshake(stream).await.map_err(Error::Hyper)?;
    let task = tokio::spawn(async move {
        // The request under way gets the error that ends the connection.
        let _ = connection.await;
        drop(descriptor);
    });
    Ok(Connection { sender, read, made: Instant::now(), _task: AbortOnDrop(task) })
}

fn server_name(host: &Host) -> Result<ServerName<'static>, Error> {
    match host {
        Host::Ip(ip) => Ok(ServerName::from(*ip)),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| Error::HttpRequestUriInvalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_take_turns_and_the_preferred_one_is_first() {
        let order = |addresses: &[&str]| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
            interleaved(&addresses).map(|ip| ip.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(order(&["::1", "::2", "::3", "127.0.0.1"]), "::1 127.0.0.1 ::2 ::3");
        assert_eq!(order(&["127.0.0.1", "127.0.0.2", "::1"]), "127.0.0.1 ::1 127.0.0.2");
        assert_eq!(order(&[]), "");
    }
}
