//! A PostgreSQL server of the tests' own: in a folder of its own, on a free port, without privileges, and gone with the
//! test process, however that ends.

use std::env;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Config, NoTls};

/// How long the server may take to start.
const START_MAX: Duration = Duration::from_secs(60);
/// How long to wait between two looks whether it has.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
/// The user in the database: neither superuser nor anything else.
const USER: &str = "app";

/// Ends the server when the test process has gone, and with it the other end of this script's input; and removes the folder.
const KEEPER: &str = r#"
folder=$1; shift
exec 3<&0
"$@" </dev/null >"$folder/log" 2>&1 &
read -r _ <&3
kill -QUIT $!
wait $!
rm -rf "$folder"
"#;

/// A running server.
pub struct Server {
    folder: PathBuf,
    port: u16,
    _keeper: Child,
}

/// The test process's server. None if this machine has no PostgreSQL: that is noted among what was skipped.
pub fn server() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER
        .get_or_init(|| match binaries() {
            Some(binaries) => Some(Server::start(&binaries)),
            None => {
                skipped("PostgreSQL: no initdb and postgres in PATH or /usr/lib/postgresql (Debian: postgresql)");
                None
            }
        })
        .as_ref()
}

/// The folder with the newest server's programs.
fn binaries() -> Option<PathBuf> {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = installed.map(|folder| folder.path().join("bin")).collect();
    folders.sort_by_key(|folder| {
        let version = folder.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse::<u32>().ok());
        std::cmp::Reverse(version)
    });
    let path = env::var_os("PATH").unwrap_or_default();
    folders.extend(env::split_paths(&path));
    folders.into_iter().find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
}

/// Notes that something was not tested, as `make test` reports it.
fn skipped(what: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/skipped");
    let noted = fs::create_dir_all(&folder)
        .and_then(|()| fs::OpenOptions::new().create(true).append(true).open(folder.join("tests")))
        .and_then(|mut file| writeln!(file, "{what}"));
    noted.unwrap();
}

impl Server {
    fn start(binaries: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("outbox-pg-").tempdir().unwrap().keep();
        let owner = owner(&folder);
        if let Some((uid, gid)) = owner {
            chown(&folder, Some(uid), Some(gid)).unwrap();
        }
        let data = folder.join("data");
        let as_owner = |program: &Path| {
            let mut command = Command::new(program);
            if let Some((uid, gid)) = owner {
                command.uid(uid).gid(gid);
            }
            command.current_dir(&folder).env("LC_ALL", "C.UTF-8").env("HOME", &folder);
            command
        };
        let mut initdb = as_owner(&binaries.join("initdb"));
        initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C.UTF-8", "--username=admin", "--auth=trust", "-D"]);
        let made = initdb.arg(&data).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = format!(
            "port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{folder}'\nfsync = off\n\
             max_connections = 300\nmax_prepared_transactions = 10\nshared_buffers = 64MB\n",
            folder = folder.display()
        );
        fs::write(data.join("postgresql.auto.conf"), settings).unwrap();
        let mut keeper = as_owner(Path::new("/bin/sh"));
        keeper.args(["-c", KEEPER, "keeper"]).arg(&folder).arg(binaries.join("postgres")).arg("-D").arg(&data);
        let keeper = keeper.stdin(Stdio::piped()).process_group(0).spawn().unwrap();
        let server = Self { folder, port, _keeper: keeper };
        server.await_start();
        server.run("admin", "postgres", &format!("CREATE ROLE {USER} LOGIN"));
        server.run("admin", "postgres", &format!("CREATE DATABASE {USER} OWNER {USER}"));
        server
    }

    /// The connection string of an ordinary user.
    pub fn url(&self) -> String {
        self.url_of(USER, USER)
    }

    fn url_of(&self, user: &str, database: &str) -> String {
        format!("host={} port={} user={user} dbname={database}", self.folder.display(), self.port)
    }

    fn await_start(&self) {
        let until = Instant::now() + START_MAX;
        while let Err(error) = connect(&self.url_of("admin", "postgres")) {
            let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < until, "the server does not start: {error}\n{}", log());
            std::thread::sleep(LOOK_PAUSE);
        }
    }

    fn run(&self, user: &str, database: &str, sql: &str) {
        Session::of(&self.url_of(user, database)).run(sql);
    }

    /// Ends the server's process that serves this connection, as an administrator might.
    pub fn terminate(&self, pid: i32) {
        self.run("admin", "postgres", &format!("SELECT pg_terminate_backend({pid})"));
    }
}

/// Whom the server runs as: it refuses to be root.
fn owner(folder: &Path) -> Option<(u32, u32)> {
    if fs::metadata(folder).unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(ids("postgres").or_else(|| ids("nobody")).unwrap_or((65_534, 65_534)))
}

fn connect(url: &str) -> Result<(tokio::runtime::Runtime, Client), tokio_postgres::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config: Config = url.parse().unwrap();
    let (client, connection) = runtime.block_on(config.connect(NoTls))?;
    runtime.spawn(async move {
        let _ = connection.await;
    });
    Ok((runtime, client))
}

/// A connection of an application's.
pub struct Session {
    runtime: tokio::runtime::Runtime,
    /// What it calls.
    pub client: Client,
}

impl Session {
    /// A connection to this database.
    pub fn of(url: &str) -> Self {
        let (runtime, client) = connect(url).unwrap();
        Self { runtime, client }
    }

    /// Waits for something that the client does.
    pub fn wait<T>(&self, answer: impl Future<Output = T>) -> T {
        self.runtime.block_on(answer)
    }

    /// Runs statements.
    pub fn run(&self, sql: &str) {
        self.wait(self.client.batch_execute(sql)).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The number that a statement returns.
    pub fn number(&self, sql: &str) -> i64 {
        self.wait(self.client.query_one(sql, &[])).unwrap_or_else(|error| panic!("{sql}: {error:?}")).get(0)
    }
}
