//! What the layer refuses, and the number that a retry receipt gives for it.

use crate::crypto::CryptoError;

/// What the Signal layer refuses. Nothing was changed when one of these comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// There is no session with this device.
    #[error("no session with this device")]
    NoSession,
    /// There is no sender key of this id from this sender (spec 03 §3.2).
    #[error("no sender key of this id from this sender")]
    NoSenderKey,
    /// The message was decrypted before, or its key was dropped from a full list: treat it as received.
    #[error("message was decrypted before")]
    Duplicate,
    /// The MAC does not match: the message is forged, damaged, or of a session that we do not have.
    #[error("message authentication code does not match")]
    BadMac,
    /// A pkmsg names a one-time prekey that we do not have (any more).
    #[error("one-time prekey {0} is unknown")]
    InvalidPreKeyId(u32),
    /// A pkmsg names a signed prekey that we do not have.
    #[error("signed prekey {0} is unknown")]
    InvalidSignedPreKeyId(u32),
    /// The signed prekey of a bundle is not signed by the bundle's identity, or a group message not by its sender key.
    #[error("signature does not verify")]
    BadSignature,
    /// A message skips more counters than a receiver has to follow, or than one message may cost.
    #[error("message skips {jump} counters, at most {max} allowed")]
    TooFarAhead {
        /// Counters skipped.
        jump: u32,
        /// The limit.
        max: u32,
    },
    /// The message version is not 3.
    #[error("message version {0}, 3 expected")]
    Version(u8),
    /// The bytes of a message break its format.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// A public key has the wrong length or type, or is a point of small order.
    #[error("bad public key: {0}")]
    Key(#[source] CryptoError),
    /// A pkmsg for an existing session claims another identity than the session has.
    #[error("identity differs from that of the session")]
    IdentityMismatch,
    /// The authenticated ciphertext has wrong padding.
    #[error("padding of the ciphertext is wrong")]
    Padding,
    /// A counter or id has reached its end; a new session is needed.
    #[error("{0} is used up")]
    Exhausted(&'static str),
    /// A stored record is of a version that this code does not know.
    #[error("{what} record of version {version} is unknown")]
    RecordVersion {
        /// Which record.
        what: &'static str,
        /// The version found.
        version: u8,
    },
    /// A stored record is damaged.
    #[error("{what} record is damaged: {reason}")]
    Record {
        /// Which record.
        what: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl SignalError {
    /// The number for the `error` attribute of a retry receipt (spec 03 §5.4).
    pub const fn retry_reason(&self) -> u8 {
        match self {
            Self::Duplicate | Self::Exhausted(_) => 0,
            // There is no number of its own for a sender key; it is what a group has for a session.
            Self::NoSession | Self::NoSenderKey => 1,
            Self::Key(_) => 2,
            Self::InvalidPreKeyId(_) | Self::InvalidSignedPreKeyId(_) => 3,
            Self::Malformed(_) | Self::Version(_) | Self::IdentityMismatch | Self::Padding => 4,
            Self::BadSignature => 5,
            Self::TooFarAhead { .. } => 6,
            Self::BadMac => 7,
            Self::RecordVersion { .. } | Self::Record { .. } => 8,
        }
    }
}

/// Why a step stopped: a record is missing from the cache, or the input is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError<M> {
    /// The store does not have a record at hand; load it and run the step again.
    #[error("a record is not loaded")]
    Miss(M),
    /// The input is refused.
    #[error(transparent)]
    Signal(#[from] SignalError),
}
