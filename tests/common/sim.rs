//! Several engines and the loopback server in one thread, under a seeded scheduler that decides what happens next: one
//! output of one engine is carried out, one commit becomes durable, one load is answered, one message crosses a wire, a
//! wire is cut, an engine crashes and starts again from what is durable, or time passes.
//!
//! A crash drops the engine, everything that is not durable (any number of the batches under way may have become so), and
//! what is on the wire (any number of messages may have arrived).

#![allow(dead_code, reason = "each test file uses its own part of this module")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use wamd::{
    Jid,
    clock::Now,
    engine::{
        Command, CommandError, CommandId, Config, ConnectionId, CpuId, CpuJob, Engine, Input, LoadId, Loaded, Output,
        Reply, SendRequest,
    },
    event::Envelope,
    message::MessageId,
    node::Node,
    signal::{
        sender_key::wire::SenderKeyMessage,
        wire::{PreKeyMessage, WhisperMessage},
    },
    store::{AccountId, Batch, Key, RecordKind},
};
use wamd_loopback::{ConnId, Input as ServerInput, Output as ServerOutput, ScanOptions, Server};

/// What is durable of one account.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) records: BTreeMap<Key, Bytes>,
    pub(crate) outbox: BTreeMap<u64, Envelope>,
}

impl Disk {
    fn apply(&mut self, batch: &Batch) {
        if batch.clear {
            self.records.clear();
        }
        for key in &batch.deletes {
            self.records.remove(key);
        }
        self.records.extend(batch.puts.iter().cloned());
        for event in &batch.events {
            let envelope = Envelope::from_json(&event.body).expect("an envelope");
            assert_eq!(envelope.seq, Some(event.seq));
            let last = self.outbox.keys().next_back().copied().unwrap_or(0);
            assert_eq!(event.seq, last + 1, "the outbox has no gap and no repeat");
            self.outbox.insert(event.seq, envelope);
        }
    }

    /// The messages of the durable events of a kind.
    pub(crate) fn messages(&self, event: &str) -> impl Iterator<Item = &serde_json::Value> {
        let events = self.outbox.values().filter(move |envelope| envelope.event == event);
        events.flat_map(|envelope| envelope.data["messages"].as_array().into_iter().flatten())
    }

    /// How many durable events of a kind there are about a message.
    pub(crate) fn count(&self, event: &str, id: &str) -> usize {
        self.messages(event).filter(|message| message["key"]["id"] == id).count()
    }
}

/// A wire between an engine and the server.
#[derive(Debug)]
struct Wire {
    account: usize,
    id: ConnectionId,
    to_server: VecDeque<Bytes>,
    to_client: VecDeque<Bytes>,
    /// The server does not know it yet.
    fresh: bool,
    /// The client closes when everything was sent.
    closing: bool,
    /// The server closed when everything was sent.
    closed: bool,
}

pub(crate) struct Account {
    pub(crate) name: &'static str,
    pub(crate) number: &'static str,
    engine: Engine,
    /// Nothing to poll until the next input.
    idle: bool,
    pub(crate) disk: Disk,
    commits: VecDeque<(u64, Batch)>,
    /// Nothing becomes durable.
    held: bool,
    loads: VecDeque<(LoadId, Vec<Key>, Vec<RecordKind>)>,
    /// Work for the pool of threads.
    work: VecDeque<(CpuId, CpuJob)>,
    /// Sends that were asked for and not answered, by command.
    asked: BTreeMap<CommandId, SendRequest>,
    pub(crate) accepted: BTreeSet<String>,
    qr: Option<String>,
    pub(crate) crashes: u32,
    /// How often it lost its sessions, or sender keys.
    pub(crate) wipes: u32,
    /// Requests to send again, by the message and the device that is asked.
    pub(crate) retries: BTreeMap<(String, String), u32>,
}

/// How often bad things happen: one in so many steps; 0 never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Chaos {
    pub(crate) crash: u32,
    pub(crate) cut: u32,
    /// An account starts again without its sessions, or without the sender keys of others, or without its own.
    pub(crate) wipe: u32,
}

/// A message that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) from: usize,
    pub(crate) to: Jid,
    /// The numbers of whom it was for when it was sent, without the sender's.
    pub(crate) audience: Vec<&'static str>,
    pub(crate) id: String,
    pub(crate) text: String,
}

pub(crate) struct Sim {
    rng: ChaCha20Rng,
    pub(crate) now: Now,
    pub(crate) server: Server,
    pub(crate) accounts: Vec<Account>,
    wires: BTreeMap<ConnId, Wire>,
    next_wire: u64,
    next_command: u64,
    pub(crate) chaos: Chaos,
    pub(crate) sent: Vec<Sent>,
    /// Every message key seen on the wire, with the ciphertext it made.
    keys: BTreeMap<(usize, String, Vec<u8>, u32), Bytes>,
    pub(crate) steps: u64,
    /// FNV-1a over everything that the engines put out.
    pub(crate) fingerprint: u64,
}

impl Sim {
    pub(crate) fn new(seed: u64, accounts: &[(&'static str, &'static str)]) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut server = Server::new(wamd_loopback::Config::default(), seed_of(&mut rng));
        server.record_stanzas();
        let mut sim = Self {
            now: Now { mono: Duration::ZERO, wall_ms: 1_716_894_200_000 },
            server,
            accounts: Vec::new(),
            wires: BTreeMap::new(),
            next_wire: 0,
            next_command: 0,
            chaos: Chaos::default(),
            sent: Vec::new(),
            keys: BTreeMap::new(),
            steps: 0,
            fingerprint: 0xcbf2_9ce4_8422_2325,
            rng,
        };
        for (name, number) in accounts {
            let engine = sim.boot(name);
            sim.accounts.push(Account {
                name,
                number,
                engine,
                idle: false,
                disk: Disk::default(),
                commits: VecDeque::new(),
                held: false,
                loads: VecDeque::new(),
                work: VecDeque::new(),
                asked: BTreeMap::new(),
                accepted: BTreeSet::new(),
                qr: None,
                crashes: 0,
                wipes: 0,
                retries: BTreeMap::new(),
            });
        }
        sim
    }

    fn boot(&mut self, name: &str) -> Engine {
        let mut config = Config::new(AccountId::new(name));
        config.certificates.roots = vec![self.server.root_public_key()];
        config.pre_key_batch = 12;
        // Small, so that records are missed all the time.
        config.cache_bytes = 6_000;
        Engine::new(config, seed_of(&mut self.rng))
    }

    // ---- wishes -----------------------------------------------------------------------------------------------

    /// Links every account, without chaos.
    pub(crate) fn link_all(&mut self) {
        for account in 0..self.accounts.len() {
            self.command(account, Command::LinkQr);
            self.run(20_000, |sim| sim.is_connected(account));
            assert!(self.is_connected(account), "{} is linked", self.accounts[account].name);
        }
        self.settle();
    }

    pub(crate) fn is_connected(&self, account: usize) -> bool {
        self.accounts[account].engine.snapshot().state == wamd::event::SessionState::Connected
    }

    pub(crate) fn send(&mut self, from: usize, to: &'static str, text: &str) {
        self.send_to(from, Jid::pn(to), vec![to], text);
    }

    /// Sends to any chat; `audience` are the numbers that it is for.
    pub(crate) fn send_to(&mut self, from: usize, to: Jid, audience: Vec<&'static str>, text: &str) {
        let id = format!("3EB0{:018X}", self.sent.len() + 1);
        let request = SendRequest::text(to.clone(), text).with_id(MessageId::new(&id).expect("an id"));
        self.sent.push(Sent { from, to, audience, id, text: text.to_owned() });
        self.ask(from, request);
    }

    fn ask(&mut self, account: usize, request: SendRequest) {
        let id = self.command(account, Command::Send(request.clone()));
        self.accounts[account].asked.insert(id, request);
    }

    pub(crate) fn command(&mut self, account: usize, command: Command) -> CommandId {
        let id = CommandId(self.next_command);
        self.next_command += 1;
        self.tell(account, Input::Command(id, command));
        id
    }

    /// Lets nothing of an account become durable, or lets it again.
    pub(crate) fn hold_commits(&mut self, account: usize, on: bool) {
        self.accounts[account].held = on;
    }

    /// The process dies with everything that is not durable.
    pub(crate) fn crash_now(&mut self, i: usize) {
        self.accounts[i].commits.clear();
        self.accounts[i].held = false;
        self.crash(i);
    }

    /// The store fails: what it does not have is lost, and the engine begins again from what it has.
    pub(crate) fn fail_store(&mut self, i: usize) {
        let account = &mut self.accounts[i];
        account.commits.clear();
        account.loads.clear();
        account.held = false;
        self.tell(i, Input::StoreFailed(wamd::store::StoreError::Backend("disk full".into())));
    }

    /// The counters that an account sent with to a device or a group, in order of the keys' names.
    pub(crate) fn counters(&self, account: usize, target: &str) -> Vec<u32> {
        let of_target = |key: &&(usize, String, Vec<u8>, u32)| key.0 == account && key.1 == target;
        self.keys.keys().filter(of_target).map(|key| key.3).collect()
    }

    // ---- running ----------------------------------------------------------------------------------------------

    /// Runs until the condition holds, or for so many steps.
    pub(crate) fn run(&mut self, steps: u32, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..steps {
            if done(self) {
                return;
            }
            self.step();
        }
    }

    /// Runs without chaos until everything that was asked for is settled everywhere.
    pub(crate) fn settle(&mut self) {
        self.chaos = Chaos::default();
        // Several times nothing was left to do but to let time pass, with everybody connected.
        let mut quiet = 0;
        for _ in 0..200_000 {
            if self.step() {
                continue;
            }
            let waiting = |account: &Account| !account.asked.is_empty() || account.engine.snapshot().sends > 0;
            let connected = (0..self.accounts.len()).all(|account| self.is_connected(account));
            if connected && !self.accounts.iter().any(waiting) {
                quiet += 1;
            }
            if quiet > 6 {
                return;
            }
        }
        panic!("does not settle: {:?}", self.accounts.iter().map(|a| a.engine.snapshot()).collect::<Vec<_>>());
    }

    /// One random thing happens; false when there was nothing but time to pass.
    pub(crate) fn step(&mut self) -> bool {
        self.steps += 1;
        if self.one_in(self.chaos.crash) {
            let account = self.pick(self.accounts.len());
            self.crash(account);
            return true;
        }
        if self.one_in(self.chaos.wipe) {
            let account = self.pick(self.accounts.len());
            self.wipe(account);
            return true;
        }
        if self.one_in(self.chaos.cut) {
            let wires: Vec<ConnId> = self.wires.keys().copied().collect();
            if !wires.is_empty() {
                let wire = wires[self.pick(wires.len())];
                self.cut(wire);
                return true;
            }
        }
        let possible = self.possible();
        if possible.is_empty() {
            self.pass_time();
            return false;
        }
        let action = possible[self.pick(possible.len())];
        match action {
            Action::Poll(account) => self.poll(account),
            Action::Commit(account) => self.commit(account),
            Action::Load(account) => self.load(account),
            Action::Work(account) => self.work(account),
            Action::ToServer(wire) => self.deliver_to_server(wire),
            Action::ToClient(wire) => self.deliver_to_client(wire),
        }
        true
    }

    /// Runs until nothing can happen but that time passes.
    pub(crate) fn exhaust(&mut self) {
        while !self.possible().is_empty() {
            self.step();
        }
    }

    /// What can happen now.
    fn possible(&self) -> Vec<Action> {
        let mut possible: Vec<Action> = Vec::new();
        for (i, account) in self.accounts.iter().enumerate() {
            if !account.idle {
                possible.push(Action::Poll(i));
            }
            if !account.commits.is_empty() && !account.held {
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
            if !wire.fresh && (!wire.to_client.is_empty() || wire.closed) && self.reads(wire.account) {
                possible.push(Action::ToClient(*id));
            }
        }
        possible
    }

    fn reads(&self, account: usize) -> bool {
        self.accounts[account].engine.wants_read()
    }

    fn pass_time(&mut self) {
        let engines = self.accounts.iter().filter_map(|account| account.engine.deadline());
        let Some(next) = engines.chain(self.server.deadline()).min() else { return };
        let step = next.saturating_sub(self.now.mono).max(Duration::from_millis(1));
        self.now.mono += step;
        self.now.wall_ms += u64::try_from(step.as_millis()).expect("a step of time");
        for account in 0..self.accounts.len() {
            self.tell(account, Input::Tick);
        }
        self.server.handle(self.now, ServerInput::Tick);
        self.drain_server();
    }

    // ---- one engine -------------------------------------------------------------------------------------------

    fn tell(&mut self, account: usize, input: Input) {
        let account = &mut self.accounts[account];
        account.engine.handle(self.now, input);
        account.idle = false;
    }

    fn poll(&mut self, i: usize) {
        let Some(output) = self.accounts[i].engine.poll() else {
            self.accounts[i].idle = true;
            return;
        };
        self.note(format!("{i}{output:?}").as_bytes());
        if let Output::Commit { batch, .. } = &output {
            batch.puts.iter().for_each(|(_, value)| self.note(value));
            batch.events.iter().for_each(|event| self.note(&event.body));
        }
        match output {
            Output::Open(id) => {
                let wire = Wire {
                    account: i,
                    id,
                    to_server: VecDeque::new(),
                    to_client: VecDeque::new(),
                    fresh: true,
                    closing: false,
                    closed: false,
                };
                self.wires.insert(ConnId(self.next_wire), wire);
                self.next_wire += 1;
            }
            Output::Send(id, bytes) => {
                self.note(&bytes);
                if let Some(wire) = self.wire_of(i, id) {
                    wire.to_server.push_back(bytes);
                }
            }
            Output::Close(id) => {
                if let Some(wire) = self.wire_of(i, id) {
                    wire.closing = true;
                }
            }
            Output::Load { id, keys, scans } => self.accounts[i].loads.push_back((id, keys, scans)),
            Output::Cpu(id, job) => self.accounts[i].work.push_back((id, job)),
            Output::RefreshVersion => self.tell(i, Input::Version(None)),
            Output::Commit { seq, batch } => self.accounts[i].commits.push_back((seq, batch)),
            Output::Event(envelope) => {
                if let Some(seq) = envelope.seq {
                    assert_eq!(
                        self.accounts[i].disk.outbox.get(&seq).map(|stored| &stored.event_id),
                        Some(&envelope.event_id),
                        "an event is told only when it is durable"
                    );
                    self.tell(i, Input::Acknowledged(seq));
                } else if envelope.event == "session.qr_updated" {
                    self.accounts[i].qr = envelope.data["qr"].as_str().map(str::to_owned);
                    self.scan(i);
                }
            }
            Output::Reply(id, reply) => {
                let Some(request) = self.accounts[i].asked.remove(&id) else { return };
                match reply {
                    Ok(Reply::Accepted { id, .. }) => {
                        self.accounts[i].accepted.insert(id.as_str().to_owned());
                    }
                    Ok(_) => panic!("a send is accepted or refused"),
                    // The store failed before it was accepted.
                    Err(CommandError::Interrupted) => self.ask(i, request),
                    Err(error) => panic!("send {:?} refused: {error}", request.id),
                }
            }
            _ => panic!("an output that the simulator does not know"),
        }
    }

    fn wire_of(&mut self, account: usize, id: ConnectionId) -> Option<&mut Wire> {
        self.wires.values_mut().find(|wire| wire.account == account && wire.id == id)
    }

    fn scan(&mut self, i: usize) {
        if let Some(qr) = self.accounts[i].qr.take() {
            self.server.scan(self.now, self.accounts[i].number, &qr, &ScanOptions::default()).expect("scanned");
            self.drain_server();
        }
    }

    fn commit(&mut self, i: usize) {
        let Some((seq, batch)) = self.accounts[i].commits.pop_front() else { return };
        self.accounts[i].disk.apply(&batch);
        self.tell(i, Input::Durable(seq));
    }

    /// Reads see every batch that was queued before, durable or not. They are answered in any order.
    fn load(&mut self, i: usize) {
        let which = self.pick(self.accounts[i].loads.len());
        let account = &mut self.accounts[i];
        let Some((id, keys, scans)) = account.loads.remove(which) else { return };
        let mut records = account.disk.records.clone();
        for (_, batch) in &account.commits {
            if batch.clear {
                records.clear();
            }
            for key in &batch.deletes {
                records.remove(key);
            }
            records.extend(batch.puts.iter().cloned());
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

    /// The process dies and starts again from the disk.
    fn crash(&mut self, i: usize) {
        self.crash_without(i, &[]);
    }

    fn crash_without(&mut self, i: usize, lost: &[RecordKind]) {
        let durable = self.pick(self.accounts[i].commits.len() + 1);
        for _ in 0..durable {
            if let Some((_, batch)) = self.accounts[i].commits.pop_front() {
                self.accounts[i].disk.apply(&batch);
            }
        }
        self.accounts[i].disk.records.retain(|key, _| !lost.contains(&key.kind));
        let wires: Vec<ConnId> = self.wires.iter().filter(|(_, wire)| wire.account == i).map(|(id, _)| *id).collect();
        for wire in wires {
            let arrived = self.pick(self.wires[&wire].to_server.len() + 1);
            for _ in 0..arrived {
                self.deliver_to_server(wire);
            }
            if let Some(wire_state) = self.wires.remove(&wire)
                && !wire_state.fresh
            {
                self.server.handle(self.now, ServerInput::Closed(wire));
                self.drain_server();
            }
        }
        let engine = self.boot(self.accounts[i].name);
        let account = &mut self.accounts[i];
        account.engine = engine;
        account.commits.clear();
        account.loads.clear();
        account.work.clear();
        account.crashes += 1;
        // Whoever got no answer asks again with the same message id.
        let unanswered: Vec<SendRequest> = std::mem::take(&mut account.asked).into_values().collect();
        self.command(i, Command::Connect);
        for request in unanswered {
            self.ask(i, request);
        }
    }

    /// The process dies and starts again from a disk that has lost some keys.
    fn wipe(&mut self, i: usize) {
        let lost: &[RecordKind] = match self.pick(3) {
            0 => &[RecordKind::Session, RecordKind::ArchiveIndex, RecordKind::ArchivedState, RecordKind::SkippedPage],
            1 => &[RecordKind::SenderKey, RecordKind::SenderKeyPage],
            _ => &[RecordKind::OwnSenderKey, RecordKind::SenderKeyMarks],
        };
        self.crash_without(i, lost);
        self.accounts[i].wipes += 1;
    }

    // ---- the wires --------------------------------------------------------------------------------------------

    fn cut(&mut self, id: ConnId) {
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

    /// Messages arrive in pieces.
    fn deliver_to_client(&mut self, id: ConnId) {
        let Some(wire) = self.wires.get_mut(&id) else { return };
        let (account, connection) = (wire.account, wire.id);
        match wire.to_client.pop_front() {
            Some(mut bytes) => {
                if bytes.len() > 1 && self.rng.next_u32().is_multiple_of(4) {
                    let at = 1 + self.rng.next_u32() as usize % (bytes.len() - 1);
                    wire.to_client.push_front(bytes.split_off(at));
                }
                self.tell(account, Input::Received(connection, bytes));
            }
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
        for (wire, stanza) in self.server.take_stanzas() {
            if let Some(account) = self.wires.get(&wire).map(|wire| wire.account) {
                self.check_stanza(account, &stanza);
            }
        }
    }

    // ---- invariants on the wire -------------------------------------------------------------------------------

    fn check_stanza(&mut self, account: usize, stanza: &Node) {
        match stanza.tag() {
            "message" => self.check_keys(account, stanza),
            "receipt" if stanza.attr_str("type").as_deref() == Some("retry") => self.count_retry(account, stanza),
            "receipt" if stanza.attr_str("type").as_deref() != Some("read") => self.check_event(account, stanza),
            _ => {}
        }
    }

    /// No message key makes two ciphertexts.
    fn check_keys(&mut self, account: usize, stanza: &Node) {
        let participants = stanza.find_child("participants");
        let addressed = participants.iter().flat_map(|all| all.child_nodes()).map(|to| (to, "jid"));
        // Encrypted for one device, or for a group.
        let target = if stanza.attr_jid("participant").is_some() { "participant" } else { "to" };
        for (node, target) in addressed.chain([(stanza, target)]) {
            let target = node.attr_jid(target).expect("a JID").to_string();
            for enc in node.child_nodes().iter().filter(|child| child.tag() == "enc") {
                let message = enc.content_bytes().expect("bytes");
                let (message, name, counter) = match enc.attr_str("type").as_deref() {
                    Some("skmsg") => {
                        let inner = SenderKeyMessage::decode(&message).expect("a skmsg");
                        (message.clone(), inner.id.0.to_be_bytes().to_vec(), inner.iteration)
                    }
                    kind => {
                        let message = match kind {
                            Some("pkmsg") => PreKeyMessage::decode(&message).expect("a pkmsg").message.to_vec(),
                            _ => message.to_vec(),
                        };
                        let inner = WhisperMessage::decode(&message).expect("a msg");
                        let (name, counter) = (inner.ratchet.as_bytes().to_vec(), inner.counter);
                        (Bytes::from(message), name, counter)
                    }
                };
                let key = (account, target.clone(), name, counter);
                let before = self.keys.insert(key.clone(), message.clone());
                assert!(before.is_none_or(|before| before == message), "message key {key:?} was used twice");
            }
        }
    }

    /// Nobody asks for one message more than five times.
    fn count_retry(&mut self, account: usize, stanza: &Node) {
        let id = stanza.attr_str("id").expect("an id").into_owned();
        let asked = stanza.attr_jid("participant").or_else(|| stanza.attr_jid("to")).expect("a device");
        let count = self.accounts[account].retries.entry((id, asked.to_string())).or_default();
        *count += 1;
    }

    /// A message is acknowledged only when its event is durable.
    fn check_event(&self, account: usize, stanza: &Node) {
        let id = stanza.attr_str("id").expect("an id").into_owned();
        let Some(sent) = self.sent.iter().find(|sent| sent.id == id) else { return };
        let account = &self.accounts[account];
        let event = if account.number == self.accounts[sent.from].number { "message.sent" } else { "message.received" };
        assert_eq!(account.disk.count(event, &id), 1, "{} acknowledged {id} without its event", account.name);
    }

    /// What must hold when everything is settled and nobody lost a key.
    pub(crate) fn check_settled(&self) {
        self.check_delivered();
        self.check_order();
        self.check_readable();
    }

    /// Every message is there once, at every device of everybody it was for.
    pub(crate) fn check_delivered(&self) {
        for sent in &self.sent {
            let sender = &self.accounts[sent.from];
            assert!(sender.accepted.contains(&sent.id), "{} was accepted", sent.id);
            assert_eq!(sender.disk.count("message.sent", &sent.id), 1, "{} was sent", sent.id);
            assert_eq!(sender.disk.count("message.failed", &sent.id), 0, "{} did not fail", sent.id);
            for (i, account) in self.accounts.iter().enumerate() {
                let received = account.disk.count("message.received", &sent.id);
                let copies = account.disk.count("message.sent", &sent.id);
                let expected = match () {
                    () if i == sent.from => (0, 1),
                    () if account.number == sender.number => (0, 1),
                    () if sent.audience.contains(&account.number) => (1, 0),
                    () => (0, 0),
                };
                assert_eq!((received, copies), expected, "{} to {} at {}", sent.id, sent.to, account.name);
                let text = account.disk.messages("message.received").find(|m| m["key"]["id"] == *sent.id);
                assert!(text.is_none_or(|message| message["text"] == *sent.text), "{} reads as it was sent", sent.id);
            }
            for number in &sent.audience {
                let phone = self.server.received(number);
                let count = phone.iter().filter(|message| message.id == sent.id).count();
                assert_eq!(count, 1, "{} at the phone of {number}", sent.id);
            }
        }
    }

    /// What one account sent to one chat arrives in the order in which it was sent.
    pub(crate) fn check_order(&self) {
        for account in &self.accounts {
            let told: Vec<&str> =
                account.disk.messages("message.received").filter_map(|message| message["key"]["id"].as_str()).collect();
            let chats: BTreeSet<(usize, &Jid)> = self.sent.iter().map(|sent| (sent.from, &sent.to)).collect();
            for (from, to) in chats {
                let sent = self.sent.iter().filter(|sent| sent.from == from && sent.to == *to);
                let sent = sent.filter(|sent| sent.audience.contains(&account.number));
                let sent: Vec<&str> = sent.map(|sent| sent.id.as_str()).collect();
                let arrived: Vec<&str> = told.iter().copied().filter(|id| sent.contains(id)).collect();
                assert_eq!(arrived, sent, "{} got them in order", account.name);
            }
        }
    }

    /// Nothing was told as undecryptable.
    pub(crate) fn check_readable(&self) {
        for account in &self.accounts {
            let undecryptable = account.disk.outbox.values().filter(|e| e.event == "message.undecryptable").count();
            assert_eq!(undecryptable, 0, "{} could read everything", account.name);
        }
    }

    /// No device was asked more than five times for one message.
    pub(crate) fn check_retries(&self) {
        for account in &self.accounts {
            for ((id, asked), count) in &account.retries {
                assert!(*count <= 5, "{} asked {asked} {count} times for {id}", account.name);
            }
        }
    }

    // ---- chance -----------------------------------------------------------------------------------------------

    fn one_in(&mut self, n: u32) -> bool {
        n > 0 && self.rng.next_u32().is_multiple_of(n)
    }

    pub(crate) fn pick(&mut self, n: usize) -> usize {
        self.rng.next_u32() as usize % n
    }

    fn note(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.fingerprint = (self.fingerprint ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Poll(usize),
    Commit(usize),
    Load(usize),
    Work(usize),
    ToServer(ConnId),
    ToClient(ConnId),
}

fn seed_of(rng: &mut ChaCha20Rng) -> [u8; 32] {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    seed
}

fn seeds(default: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("WAMD_SEEDS") else { return default };
    let (from, to) = text.split_once("..").expect("WAMD_SEEDS=from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

/// Runs every seed, or those of `WAMD_SEEDS=from..to`; one that fails is named.
#[expect(clippy::print_stderr, reason = "a failing seed is named")]
pub(crate) fn each_seed(default: Range<u64>, run: impl Fn(u64) + std::panic::RefUnwindSafe) {
    for seed in seeds(default) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed} failed; again with WAMD_SEEDS={seed}..{}", seed + 1);
            std::panic::resume_unwind(panic);
        }
    }
}
