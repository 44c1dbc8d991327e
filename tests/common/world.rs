//! A world in one thread: engines with a store each, and one loopback server, under virtual time.
//!
//! No sockets and no sleeping: bytes arrive at once, the store answers at once, and the clock moves only in
//! [`World::advance`], from one deadline to the next. The same test does the same every time.
//!
//! What holds in every test is checked here, at every event: durable events are numbered without gaps and stand in the
//! outbox before they come out, an outage is told once, and the snapshot shows the state that the last event told.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this module, and is a crate")]

#[path = "states.rs"]
mod states;

use std::{
    collections::{BTreeMap, VecDeque},
    pin::pin,
    task,
    time::Duration,
};

use bytes::Bytes;
use serde_json::Value;
use states::state_after;
use wamd::{
    Jid,
    clock::Now,
    engine::{
        Command, CommandError, CommandId, Config, ConnectionId, Content, CpuId, CpuJob, Engine, Input, LoadId, Loaded,
        Output, Reply, SendRequest, Snapshot,
    },
    event::Envelope,
    message::MessageId,
    node::Node,
    pairing::payload::Version,
    proto::{Message as _, e2e::Message},
    store::{AccountId, Batch, Key, MemoryStore, RecordKind, Store as _, StoreError},
};
use wamd_loopback::{ConnId, Disconnect, Fault, GroupMode, GroupSpec, Linked, ScanOptions, Server};

/// When every world begins, unix milliseconds.
pub const START_MS: u64 = 1_760_000_000_000;
/// One-time prekeys per upload, unless a test is about them: 812 take long to make.
pub const FEW_PRE_KEYS: u32 = 20;

/// What the way between an account and the server is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Everything arrives.
    Up,
    /// A connection cannot be opened.
    Refused,
    /// Nothing arrives and nothing ends; what is sent arrives once the network is up again.
    Stalled,
}

/// How far batches get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// A batch is durable at once, and the engine hears of it.
    Works,
    /// Batches are written, and the engine does not hear of it.
    Silent,
    /// Batches wait.
    Stuck,
    /// So many more batches are written, then one is not, and the engine hears of that; then it works again.
    FailsAfter(u32),
    /// The same for every call, reads included.
    CallFailsAfter(u32),
}

/// What is known of the current version of the client when the engine asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Nobody answers.
    Silent,
    /// This, at once.
    Answers(Option<Version>),
}

type Filter = Box<dyn FnOnce(Bytes) -> Bytes>;

/// One account of the embedding program.
pub struct Actor {
    pub number: &'static str,
    pub config: Config,
    pub store: MemoryStore,
    pub network: Network,
    pub disk: Disk,
    /// How often the disk has failed.
    pub failures: u32,
    pub provider: Provider,
    /// How often the version was asked for.
    pub refreshes: u32,
    /// Events are acknowledged as they come.
    pub acknowledges: bool,
    /// What the engine sent, connection by connection.
    pub sent: Vec<Vec<Bytes>>,
    account: AccountId,
    engine: Option<Engine>,
    starts: u8,
    conn: Option<Conn>,
    events: Vec<Envelope>,
    /// Position of the first event that the test has not seen.
    unseen: usize,
    /// Sequence number of the newest event that came out of the running engine.
    pub last_seq: u64,
    /// State that the last event of the running engine told.
    state: Option<&'static str>,
    /// An outage was told and not ended.
    in_outage: bool,
    replies: BTreeMap<CommandId, Result<Reply, CommandError>>,
    next_command: u64,
    held_batches: VecDeque<(u64, Batch)>,
    filter: Option<Filter>,
    /// Jobs for the pool are done at once.
    thinks: bool,
    held_jobs: Vec<(CpuId, CpuJob)>,
    /// Records are loaded at once.
    reads: bool,
    held_loads: Vec<(LoadId, Loaded)>,
}

/// A connection of an engine to the server.
struct Conn {
    engine: ConnectionId,
    server: ConnId,
    to_engine: VecDeque<Bytes>,
    to_server: VecDeque<Bytes>,
    /// The server has closed; the engine hears of it after what is under way.
    closed: bool,
    opened: bool,
}

pub struct World {
    pub server: Server,
    now: Duration,
    actors: BTreeMap<&'static str, Actor>,
    /// Whose connection each was.
    owners: BTreeMap<ConnId, &'static str>,
    heard: BTreeMap<&'static str, Vec<Node>>,
    next_conn: u64,
    next_text: u64,
}

impl World {
    /// A server and accounts that are loaded and offline; each has a phone number of its own.
    pub fn new(names: &[&'static str]) -> Self {
        Self::with_server(wamd_loopback::Config::default(), names)
    }

    pub fn with_server(config: wamd_loopback::Config, names: &[&'static str]) -> Self {
        let mut server = Server::new(config, [42; 32]);
        server.record_stanzas();
        let mut world = Self {
            server,
            now: Duration::ZERO,
            actors: BTreeMap::new(),
            owners: BTreeMap::new(),
            heard: BTreeMap::new(),
            next_conn: 0,
            next_text: 0,
        };
        const NUMBERS: [&str; 5] = ["15550000001", "15550000002", "15550000003", "15550000004", "15550000005"];
        for (name, number) in names.iter().zip(NUMBERS) {
            world.add(name, number, |_| {});
        }
        world.settle();
        world
    }

    /// Linked and online accounts, with nothing unseen.
    pub fn online(names: &[&'static str]) -> Self {
        let mut world = Self::new(names);
        for name in names {
            world.link(name);
        }
        world.forget();
        world
    }

    /// Adds an account.
    pub fn add(&mut self, name: &'static str, number: &'static str, change: impl FnOnce(&mut Config)) {
        let account = AccountId::new(name);
        let mut config = Config::new(account.clone());
        config.certificates.roots = vec![self.server.root_public_key()];
        config.pre_key_batch = FEW_PRE_KEYS;
        change(&mut config);
        let actor = Actor {
            number,
            config,
            store: MemoryStore::new(),
            network: Network::Up,
            disk: Disk::Works,
            failures: 0,
            provider: Provider::Answers(None),
            refreshes: 0,
            acknowledges: true,
            sent: Vec::new(),
            account,
            engine: None,
            starts: 0,
            conn: None,
            events: Vec::new(),
            unseen: 0,
            last_seq: 0,
            state: None,
            in_outage: false,
            replies: BTreeMap::new(),
            next_command: 0,
            held_batches: VecDeque::new(),
            filter: None,
            thinks: true,
            held_jobs: Vec::new(),
            reads: true,
            held_loads: Vec::new(),
        };
        self.actors.insert(name, actor);
        self.start(name);
    }

    // ---- time -------------------------------------------------------------------------------------------------

    pub fn now(&self) -> Now {
        let millis = u64::try_from(self.now.as_millis()).expect("a test is short");
        Now { mono: self.now, wall_ms: START_MS + millis }
    }

    /// Lets everything happen that takes no time.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    /// Goes so many rounds on: in each, every engine does what it has to do, and everything that was sent arrives.
    pub fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    /// Lets time pass, deadline by deadline.
    pub fn advance(&mut self, span: Duration) {
        let target = self.now + span;
        let mut at_once = 0;
        loop {
            self.settle();
            let engines = self.actors.values().filter_map(|actor| actor.engine.as_ref()?.deadline());
            let next = engines.chain(self.server.deadline()).min().filter(|next| *next <= target);
            let Some(next) = next else { break };
            at_once = if next > self.now { 0 } else { at_once + 1 };
            assert!(at_once < 1_000, "a deadline does not go away");
            self.now = self.now.max(next);
            let now = self.now();
            if self.server.deadline().is_some_and(|at| at <= now.mono) {
                self.server.handle(now, wamd_loopback::Input::Tick);
            }
            for engine in self.actors.values_mut().filter_map(|actor| actor.engine.as_mut()) {
                if engine.deadline().is_some_and(|at| at <= now.mono) {
                    engine.handle(now, Input::Tick);
                }
            }
        }
        self.now = target;
        self.settle();
    }

    /// Lets a long time pass, in which everybody is offline: a connection would count its keepalives.
    pub fn sleep(&mut self, seconds: u64) {
        let names: Vec<_> =
            self.actors.iter().filter(|(_, actor)| actor.conn.is_some()).map(|(name, _)| *name).collect();
        for name in &names {
            self.command(name, Command::Disconnect).expect("it goes offline");
        }
        self.advance_secs(seconds);
        for name in &names {
            self.command(name, Command::Connect).expect("it comes back");
        }
    }

    pub fn advance_secs(&mut self, seconds: u64) {
        self.advance(Duration::from_secs(seconds));
    }

    fn step(&mut self) -> bool {
        let mut busy = false;
        let names: Vec<_> = self.actors.keys().copied().collect();
        for name in names {
            while let Some(output) = self.actor(name).engine.as_mut().and_then(Engine::poll) {
                busy = true;
                self.carry_out(name, output);
            }
            busy |= self.carry_to_server(name);
            busy |= self.carry_to_engine(name);
        }
        while let Some(output) = self.server.poll() {
            busy = true;
            self.carry_out_server(output);
        }
        for (conn, node) in self.server.take_stanzas() {
            let name = self.owners[&conn];
            self.heard.entry(name).or_default().push(node);
        }
        busy
    }

    // ---- driving an engine --------------------------------------------------------------------------------------

    fn tell(&mut self, name: &str, input: Input) {
        let now = self.now();
        if let Some(engine) = &mut self.actor(name).engine {
            engine.handle(now, input);
        }
    }

    fn carry_out(&mut self, name: &'static str, output: Output) {
        match output {
            Output::Open(id) => self.open(name, id),
            Output::Send(id, bytes) => {
                let actor = self.actor(name);
                if let Some(conn) = actor.conn.as_mut().filter(|conn| conn.engine == id) {
                    conn.to_server.push_back(bytes.clone());
                    actor.sent.last_mut().expect("opened").push(bytes);
                }
            }
            Output::Close(id) => {
                self.carry_to_server(name);
                if let Some(conn) = self.actor(name).conn.take_if(|conn| conn.engine == id) {
                    let now = self.now();
                    self.server.handle(now, wamd_loopback::Input::Closed(conn.server));
                }
            }
            Output::Load { id, keys, scans } => {
                let actor = self.actor(name);
                if actor.call_fails() {
                    return self.tell(name, Input::StoreFailed(StoreError::Backend("disk full".into())));
                }
                let loaded = actor.load(keys, &scans);
                if actor.reads {
                    self.tell(name, Input::Loaded(id, loaded));
                } else {
                    actor.held_loads.push((id, loaded));
                }
            }
            Output::Commit { seq, batch } => {
                let actor = self.actor(name);
                if actor.call_fails() {
                    return self.tell(name, Input::StoreFailed(StoreError::Backend("disk full".into())));
                }
                match actor.disk {
                    Disk::Stuck => actor.held_batches.push_back((seq, batch)),
                    Disk::Silent => actor.write(batch),
                    Disk::FailsAfter(0) => {
                        actor.disk = Disk::Works;
                        actor.failures += 1;
                        self.tell(name, Input::StoreFailed(StoreError::Backend("disk full".into())));
                    }
                    Disk::FailsAfter(more) => {
                        actor.disk = Disk::FailsAfter(more - 1);
                        actor.write(batch);
                        self.tell(name, Input::Durable(seq));
                    }
                    Disk::Works | Disk::CallFailsAfter(_) => {
                        actor.write(batch);
                        self.tell(name, Input::Durable(seq));
                    }
                }
            }
            Output::Event(envelope) => self.event(name, *envelope),
            Output::Cpu(id, job) => {
                let actor = self.actor(name);
                if actor.thinks {
                    self.tell(name, Input::Computed(id, job.run()));
                } else {
                    actor.held_jobs.push((id, job));
                }
            }
            Output::Reply(id, reply) => {
                let twice = self.actor(name).replies.insert(id, reply);
                assert_eq!(twice, None, "{name}: a command is answered once");
            }
            Output::RefreshVersion => {
                let actor = self.actor(name);
                actor.refreshes += 1;
                if let Provider::Answers(version) = actor.provider {
                    self.tell(name, Input::Version(version));
                }
            }
            other => panic!("{name}: {other:?}"),
        }
    }

    /// Says something to an engine that its driver would say.
    pub fn say(&mut self, name: &str, input: Input) {
        self.tell(name, input);
        self.settle();
    }

    fn event(&mut self, name: &str, envelope: Envelope) {
        let actor = self.actor(name);
        if let Some(seq) = envelope.seq {
            assert_eq!(seq, actor.last_seq + 1, "{name}: {} is out of order", envelope.event);
            actor.last_seq = seq;
            let stored = actor.store.snapshot();
            let stored = stored.outbox(&actor.account, seq - 1).next().expect("the event stands in the outbox");
            assert_eq!(stored.body, envelope.to_json(), "{name}: the outbox has another event");
        }
        if let Some(state) = state_after(&envelope) {
            actor.state = Some(state);
        }
        match &*envelope.event {
            "session.connected" => actor.in_outage = false,
            "session.disconnected" => {
                let retries = envelope.data["willReconnect"] == true;
                assert!(!(actor.in_outage && retries), "{name}: an outage is told once");
                actor.in_outage = retries;
            }
            _ => {}
        }
        let acknowledged = envelope.seq.filter(|_| actor.acknowledges);
        actor.events.push(envelope);
        if let Some(seq) = acknowledged {
            self.acknowledge(name, seq);
        }
    }

    /// The consumer has everything up to here.
    pub fn acknowledge(&mut self, name: &str, seq: u64) {
        let actor = self.actor(name);
        ready(actor.store.trim_outbox(&actor.account, seq)).expect("the store works");
        self.tell(name, Input::Acknowledged(seq));
    }

    // ---- connections --------------------------------------------------------------------------------------------

    fn open(&mut self, name: &'static str, id: ConnectionId) {
        let actor = self.actor(name);
        actor.sent.push(Vec::new());
        if actor.network == Network::Refused {
            return self.tell(name, Input::Closed(id, "connection refused".to_owned()));
        }
        let server = ConnId(self.next_conn);
        self.next_conn += 1;
        self.owners.insert(server, name);
        let conn = Conn {
            engine: id,
            server,
            to_engine: VecDeque::new(),
            to_server: VecDeque::new(),
            closed: false,
            opened: false,
        };
        self.actor(name).conn = Some(conn);
    }

    /// Carries what the engine sent to the server.
    fn carry_to_server(&mut self, name: &str) -> bool {
        let now = self.now();
        let Some(actor) = self.actors.get_mut(name).filter(|actor| actor.network == Network::Up) else { return false };
        let Some(conn) = &mut actor.conn else { return false };
        let mut busy = false;
        if !std::mem::replace(&mut conn.opened, true) {
            busy = true;
            self.server.handle(now, wamd_loopback::Input::Opened(conn.server));
            let opened = Input::Opened(conn.engine);
            actor.engine.as_mut().expect("it opened the connection").handle(now, opened);
        }
        while let Some(bytes) = conn.to_server.pop_front() {
            busy = true;
            self.server.handle(now, wamd_loopback::Input::Bytes(conn.server, bytes));
        }
        busy
    }

    /// Carries what the server sent to the engine, while it wants to read.
    fn carry_to_engine(&mut self, name: &str) -> bool {
        let mut busy = false;
        while let Some(input) = self.next_input(name) {
            busy = true;
            self.tell(name, input);
        }
        busy
    }

    fn next_input(&mut self, name: &str) -> Option<Input> {
        let actor = self.actor(name);
        let engine = actor.engine.as_ref()?;
        if actor.network != Network::Up || !engine.wants_read() {
            return None;
        }
        let conn = actor.conn.as_mut()?;
        if let Some(bytes) = conn.to_engine.pop_front() {
            let bytes = match actor.filter.take() {
                Some(filter) => filter(bytes),
                None => bytes,
            };
            return Some(Input::Received(conn.engine, bytes));
        }
        let closed = actor.conn.take_if(|conn| conn.closed)?;
        Some(Input::Closed(closed.engine, "closed by the server".to_owned()))
    }

    fn carry_out_server(&mut self, output: wamd_loopback::Output) {
        let (wamd_loopback::Output::Send(id, _) | wamd_loopback::Output::Close(id)) = &output;
        let (id, name) = (*id, self.owners[id]);
        let Some(conn) = self.actor(name).conn.as_mut().filter(|conn| conn.server == id) else { return };
        match output {
            wamd_loopback::Output::Send(_, bytes) => conn.to_engine.push_back(bytes),
            wamd_loopback::Output::Close(_) => conn.closed = true,
        }
    }

    /// The next bytes of the server for this account arrive changed.
    pub fn change_next(&mut self, name: &str, filter: impl FnOnce(Bytes) -> Bytes + 'static) {
        self.actor(name).filter = Some(Box::new(filter));
    }

    /// Bytes arrive as if the server had sent them.
    pub fn bytes_arrive(&mut self, name: &str, bytes: impl Into<Bytes>) {
        let actor = self.actor(name);
        actor.conn.as_mut().expect("connected").to_engine.push_back(bytes.into());
        self.settle();
    }

    /// The server sends a stanza on the connection of this account, whatever it is doing there.
    pub fn stanza_arrives(&mut self, name: &str, node: &Node) {
        let conn = self.conn(name).expect("connected");
        let now = self.now();
        self.server.inject(now, conn, node);
        self.settle();
    }

    /// The number of the connection that stands or is being made.
    pub fn conn(&self, name: &str) -> Option<ConnId> {
        self.actors[name].conn.as_ref().map(|conn| conn.server)
    }

    /// The connection ends without a word.
    pub fn cut(&mut self, name: &str) {
        let conn = self.actor(name).conn.take().expect("connected");
        let now = self.now();
        self.server.handle(now, wamd_loopback::Input::Closed(conn.server));
        self.tell(name, Input::Closed(conn.engine, "reset by peer".to_owned()));
        self.settle();
    }

    pub fn network(&mut self, name: &str, network: Network) {
        self.actor(name).network = network;
        self.settle();
    }

    // ---- life of an account ---------------------------------------------------------------------------------------

    /// Starts the engine from what is stored, as the driver does: what was not acknowledged comes again first.
    pub fn start(&mut self, name: &'static str) {
        let now = self.now();
        let actor = self.actor(name);
        assert!(actor.engine.is_none(), "{name} runs already");
        actor.starts += 1;
        let mut seed = [actor.starts; 32];
        seed[..name.len()].copy_from_slice(name.as_bytes());
        let mut engine = Engine::new(actor.config.clone(), seed);
        let waiting: Vec<_> = actor.store.snapshot().outbox(&actor.account, 0).collect();
        if let Some(first) = waiting.first() {
            engine.handle(now, Input::Acknowledged(first.seq - 1));
            actor.last_seq = first.seq - 1;
        }
        actor.engine = Some(engine);
        actor.state = None;
        actor.in_outage = false;
        for entry in waiting {
            let envelope = Envelope::from_json(&entry.body).expect("the outbox holds envelopes");
            self.event(name, envelope);
        }
        self.actor(name).state = None;
        self.settle();
    }

    /// The process dies: what is not written is gone.
    pub fn crash(&mut self, name: &'static str) {
        let now = self.now();
        let actor = self.actor(name);
        actor.engine.take().expect("runs");
        actor.held_batches.clear();
        actor.held_jobs.clear();
        actor.held_loads.clear();
        actor.disk = Disk::Works;
        if let Some(conn) = actor.conn.take() {
            self.server.handle(now, wamd_loopback::Input::Closed(conn.server));
        }
        self.settle();
    }

    pub fn crash_and_start(&mut self, name: &'static str) {
        self.crash(name);
        self.start(name);
    }

    pub fn disk(&mut self, name: &str, disk: Disk) {
        self.actor(name).disk = disk;
        if disk == Disk::Works {
            // As the driver does: what has come up meanwhile becomes durable at a time.
            let mut durable = None;
            while let Some((seq, batch)) = self.actor(name).held_batches.pop_front() {
                self.actor(name).write(batch);
                durable = Some(seq);
            }
            if let Some(seq) = durable {
                self.tell(name, Input::Durable(seq));
            }
        }
        self.settle();
    }

    /// Whether records are loaded at once. Those that wait come when they are again.
    pub fn reads(&mut self, name: &str, at_once: bool) {
        let actor = self.actor(name);
        actor.reads = at_once;
        let loads = if at_once { std::mem::take(&mut actor.held_loads) } else { Vec::new() };
        for (id, loaded) in loads {
            self.tell(name, Input::Loaded(id, loaded));
        }
        self.settle();
    }

    /// The records that are waited for are loaded, and none that are asked for because of them.
    pub fn read_once(&mut self, name: &str) {
        for (id, loaded) in std::mem::take(&mut self.actor(name).held_loads) {
            self.tell(name, Input::Loaded(id, loaded));
        }
        self.settle();
    }

    /// Whether jobs for the pool are done at once. Those that wait are done, in any case, when they are again.
    pub fn thinks(&mut self, name: &str, at_once: bool) {
        self.actor(name).thinks = at_once;
        for (id, job) in std::mem::take(&mut self.actor(name).held_jobs) {
            self.tell(name, Input::Computed(id, job.run()));
        }
        self.settle();
    }

    /// Jobs that wait for the pool.
    pub fn waiting_jobs(&self, name: &str) -> usize {
        self.actors[name].held_jobs.len()
    }

    /// The pool does the oldest job that waits.
    pub fn think_once(&mut self, name: &str) {
        let (id, job) = self.actor(name).held_jobs.remove(0);
        self.tell(name, Input::Computed(id, job.run()));
        self.settle();
    }

    /// Gives a command and does not wait for its answer.
    pub fn begin(&mut self, name: &str, command: Command) -> CommandId {
        let actor = self.actor(name);
        let id = CommandId(actor.next_command);
        actor.next_command += 1;
        self.tell(name, Input::Command(id, command));
        id
    }

    /// Gives a command and takes its answer, which takes no time.
    pub fn command(&mut self, name: &str, command: Command) -> Result<Reply, CommandError> {
        let id = self.begin(name, command);
        self.settle();
        self.answer(name, id).unwrap_or_else(|| panic!("{name}: no answer to the command"))
    }

    /// The answer to a command, if it came.
    pub fn answer(&mut self, name: &str, id: CommandId) -> Option<Result<Reply, CommandError>> {
        self.actor(name).replies.remove(&id)
    }

    /// The text of the QR code on the screen.
    pub fn qr(&mut self, name: &str) -> String {
        let events = &self.actor(name).events;
        let shown = events.iter().rev().find(|event| event.event == "session.qr_updated").expect("a code is shown");
        shown.data["qr"].as_str().expect("a text").to_owned()
    }

    /// Links an account to the phone of its number, up to `session.connected`.
    pub fn link(&mut self, name: &str) -> Linked {
        assert_eq!(self.command(name, Command::LinkQr), Ok(Reply::Done));
        let linked = self.scan(name, &ScanOptions::default());
        assert_eq!(self.actor(name).state, Some("CONNECTED"), "{name} is online after linking");
        linked
    }

    /// The phone scans the code on the screen.
    pub fn scan(&mut self, name: &str, options: &ScanOptions) -> Linked {
        let (qr, number, now) = (self.qr(name), self.actors[name].number, self.now());
        let linked = self.server.scan(now, number, &qr, options).expect("the phone takes the code");
        self.settle();
        linked
    }

    pub fn snapshot(&self, name: &str) -> Snapshot {
        self.actors[name].engine.as_ref().expect("runs").snapshot()
    }

    /// The word of the session's state, which is that of the last event.
    pub fn state(&self, name: &str) -> &'static str {
        let (actor, state) = (&self.actors[name], self.snapshot(name).state.as_str());
        if let Some(told) = actor.state {
            assert_eq!(told, state, "{name}: the snapshot differs from the last event");
        }
        state
    }

    pub fn actor(&mut self, name: &str) -> &mut Actor {
        self.actors.get_mut(name).unwrap_or_else(|| panic!("nobody is called {name}"))
    }

    // ---- messages -----------------------------------------------------------------------------------------------

    /// The phone-number JID of an account, without device.
    pub fn jid(&self, name: &str) -> Jid {
        Jid::pn(self.actors[name].number)
    }

    /// The LID of an account, without device.
    pub fn lid(&self, name: &str) -> Jid {
        let number = self.actors[name].number;
        self.server.accounts().into_iter().find(|account| account.number == number).expect("known").lid
    }

    /// A group named "Team" that an account makes on its phone. Everybody in it has heard of it.
    pub fn group(&mut self, creator: &str, mode: GroupMode, members: impl IntoIterator<Item = Jid>) -> Jid {
        let spec = GroupSpec {
            creator: self.actors[creator].number.to_owned(),
            subject: "Team".to_owned(),
            members: members.into_iter().collect(),
            mode: Some(mode),
            ..GroupSpec::default()
        };
        let now = self.now();
        let group = self.server.create_group(now, &spec).expect("a group").jid;
        self.settle();
        group
    }

    /// The device's own JID.
    pub fn device(&self, name: &str) -> Jid {
        self.snapshot(name).jid.expect("linked")
    }

    /// Sends a text to somebody of this world; gives the message id.
    pub fn send(&mut self, from: &str, to: &str, text: &str) -> MessageId {
        let to = self.jid(to);
        self.send_to(from, &to, text)
    }

    pub fn send_to(&mut self, from: &str, to: &Jid, text: &str) -> MessageId {
        match self.command(from, Command::Send(SendRequest::text(to.clone(), text))) {
            Ok(Reply::Accepted { id, .. }) => id,
            other => panic!("{from}: {other:?}"),
        }
    }

    /// Sends anything to somebody of this world; gives the message id.
    pub fn send_content(&mut self, from: &str, to: &str, content: Content) -> MessageId {
        let request = SendRequest::new(self.jid(to), content);
        match self.command(from, Command::Send(request)) {
            Ok(Reply::Accepted { id, .. }) => id,
            other => panic!("{from}: {other:?}"),
        }
    }

    /// The same, when it is refused.
    pub fn refused(&mut self, from: &str, to: &str, content: Content) -> CommandError {
        let request = SendRequest::new(self.jid(to), content);
        self.command(from, Command::Send(request)).expect_err("it is refused")
    }

    /// The phone of an account of this world sends any content to another one; gives the message id.
    pub fn phone_sends_message(&mut self, from: &str, to: &str, message: &Message) -> String {
        let (number, to, now) = (self.actors[from].number, self.jid(to), self.now());
        let id = self.server.send_content(now, number, &to, &message.encode_to_vec()).expect("the phone can send");
        self.settle();
        id
    }

    /// The phone of an account, which need not have a device here, sends a text.
    pub fn phone_sends(&mut self, number: &str, to: &str, text: &str) -> String {
        let (to, now) = (self.jid(to), self.now());
        let id = self.server.send_text(now, number, &to, text).expect("the phone can send");
        self.settle();
        id
    }

    /// Checks that two accounts can talk: one text each way, told exactly once on both sides.
    pub fn talk(&mut self, one: &str, other: &str) {
        for (from, to) in [(one, other), (other, one)] {
            self.next_text += 1;
            let text = format!("text {}", self.next_text);
            let id = self.send(from, to, &text);
            let events = self.all_events(to);
            let received: Vec<_> = events.iter().filter(|event| text_of(event) == Some(&text)).collect();
            assert_eq!(received.len(), 1, "{to} receives {text:?} from {from} once");
            assert_eq!(received[0].data["messages"][0]["key"]["id"], id.as_str());
            let of_id = |event: &&Envelope| event.data["messages"][0]["key"]["id"] == id.as_str();
            let about: Vec<_> = self.all_events(from).iter().filter(of_id).map(|event| &*event.event).collect();
            assert_eq!(about, ["message.sent", "message.delivered"], "{from} hears of {text:?}");
        }
    }

    // ---- the server ---------------------------------------------------------------------------------------------

    pub fn fault(&mut self, fault: Fault) {
        let now = self.now();
        self.server.fault(now, fault).expect("the fault can be made");
        self.settle();
    }

    pub fn disconnect(&mut self, name: &str, how: Disconnect) {
        let (jid, now) = (self.device(name), self.now());
        self.server.disconnect(now, &jid, how).expect("the device is connected");
        self.settle();
    }

    /// What the server has heard from an account since the last call.
    pub fn heard(&mut self, name: &str) -> Vec<Node> {
        self.heard.remove(name).unwrap_or_default()
    }

    /// Stanzas that the server keeps for a device.
    pub fn queued(&self, name: &str) -> usize {
        self.view(name).queued
    }

    /// The same for an account that may be down, and has had one device only.
    pub fn queued_of(&self, name: &str) -> usize {
        let (number, accounts) = (self.actors[name].number, self.server.accounts());
        let account = accounts.into_iter().find(|account| account.number == number).expect("known");
        account.devices.iter().map(|device| device.queued).sum()
    }

    /// The server's view of the device of an account.
    pub fn view(&self, name: &str) -> wamd_loopback::DeviceView {
        let (jid, accounts) = (self.device(name), self.server.accounts());
        let mut devices = accounts.into_iter().flat_map(|account| account.devices);
        devices.find(|device| device.jid == jid).expect("the server knows the device")
    }

    // ---- events -------------------------------------------------------------------------------------------------

    /// The events since the last call.
    pub fn events(&mut self, name: &str) -> Vec<Envelope> {
        let actor = self.actor(name);
        let events = actor.events[actor.unseen..].to_vec();
        actor.unseen = actor.events.len();
        events
    }

    /// The names of the events since the last call.
    pub fn event_names(&mut self, name: &str) -> Vec<String> {
        self.events(name).into_iter().map(|event| event.event.into_owned()).collect()
    }

    /// The data of the events of one name since the last call; the others are lost.
    pub fn data(&mut self, name: &str, event: &str) -> Vec<Value> {
        self.events(name).into_iter().filter(|envelope| envelope.event == event).map(|envelope| envelope.data).collect()
    }

    /// The data of the one event of a name since the last call.
    pub fn only(&mut self, name: &str, event: &str) -> Value {
        let mut data = self.data(name, event);
        assert_eq!(data.len(), 1, "{name}: {event} once");
        data.remove(0)
    }

    /// Everything that an account has told since the beginning.
    pub fn all_events(&self, name: &str) -> &[Envelope] {
        &self.actors[name].events
    }

    /// What came so far was seen.
    pub fn forget(&mut self) {
        for actor in self.actors.values_mut() {
            actor.unseen = actor.events.len();
        }
        self.heard.clear();
    }
}

impl Actor {
    /// Whether it is this call of the store that fails.
    fn call_fails(&mut self) -> bool {
        let Disk::CallFailsAfter(more) = self.disk else { return false };
        self.disk = more.checked_sub(1).map_or(Disk::Works, Disk::CallFailsAfter);
        self.failures += u32::from(more == 0);
        more == 0
    }

    fn load(&self, keys: Vec<Key>, scans: &[RecordKind]) -> Loaded {
        let stored = self.store.snapshot();
        let scanned = stored.records(&self.account).filter(|(key, _)| scans.contains(&key.kind));
        let scanned = scanned.map(|(key, value)| (key.clone(), value.clone())).collect();
        let read = |key: Key| {
            let value = stored.record(&self.account, &key).cloned();
            (key, value)
        };
        Loaded { records: keys.into_iter().map(read).collect(), scanned }
    }

    pub fn write(&self, batch: Batch) {
        ready(self.store.commit(&self.account, batch)).expect("the store works");
    }

    /// The batches that wait for the disk.
    pub fn held_batches(&self) -> Vec<Batch> {
        self.held_batches.iter().map(|(_, batch)| batch.clone()).collect()
    }

    /// The stored records of a kind.
    pub fn records(&self, kind: RecordKind) -> Vec<(Key, Bytes)> {
        let stored = self.store.snapshot();
        let records = stored.records(&self.account).filter(|(key, _)| key.kind == kind);
        records.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// How many records of every kind are stored.
    pub fn count(&self) -> usize {
        self.store.snapshot().records(&self.account).count()
    }

    /// Removes all records of a kind behind the engine's back, as a damaged database would. The engine must be down.
    pub fn lose(&self, kind: RecordKind) {
        assert!(self.engine.is_none(), "the engine still has them in memory");
        self.write(Batch { deletes: self.records(kind).into_iter().map(|(key, _)| key).collect(), ..Batch::default() });
    }
}

fn ready<T>(future: impl Future<Output = T>) -> T {
    let mut context = task::Context::from_waker(task::Waker::noop());
    match pin!(future).poll(&mut context) {
        task::Poll::Ready(value) => value,
        task::Poll::Pending => panic!("a memory store never waits"),
    }
}

/// The text of a received message.
pub fn text_of(event: &Envelope) -> Option<&str> {
    (event.event == "message.received").then(|| event.data["messages"][0]["text"].as_str()).flatten()
}

/// The events of one name.
pub fn named<'a>(events: &'a [Envelope], name: &str) -> Vec<&'a Envelope> {
    events.iter().filter(|event| event.event == name).collect()
}
