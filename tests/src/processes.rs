//! The memory of a process and of those that it starts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::memory;

/// The processes that a process has started.
pub fn children(parent: u32) -> Vec<u32> {
    let pids =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.split_whitespace().eq(["PPid:", &parent.to_string()]))
    };
    pids.filter(is_child).collect()
}

/// The command line of a process; empty if it is gone.
fn command(pid: u32) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// Watches a process and those that it starts, until it is stopped.
pub struct Watch {
    end: Arc<AtomicBool>,
    most: Arc<Mutex<BTreeMap<u32, usize>>>,
    thread: thread::JoinHandle<()>,
}

impl Watch {
    pub fn begin(parent: u32) -> Self {
        let (end, most) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(BTreeMap::new())));
        let (ended, seen) = (end.clone(), most.clone());
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                // Until it runs its own program, a child shows the memory of its parent.
                for pid in children(parent).into_iter().filter(|pid| command(*pid) != command(parent)) {
                    let bytes = memory::highest_of(pid).unwrap_or_default();
                    let mut seen = seen.lock().unwrap();
                    seen.entry(pid).and_modify(|most: &mut usize| *most = bytes.max(*most)).or_insert(bytes);
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self { end, most, thread }
    }

    /// Whether it has seen one.
    pub fn has_seen_one(&self) -> bool {
        !self.most.lock().unwrap().is_empty()
    }

    /// The most memory that each of them had.
    pub fn end(self) -> BTreeMap<u32, usize> {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        std::mem::take(&mut *self.most.lock().unwrap())
    }
}
