//! Store: what one decrypted message costs (session of 600 bytes, receipt entry, event), alone and in a group, and
//! what a session lookup costs, alone and while others commit. 20 000 sessions of 100 accounts are stored before.
//!
//! Durable commits wait for the disk: the file lies in `target/`, since `/tmp` may be memory.

use std::{
    hint::black_box,
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use wamd::store::{
    AccountId, Batch, Key, MemoryStore, OutboxEntry, RecordKind, SqliteOptions, SqliteStore, Store, Synchronous,
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

criterion_group!(benches, stores);
criterion_main!(benches);
