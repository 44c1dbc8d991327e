//! Outgoing content: texts and replies, the copy for our own devices, message secrets (spec 03 §4.2, spec 06 §1.9, §3.1).

use bytes::Bytes;

use super::{
    MessageError,
    content::Field,
    id::MessageId,
    normalise::{Action, normalise},
    protocol::ProtocolKind,
};
use crate::{
    crypto::{Rng, Secret},
    jid::Jid,
    proto::{
        common::MessageKey,
        e2e::{
            ContextInfo, DeviceSentMessage, EventMessage, ExtendedTextMessage, LocationMessage, Message,
            MessageContextInfo, PinInChatMessage, PollCreationMessage, ProtocolMessage, ReactionMessage,
            SenderKeyDistributionMessage, pin_in_chat_message, poll_creation_message,
        },
    },
};

/// The message that a reply answers.
#[derive(Clone, Debug)]
pub struct Quote<'a> {
    /// Its id.
    pub id: &'a MessageId,
    /// Who wrote it; a device is dropped. In a channel: the channel.
    pub author: &'a Jid,
    /// What it said, as it was received or sent.
    pub message: &'a Message,
    /// The chat it stands in, when that is not the chat of the reply.
    pub chat: Option<&'a Jid>,
}

/// A text without anything around it.
pub fn text(text: impl Into<String>) -> Message {
    Message { conversation: Some(text.into()), ..Default::default() }
}

/// A text that answers another message.
pub fn reply(text: impl Into<String>, quote: &Quote<'_>) -> Message {
    let extended = ExtendedTextMessage {
        text: Some(text.into()),
        context_info: Some(Box::new(quote_context(quote))),
        ..Default::default()
    };
    Message { extended_text_message: Some(Box::new(extended)), ..Default::default() }
}

/// A text that mentions people: it holds `@` and the user part of each, in the addressing of the chat.
pub fn mentioning(text: impl Into<String>, people: &[Jid]) -> Message {
    let context = ContextInfo {
        mentioned_jid: people.iter().map(|jid| jid.to_account().to_string()).collect(),
        ..Default::default()
    };
    let extended =
        ExtendedTextMessage { text: Some(text.into()), context_info: Some(Box::new(context)), ..Default::default() };
    Message { extended_text_message: Some(Box::new(extended)), ..Default::default() }
}

/// The context that makes any content a reply: id, author, and the quoted content without its own quote and secrets.
pub fn quote_context(quote: &Quote<'_>) -> ContextInfo {
    ContextInfo {
        stanza_id: Some(quote.id.as_str().to_owned()),
        participant: Some(quote.author.to_bare().to_string()),
        quoted_message: Some(Box::new(quotable(quote.message))),
        remote_jid: quote.chat.map(Jid::to_string),
        ..Default::default()
    }
}

/// What is left of a message when it is quoted: the content inside all wrappers, without `contextInfo` and
/// `messageContextInfo`.
pub fn quotable(message: &Message) -> Message {
    let mut quoted = normalise(message).content().clone();
    quoted.message_context_info = None;
    quoted.sender_key_distribution_message = None;
    quoted.fast_ratchet_key_sender_key_distribution_message = None;
    if let Some(field) = Field::of(&quoted) {
        drop(field.take_context(&mut quoted));
    }
    quoted
}

/// Gives a message for users the secret that reactions, votes, edits and comments on it are encrypted with, and tells it.
///
/// A secret that is there already stays. `None` for what takes none: reactions, votes, edits, revokes, pins, keys and
/// other signalling, and what carries a comment, which has one inside.
pub fn ensure_secret(message: &mut Message, rng: &mut impl Rng) -> Option<Secret<32>> {
    let view = normalise(message);
    if let Some(secret) = view.message_secret() {
        return Some(Secret::new(*secret));
    }
    let takes_none = matches!(view.field(), Some(Field::PollUpdate | Field::EncEventResponse | Field::EncComment));
    if view.action() != Action::Content || takes_none {
        return None;
    }
    let secret = Secret::random(rng);
    let context = message.message_context_info.get_or_insert_default();
    context.message_secret = Some(Bytes::copy_from_slice(secret.expose()));
    Some(secret)
}

/// The copy for our other devices: `message` inside, its context info hoisted to the outer level. `destination` is the `to`
/// of the stanza.
pub fn device_sent(destination: &Jid, mut message: Message) -> Message {
    let context: Option<Box<MessageContextInfo>> = message.message_context_info.take();
    let sent = DeviceSentMessage {
        destination_jid: Some(destination.to_string()),
        message: Some(Box::new(message)),
        phash: None,
    };
    Message { device_sent_message: Some(Box::new(sent)), message_context_info: context, ..Default::default() }
}

/// The message that hands a sender key to one device: `distribution` is the serialised key for `chat`.
pub fn sender_key_distribution(chat: &Jid, distribution: impl Into<Bytes>) -> Message {
    let key = SenderKeyDistributionMessage {
        group_id: Some(chat.to_text()),
        axolotl_sender_key_distribution_message: Some(distribution.into()),
    };
    Message { sender_key_distribution_message: Some(Box::new(key)), ..Default::default() }
}

/// The sender key that a message hands over: the chat it is for, as text, and the serialised key. The chat must equal the
/// one of the stanza (spec 03 §5.2).
pub fn handed_sender_key(message: &Message) -> Option<(&str, &Bytes)> {
    let key = message.sender_key_distribution_message.as_deref()?;
    Some((key.group_id.as_deref()?, key.axolotl_sender_key_distribution_message.as_ref()?))
}

// ---- what refers to another message ---------------------------------------------------------------------------------

/// An emoji on a message; an empty one takes it away. `key` names the message from our point of view, `now_ms` is the wall clock
/// in ms.
pub fn reaction(key: MessageKey, emoji: impl Into<String>, now_ms: i64) -> Message {
    let reaction = ReactionMessage {
        key: Some(Box::new(key)),
        text: Some(emoji.into()),
        sender_timestamp_ms: Some(now_ms),
        ..Default::default()
    };
    Message { reaction_message: Some(Box::new(reaction)), ..Default::default() }
}

/// New content for a message of ours: all of it, a text or media with another caption.
pub fn edit(key: MessageKey, mut message: Message, now_ms: i64) -> Message {
    // The context of the edit itself counts.
    message.message_context_info = None;
    protocol(ProtocolMessage {
        key: Some(Box::new(key)),
        r#type: Some(ProtocolKind::MessageEdit as i32),
        edited_message: Some(Box::new(message)),
        timestamp_ms: Some(now_ms),
        ..Default::default()
    })
}

/// Deletes a message for everybody.
pub fn revoke(key: MessageKey) -> Message {
    protocol(ProtocolMessage {
        key: Some(Box::new(key)),
        r#type: Some(ProtocolKind::Revoke as i32),
        ..Default::default()
    })
}

/// Pins a message for everybody, for so many seconds: 86,400, 604,800 or 2,592,000.
pub fn pin(key: MessageKey, seconds: u32, now_ms: i64) -> Message {
    let mut message = pinned(key, pin_in_chat_message::Type::PinForAll, now_ms);
    message.message_context_info.get_or_insert_default().message_add_on_duration_in_secs = Some(seconds);
    message
}

/// Takes a pin off.
pub fn unpin(key: MessageKey, now_ms: i64) -> Message {
    pinned(key, pin_in_chat_message::Type::UnpinForAll, now_ms)
}

fn pinned(key: MessageKey, kind: pin_in_chat_message::Type, now_ms: i64) -> Message {
    let pin =
        PinInChatMessage { key: Some(Box::new(key)), r#type: Some(kind as i32), sender_timestamp_ms: Some(now_ms) };
    Message { pin_in_chat_message: Some(Box::new(pin)), ..Default::default() }
}

fn protocol(protocol: ProtocolMessage) -> Message {
    Message { protocol_message: Some(Box::new(protocol)), ..Default::default() }
}

// ---- polls and events -----------------------------------------------------------------------------------------------

/// How many options of a poll one voter may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Choice {
    /// One.
    Single,
    /// As many as one likes.
    Any,
    /// At most so many; at least 1.
    UpTo(u32),
}

/// A poll. A vote names its options, so they are to stay as they are.
///
/// # Errors
/// [`MessageError::Poll`] unless there are a question and 2 to 12 different options of at most 512 bytes.
pub fn poll(question: impl Into<String>, options: &[&str], choice: Choice) -> Result<Message, MessageError> {
    let question = question.into();
    let mut names = options.to_vec();
    names.sort_unstable();
    names.dedup();
    let is_sound = !question.is_empty()
        && (2..=MAX_POLL_OPTIONS).contains(&options.len())
        && names.len() == options.len()
        && names.iter().all(|name| !name.is_empty() && name.len() <= MAX_OPTION_LEN)
        && choice != Choice::UpTo(0);
    if !is_sound {
        return Err(MessageError::Poll);
    }
    let option =
        |name: &&str| poll_creation_message::Option { option_name: Some((*name).to_owned()), ..Default::default() };
    let poll = PollCreationMessage {
        name: Some(question),
        options: options.iter().map(option).collect(),
        selectable_options_count: Some(match choice {
            Choice::Single => 1,
            Choice::Any => 0,
            Choice::UpTo(count) => count,
        }),
        ..Default::default()
    };
    let poll = Some(Box::new(poll));
    Ok(match choice {
        Choice::Single | Choice::UpTo(1) => Message { poll_creation_message_v3: poll, ..Default::default() },
        _ => Message { poll_creation_message: poll, ..Default::default() },
    })
}

/// An event. Times are unix seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventDetails {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub description: Option<String>,
    /// When it starts.
    pub start: i64,
    /// When it ends.
    pub end: Option<i64>,
    /// Where.
    pub location: Option<LocationMessage>,
    /// A link to join a call.
    pub join_link: Option<String>,
    /// Whether guests may bring others along.
    pub extra_guests: bool,
}

/// An event that can be answered to.
pub fn event(details: EventDetails) -> Message {
    let event = EventMessage {
        is_canceled: Some(false),
        name: Some(details.name),
        description: details.description,
        location: details.location.map(Box::new),
        join_link: details.join_link,
        start_time: Some(details.start),
        end_time: details.end,
        extra_guests_allowed: Some(details.extra_guests),
        ..Default::default()
    };
    Message { event_message: Some(Box::new(event)), ..Default::default() }
}

/// Most options of a poll that official clients show.
const MAX_POLL_OPTIONS: usize = 12;
/// Longest option, bytes; official clients allow 100 characters.
const MAX_OPTION_LEN: usize = 512;
