//! Every HTTP request of a guest passes this gate: it must be granted, and within the limits of its call. The gate for
//! sockets is in `sockets.rs`.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::HeaderName;
use hyper::{Method, Request, Response};
use outbox_engine::text::shown;
use parking_lot::Mutex;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::address::AddressClass;
use super::destination::Destination;
use super::grants::{AddressRule, Grants};
use super::host_memory::{self, OnTheWay};
use super::http_client::{Exchange, HttpClient, SendError, Timeouts};
use super::http_connect::HEAD_BYTES_MAX;
use super::http_tap::HttpTap;
use super::secrets::Redactor;
use super::settings::Limits;
use super::sockets::SocketGate;
use super::text::bounded;

/// How many denials of one call are reported; more would say nothing new.
const NOTES_MAX: usize = 3;
/// How long such a report may be: the guest chooses the host in it.
const NOTE_CHARS_MAX: usize = 500;
/// The most bytes of a request's body that the host holds until the connection takes them.
const BODY_CHUNK_BYTES_MAX: usize = 64 * 1024;

/// The gate of one instance.
pub(super) struct Gate {
    publisher: Arc<str>,
    grants: Arc<Grants>,
    limits: Arc<Limits>,
    client: Arc<HttpClient>,
    call: Arc<HttpCall>,
    tap: Option<Arc<HttpTap>>,
}

/// What the requests of one instance share: the use of the current call, and its denials.
#[derive(Default)]
pub(super) struct HttpCall {
    requests: AtomicU32,
    response_bytes: AtomicU64,
    /// The bytes of requests that are under way.
    on_the_way: Arc<AtomicUsize>,
    notes: Mutex<Vec<String>>,
    abandoned: AtomicBool,
    redactor: Redactor,
}

type IoFuture = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, IoFuture), Error>;

impl Gate {
    pub(super) fn new(
        publisher: Arc<str>,
        grants: Arc<Grants>,
        limits: Arc<Limits>,
        client: Arc<HttpClient>,
        redactor: Redactor,
        tap: Option<Arc<HttpTap>>,
    ) -> Self {
        Self { publisher, grants, limits, client, call: Arc::new(HttpCall { redactor, ..HttpCall::default() }), tap }
    }

    /// The gate of the same instance's sockets, whose denials are noted with those of its requests.
    pub(super) fn sockets(&self) -> Arc<SocketGate> {
        let (publisher, grants, client) = (self.publisher.clone(), self.grants.clone(), self.client.clone());
        Arc::new(SocketGate::new(publisher, grants, self.call.clone(), client, self.limits.tcp_sockets))
    }

    /// How many bytes of requests under way the host holds.
    pub(super) fn on_the_way(&self) -> Arc<AtomicUsize> {
        self.call.on_the_way.clone()
    }

    /// Resets the counts for a new call.
    pub(super) fn begin_call(&self) {
        self.call.requests.store(0, Ordering::Relaxed);
        self.call.response_bytes.store(0, Ordering::Relaxed);
    }

    /// The denials of the call, for the operator; mostly empty.
    pub(super) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.call.notes.lock())
    }

    /// Abandons requests under way: from now on no request body of this instance comes to a regular end.
    pub(super) fn abandon(&self) {
        self.call.abandoned.store(true, Ordering::Release);
    }

    /// Counts a request, and returns whether the call may make it.
    pub(super) fn counts(&self) -> bool {
        let max = self.limits.http_requests;
        let counts = self.call.requests.fetch_add(1, Ordering::Relaxed) < max;
        if !counts {
            self.call.note(&self.publisher, format!("a call may make {max} HTTP requests (limit: http_requests)"));
        }
        counts
    }

    /// Checks the request's grant. Returns its destination, and which addresses it may use.
    fn admit(&self, request: &Request<WasiBody>) -> Result<(Destination, AddressRule), Error> {
        let destination = Destination::of(request.uri()).map_err(|_| Error::HttpRequestUriInvalid)?;
        match self.grants.http(&destination) {
            Some(_) if shows_what_it_was_sent(request.method()) && self.grants.has_secret_for(&destination) => {
                let why = "it could show the secret that is added to it, and cannot be granted beside one";
                self.call.note(&self.publisher, format!("denied: {} {destination}: {why}", request.method()));
                Err(Error::HttpRequestDenied)
            }
            Some(rule) => Ok((destination, rule)),
            None => {
                let request = format!("{} {destination}", request.method());
                let remedy = format!("allow_http = [\"{destination}\"]");
                self.call.note(&self.publisher, format!("denied: {request} — to allow it: {remedy}"));
                Err(Error::HttpRequestDenied)
            }
        }
    }
}

impl HttpCall {
    /// Notes a denial for the operator, in the log and in the attempt's reason. If a guest tries many things, only the
    /// first few are noted.
    pub(super) fn note(&self, publisher: &str, note: String) {
        let note = bounded(self.redactor.redacted(note), NOTE_CHARS_MAX);
        let mut notes = self.notes.lock();
        if notes.len() < NOTES_MAX && !notes.contains(&note) {
            tracing::warn!(target: "outbox::guest", publisher, "{}", shown(&note));
            notes.push(note);
        }
    }

    pub(super) fn note_address(&self, publisher: &str, request: &str, class: AddressClass) {
        let remedy = "allow_private = true";
        self.note(publisher, format!("denied: {request}, which resolves to {class} — to allow it: {remedy}"));
    }
}

impl WasiHttpHooks for Gate {
    fn send_request(
        &mut self,
        mut request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _done: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let admitted = self.admit(&request);
        let mut seen = None;
        if let Some(tap) = self.tap.clone() {
            let (tapped, now_seen) = tap.see(request);
            (request, seen) = (tapped, Some((tap, now_seen)));
        }
        let mut withheld = Vec::new();
        if let Ok((destination, _)) = &admitted {
            let added = self.grants.secrets.iter().filter_map(|it| it.add_to(request.headers_mut(), destination));
            withheld.extend(added);
        }
        let timeouts = Timeouts::clamped(options.unwrap_or_default(), self.limits.call_time);
        let (publisher, call, client) = (self.publisher.clone(), self.call.clone(), self.client.clone());
        let response_bytes_max = self.limits.http_response_bytes;
        let held = OnTheWay::new(weight(&request), self.call.on_the_way.clone());
        Box::new(async move {
            let _held = held;
            let exchange = async {
                let (destination, rule) = admitted?;
                if let Some((tap, _)) = &seen {
                    match tap.answer(request).await {
                        Ok(response) => return Ok(response),
                        Err(unanswered) => request = unanswered,
                    }
                }
                let what = format!("{} {destination}", request.method());
                let request = request.map(|body| GuestBody { body, call: call.clone(), withheld });
                let exchange = Exchange { request, destination, rule, timeouts };
                match client.send(exchange).await {
                    Ok(response) => Ok(response.map(BodyExt::boxed_unsync)),
                    Err(SendError::Denied(class)) => {
                        call.note_address(&publisher, &what, class);
                        Err(Error::HttpRequestDenied)
                    }
                    Err(SendError::Noted(error, why)) => {
                        call.note(&publisher, format!("{what}: {why}"));
                        Err(error)
                    }
                    Err(SendError::Http(error)) => {
                        let note = limit_reached(&error);
                        note.into_iter().for_each(|note| call.note(&publisher, format!("{what}: {note}")));
                        Err(error)
                    }
                }
            };
            let answer: Result<Response<WasiBody>, Error> = exchange.await;
            seen.iter().for_each(|(_, seen)| seen.answered(&answer));
            let limit = move |body| BoundedBody { body, publisher, call, bytes_max: response_bytes_max };
            let response = answer?.map(|body| limit(body).boxed_unsync());
            Ok((response, Box::new(async { Ok(()) }) as IoFuture))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK_BYTES_MAX
    }

    fn p2_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        tracing::debug!(target: "outbox::guest", publisher = &*self.publisher, "HTTP: {}", shown(error));
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            ErrorCode::ConnectionTerminated
        } else {
            ErrorCode::HttpProtocolError
        }
    }

    fn p2_error_from_connect(&mut self, error: &io::Error) -> ErrorCode {
        tracing::debug!(target: "outbox::guest", publisher = &*self.publisher, "connecting: {}", shown(error));
        match error.kind() {
            ErrorKind::ConnectionRefused => ErrorCode::ConnectionRefused,
            ErrorKind::TimedOut => ErrorCode::ConnectionTimeout,
            _ => ErrorCode::DestinationUnavailable,
        }
    }

    fn p2_error_from_tls(&mut self, error: &io::Error) -> ErrorCode {
        use tokio_rustls::rustls::{CertificateError, Error as TlsError};
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<TlsError>());
        let cause = cause.or_else(|| error.source().and_then(|cause| cause.downcast_ref()));
        let remedy = match cause {
            Some(TlsError::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                " — to trust a certificate authority of your own: tls = { ca_file = \"FILE.pem\" }"
            }
            _ => "",
        };
        self.call.note(&self.publisher, format!("TLS: {error}{remedy}"));
        match cause {
            Some(TlsError::InvalidCertificate(_)) => ErrorCode::TlsCertificateError,
            _ => ErrorCode::TlsProtocolError,
        }
    }
}

/// Whether this method can make the answer contain the request's head, or turn the connection into a tunnel. Some
/// servers know such methods by other spellings.
fn shows_what_it_was_sent(method: &Method) -> bool {
    ["CONNECT", "TRACE", "TRACK"].iter().any(|it| method.as_str().eq_ignore_ascii_case(it))
}

/// The limit without a key at which a request failed. None if it failed otherwise.
fn limit_reached(error: &Error) -> Option<String> {
    match error {
        Error::HttpResponseHeaderSectionSize(_) => {
            Some(format!("a response may have 100 headers, and {HEAD_BYTES_MAX} bytes of them"))
        }
        _ => None,
    }
}

/// How many bytes the host holds of a request until there is a response.
fn weight(request: &Request<WasiBody>) -> usize {
    let uri = request.uri();
    let line = [
        Some(request.method().as_str()),
        uri.authority().map(|it| it.as_str()),
        uri.path_and_query().map(|it| it.as_str()),
    ];
    line.iter().flatten().map(|text| text.len()).sum::<usize>() + host_memory::headers(request.headers())
}

/// A request body that the guest writes. If the guest is gone, it ends with an error: otherwise the part written so far
/// would arrive as if it were whole.
pub(super) struct GuestBody {
    body: WasiBody,
    call: Arc<HttpCall>,
    /// The headers that the host sets: its trailers may not have these names.
    withheld: Vec<HeaderName>,
}

impl GuestBody {
    #[cfg(test)]
    pub(super) fn new(body: WasiBody) -> Self {
        Self { body, call: Arc::default(), withheld: Vec::new() }
    }

    /// The frame without withheld trailers: a server might take a trailer for the header of the same name.
    fn checked(&self, mut frame: Frame<Bytes>) -> Frame<Bytes> {
        if let Some(trailers) = frame.trailers_mut() {
            self.withheld.iter().for_each(|name| drop(trailers.remove(name)));
        }
        frame
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match frame {
            Poll::Ready(None) if self.call.abandoned.load(Ordering::Acquire) => {
                Poll::Ready(Some(Err(Error::ConnectionTerminated)))
            }
            frame => frame.map(|frame| frame.map(|frame| frame.map(|frame| self.checked(frame)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response body that counts against the limit of the call that reads it.
struct BoundedBody<B> {
    body: B,
    publisher: Arc<str>,
    call: Arc<HttpCall>,
    bytes_max: u64,
}

impl<B> BoundedBody<B> {
    fn count(&self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Error> {
        let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
        let before = self.call.response_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) <= self.bytes_max {
            return Ok(frame);
        }
        let max = self.bytes_max;
        let note = format!("a call may read {max} bytes of HTTP responses (limit: http_response_bytes)");
        self.call.note(&self.publisher, note);
        Err(Error::InternalError(Some("the call has read more bytes of HTTP responses than allowed".to_owned())))
    }
}

impl<B: Body<Data = Bytes, Error = Error> + Unpin> Body for BoundedBody<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        frame.map(|frame| frame.map(|frame| frame.and_then(|frame| self.count(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn text(text: &'static str) -> WasiBody {
        Full::new(Bytes::from(text)).map_err(Error::from).boxed_unsync()
    }

    async fn read(mut body: impl Body<Data = Bytes, Error = Error> + Unpin) -> Result<String, Error> {
        let mut read = String::new();
        while let Some(frame) = body.frame().await {
            read.push_str(&String::from_utf8_lossy(&frame?.into_data().unwrap_or_default()));
        }
        Ok(read)
    }

    #[tokio::test]
    async fn what_an_abandoned_guest_had_written_is_not_passed_off_as_whole() {
        let call = Arc::<HttpCall>::default();
        let body = |text| GuestBody { body: text, call: call.clone(), withheld: Vec::new() };
        assert_eq!(read(body(text("all"))).await.unwrap(), "all");
        call.abandoned.store(true, Ordering::Release);
        let ended = read(body(text("some"))).await;
        assert!(matches!(ended, Err(Error::ConnectionTerminated)));
    }

    #[tokio::test]
    async fn a_trailer_with_a_secrets_name_is_dropped() {
        let trailers = [("authorization", "guess"), ("x-checksum", "1")];
        let trailers = trailers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        let trailers = std::future::ready(Some(Ok(trailers.into_iter().collect())));
        let body = text("all").with_trailers(trailers).boxed_unsync();
        let body = GuestBody { withheld: vec![hyper::header::AUTHORIZATION], ..GuestBody::new(body) };
        let sent = body.collect().await.unwrap();
        let names: Vec<&str> = sent.trailers().unwrap().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-checksum"]);
    }

    #[tokio::test]
    async fn response_bytes_are_counted_over_all_responses_of_a_call() {
        let call = Arc::<HttpCall>::default();
        let body = || BoundedBody { body: text("12345"), publisher: "p".into(), call: call.clone(), bytes_max: 8 };
        assert_eq!(read(body()).await.unwrap(), "12345");
        assert!(read(body()).await.is_err());
        assert_eq!(*call.notes.lock(), ["a call may read 8 bytes of HTTP responses (limit: http_response_bytes)"]);
    }
}
