//! Leaves SQLite's write lock free for others. The lock has no queue: a writer that finds it taken looks again later,
//! up to 100 ms later with SQLite's own handler. Beside a relay that takes the lock again at once, an application would
//! mostly find it taken.

use std::time::{Duration, Instant};

use rusqlite::Connection;

/// For this long after its last commit, another program counts as writing.
const PRESENT_TIME: Duration = Duration::from_millis(300);
/// Beside another writer, leave the lock free nine times as long as we held it: a first try finds it taken one time in
/// ten, a second one time in a hundred.
const FREE_TIMES: u32 = 9;
/// The longest time for which the lock stays free, however slow the disk is.
const FREE_TIME_MAX: Duration = Duration::from_millis(50);
/// Beside another writer, settle at most this many entries at once. This takes a fraction of a millisecond, so the lock
/// is free when SQLite's own handler first looks again.
const SETTLE_MAX: usize = 100;

/// Who has written lately: another program, and this relay.
#[derive(Debug, Default)]
pub(super) struct Turns {
    version: Option<i64>,
    other_seen: Option<Instant>,
    free_until: Option<Instant>,
}

impl Turns {
    /// How long to leave the lock to others. `settling_connection` takes the lock. `has_written` says whether this
    /// outbox itself may have committed something on another connection since the last call.
    pub(super) fn pause(&mut self, settling_connection: &Connection, has_written: bool) -> Duration {
        let now = Instant::now();
        // This number changes with every commit of another connection.
        let version = settling_connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut it| it.query_row([], |row| row.get(0)));
        let before = std::mem::replace(&mut self.version, version.ok());
        if before.is_some() && before != self.version && !has_written {
            self.other_seen = Some(now);
        }
        let until = self.free_until.filter(|_| self.is_other_present());
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now))
    }

    /// How many entries to settle at once.
    pub(super) fn settle_max(&self) -> usize {
        if self.is_other_present() { SETTLE_MAX } else { usize::MAX }
    }

    /// Whether another program writes.
    pub(super) fn is_other_present(&self) -> bool {
        self.other_seen.is_some_and(|at| at.elapsed() < PRESENT_TIME)
    }

    /// Notes that this relay held the lock for this time, until now.
    pub(super) fn taken(&mut self, time: Duration) {
        self.free_until = Some(Instant::now() + (time * FREE_TIMES).min(FREE_TIME_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_is_left_free_beside_another_writer_and_only_there() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Connection::open(folder.path().join("app.db")).unwrap();
        let (writer, other) = (open(), open());
        writer.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE rows (it)").unwrap();
        let mut write_lock = Turns::default();
        write_lock.pause(&writer, false);
        writer.execute_batch("INSERT INTO rows VALUES (1)").unwrap();
        write_lock.taken(Duration::from_secs(1));
        assert_eq!((write_lock.pause(&writer, false), write_lock.settle_max()), (Duration::ZERO, usize::MAX));

        other.execute_batch("INSERT INTO rows VALUES (2)").unwrap();
        let pause = write_lock.pause(&writer, false);
        assert!(pause > Duration::ZERO && pause <= FREE_TIME_MAX, "{pause:?}");
        assert_eq!(write_lock.settle_max(), SETTLE_MAX);
        write_lock.taken(Duration::ZERO);
        assert_eq!(write_lock.pause(&writer, false), Duration::ZERO);
    }

    #[test]
    fn what_the_outbox_itself_writes_on_another_connection_is_no_other_writer() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Connection::open(folder.path().join("app.db")).unwrap();
        let (settling_connection, writer) = (open(), open());
        settling_connection.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE rows (it)").unwrap();
        let mut write_lock = Turns::default();
        write_lock.pause(&settling_connection, false);
        for has_written in [true, false] {
            writer.execute_batch("INSERT INTO rows VALUES (1)").unwrap();
            write_lock.pause(&settling_connection, has_written);
            assert_eq!(write_lock.is_other_present(), !has_written);
        }
    }
}
