//! The sockets of a guest pass this gate: may it look this name up, may it connect there?
//!
//! There is only TCP, to granted destinations; nothing listens, and there is no UDP. The host looks names up, only
//! granted ones, and the guest learns only those of their addresses to which it may connect.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::vec;

use outbox_engine::text::shown;
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Handle;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceTable, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, IpAddressFamily};
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket::Host as _;
use wasmtime_wasi::p2::{DynPollable, Network, Pollable, TcpSocket, UdpSocket, subscribe};
use wasmtime_wasi::sockets::{SocketAddrUse, WasiSocketsView};

use super::descriptors::Descriptor;
use super::destination::Host;
use super::grants::{AddressRule, Grants};
use super::http::HttpCall;
use super::http_client::{HttpClient, SendError};
use super::state::State;

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

/// Replaces WASI's own functions by this gate: WASI does not let an embedder choose which names may be looked up.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance("wasi:sockets/tcp-create-socket@0.2.12")?.func_wrap("create-tcp-socket", create_tcp_socket)?;
    linker.instance("wasi:sockets/udp-create-socket@0.2.12")?.func_wrap("create-udp-socket", create_udp_socket)?;
    let mut lookup = linker.instance("wasi:sockets/ip-name-lookup@0.2.12")?;
    lookup.resource("resolve-address-stream", ResourceType::host::<Addresses>(), drop_addresses)?;
    lookup.func_wrap_async("resolve-addresses", |store, parameters| Box::new(resolve_addresses(store, parameters)))?;
    lookup.func_wrap("[method]resolve-address-stream.resolve-next-address", resolve_next_address)?;
    lookup.func_wrap("[method]resolve-address-stream.subscribe", subscribe_to_addresses)?;
    linker.allow_shadowing(false);
    Ok(())
}

type Answer<T> = wasmtime::Result<(Result<T, ErrorCode>,)>;

fn create_tcp_socket(
    mut store: StoreContextMut<'_, State>,
    (family,): (IpAddressFamily,),
) -> Answer<Resource<TcpSocket>> {
    let state = store.data_mut();
    let gate = state.sockets.clone();
    let Some(descriptor) = gate.room(state.table()) else {
        return Ok((Err(ErrorCode::NewSocketLimit),));
    };
    match state.sockets().create_tcp_socket(family) {
        Ok(socket) => {
            gate.known().sockets.insert(socket.rep(), descriptor);
            Ok((Ok(socket),))
        }
        Err(error) => Ok((Err(error.downcast()?),)),
    }
}

fn create_udp_socket(store: StoreContextMut<'_, State>, _: (IpAddressFamily,)) -> Answer<Resource<UdpSocket>> {
    store.data().sockets.note("denied: UDP, which cannot be granted".to_owned());
    Ok((Err(ErrorCode::AccessDenied),))
}

/// The addresses of a name, for the guest to read.
struct Addresses(vec::IntoIter<IpAddr>);

/// Always ready: the guest has already waited for the addresses when it asked for them.
#[async_trait::async_trait]
impl Pollable for Addresses {
    async fn ready(&mut self) {}
}

async fn resolve_addresses(
    mut store: StoreContextMut<'_, State>,
    (network, name): (Resource<Network>, String),
) -> Answer<Resource<Addresses>> {
    let state = store.data_mut();
    state.table().get(&network)?;
    let gate = state.sockets.clone();
    match gate.lookup(&name).await {
        Ok(addresses) => Ok((Ok(state.table().push(Addresses(addresses.into_iter()))?),)),
        Err(code) => Ok((Err(code),)),
    }
}

fn resolve_next_address(
    mut store: StoreContextMut<'_, State>,
    (addresses,): (Resource<Addresses>,),
) -> Answer<Option<IpAddress>> {
    let addresses = store.data_mut().table().get_mut(&addresses)?;
    Ok((Ok(addresses.0.next().map(IpAddress::from)),))
}

fn subscribe_to_addresses(
    mut store: StoreContextMut<'_, State>,
    (addresses,): (Resource<Addresses>,),
) -> wasmtime::Result<(Resource<DynPollable>,)> {
    Ok((subscribe(store.data_mut().table(), addresses)?,))
}

fn drop_addresses(mut store: StoreContextMut<'_, State>, addresses: u32) -> wasmtime::Result<()> {
    store.data_mut().table().delete(Resource::<Addresses>::new_own(addresses))?;
    Ok(())
}
