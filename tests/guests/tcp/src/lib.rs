//! Sends each event's uuid over TCP to the `host:port` in its data, and expects it back. With `keep` in front, it uses
//! the connection of one event again for the next.

use std::io::{BufRead, BufReader, Write};

use outbox_guest::{Error, Publisher, Recorded};
use wasip2::io::streams::{InputStream, OutputStream};
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};
use wasip2::sockets::tcp::TcpSocket;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

#[derive(Default)]
struct Tcp {
    kept: Vec<Connection>,
}

/// Fields are dropped in this order: a socket has to outlive its streams.
struct Connection {
    input: BufReader<InputStream>,
    output: OutputStream,
    _socket: TcpSocket,
}

impl Publisher for Tcp {
    fn publish(&mut self, event: Recorded) -> Result<(), Error> {
        let script: String = event.data()?;
        let uuid = &event.wrapped_event.uuid;
        match script.split_once(' ') {
            Some(("keep", destination)) => {
                if self.kept.is_empty() {
                    self.kept.push(connect(destination)?);
                }
                echo(&mut self.kept[0], uuid)
            }
            Some(("hoard", destination)) => loop {
                self.kept.push(connect(destination)?);
            },
            Some(("look-up", name)) => Err(Error::retryable(format!("{:?}", look_up(name)?))),
            _ => echo(&mut connect(&script)?, uuid),
        }
    }
}

fn echo(connection: &mut Connection, uuid: &str) -> Result<(), Error> {
    writeln!(connection.output, "{uuid}")?;
    Write::flush(&mut connection.output)?;
    let mut answer = String::new();
    connection.input.read_line(&mut answer)?;
    if answer.trim_end() == uuid { Ok(()) } else { Err(Error::retryable(format!("answered {answer:?}"))) }
}

fn connect(destination: &str) -> Result<Connection, Error> {
    let (host, port) = destination.rsplit_once(':').ok_or_else(|| Error::rejected("no port"))?;
    let port = port.parse().map_err(Error::rejected)?;
    let address = look_up(host)?.into_iter().next().ok_or_else(|| Error::retryable("no address"))?;
    let family = if matches!(address, IpAddress::Ipv4(_)) { IpAddressFamily::Ipv4 } else { IpAddressFamily::Ipv6 };
    let socket = create_tcp_socket(family).map_err(|code| failed("making a socket", code))?;
    let connecting = |code| failed("connecting", code);
    socket.start_connect(&instance_network(), with_port(address, port)).map_err(connecting)?;
    socket.subscribe().block();
    let (input, output) = socket.finish_connect().map_err(connecting)?;
    Ok(Connection { input: BufReader::new(input), output, _socket: socket })
}

fn look_up(name: &str) -> Result<Vec<IpAddress>, Error> {
    let looking_up = |code| failed("looking up", code);
    let answers = resolve_addresses(&instance_network(), name).map_err(looking_up)?;
    answers.subscribe().block();
    let mut addresses = Vec::new();
    while let Some(address) = answers.resolve_next_address().map_err(looking_up)? {
        addresses.push(address);
    }
    Ok(addresses)
}

fn with_port(address: IpAddress, port: u16) -> IpSocketAddress {
    match address {
        IpAddress::Ipv4(address) => IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address }),
        IpAddress::Ipv6(address) => {
            IpSocketAddress::Ipv6(Ipv6SocketAddress { port, flow_info: 0, address, scope_id: 0 })
        }
    }
}

fn failed(what: &str, code: ErrorCode) -> Error {
    Error::retryable(format!("{what}: {}", code.name()))
}

outbox_guest::export!(Tcp);
