//! Promise: one process runs an account. A second one is refused, a crash leaves the account free at once, and who lost it stops.
#![cfg(all(feature = "client", feature = "sqlite"))]

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use rusqlite::Connection;
use tempfile::TempDir;
use wamd::{
    client::{Client, Error},
    store::{AccountId, Batch, Key, MemoryStore, OutboxEntry, RecordKind, SqliteStore, Store, StoreError, contract},
};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wamd.db");
    (directory, path)
}

fn account() -> AccountId {
    AccountId::new("a")
}

fn put(value: &str) -> Batch {
    let key = Key::new(RecordKind::Session, "x");
    Batch { puts: vec![(key, value.to_owned().into())], ..Batch::default() }
}

/// The files beside the database that say who lives.
fn owners(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains("-owner-")).collect()
}

#[test]
fn the_contract_holds_between_two_stores_on_a_file() {
    let (_directory, path) = place();
    let stores = [SqliteStore::open(&path).unwrap(), SqliteStore::open(&path).unwrap()];
    block_on(contract::check_leases(&stores[0], &stores[1]));
    // A store that lives keeps its leases. That somebody removes the file that says so is the only way to lose one.
    block_on(contract::check_fencing(&stores[0], &stores[1], async || {
        let lock = Connection::open(&path).unwrap();
        let owner: String =
            lock.query_row("SELECT owner FROM lease WHERE account = 'contract/fenced'", [], |row| row.get(0)).unwrap();
        fs::remove_file(format!("{}-owner-{owner}", path.display())).unwrap();
    }));
    drop(stores);
    assert_eq!(owners(&path), [] as [PathBuf; 0], "stores that are closed leave nothing behind");
}

#[test]
fn closing_a_store_gives_back_what_it_has() {
    let (_directory, path) = place();
    let (one, other) = (SqliteStore::open(&path).unwrap(), SqliteStore::open(&path).unwrap());
    let lease = block_on(one.acquire(&account())).unwrap();
    let refused = block_on(other.acquire(&account())).unwrap_err();
    assert_eq!(refused, StoreError::Leased { by: format!("process {}", std::process::id()), until: None });
    drop(one);
    let taken = block_on(other.acquire(&account())).unwrap();
    assert!(taken.token() > lease.token());
    // It outlived its store, and has nothing to give back.
    block_on(lease.release()).unwrap();
    block_on(other.commit(&account(), put("1"))).unwrap();
    assert!(matches!(block_on(SqliteStore::open(&path).unwrap().acquire(&account())), Err(StoreError::Leased { .. })));
}

/// The process that is killed: has the account, and commits to it.
#[test]
fn child_that_runs_the_account() {
    let Some(path) = env::var_os("WAMD_LEASE_CHILD") else { return };
    let store = SqliteStore::open(path).unwrap();
    let lease = block_on(store.acquire(&account())).unwrap();
    for round in 0_u64.. {
        block_on(store.commit(&account(), put(&round.to_string()))).unwrap();
        if round == 0 {
            std::io::stdout().write_all(format!("token {}\n", lease.token()).as_bytes()).unwrap();
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn child(path: &Path) -> (Child, u64) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "child_that_runs_the_account", "--nocapture"])
        .env("WAMD_LEASE_CHILD", path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let token = lines.filter_map(|line| Some(line.split_once("token ")?.1.parse().unwrap())).next();
    (child, token.expect("the child took the account"))
}

#[test]
fn another_process_is_refused_while_the_first_lives_and_not_a_moment_longer() {
    let (_directory, path) = place();
    let mut last = 0;
    for round in 0..4 {
        let (mut first, token) = child(&path);
        assert!(token > last, "round {round}: {token} after {last}");
        let store = SqliteStore::open(&path).unwrap();
        let expected = StoreError::Leased { by: format!("process {}", first.id()), until: None };
        assert_eq!(block_on(store.acquire(&account())).unwrap_err(), expected);
        assert_eq!(block_on(store.commit(&account(), put("mine"))), Err(expected.clone()));
        assert_eq!(block_on(store.remove(&account())), Err(expected));
        // Other accounts of the file are nobody's business.
        block_on(store.commit(&AccountId::new("b"), put("mine"))).unwrap();

        first.kill().unwrap();
        first.wait().unwrap();
        // No waiting: the lock went with the process.
        let lease = block_on(store.acquire(&account())).unwrap();
        assert!(lease.token() > token);
        block_on(store.commit(&account(), put("mine"))).unwrap();
        last = lease.token();
        assert_eq!(owners(&path).len(), 1, "the file of the dead is gone");
    }
}

#[test]
fn a_file_of_the_first_schema_is_brought_up_to_date() {
    let (_directory, path) = place();
    let old = Connection::open(&path).unwrap();
    old.execute_batch(
        "CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
         CREATE TABLE record (
             account INTEGER NOT NULL, kind INTEGER NOT NULL, id BLOB NOT NULL, value BLOB NOT NULL,
             PRIMARY KEY (account, kind, id)
         ) STRICT, WITHOUT ROWID;
         CREATE TABLE outbox (
             account INTEGER NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL,
             PRIMARY KEY (account, seq)
         ) STRICT, WITHOUT ROWID;
         INSERT INTO account VALUES (1, 'a');
         INSERT INTO record VALUES (1, 6, X'78', X'6f6c64');
         INSERT INTO outbox VALUES (1, 7, X'6f6c64');
         PRAGMA application_id = 0x77616d64;
         PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(old);
    let store = SqliteStore::open(&path).unwrap();
    let lease = block_on(store.acquire(&account())).unwrap();
    assert_eq!(block_on(store.load(&account(), &[Key::new(RecordKind::Session, "x")])).unwrap(), [Some("old".into())]);
    let events = block_on(store.outbox(&account(), 0, 9)).unwrap();
    assert_eq!(events, [OutboxEntry { seq: 7, body: "old".into() }]);
    block_on(lease.release()).unwrap();
}

/// What stands in the database is no path to anywhere.
#[test]
fn an_owner_that_is_no_owner_is_nobody() {
    let (directory, path) = place();
    let store = SqliteStore::open(&path).unwrap();
    let lock = fs::File::create(directory.path().join("locked")).unwrap();
    lock.lock().unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute("INSERT INTO lease (account, owner) VALUES ('a', '/../locked')", []).unwrap();
    block_on(store.acquire(&account())).unwrap();
}

/// An address where nobody listens: these clients never connect.
const NOWHERE: &str = "ws://127.0.0.1:9/ws";

#[test]
fn a_client_has_its_account_from_start_to_shutdown() {
    block_on(async {
        let store = MemoryStore::new();
        let start = |store: &MemoryStore| Client::builder(account()).store(store.clone()).url(NOWHERE).start();
        let first = start(&store).await.unwrap();
        let events = first.events().unwrap();
        assert!(matches!(store.acquire(&account()).await, Err(StoreError::Leased { .. })));
        let beside = store.beside();
        let (elsewhere, here) = tokio::join!(start(&beside), start(&store));
        assert!(matches!(elsewhere, Err(Error::Store(StoreError::Leased { .. }))));
        assert!(matches!(here, Err(Error::Store(StoreError::Leased { .. }))), "not in one process either");
        // A consumer that keeps its end does not keep the account.
        first.shutdown().await;
        let second = start(&store.beside()).await.unwrap();
        drop(events);
        // Started again without waiting for the end of the one before.
        drop(second);
        start(&store).await.unwrap().shutdown().await;
        store.acquire(&account()).await.unwrap();
    });
}

#[test]
fn a_client_that_lost_its_account_stops() {
    block_on(async {
        let store = MemoryStore::new();
        let client = Client::builder(account()).store(store.clone()).url(NOWHERE).start().await.unwrap();
        let mut events = client.events().unwrap();
        store.lapse_leases();
        let thief = store.beside();
        let _lease = thief.acquire(&account()).await.unwrap();
        let before = store.snapshot();
        // It wants to store that it is connecting, and cannot.
        let answer = client.link_qr().await;
        let mut told = Vec::new();
        while let Some(event) = events.recv().await {
            told.push((event.event.to_string(), event.data["fault"].as_str().unwrap_or_default().to_owned()));
        }
        assert!(told.contains(&("store.failed".to_owned(), "lease_lost".to_owned())), "{told:?}");
        assert_eq!(told.last().unwrap().0, "session.disconnected");
        assert_eq!(client.link_qr().await, Err(Error::Stopped), "{answer:?}");
        assert_eq!(store.snapshot(), before, "nothing was written after the account was taken");
        thief.commit(&account(), put("1")).await.unwrap();
    });
}
