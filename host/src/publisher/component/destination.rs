//! Where a request or a connection goes to, in the one form in which it is compared with the grants.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;

/// Where a request goes to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Destination {
    pub(super) scheme: Scheme,
    pub(super) host: Host,
    pub(super) port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Http,
    Https,
}

/// A host in the one form in which it is compared: an address as an address, however it was written, and a name in
/// lower case without the dot at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Host {
    Ip(IpAddr),
    Name(String),
}

impl Destination {
    /// The destination of a request with this URI, or what it lacks.
    pub(super) fn of(uri: &Uri) -> Result<Self, &'static str> {
        let scheme = match uri.scheme_str() {
            Some("http") => Scheme::Http,
            Some("https") => Scheme::Https,
            _ => return Err("its scheme is neither http nor https"),
        };
        let authority = uri.authority().ok_or("it has no host")?.as_str();
        if authority.contains('@') {
            return Err("it names a user");
        }
        let (host, port) = split_port(authority).ok_or("its port is not a number from 1 to 65535")?;
        Ok(Self { scheme, host: Host::of(host)?, port: port.unwrap_or(scheme.default_port()) })
    }
}

/// Splits `host:port` and `[v6]:port`; none where there is a port that is none.
pub(super) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let host_end = match authority.rfind(']') {
        Some(bracket) => bracket + 1,
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at_checked(host_end)?;
    match port.strip_prefix(':') {
        None if port.is_empty() => Some((host, None)),
        None => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port > 0).map(|port| (host, Some(port)))
        }
        Some(_) => None,
    }
}

impl Host {
    /// The host that is written so.
    pub(super) fn of(host: &str) -> Result<Self, &'static str> {
        if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            return address.parse().map(|ip| Self::Ip(IpAddr::V6(ip))).map_err(|_| "its address is none");
        }
        if let Ok(ip) = host.parse() {
            return Ok(Self::Ip(IpAddr::V4(ip)));
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if name.is_empty() { Err("it has no host") } else { Ok(Self::Name(name)) }
    }
}

impl Scheme {
    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(IpAddr::V4(ip)) => write!(f, "{ip}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// The destination as it is written into the configuration to grant it.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_origin(f, self.scheme, &self.host, self.port)
    }
}

/// Writes scheme, host and, where it is not the scheme's own, port.
pub(super) fn write_origin(
    f: &mut fmt::Formatter<'_>,
    scheme: Scheme,
    host: &dyn fmt::Display,
    port: u16,
) -> fmt::Result {
    write!(f, "{}://{host}", scheme.name())?;
    if port == scheme.default_port() { Ok(()) } else { write!(f, ":{port}") }
}
