//! Many accounts in one process share a store and a consumer, and are started, stopped and removed while the others go on.
#![cfg(feature = "client")]

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use wamd::{
    Jid,
    client::{Client, Error, Fleet, FleetEvents},
    engine::CommandError,
    event::{Envelope, SessionState},
    store::{AccountId, MemoryStore, Store},
};
use wamd_loopback::{Linked, Loopback};

/// No step of these tests may take longer.
const LIMIT: Duration = Duration::from_secs(60);

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

fn fleet(server: &Loopback, store: Arc<dyn Store>, max_accounts: usize) -> Fleet {
    Fleet::builder_shared(store)
        .url(server.ws_url())
        .root_key(server.root_public_key())
        .configure(|config| config.pre_key_batch = 20)
        .stagger(2, Duration::from_millis(1))
        .max_accounts(max_accounts)
        .build()
        .expect("a fleet")
}

fn name(n: usize) -> AccountId {
    AccountId::new(format!("account {n}"))
}

fn number(n: usize) -> String {
    format!("1555000{n:04}")
}

/// Takes and acknowledges the events of all accounts, and looks at their numbers.
struct Consumer {
    events: FleetEvents,
    /// The last number of each account.
    seen: HashMap<String, u64>,
}

impl Consumer {
    fn new(fleet: &Fleet) -> Self {
        Self { events: fleet.events().expect("not taken yet"), seen: HashMap::new() }
    }

    async fn next(&mut self) -> Option<Envelope> {
        let delivery = within("an event", self.events.next()).await?;
        let envelope = delivery.envelope().clone();
        if let Some(seq) = envelope.seq {
            // What was not acknowledged before a stop comes again; nothing is left out.
            let last = self.seen.entry(envelope.session_id.clone()).or_insert(seq);
            assert!(seq <= *last + 1, "{} jumps from {last} to {seq}", envelope.session_id);
            *last = seq.max(*last);
        }
        delivery.acknowledge();
        Some(envelope)
    }

    /// Takes events until only so many hold the store: those of an account that was stopped are taken before it is gone.
    async fn until_held(&mut self, store: &Arc<MemoryStore>, holders: usize) {
        within("letting go", async {
            while Arc::strong_count(store) > holders {
                let _ = timeout(Duration::from_millis(5), self.next()).await;
            }
        })
        .await;
        assert_eq!(Arc::strong_count(store), holders);
    }

    async fn event(&mut self, account: &AccountId, event: &str) -> Envelope {
        loop {
            let envelope = self.next().await.unwrap_or_else(|| panic!("the fleet ended before {event}"));
            if envelope.session_id == account.as_str() && envelope.event == event {
                return envelope;
            }
        }
    }
}

async fn link(server: &Loopback, fleet: &Fleet, consumer: &mut Consumer, n: usize) -> (Client, Linked) {
    let client = fleet.start(&name(n)).await.expect("it starts");
    client.link_qr().await.expect("it can be linked");
    let shown = consumer.event(&name(n), "session.qr_updated").await;
    let qr = shown.data["qr"].as_str().expect("a text");
    let phone = server.phone(&number(n)).await.expect("a phone");
    let linked = phone.scan(qr).await.expect("scanned");
    consumer.event(&name(n), "session.offline_sync_completed").await;
    (client, linked)
}

async fn connected(client: &Client) {
    within("connecting", async {
        while client.snapshot().state != SessionState::Connected {
            sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn all_accounts_of_a_store_come_back_and_talk() {
    const ACCOUNTS: usize = 5;
    let server = Loopback::start().await.expect("a server");
    let store = Arc::new(MemoryStore::new());
    let first = fleet(&server, store.clone(), usize::MAX);
    let mut consumer = Consumer::new(&first);
    for n in 0..ACCOUNTS {
        link(&server, &first, &mut consumer, n).await;
    }
    // One that was never linked has records, too.
    let unlinked = name(ACCOUNTS);
    first.start(&unlinked).await.expect("it starts").link_qr().await.expect("codes");
    consumer.event(&unlinked, "session.qr_updated").await;
    within("the shutdown", first.shutdown()).await;
    assert!(first.accounts().is_empty());
    assert!(matches!(first.start(&name(0)).await, Err(Error::Stopped)));
    while consumer.next().await.is_some() {}

    let second = fleet(&server, store.clone(), usize::MAX);
    let mut consumer = Consumer::new(&second);
    assert!(matches!(second.events(), Err(Error::EventsTaken)));
    let started = within("starting", second.start_all()).await.expect("a store");
    assert_eq!(started.connecting.len(), ACCOUNTS, "{started:?}");
    assert!(started.failed.is_empty(), "{started:?}");
    for (account, error) in &started.idle {
        assert_eq!(account, &unlinked);
        assert!(matches!(error, Error::Command(CommandError::NotLinked)), "{error}");
    }
    for n in 0..ACCOUNTS {
        connected(&second.get(&name(n)).await.expect("it runs")).await;
    }
    // Everybody writes to the next one.
    for n in 0..ACCOUNTS {
        let to = Jid::pn(number((n + 1) % ACCOUNTS));
        let client = second.get(&name(n)).await.expect("it runs");
        client.send_text(&to, format!("from {n}")).await.expect("accepted");
    }
    let mut received = HashMap::new();
    while received.len() < ACCOUNTS {
        let envelope = consumer.next().await.expect("the fleet runs");
        let message = &envelope.data["messages"][0];
        if envelope.event == "message.received" && message["key"]["fromMe"] == false {
            let text = message["text"].as_str().expect("a text").to_owned();
            assert!(received.insert(envelope.session_id, text).is_none(), "told once");
        }
    }
    for n in 0..ACCOUNTS {
        let before = (n + ACCOUNTS - 1) % ACCOUNTS;
        assert_eq!(received[name(n).as_str()], format!("from {before}"));
    }
    within("the shutdown", second.shutdown()).await;
}

#[tokio::test]
async fn one_account_goes_and_the_others_stay() {
    let server = Loopback::start().await.expect("a server");
    let store = Arc::new(MemoryStore::new());
    let fleet = fleet(&server, store.clone(), 3);
    let mut consumer = Consumer::new(&fleet);
    let (kept, linked) = link(&server, &fleet, &mut consumer, 0).await;
    let (gone, _) = link(&server, &fleet, &mut consumer, 1).await;
    link(&server, &fleet, &mut consumer, 2).await;
    assert!(matches!(fleet.start(&name(3)).await, Err(Error::TooManyAccounts(3))));
    let held = Arc::strong_count(&store);

    within("stopping", fleet.stop(&name(1))).await;
    assert!(matches!(gone.connect().await, Err(Error::Stopped)));
    assert!(fleet.get(&name(1)).await.is_none());
    consumer.until_held(&store, held - 1).await;
    assert_eq!(store.accounts().await.expect("accounts").len(), 3, "it stays in the store");
    // There is room for another one, and the stopped one can come back.
    fleet.start(&name(3)).await.expect("room");
    within("stopping", fleet.stop(&name(3))).await;
    let again = fleet.start(&name(1)).await.expect("it starts");
    again.connect().await.expect("it is linked");
    connected(&again).await;

    within("removing", fleet.remove(&name(2))).await.expect("removed");
    within("removing", fleet.remove(&name(2))).await.expect("that it is gone is no error");
    let mut left = store.accounts().await.expect("accounts");
    left.sort();
    assert_eq!(left, [name(0), name(1)]);

    // All the time the first one was there.
    assert_eq!(kept.snapshot().state, SessionState::Connected);
    again.send_text(&linked.jid.to_bare(), "still here?").await.expect("accepted");
    let received = consumer.event(&name(0), "message.received").await;
    assert_eq!(received.data["messages"][0]["text"], "still here?");
    within("the shutdown", fleet.shutdown()).await;
}

/// An account is one task, whoever asks for it at the same time; what is started while it is being stopped runs afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starting_and_stopping_at_once_leaves_one_or_none() {
    let server = Loopback::start().await.expect("a server");
    let store = Arc::new(MemoryStore::new());
    let fleet = fleet(&server, store.clone(), usize::MAX);
    let mut consumer = Consumer::new(&fleet);
    let idle = Arc::strong_count(&store);
    for round in 0..50 {
        let account = name(0);
        let tasks: Vec<_> = (0..8)
            .map(|task| {
                let (fleet, account) = (fleet.clone(), account.clone());
                tokio::spawn(async move {
                    if (task + round) % 3 == 0 {
                        fleet.stop(&account).await;
                    } else {
                        fleet.start(&account).await.expect("it starts");
                    }
                })
            })
            .collect();
        for task in tasks {
            within("a task", task).await.expect("no panic");
        }
        let running = usize::from(fleet.get(&account).await.is_some());
        assert_eq!(fleet.accounts().len(), running, "round {round}");
        consumer.until_held(&store, idle + running).await;
    }
    within("the shutdown", fleet.shutdown()).await;
    consumer.until_held(&store, idle).await;
}
