//! The command line of the outbox.
fn main() {}
