//! One engine, one store, and the other side of one wire under the control of a script: nothing happens but what the script
//! says, and what must hold is checked after every input.

#[path = "../common/states.rs"]
mod states;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use wamd::{
    Jid,
    clock::Now,
    crypto::{KeyPair, hmac_sha256, xeddsa},
    engine::{
        Command, CommandError, CommandId, Config, ConnectionId, Engine, Input, Loaded, Output, Reply, SendRequest,
    },
    event::Envelope,
    node::{Decoder, Limits, Node},
    noise::{FrameBuffer, IntroReader, Transport, frame},
    pairing::{payload::Version, qr::QrContent},
    proto::{
        Message as _,
        adv::{AdvDeviceIdentity, AdvSignedDeviceIdentity, AdvSignedDeviceIdentityHmac},
    },
    store::{AccountId, Batch, Key, StoreError},
};

use self::states::state_after;
use super::responder::{Next, Server, keys};

/// How often a connection may be opened in a minute.
pub(crate) const MAX_DIALS: u32 = 4;
/// The longest pause.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum In {
    // The driver.
    Opened,
    Closed,
    Stale,
    ToDeadline,
    Version(Answered),
    StoreFails,
    StoreWaits,
    StoreWorks,
    // The caller.
    Connect,
    LinkQr,
    LinkCode,
    Disconnect,
    Reconnect,
    Logout,
    Send,
    MarkRead,
    SetVersion(Answered),
    // The server.
    Hello(Hello),
    Damaged,
    Success,
    Failure(Option<u32>),
    StreamError(Stream),
    Answer(Answer),
    PairDevice,
    PairSuccess,
    PairForged,
    Info(Info),
    PreKeysLow,
    DevicesChanged,
    Ping,
}

/// What is said about versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answered {
    Nothing,
    Same,
    Another,
}

/// How the server answers the client hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Hello {
    Good,
    /// It has another static key: an IK hello meets the fallback.
    Rotated,
    /// Nobody trusts it.
    Forged,
    Tampered,
    Garbage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stream {
    Code(u32),
    Replaced,
    Removed,
    Malformed,
    MissingAck,
    End,
}

/// The answer to the oldest question of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    Result,
    /// There are few prekeys, where that is the question; otherwise a result.
    Few,
    Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Info {
    Preview,
    Offline,
    DirtyAccount,
    DirtyGroups,
    DirtyUnknown,
    Routing,
    Expiration,
    Downgrade,
}

/// Everything that may happen, each where it is possible.
pub(crate) fn alphabet() -> Vec<In> {
    use Answered::{Another, Nothing, Same};
    let mut all = vec![
        In::Opened,
        In::Closed,
        In::Stale,
        In::ToDeadline,
        In::Version(Nothing),
        In::Version(Same),
        In::Version(Another),
        In::StoreFails,
        In::StoreWaits,
        In::StoreWorks,
        In::Damaged,
        In::Success,
        In::PairDevice,
        In::PairSuccess,
        In::PairForged,
        In::PreKeysLow,
        In::Ping,
        In::SetVersion(Same),
        In::SetVersion(Another),
    ];
    all.extend(COMMANDS);
    all.extend([Hello::Good, Hello::Rotated, Hello::Forged, Hello::Tampered, Hello::Garbage].map(In::Hello));
    all.extend([400, 401, 402, 403, 405, 406, 409, 503].map(Some).map(In::Failure));
    all.extend([515, 401, 429, 503].map(|code| In::StreamError(Stream::Code(code))));
    all.extend([Stream::Replaced, Stream::Malformed, Stream::End].map(In::StreamError));
    all.extend([Answer::Result, Answer::Few, Answer::Error].map(In::Answer));
    all.extend(
        [
            Info::Preview,
            Info::Offline,
            Info::DirtyAccount,
            Info::DirtyGroups,
            Info::DirtyUnknown,
            Info::Routing,
            Info::Expiration,
            Info::Downgrade,
        ]
        .map(In::Info),
    );
    all
}

/// What differs from something in [`alphabet`] by a number only, as far as the life cycle is concerned.
pub(crate) fn variants() -> Vec<In> {
    let reasons = [413, 414, 415, 418, 500, 501, 999].map(Some);
    let mut all: Vec<In> = reasons.into_iter().chain([None]).map(In::Failure).collect();
    all.extend([516, 409, 500, 777].map(|code| In::StreamError(Stream::Code(code))));
    all.extend([Stream::Removed, Stream::MissingAck].map(In::StreamError));
    all
}

/// What can happen while the store does not answer: what stores something, or ends what was under way.
const WHILE_LATE: [In; 15] = [
    In::Opened,
    In::Closed,
    In::ToDeadline,
    In::Connect,
    In::LinkQr,
    In::Disconnect,
    In::Reconnect,
    In::Logout,
    In::Hello(Hello::Good),
    In::Success,
    In::Failure(Some(401)),
    In::Failure(Some(405)),
    In::StreamError(Stream::Code(515)),
    In::Answer(Answer::Result),
    In::PairSuccess,
];
/// How much can happen meanwhile.
const MAX_LATE: u32 = 2;

/// The commands, but for the versions.
pub(crate) const COMMANDS: [In; 8] =
    [In::Connect, In::LinkQr, In::LinkCode, In::Disconnect, In::Reconnect, In::Logout, In::Send, In::MarkRead];

/// The server behind a wire.
enum Side {
    Intro(IntroReader),
    /// Waits for the rest of the hello.
    Hello(FrameBuffer),
    /// The client hello is there.
    Asked(FrameBuffer, Bytes),
    /// Waits for the client finish.
    Finish(FrameBuffer, Option<Next>),
    Open(FrameBuffer, Box<Transport>),
    /// A hello was sent that nobody can accept.
    Ruined,
}

struct Wire {
    id: ConnectionId,
    opened: bool,
    side: Side,
    /// Questions of the client, oldest first: id, and what it is about.
    asked: VecDeque<(String, String)>,
    /// The tags of all stanzas.
    heard: Vec<String>,
    /// Refs for codes were sent.
    refs_sent: bool,
    /// The client signed its identity.
    signed: bool,
}

/// What a command must be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    Done,
    Accepted,
    Refused(CommandError),
    /// It waits for the account, or the store failed since.
    Anything,
}

/// What an engine said about the session last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) state: Option<&'static str>,
    /// The newest code on the screen.
    qr: Option<String>,
    /// The newest outage said that nothing follows.
    stopped: bool,
}

pub(crate) struct Harness {
    engine: Engine,
    mono: Duration,
    store: BTreeMap<Key, Bytes>,
    /// Batches that wait for the store; `None` while it works.
    waiting: Option<VecDeque<(u64, Batch)>>,
    /// Loads that wait; `None` while they are answered at once.
    loads: Option<Vec<Input>>,
    /// How much has happened since the store does not answer.
    late: u32,
    wire: Option<Wire>,
    server: Server,
    pub(crate) told: Told,
    pub(crate) opens: Vec<Duration>,
    version_asked: bool,
    versions: u32,
    next_command: u64,
    expected: BTreeMap<CommandId, Expected>,
    last_seq: u64,
    next_iq: u32,
}

const ROOT: u8 = 0x11;
const ACCOUNT: u8 = 0x22;

fn server(root: u8, own: u8) -> Server {
    Server::new(&keys(root), keys(own))
}

impl Harness {
    /// An account from what is stored; it is loaded.
    pub(crate) fn new(store: BTreeMap<Key, Bytes>) -> Self {
        let mut config = Config::new(AccountId::new("model"));
        config.certificates.roots = vec![*keys(ROOT).public()];
        config.certificates.check_validity = false;
        config.pre_key_batch = 1;
        config.max_backoff = MAX_BACKOFF;
        config.max_dials_per_minute = MAX_DIALS;
        // No keepalive that is not answered looks like an early one.
        config.keepalive = Duration::from_secs(20)..=Duration::from_secs(20);
        let mut harness = Self {
            engine: Engine::new(config, [7; 32]),
            mono: Duration::from_secs(5),
            store,
            waiting: None,
            loads: None,
            late: 0,
            wire: None,
            server: server(ROOT, 0x33),
            told: Told::default(),
            opens: Vec::new(),
            version_asked: false,
            versions: 0,
            next_command: 0,
            expected: BTreeMap::new(),
            last_seq: 0,
            next_iq: 0,
        };
        harness.drain();
        harness
    }

    pub(crate) fn into_store(self) -> BTreeMap<Key, Bytes> {
        self.store
    }

    /// After 1,000 s of the unix era, when the certificates of [`Server`] are valid for IK; time goes on from there.
    pub(crate) fn now(&self) -> Now {
        Now { mono: self.mono, wall_ms: 1_000_000 + u64::try_from(self.mono.as_millis()).expect("a short run") }
    }

    fn tell(&mut self, input: Input) {
        let now = self.now();
        self.engine.handle(now, input);
        self.drain();
    }

    /// Carries out what the engine wants.
    fn drain(&mut self) {
        for count in 0.. {
            assert!(count < 1_000, "poll comes to an end");
            let Some(output) = self.engine.poll() else { return };
            match output {
                Output::Open(id) => {
                    assert!(self.wire.is_none(), "one connection at a time");
                    let since = self.mono.saturating_sub(Duration::from_secs(60));
                    // The first of them may be exactly a minute old.
                    let recent = self.opens.iter().filter(|at| **at > since || self.mono < Duration::from_secs(60));
                    assert!(
                        recent.count() < MAX_DIALS as usize,
                        "too many dials: {:?} and {:?}",
                        self.opens,
                        self.mono
                    );
                    self.opens.push(self.mono);
                    let side = Side::Intro(IntroReader::new(0x1000));
                    self.wire = Some(Wire {
                        id,
                        opened: false,
                        side,
                        asked: VecDeque::new(),
                        heard: Vec::new(),
                        refs_sent: false,
                        signed: false,
                    });
                }
                Output::Send(id, bytes) => {
                    if let Some(wire) = self.wire.as_mut().filter(|wire| wire.id == id) {
                        assert!(wire.opened, "sent on a wire that is not open");
                        wire.take(&bytes);
                    }
                }
                Output::Close(id) => drop(self.wire.take_if(|wire| wire.id == id)),
                Output::Load { id, keys, scans } => {
                    let mut records = self.store.clone();
                    for (_, batch) in self.waiting.iter().flatten() {
                        write(&mut records, batch);
                    }
                    let scanned = records.iter().filter(|(key, _)| scans.contains(&key.kind));
                    let scanned = scanned.map(|(key, value)| (key.clone(), value.clone())).collect();
                    let records = keys.into_iter().map(|key| (key.clone(), records.get(&key).cloned())).collect();
                    let (now, loaded) = (self.now(), Input::Loaded(id, Loaded { records, scanned }));
                    match &mut self.loads {
                        Some(waiting) => waiting.push(loaded),
                        None => self.engine.handle(now, loaded),
                    }
                }
                Output::Commit { seq, batch } => match &mut self.waiting {
                    Some(waiting) => waiting.push_back((seq, batch)),
                    None => {
                        write(&mut self.store, &batch);
                        let now = self.now();
                        self.engine.handle(now, Input::Durable(seq));
                    }
                },
                Output::Event(envelope) => self.event(&envelope),
                Output::Reply(id, reply) => {
                    let expected = self.expected.remove(&id).expect("a command is answered once");
                    check_reply(&expected, &reply);
                }
                // Work that takes longer than anybody waits: what rests on it has a time limit.
                Output::Cpu(..) => {}
                // Perhaps once more, when the caller tried again while the driver was looking.
                Output::RefreshVersion => self.version_asked = true,
                other => panic!("{other:?}"),
            }
        }
    }

    fn event(&mut self, envelope: &Envelope) {
        if let Some(seq) = envelope.seq {
            assert!(self.last_seq == 0 || seq == self.last_seq + 1, "{} is out of order", envelope.event);
            self.last_seq = seq;
            let now = self.now();
            self.engine.handle(now, Input::Acknowledged(seq));
        }
        if let Some(state) = state_after(envelope) {
            self.told.state = Some(state);
        }
        match &*envelope.event {
            "session.qr_updated" => self.told.qr = envelope.data["qr"].as_str().map(str::to_owned),
            "session.disconnected" => self.told.stopped = envelope.data["willReconnect"] == false,
            "session.connecting" | "session.reconnecting" => self.told.stopped = false,
            _ => {}
        }
    }

    /// Loads are not answered, until [`answer_loads`](Self::answer_loads).
    pub(crate) fn hold_loads(&mut self) {
        self.loads = Some(Vec::new());
    }

    /// Answers the loads that wait, and all to come; gives how many waited.
    pub(crate) fn answer_loads(&mut self) -> usize {
        let loads = self.loads.take().unwrap_or_default();
        let count = loads.len();
        loads.into_iter().for_each(|loaded| self.tell(loaded));
        count
    }

    /// The stanzas that the server has heard on this connection, by tag.
    pub(crate) fn heard(&self) -> &[String] {
        self.wire.as_ref().map_or(&[], |wire| &wire.heard)
    }

    // ---- what stands ------------------------------------------------------------------------------------------

    fn is_linked(&self) -> bool {
        self.engine.snapshot().jid.is_some()
    }

    pub(crate) fn state(&self) -> &'static str {
        self.engine.snapshot().state.as_str()
    }

    pub(crate) fn shape(&self) -> String {
        self.engine.shape(self.now())
    }

    fn is_ready(&self) -> bool {
        self.shape().contains(" ready ")
    }

    /// What decides what comes next: of the engine and of what is around it.
    pub(crate) fn key(&self) -> String {
        let wire = match &self.wire {
            None => "no wire".to_owned(),
            Some(wire) if !wire.opened => "fresh".to_owned(),
            Some(wire) => {
                let side = match &wire.side {
                    Side::Intro(_) | Side::Hello(_) | Side::Finish(..) => "waits",
                    Side::Asked(..) => "asked",
                    Side::Open(..) => "open",
                    Side::Ruined => "ruined",
                };
                format!("{side} asked {} signed {}", !wire.asked.is_empty(), wire.signed)
            }
        };
        format!(
            "{} | {wire} waiting {:?} asked {} commands {}",
            self.shape(),
            self.waiting.as_ref().map(|_| self.late),
            self.version_asked,
            !self.expected.is_empty(),
        )
    }

    /// Nothing is late or counted against the account.
    pub(crate) fn is_plain(&self) -> bool {
        let shape = self.shape();
        let odd = ["refreshed true", "misses 1", "ping true", "backlog true", "refill true", "true refill"];
        self.is_settled() && self.expected.is_empty() && !odd.iter().any(|odd| shape.contains(odd))
    }

    /// What a caller sees: the row of the table of commands.
    pub(crate) fn row(&self) -> String {
        let linked = if self.is_linked() { "linked" } else { "unlinked" };
        if self.is_ready() { format!("{linked} {}", self.state()) } else { "being loaded".to_owned() }
    }

    fn side(&self) -> Option<&Side> {
        self.wire.as_ref().filter(|wire| wire.opened).map(|wire| &wire.side)
    }

    /// Whether this can happen now.
    pub(crate) fn is_possible(&self, input: In) -> bool {
        let open = matches!(self.side(), Some(Side::Open(..)));
        // A store that does not answer for a while.
        if self.waiting.is_some()
            && !(matches!(input, In::StoreWorks | In::StoreFails)
                || self.late < MAX_LATE && WHILE_LATE.contains(&input))
        {
            return false;
        }
        match input {
            In::Opened => self.wire.as_ref().is_some_and(|wire| !wire.opened),
            In::Closed => self.wire.is_some(),
            In::Stale => !self.opens.is_empty(),
            In::ToDeadline => self.engine.deadline().is_some(),
            In::StoreWaits => self.waiting.is_none(),
            In::StoreWorks => self.waiting.is_some(),
            In::Hello(_) => matches!(self.side(), Some(Side::Asked(..))),
            In::Answer(_) => open && self.wire.as_ref().is_some_and(|wire| !wire.asked.is_empty()),
            In::PairSuccess | In::PairForged => open && self.told.qr.is_some() && !self.is_linked(),
            In::Damaged
            | In::Success
            | In::Failure(_)
            | In::StreamError(_)
            | In::PairDevice
            | In::Info(_)
            | In::PreKeysLow
            | In::DevicesChanged
            | In::Ping => open,
            _ => true,
        }
    }

    // ---- what happens -----------------------------------------------------------------------------------------

    /// Lets it happen, and checks what must hold afterwards.
    pub(crate) fn apply(&mut self, input: In) {
        assert!(self.is_possible(input), "{input:?}");
        self.late += 1;
        let (opens, was_ready, row) = (self.opens.len(), self.is_ready(), self.row());
        match input {
            In::Opened => {
                let wire = self.wire.as_mut().expect("possible");
                wire.opened = true;
                let id = wire.id;
                self.tell(Input::Opened(id));
            }
            In::Closed => {
                let wire = self.wire.take().expect("possible");
                self.tell(Input::Closed(wire.id, "gone".to_owned()));
            }
            In::Stale => {
                let current = self.wire.as_ref().map(|wire| wire.id);
                for id in (0..self.opens.len() as u64).map(ConnectionId).filter(|id| Some(*id) != current) {
                    self.tell(Input::Opened(id));
                    self.tell(Input::Received(id, Bytes::from_static(&[0, 0, 1, 9])));
                    self.tell(Input::Closed(id, "late".to_owned()));
                }
            }
            In::ToDeadline => {
                self.mono = self.mono.max(self.engine.deadline().expect("possible"));
                for tick in 0.. {
                    self.tell(Input::Tick);
                    if self.engine.deadline().is_none_or(|at| at > self.mono) {
                        break;
                    }
                    assert!(tick < 16, "the deadline stays in the past: {}", self.shape());
                }
            }
            In::Version(answered) => {
                self.version_asked = false;
                let version = self.version(answered);
                self.tell(Input::Version(version));
            }
            In::StoreFails => {
                self.waiting = None;
                self.expected.values_mut().for_each(|expected| *expected = Expected::Anything);
                self.tell(Input::StoreFailed(StoreError::Backend("told to".into())));
            }
            In::StoreWaits => {
                self.late = 0;
                self.waiting = Some(VecDeque::new());
            }
            In::StoreWorks => {
                for (seq, batch) in self.waiting.take().expect("possible") {
                    write(&mut self.store, &batch);
                    self.tell(Input::Durable(seq));
                }
            }
            In::Connect => self.command(&Command::Connect),
            In::LinkQr => self.command(&Command::LinkQr),
            In::LinkCode => {
                let phone = "15550000001".parse().expect("a number");
                self.command(&Command::LinkCode { phone, code: None, notify: true });
            }
            In::Disconnect => self.command(&Command::Disconnect),
            In::Reconnect => self.command(&Command::Reconnect),
            In::Logout => self.command(&Command::Logout),
            In::Send => self.command(&Command::Send(SendRequest::text(Jid::pn("15550000002"), "hello"))),
            In::MarkRead => {
                let (chat, ids) = (Jid::pn("15550000002"), vec!["A".to_owned()]);
                self.command(&Command::MarkRead { chat, participant: None, ids });
            }
            In::SetVersion(answered) => {
                let version = self.version(answered).expect("a version");
                self.command(&Command::SetVersion(version));
            }
            In::Hello(hello) => self.hello(hello),
            In::Damaged => {
                self.raw(Bytes::from_static(&[0, 0, 17, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]))
            }
            In::Success => self.send(&Node::new("success").attr("t", 1_000).attr("lid", lid())),
            In::Failure(reason) => {
                let reason = reason.map(|reason| reason.to_string());
                self.send(&Node::new("failure").attr_opt("reason", reason.as_deref()).attr("expire", 3_600));
            }
            In::StreamError(stream) => self.send(&stream_error(stream)),
            In::Answer(answer) => self.answer(answer),
            In::PairDevice => {
                let refs = ["ref-one", "ref-two"].map(|text| Node::new("ref").bytes(text.as_bytes().to_vec()));
                self.send(&self.server_iq().child(Node::new("pair-device").children(refs)));
                self.wire.iter_mut().for_each(|wire| wire.refs_sent = true);
            }
            In::PairSuccess => self.pair_success(false),
            In::PairForged => self.pair_success(true),
            In::Info(info) => self.send(&Node::new("ib").attr("from", Jid::whatsapp_server()).child(info_node(info))),
            In::PreKeysLow => {
                let count = Node::new("count").attr("value", 1);
                let node = Node::new("notification").attr("type", "encrypt").attr("id", "N1");
                self.send(&node.attr("from", Jid::whatsapp_server()).child(count));
            }
            In::DevicesChanged => {
                let node = Node::new("notification").attr("type", "devices").attr("id", "N2");
                self.send(&node.attr("from", Jid::pn("15550000002")).child(Node::new("add")));
            }
            In::Ping => {
                let node = Node::new("iq").attr("from", Jid::whatsapp_server()).attr("type", "get").attr("id", "P");
                self.send(&node.attr("xmlns", "urn:xmpp:ping"));
            }
        }
        self.check(input, opens, was_ready, &row);
    }

    fn check(&self, input: In, opens: usize, was_ready: bool, row: &str) {
        let (shape, context) = (self.shape(), || format!("{input:?} when {row} ends in {}", self.shape()));
        // Events that wait for the store are the last ones, too, and not seen yet.
        if self.waiting.is_none() {
            let (told, shown) = (self.told.state, self.state());
            assert!(told.is_none_or(|told| told == shown), "{told:?} is the last event: {}", context());
        }
        let dialled = self.opens.len() - opens;
        match input {
            In::Disconnect if was_ready => {
                assert!(self.wire.is_none() && shape.starts_with("Stopped"), "{}", context());
            }
            // A logout that was under way is over when its connection is.
            In::Connect | In::Reconnect if was_ready && row.starts_with("linked") && self.state() != "LOGGED_OUT" => {
                assert!(!shape.starts_with("Stopped") && dialled <= 1, "{}", context());
            }
            In::LinkQr | In::LinkCode if was_ready && row.starts_with("unlinked") => {
                assert!(!shape.starts_with("Stopped") && dialled <= 1, "{}", context());
            }
            In::Logout if was_ready && row.starts_with("linked") && row != "linked CONNECTED" => {
                assert_eq!((self.state(), self.is_linked()), ("LOGGED_OUT", false), "{}", context());
            }
            _ => assert!(dialled <= 1, "{}", context()),
        }
    }

    fn version(&mut self, answered: Answered) -> Option<Version> {
        match answered {
            Answered::Nothing => None,
            Answered::Same => Some(self.engine.snapshot().version),
            Answered::Another => {
                self.versions += 1;
                Some(Version::web(2_000_000_000 + self.versions))
            }
        }
    }

    fn command(&mut self, command: &Command) {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        self.expected.insert(id, self.expectation(command));
        self.tell(Input::Command(id, command.clone()));
        let asks_server = match command {
            Command::Logout => self.state() == "CONNECTED",
            Command::LinkCode { .. } => !self.is_linked(),
            _ => false,
        };
        if self.is_ready() && self.waiting.is_none() && !asks_server {
            assert!(!self.expected.contains_key(&id), "{command:?} is answered at once when {}", self.shape());
        }
    }

    /// The table in the documentation of the engine's connection.
    fn expectation(&self, command: &Command) -> Expected {
        let (linked, online) = (self.is_linked(), self.state() == "CONNECTED");
        let if_linked = if linked { Expected::Done } else { Expected::Refused(CommandError::NotLinked) };
        if !self.is_ready() {
            return Expected::Anything;
        }
        match command {
            Command::Connect | Command::Reconnect | Command::Logout => if_linked,
            Command::LinkQr | Command::LinkCode { .. } if linked => Expected::Refused(CommandError::AlreadyLinked),
            // The code, or why the server does not take it.
            Command::LinkCode { .. } => Expected::Anything,
            Command::Send(_) if linked => Expected::Accepted,
            Command::Send(_) => if_linked,
            Command::MarkRead { .. } if !online => Expected::Refused(CommandError::NotConnected),
            Command::LinkQr | Command::Disconnect | Command::MarkRead { .. } | Command::SetVersion(_) => Expected::Done,
            other => panic!("{other:?}"),
        }
    }

    // ---- the server -------------------------------------------------------------------------------------------

    fn server_iq(&self) -> Node {
        let id = format!("S{}", self.next_iq);
        Node::new("iq").attr("from", Jid::whatsapp_server()).attr("type", "set").attr("id", id)
    }

    fn hello(&mut self, hello: Hello) {
        let wire = self.wire.as_mut().expect("possible");
        let Side::Asked(frames, asked) = std::mem::replace(&mut wire.side, Side::Ruined) else { panic!("possible") };
        let ephemeral = keys(0x44);
        let forged;
        let rotated;
        let server = match hello {
            Hello::Forged => {
                forged = server(0x55, 0x66);
                &forged
            }
            Hello::Rotated => {
                rotated = server(ROOT, 0x67);
                &rotated
            }
            _ => &self.server,
        };
        let mut answer = server.answer(&asked, ephemeral);
        let payload = match hello {
            Hello::Garbage => vec![0xFF; 40],
            Hello::Tampered => {
                let mut payload = answer.hello.payload.clone().expect("a payload").to_vec();
                payload[0] ^= 1;
                answer.hello.payload = Some(payload.into());
                answer.encode()
            }
            _ => answer.encode(),
        };
        if matches!(hello, Hello::Good | Hello::Rotated) {
            wire.side = match answer.next {
                Next::Done { transport, .. } => Side::Open(frames, transport),
                next @ Next::AwaitFinish { .. } => Side::Finish(frames, Some(next)),
            };
        }
        let mut out = BytesMut::new();
        frame::encode(&payload, &mut out).expect("it fits");
        self.raw(out.freeze());
    }

    fn raw(&mut self, bytes: Bytes) {
        let id = self.wire.as_ref().expect("a wire").id;
        self.tell(Input::Received(id, bytes));
    }

    fn send(&mut self, node: &Node) {
        self.next_iq += 1;
        let wire = self.wire.as_mut().expect("a wire");
        let Side::Open(_, transport) = &mut wire.side else { panic!("it is open") };
        let mut out = BytesMut::new();
        transport.sender.seal_into(&node.encode().expect("encodable"), &mut out).expect("sealed");
        self.raw(out.freeze());
    }

    fn answer(&mut self, answer: Answer) {
        let (id, what) = self.wire.as_mut().expect("a wire").asked.pop_front().expect("possible");
        let node = Node::new("iq").attr("from", Jid::whatsapp_server()).attr("id", id);
        let node = match (answer, what.as_str()) {
            (Answer::Error, _) | (_, "usync") => {
                node.attr("type", "error").child(Node::new("error").attr("code", 500).attr("text", "no"))
            }
            (answer, "count") => {
                let value = if answer == Answer::Few { 0 } else { 100 };
                node.attr("type", "result").child(Node::new("count").attr("value", value))
            }
            _ => node.attr("type", "result"),
        };
        self.send(&node);
    }

    /// The phone scans the newest code.
    fn pair_success(&mut self, forged: bool) {
        let qr = QrContent::parse(self.told.qr.as_deref().expect("possible")).expect("a code");
        let account: KeyPair = keys(ACCOUNT);
        let details =
            AdvDeviceIdentity { raw_id: Some(1), timestamp: Some(1), key_index: Some(1), ..Default::default() };
        let details = details.encode_to_vec();
        let signature = xeddsa::sign_with(account.private(), &[&[6, 0], &details, qr.identity.as_bytes()], &[0; 64]);
        let signed = AdvSignedDeviceIdentity {
            details: Some(details.into()),
            account_signature_key: Some(account.public().as_bytes().to_vec().into()),
            account_signature: Some(signature.to_vec().into()),
            ..Default::default()
        };
        let signed = signed.encode_to_vec();
        let mut hmac = hmac_sha256(qr.adv_secret.expose(), &[&signed]);
        hmac[0] ^= u8::from(forged);
        let container = AdvSignedDeviceIdentityHmac {
            details: Some(signed.into()),
            hmac: Some(hmac.to_vec().into()),
            ..Default::default()
        };
        let success = Node::new("pair-success")
            .child(Node::new("device-identity").bytes(container.encode_to_vec()))
            .child(Node::new("device").attr("jid", Jid::pn("15550000001").with_device(7)).attr("lid", lid()))
            .child(Node::new("platform").attr("name", "android"));
        self.send(&self.server_iq().child(success));
    }

    // ---- all is well ------------------------------------------------------------------------------------------

    /// From now on everybody does what they should. Goes on until nothing more follows by itself, or it is good; tells how.
    pub(crate) fn goes_well(&mut self) -> &'static str {
        let (began, opens) = (self.mono, self.opens.len());
        for _ in 0..200 {
            if self.is_settled()
                && let Some(end) = self.end()
            {
                assert!(self.expected.is_empty(), "commands without an answer when {}", self.shape());
                return end;
            }
            let next = self.next_good();
            self.apply(next);
            // A pause, a minute full of dials, a replacement's pause, and what was under way.
            let limit = MAX_BACKOFF.mul_f32(1.1) + Duration::from_secs(60 + 30 + 75);
            let (took, dials) = (self.mono - began, self.opens.len() - opens);
            assert!(took <= limit && dials <= 3, "{took:?} and {dials} dials: {}", self.key());
        }
        panic!("it does not come to an end: {}", self.key());
    }

    fn is_settled(&self) -> bool {
        self.waiting.is_none() && !self.version_asked && self.is_ready()
    }

    fn end(&self) -> Option<&'static str> {
        let (shape, state) = (self.shape(), self.state());
        match state {
            // A logout is under way.
            "CONNECTED" => self.expected.is_empty().then_some("CONNECTED"),
            "PENDING" if shape.starts_with("Linking") && self.told.qr.is_some() => {
                self.expected.is_empty().then_some("a code on the screen")
            }
            "LOGGED_OUT" | "BANNED" | "REPLACED" | "OUTDATED" if shape.starts_with("Stopped") => {
                assert_eq!(self.told.state, Some(state), "it was told");
                Some(state)
            }
            "PENDING" | "DISCONNECTED" if shape.starts_with("Stopped") => {
                // Never asked for, codes used up, or an outage that says that nothing follows.
                assert!(self.told.stopped || state == "PENDING" || self.told.state.is_none(), "{shape}");
                Some("stopped")
            }
            _ => None,
        }
    }

    fn next_good(&self) -> In {
        if self.waiting.is_some() {
            return In::StoreWorks;
        }
        if self.version_asked {
            return In::Version(Answered::Another);
        }
        let Some(wire) = &self.wire else { return In::ToDeadline };
        match &wire.side {
            _ if !wire.opened => In::Opened,
            Side::Asked(..) => In::Hello(Hello::Good),
            Side::Open(..) if wire.signed => In::StreamError(Stream::Code(515)),
            Side::Open(..) if !wire.asked.is_empty() => In::Answer(Answer::Result),
            Side::Open(..) if self.shape().starts_with("LoggingIn") => In::Success,
            Side::Open(..) if self.shape().starts_with("Linking") && !wire.refs_sent => In::PairDevice,
            _ => In::ToDeadline,
        }
    }
}

impl Wire {
    /// Bytes of the client.
    fn take(&mut self, bytes: &Bytes) {
        if let Side::Intro(reader) = &mut self.side {
            reader.push(bytes);
            let intro = reader.next_intro().expect("a client of ours").expect("whole");
            let mut frames = FrameBuffer::new(0x1_0000);
            frames.push_owned(intro.rest);
            self.side = Side::Hello(frames);
        } else if let Side::Hello(frames) | Side::Asked(frames, _) | Side::Finish(frames, _) | Side::Open(frames, _) =
            &mut self.side
        {
            frames.push(bytes);
        }
        while let Some(side) = self.go_on() {
            self.side = side;
        }
    }

    fn go_on(&mut self) -> Option<Side> {
        match &mut self.side {
            Side::Hello(frames) => {
                let hello = frames.next_frame().expect("a frame")?.freeze();
                Some(Side::Asked(std::mem::replace(frames, FrameBuffer::new(0)), hello))
            }
            Side::Finish(frames, next) => {
                let finish = frames.next_frame().expect("a frame")?;
                let (_, _, transport) = next.take().expect("once").finish(Some(&finish));
                Some(Side::Open(std::mem::replace(frames, FrameBuffer::new(0)), Box::new(transport)))
            }
            Side::Open(frames, transport) => {
                while let Some(sealed) = frames.next_frame().expect("a frame") {
                    let opened = transport.receiver.open(sealed).expect("sealed by the client");
                    let mut decoder = Decoder::new(Limits::default());
                    let node = decoder.decode(opened).expect("a node");
                    self.heard.push(node.tag().to_owned());
                    self.signed |= node.child("pair-device-sign").is_some();
                    let kind = node.attr_str("type").unwrap_or_default().into_owned();
                    if node.tag() == "iq" && (kind == "get" || kind == "set") {
                        let xmlns = node.attr_str("xmlns").unwrap_or_default().into_owned();
                        let what = if node.child("count").is_some() { "count".to_owned() } else { xmlns };
                        self.asked.push_back((node.attr_str("id").expect("an id").into_owned(), what));
                    }
                }
                None
            }
            Side::Intro(_) | Side::Asked(..) | Side::Ruined => None,
        }
    }
}

fn lid() -> Jid {
    Jid::lid("100000000000001").with_device(7)
}

fn stream_error(stream: Stream) -> Node {
    let node = Node::new("stream:error");
    match stream {
        Stream::Code(code) => node.attr("code", code),
        Stream::Replaced => node.child(Node::new("conflict").attr("type", "replaced")),
        Stream::Removed => node.attr("code", 401).child(Node::new("conflict").attr("type", "device_removed")),
        Stream::Malformed => node.child(Node::new("xml-not-well-formed")),
        Stream::MissingAck => node.child(Node::new("ack").attr("class", "receipt")),
        Stream::End => Node::new("xmlstreamend"),
    }
}

fn info_node(info: Info) -> Node {
    let dirty = |kind: &str| Node::new("dirty").attr("type", kind).attr("timestamp", 5);
    match info {
        Info::Preview => Node::new("offline_preview").attr("count", 2).attr("message", 2),
        Info::Offline => Node::new("offline").attr("count", 2),
        Info::DirtyAccount => dirty("account_sync"),
        Info::DirtyGroups => dirty("groups"),
        Info::DirtyUnknown => dirty("something"),
        Info::Routing => Node::new("edge_routing").child(Node::new("routing_info").bytes(vec![8, 2])),
        Info::Expiration => Node::new("client_expiration").attr("t", 2_000_000),
        Info::Downgrade => Node::new("downgrade_webclient"),
    }
}

fn check_reply(expected: &Expected, reply: &Result<Reply, CommandError>) {
    let fits = match (expected, reply) {
        (Expected::Anything, _)
        | (Expected::Done, Ok(Reply::Done))
        | (Expected::Accepted, Ok(Reply::Accepted { .. })) => true,
        (Expected::Refused(expected), Err(error)) => expected == error,
        _ => false,
    };
    assert!(fits, "{expected:?} expected, {reply:?} answered");
}

fn write(records: &mut BTreeMap<Key, Bytes>, batch: &Batch) {
    if batch.clear {
        records.clear();
    }
    for key in &batch.deletes {
        records.remove(key);
    }
    records.extend(batch.puts.iter().cloned());
}
