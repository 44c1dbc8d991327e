//! The contract of a [`Store`] as a test: what every backend must do, the engine relies on.
//!
//! Run [`check`] from the tests of your backend. It needs no runtime of its own, the caller drives the future:
//!
//! ```
//! # use wamd::store::{MemoryStore, contract};
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! let store = MemoryStore::new(); // yours
//! runtime.block_on(contract::check(&store));
//! ```
//!
//! Whether leases keep others out takes two stores on the same contents: [`check_leases`] and [`check_fencing`].
//!
//! ```
//! # use wamd::store::{MemoryStore, contract};
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! let one = MemoryStore::new();
//! let other = one.beside(); // a second process or node on yours
//! runtime.block_on(async {
//!     contract::check_leases(&one, &other).await;
//!     contract::check_fencing(&one, &other, async || one.lapse_leases()).await;
//! });
//! ```
//!
//! It covers what can be seen while the store runs: reads and writes, their order, atomic batches, accounts and their
//! isolation. That an acknowledged batch survives a crash it cannot see: kill a process that commits, open its store
//! again and compare (`tests/store.rs` does so with SQLite).
#![expect(clippy::panic, reason = "a test suite: a violation ends it")]

use std::{future::poll_fn, task::Poll};

use bytes::Bytes;

use super::{AccountId, Batch, Key, OutboxEntry, RecordKind, Store, StoreError};

/// Checks everything. The store may hold accounts of others; those named `contract/…` are its own, and
/// are gone afterwards.
///
/// # Panics
/// With the first violation: which call, what came, what had to come.
pub async fn check(store: &dyn Store) {
    records(store).await;
    keys(store).await;
    values(store).await;
    scans(store).await;
    isolation(store).await;
    queueing(store).await;
    outbox(store).await;
    atomicity(store).await;
    conflicts(store).await;
    accounts(store).await;
    clearing(store).await;
    removal(store).await;
    many_accounts(store).await;
    leases(store).await;
    clear(store).await;
    assert_eq!(listed(store).await, [], "accounts() after everything was removed");
}

/// Put, overwrite, delete; the answers of `load` stand in the order of the keys.
async fn records(store: &dyn Store) {
    let on = On::fresh(store, "records").await;
    let [a, b, c] = ["a", "b", "c"].map(session);
    on.loads("of an unknown account", &[a.clone(), b.clone()], &[None, None]).await;
    on.loads("of no keys", &[], &[]).await;
    on.commits("two puts", Batch::default().with(&b, "1").with(&a, "2")).await;
    on.loads("in the order asked for", &[b.clone(), c.clone(), a.clone()], &[Some("1"), None, Some("2")]).await;
    on.loads("of one key twice", &[a.clone(), a.clone()], &[Some("2"), Some("2")]).await;
    on.commits("an overwrite and a new record", Batch::default().with(&a, "longer than before").with(&c, "3")).await;
    on.loads("after an overwrite", &[a.clone(), b.clone()], &[Some("longer than before"), Some("1")]).await;
    on.commits("a delete and a put", Batch::default().without(&a).with(&b, "4")).await;
    on.loads("after a delete", &[a.clone(), b.clone(), c.clone()], &[None, Some("4"), Some("3")]).await;
    on.commits("a delete of an absent record", Batch::default().without(&a)).await;
    on.commits("a record put again", Batch::default().with(&a, "5")).await;
    on.loads("of a record put again", &[a], &[Some("5")]).await;
    on.commits("an empty batch", Batch::default()).await;
}

/// Ids are any bytes; one that begins like another is another.
async fn keys(store: &dyn Store) {
    let on = On::fresh(store, "keys").await;
    let ids: [&[u8]; 9] = [b"", b"\0", b"\0\0", b"a", b"a\0", b"a\0b", b"ab", b"\xff", &[0xff; 300]];
    let keys = ids.map(|id| Key::new(RecordKind::SkippedPage, id));
    let value = |i: usize| format!("value {i}");
    let mut batch = Batch::default();
    // Backwards, so that a store which keeps the order of insertion shows.
    for (i, key) in keys.iter().enumerate().rev() {
        batch = batch.with(key, &value(i));
    }
    on.commits("ids that are prefixes of each other", batch).await;
    for (i, key) in keys.iter().enumerate() {
        on.loads(&format!("of id {:?}", key.id.get(..4)), std::slice::from_ref(key), &[Some(&value(i))]).await;
    }
    let found: Vec<Key> = on.scan(RecordKind::SkippedPage).await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(ids_of(&found), ids_of(&keys), "scan: ids in ascending order of their bytes");
    let [_, _, _, a, a0, ..] = &keys;
    on.commits("a delete of one of them", Batch::default().without(a)).await;
    on.loads("after the delete of a prefix", &[a.clone(), a0.clone()], &[None, Some(&value(4))]).await;
}

/// Empty and large values come back as they were.
async fn values(store: &dyn Store) {
    let on = On::fresh(store, "values").await;
    let [empty, large, binary] = ["empty", "large", "binary"].map(session);
    let mib: Bytes = (0..1_usize << 20).map(|i| (i % 251) as u8).collect();
    let all: Bytes = (0..=255).collect();
    let mut batch = Batch::default().with(&empty, "");
    batch.puts.extend([(large.clone(), mib.clone()), (binary.clone(), all.clone())]);
    batch.events.push(OutboxEntry { seq: 1, body: mib.clone() });
    batch.events.push(OutboxEntry { seq: 2, body: Bytes::new() });
    on.commits("an empty value and one of 1 MiB", batch).await;
    let keys = [large.clone(), empty.clone(), binary];
    let found = must("load of large values", store.load(&on.account, &keys).await);
    // Not assert_eq: it would print a mebibyte.
    assert!(found == [Some(mib.clone()), Some(Bytes::new()), Some(all)], "load: a value came back changed");
    let events = on.outbox(0, 10).await;
    let bodies: Vec<Bytes> = events.into_iter().map(|event| event.body).collect();
    assert!(bodies == [mib, Bytes::new()], "outbox: a body came back changed");
    on.commits("a large value overwritten by a small one", Batch::default().with(&large, "x").with(&empty, "y")).await;
    on.loads("of a value that became small", &[large, empty], &[Some("x"), Some("y")]).await;
}

/// A scan has its kind only, whole, by id.
async fn scans(store: &dyn Store) {
    let on = On::fresh(store, "scans").await;
    assert_eq!(on.scan(RecordKind::PreKey).await, [], "scan of an unknown account");
    // Every other number, the larger first: big-endian ids are in numeric order.
    let numbers: Vec<u32> = (0..300).map(|i| i * 2 + 200).collect();
    let batch = numbers.iter().rev().fold(Batch::default(), |batch, number| {
        batch.with(&Key::new(RecordKind::PreKey, number.to_be_bytes()), &number.to_string())
    });
    on.commits("300 prekeys", batch).await;
    let others = RecordKind::ALL.into_iter().filter(|kind| *kind != RecordKind::PreKey);
    let batch = others.fold(Batch::default(), |batch, kind| batch.with(&Key::new(kind, "id"), "other"));
    on.commits("one record of every other kind", batch).await;
    let found: Vec<String> = on.scan(RecordKind::PreKey).await.iter().map(|(_, value)| text(value)).collect();
    let expected: Vec<String> = numbers.iter().map(u32::to_string).collect();
    assert_eq!(found, expected, "scan: all records of the kind, by id");
    for kind in RecordKind::ALL.into_iter().filter(|kind| *kind != RecordKind::PreKey) {
        let expected = [(Key::new(kind, "id"), Bytes::from("other"))];
        assert_eq!(on.scan(kind).await, expected, "scan of {kind:?}: its own records");
    }
    let some = Key::new(RecordKind::PreKey, 202_u32.to_be_bytes());
    on.commits("a delete", Batch::default().without(&some)).await;
    assert_eq!(on.scan(RecordKind::PreKey).await.len(), 299, "scan after a delete");

    // In parts, which end where the kind ends.
    let whole = on.scan(RecordKind::PreKey).await;
    let (mut parts, mut from) = (Vec::new(), Vec::new());
    loop {
        let part = on.scan_part(RecordKind::PreKey, &from, 100).await;
        assert!(part.len() <= 100, "scan_part: at most so many");
        let Some((last, _)) = part.last() else { break };
        from = [&last.id[..], &[0]].concat();
        parts.extend(part);
        assert!(parts.len() <= whole.len(), "scan_part: it begins where it is told to");
    }
    assert_eq!(parts, whole, "scan_part: all parts are the whole");
    let found = on.scan_part(RecordKind::PreKey, &300_u32.to_be_bytes(), usize::MAX).await;
    let expected: Vec<_> = whole.iter().filter(|(key, _)| *key.id >= 300_u32.to_be_bytes()[..]).cloned().collect();
    assert_eq!(found, expected, "scan_part: the id itself is in it");
    assert_eq!(on.scan_part(RecordKind::PreKey, b"", 0).await, [], "scan_part of nothing");
}

/// The same key under another account or kind is another record.
async fn isolation(store: &dyn Store) {
    // Names that a careless composition of account and key would mix up.
    let mut on = Vec::new();
    for name in ["isolation", "isolation ", "Isolation", "isolation/a", ""] {
        on.push(On::fresh(store, name).await);
    }
    let [first, second, ..] = on.as_slice() else { unreachable!("five accounts") };
    let kinds = [RecordKind::Session, RecordKind::Identity].map(|kind| Key::new(kind, "id"));
    for (i, on) in on.iter().enumerate() {
        let batch = Batch::default().with(&kinds[0], &format!("s{i}")).with(&kinds[1], &format!("i{i}"));
        on.commits("the same keys in each account", batch.telling(1, &format!("e{i}"))).await;
    }
    for (i, on) in on.iter().enumerate() {
        on.loads("of its own records", &kinds, &[Some(&format!("s{i}")), Some(&format!("i{i}"))]).await;
        on.has_events("of its own events", 0, 10, &[(1, &format!("e{i}"))]).await;
    }
    first.commits("a delete in one account", Batch::default().without(&kinds[0])).await;
    first.trims(1).await;
    first.loads("where it was deleted", &kinds, &[None, Some("i0")]).await;
    second.loads("where it was not", &kinds, &[Some("s1"), Some("i1")]).await;
    second.has_events("where nothing was trimmed", 0, 10, &[(1, "e1")]).await;
}

/// A call takes its place when it is made: reads see what was queued before, dropped and unpolled futures count.
async fn queueing(store: &dyn Store) {
    let on = On::fresh(store, "queueing").await;
    let key = session("a");
    let unpolled = store.commit(&on.account, Batch::default().with(&key, "1").telling(1, "e1"));
    on.loads("of a batch whose future was not polled yet", std::slice::from_ref(&key), &[Some("1")]).await;
    on.has_events("of a batch whose future was not polled yet", 0, 10, &[(1, "e1")]).await;
    must("commit, polled late", unpolled.await);
    drop(store.commit(&on.account, Batch::default().with(&key, "2").telling(2, "e2")));
    assert_eq!(on.scan(RecordKind::Session).await, [(key.clone(), Bytes::from("2"))], "scan: dropped commits count");
    let first = store.commit(&on.account, Batch::default().with(&key, "3"));
    let second = store.commit(&on.account, Batch::default().with(&key, "4"));
    on.loads("of the later of two queued batches", std::slice::from_ref(&key), &[Some("4")]).await;
    must("the second of two queued commits", second.await);
    must("the first of two queued commits", first.await);
    drop(store.trim_outbox(&on.account, 1));
    on.has_events("after a trim whose future was dropped", 0, 10, &[(2, "e2")]).await;
    drop(store.remove(&on.account));
    on.loads("after a removal whose future was dropped", &[key], &[None]).await;
}

/// Append, read from a place on, trim.
async fn outbox(store: &dyn Store) {
    let on = On::fresh(store, "outbox").await;
    on.has_events("of an unknown account", 0, 10, &[]).await;
    on.trims(7).await;
    on.commits("events without records", Batch::default().telling(1, "e1").telling(2, "e2").telling(3, "e3")).await;
    on.commits("an event with a record", Batch::default().telling(4, "e4").with(&session("a"), "1")).await;
    let all = [(1, "e1"), (2, "e2"), (3, "e3"), (4, "e4")];
    on.has_events("from the start", 0, 10, &all).await;
    on.has_events("limited", 0, 2, &all[..2]).await;
    on.has_events("after one", 1, 2, &all[1..3]).await;
    on.has_events("after the last", 4, 10, &[]).await;
    on.has_events("after the largest number", u64::MAX, usize::MAX, &[]).await;
    on.has_events("with limit 0", 0, 0, &[]).await;
    on.has_events("without a limit", 0, usize::MAX, &all).await;
    on.trims(2).await;
    on.has_events("after a trim", 0, 10, &all[2..]).await;
    on.trims(2).await;
    on.trims(0).await;
    on.has_events("after trims of what is gone", 0, 10, &all[2..]).await;
    on.loads("of a record beside a trimmed outbox", &[session("a")], &[Some("1")]).await;
    // A number is a number: the store does not ask for the ones between.
    let high = i64::MAX.cast_unsigned();
    on.commits(
        "numbers with gaps",
        Batch::default().telling(300, "e300").telling(70_000, "e70000").telling(high, "high"),
    )
    .await;
    on.has_events("from within a gap", 4, 2, &[(300, "e300"), (70_000, "e70000")]).await;
    on.has_events("from within another gap", 300, 10, &[(70_000, "e70000"), (high, "high")]).await;
    on.trims(69_999).await;
    on.has_events("after a trim within a gap", 0, 10, &[(70_000, "e70000"), (high, "high")]).await;
    on.trims(u64::MAX).await;
    on.has_events("after a trim of everything", 0, 10, &[]).await;
    on.commits("the next event of an empty outbox", Batch::default().telling(70_001, "next")).await;
    on.has_events("of the next event", 0, 10, &[(70_001, "next")]).await;
}

/// A batch that fails leaves nothing, and no trace in the next one.
async fn atomicity(store: &dyn Store) {
    let on = On::fresh(store, "atomicity").await;
    let [a, b, c] = ["a", "b", "c"].map(session);
    on.commits("the start", Batch::default().with(&a, "1").with(&b, "1").telling(1, "e1").telling(2, "e2")).await;
    let bad = Batch::default().with(&a, "2").without(&b).with(&c, "2").telling(3, "e3").telling(2, "again");
    on.conflicts("an event number that is taken", bad, 2).await;
    let untouched = [Some("1"), Some("1"), None];
    on.loads("after a failed batch", &[a.clone(), b.clone(), c.clone()], &untouched).await;
    on.has_events("after a failed batch", 0, 10, &[(1, "e1"), (2, "e2")]).await;
    // Queued together, the good ones around the bad one count.
    let before = store.commit(&on.account, Batch::default().with(&c, "3").telling(3, "e3"));
    let bad = store.commit(&on.account, Batch::default().with(&a, "3").telling(3, "again"));
    let after = store.commit(&on.account, Batch::default().with(&b, "3").telling(4, "e4"));
    must("commit queued before a failing one", before.await);
    assert_eq!(bad.await, Err(StoreError::Conflict { seq: 3 }), "commit with the number of one queued before");
    must("commit queued after a failing one", after.await);
    on.loads("around a failed batch", &[a, b, c], &[Some("1"), Some("3"), Some("3")]).await;
    on.has_events("around a failed batch", 0, 10, &[(1, "e1"), (2, "e2"), (3, "e3"), (4, "e4")]).await;
}

/// One sequence number twice: within a batch, and in an account that had nothing before.
async fn conflicts(store: &dyn Store) {
    let on = On::fresh(store, "conflicts").await;
    let twice = Batch::default().with(&session("a"), "1").telling(1, "e1").telling(1, "again");
    on.conflicts("one number twice in a batch", twice, 1).await;
    on.loads("after a failed first batch", &[session("a")], &[None]).await;
    on.has_events("after a failed first batch", 0, 10, &[]).await;
    assert!(!on.listed().await, "accounts() names an account whose only batch failed");
    on.commits("the same number, once", Batch::default().telling(1, "e1")).await;
    on.has_events("of the batch that succeeded", 0, 10, &[(1, "e1")]).await;
    on.is_removed().await;
}

/// An account is listed while it has a record.
async fn accounts(store: &dyn Store) {
    let on = On::fresh(store, "accounts").await;
    let key = session("a");
    on.commits("a delete in an unknown account", Batch::default().without(&key)).await;
    assert!(!on.listed().await, "accounts() names an account without a record");
    on.commits("an event only", Batch::default().telling(1, "e1")).await;
    assert!(!on.listed().await, "accounts() names an account without a record");
    on.commits("a record", Batch::default().with(&key, "")).await;
    assert!(on.listed().await, "accounts() lacks an account with a record");
    on.commits("its delete", Batch::default().without(&key)).await;
    assert!(!on.listed().await, "accounts() names an account whose last record was deleted");
    on.is_removed().await;
}

/// A batch that clears takes the records and leaves the outbox.
async fn clearing(store: &dyn Store) {
    let on = On::fresh(store, "clearing").await;
    let [a, b] = ["a", "b"].map(session);
    let identity = Key::new(RecordKind::Identity, "a");
    on.commits("the start", Batch::default().with(&a, "1").with(&identity, "1").telling(1, "e1")).await;
    let cleared = Batch { clear: true, ..Batch::default() }.with(&b, "2").telling(2, "e2");
    on.commits("a clearing batch", cleared).await;
    on.loads("after a clearing batch", &[a, b, identity], &[None, Some("2"), None]).await;
    on.has_events("after a clearing batch", 0, 10, &[(1, "e1"), (2, "e2")]).await;
}

/// Removal takes everything of one account; it may begin anew.
async fn removal(store: &dyn Store) {
    let (on, other) = (On::fresh(store, "removal").await, On::fresh(store, "removal 2").await);
    let key = session("a");
    for on in [&on, &other] {
        on.commits("something", Batch::default().with(&key, "1").telling(1, "e1").telling(2, "e2")).await;
    }
    on.is_removed().await;
    on.loads("after a removal", std::slice::from_ref(&key), &[None]).await;
    assert_eq!(on.scan(RecordKind::Session).await, [], "scan after a removal");
    on.has_events("after a removal", 0, 10, &[]).await;
    assert!(!on.listed().await, "accounts() names a removed account");
    on.is_removed().await;
    on.commits("a new start, with the old event numbers", Batch::default().with(&key, "2").telling(1, "new")).await;
    on.loads("after a new start", std::slice::from_ref(&key), &[Some("2")]).await;
    on.has_events("after a new start", 0, 10, &[(1, "new")]).await;
    other.loads("of another account", &[key], &[Some("1")]).await;
    other.has_events("of another account", 0, 10, &[(1, "e1"), (2, "e2")]).await;
}

/// Sixty accounts at once, each one batch after the other, with reads between.
async fn many_accounts(store: &dyn Store) {
    const ROUNDS: u64 = 20;
    let mut all = Vec::new();
    for i in 0..60 {
        all.push(On::fresh(store, &format!("many {i}")).await);
    }
    let account = async |on: &On<'_>| {
        let name = on.account.as_str();
        for round in 1..=ROUNDS {
            let value = format!("{name} {round}");
            let batch =
                Batch::default().with(&session("chain"), &value).with(&session(&value), "x").telling(round, &value);
            on.commits("one of many", batch).await;
            on.loads("one of many", &[session("chain"), session(&value)], &[Some(&value), Some("x")]).await;
        }
        let events = on.outbox(0, usize::MAX).await;
        assert!(events.iter().map(|event| event.seq).eq(1..=ROUNDS), "outbox of one of many accounts: all its events");
        let own = |event: &OutboxEntry| event.body == format!("{name} {}", event.seq);
        assert!(events.iter().all(own), "outbox of one of many accounts: its own events");
    };
    join(all.iter().map(account)).await;
    let listed = listed(store).await;
    assert!(all.iter().all(|on| listed.contains(&on.account)), "accounts() lacks some of many");
    join(all.iter().map(On::is_removed)).await;
}

/// A lease is given once, comes back when it is released or dropped, and leaves the account's contents alone.
async fn leases(store: &dyn Store) {
    let on = On::fresh(store, "leases").await;
    let first = must("acquire of an unknown account", store.acquire(&on.account).await);
    assert!(!on.listed().await, "accounts() names an account that was only acquired");
    on.is_refused("a second time").await;
    on.commits("the one who has the lease", Batch::default().with(&session("a"), "1").telling(1, "e1")).await;
    on.trims(1).await;
    on.is_removed().await;
    on.is_refused("after a removal: the lease stays").await;
    on.commits("the one who still has the lease", Batch::default().with(&session("a"), "2")).await;
    let other = On::fresh(store, "leases 2").await;
    let beside = must("acquire of another account", store.acquire(&other.account).await);

    must("release", first.release().await);
    on.loads("after a release", &[session("a")], &[Some("2")]).await;
    on.commits("nobody's account", Batch::default().with(&session("a"), "3")).await;
    let second = must("acquire after a release", store.acquire(&on.account).await);
    other.is_refused("while the first one changed hands").await;
    let token = second.token();
    drop(second);
    let third = must("acquire after a lease was dropped", store.acquire(&on.account).await);
    assert!(third.token() > token, "acquire: the token {} came after {token}", third.token());
    // A future that nobody waits for gives no lease that nobody has.
    must("release", third.release().await);
    drop(store.acquire(&on.account));
    let fourth = must("acquire after an acquire whose future was dropped", store.acquire(&on.account).await);
    must("release", fourth.release().await);
    must("release", beside.release().await);
}

/// Checks that a lease keeps another store out, which looks at the same contents: another process on the file, another node.
///
/// # Panics
/// As [`check`].
pub async fn check_leases(one: &dyn Store, other: &dyn Store) {
    let on = On::fresh(one, "shared").await;
    let beside = On { store: other, account: on.account.clone() };
    let key = session("a");
    beside.commits("nobody's account", Batch::default().with(&key, "1").telling(1, "e1")).await;
    let lease = must("acquire", one.acquire(&on.account).await);
    on.commits("the one who has the lease", Batch::default().with(&key, "2").telling(2, "e2")).await;
    beside.is_refused("while the other store has it").await;
    beside.is_kept_out("without a lease", |error| matches!(error, StoreError::Leased { .. })).await;
    beside.loads("without a lease", std::slice::from_ref(&key), &[Some("2")]).await;
    beside.has_events("without a lease", 0, 10, &[(1, "e1"), (2, "e2")]).await;

    let token = lease.token();
    must("release", lease.release().await);
    let lease = must("acquire after the other store's release", other.acquire(&on.account).await);
    assert!(lease.token() > token, "acquire: the token {} came after {token}", lease.token());
    on.is_refused("while the other store has it").await;
    on.is_kept_out("without a lease", |error| matches!(error, StoreError::Leased { .. })).await;
    beside.commits("the new owner", Batch::default().with(&key, "3").telling(3, "e3")).await;
    on.loads("of what the new owner wrote", std::slice::from_ref(&key), &[Some("3")]).await;
    drop(lease);
    beside.is_removed().await;
}

/// Checks that a store which lost its lease cannot write any more. `lapse` makes the leases of `one` run out: it stops that store for
/// longer than they hold, or whatever the backend has for it.
///
/// # Panics
/// As [`check`].
pub async fn check_fencing(one: &dyn Store, other: &dyn Store, lapse: impl AsyncFnOnce()) {
    let on = On::fresh(one, "fenced").await;
    let beside = On { store: other, account: on.account.clone() };
    let key = session("a");
    let old = must("acquire", one.acquire(&on.account).await);
    on.commits("the one who has the lease", Batch::default().with(&key, "1").telling(1, "e1")).await;
    beside.is_refused("before the lease ran out").await;
    lapse().await;
    let new = must("acquire of a lease that ran out", other.acquire(&on.account).await);
    assert!(new.token() > old.token(), "acquire: the token {} came after {}", new.token(), old.token());
    on.is_kept_out("whose lease was taken", |error| *error == StoreError::LeaseLost).await;
    beside.commits("the new owner", Batch::default().with(&key, "2").telling(2, "e2")).await;
    on.is_kept_out("whose lease was taken", |error| *error == StoreError::LeaseLost).await;
    beside.loads("of the new owner", std::slice::from_ref(&key), &[Some("2")]).await;
    beside.has_events("of the new owner", 0, 10, &[(1, "e1"), (2, "e2")]).await;
    // Giving back what was lost takes nothing from who has it.
    must("release of a lease that was lost", old.release().await);
    on.is_kept_out("that gave its lost lease back", |error| matches!(error, StoreError::Leased { .. })).await;
    beside.commits("the new owner", Batch::default().with(&key, "3")).await;
    must("release", new.release().await);
    on.is_removed().await;
}

/// One account under test.
struct On<'a> {
    store: &'a dyn Store,
    account: AccountId,
}

impl<'a> On<'a> {
    /// An account that has nothing, not even from a run before that failed.
    async fn fresh(store: &'a dyn Store, name: &str) -> Self {
        let on = Self { store, account: AccountId::new(format!("{PREFIX}{name}")) };
        on.is_removed().await;
        on
    }

    async fn is_refused(&self, when: &str) {
        match self.store.acquire(&self.account).await {
            Err(StoreError::Leased { .. }) => {}
            other => panic!("acquire {when}: {other:?}"),
        }
    }

    /// Every kind of write fails like that.
    async fn is_kept_out(&self, who: &str, expected: impl Fn(&StoreError) -> bool) {
        let batch = Batch::default().with(&session("kept out"), "x").telling(100, "x");
        let results = [
            ("commit", self.store.commit(&self.account, batch).await),
            ("trim_outbox", self.store.trim_outbox(&self.account, u64::MAX).await),
            ("remove", self.store.remove(&self.account).await),
        ];
        for (call, result) in results {
            assert!(result.as_ref().is_err_and(&expected), "{call} of a store {who}: {result:?}");
        }
        self.loads("of a write that was refused", &[session("kept out")], &[None]).await;
    }

    async fn is_removed(&self) {
        must("remove", self.store.remove(&self.account).await);
    }

    async fn commits(&self, what: &str, batch: Batch) {
        must(&format!("commit of {what}"), self.store.commit(&self.account, batch).await);
    }

    async fn conflicts(&self, what: &str, batch: Batch, seq: u64) {
        let result = self.store.commit(&self.account, batch).await;
        assert_eq!(result, Err(StoreError::Conflict { seq }), "commit of {what}");
    }

    async fn loads(&self, when: &str, keys: &[Key], expected: &[Option<&str>]) {
        let found = must(&format!("load {when}"), self.store.load(&self.account, keys).await);
        let found: Vec<Option<String>> = found.iter().map(|value| value.as_ref().map(text)).collect();
        let expected: Vec<Option<String>> = expected.iter().map(|value| value.map(str::to_owned)).collect();
        assert_eq!(found, expected, "load {when}");
    }

    async fn scan(&self, kind: RecordKind) -> Vec<(Key, Bytes)> {
        must("scan", self.store.scan(&self.account, kind).await)
    }

    async fn scan_part(&self, kind: RecordKind, from: &[u8], limit: usize) -> Vec<(Key, Bytes)> {
        must("scan_part", self.store.scan_part(&self.account, kind, from, limit).await)
    }

    async fn outbox(&self, after: u64, limit: usize) -> Vec<OutboxEntry> {
        must("outbox", self.store.outbox(&self.account, after, limit).await)
    }

    async fn has_events(&self, when: &str, after: u64, limit: usize, expected: &[(u64, &str)]) {
        let found = self.outbox(after, limit).await;
        let found: Vec<(u64, String)> = found.iter().map(|event| (event.seq, text(&event.body))).collect();
        let expected: Vec<(u64, String)> = expected.iter().map(|&(seq, body)| (seq, body.to_owned())).collect();
        assert_eq!(found, expected, "outbox {when}");
    }

    async fn trims(&self, through: u64) {
        must("trim_outbox", self.store.trim_outbox(&self.account, through).await);
    }

    async fn listed(&self) -> bool {
        listed(self.store).await.contains(&self.account)
    }
}

/// A batch, written as a sentence.
trait Compose: Sized {
    fn with(self, key: &Key, value: &str) -> Self;
    fn without(self, key: &Key) -> Self;
    fn telling(self, seq: u64, body: &str) -> Self;
}

impl Compose for Batch {
    fn with(mut self, key: &Key, value: &str) -> Self {
        self.puts.push((key.clone(), Bytes::copy_from_slice(value.as_bytes())));
        self
    }

    fn without(mut self, key: &Key) -> Self {
        self.deletes.push(key.clone());
        self
    }

    fn telling(mut self, seq: u64, body: &str) -> Self {
        self.events.push(OutboxEntry { seq, body: Bytes::copy_from_slice(body.as_bytes()) });
        self
    }
}

const PREFIX: &str = "contract/";

fn session(id: &str) -> Key {
    Key::new(RecordKind::Session, id)
}

fn text(value: &Bytes) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn ids_of(keys: &[Key]) -> Vec<&[u8]> {
    keys.iter().map(|key| key.id.as_slice()).collect()
}

fn must<T>(what: &str, result: Result<T, StoreError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{what}: {error}"),
    }
}

/// The accounts of this suite that the store lists, each once.
async fn listed(store: &dyn Store) -> Vec<AccountId> {
    let mut accounts = must("accounts", store.accounts().await);
    accounts.retain(|account| account.as_str().starts_with(PREFIX));
    accounts.sort();
    let len = accounts.len();
    accounts.dedup();
    assert_eq!(accounts.len(), len, "accounts() names an account twice");
    accounts
}

async fn clear(store: &dyn Store) {
    for account in listed(store).await {
        must("remove", store.remove(&account).await);
    }
}

/// Drives all futures at once, whoever drives this one.
async fn join<F: Future<Output = ()>>(futures: impl Iterator<Item = F>) {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    poll_fn(|context| {
        running.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
