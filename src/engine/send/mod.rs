//! Outbound messages: each is an operation that is stored before it is accepted, and settled by an event.
//!
//! ```text
//!   accepted ──► Ready ──► device lists? ──► bundles? ──► encrypted, stored with its stanza ──► AwaitAck ──► settled
//!    (stored)      ▲            │               │                                                  │
//!                  └── answer ──┴── answer ─────┘               connection lost, crash: the same stanza again
//! ```
//!
//! The stages up to encryption are one restartable function per kind of chat; only what it waits for is kept here. Sends to
//! one chat are encrypted in the order in which they were accepted. A send that hands our sender key over holds up later ones
//! until the server has it: what comes after it could not be read without it.
//!
//! | file | what |
//! |---|---|
//! | `accept` | a send is stored, and only then accepted |
//! | `direct` | to a user: which devices, one ciphertext each |
//! | `peer` | to our own phone |
//! | `group`, `status` | to everybody who has our sender key, who are they? |
//! | `fanout`, `memo` | their devices, found once and kept |
//! | `seal` | the sender key for those who lack it, the content once for all |
//! | `marks` | which devices have our sender key of a chat |
//! | `sessions` | sessions with devices that there are none with yet |
//! | `settle` | the server has it, refuses it, or does not answer |

mod accept;
#[cfg(test)]
mod desk;
mod direct;
mod fanout;
mod group;
pub(crate) mod marks;
mod memo;
pub(crate) mod peer;
mod seal;
mod sessions;
mod settle;
mod status;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;

use super::{AudienceSetting, Engine, Job, Queued};
use crate::{
    clock::Now,
    crypto::{Rng, Secret},
    engine::{
        address::{self, User},
        notices::{self, SendFailure},
        queries::Query,
        records::{OutgoingRecord, Record},
        step::{Miss, Needs, Step},
    },
    event::{Event, Prefer},
    jid::Jid,
    message::{self, Classification, MessageId, StanzaType, classify, padding, reporting},
    proto::{Message as _, e2e},
    stanza::iq::groups,
    store::Key,
};
pub(in crate::engine) use accept::Waiting;
use memo::Memo;
use peer::Urgency;
use seal::Handing;
pub(crate) use sessions::{PrepareSessions, PreparedSessions, Sessions, Started, establish_sent};
pub(crate) use settle::{acknowledged, outgoing_key, sent_key, sent_record, settle_as_sent};

/// What the server is asked about. A user and its primary device have the same JID, but the questions differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// The devices of a user.
    Devices(Jid),
    /// The keys of a device.
    Keys(Jid),
    /// A group.
    Group(Jid),
}

/// How often one send to many asks for the devices of one person.
const MAX_QUESTIONS: u8 = 3;

/// Where a send stands.
#[derive(Debug)]
enum Stage {
    /// Can go on.
    Ready,
    /// Waits for records.
    Parked,
    /// Waits for answers about these.
    Waiting(BTreeSet<Subject>),
    /// The stanza left, or will with the next connection. Some hold up later sends to the chat.
    AwaitAck { stanza: Bytes, holds: bool, deadline: Option<Duration> },
}

/// The chat of a send under the names that it had at acceptance. A person whose LID becomes known later is in the lanes of
/// both names then.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    /// The canonical name.
    pub(crate) chat: Jid,
    /// Another one.
    pub(crate) other: Option<Jid>,
}

impl Lane {
    /// A chat with one name.
    pub(crate) const fn of(chat: Jid) -> Self {
        Self { chat, other: None }
    }

    /// The chat with a user.
    fn of_user(user: &User) -> Self {
        Self { chat: user.canonical.clone(), other: user.pn.clone().filter(|pn| *pn != user.canonical) }
    }

    /// Whose chat it is, as it was known at acceptance.
    fn people(&self) -> User {
        let identities = || std::iter::once(&self.chat).chain(&self.other).cloned();
        let (pn, lid) = (identities().find(Jid::is_pn_family), identities().find(Jid::is_lid_family));
        User { canonical: self.chat.clone(), pn, lid }
    }

    /// Whether both are of one chat.
    fn meets(&self, other: &Self) -> bool {
        let has = |jid: &Jid| self.chat == *jid || self.other.as_ref() == Some(jid);
        has(&other.chat) || other.other.as_ref().is_some_and(has)
    }
}

/// One send.
#[derive(Debug)]
pub(crate) struct SendOp {
    pub(crate) order: u64,
    pub(crate) id: MessageId,
    /// The chat as the caller named it, without device.
    pub(crate) to: Jid,
    /// Sends to one chat are encrypted in their order.
    pub(crate) lane: Lane,
    /// For our own phone, and no message to anybody.
    pub(crate) peer: Option<Urgency>,
    /// Who may see a status.
    viewers: Arc<[Jid]>,
    /// How they were chosen.
    setting: Option<AudienceSetting>,
    /// Serialised `Message`.
    pub(crate) message: Bytes,
    /// What the stanza says about it.
    words: Classification,
    /// What its reporting token is made with, if it has one.
    report: Option<Secret<32>>,
    pub(crate) client_ref: Option<String>,
    pub(crate) accepted_ms: u64,
    /// Devices without a usable bundle.
    pub(crate) skipped: BTreeSet<Jid>,
    /// People of a group or an audience whose devices were asked for, and how often.
    asked: BTreeMap<Jid, u8>,
    /// The server wanted it in another addressing mode, once.
    rebuilt: bool,
    /// Why it cannot go on.
    pub(crate) failure: Option<SendFailure>,
    /// The sender key for many devices, which is encrypted some at a time.
    handing: Option<Handing>,
    stage: Stage,
}

impl SendOp {
    /// A send that can go on, to nobody yet.
    fn new(order: u64, id: MessageId, message: &e2e::Message, now: Now) -> Self {
        Self {
            order,
            id,
            to: Jid::whatsapp_server(),
            lane: Lane::of(Jid::whatsapp_server()),
            peer: None,
            viewers: Arc::default(),
            setting: None,
            message: message.encode_to_vec().into(),
            words: classify(message),
            report: reporting::secret_of(message),
            client_ref: None,
            accepted_ms: now.wall_ms,
            skipped: BTreeSet::new(),
            asked: BTreeMap::new(),
            rebuilt: false,
            failure: None,
            handing: None,
            stage: Stage::Ready,
        }
    }

    /// Whether it goes out under our sender key.
    fn is_fanout(&self) -> bool {
        let is_post = self.to.is_status_broadcast() && self.words.stanza_type != StanzaType::Reaction;
        self.peer.is_none() && (self.to.is_group() || is_post)
    }

    /// Whether somebody's devices may be asked for, once more perhaps: what was told may be forgotten again before the send
    /// goes on, because a notification came.
    fn may_ask(&self, user: &Jid) -> bool {
        self.asked.get(user).is_none_or(|times| *times < MAX_QUESTIONS)
    }

    /// The server did not tell the devices of these users. A message to many goes to the others.
    pub(crate) fn lacks_devices(&mut self, users: &[Jid], why: &SendFailure) {
        if self.is_fanout() {
            for user in users {
                self.asked.entry(user.clone()).and_modify(|times| *times = MAX_QUESTIONS);
            }
            return;
        }
        if let Stage::Waiting(subjects) = &self.stage
            && users.iter().any(|user| subjects.contains(&Subject::Devices(user.clone())))
        {
            self.failure = Some(why.clone());
        }
    }

    pub(crate) fn to_record(&self, chat: &Jid, stanza: Option<Bytes>) -> OutgoingRecord {
        OutgoingRecord {
            order: self.order,
            to: self.to.to_text(),
            message: self.message.clone(),
            client_ref: self.client_ref.clone(),
            accepted_ms: self.accepted_ms,
            stanza,
            chat: chat.to_text(),
            other: self.lane.other.as_ref().map(Jid::to_string),
            peer: self.peer.map_or(0, |urgency| urgency as u32),
            distributed: None,
            viewers: self.viewers.iter().map(Jid::to_string).collect(),
            setting: self.setting.map_or(0, AudienceSetting::number),
            phash: None,
            rebuilt: self.rebuilt,
        }
    }

    /// Who the chat is with, as far as it can be told without loading anything.
    fn people_in(&self, step: &mut Step<'_>) -> User {
        address::user(step, &self.lane.chat).unwrap_or_else(|Miss| self.lane.people())
    }

    /// Tells that the message to this chat will not get there.
    fn failed(&self, chat: &Jid, people: &User, failure: &SendFailure, prefer: Prefer) -> Event {
        notices::send_failed(chat, people, self.id.as_str(), self.client_ref.as_deref(), failure, prefer)
    }

    /// The reporting token, in a chat in which we are `me`.
    fn report(&self, me: &Jid, chat: &Jid) -> Option<[u8; reporting::TOKEN_LEN]> {
        reporting::token(self.report.as_ref()?, self.id.as_str(), me, chat, &self.message)
    }

    fn is_encrypted(&self) -> bool {
        matches!(self.stage, Stage::AwaitAck { .. })
    }

    /// Whether an earlier send to the same chat is in the way.
    fn must_wait(&self, ops: &BTreeMap<u64, Self>) -> bool {
        ops.range(..self.order).any(|(_, earlier)| earlier.lane.meets(&self.lane) && !earlier.is_through())
    }

    /// Whether later sends to the chat may go on.
    fn is_through(&self) -> bool {
        matches!(self.stage, Stage::AwaitAck { holds: false, .. })
    }
}

/// All sends that are not settled.
#[derive(Debug, Default)]
pub(crate) struct Sends {
    ops: BTreeMap<u64, SendOp>,
    /// What was asked and not answered yet.
    asked: BTreeSet<Subject>,
    next_order: u64,
    /// Whom messages to groups and the status are for.
    pub(crate) memo: Memo,
}

impl Sends {
    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    /// Notes that the server is asked; false when it is already.
    pub(crate) fn note_asked(&mut self, subject: Subject) -> bool {
        self.asked.insert(subject)
    }

    /// Takes over what was stored.
    pub(crate) fn restore(&mut self, records: Vec<(Key, Bytes)>) {
        for (key, value) in records {
            let restored = std::str::from_utf8(&key.id).ok().and_then(|id| restore(id, &value));
            let Some(op) = restored else {
                tracing::error!("a stored send is unusable");
                continue;
            };
            self.insert(op);
        }
    }

    /// The place of the next send.
    fn next_order(&self) -> u64 {
        self.next_order
    }

    fn insert(&mut self, op: SendOp) {
        self.next_order = self.next_order.max(op.order.saturating_add(1));
        self.ops.insert(op.order, op);
    }

    /// How many sends to our own phone there are.
    fn peers(&self) -> usize {
        self.ops.values().filter(|op| op.peer.is_some()).count()
    }

    /// Whether an earlier send to the same chat is in the way.
    fn must_wait(&self, op: &SendOp) -> bool {
        op.must_wait(&self.ops)
    }

    /// The next send to a chat, if it can go on.
    fn next_in(&self, lane: &Lane) -> Option<u64> {
        let next = self.ops.values().find(|op| op.lane.meets(lane) && !op.is_through())?;
        matches!(next.stage, Stage::Ready).then_some(next.order)
    }

    /// The connection is gone, and every question with it.
    pub(crate) fn connection_lost(&mut self) {
        self.asked.clear();
        for op in self.ops.values_mut() {
            match &mut op.stage {
                Stage::Waiting(_) => {
                    // What went wrong may go well the next time.
                    op.failure = None;
                    op.skipped.clear();
                    op.asked.clear();
                    op.stage = Stage::Ready;
                }
                Stage::AwaitAck { deadline, .. } => *deadline = None,
                Stage::Ready | Stage::Parked => {}
            }
        }
    }

    /// Nobody reads, so that acknowledgements may well be there: gives every send whose time is up some more.
    pub(crate) fn postpone(&mut self, now: Duration, until: Duration) {
        for op in self.ops.values_mut() {
            if let Stage::AwaitAck { deadline: Some(at), .. } = &mut op.stage
                && *at <= now
            {
                *at = until;
            }
        }
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        let deadlines = self.ops.values().filter_map(|op| match op.stage {
            Stage::AwaitAck { deadline, .. } => deadline,
            _ => None,
        });
        deadlines.min()
    }

    /// Drops every send: the account is gone. Gives the events that tell it.
    pub(crate) fn give_up(&mut self, prefer: Prefer) -> Vec<Event> {
        let failure = SendFailure::new("logged_out", "the account was logged out");
        let ops = std::mem::take(&mut self.ops);
        ops.into_values()
            .filter(|op| op.peer.is_none())
            .map(|op| op.failed(&op.to, &op.lane.people(), &failure, prefer))
            .collect()
    }
}

fn restore(id: &str, value: &Bytes) -> Option<SendOp> {
    let record = OutgoingRecord::from_bytes(value).ok()?;
    let stage = match record.stanza {
        Some(stanza) => Stage::AwaitAck { stanza, holds: record.distributed.is_some(), deadline: None },
        None => Stage::Ready,
    };
    let message = message::decode(&record.message);
    let words = message.as_ref().map_or_else(|_| classify(&e2e::Message::default()), classify);
    let report = message.as_ref().ok().and_then(reporting::secret_of);
    Some(SendOp {
        order: record.order,
        id: MessageId::new(id).ok()?,
        to: record.to.parse().ok()?,
        lane: Lane { chat: record.chat.parse().ok()?, other: record.other.and_then(|other| other.parse().ok()) },
        peer: Urgency::from_number(record.peer),
        viewers: record.viewers.iter().filter_map(|viewer| viewer.parse().ok()).collect(),
        setting: AudienceSetting::from_number(record.setting),
        words,
        report,
        failure: message.err().map(|_| SendFailure::new("damaged", "the stored message cannot be read")),
        message: record.message,
        client_ref: record.client_ref,
        accepted_ms: record.accepted_ms,
        skipped: BTreeSet::new(),
        asked: BTreeMap::new(),
        rebuilt: record.rebuilt,
        handing: None,
        stage,
    })
}

/// What a send needs next.
#[derive(Debug)]
pub(crate) enum Plan {
    /// What this group is.
    Group(Jid),
    /// The device lists of these users.
    Devices(Vec<Jid>),
    /// The keys of these devices.
    Bundles(Vec<Jid>),
    /// Nothing: this is the encoded stanza, on its way.
    Sent(Bytes),
    /// The same, and later sends to the chat wait for its acknowledgement.
    Distributed(Bytes),
    /// It failed; the event is on its way.
    Failed,
    /// It goes on when others had their turn.
    Later,
}

/// Goes on with a send as far as its records allow.
fn plan(step: &mut Step<'_>, op: &SendOp) -> Result<Plan, Miss> {
    match (&op.failure, op.peer) {
        (Some(failure), _) => Ok(fail(step, op, failure)),
        (None, Some(urgency)) => peer::plan(step, op, urgency),
        (None, None) if op.to.is_status_broadcast() => status::reaction(step, op),
        (None, None) => direct::plan(step, op, &op.to),
    }
}

/// A copy of a plaintext, padded.
pub(crate) fn padded(message: &[u8], rng: &mut impl Rng) -> Vec<u8> {
    let mut padded = Vec::with_capacity(message.len().saturating_add(padding::MAX_PAD.into()));
    padded.extend_from_slice(message);
    padding::pad(&mut padded, rng);
    padded
}

/// A message as a plaintext, padded.
fn padded_message(message: &e2e::Message, rng: &mut impl Rng) -> Vec<u8> {
    let mut padded = Vec::with_capacity(message.encoded_len().saturating_add(padding::MAX_PAD.into()));
    message.encode_raw(&mut padded);
    padding::pad(&mut padded, rng);
    padded
}

/// Settles a send as failed.
fn fail(step: &mut Step<'_>, op: &SendOp, failure: &SendFailure) -> Plan {
    step.delete(outgoing_key(op.id.as_str()));
    match op.peer {
        None => {
            let people = op.people_in(step);
            step.emit(op.failed(&op.to, &people, failure, step.config.prefer));
        }
        Some(_) => tracing::warn!(?failure, "a message to the phone cannot be sent"),
    }
    Plan::Failed
}

impl Engine {
    /// Goes on with a send as far as it can, and then with those to the same chat that waited for it.
    pub(in crate::engine) fn run_send(&mut self, now: Now, order: u64) {
        let mut next = Some(order);
        while let Some(order) = next {
            next = self.run_one(now, order).and_then(|lane| self.sends.next_in(&lane));
        }
    }

    /// Goes on with the sends to a chat, if they do not wait for anything.
    fn run_chat(&mut self, now: Now, lane: &Lane) {
        if let Some(order) = self.sends.next_in(lane) {
            self.run_send(now, order);
        }
    }

    /// Goes on with one send. When it does not hold up later ones any more, answers to which chat it is.
    fn run_one(&mut self, now: Now, order: u64) -> Option<Lane> {
        let online = self.connection.is_online();
        let mut op = self.sends.ops.remove(&order)?;
        if op.is_encrypted() {
            self.sends.ops.insert(order, op);
            return None;
        }
        if !online || self.sends.must_wait(&op) {
            op.stage = Stage::Ready;
            self.sends.ops.insert(order, op);
            return None;
        }
        let plan = match op.failure.is_none() && op.is_fanout() {
            true => self.plan_fanout(now, &mut op),
            false => self.step(now, |step| plan(step, &op)),
        };
        self.planned(now, op, plan)
    }

    /// Does what a send needs next. When it does not hold up later ones any more, answers to which chat it is.
    fn planned(&mut self, now: Now, mut op: SendOp, plan: Result<Plan, Needs>) -> Option<Lane> {
        let order = op.order;
        let deadline = Some(now.mono.saturating_add(self.config.ack_timeout));
        let mut through = None;
        match plan {
            Err(needs) => {
                op.stage = Stage::Parked;
                self.park(Job::Send(order), needs);
            }
            Ok(Plan::Later) => {
                // Nothing is to be loaded: the answer comes behind what came meanwhile.
                op.stage = Stage::Parked;
                self.park(Job::Send(order), Needs::default());
            }
            Ok(Plan::Group(group)) => {
                op.stage = Stage::Waiting(BTreeSet::from([Subject::Group(group.clone())]));
                self.ask_group(now, group);
            }
            Ok(Plan::Devices(users)) => {
                if op.is_fanout() {
                    for user in &users {
                        let times = op.asked.entry(user.clone()).or_default();
                        *times = times.saturating_add(1);
                    }
                }
                op.stage = Stage::Waiting(users.iter().cloned().map(Subject::Devices).collect());
                self.ask_devices(now, users);
            }
            Ok(Plan::Bundles(devices)) => {
                op.stage = Stage::Waiting(devices.iter().cloned().map(Subject::Keys).collect());
                self.ask_bundles(now, devices);
            }
            Ok(Plan::Sent(stanza)) => {
                op.handing = None;
                op.stage = Stage::AwaitAck { stanza, holds: false, deadline };
                through = Some(op.lane.clone());
            }
            Ok(Plan::Distributed(stanza)) => {
                op.handing = None;
                op.stage = Stage::AwaitAck { stanza, holds: true, deadline };
            }
            Ok(Plan::Failed) => return Some(op.lane),
        }
        self.sends.ops.insert(order, op);
        through
    }

    /// The connection is up: what was encrypted goes out again, the rest goes on.
    pub(in crate::engine) fn resume_sends(&mut self, now: Now) {
        let Some(connection) = self.connection.id() else { return };
        let deadline = now.mono.saturating_add(self.config.ack_timeout);
        // What is sent from now on comes behind these.
        self.leases = self.batches;
        let mut ready = Vec::new();
        for op in self.sends.ops.values_mut() {
            match &mut op.stage {
                Stage::AwaitAck { stanza, deadline: until, .. } => {
                    *until = Some(deadline);
                    self.gate.push_after(self.batches, Queued::Frame(connection, stanza.clone().into()));
                }
                Stage::Ready => ready.push(op.order),
                Stage::Parked | Stage::Waiting(_) => {}
            }
        }
        for order in ready {
            self.run_send(now, order);
        }
    }

    /// Answers about `subjects` are in: notes something about every send, with whether it waited for any of them, and goes
    /// on with those that wait for nothing else.
    pub(in crate::engine) fn sends_go_on(
        &mut self,
        now: Now,
        subjects: &[Subject],
        mut note: impl FnMut(&mut SendOp, bool),
    ) {
        for subject in subjects {
            self.sends.asked.remove(subject);
        }
        let mut ready = Vec::new();
        let concerned = |op: &SendOp| match &op.stage {
            Stage::Waiting(waiting) => subjects.iter().any(|subject| waiting.contains(subject)),
            _ => false,
        };
        for op in self.sends.ops.values_mut() {
            let waited = concerned(op);
            note(op, waited);
            if let Stage::Waiting(waiting) = &mut op.stage {
                for subject in subjects {
                    waiting.remove(subject);
                }
                if waiting.is_empty() {
                    op.stage = Stage::Ready;
                    ready.push(op.order);
                }
            }
        }
        for order in ready {
            self.run_send(now, order);
        }
    }

    /// Asks what a group is; what is under way is not asked twice.
    pub(in crate::engine) fn ask_group(&mut self, now: Now, group: Jid) {
        if self.sends.asked.insert(Subject::Group(group.clone())) {
            let request = groups::info_request(&group);
            self.ask(now, Query::Group(group), request);
        }
    }
}
