//! The embedded default store: one SQLite file for all accounts of a process.
//!
//! ```text
//!                  commit, trim, remove                      ┌──────────────┐ group: one transaction, one fsync
//!   any thread ──┬──────────────────────────────── queue ──► │ writer thread│ ───────────────────────────────┐
//!                │  reads of accounts with queued writes ──► └──────────────┘                                ▼
//!                │                                           ┌──────────────┐                           file + WAL
//!                └─ all other reads ────────────── queue ──► │ reader thread│ ◄──────────────────────────────┘
//!                                                            └──────────────┘
//! ```
//!
//! **Group commit.** The writer takes whatever is queued, up to 256 writes or 4 MiB, into one transaction: under load
//! hundreds of accounts share one fsync, alone a batch waits for nobody. If such a transaction fails, each of its
//! writes gets one of its own, so that a bad batch fails alone.
//!
//! **Reads** see every batch queued before them: a read of an account that has writes under way lines up behind them
//! at the writer, any other goes to the reader at once and does not wait for a stranger's fsync. (`benches/store.rs`,
//! `load_5_while_others_commit`: 50 µs on two busy cores, and 5 ms if the
//! writer served all reads.)
//!
//! **Durability.** The file is in WAL mode. With [`Synchronous::Full`] (the default) a batch is on the disk before
//! `commit` answers. The log is checkpointed when the writer has been idle for a moment, or when it grows past 16 MiB.
//!
//! Deleted records are overwritten with zeros where that costs no further write (`secure_delete = FAST`); the log and
//! backups may keep old values for a while. Pages that deletions empty are used again by what is written next, so the file stops growing
//! once what ages out and what comes in are in balance; [`SqliteStore::vacuum`] makes it small again after many accounts were removed.
//!
//! **Leases.** Several processes may open one file, for different accounts. Which of them runs an account stands in the file; that it lives is
//! said by a lock of the operating system on a small file beside the database, `<database>-owner-<id>`. Another process is refused as long as
//! that one lives ([`StoreError::Leased`]), and not a moment longer, however it ends.

mod leases;
mod open;
mod tables;
mod worker;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Weak, mpsc::Sender},
    time::Duration,
};

use bytes::Bytes;
use futures_channel::oneshot;
use rusqlite::ErrorCode;

use self::{
    tables::Write,
    worker::{Counters, Job, LeaseJob, Read, Reply, Worker, WriteJob},
};
use super::{AccountId, Batch, Key, Lease, OutboxEntry, RecordKind, Store, StoreError, StoreFuture, pending::Pending};

/// When a commit counts as durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// After an fsync of the log: the batch survives a crash of the process, of the system, and a power failure.
    #[default]
    Full,
    /// Once the operating system has it: several times faster for a single account, and the file stays whole
    /// whatever happens; but a power failure or system crash may take back the last commits. An account that then goes
    /// on from its older state may use a message key twice. For tests and accounts that may be linked anew.
    Normal,
}

/// How to open a [`SqliteStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// When a commit counts as durable. [`Synchronous::Full`] by default.
    pub synchronous: Synchronous,
    /// How long to wait for another process that holds the file's lock, before an operation fails. 5 s by default.
    pub busy_timeout: Duration,
    /// Whether to read the whole file on opening and refuse a damaged one. True by default; the time it takes
    /// grows with the file.
    pub quick_check: bool,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { synchronous: Synchronous::Full, busy_timeout: Duration::from_secs(5), quick_check: true }
    }
}

/// What a [`SqliteStore`] has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SqliteStats {
    /// Writes that succeeded: batches, trims and removals.
    pub writes: u64,
    /// Writes that failed.
    pub failed_writes: u64,
    /// Transactions that were committed. Below `writes` as far as writes shared one.
    pub transactions: u64,
    /// Checkpoints made while idle.
    pub checkpoints: u64,
}

/// A store in an SQLite file. One for all accounts of the process: they share its transactions.
///
/// Needs no async runtime. Dropping it finishes the queued writes and joins its two threads: it blocks for as long as
/// the last transactions take.
pub struct SqliteStore {
    path: PathBuf,
    // Dropped in this order: the writer's connection is the last one, and leaves a file without a log.
    reader: Worker<Read>,
    writer: Worker<Job>,
    pending: Arc<Pending>,
    counters: Arc<Counters>,
}

impl SqliteStore {
    /// Opens a file with the default options; creates it, readable by its owner only, and its directory if they do not
    /// exist. Blocks: it reads the whole file once.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open_with(path, SqliteOptions::default())
    }

    /// Opens a file. The path is taken literally: there is no `:memory:` and no `file:` URI.
    ///
    /// # Errors
    /// [`StoreError::Incompatible`] if the file is no database, one of another program, or written by a newer version;
    /// [`StoreError::Damaged`] if it is inconsistent; [`StoreError::Backend`] if it cannot be opened or is locked.
    pub fn open_with(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, StoreError> {
        let path = open::create_file(path.as_ref())?;
        let (pending, counters) = (Arc::new(Pending::default()), Arc::new(Counters::default()));
        // The writer first: it brings the schema up to date.
        let writer = Worker::spawn("wamd-store-writer", {
            let (path, pending, counters) = (path.clone(), pending.clone(), counters.clone());
            move |jobs, ready| worker::write(&path, options, &jobs, &pending, &counters, ready)
        })?;
        let reader = Worker::spawn("wamd-store-reader", {
            let path = path.clone();
            move |jobs, ready| worker::read(&path, options, &jobs, ready)
        })?;
        Ok(Self { path, reader, writer, pending, counters })
    }

    /// The file's absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the store has done so far.
    pub fn stats(&self) -> SqliteStats {
        self.counters.read()
    }

    /// Gives the free pages of the file back to the file system, and leaves nothing of what was deleted. Writes the whole file anew: it needs
    /// as much free space again, and writes wait for it meanwhile.
    ///
    /// # Errors
    /// [`StoreError::Backend`], when the disk is full for example; the file is then as it was.
    pub fn vacuum(&self) -> StoreFuture<'static, ()> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(Job::Vacuum(reply));
        wait(answer)
    }

    /// Queues a write.
    fn write(&self, account: &AccountId, write: Write) -> StoreFuture<'static, ()> {
        let (reply, answer) = oneshot::channel();
        self.pending.add(account);
        self.writer.send(Job::Write(WriteJob { account: account.clone(), write, reply }));
        wait(answer)
    }

    /// Queues a read: behind the writes that it must see, if there are any.
    fn read<T: Send + 'static>(&self, read: impl FnOnce(Reply<T>) -> Read) -> StoreFuture<'static, T> {
        let (reply, answer) = oneshot::channel();
        let read = read(reply);
        if self.pending.concerns(read.account()) {
            self.writer.send(Job::Read(read));
        } else {
            self.reader.send(read);
        }
        wait(answer)
    }
}

impl Store for SqliteStore {
    fn acquire<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, Lease> {
        let (reply, answer) = oneshot::channel();
        let acquire = LeaseJob::Acquire { account: account.clone(), queue: self.writer.queue(), reply };
        self.writer.send(Job::Lease(acquire));
        wait(answer)
    }

    fn load<'a>(&'a self, account: &'a AccountId, keys: &'a [Key]) -> StoreFuture<'a, Vec<Option<Bytes>>> {
        self.read(|reply| Read::Load { account: account.clone(), keys: keys.to_vec(), reply })
    }

    fn scan<'a>(&'a self, account: &'a AccountId, kind: RecordKind) -> StoreFuture<'a, Vec<(Key, Bytes)>> {
        self.scan_part(account, kind, &[], usize::MAX)
    }

    fn scan_part<'a>(
        &'a self,
        account: &'a AccountId,
        kind: RecordKind,
        from: &'a [u8],
        limit: usize,
    ) -> StoreFuture<'a, Vec<(Key, Bytes)>> {
        self.read(|reply| Read::Scan { account: account.clone(), kind, from: from.to_vec(), limit, reply })
    }

    fn commit(&self, account: &AccountId, batch: Batch) -> StoreFuture<'static, ()> {
        self.write(account, Write::Batch(batch))
    }

    fn outbox<'a>(&'a self, account: &'a AccountId, after: u64, limit: usize) -> StoreFuture<'a, Vec<OutboxEntry>> {
        self.read(|reply| Read::Outbox { account: account.clone(), after, limit, reply })
    }

    fn trim_outbox<'a>(&'a self, account: &'a AccountId, through: u64) -> StoreFuture<'a, ()> {
        self.write(account, Write::Trim(through))
    }

    fn accounts(&self) -> StoreFuture<'_, Vec<AccountId>> {
        self.read(|reply| Read::Accounts { reply })
    }

    fn remove<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, ()> {
        self.write(account, Write::Remove)
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Queues the release of a lease. A store that is closed has released all.
fn release(queue: &Weak<Sender<Job>>, account: AccountId, token: u64) -> StoreFuture<'static, ()> {
    let (reply, answer) = oneshot::channel();
    match queue.upgrade().map(|queue| queue.send(Job::Lease(LeaseJob::Release { account, token, reply }))) {
        Some(Ok(())) => wait(answer),
        Some(Err(_)) | None => Box::pin(std::future::ready(Ok(()))),
    }
}

/// The answer of a worker; one that is gone answers [`StoreError::Closed`].
fn wait<T: Send + 'static>(answer: oneshot::Receiver<Result<T, StoreError>>) -> StoreFuture<'static, T> {
    Box::pin(async move { answer.await.unwrap_or(Err(StoreError::Closed)) })
}

/// What an SQLite failure means, in SQLite's fixed words: the message of a failure may quote what was written.
fn store_error(error: &rusqlite::Error) -> StoreError {
    let Some(failure) = error.sqlite_error() else {
        // Only reading a row fails otherwise, and only if a column is not what the schema says.
        return StoreError::Damaged("a column is of an unexpected type".into());
    };
    match failure.code {
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Damaged(failure.to_string()),
        _ => StoreError::Backend(failure.to_string()),
    }
}
