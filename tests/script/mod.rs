//! Two engines and the loopback server under a script of bytes: the fuzz target `engine`, and an ordinary test that replays
//! its corpus.
//!
//! ```text
//! script  = mode seed operation*          everything absent reads as 0; the script ends with its bytes
//! mode    : bit 0 begin with both accounts linked and connected
//! operation = code argument*              `Op` says what they do
//! ```
//!
//! The server is honest, but for what the script injects: stanzas put together from the words of the protocol, raw frames
//! under a good seal, raw bytes on the wire, faults. The store may fail, lose what is not durable in a crash, and hand out
//! damaged records. What must hold whatever happens:
//!
//! - no panic, and `poll` comes to an end;
//! - a deadline that has passed is gone after a tick: no spinning;
//! - an event is told, and a message acknowledged, only when its event is durable;
//! - no message key makes two ciphertexts, also across crashes (while the store is whole);
//! - batches are numbered without gaps, a command is answered once, nothing is sent on a wire that is not open.

mod content;
mod stanza;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use wamd::{
    Jid,
    clock::Now,
    engine::{
        Command, CommandId, Config, ConnectionId, CpuId, CpuJob, Engine, Input, LoadId, Loaded, Output, SendRequest,
    },
    event::{Envelope, SessionState},
    message::MessageId,
    node::Node,
    pairing::payload::Version,
    proto::Message as _,
    signal::wire::{PreKeyMessage, WhisperMessage},
    store::{AccountId, Batch, Key, RecordKind, StoreError},
};
use wamd_loopback::{ConnId, Disconnect, Fault, Input as ServerInput, Output as ServerOutput, ScanOptions, Server};

/// The phone numbers of the two accounts.
const NUMBERS: [&str; 2] = ["15550000001", "15550000002"];
/// Actions of one script at most, so that one run takes milliseconds.
const MAX_ACTIONS: u32 = 6_000;
/// What one input may lead to at most, in outputs.
const MAX_OUTPUTS: u32 = 5_000;

/// Runs a script.
///
/// # Panics
/// When something does not hold that must.
pub(crate) fn run(script: &[u8]) {
    let mut script = Script(script);
    let mode = script.byte();
    let mut world = World::new(script.byte());
    if mode % 2 == 1 {
        for account in 0..NUMBERS.len() {
            world.command(account, Command::LinkQr);
            world.settle();
            assert!(
                world.is_connected(account),
                "an honest server links: {:?}",
                world.accounts[account].engine.snapshot()
            );
        }
    }
    while !script.0.is_empty() && world.actions < MAX_ACTIONS {
        world.operation(&mut script);
    }
}

/// The bytes that decide.
struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn pick(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// A length byte and so many bytes, as far as they are there.
    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()).min(self.0.len());
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }
}

struct Account {
    engine: Engine,
    idle: bool,
    records: BTreeMap<Key, Bytes>,
    outbox: BTreeMap<u64, Envelope>,
    commits: VecDeque<(u64, Batch)>,
    loads: VecDeque<(LoadId, Vec<Key>, Vec<RecordKind>)>,
    /// Work for the pool of threads.
    work: VecDeque<(CpuId, CpuJob)>,
    last_batch: u64,
    outputs: u32,
    unanswered: BTreeSet<CommandId>,
    /// Records were damaged: nothing can be said of what the engine makes of them, but that it survives.
    damaged: bool,
    scan: ScanOptions,
    scans: bool,
}

/// A wire between an engine and the server.
struct Wire {
    account: usize,
    id: ConnectionId,
    to_server: VecDeque<Bytes>,
    to_client: VecDeque<Bytes>,
    fresh: bool,
    closing: bool,
    closed: bool,
}

struct World {
    now: Now,
    server: Server,
    accounts: Vec<Account>,
    wires: BTreeMap<ConnId, Wire>,
    next_wire: u64,
    next_command: u64,
    next_id: u32,
    boots: u8,
    random: u64,
    actions: u32,
    /// A code was asked for.
    coded: bool,
    /// Every message key seen on the wire, with the ciphertext it made.
    keys: BTreeMap<(usize, String, Vec<u8>, u32), Bytes>,
    /// Whose connection it is or was.
    owners: BTreeMap<ConnId, usize>,
}

/// What may happen next.
#[derive(Clone, Copy)]
enum Action {
    Poll(usize),
    Commit(usize),
    Load(usize),
    Work(usize),
    ToServer(ConnId),
    ToClient(ConnId),
}

impl World {
    fn new(seed: u8) -> Self {
        let mut server = Server::new(wamd_loopback::Config::default(), [seed; 32]);
        server.record_stanzas();
        let mut world = Self {
            now: Now { mono: Duration::ZERO, wall_ms: 1_716_894_200_000 },
            server,
            accounts: Vec::new(),
            wires: BTreeMap::new(),
            next_wire: 0,
            next_command: 0,
            next_id: 0,
            boots: 0,
            random: u64::from(seed) | 1 << 32,
            actions: 0,
            coded: false,
            keys: BTreeMap::new(),
            owners: BTreeMap::new(),
        };
        for account in 0..NUMBERS.len() {
            let engine = world.boot(account);
            world.accounts.push(Account {
                engine,
                idle: false,
                records: BTreeMap::new(),
                outbox: BTreeMap::new(),
                commits: VecDeque::new(),
                loads: VecDeque::new(),
                work: VecDeque::new(),
                last_batch: 0,
                outputs: 0,
                unanswered: BTreeSet::new(),
                damaged: false,
                scan: ScanOptions::default(),
                scans: true,
            });
        }
        world
    }

    fn boot(&mut self, account: usize) -> Engine {
        let mut config = Config::new(AccountId::new(NUMBERS[account]));
        config.certificates.roots = vec![self.server.root_public_key()];
        config.pre_key_batch = 3;
        config.pre_key_low_water = 1;
        config.cache_bytes = 6_000;
        config.max_sends = 8;
        config.max_unacknowledged = 64;
        self.boots = self.boots.wrapping_add(1);
        let mut seed = [self.boots; 32];
        seed[0] = account as u8;
        Engine::new(config, seed)
    }

    // ---- operations -------------------------------------------------------------------------------------------

    fn operation(&mut self, script: &mut Script<'_>) {
        self.actions += 1;
        let code = script.byte();
        let i = script.pick(NUMBERS.len());
        match code % 20 {
            0 | 1 => {
                self.random = self.random.wrapping_add(u64::from(script.byte()) << 8);
                for _ in 0..script.byte() {
                    self.step();
                }
            }
            2 => self.settle(),
            3 => self.pass(Duration::from_millis(1 << (script.byte() % 20))),
            4 => self.pass_to_deadline(),
            5 => self.cut(script.pick(self.wires.len())),
            6 => self.crash(i, script.pick(4)),
            7 | 8 => self.script_command(i, script),
            9..=11 => {
                let words = self.words(i);
                let node = stanza::build(script, &words);
                // Also while it links, when there is no device to name yet.
                let conn = self.wires.iter().filter(|(_, wire)| wire.account == i).map(|(conn, _)| *conn).next_back();
                if let Some(conn) = conn {
                    self.server.inject(self.now, conn, &node);
                    self.drain_server();
                }
            }
            12 => {
                let plaintext = Bytes::copy_from_slice(script.bytes());
                self.fault(Fault::InjectRaw { jid: self.device(i), plaintext });
            }
            13 => self.inject_bytes(script),
            14 => self.script_fault(i, script),
            15 => self.disconnect(i, script),
            16 => self.phone_sends(i, script),
            17 => self.store_fails(i),
            18 => self.damage(i, script),
            _ => self.confuse(i, script),
        }
    }

    fn script_command(&mut self, i: usize, script: &mut Script<'_>) {
        let command = match script.byte() % 12 {
            0 => Command::Connect,
            1 => Command::Disconnect,
            2 => Command::Reconnect,
            3 => Command::Logout,
            4 | 5 => {
                let option = script.byte();
                let account = &mut self.accounts[i];
                account.scans = option % 8 != 7;
                account.scan = ScanOptions {
                    spoil_hmac: option % 8 == 1,
                    spoil_signature: option % 8 == 2,
                    hosted: option % 8 == 3,
                    without_lid: option % 8 == 4,
                    ..ScanOptions::default()
                };
                match option >> 4 {
                    // Stretching a code takes long: once.
                    15 if !std::mem::replace(&mut self.coded, true) => {
                        let phone = NUMBERS[i].parse().expect("a phone number");
                        Command::LinkCode { phone, code: None, notify: true }
                    }
                    14 => Command::PasskeyConfirm,
                    13 => {
                        let assertion = Bytes::from_static(b"{}");
                        Command::PasskeyAssertion { credential_id: assertion.clone(), assertion }
                    }
                    _ => Command::LinkQr,
                }
            }
            6 => {
                let words = self.words(i);
                let jid = stanza::jid(script, &words);
                let ids = (0..script.pick(4)).map(|_| stanza::text(script, &words)).collect();
                let participant = script.byte().is_multiple_of(2).then(|| stanza::jid(script, &words));
                Command::MarkRead { chat: jid, participant, ids }
            }
            7 => {
                let words = self.words(i);
                let (to, other) = (stanza::jid(script, &words), script.byte().is_multiple_of(2));
                let to = if other { to } else { Jid::pn(NUMBERS[1 - i]) };
                Command::Send(SendRequest::new(to, content::content(script, &words)))
            }
            _ => {
                self.next_id += u32::from(!script.byte().is_multiple_of(4));
                let request = SendRequest::text(Jid::pn(NUMBERS[1 - i]), "text");
                let id = MessageId::new(format!("3EB0{:018X}", self.next_id)).expect("an id");
                Command::Send(request.with_id(id))
            }
        };
        self.command(i, command);
    }

    fn script_fault(&mut self, i: usize, script: &mut Script<'_>) {
        let jid = self.device(i);
        let (count, on) = (u32::from(script.byte() % 3), script.byte().is_multiple_of(2));
        let fault = match script.byte() % 10 {
            0 => Fault::TamperNext { jid, count },
            1 => Fault::DuplicateNext { jid, count },
            2 => Fault::DropAck { jid, count },
            3 => Fault::FailLogin { jid, reason: 400 + u16::from(script.byte()), count },
            4 => Fault::ReplayLast { jid },
            5 => Fault::Ping { jid },
            6 => Fault::ForgePrekeySignature { jid, on },
            7 => Fault::ForgedCertificate { on },
            8 => Fault::RotateStatic,
            _ => Fault::Deduplicate { on },
        };
        self.fault(fault);
    }

    /// What is not possible now does not happen.
    fn fault(&mut self, fault: Fault) {
        let _ = self.server.fault(self.now, fault);
        self.drain_server();
    }

    fn disconnect(&mut self, i: usize, script: &mut Script<'_>) {
        let how = match script.byte() % 6 {
            0 => Disconnect::Plain,
            1 => Disconnect::DeviceRemoved,
            2 => Disconnect::Replaced,
            3 => Disconnect::XmlStreamEnd,
            _ => Disconnect::StreamError(400 + u16::from(script.byte())),
        };
        let _ = self.server.disconnect(self.now, &self.device(i), how);
        self.drain_server();
    }

    fn phone_sends(&mut self, i: usize, script: &mut Script<'_>) {
        let words = self.words(i);
        let to = Jid::pn(NUMBERS[script.pick(2)]);
        if script.byte().is_multiple_of(2) {
            let _ = self.server.send_text(self.now, NUMBERS[i], &to, &stanza::text(script, &words));
        } else {
            let message = content::message(script, &words).encode_to_vec();
            let _ = self.server.send_content(self.now, NUMBERS[i], &to, &message);
        }
        self.drain_server();
    }

    /// Bytes from nowhere: what a server that cannot seal, or is none, may say.
    fn inject_bytes(&mut self, script: &mut Script<'_>) {
        let at = script.pick(self.wires.len());
        let bytes = Bytes::copy_from_slice(script.bytes());
        if let Some(wire) = self.wires.values_mut().nth(at) {
            wire.to_client.push_front(bytes);
        }
    }

    fn store_fails(&mut self, i: usize) {
        self.accounts[i].commits.clear();
        self.accounts[i].loads.clear();
        self.tell(i, Input::StoreFailed(StoreError::Backend("told to fail".into())));
    }

    fn damage(&mut self, i: usize, script: &mut Script<'_>) {
        let (which, at, value) = (script.pick(self.accounts[i].records.len()), script.byte(), script.byte());
        let account = &mut self.accounts[i];
        let Some(record) = account.records.values_mut().nth(which) else { return };
        let mut bytes = record.to_vec();
        match usize::from(at) {
            at if at < bytes.len() && value != 0 => bytes[at] ^= value,
            at => bytes.truncate(at.min(bytes.len())),
        }
        *record = bytes.into();
        account.damaged = true;
        self.crash(i, 0);
    }

    /// Late news of things that are gone.
    fn confuse(&mut self, i: usize, script: &mut Script<'_>) {
        let id = ConnectionId(script.byte().into());
        let standing = self.wires.values().any(|wire| wire.account == i && wire.id == id);
        let input = match script.byte() % 6 {
            5 => {
                let revision = u32::from(script.byte());
                Input::Version((revision % 4 != 0).then(|| Version::web(revision)))
            }
            0 if !standing => Input::Opened(id),
            1 if !standing => Input::Received(id, Bytes::copy_from_slice(script.bytes())),
            2 if !standing => Input::Closed(id, "late".to_owned()),
            3 => Input::Loaded(LoadId(u64::MAX), Loaded::default()),
            _ => Input::Acknowledged(u64::MAX),
        };
        self.tell(i, input);
    }

    fn device(&self, i: usize) -> Jid {
        self.accounts[i].engine.snapshot().jid.unwrap_or_else(|| Jid::pn(NUMBERS[i]).with_device(1))
    }

    fn words(&self, i: usize) -> stanza::Words {
        let snapshots = [self.accounts[i].engine.snapshot(), self.accounts[1 - i].engine.snapshot()];
        let mut jids: Vec<Jid> =
            snapshots.into_iter().flat_map(|snapshot| [snapshot.jid, snapshot.lid]).flatten().collect();
        let bare: Vec<Jid> = jids.iter().map(Jid::to_bare).collect();
        jids.extend(bare);
        let ids = (0..=self.next_id.min(3)).map(|id| format!("3EB0{:018X}", self.next_id.saturating_sub(id)));
        let mut ids: Vec<String> = ids.collect();
        ids.extend(self.accounts[i].engine_ids());
        stanza::Words { jids, ids }
    }

    // ---- running ----------------------------------------------------------------------------------------------

    fn is_connected(&self, account: usize) -> bool {
        self.accounts[account].engine.snapshot().state == SessionState::Connected
    }

    /// Runs until there is nothing to do but to let a lot of time pass.
    fn settle(&mut self) {
        let until = self.now.mono.saturating_add(Duration::from_secs(3));
        for _ in 0..MAX_OUTPUTS {
            if !self.step() {
                let next = self.deadline();
                if next.is_none_or(|next| next > until) {
                    return;
                }
                self.pass_to_deadline();
            }
        }
    }

    /// One thing happens; false when there is nothing but time to pass.
    fn step(&mut self) -> bool {
        self.actions += 1;
        let mut possible: Vec<Action> = Vec::new();
        for (i, account) in self.accounts.iter().enumerate() {
            if !account.idle {
                possible.push(Action::Poll(i));
            }
            if !account.commits.is_empty() {
                possible.push(Action::Commit(i));
            }
            if !account.loads.is_empty() {
                possible.push(Action::Load(i));
            }
            if !account.work.is_empty() {
                possible.push(Action::Work(i));
            }
        }
        for (id, wire) in &self.wires {
            if wire.fresh || !wire.to_server.is_empty() || wire.closing {
                possible.push(Action::ToServer(*id));
            }
            let reads = self.accounts[wire.account].engine.wants_read();
            if !wire.fresh && (!wire.to_client.is_empty() || wire.closed) && reads {
                possible.push(Action::ToClient(*id));
            }
        }
        if possible.is_empty() {
            return false;
        }
        // Numerical Recipes' generator is good enough to mix the order.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        match possible[(self.random >> 33) as usize % possible.len()] {
            Action::Poll(account) => self.poll(account),
            Action::Commit(account) => self.commit(account),
            Action::Load(account) => self.load(account),
            Action::Work(account) => self.work(account),
            Action::ToServer(wire) => self.deliver_to_server(wire),
            Action::ToClient(wire) => self.deliver_to_client(wire),
        }
        true
    }

    fn deadline(&self) -> Option<Duration> {
        let engines = self.accounts.iter().filter_map(|account| account.engine.deadline());
        engines.chain(self.server.deadline()).min()
    }

    fn pass_to_deadline(&mut self) {
        if let Some(next) = self.deadline() {
            self.pass(next.saturating_sub(self.now.mono));
        }
    }

    fn pass(&mut self, step: Duration) {
        self.now.mono += step;
        self.now.wall_ms += u64::try_from(step.as_millis()).expect("a step of time");
        for i in 0..self.accounts.len() {
            // Late by nothing: as often as the engine says that it is due, which must come to an end.
            for tick in 0.. {
                self.tell(i, Input::Tick);
                if self.accounts[i].engine.deadline().is_none_or(|deadline| deadline > self.now.mono) {
                    break;
                }
                assert!(tick < 16, "the deadline stays in the past: {:?}", self.accounts[i].engine.snapshot());
            }
        }
        self.server.handle(self.now, ServerInput::Tick);
        self.drain_server();
    }

    // ---- one engine -------------------------------------------------------------------------------------------

    fn command(&mut self, account: usize, command: Command) {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        self.accounts[account].unanswered.insert(id);
        self.tell(account, Input::Command(id, command));
    }

    fn tell(&mut self, account: usize, input: Input) {
        let account = &mut self.accounts[account];
        account.engine.handle(self.now, input);
        account.idle = false;
        account.outputs = 0;
    }

    fn poll(&mut self, i: usize) {
        let account = &mut self.accounts[i];
        let Some(output) = account.engine.poll() else {
            account.idle = true;
            return;
        };
        account.outputs += 1;
        assert!(account.outputs < MAX_OUTPUTS, "poll comes to an end");
        match output {
            Output::Open(id) => {
                let (to_server, to_client) = (VecDeque::new(), VecDeque::new());
                let wire = Wire { account: i, id, to_server, to_client, fresh: true, closing: false, closed: false };
                self.wires.insert(ConnId(self.next_wire), wire);
                self.owners.insert(ConnId(self.next_wire), i);
                self.next_wire += 1;
            }
            Output::Send(id, bytes) => {
                assert!(!bytes.is_empty());
                if let Some(wire) = self.wire_of(i, id) {
                    assert!(!wire.fresh && !wire.closing, "sent on a wire that is not open");
                    wire.to_server.push_back(bytes);
                }
            }
            Output::Close(id) => {
                if let Some(wire) = self.wire_of(i, id) {
                    wire.closing = true;
                }
            }
            Output::Load { id, keys, scans } => account.loads.push_back((id, keys, scans)),
            Output::Cpu(id, job) => account.work.push_back((id, job)),
            Output::Commit { seq, batch } => {
                assert_eq!(seq, account.last_batch + 1, "batches are numbered without gaps");
                account.last_batch = seq;
                account.commits.push_back((seq, batch));
            }
            Output::Event(envelope) => self.event(i, &envelope),
            Output::RefreshVersion => {} // What is said about versions is up to the script.
            Output::Reply(id, _) => assert!(account.unanswered.remove(&id), "a command is answered once"),
            _ => panic!("an output that the simulator does not know"),
        }
    }

    fn event(&mut self, i: usize, envelope: &Envelope) {
        let account = &mut self.accounts[i];
        if let Some(seq) = envelope.seq {
            let stored = account.outbox.get(&seq).map(|stored| &stored.event_id);
            assert_eq!(stored, Some(&envelope.event_id), "an event is told only when it is durable");
            self.tell(i, Input::Acknowledged(seq));
        } else if envelope.event == "session.qr_updated" && account.scans {
            let (qr, options) = (envelope.data["qr"].as_str().unwrap_or_default().to_owned(), account.scan.clone());
            let _ = self.server.scan(self.now, NUMBERS[i], &qr, &options);
            self.drain_server();
        } else if envelope.event == "session.pair_code" {
            let (code, options) = (envelope.data["code"].as_str().unwrap_or_default(), account.scan.clone());
            let _ = self.server.enter_code(self.now, NUMBERS[i], code, &options);
            self.drain_server();
        }
    }

    fn wire_of(&mut self, account: usize, id: ConnectionId) -> Option<&mut Wire> {
        self.wires.values_mut().find(|wire| wire.account == account && wire.id == id)
    }

    fn commit(&mut self, i: usize) {
        let Some((seq, batch)) = self.accounts[i].commits.pop_front() else { return };
        self.accounts[i].apply(&batch);
        self.tell(i, Input::Durable(seq));
    }

    /// Reads see every batch that was queued before, durable or not.
    fn load(&mut self, i: usize) {
        let account = &mut self.accounts[i];
        let Some((id, keys, scans)) = account.loads.pop_front() else { return };
        let mut records = account.records.clone();
        for (_, batch) in &account.commits {
            apply(&mut records, batch);
        }
        let scanned = records.iter().filter(|(key, _)| scans.contains(&key.kind));
        let scanned = scanned.map(|(key, value)| (key.clone(), value.clone())).collect();
        let records = keys.into_iter().map(|key| (key.clone(), records.get(&key).cloned())).collect();
        self.tell(i, Input::Loaded(id, Loaded { records, scanned }));
    }

    /// A job is done, sooner or later.
    fn work(&mut self, i: usize) {
        let Some((id, job)) = self.accounts[i].work.pop_front() else { return };
        self.tell(i, Input::Computed(id, job.run()));
    }

    /// The process dies, having made `durable` of its batches so, and starts again from the disk.
    fn crash(&mut self, i: usize, durable: usize) {
        for _ in 0..durable {
            if let Some((_, batch)) = self.accounts[i].commits.pop_front() {
                self.accounts[i].apply(&batch);
            }
        }
        let wires: Vec<ConnId> = self.wires.iter().filter(|(_, wire)| wire.account == i).map(|(id, _)| *id).collect();
        for id in wires {
            let wire = self.wires.remove(&id);
            if wire.is_some_and(|wire| !wire.fresh) {
                self.server.handle(self.now, ServerInput::Closed(id));
            }
        }
        self.drain_server();
        let engine = self.boot(i);
        let account = &mut self.accounts[i];
        account.engine = engine;
        account.idle = false;
        account.commits.clear();
        account.loads.clear();
        account.work.clear();
        account.last_batch = 0;
        account.unanswered.clear();
        self.command(i, Command::Connect);
    }

    // ---- the wires --------------------------------------------------------------------------------------------

    fn cut(&mut self, at: usize) {
        let Some(id) = self.wires.keys().nth(at).copied() else { return };
        let Some(wire) = self.wires.remove(&id) else { return };
        if !wire.fresh {
            self.server.handle(self.now, ServerInput::Closed(id));
            self.drain_server();
        }
        self.tell(wire.account, Input::Closed(wire.id, "cut".to_owned()));
    }

    fn deliver_to_server(&mut self, id: ConnId) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        if wire.fresh {
            wire.fresh = false;
            let (account, connection) = (wire.account, wire.id);
            self.server.handle(self.now, ServerInput::Opened(id));
            self.tell(account, Input::Opened(connection));
        } else if let Some(bytes) = wire.to_server.pop_front() {
            self.server.handle(self.now, ServerInput::Bytes(id, bytes));
        } else if wire.closing {
            self.wires.remove(&id);
            self.server.handle(self.now, ServerInput::Closed(id));
        }
        self.drain_server();
    }

    fn deliver_to_client(&mut self, id: ConnId) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let (account, connection) = (wire.account, wire.id);
        match wire.to_client.pop_front() {
            Some(bytes) => self.tell(account, Input::Received(connection, bytes)),
            None if wire.closed => {
                self.wires.remove(&id);
                self.tell(account, Input::Closed(connection, "closed by the server".to_owned()));
            }
            None => {}
        }
    }

    fn drain_server(&mut self) {
        while let Some(output) = self.server.poll() {
            match output {
                ServerOutput::Send(id, bytes) => {
                    if let Some(wire) = self.wires.get_mut(&id) {
                        wire.to_client.push_back(bytes);
                    }
                }
                ServerOutput::Close(id) => {
                    if let Some(wire) = self.wires.get_mut(&id) {
                        wire.closed = true;
                    }
                }
            }
        }
        for (conn, stanza) in self.server.take_stanzas() {
            if let Some(account) = self.owners.get(&conn).copied() {
                self.check_keys(account, &stanza);
            }
        }
    }

    /// No message key makes two ciphertexts.
    fn check_keys(&mut self, account: usize, stanza: &Node) {
        if stanza.tag() != "message" || self.accounts[account].damaged {
            return;
        }
        let encs = match stanza.find_child("participants") {
            Some(participants) => participants.child_nodes().iter().map(|to| (to, "jid")).collect(),
            // Encrypted again for one device.
            None => vec![(stanza, "to")],
        };
        for (to, target) in encs {
            let target = to.attr_jid(target).expect("a device").to_string();
            let enc = to.find_child("enc").expect("a ciphertext");
            let bytes = enc.content_bytes().expect("bytes");
            let message = match enc.attr_str("type").as_deref() {
                Some("pkmsg") => Bytes::copy_from_slice(PreKeyMessage::decode(&bytes).expect("a pkmsg").message),
                _ => bytes,
            };
            let inner = WhisperMessage::decode(&message).expect("a msg");
            let key = (account, target, inner.ratchet.as_bytes().to_vec(), inner.counter);
            let before = self.keys.insert(key.clone(), message.clone());
            assert!(before.is_none_or(|before| before == message), "message key {key:?} was used twice");
        }
    }
}

impl Account {
    fn apply(&mut self, batch: &Batch) {
        apply(&mut self.records, batch);
        for event in &batch.events {
            let envelope = Envelope::from_json(&event.body).expect("an envelope");
            assert_eq!(envelope.seq, Some(event.seq));
            let last = self.outbox.keys().next_back().copied().unwrap_or(0);
            assert!(self.damaged || event.seq == last + 1, "the outbox has no gap and no repeat");
            self.outbox.insert(event.seq, envelope);
        }
    }

    /// Ids of messages that were told.
    fn engine_ids(&self) -> Vec<String> {
        let messages = self.outbox.values().rev().filter_map(|envelope| envelope.data["messages"].as_array());
        messages.flatten().filter_map(|message| message["key"]["id"].as_str().map(str::to_owned)).take(4).collect()
    }
}

fn apply(records: &mut BTreeMap<Key, Bytes>, batch: &Batch) {
    if batch.clear {
        records.clear();
    }
    for key in &batch.deletes {
        records.remove(key);
    }
    records.extend(batch.puts.iter().cloned());
}
