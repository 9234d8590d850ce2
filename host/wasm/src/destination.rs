//! Where a request or a connection goes, in the one form in which it is compared with the grants.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;

/// How long a name, and each of its parts, may be (RFC 1035).
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

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

/// A host in the one form in which it is compared: an address is parsed, however it was written; a name is in lower
/// case, without a dot at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Host {
    Ip(IpAddr),
    Name(String),
}

impl Destination {
    /// The destination of a request with this URI, or what the URI lacks.
    pub(super) fn of(uri: &Uri) -> Result<Self, &'static str> {
        let (scheme, host, port) = parts(uri)?;
        Ok(Self { scheme, host: Host::of(host)?, port })
    }
}

/// The scheme of a URI, its host as it is written, and its port; or what it lacks.
pub(super) fn parts(uri: &Uri) -> Result<(Scheme, &str, u16), &'static str> {
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
    Ok((scheme, host, port.unwrap_or(scheme.default_port())))
}

/// Splits `host:port` and `[v6]:port`. None if the port is invalid.
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
    /// Parses a host.
    pub(super) fn of(host: &str) -> Result<Self, &'static str> {
        if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            return address.parse().map(|ip| Self::Ip(IpAddr::V6(ip))).map_err(|_| "its address is none");
        }
        if let Ok(ip) = host.parse() {
            return Ok(Self::Ip(IpAddr::V4(ip)));
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if name.is_empty() {
            return Err("it has no host");
        }
        if is_host_name(&name) { Ok(Self::Name(name)) } else { Err("its host is neither a name nor an address") }
    }
}

/// Whether it is a name that can be looked up. Anything else reaches neither the resolver nor a log.
fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label)
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

/// Writes scheme and host, and the port unless it is the scheme's own.
pub(super) fn write_origin(
    f: &mut fmt::Formatter<'_>,
    scheme: Scheme,
    host: &dyn fmt::Display,
    port: u16,
) -> fmt::Result {
    write!(f, "{}://{host}", scheme.name())?;
    if port == scheme.default_port() { Ok(()) } else { write!(f, ":{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_host_name_is_no_host() {
        let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        for name in ["db", "db.internal.", "my_service", "xn--bcher-kva.example", "127.1", "_http._tcp.a", &long] {
            assert!(Host::of(name).is_ok(), "{name}");
        }
        let too_long = format!("{long}x");
        let forged = "a\n2026-01-01T00:00:00Z ERROR forged";
        for name in [
            forged,
            "a b",
            "a\u{202e}b",
            "a\u{2028}b",
            "bücher.example",
            "a..b",
            ".a",
            "a%2eb",
            "a\0",
            "*.a",
            &too_long,
        ] {
            assert!(Host::of(name).is_err(), "{name:?}");
        }
        assert!(Host::of(&"a".repeat(64)).is_err());
    }
}
