//! What a publisher may reach outside the sandbox: nothing, unless it is named here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::address::{self, AddressClass};
use super::destination::{Destination, Host};
use super::secrets::{HeaderSecret, InvalidSecret};

mod http;
mod tcp;

pub use self::http::{HttpGrant, InvalidHttpGrant};
pub use self::tcp::{InvalidTcpGrant, TcpGrant};

/// What a publisher may reach outside the sandbox. The default grants nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// The destinations that it may send HTTP requests to.
    pub allow_http: Vec<HttpGrant>,
    /// The hosts and ports that it may open TCP connections to. Names among them may be looked up, and no others.
    pub allow_tcp: Vec<TcpGrant>,
    /// Whether names in `allow_http` and `allow_tcp` may resolve to addresses that are not public: loopback, private,
    /// link-local, ... An address that is named literally is allowed without it.
    pub allow_private: bool,
    /// Its environment variables.
    pub env: BTreeMap<String, String>,
    /// Its values in `wasi:config/store`.
    pub config: BTreeMap<String, String>,
    /// The secrets that the host adds to its HTTP requests, and never shows to it.
    pub secrets: Vec<HeaderSecret>,
}

impl Grants {
    /// The addresses that connections for `destination` may use. None if it was not granted.
    pub(super) fn http(&self, destination: &Destination) -> Option<AddressRule> {
        let granted = self.allow_http.iter().any(|grant| grant.allows(destination));
        granted.then(|| self.address_rule(&destination.host))
    }

    /// The addresses that TCP connections to this host and port may use. None if they were not granted.
    pub(super) fn tcp(&self, host: &Host, port: u16) -> Option<AddressRule> {
        let granted = self.allow_tcp.iter().any(|grant| grant.host == *host && grant.port == port);
        granted.then(|| self.address_rule(host))
    }

    /// The addresses of this host that a guest may learn. None if it may not look the host up.
    pub(super) fn lookup(&self, host: &Host) -> Option<AddressRule> {
        let granted = self.allow_tcp.iter().any(|grant| grant.host == *host);
        granted.then(|| self.address_rule(host))
    }

    /// Whether a secret is added to the requests to this destination.
    pub(super) fn has_secret_for(&self, destination: &Destination) -> bool {
        self.secrets.iter().any(|secret| secret.destination().allows(destination))
    }

    /// Checks that each secret is for a destination that `allow_http` grants.
    ///
    /// # Errors
    ///
    /// Names the first one that could never be used.
    pub fn check_secrets(&self) -> Result<(), InvalidSecret> {
        let granted = |to: &HttpGrant| self.allow_http.iter().any(|grant| grant.covers(to));
        match self.secrets.iter().find(|secret| !granted(secret.destination())) {
            None => Ok(()),
            Some(secret) => Err(InvalidSecret::not_granted(secret)),
        }
    }

    /// Which addresses a host that was granted may have.
    fn address_rule(&self, host: &Host) -> AddressRule {
        match host {
            _ if self.allow_private => AddressRule::Any,
            // Only the same literal grants a literal address, so the operator named this address.
            Host::Ip(_) => AddressRule::Any,
            Host::Name(name) if name == "localhost" => AddressRule::Loopback,
            Host::Name(_) => AddressRule::Public,
        }
    }
}

/// Which addresses a granted name may resolve to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AddressRule {
    Any,
    Public,
    Loopback,
}

impl AddressRule {
    /// Checks that connections to `ip` are allowed; otherwise returns the class of the address.
    pub(super) fn check(self, ip: IpAddr) -> Result<(), AddressClass> {
        let class = address::class(ip);
        let allowed = match self {
            Self::Any => true,
            Self::Public => class == AddressClass::Public,
            Self::Loopback => class == AddressClass::Loopback,
        };
        if allowed { Ok(()) } else { Err(class) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(allow_http: &[&str]) -> Grants {
        Grants { allow_http: allow_http.iter().map(|grant| grant.parse().unwrap()).collect(), ..Grants::default() }
    }

    fn rule(allow_http: &[&str], uri: &str) -> Option<AddressRule> {
        grants(allow_http).http(&Destination::of(&uri.parse().unwrap()).unwrap())
    }

    #[test]
    fn nothing_is_granted_by_default() {
        assert_eq!(rule(&[], "http://127.0.0.1/"), None);
        assert_eq!(rule(&[], "https://example.com/"), None);
    }

    #[test]
    fn scheme_host_and_port_must_all_agree() {
        let granted = ["https://api.example.com", "http://api.example.com:8080"];
        for uri in [
            "https://api.example.com/x?y",
            "https://API.Example.COM./",
            "https://api.example.com:443/",
            "http://api.example.com:8080/",
        ] {
            assert_eq!(rule(&granted, uri), Some(AddressRule::Public), "{uri}");
        }
        for uri in [
            "http://api.example.com/",
            "https://api.example.com:8080/",
            "https://example.com/",
            "https://x.api.example.com/",
            "https://api.example.com.evil.org/",
        ] {
            assert_eq!(rule(&granted, uri), None, "{uri}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_subdomains_only() {
        let granted = ["https://*.example.com"];
        assert!(rule(&granted, "https://a.example.com/").is_some());
        assert!(rule(&granted, "https://a.b.example.com/").is_some());
        assert!(rule(&granted, "https://example.com/").is_none());
        assert!(rule(&granted, "https://evilexample.com/").is_none());
        for uri in ["https://.example.com/", "https://*.example.com/"] {
            assert!(Destination::of(&uri.parse().unwrap()).is_err(), "{uri}");
        }
    }

    #[test]
    fn literal_addresses_are_compared_as_addresses() {
        assert_eq!(rule(&["http://[::1]:8080"], "http://[0:0::0001]:8080/"), Some(AddressRule::Any));
        assert_eq!(rule(&["http://127.0.0.1:8080"], "http://127.0.0.1:8080/"), Some(AddressRule::Any));
        assert_eq!(rule(&["http://127.0.0.1:8080"], "http://127.0.0.2:8080/"), None);
        assert_eq!(rule(&["http://localhost"], "http://localhost/"), Some(AddressRule::Loopback));
        let open = Grants { allow_private: true, ..grants(&["http://db.internal"]) };
        let destination = Destination::of(&"http://db.internal/".parse().unwrap()).unwrap();
        assert_eq!(open.http(&destination), Some(AddressRule::Any));
    }

    #[test]
    fn a_secret_has_to_be_for_a_granted_destination() {
        let check = |allow_http: &[&str], to: &str| {
            let secret = HeaderSecret::new("token", "s3cr3t-value", "authorization", "", to.parse().unwrap()).unwrap();
            Grants { secrets: vec![secret], ..grants(allow_http) }.check_secrets()
        };
        let granted = ["https://api.example.com", "https://*.example.org"];
        for to in
            ["https://api.example.com", "https://a.example.org", "https://*.example.org", "https://*.a.example.org"]
        {
            assert_eq!(check(&granted, to), Ok(()), "{to}");
        }
        for to in ["http://api.example.com", "https://*.example.com", "https://example.org", "https://*.org"] {
            let error = check(&granted, to).unwrap_err().to_string();
            assert!(error.contains("`token`") && error.contains(&format!("allow_http = [\"{to}\"]")), "{error}");
        }
    }

    #[test]
    fn tcp_is_granted_by_host_and_port_and_names_are_looked_up_only_where_one_is() {
        let allow_tcp = ["DB.example.com:5432", "127.0.0.1:9000", "[::1]:9000", "localhost:7000"];
        let mut grants = Grants { allow_tcp: allow_tcp.map(|it| it.parse().unwrap()).into(), ..Grants::default() };
        let host = |text: &str| Host::of(text).unwrap();
        let (db, v4, v6) = (host("db.example.com."), host("127.0.0.1"), host("[0::1]"));
        assert_eq!(grants.tcp(&db, 5432), Some(AddressRule::Public));
        assert_eq!(grants.tcp(&v4, 9000), Some(AddressRule::Any));
        assert_eq!(grants.tcp(&v6, 9000), Some(AddressRule::Any));
        assert_eq!(grants.tcp(&host("localhost"), 7000), Some(AddressRule::Loopback));
        for (host, port) in [(&db, 5433), (&v4, 5432), (&host("example.com"), 5432), (&host("a.db.example.com"), 5432)]
        {
            assert_eq!(grants.tcp(host, port), None, "{host}:{port}");
        }
        assert_eq!(grants.lookup(&db), Some(AddressRule::Public));
        assert_eq!(grants.lookup(&host("example.com")), None);
        assert_eq!(Grants::default().lookup(&db), None);
        grants.allow_private = true;
        assert_eq!(grants.tcp(&db, 5432), Some(AddressRule::Any));
        assert_eq!(grants.tcp(&db, 5433), None);
    }

    #[test]
    fn what_names_no_host_and_port_is_refused_with_the_reason() {
        for (text, reason) in [
            ("db.example.com", "no port"),
            ("db.example.com:0", "port"),
            (":5432", "no host"),
            ("::1:5432", "port"),
            ("[::z]:1", "address"),
            ("*.example.com:5432", "neither a name"),
            ("tcp://db:5432", "port"),
            ("user@db:5432", "neither a name"),
        ] {
            let error = text.parse::<TcpGrant>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert_eq!("[0::1]:9000".parse::<TcpGrant>().unwrap().to_string(), "[::1]:9000");
    }

    #[test]
    fn address_rules() {
        let loopback: IpAddr = "127.0.0.1".parse().unwrap();
        let public: IpAddr = "93.184.216.34".parse().unwrap();
        assert_eq!(AddressRule::Public.check(loopback), Err(AddressClass::Loopback));
        assert_eq!(AddressRule::Public.check(public), Ok(()));
        assert_eq!(AddressRule::Loopback.check(loopback), Ok(()));
        assert_eq!(AddressRule::Loopback.check(public), Err(AddressClass::Public));
        assert_eq!(AddressRule::Any.check(loopback), Ok(()));
    }

    #[test]
    fn what_is_no_destination_is_refused_with_the_reason() {
        for (text, reason) in [
            ("example.com", "scheme"),
            ("ftp://example.com", "scheme"),
            ("https://", "URL"),
            ("https://user@example.com", "user"),
            ("https://example.com/path", "more than"),
            ("https://example.com?q", "more than"),
            ("https://example.com#f", "more than"),
            ("https://example.com:0", "port"),
            ("https://example.com:99999", "port"),
            ("https://*", "`*`"),
            ("https://*.", "`*`"),
            ("https://a.*.example.com", "`*`"),
            ("https://*example.com", "`*`"),
            ("", "URL"),
        ] {
            let error = text.parse::<HttpGrant>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn grants_are_shown_as_they_are_written() {
        for text in ["https://api.example.com", "http://127.0.0.1:8080", "https://*.example.com", "http://[::1]:9000"] {
            assert_eq!(text.parse::<HttpGrant>().unwrap().to_string(), text);
        }
        assert_eq!("https://EXAMPLE.com:443/".parse::<HttpGrant>().unwrap().to_string(), "https://example.com");
    }
}
