//! Observes the HTTP requests of a publisher, and can answer them in the destination's place, for testing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::{Request, Response};
use parking_lot::Mutex;
use serde::Serialize;
use wasmtime_wasi_http::{Error, WasiBody};

/// How much of a request's body is kept.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Observes each granted request of a publisher, as the guest made it: without the secrets that the host adds.
///
/// With answers, nothing is sent: the first answer that fits a request answers it, and a request that none fits fails.
#[derive(Debug, Default)]
pub struct HttpTap {
    answers: Option<Vec<HttpAnswer>>,
    seen: Mutex<Vec<Arc<Mutex<SeenRequest>>>>,
}

/// A request that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SeenRequest {
    /// `POST`, for example.
    pub method: String,
    /// Its URL.
    pub url: String,
    /// Its headers, in the order in which the guest set them.
    pub headers: Vec<(String, String)>,
    /// Its body as text, at most the first 64 KiB; bytes that are no UTF-8 are replaced.
    pub body: String,
    /// The answer's status, or why there was none.
    pub answer: String,
}

/// An answer in a destination's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The method that it answers. None stands for any.
    pub method: Option<String>,
    /// The beginning of the URLs that it answers. None stands for any.
    pub url: Option<String>,
    /// The status, from 200 to 599.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl HttpTap {
    /// A tap that answers in the destinations' place.
    pub fn answering(answers: Vec<HttpAnswer>) -> Self {
        Self { answers: Some(answers), seen: Mutex::default() }
    }

    /// The requests since the last call of this function.
    pub fn take(&self) -> Vec<SeenRequest> {
        let seen = std::mem::take(&mut *self.seen.lock());
        seen.iter().map(|request| request.lock().clone()).collect()
    }

    /// Notes a request, and what will be read of its body.
    pub(super) fn see(&self, request: Request<WasiBody>) -> (Request<WasiBody>, Seen) {
        let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let seen = Arc::new(Mutex::new(SeenRequest {
            method: request.method().to_string(),
            url: request.uri().to_string(),
            headers: request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            ..SeenRequest::default()
        }));
        self.seen.lock().push(seen.clone());
        let tapped = seen.clone();
        (request.map(|body| TappedBody { body, seen: tapped }.boxed_unsync()), Seen(seen))
    }

    /// Answers in the destination's place. None if the destination should answer itself.
    pub(super) async fn answer(&self, request: Request<WasiBody>) -> Result<Response<WasiBody>, Request<WasiBody>> {
        let Some(answers) = &self.answers else { return Err(request) };
        let (method, url) = (request.method().to_string(), request.uri().to_string());
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        let fits = |answer: &&HttpAnswer| {
            answer.method.as_ref().is_none_or(|it| it.eq_ignore_ascii_case(&method))
                && answer.url.as_ref().is_none_or(|it| url.starts_with(it))
        };
        let nothing = HttpAnswer {
            method: None,
            url: None,
            status: 501,
            headers: Vec::new(),
            body: format!("no answer for {method} {url}"),
        };
        Ok(answers.iter().find(fits).unwrap_or(&nothing).response())
    }
}

impl HttpAnswer {
    /// Checks that the answer is valid.
    ///
    /// # Errors
    ///
    /// What is wrong with its status or a header.
    pub fn check(&self) -> Result<(), String> {
        if !(200..=599).contains(&self.status) {
            return Err(format!("{} is no status of an answer: it is from 200 to 599", self.status));
        }
        self.build().map(|_| ()).map_err(|error| error.to_string())
    }

    fn build(&self) -> Result<Response<()>, hyper::http::Error> {
        let mut response = Response::builder().status(self.status);
        for (name, value) in &self.headers {
            response = response.header(name, value);
        }
        response.body(())
    }

    fn response(&self) -> Response<WasiBody> {
        let body = Full::new(Bytes::from(self.body.clone())).map_err(Error::from).boxed_unsync();
        match self.build() {
            Ok(head) => head.map(|()| body),
            Err(_) => Response::new(body),
        }
    }
}

/// A request that has no answer yet.
pub(super) struct Seen(Arc<Mutex<SeenRequest>>);

impl Seen {
    pub(super) fn answered<B>(&self, answer: &Result<Response<B>, Error>) {
        self.0.lock().answer = match answer {
            Ok(response) => response.status().as_u16().to_string(),
            Err(error) => error.to_string(),
        };
    }
}

/// A body that is copied as it passes.
struct TappedBody {
    body: WasiBody,
    seen: Arc<Mutex<SeenRequest>>,
}

impl Body for TappedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            let mut seen = self.seen.lock();
            let room = BODY_BYTES_MAX.saturating_sub(seen.body.len());
            seen.body.push_str(&String::from_utf8_lossy(data.get(..room).unwrap_or(data)));
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
