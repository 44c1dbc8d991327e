//! What a message is to a user: the `kind` strings of events (spec 07 §4), its text, and what was picked in a reply.

use serde::Deserialize;

use super::content::Field;
use crate::proto::e2e::{
    self, Message, buttons_response_message::Response,
    interactive_response_message::InteractiveResponseMessage as InteractiveReply,
};

/// What a message is to a user. [`Kind::as_str`] gives the word that events use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Text, with or without preview, quote, mentions.
    Text,
    /// A picture.
    Image,
    /// A video.
    Video,
    /// A video without sound that loops.
    Gif,
    /// A round video note.
    Ptv,
    /// An audio file.
    Audio,
    /// A voice note.
    Voice,
    /// A file.
    Document,
    /// A sticker.
    Sticker,
    /// A set of stickers.
    StickerPack,
    /// A place.
    Location,
    /// A place that moves.
    LiveLocation,
    /// One contact card.
    Contact,
    /// Several contact cards.
    Contacts,
    /// An emoji on another message; empty text takes it away.
    Reaction,
    /// A poll or its results.
    Poll,
    /// An encrypted vote.
    PollVote,
    /// An event or an invitation to one.
    Event,
    /// An encrypted answer to an event.
    EventResponse,
    /// Legacy buttons.
    Buttons,
    /// A legacy button was tapped.
    ButtonsReply,
    /// A legacy list.
    List,
    /// A row of a list was picked.
    ListReply,
    /// Buttons, lists, carousels of the current form.
    Interactive,
    /// One of those was answered.
    InteractiveReply,
    /// A message made from a business template.
    Template,
    /// A button of a template was tapped.
    TemplateReply,
    /// A product of a catalogue.
    Product,
    /// An order.
    Order,
    /// An invitation to a group.
    GroupInvite,
    /// The head of an album; its pictures follow as messages of their own.
    Album,
    /// A comment, possibly encrypted.
    Comment,
    /// The payment family, invoices included.
    Payment,
    /// Calls in the chat: logs and scheduled calls.
    CallLog,
    /// An invitation to follow or administer a channel.
    NewsletterInvite,
    /// A view-once message that the phone keeps to itself. Never found in content; the engine sets it.
    ViewOnceUnavailable,
    /// A stand-in for content that this device may not see.
    Placeholder,
    /// Not for eyes: edits, revokes, pins, keys, settings.
    Protocol,
    /// Content of a newer schema, or of a sort that has no word yet.
    Unknown,
}

impl Kind {
    /// The word that events use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Image => "image",
            Self::Video => "video",
            Self::Gif => "gif",
            Self::Ptv => "ptv",
            Self::Audio => "audio",
            Self::Voice => "voice",
            Self::Document => "document",
            Self::Sticker => "sticker",
            Self::StickerPack => "sticker_pack",
            Self::Location => "location",
            Self::LiveLocation => "live_location",
            Self::Contact => "contact",
            Self::Contacts => "contacts",
            Self::Reaction => "reaction",
            Self::Poll => "poll",
            Self::PollVote => "poll_vote",
            Self::Event => "event",
            Self::EventResponse => "event_response",
            Self::Buttons => "buttons",
            Self::ButtonsReply => "buttons_reply",
            Self::List => "list",
            Self::ListReply => "list_reply",
            Self::Interactive => "interactive",
            Self::InteractiveReply => "interactive_reply",
            Self::Template => "template",
            Self::TemplateReply => "template_reply",
            Self::Product => "product",
            Self::Order => "order",
            Self::GroupInvite => "group_invite",
            Self::Album => "album",
            Self::Comment => "comment",
            Self::Payment => "payment",
            Self::CallLog => "call_log",
            Self::NewsletterInvite => "newsletter_invite",
            Self::ViewOnceUnavailable => "view_once_unavailable",
            Self::Placeholder => "placeholder",
            Self::Protocol => "protocol",
            Self::Unknown => "unknown",
        }
    }

    /// The kind of a content field, looking into it where the schema has one field for two kinds.
    pub(super) fn of(field: Field, message: &Message) -> Self {
        let is = |flag: Option<Option<bool>>| flag.flatten() == Some(true);
        match field {
            Field::Conversation | Field::ExtendedText | Field::StatusQuestionAnswer | Field::QuestionResponse => {
                Self::Text
            }
            Field::Image => Self::Image,
            Field::Video if is(message.video_message.as_ref().map(|v| v.gif_playback)) => Self::Gif,
            Field::Video => Self::Video,
            Field::Ptv => Self::Ptv,
            Field::Audio if is(message.audio_message.as_ref().map(|a| a.ptt)) => Self::Voice,
            Field::Audio => Self::Audio,
            Field::Document => Self::Document,
            Field::Sticker => Self::Sticker,
            Field::StickerPack => Self::StickerPack,
            Field::Location if is(message.location_message.as_ref().map(|l| l.is_live)) => Self::LiveLocation,
            Field::Location => Self::Location,
            Field::LiveLocation => Self::LiveLocation,
            Field::Contact => Self::Contact,
            Field::ContactsArray => Self::Contacts,
            Field::Reaction | Field::EncReaction => Self::Reaction,
            Field::PollCreation
            | Field::PollCreationV2
            | Field::PollCreationV3
            | Field::PollCreationV5
            | Field::PollCreationV6
            | Field::PollResultSnapshot
            | Field::PollResultSnapshotV3 => Self::Poll,
            Field::PollUpdate => Self::PollVote,
            Field::Event | Field::EventInvite => Self::Event,
            Field::EncEventResponse => Self::EventResponse,
            Field::Buttons => Self::Buttons,
            Field::ButtonsResponse => Self::ButtonsReply,
            Field::List => Self::List,
            Field::ListResponse => Self::ListReply,
            Field::Interactive => Self::Interactive,
            Field::InteractiveResponse => Self::InteractiveReply,
            Field::Template | Field::HighlyStructured => Self::Template,
            Field::TemplateButtonReply => Self::TemplateReply,
            Field::Product => Self::Product,
            Field::Order => Self::Order,
            Field::GroupInvite => Self::GroupInvite,
            Field::Album => Self::Album,
            Field::Comment | Field::EncComment => Self::Comment,
            Field::SendPayment
            | Field::RequestPayment
            | Field::DeclinePaymentRequest
            | Field::CancelPaymentRequest
            | Field::PaymentInvite
            | Field::Invoice
            | Field::PaymentReminder
            | Field::SplitPayment
            | Field::SplitPaymentUpdate => Self::Payment,
            Field::Call
            | Field::CallLog
            | Field::BusinessCall
            | Field::ScheduledCallCreation
            | Field::ScheduledCallEdit => Self::CallLog,
            Field::NewsletterAdminInvite | Field::NewsletterFollowerInvite => Self::NewsletterInvite,
            Field::Placeholder => Self::Placeholder,
            Field::Protocol
            | Field::Edited
            | Field::KeepInChat
            | Field::PinInChat
            | Field::SecretEncrypted
            | Field::PollAddOption
            | Field::RequestPhoneNumber
            | Field::StickerSyncRmr
            | Field::MessageHistoryBundle
            | Field::MessageHistoryNotice
            | Field::StatusNotification
            | Field::ConditionalReveal
            | Field::GroupRootKeyShare
            | Field::RootSecretDistribute
            | Field::StatusLinkPreviewMetadata => Self::Protocol,
            Field::Chat
            | Field::DeviceSent
            | Field::RichResponse
            | Field::StatusQuoted
            | Field::StatusStickerInteraction
            | Field::Music => Self::Unknown,
        }
    }
}

/// What was tapped or picked, from all four kinds of replies (spec 06 §3.15 and §3.16).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selection {
    /// The id that the sender of the buttons gave.
    pub id: Option<String>,
    /// What the user saw.
    pub text: Option<String>,
}

/// The text of a content field: the message itself, a caption, a question, or what was picked.
pub(super) fn text(field: Field, message: &Message) -> Option<&str> {
    let text = match field {
        Field::Conversation => message.conversation.as_deref(),
        Field::ExtendedText => message.extended_text_message.as_ref()?.text.as_deref(),
        Field::Image => message.image_message.as_ref()?.caption.as_deref(),
        Field::Video => message.video_message.as_ref()?.caption.as_deref(),
        Field::Ptv => message.ptv_message.as_ref()?.caption.as_deref(),
        Field::Document => message.document_message.as_ref()?.caption.as_deref(),
        Field::StickerPack => message.sticker_pack_message.as_ref()?.caption.as_deref(),
        Field::Location => message.location_message.as_ref()?.comment.as_deref(),
        Field::LiveLocation => message.live_location_message.as_ref()?.caption.as_deref(),
        Field::Reaction => message.reaction_message.as_ref()?.text.as_deref(),
        Field::PollCreation => message.poll_creation_message.as_ref()?.name.as_deref(),
        Field::PollCreationV2 => message.poll_creation_message_v2.as_ref()?.name.as_deref(),
        Field::PollCreationV3 => message.poll_creation_message_v3.as_ref()?.name.as_deref(),
        Field::PollCreationV5 => message.poll_creation_message_v5.as_ref()?.name.as_deref(),
        Field::PollCreationV6 => message.poll_creation_message_v6.as_ref()?.name.as_deref(),
        Field::PollResultSnapshot => message.poll_result_snapshot_message.as_ref()?.name.as_deref(),
        Field::PollResultSnapshotV3 => message.poll_result_snapshot_message_v3.as_ref()?.name.as_deref(),
        Field::Event => message.event_message.as_ref()?.name.as_deref(),
        Field::EventInvite => message.event_invite_message.as_ref()?.caption.as_deref(),
        Field::Buttons => message.buttons_message.as_ref()?.content_text.as_deref(),
        Field::ButtonsResponse => button_text(message.buttons_response_message.as_ref()?),
        Field::List => message.list_message.as_ref()?.description.as_deref(),
        Field::ListResponse => message.list_response_message.as_ref()?.title.as_deref(),
        Field::Interactive => message.interactive_message.as_ref()?.body.as_ref()?.text.as_deref(),
        Field::InteractiveResponse => message.interactive_response_message.as_ref()?.body.as_ref()?.text.as_deref(),
        Field::Template => {
            message.template_message.as_ref()?.hydrated_template.as_ref()?.hydrated_content_text.as_deref()
        }
        Field::TemplateButtonReply => message.template_button_reply_message.as_ref()?.selected_display_text.as_deref(),
        Field::Product => message.product_message.as_ref()?.body.as_deref(),
        Field::Order => message.order_message.as_ref()?.message.as_deref(),
        Field::GroupInvite => message.group_invite_message.as_ref()?.caption.as_deref(),
        Field::NewsletterAdminInvite => message.newsletter_admin_invite_message.as_ref()?.caption.as_deref(),
        Field::NewsletterFollowerInvite => message.newsletter_follower_invite_message_v2.as_ref()?.caption.as_deref(),
        Field::StatusQuestionAnswer => message.status_question_answer_message.as_ref()?.text.as_deref(),
        Field::QuestionResponse => message.question_response_message.as_ref()?.text.as_deref(),
        _ => None,
    };
    text.filter(|text| !text.is_empty() || field == Field::Reaction)
}

/// What was picked, when the field is one of the four replies.
pub(super) fn selection(field: Field, message: &Message) -> Option<Selection> {
    let text = text(field, message).map(str::to_owned);
    let id = match field {
        Field::ButtonsResponse => message.buttons_response_message.as_ref()?.selected_button_id.clone(),
        Field::ListResponse => {
            let reply = message.list_response_message.as_ref()?.single_select_reply.as_ref();
            reply.and_then(|reply| reply.selected_row_id.clone())
        }
        Field::TemplateButtonReply => message.template_button_reply_message.as_ref()?.selected_id.clone(),
        Field::InteractiveResponse => flow_id(message.interactive_response_message.as_ref()?),
        _ => return None,
    };
    Some(Selection { id, text })
}

fn button_text(reply: &e2e::ButtonsResponseMessage) -> Option<&str> {
    reply.response.as_ref().map(|Response::SelectedDisplayText(text)| text.as_str())
}

/// The `id` in the JSON text of a native flow reply. The text is hostile: too long or malformed is no id.
fn flow_id(reply: &e2e::InteractiveResponseMessage) -> Option<String> {
    #[derive(Deserialize)]
    struct Params {
        id: Option<String>,
    }

    let InteractiveReply::NativeFlowResponseMessage(flow) = reply.interactive_response_message.as_ref()?;
    let params = flow.params_json.as_deref().filter(|json| json.len() <= MAX_PARAMS_LEN)?;
    serde_json::from_str::<Params>(params).ok()?.id
}

/// Parameters of a native flow reply have a few hundred bytes; megabytes of NULs were seen (spec 06 §3.16).
const MAX_PARAMS_LEN: usize = 16_384;
