//! Why there is no response.

use wasmtime_wasi_http::Error;

use super::address::AddressClass;
use super::http_pool::{OPEN_MAX, OPEN_TO_ONE_MAX};

/// Why there is no response.
pub(super) enum SendError {
    /// The destination's name resolves only to addresses of this class, which were not granted.
    Denied(AddressClass),
    /// An error for the guest, and a note for the operator.
    Noted(Error, String),
    /// An error for the guest.
    Http(Error),
}

impl SendError {
    pub(super) fn no_turn() -> Self {
        let why = format!(
            "{OPEN_TO_ONE_MAX} requests to it are under way, and there may be no more connections to one destination"
        );
        Self::Noted(Error::ConnectionLimitReached, why)
    }

    pub(super) fn no_descriptor() -> Self {
        let why = format!(
            "there may be no more connections: a publisher may have {OPEN_MAX} open at once, and no more than the process \
             has file descriptors left (ulimit -n)"
        );
        Self::Noted(Error::ConnectionLimitReached, why)
    }
}

impl From<Error> for SendError {
    fn from(error: Error) -> Self {
        Self::Http(match error {
            Error::Hyper(error) if error.is_parse_too_large() => Error::HttpResponseHeaderSectionSize(None),
            error => error,
        })
    }
}
