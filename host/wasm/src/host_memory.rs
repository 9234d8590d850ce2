//! Counts what a guest makes the host hold of HTTP: the methods, addresses and headers of its requests and responses.
//! They lie in the host's memory, where no limit on the guest's own memory applies, and WASI has no limit for all of
//! them together.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::HeaderMap;
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::FieldMap;
use wasmtime_wasi_http::p2::bindings::http::types::{Method, Scheme};
use wasmtime_wasi_http::p2::types::{HostIncomingResponse, HostOutgoingRequest, HostOutgoingResponse};

/// The most bytes of these that one instance may make the host hold.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a header takes beside its name and its value.
const BYTES_OF_A_HEADER: usize = 256;

/// The account of one instance. It grows with everything that the guest hands over. What the guest has dropped is
/// subtracted only when the account is full, since counting again has to look at each resource.
#[derive(Debug, Default)]
pub(super) struct HostMemory {
    bytes: usize,
    on_the_way: Arc<AtomicUsize>,
}

/// The guest handed over more than the host holds for it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the guest made the host hold more than {BYTES_MAX} bytes of HTTP requests and responses (limit: HTTP messages held)"
)]
pub(super) struct TooMuchHeld;

impl HostMemory {
    /// An account that also counts requests under way.
    pub(super) fn new(on_the_way: Arc<AtomicUsize>) -> Self {
        Self { bytes: 0, on_the_way }
    }

    /// Makes room for this many more bytes, which go into `table`.
    pub(super) fn grow(&mut self, bytes: usize, table: &mut ResourceTable) -> Result<(), TooMuchHeld> {
        if self.bytes.saturating_add(bytes) > BYTES_MAX {
            let held: usize = table.iter_mut().map(|resource| weight(resource)).sum();
            self.bytes = held + self.on_the_way.load(Ordering::Relaxed);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > BYTES_MAX { Err(TooMuchHeld) } else { Ok(()) }
    }
}

/// A request that is being sent: it is in no table any more, and counts until this is dropped.
pub(super) struct OnTheWay {
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl OnTheWay {
    pub(super) fn new(bytes: usize, all: Arc<AtomicUsize>) -> Self {
        all.fetch_add(bytes, Ordering::Relaxed);
        Self { bytes, all }
    }
}

impl Drop for OnTheWay {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// How much a header takes.
pub(super) fn header(name: &str, value: &[u8]) -> usize {
    name.len() + value.len() + BYTES_OF_A_HEADER
}

/// How much headers take.
pub(super) fn headers(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| header(name.as_str(), value.as_bytes())).sum()
}

/// How much a method takes.
pub(super) fn method(method: &Method) -> usize {
    if let Method::Other(other) = method { other.len() } else { 0 }
}

/// How much a scheme takes.
pub(super) fn scheme(scheme: Option<&Scheme>) -> usize {
    if let Some(Scheme::Other(other)) = scheme { other.len() } else { 0 }
}

fn weight(resource: &(dyn Any + Send)) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    if let Some(fields) = resource.downcast_ref::<FieldMap>() {
        headers(fields)
    } else if let Some(request) = resource.downcast_ref::<HostOutgoingRequest>() {
        let line = method(&request.method) + scheme(request.scheme.as_ref());
        line + text(&request.authority) + text(&request.path_with_query) + headers(&request.headers)
    } else if let Some(response) = resource.downcast_ref::<HostIncomingResponse>() {
        headers(&response.headers)
    } else if let Some(response) = resource.downcast_ref::<HostOutgoingResponse>() {
        headers(&response.headers)
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: usize) -> HostOutgoingRequest {
        HostOutgoingRequest {
            method: Method::Get,
            scheme: None,
            authority: None,
            path_with_query: Some("/".repeat(path)),
            headers: FieldMap::default(),
            body: None,
        }
    }

    #[test]
    fn what_was_dropped_makes_room_again_and_what_was_not_does_not() {
        let (mut held, mut table) = (HostMemory::default(), ResourceTable::new());
        for _ in 0..100 {
            held.grow(BYTES_MAX / 2, &mut table).unwrap();
            let request = table.push(request(BYTES_MAX / 2)).unwrap();
            table.delete(request).unwrap();
        }
        table.push(request(BYTES_MAX / 2)).unwrap();
        assert!(held.grow(BYTES_MAX / 2, &mut table).is_ok());
        table.push(request(BYTES_MAX / 2)).unwrap();
        assert!(held.grow(1, &mut table).is_err());
    }

    #[test]
    fn what_is_on_its_way_counts_until_it_is_sent() {
        let all = Arc::<AtomicUsize>::default();
        let (mut held, mut table) = (HostMemory::new(all.clone()), ResourceTable::new());
        held.grow(BYTES_MAX, &mut table).unwrap();
        let sending = OnTheWay::new(BYTES_MAX, all);
        assert!(held.grow(1, &mut table).is_err());
        drop(sending);
        assert!(held.grow(1, &mut table).is_ok());
    }
}
