//! Promise: what a store acknowledged is there after any crash, whole; what is wrong with a file is an error, not a panic.
#![cfg(feature = "sqlite")]

use std::{
    env,
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use tempfile::TempDir;
use wamd::store::{
    AccountId, Batch, Key, OutboxEntry, RecordKind, SqliteOptions, SqliteStore, Store, StoreError, Synchronous,
    contract,
};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// A directory that is gone after the test, and the path of a database in it.
fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("wamd.db");
    (directory, path)
}

#[expect(clippy::needless_pass_by_value, reason = "called with literals and numbers")]
fn account(name: impl ToString) -> AccountId {
    AccountId::new(name.to_string())
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

fn load(store: &SqliteStore, account: &AccountId, id: &str) -> Result<Option<String>, StoreError> {
    let values = block_on(store.load(account, &[key(id)]))?;
    Ok(values[0].as_ref().map(|value| String::from_utf8(value.to_vec()).unwrap()))
}

/// A database with a few hundred pages.
fn filled(path: &Path) {
    let store = SqliteStore::open(path).unwrap();
    for n in 0..20 {
        let mut batch = event(n + 1);
        batch.puts = (0..50).map(|i| (key(&format!("{n} {i}")), vec![7; 900].into())).collect();
        block_on(store.commit(&account("a"), batch)).unwrap();
    }
}

mod contract_of {
    use super::*;

    #[test]
    fn sqlite() {
        let (_directory, path) = place();
        let store = SqliteStore::open(path).unwrap();
        block_on(contract::check(&store));
        // Twice: nothing of the first run is in the way of the second.
        block_on(contract::check(&store));
    }

    #[test]
    fn sqlite_with_normal_synchronisation() {
        let (_directory, path) = place();
        let options = SqliteOptions { synchronous: Synchronous::Normal, ..SqliteOptions::default() };
        block_on(contract::check(&SqliteStore::open_with(path, options).unwrap()));
    }

    #[test]
    fn sqlite_beside_another_store_on_the_same_file() {
        let (_directory, path) = place();
        let stores = [SqliteStore::open(&path).unwrap(), SqliteStore::open(&path).unwrap()];
        let busy = thread::scope(|scope| {
            let other = scope.spawn(|| {
                for seq in 1..=500 {
                    block_on(stores[1].commit(&account("other"), joined(event(seq), put("n", &seq.to_string()))))?;
                }
                Ok::<_, StoreError>(())
            });
            block_on(contract::check(&stores[0]));
            other.join().unwrap()
        });
        assert_eq!(busy, Ok(()));
        assert_eq!(load(&stores[0], &account("other"), "n").unwrap().unwrap(), "500");
    }
}

mod file {
    use super::*;

    #[test]
    fn comes_back_after_closing() {
        let (_directory, path) = place();
        let store = SqliteStore::open(&path).unwrap();
        block_on(store.commit(&account("a"), joined(put("x", "1"), event(1)))).unwrap();
        block_on(store.commit(&account("b"), put("x", "2"))).unwrap();
        // Not awaited: closing finishes what is queued.
        drop(store.commit(&account("a"), joined(put("y", "3"), event(2))));
        drop(store);
        assert!(!path.with_extension("db-wal").exists(), "the last connection leaves no log behind");
        let store = SqliteStore::open(&path).unwrap();
        assert_eq!(load(&store, &account("a"), "x").unwrap().unwrap(), "1");
        assert_eq!(load(&store, &account("a"), "y").unwrap().unwrap(), "3");
        assert_eq!(load(&store, &account("b"), "x").unwrap().unwrap(), "2");
        let events = block_on(store.outbox(&account("a"), 0, 10)).unwrap();
        assert!(events.iter().map(|event| event.seq).eq([1, 2]));
        assert_eq!(block_on(store.accounts()).unwrap(), [account("a"), account("b")]);
    }

    #[test]
    fn is_created_with_its_directory_for_the_owner_only() {
        let (directory, _) = place();
        let path = directory.path().join("a/b/wamd.db");
        let store = SqliteStore::open(&path).unwrap();
        block_on(store.commit(&account("a"), put("x", "1"))).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&path), 0o600);
            assert_eq!(mode(&path.with_extension("db-wal")), 0o600);
            assert_eq!(mode(path.parent().unwrap()), 0o700);
        }
        assert_eq!(store.path(), fs::canonicalize(&path).unwrap());
    }

    #[test]
    fn names_have_no_special_meaning() {
        let (directory, _) = place();
        for name in [":memory:", "file:x?mode=memory"] {
            let path = directory.path().join(name);
            let store = SqliteStore::open(&path).unwrap();
            block_on(store.commit(&account("a"), put("x", "1"))).unwrap();
            drop(store);
            assert_eq!(load(&SqliteStore::open(&path).unwrap(), &account("a"), "x").unwrap().unwrap(), "1", "{name}");
        }
    }

    fn incompatible(path: &Path) -> String {
        match SqliteStore::open(path) {
            Err(StoreError::Incompatible(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn of_another_program_is_refused_and_left_alone() {
        let (_directory, path) = place();
        let create = |sql: &str| {
            let _ = fs::remove_file(&path);
            Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        };
        create("PRAGMA application_id = 7; CREATE TABLE t (a)");
        let before = fs::read(&path).unwrap();
        assert_eq!(incompatible(&path), "application id 0x00000007");
        assert_eq!(fs::read(&path).unwrap(), before);
        create("CREATE TABLE record (a)");
        incompatible(&path);
        create("PRAGMA user_version = 1");
        incompatible(&path);
    }

    #[test]
    fn of_another_version_is_refused() {
        let (_directory, path) = place();
        for version in [3, 1_000, -1] {
            drop(SqliteStore::open(&path).unwrap());
            Connection::open(&path).unwrap().pragma_update(None, "user_version", version).unwrap();
            assert_eq!(incompatible(&path), format!("version {version}, at most 2 is known"));
            Connection::open(&path).unwrap().pragma_update(None, "user_version", 2).unwrap();
        }
        SqliteStore::open(&path).unwrap();
    }

    #[test]
    fn that_is_no_database_is_refused_and_left_alone() {
        let (_directory, path) = place();
        fs::write(&path, "once upon a time".repeat(1_000)).unwrap();
        incompatible(&path);
        assert_eq!(fs::read(&path).unwrap(), "once upon a time".repeat(1_000).as_bytes());
    }

    #[test]
    fn that_cannot_be_opened_is_a_backend_error() {
        let (directory, _) = place();
        assert!(matches!(SqliteStore::open(directory.path()), Err(StoreError::Backend(_))));
        assert!(matches!(SqliteStore::open("/dev/null/x/wamd.db"), Err(StoreError::Backend(_))));
    }

    #[test]
    fn without_its_tables_is_damaged() {
        let (_directory, path) = place();
        drop(SqliteStore::open(&path).unwrap());
        Connection::open(&path).unwrap().execute_batch("DROP TABLE outbox").unwrap();
        assert!(matches!(SqliteStore::open(&path), Err(StoreError::Damaged(_))));
    }
}

mod damage {
    use super::*;

    fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
        let mut file = OpenOptions::new().write(true).open(path).unwrap();
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(bytes).unwrap();
    }

    #[test]
    fn in_the_middle_is_found_on_opening() {
        let (_directory, path) = place();
        filled(&path);
        let len = fs::metadata(&path).unwrap().len();
        overwrite(&path, len / 2 / 4_096 * 4_096, &[0xff; 4_096]);
        assert!(matches!(SqliteStore::open(&path), Err(StoreError::Damaged(_))));
    }

    #[test]
    fn by_cutting_off_the_end_is_found_on_opening() {
        let (_directory, path) = place();
        filled(&path);
        let len = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().set_len(len / 2).unwrap();
        assert!(matches!(SqliteStore::open(&path), Err(StoreError::Damaged(_))));
    }

    #[test]
    fn that_nobody_looked_for_is_an_error_of_the_read() {
        let (_directory, path) = place();
        filled(&path);
        let len = fs::metadata(&path).unwrap().len();
        for page in 4..len / 4_096 {
            overwrite(&path, page * 4_096, &[0xff; 4_096]);
        }
        let options = SqliteOptions { quick_check: false, ..SqliteOptions::default() };
        let store = SqliteStore::open_with(&path, options).unwrap();
        assert!(matches!(block_on(store.scan(&account("a"), RecordKind::Session)), Err(StoreError::Damaged(_))));
        assert!(matches!(block_on(store.commit(&account("a"), put("0 0", "x"))), Err(StoreError::Damaged(_))));
    }

    /// Wherever the damage is: opening, reading and writing answer or fail, and come to an end.
    #[test]
    fn anywhere_never_panics() {
        let (_directory, path) = place();
        filled(&path);
        let sound = fs::read(&path).unwrap();
        let options = SqliteOptions { quick_check: false, ..SqliteOptions::default() };
        let mut refused = 0;
        for (round, at) in (0..100).chain((100..sound.len() as u64).step_by(9_973)).enumerate() {
            fs::write(&path, &sound).unwrap();
            overwrite(&path, at, &[0xa5; 64]);
            let options = if round % 2 == 0 { SqliteOptions::default() } else { options };
            match SqliteStore::open_with(&path, options) {
                Ok(store) => {
                    let _ = block_on(store.scan(&account("a"), RecordKind::Session));
                    let _ = block_on(store.outbox(&account("a"), 0, 100));
                    let _ = block_on(store.commit(&account("a"), put("1 1", "x")));
                }
                Err(error) => {
                    assert!(!matches!(error, StoreError::Closed), "offset {at}: {error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 50, "only {refused} damaged files were refused");
    }
}

mod group {
    use super::*;

    /// Queues while another process would hold the lock, so that the writer has all but the first few before it.
    fn queued_behind_a_lock<T>(path: &Path, queue: impl FnOnce() -> T) -> T {
        let other = Connection::open(path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let queued = queue();
        other.execute_batch("ROLLBACK").unwrap();
        queued
    }

    #[test]
    fn of_many_accounts_is_one_transaction() {
        let (_directory, path) = place();
        let store = SqliteStore::open(&path).unwrap();
        let commits: Vec<_> = queued_behind_a_lock(&path, || {
            (0..500).map(|n| store.commit(&account(n), joined(put("x", &n.to_string()), event(1)))).collect()
        });
        for commit in commits {
            block_on(commit).unwrap();
        }
        let stats = store.stats();
        assert_eq!(stats.writes, 500);
        // The few that the writer took at first, then 256, then the rest.
        assert!((2..=3).contains(&stats.transactions), "{stats:?}");
        assert_eq!(block_on(store.accounts()).unwrap().len(), 500);
    }

    #[test]
    fn is_bounded_in_bytes() {
        let (_directory, path) = place();
        let store = SqliteStore::open(&path).unwrap();
        let large = "x".repeat(1 << 20);
        let commits: Vec<_> =
            queued_behind_a_lock(&path, || (0..16).map(|n| store.commit(&account(n), put("x", &large))).collect());
        for commit in commits {
            block_on(commit).unwrap();
        }
        assert!(store.stats().transactions >= 4, "{:?}", store.stats());
    }

    #[test]
    fn a_bad_batch_fails_alone() {
        let (_directory, path) = place();
        let store = SqliteStore::open(&path).unwrap();
        block_on(store.commit(&account(13), joined(put("x", "old"), event(1)))).unwrap();
        let commits: Vec<_> = queued_behind_a_lock(&path, || {
            (0..30).map(|n| store.commit(&account(n), joined(put("x", "new"), event(1)))).collect()
        });
        for (n, commit) in commits.into_iter().enumerate() {
            let (result, value) = match n {
                13 => (Err(StoreError::Conflict { seq: 1 }), "old"),
                _ => (Ok(()), "new"),
            };
            assert_eq!(block_on(commit), result, "account {n}");
            assert_eq!(load(&store, &account(n), "x").unwrap().unwrap(), value, "account {n}");
        }
        let stats = store.stats();
        assert_eq!((stats.writes, stats.failed_writes), (30, 1));
    }

    #[test]
    fn that_never_gets_the_lock_fails_as_a_whole_and_soon() {
        let (_directory, path) = place();
        let options = SqliteOptions { busy_timeout: Duration::from_millis(50), ..SqliteOptions::default() };
        let store = SqliteStore::open_with(&path, options).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let commits: Vec<_> = (0..200).map(|n| store.commit(&account(n), put("x", "1"))).collect();
        let start = Instant::now();
        for commit in commits {
            assert!(matches!(block_on(commit), Err(StoreError::Backend(_))));
        }
        // Two or three groups time out one after the other; singly it would take ten seconds.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert!(store.stats().failed_writes == 200 && store.stats().transactions == 0, "{:?}", store.stats());
        other.execute_batch("ROLLBACK").unwrap();
        block_on(store.commit(&account(0), put("x", "2"))).unwrap();
        assert_eq!(load(&store, &account(0), "x").unwrap().unwrap(), "2");
    }

    #[test]
    fn reads_do_not_wait_for_a_stranger() {
        let (_directory, path) = place();
        let store = SqliteStore::open(&path).unwrap();
        block_on(store.commit(&account("a"), put("x", "1"))).unwrap();
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let stuck = store.commit(&account("b"), put("x", "2"));
        assert_eq!(load(&store, &account("a"), "x").unwrap().unwrap(), "1");
        assert_eq!(store.stats().writes, 1, "the stranger's commit is still under way");
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(load(&store, &account("b"), "x").unwrap().unwrap(), "2");
        block_on(stuck).unwrap();
    }

    #[test]
    fn is_checkpointed_when_idle() {
        let (_directory, path) = place();
        let store = SqliteStore::open(&path).unwrap();
        let value = "x".repeat(1 << 20);
        block_on(store.commit(&account("a"), put("x", &value))).unwrap();
        assert!(fs::metadata(&path).unwrap().len() < 1 << 20, "the value is in the log");
        for _ in 0..100 {
            if store.stats().checkpoints > 0 {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(store.stats().checkpoints, 1);
        assert!(fs::metadata(&path).unwrap().len() > 1 << 20, "the value is in the file");
    }
}

#[test]
fn a_vacuum_makes_the_file_small_again() {
    let (_directory, path) = place();
    filled(&path);
    let store = SqliteStore::open(&path).unwrap();
    block_on(store.commit(&account("b"), put("x", "1"))).unwrap();
    let before = fs::metadata(&path).unwrap().len();
    block_on(store.remove(&account("a"))).unwrap();
    // Between writes that are queued: the one before is in, the one after comes through.
    let first = store.commit(&account("b"), put("y", "2"));
    let vacuum = store.vacuum();
    let second = store.commit(&account("b"), put("z", "3"));
    for done in [first, vacuum, second] {
        block_on(done).unwrap();
    }
    let after = fs::metadata(&path).unwrap().len();
    assert!(after * 10 < before, "{after} of {before} bytes");
    for (id, value) in [("x", "1"), ("y", "2"), ("z", "3")] {
        assert_eq!(load(&store, &account("b"), id).unwrap().unwrap(), value);
    }
}

/// The process whose files may not grow: commits until it cannot, and goes on when it can.
#[test]
fn child_that_runs_out_of_space() {
    let Some(path) = env::var_os("WAMD_FULL_CHILD") else { return };
    let store = SqliteStore::open(path).unwrap();
    let value = "x".repeat(8_000);
    let mut stored = 0;
    let error = loop {
        let batch = joined(put(&format!("{stored}"), &value), event(stored + 1));
        match block_on(store.commit(&account("a"), batch)) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 10_000, "there was no limit");
    };
    assert!(matches!(error, StoreError::Backend(_)), "{error}");
    assert!(stored > 10, "{stored}");
    // What is there can be read, what does not fit is refused as a whole, again and again.
    for _ in 0..3 {
        let batch = joined(put("late", &value), event(stored + 1));
        assert!(matches!(block_on(store.commit(&account("a"), batch)), Err(StoreError::Backend(_))));
        assert_eq!(load(&store, &account("a"), "late").unwrap(), None);
        assert_eq!(block_on(store.outbox(&account("a"), 0, usize::MAX)).unwrap().len() as u64, stored);
    }
    // Somebody makes room: nothing has to be opened again.
    let limits = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &std::process::id().to_string()]).status();
    assert!(limits.unwrap().success());
    block_on(store.commit(&account("a"), joined(put("late", &value), event(stored + 1)))).unwrap();
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("stored {}\n", stored + 1).as_bytes()).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_full_refuses_batches_and_keeps_what_it_has() {
    let (_directory, path) = place();
    // 1 MiB per file. The signal is ignored, so that a write fails as it does on a full disk.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -S -f 2048; exec \"$0\" --exact child_that_runs_out_of_space --nocapture"])
        .arg(env::current_exe().unwrap())
        .env("WAMD_FULL_CHILD", &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let stored = said.lines().find_map(|line| line.split_once("stored ")?.1.parse::<u64>().ok()).expect("it told");
    let store = SqliteStore::open(&path).unwrap();
    let events = block_on(store.outbox(&account("a"), 0, usize::MAX)).unwrap();
    assert!(events.iter().map(|event| event.seq).eq(1..=stored));
    assert_eq!(block_on(store.scan(&account("a"), RecordKind::Session)).unwrap().len() as u64, stored);
}

#[test]
fn works_as_an_object_from_any_thread() {
    let (_directory, path) = place();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(path).unwrap());
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let store = store.clone();
            thread::spawn(move || {
                for round in 1..=50_u64 {
                    block_on(store.commit(&account(n), joined(put("x", &round.to_string()), event(round)))).unwrap();
                    let events = block_on(store.outbox(&account(n), 0, 100)).unwrap();
                    assert_eq!(events.len() as u64, round);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn debug_and_errors_show_no_content() {
    let (_directory, path) = place();
    let store = SqliteStore::open(path).unwrap();
    let account = account("secret-account");
    let batch = joined(put("secret-id", "secret-value"), event(1));
    block_on(store.commit(&account, batch.clone())).unwrap();
    let error = block_on(store.commit(&account, batch)).unwrap_err();
    assert!(!format!("{store:?} {error:?} {error}").contains("secret"));
}

/// Accounts that commit at the same time in the killed process.
const ACCOUNTS: u64 = 4;

/// The process that is killed: commits in a loop and tells what was acknowledged.
#[test]
fn child_that_commits_until_it_is_killed() {
    let Some(path) = env::var_os("WAMD_STORE_CHILD") else { return };
    let store = SqliteStore::open(path).unwrap();
    block_on(async {
        let mut next = Vec::new();
        for n in 0..ACCOUNTS {
            let last = store.outbox(&account(n), 0, usize::MAX).await.unwrap().last().map_or(0, |event| event.seq);
            next.push(last + 1);
        }
        loop {
            let commits: Vec<_> = (0..ACCOUNTS)
                .zip(&next)
                .map(|(n, &seq)| {
                    let batch = joined(put("counter", &seq.to_string()), put(&format!("record {seq}"), "x"));
                    (n, seq, store.commit(&account(n), joined(batch, event(seq))))
                })
                .collect();
            for (n, seq, commit) in commits {
                commit.await.unwrap();
                // One system call per line: what the parent reads was acknowledged before.
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(format!("ack {n} {seq}\n").as_bytes()).unwrap();
                stdout.flush().unwrap();
            }
            next.iter_mut().for_each(|seq| *seq += 1);
        }
    });
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let (_directory, path) = place();
    let mut acknowledged = [0_u64; ACCOUNTS as usize];
    for round in 0..8_u64 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_that_commits_until_it_is_killed", "--nocapture"])
            .env("WAMD_STORE_CHILD", &path)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut heard = |line: &str| {
            // The first line of the child may follow the test harness's own words.
            let Some((_, ack)) = line.split_once("ack ") else { return false };
            let (n, seq) = ack.split_once(' ').unwrap();
            acknowledged[n.parse::<usize>().unwrap()] = seq.parse().unwrap();
            true
        };
        assert!(lines.by_ref().any(|line| heard(&line)), "the child committed something");
        // A different moment each time; it is killed while it works.
        let killer = thread::spawn(move || {
            thread::sleep(Duration::from_millis(7 + round * 13));
            child.kill().unwrap();
            child.wait().unwrap()
        });
        for line in lines {
            heard(&line);
        }
        let status = killer.join().unwrap();
        assert!(!status.success(), "killed, not ended: {status}");

        let store = SqliteStore::open(&path).unwrap();
        for n in 0..ACCOUNTS {
            let events = block_on(store.outbox(&account(n), 0, usize::MAX)).unwrap();
            let last = events.len() as u64;
            assert!(events.iter().map(|event| event.seq).eq(1..=last), "account {n}: every event, once");
            assert!(last >= acknowledged[n as usize], "account {n}: {last} < {}", acknowledged[n as usize]);
            // Whole batches: the records tell the same story as the events.
            let counter = load(&store, &account(n), "counter").unwrap().unwrap_or_else(|| "0".into());
            assert_eq!(counter, last.to_string(), "account {n}");
            let records = block_on(store.scan(&account(n), RecordKind::Session)).unwrap();
            assert_eq!(records.len() as u64, last + u64::from(last > 0), "account {n}");
        }
    }
    assert!(acknowledged.iter().all(|&last| last > 0));
}
