//! A store for several nodes: one PostgreSQL database, any number of processes, each account on one of them at a time.
//!
//! ```text
//!                  commit, trim, remove, leases            ┌─────────────┐ group: one transaction, two round trips
//!   any task ──┬──────────────────────────────── queue ──► │ writer task │ ─────────────────────────────────────┐
//!              │  reads of accounts with queued writes     └──────┬──────┘                                       ▼
//!              │      wait until those are done  ◄────────────────┘                                         PostgreSQL
//!              └─ all reads ──────────────────────────────────────────────────────────────────────── pool ───────┘
//! ```
//!
//! **Group commit.** The writer takes whatever is queued, up to 256 accounts or 4 MiB, into one transaction. All of its statements are sent
//! at once (each takes its rows as arrays, so there are at most eight, however many records), and then the commit: hundreds of accounts share
//! two round trips and one flush of the server's log. Who breaks a rule fails alone, and the rest is done again without it.
//!
//! **Leases** are rows with an end, by the clock of the server, that each store renews after a third of their time. A node that crashed is
//! succeeded when its leases have run out. The rows are read and locked in the transaction that writes: a node that was away for too
//! long and lost its lease cannot commit any more, whatever it believes, and a take-over waits for a commit that is under way.
//!
//! **Durability.** `commit` answers after the server's. `synchronous_commit` is switched on for our connections where it is off; a server
//! that waits for replicas, too, keeps doing so. When the connection breaks in mid-commit, the call fails and the batch may be stored or not:
//! start again from what is stored, as after any failure.
//!
//! Tables are made in the first schema of the search path, with names that begin with `wamd_`. Tested with PostgreSQL 15.

mod leases;
mod schema;
mod statements;
mod tls;
mod writer;

use std::{
    collections::HashMap,
    fmt,
    future::{Future, ready},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_postgres::{NoTls, error::SqlState};
use tokio_rustls::rustls::ClientConfig;

use self::{
    tls::Tls,
    writer::{Job, LeaseJob, Write, WriteJob},
};
use super::{AccountId, Batch, Key, Lease, OutboxEntry, RecordKind, Store, StoreError, StoreFuture, pending::Pending};

/// How to open a [`PostgresStore`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// What this node is called in refusals of others ([`StoreError::Leased`]). `process <pid>` by default.
    pub node: String,
    /// How long an account stays taken after its node has vanished. 30 s by default, renewed every 10 s; at least 1 s.
    pub lease: Duration,
    /// Connections of this store at most, one of which writes. 8 by default, at least 2.
    pub connections: usize,
    /// How long the server may take for one call, connecting included. 10 s by default.
    pub timeout: Duration,
    /// TLS, with roots of your choice. Whether it is used says `sslmode` in the address (`prefer` by default). `None` by
    /// default: then `sslmode=require` fails.
    pub tls: Option<Arc<ClientConfig>>,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            node: format!("process {}", std::process::id()),
            lease: Duration::from_secs(30),
            connections: 8,
            timeout: Duration::from_secs(10),
            tls: None,
        }
    }
}

/// A store in a PostgreSQL database. One for all accounts of the process: they share its transactions.
///
/// It lives on the tokio runtime on which it was opened. Dropping it finishes the queued writes in the background and
/// gives its accounts back; [`close`](Self::close) waits for that.
///
/// ```no_run
/// # async fn example() -> Result<(), wamd::store::StoreError> {
/// use wamd::store::PostgresStore;
///
/// let store = PostgresStore::connect("postgres://gateway@db.internal/wamd").await?;
/// # store.close().await;
/// # Ok(())
/// # }
/// ```
pub struct PostgresStore {
    shared: Arc<Shared>,
    queue: mpsc::UnboundedSender<Job>,
    writer: JoinHandle<()>,
}

/// What the store, its writer and its reads share.
struct Shared {
    pool: Pool,
    options: PostgresOptions,
    /// This store among all that use the database.
    owner: String,
    pending: Pending,
    /// The leases that this store believes to have.
    held: Mutex<HashMap<AccountId, Held>>,
    counters: Counters,
}

/// A lease that this store believes to have.
struct Held {
    token: i64,
    /// Dropped with the lease; told something when it was lost.
    loss: Option<oneshot::Sender<()>>,
}

/// What a [`PostgresStore`] has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresStats {
    /// Writes that succeeded: batches, trims and removals.
    pub writes: u64,
    /// Transactions that were committed. Below `writes` as far as writes shared one.
    pub transactions: u64,
}

/// The numbers of [`PostgresStats`].
#[derive(Default)]
struct Counters {
    writes: AtomicU64,
    transactions: AtomicU64,
}

impl PostgresStore {
    /// Opens a database with the default options. The address is a URL (`postgres://user@host/database`) or a list of settings
    /// (`host=/run/postgresql user=wamd dbname=wamd`), as for other clients.
    ///
    /// # Errors
    /// As [`connect_with`](Self::connect_with).
    pub async fn connect(address: &str) -> Result<Self, StoreError> {
        Self::connect_with(address, PostgresOptions::default()).await
    }

    /// Opens a database, and makes its tables or brings them up to date.
    ///
    /// # Errors
    /// [`StoreError::Backend`] if the address is none, or the server does not answer or refuses; [`StoreError::Incompatible`] if
    /// the tables are of a newer version.
    pub async fn connect_with(address: &str, options: PostgresOptions) -> Result<Self, StoreError> {
        let mut config: tokio_postgres::Config =
            address.parse().map_err(|_| StoreError::Backend("not an address of a PostgreSQL database".into()))?;
        config.connect_timeout(options.timeout);
        if config.get_application_name().is_none() {
            config.application_name("wamd");
        }
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match options.tls.clone() {
            Some(tls) => Manager::from_config(config, Tls(tls), recycling),
            None => Manager::from_config(config, NoTls, recycling),
        };
        let pool = Pool::builder(manager)
            .max_size(options.connections.max(2))
            .wait_timeout(Some(options.timeout))
            .create_timeout(Some(options.timeout))
            .recycle_timeout(Some(options.timeout))
            .runtime(Runtime::Tokio1)
            .post_create(deadpool_postgres::Hook::async_fn(|client, _| Box::pin(schema::settle(client))))
            .build()
            .map_err(|error| StoreError::Backend(error.to_string()))?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| StoreError::Backend(format!("no random bytes: {error}")))?;
        let shared = Arc::new(Shared {
            pool,
            options,
            owner: format!("{:016x}", u64::from_be_bytes(random)),
            pending: Pending::default(),
            held: Mutex::default(),
            counters: Counters::default(),
        });
        let client = shared.client().await?;
        shared.within(client, async |client| schema::migrate(client).await).await?;
        let (queue, jobs) = mpsc::unbounded_channel();
        let writer = tokio::spawn(writer::run(shared.clone(), jobs));
        Ok(Self { shared, queue, writer })
    }

    /// Finishes what is queued, gives all accounts back, and closes.
    pub async fn close(self) {
        drop(self.queue);
        let _ = self.writer.await;
    }

    /// What the store has done so far.
    pub fn stats(&self) -> PostgresStats {
        let Counters { writes, transactions } = &self.shared.counters;
        PostgresStats { writes: writes.load(Ordering::Relaxed), transactions: transactions.load(Ordering::Relaxed) }
    }

    /// Queues a write.
    fn write(&self, account: &AccountId, write: Write) -> StoreFuture<'static, ()> {
        let (reply, answer) = oneshot::channel();
        self.shared.pending.add(account);
        let _ = self.queue.send(Job::Write(WriteJob { account: account.clone(), write, reply }));
        Box::pin(async { answer.await.unwrap_or(Err(StoreError::Closed)) })
    }

    /// Ready when the writes are done that were queued before, of one account or of all.
    fn writes_done(&self, account: Option<&AccountId>) -> impl Future<Output = Result<(), StoreError>> + Send + use<> {
        let queued = self.shared.pending.concerns(account).then(|| {
            let (reply, done) = oneshot::channel();
            let _ = self.queue.send(Job::Barrier(reply));
            done
        });
        async {
            match queued {
                Some(done) => done.await.map_err(|_| StoreError::Closed),
                None => Ok(()),
            }
        }
    }
}

impl Store for PostgresStore {
    fn acquire<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, Lease> {
        let (reply, answer) = oneshot::channel();
        let queue = self.queue.downgrade();
        let _ = self.queue.send(Job::Lease(LeaseJob::Acquire { account: account.clone(), queue, reply }));
        Box::pin(async { answer.await.unwrap_or(Err(StoreError::Closed)) })
    }

    fn load<'a>(&'a self, account: &'a AccountId, keys: &'a [Key]) -> StoreFuture<'a, Vec<Option<Bytes>>> {
        let written = self.writes_done(Some(account));
        Box::pin(async move {
            written.await?;
            let client = self.shared.client().await?;
            self.shared.within(client, async |client| statements::load(client, account, keys).await).await
        })
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
        let written = self.writes_done(Some(account));
        Box::pin(async move {
            written.await?;
            let client = self.shared.client().await?;
            let scan = async |client: &Object| statements::scan(client, account, kind, from, limit).await;
            self.shared.within(client, scan).await
        })
    }

    fn commit(&self, account: &AccountId, batch: Batch) -> StoreFuture<'static, ()> {
        let out_of_range = batch.events.iter().find(|event| i64::try_from(event.seq).is_err());
        if let Some(OutboxEntry { seq, .. }) = out_of_range {
            return Box::pin(ready(Err(StoreError::Backend(format!("event number {seq} is out of range")))));
        }
        self.write(account, Write::Batch(batch))
    }

    fn outbox<'a>(&'a self, account: &'a AccountId, after: u64, limit: usize) -> StoreFuture<'a, Vec<OutboxEntry>> {
        let written = self.writes_done(Some(account));
        Box::pin(async move {
            written.await?;
            let client = self.shared.client().await?;
            self.shared.within(client, async |client| statements::outbox(client, account, after, limit).await).await
        })
    }

    fn trim_outbox<'a>(&'a self, account: &'a AccountId, through: u64) -> StoreFuture<'a, ()> {
        self.write(account, Write::Trim(through))
    }

    fn accounts(&self) -> StoreFuture<'_, Vec<AccountId>> {
        let written = self.writes_done(None);
        Box::pin(async move {
            written.await?;
            let client = self.shared.client().await?;
            self.shared.within(client, async |client| statements::accounts(client).await).await
        })
    }

    fn remove<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, ()> {
        self.write(account, Write::Remove)
    }
}

impl fmt::Debug for PostgresStore {
    /// Not the address: it may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("node", &self.shared.options.node).finish_non_exhaustive()
    }
}

impl Shared {
    /// A connection that works, as far as this end knows.
    async fn client(&self) -> Result<Object, StoreError> {
        self.pool.get().await.map_err(|error| match error {
            deadpool_postgres::PoolError::Backend(error) => store_error(&error),
            deadpool_postgres::PoolError::Timeout(_) => self.no_answer(),
            error => StoreError::Backend(error.to_string()),
        })
    }

    /// Works with a connection, within the time there is. One that failed in the middle of something is thrown away.
    async fn within<T>(
        &self,
        client: Object,
        work: impl AsyncFnOnce(&Object) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let answer = timeout(self.options.timeout, work(&client)).await;
        if !matches!(answer, Ok(Ok(_))) {
            drop(Object::take(client));
        }
        answer.unwrap_or_else(|_| Err(self.no_answer()))
    }

    fn no_answer(&self) -> StoreError {
        StoreError::Backend(format!("no answer of the server within {} s", self.options.timeout.as_secs_f32()))
    }

    fn held(&self) -> MutexGuard<'_, HashMap<AccountId, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a failure means, in its code: the message of a failure may quote what was written.
fn store_error(error: &tokio_postgres::Error) -> StoreError {
    match error.code() {
        Some(code) if [SqlState::DATA_CORRUPTED, SqlState::INDEX_CORRUPTED].contains(code) => {
            StoreError::Damaged(format!("SQLSTATE {}", code.code()))
        }
        Some(code) if [SqlState::UNDEFINED_TABLE, SqlState::UNDEFINED_COLUMN].contains(code) => {
            StoreError::Damaged("a table or column is missing".into())
        }
        Some(code) => StoreError::Backend(format!("SQLSTATE {}", code.code())),
        None => {
            let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
            StoreError::Backend(format!("{error}{cause}"))
        }
    }
}
