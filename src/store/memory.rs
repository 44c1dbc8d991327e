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

use super::{AccountId, Batch, Key, Lease, OutboxEntry, RecordKind, Store, StoreError, StoreFuture};

/// A store in memory. Clones share their contents, and count as one when it comes to leases.
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    node: u32,
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

    /// Another store on the same contents, as another process would open it: it has leases of its own.
    #[must_use]
    pub fn beside(&self) -> Self {
        let mut state = self.lock();
        state.nodes = state.nodes.saturating_add(1);
        Self { state: self.state.clone(), node: state.nodes }
    }

    /// Lets all leases run out, as if their stores had been away for too long: each counts until another store takes the account.
    pub fn lapse_leases(&self) {
        self.lock().leases.values_mut().for_each(|lease| lease.lapsed = true);
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
        Self { state: Arc::new(Mutex::new(State { contents, ..State::default() })), node: 0 }
    }
}

impl Store for MemoryStore {
    fn acquire<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, Lease> {
        let token = self.lock().acquire(self.node, account);
        let lease = |token| {
            let (state, node, account) = (self.state.clone(), self.node, account.clone());
            Lease::new(token, move || {
                state.lock().unwrap_or_else(PoisonError::into_inner).release(node, &account, token);
                answer(())
            })
        };
        Box::pin(ready(token.map(lease)))
    }

    fn load<'a>(&'a self, account: &'a AccountId, keys: &'a [Key]) -> StoreFuture<'a, Vec<Option<Bytes>>> {
        let state = self.lock();
        answer(keys.iter().map(|key| state.contents.record(account, key).cloned()).collect())
    }

    fn scan<'a>(&'a self, account: &'a AccountId, kind: RecordKind) -> StoreFuture<'a, Vec<(Key, Bytes)>> {
        let state = self.lock();
        let records = state.contents.records(account).filter(|(key, _)| key.kind == kind);
        answer(records.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn scan_part<'a>(
        &'a self,
        account: &'a AccountId,
        kind: RecordKind,
        from: &'a [u8],
        limit: usize,
    ) -> StoreFuture<'a, Vec<(Key, Bytes)>> {
        let state = self.lock();
        let tables = state.contents.accounts.get(account);
        let records = tables.into_iter().flat_map(|tables| tables.records.range(Key::new(kind, from)..));
        let records = records.take_while(|(key, _)| key.kind == kind).take(limit);
        answer(records.map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn commit(&self, account: &AccountId, batch: Batch) -> StoreFuture<'static, ()> {
        Box::pin(ready(self.lock().commit(self.node, account, batch)))
    }

    fn outbox<'a>(&'a self, account: &'a AccountId, after: u64, limit: usize) -> StoreFuture<'a, Vec<OutboxEntry>> {
        answer(self.lock().contents.outbox(account, after).take(limit).collect())
    }

    fn trim_outbox<'a>(&'a self, account: &'a AccountId, through: u64) -> StoreFuture<'a, ()> {
        let mut state = self.lock();
        let fenced = state.fence(self.node, account);
        if let (Ok(()), Some(tables)) = (&fenced, state.contents.accounts.get_mut(account)) {
            tables.outbox.retain(|seq, _| *seq > through);
        }
        Box::pin(ready(fenced))
    }

    fn accounts(&self) -> StoreFuture<'_, Vec<AccountId>> {
        answer(self.lock().contents.accounts().cloned().collect())
    }

    fn remove<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, ()> {
        let mut state = self.lock();
        let fenced = state.fence(self.node, account);
        if fenced.is_ok() {
            state.contents.accounts.remove(account);
        }
        Box::pin(ready(fenced))
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
    leases: BTreeMap<AccountId, Taken>,
    /// What each store believes to have.
    held: BTreeMap<(u32, AccountId), u64>,
    /// The last token, and the last store that was made beside another.
    tokens: u64,
    nodes: u32,
}

/// Who has an account.
struct Taken {
    node: u32,
    token: u64,
    lapsed: bool,
}

/// What one account has.
#[derive(Clone, Default, PartialEq, Eq)]
struct Tables {
    records: BTreeMap<Key, Bytes>,
    outbox: BTreeMap<u64, Bytes>,
}

impl State {
    fn acquire(&mut self, node: u32, account: &AccountId) -> Result<u64, StoreError> {
        if let Some(taken) = self.leases.get(account).filter(|taken| !taken.lapsed) {
            return Err(taken.refusal());
        }
        self.tokens = self.tokens.saturating_add(1);
        self.leases.insert(account.clone(), Taken { node, token: self.tokens, lapsed: false });
        self.held.insert((node, account.clone()), self.tokens);
        Ok(self.tokens)
    }

    fn release(&mut self, node: u32, account: &AccountId, token: u64) {
        let held = (node, account.clone());
        if self.held.get(&held) == Some(&token) {
            self.held.remove(&held);
        }
        if self.leases.get(account).is_some_and(|taken| taken.token == token) {
            self.leases.remove(account);
        }
    }

    /// Whether a store may write to an account.
    fn fence(&self, node: u32, account: &AccountId) -> Result<(), StoreError> {
        match (self.held.get(&(node, account.clone())), self.leases.get(account)) {
            (Some(held), Some(taken)) if *held == taken.token => Ok(()),
            (Some(_), _) => Err(StoreError::LeaseLost),
            (None, Some(taken)) if !taken.lapsed => Err(taken.refusal()),
            (None, _) => Ok(()),
        }
    }

    /// Checks the whole batch before it changes anything.
    fn commit(&mut self, node: u32, account: &AccountId, batch: Batch) -> Result<(), StoreError> {
        self.fence(node, account)?;
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
        // Values of a batch share memory, which one of them would keep.
        let puts = batch.puts.into_iter().map(|(key, value)| (key, Bytes::copy_from_slice(&value)));
        tables.records.extend(puts);
        tables.outbox.extend(batch.events.into_iter().map(|event| (event.seq, event.body)));
        Ok(())
    }
}

impl Taken {
    fn refusal(&self) -> StoreError {
        StoreError::Leased { by: format!("store {}", self.node), until: None }
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
    fn keeps_the_contract_of_leases() {
        let store = MemoryStore::new();
        now(contract::check_leases(&store, &store.beside()));
        now(contract::check_fencing(&store, &store.beside(), async || store.lapse_leases()));
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
