//! Protobuf wire bytes → JSON, in the form that gateways know (spec 07 §2).
//!
//! ```text
//! wire bytes ──┐
//!              ├─ to_json ─→ serde_json::Value ─→ to_string (or any serializer)
//! descriptor ──┘   fields in order, merged, named
//! table (static, generated)
//! ```
//!
//! | protobuf | JSON |
//! |---|---|
//! | field name | as the schema spells it (lowerCamel) |
//! | bytes | standard base64 with padding |
//! | 64-bit integers | decimal string |
//! | 32-bit integers | number |
//! | float, double | number (float widened; integral without `.0`; −0 is `0`); `"NaN"`, `"Infinity"`, `"-Infinity"` |
//! | enum | name, or the number if the schema has no name for it |
//! | bool | `true`, `false` |
//! | map | object |
//! | set but default | printed |
//! | not set, empty repeated, unknown | left out |
//!
//! Keys stand in order of the field numbers: the order in which protobuf.js prints them, and but for a few members of
//! oneofs the order of declaration. Repeated scalars are read packed and unpacked. A singular field that occurs several times
//! is its last occurrence, or the merge of them if it is a message; of the members of a oneof the last one stays. A
//! field with a wire type that does not fit counts as unknown, and invalid UTF-8 becomes U+FFFD: content that a peer got
//! slightly wrong is still shown.
//!
//! The input is hostile: the work is linear in it (but for a sort of the fields of one message), nesting stops at
//! [`DEPTH_LIMIT`], and [`Options::max_values`] bounds the memory of the result, because two bytes of input can become a
//! value of more than a hundred bytes.
//!
//! ```
//! use wamd_proto::{e2e, json};
//!
//! let message = e2e::Message {
//!     reaction_message: Some(Box::new(e2e::ReactionMessage { sender_timestamp_ms: Some(7), ..Default::default() })),
//!     ..Default::default()
//! };
//! let value = json::to_json_message(&message, &json::Options::default()).unwrap();
//! assert_eq!(json::to_string(&value), r#"{"reactionMessage":{"senderTimestampMs":"7"}}"#);
//! ```

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod convert;
#[doc(hidden)]
pub mod fuzz;
mod number;
pub(crate) mod table;
mod wire;

use std::fmt;

use serde_json::Value;

use self::convert::{Converter, message_def};
use self::wire::Part;
use crate::generated::descriptor::MESSAGES;
#[doc(inline)]
pub use crate::generated::descriptor::{
    CLIENT_PAYLOAD, CONTEXT_INFO, CONVERSATION, DEVICE_PROPS, HISTORY_SYNC, MESSAGE, MESSAGE_CONTEXT_INFO, MESSAGE_KEY,
    SYNC_ACTION_DATA, SYNC_ACTION_VALUE, VERIFIED_NAME_CERTIFICATE, WEB_MESSAGE_INFO,
};
use crate::{common, companion, e2e, history, sync_action, vname, wa6, web};

pub use self::number::{EcmaFormatter, to_string};

/// How deep messages may nest: a message inside of this many others is refused. Prost draws the line at the same place.
pub const DEPTH_LIMIT: usize = 100;

/// A message type of the schema.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageType(pub(crate) u16);

impl MessageType {
    /// The type with this full name: package, outer messages, message, such as `WAWebProtobufsE2E.ImageMessage`.
    ///
    /// ```
    /// use wamd_proto::json::{MESSAGE, MessageType};
    ///
    /// assert_eq!(MessageType::by_name("WAWebProtobufsE2E.Message"), Some(MESSAGE));
    /// assert_eq!(MessageType::by_name("Message"), None);
    /// ```
    #[must_use]
    pub fn by_name(full_name: &str) -> Option<Self> {
        let place = MESSAGES.binary_search_by(|message| message.name.cmp(full_name)).ok()?;
        u16::try_from(place).ok().map(Self)
    }

    /// The full name.
    #[must_use]
    pub fn name(self) -> &'static str {
        message_def(self.0).name
    }
}

impl fmt::Debug for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageType({})", self.name())
    }
}

/// What to leave out, and the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options<'a> {
    /// Names of fields (as in the schema) that are dropped at any depth. The default drops `messageSecret`: secret
    /// material does not leave the process unless asked for. Candidates: `jpegThumbnail`, `thumbnail`, `waveform`,
    /// `mediaKey`.
    pub strip: &'a [&'a str],
    /// The largest number of JSON values (objects, arrays, scalars) of one conversion. A value takes up to about 300 bytes
    /// besides its text, so that the default of 200_000 means 60 MB at worst; ordinary messages have a few dozen.
    pub max_values: usize,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { strip: &["messageSecret"], max_values: 200_000 }
    }
}

/// Why wire bytes have no JSON form.
///
/// `at` is the offset in the input of the field that cannot be read (its tag), or of the message that is too deep;
/// `message` is the full name of the message type that contains it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The input ends inside of a field, or a length points past the end of its message.
    #[error("{message}: field at offset {at} is cut off")]
    Truncated {
        /// Offset in bytes.
        at: usize,
        /// Message type.
        message: &'static str,
    },
    /// A variable-length number is longer than 64 bits.
    #[error("{message}: number at offset {at} exceeds 64 bits")]
    Varint {
        /// Offset in bytes.
        at: usize,
        /// Message type.
        message: &'static str,
    },
    /// A tag has the field number 0, one above 2^29 − 1, or wire type 6 or 7.
    #[error("{message}: invalid tag in the field at offset {at}")]
    Tag {
        /// Offset in bytes.
        at: usize,
        /// Message type.
        message: &'static str,
    },
    /// A group ends that was not open, another one ends than was open, or groups nest too deep.
    #[error("{message}: unbalanced group at offset {at}")]
    Group {
        /// Offset in bytes.
        at: usize,
        /// Message type.
        message: &'static str,
    },
    /// Messages nest too deep.
    #[error("{message}: message at offset {at} is nested in more than {limit}")]
    TooDeep {
        /// Offset in bytes.
        at: usize,
        /// Type of the message around it.
        message: &'static str,
        /// [`DEPTH_LIMIT`].
        limit: usize,
    },
    /// The result would have more values than [`Options::max_values`].
    #[error("more than {limit} JSON values")]
    TooManyValues {
        /// The limit that was set.
        limit: usize,
    },
}

/// The JSON form of a message given as wire bytes.
///
/// # Errors
/// [`JsonError`] when the bytes are no protobuf message, nest too deep, or become too many values. What only the schema
/// could object to (unknown fields, wire types, enum numbers, UTF-8) is no error.
pub fn to_json(ty: MessageType, bytes: &[u8], options: &Options<'_>) -> Result<Value, JsonError> {
    Converter::new(options).message(message_def(ty.0), &[Part { bytes, at: 0 }], 0)
}

/// The JSON form of a decoded message: encodes it and converts the bytes.
///
/// # Errors
/// [`JsonError::TooDeep`] and [`JsonError::TooManyValues`], as [`to_json`].
pub fn to_json_message<M: Typed>(message: &M, options: &Options<'_>) -> Result<Value, JsonError> {
    to_json(M::TYPE, &message.encode_to_vec(), options)
}

/// A generated type that names its [`MessageType`]; for the others there is [`to_json`] with [`MessageType::by_name`].
pub trait Typed: prost::Message {
    /// The message type in the table.
    const TYPE: MessageType;
}

macro_rules! typed {
    ($($ty:ty => $constant:ident,)*) => {
        $(impl Typed for $ty {
            const TYPE: MessageType = $constant;
        })*
    };
}

typed! {
    common::MessageKey => MESSAGE_KEY,
    companion::DeviceProps => DEVICE_PROPS,
    e2e::ContextInfo => CONTEXT_INFO,
    e2e::Message => MESSAGE,
    e2e::MessageContextInfo => MESSAGE_CONTEXT_INFO,
    history::Conversation => CONVERSATION,
    history::HistorySync => HISTORY_SYNC,
    sync_action::SyncActionData => SYNC_ACTION_DATA,
    sync_action::SyncActionValue => SYNC_ACTION_VALUE,
    vname::VerifiedNameCertificate => VERIFIED_NAME_CERTIFICATE,
    wa6::ClientPayload => CLIENT_PAYLOAD,
    web::WebMessageInfo => WEB_MESSAGE_INFO,
}

#[cfg(test)]
mod tests;
