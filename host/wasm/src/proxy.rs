//! The proxy for HTTPS requests, if the relay's environment names one in `HTTPS_PROXY`. The host asks it for a tunnel
//! to each granted destination, and speaks TLS through it with the destination itself.

use std::env;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use hyper::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wasmtime_wasi_http::Error;

use super::address::{self, AddressClass};
use super::destination::{Destination, Host, Scheme, split_port};
use super::send_error::SendError;

/// The most bytes of a proxy's answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// A proxy for HTTPS requests, and the destinations that are reached without it. The default is none.
#[derive(Clone, Default)]
pub struct HttpsProxy(Option<Arc<Setting>>);

struct Setting {
    proxy: Proxy,
    /// The exceptions of `NO_PROXY`.
    without: Vec<Exception>,
}

/// The proxy's address.
pub(super) struct Proxy {
    pub(super) host: Host,
    pub(super) port: u16,
    /// The value of `proxy-authorization`.
    authorization: Option<String>,
}

/// A text that names no usable proxy. It may contain a password, and is not shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{variable} cannot be used: {reason}; write it as `http://proxy.example.com:3128`, or add what needs no proxy to NO_PROXY"
)]
pub struct InvalidProxy {
    variable: &'static str,
    reason: &'static str,
}

impl HttpsProxy {
    /// The proxy of `HTTPS_PROXY` and `NO_PROXY`, in upper or lower case.
    ///
    /// # Errors
    ///
    /// An [`InvalidProxy`] if it is not an HTTP proxy.
    pub fn of_environment() -> Result<Self, InvalidProxy> {
        let variable = |names: [&'static str; 2]| {
            let mut set = names.into_iter().filter_map(|name| Some((name, env::var(name).ok()?)));
            set.find(|(_, value)| !value.trim().is_empty())
        };
        let (_, without) = variable(["NO_PROXY", "no_proxy"]).unwrap_or_default();
        match variable(["HTTPS_PROXY", "https_proxy"]) {
            Some((name, value)) => {
                Self::new(&value, &without).map_err(|error| InvalidProxy { variable: name, ..error })
            }
            None => Ok(Self::default()),
        }
    }

    /// The proxy at this URL, for all destinations except those in `without`, separated by commas: a name stands for
    /// itself and its subdomains, `*` for all. `localhost`, and loopback, private and link-local addresses, are always
    /// reached without a proxy.
    ///
    /// # Errors
    ///
    /// An [`InvalidProxy`] if it is not an HTTP proxy.
    pub fn new(proxy: &str, without: &str) -> Result<Self, InvalidProxy> {
        let proxy = Proxy::of(proxy.trim()).map_err(|reason| InvalidProxy { variable: "the proxy", reason })?;
        let without = without.split(',').filter_map(Exception::of).collect();
        Ok(Self(Some(Arc::new(Setting { proxy, without }))))
    }

    /// The proxy for requests to `destination`. None if they go directly.
    pub(super) fn of(&self, destination: &Destination) -> Option<&Proxy> {
        let Setting { proxy, without } = self.0.as_deref()?;
        let direct = destination.scheme == Scheme::Http
            || is_inner(&destination.host)
            || without.iter().any(|exception| exception.holds_for(destination));
        (!direct).then_some(proxy)
    }
}

fn is_inner(host: &Host) -> bool {
    match host {
        Host::Ip(ip) => address::class(*ip) != AddressClass::Public,
        Host::Name(name) => name == "localhost",
    }
}

impl Proxy {
    fn of(text: &str) -> Result<Self, &'static str> {
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = text.parse().map_err(|_| "it is no URL")?;
        if uri.scheme_str() != Some("http") {
            return Err("only http:// proxies are supported");
        }
        let authority = uri.authority().ok_or("it has no host")?.as_str();
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, authority)) => (Some(user), authority),
            None => (None, authority),
        };
        let (host, port) = split_port(authority).ok_or("its port is not a number from 1 to 65535")?;
        let authorization = user.map(|user| format!("Basic {}", base64(&percent_decoded(user))));
        Ok(Self { host: Host::of(host)?, port: port.unwrap_or(80), authorization })
    }

    /// Asks for a tunnel to `destination` over a connection to the proxy.
    pub(super) async fn tunnel(&self, stream: &mut TcpStream, destination: &Destination) -> Result<(), SendError> {
        let to = format!("{}:{}", destination.host, destination.port);
        let authorization = self.authorization.iter().map(|value| format!("proxy-authorization: {value}\r\n"));
        let authorization: String = authorization.collect();
        let request = format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n{authorization}\r\n");
        stream.write_all(request.as_bytes()).await.map_err(Error::Connect)?;
        match status(&answer(stream).await?) {
            Some(200..=299) => Ok(()),
            Some(status) => Err(self.failed(&format!("answered {status} to CONNECT {to}"))),
            None => Err(self.failed("gave no answer of HTTP")),
        }
    }

    fn failed(&self, how: &str) -> SendError {
        let (host, port) = (&self.host, self.port);
        SendError::Noted(Error::DestinationUnavailable, format!("the proxy {host}:{port} (HTTPS_PROXY) {how}"))
    }
}

/// Reads the head of the proxy's answer. Nothing follows it unasked, since the client begins TLS.
async fn answer(stream: &mut TcpStream) -> Result<Vec<u8>, Error> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < ANSWER_BYTES_MAX {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    Ok(head)
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.strip_suffix(b"\r\n\r\n")?.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

/// One entry of `NO_PROXY`.
enum Exception {
    All,
    At(IpAddr),
    /// A name and its subdomains, only at this port if one is given.
    Name(String, Option<u16>),
}

impl Exception {
    fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        if text == "*" {
            return Some(Self::All);
        }
        if let Ok(ip) = text.parse() {
            return Some(Self::At(ip));
        }
        let (name, port) = split_port(text.trim_start_matches('*').trim_start_matches('.'))?;
        match Host::of(name).ok()? {
            Host::Ip(ip) => Some(Self::At(ip)),
            Host::Name(name) => Some(Self::Name(name, port)),
        }
    }

    fn holds_for(&self, destination: &Destination) -> bool {
        match (self, &destination.host) {
            (Self::All, _) => true,
            (Self::At(ip), Host::Ip(to)) => ip == to,
            (Self::Name(name, port), Host::Name(to)) => {
                let below = to.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                below && port.is_none_or(|port| port == destination.port)
            }
            _ => false,
        }
    }
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let (mut decoded, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match hex {
            Some(byte) if *first == b'%' => {
                decoded.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    decoded
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit)) as usize & 63;
            let shown = DIGITS.get(index).filter(|_| digit <= three.len()).unwrap_or(&b'=');
            text.push(char::from(*shown));
        }
    }
    text
}

impl fmt::Debug for HttpsProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(setting) => write!(f, "HttpsProxy({}:{})", setting.proxy.host, setting.proxy.port),
            None => f.write_str("HttpsProxy(none)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes_through(without: &str, uri: &str) -> bool {
        let proxy = HttpsProxy::new("http://proxy.example:3128", without).unwrap();
        proxy.of(&Destination::of(&uri.parse().unwrap()).unwrap()).is_some()
    }

    #[test]
    fn what_is_inner_plain_or_named_goes_without_the_proxy() {
        for uri in ["https://api.example.com/", "https://api.example.com:8443/", "https://1.1.1.1/"] {
            assert!(goes_through("", uri), "{uri}");
            assert!(goes_through("example.org, 2.2.2.2, api.example.com:99, i.example.com, 10.0.0.0/8", uri), "{uri}");
            assert!(!goes_through("*", uri), "{uri}");
        }
        for uri in ["http://api.example.com/", "https://localhost/", "https://127.0.0.1/", "https://10.1.2.3/"] {
            assert!(!goes_through("", uri), "{uri}");
        }
        for without in ["example.com", ".example.com", "*.example.com", "x, api.example.com:443", "API.example.com."] {
            assert!(!goes_through(without, "https://api.example.com/"), "{without}");
        }
        assert!(!goes_through("1.1.1.1", "https://1.1.1.1/"));
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_refused_without_its_password() {
        for (text, reason) in [
            ("socks5://user:secret@proxy:1080", "only http:// proxies are supported"),
            ("https://proxy:443", "only http:// proxies"),
            ("http://proxy:0", "port"),
            ("http://user:secret@bad host", "no URL"),
        ] {
            let error = HttpsProxy::new(text, "").unwrap_err().to_string();
            assert!(error.contains(reason) && !error.contains("secret"), "{error}");
        }
        let proxy = HttpsProxy::new("user:p%40ss@proxy", "").unwrap();
        assert_eq!(format!("{proxy:?}"), "HttpsProxy(proxy:80)");
        let authorization = proxy.0.as_ref().unwrap().proxy.authorization.as_deref();
        assert_eq!(authorization, Some("Basic dXNlcjpwQHNz"));
    }

    #[test]
    fn base64_is_padded() {
        assert_eq!(
            ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes())),
            ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]
        );
    }

    #[test]
    fn only_an_answer_of_http_counts() {
        assert_eq!(status(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(status(b"HTTP/1.0 407 No\r\nx: y\r\n\r\n"), Some(407));
        for head in ["", "HTTP/1.1 200", "SSH-2.0\r\n\r\n", "HTTP/2 200\r\n\r\n"] {
            assert_eq!(status(head.as_bytes()), None, "{head}");
        }
    }
}
