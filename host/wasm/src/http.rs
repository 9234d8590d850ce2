//! Every HTTP request of a guest passes this gate: it must be granted, and within the limits of its call. The gate for
//! sockets is in `sockets.rs`.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::BodyExt;
use hyper::{Method, Request, Response};
use outbox_engine::text::shown;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use super::destination::Destination;
use super::grants::{AddressRule, Grants};
use super::guest_body::{BoundedBody, GuestBody};
use super::host_memory::{self, OnTheWay};
use super::http_call::HttpCall;
use super::http_client::{Exchange, HttpClient, Timeouts};
use super::http_connect::HEAD_BYTES_MAX;
use super::http_tap::HttpTap;
use super::secrets::Redactor;
use super::send_error::SendError;
use super::settings::Limits;
use super::sockets::SocketGate;

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
