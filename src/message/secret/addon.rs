//! The fields of `Message` that carry addons, and what is inside them.

use bytes::Bytes;

use super::{Sealed, UseCase};
use crate::{
    message::{MAX_PAYLOAD, MessageError, decode},
    proto::{
        Message as _,
        common::MessageKey,
        e2e::{
            EncCommentMessage, EncEventResponseMessage, EncReactionMessage, EventResponseMessage, Message,
            PollEncValue, PollUpdateMessage, PollVoteMessage, ReactionMessage, SecretEncryptedMessage,
            secret_encrypted_message::SecretEncType,
        },
    },
};

/// Options that a vote may name; a poll has at most 12, and what can be added to it is not without bounds.
pub const MAX_OPTIONS: usize = 100;

/// An addon as it stands in a message, encrypted still.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Addon<'a> {
    /// What it is for.
    pub use_case: UseCase,
    /// The message that it belongs to.
    pub target: &'a MessageKey,
    /// The IV, of unchecked length.
    pub iv: &'a [u8],
    /// Ciphertext and tag.
    pub payload: &'a [u8],
    /// When the sender says that it voted, in ms; votes only.
    pub sent_at_ms: Option<i64>,
}

/// The plaintext of an addon.
#[derive(Clone, Debug, PartialEq)]
pub enum AddonContent {
    /// The options chosen, by [`option_hash`](super::option_hash); none takes the vote back.
    Vote(Vec<[u8; 32]>),
    /// An answer to an event.
    EventResponse(EventResponseMessage),
    /// A reaction; its key is empty, the target stands outside.
    Reaction(Box<ReactionMessage>),
    /// A comment, the new event or poll, or an edit: a whole message.
    Message(Box<Message>),
}

impl<'a> Addon<'a> {
    /// Finds the addon in a message whose wrappers are off; `None` for a message without one, or with one that nobody here can
    /// read: of an unknown type, for a key that the server holds, without its parts.
    pub fn find(message: &'a Message) -> Option<Self> {
        if let Some(update) = &message.poll_update_message {
            let vote = update.vote.as_deref()?;
            let (target, iv, payload) = (&update.poll_creation_message_key, &vote.enc_iv, &vote.enc_payload);
            let addon = Self::of(UseCase::PollVote, target.as_deref(), iv.as_ref(), payload.as_ref())?;
            return Some(Self { sent_at_ms: update.sender_timestamp_ms, ..addon });
        }
        if let Some(found) = &message.enc_event_response_message {
            let target = found.event_creation_message_key.as_deref();
            return Self::of(UseCase::EventResponse, target, found.enc_iv.as_ref(), found.enc_payload.as_ref());
        }
        if let Some(found) = &message.enc_reaction_message {
            let target = found.target_message_key.as_deref();
            return Self::of(UseCase::Reaction, target, found.enc_iv.as_ref(), found.enc_payload.as_ref());
        }
        if let Some(found) = &message.enc_comment_message {
            let target = found.target_message_key.as_deref();
            return Self::of(UseCase::Comment, target, found.enc_iv.as_ref(), found.enc_payload.as_ref());
        }
        let found = message.secret_encrypted_message.as_deref()?;
        let use_case = match SecretEncType::try_from(found.secret_enc_type?).ok()? {
            SecretEncType::EventEdit => UseCase::EventEdit,
            SecretEncType::MessageEdit => UseCase::MessageEdit,
            SecretEncType::PollEdit => UseCase::PollEdit,
            SecretEncType::PollAddOption => UseCase::PollAddOption,
            SecretEncType::Unknown | SecretEncType::MessageSchedule => return None,
        };
        if found.remote_key_id.is_some() {
            return None;
        }
        let target = found.target_message_key.as_deref();
        Self::of(use_case, target, found.enc_iv.as_ref(), found.enc_payload.as_ref())
    }

    fn of(
        use_case: UseCase,
        target: Option<&'a MessageKey>,
        iv: Option<&'a Bytes>,
        payload: Option<&'a Bytes>,
    ) -> Option<Self> {
        Some(Self { use_case, target: target?, iv: iv?, payload: payload?, sent_at_ms: None })
    }
}

impl AddonContent {
    /// Reads the plaintext of an addon.
    ///
    /// # Errors
    /// [`MessageError::Malformed`], also for an option hash that is not 32 bytes; [`MessageError::TooLong`].
    pub fn decode(use_case: UseCase, plaintext: &[u8]) -> Result<Self, MessageError> {
        if plaintext.len() > MAX_PAYLOAD {
            return Err(MessageError::TooLong { len: plaintext.len(), max: MAX_PAYLOAD });
        }
        match use_case {
            UseCase::PollVote => {
                let vote = PollVoteMessage::decode(plaintext).map_err(|_| MessageError::Malformed)?;
                if vote.selected_options.len() > MAX_OPTIONS {
                    return Err(MessageError::TooLong { len: vote.selected_options.len(), max: MAX_OPTIONS });
                }
                let hashes = vote.selected_options.iter().map(|hash| hash[..].try_into());
                hashes.collect::<Result<_, _>>().map(Self::Vote).map_err(|_| MessageError::Malformed)
            }
            UseCase::EventResponse => {
                EventResponseMessage::decode(plaintext).map(Self::EventResponse).map_err(|_| MessageError::Malformed)
            }
            UseCase::Reaction => {
                let reaction = ReactionMessage::decode(plaintext).map_err(|_| MessageError::Malformed)?;
                Ok(Self::Reaction(Box::new(reaction)))
            }
            UseCase::Comment
            | UseCase::EventEdit
            | UseCase::MessageEdit
            | UseCase::PollEdit
            | UseCase::PollAddOption => decode(plaintext).map(|message| Self::Message(Box::new(message))),
        }
    }

    /// Writes the plaintext, for [`seal`](super::seal).
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Vote(hashes) => {
                let selected_options = hashes.iter().map(|hash| Bytes::copy_from_slice(hash)).collect();
                PollVoteMessage { selected_options }.encode_to_vec()
            }
            Self::EventResponse(response) => response.encode_to_vec(),
            Self::Reaction(reaction) => reaction.encode_to_vec(),
            Self::Message(message) => message.encode_to_vec(),
        }
    }
}

/// The message that carries an addon of our own. `now_ms` is the wall clock in ms, which votes show.
pub fn carrier(use_case: UseCase, target: MessageKey, sealed: Sealed, now_ms: i64) -> Message {
    let (iv, payload) = (Some(Bytes::copy_from_slice(&sealed.iv)), Some(Bytes::from(sealed.payload)));
    let target = Some(Box::new(target));
    let mut message = Message::default();
    let secret_type = match use_case {
        UseCase::PollVote => {
            let vote = PollEncValue { enc_payload: payload, enc_iv: iv };
            message.poll_update_message = Some(Box::new(PollUpdateMessage {
                poll_creation_message_key: target,
                vote: Some(Box::new(vote)),
                sender_timestamp_ms: Some(now_ms),
                ..Default::default()
            }));
            return message;
        }
        UseCase::EventResponse => {
            let response =
                EncEventResponseMessage { event_creation_message_key: target, enc_payload: payload, enc_iv: iv };
            message.enc_event_response_message = Some(Box::new(response));
            return message;
        }
        UseCase::Reaction => {
            let reaction = EncReactionMessage { target_message_key: target, enc_payload: payload, enc_iv: iv };
            message.enc_reaction_message = Some(Box::new(reaction));
            return message;
        }
        UseCase::Comment => {
            let comment = EncCommentMessage { target_message_key: target, enc_payload: payload, enc_iv: iv };
            message.enc_comment_message = Some(Box::new(comment));
            return message;
        }
        UseCase::EventEdit => SecretEncType::EventEdit,
        UseCase::MessageEdit => SecretEncType::MessageEdit,
        UseCase::PollEdit => SecretEncType::PollEdit,
        UseCase::PollAddOption => SecretEncType::PollAddOption,
    };
    message.secret_encrypted_message = Some(Box::new(SecretEncryptedMessage {
        target_message_key: target,
        enc_payload: payload,
        enc_iv: iv,
        secret_enc_type: Some(secret_type as i32),
        remote_key_id: None,
    }));
    message
}
