//! Compiled code, kept in a folder of the host's own, so that a publisher is compiled once and not at each start.
//!
//! wasmtime runs what it finds in such a file without looking at it again: a file that anybody else could have written is
//! code that anybody else could have written. So nothing is used that is not, all of it, what this user's host put
//! there: the folder and the file are this user's and writable by nobody else, and the file holds the sha256 of its key
//! and its code. The key is made of the component's bytes, the engine's version and all of its settings. Anything else
//! is compiled anew and replaced; a folder that cannot be trusted is not used.

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

use super::text::hex;

/// What each file starts with: the form of the file, and its version, which is also that of what is counted before a
/// component is compiled.
const MAGIC: &[u8; 16] = b"outbox cwasm 2\n\0";
const DIGEST_BYTES: usize = 32;
const HEAD_BYTES: usize = MAGIC.len() + DIGEST_BYTES;
/// The longest file that is read: code is several times as long as the component it was compiled from.
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
    /// Opens the folder, and makes it where there is none.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        check_place(path)?;
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let folder = openat(CWD, path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let folder = File::from(folder);
        check_owner(&folder.metadata()?)?;
        Ok(Self { folder, path: path.to_owned() })
    }

    /// The component that was compiled from bytes with this digest by such an engine, where it is there and as it was.
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

    /// Keeps what was compiled. That it could not be kept is told, and costs no more than compiling it again.
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

    /// The code of a file that is, all of it, what `write` wrote.
    fn read(&self, key: &Key) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.folder, key.file_name.as_str(), flags, Mode::empty())?);
        let metadata = file.metadata()?;
        check_owner(&metadata)?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        if metadata.len() > FILE_BYTES_MAX {
            return Err(io::Error::other("it is longer than any that was written"));
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

    /// Written beside its place and moved there, so that no reader sees a part of it.
    fn write(&self, key: &Key, code: &[u8]) -> io::Result<()> {
        let draft = format!(".{}.{}-{:x}.tmp", key.file_name, std::process::id(), fastrand::u64(..));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.folder, draft.as_str(), flags, Mode::RUSR | Mode::WUSR)?);
        let written = file.write_all(&key.head(code)).and_then(|()| file.write_all(code));
        let placed = written.and_then(|()| {
            renameat(&self.folder, draft.as_str(), &self.folder, key.file_name.as_str()).map_err(io::Error::from)
        });
        if placed.is_err() {
            // What is left of it is of no use; that it cannot be deleted changes nothing about the error.
            let _ = unlinkat(&self.folder, draft.as_str(), AtFlags::empty());
        }
        placed
    }

    /// Deletes the oldest files where there are too many: those of other versions, and of components that have changed.
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

/// Root makes no folder within another user's: that user could not use it, and their own relay would look for it there.
fn check_place(path: &Path) -> io::Result<()> {
    let mut ancestors = path.ancestors().map(|it| if it.as_os_str().is_empty() { Path::new(".") } else { it });
    let within = ancestors.find_map(|folder| fs::metadata(folder).ok());
    let owner = within.map_or(ROOT, |folder| folder.uid());
    if rustix::process::geteuid().as_raw() == ROOT && owner != ROOT && !path.exists() {
        return Err(io::Error::other(format!("it is within a folder of the user {owner}, and this is root")));
    }
    Ok(())
}

/// Only this user may have written it: else it may be anybody's code.
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

/// Makes a component of code that the compiler has just given, or that `read` has.
#[expect(unsafe_code, reason = "wasmtime cannot check machine code; both who call this know where it comes from")]
pub(super) fn deserialize(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes have to be what `Engine::precompile_component` gave, for an engine like this one. Either
    // `Compiler::compile` has just got them from it, in this process or, through a pipe that nobody else holds, from one
    // that it started for that. Or they come from a file in a folder that only this user may write to, as only this user
    // may to the file; sha256 says that they are, with the key of this engine, what `write` was given, and `store` gives
    // it nothing but the result of `Compiler::compile`.
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
        // wasmtime's version, the target, the compiler's settings, and all that the code would have to know of.
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let engine_digest = hasher.0.finalize();
        let digest = Sha256::new().chain_update(module_digest).chain_update(engine_digest).finalize();
        let file_name = format!("{}-{}.cwasm", hex(module_digest), hex(&engine_digest[..8]));
        Self { digest: digest.into(), file_name }
    }

    /// What stands before this code in its file.
    fn head(&self, code: &[u8]) -> Vec<u8> {
        let digest = Sha256::new().chain_update(self.digest).chain_update(code).finalize();
        [MAGIC.as_slice(), digest.as_slice()].concat()
    }
}

/// The standard library's own hasher is short, and no promise between versions.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}
