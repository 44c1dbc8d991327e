//! Promise: an account moves between any two stores by a sealed file, and however old the file is, no message key is used twice.
#![cfg(all(feature = "client", feature = "sqlite"))]

#[cfg(feature = "postgres")]
#[path = "common/postgres.rs"]
mod postgres;
#[path = "common/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    io::{self, Read},
    sync::Arc,
};

use bytes::Bytes;
use wamd::{
    client::{TransferError, export_account, import_account},
    crypto::Secret,
    engine::{Command, CommandError},
    signal::{
        sender_key::wire::SenderKeyMessage,
        wire::{PreKeyMessage, WhisperMessage},
    },
    store::{
        AccountId, Batch, Key, MemoryStore, OutboxEntry, RecordKind, SealKey, SealedStore, SqliteStore, Store,
        StoreError,
    },
};
use wamd_loopback::GroupMode;
use world::{Disk, World, text_of};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn key() -> SealKey {
    SealKey::new(3, Secret::new([9; 32]))
}

fn account() -> AccountId {
    AccountId::new("a")
}

async fn exported(store: &dyn Store, account: &AccountId) -> Result<Vec<u8>, TransferError> {
    let mut file = Vec::new();
    export_account(store, account, &key(), &mut file).await?;
    Ok(file)
}

async fn imported(store: &dyn Store, file: &[u8]) -> Result<AccountId, TransferError> {
    import_account(store, &key(), &mut &*file).await.map(|done| done.account)
}

/// Everything of an account, with the events.
async fn contents(store: &dyn Store, account: &AccountId) -> (Vec<(Key, Bytes)>, Vec<OutboxEntry>) {
    let mut records = Vec::new();
    for kind in RecordKind::ALL {
        records.extend(store.scan(account, kind).await.unwrap());
    }
    (records, store.outbox(account, 0, usize::MAX).await.unwrap())
}

/// One record of each kind, many of one, values of every size, and events.
fn everything() -> Batch {
    let mut puts: Vec<_> = RecordKind::ALL
        .into_iter()
        .filter(|kind| *kind != RecordKind::Imported)
        .map(|kind| (Key::new(kind, if kind == RecordKind::Account { "" } else { "one" }), "1".into()))
        .collect();
    for n in 0..1_000_u32 {
        let value: Vec<u8> = (0..n * 3 % 4_001).map(|at| (at * n) as u8).collect();
        puts.push((Key::joined(RecordKind::Session, &[b"many", &n.to_be_bytes()]), value.into()));
    }
    puts.push((Key::new(RecordKind::Sent, "large"), vec![7; 3 << 20].into()));
    puts.push((Key::new(RecordKind::Sent, ""), Bytes::new()));
    let events = (5..600).map(|seq| OutboxEntry { seq, body: format!("event {seq}").into() }).collect();
    Batch { puts, events, ..Batch::default() }
}

// ---- between stores -----------------------------------------------------------------------------------------------

#[test]
fn an_account_goes_from_store_to_store() {
    block_on(async {
        let directory = tempfile::tempdir().unwrap();
        #[cfg_attr(not(feature = "postgres"), expect(unused_mut, reason = "there is one more"))]
        let mut stores: Vec<Arc<dyn Store>> = vec![
            Arc::new(MemoryStore::new()),
            Arc::new(SqliteStore::open(directory.path().join("one.db")).unwrap()),
            Arc::new(SealedStore::new(MemoryStore::new(), &SealKey::new(1, Secret::new([1; 32])))),
        ];
        #[cfg(feature = "postgres")]
        let cluster = postgres::Cluster::shared();
        #[cfg(feature = "postgres")]
        if let Some(cluster) = &cluster {
            let address = cluster.database().await;
            stores.push(Arc::new(wamd::store::PostgresStore::connect(&address).await.unwrap()));
        }
        stores.push(Arc::new(SqliteStore::open(directory.path().join("other.db")).unwrap()));
        stores.push(Arc::new(MemoryStore::new()));

        stores[0].commit(&account(), everything()).await.unwrap();
        stores[0].commit(&AccountId::new("b"), everything()).await.unwrap();
        let (mut records, events) = contents(&*stores[0], &account()).await;
        records.retain(|(key, _)| !matches!(key.kind, RecordKind::OwnSenderKey | RecordKind::SenderKeyMarks));
        records.push((Key::new(RecordKind::Imported, ""), vec![2].into()));
        for pair in stores.windows(2) {
            let file = exported(&*pair[0], &account()).await.unwrap();
            assert_eq!(imported(&*pair[1], &file).await, Ok(account()));
            let is_alike = contents(&*pair[1], &account()).await == (records.clone(), events.clone());
            assert!(is_alike, "{:?}", pair[1]);
            assert_eq!(pair[1].accounts().await.unwrap(), [account()], "nothing of another account");
            // Both leases are given back, and what was there before is left alone.
            assert_eq!(imported(&*pair[1], &file).await, Err(TransferError::Exists));
            pair[0].remove(&account()).await.unwrap();
            assert_eq!(exported(&*pair[0], &account()).await, Err(TransferError::NoAccount));
        }
    });
}

#[test]
fn what_runs_is_neither_exported_nor_written_over() {
    block_on(async {
        let (from, to) = (MemoryStore::new(), MemoryStore::new());
        from.commit(&account(), everything()).await.unwrap();
        let file = exported(&from, &account()).await.unwrap();
        let running = from.acquire(&account()).await.unwrap();
        let refused = exported(&from, &account()).await.unwrap_err();
        assert!(matches!(refused, TransferError::Store(StoreError::Leased { .. })), "{refused}");
        running.release().await.unwrap();

        let running = to.acquire(&account()).await.unwrap();
        let refused = imported(&to, &file).await.unwrap_err();
        assert!(matches!(refused, TransferError::Store(StoreError::Leased { .. })), "{refused}");
        running.release().await.unwrap();
        // An outbox is something, too.
        let event = OutboxEntry { seq: 9, body: "left".into() };
        to.commit(&account(), Batch { events: vec![event], ..Batch::default() }).await.unwrap();
        let before = to.snapshot();
        assert_eq!(imported(&to, &file).await, Err(TransferError::Exists));
        assert_eq!(to.snapshot(), before);
    });
}

// ---- files that are not what they seem ----------------------------------------------------------------------------

/// A file of some chunks.
fn file() -> Vec<u8> {
    let store = MemoryStore::new();
    let puts = vec![
        (Key::new(RecordKind::Account, ""), "the account".into()),
        (Key::new(RecordKind::Session, "x"), vec![1; 150_000].into()),
    ];
    let events = vec![OutboxEntry { seq: 1, body: "an event".into() }];
    block_on(async {
        store.commit(&account(), Batch { puts, events, ..Batch::default() }).await.unwrap();
        exported(&store, &account()).await.unwrap()
    })
}

/// The import fails and leaves nothing.
fn refused(file: &[u8]) -> TransferError {
    let store = MemoryStore::new();
    let error = block_on(imported(&store, file)).unwrap_err();
    assert_eq!(store.snapshot(), MemoryStore::new().snapshot(), "{error}");
    block_on(store.acquire(&account())).expect("it was given back");
    error
}

/// Where each chunk begins.
fn chunks(file: &[u8]) -> Vec<usize> {
    let (mut at, mut found) = (45, Vec::new());
    while at < file.len() {
        found.push(at);
        let word = u32::from_be_bytes(file[at..at + 4].try_into().unwrap());
        at += 4 + (word & 0x7FFF_FFFF) as usize;
    }
    found
}

#[test]
fn a_wrong_key_opens_nothing() {
    let (store, file) = (MemoryStore::new(), file());
    for (other, expected) in [
        (SealKey::new(4, Secret::new([9; 32])), TransferError::UnknownKey { id: 3 }),
        (SealKey::new(3, Secret::new([8; 32])), TransferError::Sealed),
    ] {
        let refused = block_on(import_account(&store, &other, &mut &*file)).unwrap_err();
        assert_eq!(refused, expected);
    }
    assert_eq!(block_on(imported(&store, &file)), Ok(account()));
}

#[test]
fn nothing_of_it_can_be_read_and_no_two_are_alike() {
    let (one, other) = (file(), file());
    assert_ne!(one[45..], other[45..]);
    for word in [&b"the account"[..], b"an event", &[1; 32]] {
        assert!(!one.windows(word.len()).any(|found| found == word));
    }
}

#[test]
fn whatever_is_cut_off_is_missed() {
    let file = file();
    for len in (0..file.len()).step_by(997).chain(chunks(&file)).chain([file.len() - 1, 44, 45, 46]) {
        assert_eq!(refused(&file[..len]), TransferError::Truncated, "{len} bytes");
    }
    // Ends after a whole chunk that claims to be the last.
    let at = chunks(&file);
    let mut cut = file[..at[2]].to_vec();
    cut[at[1]] |= 0x80;
    assert_eq!(refused(&cut), TransferError::Sealed);
}

#[test]
fn whatever_is_changed_is_noticed() {
    let file = file();
    let at = chunks(&file);
    assert_eq!(at.len(), 3);
    for byte in (0..file.len()).step_by(2_999).chain(0..60).chain(at.iter().flat_map(|at| *at..at + 8)) {
        for bit in [0, 7] {
            let mut bad = file.clone();
            bad[byte] ^= 1 << bit;
            let error = refused(&bad);
            let expected = match byte {
                0..=7 => error == TransferError::Format("it is no export"),
                8 => error == TransferError::Format("it is of a newer version"),
                9..=12 => matches!(error, TransferError::UnknownKey { .. }),
                // A length that is another one, or all the rest.
                _ => {
                    let is_length = at.iter().any(|at| (*at..at + 4).contains(&byte));
                    error == TransferError::Sealed
                        || is_length
                            && matches!(
                                error,
                                TransferError::TooLarge("a chunk")
                                    | TransferError::Format("a chunk of it is empty")
                                    | TransferError::Truncated
                            )
                }
            };
            assert!(expected, "byte {byte}: {error}");
        }
    }
    // Chunks in another order, twice, left out, or of another file.
    let (head, one, two, three) = (&file[..at[0]], &file[at[0]..at[1]], &file[at[1]..at[2]], &file[at[2]..]);
    let other = self::file();
    for parts in [
        [head, two, one, three].concat(),
        [head, one, one, two, three].concat(),
        [head, one, three].concat(),
        [head, three].concat(),
        [head, one, &other[at[1]..at[2]], three].concat(),
        [&other[..45], one, two, three].concat(),
    ] {
        assert_eq!(refused(&parts), TransferError::Sealed);
    }
}

#[test]
fn what_is_announced_reserves_nothing() {
    let head = &file()[..45];
    for word in [u32::MAX, 0x7FFF_FFFF, 0x8001_0011, 0x0001_0011] {
        assert_eq!(refused(&[head, &word.to_be_bytes(), &[0; 64]].concat()), TransferError::TooLarge("a chunk"));
    }
    for word in [0, 16, 0x8000_0000, 0x8000_0010_u32] {
        let error = refused(&[head, &word.to_be_bytes(), &[0; 64]].concat());
        assert_eq!(error, TransferError::Format("a chunk of it is empty"));
    }
    assert_eq!(refused(&[head, &0x0001_0010_u32.to_be_bytes()].concat()), TransferError::Truncated);
}

/// Breaks off after some bytes, as a disk or a network does.
struct Broken<'a>(&'a [u8], usize);

impl Read for Broken<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.0.len().min(to.len()).min(self.1);
        if count == 0 {
            return Err(io::Error::other("gone"));
        }
        let (now, later) = self.0.split_at(count);
        to[..count].copy_from_slice(now);
        (self.0, self.1) = (later, self.1 - count);
        Ok(count)
    }
}

#[test]
fn a_file_that_breaks_off_and_a_store_that_fails_leave_nothing() {
    let file = file();
    for len in [0, 10, 45, 100, 70_000, file.len() - 1] {
        let store = MemoryStore::new();
        let error = block_on(import_account(&store, &key(), &mut Broken(&file, len))).unwrap_err();
        assert_eq!(error, TransferError::Io(io::ErrorKind::Other));
        assert_eq!(store.snapshot(), MemoryStore::new().snapshot());
    }
    let store = MemoryStore::new();
    store.fail_commits(1);
    let error = block_on(imported(&store, &file)).unwrap_err();
    assert!(matches!(error, TransferError::Store(StoreError::Backend(_))), "{error}");
    assert_eq!(store.snapshot(), MemoryStore::new().snapshot());
    assert_eq!(block_on(imported(&store, &file)), Ok(account()));
}

#[test]
fn an_import_that_was_interrupted_does_not_run_and_can_be_repeated() {
    let mut world = World::online(&["alice"]);
    world.crash("alice");
    let seq = world.actor("alice").last_seq;
    let alice = AccountId::new("alice");
    let file = block_on(exported(&world.actor("alice").store, &alice)).unwrap();
    // What stands in the store at any moment of the import: the mark, and some of the records.
    let half = MemoryStore::new();
    let some = world.actor("alice").records(RecordKind::PreKey).into_iter().take(3);
    let puts = some.chain([(Key::new(RecordKind::Imported, ""), vec![1].into())]).collect();
    block_on(half.commit(&alice, Batch { puts, ..Batch::default() })).unwrap();
    world.actor("alice").store = half;
    world.actor("alice").last_seq = 0;
    world.start("alice");
    assert!(matches!(world.command("alice", Command::LinkQr), Err(CommandError::Record(_))));
    assert_eq!(world.actor("alice").count(), 4, "nothing was touched");
    world.crash("alice");
    assert_eq!(block_on(exported(&world.actor("alice").store, &alice)), Err(TransferError::NoAccount));
    assert_eq!(block_on(imported(&world.actor("alice").store, &file)), Ok(alice));
    world.actor("alice").last_seq = seq;
    world.start("alice");
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(world.state("alice"), "CONNECTED");
}

// ---- message keys -------------------------------------------------------------------------------------------------

/// The message keys that an account was heard to use, with what was encrypted under each.
#[derive(Default)]
struct Keys(BTreeMap<(String, Vec<u8>, u32), Bytes>);

impl Keys {
    /// Takes over what the server heard since the last time, and checks it. How many ciphertexts there were of each kind.
    fn note(&mut self, world: &mut World, name: &str) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for stanza in world.heard(name).iter().filter(|stanza| stanza.tag() == "message") {
            let participants = stanza.find_child("participants");
            let addressed = participants.iter().flat_map(|all| all.child_nodes()).map(|to| (to, "jid"));
            let target = if stanza.attr_jid("participant").is_some() { "participant" } else { "to" };
            for (node, target) in addressed.chain([(stanza, target)]) {
                let target = node.attr_jid(target).unwrap().to_string();
                for enc in node.child_nodes().iter().filter(|child| child.tag() == "enc") {
                    let (bytes, kind) = (enc.content_bytes().unwrap(), enc.attr_str("type").unwrap().into_owned());
                    let (message, chain, counter) = match &*kind {
                        "skmsg" => {
                            let inner = SenderKeyMessage::decode(&bytes).unwrap();
                            (bytes.clone(), inner.id.0.to_be_bytes().to_vec(), inner.iteration)
                        }
                        _ => {
                            let message = match &*kind {
                                "pkmsg" => PreKeyMessage::decode(&bytes).unwrap().message.to_vec(),
                                _ => bytes.to_vec(),
                            };
                            let inner = WhisperMessage::decode(&message).unwrap();
                            (message.clone().into(), inner.ratchet.as_bytes().to_vec(), inner.counter)
                        }
                    };
                    let before = self.0.insert((target.clone(), chain, counter), message.clone());
                    assert!(before.is_none_or(|before| before == message), "{target}: key {counter} was used twice");
                    *kinds.entry(kind).or_default() += 1;
                }
            }
        }
        kinds
    }
}

fn retries(world: &mut World, name: &str) -> usize {
    let heard = world.heard(name);
    heard.iter().filter(|stanza| stanza.attr_str("type").as_deref() == Some("retry")).count()
}

/// Puts the account of a file into the place of what alice has.
fn replace(world: &mut World, file: &[u8], last_seq: u64) {
    let store = MemoryStore::new();
    block_on(imported(&store, file)).unwrap();
    world.crash("alice");
    world.actor("alice").store = store;
    world.actor("alice").last_seq = last_seq;
    world.start("alice");
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(world.state("alice"), "CONNECTED");
}

#[test]
fn an_account_that_has_moved_loses_nothing_and_asks_for_nothing() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    let last = world.send("bob", "alice", "before");
    world.command("alice", Command::Disconnect).unwrap();
    world.send("bob", "alice", "while it is moved");
    let seq = world.actor("alice").last_seq;
    let file = block_on(exported(&world.actor("alice").store, &AccountId::new("alice"))).unwrap();
    world.forget();
    replace(&mut world, &file, seq);
    let texts: Vec<_> = world.events("alice").iter().filter_map(text_of).map(str::to_owned).collect();
    assert_eq!(texts, ["while it is moved"], "{last:?} was told before");
    // Bob goes on in the session that he has, also with a turn of the ratchet.
    world.send("bob", "alice", "after");
    assert_eq!(retries(&mut world, "alice"), 0);
    for _ in 0..3 {
        world.talk("alice", "bob");
    }
    assert_eq!(retries(&mut world, "bob"), 0);
}

/// The heart of it: the file is older than what was sent since, and is used more than once.
#[test]
fn an_old_export_uses_no_message_key_again() {
    let mut world = World::online(&["alice", "bob", "carol"]);
    let group = {
        let members = [world.jid("bob"), world.jid("carol")];
        world.group("alice", GroupMode::Lid, members)
    };
    let mut keys = Keys::default();
    let mut chat = |world: &mut World, about: &str| {
        for n in 0..3 {
            world.send("alice", "bob", &format!("{about} {n}"));
            world.send("alice", "carol", &format!("{about} {n}"));
            world.send_to("alice", &group, &format!("{about} {n}"));
        }
        let kinds = keys.note(world, "alice");
        let received = world.events("bob").iter().filter_map(text_of).filter(|text| text.starts_with(about)).count();
        assert_eq!(received, 6, "{about}: three of the chat and three of the group");
        kinds
    };
    chat(&mut world, "first");
    // With bob the next message is on a new chain, which is begun when it is sent; with carol on the one that there is.
    world.talk("bob", "alice");
    world.command("alice", Command::Disconnect).unwrap();
    let seq = world.actor("alice").last_seq;
    let file = block_on(exported(&world.actor("alice").store, &AccountId::new("alice"))).unwrap();
    world.command("alice", Command::Connect).unwrap();

    chat(&mut world, "since the export");
    // A lease that was taken and never became durable.
    world.disk("alice", Disk::Stuck);
    world.begin("alice", Command::Send(wamd::engine::SendRequest::text(world.jid("bob"), "lost")));
    let mut pending = None;
    for round in ["one", "two", "three"] {
        replace(&mut world, &file, seq);
        let kinds = chat(&mut world, round);
        assert!(kinds.get("pkmsg").is_some_and(|count| *count >= 4), "{round}: fresh sessions, {kinds:?}");
        world.advance_secs(60);
        world.talk("alice", "bob");
        world.talk("carol", "alice");
        chat(&mut world, &format!("later {round}"));
        pending = chat(&mut world, &format!("in the end {round}")).get("pkmsg").copied();
    }
    // It is the same afterwards: a restart is no import.
    assert_eq!(world.actor("alice").records(RecordKind::Imported), []);
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    let kinds = chat(&mut world, "restarted");
    assert_eq!(kinds.get("pkmsg").copied(), pending, "only to phones, which never answer: {kinds:?}");
}
