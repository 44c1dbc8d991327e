//! What the driver counts is what happened, under the names that are documented, and no label names anybody.
#![cfg(feature = "metrics")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use tokio::time::timeout;
use wamd::{
    Jid,
    client::{Client, Events},
    event::Envelope,
    store::{AccountId, MemoryStore},
};
use wamd_loopback::{Disconnect, Loopback};

const ALICE: &str = "15550000001";
const BOB: &str = "15550000002";
const DOCUMENTED: &str = include_str!("../src/client/metrics.rs");

/// Every value ever recorded, summed by name and labels; of a histogram also how many.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, (f64, u64)>>>);

impl Memory {
    fn handle(&self, key: &Key) -> Arc<Slot> {
        let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Arc::new(Slot { name: format!("{}{{{}}}", key.name(), labels.join(",")), memory: self.clone() })
    }

    fn sum(&self, name: &str) -> f64 {
        self.0.lock().unwrap().get(name).map_or(0.0, |(sum, _)| *sum)
    }

    fn count(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).map_or(0, |(_, count)| *count)
    }
}

#[derive(Debug)]
struct Slot {
    name: String,
    memory: Memory,
}

impl Slot {
    fn add(&self, value: f64) {
        let mut memory = self.memory.0.lock().unwrap();
        let (sum, count) = memory.entry(self.name.clone()).or_default();
        *sum += value;
        *count += 1;
    }
}

impl CounterFn for Slot {
    fn increment(&self, value: u64) {
        self.add(value as f64);
    }

    fn absolute(&self, _: u64) {
        panic!("counters only grow by steps");
    }
}

impl GaugeFn for Slot {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, _: f64) {
        panic!("several accounts share a gauge");
    }
}

impl HistogramFn for Slot {
    fn record(&self, value: f64) {
        self.add(value);
    }
}

impl Recorder for Memory {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.handle(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.handle(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.handle(key))
    }
}

async fn event(events: &mut Events, name: &str) -> Envelope {
    let found = async {
        loop {
            let envelope = events.recv().await.expect("the account runs");
            if envelope.event == name {
                return envelope;
            }
        }
    };
    timeout(Duration::from_secs(60), found).await.unwrap_or_else(|_| panic!("no {name}"))
}

#[tokio::test]
async fn a_session_is_counted() {
    let memory = Memory::default();
    metrics::set_global_recorder(memory.clone()).expect("the only recorder");
    let server = Loopback::start().await.expect("a server");
    let store = MemoryStore::new();
    let client = Client::builder(AccountId::new(ALICE))
        .url(server.ws_url())
        .root_key(server.root_public_key())
        .store(store.clone())
        .configure(|config| config.pre_key_batch = 20)
        .start()
        .await
        .expect("it starts");
    let mut events = client.events().unwrap();
    client.link_qr().await.expect("codes");
    assert!(client.link_qr().await.is_ok());
    let shown = event(&mut events, "session.qr_updated").await;
    let linked = server.phone(ALICE).await.unwrap().scan(shown.data["qr"].as_str().unwrap()).await.expect("scanned");
    event(&mut events, "session.offline_sync_completed").await;
    let bob = server.phone(BOB).await.unwrap();
    for n in 0..3 {
        bob.send_text(&linked.jid.to_bare(), &format!("{n}")).await.expect("sent");
        event(&mut events, "message.received").await;
    }
    client.send_text(&Jid::pn(BOB), "four").await.expect("accepted");
    event(&mut events, "message.sent").await;
    assert!(client.link_qr().await.is_err(), "it is linked");

    assert_eq!(memory.sum("wamd_events_total{event=message.received}"), 3.0);
    assert_eq!(memory.sum("wamd_events_total{event=message.sent}"), 1.0);
    assert_eq!(memory.sum("wamd_accounts{state=connected}"), 1.0);
    assert_eq!(memory.sum("wamd_accounts{state=pending}"), 0.0);
    assert_eq!(memory.sum("wamd_commands_total{result=refused}"), 1.0);
    assert_eq!(memory.sum("wamd_commands_total{result=ok}"), 3.0);
    // One to link, and one after it.
    assert_eq!(memory.sum("wamd_connections_total{step=dialled}"), 2.0);
    assert_eq!(memory.sum("wamd_connections_total{step=opened}"), 2.0);
    assert_eq!(memory.sum("wamd_connections_total{step=closed}"), 0.0, "it was the client that ended the first");
    server.disconnect(&linked.jid, Disconnect::Plain).await.expect("connected");
    event(&mut events, "session.connected").await;
    assert_eq!(memory.sum("wamd_connections_total{step=closed}"), 1.0);
    assert_eq!(memory.sum("wamd_connections_total{step=opened}"), 3.0);
    for direction in ["in", "out"] {
        let bytes = memory.sum(&format!("wamd_socket_bytes_total{{direction={direction}}}"));
        let messages = memory.sum(&format!("wamd_socket_messages_total{{direction={direction}}}"));
        assert!(messages >= 8.0 && bytes > messages * 20.0, "{direction}: {messages} with {bytes} bytes");
    }
    store.fail_commits(1);
    bob.send_text(&linked.jid.to_bare(), "again").await.expect("sent");
    event(&mut events, "message.received").await;
    assert_eq!(memory.sum("wamd_commits_total{result=failed}"), 1.0);
    let commits = memory.sum("wamd_commits_total{result=ok}") + 1.0;
    assert_eq!(memory.count("wamd_commit_seconds{}") as f64, commits);
    assert!(memory.sum("wamd_commit_bytes{}") > 10_000.0, "prekeys alone are more");
    assert_eq!(memory.count("wamd_load_seconds{}") as f64, memory.sum("wamd_loads_total{result=ok}"));
    assert_eq!(memory.count("wamd_cpu_seconds{}") as f64, memory.sum("wamd_cpu_jobs_total{}"));
    client.shutdown().await;
    while events.recv().await.is_some() {}
    let known = memory.0.lock().unwrap();
    for (name, (sum, _)) in known.iter() {
        let plain = name.split('{').next().unwrap();
        assert!(DOCUMENTED.contains(&format!("//! | `{plain}` |")), "{plain} is not documented");
        assert!(!name.contains(ALICE) && !name.contains(BOB), "{name} names somebody");
        assert!(plain != "wamd_accounts" || *sum == 0.0, "{name} is {sum} after the end");
    }
    let names = DOCUMENTED.lines().filter_map(|line| line.strip_prefix("//! | `")?.split('`').next());
    for name in names.filter(|name| !name.starts_with("wamd_cpu")) {
        assert!(known.keys().any(|key| key.starts_with(name)), "{name} is documented and never counted");
    }
}
