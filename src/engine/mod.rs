//! One linked account as a value: no socket, no clock, no thread, no database, and no randomness of its own.
//!
//! A driver feeds inputs and carries out outputs:
//!
//! ```text
//!  socket bytes, commands,          ┌────────┐          socket bytes, events, replies,
//!  loaded records, durable batches, │ Engine │          records to load, batches to commit,
//!  time             ── handle ────► │        │ ──poll─► connections to open and close
//!                                   └────────┘
//! ```
//!
//! # The run loop
//!
//! 1. Create the engine with [`Engine::new`] and a fresh random seed.
//! 2. Call [`Engine::poll`] until it answers `None`; carry each output out, in order.
//! 3. Wait for the first of: bytes or the end of the connection, the answer of the store, a command, the instant of
//!    [`Engine::deadline`]. While [`Engine::wants_read`] is false, do not read the socket.
//! 4. Tell the engine by [`Engine::handle`] with the current time, and go on with 2.
//!
//! **The contract: every [`Output::Commit`] is given to the store in the order in which it came, and
//! [`Input::Durable`] is said only when the store has it for good. Whatever depends on a batch (a ciphertext, an ack,
//! an event, a reply) comes out of `poll` only after that.** The engine may be dropped at any point: what was
//! committed is a state from which a new engine goes on, and nothing that left the old one contradicts it.
//!
//! One output may leave before its own batch: a message in a chat whose sender chains have reserved their next counters durably
//! ([`LEASE`](crate::signal::LEASE)). A new engine passes all of them over, so no key is used twice. Its answer and its event wait
//! for the batch; if they do not come, ask again with the same message id.
//!
//! The same seed and the same inputs give the same outputs, byte for byte.
//!
//! | file | what |
//! |---|---|
//! | `step`, `cache`, `gate` | how a handler reads, writes, and is held back until its batch is durable |
//! | `jobs`, `dispatch` | work that waits for records; stanzas and commands go to whom they concern |
//! | `connection` | life cycle: open, handshake, link or log in, close, back off; its tables of states and commands |
//! | `link`, `link_code`, `passkey`, `login`, `logout` | the ways to get online with keepalive and backlog, and the end of the link |
//! | `cpu`, `slices` | work for a pool of threads, and how much of it at a time |
//! | `dirty` | areas of server state that changed |
//! | `lanes`, `receive`, `receipts` | inbound stanzas, in order per chat |
//! | `send`, `devices` | outbound messages, an operation each, and the devices that they go to |
//! | `prekeys` | keys with which others start sessions |
//! | `groups` | who is in a group and how it is set |
//! | `retry` | messages that could not be decrypted, ours and those of others |
//! | `content`, `secrets` | what a message to be sent says, and what refers to it later |
//! | `tokens`, `restrictions` | whom we may write to |
//! | `queries` | which answer belongs to which question |
//! | `retention` | what is kept for a time, and goes |
//! | `account`, `records`, `address`, `keys`, `signal_store` | what is stored |
//! | `points` | what is computed of keys of senders |
//! | `notices`, `told` | the events that the engine tells, and the state that the last one told |
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

mod account;
mod address;
mod cache;
mod command;
mod config;
mod connection;
mod content;
mod cpu;
mod debug;
mod devices;
mod dirty;
mod dispatch;
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod groups;
mod inbound;
mod jobs;
mod keys;
mod lanes;
mod link;
mod link_code;
mod login;
mod logout;
mod notices;
mod passkey;
mod points;
mod prekeys;
mod queries;
mod receipts;
mod receive;
mod records;
mod restrictions;
mod retention;
mod retry;
mod secrets;
mod send;
mod signal_store;
mod slices;
mod step;
mod tokens;
mod told;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::{
    clock::Now,
    event::{Envelope, Event, SessionState},
    jid::Jid,
    node::Node,
    pairing::payload::Version,
    stanza::receipt::DeliveryReceipts,
    store::{Batch, Key, OutboxEntry, RecordKind, StoreError},
};
use account::Account;
use cache::Cache;
use connection::{Connection, Stop, pauses::Window};
use cpu::Computed;
use gate::{Gate, Pick};
use groups::GroupCommands;
use jobs::{Job, Parked, STORE_PAUSE, account_key, head_key};
use lanes::Lanes;
use link::Linking;
use logout::Logouts;
use queries::{Answer, Queries, Query};
use records::{OutboxHeadRecord, Record};
use retention::Retention;
use retry::asked;
use send::Sends;
use slices::Slices;
use step::{Collected, Frame, Miss, Needs, Step};
use told::Told;

pub use command::{
    Audience, AudienceSetting, Command, CommandError, CommandId, Content, MessageRef, PinDuration, Reply, SendRequest,
};
pub use config::Config;
pub use cpu::{CpuId, CpuJob, CpuResult};
pub use groups::GroupRequest;
pub use records::RecordError;
pub use restrictions::Restriction;
#[doc(hidden)]
pub use retry::fuzz::retry_receipt as fuzz_retry_receipt;

/// Names one connection to the server, so that late news of an old one is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Names one request for records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LoadId(pub u64);

/// What the driver tells.
#[expect(clippy::large_enum_variant, reason = "an input is handled at once, and never kept")]
#[non_exhaustive]
pub enum Input {
    /// The websocket of [`Output::Open`] stands.
    Opened(ConnectionId),
    /// Bytes of a binary websocket message, or any part of it.
    Received(ConnectionId, Bytes),
    /// The connection is gone or could not be opened; a short text for events and logs.
    Closed(ConnectionId, String),
    /// The embedding program wants something.
    Command(CommandId, Command),
    /// What the store has, for every key and kind that was asked.
    Loaded(LoadId, Loaded),
    /// Every batch up to this one is durable.
    Durable(u64),
    /// The store failed, in a load or a commit. The engine drops what is not durable, tells `store.failed`, and starts over
    /// from the store after a pause. [`StoreError::LeaseLost`] ends the account here: nothing is stored or sent any more.
    StoreFailed(StoreError),
    /// The consumer has all events up to this sequence number for good. Said before the account is loaded, it tells how
    /// much of the outbox waits from earlier; without it nothing does.
    Acknowledged(u64),
    /// The result of [`Output::Cpu`].
    Computed(CpuId, CpuResult),
    /// The version of the client to state from now on, at any time; also the answer to [`Output::RefreshVersion`].
    /// `None`: it could not be refreshed.
    Version(Option<Version>),
    /// Time has passed.
    Tick,
}

/// The answer to an [`Output::Load`].
#[derive(Default)]
pub struct Loaded {
    /// One entry per key asked; `None` when there is no such record.
    pub records: Vec<(Key, Option<Bytes>)>,
    /// All records of the kinds asked, ordered by id.
    pub scanned: Vec<(Key, Bytes)>,
}

/// What the driver must do.
#[non_exhaustive]
pub enum Output {
    /// Open a websocket to the server, then say [`Input::Opened`] or [`Input::Closed`].
    Open(ConnectionId),
    /// Send these bytes as one binary websocket message.
    Send(ConnectionId, Bytes),
    /// Close this connection; what is queued for it should still be sent.
    Close(ConnectionId),
    /// Load records, and all records of some kinds, then say [`Input::Loaded`] with the same id.
    Load {
        /// Goes into the answer.
        id: LoadId,
        /// Single records.
        keys: Vec<Key>,
        /// All records of these kinds.
        scans: Vec<RecordKind>,
    },
    /// Make this batch durable, then say [`Input::Durable`] with its number.
    Commit {
        /// Numbered from 1 without gaps.
        seq: u64,
        /// What to write.
        batch: Batch,
    },
    /// An event for the consumer. Its outbox entry is durable, unless it is ephemeral (no `seq`).
    Event(Box<Envelope>),
    /// The answer to a command.
    Reply(CommandId, Result<Reply, CommandError>),
    /// Work that takes long: run it where it holds up nobody, then say [`Input::Computed`] with the same id.
    Cpu(CpuId, CpuJob),
    /// The server refused the version of the client as outdated: find out which one is current (spec 01 §3.6), then say
    /// [`Input::Version`]. Comes once per refusal.
    RefreshVersion,
}

/// What waits at the gate.
#[derive(Debug)]
enum Queued {
    Output(Output),
    /// A stanza in the clear: sealed when it leaves, so that the order of the counters is the order on the wire.
    Frame(ConnectionId, Frame),
    /// A receipt of the backlog, to be joined with others that may leave at the same time.
    Receipt(ConnectionId, Box<DeliveryReceipts>),
}

/// Whether the account is known.
#[derive(Debug, PartialEq, Eq)]
enum Phase {
    /// The account is being loaded.
    Booting,
    /// It is.
    Ready,
    /// The store failed; the account is loaded again then.
    Halted { until: Duration },
    /// What is stored cannot be read.
    Broken(RecordError),
    /// Another store has the account.
    Lost,
}

/// Most uploads of prekeys in [`UPLOAD_SPAN`]: some thousand new sessions, and not as many as the server asks for.
const MAX_UPLOADS: u32 = 5;
/// The span in which uploads and comparisons are counted, each.
const UPLOAD_SPAN: Duration = Duration::from_secs(600);

/// One linked account. See the [module documentation](self).
pub struct Engine {
    config: Config,
    rng: ChaCha20Rng,
    phase: Phase,
    account: Arc<Account>,
    cache: Cache,
    gate: Gate<Queued>,
    /// Number of the newest batch.
    batches: u64,
    /// Sequence number of the newest event.
    last_event: u64,
    /// The consumer has everything up to here.
    acknowledged: u64,
    told: Told,
    connection: Connection,
    linking: Linking,
    queries: Queries,
    lanes: Lanes,
    sends: Sends,
    /// Sends that wait to be accepted, in order.
    accepting: VecDeque<send::Waiting>,
    /// Commands that wait for what a group is.
    group_commands: GroupCommands,
    /// Requests to send again that wait for keys.
    resends: Vec<(asked::Asked, asked::Outcome)>,
    /// Messages that were sent again.
    resent: Window,
    retention: Retention,
    /// Receipts of the backlog at the gate.
    waiting_receipts: usize,
    /// Our own requests to send again.
    retries: retry::Memory,
    /// Jobs whose records are being loaded.
    jobs: BTreeMap<LoadId, Parked>,
    /// Commands that came before the account was loaded.
    early: VecDeque<(CommandId, Command)>,
    next_load: u64,
    next_connection: u64,
    next_cpu: u64,
    last_received: Option<u64>,
    /// When the last keepalive was answered, unix milliseconds.
    last_pong: Option<u64>,
    logouts: Logouts,
    /// Work for many devices.
    slices: Slices,
    /// Questions about devices that the server put off.
    held: devices::Held,
    /// Prekeys that are being made.
    upload: Option<prekeys::Upload>,
    /// Uploads of prekeys.
    uploads: Window,
    /// Uploads that failed in a row.
    upload_failures: u32,
    /// Comparisons of our keys with what the server holds.
    digests: Window,
    /// A signed prekey that the server has not taken yet.
    rotation: Option<prekeys::Rotation>,
    /// What the driver said about the outbox before the account was loaded.
    acknowledged_before: Option<u64>,
    /// Events of batches of which it is not known whether the store has them: it failed.
    unconfirmed: Vec<Envelope>,
    /// How often the store failed since it took a batch.
    store_failures: u32,
    /// When the next restriction ends.
    restriction_ends: Option<Duration>,
    /// Room for what a step reads.
    needs: Needs,
    /// Room for what a step encrypts and encodes.
    draft: Vec<u8>,
    /// The newest batch that took a counter lease or that a message waits for: one whose keys are leased waits for it, too.
    leases: u64,
}

/// What can be asked about an account at any time.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The state that the last event told.
    pub state: SessionState,
    /// Own JID with device, when linked.
    pub jid: Option<Jid>,
    /// Own LID with device, when known.
    pub lid: Option<Jid>,
    /// Own push name, when known.
    pub push_name: Option<String>,
    /// When the last frame of the server came, unix milliseconds.
    pub last_seen_ms: Option<u64>,
    /// Sequence number of the newest event.
    pub last_event: u64,
    /// Events that the consumer has not acknowledged.
    pub unacknowledged: u64,
    /// When the ban of a `BANNED` account ends, if the server said so, unix milliseconds. It may be connected earlier;
    /// then the server decides.
    pub banned_until_ms: Option<u64>,
    /// The version of the client that the next login states.
    pub version: Version,
    /// Attempts to resume with a known key of the server that failed for cryptographic reasons.
    pub resume_failures: u32,
    /// Sends that are not settled.
    pub sends: usize,
    /// Batches committed so far.
    pub batches: u64,
    /// Bytes of stanzas that wait for records.
    pub waiting_bytes: usize,
    /// What the account may not do for a while; `account.restricted` tells when it changes.
    pub restrictions: Vec<Restriction>,
}

impl Engine {
    /// An account that is about to load itself. `seed` must be fresh random bytes for every engine that is made.
    pub fn new(config: Config, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let config = config.bounded();
        let mut engine = Self {
            account: Arc::new(Account::generate(&mut rng)),
            cache: Cache::new(config.cache_bytes),
            queries: Queries::new(&mut rng),
            rng,
            phase: Phase::Booting,
            gate: Gate::new(),
            batches: 0,
            last_event: 0,
            acknowledged: 0,
            told: Told::default(),
            connection: Connection::new(&config),
            linking: Linking::default(),
            lanes: Lanes::default(),
            sends: Sends::default(),
            accepting: VecDeque::new(),
            group_commands: GroupCommands::default(),
            resends: Vec::new(),
            resent: Window::new(asked::MAX_PER_MINUTE, asked::MINUTE),
            retention: Retention::default(),
            waiting_receipts: 0,
            retries: retry::Memory::default(),
            jobs: BTreeMap::new(),
            early: VecDeque::new(),
            next_load: 0,
            next_connection: 0,
            next_cpu: 0,
            last_received: None,
            last_pong: None,
            logouts: Logouts::default(),
            slices: Slices::default(),
            held: devices::Held::default(),
            upload: None,
            uploads: Window::new(MAX_UPLOADS, UPLOAD_SPAN),
            upload_failures: 0,
            digests: Window::new(MAX_UPLOADS, UPLOAD_SPAN),
            rotation: None,
            acknowledged_before: None,
            unconfirmed: Vec::new(),
            store_failures: 0,
            restriction_ends: None,
            needs: Needs::default(),
            draft: Vec::new(),
            leases: 0,
            config,
        };
        engine.load_account();
        engine
    }

    /// Takes an input. Never fails: what is wrong with an input becomes an event, a reply or the end of a connection.
    pub fn handle(&mut self, now: Now, input: Input) {
        match input {
            Input::Opened(id) => self.opened(now, id),
            Input::Received(id, bytes) => self.received(now, id, bytes),
            Input::Closed(id, reason) => self.closed(now, id, &reason),
            Input::Command(id, command) => self.command(now, id, command),
            Input::Loaded(id, loaded) => self.loaded(now, id, loaded),
            Input::Durable(seq) => {
                self.gate.release(seq.min(self.batches));
                self.told.release(self.gate.durable());
                self.store_works(now);
            }
            Input::StoreFailed(error) => self.store_failed(now, &error),
            Input::Acknowledged(seq) if matches!(self.phase, Phase::Booting | Phase::Halted { .. }) => {
                self.acknowledged_before = self.acknowledged_before.max(Some(seq));
            }
            Input::Acknowledged(seq) => self.acknowledged = self.acknowledged.max(seq.min(self.last_event)),
            Input::Computed(id, CpuResult(computed)) => self.computed(now, id, computed),
            Input::Version(version) => self.version(now, version),
            Input::Tick => {}
        }
        self.expire(now);
        self.join_receipts(now);
        self.cache.trim(self.evictable());
        debug_assert!(
            self.connection.agrees_with(self.told.state()),
            "{:?} was told in {}",
            self.told.state(),
            self.connection.shape(now.mono)
        );
    }

    /// The next thing to do; `None` when there is nothing until the next input.
    pub fn poll(&mut self) -> Option<Output> {
        loop {
            match self.gate.pop()? {
                Queued::Output(output) => return Some(output),
                // All were joined when they became ready.
                Queued::Receipt(..) => {}
                Queued::Frame(id, frame) => {
                    if let Some(bytes) = self.seal(id, frame.as_ref()) {
                        return Some(Output::Send(id, bytes));
                    }
                }
            }
        }
    }

    /// When [`Input::Tick`] is due at the latest, on the monotonic clock.
    pub fn deadline(&self) -> Option<Duration> {
        let halted = match self.phase {
            Phase::Halted { until } => Some(until),
            _ => None,
        };
        let linking = self.linking.deadline();
        let (queries, sends, phone) = (self.queries.deadline(), self.sends.deadline(), self.phone_deadline());
        let upload = self.upload.as_ref().and_then(prekeys::Upload::deadline);
        let work = [self.slices.deadline(), self.held.deadline(), upload, self.restriction_ends];
        let deadlines = [self.connection.deadline(), linking, queries, sends, phone, halted];
        deadlines.into_iter().chain(work).flatten().min()
    }

    /// Whether the socket may be read. False while the consumer or the store is behind; the server keeps the queue. Until
    /// the server delivers, twice as much may wait: a connection that is not answered would be lost and made again and
    /// again, and no honest server makes that many events before.
    pub fn wants_read(&self) -> bool {
        // What waits in the lanes will be events, too.
        let waiting = u64::try_from(self.lanes.len()).unwrap_or(u64::MAX);
        let unacknowledged = self.last_event.saturating_sub(self.acknowledged).saturating_add(waiting);
        let max = self.config.max_unacknowledged;
        let max = if self.connection.is_online() { max } else { max.saturating_mul(2) };
        unacknowledged < max && self.lanes.bytes() < self.config.max_waiting_bytes
    }

    /// What is known about the account now.
    pub fn snapshot(&self) -> Snapshot {
        let linked = self.account.linked.as_ref();
        Snapshot {
            state: self.told.state(),
            jid: linked.map(|linked| linked.pn.clone()),
            lid: linked.and_then(|linked| linked.lid.clone()),
            push_name: self.account.push_name.clone(),
            last_seen_ms: self.last_received,
            last_event: self.last_event,
            unacknowledged: self.last_event.saturating_sub(self.acknowledged),
            banned_until_ms: self.connection.banned_until(),
            version: self.config.client.version,
            resume_failures: self.connection.resume_failures(),
            sends: self.sends.len(),
            batches: self.batches,
            waiting_bytes: self.lanes.bytes(),
            restrictions: self.account.restrictions.clone(),
        }
    }

    /// Seals a frame and those behind it that go to the same connection, as one message. Events and replies between them
    /// come after it: between the receipts of a burst stands an event each. `None` when the connection is not there any
    /// more or cannot seal; in that case it ends with the next input.
    fn seal(&mut self, id: ConnectionId, first: &[u8]) -> Option<Bytes> {
        let (gate, mut passed) = (&mut self.gate, 0);
        let next = |room| {
            let judge = |queued: &Queued| match queued {
                Queued::Frame(to, frame) if *to == id && frame.as_ref().len() <= room => Pick::Take,
                Queued::Output(Output::Event(_) | Output::Reply(..)) => Pick::Pass,
                _ => Pick::Stop,
            };
            match gate.pick(&mut passed, judge)? {
                Queued::Frame(_, frame) => Some(frame),
                Queued::Output(_) | Queued::Receipt(..) => None,
            }
        };
        let message = self.connection.wire(id)?.seal(first, next);
        (!message.is_empty()).then(|| message.freeze())
    }

    /// Joins the receipts of the backlog that may leave now: as many as the store made durable at a time.
    fn join_receipts(&mut self, now: Now) {
        if self.waiting_receipts == 0 {
            return;
        }
        let waiting = &mut self.waiting_receipts;
        self.gate.rewrite(|ready| receipts::join(ready, now, waiting));
    }

    /// The pool has done a job.
    fn computed(&mut self, now: Now, id: CpuId, computed: Computed) {
        match computed {
            Computed::CodeKey(key) => self.code_key(now, id, &key),
            Computed::Keys(keys) => self.keys_made(now, id, &keys),
            Computed::Sessions(_) | Computed::Lists(_) => self.slice_computed(now, id, computed),
        }
    }

    // ---- steps ------------------------------------------------------------------------------------------------

    /// Runs a handler. On a miss nothing has happened, and what it needs comes back.
    fn step<T>(&mut self, now: Now, handler: impl FnOnce(&mut Step<'_>) -> Result<T, Miss>) -> Result<T, Needs> {
        let mut step =
            Step::new(now, &self.config, &mut self.rng, &mut self.cache, &self.retries, self.account.clone());
        (step.needs, step.draft) = (std::mem::take(&mut self.needs), std::mem::take(&mut self.draft));
        match handler(&mut step) {
            Ok(value) => {
                let collected = step.collect();
                self.apply(now, collected);
                Ok(value)
            }
            Err(Miss) => {
                self.draft = step.draft;
                Err(step.needs)
            }
        }
    }

    /// Runs a handler that reads no records.
    fn act(&mut self, now: Now, handler: impl FnOnce(&mut Step<'_>)) {
        let done = self.step(now, |step| {
            handler(step);
            Ok(())
        });
        debug_assert!(done.is_ok(), "the handler reads no records");
    }

    /// Makes what a step collected one batch, with everything else behind it.
    fn apply(&mut self, now: Now, collected: Collected) {
        let Collected {
            account,
            needs,
            draft,
            mut overlay,
            frames,
            receipts,
            events,
            replies,
            asks,
            notes,
            clear,
            took_lease,
            is_covered,
        } = collected;
        (self.needs, self.draft) = (needs, draft);
        for note in notes {
            self.retries.note(now, note);
        }
        if let Some(account) = account {
            if let Some(record) = account.to_record() {
                overlay.insert(account_key(), Some(self.cache.value(&record[..])));
            }
            self.account = account;
        }
        let mut batch = Batch { clear, ..Batch::default() };
        if clear {
            self.retries = retry::Memory::default();
            self.cache = Cache::new(self.config.cache_bytes);
            self.retention = Retention::default();
            self.sends.memo.clear();
        }
        let mut envelopes = Vec::with_capacity(events.len());
        let mut states = Vec::new();
        for emitted in events {
            let state = SessionState::after(&emitted.event);
            let envelope = self.envelope(now, emitted, &mut batch);
            states.extend(state.map(|state| (envelope.seq, state)));
            envelopes.push(envelope);
        }
        if clear || !batch.events.is_empty() {
            overlay.insert(head_key(), Some(self.cache.value(&OutboxHeadRecord { last: self.last_event })));
        }
        let seq = self.batches + 1;
        // A record, its entry among what is kept for a time, and the heads of these.
        batch.puts.reserve(overlay.len().saturating_mul(2).saturating_add(3));
        for (key, value) in overlay {
            if let Some(value) = &value
                && !matches!(self.cache.read(&key), Some(Some(_)))
            {
                self.retention.note(now, &key, value, &mut self.cache, &mut batch);
            }
            self.sends.memo.changed(&key);
            self.cache.write(key.clone(), value.clone(), seq);
            match value {
                Some(value) => batch.puts.push((key, value)),
                None => batch.deletes.push(key),
            }
        }
        let kept = self.retention.seal(&mut self.cache, &mut batch);
        if !batch.is_empty() {
            self.batches = seq;
            self.gate.push_free(Queued::Output(Output::Commit { seq, batch }));
        }
        // A step that wrote nothing may rest on what an earlier one wrote: it waits for that all the same.
        let after = self.batches;
        for (seq, state) in states {
            self.told.follow(after, seq, state);
        }
        self.told.release(self.gate.durable());
        for envelope in envelopes {
            let event = Queued::Output(Output::Event(Box::new(envelope)));
            self.gate.push_after(after, event);
        }
        for (command, reply) in replies {
            self.gate.push_after(after, Queued::Output(Output::Reply(command, reply)));
        }
        let is_message = |frame: &Frame| matches!(frame, Frame::Kept(_));
        if took_lease || !is_covered && frames.iter().any(is_message) {
            self.leases = after;
        }
        if let Some(id) = self.connection.accepted() {
            for frame in frames {
                let after = if is_covered && is_message(&frame) { self.leases } else { after };
                self.gate.push_after(after, Queued::Frame(id, frame));
            }
            for receipt in receipts {
                self.waiting_receipts = self.waiting_receipts.saturating_add(1);
                self.gate.push_after(after, Queued::Receipt(id, Box::new(receipt)));
            }
            for (query, request) in asks {
                self.ask_after(now, after, id, query, request);
            }
        }
        if kept {
            self.trim_records(now);
        }
    }

    /// Asks the server what a step wants to know, once the batch is durable; what is under way is not asked twice.
    fn ask_after(&mut self, now: Now, batch: u64, connection: ConnectionId, query: Query, request: Node) {
        if self.queries.any(|pending| pending.is_same(&query)) {
            return;
        }
        let id = self.queries.ask(query, now.mono.saturating_add(self.config.query_timeout));
        match request.attr("id", id).encode() {
            Ok(frame) => self.gate.push_after(batch, Queued::Frame(connection, frame.into())),
            Err(error) => tracing::error!(%error, "a query cannot be encoded"),
        }
    }

    /// Numbers an event, and puts it into the batch unless it is ephemeral.
    fn envelope(&mut self, now: Now, emitted: step::Emitted, batch: &mut Batch) -> Envelope {
        let step::Emitted { event, offline } = emitted;
        let mut envelope = notices::envelope(&self.config.session, now, &mut self.rng, &event, offline);
        if !event.is_ephemeral() {
            self.last_event += 1;
            envelope.seq = Some(self.last_event);
            batch.events.push(OutboxEntry { seq: self.last_event, body: envelope.to_json().into() });
        }
        envelope
    }

    /// Emits an event outside of any handler.
    fn emit(&mut self, now: Now, event: impl Into<Event>) {
        let event = event.into();
        self.act(now, |step| step.emit(event));
    }

    /// Tells something that the store cannot take now: it has no number and stands in no outbox.
    fn emit_unstored(&mut self, now: Now, event: &Event) {
        let envelope = notices::envelope(&self.config.session, now, &mut self.rng, event, false);
        if let Some(state) = SessionState::after(event) {
            self.told.begin(state);
        }
        self.gate.push_free(Queued::Output(Output::Event(Box::new(envelope))));
    }

    // ---- time -------------------------------------------------------------------------------------------------

    /// Does everything whose time has come.
    fn expire(&mut self, now: Now) {
        if let Phase::Halted { until } = self.phase
            && until <= now.mono
        {
            self.load_account();
        }
        if !self.wants_read() {
            self.queries.postpone(now.mono, now.mono.saturating_add(self.config.query_timeout));
            self.sends.postpone(now.mono, now.mono.saturating_add(self.config.ack_timeout));
        }
        while let Some(answer) = self.queries.expire(now.mono) {
            self.run_answer(now, answer);
        }
        self.expire_sends(now);
        self.expire_restrictions(now);
        self.retries.expire(now);
        self.give_up_on_phone(now);
        self.ask_phone(now);
        self.expire_held(now);
        self.expire_slices(now);
        self.expire_upload(now);
        self.expire_code(now);
        self.expire_passkey(now);
        self.expire_connection(now);
    }
}
