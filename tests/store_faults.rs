//! Promise: whatever call of the store fails, in a running client: nothing is acknowledged that is not stored, the account pauses, tells it with
//! `store.failed`, and goes on.
#![cfg(all(feature = "client", feature = "sqlite"))]

#[cfg(feature = "postgres")]
#[path = "common/postgres.rs"]
mod postgres;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use serde_json::Value;
use tokio::time::{sleep, timeout};
use wamd::{
    Jid,
    client::{Client, Error, Events},
    engine::SendRequest,
    event::Envelope,
    message::MessageId,
    store::{
        AccountId, Batch, Key, Lease, MemoryStore, OutboxEntry, RecordKind, SqliteOptions, SqliteStore, Store,
        StoreError, StoreFuture,
    },
};
use wamd_loopback::Loopback;

/// Nothing here may take longer.
const LIMIT: Duration = Duration::from_secs(120);

// ---- accounts -------------------------------------------------------------------------------------------------------

/// An account that runs, and what it has told.
struct Account {
    number: String,
    client: Client,
    told: Arc<Mutex<Vec<Envelope>>>,
}

impl Account {
    async fn start(server: &Loopback, number: &str, store: Arc<dyn Store>) -> Result<Self, Error> {
        let client = Client::builder(AccountId::new(number)).shared_store(store).url(server.ws_url());
        let client = client.root_key(server.root_public_key()).configure(|config| config.pre_key_batch = 20);
        let client = client.start().await?;
        let told = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(listen(client.events().unwrap(), told.clone()));
        Ok(Self { number: number.to_owned(), client, told })
    }

    /// Links it, and starts it.
    async fn linked(server: &Loopback, number: &str, store: Arc<dyn Store>) -> Self {
        let account = Self::start(server, number, store).await.unwrap();
        account.client.link_qr().await.unwrap();
        account.until("a code", |told| !told.data("session.qr_updated").is_empty()).await;
        let code = account.data("session.qr_updated")[0]["qr"].as_str().unwrap().to_owned();
        server.scan(number, &code).await.unwrap();
        account.until("the link", |told| !told.data("session.offline_sync_completed").is_empty()).await;
        account
    }

    fn data(&self, name: &str) -> Vec<Value> {
        let told = self.told.lock().unwrap();
        told.iter().filter(|event| event.event == name).map(|event| event.data.clone()).collect()
    }

    /// How often each message was told under a name.
    fn messages(&self, name: &str) -> BTreeMap<String, u32> {
        let mut messages = BTreeMap::new();
        for data in self.data(name) {
            *messages.entry(data["messages"][0]["key"]["id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        messages
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !is_so(self) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        if timeout(LIMIT, waiting).await.is_err() {
            let told: Vec<_> = self.told.lock().unwrap().iter().map(|event| event.event.to_string()).collect();
            panic!("{}: {what} does not come: {told:?}", self.number);
        }
    }

    /// As callers do: without an answer, the same again.
    async fn send(&self, to: &str, id: &MessageId) {
        let sending = async {
            loop {
                let request = SendRequest::text(Jid::pn(to), id.as_str()).with_id(id.clone());
                match self.client.send(request).await {
                    Ok(_) => return,
                    Err(error) => assert!(error.is_retryable(), "{error}"),
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LIMIT, sending).await.expect("it is accepted");
    }

    /// Numbers of events without gaps, and each once.
    fn check_numbers(&self) {
        let told = self.told.lock().unwrap();
        let numbers: Vec<u64> = told.iter().filter_map(|event| event.seq).collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{numbers:?}");
    }
}

async fn listen(mut events: Events, told: Arc<Mutex<Vec<Envelope>>>) {
    while let Some(event) = events.recv().await {
        told.lock().unwrap().push(event);
    }
}

fn id(from: &str, n: usize) -> MessageId {
    MessageId::new(format!("3EB0{from}{n:04X}")).unwrap()
}

/// Both write two messages; each has them once, and was told that they were sent.
async fn talk(one: &Account, other: &Account, first: usize) {
    let ids = |from: &Account| -> Vec<MessageId> { (first..first + 2).map(|n| id(&from.number, n)).collect() };
    tokio::join!(
        async {
            for id in ids(one) {
                one.send(&other.number, &id).await;
            }
        },
        async {
            for id in ids(other) {
                other.send(&one.number, &id).await;
            }
        }
    );
    for (from, to) in [(one, other), (other, one)] {
        let ids = ids(from);
        let has = |account: &Account, name: &str| {
            let told = account.messages(name);
            ids.iter().all(|id| told.contains_key(id.as_str()))
        };
        from.until("message.sent", |account| has(account, "message.sent")).await;
        to.until("message.received", |account| has(account, "message.received")).await;
        for (account, name) in [(from, "message.sent"), (to, "message.received")] {
            let told = account.messages(name);
            assert!(ids.iter().all(|id| told[id.as_str()] == 1), "{name} once: {told:?}");
        }
        assert!(from.data("message.failed").is_empty() && to.data("message.undecryptable").is_empty());
    }
}

// ---- a call that fails ----------------------------------------------------------------------------------------------

/// Lets one call fail, which has no effect then.
#[derive(Clone, Debug)]
struct Faulty {
    inner: MemoryStore,
    state: Arc<Mutex<Fault>>,
}

#[derive(Debug, Default)]
struct Fault {
    /// Calls before the one that fails.
    left: usize,
    /// Which one did.
    failed: Option<&'static str>,
}

impl Faulty {
    fn call<'a, T: Send + 'a>(
        &self,
        name: &'static str,
        call: impl FnOnce() -> StoreFuture<'a, T>,
    ) -> StoreFuture<'a, T> {
        let mut state = self.state.lock().unwrap();
        match state.left.checked_sub(1) {
            Some(left) => state.left = left,
            None if state.failed.is_none() => {
                state.failed = Some(name);
                return Box::pin(std::future::ready(Err(StoreError::Backend("told to fail".into()))));
            }
            None => {}
        }
        drop(state);
        call()
    }
}

impl Store for Faulty {
    fn acquire<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, Lease> {
        self.call("acquire", || self.inner.acquire(account))
    }

    fn load<'a>(&'a self, account: &'a AccountId, keys: &'a [Key]) -> StoreFuture<'a, Vec<Option<Bytes>>> {
        self.call("load", || self.inner.load(account, keys))
    }

    fn scan<'a>(&'a self, account: &'a AccountId, kind: RecordKind) -> StoreFuture<'a, Vec<(Key, Bytes)>> {
        self.call("scan", || self.inner.scan(account, kind))
    }

    fn commit(&self, account: &AccountId, batch: Batch) -> StoreFuture<'static, ()> {
        self.call("commit", || self.inner.commit(account, batch))
    }

    fn outbox<'a>(&'a self, account: &'a AccountId, after: u64, limit: usize) -> StoreFuture<'a, Vec<OutboxEntry>> {
        self.call("outbox", || self.inner.outbox(account, after, limit))
    }

    fn trim_outbox<'a>(&'a self, account: &'a AccountId, through: u64) -> StoreFuture<'a, ()> {
        self.call("trim_outbox", || self.inner.trim_outbox(account, through))
    }

    fn accounts(&self) -> StoreFuture<'_, Vec<AccountId>> {
        self.call("accounts", || self.inner.accounts())
    }

    fn remove<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, ()> {
        self.call("remove", || self.inner.remove(account))
    }
}

/// An exchange in which a call fails; which one it was.
async fn exchange(server: &Loopback, call: usize) -> Option<&'static str> {
    let (number, peer) = (format!("1666000{call:04}"), format!("1777000{call:04}"));
    let inner = MemoryStore::new();
    Account::linked(server, &number, Arc::new(inner.clone())).await.client.shutdown().await;
    let bob = Account::linked(server, &peer, Arc::new(MemoryStore::new())).await;

    let state = Arc::new(Mutex::new(Fault { left: call, failed: None }));
    let store = Arc::new(Faulty { inner: inner.clone(), state: state.clone() });
    let alice = match Account::start(server, &number, store.clone()).await {
        Ok(account) => account,
        // The caller is told, and has it started again.
        Err(error) => {
            assert_eq!(error, Error::Store(StoreError::Backend("told to fail".into())));
            Account::start(server, &number, store).await.unwrap()
        }
    };
    // The call may fail for which it waits: it is made again.
    while let Err(error) = alice.client.connect().await {
        assert!(error.is_retryable(), "{error}");
    }
    talk(&alice, &bob, 0).await;
    let failed = {
        // None fails from now on: what could not be removed at the very end would come again at the next start.
        let mut state = state.lock().unwrap();
        state.left = usize::MAX;
        state.failed
    };
    match failed {
        Some("load" | "scan" | "commit") => {
            alice.until("store.failed", |told| !told.data("store.failed").is_empty()).await;
            let data = alice.data("store.failed");
            assert_eq!(data.len(), 1, "{failed:?}");
            assert_eq!(data[0]["fault"], "backend");
            assert_eq!(data[0]["willRetry"], true);
            alice.until("store.recovered", |told| !told.data("store.recovered").is_empty()).await;
        }
        // Nothing is lost by it: it is done a second later.
        _ => assert!(alice.data("store.failed").is_empty(), "{failed:?}"),
    }
    alice.check_numbers();
    alice.client.shutdown().await;
    bob.client.shutdown().await;
    // What was acknowledged by the consumer goes, whichever call failed; a shutdown waits half a second for that.
    let empty = async {
        while inner.snapshot().outbox(&AccountId::new(&number), 0).count() > 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LIMIT, empty).await.unwrap_or_else(|_| panic!("{failed:?}: the outbox is not emptied"));
    failed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_call_may_fail() {
    const AT_ONCE: usize = 16;
    let server = Loopback::start().await.unwrap();
    let mut seen = BTreeMap::<_, u32>::new();
    for first in (0..).step_by(AT_ONCE) {
        let calls: Vec<_> = (first..first + AT_ONCE).map(|call| exchange(&server, call)).collect();
        let failed = futures_util::future::join_all(calls).await;
        let is_over = failed.contains(&None);
        for name in failed.into_iter().flatten() {
            *seen.entry(name).or_default() += 1;
        }
        if is_over {
            break;
        }
    }
    let names: Vec<_> = seen.keys().copied().collect();
    assert_eq!(names, ["acquire", "commit", "load", "outbox", "scan", "trim_outbox"], "{seen:?}");
    assert!(seen["commit"] > 5 && seen["load"] > 2, "{seen:?}");
    server.shutdown().await;
}

// ---- faults of databases --------------------------------------------------------------------------------------------

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_locked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wamd.db");
    let server = Loopback::start().await.unwrap();
    let options = SqliteOptions { busy_timeout: Duration::from_millis(20), ..SqliteOptions::default() };
    let store = Arc::new(SqliteStore::open_with(&path, options).unwrap());
    let alice = Account::linked(&server, "15550000001", store).await;
    let bob = Account::linked(&server, "15550000002", Arc::new(MemoryStore::new())).await;
    talk(&alice, &bob, 0).await;

    // Somebody else writes to the file, and takes long.
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let talking = talk(&alice, &bob, 100);
    tokio::pin!(talking);
    let locked = async {
        alice.until("store.failed", |told| told.data("store.failed").len() >= 2).await;
        let failed = alice.data("store.failed");
        assert!(failed.iter().all(|data| data["fault"] == "backend" && data["willRetry"] == true), "{failed:?}");
        assert!(failed[0]["detail"].as_str().unwrap().contains("locked"), "{failed:?}");
        // Nothing of it is stored, so nothing of it is said.
        let received = alice.messages("message.received");
        assert!(received.keys().all(|told| *told < id("15550000002", 100).to_string()), "{received:?}");
        assert!(alice.data("store.recovered").is_empty());
    };
    tokio::select! {
        () = &mut talking => panic!("nothing can be stored"),
        () = locked => {}
    }
    other.execute_batch("ROLLBACK").unwrap();
    talking.await;
    alice.until("store.recovered", |told| told.data("store.recovered").len() == 1).await;
    assert_eq!(alice.data("store.recovered")[0]["failures"], alice.data("store.failed").len());
    alice.check_numbers();
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_restarted_in_mid_run() {
    let Some(cluster) = postgres::Cluster::start(&[]) else { return };
    let address = cluster.database().await;
    let server = Loopback::start().await.unwrap();
    let store = Arc::new(wamd::store::PostgresStore::connect(&address).await.unwrap());
    let alice = Account::linked(&server, "15550000001", store).await;
    let bob = Account::linked(&server, "15550000002", Arc::new(MemoryStore::new())).await;
    talk(&alice, &bob, 0).await;
    for round in 1..4 {
        cluster.crash();
        let talking = talk(&alice, &bob, round * 100);
        tokio::pin!(talking);
        let down = async {
            let before = alice.data("store.failed").len();
            alice.until("store.failed", |told| told.data("store.failed").len() > before).await;
        };
        tokio::select! {
            () = &mut talking => panic!("nothing can be stored"),
            () = down => {}
        }
        cluster.up();
        talking.await;
        alice.until("store.recovered", |told| told.data("store.recovered").len() == round).await;
        assert!(alice.data("store.failed").iter().all(|data| data["fault"] == "backend"));
    }
    // It has its lease still.
    alice.check_numbers();
    alice.client.shutdown().await;
}
