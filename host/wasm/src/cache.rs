//! Keeps compiled code in a folder of the host's own, so that a publisher is compiled once and not at each start.
//!
//! wasmtime runs the content of such a file without checking it, so a file that somebody else could have written may
//! run their code. The host therefore uses only files that this user's host has written: folder and file belong to this
//! user, nobody else may write to them, and the file contains the sha256 of its key and of its code. The key is made of
//! the component's bytes, the engine's version and all of its settings. Anything else is compiled again and replaced. A
//! folder that cannot be trusted is not used.

use std::fs::{self, DirBuilder, File, Metadata};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use outbox_engine::text::shown;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat, renameat, unlinkat};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

/// The beginning of each file: its form, and its version. Raise the version also when what is counted before compiling
/// changes.
const MAGIC: &[u8; 16] = b"outbox cwasm 2\n\0";
const DIGEST_BYTES: usize = 32;
const HEAD_BYTES: usize = MAGIC.len() + DIGEST_BYTES;
/// The longest file that is read: code is several times as long as its component.
const FILE_BYTES_MAX: u64 = 1 << 30;
const ROOT: u32 = 0;
/// The most files that are kept; the oldest are deleted when one is added.
const FILES_MAX: usize = 64;

/// A folder of compiled code.
pub(super) struct CodeCache {
    folder: File,
    path: PathBuf,
}

impl CodeCache {
    /// Opens the folder, and makes it if there is none.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        check_place(path)?;
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let folder = openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let folder = File::from(folder);
        check_owner(&folder.metadata()?)?;
        Ok(Self { folder, path: path.to_owned() })
    }

    /// The component that an engine like this compiled from bytes with this digest. None if it is missing or damaged.
    pub(super) fn load(&self, engine: &Engine, digest: &[u8]) -> Option<Component> {
        let key = Key::new(engine, digest);
        match self.read(&key) {
            Ok(code) => deserialize(engine, &code).map_err(|error| self.ignore(&key, &error)).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.ignore(&key, &error);
                None
            }
        }
    }

    /// Stores compiled code. A failure is logged; its only cost is compiling again.
    pub(super) fn store(&self, engine: &Engine, digest: &[u8], code: &[u8]) {
        let stored = self.write(&Key::new(engine, digest), code);
        if let Err(error) = stored.and_then(|()| self.prune()) {
            tracing::warn!("compiled code cannot be kept in {}: {}", shown(self.path.display()), shown(error));
        }
    }

    fn ignore(&self, key: &Key, error: &dyn std::fmt::Display) {
        let file = self.path.join(&key.file_name);
        tracing::warn!("{} is not used, and compiled anew: {}", shown(file.display()), shown(error));
    }

    /// Reads the code of a file, and checks that the whole file is what `write` wrote.
    fn read(&self, key: &Key) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.folder, key.file_name.as_str(), flags, Mode::empty())?);
        let metadata = file.metadata()?;
        check_owner(&metadata)?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(io::Error::other("it is longer than any file that was written"));
        }
        let mut head = [0; HEAD_BYTES];
        let mut file = file.take(FILE_BYTES_MAX);
        let damaged = || io::Error::other("it is not as it was written");
        file.read_exact(&mut head).map_err(|_| damaged())?;
        let mut code = Vec::new();
        file.read_to_end(&mut code)?;
        if head.as_slice() != key.head(&code).as_slice() {
            return Err(damaged());
        }
        Ok(code)
    }

    /// Writes a file beside its place and moves it there, so that no reader sees a part of it.
    fn write(&self, key: &Key, code: &[u8]) -> io::Result<()> {
        let draft = format!(".{}.{}-{:x}.tmp", key.file_name, std::process::id(), fastrand::u64(..));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.folder, draft.as_str(), flags, Mode::RUSR | Mode::WUSR)?);
        let written = file.write_all(&key.head(code)).and_then(|()| file.write_all(code));
        let placed = written.and_then(|()| {
            renameat(&self.folder, draft.as_str(), &self.folder, key.file_name.as_str()).map_err(io::Error::from)
        });
        if placed.is_err() {
            // The draft is useless now. If it cannot be deleted, the first error still counts.
            let _ = unlinkat(&self.folder, draft.as_str(), AtFlags::empty());
        }
        placed
    }

    /// Deletes the oldest files if there are too many: mostly those of other versions, and of components that have
    /// changed.
    fn prune(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.ends_with(".cwasm") || name.ends_with(".cwasm.tmp")) {
                files.push((entry.metadata()?.modified().unwrap_or(SystemTime::UNIX_EPOCH), name));
            }
        }
        files.sort();
        let too_many = files.len().saturating_sub(FILES_MAX);
        for (_, name) in files.into_iter().take(too_many) {
            unlinkat(&self.folder, name, AtFlags::empty())?;
        }
        Ok(())
    }
}

/// Refuses to make a folder as root within another user's: that user's own relay looks for it there, and could not use
/// it.
fn check_place(path: &Path) -> io::Result<()> {
    let mut ancestors = path.ancestors().map(|it| if it.as_os_str().is_empty() { Path::new(".") } else { it });
    let within = ancestors.find_map(|folder| fs::metadata(folder).ok());
    let owner = within.map_or(ROOT, |folder| folder.uid());
    if rustix::process::geteuid().as_raw() == ROOT && owner != ROOT && !path.exists() {
        return Err(io::Error::other(format!("it is within a folder of the user {owner}, and this is root")));
    }
    Ok(())
}

/// Checks that only this user can have written it: otherwise it may be anybody's code.
fn check_owner(metadata: &Metadata) -> io::Result<()> {
    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(io::Error::other(format!("it belongs to the user {owner}, and this is the user {user}")));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(io::Error::other(format!("others may write to it (mode {mode:o}; `chmod go-w` mends that)")));
    }
    Ok(())
}

/// Makes a component of code that the compiler has just returned, or that `read` has checked.
#[expect(unsafe_code, reason = "wasmtime cannot check machine code; both who call this know where it comes from")]
pub(super) fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes must come from `Engine::precompile_component`, for an engine like this one. There are two
    // cases. `Compiler::compile` has just received them from it, in this process or from a process that it started for
    // this, through a pipe that nobody else holds. Or they come from a file: only this user may write to the file and
    // its folder, sha256 shows that they are what `write` was given, with the key of this engine, and `store` gives
    // `write` nothing but the result of `Compiler::compile`.
    unsafe { Component::deserialize(engine, code) }
}

/// What a component's code depends on.
struct Key {
    digest: [u8; DIGEST_BYTES],
    file_name: String,
}

impl Key {
    fn new(engine: &Engine, module_digest: &[u8]) -> Self {
        let mut hasher = Sha256Hasher(Sha256::new());
        // wasmtime's version, the target, the compiler's settings, and everything else that the code depends on.
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let engine_digest = hasher.0.finalize();
        let digest = Sha256::new().chain_update(module_digest).chain_update(engine_digest).finalize();
        let file_name = format!("{}-{}.cwasm", hex::encode(module_digest), hex::encode(&engine_digest[..8]));
        Self { digest: digest.into(), file_name }
    }

    /// The head of the file with this code.
    fn head(&self, code: &[u8]) -> Vec<u8> {
        let digest = Sha256::new().chain_update(self.digest).chain_update(code).finalize();
        [MAGIC.as_slice(), digest.as_slice()].concat()
    }
}

/// Hashes with sha256: the standard library's hasher is short, and may differ between versions.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}
