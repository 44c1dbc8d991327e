//! What becomes of messages: edits, deletions, reactions, votes, answers, comments (spec 07 §5 and §7.2).
//!
//! Every key of these events is from our own point of view, whoever sent it: `fromMe` says whether *we* wrote the message. The
//! target of what arrives need not be known to the embedding program: it may have come before the device was linked, or be still
//! on its way; `orphan` marks a target that this device has not seen.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::message::{MessageKey, MessageObject, bare, bare_option, is_false};
use crate::{jid::Jid, proto::web::web_message_info::StubType};

/// A message whose content or standing changed; `Debug` shows none of it.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct UpdatedMessage {
    /// The message that changed.
    pub key: MessageKey,
    /// When the change was sent, unix seconds of the server.
    pub message_timestamp: u64,
    /// Its content was replaced. Left out when false.
    #[serde(skip_serializing_if = "is_false")]
    pub edited: bool,
    /// The id of the message that brought the change.
    pub edit_id: String,
    /// The same in the shape of `messages.update` of Baileys; edits only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update: Option<Value>,
    /// The new content as JSON; edits only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Value>,
    /// The new text or caption.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// It was pinned, or the pin was taken off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin: Option<Pin>,
    /// It is kept in a chat whose messages disappear, or not any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Keep>,
    /// It is the reply of a bot, which has gone on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bot: Option<BotPiece>,
    /// An option that somebody added to it, a poll.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added_option: Option<String>,
    /// The edit was sent later than the 20 minutes within which official clients take one: they show the old content. Left
    /// out when false.
    #[serde(skip_serializing_if = "is_false")]
    pub late: bool,
    /// This device has not seen the message. Left out when false.
    #[serde(skip_serializing_if = "is_false")]
    pub orphan: bool,
    /// Digits of the chat's phone number, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Digits of the author's phone number, in groups, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author_phone: Option<String>,
}

impl UpdatedMessage {
    /// A change of which only the mandatory parts are known.
    pub fn new(key: MessageKey, message_timestamp: u64, edit_id: impl Into<String>) -> Self {
        Self {
            phone: key.phone().map(str::to_owned),
            author_phone: key.author_phone().map(str::to_owned),
            key,
            message_timestamp,
            edited: false,
            edit_id: edit_id.into(),
            update: None,
            message: None,
            text: None,
            pin: None,
            keep: None,
            bot: None,
            added_option: None,
            late: false,
            orphan: false,
        }
    }
}

/// A pin.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Pin {
    /// `PIN_FOR_ALL` or `UNPIN_FOR_ALL`.
    pub action: &'static str,
    /// Who did it.
    #[serde(serialize_with = "bare")]
    pub by: Jid,
    /// When the pin comes off by itself, unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

impl Pin {
    /// From its parts.
    pub fn new(action: &'static str, by: Jid, expires_at: Option<u64>) -> Self {
        Self { action, by, expires_at }
    }
}

/// A message that is kept.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Keep {
    /// `KEEP_FOR_ALL` or `UNDO_KEEP_FOR_ALL`.
    pub action: &'static str,
    /// Who did it.
    #[serde(serialize_with = "bare")]
    pub by: Jid,
}

impl Keep {
    /// From its parts.
    pub fn new(action: &'static str, by: Jid) -> Self {
        Self { action, by }
    }
}

/// A piece of the reply of a bot, which takes the place of the pieces before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BotPiece {
    /// `inner`, and `last` when the reply is complete.
    pub edit: &'static str,
}

impl BotPiece {
    /// One more piece, or the last one.
    pub fn new(is_last: bool) -> Self {
        Self { edit: if is_last { "last" } else { "inner" } }
    }
}

/// Why a message is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeleteReason {
    /// Its author deleted it.
    Author,
    /// An admin of the group did.
    Admin,
    /// Another device of our account did, for us only.
    Device,
}

/// For whom a message is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeleteScope {
    /// Everybody in the chat.
    Everyone,
    /// This account.
    Me,
}

/// A message that was deleted.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct DeletedMessage {
    /// The message that is gone.
    pub key: MessageKey,
    /// When, unix seconds of the server.
    pub message_timestamp: u64,
    /// Who deleted it.
    #[serde(serialize_with = "bare")]
    pub deleted_by: Jid,
    /// For whom.
    pub scope: DeleteScope,
    /// Why.
    pub reason: DeleteReason,
    /// Always `REVOKE`.
    #[serde(serialize_with = "revoke")]
    message_stub_type: (),
    /// Always null: there is nothing left.
    message: (),
    /// This device has not seen the message. Left out when false.
    #[serde(skip_serializing_if = "is_false")]
    pub orphan: bool,
    /// Digits of the chat's phone number, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Digits of the author's phone number, in groups, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author_phone: Option<String>,
}

impl DeletedMessage {
    /// A message that is gone for everybody.
    pub fn new(key: MessageKey, message_timestamp: u64, deleted_by: Jid, reason: DeleteReason) -> Self {
        Self {
            phone: key.phone().map(str::to_owned),
            author_phone: key.author_phone().map(str::to_owned),
            key,
            message_timestamp,
            deleted_by,
            scope: DeleteScope::Everyone,
            reason,
            message_stub_type: (),
            message: (),
            orphan: false,
        }
    }
}

/// An emoji on a message.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Reaction {
    /// The reaction itself: who sent it, and its id.
    pub key: MessageKey,
    /// The emoji; empty when it was taken away.
    pub text: String,
    /// When, by the clock of the sender, unix milliseconds; a text, as 64-bit numbers of content are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_timestamp_ms: Option<String>,
    /// It was taken away.
    pub removed: bool,
}

impl Reaction {
    /// From its parts.
    pub fn new(key: MessageKey, text: String, sender_timestamp_ms: Option<i64>) -> Self {
        let removed = text.is_empty();
        Self { key, text, sender_timestamp_ms: sender_timestamp_ms.map(|at| at.to_string()), removed }
    }
}

/// A message that somebody reacted to.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ReactedMessage {
    /// The message.
    pub key: MessageKey,
    /// The reaction.
    pub reaction: Reaction,
    /// When the reaction was sent, unix seconds of the server.
    pub message_timestamp: u64,
    /// The display name of who reacted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_name: Option<String>,
    /// The reaction as content, with its key from our point of view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Value>,
    /// This device has not seen the message. Left out when false.
    #[serde(skip_serializing_if = "is_false")]
    pub orphan: bool,
    /// Digits of the chat's phone number, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Digits of the phone number of who reacted, in groups, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author_phone: Option<String>,
}

impl ReactedMessage {
    /// With the mandatory parts.
    pub fn new(key: MessageKey, reaction: Reaction, message_timestamp: u64) -> Self {
        Self {
            phone: key.phone().map(str::to_owned),
            author_phone: reaction.key.author_phone().map(str::to_owned),
            key,
            reaction,
            message_timestamp,
            push_name: None,
            message: None,
            orphan: false,
        }
    }
}

/// How an option of a poll stands.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct PollResult {
    /// The option.
    pub name: String,
    /// How many chose it, by the votes that this device has seen.
    pub votes: u32,
}

impl PollResult {
    /// From its parts.
    pub fn new(name: String, votes: u32) -> Self {
        Self { name, votes }
    }
}

event_data! {
    /// Messages were edited, pinned or kept; `edited`, `pin`, `keep`, `addedOption` tell which.
    #[derive(Debug)]
    MessageUpdated {
        /// The messages.
        messages: Vec<UpdatedMessage>,
    }
}

event_data! {
    /// Messages were deleted.
    #[derive(Debug)]
    MessageDeleted {
        /// The messages.
        messages: Vec<DeletedMessage>,
    }
}

event_data! {
    /// Somebody put an emoji on messages, or took it away.
    #[derive(Debug)]
    MessageReaction {
        /// The messages.
        messages: Vec<ReactedMessage>,
    }
}

event_data! {
    /// Somebody voted in a poll. A later vote of the same voter replaces this one.
    MessagePollVote {
        /// The vote itself.
        key: MessageKey,
        /// The poll.
        poll_key: MessageKey,
        /// Who voted.
        #[serde(serialize_with = "bare")]
        voter: Jid,
        /// The voter's other identity, if known.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "bare_option")]
        voter_alt: Option<Jid>,
        /// The options chosen, as far as their names are known; none takes the vote back.
        selected: Vec<String>,
        /// The options chosen: SHA-256 of their names, base64.
        hashes: Vec<String>,
        /// When, by the clock of the voter, unix milliseconds.
        sender_timestamp_ms: i64,
        /// A later vote of this voter is known: this one does not count. Left out when false.
        #[serde(skip_serializing_if = "is_false")]
        outdated: bool,
        /// How the poll stands now; empty when its options are not known.
        tally: Vec<PollResult>,
    }
}

/// What somebody answers to an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum EventAnswer {
    /// Will come.
    Going,
    /// Will not come.
    NotGoing,
    /// May come.
    Maybe,
    /// A newer word.
    Unknown,
}

event_data! {
    /// Somebody answered to an event. A later answer of the same person replaces this one.
    MessageEventResponse {
        /// The answer itself.
        key: MessageKey,
        /// The event.
        event_key: MessageKey,
        /// Who answered.
        #[serde(serialize_with = "bare")]
        responder: Jid,
        /// The other identity, if known.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "bare_option")]
        responder_alt: Option<Jid>,
        /// The answer.
        response: EventAnswer,
        /// How many guests come along.
        extra_guest_count: u32,
        /// When, by the clock of the sender, unix milliseconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        sender_timestamp_ms: Option<i64>,
    }
}

/// A comment on a message: the comment as a message object, and what it is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct MessageComment {
    /// The message that is commented on.
    pub target_key: MessageKey,
    /// The comment.
    #[serde(flatten)]
    pub comment: Box<MessageObject>,
}

impl MessageComment {
    /// From its parts.
    pub fn new(target_key: MessageKey, comment: MessageObject) -> Self {
        Self { target_key, comment: Box::new(comment) }
    }
}

/// Shows which message, and nothing of it.
macro_rules! debug_key {
    ($($name:ident),* $(,)?) => {
        $(
            impl fmt::Debug for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.debug_struct(stringify!($name)).field("key", &self.key).finish_non_exhaustive()
                }
            }
        )*
    };
}

debug_key!(UpdatedMessage, DeletedMessage, ReactedMessage, MessagePollVote, MessageEventResponse);
opaque_debug!(Pin, Keep, Reaction, PollResult);

fn revoke<S: Serializer>(_: &(), serializer: S) -> Result<S::Ok, S::Error> {
    StubType::Revoke.as_str_name().serialize(serializer)
}
