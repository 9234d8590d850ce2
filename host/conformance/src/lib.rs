//! Checks that every storage of an outbox must pass.
//!
//! Implement [`TestStorage`] for a type that makes and opens outboxes of your storage. [`exercise`] runs every check, each on
//! a new outbox; [`conformance_tests!`] makes a test of each.
//!
//! ```
//! use outbox_conformance::TestStorage;
//! use outbox_engine::{MemoryOutbox, Row};
//!
//! struct Memory(MemoryOutbox);
//!
//! impl TestStorage for Memory {
//!     type Strategy = MemoryOutbox;
//!
//!     fn new() -> Self {
//!         Self(MemoryOutbox::default())
//!     }
//!
//!     fn open(&self) -> MemoryOutbox {
//!         self.0.clone()
//!     }
//!
//!     fn insert(&self, row: Row<'_>) -> i64 {
//!         self.0.append_raw(&row)
//!     }
//! }
//!
//! outbox_conformance::exercise::<Memory>();
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "checks are for tests, which end with the first panic"
)]

use std::panic::resume_unwind;
use std::thread;

use outbox_engine::{OutboxStorageStrategy, Row};

#[doc(hidden)]
pub mod dead_letters;
#[doc(hidden)]
pub mod delays;
#[doc(hidden)]
pub mod deployment_helpers;
#[doc(hidden)]
pub mod drain;
#[doc(hidden)]
pub mod entries;
#[doc(hidden)]
pub mod helpers;
#[doc(hidden)]
pub mod transitions;
#[doc(hidden)]
pub mod turns;
#[doc(hidden)]
pub mod versions;

/// A storage under test. Dropping it may delete what it made.
pub trait TestStorage {
    /// Its strategy.
    type Strategy: OutboxStorageStrategy + 'static;

    /// Whether a row of it can contain anything: not if its columns have types.
    const TAKES_ANYTHING: bool = true;

    /// Whether appends are committed one after the other, so that positions are in the order of commits.
    const ONE_BY_ONE: bool = true;

    /// Whether it can be had here. If not, its tests do nothing.
    fn is_there() -> bool {
        true
    }

    /// Makes an empty outbox, which no other test knows.
    fn new() -> Self;

    /// Opens the outbox once more: as another process would, if that is possible.
    fn open(&self) -> Self::Strategy;

    /// Inserts a row as a foreign program might, with anything in it, and returns its position.
    fn insert(&self, row: Row<'_>) -> i64;

    /// Replaces the outbox's table, if it has constraints or types, by one without: an application may have made its
    /// table itself.
    fn loosen(&self) {}

    /// Makes whatever the storage needs to be read in turns of tenants.
    fn index_tenants(&self) {}
}

/// Lists every check, by its module.
macro_rules! checks {
    (($dollar:tt) $($module:ident: $($check:ident)*;)*) => {
        /// Makes a test of each check. Call it in a module of its own.
        ///
        /// ```ignore
        /// mod postgres {
        ///     outbox_conformance::conformance_tests!(super::Postgres);
        /// }
        /// ```
        #[macro_export]
        macro_rules! conformance_tests {
            ($dollar storage:ty) => {
                $($(
                    #[test]
                    fn $check() {
                        if <$dollar storage as $dollar crate::TestStorage>::is_there() {
                            $dollar crate::$module::$check(&<$dollar storage as $dollar crate::TestStorage>::new());
                        }
                    }
                )*)*
            };
        }

        fn each<S: TestStorage>(mut run: impl FnMut(&'static str, fn(&S))) {
            $($(run(stringify!($check), $module::$check::<S>);)*)*
        }
    };
}

checks! { ($)
    entries:
        what_was_appended_comes_out_whole_and_in_order
        positions_are_never_given_twice
        an_append_is_all_or_nothing
        an_append_is_seen_whole_or_not_at_all_beside_others
        only_what_is_wanted_is_read_and_within_bounds
        a_pass_in_total_order_takes_entries_by_their_positions
        what_appears_behind_the_reader_is_found
        entries_are_read_by_their_positions
        what_was_delivered_leaves_for_good
        what_failed_stays_and_is_held_with_its_attempts;
    dead_letters:
        a_dead_letter_is_kept_whole
        any_row_survives_its_death
        bytes_that_are_text_are_shown_as_text
        dead_letters_are_found_by_what_they_are
        a_retried_dead_letter_is_back_in_its_place
        a_discarded_dead_letter_is_gone_and_on_record
        an_edited_dead_letter_has_the_new_data_and_the_old_is_on_record
        a_parked_stream_is_held_until_its_dead_letter_is_settled
        old_records_are_pruned_in_batches;
    delays:
        what_is_put_off_is_nowhere_until_it_is_brought_back
        what_is_brought_back_is_the_same_entry
        what_is_due_comes_back_in_parts_the_earliest_first
        only_the_entry_that_is_meant_is_put_off;
    drain:
        one_relay_drains_a_share_and_that_ends
        calls_under_way_outlive_their_relay
        a_watch_notices_what_another_does
        the_relays_state_is_shown_while_it_drains;
    turns:
        pages_come_in_turns_of_tenants
        a_tenant_without_room_keeps_its_place
        what_appears_behind_the_reader_is_found_in_turns_too
        many_new_entries_of_many_tenants_are_read_in_turns
        the_spellings_of_a_tenant_are_read_together;
    versions:
        a_new_version_is_kept_whole_and_asked_for
        a_later_request_supersedes_an_earlier_one
        the_same_bytes_as_the_active_ones_are_no_new_version
        each_content_is_kept_once_and_goes_with_its_last_version
        an_activated_version_takes_the_place_of_the_active_one
        a_canary_stands_beside_the_active_version
        a_canary_needs_an_active_version_beside_it
        a_rollback_withdraws_what_is_asked_for_then_the_canary_then_goes_back
        a_rollback_to_a_version_asks_for_it_again
        a_rollback_to_the_active_version_withdraws_everything_else
        what_is_wanted_is_not_removed_alone
        no_number_is_given_twice
        what_cannot_be_deployed_is_refused_with_a_reason
        a_canary_may_become_active;
    transitions:
        activations_that_do_not_end_are_counted
        a_transition_that_comes_too_late_changes_nothing
        a_withdrawn_canary_gives_its_attempts_back
        attempts_are_given_back_once
        counts_add_up_and_tell_nobody
        every_change_is_noticed
        operators_acts_are_on_record
        several_deploy_at_once;
}

/// Runs every check, each on a new outbox and on a thread that is named like it.
///
/// # Panics
///
/// If a check does not hold: the message names the thread, and so the check.
pub fn exercise<S: TestStorage>() {
    each::<S>(|name, check| {
        thread::scope(|scope| {
            let thread = thread::Builder::new().name(name.into()).spawn_scoped(scope, || check(&S::new()));
            thread.unwrap().join().unwrap_or_else(|panic| resume_unwind(panic));
        });
    });
}
