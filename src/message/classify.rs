//! What the stanza says about its content (spec 03 §4.4, spec 06 §1.2 to §1.6): the server sees these words and not the
//! content, and drops or reorders messages whose words do not fit.

use smallvec::SmallVec;

use super::{
    content::{Field, Wrapper},
    normalise::{Normalised, normalise, poll_of},
    protocol::{self, ProtocolKind, ProtocolType},
};
use crate::proto::e2e::{KeepType, Message, secret_encrypted_message::SecretEncType};

/// The `type` of a `<message>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StanzaType {
    /// Words: texts, edits, revokes, pins, interactive content; every peer message.
    Text,
    /// Everything with a [`Classification::media_type`], and what has no type of its own.
    Media,
    /// Polls and votes.
    Poll,
    /// Reactions.
    Reaction,
    /// Events and answers to them.
    Event,
}

impl StanzaType {
    /// The value of the attribute.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Media => "media",
            Self::Poll => "poll",
            Self::Reaction => "reaction",
            Self::Event => "event",
        }
    }
}

/// The `edit` of a `<message>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Edit {
    /// `1`: replaces the content of a message.
    Message,
    /// `2`: pins a message, or takes the pin off.
    Pin,
    /// `3`: replaces a channel's message. The content does not show it: who sends to a channel sets it.
    NewsletterMessage,
    /// `7`: takes back something of our own.
    SenderRevoke,
    /// `8`: a group admin takes back somebody else's message. Channels use it for every deletion.
    AdminRevoke,
}

impl Edit {
    /// The value of the attribute.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Message => "1",
            Self::Pin => "2",
            Self::NewsletterMessage => "3",
            Self::SenderRevoke => "7",
            Self::AdminRevoke => "8",
        }
    }
}

/// The words of a stanza that follow from its content.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Classification {
    /// `type` of `<message>`.
    pub stanza_type: StanzaType,
    /// `mediatype` of `<enc>` or `<plaintext>`. Only with [`StanzaType::Media`].
    pub media_type: Option<&'static str>,
    /// `edit` of `<message>`.
    pub edit: Option<Edit>,
    /// `decrypt-fail="hide"` on every `<enc>`: no placeholder for who cannot decrypt it.
    pub hide_failure: bool,
    /// Attributes of the `<meta>` child; without any there is no such child.
    pub meta: SmallVec<[(&'static str, &'static str); 2]>,
}

/// The words for an outgoing message.
pub fn classify(message: &Message) -> Classification {
    let view = normalise(message);
    let stanza_type = stanza_type(&view);
    let media_type = if stanza_type == StanzaType::Media { media_type(&view) } else { None };
    let edit = edit(&view);
    Classification { stanza_type, media_type, edit, hide_failure: hides_failure(&view, edit), meta: meta(&view) }
}

fn stanza_type(view: &Normalised<'_>) -> StanzaType {
    let message = view.content();
    if is_edit_carrier(view) {
        return StanzaType::Text;
    }
    let Some(field) = view.field() else { return StanzaType::Media };
    match field {
        Field::Reaction | Field::EncReaction => StanzaType::Reaction,
        Field::Event | Field::EncEventResponse => StanzaType::Event,
        Field::SecretEncrypted => match secret_type(message) {
            Some(SecretEncType::EventEdit) => StanzaType::Event,
            Some(SecretEncType::PollEdit | SecretEncType::PollAddOption) => StanzaType::Poll,
            Some(SecretEncType::MessageEdit) => StanzaType::Text,
            _ => StanzaType::Media,
        },
        Field::PollCreation
        | Field::PollCreationV2
        | Field::PollCreationV3
        | Field::PollCreationV5
        | Field::PollCreationV6
        | Field::PollUpdate => StanzaType::Poll,
        Field::ExtendedText if has_link(message) => StanzaType::Media,
        Field::Conversation
        | Field::ExtendedText
        | Field::Protocol
        | Field::KeepInChat
        | Field::Edited
        | Field::PinInChat
        | Field::Interactive
        | Field::TemplateButtonReply
        | Field::RequestPhoneNumber
        | Field::EncComment
        | Field::NewsletterAdminInvite
        | Field::NewsletterFollowerInvite
        | Field::MessageHistoryNotice
        | Field::Album
        | Field::PollResultSnapshot
        | Field::PollResultSnapshotV3
        | Field::SendPayment
        | Field::RequestPayment
        | Field::DeclinePaymentRequest
        | Field::CancelPaymentRequest
        | Field::PaymentInvite => StanzaType::Text,
        _ => StanzaType::Media,
    }
}

fn media_type(view: &Normalised<'_>) -> Option<&'static str> {
    let message = view.content();
    if view.wrappers().first() == Some(&Wrapper::LottieSticker) {
        return Some("sticker");
    }
    Some(match view.field()? {
        Field::Image => "image",
        Field::Video if message.video_message.as_ref()?.gif_playback == Some(true) => "gif",
        Field::Video => "video",
        Field::Ptv => "ptv",
        Field::Audio if message.audio_message.as_ref()?.ptt == Some(true) => "ptt",
        Field::Audio => "audio",
        Field::Document => "document",
        Field::Sticker => "sticker",
        Field::StickerPack => "sticker_pack",
        Field::Location if message.location_message.as_ref()?.is_live == Some(true) => "livelocation",
        Field::Location => "location",
        Field::LiveLocation => "livelocation",
        Field::Contact => "vcard",
        Field::ContactsArray => "contact_array",
        Field::ExtendedText | Field::GroupInvite => "url",
        Field::List => "list",
        Field::ListResponse => "list_response",
        Field::ButtonsResponse => "buttons_response",
        Field::Order => "order",
        Field::Product => "product",
        Field::InteractiveResponse => "native_flow_response",
        Field::MessageHistoryBundle => "group_history",
        _ => return None,
    })
}

fn edit(view: &Normalised<'_>) -> Option<Edit> {
    let message = view.content();
    if is_edit_carrier(view) {
        return Some(Edit::Message);
    }
    match view.field()? {
        Field::Protocol => {
            let protocol = message.protocol_message.as_deref()?;
            match protocol::type_of(protocol) {
                ProtocolType::Revoke if own_key(protocol.key.as_deref()) => Some(Edit::SenderRevoke),
                ProtocolType::Revoke => Some(Edit::AdminRevoke),
                ProtocolType::MessageEdit => Some(Edit::Message),
                _ if protocol.edited_message.is_some() => Some(Edit::Message),
                _ => None,
            }
        }
        Field::Edited => Some(Edit::Message),
        Field::SecretEncrypted => match secret_type(message)? {
            SecretEncType::MessageEdit | SecretEncType::EventEdit => Some(Edit::Message),
            _ => None,
        },
        Field::PinInChat => Some(Edit::Pin),
        Field::Reaction => {
            let text = message.reaction_message.as_ref()?.text.as_deref();
            text.unwrap_or_default().is_empty().then_some(Edit::SenderRevoke)
        }
        Field::KeepInChat => {
            let keep = message.keep_in_chat_message.as_ref()?;
            let undo = keep.keep_type == Some(KeepType::UndoKeepForAll as i32);
            (undo && own_key(keep.key.as_deref())).then_some(Edit::SenderRevoke)
        }
        _ => None,
    }
}

fn hides_failure(view: &Normalised<'_>, edit: Option<Edit>) -> bool {
    let message = view.content();
    match edit {
        Some(Edit::Message | Edit::Pin | Edit::NewsletterMessage) => return true,
        // The server drops a revoke that hides.
        Some(Edit::SenderRevoke | Edit::AdminRevoke) => return view.field() == Some(Field::Reaction),
        None => {}
    }
    let Some(field) = view.field() else { return false };
    match field {
        Field::Reaction
        | Field::EncReaction
        | Field::PinInChat
        | Field::Edited
        | Field::KeepInChat
        | Field::EncEventResponse
        | Field::MessageHistoryNotice
        | Field::ConditionalReveal => true,
        Field::PollUpdate => message.poll_update_message.as_ref().is_some_and(|update| update.vote.is_some()),
        Field::SecretEncrypted => matches!(
            secret_type(message),
            Some(SecretEncType::EventEdit | SecretEncType::PollEdit | SecretEncType::PollAddOption)
        ),
        Field::Protocol => message.protocol_message.as_deref().is_some_and(|protocol| {
            protocol.edited_message.is_some()
                || matches!(
                    protocol::type_of(protocol),
                    ProtocolType::Other(
                        ProtocolKind::EphemeralSyncResponse
                            | ProtocolKind::RequestWelcomeMessage
                            | ProtocolKind::GroupMemberLabelChange
                    )
                )
        }),
        _ => false,
    }
}

fn meta(view: &Normalised<'_>) -> SmallVec<[(&'static str, &'static str); 2]> {
    let message = view.content();
    let mut meta = SmallVec::new();
    match view.field() {
        Some(
            Field::PollCreation
            | Field::PollCreationV2
            | Field::PollCreationV3
            | Field::PollCreationV5
            | Field::PollCreationV6,
        ) => meta.push(("polltype", if is_quiz(view) { "quiz_creation" } else { "creation" })),
        Some(Field::PollUpdate) if message.poll_update_message.as_ref().is_some_and(|u| u.vote.is_some()) => {
            meta.push(("polltype", "vote"));
        }
        Some(Field::PollResultSnapshot | Field::PollResultSnapshotV3) => meta.push(("polltype", "result_snapshot")),
        Some(Field::Event) => meta.push(("event_type", "creation")),
        Some(Field::EncEventResponse) => meta.push(("event_type", "response")),
        Some(Field::SecretEncrypted) => match secret_type(message) {
            Some(SecretEncType::EventEdit) => meta.push(("event_type", "edit")),
            Some(SecretEncType::PollEdit) => meta.push(("polltype", "edit")),
            _ => {}
        },
        Some(Field::Protocol) => {
            let protocol = message.protocol_message.as_deref();
            let label =
                protocol.filter(|p| protocol::type_of(p) == ProtocolType::Other(ProtocolKind::GroupMemberLabelChange));
            if let Some(protocol) = label {
                let text = protocol.member_label.as_ref().and_then(|label| label.label.as_deref());
                let deletes = text.unwrap_or_default().is_empty();
                meta.push(("appdata", "member_tag"));
                meta.push(("tag_reason", if deletes { "user_delete" } else { "user_update" }));
            }
        }
        _ => {}
    }
    if view.view_once().is_some() {
        meta.push(("view_once", "true"));
    }
    meta
}

/// The wrapper that carries an edit stands for the edit itself: it is not looked into (spec 03 §4.4).
fn is_edit_carrier(view: &Normalised<'_>) -> bool {
    view.wrappers().contains(&Wrapper::Edited)
}

fn is_quiz(view: &Normalised<'_>) -> bool {
    poll_of(view).is_some_and(|poll| poll.poll_type == Some(crate::proto::e2e::PollType::Quiz as i32))
}

fn has_link(message: &Message) -> bool {
    let link = message.extended_text_message.as_ref().and_then(|text| text.matched_text.as_deref());
    link.is_some_and(|link| !link.trim().is_empty())
}

fn secret_type(message: &Message) -> Option<SecretEncType> {
    SecretEncType::try_from(message.secret_encrypted_message.as_ref()?.secret_enc_type?).ok()
}

fn own_key(key: Option<&crate::proto::common::MessageKey>) -> bool {
    key.is_some_and(|key| key.from_me == Some(true))
}
