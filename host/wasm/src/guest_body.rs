//! The bodies that a guest writes and reads. A body of an abandoned guest is never complete, and what a guest reads is
//! counted.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::HeaderName;
use wasmtime_wasi_http::{Error, WasiBody};

use super::http_call::HttpCall;

/// A request body that the guest writes. If the guest is gone, it ends with an error: otherwise the part written so far
/// would arrive as if it were whole.
pub(super) struct GuestBody {
    pub(super) body: WasiBody,
    pub(super) call: Arc<HttpCall>,
    /// The headers that the host sets: its trailers may not have these names.
    pub(super) withheld: Vec<HeaderName>,
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
pub(super) struct BoundedBody<B> {
    pub(super) body: B,
    pub(super) publisher: Arc<str>,
    pub(super) call: Arc<HttpCall>,
    pub(super) bytes_max: u64,
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
    use http_body_util::{BodyExt, Full};

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
