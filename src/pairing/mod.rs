//! Linking this device to an account, by QR code, by phone number or with a passkey, and the payloads of registration and
//! login (spec 01 §3 to §5).
//!
//! ```text
//! payload::registration ──► server ──► pair-device: refs ──► qr::RefPlan ──► QR on the screen
//!                                                                                  │ scanned by the phone
//! engine persists, then sends ◄── adv: verify, sign ◄── pair-success ◄── server ◄──┘
//!     pair-device-sign ──► server ──► stream error 515 ──► reconnect with payload::login
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`qr`] | the QR text and its lifetimes |
//! | [`code`] | the 8-character code: phone numbers, key wrapping, its stanzas |
//! | [`passkey`] | the exchange that a WebAuthn assertion authorises |
//! | [`notice`] | the notifications of linking |
//! | [`adv`] | checks of signed device identities, our own signature |
//! | [`key_index`] | which companions of an account are linked |
//! | [`stanza`] | the `md` iqs, in and out |
//! | [`payload`] | `ClientPayload` for registration and login |
//!
//! All of it is pure: keys, randomness and received bytes are arguments. What was verified is a type
//! ([`adv::VerifiedIdentity`], [`adv::SignedIdentity`]) that cannot be made otherwise.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod adv;
pub mod code;
#[doc(hidden)]
pub mod fuzz;
pub mod key_index;
pub mod notice;
pub mod passkey;
pub mod payload;
pub mod qr;
pub mod stanza;

/// Why linking, or the check of a device identity, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairError {
    /// A value is longer than this layer accepts, or there are too many of it.
    #[error("{what} of {len}, at most {max} accepted")]
    TooLong {
        /// Which value.
        what: &'static str,
        /// Bytes or elements received.
        len: usize,
        /// Bytes or elements accepted.
        max: usize,
    },
    /// A part of a stanza, protobuf or QR text is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A part of a stanza, protobuf or QR text cannot be read.
    #[error("{0} is malformed")]
    Malformed(&'static str),
    /// The container of pair-success was not made with the secret of our QR code.
    #[error("HMAC of the device identity does not match")]
    HmacMismatch,
    /// The account's signature on the device identity does not verify.
    #[error("account signature of the device identity does not verify")]
    AccountSignature,
    /// The device's own signature on its identity does not verify (fetched identities only).
    #[error("device signature of the device identity does not verify")]
    DeviceSignature,
    /// A fetched identity comes without account key and none is known: nothing was checked.
    #[error("no account key to check the device identity with")]
    NoAccountKey,
    /// A key of the phone is of small order: the shared secret would be no secret.
    #[error("a key of the phone is of small order")]
    WeakKey,
    /// The embedding program does not want this account.
    #[error("the account was refused by the application")]
    Rejected,
    /// Misuse: the key pair to sign with is not the one that was verified.
    #[error("the identity to sign with is not the verified one")]
    OtherIdentity,
    /// Misuse: a value of our own does not fit into the payload.
    #[error("{0} does not fit into the client payload")]
    Payload(&'static str),
}

impl PairError {
    /// The code of the error iq that answers a pair-success (spec 01 §4.4).
    pub const fn code(&self) -> u16 {
        match self {
            Self::HmacMismatch | Self::AccountSignature => 401,
            _ => 500,
        }
    }

    /// The text of the error iq that answers a pair-success (spec 01 §4.4).
    pub const fn text(&self) -> &'static str {
        match self {
            Self::HmacMismatch => "hmac-mismatch",
            Self::AccountSignature => "signature-mismatch",
            _ => "internal-error",
        }
    }
}

/// Checks a length against its limit.
fn limit(what: &'static str, len: usize, max: usize) -> Result<(), PairError> {
    if len > max { Err(PairError::TooLong { what, len, max }) } else { Ok(()) }
}
