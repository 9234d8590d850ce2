use std::{fmt, time::Duration};

use crate::DecodeError;

/// Why an event was not published, and what the relay should do with it.
///
/// | kind | means | the entry |
/// |---|---|---|
/// | [`retryable`](Self::retryable) | this event failed now and may succeed later | is tried again, until its attempts are used up |
/// | [`rejected`](Self::rejected) | this event will never succeed | becomes a dead letter at once |
/// | [`unavailable`](Self::unavailable) | no event can be published now | waits, and no attempt is used up |
///
/// The reason is for the operator who reads it; the relay keeps its first 2,000 characters.
///
/// ```
/// use outbox_guest::Error;
/// use std::time::Duration;
///
/// fn answer(status: u16) -> Result<(), Error> {
///     match status {
///         200..=299 => Ok(()),
///         401 | 403 => Err(Error::unavailable(format!("answered {status}: is the token still good?"))),
///         429 | 503 => Err(Error::unavailable(format!("answered {status}")).retry_after(Duration::from_secs(5))),
///         400 | 422 => Err(Error::rejected(format!("answered {status}"))),
///         _ => Err(Error::retryable(format!("answered {status}"))),
///     }
/// }
/// assert!(answer(503).unwrap_err().is_unavailable());
/// ```
///
/// `?` converts a [`DecodeError`] and a [`serde_json::Error`] to a rejection. It converts a [`std::io::Error`] to
/// unavailable if there was no connection, and otherwise to a retry. For any other error, the publisher chooses the
/// kind:
///
/// ```
/// # use outbox_guest::Error;
/// # fn parse(text: &str) -> Result<u64, Error> {
/// let order: u64 = text.parse().map_err(Error::rejected)?;
/// # Ok(order)
/// # }
/// # assert_eq!(parse("x").unwrap_err().to_string(), "invalid digit found in string");
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    kind: Kind,
    reason: String,
    retry_after: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Retryable,
    Rejected,
    Unavailable,
}

impl Error {
    /// This event failed now and may succeed later: a conflict, a time-out, a 500.
    ///
    /// ```
    /// # use outbox_guest::Error;
    /// assert!(Error::retryable("the connection was reset").is_retryable());
    /// ```
    pub fn retryable(reason: impl fmt::Display) -> Self {
        Self::new(Kind::Retryable, reason)
    }

    /// This event will never succeed: a schema violation, a 400.
    ///
    /// ```
    /// # use outbox_guest::Error;
    /// assert!(Error::rejected("the total is negative").is_rejected());
    /// ```
    pub fn rejected(reason: impl fmt::Display) -> Self {
        Self::new(Kind::Rejected, reason)
    }

    /// No event can be published now: the destination is down, does not let us in, or asks for a pause. The relay
    /// pauses the publisher. Use this for an outage: as a retry, it would use up the attempts of all events that fall
    /// due meanwhile.
    ///
    /// ```
    /// # use outbox_guest::Error;
    /// assert!(Error::unavailable("closed for maintenance").is_unavailable());
    /// ```
    pub fn unavailable(reason: impl fmt::Display) -> Self {
        Self::new(Kind::Unavailable, reason)
    }

    /// Sets the shortest time until the next attempt, if the destination named one. The relay bounds it. Without it,
    /// the relay's own backoff applies. It has no effect on a rejection.
    ///
    /// ```
    /// # use outbox_guest::Error;
    /// # use std::time::Duration;
    /// let _ = Error::unavailable("asked for a pause").retry_after(Duration::from_secs(30));
    /// ```
    #[must_use]
    pub fn retry_after(mut self, time: Duration) -> Self {
        self.retry_after = Some(time);
        self
    }

    /// Whether the event may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.kind == Kind::Retryable
    }

    /// Whether the event will never succeed.
    pub fn is_rejected(&self) -> bool {
        self.kind == Kind::Rejected
    }

    /// Whether no event can be published now.
    pub fn is_unavailable(&self) -> bool {
        self.kind == Kind::Unavailable
    }

    /// The shortest time until the next attempt. None if none was [set](Self::retry_after).
    ///
    /// ```
    /// # use outbox_guest::Error;
    /// assert_eq!(Error::retryable("conflict").shortest_wait(), None);
    /// ```
    pub fn shortest_wait(&self) -> Option<Duration> {
        self.retry_after
    }

    pub(crate) fn into_parts(self) -> (Kind, String, Option<Duration>) {
        (self.kind, self.reason, self.retry_after)
    }

    fn new(kind: Kind, reason: impl fmt::Display) -> Self {
        Self { kind, reason: reason.to_string(), retry_after: None }
    }
}

/// The reason.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Error {}

/// A rejection: the event would not decode the next time either.
impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        Self::rejected(error)
    }
}

/// A rejection: data that does not parse or serialise now will not do so later. Prefer [`Recorded::data`], whose error
/// also names the event.
///
/// [`Recorded::data`]: crate::Recorded::data
impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::rejected(error)
    }
}

/// Unavailable if there never was a connection: the destination refused it, its name is unknown, it cannot be reached,
/// or it is not granted. Otherwise a retry: this event may have broken the connection.
impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::AddrNotAvailable
            | ErrorKind::PermissionDenied => Self::unavailable(error),
            _ if is_lookup(&error) => Self::unavailable(error),
            _ => Self::retryable(error),
        }
    }
}

/// Whether a name did not resolve: the standard library has no kind for this.
fn is_lookup(error: &std::io::Error) -> bool {
    error.to_string().starts_with("failed to lookup address information")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_errors_have_a_kind() {
        let json = serde_json::from_str::<u64>("x").unwrap_err();
        assert!(Error::from(json).is_rejected());
        assert!(Error::from(std::io::Error::other("reset")).is_retryable());
        for after in [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::TimedOut, std::io::ErrorKind::BrokenPipe]
        {
            assert!(Error::from(std::io::Error::from(after)).is_retryable(), "{after}");
        }
    }

    #[test]
    fn where_there_was_no_connection_no_event_is_to_blame() {
        use std::net::{TcpListener, TcpStream, ToSocketAddrs};
        let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        assert!(Error::from(TcpStream::connect(nobody).unwrap_err()).is_unavailable());
        let unknown = "no-such-name.invalid:80".to_socket_addrs().unwrap_err();
        assert!(Error::from(unknown).is_unavailable());
        assert!(Error::from(std::io::Error::from(std::io::ErrorKind::PermissionDenied)).is_unavailable());
    }
}
