//! The right to drain: one row for each relay, which it keeps alive, and which others remove when it died.
//!
//! Only the database's clock counts in the row. A relay's own deadline counts from before its heartbeat was sent, on a clock
//! that goes on while the machine sleeps: so it is never later than the row's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use outbox_engine::StorageError;
use outbox_engine::text::shown;
use parking_lot::Mutex;
use uuid::Uuid;

use super::PostgresOutbox;
use super::error::Fault;
use super::link::{Link, Purpose};
use super::page::SHARES;
use super::value::Time;

/// A heartbeat is sent this many times within the life of a lease.
const BEATS: u32 = 4;
/// The pause after a heartbeat that failed.
const BEAT_PAUSE: Duration = Duration::from_millis(100);
/// How often a relay looks whether the connection of its heartbeat is still there.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// For how long a relay's connection must have been gone before its lease is taken: it may be about to connect again.
const GONE_MIN: Duration = Duration::from_secs(1);
/// How often to look while such a relay is waited for.
const GONE_PAUSE: Duration = Duration::from_millis(50);

/// The most characters of a host's name.
const HOST_CHARS_MAX: usize = 100;

const REGISTER: &str = "
    INSERT INTO outbox_relay (id, name, ttl, expires_at, presence)
    VALUES ($1, $2, $3 * interval '1 millisecond', clock_timestamp() + $3 * interval '1 millisecond', $4)";
const CLAIM: &str = "
    WITH free AS (SELECT share FROM outbox_share WHERE relay IS NULL ORDER BY share FOR UPDATE)
    UPDATE outbox_share s SET relay = $1, taken = taken + 1, unclean = true FROM free
    WHERE s.share = free.share AND s.relay IS NULL";
const HEARTBEAT: &str = "UPDATE outbox_relay SET expires_at = clock_timestamp() + ttl WHERE id = $1";
const PRESENT: &str = "SELECT pg_try_advisory_lock($1)";
const RELEASE: &str = "UPDATE outbox_share SET relay = NULL, unclean = false WHERE relay = $1";
const LEAVE: &str = "DELETE FROM outbox_relay WHERE id = $1";
/// This waits for a settlement of the relay's that is under way.
const REAP: &str = "DELETE FROM outbox_relay WHERE id = $1 AND expires_at = $2";
const HOLDER: &str = "
    SELECT r.id, r.name, r.expires_at, r.expires_at < clock_timestamp(), (extract(epoch FROM r.ttl) * 1000)::bigint,
           NOT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1
                       AND classid = ((r.presence >> 32) & 4294967295)::oid AND objid = (r.presence & 4294967295)::oid
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
    FROM outbox_relay r WHERE r.id = (SELECT relay FROM outbox_share WHERE relay IS NOT NULL LIMIT 1)";

/// What another relay was seen to do.
pub(super) struct Observed {
    relay: Uuid,
    expires_at: Time,
    since: Instant,
    /// Since when its connection is gone.
    gone_since: Option<Instant>,
    /// The connection over which this was seen: after an outage, it counts anew.
    made: u64,
}

/// A lease of all shares.
pub(super) struct Lease<'a> {
    outbox: &'a PostgresOutbox,
    relay: Uuid,
    beats: Arc<Beats>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct Beats {
    lost: AtomicBool,
    /// On the clock of [`boot_ms`].
    deadline_ms: AtomicI64,
}

/// Milliseconds since the machine started, those included in which it slept.
fn boot_ms() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec.saturating_mul(1_000).saturating_add(now.tv_nsec / 1_000_000)
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl<'a> Lease<'a> {
    pub(super) fn take(outbox: &'a PostgresOutbox) -> Result<Self, StorageError> {
        let failed = outbox.error("take the lease of the outbox");
        while let Some(wait) = wait_for_holder(outbox).map_err(failed)? {
            std::thread::sleep(wait);
        }
        let relay = Uuid::new_v4();
        let presence = i64::from_be_bytes(relay.as_bytes().first_chunk().copied().unwrap_or_default());
        let mut link = outbox.link(Purpose::Watching);
        link.query(PRESENT, &[&presence]).map_err(failed)?;
        let sent_ms = boot_ms();
        let (name, ttl_ms) = (name(), milliseconds(outbox.options.lease));
        let claimed = outbox.acting().transaction(|link| {
            link.execute(REGISTER, &[&relay, &name, &(ttl_ms as f64), &presence])?;
            if link.execute(CLAIM, &[&relay])? < SHARES.len() as u64 {
                return Err(Fault::Storage(StorageError::Leased { by: "another relay".into() }));
            }
            Ok(())
        });
        claimed.map_err(failed)?;
        let deadline_ms = AtomicI64::new(sent_ms.saturating_add(ttl_ms));
        let beats = Arc::new(Beats { lost: AtomicBool::new(false), deadline_ms });
        let (stop, stopped) = channel();
        let heart = Heart { link, relay, presence, ttl: outbox.options.lease, beats: Arc::clone(&beats) };
        let thread = std::thread::Builder::new().name("outbox-lease".into()).spawn(move || heart.beat(&stopped));
        // Without a heartbeat, this gives the lease back at once.
        let mut lease = Self { outbox, relay, beats, stop: Some(stop), thread: None };
        let thread = thread.map_err(|error| StorageError::Other { doing: "start a thread", cause: Box::new(error) })?;
        lease.thread = Some(thread);
        Ok(lease)
    }

    pub(super) fn relay(&self) -> Uuid {
        self.relay
    }

    /// Whether the lease is still this relay's, as far as it knows.
    pub(super) fn check(&self) -> Result<(), StorageError> {
        if self.beats.lost.load(Ordering::Relaxed) {
            return Err(lost());
        }
        if boot_ms() >= self.beats.deadline_ms.load(Ordering::Relaxed) {
            let reason = "the lease of the outbox ran out: the database did not answer in time";
            return Err(StorageError::Replaced(reason.into()));
        }
        Ok(())
    }
}

/// The error of a relay whose row is gone.
pub(super) fn lost() -> StorageError {
    StorageError::Replaced("another relay has taken over the outbox, since this one seemed to be dead".into())
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.stop = None;
        let _ = self.thread.take().map(JoinHandle::join);
        let released = self.outbox.acting().transaction(|link| {
            link.execute(RELEASE, &[&self.relay])?;
            link.execute(LEAVE, &[&self.relay])
        });
        if let Err(fault) = released {
            let fault: Fault = fault;
            tracing::warn!(
                "the lease of the outbox is not given back: another relay takes it later: {}",
                shown(fault.text())
            );
        }
    }
}

/// How others know this relay.
fn name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().take(HOST_CHARS_MAX).collect();
    format!("{} (process {})", if host.is_empty() { "another machine" } else { &host }, std::process::id())
}

/// Keeps a lease alive.
struct Heart {
    link: Link,
    relay: Uuid,
    presence: i64,
    ttl: Duration,
    beats: Arc<Beats>,
}

impl Heart {
    fn beat(mut self, stopped: &Receiver<()>) {
        let (every, mut made) = (self.ttl / BEATS, self.link.made());
        let (mut beat_at, mut pause) = (Instant::now() + every, LOOK_PAUSE.min(every));
        while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            let is_due = Instant::now() >= beat_at;
            // Between heartbeats it sees whether the connection is there: others see it too.
            let alive = if is_due { self.send() } else { self.link.query("SELECT 1", &[]).map(|_| true) };
            (beat_at, pause) = match alive {
                Ok(false) => {
                    self.beats.lost.store(true, Ordering::Relaxed);
                    return;
                }
                Ok(true) if is_due => (Instant::now() + every, LOOK_PAUSE.min(every)),
                Ok(true) => (beat_at, LOOK_PAUSE.min(every)),
                Err(fault) => {
                    tracing::debug!("a heartbeat failed: {}", shown(fault.text()));
                    (Instant::now(), BEAT_PAUSE.min(every))
                }
            };
            if self.link.made() != made && self.link.query(PRESENT, &[&self.presence]).is_ok() {
                made = self.link.made();
            }
        }
    }

    /// Returns whether the lease is still there.
    fn send(&mut self) -> Result<bool, Fault> {
        let sent_ms = boot_ms();
        if self.link.execute(HEARTBEAT, &[&self.relay])? == 0 {
            return Ok(false);
        }
        let deadline_ms = sent_ms.saturating_add(milliseconds(self.ttl));
        self.beats.deadline_ms.store(deadline_ms, Ordering::Relaxed);
        Ok(true)
    }
}

/// How long to wait before the shares are looked at again. None if they can be taken now.
fn wait_for_holder(outbox: &PostgresOutbox) -> Result<Option<Duration>, Fault> {
    let mut link = outbox.acting();
    let Some(row) = link.first(HOLDER, &[])? else { return Ok(None) };
    let (relay, name, expires_at): (Uuid, String, Time) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let (is_expired, ttl_ms, is_gone): (bool, i64, bool) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
    let (now, made) = (Instant::now(), link.made());
    let mut observed = outbox.observed.lock();
    let before = observed.take().filter(|it| it.relay == relay && it.made == made);
    let fresh = || Observed { relay, expires_at, since: now, gone_since: is_gone.then_some(now), made };
    let seen = match before {
        Some(before) if before.expires_at == expires_at => {
            Observed { gone_since: is_gone.then_some(before.gone_since.unwrap_or(now)), ..before }
        }
        _ => fresh(),
    };
    let ttl = Duration::from_millis(ttl_ms.unsigned_abs());
    let is_dead = is_expired && now.duration_since(seen.since) >= ttl;
    let has_left = seen.gone_since.is_some_and(|since| now.duration_since(since) >= GONE_MIN);
    let waits = seen.gone_since.is_some();
    *observed = Some(seen);
    drop(observed);
    if is_dead || has_left {
        tracing::info!("taking over from {}", shown(&name));
        link.execute(REAP, &[&relay, &expires_at])?;
        return Ok(Some(Duration::ZERO));
    }
    if waits {
        return Ok(Some(GONE_PAUSE));
    }
    Err(StorageError::Leased { by: format!("a relay on {name}") }.into())
}

/// Where the last observation is kept.
pub(super) type Observation = Mutex<Option<Observed>>;
