use std::{fmt, str::FromStr};

/// Where a request goes: an `http` or `https` URL.
///
/// ```
/// use outbox_guest::http::Url;
///
/// let url: Url = "https://hooks.example.com/orders?token=secret".parse()?;
/// // Without the query, which often carries a token.
/// assert_eq!(url.to_string(), "https://hooks.example.com/orders");
/// assert!("https://user:secret@hooks.example.com".parse::<Url>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Url {
    pub(super) https: bool,
    pub(super) authority: String,
    pub(super) path_with_query: String,
}

impl FromStr for Url {
    /// What is wrong with it, as the rest of a sentence: "WEBHOOK_URL has the scheme ftp".
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("is no URL: it has no ://")?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            other => return Err(format!("has the scheme {other}: http and https are possible")),
        };
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("has a space or another character that must be percent-encoded in a URL".into());
        }
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() || authority.starts_with(':') {
            return Err("names no host".into());
        }
        if authority.contains('@') {
            return Err("has a user name or password: grant a secret to the publisher instead".into());
        }
        let path_with_query = if path.starts_with('/') { path.into() } else { format!("/{path}") };
        Ok(Self { https, authority: authority.into(), path_with_query })
    }
}

/// Without the query, which often carries a token.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        let path = self.path_with_query.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> (bool, String, String) {
        let Url { https, authority, path_with_query } = url.parse().unwrap();
        (https, authority, path_with_query)
    }

    #[test]
    fn a_url_has_an_authority_and_a_path() {
        assert_eq!(parts("http://localhost:8080"), (false, "localhost:8080".into(), "/".into()));
        assert_eq!(parts("HTTPS://a.example/in?k=v#top"), (true, "a.example".into(), "/in?k=v".into()));
        assert_eq!(parts("https://[::1]?k=a/b"), (true, "[::1]".into(), "/?k=a/b".into()));
    }

    #[test]
    fn what_cannot_be_posted_to_is_refused_with_a_reason() {
        for (url, reason) in [
            ("localhost:8080", "is no URL"),
            ("ftp://a.example", "scheme ftp"),
            ("http://", "no host"),
            ("http:///path", "no host"),
            ("http://:80/", "no host"),
            ("http://a.example/a b", "percent-encoded"),
            ("https://user:secret@a.example", "password"),
        ] {
            let error = url.parse::<Url>().unwrap_err();
            assert!(error.contains(reason), "{url}: {error}");
        }
    }

    #[test]
    fn a_token_in_the_query_is_not_shown() {
        let destination: Url = "https://a.example/in?token=secret".parse().unwrap();
        assert_eq!(destination.to_string(), "https://a.example/in");
    }
}
