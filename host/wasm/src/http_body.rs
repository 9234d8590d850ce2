//! The bodies of responses, on their way from a connection to the guest.
//!
//! The thread of the connections reads each body. So its time limit holds whatever the guest does, and the connection
//! is free for the next request as soon as the response is there, even if the guest neither reads nor drops it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use wasmtime_wasi_http::Error;

use super::http_pool::Home;

/// The most bytes of a body that are read before the guest wants them. A rest that is shorter is kept without the
/// connection.
const AHEAD_BYTES_MAX: usize = 8 * 1024;
/// How much of a response that the guest did not read to its end is read, to use the connection again.
const DRAIN_BYTES_MAX: usize = 64 * 1024;
/// How long this may take, and how long sending the rest of a request may take once it was answered.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// The body of a response. After a drop, a short rest of it is read and thrown away.
pub(super) struct ResponseBody {
    /// None if there is nothing to read.
    frames: Option<mpsc::UnboundedReceiver<Result<Frame<Bytes>, Error>>>,
    ahead: Arc<Ahead>,
}

impl ResponseBody {
    /// Starts to read `incoming`, and then brings its connection home. `between_bytes` is how long the server may take
    /// for each next piece.
    pub(super) fn start(incoming: Incoming, home: Home, between_bytes: Duration) -> Self {
        let ahead = Arc::<Ahead>::default();
        if incoming.is_end_stream() {
            home.bring(between_bytes);
            return Self { frames: None, ahead };
        }
        let (sender, frames) = mpsc::unbounded_channel();
        let delivery = Delivery { incoming, frames: sender, ahead: ahead.clone(), between_bytes };
        tokio::spawn(delivery.run(home));
        Self { frames: Some(frames), ahead }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(frames) = &mut self.frames else { return Poll::Ready(None) };
        let frame = std::task::ready!(frames.poll_recv(context));
        if let Some(Ok(frame)) = &frame {
            self.ahead.taken(frame);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.frames.is_none() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

/// How many bytes were read that the guest has not taken yet.
#[derive(Default)]
struct Ahead {
    bytes: AtomicUsize,
    taken: Notify,
}

impl Ahead {
    fn read(&self, frame: &Frame<Bytes>) {
        self.bytes.fetch_add(length(frame), Ordering::AcqRel);
    }

    fn taken(&self, frame: &Frame<Bytes>) {
        self.bytes.fetch_sub(length(frame), Ordering::AcqRel);
        self.taken.notify_one();
    }

    /// Waits until there may be more.
    async fn room(&self) {
        while self.bytes.load(Ordering::Acquire) > AHEAD_BYTES_MAX {
            self.taken.notified().await;
        }
    }
}

fn length(frame: &Frame<Bytes>) -> usize {
    frame.data_ref().map_or(0, Bytes::len)
}

/// The other end of a [`ResponseBody`].
struct Delivery {
    incoming: Incoming,
    frames: mpsc::UnboundedSender<Result<Frame<Bytes>, Error>>,
    ahead: Arc<Ahead>,
    between_bytes: Duration,
}

/// How a delivery ended.
enum Delivered {
    Whole,
    /// The server broke off, or took too long.
    Failed,
    /// Nobody reads it any more.
    Unwanted,
}

impl Delivery {
    /// A connection that is not brought home is closed.
    async fn run(mut self, home: Home) {
        match self.deliver().await {
            // The guest sees the end only after this, so that its next request finds the connection.
            Delivered::Whole => home.bring(self.between_bytes),
            Delivered::Failed => {}
            Delivered::Unwanted => {
                if matches!(timeout(DRAIN_TIME_MAX, drain(self.incoming)).await, Ok(true)) {
                    home.bring(DRAIN_TIME_MAX);
                }
            }
        }
    }

    async fn deliver(&mut self) -> Delivered {
        loop {
            let frame = tokio::select! {
                biased;
                () = self.frames.closed() => return Delivered::Unwanted,
                frame = next(&mut self.incoming, &self.ahead, self.between_bytes) => frame,
            };
            let (sent, end) = match frame {
                None => return Delivered::Whole,
                Some(Ok(frame)) => {
                    self.ahead.read(&frame);
                    (Ok(frame), None)
                }
                Some(Err(error)) => (Err(error), Some(Delivered::Failed)),
            };
            if self.frames.send(sent).is_err() {
                return Delivered::Unwanted;
            }
            if let Some(end) = end {
                return end;
            }
        }
    }
}

async fn next(incoming: &mut Incoming, ahead: &Ahead, between_bytes: Duration) -> Option<Result<Frame<Bytes>, Error>> {
    ahead.room().await;
    match timeout(between_bytes, incoming.frame()).await {
        Err(_) => Some(Err(Error::ConnectionReadTimeout)),
        Ok(frame) => frame.map(|frame| frame.map(unshared).map_err(Error::Hyper)),
    }
}

/// Copies a small piece, which would otherwise keep the whole buffer alive into which it was read.
fn unshared(frame: Frame<Bytes>) -> Frame<Bytes> {
    frame.map_data(|data| if data.len() > AHEAD_BYTES_MAX { data } else { Bytes::copy_from_slice(&data) })
}

/// Reads the rest of a response. Returns whether it came to its end.
async fn drain(mut incoming: Incoming) -> bool {
    let mut bytes = 0;
    while let Some(frame) = incoming.frame().await {
        let Ok(frame) = frame else { return false };
        bytes += length(&frame);
        if bytes > DRAIN_BYTES_MAX {
            return false;
        }
    }
    true
}
