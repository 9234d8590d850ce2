//! How a storage is read: in the order of positions, or in turns of tenants.

use std::time::Instant;

use super::fair::FairCursor;
use super::{Cursor, ReadTenants};
use crate::outbox::StorageError;
use crate::outbox::drain::{Page, PageBounds, Shares, Wanted};

/// The place of the reader: one for all entries, or one for each tenant.
#[derive(Debug)]
pub enum Reading {
    /// In the order of positions.
    InOrder(Cursor),
    /// In turns of tenants.
    InTurns(FairCursor),
}

impl Reading {
    /// At the start of an outbox that has this generation, in the order of positions.
    pub fn new(generation: u64, now: Instant) -> Self {
        Self::InOrder(Cursor::new(generation, now))
    }

    /// See [`Drain::take_turns`](crate::outbox::Drain::take_turns).
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn take_turns(&mut self, storage: &impl ReadTenants, begin: f64, now: Instant) -> Result<bool, StorageError> {
        let can = storage.knows_tenants()?;
        match (&self, can) {
            (Self::InOrder(_), true) => *self = Self::InTurns(FairCursor::new(storage.generation()?, begin, now)),
            (Self::InTurns(_), false) => *self = Self::InOrder(Cursor::new(storage.generation()?, now)),
            _ => {}
        }
        Ok(can)
    }

    /// See [`Drain::next_page_in_turns`](crate::outbox::Drain::next_page_in_turns).
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn next_page(
        &mut self,
        storage: &impl ReadTenants,
        bounds: PageBounds,
        shares: Shares<'_>,
        wanted: Wanted<'_>,
    ) -> Result<Page, StorageError> {
        match self {
            Self::InOrder(cursor) => cursor.next_page(storage, bounds, wanted),
            Self::InTurns(cursor) => cursor.next_page(storage, bounds, shares, wanted),
        }
    }

    /// See [`Drain::look_back`](crate::outbox::Drain::look_back).
    ///
    /// # Errors
    ///
    /// [`StorageError`].
    pub fn look_back(
        &mut self,
        storage: &impl ReadTenants,
        bounds: PageBounds,
        now: Instant,
        wanted: Wanted<'_>,
    ) -> Result<Page, StorageError> {
        match self {
            Self::InOrder(cursor) => cursor.look_back(storage, bounds, now, wanted),
            Self::InTurns(cursor) => cursor.look_back(storage, bounds, now, wanted),
        }
    }

    /// See [`Drain::look_back_at`](crate::outbox::Drain::look_back_at).
    pub fn look_back_at(&self) -> Instant {
        match self {
            Self::InOrder(cursor) => cursor.look_back_at(),
            Self::InTurns(cursor) => cursor.look_back_at(),
        }
    }

    /// See [`Drain::rewind`](crate::outbox::Drain::rewind).
    pub fn rewind(&mut self, position: i64) {
        match self {
            Self::InOrder(cursor) => cursor.rewind(position),
            Self::InTurns(cursor) => cursor.rewind(position),
        }
    }

    /// See [`Drain::changed`](crate::outbox::Drain::changed).
    pub fn changed(&mut self, knows_nothing: bool) {
        match self {
            Self::InOrder(cursor) => cursor.changed(knows_nothing),
            Self::InTurns(cursor) => cursor.changed(knows_nothing),
        }
    }

    /// See [`Drain::must_reload`](crate::outbox::Drain::must_reload).
    pub fn must_reload(&mut self, generation: u64) -> bool {
        match self {
            Self::InOrder(cursor) => cursor.must_reload(generation),
            Self::InTurns(cursor) => cursor.must_reload(generation),
        }
    }
}
