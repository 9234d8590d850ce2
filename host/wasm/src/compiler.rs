//! Compiles components, in this process or in a separate one, whose memory is bounded and which is killed when its time
//! is up.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use outbox_engine::text::shown;

use super::compile_time::{Unfinished, within};
use super::engine::EngineKind;
use super::load_error::{LoadError, invalid};
use super::settings::Limits;

/// How often to look whether somebody still waits for the compilation.
const LOOK: Duration = Duration::from_millis(20);
/// How much of the compiling process's standard error is kept.
const SAID_BYTES_MAX: u64 = 4 * 1024;
/// The most bytes of compiled code: this many, and `CODE_BYTES_OF_A_BYTE` more for each byte of the component.
const CODE_BYTES_MAX: usize = 16 * 1024 * 1024;
const CODE_BYTES_OF_A_BYTE: usize = 8;

/// Settings for mimalloc. Writable address space that is only reserved counts as memory too, so it must not reserve a
/// gibibyte.
const ALLOCATOR: [(&str, &str); 2] = [("MIMALLOC_ARENA_EAGER_COMMIT", "0"), ("MIMALLOC_ARENA_RESERVE", "65536")];

/// Where a component is compiled. The compiler can be neither interrupted nor limited in its memory; only a process of
/// its own can.
#[derive(Debug, Clone, Default)]
pub enum Compiler {
    /// In this process. What a component unfolds to is counted before, but the compiler's memory is not bounded
    /// otherwise, and a compilation that was given up goes on until it is done.
    #[default]
    InThisProcess,
    /// In a process of its own, which is limited to [`Limits::compile_bytes`], and killed after
    /// [`Limits::compile_time`].
    Process {
        /// The program: it calls [`compile_for_another`](super::compile_for_another). `/proc/self/exe` is the running
        /// program, even if its file has been replaced meanwhile.
        program: PathBuf,
        /// Its arguments. The limits on its memory, in bytes, and on its time, in seconds, follow them.
        arguments: Vec<OsString>,
    },
}

/// Machine code, and the kind of engine that runs it.
pub(super) struct Compiled {
    pub(super) kind: EngineKind,
    pub(super) code: Vec<u8>,
}

/// Set when nobody waits for the compilation any more.
#[derive(Debug, Clone, Default)]
pub(super) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    pub(super) fn give_up(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many bytes the code of a component of this size may have.
pub(super) fn code_bytes_max(component: usize) -> usize {
    component.saturating_mul(CODE_BYTES_OF_A_BYTE).saturating_add(CODE_BYTES_MAX)
}

impl Compiler {
    pub(super) fn compile(
        &self,
        name: &str,
        bytes: &[u8],
        limits: &Limits,
        given_up: &GivenUp,
    ) -> Result<Compiled, LoadError> {
        let compiled = match self {
            Self::InThisProcess => in_this_process(name, bytes, limits.compile_time)?,
            Self::Process { program, arguments } => {
                let mut command = Command::new(program);
                let seconds = limits.compile_time.as_secs().saturating_add(1);
                command.args(arguments).args([limits.compile_bytes.to_string(), seconds.to_string()]);
                Compiling { name, bytes, limits, given_up }.run(command)?
            }
        };
        let bytes_max = code_bytes_max(bytes.len());
        if compiled.code.len() > bytes_max {
            return Err(LoadError::CodeTooLarge { name: name.to_owned(), bytes_max });
        }
        Ok(compiled)
    }
}

/// Compiles in this process. Whatever the bytes are, neither a panic nor slowness of the compiler may end or stop the
/// host.
fn in_this_process(name: &str, bytes: &[u8], limit: Duration) -> Result<Compiled, LoadError> {
    let owned = bytes.to_vec();
    match within(limit, move || compile(&owned)) {
        Ok(Ok(compiled)) => Ok(compiled),
        Ok(Err(reason)) => Err(invalid(name, reason)),
        Err(Unfinished::TimedOut) => Err(LoadError::CompileTime { name: name.to_owned(), limit }),
        Err(Unfinished::Panicked) => Err(invalid(name, "the compiler failed on it")),
        Err(Unfinished::NoThreads) => Err(LoadError::Engine { reason: "no threads to compile on".into() }),
    }
}

/// Compiles for the faster engine, or else for the engine that knows the async built-ins.
pub(super) fn compile(bytes: &[u8]) -> Result<Compiled, String> {
    let with = |kind: EngineKind| {
        let engine = kind.engine().map_err(|error| format!("{error:#}"))?;
        let code = engine.precompile_component(bytes).map_err(|error| format!("{error:#}"))?;
        Ok(Compiled { kind, code })
    };
    with(EngineKind::Plain).or_else(|_: String| with(EngineKind::Concurrent))
}

/// The first byte of the process's answer: the code follows, or the reason why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Compiled(EngineKind),
    Invalid,
    Panicked,
}

impl Answer {
    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Compiled(EngineKind::Plain) => b'p',
            Self::Compiled(EngineKind::Concurrent) => b'c',
            Self::Invalid => b'i',
            Self::Panicked => b'!',
        }
    }

    fn of(byte: u8) -> Option<Self> {
        use EngineKind::{Concurrent, Plain};
        let all = [Self::Compiled(Plain), Self::Compiled(Concurrent), Self::Invalid, Self::Panicked];
        all.into_iter().find(|answer| answer.byte() == byte)
    }
}

/// A component that a process compiles.
struct Compiling<'a> {
    name: &'a str,
    bytes: &'a [u8],
    limits: &'a Limits,
    given_up: &'a GivenUp,
}

/// What the process wrote, and how it ended.
struct Ended {
    status: ExitStatus,
    answer: Vec<u8>,
    said: String,
    /// Whether this host killed it.
    killed: bool,
}

impl Compiling<'_> {
    fn run(&self, mut command: Command) -> Result<Compiled, LoadError> {
        // A process group of its own: signals from the terminal go to the program alone, which then ends this process
        // itself.
        command.arg0("outbox").env_clear().envs(ALLOCATOR).process_group(0);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let ended = child.and_then(|child| self.watch(child)).map_err(|error| LoadError::Engine {
            reason: format!("the process that compiles cannot be started: {error}"),
        })?;
        self.result(ended)
    }

    /// Feeds the process and waits for its answer, as long as there is time and somebody waits for the result.
    fn watch(&self, mut child: Child) -> io::Result<Ended> {
        let missing = || io::Error::other("it has no pipes");
        let mut stdin = child.stdin.take().ok_or_else(missing)?;
        let stdout = child.stdout.take().ok_or_else(missing)?;
        let stderr = child.stderr.take().ok_or_else(missing)?;
        let deadline = Instant::now() + self.limits.compile_time;
        let answer_max = code_bytes_max(self.bytes.len()) as u64 + 2;
        thread::scope(|scope| {
            let (done, answered) = sync_channel(1);
            scope.spawn(move || {
                // The process may end before it has read everything: its answer says why.
                let _ = stdin.write_all(self.bytes);
            });
            scope.spawn(move || {
                let _ = done.send(read(stdout, answer_max));
            });
            let said = scope.spawn(move || read(stderr, SAID_BYTES_MAX));
            let mut killed = false;
            let answer = loop {
                let left = deadline.saturating_duration_since(Instant::now());
                match answered.recv_timeout(if killed { LOOK } else { LOOK.min(left) }) {
                    Ok(answer) => break answer,
                    Err(RecvTimeoutError::Disconnected) => break Vec::new(),
                    Err(RecvTimeoutError::Timeout) if killed => {}
                    Err(RecvTimeoutError::Timeout) => {
                        killed = self.given_up.is() || Instant::now() >= deadline;
                        if killed {
                            kill(&mut child);
                        }
                    }
                }
            };
            // If the answer is longer than allowed, the rest is not read.
            if answer.len() as u64 >= answer_max {
                kill(&mut child);
            }
            let status = child.wait()?;
            let said = String::from_utf8_lossy(&said.join().unwrap_or_default()).into_owned();
            Ok(Ended { status, answer, said, killed })
        })
    }

    fn result(&self, ended: Ended) -> Result<Compiled, LoadError> {
        let name = || self.name.to_owned();
        if ended.killed {
            return Err(LoadError::CompileTime { name: name(), limit: self.limits.compile_time });
        }
        let bytes_max = code_bytes_max(self.bytes.len());
        if ended.answer.len() > bytes_max + 1 {
            return Err(LoadError::CodeTooLarge { name: name(), bytes_max });
        }
        let answer = ended.answer.first().copied().and_then(Answer::of).filter(|_| ended.status.success());
        let reason = || String::from_utf8_lossy(ended.answer.get(1..).unwrap_or_default());
        match answer {
            None => Err(self.died(&ended)),
            Some(Answer::Panicked) => Err(invalid(self.name, "the compiler failed on it")),
            Some(Answer::Invalid) if is_want_of_memory(&reason()) => Err(self.too_little_memory()),
            Some(Answer::Invalid) => Err(invalid(self.name, reason())),
            Some(Answer::Compiled(kind)) => {
                let mut code = ended.answer;
                code.remove(0);
                Ok(Compiled { kind, code })
            }
        }
    }

    /// The process ended before it had answered.
    fn died(&self, ended: &Ended) -> LoadError {
        let signal = ended.status.signal();
        // A SIGKILL that this host did not send comes from the system, which is short of memory.
        if is_want_of_memory(&ended.said) || signal == Some(SIGKILL) {
            return self.too_little_memory();
        }
        if signal == Some(SIGXCPU) {
            return LoadError::CompileTime { name: self.name.to_owned(), limit: self.limits.compile_time };
        }
        if ended.said.contains("overflowed its stack") {
            return invalid(self.name, "it is nested too deeply for the compiler");
        }
        let said = ended.said.lines().last().unwrap_or_default();
        invalid(self.name, format!("the compiler ended with {} on it: {}", ended.status, shown(said)))
    }

    fn too_little_memory(&self) -> LoadError {
        LoadError::CompileMemory { name: self.name.to_owned(), bytes_max: self.limits.compile_bytes }
    }
}

/// Killing fails only if the process has already ended.
fn kill(child: &mut Child) {
    let _ = child.kill();
}

const SIGKILL: i32 = rustix::process::Signal::KILL.as_raw();
const SIGXCPU: i32 = rustix::process::Signal::XCPU.as_raw();

/// Whether this is a message of the allocator, the system or wasmtime about lack of memory.
fn is_want_of_memory(said: &str) -> bool {
    ["memory allocation of ", "Cannot allocate memory", "out of memory", "failed to allocate"]
        .iter()
        .any(|words| said.contains(words))
}

/// Reads at most `bytes_max` bytes.
fn read(from: impl Read, bytes_max: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // If reading fails, the process has ended, and its status says more.
    let _ = from.take(bytes_max).read_to_end(&mut bytes);
    bytes
}
