//! Promise: a process that is killed at any moment loses no message and repeats none: what was sent and what was received is the same in
//! the end, in both directions, and the outbox has neither a gap nor two events with one number.
//!
//! ```text
//!   this process: loopback server, bob ◄──── websocket ────► child: alice, on a database ──── killed with SIGKILL, started again
//!        ▲                                                     │
//!        └──────────── lines: what was accepted and told ──────┘
//! ```
#![cfg(all(feature = "client", feature = "sqlite", unix))]

#[cfg(feature = "postgres")]
#[path = "common/postgres.rs"]
mod postgres;

use std::{
    collections::BTreeMap,
    env,
    io::Write as _,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::Semaphore,
    time::{sleep, timeout},
};
use wamd::{
    Jid,
    client::{Client, Events},
    crypto::PublicKey,
    engine::SendRequest,
    message::MessageId,
    store::{AccountId, MemoryStore, SqliteStore, Store},
};
use wamd_loopback::Loopback;

const ALICE: &str = "15550000001";
const BOB: &str = "15550000002";
/// Nothing here may take longer.
const LIMIT: Duration = Duration::from_secs(120);
/// Messages of alice that the server has not acknowledged yet, at most, in one life.
const UNDER_WAY: usize = 4;
/// Messages that bob writes for each life of alice.
const PER_LIFE: u64 = 3;

/// The id of a message: who wrote it, and which one it is.
fn id(from: &str, n: u64) -> MessageId {
    MessageId::new(format!("3EB0{}{n:014X}", if from == ALICE { "AA" } else { "BB" })).unwrap()
}

async fn open(place: &str) -> Arc<dyn Store> {
    #[cfg(feature = "postgres")]
    if place.starts_with("host=") {
        let mut options = wamd::store::PostgresOptions::default();
        options.lease = Duration::from_secs(1);
        return Arc::new(wamd::store::PostgresStore::connect_with(place, options).await.unwrap());
    }
    Arc::new(SqliteStore::open(PathBuf::from(place)).unwrap())
}

async fn start(name: &str, store: Arc<dyn Store>, url: &str, root: PublicKey) -> (Client, Events) {
    let client = Client::builder(AccountId::new(name)).shared_store(store).url(url).root_key(root);
    let client = client.configure(|config| config.pre_key_batch = 50).start().await.unwrap();
    let events = client.events().unwrap();
    (client, events)
}

async fn link(server: &Loopback, number: &str, client: &Client, events: &mut Events) {
    client.link_qr().await.unwrap();
    loop {
        let event = events.recv().await.unwrap();
        match &*event.event {
            "session.qr_updated" => drop(server.scan(number, event.data["qr"].as_str().unwrap()).await.unwrap()),
            "session.offline_sync_completed" => return,
            _ => {}
        }
    }
}

// ---- the child ------------------------------------------------------------------------------------------------------

/// One system call: what the parent reads is whole, and happened before.
fn say(words: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(format!("@ {words}\n").as_bytes()).unwrap();
    stdout.flush().unwrap();
}

/// The process that is killed. It tells every event before it is acknowledged, and writes messages until there are no more to write.
#[test]
fn child_that_talks_until_it_is_killed() {
    let Ok(place) = env::var("WAMD_KILL_PLACE") else { return };
    let number = |name: &str| env::var(name).unwrap().parse::<u64>().unwrap();
    let (next, last) = (number("WAMD_KILL_NEXT"), number("WAMD_KILL_LAST"));
    let url = env::var("WAMD_KILL_URL").unwrap();
    let root: [u8; 32] = hex::decode(env::var("WAMD_KILL_ROOT").unwrap()).unwrap().try_into().unwrap();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let (client, mut events) = start("alice", open(&place).await, &url, PublicKey::from_bytes(root)).await;
        client.connect().await.unwrap();
        // So many messages are under way at a time: lives are short, and nothing must pile up.
        let room = Semaphore::new(UNDER_WAY);
        let listen = async {
            while let Some(event) = events.recv().await {
                let (Some(seq), name) = (event.seq, &event.event) else { continue };
                let id = event.data["messages"][0]["key"]["id"].as_str().unwrap_or("-");
                say(&format!("event {seq} {} {name} {id}", event.event_id));
                if name == "message.sent" {
                    room.add_permits(1);
                }
            }
        };
        let write = async {
            for n in next..=last {
                room.acquire().await.unwrap().forget();
                let request = SendRequest::text(Jid::pn(BOB), format!("{n}")).with_id(id(ALICE, n));
                client.send(request).await.unwrap();
                say(&format!("accepted {n}"));
            }
            std::future::pending::<()>().await;
        };
        tokio::join!(listen, write);
    });
}

// ---- the parent -----------------------------------------------------------------------------------------------------

/// What the children have said so far.
#[derive(Default)]
struct Said {
    /// The last message of alice that was accepted.
    accepted: u64,
    /// Event id, name and message id by number.
    events: BTreeMap<u64, (String, String, String)>,
    connected: bool,
}

impl Said {
    fn hear(&mut self, line: &str) {
        // The first line may follow words of the test harness.
        let Some((_, said)) = line.split_once("@ ") else { return };
        let words: Vec<&str> = said.split(' ').collect();
        match words[..] {
            ["accepted", n] => self.accepted = n.parse().unwrap(),
            ["event", seq, event_id, name, id] => {
                self.connected |= name == "session.connected";
                let event = (event_id.to_owned(), name.to_owned(), id.to_owned());
                let before = self.events.insert(seq.parse().unwrap(), event.clone());
                assert!(before.is_none_or(|before| before == event), "event {seq} is another one: {event:?}");
            }
            _ => panic!("{said}"),
        }
    }

    /// How often each message id was told under a name.
    fn told(&self, name: &str) -> BTreeMap<&str, u32> {
        let mut told = BTreeMap::new();
        for (_, _, id) in self.events.values().filter(|(_, event, _)| event == name) {
            *told.entry(id.as_str()).or_default() += 1;
        }
        told
    }
}

/// A life of alice.
struct Life {
    child: Child,
    listener: tokio::task::JoinHandle<()>,
}

impl Life {
    fn begin(place: &str, server: &Loopback, said: &Arc<Mutex<Said>>, last: u64) -> Self {
        said.lock().unwrap().connected = false;
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "child_that_talks_until_it_is_killed", "--nocapture"])
            .env("WAMD_KILL_PLACE", place)
            .env("WAMD_KILL_URL", server.ws_url())
            .env("WAMD_KILL_ROOT", hex::encode(server.root_public_key().as_bytes()))
            .env("WAMD_KILL_NEXT", (said.lock().unwrap().accepted + 1).to_string())
            .env("WAMD_KILL_LAST", last.to_string())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = said.clone();
        let listener = tokio::spawn(async move {
            while let Some(line) = lines.next_line().await.unwrap() {
                said.lock().unwrap().hear(&line);
            }
        });
        Self { child, listener }
    }

    /// SIGKILL. What was said before is heard.
    async fn end(mut self) {
        self.child.start_kill().unwrap();
        let status = self.child.wait().await.unwrap();
        assert!(status.code().is_none(), "killed, not ended: {status}");
        self.listener.await.unwrap();
    }
}

/// A number below `below` that looks random and is the same each time.
fn random(n: u64, below: u64) -> u64 {
    let mut x = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (x ^ (x >> 31)) % below
}

/// Kills alice so many times; `buried` is done after each.
async fn kill(place: &str, kills: u64, buried: impl AsyncFn()) {
    let server = Loopback::start().await.unwrap();
    let (url, root) = (server.ws_url(), server.root_public_key());
    let store = open(place).await;
    let (alice, mut events) = start("alice", store.clone(), &url, root).await;
    link(&server, ALICE, &alice, &mut events).await;
    alice.shutdown().await;
    drop((events, store));
    let (bob, mut events) = start("bob", Arc::new(MemoryStore::new()), &url, root).await;
    link(&server, BOB, &bob, &mut events).await;
    let received = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    tokio::spawn({
        let received = received.clone();
        async move {
            while let Some(event) = events.recv().await {
                if event.event == "message.received" {
                    let id = event.data["messages"][0]["key"]["id"].as_str().unwrap().to_owned();
                    *received.lock().unwrap().entry(id).or_default() += 1;
                }
            }
        }
    });

    let said = Arc::new(Mutex::new(Said::default()));
    let (mut written, mut while_connected) = (0, 0);
    for n in 0..kills {
        let life = Life::begin(place, &server, &said, u64::MAX);
        for _ in 0..PER_LIFE {
            written += 1;
            bob.send(SendRequest::text(Jid::pn(ALICE), format!("{written}")).with_id(id(BOB, written))).await.unwrap();
        }
        // One in four dies at any moment from its start on, the others in the middle of the talk.
        if n % 4 > 0 {
            let connected = async {
                while !said.lock().unwrap().connected {
                    sleep(Duration::from_millis(1)).await;
                }
            };
            timeout(LIMIT, connected).await.expect("alice connects");
        }
        sleep(Duration::from_millis(random(n, 40))).await;
        life.end().await;
        while_connected += u64::from(said.lock().unwrap().connected);
        buried().await;
    }
    assert!(while_connected >= kills / 2, "{while_connected}");
    let last = said.lock().unwrap().accepted + 1;
    assert!(last > kills, "{last} messages are too few to tell anything");

    // A life that is not cut short. The message after the last accepted one may have been accepted unheard.
    let life = Life::begin(place, &server, &said, last);
    let sent: BTreeMap<String, u32> = (1..=last).map(|n| (id(ALICE, n).to_string(), 1)).collect();
    let to_alice: Vec<_> = (1..=written).map(|n| id(BOB, n).to_string()).collect();
    let settled = async {
        loop {
            {
                let said = said.lock().unwrap();
                let all_told = said.told("message.sent").len() >= sent.len();
                let all_there = said.told("message.received").len() >= to_alice.len();
                if all_told && all_there && received.lock().unwrap().len() >= sent.len() {
                    return;
                }
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let is_settled = timeout(LIMIT, settled).await.is_ok();
    sleep(Duration::from_millis(100)).await;
    life.end().await;
    bob.shutdown().await;
    server.shutdown().await;
    let said = said.lock().unwrap();
    assert!(*received.lock().unwrap() == sent, "bob has what alice sent, each once");
    let told: Vec<_> = said.told("message.received").into_iter().map(|(id, count)| (id.to_owned(), count)).collect();
    assert!(told.iter().map(|(id, _)| id).eq(&to_alice) && told.iter().all(|(_, count)| *count == 1), "{told:?}");
    assert!(said.told("message.sent").len() == sent.len(), "alice heard that all was sent");
    assert!(said.told("message.sent").values().all(|count| *count == 1), "once");
    for name in ["message.failed", "message.undecryptable"] {
        assert_eq!(said.told(name).len(), 0, "{name}");
    }
    assert!(is_settled);
    let (first, newest) = (*said.events.keys().next().unwrap(), *said.events.keys().next_back().unwrap());
    assert!(said.events.keys().copied().eq(first..=newest), "the outbox has no gap");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    kill(directory.path().join("alice.db").to_str().unwrap(), 200, async || {}).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgresql() {
    let Some(cluster) = postgres::Cluster::shared() else { return };
    let address = cluster.database().await;
    // The lease of the dead runs out, only sooner. One that it asked for with its last breath does so by itself.
    let buried = async || {
        postgres::sql(&address, "UPDATE wamd_lease SET until = clock_timestamp() - interval '1 second'").await;
    };
    kill(&address, 50, buried).await;
}
