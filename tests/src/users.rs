//! The program as other users run it: for that a test has to be root.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::workplace::{Logged, Ran, Workplace};
use crate::{outbox_program, skipped};

/// Users that need no entry anywhere: the one that the relay runs as, and two others.
pub const SERVICE: u32 = 65_534;
pub const OTHER: u32 = 65_533;
pub const THIRD: u32 = 65_532;

/// A place that the service owns, with what other users need to run the program: `app.db`, in the folder `data`.
pub struct Shared {
    pub place: Workplace,
    program: PathBuf,
}

impl Shared {
    /// None if this test does not run as root, which is reported.
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            skipped("what other users may do", "only root can run as them");
            return None;
        }
        let place = Workplace::empty();
        let program = place.path("outbox");
        fs::copy(outbox_program(), &program).unwrap();
        for name in ["noop", "scripted"] {
            fs::copy(crate::guest(name), place.path(&format!("{name}.wasm"))).unwrap();
        }
        fs::create_dir(place.path("data")).unwrap();
        let shared = Self { place, program };
        shared.allow("", 0o755);
        shared.give("data", SERVICE);
        let ran = shared.run(SERVICE, "init --db data/app.db");
        ran.ok();
        Some(shared)
    }

    pub fn data(&self) -> PathBuf {
        self.place.path("data")
    }

    /// Everything in the folder of the database, by its name.
    pub fn beside(&self) -> Vec<String> {
        let entries = fs::read_dir(self.data()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn allow(&self, name: &str, mode: u32) {
        fs::set_permissions(self.place.path(name), Permissions::from_mode(mode)).unwrap();
    }

    pub fn give(&self, name: &str, user: u32) {
        chown(self.place.path(name), Some(user), Some(user)).unwrap();
    }

    /// Appends an event of the stream `name`, as the service.
    pub fn append(&self, name: &str) {
        let file = self.place.path("events.ndjson");
        fs::write(&file, format!("{{\"name\": \"order.placed\", \"stream_id\": \"{name}\", \"data\": {{}}}}\n"))
            .unwrap();
        self.allow("events.ndjson", 0o644);
        self.run(SERVICE, "append --db data/app.db events.ndjson").ok();
    }

    pub fn command(&self, user: u32, arguments: &str) -> Command {
        let mut command = self.place.command_of(&self.program, arguments);
        command.uid(user).gid(user).env_remove("XDG_CACHE_HOME").env("HOME", "/nonexistent");
        command.stdin(Stdio::null());
        command
    }

    /// The result of running it as this user.
    pub fn run(&self, user: u32, arguments: &str) -> Ran {
        Ran::new(arguments, self.command(user, arguments).output().unwrap())
    }

    pub fn start(&self, user: u32, arguments: &str) -> Logged {
        self.place.log(self.command(user, arguments))
    }

    /// How many entries the user sees.
    #[track_caller]
    pub fn pending(&self, user: u32) -> u64 {
        self.run(user, "status --db data/app.db --json").json()["pending"].as_u64().unwrap()
    }
}

/// The owner, the group and the mode of a file.
pub fn belongs(path: &Path) -> (u32, u32, u32) {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid(), metadata.mode() & 0o777)
}
