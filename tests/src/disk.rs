//! Works out what a disk would contain after a power cut, from the calls that strace saw. The disk has what a sync has
//! brought there, and nothing else. If a sync has failed, a later one does not bring the same data, unless it is
//! written again: the system counts it as written.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The calls that strace has to trace, and how: strings whole, and in hex.
pub const STRACE: [&str; 6] =
    ["-y", "-xx", "-s", "4194304", "-e", "trace=pwrite64,ftruncate,fsync,fdatasync,unlink,write"];

/// The files of a disk.
#[derive(Default)]
pub struct Disk {
    files: HashMap<PathBuf, File>,
    /// Which sync failed, in words.
    pub failed: Vec<String>,
}

#[derive(Default)]
struct File {
    on_disk: Vec<u8>,
    /// Changes that wait for a sync.
    waiting: Vec<Change>,
    /// Changes that a sync has failed to bring, and the line that it ended at. A sync that was under way then, and succeeds,
    /// has brought them.
    left_out: Vec<(usize, Change)>,
}

enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Disk {
    /// A disk that contains this file as it is now.
    pub fn with(path: &Path) -> Self {
        let on_disk = std::fs::read(path).unwrap();
        let file = File { on_disk, ..File::default() };
        Self { files: HashMap::from([(path.to_owned(), file)]), failed: Vec::new() }
    }

    /// Follows a trace, until the process writes this to its standard output.
    pub fn follow(&mut self, trace: &str, until: &str) {
        let mut begun: HashMap<&str, (usize, &str)> = HashMap::new();
        for (number, line) in trace.lines().enumerate() {
            let (process, call) = line.split_once(' ').unwrap();
            let call = call.trim_start();
            let (since, whole) = if let Some(beginning) = call.strip_suffix(" <unfinished ...>") {
                begun.insert(process, (number, beginning));
                continue;
            } else if let Some((_, end)) = call.split_once(" resumed>") {
                let (since, beginning) = begun.remove(process).unwrap();
                (since, format!("{beginning}{end}"))
            } else {
                (number, call.to_owned())
            };
            if whole.starts_with("write(1<") && whole.contains(&hex(until)) {
                return;
            }
            self.called(&whole, since, number);
        }
        panic!("{until:?} was never written");
    }

    /// `pwrite64(7</path>, "bytes", 4096, 32) = 4096`, with path and bytes in hex; from one line to another.
    fn called(&mut self, call: &str, since: usize, until: usize) {
        let Some((name, rest)) = call.split_once('(') else { return };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else { return };
        let Some((_, rest)) = arguments.split_once('<') else { return };
        let Some((path, arguments)) = rest.split_once('>') else { return };
        let path = PathBuf::from(String::from_utf8(bytes(path)).unwrap());
        let has_failed = result.starts_with('-');
        let file = self.files.entry(path.clone()).or_default();
        let numbers = || arguments.rsplit([',', ' ', ')']).filter_map(|word| word.parse::<usize>().ok());
        match name {
            "pwrite64" if !has_failed => {
                let bytes = bytes(arguments.split('"').nth(1).unwrap());
                file.waiting.push(Change::Write { at: numbers().next().unwrap(), bytes });
            }
            "ftruncate" if !has_failed => file.waiting.push(Change::Length(numbers().next().unwrap())),
            "fsync" | "fdatasync" if has_failed => {
                let left_out = file.waiting.drain(..).map(|change| (until, change));
                file.left_out.extend(left_out);
                self.failed.push(format!("{name} of {}", path.display()));
            }
            "fsync" | "fdatasync" => file.sync(since),
            _ => {}
        }
    }

    /// Writes the disk's version of `path` to another place.
    pub fn save(&self, path: &Path, to: &Path) {
        let empty = Vec::new();
        std::fs::write(to, self.files.get(path).map_or(&empty, |file| &file.on_disk)).unwrap();
    }
}

impl File {
    fn sync(&mut self, since: usize) {
        let left_out = std::mem::take(&mut self.left_out).into_iter();
        let written = left_out.filter(|(until, _)| *until > since).map(|(_, change)| change);
        for change in written.chain(std::mem::take(&mut self.waiting)) {
            match change {
                Change::Write { at, bytes } => {
                    let end = at + bytes.len();
                    if self.on_disk.len() < end {
                        self.on_disk.resize(end, 0);
                    }
                    self.on_disk[at..end].copy_from_slice(&bytes);
                }
                Change::Length(length) => self.on_disk.resize(length, 0),
            }
        }
    }
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.split("\\x").skip(1).map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
}
