//! Promise: what a sealed store keeps is readable with its key and in its place only, whatever somebody does to the values.
#![cfg(feature = "sqlite")]

use std::collections::HashSet;

use bytes::Bytes;
use wamd::{
    crypto::Secret,
    store::{
        AccountId, Batch, Key, MemoryStore, OutboxEntry, RecordKind, SealKey, SealedStore, SqliteStore, Store,
        StoreError, contract,
    },
};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn seal_key(id: u32) -> SealKey {
    SealKey::new(id, Secret::new([id as u8; 32]))
}

fn account(name: &str) -> AccountId {
    AccountId::new(name)
}

fn key(id: &str) -> Key {
    Key::new(RecordKind::Session, id)
}

fn put(key: &Key, value: impl Into<Bytes>) -> Batch {
    Batch { puts: vec![(key.clone(), value.into())], ..Batch::default() }
}

fn event(seq: u64, body: &str) -> Batch {
    Batch { events: vec![OutboxEntry { seq, body: Bytes::copy_from_slice(body.as_bytes()) }], ..Batch::default() }
}

fn load(store: &dyn Store, account: &AccountId, key: &Key) -> Result<Option<Bytes>, StoreError> {
    block_on(store.load(account, std::slice::from_ref(key))).map(|mut values| values.remove(0))
}

/// A value as it stands in the backend.
fn raw(store: &MemoryStore, account: &AccountId, key: &Key) -> Bytes {
    store.snapshot().record(account, key).unwrap().clone()
}

fn is_broken<T: std::fmt::Debug>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Sealed(_)))
}

#[test]
fn the_contract_holds_over_memory() {
    let store = SealedStore::new(MemoryStore::new(), &seal_key(1));
    block_on(contract::check(&store));
}

#[test]
fn the_contract_holds_over_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let inner = SqliteStore::open(directory.path().join("wamd.db")).unwrap();
    let store = SealedStore::new(inner, &seal_key(1)).with_older(&seal_key(2));
    block_on(contract::check(&store));
}

#[test]
fn nothing_is_readable_in_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wamd.db");
    let store = SealedStore::new(SqliteStore::open(&path).unwrap(), &seal_key(1));
    let mut batch = put(&key("x"), "a secret of forty-two letters, and of no more");
    batch.append(event(1, "a message of forty-two letters, more or less"));
    block_on(store.commit(&account("a"), batch)).unwrap();
    drop(store);
    let file = std::fs::read(&path).unwrap();
    let holds = |text: &[u8]| file.windows(text.len()).any(|window| window == text);
    assert!(holds(b"CREATE TABLE"), "this is the file");
    assert!(!holds(b"forty-two") && !holds(b"secret") && !holds(b"message of"));
}

#[test]
fn another_key_opens_nothing_and_loses_nothing() {
    let (inner, a, x) = (MemoryStore::new(), account("a"), key("x"));
    let mut batch = put(&x, "1");
    batch.append(event(1, "e1"));
    block_on(SealedStore::new(inner.clone(), &seal_key(1)).commit(&a, batch)).unwrap();
    let before = inner.snapshot();

    let unknown = Err(StoreError::UnknownKey { id: 1 });
    let other_number = SealedStore::new(inner.clone(), &seal_key(2));
    assert_eq!(load(&other_number, &a, &x), unknown);
    assert_eq!(block_on(other_number.scan(&a, RecordKind::Session)), Err(StoreError::UnknownKey { id: 1 }));
    assert_eq!(block_on(other_number.outbox(&a, 0, 9)), Err(StoreError::UnknownKey { id: 1 }));
    assert_eq!(block_on(other_number.reseal(&a)), Err(StoreError::UnknownKey { id: 1 }));

    let other_bytes = SealedStore::new(inner.clone(), &SealKey::new(1, Secret::new([9; 32])));
    assert!(is_broken(&load(&other_bytes, &a, &x)));
    assert!(is_broken(&block_on(other_bytes.scan(&a, RecordKind::Session))));
    assert!(is_broken(&block_on(other_bytes.outbox(&a, 0, 9))));

    assert_eq!(inner.snapshot(), before);
    let right = SealedStore::new(inner, &seal_key(2)).with_older(&seal_key(1));
    assert_eq!(load(&right, &a, &x), Ok(Some("1".into())));
    assert_eq!(block_on(right.outbox(&a, 0, 9)).unwrap(), event(1, "e1").events);
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let (inner, a, x) = (MemoryStore::new(), account("a"), key("x"));
    let store = SealedStore::new(inner.clone(), &seal_key(1));
    block_on(store.commit(&a, put(&x, "some value"))).unwrap();
    let sound = raw(&inner, &a, &x);
    assert_eq!(sound.len(), "some value".len() + 45);
    let reads = |value: Vec<u8>| {
        block_on(inner.commit(&a, put(&x, value))).unwrap();
        load(&store, &a, &x)
    };
    for bit in 0..sound.len() * 8 {
        let mut bad = sound.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        match reads(bad) {
            // The number of the key.
            Err(StoreError::UnknownKey { .. }) => assert!((8..40).contains(&bit), "bit {bit}"),
            other => assert!(is_broken(&other), "bit {bit}"),
        }
    }
    for len in 0..sound.len() {
        assert!(is_broken(&reads(sound[..len].to_vec())), "{len} bytes");
    }
    assert!(is_broken(&reads([&sound[..], b"x"].concat())));
    assert!(is_broken(&reads(b"never sealed, and longer than any header or tag that there is".to_vec())));
    assert_eq!(reads(sound.to_vec()), Ok(Some("some value".into())));
}

#[test]
fn a_value_opens_in_its_own_place_only() {
    let inner = MemoryStore::new();
    let store = SealedStore::new(inner.clone(), &seal_key(1));
    let (a, b, x) = (account("a"), account("b"), key("x"));
    let mut batch = put(&x, "1");
    batch.append(event(1, "e1"));
    block_on(store.commit(&a, batch)).unwrap();
    let sealed = raw(&inner, &a, &x);
    let body = inner.snapshot().outbox(&a, 0).next().unwrap().body;

    let places = [(&b, x.clone()), (&a, key("y")), (&a, key("")), (&a, Key::new(RecordKind::Identity, "x"))];
    for (account, key) in &places {
        block_on(inner.commit(account, put(key, sealed.clone()))).unwrap();
        assert!(is_broken(&load(&store, account, key)), "{account} {key:?}");
    }
    // An event as another event, or as a record.
    let moved = Batch { events: vec![OutboxEntry { seq: 2, body: body.clone() }], ..Batch::default() };
    block_on(inner.commit(&a, moved)).unwrap();
    assert!(is_broken(&block_on(store.outbox(&a, 1, 9))));
    assert_eq!(block_on(store.outbox(&a, 0, 1)).unwrap(), event(1, "e1").events);
    block_on(inner.commit(&a, put(&key("z"), body))).unwrap();
    assert!(is_broken(&load(&store, &a, &key("z"))));
}

/// Nonces depend on all that is sealed: the same value elsewhere, or another one in its place, has another.
#[test]
fn no_nonce_occurs_twice_with_one_key() {
    let inner = MemoryStore::new();
    let store = SealedStore::new(inner.clone(), &seal_key(1));
    let mut seen = HashSet::new();
    for name in ["a", "b"] {
        let a = account(name);
        for round in 0..200_u32 {
            // The same value in all rounds under its own id, another one each round under one id, and an event.
            let mut batch = put(&key(&round.to_string()), "the same");
            batch.append(put(&key("counter"), round.to_be_bytes().to_vec()));
            batch.append(event(u64::from(round) + 1, "the same"));
            block_on(store.commit(&a, batch)).unwrap();
            let stored = inner.snapshot();
            let body = stored.outbox(&a, u64::from(round)).next().unwrap().body;
            for value in [raw(&inner, &a, &key(&round.to_string())), raw(&inner, &a, &key("counter")), body] {
                assert!(seen.insert(value[5..29].to_vec()), "{name} {round}");
            }
        }
    }
    assert_eq!(seen.len(), 2 * 200 * 3);
}

#[test]
fn resealing_leaves_nothing_to_the_old_key_but_events() {
    let (inner, a, b) = (MemoryStore::new(), account("a"), account("b"));
    let first = SealedStore::new(inner.clone(), &seal_key(1));
    let mut batch = event(1, "e1");
    batch.puts = (0..600).map(|n| (key(&n.to_string()), n.to_string().into())).collect();
    batch.puts.extend(RecordKind::ALL.into_iter().map(|kind| (Key::new(kind, "one of its kind"), "1".into())));
    block_on(first.commit(&a, batch)).unwrap();
    block_on(first.commit(&b, put(&key("x"), "1"))).unwrap();
    let records = 600 + RecordKind::ALL.len() as u64;

    let both = SealedStore::new(inner.clone(), &seal_key(2)).with_older(&seal_key(1));
    block_on(both.commit(&a, event(2, "e2"))).unwrap();
    let running = block_on(both.acquire(&a)).unwrap();
    assert!(matches!(block_on(both.reseal(&a)), Err(StoreError::Leased { .. })), "not while the account runs");
    block_on(running.release()).unwrap();
    let done = block_on(both.reseal(&a)).unwrap();
    assert_eq!((done.records, done.older_events), (records, 1));
    let again = block_on(both.reseal(&a)).unwrap();
    assert_eq!((again.records, again.older_events), (0, 1));

    let second = SealedStore::new(inner, &seal_key(2));
    for n in 0..600 {
        assert_eq!(load(&second, &a, &key(&n.to_string())), Ok(Some(n.to_string().into())));
    }
    assert_eq!(block_on(second.outbox(&a, 1, 9)).unwrap(), event(2, "e2").events);
    assert_eq!(block_on(second.outbox(&a, 0, 9)), Err(StoreError::UnknownKey { id: 1 }));
    assert_eq!(load(&second, &b, &key("x")), Err(StoreError::UnknownKey { id: 1 }), "another account is another pass");
    block_on(second.trim_outbox(&a, 1)).unwrap();
    assert_eq!(block_on(second.reseal(&a)).unwrap().older_events, 0);
}

#[test]
fn debug_and_errors_show_no_key() {
    let key = SealKey::new(7, Secret::new([0xab; 32]));
    let store = SealedStore::new(MemoryStore::new(), &key);
    let shown = format!("{key:?} {store:?}");
    assert!(shown.contains('7') && !shown.contains("171") && !shown.contains("ab, ab"), "{shown}");
}
