//! How much memory a process has.

use std::fs;

/// A mebibyte.
pub const MIB: usize = 1 << 20;

/// What this process has in memory now, in bytes.
///
/// # Panics
///
/// If the system has no `/proc`.
pub fn resident() -> usize {
    figure("self", "VmRSS:").unwrap()
}

/// The most that this process has had in memory so far, in bytes.
///
/// # Panics
///
/// If the system has no `/proc`.
pub fn highest() -> usize {
    figure("self", "VmHWM:").unwrap()
}

/// The same of another process; None if it has ended.
pub fn resident_of(pid: u32) -> Option<usize> {
    figure(&pid.to_string(), "VmRSS:")
}

/// The same of another process; None if it has ended.
pub fn highest_of(pid: u32) -> Option<usize> {
    figure(&pid.to_string(), "VmHWM:")
}

fn figure(process: &str, name: &str) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}
