//! The connections of one publisher: how many there may be, and those that wait for their next request.
//!
//! A request first waits for its turn. Each destination has a limited number of turns, so that a destination that never
//! answers leaves connections for the others. Then the request takes an idle connection, or makes one. Dropping a
//! connection closes it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use hyper::client::conn::http1::SendRequest;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::descriptors::{Descriptor, Share};
use super::destination::Destination;
use super::http_resend::SentBody;
use super::http_wire::BytesRead;

/// The most connections of a publisher that are open at once, in use or idle: each takes a file descriptor.
pub(super) const OPEN_MAX: usize = 256;
/// The most of them to one destination.
pub(super) const OPEN_TO_ONE_MAX: usize = 128;
/// An idle connection is closed after this time: servers close theirs after a minute or more.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);
/// A connection takes no request after this time, so that the destination's name is looked up again.
const AGE_MAX: Duration = Duration::from_secs(60);

/// How long connections are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) idle: Duration,
    pub(super) age: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { idle: IDLE_TIME_MAX, age: AGE_MAX }
    }
}

/// A task that ends when this is dropped.
pub(super) struct AbortOnDrop<T>(pub(super) JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection on which a request can be sent. Dropping it closes it, whatever is still under way.
pub(super) struct Connection {
    pub(super) sender: SendRequest<SentBody>,
    pub(super) read: BytesRead,
    pub(super) made: Instant,
    pub(super) _task: AbortOnDrop<()>,
}

/// Permission for one more request to a destination.
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
}

/// The connections of one publisher.
pub(super) struct Pool {
    lanes: Mutex<Lanes>,
    share: Arc<Share>,
    /// How many requests wait for a connection.
    waiting: AtomicUsize,
    times: Times,
}

#[derive(Default)]
struct Lanes {
    lanes: HashMap<Destination, Lane>,
    /// Whether a task closes connections that are idle for too long.
    swept: bool,
}

/// The connections to one destination.
struct Lane {
    turns: Arc<Semaphore>,
    idle: Vec<Idle>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Default for Lane {
    fn default() -> Self {
        Self { turns: Arc::new(Semaphore::new(OPEN_TO_ONE_MAX)), idle: Vec::new() }
    }
}

impl Lane {
    /// Whether nobody has or awaits a turn, and no connection is idle.
    fn is_unused(&self) -> bool {
        self.idle.is_empty() && Arc::strong_count(&self.turns) == 1
    }
}

impl Pool {
    pub(super) fn new(share: Arc<Share>, times: Times) -> Arc<Self> {
        Arc::new(Self { lanes: Mutex::default(), share, waiting: AtomicUsize::new(0), times })
    }

    /// Waits until one more request may be under way to `destination`.
    pub(super) async fn turn(&self, destination: &Destination) -> Option<Turn> {
        let turns = self.turns(destination);
        // None if the semaphore is closed, which never happens.
        turns.acquire_owned().await.ok().map(|permit| Turn { _permit: permit })
    }

    fn turns(&self, destination: &Destination) -> Arc<Semaphore> {
        let Lanes { lanes, .. } = &mut *self.lock();
        if !lanes.contains_key(destination) {
            lanes.retain(|_, lane| !lane.is_unused());
        }
        lanes.entry(destination.clone()).or_default().turns.clone()
    }

    /// The connection to `destination` that was used last, if one is open.
    pub(super) fn take(&self, destination: &Destination) -> Option<Connection> {
        let Lanes { lanes, .. } = &mut *self.lock();
        let idle = &mut lanes.get_mut(destination)?.idle;
        let usable = std::iter::from_fn(|| idle.pop()).find(|idle| self.is_usable(idle));
        usable.map(|idle| idle.connection)
    }

    /// Waits until one more connection is allowed. If need be, closes the connection that is idle for longest.
    pub(super) async fn descriptor(&self) -> Descriptor {
        if let Some(descriptor) = self.share.try_take() {
            return descriptor;
        }
        let _waits = Waits::new(&self.waiting);
        self.close_one();
        self.share.take().await
    }

    /// One more descriptor, for a connection that tries another address meanwhile. None if none is left.
    pub(super) fn spare_descriptor(&self) -> Option<Descriptor> {
        self.share.try_take()
    }

    fn close_one(&self) {
        let Lanes { lanes, .. } = &mut *self.lock();
        // The first connection of each lane is idle for longest.
        let idlest = lanes.values_mut().filter(|lane| !lane.idle.is_empty());
        let idlest = idlest.min_by_key(|lane| lane.idle.first().map(|idle| idle.since));
        idlest.into_iter().for_each(|lane| drop(lane.idle.remove(0)));
    }

    /// Keeps a connection, unless a request waits for a free descriptor.
    fn put(self: &Arc<Self>, destination: &Destination, connection: Connection) {
        let idle = Idle { connection, since: Instant::now() };
        if !self.is_usable(&idle) || self.waiting.load(Ordering::Acquire) > 0 {
            return;
        }
        let mut lanes = self.lock();
        lanes.lanes.entry(destination.clone()).or_default().idle.push(idle);
        if !lanes.swept {
            lanes.swept = true;
            tokio::spawn(sweep(Arc::downgrade(self), self.times));
        }
    }

    fn is_usable(&self, idle: &Idle) -> bool {
        let Times { idle: idle_max, age } = self.times;
        idle.connection.sender.is_ready() && idle.since.elapsed() < idle_max && idle.connection.made.elapsed() < age
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock()
    }
}

/// Closes connections that are idle for too long, until none is idle.
async fn sweep(pool: Weak<Pool>, times: Times) {
    let mut next = Instant::now() + times.idle;
    loop {
        sleep_until(next).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut lanes = pool.lock();
        for lane in lanes.lanes.values_mut() {
            lane.idle.retain(|idle| pool.is_usable(idle));
        }
        lanes.lanes.retain(|_, lane| !lane.is_unused());
        match lanes.lanes.values().filter_map(|lane| lane.idle.first()).map(|idle| idle.since).min() {
            Some(since) => next = since + times.idle,
            None => {
                lanes.swept = false;
                return;
            }
        }
    }
}

/// Counts a waiting request.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::AcqRel);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Where a connection goes when its response has been read. Dropping this closes it.
pub(super) struct Home {
    pub(super) connection: Connection,
    pub(super) turn: Turn,
    pub(super) pool: Arc<Pool>,
    pub(super) destination: Destination,
}

impl Home {
    /// Brings the connection back, as soon as the server has taken the whole request. A server that has answered, and
    /// then stops reading the request, has `patience` to go on.
    pub(super) fn bring(self, patience: Duration) {
        if self.connection.sender.is_ready() {
            return self.keep();
        }
        tokio::spawn(async move {
            let mut home = self;
            if matches!(timeout(patience, home.connection.sender.ready()).await, Ok(Ok(()))) {
                home.keep();
            }
        });
    }

    fn keep(self) {
        let Self { connection, turn, pool, destination } = self;
        pool.put(&destination, connection);
        // The request that gets the turn finds the connection.
        drop(turn);
    }
}
