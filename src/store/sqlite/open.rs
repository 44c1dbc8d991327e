//! From a path to a connection that may be used: file, identity, health, settings, schema.
//!
//! Nothing is written to a file before it is known to be ours or empty.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use super::{SqliteOptions, Synchronous, store_error};
use crate::store::StoreError;

/// `wamd` in ASCII, in the file's header: `file(1)` shows it, and a database of another program is refused.
const APPLICATION_ID: i32 = 0x7761_6d64;

/// The schema. Step `n` leads from `user_version` `n` to `n + 1`; a step that was released never changes.
const STEPS: &[&str] = &[
    // Accounts have a number because their names would stand in every row. Rows without rowid are one search, not two.
    "CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
     CREATE TABLE record (
         account INTEGER NOT NULL, kind INTEGER NOT NULL, id BLOB NOT NULL, value BLOB NOT NULL,
         PRIMARY KEY (account, kind, id)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE outbox (
         account INTEGER NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL,
         PRIMARY KEY (account, seq)
     ) STRICT, WITHOUT ROWID;",
    // By name: an account may be taken before it has a record. AUTOINCREMENT, because a token is never given again.
    "CREATE TABLE lease (
         token INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL UNIQUE, owner TEXT NOT NULL
     ) STRICT;",
];

/// Page cache of each connection, in KiB (SQLite's sign convention): the working set of a few thousand sessions.
const CACHE_SIZE: i32 = -8_192;

/// Pages of log (16 MiB) after which a commit makes a checkpoint itself, when the writer is never idle.
const AUTOCHECKPOINT: i32 = 4_096;

/// Makes sure that the file is there, and answers its absolute path.
///
/// An existing file is not opened: closing it would release the locks which this process holds on it elsewhere
/// (POSIX advisory locks belong to the process, not to the descriptor).
pub(super) fn create_file(path: &Path) -> Result<PathBuf, StoreError> {
    let io_error = |error: io::Error| StoreError::Backend(format!("cannot create the file: {error}"));
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        private_directory().create(directory).map_err(io_error)?;
    }
    match private_file().open(path) {
        Ok(file) => drop::<File>(file),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io_error(error)),
    }
    // Absolute, so that SQLite finds no special meaning in it.
    fs::canonicalize(path).map_err(io_error)
}

/// The connection of the writer, on a file whose schema is up to date.
pub(super) fn writer(path: &Path, options: SqliteOptions) -> Result<Connection, StoreError> {
    let conn = connect(path, options)?;
    identify(&conn)?;
    if options.quick_check {
        check(&conn)?;
    }
    configure(&conn, options).map_err(|error| store_error(&error))?;
    migrate(&conn)?;
    Ok(conn)
}

/// The connection of the reader, on a file that the writer has opened.
pub(super) fn reader(path: &Path, options: SqliteOptions) -> Result<Connection, StoreError> {
    let conn = connect(path, options)?;
    let settings = || {
        conn.pragma_update(None, "query_only", true)?;
        conn.pragma_update(None, "temp_store", "MEMORY")?;
        conn.pragma_update(None, "cache_size", CACHE_SIZE)
    };
    settings().map_err(|error| store_error(&error))?;
    Ok(conn)
}

pub(super) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

fn private_directory() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

fn connect(path: &Path, options: SqliteOptions) -> Result<Connection, StoreError> {
    // Each connection stays on one thread. No CREATE: the file is there, and if not any more, something is wrong.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || {
        let conn = Connection::open_with_flags(path, flags)?;
        conn.busy_timeout(options.busy_timeout)?;
        Ok(conn)
    };
    open().map_err(|error| store_error(&error))
}

/// The version of a file that is ours or empty.
fn identify(conn: &Connection) -> Result<usize, StoreError> {
    let read = || -> rusqlite::Result<(i32, i32, i64)> {
        let application = conn.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let version = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let objects = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((application, version, objects))
    };
    match read() {
        Ok((0, 0, 0)) => Ok(0),
        Ok((APPLICATION_ID, version, _)) => match usize::try_from(version) {
            Ok(version) if version <= STEPS.len() => Ok(version),
            _ => Err(StoreError::Incompatible(format!("version {version}, at most {} is known", STEPS.len()))),
        },
        Ok((application, ..)) => Err(StoreError::Incompatible(format!("application id {application:#010x}"))),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            Err(StoreError::Incompatible("the file is not an SQLite database".into()))
        }
        Err(error) => Err(store_error(&error)),
    }
}

/// Reads every page.
fn check(conn: &Connection) -> Result<(), StoreError> {
    let verdict: String =
        conn.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(|error| store_error(&error))?;
    // The complaint names trees and pages. What it says of a row is its number.
    if verdict == "ok" { Ok(()) } else { Err(StoreError::Damaged(verdict.chars().take(200).collect())) }
}

fn configure(conn: &Connection, options: SqliteOptions) -> rusqlite::Result<()> {
    let mode = write_ahead(conn, options.busy_timeout)?;
    if mode != "wal" {
        tracing::warn!(mode, "no write-ahead log on this file system: commits will be slow");
    }
    let synchronous = match options.synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    conn.pragma_update(None, "synchronous", synchronous)?;
    // On macOS an fsync leaves the data in the drive's cache; elsewhere these do nothing.
    conn.pragma_update(None, "fullfsync", options.synchronous == Synchronous::Full)?;
    conn.pragma_update(None, "checkpoint_fullfsync", true)?;
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "cache_size", CACHE_SIZE)?;
    conn.pragma_update_and_check(None, "wal_autocheckpoint", AUTOCHECKPOINT, |_| Ok(()))?;
    conn.pragma_update_and_check(None, "secure_delete", "FAST", |_| Ok(()))
}

/// Switches to a write-ahead log. The switch needs the file for itself and does not wait for it: SQLite's busy timeout
/// does not cover the case that another process switches at the same time.
fn write_ahead(conn: &Connection, patience: Duration) -> rusqlite::Result<String> {
    let start = Instant::now();
    loop {
        match conn.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0)) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && start.elapsed() < patience => {
                thread::sleep(Duration::from_millis(10));
            }
            answer => return answer,
        }
    }
}

/// Brings the schema up to date, in one transaction. Of two processes that try, the second finds it done.
fn migrate(conn: &Connection) -> Result<(), StoreError> {
    if identify(conn)? == STEPS.len() {
        return Ok(());
    }
    let begin = || Transaction::new_unchecked(conn, TransactionBehavior::Immediate);
    let transaction = begin().map_err(|error| store_error(&error))?;
    let version = identify(&transaction)?;
    let apply = || -> rusqlite::Result<()> {
        for step in STEPS.iter().skip(version) {
            transaction.execute_batch(step)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", STEPS.len() as i64)
    };
    apply().map_err(|error| store_error(&error))?;
    transaction.commit().map_err(|error| store_error(&error))
}
