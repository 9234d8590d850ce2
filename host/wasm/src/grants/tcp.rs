//! Where TCP connections may go.

use std::fmt;
use std::str::FromStr;

use crate::destination::{Host, split_port};

/// Where TCP connections may be opened to: a host, which is a name or an address, and a port.
///
/// ```
/// use outbox_wasm::TcpGrant;
///
/// let grant: TcpGrant = "db.example.com:5432".parse()?;
/// assert_eq!(grant.to_string(), "db.example.com:5432");
/// assert!("db.example.com".parse::<TcpGrant>().is_err());
/// # Ok::<(), outbox_wasm::InvalidTcpGrant>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpGrant {
    pub(super) host: Host,
    pub(super) port: u16,
}

impl FromStr for TcpGrant {
    type Err = InvalidTcpGrant;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason| InvalidTcpGrant { text: text.to_owned(), reason };
        let (host, port) = split_port(text).ok_or_else(|| invalid("its port is not a number from 1 to 65535"))?;
        let port = port.ok_or_else(|| invalid("it has no port"))?;
        let host = Host::of(host).map_err(invalid)?;
        Ok(Self { host, port })
    }
}

impl fmt::Display for TcpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A text that grants no TCP connection, because it does not name a host and a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot be granted: {reason}; write it as `db.example.com:5432`, `127.0.0.1:9000` or `[::1]:9000`")]
pub struct InvalidTcpGrant {
    text: String,
    reason: &'static str,
}
