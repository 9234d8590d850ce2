//! The compiling process: it limits itself before it reads the component.

use std::fs;
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::thread;

use rustix::process::{Resource, Rlimit, Signal, set_parent_process_death_signal, setrlimit};

use super::compile_time::STACK_BYTES;
use super::compiler::{Answer, compile};

/// The most threads that compile: each takes up memory of its own.
const THREADS_MAX: usize = 8;
/// How much memory there must be for each thread.
const BYTES_OF_A_THREAD: usize = 4 * STACK_BYTES;

/// Compiles the component on the standard input, for the process that started this one, and writes the code to the
/// standard output. [`Compiler::Process`](super::Compiler::Process) starts a program that calls this before anything
/// else, and exits with the result. The process is limited to `memory_bytes` of memory and to this many seconds of time
/// on each processor, and ends together with the process that started it.
pub fn compile_for_another(memory_bytes: usize, seconds: u64) -> ExitCode {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(THREADS_MAX).min(memory_bytes / BYTES_OF_A_THREAD).max(1);
    let answered = bind(memory_bytes as u64, seconds.saturating_mul(threads as u64)).and_then(|()| answer(threads));
    match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The process that started this one reads the message, and shows it.
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn bind(memory_bytes: u64, processor_seconds: u64) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The heap, and all other private memory that can be written to, with the threads' stacks.
    limit(Resource::Data, memory_bytes)?;
    limit(Resource::Cpu, processor_seconds)?;
    limit(Resource::Core, 0)?;
    // If memory is short, the system should kill this process, and not the relay. This may fail.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    Ok(())
}

fn limit(resource: Resource, max: u64) -> io::Result<()> {
    Ok(setrlimit(resource, Rlimit { current: Some(max), maximum: Some(max) })?)
}

fn answer(threads: usize) -> io::Result<()> {
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK_BYTES).build();
    let pool = pool.map_err(io::Error::other)?;
    let compiled = pool.install(|| catch_unwind(AssertUnwindSafe(|| compile(&bytes))));
    let (answer, what) = match compiled {
        Ok(Ok(compiled)) => (Answer::Compiled(compiled.kind), compiled.code),
        Ok(Err(reason)) => (Answer::Invalid, reason.into_bytes()),
        Err(_) => (Answer::Panicked, Vec::new()),
    };
    let mut stdout = io::stdout().lock();
    stdout.write_all(&[answer.byte()])?;
    stdout.write_all(&what)?;
    stdout.flush()
}
