//! Many accounts in one process, over one store, with one consumer of their events.
//!
//! ```text
//!   start, stop, remove            ┌─────────┐
//!   ──────────────────► Fleet ────►│ account │──┐                     shared: the store and its writer, TLS roots and
//!                         │        ├─────────┤  │ events              configuration, the threads for long work (one
//!                         │        │ account │──┼───────► FleetEvents job per core), the runtime's timers
//!                         │        ├─────────┤  │
//!                      places      │   …     │──┘
//!                   to connect     └─────────┘
//! ```
//!
//! ```no_run
//! # async fn example() -> Result<(), wamd::Error> {
//! use wamd::{client::Fleet, store::{AccountId, SqliteStore}};
//!
//! let fleet = Fleet::builder(SqliteStore::open("accounts.db")?).build()?;
//! let mut events = fleet.events()?;
//! fleet.start_all().await?;
//! fleet.start(&AccountId::new("a new one")).await?.link_qr().await?;
//! while let Some(delivery) = events.next().await {
//!     println!("{}", delivery.envelope().to_json());
//!     delivery.acknowledge();
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What is done with one account waits for what is being done with it, and with no other. The consumer of the events is shared:
//! one that is slow slows all accounts, and loses nothing. What it has not acknowledged of an account that is stopped and started
//! comes again, with the same `eventId`. An account that has too many events unacknowledged
//! ([`Config::max_unacknowledged`]) is not read from the network any more, whatever the others do.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, future::join_all, stream};
use tokio::sync::{Mutex as AsyncMutex, mpsc};
use tokio_rustls::rustls::{ClientConfig, client::Resumption};

use super::{
    Client, ClientBuilder, Delivery, Error, Proxy, VersionProvider, network::default_tls, socket::DEFAULT_URL,
};
use crate::{
    crypto::PublicKey,
    engine::Config,
    event::SessionState,
    store::{AccountId, Store},
};

/// Events of all accounts that wait in the channel to the consumer; more wait in the store.
const DEFAULT_EVENT_CAPACITY: usize = 1_024;
/// Accounts that connect at a time.
const DEFAULT_CONNECTING: usize = 32;
/// Between one account that begins to connect and the next.
const DEFAULT_PACE: Duration = Duration::from_millis(20);
/// How long an account that connects keeps others from it.
const PLACE: Duration = Duration::from_secs(30);

/// Changes the configuration of one account.
type Configure = dyn Fn(&mut Config) + Send + Sync;

/// Describes a [`Fleet`]; made by [`Fleet::builder`]. What it says holds for every account;
/// [`Fleet::start_with`] changes it for one.
pub struct FleetBuilder {
    store: Arc<dyn Store>,
    url: String,
    tls: Option<Arc<ClientConfig>>,
    proxy: Option<Proxy>,
    versions: Option<Arc<dyn VersionProvider>>,
    configure: Vec<Box<Configure>>,
    event_capacity: usize,
    connecting: usize,
    pace: Duration,
    max_accounts: usize,
}

impl FleetBuilder {
    /// The server; as [`ClientBuilder::url`].
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self
    }

    /// Trusts servers whose certificates go back to this key; as [`ClientBuilder::root_key`].
    #[must_use]
    pub fn root_key(self, root: PublicKey) -> Self {
        self.configure(move |config| config.certificates.roots = vec![root])
    }

    /// TLS with a configuration of your own; as [`ClientBuilder::tls`]. It is shared but for the sessions to resume: each
    /// account has those to itself, so that the server cannot tell from them which accounts belong together.
    #[must_use]
    pub fn tls(mut self, config: Arc<ClientConfig>) -> Self {
        self.tls = Some(config);
        self
    }

    /// Goes through a proxy; as [`ClientBuilder::proxy`]. Give accounts their own by [`Fleet::start_with`].
    #[must_use]
    pub fn proxy(mut self, proxy: Proxy) -> Self {
        self.proxy = Some(proxy);
        self
    }

    /// Who knows the current version of the web client, asked once for all; as [`ClientBuilder::versions`].
    #[must_use]
    pub fn versions(mut self, provider: impl VersionProvider) -> Self {
        self.versions = Some(Arc::new(provider));
        self
    }

    /// Changes the engine's configuration of every account: its limits and times.
    #[must_use]
    pub fn configure(mut self, change: impl Fn(&mut Config) + Send + Sync + 'static) -> Self {
        self.configure.push(Box::new(change));
        self
    }

    /// How many events of all accounts may wait in the channel to the consumer, at least 1. Default: 1,024.
    #[must_use]
    pub fn event_capacity(mut self, events: usize) -> Self {
        self.event_capacity = events.max(1);
        self
    }

    /// How many accounts [`Fleet::start_all`] connects at a time, at least 1 (32), and how long it waits between one and the
    /// next (20 ms). Thousands of handshakes at once are slow for all, and look like an attack to the server.
    #[must_use]
    pub fn stagger(mut self, at_a_time: usize, pace: Duration) -> Self {
        self.connecting = at_a_time.max(1);
        self.pace = pace;
        self
    }

    /// How many accounts may run. Default: no limit.
    #[must_use]
    pub fn max_accounts(mut self, accounts: usize) -> Self {
        self.max_accounts = accounts;
        self
    }

    /// Puts it together; no account runs yet.
    ///
    /// # Errors
    /// [`Error::Url`] when TLS cannot be configured.
    pub fn build(self) -> Result<Fleet, Error> {
        let tls = match self.tls {
            Some(tls) => tls,
            None => Arc::new(default_tls()?),
        };
        let (deliveries, queue) = mpsc::channel(self.event_capacity);
        Ok(Fleet {
            shared: Arc::new(Shared {
                store: self.store,
                url: self.url,
                tls,
                proxy: self.proxy,
                versions: self.versions,
                configure: self.configure,
                turn: AsyncMutex::new(()),
                at_a_time: self.connecting,
                pace: self.pace,
                max_accounts: self.max_accounts,
                deliveries: Mutex::new(Some(deliveries)),
                queue: Mutex::new(Some(FleetEvents { queue })),
                slots: Mutex::default(),
            }),
        })
    }
}

impl fmt::Debug for FleetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetBuilder").field("url", &self.url).field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

/// One account: empty unless it runs. Whoever holds the lock does something with it.
type Slot = Arc<AsyncMutex<Option<Client>>>;

struct Shared {
    store: Arc<dyn Store>,
    url: String,
    tls: Arc<ClientConfig>,
    proxy: Option<Proxy>,
    versions: Option<Arc<dyn VersionProvider>>,
    configure: Vec<Box<Configure>>,
    /// Who is the next to connect.
    turn: AsyncMutex<()>,
    at_a_time: usize,
    pace: Duration,
    max_accounts: usize,
    /// `None` after the fleet was shut down.
    deliveries: Mutex<Option<mpsc::Sender<Delivery>>>,
    /// The consumer's end, until somebody takes it.
    queue: Mutex<Option<FleetEvents>>,
    slots: Mutex<HashMap<AccountId, Slot>>,
}

/// Many accounts over one store. Cheap to clone. Accounts go on until they are stopped, or the last handle is dropped and nobody holds
/// a [`Client`] of theirs.
#[derive(Clone)]
pub struct Fleet {
    shared: Arc<Shared>,
}

/// What [`Fleet::start_all`] came to.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Started {
    /// Accounts that run and connect now.
    pub connecting: Vec<AccountId>,
    /// Accounts that run and are not linked, or were disconnected for good by their server: they wait for a command.
    pub idle: Vec<(AccountId, Error)>,
    /// Accounts that could not be started.
    pub failed: Vec<(AccountId, Error)>,
}

impl Fleet {
    /// Starts to describe a fleet over a store.
    pub fn builder(store: impl Store) -> FleetBuilder {
        Self::builder_shared(Arc::new(store))
    }

    /// As [`builder`](Self::builder), over a store that others use, too.
    pub fn builder_shared(store: Arc<dyn Store>) -> FleetBuilder {
        FleetBuilder {
            store,
            url: DEFAULT_URL.to_owned(),
            tls: None,
            proxy: None,
            versions: None,
            configure: Vec::new(),
            event_capacity: DEFAULT_EVENT_CAPACITY,
            connecting: DEFAULT_CONNECTING,
            pace: DEFAULT_PACE,
            max_accounts: usize::MAX,
        }
    }

    /// Takes the consumer's end of the events of all accounts; there is one. Events that were not acknowledged before the last stop
    /// come first, account by account.
    ///
    /// # Errors
    /// [`Error::EventsTaken`] the second time.
    pub fn events(&self) -> Result<FleetEvents, Error> {
        lock(&self.shared.queue).take().ok_or(Error::EventsTaken)
    }

    /// Starts an account, new or stored, and stays offline until it is told to connect or to link. One that runs is answered as
    /// it is.
    ///
    /// # Errors
    /// As [`ClientBuilder::start`]; [`Error::TooManyAccounts`]; [`Error::Stopped`] after [`shutdown`](Self::shutdown).
    pub async fn start(&self, account: &AccountId) -> Result<Client, Error> {
        self.start_with(account, |builder| builder).await
    }

    /// As [`start`](Self::start), with settings of the account's own: a proxy, a version, limits. The store and the consumer
    /// of events stay those of the fleet.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(
        &self,
        account: &AccountId,
        change: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Client, Error> {
        let slot = self.slot(account)?;
        let mut running = slot.lock().await;
        if let Some(client) = running.as_ref() {
            return Ok(client.clone());
        }
        // Asked for after the lock was taken: `shutdown` sees either the account or the lock.
        let deliveries = lock(&self.shared.deliveries).clone();
        let started = match deliveries {
            Some(deliveries) => change(self.describe(account)).start_in(self.shared.store.clone(), deliveries).await,
            None => Err(Error::Stopped),
        };
        match started {
            Ok(client) => {
                *running = Some(client.clone());
                Ok(client)
            }
            Err(error) => {
                self.forget(account, &slot);
                Err(error)
            }
        }
    }

    /// Starts every account of the store and connects those that are linked, a few at a time. Ready when the last of them has
    /// begun to connect; whether they get online is told by their events.
    ///
    /// # Errors
    /// [`Error::Store`] when the store cannot say which accounts there are. What fails of one account is in the answer.
    pub async fn start_all(&self) -> Result<Started, Error> {
        let accounts = self.shared.store.accounts().await?;
        let mut started = Started::default();
        let starts = stream::iter(accounts).map(|account| self.start_and_connect(account));
        let mut starts = std::pin::pin!(starts.buffer_unordered(self.shared.at_a_time));
        while let Some((account, result)) = starts.next().await {
            match result {
                Ok(Ok(())) => started.connecting.push(account),
                Ok(Err(error)) => started.idle.push((account, error)),
                Err(error) => started.failed.push((account, error)),
            }
        }
        Ok(started)
    }

    /// Starts an account and connects it when it is its turn. Ready when it is online or has failed, or after half a minute: so
    /// long it keeps its place from others. The outer error is that of the start.
    async fn start_and_connect(&self, account: AccountId) -> (AccountId, Result<Result<(), Error>, Error>) {
        {
            let _turn = self.shared.turn.lock().await;
            tokio::time::sleep(self.shared.pace).await;
        }
        let client = match self.start(&account).await {
            Ok(client) => client,
            Err(error) => return (account, Err(error)),
        };
        let connecting = client.connect().await;
        if connecting.is_ok() {
            let _ = tokio::time::timeout(PLACE, client.settled()).await;
        }
        (account, Ok(connecting))
    }

    /// The handle of an account that runs.
    pub async fn get(&self, account: &AccountId) -> Option<Client> {
        let slot = lock(&self.shared.slots).get(account)?.clone();
        let running = slot.lock().await;
        if running.is_none() {
            self.forget(account, &slot);
        }
        running.clone()
    }

    /// The accounts that run, or are being started or stopped, in no particular order.
    pub fn accounts(&self) -> Vec<AccountId> {
        lock(&self.shared.slots).keys().cloned().collect()
    }

    /// Stops an account, which stays in the store; its handles answer [`Error::Stopped`]. As [`Client::shutdown`]. One that does
    /// not run is not an error.
    pub async fn stop(&self, account: &AccountId) {
        let Some(slot) = lock(&self.shared.slots).get(account).cloned() else { return };
        let mut running = slot.lock().await;
        if let Some(client) = running.take() {
            client.shutdown().await;
        }
        self.forget(account, &slot);
    }

    /// Stops an account and removes it from the store, events included. The phone still shows the device: to end the link, call
    /// [`Client::logout`] first.
    ///
    /// # Errors
    /// [`Error::Store`] when it could not be removed; it is stopped then.
    pub async fn remove(&self, account: &AccountId) -> Result<(), Error> {
        // Entered whether it runs or not: nobody starts it meanwhile.
        let slot = self.enter(account, usize::MAX)?;
        let mut running = slot.lock().await;
        if let Some(client) = running.take() {
            client.shutdown().await;
        }
        let removed = self.shared.store.remove(account).await;
        self.forget(account, &slot);
        Ok(removed?)
    }

    /// Stops all accounts at once and ends the events. Nothing can be started any more.
    pub async fn shutdown(&self) {
        lock(&self.shared.deliveries).take();
        let accounts = self.accounts();
        join_all(accounts.iter().map(|account| self.stop(account))).await;
    }

    /// The settings of all accounts.
    fn describe(&self, account: &AccountId) -> ClientBuilder {
        let shared = &self.shared;
        let mut tls = (*shared.tls).clone();
        tls.resumption = Resumption::in_memory_sessions(1);
        let mut builder = Client::builder(account.clone()).url(&shared.url).tls(Arc::new(tls));
        if let Some(proxy) = &shared.proxy {
            builder = builder.proxy(proxy.clone());
        }
        if let Some(versions) = &shared.versions {
            builder = builder.shared_versions(versions.clone());
        }
        builder.configure(|config| shared.configure.iter().for_each(|change| change(config)))
    }

    fn slot(&self, account: &AccountId) -> Result<Slot, Error> {
        self.enter(account, self.shared.max_accounts)
    }

    /// The slot of an account; a new one if there are fewer than `limit`.
    fn enter(&self, account: &AccountId, limit: usize) -> Result<Slot, Error> {
        let mut slots = lock(&self.shared.slots);
        if let Some(slot) = slots.get(account) {
            return Ok(slot.clone());
        }
        if slots.len() >= limit {
            return Err(Error::TooManyAccounts(limit));
        }
        let slot = Slot::default();
        slots.insert(account.clone(), slot.clone());
        Ok(slot)
    }

    /// Takes the slot of an account away, unless somebody waits for it: he finds it empty.
    fn forget(&self, account: &AccountId, slot: &Slot) {
        let mut slots = lock(&self.shared.slots);
        // The map's and ours. Others take theirs under this lock.
        if Arc::strong_count(slot) == 2 {
            slots.remove(account);
        }
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("accounts", &lock(&self.shared.slots).len()).finish_non_exhaustive()
    }
}

/// The events of all accounts: in order for each; [`Envelope::session_id`](crate::event::Envelope::session_id) says whose one is.
#[derive(Debug)]
pub struct FleetEvents {
    queue: mpsc::Receiver<Delivery>,
}

impl FleetEvents {
    /// The next event, to be acknowledged by [`Delivery::acknowledge`]. `None` when the fleet was shut down.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.queue.recv().await
    }

    /// Waits for an event and takes up to `limit` of those that are there; none when the fleet was shut down. Acknowledging the last
    /// one of an account acknowledges those before.
    pub async fn next_many(&mut self, limit: usize) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        self.queue.recv_many(&mut deliveries, limit.max(1)).await;
        deliveries
    }
}

/// A panic elsewhere leaves these values whole: each is changed in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Waits until the account does not connect any more: it is online, or something else.
    async fn settled(&self) {
        let mut snapshot = self.snapshot.clone();
        let _ = snapshot.wait_for(|snapshot| !matches!(snapshot.state, SessionState::Connecting)).await;
    }
}
