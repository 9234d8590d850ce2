//! The sockets of a guest pass this gate: may it look this name up, may it connect there?
//!
//! There is only TCP, to granted destinations; nothing listens, and there is no UDP. The host looks names up, only
//! granted ones, and the guest learns only those of their addresses to which it may connect.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use outbox_engine::text::shown;
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::p2::TcpSocket;
use wasmtime_wasi::p2::bindings::sockets::network::ErrorCode;
use wasmtime_wasi::sockets::SocketAddrUse;

use super::descriptors::Descriptor;
use super::destination::Host;
use super::grants::{AddressRule, Grants};
use super::http_call::HttpCall;
use super::http_client::HttpClient;
use super::send_error::SendError;

pub(super) mod linker;

/// How many looked-up addresses are remembered for an instance; the oldest are forgotten.
const RESOLVED_MAX: usize = 256;

/// The gate of one instance.
pub(super) struct SocketGate {
    publisher: Arc<str>,
    grants: Arc<Grants>,
    call: Arc<HttpCall>,
    client: Arc<HttpClient>,
    /// The most sockets that the instance may hold at once: each takes a file descriptor of the host.
    sockets_max: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The granted name for which an address was the answer.
    resolved: Vec<(IpAddr, Host)>,
    /// The sockets in the instance's resource table, perhaps with some that were closed.
    sockets: BTreeMap<u32, Descriptor>,
}

impl SocketGate {
    pub(super) fn new(
        publisher: Arc<str>,
        grants: Arc<Grants>,
        call: Arc<HttpCall>,
        client: Arc<HttpClient>,
        sockets_max: usize,
    ) -> Self {
        Self { publisher, grants, call, client, sockets_max, known: Mutex::default() }
    }

    /// The runtime on which sockets live. None if no connection is granted.
    pub(super) fn runtime(&self) -> Option<Handle> {
        if self.grants.allow_tcp.is_empty() {
            return None;
        }
        self.client.runtime().ok()
    }

    /// Whether a socket may be used like this.
    pub(super) fn admits(&self, address: SocketAddr, usage: SocketAddrUse) -> bool {
        match usage {
            SocketAddrUse::TcpConnect => self.may_connect(address),
            // Every connection binds first, to a local address of the host's choice.
            SocketAddrUse::TcpBind if address.ip().is_unspecified() && address.port() == 0 => true,
            SocketAddrUse::TcpBind | SocketAddrUse::TcpListen | SocketAddrUse::TcpAccept => {
                self.note(format!("denied: to listen at TCP {address}, which cannot be granted"));
                false
            }
            SocketAddrUse::UdpBind | SocketAddrUse::UdpSend | SocketAddrUse::UdpReceive => false,
        }
    }

    fn may_connect(&self, address: SocketAddr) -> bool {
        let (ip, port) = (address.ip(), address.port());
        let resolved = self.known().resolved.iter().filter(|(it, _)| *it == ip).map(|(_, name)| name.clone()).collect();
        let hosts: Vec<Host> = [resolved, vec![Host::Ip(ip)]].concat();
        if hosts.iter().any(|host| self.grants.tcp(host, port).is_some_and(|rule| rule.check(ip).is_ok())) {
            return true;
        }
        for host in hosts.iter().take(1) {
            self.note(format!("denied: TCP {host}:{port} — to allow it: allow_tcp = [\"{host}:{port}\"]"));
        }
        false
    }

    /// The addresses of `name` to which the guest may connect.
    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ErrorCode> {
        if let Ok(ip) = name.parse() {
            return Ok(vec![ip]);
        }
        let host = Host::of(name).map_err(|_| ErrorCode::InvalidArgument)?;
        let Some(rule) = self.grants.lookup(&host) else {
            let remedy = format!("allow_tcp = [\"{host}:PORT\"]");
            self.note(format!("denied: to look up {host} — to allow it: {remedy}, with the port to connect to"));
            return Err(ErrorCode::AccessDenied);
        };
        self.resolve(host, rule).await
    }

    async fn resolve(&self, host: Host, rule: AddressRule) -> Result<Vec<IpAddr>, ErrorCode> {
        match self.client.lookup(host.clone(), rule).await {
            Ok(addresses) => {
                self.known().remember(&host, &addresses);
                Ok(addresses)
            }
            Err(SendError::Denied(class)) => {
                self.call.note_address(&self.publisher, &format!("TCP {host}"), class);
                Err(ErrorCode::AccessDenied)
            }
            Err(SendError::Noted(..)) => Err(ErrorCode::TemporaryResolverFailure),
            Err(SendError::Http(error)) => {
                let publisher = &*self.publisher;
                tracing::debug!(target: "outbox::guest", publisher, "looking up {}: {}", shown(host), shown(error));
                Err(ErrorCode::NameUnresolvable)
            }
        }
    }

    /// The descriptor for one more socket. None if the instance may have no more.
    fn room(&self, table: &ResourceTable) -> Option<Descriptor> {
        self.forget_closed(table);
        if self.known().sockets.len() >= self.sockets_max {
            let max = self.sockets_max;
            self.note(format!("an instance may hold {max} TCP sockets at once (limit: tcp_sockets)"));
            return None;
        }
        let descriptor = self.client.descriptor();
        if descriptor.is_none() {
            self.note(
                "there may be no more TCP sockets: the process has too few file descriptors (ulimit -n)".to_owned(),
            );
        }
        descriptor
    }

    /// Gives back what the guest has closed.
    pub(super) fn forget_closed(&self, table: &ResourceTable) {
        self.known().sockets.retain(|rep, _| table.get(&Resource::<TcpSocket>::new_borrow(*rep)).is_ok());
    }

    fn note(&self, note: String) {
        self.call.note(&self.publisher, note);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }
}

impl Known {
    fn remember(&mut self, host: &Host, addresses: &[IpAddr]) {
        self.resolved.retain(|(ip, name)| name != host || !addresses.contains(ip));
        self.resolved.extend(addresses.iter().map(|ip| (*ip, host.clone())));
        let too_many = self.resolved.len().saturating_sub(RESOLVED_MAX);
        self.resolved.drain(..too_many);
    }
}
