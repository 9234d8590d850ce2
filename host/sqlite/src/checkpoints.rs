//! Makes checkpoints, which move what commits have written to the WAL into the database file. They run beside the
//! commits, on a thread of their own, so that no commit waits for the disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use super::connection;
use super::doubt::Doubt;

/// After this many more pages, a checkpoint beside the commits moves the WAL's pages.
const BESIDE_PAGES: u32 = 250;
/// When the WAL has this many pages, the settling connection moves the last of them itself after its commit, so that
/// the next commit can begin the WAL anew. This is more than SQLite's 1,000, since a relay's commits touch the same
/// pages again and again: 4,000 pages are 16 MB.
const ANEW_PAGES: u32 = 4_000;
/// The same beside another program that writes. From 1,000 pages on, that program's own connection would move the
/// relay's pages within its commits; this comes before it.
const ANEW_PAGES_BESIDE_WRITER: u32 = 500;

/// The checkpoints of the connection that settles.
pub(super) struct Checkpoints {
    path: PathBuf,
    busy_patience: Duration,
    /// How many pages the WAL had after the last commit.
    pages: Arc<AtomicU32>,
    /// How many of them are moved, or are being moved.
    moved: u32,
    beside: Option<Beside>,
    doubt: Doubt,
}

impl Checkpoints {
    /// Takes over the checkpoints from SQLite, which would make them within the commits of `settling_connection`.
    pub(super) fn of(
        settling_connection: &mut Connection,
        path: PathBuf,
        busy_patience: Duration,
        doubt: Doubt,
    ) -> rusqlite::Result<Self> {
        let pages = Arc::new(AtomicU32::new(0));
        let told = pages.clone();
        settling_connection.wal_hook(Some(move |_: &mut Wal, pages| {
            told.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self { path, busy_patience, pages, moved: 0, beside: None, doubt })
    }

    /// To be called after a commit of `settling_connection`. While the disk's WAL may be incomplete, nothing is moved:
    /// after a power cut, newer pages in the database and older pages in the WAL would make a mixture.
    pub(super) fn committed(&mut self, settling_connection: &Connection, is_other_present: bool) {
        if self.doubt.raised().is_some() {
            return;
        }
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.moved {
            self.moved = 0;
        }
        let anew = if is_other_present { ANEW_PAGES_BESIDE_WRITER } else { ANEW_PAGES };
        if is_other_present && pages >= ANEW_PAGES {
            self.beside().ask(Ask::BeginAnew);
        } else if pages >= anew {
            // Does nothing while the other thread makes a checkpoint.
            checkpoint(settling_connection, Ask::Move, &self.doubt);
        } else if pages - self.moved >= BESIDE_PAGES {
            self.moved = pages;
            self.beside().ask(Ask::Move);
        }
    }

    fn beside(&mut self) -> &Beside {
        let (path, doubt) = (&self.path, &self.doubt);
        self.beside.get_or_insert_with(|| Beside::start(path.clone(), self.busy_patience, doubt.clone()))
    }
}

/// What a checkpoint does.
#[derive(Debug, Clone, Copy)]
enum Ask {
    /// Moves the pages that no reader needs in their old places, and keeps nobody from writing.
    Move,
    /// Moves the last pages too, so that the next commit begins the WAL anew. If another program commits all the time,
    /// it has to be kept from writing meanwhile, or there is always another page. Most pages are moved and synced
    /// before that.
    BeginAnew,
}

/// Makes a checkpoint. It waits for nobody if `connection` does not. A failure loses nothing: another checkpoint
/// follows.
fn checkpoint(connection: &Connection, ask: Ask, doubt: &Doubt) {
    let modes: &[&str] = match ask {
        Ask::Move => &["PRAGMA wal_checkpoint(PASSIVE)"],
        Ask::BeginAnew => &["PRAGMA wal_checkpoint(PASSIVE)", "PRAGMA wal_checkpoint(RESTART)"],
    };
    let done = modes.iter().try_for_each(|mode| connection.prepare_cached(mode)?.query_row([], |_| Ok(())));
    let _ = done.inspect_err(|error| doubt.note(error));
}

/// The thread, with a connection of its own.
struct Beside {
    asks: Option<SyncSender<Ask>>,
    thread: Option<JoinHandle<()>>,
}

impl Beside {
    fn start(path: PathBuf, busy_patience: Duration, doubt: Doubt) -> Self {
        let (asks, asked) = sync_channel(1);
        let thread = thread::Builder::new().name("outbox-checkpoint".into()).spawn(move || {
            let opened = connection::open(&path, busy_patience);
            // Without a connection, the commits make the checkpoints.
            let Ok(connection) = opened else { return };
            // To begin the WAL anew, a checkpoint takes the write lock. It must not wait for readers while it holds the
            // lock.
            if connection.busy_timeout(Duration::ZERO).is_ok() {
                asked.into_iter().for_each(|ask| checkpoint(&connection, ask, &doubt));
            }
        });
        Self { asks: Some(asks), thread: thread.ok() }
    }

    fn ask(&self, ask: Ask) {
        if let Some(asks) = &self.asks {
            let _ = asks.try_send(ask);
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.asks = None;
        self.thread.take().map(JoinHandle::join);
    }
}
