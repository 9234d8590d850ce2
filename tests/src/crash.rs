//! The crash harness: real processes, real SIGKILL, and a witness that survives.
//!
//! A writer commits events in transactions of its own and notes in a [`journal`] what it committed. Relays deliver them
//! to the sink, one after the other, and each is killed: the program `outbox` at a random instant, and `crash-relay`, the
//! same relay in a process that kills itself at a named [`point`] of its work. What the sink's [`ledger`] says is then
//! held against the journal and the database: by [`lives`] after each death, and by the [`verdict`] at the end.

pub mod arena;
pub mod death;
pub mod doomed;
pub mod journal;
pub mod ledger;
pub mod lives;
pub mod point;
pub mod process;
pub mod verdict;
