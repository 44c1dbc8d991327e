//! Promise: a PostgreSQL database is a store for several nodes: what was acknowledged is there after any crash, an account runs on one
//! node, and a node that lost it writes nothing any more.
//!
//! Needs the programs of a PostgreSQL server, and is skipped with a line where there are none.
#![cfg(all(feature = "client", feature = "postgres"))]

#[path = "common/postgres.rs"]
mod postgres;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::Engine as _;
use postgres::{Cluster, sql};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use wamd::{
    client::{Client, Error, Events},
    crypto::Secret,
    engine::CommandError,
    store::{
        AccountId, Batch, Key, OutboxEntry, PostgresOptions, PostgresStore, RecordKind, SealKey, SealedStore, Store,
        StoreError, contract,
    },
};

fn account(name: &str) -> AccountId {
    AccountId::new(name)
}

fn key(id: &str) -> Key {
    Key::new(RecordKind::Session, id)
}

fn put(id: &str, value: &str) -> Batch {
    Batch { puts: vec![(key(id), value.to_owned().into())], ..Batch::default() }
}

fn event(seq: u64) -> Batch {
    Batch { events: vec![OutboxEntry { seq, body: format!("event {seq}").into() }], ..Batch::default() }
}

fn joined(mut first: Batch, second: Batch) -> Batch {
    first.append(second);
    first
}

async fn load(store: &dyn Store, account: &AccountId, id: &str) -> Option<String> {
    let value = store.load(account, &[key(id)]).await.unwrap().remove(0);
    value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

/// Options of a node whose leases run out after so many seconds.
fn node(name: &str, lease: u64) -> PostgresOptions {
    let mut options = PostgresOptions::default();
    options.node = name.to_owned();
    options.lease = Duration::from_secs(lease);
    options
}

/// RFC 7468, as the server reads it.
fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

const HOUR: u64 = 3_600;

#[tokio::test]
async fn the_contract_holds() {
    let Some(cluster) = Cluster::shared() else { return };
    let store = PostgresStore::connect(&cluster.database().await).await.unwrap();
    contract::check(&store).await;
    // Twice: nothing of the first run is in the way of the second.
    contract::check(&store).await;
    store.close().await;
}

#[tokio::test]
async fn the_contract_holds_with_sealed_values() {
    let Some(cluster) = Cluster::shared() else { return };
    let store = PostgresStore::connect(&cluster.database().await).await.unwrap();
    contract::check(&SealedStore::new(store, &SealKey::new(1, Secret::new([1; 32])))).await;
}

#[tokio::test]
async fn the_contract_of_leases_holds_between_nodes() {
    let Some(cluster) = Cluster::shared() else { return };
    let address = cluster.database().await;
    let one = PostgresStore::connect_with(&address, node("one", HOUR)).await.unwrap();
    let other = PostgresStore::connect_with(&address, node("other", HOUR)).await.unwrap();
    contract::check_leases(&one, &other).await;
    contract::check_leases(&other, &one).await;
    let lapse = async || {
        let past = "UPDATE wamd_lease SET until = clock_timestamp() - interval '1 second'";
        sql(&address, past).await;
    };
    contract::check_fencing(&one, &other, lapse).await;
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_node_that_lives_keeps_its_accounts_and_one_that_vanished_is_succeeded() {
    let Some(cluster) = Cluster::shared() else { return };
    let address = cluster.database().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (ready, started) = tokio::sync::oneshot::channel();
    // A node on a runtime of its own, which ends without a word: nothing is given back.
    let first = std::thread::spawn({
        let address = address.clone();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let store = PostgresStore::connect_with(&address, node("first", 1)).await.unwrap();
                let lease = store.acquire(&account("a")).await.unwrap();
                store.commit(&account("a"), put("x", "1")).await.unwrap();
                ready.send(lease.token()).unwrap();
                let _ = stopped.await;
                std::mem::forget((store, lease));
            });
        }
    });
    let token = started.await.unwrap();
    let second = PostgresStore::connect_with(&address, node("second", 1)).await.unwrap();
    // Three times as long as a lease lasts that is not renewed.
    for _ in 0..30 {
        match second.acquire(&account("a")).await {
            Err(StoreError::Leased { by, until: Some(_) }) => assert_eq!(by, "first"),
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.send(()).unwrap();
    first.join().unwrap();
    let lease = loop {
        match second.acquire(&account("a")).await {
            Ok(lease) => break lease,
            Err(error) => assert!(matches!(error, StoreError::Leased { .. }), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(lease.token() > token);
    assert_eq!(load(&second, &account("a"), "x").await.unwrap(), "1");
    second.commit(&account("a"), put("x", "2")).await.unwrap();
    // A lease that it has without knowing: the answer was lost.
    let unknown = "INSERT INTO wamd_lease SELECT 'b', nextval('wamd_lease_token'), owner, node, until FROM wamd_lease";
    sql(&address, unknown).await;
    drop(second.acquire(&account("b")).await.unwrap());
    // Closing gives back: the next node need not wait.
    second.close().await;
    let third = PostgresStore::connect_with(&address, node("third", HOUR)).await.unwrap();
    third.acquire(&account("a")).await.unwrap();
}

/// Whoever takes an account over sees all that its predecessor was told to be stored.
#[tokio::test]
async fn a_take_over_waits_for_a_commit_that_is_under_way() {
    let Some(cluster) = Cluster::shared() else { return };
    let address = cluster.database().await;
    let one = PostgresStore::connect_with(&address, node("one", HOUR)).await.unwrap();
    let other = Arc::new(PostgresStore::connect_with(&address, node("other", HOUR)).await.unwrap());
    let _lease = one.acquire(&account("a")).await.unwrap();
    one.commit(&account("a"), put("x", "1")).await.unwrap();
    sql(&address, "UPDATE wamd_lease SET until = clock_timestamp() - interval '1 second'").await;

    // Somebody holds the record: the commit has passed the fence, and waits.
    let (client, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("BEGIN; SELECT * FROM wamd_record FOR UPDATE").await.unwrap();
    let commit = tokio::spawn(one.commit(&account("a"), put("x", "2")));
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let taken = Arc::new(AtomicBool::new(false));
    let blocked = async |expected: i64| {
        let is_blocked = async || client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == expected;
        while !is_blocked().await {
            assert!(!taken.load(Ordering::SeqCst), "it was taken over in mid-commit");
            tokio::time::sleep(Duration::from_millis(10)).await;
            client.batch_execute("SELECT pg_stat_clear_snapshot()").await.unwrap();
        }
    };
    blocked(1).await;
    let take_over = tokio::spawn({
        let (other, taken) = (other.clone(), taken.clone());
        async move {
            let lease = other.acquire(&account("a")).await.unwrap();
            taken.store(true, Ordering::SeqCst);
            (load(&*other, &account("a"), "x").await, lease)
        }
    });
    blocked(2).await;
    assert!(!commit.is_finished() && !taken.load(Ordering::SeqCst));
    client.batch_execute("ROLLBACK").await.unwrap();
    commit.await.unwrap().unwrap();
    assert_eq!(take_over.await.unwrap().0.unwrap(), "2");
    assert_eq!(one.commit(&account("a"), put("x", "3")).await, Err(StoreError::LeaseLost));
}

#[tokio::test]
async fn many_accounts_share_a_transaction_and_a_bad_batch_fails_alone() {
    let Some(cluster) = Cluster::shared() else { return };
    let store = PostgresStore::connect(&cluster.database().await).await.unwrap();
    store.commit(&account("13"), joined(put("x", "old"), event(1))).await.unwrap();
    let before = store.stats();
    let name = |n: usize| account(&n.to_string());
    let commits: Vec<_> = (0..200).map(|n| store.commit(&name(n), joined(put("x", "new"), event(1)))).collect();
    // A name that the server cannot keep, in the same group.
    let impossible = store.commit(&account("a\0b"), put("x", "new"));
    for (n, commit) in commits.into_iter().enumerate() {
        let (result, value) = match n {
            13 => (Err(StoreError::Conflict { seq: 1 }), "old"),
            _ => (Ok(()), "new"),
        };
        assert_eq!(commit.await, result, "account {n}");
        assert_eq!(load(&store, &name(n), "x").await.unwrap(), value, "account {n}");
    }
    assert!(matches!(impossible.await, Err(StoreError::Backend(_))));
    assert_eq!(store.stats().writes - before.writes, 199);

    // The group without the bad name is one transaction, or two if the writer had taken the first before.
    let before = store.stats();
    let commits: Vec<_> = (0..200).map(|n| store.commit(&name(n), put("y", "1"))).collect();
    for commit in commits {
        commit.await.unwrap();
    }
    let after = store.stats();
    assert_eq!(after.writes - before.writes, 200);
    assert!(after.transactions - before.transactions <= 2, "{after:?} {before:?}");
}

#[tokio::test]
async fn a_server_that_crashes_loses_nothing_that_was_acknowledged() {
    let Some(cluster) = Cluster::start(&[]).map(Arc::new) else { return };
    let address = cluster.database().await;
    let store = Arc::new(PostgresStore::connect(&address).await.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let accounts: Vec<_> = (0..8)
        .map(|n| {
            let (store, stop) = (store.clone(), stop.clone());
            tokio::spawn(async move {
                let account = account(&n.to_string());
                let (mut acknowledged, mut failures) = (0_u64, 0_u32);
                while !stop.load(Ordering::Relaxed) {
                    // As the engine does: after a failure it starts from what is stored.
                    let stored = match store.outbox(&account, 0, usize::MAX).await {
                        Ok(events) => events.last().map_or(0, |event| event.seq),
                        Err(error) => {
                            assert!(matches!(error, StoreError::Backend(_)), "{error}");
                            failures += 1;
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            continue;
                        }
                    };
                    assert!(stored >= acknowledged, "account {n}: {stored} stored, {acknowledged} acknowledged");
                    let mut next = stored + 1;
                    loop {
                        let counter = put("counter", &next.to_string());
                        match store.commit(&account, joined(counter, event(next))).await {
                            Ok(()) => acknowledged = next,
                            Err(error) => {
                                assert!(matches!(error, StoreError::Backend(_)), "{error}");
                                failures += 1;
                                break;
                            }
                        }
                        next += 1;
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                    }
                }
                (acknowledged, failures)
            })
        })
        .collect();
    let mut last = 0;
    for _ in 0..4 {
        // Some work between two crashes, however slow the machine is.
        while store.stats().writes < last + 200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // On another thread: the accounts go on trying meanwhile.
        let cluster = cluster.clone();
        let crash = move || {
            cluster.crash();
            cluster.up();
        };
        tokio::task::spawn_blocking(crash).await.unwrap();
        last = store.stats().writes;
    }
    while store.stats().writes < last + 200 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut failures = 0;
    for (n, task) in accounts.into_iter().enumerate() {
        let (acknowledged, failed) = task.await.unwrap();
        failures += failed;
        let account = account(&n.to_string());
        let events = store.outbox(&account, 0, usize::MAX).await.unwrap();
        let stored = events.len() as u64;
        assert!(events.iter().map(|event| event.seq).eq(1..=stored), "account {n}: every event, once");
        assert!(stored >= acknowledged, "account {n}");
        assert_eq!(load(&*store, &account, "counter").await.unwrap(), stored.to_string(), "account {n}: whole batches");
    }
    assert!(failures >= 8, "the crashes were noticed: {failures}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let address = format!("host={} user=wamd dbname=wamd", directory.path().display());
    assert!(matches!(PostgresStore::connect(&address).await, Err(StoreError::Backend(_))));
    let error = PostgresStore::connect("postgres://[secret").await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"));
}

#[tokio::test]
async fn tables_of_a_newer_version_are_refused() {
    let Some(cluster) = Cluster::shared() else { return };
    let address = cluster.database().await;
    // Two nodes that make the tables at once.
    let (one, other) = tokio::join!(PostgresStore::connect(&address), PostgresStore::connect(&address));
    one.unwrap().commit(&account("a"), put("x", "1")).await.unwrap();
    assert_eq!(load(&other.unwrap(), &account("a"), "x").await.unwrap(), "1");
    sql(&address, "UPDATE wamd_schema SET version = 2").await;
    let error = PostgresStore::connect(&address).await.unwrap_err();
    assert_eq!(error, StoreError::Incompatible("version 2, at most 1 is known".into()));
    sql(&address, "UPDATE wamd_schema SET version = 1; DROP TABLE wamd_outbox").await;
    let store = PostgresStore::connect(&address).await.unwrap();
    assert!(matches!(store.outbox(&account("a"), 0, 1).await, Err(StoreError::Damaged(_))));
}

#[tokio::test]
async fn durability_is_switched_on_where_it_is_off() {
    let Some(cluster) = Cluster::start(&["synchronous_commit = off"]) else { return };
    let address = cluster.database().await;
    let store = PostgresStore::connect(&address).await.unwrap();
    // What a connection of the store is set to, told by a trigger that runs in it.
    sql(
        &address,
        "CREATE TABLE seen (setting text);
         CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
         CREATE TRIGGER see AFTER INSERT ON wamd_record EXECUTE FUNCTION see();",
    )
    .await;
    store.commit(&account("a"), put("x", "1")).await.unwrap();
    let (client, connection) = tokio_postgres::connect(&address, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(client.query_one("SELECT setting FROM seen", &[]).await.unwrap().get::<_, String>(0), "on");
    assert_eq!(client.query_one("SHOW synchronous_commit", &[]).await.unwrap().get::<_, String>(0), "off");
}

#[tokio::test]
async fn connections_use_tls_where_it_is_asked_for() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let (certificate, private) = (files.path().join("certificate"), files.path().join("key"));
    let settings = [
        "listen_addresses = '127.0.0.1'".to_owned(),
        format!("port = {port}"),
        "ssl = on".to_owned(),
        format!("ssl_cert_file = '{}'", certificate.display()),
        format!("ssl_key_file = '{}'", private.display()),
    ];
    fs::write(&certificate, pem("CERTIFICATE", made.cert.der())).unwrap();
    fs::write(&private, pem("PRIVATE KEY", &made.signing_key.serialize_der())).unwrap();
    postgres::private_to_the_server(&[files.path(), &certificate, &private]);
    let Some(_cluster) = Cluster::start(&settings.each_ref().map(String::as_str)) else { return };

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let address = format!("host=localhost hostaddr=127.0.0.1 port={port} user=wamd dbname=postgres sslmode=require");
    let mut options = PostgresOptions::default();
    assert!(PostgresStore::connect_with(&address, options.clone()).await.is_err(), "no TLS to be had");
    options.tls = Some(Arc::new(config));
    let store = PostgresStore::connect_with(&address, options.clone()).await.unwrap();
    store.commit(&account("a"), put("x", "1")).await.unwrap();
    assert_eq!(load(&store, &account("a"), "x").await.unwrap(), "1");
    // A certificate that nobody vouches for.
    let stranger = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    options.tls = Some(Arc::new(stranger));
    assert!(matches!(PostgresStore::connect_with(&address, options).await, Err(StoreError::Backend(_))));
}

/// Nobody writes anything: the store notices when it renews the lease.
#[tokio::test]
async fn a_client_that_is_idle_hears_that_its_account_was_taken() {
    let Some(cluster) = Cluster::shared() else { return };
    let address = cluster.database().await;
    let store = Arc::new(PostgresStore::connect_with(&address, node("one", 1)).await.unwrap());
    let start =
        |name: &str| Client::builder(account(name)).shared_store(store.clone()).url("ws://127.0.0.1:9/ws").start();
    let (lost, kept) = (start("a").await.unwrap(), start("b").await.unwrap());
    let mut events = lost.events().unwrap();
    // Longer than a lease.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(events_are_none(&mut events).await);
    let steal = "UPDATE wamd_lease SET owner = 'somebody', token = nextval('wamd_lease_token') WHERE account = 'a'";
    sql(&address, steal).await;
    let told = tokio::time::timeout(Duration::from_secs(30), async {
        let failed = events.recv().await.unwrap();
        assert_eq!((&*failed.event, &failed.data["fault"]), ("store.failed", &"lease_lost".into()));
        assert_eq!(events.recv().await.unwrap().event, "session.disconnected");
        assert!(events.recv().await.is_none());
    });
    told.await.expect("it hears of it");
    assert_eq!(lost.connect().await, Err(Error::Stopped));
    // The other one goes on.
    assert!(matches!(kept.connect().await, Err(Error::Command(CommandError::NotLinked))));
    kept.shutdown().await;
    drop(lost);
    store.acquire(&account("b")).await.unwrap();
    assert!(matches!(store.acquire(&account("a")).await, Err(StoreError::Leased { .. })));
}

async fn events_are_none(events: &mut Events) -> bool {
    tokio::time::timeout(Duration::from_millis(1), events.recv()).await.is_err()
}
