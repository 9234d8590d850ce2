//! Opens sockets of each kind.

use outbox_guest::Error;
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp_create_socket::create_udp_socket;

use crate::found;

type Address = ((u8, u8, u8, u8), u16);

/// Opens what `kind` says. The event's reason lists what failed and what did not.
pub fn open(kind: &str) -> Result<(), Error> {
    let opened = match kind {
        "tcp-connect" => connect(),
        "tcp-bind" => bind(((127, 0, 0, 1), 0)).map(drop),
        "tcp-bind-all" => bind(((0, 0, 0, 0), 8080)).map(drop),
        "tcp-listen" => listen(),
        "udp" => create_udp_socket(IpAddressFamily::Ipv4).map(drop),
        "look-up" => resolve_addresses(&instance_network(), "secret.evil.example").map(drop),
        other => return Err(Error::rejected(format!("no such socket: {other}"))),
    };
    found(opened.map_err(|code| code.name()))
}

fn connect() -> Result<(), ErrorCode> {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_connect(&instance_network(), address(((127, 0, 0, 1), 22)))?;
    socket.subscribe().block();
    socket.finish_connect().map(drop)
}

fn bind(to: Address) -> Result<TcpSocket, ErrorCode> {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_bind(&instance_network(), address(to))?;
    socket.subscribe().block();
    socket.finish_bind()?;
    Ok(socket)
}

/// At a port of the host's choice, which may be bound to.
fn listen() -> Result<(), ErrorCode> {
    let socket = bind(((0, 0, 0, 0), 0))?;
    socket.start_listen()?;
    socket.subscribe().block();
    socket.finish_listen()?;
    socket.accept().map(drop)
}

fn address(((a, b, c, d), port): Address) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (a, b, c, d) })
}
