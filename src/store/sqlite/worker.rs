//! The two threads, their queues, and what they share with the callers.

use std::{
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use futures_channel::oneshot;
use rusqlite::Connection;

use super::{
    SqliteOptions, SqliteStats,
    leases::{Change, Leases},
    open,
    tables::{Failure, Reads, Write, Writes},
};
use crate::store::{AccountId, Key, Lease, OutboxEntry, RecordKind, StoreError, pending::Pending};

/// Writes of one transaction.
const GROUP_WRITES: usize = 256;

/// Bytes of one transaction, after which it takes no further write.
const GROUP_BYTES: usize = 4 << 20;

/// Quiet time before a checkpoint. Longer than the pauses inside a burst, short enough to keep the log small.
const IDLE: Duration = Duration::from_millis(250);

/// Where an answer goes. Nobody may be waiting any more: that is not an error.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A read and where its answer goes.
pub(super) enum Read {
    Load { account: AccountId, keys: Vec<Key>, reply: Reply<Vec<Option<Bytes>>> },
    Scan { account: AccountId, kind: RecordKind, from: Vec<u8>, limit: usize, reply: Reply<Vec<(Key, Bytes)>> },
    Outbox { account: AccountId, after: u64, limit: usize, reply: Reply<Vec<OutboxEntry>> },
    Accounts { reply: Reply<Vec<AccountId>> },
}

impl Read {
    /// Whose records or events it reads; `None` for all accounts.
    pub(super) fn account(&self) -> Option<&AccountId> {
        match self {
            Self::Load { account, .. } | Self::Scan { account, .. } | Self::Outbox { account, .. } => Some(account),
            Self::Accounts { .. } => None,
        }
    }
}

/// A write and where its answer goes.
pub(super) struct WriteJob {
    pub(super) account: AccountId,
    pub(super) write: Write,
    pub(super) reply: Reply<()>,
}

/// What the writer is asked for.
pub(super) enum Job {
    Write(WriteJob),
    /// A read of an account that had a write queued before.
    Read(Read),
    Lease(LeaseJob),
    Vacuum(Reply<()>),
}

/// What is done with the lease of an account.
pub(super) enum LeaseJob {
    /// With the way back for the release.
    Acquire {
        account: AccountId,
        queue: Weak<Sender<Job>>,
        reply: Reply<Lease>,
    },
    Release {
        account: AccountId,
        token: u64,
        reply: Reply<()>,
    },
}

/// A thread with a queue. Dropping it lets the thread finish what is queued, and waits for that.
pub(super) struct Worker<T> {
    queue: Option<Arc<Sender<T>>>,
    thread: Option<JoinHandle<()>>,
}

/// How a worker says that it is ready; what it returns before that is the reason why it is not.
pub(super) type Ready = Sender<Result<(), StoreError>>;

impl<T: Send + 'static> Worker<T> {
    /// Starts a thread and waits until it is ready.
    pub(super) fn spawn(
        name: &str,
        body: impl FnOnce(Receiver<T>, &Ready) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (queue, jobs) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let run = move || {
            if let Err(error) = body(jobs, &ready) {
                let _ = ready.send(Err(error));
            }
        };
        let thread = thread::Builder::new()
            .name(name.into())
            .spawn(run)
            .map_err(|error| StoreError::Backend(format!("cannot start a thread: {error}")))?;
        let worker = Self { queue: Some(Arc::new(queue)), thread: Some(thread) };
        started.recv().unwrap_or(Err(StoreError::Closed))?;
        Ok(worker)
    }
}

impl<T> Worker<T> {
    /// The queue, for who does not keep the worker running.
    pub(super) fn queue(&self) -> Weak<Sender<T>> {
        self.queue.as_ref().map(Arc::downgrade).unwrap_or_default()
    }

    /// Queues a job. One that finds no worker drops its reply, and so answers "closed".
    pub(super) fn send(&self, job: T) {
        if let Some(queue) = &self.queue {
            let _ = queue.send(job);
        }
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.queue = None;
        // An answer may wake the very owner of the store on a worker's thread; that one cannot wait for itself.
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id()) {
            let _ = thread.join();
        }
    }
}

/// The numbers of [`SqliteStats`].
#[derive(Default)]
pub(super) struct Counters {
    writes: AtomicU64,
    failed_writes: AtomicU64,
    transactions: AtomicU64,
    checkpoints: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> SqliteStats {
        SqliteStats {
            writes: self.writes.load(Ordering::Relaxed),
            failed_writes: self.failed_writes.load(Ordering::Relaxed),
            transactions: self.transactions.load(Ordering::Relaxed),
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
        }
    }
}

/// The reader thread.
pub(super) fn read(
    path: &Path,
    options: SqliteOptions,
    jobs: &Receiver<Read>,
    ready: &Ready,
) -> Result<(), StoreError> {
    let conn = open::reader(path, options)?;
    let mut reads = Reads::prepare(&conn)?;
    let _ = ready.send(Ok(()));
    for read in jobs {
        serve(&mut reads, read);
    }
    Ok(())
}

/// The writer thread.
pub(super) fn write(
    path: &Path,
    options: SqliteOptions,
    jobs: &Receiver<Job>,
    pending: &Pending,
    counters: &Counters,
    ready: &Ready,
) -> Result<(), StoreError> {
    let conn = open::writer(path, options)?;
    let (mut reads, mut writes) = (Reads::prepare(&conn)?, Writes::prepare(&conn)?);
    let _ = ready.send(Ok(()));
    let mut leases = Leases::new(path);
    let mut unchecked = false;
    let mut next_job = None;
    loop {
        let patience = if unchecked { Some(IDLE) } else { None };
        let first = match next_job.take().map_or_else(|| next(jobs, patience), Ok) {
            Ok(job) => job,
            Err(RecvTimeoutError::Timeout) => {
                checkpoint(&conn, counters);
                unchecked = false;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let first = match first {
            Job::Vacuum(reply) => {
                let _ = reply.send(vacuum(&conn));
                continue;
            }
            job => job,
        };
        let Gathered { group, reads: waiting, leases: taken, next: after } = gather(first, jobs);
        next_job = after;
        if !group.is_empty() {
            let results = apply(&mut writes, &leases, &group, counters);
            // Before the answers: who has one may read through the reader, which sees the transaction now.
            pending.done(group.iter().map(|job| &job.account));
            for (job, result) in group.into_iter().zip(results) {
                let _ = job.reply.send(result);
            }
            unchecked = true;
        }
        for read in waiting {
            serve(&mut reads, read);
        }
        if !taken.is_empty() {
            settle(&conn, &mut leases, taken);
        }
    }
    leases.close(&conn);
    Ok(())
}

fn next(jobs: &Receiver<Job>, patience: Option<Duration>) -> Result<Job, RecvTimeoutError> {
    match patience {
        Some(patience) => jobs.recv_timeout(patience),
        None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
    }
}

/// The writes of one transaction, the reads that come after it, then leases, and the first job after those.
#[derive(Default)]
struct Gathered {
    group: Vec<WriteJob>,
    reads: Vec<Read>,
    leases: Vec<LeaseJob>,
    next: Option<Job>,
}

/// Takes what is queued.
fn gather(first: Job, jobs: &Receiver<Job>) -> Gathered {
    let (mut gathered, mut bytes) = (Gathered::default(), 0_usize);
    let mut job = Some(first);
    while let Some(taken) = job {
        match taken {
            Job::Lease(lease) => gathered.leases.push(lease),
            after if !gathered.leases.is_empty() || matches!(after, Job::Vacuum(_)) => {
                gathered.next = Some(after);
                break;
            }
            Job::Write(write) => {
                bytes = bytes.saturating_add(write.write.size());
                gathered.group.push(write);
            }
            Job::Read(read) => gathered.reads.push(read),
            // It was left for later above.
            Job::Vacuum(_) => {}
        }
        let most = gathered.group.len().max(gathered.reads.len()).max(gathered.leases.len());
        job = if most >= GROUP_WRITES || bytes >= GROUP_BYTES { None } else { jobs.try_recv().ok() };
    }
    gathered
}

/// Applies a group in one transaction; if that fails, each write in one of its own. One result per write, in order.
fn apply(
    writes: &mut Writes<'_>,
    leases: &Leases,
    group: &[WriteJob],
    counters: &Counters,
) -> Vec<Result<(), StoreError>> {
    let mut transaction = |jobs: &[WriteJob]| {
        let result = writes.transaction(leases, jobs.iter().map(|job| (&job.account, &job.write)));
        if result.is_ok() {
            counters.transactions.fetch_add(1, Ordering::Relaxed);
            counters.writes.fetch_add(jobs.len() as u64, Ordering::Relaxed);
        }
        result
    };
    let results: Vec<_> = match transaction(group) {
        Ok(()) => vec![Ok(()); group.len()],
        // Another process holds the lock, or the file is gone: to ask again for each would multiply the wait.
        Err(Failure::Begin(error)) => vec![Err(error); group.len()],
        Err(Failure::Inside(error)) if group.len() == 1 => vec![Err(error)],
        Err(Failure::Inside(_)) => group
            .chunks(1)
            .map(|job| transaction(job).map_err(|(Failure::Begin(error) | Failure::Inside(error))| error))
            .collect(),
    };
    let failed = results.iter().filter(|result| result.is_err()).count();
    counters.failed_writes.fetch_add(failed as u64, Ordering::Relaxed);
    results
}

/// Takes accounts and gives some back.
fn settle(conn: &Connection, leases: &mut Leases, mut jobs: Vec<LeaseJob>) {
    // Who gave up before the next one asked is not in its way.
    jobs.retain(|job| !matches!(job, LeaseJob::Acquire { reply, .. } if reply.is_canceled()));
    let changes: Vec<_> = jobs
        .iter()
        .map(|job| match job {
            LeaseJob::Acquire { account, .. } => Change::Acquire(account),
            LeaseJob::Release { account, token, .. } => Change::Release(account, token.cast_signed()),
        })
        .collect();
    let results = leases.settle(conn, &changes);
    for (job, result) in jobs.into_iter().zip(results) {
        match job {
            LeaseJob::Acquire { account, queue, reply } => {
                let lease = result.map(|token| {
                    let account = account.clone();
                    Lease::new(token, move || super::release(&queue, account, token))
                });
                // Nobody waits for it any more. Dropping it would queue the release behind who asks for the account next.
                if let Err(Ok(lease)) = reply.send(lease) {
                    leases.settle(conn, &[Change::Release(&account, lease.token().cast_signed())]);
                }
            }
            LeaseJob::Release { reply, .. } => drop(reply.send(result.map(drop))),
        }
    }
}

fn serve(reads: &mut Reads<'_>, read: Read) {
    // Who gave up on an answer does not need the work.
    match read {
        Read::Load { account, keys, reply } if !reply.is_canceled() => drop(reply.send(reads.load(&account, &keys))),
        Read::Scan { account, kind, from, limit, reply } if !reply.is_canceled() => {
            drop(reply.send(reads.scan(&account, kind, &from, limit)));
        }
        Read::Outbox { account, after, limit, reply } if !reply.is_canceled() => {
            drop(reply.send(reads.outbox(&account, after, limit)));
        }
        Read::Accounts { reply } if !reply.is_canceled() => drop(reply.send(reads.accounts())),
        _ => {}
    }
}

/// Gives back what is free in the file.
fn vacuum(conn: &Connection) -> Result<(), StoreError> {
    let run = || {
        conn.execute_batch("VACUUM")?;
        conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
    };
    run().map_err(|error| super::store_error(&error))
}

/// Moves the log into the file, as far as no reader needs it. What is left is moved the next time.
fn checkpoint(conn: &Connection, counters: &Counters) {
    match conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        Ok(()) => drop(counters.checkpoints.fetch_add(1, Ordering::Relaxed)),
        // The commits in the log stay valid; a failing disk shows in the next one.
        Err(error) => tracing::warn!(error = %super::store_error(&error), "checkpoint failed"),
    }
}
