//! The processes of a test.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::now_ns;
use crate::waiting::until;

/// A process; killed when it is dropped.
pub struct Process {
    /// Its name in this test.
    pub name: String,
    child: Child,
}

impl Process {
    pub fn start(name: &str, command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { name: name.into(), child }
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGKILL; says when. The process has to be alive: a relay that ends by itself is an error that a kill would hide.
    pub fn kill(&mut self) -> u64 {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "{} ended by itself: {ended:?}", self.name);
        let at_ns = now_ns();
        self.signal(Signal::KILL);
        assert_eq!(self.wait().signal(), Some(Signal::KILL.as_raw()), "{}", self.name);
        at_ns
    }

    /// Waits until the process has killed itself.
    pub fn wait_for_its_death(&mut self) {
        assert_eq!(self.wait().signal(), Some(Signal::KILL.as_raw()), "{}", self.name);
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until(&format!("{} ends", self.name), || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Closes its standard input, on which the programs of these tests end in order.
    pub fn end(mut self) {
        drop(self.child.stdin.take());
        let status = self.wait();
        assert!(status.success(), "{}: {status}", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
