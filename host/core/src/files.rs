//! Opens files that somebody else may have put there. It reads only regular files, and only up to a bound: a FIFO could
//! block for ever, a device may act when it is opened, and a sparse file can claim any length.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

/// Opens a regular file for reading; a link to one is followed.
///
/// # Errors
///
/// If it is no regular file, the error says what it is.
pub fn open(path: &Path) -> io::Result<File> {
    // Checked before the file is opened, and again after that: somebody may have replaced it in between.
    check_regular(&fs::metadata(path)?)?;
    let file = File::from(openat(CWD, path, harmless(OFlags::RDONLY), Mode::empty())?);
    check_regular(&file.metadata()?)?;
    Ok(file)
}

/// Reads a regular file of at most `bytes_max` bytes.
///
/// # Errors
///
/// As [`open`]; and [`ErrorKind::FileTooLarge`] if the file is longer. Nothing is read then.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    // The file may grow meanwhile, and some files of the system do not report their length.
    let too_long = file.metadata()?.len() > bytes_max || {
        file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
        bytes.len() as u64 > bytes_max
    };
    if too_long {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

/// Reads a regular file of at most `bytes_max` bytes, which are UTF-8.
///
/// # Errors
///
/// As [`read`]; and [`ErrorKind::InvalidData`] if it is not UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let text = String::from_utf8(read(path, bytes_max)?);
    text.map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

#[doc(hidden)]
/// Flags with which opening a file has no side effects and never blocks, whatever the file is.
pub fn harmless(flags: OFlags) -> OFlags {
    flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
}

/// Checks that it is a regular file, and no device, FIFO, socket or folder.
///
/// # Errors
///
/// What it is instead.
pub fn check_regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let kind = metadata.file_type();
    let (kind, what) = if kind.is_dir() {
        // In the system's own words.
        (ErrorKind::IsADirectory, "Is a directory")
    } else if kind.is_symlink() {
        (ErrorKind::InvalidInput, "it is a symbolic link")
    } else if kind.is_fifo() {
        (ErrorKind::InvalidInput, "it is a FIFO")
    } else if kind.is_socket() {
        (ErrorKind::InvalidInput, "it is a socket")
    } else {
        (ErrorKind::InvalidInput, "it is a device")
    };
    Err(io::Error::new(kind, format!("{what}, and no regular file")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{FileType, mknodat};

    use super::*;

    fn refused(path: &Path) -> String {
        read(path, 10).unwrap_err().to_string()
    }

    #[test]
    fn only_a_regular_file_is_read_and_a_link_to_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("file"), "0123456789").unwrap();
        symlink(at("file"), at("link")).unwrap();
        assert_eq!(read(&at("link"), 10).unwrap(), b"0123456789");
        assert_eq!(read(Path::new("/proc/self/comm"), 100).unwrap().last(), Some(&b'\n'));

        mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        symlink(at("fifo"), at("link to a fifo")).unwrap();
        assert_eq!(refused(&at("fifo")), "it is a FIFO, and no regular file");
        assert_eq!(refused(&at("link to a fifo")), "it is a FIFO, and no regular file");
        assert_eq!(refused(&at("socket")), "it is a socket, and no regular file");
        assert_eq!(refused(folder.path()), "Is a directory, and no regular file");
        assert_eq!(refused(Path::new("/dev/zero")), "it is a device, and no regular file");
    }

    #[test]
    fn no_more_is_read_than_there_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "0123456789+").unwrap();
        assert_eq!(read(&path, 10).unwrap_err().kind(), ErrorKind::FileTooLarge);
        let sparse = File::create(&path).unwrap();
        sparse.set_len(1 << 40).unwrap();
        assert_eq!(refused(&path), "it has more than 10 bytes");
    }

    #[test]
    fn a_text_is_utf_8() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(read_text(&path, 10).unwrap_err().to_string(), "it is not UTF-8");
    }
}
