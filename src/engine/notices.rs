//! The events that the engine tells, put together from what handlers know (spec 07 §5, §7).

mod content;

use std::time::Duration;

use rand_core::Rng;
use serde_json::Value;

use crate::{
    clock::Now,
    engine::{
        account::{Account, Linked},
        address::User,
        link::Failed,
        receive::Context,
        records::SentRecord,
    },
    event::{
        AccountDirty, AddressingMode, BanKind, DisconnectReason, Envelope, Event, EventId, IdentityChanged,
        LogoutReason, MessageDelivered, MessageFailed, MessageKey, MessageObject, MessageRead, MessageReceived,
        MessageSent, MessageStatus, MessageUndecryptable, OfflineCounts, Prefer, Receipt, ReceiptKind, RefreshReason,
        Reply, SendError, SessionBanned, SessionClientExpiration, SessionConnectFailure, SessionConnected,
        SessionConnecting, SessionDisconnected, SessionKeepaliveLost, SessionKeepaliveRestored, SessionLoggedOut,
        SessionOfflineSyncCompleted, SessionOfflineSyncStarted, SessionOutdated, SessionPairCode, SessionPairCodeError,
        SessionPairCodeRefresh, SessionPairError, SessionPaired, SessionPasskeyConfirmation, SessionPasskeyError,
        SessionPasskeyRequest, SessionQrExhausted, SessionQrScannedWithoutMultidevice, SessionQrUpdated,
        SessionReconnecting, SessionStreamError, Source, StoreFailed, StoreFault, StoreRecovered,
    },
    jid::Jid,
    message::{self, normalise},
    pairing::{PairError, code::PairCode, payload::Version, qr::RefTurn},
    proto::{e2e, json},
    signal::SignalError,
    stanza::{
        message::InboundMessage,
        stream::{Failure, StreamError},
    },
    store::{AccountId, StoreError},
};
pub(crate) use content::{
    Standing, Vote, bot_piece, chat_set, comment, deleted, edited, event_response, kept, member_tag, option_added,
    pinned, poll_vote, reaction, told, unreadable_addon, vote_message,
};

/// Wraps an event; its number comes later.
pub(crate) fn envelope(session: &AccountId, now: Now, rng: &mut impl Rng, event: &Event, offline: bool) -> Envelope {
    let mut random = [0; 10];
    rng.fill_bytes(&mut random);
    let id = EventId::of(event, session.as_str(), now.wall_ms, &random);
    Envelope::new(event, session.as_str(), id, now.wall_ms).with_offline(offline)
}

/// How much of a stanza is shown in an event, in characters.
const MAX_SHOWN: usize = 2_000;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

// ---- session --------------------------------------------------------------------------------------------------

pub(crate) fn connecting(attempt: u32) -> Event {
    SessionConnecting::new(attempt).into()
}

pub(crate) fn qr_updated(now: Now, qr: String, turn: &RefTurn) -> Event {
    let lifetime = millis(turn.lifetime);
    SessionQrUpdated::new(qr, turn.index, turn.total, lifetime, now.wall_ms.saturating_add(lifetime)).into()
}

pub(crate) fn qr_exhausted() -> Event {
    SessionQrExhausted::new().into()
}

pub(crate) fn scanned_without_multidevice() -> Event {
    SessionQrScannedWithoutMultidevice::new().into()
}

/// What the wall clock shows after a span.
pub(crate) fn wall_after(now: Now, span: Duration) -> u64 {
    now.wall_ms.saturating_add(millis(span))
}

pub(crate) fn pair_code(now: Now, code: &PairCode, left: Duration) -> Event {
    SessionPairCode::new(code.shown(), millis(left), wall_after(now, left)).into()
}

pub(crate) fn pair_code_refresh(reason: RefreshReason, will_refresh: bool) -> Event {
    SessionPairCodeRefresh::new(reason, will_refresh).into()
}

pub(crate) fn pair_code_error(failed: &Failed, code_valid: bool) -> Event {
    SessionPairCodeError::new(failed.error, failed.code, failed.retry_after.map(millis), code_valid).into()
}

pub(crate) fn passkey_request(now: Now, options: Value, left: Duration) -> Event {
    // Either the options themselves, or what a page hands to `navigator.credentials.get`.
    let places = [Some(&options), options.get("publicKey")].into_iter().flatten();
    let challenge = places.filter_map(|options| options.get("challenge")?.as_str()).next().map(str::to_owned);
    SessionPasskeyRequest::new(challenge, options, millis(left), wall_after(now, left)).into()
}

pub(crate) fn passkey_confirmation(code: &PairCode, required: bool) -> Event {
    SessionPasskeyConfirmation::new(code.shown(), required).into()
}

pub(crate) fn passkey_error(failed: &Failed) -> Event {
    SessionPasskeyError::new(failed.error, failed.code).into()
}

pub(crate) fn paired(linked: &Linked) -> Event {
    let platform = Some(linked.platform.clone()).filter(|platform| !platform.is_empty());
    SessionPaired::new(linked.pn.clone(), linked.lid.clone(), platform, linked.business_name.clone()).into()
}

pub(crate) fn pair_error(error: &PairError) -> Event {
    SessionPairError::new(error.text().to_owned()).into()
}

/// The server does not take a device that wants to be linked.
pub(crate) fn link_refused() -> Event {
    SessionPairError::new("refused".to_owned()).into()
}

pub(crate) fn connected(account: &Account) -> Option<Event> {
    let linked = account.linked.as_ref()?;
    let mut event = SessionConnected::new(linked.pn.clone());
    event.lid.clone_from(&linked.lid);
    event.push_name.clone_from(&account.push_name);
    event.platform = Some(linked.platform.clone()).filter(|platform| !platform.is_empty());
    event.is_new_login = account.logins == 1;
    event.business_name.clone_from(&linked.business_name);
    Some(event.into())
}

pub(crate) fn disconnected(reason: DisconnectReason, detail: String, attempt: u32, pause: Duration) -> Event {
    SessionDisconnected::new(reason).with_retry(attempt, millis(pause)).with_detail(detail).into()
}

pub(crate) fn disconnected_for_good(reason: DisconnectReason) -> Event {
    SessionDisconnected::new(reason).into()
}

/// By the embedding program.
pub(crate) fn stopped(account: &Account) -> Event {
    let event = SessionDisconnected::new(DisconnectReason::Stopped);
    if account.linked.is_some() { event.into() } else { event.unlinked().into() }
}

pub(crate) fn reconnecting(attempt: u32, pause: Duration, reason: DisconnectReason) -> Event {
    SessionReconnecting::new(attempt, millis(pause), reason).into()
}

pub(crate) fn logged_out(reason: LogoutReason, on_connect: bool) -> Event {
    SessionLoggedOut::new(reason, on_connect).into()
}

/// When a temporary ban ends, unix milliseconds.
pub(crate) fn ban_end(now: Now, failure: &Failure) -> Option<u64> {
    failure.expire.map(|seconds| now.wall_ms.saturating_add(seconds.saturating_mul(1_000)))
}

pub(crate) fn banned(kind: BanKind, now: Now, failure: &Failure) -> Event {
    let code = failure.code.and_then(|code| u16::try_from(code).ok());
    let mut event = match kind {
        BanKind::Temporary => SessionBanned::temporary(code, ban_end(now, failure)),
        BanKind::Locked => SessionBanned::locked(),
        BanKind::Permanent => SessionBanned::permanent(),
    };
    event.url.clone_from(&failure.url);
    event.message.clone_from(&failure.message);
    event.into()
}

pub(crate) fn outdated(version: Version) -> Event {
    SessionOutdated::new(version.to_string()).into()
}

pub(crate) fn client_expiration(at: u64) -> Event {
    SessionClientExpiration::new(at.saturating_mul(1_000)).into()
}

pub(crate) fn connect_failure(failure: &Failure) -> Event {
    let reason = u16::try_from(failure.reason).ok().filter(|reason| *reason != 0);
    SessionConnectFailure::new(reason, failure.attrs.clone()).into()
}

pub(crate) fn stream_error(error: &StreamError, shown: &str) -> Event {
    let code = match error {
        StreamError::Unknown(Some(code)) => Some(code.to_string()),
        _ => None,
    };
    SessionStreamError::new(code, shown.chars().take(MAX_SHOWN).collect::<String>()).into()
}

pub(crate) fn keepalive_lost(misses: u32, last_success: Option<u64>) -> Event {
    SessionKeepaliveLost::new(misses, last_success).into()
}

pub(crate) fn keepalive_restored(misses: u32, now: Now) -> Event {
    SessionKeepaliveRestored::new(misses, Some(now.wall_ms)).into()
}

/// The store failed; `pause` is the time until it is tried again, if it is.
pub(crate) fn store_failed(error: &StoreError, pause: Option<Duration>, failures: u32) -> Event {
    let fault = match error {
        StoreError::Backend(_) => StoreFault::Backend,
        StoreError::Conflict { .. } | StoreError::Leased { .. } => StoreFault::Conflict,
        StoreError::LeaseLost => StoreFault::LeaseLost,
        StoreError::Closed => StoreFault::Closed,
        StoreError::Incompatible(_)
        | StoreError::Damaged(_)
        | StoreError::UnknownKey { .. }
        | StoreError::Sealed(_) => StoreFault::Unreadable,
    };
    StoreFailed::new(fault, error.to_string(), pause.is_some(), pause.map(millis), failures).into()
}

pub(crate) fn store_recovered(failures: u32) -> Event {
    StoreRecovered::new(failures).into()
}

pub(crate) fn offline_started(total: u64, messages: u64, receipts: u64, notifications: u64) -> Event {
    let mut counts = OfflineCounts::new(total);
    counts.messages = Some(messages);
    counts.receipts = Some(receipts);
    counts.notifications = Some(notifications);
    SessionOfflineSyncStarted::new(counts).into()
}

pub(crate) fn offline_completed(total: u64) -> Event {
    SessionOfflineSyncCompleted::new(OfflineCounts::new(total)).into()
}

// ---- account --------------------------------------------------------------------------------------------------

pub(crate) fn dirty(kind: String, timestamp: Option<u64>) -> Event {
    AccountDirty::new(kind, timestamp).into()
}

pub(crate) fn identity_changed(jid: &Jid, implicit: bool) -> Event {
    IdentityChanged::new(jid.to_bare(), implicit).into()
}

// ---- messages -------------------------------------------------------------------------------------------------

/// Why a send failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SendFailure(SendError);

impl SendFailure {
    /// It never left; `code` is a stable word.
    pub(crate) fn new(code: &'static str, text: &str) -> Self {
        Self(SendError::Local { code, text: Some(text.to_owned()) })
    }

    /// The account is not linked any more.
    pub(crate) fn logged_out() -> Self {
        Self::new("logged_out", "the account is not linked")
    }

    /// The stanza would be none that the server can read.
    pub(crate) fn encoding() -> Self {
        Self::new("encoding", "the stanza cannot be encoded")
    }

    /// The recipient has no devices.
    pub(crate) fn not_on_whatsapp() -> Self {
        Self::new("not_on_whatsapp", "the recipient has no devices")
    }

    /// The account may not begin chats at present.
    pub(crate) fn restricted() -> Self {
        Self::new("restricted", "the account may not begin new chats at present")
    }

    /// The server refused it (spec 03 §6.1).
    pub(crate) fn refused(code: u32) -> Self {
        let text = match code {
            400 => "malformed, or mixed namespaces",
            404 => "unknown recipient",
            405 | 473 => "content not allowed for this sender",
            406 => "not acceptable",
            421 => "stale group addressing mode",
            429 => "rate limited",
            463 => "reach-out restricted",
            475 => "cap on new chats reached",
            479 => "stanza violates the server's schema",
            500..=599 => "server error",
            _ => "refused by the server",
        };
        Self(SendError::Refused { code: u16::try_from(code).unwrap_or(u16::MAX), text: Some(text.to_owned()) })
    }

    /// No answer in time.
    pub(crate) const fn timeout() -> Self {
        Self(SendError::Timeout)
    }
}

/// The status that a receipt reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReceiptStatus {
    Delivered,
    Read,
    Played,
}

impl ReceiptStatus {
    const fn kind(self) -> ReceiptKind {
        match self {
            Self::Delivered => ReceiptKind::Delivered,
            Self::Read => ReceiptKind::Read,
            Self::Played => ReceiptKind::Played,
        }
    }

    /// Its rank; never goes down for a user.
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Delivered => 3,
            Self::Read => 4,
            Self::Played => 5,
        }
    }
}

/// The key of a message in a chat with a user or group.
fn key(chat: &Jid, people: Option<&User>, from_me: bool, id: &str, prefer: Prefer) -> MessageKey {
    let mut key = MessageKey::new(chat.to_bare(), from_me, id);
    key.remote_jid_alt = people.and_then(|user| user.other(chat)).cloned();
    key.addressing_mode = match (chat.is_lid_family(), chat.is_pn_family()) {
        (true, _) => Some(AddressingMode::Lid),
        (_, true) => Some(AddressingMode::Pn),
        _ => None,
    };
    key.preferring(prefer)
}

fn inbound_key(context: &Context<'_>, prefer: Prefer) -> MessageKey {
    let inbound = context.message;
    let mut key = key(&inbound.chat, Some(context.chat), inbound.from_me, &inbound.ack.id, Prefer::Addressed);
    if let Some(author) = inbound.author() {
        key.participant_alt = context.sender.other(&author).cloned();
        key.participant = Some(author);
    }
    key.preferring(prefer)
}

/// An object with content and what can be said about it.
fn object(key: MessageKey, message: &e2e::Message) -> MessageObject {
    let view = normalise(message);
    let mut object = MessageObject::new(key).with_phones();
    object.message = content(view.original());
    object.kind = Some(view.kind().as_str());
    object.text = view.text().map(str::to_owned);
    object.reply = view.selection().map(|selection| Reply::new(selection.id, selection.text));
    object.view_once = view.view_once().is_some();
    object.ephemeral = view.expiration();
    object
}

/// The content as JSON. The message secret is left out, with the version of the reporting token that is made with it, and what held
/// nothing else; content that is too deep or too large for JSON as well: the application still hears of the message.
fn content(message: &e2e::Message) -> Option<Value> {
    let options = json::Options::default();
    let content = json::to_json_message(message, &options);
    let mut content = content.inspect_err(|error| tracing::warn!(%error, "message content is left out")).ok()?;
    if let Value::Object(fields) = &mut content
        && let Some(Value::Object(context)) = fields.get_mut("messageContextInfo")
    {
        context.remove("reportingTokenVersion");
        if context.is_empty() {
            fields.remove("messageContextInfo");
        }
    }
    Some(content)
}

/// A message of somebody else.
pub(crate) fn received(context: &Context<'_>, message: &e2e::Message, prefer: Prefer) -> Event {
    let inbound = context.message;
    let mut object = object(inbound_key(context, prefer), message);
    object.key.server_id.clone_from(&inbound.server_id);
    object.message_timestamp = Some(inbound.timestamp);
    object.push_name = inbound.push_name.as_ref().map(ToString::to_string);
    object.broadcast = Some(inbound.chat.is_broadcast());
    object.source = Some(context.source);
    MessageReceived::new(vec![object]).into()
}

/// A message that another device of ours sent.
pub(crate) fn sent_elsewhere(inbound: &InboundMessage, chat: &User, message: &e2e::Message, prefer: Prefer) -> Event {
    let key = key(&inbound.chat, Some(chat), true, &inbound.ack.id, prefer);
    let mut object = object(key, message);
    object.message_timestamp = Some(inbound.timestamp);
    object.status = Some(MessageStatus::ServerAck);
    object.source = Some(Source::Device);
    MessageSent::new(vec![object]).into()
}

/// A message of ours is with the server.
pub(crate) fn sent(
    chat: &Jid,
    people: &User,
    id: &str,
    timestamp: u64,
    message: &[u8],
    client_ref: Option<&str>,
    prefer: Prefer,
) -> Event {
    let key = key(chat, Some(people), true, id, prefer);
    let mut object = match message::decode(message) {
        Ok(message) => object(key, &message),
        Err(_) => MessageObject::new(key).with_phones(),
    };
    object.message_timestamp = Some(timestamp);
    object.status = Some(MessageStatus::ServerAck);
    object.client_ref = client_ref.map(str::to_owned);
    MessageSent::new(vec![object]).into()
}

/// A message of ours will not get there.
pub(crate) fn send_failed(
    to: &Jid,
    people: &User,
    id: &str,
    client_ref: Option<&str>,
    failure: &SendFailure,
    prefer: Prefer,
) -> Event {
    let key = key(to, Some(people), true, id, prefer);
    let mut object = MessageObject::with_error(key, failure.0.clone()).with_phones();
    object.client_ref = client_ref.map(str::to_owned);
    MessageFailed::new(vec![object]).into()
}

/// What a receipt is about.
pub(crate) struct ReceiptAbout<'a> {
    /// The chat as addressed.
    pub(crate) chat: &'a Jid,
    pub(crate) people: &'a User,
    pub(crate) id: &'a str,
    /// The reader as addressed, without device.
    pub(crate) jid: &'a Jid,
    pub(crate) reader: &'a User,
    /// What was sent, if the event is to show it.
    pub(crate) sent: Option<&'a SentRecord>,
    /// Nobody else had got as far.
    pub(crate) first: bool,
    pub(crate) prefer: Prefer,
}

/// Somebody got, read or played a message of ours. `implied`: it is known only because more than that is.
pub(crate) fn receipt(about: &ReceiptAbout<'_>, status: ReceiptStatus, timestamp: u64, implied: bool) -> Event {
    let mut key = key(about.chat, Some(about.people), true, about.id, about.prefer);
    let reader = match about.prefer {
        Prefer::Lid => about.reader.lid.as_ref(),
        _ => about.reader.pn.as_ref(),
    };
    let reader = reader.unwrap_or(&about.reader.canonical);
    let is_one_of_many = about.chat.is_group() || about.chat.is_broadcast();
    if is_one_of_many {
        key.participant_alt = about.reader.other(about.jid).cloned();
        key.participant = Some(about.jid.clone());
        key = key.preferring(about.prefer);
    }
    let receipt = Receipt::new(reader.clone(), status.kind(), timestamp);
    let mut object = MessageObject::with_receipt(key, receipt).with_phones();
    object.first = is_one_of_many && about.first;
    object.implied = implied;
    if let Some(Ok(message)) = about.sent.map(|sent| message::decode(&sent.message)) {
        object.message = content(&message);
    }
    match status {
        ReceiptStatus::Delivered => MessageDelivered::new(vec![object]).into(),
        ReceiptStatus::Read | ReceiptStatus::Played => MessageRead::new(vec![object]).into(),
    }
}

/// Why a message cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Undecryptable {
    reason: String,
    will_retry: bool,
    hidden: bool,
}

impl Undecryptable {
    /// The Signal layer refused it.
    pub(crate) fn failed(error: &SignalError, hidden: bool) -> Self {
        let reason = match error {
            SignalError::NoSession => "no_session",
            SignalError::NoSenderKey => "no_sender_key",
            SignalError::BadSignature => "bad_signature",
            SignalError::BadMac => "bad_mac",
            // Another message than the one that used this key before: the sender's state went back.
            SignalError::Duplicate => "duplicate_counter",
            SignalError::InvalidPreKeyId(_) | SignalError::InvalidSignedPreKeyId(_) => "invalid_prekey_id",
            SignalError::TooFarAhead { .. } => "too_far_ahead",
            SignalError::IdentityMismatch => "identity_mismatch",
            SignalError::Key(_) => "invalid_key",
            SignalError::RecordVersion { .. } | SignalError::Record { .. } => "invalid_session",
            _ => "invalid_message",
        };
        Self { reason: reason.to_owned(), will_retry: false, hidden }
    }

    /// Whether the sender or the phone is asked to send it again.
    pub(crate) fn asked_again(self, will_retry: bool) -> Self {
        Self { will_retry, ..self }
    }

    /// A placeholder without content.
    pub(crate) fn unavailable(kind: &str) -> Self {
        let reason = if kind.is_empty() { "unavailable".to_owned() } else { kind.to_owned() };
        Self { reason, will_retry: false, hidden: false }
    }

    /// The reply of a bot, made with another secret than that of the message it answers.
    pub(crate) fn bot_reply(hidden: bool) -> Self {
        Self { reason: "invalid_message".to_owned(), will_retry: false, hidden }
    }

    /// The reply of a bot to a message whose secret is not known.
    pub(crate) fn no_message_secret() -> Self {
        Self { reason: "no_message_secret".to_owned(), will_retry: false, hidden: false }
    }
}

/// A message arrived that cannot be shown.
pub(crate) fn undecryptable(context: &Context<'_>, why: &Undecryptable, prefer: Prefer) -> Event {
    let key = inbound_key(context, prefer);
    MessageUndecryptable::new(key, why.reason.clone(), why.will_retry, why.hidden).into()
}
