//! Messages that our own phone is asked for, because we cannot read them (spec 03 §5.6, spec 06 §5.1).
//!
//! ```text
//!  cannot be read ──► stored, due in 5 s ──► one request for all that are due ──► asked ──► the phone's answer ──► told
//!  not for us ──────► stored, due now ──┘                │                         │
//!                                                        └── the sender's resend ──┴──► forgotten
//! ```
//!
//! Every message has a record of its own, so that a restart forgets none; what stands in the records is kept in memory, too,
//! and that is bounded. A message is asked for once: the phone may be off, and answers when it is on. What it has not answered
//! in a day is given up.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;

use super::Note;
use crate::{
    clock::Now,
    engine::{
        Engine, Phase,
        address::{self, User},
        connection::pauses::Window,
        receive::Context,
        records::{PlaceholderRecord, Record},
        send::peer::Urgency,
        step::{Miss, Step},
    },
    jid::Jid,
    proto::{common, e2e},
    stanza::{ack::AckTarget, message::InboundMessage},
    store::{Key, RecordKind},
};

/// The sender's resend, which is the better one, gets this long to arrive first.
pub(crate) const DELAY: Duration = Duration::from_secs(5);
/// The phone does not have messages older than this, in seconds.
const MAX_AGE: u64 = 14 * 86_400;
/// The phone has so long to answer.
const PATIENCE: Duration = Duration::from_secs(86_400);
/// Most messages that wait, for their time or for an answer.
const MAX_WANTED: usize = 512;
/// Most messages of one request.
const MAX_REQUESTED: usize = 64;
/// Requests in [`REQUEST_SPAN`].
const MAX_REQUESTS: u32 = 12;
/// The span in which requests are counted.
const REQUEST_SPAN: Duration = Duration::from_secs(60);
/// When there are too many messages to the phone already.
const LATER: Duration = Duration::from_millis(LATER_MS);
const LATER_MS: u64 = 60_000;
/// Placeholders for what the phone does not give away (spec 03 §5.6).
const KEPT_BY_PHONE: [&str; 4] =
    ["view_once", "view_once_unavailable_fanout", "bot_unavailable_fanout", "hosted_unavailable_fanout"];

/// A message that is wanted.
#[derive(Debug)]
struct Item {
    record: PlaceholderRecord,
    /// When it is asked for; once it was, when it is given up.
    at: Duration,
}

impl Item {
    const fn is_asked(&self) -> bool {
        self.record.asked != 0
    }
}

/// All messages that are wanted: what stands in the records.
#[derive(Debug)]
pub(crate) struct Wanted {
    items: BTreeMap<Key, Item>,
    requests: Window,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { items: BTreeMap::new(), requests: Window::new(MAX_REQUESTS, REQUEST_SPAN) }
    }
}

impl Wanted {
    /// Takes over what was stored.
    pub(crate) fn restore(&mut self, now: Now, records: Vec<(Key, Bytes)>) {
        for (key, value) in records.into_iter().take(MAX_WANTED) {
            match PlaceholderRecord::from_bytes(&value) {
                Ok(record) => self.put(now, key, record),
                Err(error) => tracing::error!(%error, "a wanted message is forgotten"),
            }
        }
    }

    /// A message is wanted, or was asked for.
    pub(super) fn put(&mut self, now: Now, key: Key, record: PlaceholderRecord) {
        // The wall clock may have been set meanwhile.
        let left = match record.asked {
            0 => Duration::from_millis(record.due_ms.saturating_sub(now.wall_ms)).min(LATER),
            asked => {
                let end = Duration::from_secs(asked).saturating_add(PATIENCE);
                end.saturating_sub(Duration::from_millis(now.wall_ms)).min(PATIENCE)
            }
        };
        self.items.insert(key, Item { record, at: now.mono.saturating_add(left) });
    }

    pub(super) fn remove(&mut self, key: &Key) {
        self.items.remove(key);
    }

    /// When the next request is to leave.
    pub(crate) fn deadline(&self, now: Duration) -> Option<Duration> {
        let due = self.items.values().filter(|item| !item.is_asked()).map(|item| item.at).min()?;
        Some(due.max(self.requests.free_at(now)))
    }

    /// When the next one is given up.
    pub(crate) fn end(&self) -> Option<Duration> {
        self.items.values().filter(|item| item.is_asked()).map(|item| item.at).min()
    }

    /// What the next request is about.
    fn due(&self, now: Duration) -> Vec<(Key, PlaceholderRecord)> {
        if self.requests.is_full(now) {
            return Vec::new();
        }
        let due = self.items.iter().filter(|(_, item)| !item.is_asked() && item.at <= now);
        due.take(MAX_REQUESTED).map(|(key, item)| (key.clone(), item.record.clone())).collect()
    }

    /// What the phone has not answered in time.
    fn given_up(&self, now: Duration) -> Vec<Key> {
        let late = self.items.iter().filter(|(_, item)| item.is_asked() && item.at <= now);
        late.map(|(key, _)| key.clone()).collect()
    }

    /// The one that was asked for first.
    fn oldest_asked(&self) -> Option<&Key> {
        let asked = self.items.iter().filter(|(_, item)| item.is_asked());
        asked.min_by_key(|(_, item)| item.record.asked).map(|(key, _)| key)
    }

    /// Those with this message id.
    pub(crate) fn with_id<'w>(&'w self, id: &'w str) -> impl Iterator<Item = (&'w Key, &'w PlaceholderRecord)> {
        self.items.iter().map(|(key, item)| (key, &item.record)).filter(move |(_, record)| record.id == id)
    }
}

fn keys_of<'c>(context: &'c Context<'_>) -> impl Iterator<Item = Key> + 'c {
    let marks = std::iter::once(&context.received).chain(&context.before);
    marks.map(|mark| Key { kind: RecordKind::Placeholder, id: mark.id.clone() })
}

/// Whether the phone gives away what stands behind a placeholder of this kind.
pub(crate) fn is_given_away(kind: &str) -> bool {
    !KEPT_BY_PHONE.contains(&kind)
}

/// Has the phone asked for a message, after a delay; false when there is no use in it, or too many are wanted.
pub(crate) fn want(step: &mut Step<'_>, context: &Context<'_>, delay: Duration) -> bool {
    let inbound = context.message;
    let age = step.now.unix_seconds().saturating_sub(inbound.timestamp);
    if inbound.peer || inbound.chat.is_newsletter() || inbound.is_of_bot_elsewhere() || age >= MAX_AGE {
        return false;
    }
    let wanted = &step.retries.wanted;
    if keys_of(context).any(|key| wanted.items.contains_key(&key)) {
        return true;
    }
    if wanted.items.len() >= MAX_WANTED {
        let Some(oldest) = wanted.oldest_asked().cloned() else { return false };
        forget(step, oldest);
    }
    let Some(key) = keys_of(context).next() else { return false };
    let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    let record = PlaceholderRecord {
        chat: inbound.chat.to_string(),
        sender: inbound.sender.to_string(),
        from_me: inbound.from_me,
        id: inbound.ack.id.clone(),
        timestamp: inbound.timestamp,
        edit: inbound.edit.clone(),
        due_ms: step.now.wall_ms.saturating_add(millis),
        asked: 0,
    };
    step.put(key.clone(), record.to_bytes());
    step.note(Note::Wanted(key, record));
    true
}

/// A message came after all: nobody needs to be asked for it.
pub(crate) fn arrived(step: &mut Step<'_>, context: &Context<'_>) {
    for key in keys_of(context) {
        if step.retries.wanted.items.contains_key(&key) {
            forget(step, key);
        }
    }
}

fn forget(step: &mut Step<'_>, key: Key) {
    step.delete(key.clone());
    step.note(Note::Settled(key));
}

/// The message that was wanted under the key that the phone answers with: as its stanza named it.
///
/// # Errors
/// [`Miss`].
pub(crate) fn find(step: &mut Step<'_>, answered: &common::MessageKey) -> Result<Option<InboundMessage>, Miss> {
    let (Some(id), Some(chat)) = (answered.id.as_deref(), answered.remote_jid.as_deref()) else { return Ok(None) };
    let from_me = answered.from_me.unwrap_or(false);
    let retries = step.retries;
    let Some(chat) = person(step, chat)? else { return Ok(None) };
    let author = match answered.participant.as_deref() {
        Some(author) => person(step, author)?,
        None => None,
    };
    for (_, record) in retries.wanted.with_id(id).filter(|(_, record)| record.from_me == from_me) {
        let Some(message) = message_of(record) else { continue };
        let is_author = author.as_ref().is_none_or(|author| author.is(&message.sender));
        if chat.is(&message.chat) && is_author {
            return Ok(Some(message));
        }
    }
    Ok(None)
}

fn person(step: &mut Step<'_>, jid: &str) -> Result<Option<User>, Miss> {
    match jid.parse::<Jid>() {
        Ok(jid) => address::user(step, &jid).map(Some),
        Err(_) => Ok(None),
    }
}

/// The stanza of a wanted message, as far as it matters for what was in it.
fn message_of(record: &PlaceholderRecord) -> Option<InboundMessage> {
    let (chat, sender) = (record.chat.parse::<Jid>().ok()?, record.sender.parse().ok()?);
    let blank = InboundMessage::default();
    Some(InboundMessage {
        ack: AckTarget { id: record.id.clone(), from: chat.clone(), ..blank.ack },
        chat,
        sender,
        from_me: record.from_me,
        timestamp: record.timestamp,
        edit: record.edit.clone(),
        ..blank
    })
}

/// What the phone is asked.
fn request(wanted: &[(Key, PlaceholderRecord)]) -> e2e::Message {
    use e2e::peer_data_operation_request_message::PlaceholderMessageResendRequest;

    let requests = wanted.iter().map(|(_, record)| {
        let chat = record.chat.parse::<Jid>().ok();
        let by_many = chat.is_some_and(|chat| chat.is_group() || chat.is_broadcast());
        let author = record.sender.parse::<Jid>().ok().filter(|_| by_many);
        let key = common::MessageKey {
            remote_jid: Some(record.chat.clone()),
            from_me: Some(record.from_me),
            id: Some(record.id.clone()),
            participant: author.map(|author| author.to_bare().to_string()),
        };
        PlaceholderMessageResendRequest { message_key: Some(Box::new(key)) }
    });
    let operation = e2e::PeerDataOperationRequestMessage {
        peer_data_operation_request_type: Some(e2e::PeerDataOperationRequestType::PlaceholderMessageResend.into()),
        placeholder_message_resend_request: requests.collect(),
        ..e2e::PeerDataOperationRequestMessage::default()
    };
    let protocol = e2e::ProtocolMessage {
        r#type: Some(e2e::protocol_message::Type::PeerDataOperationRequestMessage.into()),
        peer_data_operation_request_message: Some(Box::new(operation)),
        ..e2e::ProtocolMessage::default()
    };
    e2e::Message { protocol_message: Some(Box::new(protocol)), ..e2e::Message::default() }
}

impl Engine {
    /// When the phone is asked for something next, or something that it was asked for is given up.
    pub(in crate::engine) fn phone_deadline(&self) -> Option<Duration> {
        let wanted = &self.retries.wanted;
        let due = wanted.deadline(Duration::ZERO).filter(|_| self.connection.is_online());
        let end = wanted.end().filter(|_| self.phase == Phase::Ready);
        [due, end].into_iter().flatten().min()
    }

    /// Gives up what the phone has not answered in time.
    pub(in crate::engine) fn give_up_on_phone(&mut self, now: Now) {
        if self.phase != Phase::Ready {
            return;
        }
        let given_up = self.retries.wanted.given_up(now.mono);
        if !given_up.is_empty() {
            self.act(now, |step| given_up.into_iter().for_each(|key| forget(step, key)));
        }
    }

    /// Asks the phone for what is due. The request is stored first: a crash in between has it asked twice, never not at all.
    pub(in crate::engine) fn ask_phone(&mut self, now: Now) {
        while self.connection.is_online() {
            let due = self.retries.wanted.due(now.mono);
            if due.is_empty() {
                return;
            }
            self.retries.wanted.requests.note(now.mono);
            let is_asked = self.send_peer(now, &request(&due), Urgency::Force).is_some();
            self.act(now, |step| {
                for (key, mut record) in due {
                    match is_asked {
                        true => record.asked = now.unix_seconds(),
                        false => record.due_ms = now.wall_ms.saturating_add(LATER_MS),
                    }
                    step.put(key.clone(), record.to_bytes());
                    step.note(Note::Wanted(key, record));
                }
            });
        }
    }
}
