//! Logs and `Debug` tell no phone number, hidden id, key, QR text or message text.
//!
//! Two clients live through a session over a real socket, with everything going wrong that the engine says something about,
//! under a subscriber that keeps every event and span at TRACE. Then each line is searched for each secret, as text, hex,
//! base64 and as a list of numbers.
#![cfg(feature = "client")]

#[path = "common/proxy.rs"]
mod proxy;

use std::{
    collections::BTreeSet,
    fmt::{Debug, Write as _},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use proxy::{Manner, TestProxy};
use tokio::time::{sleep, timeout};
use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use wamd::{
    Jid,
    client::{Client, Events},
    clock::Now,
    engine::{
        Command, CommandId, Config, ConnectionId, Content, Engine, GroupRequest, Input, LoadId, Loaded, Output, Reply,
        SendRequest,
    },
    event::{Envelope, GroupObject, SessionPairCode, SessionPasskeyConfirmation, SessionPasskeyRequest},
    pairing::{code::PairCode, qr::QrContent},
    stanza::iq::groups::NewGroup,
    store::{AccountId, Batch, Key, MemoryStore, RecordKind, Store},
};
use wamd_loopback::{Disconnect, Fault, Loopback, ScanOptions};

const ALICE: &str = "15550000001";
const BOB: &str = "15550000002";
const TEXTS: [&str; 3] = ["the parcel is at the station", "bring the blue umbrella", "nobody must read this"];
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_session_tells_the_log_nothing_secret() {
    let log = Log::default();
    tracing::subscriber::set_global_default(log.clone()).expect("the only subscriber");
    let mut secrets = Secrets::default();
    let server = Loopback::start().await.expect("a server");
    let mut alice = Account::new("alice", ALICE);
    let mut bob = Account::new("bob", BOB);
    let mut shown = String::new();

    // A link that is refused, then two that go well.
    server.fault(Fault::ForgedCertificate { on: true }).await.unwrap();
    alice.start(&server).await;
    alice.client().link_qr().await.unwrap();
    log.wait_for("handshake failed").await;
    server.fault(Fault::ForgedCertificate { on: false }).await.unwrap();
    alice.client().link_qr().await.unwrap();
    let spoiled = ScanOptions { spoil_hmac: true, ..ScanOptions::default() };
    let qr = alice.event("session.qr_updated").await.data["qr"].as_str().unwrap().to_owned();
    secrets.qr(&qr);
    server.scan_with(ALICE, &qr, spoiled).await.unwrap();
    log.wait_for("linking failed").await;
    alice.client().link_qr().await.unwrap();
    secrets.qr(&alice.link(&server).await);
    bob.start(&server).await;
    // The other one by a code, after a wrong one.
    let linking = bob.client().link_code(BOB.parse().unwrap()).await.unwrap();
    secrets.texts.extend([linking.code.shown(), linking.code.as_str().to_owned()]);
    write!(shown, "{linking:?}").unwrap();
    let phone = server.phone(BOB).await.unwrap();
    phone.enter_code("WXYZ-1234").await.unwrap();
    let again = ScanOptions { again: true, ..ScanOptions::default() };
    phone.enter_code_with(&linking.code.shown(), again).await.unwrap();
    bob.event("session.connected").await;
    let (alice_jid, bob_jid) = (alice.jid(), bob.jid());

    // Bundles with a forged signature, then an exchange, with a ciphertext that is damaged on the way.
    server.fault(Fault::ForgePrekeySignature { jid: bob_jid.clone(), on: true }).await.unwrap();
    alice.client().send_text(&bob_jid.to_bare(), TEXTS[0]).await.unwrap();
    log.wait_for("bundle refused").await;
    server.fault(Fault::ForgePrekeySignature { jid: bob_jid.clone(), on: false }).await.unwrap();
    bob.client().send_text(&alice_jid.to_bare(), TEXTS[1]).await.unwrap();
    let received = alice.event("message.received").await;
    write!(shown, "{received:?}").unwrap();
    server.fault(Fault::TamperNext { jid: bob_jid.clone(), count: 1 }).await.unwrap();
    alice.client().send_text(&bob_jid.to_bare(), TEXTS[2]).await.unwrap();
    log.wait_for("message cannot be decrypted").await;

    // Commands that are refused.
    let refused = alice.client().send_text(&"12036304@newsletter".parse().unwrap(), TEXTS[0]).await.unwrap_err();
    let nobody = Jid::new(BOB, wamd::jid::Server::Broadcast);
    let odd = alice.client().send_text(&nobody, TEXTS[0]).await.unwrap_err();
    write!(shown, "{refused} {refused:?} {odd} {odd:?}").unwrap();

    // Frames that are none, stanzas that are malformed, logins that are refused.
    let garbage = [&[0, 0xF8, 9][..], BOB.as_bytes()].concat();
    server.fault(Fault::InjectRaw { jid: bob_jid.clone(), plaintext: garbage.into() }).await.unwrap();
    log.wait_for("frame is not a node").await;
    let group: Jid = format!("{ALICE}-1@g.us").parse().unwrap();
    let malformed = wamd::node::Node::new("message").attr("from", group).attr("id", "X");
    server.fault(Fault::Inject { jid: bob_jid.clone(), node: malformed }).await.unwrap();
    log.wait_for("message cannot be parsed").await;
    server.disconnect(&bob_jid, Disconnect::StreamError(503)).await.unwrap();
    bob.event("session.disconnected").await;
    bob.event("session.connected").await;

    // A store that fails, and one whose records are damaged.
    bob.store.fail_commits(1);
    alice.client().send_text(&bob_jid.to_bare(), TEXTS[0]).await.unwrap();
    log.wait_for("the store failed").await;
    alice.stop().await;
    secrets.records(&alice.store);
    let damaged = alice.store.scan(&alice.id, RecordKind::Session).await.unwrap();
    assert!(!damaged.is_empty(), "there are sessions to damage");
    let puts = damaged.into_iter().map(|(key, _)| (key, Bytes::from_static(b"damaged"))).collect();
    alice.store.commit(&alice.id, Batch { puts, ..Batch::default() }).await.unwrap();
    alice.start(&server).await;
    alice.client().connect().await.unwrap();
    alice.event("session.connected").await;
    alice.client().send_text(&bob_jid.to_bare(), TEXTS[1]).await.unwrap();
    log.wait_for("stored record is unusable").await;

    // A proxy that does not take the password.
    let proxy = TestProxy::start(Manner::Closed("gateway-one", "s3cret-word")).await;
    for scheme in ["http", "socks5h"] {
        let proxy = proxy.url(scheme, "gateway-two:wr0ng-word@");
        let builder = Client::builder(AccountId::new("carol")).url(server.ws_url()).proxy(proxy);
        write!(shown, "{builder:?}").unwrap();
        let client = builder.start().await.unwrap();
        let mut events = client.events().unwrap();
        client.link_qr().await.unwrap();
        while !write_event(&mut shown, &events.recv().await.unwrap(), "session.disconnected") {}
        drop(events);
        client.shutdown().await;
    }
    secrets.texts.extend(["gateway-two", "wr0ng-word"].map(str::to_owned));

    for account in [&alice, &bob] {
        let snapshot = account.client().snapshot();
        secrets.jid(snapshot.jid.as_ref().unwrap());
        secrets.jid(snapshot.lid.as_ref().unwrap());
        secrets.records(&account.store);
        write!(shown, "{:?} {snapshot:?} {:?}", account.client(), account.store).unwrap();
    }
    secrets.texts.extend(TEXTS.map(str::to_owned));
    alice.stop().await;
    bob.stop().await;
    server.shutdown().await;

    let lines = log.lines();
    // One line at least for each thing that went wrong above.
    assert!(lines.len() >= 8, "{lines:?}");
    assert!(secrets.bytes.len() > 20 && secrets.texts.len() > 8, "{} keys", secrets.bytes.len());
    for line in lines.iter().chain([&shown]) {
        secrets.check(line);
    }
}

/// Shows an event; whether it has this name.
fn write_event(shown: &mut String, event: &Envelope, name: &str) -> bool {
    write!(shown, "{event:?} {}", event.data).unwrap();
    event.event == name
}

/// The types that a driver handles do not print what they carry.
#[test]
fn debug_tells_nothing_secret() {
    let mut secrets = Secrets::default();
    secrets.texts.extend([ALICE, BOB, TEXTS[0], TEXTS[1], "100000000000007"].map(str::to_owned));
    secrets.bytes.insert(vec![0xC5; 32]);
    let secret = Bytes::from(vec![0xC5; 32]);
    let shown = |value: &dyn Debug| {
        let text = format!("{value:?} {value:#?}");
        secrets.check(&text);
        text
    };
    let (pn, lid) = (Jid::pn(ALICE).with_device(3), Jid::lid("100000000000007"));
    let request = SendRequest::text(pn.clone(), TEXTS[0]).with_client_ref(TEXTS[1]);
    shown(&Content::Text(TEXTS[0].to_owned()));
    assert!(shown(&request).contains("**01:3@s.whatsapp.net"), "what is shown of an address");
    let mark = Command::MarkRead { chat: lid.clone(), participant: Some(pn.clone()), ids: vec!["3EB0".to_owned()] };
    let code: PairCode = "WXYZ-1234".parse().unwrap();
    secrets.texts.extend([code.shown(), code.as_str().to_owned()]);
    let link = Command::LinkCode { phone: ALICE.parse().unwrap(), code: Some(code.clone()), notify: true };
    let passkey = Command::PasskeyAssertion { credential_id: secret.clone(), assertion: secret.clone() };
    let shown = |value: &dyn Debug| {
        let text = format!("{value:?} {value:#?}");
        secrets.check(&text);
        text
    };
    shown(&Reply::PairCode { code: code.clone(), expires_at: 1 });
    shown(&SessionPairCode::new(code.shown(), 1, 2));
    shown(&SessionPasskeyConfirmation::new(code.shown(), true));
    shown(&SessionPasskeyRequest::new(Some(TEXTS[0].to_owned()), serde_json::json!({ "challenge": TEXTS[0] }), 1, 2));
    let group: Jid = format!("{ALICE}-1716894200@g.us").parse().unwrap();
    let named = GroupRequest::Subject { group: group.clone(), subject: TEXTS[0].to_owned() };
    let made = GroupRequest::Create(NewGroup::new(TEXTS[0], vec![pn.clone()]));
    let mut object = GroupObject::new(group);
    (object.subject, object.owner) = (Some(TEXTS[0].to_owned()), Some(pn.clone()));
    shown(&Reply::Group(Box::new(object)));
    for command in [Command::Send(request.clone()), Command::Group(named), Command::Group(made), mark, link, passkey] {
        shown(&command);
        shown(&Input::Command(CommandId(1), command));
    }
    let key = Key::new(RecordKind::Session, ALICE);
    let loaded =
        Loaded { records: vec![(key.clone(), Some(secret.clone()))], scanned: vec![(key.clone(), secret.clone())] };
    shown(&loaded);
    shown(&Input::Loaded(LoadId(1), loaded));
    shown(&Input::Received(ConnectionId(1), secret.clone()));
    shown(&Output::Send(ConnectionId(1), secret.clone()));
    shown(&Output::Load { id: LoadId(1), keys: vec![key.clone()], scans: Vec::new() });
    shown(&Output::Commit { seq: 1, batch: Batch { puts: vec![(key, secret)], ..Batch::default() } });

    let config = Config::new(AccountId::new("main"));
    shown(&config);
    let mut engine = Engine::new(config, [0xC5; 32]);
    let now = Now { mono: Duration::ZERO, wall_ms: 1_716_894_200_000 };
    engine.handle(now, Input::Command(CommandId(1), Command::Send(request)));
    shown(&engine);
    shown(&engine.snapshot());
    while let Some(output) = engine.poll() {
        shown(&output);
    }
}

/// The search finds what it is for.
#[test]
fn secrets_are_found_in_every_form() {
    let mut secrets = Secrets::default();
    let key: Vec<u8> = (200..232).collect();
    secrets.bytes.insert(key.clone());
    secrets.texts.insert(ALICE.to_owned());
    let found = |line: &str| secrets.find(line).is_some();
    assert!(found("to 15550000001@s.whatsapp.net"));
    assert!(found(&hex::encode(&key)) && found(&hex::encode_upper(&key)) && found(&hex::encode(&key[..8])));
    assert!(found(&STANDARD.encode(&key)));
    assert!(found(&format!("{key:?}")) && found(&format!("{key:#?}")) && found(&format!("{:?}", Bytes::from(key))));
    assert!(!found("device=**01:3@s.whatsapp.net error=bad MAC"));
}

// ---- accounts -------------------------------------------------------------------------------------------------

struct Account {
    id: AccountId,
    number: &'static str,
    store: MemoryStore,
    running: Option<(Client, Events)>,
}

impl Account {
    fn new(name: &str, number: &'static str) -> Self {
        Self { id: AccountId::new(name), number, store: MemoryStore::new(), running: None }
    }

    async fn start(&mut self, server: &Loopback) {
        let builder = Client::builder(self.id.clone()).store(self.store.clone()).url(server.ws_url());
        let client = builder.root_key(server.root_public_key()).start().await.expect("started");
        let events = client.events().expect("the only consumer");
        self.running = Some((client, events));
    }

    fn client(&self) -> &Client {
        &self.running.as_ref().expect("running").0
    }

    fn jid(&self) -> Jid {
        self.client().snapshot().jid.clone().expect("linked")
    }

    async fn event(&mut self, name: &str) -> Envelope {
        let (_, events) = self.running.as_mut().expect("running");
        let wait = async {
            loop {
                let event = events.recv().await.expect("the account runs");
                if event.event == name {
                    return event;
                }
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no {name}"))
    }

    /// Gives the text of the code.
    async fn link(&mut self, server: &Loopback) -> String {
        let code = self.event("session.qr_updated").await.data["qr"].as_str().unwrap().to_owned();
        server.scan(self.number, &code).await.expect("scanned");
        self.event("session.connected").await;
        code
    }

    async fn stop(&mut self) {
        let (client, _events) = self.running.take().expect("running");
        client.shutdown().await;
    }
}

// ---- secrets --------------------------------------------------------------------------------------------------

#[derive(Default)]
struct Secrets {
    texts: BTreeSet<String>,
    bytes: BTreeSet<Vec<u8>>,
}

impl Secrets {
    fn jid(&mut self, jid: &Jid) {
        self.texts.insert(jid.user().to_owned());
    }

    fn qr(&mut self, text: &str) {
        let content = QrContent::parse(text).expect("a code");
        self.texts.insert(content.bare());
        self.texts.insert(content.reference.clone());
        self.bytes.insert(content.adv_secret.expose().to_vec());
        self.bytes.insert(content.noise.as_bytes().to_vec());
        self.bytes.insert(content.identity.as_bytes().to_vec());
    }

    /// Every 32 bytes of a record that could be a key.
    fn records(&mut self, store: &MemoryStore) {
        let snapshot = store.snapshot();
        for account in snapshot.accounts() {
            for (key, value) in snapshot.records(account) {
                // Not zeros, numbers or text, which occur in other places.
                let is_key = |bytes: &[u8]| {
                    bytes.iter().collect::<BTreeSet<_>>().len() > 20
                        && bytes[..8].iter().filter(|byte| !byte.is_ascii_graphic()).count() > 2
                };
                match key.kind {
                    RecordKind::Account | RecordKind::Session => {
                        self.bytes.extend(value.windows(32).filter(|bytes| is_key(bytes)).map(<[u8]>::to_vec));
                    }
                    RecordKind::PreKey | RecordKind::SignedPreKey | RecordKind::Identity => {
                        self.bytes.extend(value.chunks(32).filter(|bytes| is_key(bytes)).map(<[u8]>::to_vec));
                    }
                    _ => {}
                }
            }
        }
    }

    /// The secret that a line tells.
    fn find(&self, line: &str) -> Option<String> {
        if let Some(text) = self.texts.iter().find(|text| line.contains(text.as_str())) {
            return Some(text.clone());
        }
        let lower = line.to_ascii_lowercase();
        let list = line.replace([' ', '\n'], "");
        let tells = |bytes: &&Vec<u8>| {
            let part = &bytes[..8];
            let numbers = part.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
            let escaped = format!("{:?}", Bytes::copy_from_slice(part));
            // Base64 of the whole key: a part of it looks different at other offsets.
            lower.contains(&hex::encode(part))
                || line.contains(STANDARD.encode(bytes).trim_end_matches('='))
                || list.contains(&numbers)
                || line.contains(escaped.trim_start_matches("b\"").trim_end_matches('"'))
        };
        self.bytes.iter().find(tells).map(hex::encode)
    }

    fn check(&self, line: &str) {
        if let Some(secret) = self.find(line) {
            panic!("{secret:?} is told by: {line}");
        }
    }
}

// ---- the log --------------------------------------------------------------------------------------------------

/// Keeps events and spans of this crate as lines, with all their fields.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    spans: Arc<AtomicU64>,
}

impl Log {
    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    fn keep(&self, metadata: &Metadata<'_>, fields: &Line) {
        self.lines.lock().unwrap().push(format!(
            "{} {} {}{}",
            metadata.level(),
            metadata.target(),
            metadata.name(),
            fields.0
        ));
    }

    /// Waits until a message was logged.
    async fn wait_for(&self, message: &str) {
        let logged = async {
            while !self.lines().iter().any(|line| line.contains(message)) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, logged).await.unwrap_or_else(|_| panic!("nothing says {message:?}: {:#?}", self.lines()));
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("wamd")
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut line = Line::default();
        attributes.record(&mut line);
        self.keep(attributes.metadata(), &line);
        span::Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        let mut line = Line::default();
        values.record(&mut line);
        self.lines.lock().unwrap().push(line.0);
    }

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.keep(event.metadata(), &line);
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Fields as text.
#[derive(Default)]
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}
