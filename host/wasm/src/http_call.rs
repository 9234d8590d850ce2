//! The use and the denials of the requests of one call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};

use outbox_engine::text::shown;
use parking_lot::Mutex;

use super::address::AddressClass;
use super::secrets::Redactor;
use super::text::bounded;

/// How many denials of one call are reported; more would say nothing new.
const NOTES_MAX: usize = 3;

/// How long such a report may be: the guest chooses the host in it.
const NOTE_CHARS_MAX: usize = 500;

/// What the requests of one instance share: the use of the current call, and its denials.
#[derive(Default)]
pub(super) struct HttpCall {
    pub(super) requests: AtomicU32,
    pub(super) response_bytes: AtomicU64,
    /// The bytes of requests that are under way.
    pub(super) on_the_way: Arc<AtomicUsize>,
    pub(super) notes: Mutex<Vec<String>>,
    pub(super) abandoned: AtomicBool,
    pub(super) redactor: Redactor,
}

impl HttpCall {
    /// Notes a denial for the operator, in the log and in the attempt's reason. If a guest tries many things, only the
    /// first few are noted.
    pub(super) fn note(&self, publisher: &str, note: String) {
        let note = bounded(self.redactor.redacted(note), NOTE_CHARS_MAX);
        let mut notes = self.notes.lock();
        if notes.len() < NOTES_MAX && !notes.contains(&note) {
            tracing::warn!(target: "outbox::guest", publisher, "{}", shown(&note));
            notes.push(note);
        }
    }

    pub(super) fn note_address(&self, publisher: &str, request: &str, class: AddressClass) {
        let remedy = "allow_private = true";
        self.note(publisher, format!("denied: {request}, which resolves to {class} — to allow it: {remedy}"));
    }
}
