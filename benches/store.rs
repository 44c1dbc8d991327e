//! Store: what one decrypted message costs (session of 600 bytes, receipt entry, event), alone and in a group, and
//! what a session lookup costs, alone and while others commit. 20 000 sessions of 100 accounts are stored before.
//!
//! Then, as a table: batches per second, and what 1,000 of them cost in transactions (each is one flush of a log) and in bytes written, by
//! how many accounts commit at once. PostgreSQL, where it is installed, runs on this machine, on a socket of the file system.
//!
//! Durable commits wait for the disk: the file lies in `target/`, since `/tmp` may be memory.

#[cfg(feature = "postgres")]
#[path = "../tests/common/postgres.rs"]
mod postgres;

use std::{
    fs,
    hint::black_box,
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
#[cfg(feature = "postgres")]
use wamd::store::PostgresStore;
use wamd::{
    crypto::Secret,
    store::{
        AccountId, Batch, Key, MemoryStore, OutboxEntry, RecordKind, SealKey, SealedStore, SqliteOptions, SqliteStore,
        Store, Synchronous,
    },
};

const ACCOUNTS: u64 = 100;
const SESSIONS: u64 = 200;

/// Waits by parking: a runtime's own cost would be in every number.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

fn account(n: u64) -> AccountId {
    AccountId::new(format!("account-{n}"))
}

fn session(n: u64) -> Key {
    Key::new(RecordKind::Session, format!("{}:1@lid", 100_000_000_000_000 + n % SESSIONS))
}

/// What one received message changes; `n` never repeats.
fn message(n: u64) -> Batch {
    let received = Key::joined(RecordKind::Received, &[b"100000000000000@lid", format!("3EB0{n:016X}").as_bytes()]);
    Batch {
        clear: false,
        puts: vec![(session(n.wrapping_mul(7_919)), vec![n as u8; 600].into()), (received, vec![1; 9].into())],
        deletes: Vec::new(),
        events: vec![OutboxEntry { seq: n, body: vec![b'x'; 500].into() }],
    }
}

fn preload(store: &dyn Store) {
    for n in 0..ACCOUNTS {
        let puts = (0..SESSIONS).map(|n| (session(n), vec![7; 600].into())).collect();
        block_on(store.commit(&account(n), Batch { puts, ..Batch::default() })).unwrap();
    }
}

fn measure(criterion: &mut Criterion, name: &str, store: &dyn Store) {
    preload(store);
    let number = AtomicU64::new(1);
    let next = || number.fetch_add(1, Ordering::Relaxed);
    let mut group = criterion.benchmark_group(format!("store/{name}"));
    for size in [1, 30] {
        group.throughput(Throughput::Elements(size));
        group.bench_function(format!("commit_{size}"), |bencher| {
            bencher.iter(|| {
                let commits: Vec<_> = (0..size).map(|n| store.commit(&account(n), message(next()))).collect();
                for commit in commits {
                    block_on(commit).unwrap();
                }
            });
        });
    }
    group.throughput(Throughput::Elements(5));
    let load = |n: u64| {
        let keys: [Key; 5] = std::array::from_fn(|i| session(n + i as u64 * 31));
        black_box(block_on(store.load(&account(n % ACCOUNTS), &keys)).unwrap());
    };
    group.bench_function("load_5", |bencher| bencher.iter(|| load(next())));

    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let commits: Vec<_> = (0..30).map(|n| store.commit(&account(ACCOUNTS + n), message(next()))).collect();
                for commit in commits {
                    block_on(commit).unwrap();
                }
            }
        });
        group.bench_function("load_5_while_others_commit", |bencher| bencher.iter(|| load(next())));
        stop.store(true, Ordering::Relaxed);
    });
    group.finish();
}

fn stores(criterion: &mut Criterion) {
    measure(criterion, "memory", &MemoryStore::new());
    for (name, synchronous) in [("sqlite_full", Synchronous::Full), ("sqlite_normal", Synchronous::Normal)] {
        let directory = tempfile::tempdir_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("target")).unwrap();
        let options = SqliteOptions { synchronous, ..SqliteOptions::default() };
        measure(criterion, name, &SqliteStore::open_with(directory.path().join("wamd.db"), options).unwrap());
    }
}

/// Transactions and bytes that were written until now.
type Written<'a> = dyn Fn() -> (u64, u64) + 'a;

/// One line of the table: `at_once` accounts commit, each its next batch after the one before.
#[expect(clippy::print_stdout, reason = "it is what this program is for")]
fn line(name: &str, store: &dyn Store, written: &Written<'_>, at_once: u64) {
    const BATCHES: u64 = 12_000;
    static NUMBER: AtomicU64 = AtomicU64::new(1 << 40);
    let (transactions, bytes) = written();
    let start = Instant::now();
    for _ in 0..BATCHES / at_once {
        let commit = |n| store.commit(&account(n), message(NUMBER.fetch_add(1, Ordering::Relaxed)));
        let commits: Vec<_> = (0..at_once).map(commit).collect();
        for commit in commits {
            block_on(commit).unwrap();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let done = BATCHES / at_once * at_once;
    let after = written();
    println!(
        "{name:<16}{at_once:>9}{:>12.0}{:>20}{:>18}",
        done as f64 / seconds,
        (after.0 - transactions) * 1_000 / done,
        (after.1 - bytes) / done
    );
}

/// Bytes that this process has handed to `write`; 0 where the system does not count them.
fn process_bytes() -> u64 {
    let counters = fs::read_to_string("/proc/self/io").unwrap_or_default();
    counters.lines().find_map(|line| line.strip_prefix("wchar: ")?.parse().ok()).unwrap_or(0)
}

#[expect(clippy::print_stdout, reason = "it is what this program is for")]
fn figures(_: &mut Criterion) {
    println!(
        "\n{:<16}{:>9}{:>12}{:>20}{:>18}",
        "store", "at once", "batches/s", "transactions/1,000", "bytes per batch"
    );
    let sqlite = |name: &str, synchronous, is_sealed: bool| {
        let directory = tempfile::tempdir_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("target")).unwrap();
        let options = SqliteOptions { synchronous, ..SqliteOptions::default() };
        let store = Arc::new(SqliteStore::open_with(directory.path().join("wamd.db"), options).unwrap());
        let sealed = SealedStore::new(store.clone(), &SealKey::new(1, Secret::new([7; 32])));
        let used: &dyn Store = if is_sealed { &sealed } else { &store };
        preload(used);
        for at_once in [1, 30, 100] {
            line(name, used, &|| (store.stats().transactions, process_bytes()), at_once);
        }
    };
    sqlite("sqlite full", Synchronous::Full, false);
    sqlite("  sealed", Synchronous::Full, true);
    sqlite("sqlite normal", Synchronous::Normal, false);
    #[cfg(feature = "postgres")]
    postgres_figures();
}

#[cfg(feature = "postgres")]
fn postgres_figures() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let Some(cluster) = runtime.block_on(async { postgres::Cluster::start(&[]) }) else { return };
    let address = runtime.block_on(cluster.database());
    let store = runtime.block_on(PostgresStore::connect(&address)).unwrap();
    let (client, connection) = runtime.block_on(tokio_postgres::connect(&address, tokio_postgres::NoTls)).unwrap();
    runtime.spawn(connection);
    preload(&store);
    let written = || {
        let position = "SELECT (pg_current_wal_lsn() - '0/0')::int8";
        let position: i64 = runtime.block_on(client.query_one(position, &[])).unwrap().get(0);
        (store.stats().transactions, position.unsigned_abs())
    };
    for at_once in [1, 30, 100] {
        line("postgres", &store, &written, at_once);
    }
    runtime.block_on(store.close());
}

criterion_group!(benches, stores, figures);
criterion_main!(benches);
