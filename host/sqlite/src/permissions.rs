//! What this user may do with a database and with the files beside it.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::fs::{Access as May, AtFlags, CWD, accessat};
use rustix::process::{getegid, geteuid, getgid, getuid};

use super::access::Access;
use super::beside;
use super::owner::belongs;

/// Which permission keeps this user from working with a database: the file, and its owner. None if permissions are not
/// the cause.
pub(super) fn denial(database: &Path, access: Access) -> Option<String> {
    if let Some(denied) = denied(database, May::READ_OK, "read") {
        return Some(denied);
    }
    let [wal, shm, journal] = [beside::WAL, beside::SHM, beside::JOURNAL].map(|ending| beside::path(database, ending));
    let all = [database, &wal, &shm, &journal];
    let is_missing = |path: &Path| fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    match access {
        Access::Write => all
            .iter()
            .find_map(|path| denied(path, May::READ_OK | May::WRITE_OK, "written"))
            .or_else(|| [database, &wal, &shm].into_iter().any(is_missing).then(|| not_made(database)).flatten()),
        Access::Read if is_missing(&shm) && !is_missing(&wal) => Some(format!(
            "{} is missing, without which {} cannot be read: open the database once as a user that may write to its \
             folder, for example with `outbox status`",
            shm.display(),
            wal.display()
        )),
        Access::Read => all.iter().find_map(|path| denied(path, May::READ_OK, "read")),
        Access::Still => None,
    }
}

fn access(path: &Path, may: May) -> io::Result<()> {
    // The flag for effective ids needs a newer system call, which some containers refuse.
    let is_itself = (getuid(), getgid()) == (geteuid(), getegid());
    let flags = if is_itself { AtFlags::empty() } else { AtFlags::EACCESS };
    Ok(accessat(CWD, path, may, flags)?)
}

/// Why an existing file may not be used in this way.
fn denied(path: &Path, may: May, verb: &str) -> Option<String> {
    match access(path, may) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            let whose = fs::metadata(path).map_or_else(|_| "its folder is closed".to_owned(), |it| belongs(&it));
            Some(format!("{} cannot be {verb} ({error}): {whose}", path.display()))
        }
        _ => None,
    }
}

/// Why SQLite cannot make the files that it needs beside a database.
fn not_made(database: &Path) -> Option<String> {
    let folder = database.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let error = access(folder, May::WRITE_OK | May::EXEC_OK).err()?;
    let metadata = fs::metadata(folder).ok()?;
    Some(format!(
        "no file can be made beside {} ({error}), and SQLite makes some there; of the folder {}: {}",
        database.display(),
        folder.display(),
        belongs(&metadata)
    ))
}
