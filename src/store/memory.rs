//! A store in memory: for tests, simulations and throw-away accounts.
//!
//! Nothing outlives the process. Every future is ready at once. Clones share their contents, so that a test can keep a
//! handle on what it gave to an engine: take a [`snapshot`](MemoryStore::snapshot) as the state a crash would leave,
//! or let the next commits fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::ready,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{AccountId, Batch, Key, OutboxEntry, RecordKind, Store, StoreError, StoreFuture};

/// A store in memory. Clones share their contents.
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

/// The contents of a [`MemoryStore`] at one moment. Equal snapshots hold the same records and events.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct MemorySnapshot {
    accounts: BTreeMap<AccountId, Tables>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the next `count` commits fail with [`StoreError::Backend`]. They have no effect.
    pub fn fail_commits(&self, count: u32) {
        self.lock().failing = count;
    }

    /// How many commits were applied.
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// A copy of everything. Values are shared, not copied.
    pub fn snapshot(&self) -> MemorySnapshot {
        self.lock().contents.clone()
    }

    /// Replaces everything by what a snapshot holds, for all clones.
    pub fn restore(&self, snapshot: MemorySnapshot) {
        self.lock().contents = snapshot;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another holder cannot leave the state half changed: checks come before the first change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<MemorySnapshot> for MemoryStore {
    /// A store of its own with these contents.
    fn from(contents: MemorySnapshot) -> Self {
        Self { state: Arc::new(Mutex::new(State { contents, ..State::default() })) }
    }
}

impl Store for MemoryStore {
    fn load<'a>(&'a self, account: &'a AccountId, keys: &'a [Key]) -> StoreFuture<'a, Vec<Option<Bytes>>> {
        let state = self.lock();
        answer(keys.iter().map(|key| state.contents.record(account, key).cloned()).collect())
    }

    fn scan<'a>(&'a self, account: &'a AccountId, kind: RecordKind) -> StoreFuture<'a, Vec<(Key, Bytes)>> {
        let state = self.lock();
        let records = state.contents.records(account).filter(|(key, _)| key.kind == kind);
        answer(records.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&self, account: &AccountId, batch: Batch) -> StoreFuture<'static, ()> {
        Box::pin(ready(self.lock().commit(account, batch)))
    }

    fn outbox<'a>(&'a self, account: &'a AccountId, after: u64, limit: usize) -> StoreFuture<'a, Vec<OutboxEntry>> {
        answer(self.lock().contents.outbox(account, after).take(limit).collect())
    }

    fn trim_outbox<'a>(&'a self, account: &'a AccountId, through: u64) -> StoreFuture<'a, ()> {
        if let Some(tables) = self.lock().contents.accounts.get_mut(account) {
            tables.outbox.retain(|seq, _| *seq > through);
        }
        answer(())
    }

    fn accounts(&self) -> StoreFuture<'_, Vec<AccountId>> {
        answer(self.lock().contents.accounts().cloned().collect())
    }

    fn remove<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, ()> {
        self.lock().contents.accounts.remove(account);
        answer(())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("MemoryStore").field("commits", &state.commits).field("contents", &state.contents).finish()
    }
}

impl MemorySnapshot {
    /// The accounts that have at least one record, by name.
    pub fn accounts(&self) -> impl Iterator<Item = &AccountId> {
        self.accounts.iter().filter(|(_, tables)| !tables.records.is_empty()).map(|(account, _)| account)
    }

    /// One record.
    pub fn record(&self, account: &AccountId, key: &Key) -> Option<&Bytes> {
        self.accounts.get(account)?.records.get(key)
    }

    /// All records of an account, by kind and id.
    pub fn records(&self, account: &AccountId) -> impl Iterator<Item = (&Key, &Bytes)> {
        self.accounts.get(account).into_iter().flat_map(|tables| &tables.records)
    }

    /// The events of an account with a sequence number above `after`, in order.
    pub fn outbox(&self, account: &AccountId, after: u64) -> impl Iterator<Item = OutboxEntry> {
        let above = (Bound::Excluded(after), Bound::Unbounded);
        let events = self.accounts.get(account).into_iter().flat_map(move |tables| tables.outbox.range(above));
        events.map(|(&seq, body)| OutboxEntry { seq, body: body.clone() })
    }
}

impl fmt::Debug for MemorySnapshot {
    /// Counts only: names, ids and values belong to people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (records, events) = self
            .accounts
            .values()
            .fold((0, 0), |(records, events), tables| (records + tables.records.len(), events + tables.outbox.len()));
        f.debug_struct("MemorySnapshot")
            .field("accounts", &self.accounts.len())
            .field("records", &records)
            .field("events", &events)
            .finish()
    }
}

/// What the clones of one store share.
#[derive(Default)]
struct State {
    contents: MemorySnapshot,
    commits: u64,
    failing: u32,
}

/// What one account has.
#[derive(Clone, Default, PartialEq, Eq)]
struct Tables {
    records: BTreeMap<Key, Bytes>,
    outbox: BTreeMap<u64, Bytes>,
}

impl State {
    /// Checks the whole batch before it changes anything.
    fn commit(&mut self, account: &AccountId, batch: Batch) -> Result<(), StoreError> {
        if let Some(rest) = self.failing.checked_sub(1) {
            self.failing = rest;
            return Err(StoreError::Backend("this commit was told to fail".into()));
        }
        let stored = self.contents.accounts.get(account).map(|tables| &tables.outbox);
        let mut fresh = BTreeSet::new();
        for &OutboxEntry { seq, .. } in &batch.events {
            if stored.is_some_and(|outbox| outbox.contains_key(&seq)) || !fresh.insert(seq) {
                return Err(StoreError::Conflict { seq });
            }
        }
        self.commits = self.commits.saturating_add(1);
        if batch.is_empty() {
            return Ok(());
        }
        let tables = self.contents.accounts.entry(account.clone()).or_default();
        if batch.clear {
            tables.records.clear();
        }
        for key in &batch.deletes {
            tables.records.remove(key);
        }
        tables.records.extend(batch.puts);
        tables.outbox.extend(batch.events.into_iter().map(|event| (event.seq, event.body)));
        Ok(())
    }
}

fn answer<'a, T: Send + 'a>(value: T) -> StoreFuture<'a, T> {
    Box::pin(ready(Ok(value)))
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, task};

    use super::*;
    use crate::store::contract;

    fn now<T>(future: impl Future<Output = T>) -> T {
        let mut context = task::Context::from_waker(task::Waker::noop());
        match pin!(future).poll(&mut context) {
            task::Poll::Ready(value) => value,
            task::Poll::Pending => panic!("a memory store never waits"),
        }
    }

    fn put(id: &str, value: &'static str) -> Batch {
        Batch { puts: vec![(Key::new(RecordKind::Session, id), value.into())], ..Batch::default() }
    }

    #[test]
    fn keeps_the_contract() {
        now(contract::check(&MemoryStore::new()));
    }

    #[test]
    fn told_commits_fail_without_effect() {
        let (store, account) = (MemoryStore::new(), AccountId::new("a"));
        now(store.commit(&account, put("x", "1"))).unwrap();
        let before = store.snapshot();
        store.fail_commits(2);
        assert!(matches!(now(store.commit(&account, put("x", "2"))), Err(StoreError::Backend(_))));
        assert!(matches!(now(store.commit(&account, put("y", "2"))), Err(StoreError::Backend(_))));
        assert_eq!(store.snapshot(), before);
        assert_eq!(store.commits(), 1);
        now(store.commit(&account, put("x", "3"))).unwrap();
        assert_eq!(store.snapshot().record(&account, &Key::new(RecordKind::Session, "x")).unwrap(), "3");
    }

    #[test]
    fn a_snapshot_is_a_crash_to_come_back_from() {
        let (store, account) = (MemoryStore::new(), AccountId::new("a"));
        now(store.commit(&account, put("x", "1"))).unwrap();
        let crash = store.snapshot();
        now(store.clone().commit(&account, put("x", "2"))).unwrap();
        assert_ne!(store.snapshot(), crash, "clones share their contents");
        let other = MemoryStore::from(crash.clone());
        now(other.commit(&account, put("x", "3"))).unwrap();
        store.restore(crash.clone());
        assert_eq!(store.snapshot(), crash, "a store made from a snapshot is one of its own");
    }

    #[test]
    fn debug_shows_no_content() {
        let (store, account) = (MemoryStore::new(), AccountId::new("secret-name"));
        now(store.commit(&account, put("secret-id", "secret-value"))).unwrap();
        assert!(!format!("{store:?} {:?}", store.snapshot()).contains("secret"));
    }
}
