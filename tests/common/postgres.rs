//! Throw-away PostgreSQL servers, from Debian's package or whatever is installed.
#![allow(dead_code, reason = "not every program uses all of it")]

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use tempfile::TempDir;

/// A server with its data in a directory of its own; stopped and removed when it is dropped.
pub(crate) struct Cluster {
    directory: TempDir,
    programs: PathBuf,
    databases: AtomicU32,
}

/// The server that the tests of a program share, while one of them runs.
static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

impl Cluster {
    /// A server that other tests use, too. `None`, with a line that says so, where PostgreSQL is not installed.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = shared.upgrade() {
            return Some(cluster);
        }
        let cluster = Arc::new(Self::start(&[])?);
        *shared = Arc::downgrade(&cluster);
        Some(cluster)
    }

    /// A server of one's own, with settings.
    pub(crate) fn start(settings: &[&str]) -> Option<Self> {
        let Some(programs) = programs() else {
            // Past the test harness, which shows nothing of a test that succeeds.
            let _ = std::io::stderr().write_all(b"skipped: PostgreSQL is not installed (apt-get install postgresql)\n");
            return None;
        };
        let directory = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        let cluster = Self { directory, programs, databases: AtomicU32::new(0) };
        private_to_the_server(&[cluster.path()]);
        let data = cluster.path().join("data");
        let arguments = ["--username=wamd", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "-D"];
        cluster.run("initdb", |command| command.args(arguments).arg(&data));
        // What the system has written survives a crash of the server: only a power failure would need the flushes.
        let socket =
            format!("unix_socket_directories = '{}'\nlisten_addresses = ''\nfsync = off\n", cluster.path().display());
        let file = data.join("postgresql.conf");
        let text = fs::read_to_string(&file).unwrap() + &socket + &settings.join("\n") + "\n";
        fs::write(&file, text).unwrap();
        cluster.up();
        Some(cluster)
    }

    /// Where its files are.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the server.
    pub(crate) fn up(&self) {
        let (data, log) = (self.path().join("data"), self.path().join("log"));
        self.run("pg_ctl", |command| command.args(["start", "-w", "-s", "-D"]).arg(data).arg("-l").arg(log));
    }

    /// Stops the server as a crash would: it recovers from its log at the next start.
    pub(crate) fn crash(&self) {
        let data = self.path().join("data");
        self.run("pg_ctl", |command| command.args(["stop", "-m", "immediate", "-s", "-D"]).arg(data));
    }

    /// A new database; its address.
    pub(crate) async fn database(&self) -> String {
        let name = format!("test{}", self.databases.fetch_add(1, Ordering::Relaxed));
        sql(&self.address("postgres"), &format!("CREATE DATABASE {name}")).await;
        self.address(&name)
    }

    fn address(&self, database: &str) -> String {
        format!("host={} user=wamd dbname={database}", self.path().display())
    }

    /// A program of the server, as another user if this is root: the server refuses to be root.
    fn command(&self, program: &str) -> Command {
        let path = self.programs.join(program);
        let mut command = match is_root() {
            true => Command::new("runuser"),
            false => Command::new(&path),
        };
        if is_root() {
            command.args(["-u", "postgres", "--"]).arg(path);
        }
        command.current_dir(self.path()).env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn run(&self, program: &str, arguments: impl FnOnce(&mut Command) -> &mut Command) {
        let mut command = self.command(program);
        let status = arguments(&mut command).status().unwrap();
        let log = || fs::read_to_string(self.path().join("log")).unwrap_or_default();
        assert!(status.success(), "{program}: {status}\n{}", log());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.path().join("data");
        let mut stop = self.command("pg_ctl");
        let _ = stop.args(["stop", "-m", "immediate", "-s", "-D"]).arg(data).stderr(Stdio::null()).status();
    }
}

/// Gives files and directories to the user that the server runs as, if there is such a user; nobody else may read them.
pub(crate) fn private_to_the_server(paths: &[&Path]) {
    for path in paths {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = if path.is_dir() { 0o700 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        if is_root() && programs().is_some() {
            assert!(Command::new("chown").arg("postgres").arg(path).status().unwrap().success());
        }
    }
}

/// Runs statements beside the store.
pub(crate) async fn sql(address: &str, statements: &str) {
    let (client, connection) = tokio_postgres::connect(address, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute(statements).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
}

/// Where the programs of the newest server are.
fn programs() -> Option<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql").ok().into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
    found.sort();
    let path = env::var_os("PATH").unwrap_or_default();
    found.reverse();
    found.extend(env::split_paths(&path));
    found.into_iter().find(|directory| directory.join("initdb").exists() && directory.join("pg_ctl").exists())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}
