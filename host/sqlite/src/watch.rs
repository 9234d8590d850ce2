//! Notices what other processes commit: by the kernel's notices of writes to the WAL, and by looking.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::beside;

/// How long to keep looking after a notice: a notice may come before its commit can be seen.
const SETTLE_TIME: Duration = Duration::from_millis(20);
/// The first pause between two such looks; each is twice as long as the one before, up to the second number.
const LOOK_PAUSE: (Duration, Duration) = (Duration::from_micros(20), Duration::from_micros(500));

/// Watches the WAL of a database.
pub(super) struct WalWatch {
    connection: Connection,
    seen: Option<i64>,
    notices: notices::Notices,
}

impl WalWatch {
    pub(super) fn new(connection: Connection, database: &Path) -> Self {
        let mut watch =
            Self { connection, seen: None, notices: notices::Notices::new(beside::path(database, beside::WAL)) };
        watch.seen = watch.version();
        watch
    }

    /// This number changes with every commit of another connection.
    fn version(&self) -> Option<i64> {
        self.connection.prepare_cached("PRAGMA data_version").ok()?.query_row([], |row| row.get(0)).ok()
    }

    fn changed(&mut self) -> bool {
        let version = self.version();
        version != std::mem::replace(&mut self.seen, version)
    }

    fn changed_soon(&mut self) -> bool {
        let until = Instant::now() + SETTLE_TIME;
        let mut pause = LOOK_PAUSE.0;
        loop {
            if self.changed() {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LOOK_PAUSE.1);
        }
    }
}

impl outbox_engine::outbox::Watch for WalWatch {
    fn wait(&mut self, patience: Duration) -> bool {
        if self.changed() {
            return true;
        }
        // Without a notice the next call looks first: looking costs more than anything else that an idle relay does.
        self.notices.wait(patience) && self.changed_soon()
    }
}

#[cfg(target_os = "linux")]
mod notices {
    use outbox_engine::text::shown;
    use std::mem::MaybeUninit;
    use std::os::fd::OwnedFd;
    use std::path::PathBuf;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};

    /// The kernel's notices of writes to a file.
    pub(super) struct Notices {
        path: PathBuf,
        inotify: Option<OwnedFd>,
        watching: bool,
    }

    impl Notices {
        pub(super) fn new(path: PathBuf) -> Self {
            let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
            if let Err(error) = &inotify {
                tracing::warn!("no notices of changed files here ({}): looking for new entries instead", shown(error));
            }
            let mut notices = Self { path, inotify: inotify.ok(), watching: false };
            notices.watch();
            notices
        }

        /// Starts to watch the file. The WAL may be made again; after waiting in vain, the caller tries again.
        fn watch(&mut self) {
            let flags = WatchFlags::MODIFY | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
            self.watching = self.inotify.as_ref().is_some_and(|it| add_watch(it, &self.path, flags).is_ok());
        }

        /// Waits for a notice, at most for `patience`.
        pub(super) fn wait(&mut self, patience: Duration) -> bool {
            if !self.watching {
                self.watch();
            }
            let Some(inotify) = self.inotify.as_ref().filter(|_| self.watching) else {
                std::thread::sleep(patience.min(super::super::watch::LOOK_PAUSE.1 * 4));
                return false;
            };
            let timeout =
                Timespec { tv_sec: patience.as_secs().cast_signed(), tv_nsec: patience.subsec_nanos().into() };
            let noticed = poll(&mut [PollFd::new(inotify, PollFlags::IN)], Some(&timeout)).is_ok_and(|ready| ready > 0);
            if noticed {
                self.drain();
            }
            noticed
        }

        fn drain(&mut self) {
            let Some(inotify) = &self.inotify else { return };
            let mut buffer = [MaybeUninit::uninit(); 4_096];
            let mut reader = Reader::new(inotify, &mut buffer);
            let mut gone = false;
            while let Ok(event) = reader.next() {
                gone |= event.events().intersects(ReadFlags::IGNORED | ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF);
            }
            if gone {
                self.watch();
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod notices {
    use std::path::PathBuf;
    use std::time::Duration;

    /// No notices on this system: the caller looks every few milliseconds.
    pub(super) struct Notices;

    impl Notices {
        pub(super) fn new(_: PathBuf) -> Self {
            Self
        }

        pub(super) fn wait(&mut self, patience: Duration) -> bool {
            std::thread::sleep(patience.min(Duration::from_millis(2)));
            false
        }
    }
}
