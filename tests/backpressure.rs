//! The driver between a socket and a consumer of any speed: nothing is lost, nothing piles up, and everything comes again
//! until it is acknowledged (07 §6). With the real client, a real socket and real time.
#![cfg(feature = "client")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use wamd::{
    Jid,
    client::{Client, ClientBuilder, Error, Events},
    engine::CommandError,
    event::Envelope,
    store::{AccountId, Batch, Key, Lease, MemoryStore, OutboxEntry, RecordKind, Store, StoreError, StoreFuture},
};
use wamd_loopback::{Disconnect, Linked, Loopback};

const NUMBER: &str = "15550000001";
const FRIEND: &str = "15550000002";
/// No step of these tests may take longer.
const LIMIT: Duration = Duration::from_secs(60);

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !holds().await {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Forwards connections to the server and counts what clients take.
async fn counting_proxy(server: &Loopback) -> (String, Arc<AtomicU64>) {
    let url = server.ws_url();
    let target = url.trim_start_matches("ws://").split('/').next().expect("an address").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let taken = Arc::new(AtomicU64::new(0));
    let counter = taken.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let Ok(server) = TcpStream::connect(&target).await else { return };
            let (mut client_read, mut client_write) = client.into_split();
            let (mut server_read, mut server_write) = server.into_split();
            let counter = counter.clone();
            tokio::spawn(async move {
                let mut buffer = vec![0; 16 * 1024];
                while let Ok(len @ 1..) = server_read.read(&mut buffer).await {
                    if client_write.write_all(&buffer[..len]).await.is_err() {
                        return;
                    }
                    counter.fetch_add(len as u64, Ordering::Relaxed);
                }
            });
            tokio::spawn(async move { tokio::io::copy(&mut client_read, &mut server_write).await });
        }
    });
    (format!("ws://{address}/ws/chat"), taken)
}

struct Setup {
    server: Loopback,
    store: MemoryStore,
    url: String,
    /// Bytes that the client has taken from its sockets.
    taken: Arc<AtomicU64>,
    max_unacknowledged: u64,
}

impl Setup {
    async fn new(max_unacknowledged: u64) -> Self {
        let server = Loopback::start().await.expect("a server");
        let (url, taken) = counting_proxy(&server).await;
        Self { server, store: MemoryStore::new(), url, taken, max_unacknowledged }
    }

    fn builder(&self) -> ClientBuilder {
        Client::builder(AccountId::new("alice"))
            .url(&self.url)
            .root_key(self.server.root_public_key())
            .event_capacity(4)
            .configure(|config| {
                config.pre_key_batch = 20;
                config.max_unacknowledged = self.max_unacknowledged;
            })
    }

    async fn start(&self) -> (Client, Events) {
        let client = self.builder().store(self.store.clone()).start().await.expect("it starts");
        let events = client.events().unwrap();
        (client, events)
    }

    /// Links, and takes the events up to the first that the offline queue is through.
    async fn link(&self, client: &Client, events: &mut Events) -> Linked {
        client.link_qr().await.expect("it can be linked");
        let shown = event(events, "session.qr_updated").await;
        let phone = self.server.phone(NUMBER).await.expect("a phone");
        let linked = phone.scan(shown.data["qr"].as_str().expect("a text")).await.expect("scanned");
        event(events, "session.offline_sync_completed").await;
        linked
    }

    async fn friend_sends(&self, to: &Jid, text: String) {
        let friend = self.server.phone(FRIEND).await.expect("a phone");
        friend.send_text(&to.to_bare(), &text).await.expect("sent");
    }

    /// Texts that stand in the outbox.
    fn texts_told(&self) -> usize {
        let (stored, account) = (self.store.snapshot(), AccountId::new("alice"));
        let told = stored.outbox(&account, 0);
        told.filter(|entry| text(&Envelope::from_json(&entry.body).expect("an envelope")).is_some()).count()
    }

    /// Stanzas that the server keeps for the device.
    async fn queued(&self) -> usize {
        let accounts = self.server.accounts().await.expect("views");
        let account = accounts.into_iter().find(|account| account.number == NUMBER).expect("linked");
        account.devices.iter().map(|device| device.queued).sum()
    }
}

/// Takes events until one of this name comes.
async fn event(events: &mut Events, name: &str) -> Envelope {
    within(name, async {
        loop {
            let envelope = events.recv().await.unwrap_or_else(|| panic!("the account ended before {name}"));
            if envelope.event == name {
                return envelope;
            }
        }
    })
    .await
}

fn text(envelope: &Envelope) -> Option<&str> {
    (envelope.event == "message.received").then(|| envelope.data["messages"][0]["text"].as_str()).flatten()
}

#[tokio::test]
async fn a_consumer_that_does_not_read_stops_the_socket() {
    const MESSAGES: usize = 400;
    const LENGTH: usize = 40_000;
    const LIMIT_OF_EVENTS: u64 = 20;
    let setup = Setup::new(LIMIT_OF_EVENTS).await;
    let (client, mut events) = setup.start().await;
    let linked = setup.link(&client, &mut events).await;
    let before = setup.taken.load(Ordering::Relaxed);
    let all: Vec<String> = (0..MESSAGES).map(|n| format!("{n:0LENGTH$}")).collect();
    for text in &all {
        setup.friend_sends(&linked.jid, text.clone()).await;
    }
    // Wait until nothing moves any more.
    let state = || (client.snapshot().last_event, setup.taken.load(Ordering::Relaxed));
    let mut last = (state(), Instant::now());
    until("coming to rest", async || {
        if state() != last.0 {
            last = (state(), Instant::now());
        }
        last.1.elapsed() > Duration::from_millis(500)
    })
    .await;
    let snapshot = client.snapshot();
    assert!(snapshot.unacknowledged >= LIMIT_OF_EVENTS, "{snapshot:?}");
    // The limit, and the few events that one message can have beside its own.
    assert!(snapshot.unacknowledged <= LIMIT_OF_EVENTS + 2, "{snapshot:?}");
    assert!(snapshot.waiting_bytes <= 2 * LENGTH, "{snapshot:?}");
    assert_eq!(snapshot.state.as_str(), "CONNECTED");
    let taken = setup.taken.load(Ordering::Relaxed) - before;
    let total = (MESSAGES * LENGTH) as u64;
    assert!(taken < total * 3 / 4, "{taken} of {total} bytes were taken off the socket");
    assert!(setup.queued().await >= MESSAGES - LIMIT_OF_EVENTS as usize - 2, "the server keeps the rest");

    let mut received = Vec::new();
    while received.len() < MESSAGES {
        let envelope = event(&mut events, "message.received").await;
        received.extend(text(&envelope).map(str::to_owned));
    }
    assert!(received == all, "all of them, once, in order");
    until("the last answers", async || setup.queued().await == 0).await;
    // Commands are answered meanwhile, and the chat goes on.
    client.send_text(&Jid::pn(FRIEND), "that was much").await.expect("accepted");
    event(&mut events, "message.sent").await;
    within("the end", client.shutdown()).await;
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again() {
    let setup = Setup::new(1_000).await;
    let (client, mut events) = setup.start().await;
    let linked = setup.link(&client, &mut events).await;
    for n in 0..6 {
        setup.friend_sends(&linked.jid, format!("{n}")).await;
    }
    let mut first = Vec::new();
    while first.len() < 6 {
        let delivery = within("an event", events.next()).await.expect("it runs");
        let envelope = delivery.envelope().clone();
        if let Some(text) = text(&envelope) {
            let acknowledge = text == "1";
            first.push(envelope);
            if acknowledge {
                delivery.acknowledge();
            }
        }
    }
    until("the acknowledgement", async || client.snapshot().unacknowledged == 4).await;
    within("the end", client.shutdown()).await;
    drop(events);

    for _ in 0..2 {
        let (client, mut events) = setup.start().await;
        let mut again = Vec::new();
        while again.len() < 4 {
            again.push(within("an event", events.next()).await.expect("it runs").into_envelope());
        }
        assert_eq!(again, first[2..], "the same ids, numbers and contents");
        within("the end", client.shutdown()).await;
    }

    let (client, mut events) = setup.start().await;
    client.connect().await.expect("linked");
    setup.friend_sends(&linked.jid, "6".to_owned()).await;
    let mut numbers = Vec::new();
    let mut texts = Vec::new();
    while texts.last().map(String::as_str) != Some("6") {
        let envelope = within("an event", events.recv()).await.expect("it runs");
        numbers.extend(envelope.seq);
        texts.extend(text(&envelope).map(str::to_owned));
    }
    assert_eq!(texts, ["2", "3", "4", "5", "6"]);
    let from = first[2].seq.expect("a number");
    assert_eq!(numbers, (from..from + numbers.len() as u64).collect::<Vec<_>>(), "without gaps");
    within("the end", client.shutdown()).await;
}

#[tokio::test]
async fn a_shutdown_waits_for_the_store_and_not_for_the_consumer() {
    let setup = Setup::new(1_000).await;
    let (client, mut events) = setup.start().await;
    let linked = setup.link(&client, &mut events).await;
    // More events than the channel holds, and nobody reads.
    for n in 0..30 {
        setup.friend_sends(&linked.jid, format!("{n}")).await;
    }
    until("every text is durable", async || setup.texts_told() == 30).await;
    let accepted = client.send_text(&Jid::pn(FRIEND), "the last one").await.expect("accepted");
    let other = client.clone();
    within("the shutdown", client.shutdown()).await;
    assert!(matches!(other.send_text(&Jid::pn(FRIEND), "too late").await, Err(Error::Stopped)));
    assert!(matches!(other.connect().await, Err(Error::Stopped)));
    // What was told can still be taken, and then it ends.
    let mut left = Vec::new();
    while let Some(delivery) = within("the end of the events", events.next()).await {
        left.extend(text(delivery.envelope()).map(str::to_owned));
    }
    assert_eq!(left, (0..30).map(|n| format!("{n}")).collect::<Vec<_>>());
    drop(events);

    let (client, mut events) = setup.start().await;
    client.connect().await.expect("linked");
    let mut received = Vec::new();
    let mut sent = Vec::new();
    while received.len() < 30 || sent.is_empty() {
        let envelope = within("an event", events.recv()).await.expect("it runs");
        received.extend(text(&envelope).map(str::to_owned));
        if envelope.event == "message.sent" {
            sent.push(envelope.data["messages"][0]["key"]["id"].as_str().expect("an id").to_owned());
        }
    }
    assert_eq!(received, (0..30).map(|n| format!("{n}")).collect::<Vec<_>>());
    assert_eq!(sent, [accepted.id.as_str()]);
    let friend = setup.server.phone(FRIEND).await.expect("a phone");
    let inbox = friend.received().await.expect("messages");
    assert_eq!(inbox.iter().filter(|message| message.text.as_deref() == Some("the last one")).count(), 1);
    within("the end", client.shutdown()).await;
}

#[tokio::test]
async fn an_account_stops_when_nobody_has_a_handle() {
    let setup = Setup::new(1_000).await;
    let (client, mut events) = setup.start().await;
    setup.link(&client, &mut events).await;
    drop(client);
    within("the end of the events", async { while events.recv().await.is_some() {} }).await;
    let connected = async || {
        let accounts = setup.server.accounts().await.expect("views");
        accounts.iter().flat_map(|account| &account.devices).any(|device| device.connected)
    };
    until("the connection to close", async || !connected().await).await;
}

#[tokio::test]
async fn without_a_consumer_nothing_is_lost() {
    let setup = Setup::new(10).await;
    let (client, mut events) = setup.start().await;
    let linked = setup.link(&client, &mut events).await;
    drop(events);
    for n in 0..40 {
        setup.friend_sends(&linked.jid, format!("{n}")).await;
    }
    until("the limit", async || client.snapshot().unacknowledged >= 10).await;
    assert!(client.snapshot().unacknowledged <= 12);
    within("the end", client.shutdown()).await;
    let (client, mut events) = setup.start().await;
    client.connect().await.expect("linked");
    for n in 0..40 {
        let envelope = event(&mut events, "message.received").await;
        assert_eq!(text(&envelope), Some(&*format!("{n}")));
    }
    within("the end", client.shutdown()).await;
}

#[tokio::test]
async fn a_store_that_fails_costs_a_moment() {
    let setup = Setup::new(1_000).await;
    let (client, mut events) = setup.start().await;
    let linked = setup.link(&client, &mut events).await;
    for round in 0..3 {
        setup.store.fail_commits(2);
        setup.friend_sends(&linked.jid, format!("{round}")).await;
        let envelope = event(&mut events, "message.received").await;
        assert_eq!(text(&envelope), Some(&*format!("{round}")));
        until("the answers", async || setup.queued().await == 0).await;
    }
    // A command that was not stored is answered, too, and had no effect.
    setup.store.fail_commits(1);
    let refused = within("an answer", client.send_text(&Jid::pn(FRIEND), "lost")).await;
    assert_eq!(refused, Err(Error::Command(CommandError::Interrupted)));
    within("an answer", client.send_text(&Jid::pn(FRIEND), "still here")).await.expect("accepted");
    event(&mut events, "message.sent").await;
    let inbox = setup.server.phone(FRIEND).await.expect("a phone").received().await.expect("messages");
    let texts: Vec<_> = inbox.iter().filter_map(|message| message.text.as_deref()).collect();
    assert_eq!(texts, ["still here"]);
    within("the end", client.shutdown()).await;
}

#[tokio::test]
async fn a_client_comes_back_by_itself() {
    let setup = Setup::new(1_000).await;
    let (client, mut events) = setup.start().await;
    let linked = setup.link(&client, &mut events).await;
    for how in [Disconnect::Plain, Disconnect::StreamError(515), Disconnect::XmlStreamEnd] {
        setup.server.disconnect(&linked.jid, how).await.expect("connected");
        event(&mut events, "session.connected").await;
        setup.friend_sends(&linked.jid, format!("{how:?}")).await;
        let envelope = event(&mut events, "message.received").await;
        assert_eq!(text(&envelope), Some(&*format!("{how:?}")));
    }
    within("the end", client.shutdown()).await;
}

/// A store that cannot remove events, so many times.
#[derive(Debug)]
struct NoTrim {
    inner: MemoryStore,
    failures: AtomicU64,
}

impl Store for NoTrim {
    fn acquire<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, Lease> {
        self.inner.acquire(account)
    }

    fn load<'a>(&'a self, account: &'a AccountId, keys: &'a [Key]) -> StoreFuture<'a, Vec<Option<Bytes>>> {
        self.inner.load(account, keys)
    }

    fn scan<'a>(&'a self, account: &'a AccountId, kind: RecordKind) -> StoreFuture<'a, Vec<(Key, Bytes)>> {
        self.inner.scan(account, kind)
    }

    fn commit(&self, account: &AccountId, batch: Batch) -> StoreFuture<'static, ()> {
        self.inner.commit(account, batch)
    }

    fn outbox<'a>(&'a self, account: &'a AccountId, after: u64, limit: usize) -> StoreFuture<'a, Vec<OutboxEntry>> {
        self.inner.outbox(account, after, limit)
    }

    fn trim_outbox<'a>(&'a self, account: &'a AccountId, through: u64) -> StoreFuture<'a, ()> {
        let fails =
            self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        match fails {
            true => Box::pin(async { Err(StoreError::Backend("busy".to_owned())) }),
            false => self.inner.trim_outbox(account, through),
        }
    }

    fn accounts(&self) -> StoreFuture<'_, Vec<AccountId>> {
        self.inner.accounts()
    }

    fn remove<'a>(&'a self, account: &'a AccountId) -> StoreFuture<'a, ()> {
        self.inner.remove(account)
    }
}

#[tokio::test]
async fn events_that_could_not_be_removed_do_not_stop_the_account() {
    let setup = Setup::new(10).await;
    let (client, mut events) = setup.start().await;
    let linked = setup.link(&client, &mut events).await;
    within("the end", client.shutdown()).await;
    for n in 0..20 {
        setup.friend_sends(&linked.jid, format!("{n}")).await;
    }
    let store = Arc::new(NoTrim { inner: setup.store.clone(), failures: AtomicU64::new(0) });
    let client = setup.builder().shared_store(store.clone()).start().await.expect("it starts");
    let mut events = client.events().unwrap();
    client.connect().await.expect("linked");
    let mut received = Vec::new();
    within("all messages", async {
        while received.len() < 20 {
            // The consumer takes what there is and acknowledges it at once; the store fails just then.
            let mut newest = None;
            while let Ok(Some(delivery)) = timeout(Duration::from_millis(300), events.next()).await {
                received.extend(text(delivery.envelope()).map(str::to_owned));
                newest = Some(delivery);
            }
            if let Some(newest) = newest {
                store.failures.store(1, Ordering::Relaxed);
                newest.acknowledge();
            }
        }
    })
    .await;
    assert_eq!(received, (0..20).map(|n| n.to_string()).collect::<Vec<_>>());
    within("the end", client.shutdown()).await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}/ws/chat", listener.local_addr().expect("bound"));
    let builder = Client::builder(AccountId::new("alice")).url(url);
    let builder = builder.configure(|config| config.handshake_timeout = Duration::from_millis(100));
    let client = builder.start().await.expect("it starts");
    client.link_qr().await.expect("it can be linked");
    let (mut silent, _) = within("a connection", listener.accept()).await.expect("accepted");
    let everything = within("the end of the connection", async {
        let mut request = Vec::new();
        silent.read_to_end(&mut request).await.map(|_| request)
    });
    let request = everything.await.expect("a clean end");
    assert!(request.starts_with(b"GET /ws/chat"));
    within("the end", client.shutdown()).await;
}
