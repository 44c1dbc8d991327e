//! Promise: the store contract finds what is wrong with a store. Each fault here is one that a backend could have.
#![cfg(any(feature = "client", feature = "sqlite"))]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Mutex,
};

use bytes::Bytes;
use wamd::store::{
    AccountId, Batch, Key, Lease, MemoryStore, OutboxEntry, RecordKind, Store, StoreError, StoreFuture, contract,
};

/// What a store may do wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    LoadsSorted,
    ScansBackwards,
    ScansAllKinds,
    PartsIgnoreLimit,
    PartsBeginBehind,
    EmptyIsAbsent,
    CommitsWhenPolled,
    KeepsHalfOfAFailedBatch,
    OverwritesEvents,
    OtherErrorForConflicts,
    IgnoresCase,
    OutboxIgnoresLimit,
    OutboxIncludesAfter,
    TrimsOneLess,
    RemovesNoEvents,
    ListsNoAccounts,
    ListsEverySeenAccount,
    LeasesTwice,
}

#[derive(Debug)]
struct Faulty {
    inner: MemoryStore,
    fault: Fault,
    seen: Mutex<Vec<AccountId>>,
}

impl Faulty {
    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn name(&self, account: &AccountId) -> AccountId {
        let name = account.as_str();
        AccountId::new(if self.is(Fault::IgnoresCase) { name.to_lowercase() } else { name.to_owned() })
    }
}

impl Store for Faulty {
    fn acquire<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, Lease> {
        let account = self.name(account);
        Box::pin(async move {
            match self.fault {
                Fault::LeasesTwice => Ok(Lease::new(1, || Box::pin(async { Ok(()) }))),
                _ => self.inner.acquire(&account).await,
            }
        })
    }

    fn load<'a>(&'a self, account: &'a AccountId, keys: &'a [Key]) -> StoreFuture<'a, Vec<Option<Bytes>>> {
        Box::pin(async move {
            let mut keys = keys.to_vec();
            if self.is(Fault::LoadsSorted) {
                keys.sort();
            }
            let mut values = self.inner.load(&self.name(account), &keys).await?;
            if self.is(Fault::EmptyIsAbsent) {
                values.iter_mut().for_each(|value| *value = value.take().filter(|value| !value.is_empty()));
            }
            Ok(values)
        })
    }

    fn scan<'a>(&'a self, account: &'a AccountId, kind: RecordKind) -> StoreFuture<'a, Vec<(Key, Bytes)>> {
        Box::pin(async move {
            let mut found = self.inner.scan(&self.name(account), kind).await?;
            if self.is(Fault::ScansBackwards) {
                found.reverse();
            }
            if self.is(Fault::ScansAllKinds) {
                let all = self.inner.snapshot();
                found = all.records(account).map(|(key, value)| (key.clone(), value.clone())).collect();
            }
            Ok(found)
        })
    }

    fn scan_part<'a>(
        &'a self,
        account: &'a AccountId,
        kind: RecordKind,
        from: &'a [u8],
        limit: usize,
    ) -> StoreFuture<'a, Vec<(Key, Bytes)>> {
        Box::pin(async move {
            let limit = if self.is(Fault::PartsIgnoreLimit) { usize::MAX } else { limit };
            let mut found = self.inner.scan_part(&self.name(account), kind, from, limit).await?;
            if self.is(Fault::PartsBeginBehind) {
                found.retain(|(key, _)| *key.id != *from);
            }
            Ok(found)
        })
    }

    fn commit(&self, account: &AccountId, batch: Batch) -> StoreFuture<'static, ()> {
        self.seen.lock().unwrap().push(account.clone());
        let (account, inner) = (self.name(account), self.inner.clone());
        match self.fault {
            Fault::CommitsWhenPolled => Box::pin(async move { inner.commit(&account, batch).await }),
            Fault::KeepsHalfOfAFailedBatch => {
                let records = Batch { events: Vec::new(), ..batch.clone() };
                let events = Batch { events: batch.events, ..Batch::default() };
                drop(inner.commit(&account, records));
                inner.commit(&account, events)
            }
            Fault::OverwritesEvents => {
                let mut batch = batch;
                let stored = inner.snapshot();
                let mut known: Vec<u64> = stored.outbox(&account, 0).map(|event| event.seq).collect();
                batch.events.retain(|event| {
                    let fresh = !known.contains(&event.seq);
                    known.push(event.seq);
                    fresh
                });
                inner.commit(&account, batch)
            }
            Fault::OtherErrorForConflicts => {
                let result = inner.commit(&account, batch);
                Box::pin(async { result.await.map_err(|_| StoreError::Backend("constraint".into())) })
            }
            _ => inner.commit(&account, batch),
        }
    }

    fn outbox<'a>(&'a self, account: &'a AccountId, after: u64, limit: usize) -> StoreFuture<'a, Vec<OutboxEntry>> {
        let limit = if self.is(Fault::OutboxIgnoresLimit) { usize::MAX } else { limit };
        let after = if self.is(Fault::OutboxIncludesAfter) { after.saturating_sub(1) } else { after };
        let account = self.name(account);
        Box::pin(async move { self.inner.outbox(&account, after, limit).await })
    }

    fn trim_outbox<'a>(&'a self, account: &'a AccountId, through: u64) -> StoreFuture<'a, ()> {
        let through = if self.is(Fault::TrimsOneLess) { through.saturating_sub(1) } else { through };
        drop(self.inner.trim_outbox(&self.name(account), through));
        Box::pin(async { Ok(()) })
    }

    fn accounts(&self) -> StoreFuture<'_, Vec<AccountId>> {
        Box::pin(async {
            match self.fault {
                Fault::ListsNoAccounts => Ok(Vec::new()),
                Fault::ListsEverySeenAccount => {
                    let mut seen = self.seen.lock().unwrap().clone();
                    seen.sort();
                    seen.dedup();
                    Ok(seen)
                }
                _ => self.inner.accounts().await,
            }
        })
    }

    fn remove<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, ()> {
        let account = self.name(account);
        if self.is(Fault::RemovesNoEvents) {
            let snapshot = self.inner.snapshot();
            let deletes = snapshot.records(&account).map(|(key, _)| key.clone()).collect();
            return self.inner.commit(&account, Batch { deletes, ..Batch::default() });
        }
        drop(self.inner.remove(&account));
        Box::pin(async { Ok(()) })
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn verdict(fault: Fault) -> Result<(), String> {
    let store = Faulty { inner: MemoryStore::new(), fault, seen: Vec::new().into() };
    catch_unwind(AssertUnwindSafe(|| block_on(contract::check(&store)))).map_err(|panic| {
        let literal = panic.downcast_ref::<&str>().map(ToString::to_string);
        literal.or_else(|| panic.downcast_ref().cloned()).unwrap_or_default()
    })
}

#[test]
fn every_fault_is_found() {
    assert_eq!(verdict(Fault::None), Ok(()), "the wrapper itself is no fault");
    for (fault, place) in [
        (Fault::LoadsSorted, "load in the order asked for"),
        (Fault::ScansBackwards, "scan: ids in ascending order"),
        (Fault::ScansAllKinds, "scan: all records of the kind"),
        (Fault::PartsIgnoreLimit, "scan_part: at most so many"),
        (Fault::PartsBeginBehind, "scan_part: the id itself is in it"),
        (Fault::EmptyIsAbsent, "load: a value came back changed"),
        (Fault::CommitsWhenPolled, "load of a batch whose future was not polled yet"),
        (Fault::KeepsHalfOfAFailedBatch, "load after a failed batch"),
        (Fault::OverwritesEvents, "commit of an event number that is taken"),
        (Fault::OtherErrorForConflicts, "commit of an event number that is taken"),
        (Fault::IgnoresCase, "of the same keys in each account"),
        (Fault::OutboxIgnoresLimit, "outbox limited"),
        (Fault::OutboxIncludesAfter, "outbox after one"),
        (Fault::TrimsOneLess, "outbox after a trim"),
        (Fault::RemovesNoEvents, "outbox after a removal"),
        (Fault::ListsNoAccounts, "accounts() lacks an account"),
        (Fault::LeasesTwice, "acquire a second time"),
        (Fault::ListsEverySeenAccount, "accounts() names an account whose only batch failed"),
    ] {
        let message = verdict(fault).expect_err(&format!("{fault:?} was not found"));
        assert!(message.contains(place), "{fault:?}: {message}");
    }
}

/// What two stores on the same contents may do wrong: a second process that asks nobody, or that nobody asks.
#[test]
fn every_fault_of_leases_is_found() {
    // Two stores that do not know of each other, as if leases were kept in each process.
    let apart = || {
        let store = MemoryStore::new();
        block_on(contract::check_leases(&store, &MemoryStore::new()));
    };
    // A lease that never runs out, and one that runs out and is not asked for when its owner writes.
    let for_ever = || {
        let store = MemoryStore::new();
        block_on(contract::check_fencing(&store, &store.beside(), async || {}));
    };
    let unfenced = || {
        let store = MemoryStore::new();
        let unfenced = Unfenced { leases: store.clone(), contents: store.beside() };
        block_on(contract::check_fencing(&unfenced, &store.beside(), async || store.lapse_leases()));
    };
    for (fault, place) in [
        (&apart as &dyn Fn(), "acquire while the other store has it"),
        (&for_ever, "acquire of a lease that ran out"),
        (&unfenced, "commit of a store whose lease was taken"),
    ] {
        let panic = catch_unwind(AssertUnwindSafe(fault)).expect_err(place);
        let message = panic.downcast_ref::<String>().unwrap();
        assert!(message.contains(place), "{place}: {message}");
    }
}

/// Has a lease, and writes without asking for it.
#[derive(Debug)]
struct Unfenced {
    leases: MemoryStore,
    contents: MemoryStore,
}

impl Unfenced {
    /// Writes to the contents whoever has the account.
    fn around(&self, account: &AccountId, batch: Batch) -> StoreFuture<'static, ()> {
        let copy = MemoryStore::from(self.contents.snapshot());
        let result = copy.commit(account, batch);
        // A memory store has done it when the call returns.
        self.contents.restore(copy.snapshot());
        result
    }
}

impl Store for Unfenced {
    fn acquire<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, Lease> {
        self.leases.acquire(account)
    }

    fn load<'a>(&'a self, account: &'a AccountId, keys: &'a [Key]) -> StoreFuture<'a, Vec<Option<Bytes>>> {
        self.contents.load(account, keys)
    }

    fn scan<'a>(&'a self, account: &'a AccountId, kind: RecordKind) -> StoreFuture<'a, Vec<(Key, Bytes)>> {
        self.contents.scan(account, kind)
    }

    fn commit(&self, account: &AccountId, batch: Batch) -> StoreFuture<'static, ()> {
        self.around(account, batch)
    }

    fn outbox<'a>(&'a self, account: &'a AccountId, after: u64, limit: usize) -> StoreFuture<'a, Vec<OutboxEntry>> {
        self.contents.outbox(account, after, limit)
    }

    fn trim_outbox<'a>(&'a self, account: &'a AccountId, through: u64) -> StoreFuture<'a, ()> {
        self.leases.trim_outbox(account, through)
    }

    fn accounts(&self) -> StoreFuture<'_, Vec<AccountId>> {
        self.contents.accounts()
    }

    fn remove<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, ()> {
        self.leases.remove(account)
    }
}
