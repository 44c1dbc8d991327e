//! From a decrypted `Message` to what it says (spec 06 §2): wrappers off, contexts merged, kind and text found.
//!
//! ```text
//! Message ── device-sent? ──► inner ── wrappers, at most 16 ──► content ── lowest field ──► kind, text, selection
//! ```
//!
//! Nothing is copied but the merged context info: a [`Normalised`] borrows from the message. The message as it came (after
//! the device-sent wrapper, [`Normalised::original`]) stays what events show.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::{
    content::{Field, Wrapper},
    kind::{self, Kind, Selection},
    protocol::{self, ProtocolType},
};
use crate::proto::{
    common::MessageKey,
    e2e::{ContextInfo, Message, MessageContextInfo, PollCreationMessage, ProtocolMessage},
};

/// Official clients nest two or three wrappers; more than this many are left on.
pub const MAX_WRAPPERS: usize = 16;

/// How a message may be looked at only once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ViewOnce {
    /// Wrapped in `viewOnceMessage`.
    V1,
    /// Wrapped in `viewOnceMessageV2`.
    V2,
    /// Wrapped in `viewOnceMessageV2Extension`: voice notes.
    V2Extension,
    /// By the flag inside the media alone.
    Inline,
}

/// What a message does.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action<'a> {
    /// It is something to see: text, media, polls, votes, button taps, and content of newer schemas.
    Content,
    /// It puts an emoji on another message, or takes it away; encrypted ones included.
    Reaction,
    /// It replaces the content of another message.
    Edit {
        /// Which message, from the sender's point of view.
        target: Option<&'a MessageKey>,
        /// The new content.
        message: &'a Message,
        /// When the sender edited, ms.
        timestamp_ms: Option<i64>,
    },
    /// It deletes another message for everyone.
    Revoke {
        /// Which message, from the sender's point of view.
        target: Option<&'a MessageKey>,
    },
    /// It pins or keeps another message, or is an edit or add-on that still has to be decrypted.
    AddOn,
    /// Any other protocol message.
    Protocol(ProtocolType, &'a ProtocolMessage),
    /// Signalling without a protocol message: history bundles, key shares, status notices.
    Signalling,
    /// Nothing but a sender-key distribution or a context: no event.
    KeyDistribution,
}

/// What a message says. Borrows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalised<'a> {
    original: &'a Message,
    content: &'a Message,
    field: Option<Field>,
    destination: Option<&'a str>,
    wrappers: SmallVec<[Wrapper; 4]>,
    context: Option<Cow<'a, MessageContextInfo>>,
}

/// Takes the wrappers off a message and looks at what is inside.
///
/// A device-sent wrapper is taken off whoever sent it; that only our own devices may use it is for the caller to check
/// ([`Normalised::destination`]).
pub fn normalise(message: &Message) -> Normalised<'_> {
    let mut context = message.message_context_info.as_deref().map(Cow::Borrowed);
    let (original, destination) = match message.device_sent_message.as_deref() {
        Some(sent) => match sent.message.as_deref() {
            Some(inner) => {
                context = joined(context, inner.message_context_info.as_deref());
                (inner, Some(sent.destination_jid.as_deref().unwrap_or_default()))
            }
            None => (message, None),
        },
        None => (message, None),
    };
    let mut content = original;
    let mut wrappers = SmallVec::new();
    while wrappers.len() < MAX_WRAPPERS
        && let Some((wrapper, inner)) = Wrapper::of(content)
    {
        context = joined(context, inner.message_context_info.as_deref());
        wrappers.push(wrapper);
        content = inner;
    }
    Normalised { original, content, field: Field::of(content), destination, wrappers, context }
}

/// The poll that a message puts to the vote, of whatever version.
pub fn poll_of<'a>(message: &Normalised<'a>) -> Option<&'a PollCreationMessage> {
    let content = message.content;
    match message.field? {
        Field::PollCreation => content.poll_creation_message.as_deref(),
        Field::PollCreationV2 => content.poll_creation_message_v2.as_deref(),
        Field::PollCreationV3 => content.poll_creation_message_v3.as_deref(),
        Field::PollCreationV5 => content.poll_creation_message_v5.as_deref(),
        Field::PollCreationV6 => content.poll_creation_message_v6.as_deref(),
        _ => None,
    }
}

/// Takes the device-sent wrapper off, for who owns the message: the inner message with its context merged, and the
/// destination. Any other message comes back as it is.
pub fn unwrap_device_sent(mut message: Message) -> (Message, Option<String>) {
    let outer = message.message_context_info.take();
    let Some(mut sent) = message.device_sent_message.take() else {
        message.message_context_info = outer;
        return (message, None);
    };
    let Some(mut inner) = sent.message.take() else {
        message.device_sent_message = Some(sent);
        message.message_context_info = outer;
        return (message, None);
    };
    inner.message_context_info = merge(outer.map(|c| *c), inner.message_context_info.as_deref()).map(Box::new);
    (*inner, Some(sent.destination_jid.unwrap_or_default()))
}

impl<'a> Normalised<'a> {
    /// The message as it came, after the device-sent wrapper. Its context info is the inner one, not the merged one.
    pub fn original(&self) -> &'a Message {
        self.original
    }

    /// The innermost message, which holds the content field.
    pub fn content(&self) -> &'a Message {
        self.content
    }

    /// The content field; `None` when no known one is set.
    pub fn field(&self) -> Option<Field> {
        self.field
    }

    /// The wrappers that were taken off, outermost first.
    pub fn wrappers(&self) -> &[Wrapper] {
        &self.wrappers
    }

    /// Where a copy for our own devices was sent to: the chat, as the sending device addressed it. `None` when the message
    /// is no such copy; empty when the copy does not say.
    pub fn destination(&self) -> Option<&'a str> {
        self.destination
    }

    /// What the message is to a user.
    pub fn kind(&self) -> Kind {
        match self.field {
            Some(field) => Kind::of(field, self.content),
            None if matches!(self.action(), Action::KeyDistribution) => Kind::Protocol,
            None => Kind::Unknown,
        }
    }

    /// The text, caption or question.
    pub fn text(&self) -> Option<&'a str> {
        self.field.and_then(|field| kind::text(field, self.content))
    }

    /// What was tapped or picked.
    pub fn selection(&self) -> Option<Selection> {
        self.field.and_then(|field| kind::selection(field, self.content))
    }

    /// Quote, mentions, forwarding and timer.
    pub fn context_info(&self) -> Option<&'a ContextInfo> {
        self.field.and_then(|field| field.context(self.content))
    }

    /// The merged `messageContextInfo` of all levels: secret, association, thread, bot.
    pub fn message_context(&self) -> Option<&MessageContextInfo> {
        self.context.as_deref()
    }

    /// The 32-byte secret that reactions, votes, edits and comments on this message are encrypted with. One of another
    /// length is none.
    pub fn message_secret(&self) -> Option<&[u8; 32]> {
        self.context.as_ref()?.message_secret.as_deref()?.try_into().ok()
    }

    /// Whether and how the message may be looked at only once.
    pub fn view_once(&self) -> Option<ViewOnce> {
        let wrapped = self.wrappers.iter().find_map(|wrapper| match wrapper {
            Wrapper::ViewOnce => Some(ViewOnce::V1),
            Wrapper::ViewOnceV2 => Some(ViewOnce::V2),
            Wrapper::ViewOnceV2Extension => Some(ViewOnce::V2Extension),
            _ => None,
        });
        let message = self.content;
        let inline = match self.field? {
            Field::Image => message.image_message.as_ref().and_then(|image| image.view_once),
            Field::Video => message.video_message.as_ref().and_then(|video| video.view_once),
            Field::Audio => message.audio_message.as_ref().and_then(|audio| audio.view_once),
            Field::ExtendedText => message.extended_text_message.as_ref().and_then(|text| text.view_once),
            _ => None,
        };
        wrapped.or_else(|| (inline == Some(true)).then_some(ViewOnce::Inline))
    }

    /// Seconds after which the message disappears; `None` without a timer.
    pub fn expiration(&self) -> Option<u32> {
        self.context_info().and_then(|context| context.expiration).filter(|&seconds| seconds != 0)
    }

    /// Whether the message carries an edit of another one.
    pub fn is_edit(&self) -> bool {
        matches!(self.action(), Action::Edit { .. })
    }

    /// What the message does.
    pub fn action(&self) -> Action<'a> {
        let Some(field) = self.field else {
            return self.without_content();
        };
        match field {
            Field::Protocol => match self.content.protocol_message.as_deref() {
                Some(protocol) => protocol_action(protocol),
                None => Action::Signalling,
            },
            Field::Reaction | Field::EncReaction => Action::Reaction,
            Field::PinInChat | Field::KeepInChat | Field::SecretEncrypted | Field::PollAddOption => Action::AddOn,
            field if Kind::of(field, self.content) == Kind::Protocol => Action::Signalling,
            _ => Action::Content,
        }
    }

    /// No known field. Behind a wrapper something must be meant, so it is content of a newer schema; at the top it is a key
    /// distribution, unless the wire says otherwise ([`super::content::has_unknown_field`]).
    fn without_content(&self) -> Action<'a> {
        let keys = self.content.sender_key_distribution_message.is_some()
            || self.content.fast_ratchet_key_sender_key_distribution_message.is_some();
        let wrapped = self.destination.is_some() || !self.wrappers.is_empty();
        if wrapped && !keys { Action::Content } else { Action::KeyDistribution }
    }
}

fn protocol_action(protocol: &ProtocolMessage) -> Action<'_> {
    let target = protocol.key.as_deref();
    match (protocol::type_of(protocol), protocol.edited_message.as_deref()) {
        (ProtocolType::MessageEdit, Some(message)) => {
            Action::Edit { target, message, timestamp_ms: protocol.timestamp_ms }
        }
        (ProtocolType::Revoke, _) => Action::Revoke { target },
        (other, _) => Action::Protocol(other, protocol),
    }
}

/// Merges the context of an outer level into that of the inner one (spec 06 §2.1).
/// [`merge`], which copies neither if there is but one.
fn joined<'a>(
    outer: Option<Cow<'a, MessageContextInfo>>,
    inner: Option<&'a MessageContextInfo>,
) -> Option<Cow<'a, MessageContextInfo>> {
    match (outer, inner) {
        (Some(outer), Some(inner)) => merge(Some(outer.into_owned()), Some(inner)).map(Cow::Owned),
        (outer, inner) => outer.or_else(|| inner.map(Cow::Borrowed)),
    }
}

fn merge(outer: Option<MessageContextInfo>, inner: Option<&MessageContextInfo>) -> Option<MessageContextInfo> {
    let (Some(outer), Some(inner)) = (outer.as_ref(), inner) else {
        return outer.or_else(|| inner.cloned());
    };
    let mut merged = inner.clone();
    merged.message_secret = merged.message_secret.or_else(|| outer.message_secret.clone());
    merged.message_association = merged.message_association.or_else(|| outer.message_association.clone());
    merged.bot_metadata = merged.bot_metadata.or_else(|| outer.bot_metadata.clone());
    if merged.thread_id.is_empty() {
        merged.thread_id = outer.thread_id.clone();
    }
    merged.limit_sharing_v2 = outer.limit_sharing_v2.clone();
    Some(merged)
}
