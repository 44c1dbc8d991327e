//! Outbound messages: each is an operation that is stored before it is accepted, and settled by an event.
//!
//! ```text
//!   accepted ──► Ready ──► device lists? ──► bundles? ──► encrypted, stored with its stanza ──► AwaitAck ──► settled
//!    (stored)      ▲            │               │                                                  │
//!                  └── answer ──┴── answer ─────┘               connection lost, crash: the same stanza again
//! ```
//!
//! The stages up to encryption are one restartable function ([`encrypt::plan`]); only what it waits for is kept here.
//! Sends to one chat are encrypted in the order in which they were accepted.

use std::{collections::BTreeMap, collections::BTreeSet, time::Duration};

use bytes::Bytes;

use super::{CommandError, CommandId, Content, Engine, Job, Queued, Reply, SendRequest};
use crate::{
    clock::Now,
    engine::{
        address,
        encrypt::{self, Plan},
        notices::{self, SendFailure},
        queries::{Bundles, Query, QueryError},
        records::{OutgoingRecord, Record, SentRecord},
        step::{Miss, Needs, Step},
    },
    event::Event,
    jid::Jid,
    message::{MessageId, build},
    proto::Message as _,
    stanza::{
        ack::MessageAck,
        iq::{prekeys, usync},
    },
    store::{Key, RecordKind},
};

/// Longest text that is sent, in characters.
const MAX_TEXT: usize = 65_536;

/// What the server is asked about. A user and its primary device have the same JID, but the questions differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// The devices of a user.
    Devices(Jid),
    /// The keys of a device.
    Keys(Jid),
}

/// Where a send stands.
#[derive(Debug)]
enum Stage {
    /// Can go on.
    Ready,
    /// Waits for records.
    Parked,
    /// Waits for answers about these.
    Waiting(BTreeSet<Subject>),
    /// The stanza left, or will with the next connection.
    AwaitAck { stanza: Bytes, deadline: Option<Duration> },
}

/// One send.
#[derive(Debug)]
pub(crate) struct SendOp {
    pub(crate) order: u64,
    pub(crate) id: MessageId,
    /// The user as the caller named it, without device.
    pub(crate) to: Jid,
    /// Serialised `Message`.
    pub(crate) message: Bytes,
    pub(crate) client_ref: Option<String>,
    pub(crate) accepted_ms: u64,
    /// Devices without a usable bundle.
    pub(crate) skipped: BTreeSet<Jid>,
    /// Why it cannot go on.
    pub(crate) failure: Option<SendFailure>,
    stage: Stage,
}

impl SendOp {
    /// The server did not tell the devices of these users.
    pub(crate) fn lacks_devices(&mut self, users: &[Jid], why: &SendFailure) {
        if let Stage::Waiting(subjects) = &self.stage
            && users.iter().any(|user| subjects.contains(&Subject::Devices(user.clone())))
        {
            self.failure = Some(why.clone());
        }
    }

    pub(crate) fn to_record(&self, chat: &Jid, stanza: Option<Bytes>) -> OutgoingRecord {
        OutgoingRecord {
            order: self.order,
            to: self.to.to_string(),
            message: self.message.clone(),
            client_ref: self.client_ref.clone(),
            accepted_ms: self.accepted_ms,
            stanza,
            chat: chat.to_string(),
        }
    }

    fn is_encrypted(&self) -> bool {
        matches!(self.stage, Stage::AwaitAck { .. })
    }
}

/// All sends that are not settled.
#[derive(Debug, Default)]
pub(crate) struct Sends {
    ops: BTreeMap<u64, SendOp>,
    /// What was asked and not answered yet.
    asked: BTreeSet<Subject>,
    next_order: u64,
}

impl Sends {
    pub(crate) fn len(&self) -> usize {
        self.ops.len()
    }

    /// Takes over what was stored.
    pub(crate) fn restore(&mut self, records: Vec<(Key, Bytes)>) {
        for (key, value) in records {
            let restored = std::str::from_utf8(&key.id).ok().and_then(|id| restore(id, &value));
            let Some(op) = restored else {
                tracing::error!("a stored send is unusable");
                continue;
            };
            self.next_order = self.next_order.max(op.order + 1);
            self.ops.insert(op.order, op);
        }
    }

    /// Whether an earlier send to the same user is not encrypted yet.
    fn must_wait(&self, op: &SendOp) -> bool {
        self.ops.range(..op.order).any(|(_, earlier)| earlier.to == op.to && !earlier.is_encrypted())
    }

    /// The next send to a user, if it can go on.
    fn next_to(&self, to: &Jid) -> Option<u64> {
        let next = self.ops.values().find(|op| op.to == *to && !op.is_encrypted())?;
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
    pub(crate) fn give_up(&mut self) -> Vec<Event> {
        let failure = SendFailure::new("logged_out", "the account was logged out");
        let ops = std::mem::take(&mut self.ops);
        ops.into_values()
            .map(|op| notices::send_failed(&op.to, op.id.as_str(), op.client_ref.as_deref(), &failure))
            .collect()
    }
}

fn restore(id: &str, value: &Bytes) -> Option<SendOp> {
    let record = OutgoingRecord::from_bytes(value).ok()?;
    let stage = match record.stanza {
        Some(stanza) => Stage::AwaitAck { stanza, deadline: None },
        None => Stage::Ready,
    };
    Some(SendOp {
        order: record.order,
        id: MessageId::new(id).ok()?,
        to: record.to.parse().ok()?,
        message: record.message,
        client_ref: record.client_ref,
        accepted_ms: record.accepted_ms,
        skipped: BTreeSet::new(),
        failure: None,
        stage,
    })
}

/// Key of a send that is not settled.
pub(crate) fn outgoing_key(id: &str) -> Key {
    Key::new(RecordKind::Outgoing, id)
}

/// Key of a sent message. `chat` is the canonical identity of the user.
pub(crate) fn sent_key(chat: &Jid, id: &str) -> Key {
    Key::joined(RecordKind::Sent, &[chat.to_string().as_bytes(), id.as_bytes()])
}

/// A message that was sent to a user, and its key: under the LID, or under the PN when it was sent before the LID was
/// known.
///
/// # Errors
/// [`Miss`].
pub(crate) fn sent_record(
    step: &mut Step<'_>,
    user: &address::User,
    id: &str,
) -> Result<Option<(Key, SentRecord)>, Miss> {
    let keys: Vec<_> = user.identities().map(|chat| sent_key(chat, id)).collect();
    step.require(&keys)?;
    for key in keys {
        if let Some(record) = step.record(&key)? {
            return Ok(Some((key, record)));
        }
    }
    Ok(None)
}

/// The server's answer to a message of ours.
///
/// # Errors
/// [`Miss`].
pub(crate) fn acknowledged(step: &mut Step<'_>, ack: &MessageAck) -> Result<(), Miss> {
    let key = outgoing_key(&ack.id);
    let Some(outgoing) = step.record::<OutgoingRecord>(&key)? else { return Ok(()) };
    if outgoing.stanza.is_none() {
        tracing::warn!("the server acknowledges a message that it was not sent");
        return Ok(());
    }
    let chat = outgoing.chat.parse::<Jid>().unwrap_or_else(|_| ack.from.to_bare());
    let user = address::user(step, &chat)?;
    let sent = sent_record(step, &user, &ack.id)?;
    step.delete(key);
    if let Some(code) = ack.error {
        if let Some((sent_key, _)) = sent {
            step.delete(sent_key);
        }
        let failure = SendFailure::refused(code);
        step.emit(notices::send_failed(&chat, &ack.id, outgoing.client_ref.as_deref(), &failure));
        return Ok(());
    }
    let sent = sent.unwrap_or_else(|| (sent_key(&user.canonical, &ack.id), SentRecord::default()));
    settle_as_sent(step, &ack.id, &chat, &user, &outgoing, sent, ack.timestamp);
    Ok(())
}

/// A message is with the server: it becomes a sent one, and the application hears of it.
pub(crate) fn settle_as_sent(
    step: &mut Step<'_>,
    id: &str,
    chat: &Jid,
    user: &address::User,
    outgoing: &OutgoingRecord,
    (sent_key, sent): (Key, SentRecord),
    timestamp: Option<u64>,
) {
    let timestamp = timestamp.unwrap_or_else(|| step.now.unix_seconds());
    let sent = SentRecord { timestamp, message: outgoing.message.clone(), ..sent };
    step.delete(outgoing_key(id));
    step.put(sent_key, sent.to_bytes());
    let client_ref = outgoing.client_ref.as_deref();
    let event = notices::sent(chat, user, id, timestamp, &outgoing.message, client_ref, step.config.prefer);
    step.emit(event);
}

impl Engine {
    // ---- accepting --------------------------------------------------------------------------------------------

    /// Stores a send; the answer leaves when it is durable.
    ///
    /// Sends are accepted in the order in which they were asked for, although some need records first.
    pub(super) fn accept_send(&mut self, now: Now, command: CommandId, request: SendRequest) {
        if self.accepting.len() >= self.config.max_sends {
            return self.answer(command, Err(CommandError::Busy { waiting: self.accepting.len() }));
        }
        self.accepting.push_back((command, request));
        if self.accepting.len() == 1 {
            self.run_accepting(now);
        }
    }

    /// Goes on with the sends that wait to be accepted. The first one stays in the queue until it is.
    pub(super) fn run_accepting(&mut self, now: Now) {
        while let Some((command, request)) = self.accepting.front().cloned() {
            if let Err(needs) = self.accept_one(now, command, request) {
                return self.park(Job::Accept, needs);
            }
            self.accepting.pop_front();
        }
    }

    fn accept_one(&mut self, now: Now, command: CommandId, mut request: SendRequest) -> Result<(), Needs> {
        if self.account.linked.is_none() {
            self.answer(command, Err(CommandError::NotLinked));
            return Ok(());
        }
        if self.sends.len() >= self.config.max_sends {
            self.answer(command, Err(CommandError::Busy { waiting: self.sends.len() }));
            return Ok(());
        }
        request.to = request.to.to_account();
        if request.to.user().is_empty() || !(request.to.is_pn_family() || request.to.is_lid_family()) {
            self.answer(command, Err(CommandError::NotAUser(request.to.redacted().to_string())));
            return Ok(());
        }
        if let Err(error) = check(&request.content) {
            self.answer(command, Err(error));
            return Ok(());
        }
        let id = match &request.id {
            Some(id) => id.clone(),
            None => self.next_message_id(now),
        };
        if let Some((_, waiting)) = self.accepting.front_mut() {
            // Run again, it keeps its id.
            waiting.id = Some(id.clone());
        }
        let order = self.sends.next_order;
        if let Some(op) = self.step(now, |step| accept(step, command, &request, &id, order))? {
            self.sends.next_order += 1;
            self.sends.ops.insert(order, op);
            self.run_send(now, order);
        }
        Ok(())
    }

    // ---- going on ---------------------------------------------------------------------------------------------

    /// Goes on with a send as far as it can, and then with those to the same user that waited for it.
    pub(super) fn run_send(&mut self, now: Now, order: u64) {
        let mut next = Some(order);
        while let Some(order) = next {
            next = self.run_one(now, order).and_then(|to| self.sends.next_to(&to));
        }
    }

    /// Goes on with one send. When it does not hold up later ones any more, answers to whom it is.
    fn run_one(&mut self, now: Now, order: u64) -> Option<Jid> {
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
        let plan = self.step(now, |step| encrypt::plan(step, &op));
        let mut through = None;
        match plan {
            Err(needs) => {
                op.stage = Stage::Parked;
                self.park(Job::Send(order), needs);
            }
            Ok(Plan::Devices(users)) => {
                op.stage = Stage::Waiting(users.iter().cloned().map(Subject::Devices).collect());
                self.ask_devices(now, users);
            }
            Ok(Plan::Bundles(devices)) => {
                op.stage = Stage::Waiting(devices.iter().cloned().map(Subject::Keys).collect());
                self.ask_bundles(now, devices);
            }
            Ok(Plan::Sent(stanza)) => {
                op.stage = Stage::AwaitAck { stanza, deadline: Some(now.mono.saturating_add(self.config.ack_timeout)) };
                through = Some(op.to.clone());
            }
            Ok(Plan::Failed) => return Some(op.to),
        }
        self.sends.ops.insert(order, op);
        through
    }

    /// The connection is up: what was encrypted goes out again, the rest goes on.
    pub(super) fn resume_sends(&mut self, now: Now) {
        let Some(connection) = self.connection.id() else { return };
        let deadline = now.mono.saturating_add(self.config.ack_timeout);
        let mut ready = Vec::new();
        for op in self.sends.ops.values_mut() {
            match &mut op.stage {
                Stage::AwaitAck { stanza, deadline: until } => {
                    *until = Some(deadline);
                    self.gate.push_after(self.batches, Queued::Frame(connection, stanza.to_vec()));
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
    pub(super) fn sends_go_on(&mut self, now: Now, subjects: &[Subject], mut note: impl FnMut(&mut SendOp, bool)) {
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

    /// Asks which devices users have; what is under way is not asked twice.
    fn ask_devices(&mut self, now: Now, users: Vec<Jid>) {
        let users: Vec<Jid> =
            users.into_iter().filter(|user| self.sends.asked.insert(Subject::Devices(user.clone()))).collect();
        if !users.is_empty() {
            let sid = self.queries.next_id();
            let request = usync::devices_request(&sid, &users);
            self.ask(now, Query::Devices(users), request);
        }
    }

    /// Asks for the keys of devices; what is under way is not asked twice.
    pub(super) fn ask_bundles(&mut self, now: Now, devices: Vec<Jid>) {
        let devices: Vec<Jid> =
            devices.into_iter().filter(|jid| self.sends.asked.insert(Subject::Keys(jid.clone()))).collect();
        if !devices.is_empty() {
            let request = prekeys::bundles_request(&devices);
            self.ask(now, Query::Bundles(devices), request);
        }
    }

    /// The server answered, or did not answer, with bundles.
    pub(super) fn bundles_answered(&mut self, now: Now, asked: Vec<Jid>, result: Result<Bundles, QueryError>) {
        let subjects: Vec<_> = asked.iter().cloned().map(Subject::Keys).collect();
        let bundles = match result {
            // What nobody asked for is not believed.
            Ok(bundles) => bundles.into_iter().filter(|(jid, _)| asked.contains(jid)).collect(),
            Err(error) => {
                tracing::warn!(%error, "no bundles");
                // There may be an answer for whoever asks the next time.
                self.sends_go_on(now, &subjects, |op, waited| {
                    op.skipped.extend(asked.iter().filter(|_| waited).cloned());
                });
                return self.resends_go_on(now, &asked);
            }
        };
        match self.step(now, |step| encrypt::establish(step, &bundles)) {
            Err(needs) => self.park(Job::Answer(super::Answer::Bundles(asked, Ok(bundles))), needs),
            Ok(established) => {
                let without: Vec<Jid> = asked.iter().filter(|jid| !established.contains(jid)).cloned().collect();
                self.sends_go_on(now, &subjects, |op, _| op.skipped.extend(without.iter().cloned()));
                self.resends_go_on(now, &asked);
            }
        }
    }

    // ---- settling ---------------------------------------------------------------------------------------------

    /// These messages are settled.
    pub(super) fn settle(&mut self, ids: &[String]) {
        self.sends.ops.retain(|_, op| !(op.is_encrypted() && ids.iter().any(|id| id == op.id.as_str())));
    }

    /// Reports the sends whose acknowledgement did not come.
    pub(super) fn expire_sends(&mut self, now: Now) {
        let late = |op: &SendOp| matches!(op.stage, Stage::AwaitAck { deadline: Some(at), .. } if at <= now.mono);
        for (_, op) in self.sends.ops.extract_if(.., |_, op| late(op)).collect::<Vec<_>>() {
            self.act(now, |step| {
                step.delete(outgoing_key(op.id.as_str()));
                let failure = SendFailure::timeout();
                step.emit(notices::send_failed(&op.to, op.id.as_str(), op.client_ref.as_deref(), &failure));
            });
        }
    }
}

fn check(content: &Content) -> Result<(), CommandError> {
    match content {
        Content::Text(text) if text.is_empty() => Err(CommandError::Content("the text is empty")),
        Content::Text(text) if text.chars().count() > MAX_TEXT => {
            Err(CommandError::Content("the text has more than 65,536 characters"))
        }
        Content::Text(_) => Ok(()),
    }
}

/// Stores a send unless its id is known; `None` then.
fn accept(
    step: &mut Step<'_>,
    command: CommandId,
    request: &SendRequest,
    id: &MessageId,
    order: u64,
) -> Result<Option<SendOp>, Miss> {
    let user = address::user(step, &request.to)?;
    let outgoing = outgoing_key(id.as_str());
    // Both are read before either is missed.
    let (pending, sent) = (step.record::<OutgoingRecord>(&outgoing), sent_record(step, &user, id.as_str()));
    let (pending, sent) = (pending?, sent?);
    let known = match (pending, sent) {
        (Some(pending), _) if !pending.to.parse().is_ok_and(|to| user.is(&to)) => {
            step.reply(command, Err(CommandError::MessageId));
            return Ok(None);
        }
        (Some(pending), _) => Some(pending.accepted_ms / 1_000),
        // What was sent and neither acknowledged nor refused was told as failed, and may be tried again.
        (None, Some((_, sent))) => Some(sent.timestamp).filter(|timestamp| *timestamp != 0),
        (None, None) => None,
    };
    if let Some(timestamp) = known {
        step.reply(command, Ok(Reply::Accepted { id: id.clone(), timestamp }));
        return Ok(None);
    }
    let Content::Text(text) = &request.content;
    let mut message = build::text(text.as_str());
    build::ensure_secret(&mut message, step.rng);
    let op = SendOp {
        order,
        id: id.clone(),
        to: request.to.clone(),
        message: message.encode_to_vec().into(),
        client_ref: request.client_ref.clone(),
        accepted_ms: step.now.wall_ms,
        skipped: BTreeSet::new(),
        failure: None,
        stage: Stage::Ready,
    };
    step.put(outgoing, op.to_record(&request.to, None).to_bytes());
    step.reply(command, Ok(Reply::Accepted { id: id.clone(), timestamp: step.now.unix_seconds() }));
    Ok(Some(op))
}
