//! Request bodies that can be sent a second time. An idle connection may turn out to be closed only when a request is
//! sent on it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use parking_lot::{Mutex, MutexGuard};
use wasmtime_wasi_http::Error;

use super::guest_body::GuestBody;

/// The most bytes of one body that are kept to be sent again ...
const KEPT_BYTES_MAX: usize = 1024 * 1024;
/// ... and of all bodies of a publisher that are under way.
const KEPT_BYTES_OF_ALL_MAX: usize = 16 * 1024 * 1024;

/// How many bytes are kept of all the bodies of a publisher.
#[derive(Default)]
pub(super) struct KeptBytes(AtomicUsize);

/// A request body as a connection takes it.
pub(super) struct SentBody {
    source: Source,
    /// The frames that were sent before, and are sent again.
    again: VecDeque<Frame<Bytes>>,
}

/// The body, with the frames that were sent, as long as they may have to be sent again.
#[derive(Clone)]
pub(super) struct Source(Arc<Mutex<Kept>>);

struct Kept {
    body: GuestBody,
    /// The frames that were taken. None if some are missing, or they are not needed again.
    frames: Option<VecDeque<Frame<Bytes>>>,
    bytes: usize,
    all: Arc<KeptBytes>,
}

impl Source {
    pub(super) fn new(body: GuestBody, all: Arc<KeptBytes>) -> Self {
        Self(Arc::new(Mutex::new(Kept { body, frames: Some(VecDeque::new()), bytes: 0, all })))
    }

    /// The body; its frames are kept as they are taken.
    pub(super) fn body(&self) -> SentBody {
        SentBody { source: self.clone(), again: VecDeque::new() }
    }

    /// The body from its beginning, for the last time. None if its beginning was not kept.
    pub(super) fn again(&self) -> Option<SentBody> {
        let again = self.kept().frames.take()?;
        Some(SentBody { source: self.clone(), again })
    }

    /// Drops the kept frames: the body will not be sent again.
    pub(super) fn forget(&self) {
        self.kept().forget();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock()
    }
}

impl Kept {
    /// Keeps a frame that was taken, if it is small enough.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if self.frames.is_none() {
            return;
        }
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let of_all = self.all.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.bytes += bytes;
        match &mut self.frames {
            Some(frames) if self.bytes <= KEPT_BYTES_MAX && of_all <= KEPT_BYTES_OF_ALL_MAX => {
                frames.extend(copy(frame));
            }
            _ => self.forget(),
        }
    }

    fn forget(&mut self) {
        self.frames = None;
        self.all.0.fetch_sub(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.forget();
    }
}

/// The same frame: the bytes are shared.
fn copy(frame: &Frame<Bytes>) -> Option<Frame<Bytes>> {
    let data = frame.data_ref().map(|data| Frame::data(data.clone()));
    data.or_else(|| frame.trailers_ref().map(|trailers| Frame::trailers(trailers.clone())))
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(again) = self.again.pop_front() {
            return Poll::Ready(Some(Ok(again)));
        }
        let mut kept = self.source.kept();
        let frame = ready!(Pin::new(&mut kept.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            kept.keep(frame);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.again.is_empty() && self.source.kept().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let again: usize = self.again.iter().filter_map(Frame::data_ref).map(Bytes::len).sum();
        let (again, hint) = (again as u64, self.source.kept().body.size_hint());
        let mut both = SizeHint::new();
        both.set_lower(hint.lower().saturating_add(again));
        if let Some(upper) = hint.upper() {
            both.set_upper(upper.saturating_add(again));
        }
        both
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full, StreamBody};

    use super::*;

    fn source(chunks: &[usize], all: &Arc<KeptBytes>) -> Source {
        let frames = chunks.iter().map(|bytes| Ok(Frame::data(Bytes::from(vec![b'x'; *bytes])))).collect::<Vec<_>>();
        let body = StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync();
        Source::new(GuestBody::new(body), all.clone())
    }

    async fn read(body: SentBody) -> usize {
        body.collect().await.unwrap().to_bytes().len()
    }

    #[tokio::test]
    async fn what_was_taken_is_sent_again_and_then_the_rest() {
        let all = Arc::default();
        let source = source(&[10, 20, 30], &all);
        assert_eq!(source.body().frame().await.unwrap().unwrap().into_data().unwrap().len(), 10);
        assert_eq!(all.0.load(Ordering::Relaxed), 10);
        assert_eq!(read(source.again().unwrap()).await, 60);
        assert!(source.again().is_none());
        drop(source);
        assert_eq!(all.0.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn the_length_stays_the_same() {
        let body = Full::new(Bytes::from("12345")).map_err(Error::from).boxed_unsync();
        let source = Source::new(GuestBody::new(body), Arc::default());
        assert_eq!(source.body().size_hint().exact(), Some(5));
        assert_eq!(read(source.body()).await, 5);
        let again = source.again().unwrap();
        assert_eq!((again.size_hint().exact(), again.is_end_stream()), (Some(5), false));
        assert_eq!(read(again).await, 5);
    }

    #[tokio::test]
    async fn what_is_too_large_is_sent_once() {
        let all = Arc::default();
        let large = source(&[KEPT_BYTES_MAX, 1], &all);
        assert_eq!(read(large.body()).await, KEPT_BYTES_MAX + 1);
        assert!(large.again().is_none());
        let many: Vec<Source> = (0..20).map(|_| source(&[KEPT_BYTES_MAX], &all)).collect();
        for source in &many {
            read(source.body()).await;
        }
        assert_eq!(many.iter().filter(|source| source.again().is_some()).count(), 16);
        drop(many);
        assert_eq!(all.0.load(Ordering::Relaxed), 0);
    }
}
