//! The functions of wasi:sockets, which ask the gate.

use std::net::IpAddr;
use std::vec;

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddress, IpAddressFamily};
use wasmtime_wasi::p2::bindings::sockets::tcp_create_socket::Host as _;
use wasmtime_wasi::p2::{DynPollable, Network, Pollable, TcpSocket, UdpSocket, subscribe};
use wasmtime_wasi::sockets::WasiSocketsView;

use crate::state::State;

/// Replaces WASI's own functions by this gate: WASI does not let an embedder choose which names may be looked up.
pub(crate) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
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
