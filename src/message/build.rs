//! Outgoing content: texts and replies, the copy for our own devices, message secrets (spec 03 §4.2, spec 06 §1.9, §3.1).

use bytes::Bytes;

use super::{
    content::Field,
    id::MessageId,
    normalise::{Action, normalise},
};
use crate::{
    crypto::{Rng, Secret},
    jid::Jid,
    proto::e2e::{
        ContextInfo, DeviceSentMessage, ExtendedTextMessage, Message, MessageContextInfo, SenderKeyDistributionMessage,
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
/// other signalling.
pub fn ensure_secret(message: &mut Message, rng: &mut impl Rng) -> Option<Secret<32>> {
    let view = normalise(message);
    if let Some(secret) = view.message_secret() {
        return Some(Secret::new(*secret));
    }
    let takes_none = matches!(view.field(), Some(Field::PollUpdate | Field::EncEventResponse));
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
        group_id: Some(chat.to_string()),
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
