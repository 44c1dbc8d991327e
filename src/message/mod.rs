//! Content: what goes into an encrypted payload, and what comes out of one (spec 03 §4, spec 06 §1 to §3).
//!
//! ```text
//! out   build ──► Message ──► classify: type, mediatype, edit, decrypt-fail, meta ──► encode ──► padding::pad
//! in    padding::unpad ──► decode ──► normalise: kind, text, flags, what it does
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`id`] | message ids |
//! | [`padding`] | 1 to 16 bytes behind every payload |
//! | [`phash`] | the participant hash |
//! | [`content`] | the fields of `Message` as tables |
//! | [`normalise`](mod@normalise) | wrappers off, contexts merged |
//! | [`kind`] | what a message is to a user |
//! | [`protocol`] | protocol messages and who may send them |
//! | [`classify`](mod@classify) | the attributes of the stanza |
//! | [`build`] | texts, replies, copies for own devices |
//! | [`secret`] | what is encrypted with the secret of another message |
//! | [`reporting`] | the token by which a recipient can report a message |
//! | [`privacy_token`] | what shows the server that a peer knows us |
//! | [`distribution`] | who gets our sender key of a group, and when it is replaced |
//! | `fields` | protobuf written from borrowed parts |
//!
//! Everything works on values of [`crate::proto::e2e`]; encryption and stanzas are elsewhere.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod build;
pub mod classify;
pub mod content;
pub mod distribution;
pub(crate) mod fields;
#[doc(hidden)]
pub mod fuzz;
pub mod id;
pub mod kind;
pub mod normalise;
pub mod padding;
pub mod phash;
pub mod privacy_token;
pub mod protocol;
pub mod reporting;
pub mod secret;
#[cfg(test)]
mod tests;

pub use classify::{Classification, Edit, StanzaType, classify};
pub use id::MessageId;
pub use kind::Kind;
pub use normalise::{Action, Normalised, normalise, poll_of, unwrap_device_sent};

use crate::proto::{Message as _, e2e::Message};

/// A payload larger than this is refused before decoding: text has at most 64 KiB, thumbnails some 100 KiB, and media travel
/// elsewhere.
pub const MAX_PAYLOAD: usize = 4 * 1_024 * 1_024;

/// Why a payload or an id is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// A padded payload without bytes.
    #[error("padded payload is empty")]
    Empty,
    /// The padding says that it is 0 bytes, or longer than the payload.
    #[error("padding of {pad} bytes in a payload of {len}")]
    PaddingLength {
        /// The last byte.
        pad: u8,
        /// Bytes received.
        len: usize,
    },
    /// A padding byte is not the length of the padding.
    #[error("padding bytes differ")]
    PaddingBytes,
    /// `v` of `<enc>` is not a version with a known padding.
    #[error("payload version {0} is not supported")]
    Version(u8),
    /// The payload is above the limit.
    #[error("payload of {len} bytes, at most {max} accepted")]
    TooLong {
        /// Bytes received.
        len: usize,
        /// Bytes accepted.
        max: usize,
    },
    /// The payload is not a `Message`.
    #[error("payload is not a message")]
    Malformed,
    /// The IV of an addon has the wrong length.
    #[error("IV of an addon of {len} bytes, 12 expected")]
    AddonIv {
        /// Bytes received.
        len: usize,
    },
    /// No spelling of the people involved gives the tag of an addon: another secret, or forged.
    #[error("authentication tag of the addon does not match")]
    AddonAuthentication,
    /// A poll needs a question and 2 to 12 different options.
    #[error("a poll needs a question and 2 to 12 different options")]
    Poll,
    /// A message id is empty, too long, or has control characters.
    #[error("message id of {len} bytes is empty, too long or not printable")]
    Id {
        /// Bytes received.
        len: usize,
    },
}

/// Decodes a payload after [`padding::unpad`].
///
/// # Errors
/// [`MessageError::TooLong`], [`MessageError::Malformed`] (answered by nack 491, spec 03 §5.3).
pub fn decode(payload: &[u8]) -> Result<Message, MessageError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(MessageError::TooLong { len: payload.len(), max: MAX_PAYLOAD });
    }
    Message::decode(payload).map_err(|_| MessageError::Malformed)
}
