//! A folder of its own, in which a test works with the program `outbox` as people do.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use rustix::process::{Pid, kill_process};
use serde_json::Value as Json;
use tempfile::TempDir;

use crate::outbox_program;
use crate::waiting::{PATIENCE, output_of, until};

pub use rustix::process::Signal;

/// A folder, and commands that run in it. `guests/` in it has the publishers that `examples/build.sh` built.
pub struct Workplace {
    folder: TempDir,
}

impl Workplace {
    /// A folder without a database.
    pub fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guests");
        std::os::unix::fs::symlink(guests, folder.path().join("guests")).unwrap();
        Self { folder }
    }

    /// A folder with the database `app.db`, which has an outbox.
    pub fn new() -> Self {
        let place = Self::empty();
        place.outbox("init --db app.db").ok();
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Runs `outbox` with these arguments, which spaces part.
    pub fn outbox(&self, arguments: &str) -> Ran {
        self.outbox_fed(arguments, "")
    }

    /// The same with this as its standard input.
    pub fn outbox_fed(&self, arguments: &str, input: impl AsRef<[u8]>) -> Ran {
        let mut child = self.start(arguments, Stdio::piped());
        // A program that refuses its arguments does not read its input.
        let _ = child.stdin.take().unwrap().write_all(input.as_ref());
        Ran::new(arguments, child.wait_with_output().unwrap())
    }

    /// Starts `outbox`; its output is kept for when it has ended.
    pub fn start(&self, arguments: &str, stdin: Stdio) -> Child {
        let mut command = self.command(arguments);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// `outbox` with these arguments, which spaces part.
    pub fn command(&self, arguments: &str) -> Command {
        self.command_of(&outbox_program(), arguments)
    }

    /// The same, with another program.
    pub fn command_of(&self, program: &Path, arguments: &str) -> Command {
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace()).current_dir(self.folder.path());
        command.env_remove("OUTBOX_DB").env_remove("OUTBOX_LOG").env("OUTBOX_USER", "ada");
        // Compiled code of the tests' own: the user's is none of their business.
        command.env("XDG_CACHE_HOME", Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cache"));
        command
    }

    /// Appends these lines to `app.db`.
    pub fn append(&self, ndjson: &str) {
        self.outbox_fed("append --db app.db", ndjson).ok();
    }

    /// Starts `outbox` beside the test; what it prints and logs goes into a file.
    pub fn start_logged(&self, arguments: &str) -> Logged {
        self.log(self.command(arguments))
    }

    /// The same of a command.
    pub fn log(&self, mut command: Command) -> Logged {
        let log = tempfile::Builder::new().prefix("outbox-").suffix(".log").tempfile_in(self.folder.path()).unwrap();
        let (log, path) = log.keep().unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Logged { child, log: path }
    }

    /// A connection to `app.db`.
    pub fn sql(&self) -> Connection {
        self.sql_of("app.db")
    }

    pub fn sql_of(&self, name: &str) -> Connection {
        let connection = Connection::open(self.path(name)).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection
    }

    /// The result of a query over `app.db`: a line for each row, values separated by `|`.
    pub fn query(&self, sql: &str) -> Vec<String> {
        rows(&self.sql(), sql)
    }

    /// What `outbox status --json` says.
    pub fn status(&self) -> Json {
        self.outbox("status --db app.db --json").json()
    }

    /// Every table of a database with all of its rows.
    pub fn tables(&self, name: &str) -> BTreeMap<String, Vec<String>> {
        let connection = self.sql_of(name);
        let names = rows(&connection, "SELECT name FROM sqlite_schema WHERE type = 'table'");
        names.into_iter().map(|name| (name.clone(), rows(&connection, &format!("SELECT * FROM \"{name}\"")))).collect()
    }

    /// Every file in the folder, with its bytes.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.is_file()).map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }
}

impl Default for Workplace {
    fn default() -> Self {
        Self::new()
    }
}

/// The result of a query: a line for each row, values separated by `|`.
pub fn rows(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| {
        let values = (0..columns).map(|column| row.get(column).map(shown)).collect::<Result<Vec<_>, _>>()?;
        Ok(values.join("|"))
    };
    statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
}

fn shown(value: Sql) -> String {
    match value {
        Sql::Null => "NULL".into(),
        Sql::Integer(number) => number.to_string(),
        Sql::Real(number) => format!("{number:?}"),
        Sql::Text(text) => text,
        Sql::Blob(bytes) => format!("{bytes:02x?}"),
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    arguments: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn new(arguments: &str, output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let Output { status, stdout, stderr } = output;
        Self { arguments: arguments.into(), code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// What became of a command that has been started; it is killed if it has no end within `patience`.
    #[track_caller]
    pub fn of(arguments: &str, child: Child, patience: Duration) -> Self {
        Self::new(arguments, output_of(&format!("outbox {arguments}"), child, patience))
    }

    /// What it printed, after a check that it succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "outbox {}: {}", self.arguments, self.stderr);
        self.stdout
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(self) -> Json {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// Its message; it has to have failed, with the exit code 1, and to have printed nothing else.
    #[track_caller]
    pub fn refused(self) -> String {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "outbox {}: {}", self.arguments, self.stderr);
        let message = self.stderr.strip_prefix("error: ");
        message.unwrap_or_else(|| panic!("outbox {} said: {}", self.arguments, self.stderr)).trim_end().to_owned()
    }
}

/// A program that runs beside the test, a relay for example; killed when it is dropped.
pub struct Logged {
    child: Child,
    log: PathBuf,
}

impl Logged {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed and logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it has logged this.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) {
        until(&format!("it logs {text:?}"), || self.log().contains(text));
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its exit code, once it has ended. None if a signal ended it.
    #[track_caller]
    pub fn wait(&mut self) -> Option<i32> {
        let mut code = None;
        until("it ends", || {
            let ended = self.child.try_wait().unwrap();
            code = ended.and_then(|status| status.code());
            ended.is_some()
        });
        code
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Appends entries of some 1 KB in 100 streams.
pub fn fill(connection: &Connection, entries: u64) {
    let fill = format!(
        "WITH RECURSIVE entry(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM entry LIMIT {entries})
         INSERT INTO outbox (stream_id, name, data)
         SELECT 'order-' || (number % 100), 'order.placed', json_object('order', 42, 'filler', printf('%.1000c', 'x'))
         FROM entry"
    );
    connection.execute(&fill, []).unwrap();
}
