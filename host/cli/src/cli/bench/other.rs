//! The other process of a scenario: this program again, in another role, which `bench.rs` has it play.

use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rustix::time::{ClockId, clock_gettime};

use super::bed::Bed;

/// What the other process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Commits an entry now and then.
    Wake,
    /// Commits 1,000 entries a second.
    Write,
    /// Answers HTTP requests.
    Serve,
    /// Drains, and reports how much memory that took.
    Drain,
    /// Starts instances, and reports how much memory each takes.
    Instances,
}

/// The other process, beside this one; killed when it is dropped.
pub struct Other {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Other {
    pub fn start(bed: &Bed, part: Part, db: Option<&Path>, entries: usize) -> Result<Self> {
        let name = part.to_possible_value().context("no such part")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "--part", name.get_name(), "--publisher"]).arg(&bed.publisher);
        command.args(["--entries", &entries.to_string(), "--wakes", &bed.wakes.to_string()]);
        // The folder for compiled code: without it, this process would compile, which takes more memory than a drain.
        command.arg("--folder").arg(bed.path("cache"));
        if let Some(waits) = &bed.waits {
            command.arg("--waits").arg(waits);
        }
        if let Some(db) = db {
            command.arg("--db").arg(db);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("the other process has no output")?;
        Ok(Self { child, output: BufReader::new(output).lines() })
    }

    /// The next line that it prints. None if it has ended.
    pub fn line(&mut self) -> Result<Option<String>> {
        Ok(self.output.next().transpose()?)
    }

    /// The next line, as a number.
    pub fn number(&mut self) -> Result<f64> {
        Ok(self.line()?.context("the other process said nothing")?.parse()?)
    }

    /// Asks the process to end: some parts go on until their standard input closes.
    pub fn ask_to_end(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits until the process ends, and checks that it succeeded.
    pub fn end(mut self) -> Result<()> {
        self.ask_to_end();
        ensure!(self.child.wait()?.success(), "the other process failed");
        Ok(())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The monotonic clock, which is the same in every process.
pub fn monotonic_ns() -> i64 {
    nanoseconds(ClockId::Monotonic)
}

pub fn nanoseconds(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
