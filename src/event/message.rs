//! `message.*` and the message object (spec 07 §4 and §5).
//!
//! A message object is built from typed parts; only the protobuf content is JSON already, converted once when the object is
//! made ([`MessageObject::with_wire`]). What is absent is left out.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::EventError;
use crate::{
    jid::Jid,
    proto::{
        e2e::Message,
        json::{self, Options},
        web::web_message_info::StubType,
    },
};

/// Whether a chat addresses its members by phone number or by hidden id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum AddressingMode {
    /// Phone numbers.
    Pn,
    /// Hidden ids.
    Lid,
}

/// Which of two identities a key shows first (spec 07 §2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Prefer {
    /// As the server addressed it.
    #[default]
    Addressed,
    /// The phone number, when it is known.
    Pn,
    /// The hidden id, when it is known.
    Lid,
}

/// Which message. JIDs are printed without device.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct MessageKey {
    /// The chat, as the server addresses it.
    #[serde(serialize_with = "bare")]
    pub remote_jid: Jid,
    /// The chat's other identity, if known.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "bare_option")]
    pub remote_jid_alt: Option<Jid>,
    /// The chat's user name, if the server gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_jid_username: Option<String>,
    /// Sent by this account.
    pub from_me: bool,
    /// The message id.
    pub id: String,
    /// The author, in groups, broadcasts and status.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "bare_option")]
    pub participant: Option<Jid>,
    /// The author's other identity, if known.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "bare_option")]
    pub participant_alt: Option<Jid>,
    /// The author's user name, if the server gives it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant_username: Option<String>,
    /// How the chat addresses its members, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addressing_mode: Option<AddressingMode>,
    /// The number that a channel gives its messages.
    #[serde(rename = "server_id", skip_serializing_if = "Option::is_none")]
    pub server_id: Option<String>,
}

impl MessageKey {
    /// A key with its mandatory parts.
    pub fn new(remote_jid: Jid, from_me: bool, id: impl Into<String>) -> Self {
        Self {
            remote_jid,
            remote_jid_alt: None,
            remote_jid_username: None,
            from_me,
            id: id.into(),
            participant: None,
            participant_alt: None,
            participant_username: None,
            addressing_mode: None,
            server_id: None,
        }
    }

    /// The same key with the preferred identities first, where both are known.
    #[must_use]
    pub fn preferring(mut self, prefer: Prefer) -> Self {
        let wanted = match prefer {
            Prefer::Addressed => return self,
            Prefer::Pn => Jid::is_pn_family,
            Prefer::Lid => Jid::is_lid_family,
        };
        if !wanted(&self.remote_jid)
            && let Some(alt) = self.remote_jid_alt.as_mut().filter(|alt| wanted(alt))
        {
            std::mem::swap(&mut self.remote_jid, alt);
        }
        if let (Some(first), Some(alt)) = (self.participant.as_mut(), self.participant_alt.as_mut())
            && !wanted(first)
            && wanted(alt)
        {
            std::mem::swap(first, alt);
        }
        self
    }

    /// Digits of the chat's phone number, if the chat is a user whose number is known.
    pub fn phone(&self) -> Option<&str> {
        phone([Some(&self.remote_jid), self.remote_jid_alt.as_ref()])
    }

    /// Digits of the author's phone number, in groups and status, if known.
    pub fn author_phone(&self) -> Option<&str> {
        phone([self.participant.as_ref(), self.participant_alt.as_ref()])
    }
}

/// How far a message of ours got. Only ever rises, but for [`MessageStatus::Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum MessageStatus {
    /// Refused, or its fate is unknown.
    Error,
    /// Not acknowledged yet.
    Pending,
    /// The server has it.
    ServerAck,
    /// A device of the recipient has it.
    DeliveryAck,
    /// It was read.
    Read,
    /// It was played.
    Played,
}

impl MessageStatus {
    /// The name in the schema.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Pending => "PENDING",
            Self::ServerAck => "SERVER_ACK",
            Self::DeliveryAck => "DELIVERY_ACK",
            Self::Read => "READ",
            Self::Played => "PLAYED",
        }
    }

    /// The number in the schema, which live events of Baileys show.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

/// How a message came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// Just sent.
    Live,
    /// From the server's queue of the time that we were away.
    Offline,
    /// From history.
    History,
    /// The phone sent it again because we could not decrypt it.
    PhoneResend,
    /// Another device of the account sent it.
    Device,
}

/// What was tapped or picked. `Debug` hides it.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Reply {
    /// The id that the sender of the buttons gave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selected_id: Option<String>,
    /// What the user saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selected_text: Option<String>,
}

impl Reply {
    /// From id and text.
    pub fn new(selected_id: Option<String>, selected_text: Option<String>) -> Self {
        Self { selected_id, selected_text }
    }
}

/// Why a message was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The server refused it with this code.
    Refused {
        /// The `error` of the ack (spec 06 §1.13).
        code: u16,
        /// The same in words.
        text: Option<String>,
    },
    /// No answer in time: it may or may not have been sent.
    Timeout,
    /// It never left, for a reason of ours.
    Local {
        /// A short stable word: `no_devices`, `not_connected`, `cancelled` …
        code: &'static str,
        /// More for a person, without personal data.
        text: Option<String>,
    },
}

impl Serialize for SendError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Refused { code, text } => {
                map.serialize_entry("code", code)?;
                if let Some(text) = text {
                    map.serialize_entry("text", text)?;
                }
            }
            Self::Timeout => {
                map.serialize_entry("code", "timeout")?;
                map.serialize_entry("outcome", "unknown")?;
            }
            Self::Local { code, text } => {
                map.serialize_entry("code", code)?;
                if let Some(text) = text {
                    map.serialize_entry("text", text)?;
                }
            }
        }
        map.end()
    }
}

/// What a receipt reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReceiptKind {
    /// A device has the message.
    Delivered,
    /// The user read it.
    Read,
    /// The user played it.
    Played,
}

impl ReceiptKind {
    /// The status that a message has after it.
    pub const fn status(self) -> MessageStatus {
        match self {
            Self::Delivered => MessageStatus::DeliveryAck,
            Self::Read => MessageStatus::Read,
            Self::Played => MessageStatus::Played,
        }
    }
}

/// Who got, read or played a message, and when.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// Who; printed without device.
    pub user: Jid,
    /// What.
    pub kind: ReceiptKind,
    /// When, unix seconds of the server.
    pub timestamp: u64,
}

impl Receipt {
    /// From its parts.
    pub fn new(user: Jid, kind: ReceiptKind, timestamp: u64) -> Self {
        Self { user, kind, timestamp }
    }
}

impl Serialize for Receipt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let timestamp = match self.kind {
            ReceiptKind::Delivered => "receiptTimestamp",
            ReceiptKind::Read => "readTimestamp",
            ReceiptKind::Played => "playedTimestamp",
        };
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("userJid", &self.user.to_bare())?;
        map.serialize_entry(timestamp, &self.timestamp)?;
        map.end()
    }
}

/// A message as events show it. Start with [`MessageObject::new`] and set what is known; `Debug` shows none of it.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct MessageObject {
    /// Which message.
    pub key: MessageKey,
    /// When it was sent, unix seconds of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_timestamp: Option<u64>,
    /// The sender's own display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_name: Option<String>,
    /// Sent to a broadcast list. Present in received messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<bool>,
    /// How far it got; messages of ours only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<MessageStatus>,
    /// The verified name of a business.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_biz_name: Option<String>,
    /// The `category` of the stanza, such as `peer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// What stands in for content that is not there.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "stub_name")]
    pub message_stub_type: Option<StubType>,
    /// Details of the stub.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub message_stub_parameters: Vec<String>,
    /// Digits of the chat's phone number, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Digits of the author's phone number, in groups, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author_phone: Option<String>,
    /// What the message is to a user: `text`, `image`, `voice` … (spec 07 §4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// Text or caption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What was tapped or picked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
    /// To be looked at once only. Left out when false.
    #[serde(skip_serializing_if = "is_false")]
    pub view_once: bool,
    /// The content stayed on the phone. Left out when false.
    #[serde(skip_serializing_if = "is_false")]
    pub unavailable: bool,
    /// Seconds after which it disappears.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral: Option<u32>,
    /// Replaced by an edit. Left out when false.
    #[serde(skip_serializing_if = "is_false")]
    pub edited: bool,
    /// How it came to us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Who got, read or played it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Receipt>,
    /// The first receipt of this kind in a group. Left out when false.
    #[serde(skip_serializing_if = "is_false")]
    pub first: bool,
    /// Not reported by the recipient but known from a later receipt. Left out when false.
    #[serde(skip_serializing_if = "is_false")]
    pub implied: bool,
    /// Why it was not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<SendError>,
    /// The content as JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Value>,
    /// What the caller of a send gave to recognise it by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ref: Option<String>,
}

impl MessageObject {
    /// An object of which only the key is known.
    pub fn new(key: MessageKey) -> Self {
        Self {
            key,
            message_timestamp: None,
            push_name: None,
            broadcast: None,
            status: None,
            verified_biz_name: None,
            category: None,
            message_stub_type: None,
            message_stub_parameters: Vec::new(),
            phone: None,
            author_phone: None,
            kind: None,
            text: None,
            reply: None,
            view_once: false,
            unavailable: false,
            ephemeral: None,
            edited: false,
            source: None,
            receipt: None,
            first: false,
            implied: false,
            error: None,
            message: None,
            client_ref: None,
        }
    }

    /// A message of ours that somebody got, read or played: status and receipt.
    pub fn with_receipt(key: MessageKey, receipt: Receipt) -> Self {
        Self { status: Some(receipt.kind.status()), receipt: Some(receipt), ..Self::new(key) }
    }

    /// A message of ours that was not sent: status and error.
    pub fn with_error(key: MessageKey, error: SendError) -> Self {
        Self { status: Some(MessageStatus::Error), error: Some(error), ..Self::new(key) }
    }

    /// With content from the decrypted bytes. `options` say what is left out: by default the message secret.
    ///
    /// # Errors
    /// [`EventError::Content`].
    pub fn with_wire(self, wire: &[u8], options: &Options<'_>) -> Result<Self, EventError> {
        Ok(Self { message: Some(json::to_json(json::MESSAGE, wire, options)?), ..self })
    }

    /// With content from a decoded message.
    ///
    /// # Errors
    /// [`EventError::Content`].
    pub fn with_message(self, message: &Message, options: &Options<'_>) -> Result<Self, EventError> {
        Ok(Self { message: Some(json::to_json_message(message, options)?), ..self })
    }

    /// With the phone numbers that the key knows.
    #[must_use]
    pub fn with_phones(self) -> Self {
        let phone = self.key.phone().map(str::to_owned);
        let author_phone = self.key.author_phone().map(str::to_owned);
        Self { phone, author_phone, ..self }
    }
}

event_data! {
    /// Content from somebody else. One message unless batching was asked for; at most 100, in order.
    #[derive(Debug)]
    MessageReceived {
        /// The messages.
        messages: Vec<MessageObject>,
    }
}

event_data! {
    /// The server accepted messages of ours, or another device of the account sent them (`source: "device"`).
    #[derive(Debug)]
    MessageSent {
        /// The messages.
        messages: Vec<MessageObject>,
    }
}

event_data! {
    /// Messages of ours that were refused, or whose fate is unknown.
    #[derive(Debug)]
    MessageFailed {
        /// The messages, each with its error.
        messages: Vec<MessageObject>,
    }
}

event_data! {
    /// Messages of ours that reached a recipient.
    #[derive(Debug)]
    MessageDelivered {
        /// The messages, each with its receipt.
        messages: Vec<MessageObject>,
    }
}

event_data! {
    /// Messages of ours that were read or played.
    #[derive(Debug)]
    MessageRead {
        /// The messages, each with its receipt.
        messages: Vec<MessageObject>,
    }
}

/// A message that could not be decrypted, or refers to one that is not known. It may still come: as a retry of the sender, or
/// from the phone.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct MessageUndecryptable {
    /// Which message.
    pub key: MessageKey,
    /// A short stable word: `no_session`, `bad_mac`, `no_sender_key`, `unavailable`, `missing_secret` …
    pub reason: String,
    /// The sender or the phone has been asked to send it again.
    pub will_retry: bool,
    /// The sender does not want a placeholder to be shown.
    pub hidden: bool,
    /// What it is to a user, when that is known: `poll_vote`, `reaction`, `event_response`, `comment`, `protocol` (an edit).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// The message whose secret is needed to read it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_key: Option<MessageKey>,
    /// The content that is still encrypted, for who knows that secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Value>,
}

impl MessageUndecryptable {
    /// From its mandatory parts.
    pub fn new(key: MessageKey, reason: String, will_retry: bool, hidden: bool) -> Self {
        Self { key, reason, will_retry, hidden, kind: None, target_key: None, message: None }
    }
}

impl fmt::Debug for MessageUndecryptable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageUndecryptable")
            .field("key", &self.key)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageKey")
            .field("remote_jid", &self.remote_jid.redacted())
            .field("from_me", &self.from_me)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for MessageObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageObject")
            .field("key", &self.key)
            .field("kind", &self.kind)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

opaque_debug!(Reply);

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("user", &self.user.redacted())
            .field("kind", &self.kind)
            .field("timestamp", &self.timestamp)
            .finish()
    }
}

/// Serializes a JID without its device.
pub(super) fn bare<S: Serializer>(jid: &Jid, serializer: S) -> Result<S::Ok, S::Error> {
    jid.to_bare().serialize(serializer)
}

pub(super) fn bare_option<S: Serializer>(jid: &Option<Jid>, serializer: S) -> Result<S::Ok, S::Error> {
    jid.as_ref().map(Jid::to_bare).serialize(serializer)
}

fn stub_name<S: Serializer>(stub: &Option<StubType>, serializer: S) -> Result<S::Ok, S::Error> {
    stub.map(|stub| stub.as_str_name()).serialize(serializer)
}

pub(super) fn is_false(flag: &bool) -> bool {
    !*flag
}

/// Digits of the first of some identities that is a phone number.
pub(super) fn phone(identities: [Option<&Jid>; 2]) -> Option<&str> {
    identities.into_iter().flatten().find(|jid| jid.is_pn_family() && !jid.is_server_only()).map(Jid::user)
}
