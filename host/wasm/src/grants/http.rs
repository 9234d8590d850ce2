//! Where HTTP requests may go.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;

use crate::destination::{self, Destination, Host, Scheme, write_origin};

/// Destinations that HTTP requests may be sent to: a scheme, a host and a port.
///
/// The host is a name, an address, or `*.` and a name, which stands for all of its subdomains, but not for the name
/// itself. Without a port it is the scheme's own, 80 or 443.
///
/// ```
/// use outbox_wasm::HttpGrant;
///
/// let grant: HttpGrant = "https://*.example.com".parse()?;
/// assert_eq!(grant.to_string(), "https://*.example.com");
/// assert!("https://example.com/path".parse::<HttpGrant>().is_err());
/// # Ok::<(), outbox_wasm::InvalidHttpGrant>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGrant {
    scheme: Scheme,
    host: HostPattern,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Exactly(Host),
    /// Ends with this, which starts with a dot.
    SubdomainsOf(String),
}

impl HttpGrant {
    /// Whether it grants HTTPS.
    pub fn is_https(&self) -> bool {
        self.scheme == Scheme::Https
    }

    /// Whether this grants everything that `other` grants.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.scheme == other.scheme
            && self.port == other.port
            && match (&self.host, &other.host) {
                (granted, HostPattern::Exactly(host)) => granted.includes(host),
                (HostPattern::Exactly(_), HostPattern::SubdomainsOf(_)) => false,
                (HostPattern::SubdomainsOf(granted), HostPattern::SubdomainsOf(suffix)) => suffix.ends_with(granted),
            }
    }

    pub(crate) fn allows(&self, destination: &Destination) -> bool {
        self.scheme == destination.scheme && self.port == destination.port && self.host.includes(&destination.host)
    }
}

impl HostPattern {
    fn includes(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exactly(granted), host) => granted == host,
            (Self::SubdomainsOf(suffix), Host::Name(name)) => {
                name.len() > suffix.len() && name.ends_with(suffix.as_str())
            }
            (Self::SubdomainsOf(_), Host::Ip(_)) => false,
        }
    }
}

impl FromStr for HttpGrant {
    type Err = InvalidHttpGrant;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason| InvalidHttpGrant { text: text.to_owned(), reason };
        let uri: Uri = text.parse().map_err(|_| invalid("it is not a URL"))?;
        let plain = uri.path() == "/" && uri.query().is_none() && !text.contains(['#', '\\']);
        if uri.scheme().is_some() && !plain {
            return Err(invalid("it has more than a scheme, a host and a port"));
        }
        let (scheme, host, port) = destination::parts(&uri).map_err(invalid)?;
        let host = if host.contains('*') {
            subdomains(host).map_err(invalid)?
        } else {
            HostPattern::Exactly(Host::of(host).map_err(invalid)?)
        };
        Ok(Self { scheme, host, port })
    }
}

fn subdomains(pattern: &str) -> Result<HostPattern, &'static str> {
    match pattern.strip_prefix("*.").map(|name| (name.contains('*'), Host::of(name))) {
        Some((false, Ok(Host::Name(name)))) => Ok(HostPattern::SubdomainsOf(format!(".{name}"))),
        Some((false, Err(reason))) if pattern != "*." => Err(reason),
        _ => Err("a `*` may only stand for the first part of a name, as in `https://*.example.com`"),
    }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            HostPattern::Exactly(host) => write_origin(f, self.scheme, host, self.port),
            HostPattern::SubdomainsOf(suffix) => write_origin(f, self.scheme, &format_args!("*{suffix}"), self.port),
        }
    }
}

/// A text that grants nothing, because it names no destination.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot be granted: {reason}; write it as `https://api.example.com` or `http://127.0.0.1:8080`")]
pub struct InvalidHttpGrant {
    text: String,
    reason: &'static str,
}
