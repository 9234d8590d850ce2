//! The files that lie beside a database. A user who may write to its folder may have put anything in their places: a
//! link to a file that must not be written, a FIFO that nobody answers, a file with forged content.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use outbox_engine::files::{check_regular, harmless};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, openat};

use super::owner::{belongs, user};

/// The relay at work holds a lock on it, and writes its state into it.
pub(super) const LOCK: &str = "-outbox.lock";
/// Which calls are under way.
pub(super) const CALLS: &str = "-outbox.calls";
/// What was committed, and is not in the database file yet.
pub(super) const WAL: &str = "-wal";
/// The index of the WAL: where each newest page is.
pub(super) const SHM: &str = "-shm";
/// The journal for rolling back a transaction without the WAL.
pub(super) const JOURNAL: &str = "-journal";

const ROOT: u32 = 0;

/// The path of the file with this ending.
pub(super) fn path(database: &Path, ending: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// Opens an existing regular file, but no link to one.
pub(super) fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let open = || {
        check_regular(&fs::symlink_metadata(path)?)?;
        let flags = harmless(flags | OFlags::NOFOLLOW);
        let file = File::from(openat(CWD, path, flags, Mode::empty())?);
        check_regular(&file.metadata()?)?;
        Ok(file)
    };
    open().map_err(|error| named(path, error))
}

/// Opens one of our own files for reading and writing, or makes it. The file may have no other name. It gets the owner
/// and mode of the database, since root may make it while the relay runs as another user. `is_ours` decides whether its
/// content may be ours.
pub(super) fn open_or_make(database: &Path, ending: &str, is_ours: impl Fn(&File) -> bool) -> io::Result<File> {
    let path = path(database, ending);
    let owner = fs::metadata(database).map_err(|error| named(database, error))?;
    let file = match open(&path, OFlags::RDWR) {
        Err(error) if error.kind() == ErrorKind::NotFound => match make(&path, &owner) {
            // Another process made it first.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => open(&path, OFlags::RDWR)?,
            made => made.map_err(|error| named(&path, error))?,
        },
        opened => opened?,
    };
    let checked = check_owner(&file, &owner, is_ours).and_then(|()| give(&file, &owner));
    checked.map(|()| file).map_err(|error| named(&path, error))
}

/// Makes an empty database if root wants one in another user's folder: the database then belongs to that user, like the
/// files beside it. Otherwise SQLite makes it, and it belongs to the user who runs this.
pub(super) fn make_database(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let owner = fs::metadata(folder)?;
    if user() != ROOT || owner.uid() == ROOT {
        return Ok(());
    }
    let flags = harmless(OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW);
    let file = openat(CWD, path, flags, Mode::from_raw_mode(0o644))?;
    Ok(fchown(&file, Some(Uid::from_raw(owner.uid())), Some(Gid::from_raw(owner.gid())))?)
}

/// Checks that SQLite's files are regular files: SQLite would wait for ever for a FIFO that it may only read.
pub(super) fn check(database: &Path) -> io::Result<()> {
    for path in [WAL, SHM, JOURNAL].map(|ending| path(database, ending)) {
        // If it may not even be looked at, opening the database reports that.
        if let Ok(found) = fs::symlink_metadata(&path) {
            check_regular(&found).map_err(|error| named(&path, error))?;
        }
    }
    Ok(())
}

fn make(path: &Path, owner: &Metadata) -> io::Result<File> {
    let flags = harmless(OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW);
    Ok(File::from(openat(CWD, path, flags, mode(owner))?))
}

fn mode(metadata: &Metadata) -> Mode {
    Mode::from_raw_mode(metadata.mode() & 0o777)
}

/// Refuses a file with a second name (a hard link): it may be somebody's file, which must not be written.
fn check_names(metadata: &Metadata) -> io::Result<()> {
    match metadata.nlink() {
        0 | 1 => Ok(()),
        names => Err(io::Error::other(format!("it has {names} names (hard links), and may be another file as well"))),
    }
}

/// Checks that the file's owner may write to the database: nobody else may influence what it says. And a user who moves
/// files of root to this place must not make root write to them.
fn check_owner(file: &File, database: &Metadata, is_ours: impl Fn(&File) -> bool) -> io::Result<()> {
    let found = file.metadata()?;
    check_names(&found)?;
    let of_group = database.mode() & 0o020 != 0 && found.gid() == database.gid();
    if !of_group && ![ROOT, database.uid(), user()].contains(&found.uid()) {
        return Err(io::Error::other(format!(
            "{}; the database belongs to the user {}",
            belongs(&found),
            database.uid()
        )));
    }
    if found.uid() != database.uid() && !is_ours(file) {
        return Err(io::Error::other(format!("it is not what a relay writes there; {}", belongs(&found))));
    }
    Ok(())
}

/// Gives a file the database's owner and mode, if this user may do that.
fn give(file: &File, owner: &Metadata) -> io::Result<()> {
    let found = file.metadata()?;
    if (found.uid(), found.gid()) != (owner.uid(), owner.gid()) && user() == ROOT {
        fchown(file, Some(Uid::from_raw(owner.uid())), Some(Gid::from_raw(owner.gid())))?;
    }
    if found.mode() & 0o777 != owner.mode() & 0o777 && [ROOT, found.uid()].contains(&user()) {
        fchmod(file, mode(owner))?;
    }
    Ok(())
}

/// Adds the file to an error, and its owner, if permissions are the cause.
fn named(path: &Path, error: io::Error) -> io::Error {
    let whose = fs::symlink_metadata(path).ok().filter(|_| error.kind() == ErrorKind::PermissionDenied);
    let whose = whose.map_or_else(String::new, |metadata| format!(": {}", belongs(&metadata)));
    io::Error::new(error.kind(), format!("{}: {error}{whose}", path.display()))
}
