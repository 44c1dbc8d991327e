//! End-to-end encryption between two devices: X3DH and the double ratchet, version 3 (spec 03 §2).
//!
//! Records are values here, and a step is a function of them: it reads what it needs through [`SignalStore`], checks
//! everything, and only then writes. A step that fails, or that misses a record, has written nothing.
//!
//! ```text
//!  bundle ──establish──┐                                      ┌── Ciphertext (pkmsg until an answer came, then msg)
//!                      ▼                                      │
//!                   Session ──────────────encrypt─────────────┘
//!                      ▲
//!  pkmsg, msg ──decrypt┴── Decrypted (plaintext still padded, spec 03 §4.1)
//! ```
//!
//! What is stored for a remote device ([`Address`]) is split so that a message in order rewrites one small record:
//!
//! | record | content | size | written |
//! |---|---|---|---|
//! | [`Session`] | the current state: root key, sender chain, up to 5 receiver chains | < 800 bytes | every step |
//! | [`SkippedPage`] | message keys of skipped counters, up to 64 | < 2.1 KiB | a message is late or early |
//! | [`ArchiveIndex`] | what states are archived, up to 40 | < 3.5 KiB | a session is replaced or promoted |
//! | [`State`] | one archived state | < 800 bytes | likewise |
//!
//! The receiver chains index their skipped keys (12 bytes a page), at most 2,000 keys and 128 pages a chain.
//!
//! What forged input costs is bounded: a Diffie-Hellman per state that could match, and 8,000 hashes (see [`decrypt`]).
//!
//! The module names: `wire` is the two messages, `chain` the key derivations, `x3dh` the key agreement, `establish` the start
//! of a session, `ratchet` one message against one [`State`], `session` the choice among states, `archive` what becomes of
//! those that were replaced, `unite` two names of one device, `import` the protobuf form of other stores (spec 03 §2.7).
//! Groups have keys of their own kind, in [`sender_key`].
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod archive;
mod chain;
mod codec;
mod error;
mod establish;
#[doc(hidden)]
pub mod fuzz;
pub mod import;
mod lease;
pub mod memory;
mod ratchet;
mod record;
pub mod sender_key;
mod session;
mod skipped;
mod state;
mod store;
mod unite;
pub mod wire;
mod x3dh;

#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use compact_str::CompactString;

use crate::crypto::{KeyPair, PublicKey};

pub use error::{SignalError, StepError};
pub use establish::{Prepared, establish, install, prepare};
pub use lease::{LEASE, Leased};
pub use record::{ArchiveIndex, Session};
pub use session::{decrypt, encrypt, encrypt_with, forget, peek, relocate};
pub use skipped::{PageId, SkippedPage};
pub use state::{SenderPosition, State};
pub use store::SignalStore;
pub use unite::unite;

/// The canonical key of a remote device, under which its session and identity are stored (spec 03 §2.8).
///
/// Opaque here; whoever makes it vouches that equal devices have equal addresses and others different ones.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(CompactString);

impl Address {
    /// Takes the canonical text.
    pub fn new(text: &str) -> Self {
        Self(CompactString::new(text))
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Address {
    // An address holds a phone number, and logs must not.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address([redacted])")
    }
}

/// The id of a one-time prekey, `1..=16_777_215` when it is one of ours. 0 means absent on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PreKeyId(pub u32);

/// The id of a signed prekey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SignedPreKeyId(pub u32);

/// The id of a state, unique among all that the record of one address has ever held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(pub u32);

/// Our own side: what every session of this device shares.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Our identity key pair.
    pub identity: &'a KeyPair,
    /// Our registration id, put into every pkmsg.
    pub registration_id: u32,
}

/// The two kinds of ciphertext that a session makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CiphertextKind {
    /// `pkmsg`: carries what the other side needs to set the session up.
    PreKey,
    /// `msg`: for a session that both sides have.
    Whisper,
}

impl CiphertextKind {
    /// The `type` attribute of `<enc>`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PreKey => "pkmsg",
            Self::Whisper => "msg",
        }
    }
}

/// What [`encrypt`] makes: the content and the type of an `<enc>` element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ciphertext {
    /// Says which message the bytes are.
    pub kind: CiphertextKind,
    /// The whole serialised message.
    pub bytes: Bytes,
}

/// The published keys of a remote device, enough to start a session with it (spec 03 §1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreKeyBundle {
    /// The device's registration id.
    pub registration_id: u32,
    /// Its identity key. Companions prove it by an ADV signature, which is checked elsewhere.
    pub identity: PublicKey,
    /// The id of the signed prekey.
    pub signed_pre_key_id: SignedPreKeyId,
    /// The signed prekey.
    pub signed_pre_key: PublicKey,
    /// XEdDSA signature by the identity key over `05 || signed_pre_key`.
    pub signature: [u8; 64],
    /// A one-time prekey, unless the server ran out of them.
    pub pre_key: Option<(PreKeyId, PublicKey)>,
}

/// How the identity in a bundle relates to the one stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityChange {
    /// The first identity seen of this device.
    New,
    /// The one already known.
    Unchanged,
    /// The device has another identity than before; the sessions built on the old one are gone.
    Changed {
        /// The identity known until now.
        previous: PublicKey,
    },
}

/// What [`decrypt`] gives.
#[derive(Clone, PartialEq, Eq)]
pub struct Decrypted {
    /// The plaintext, with the message padding of spec 03 §4.1 still on.
    pub plaintext: Vec<u8>,
    /// The identity that authenticated the message.
    pub identity: PublicKey,
    /// The identity differs from the one known before: tell the user, refresh what hangs on it (spec 03 §4.9).
    pub identity_changed: bool,
    /// The one-time prekey that this message consumed; its deletion is among the effects already.
    pub used_pre_key: Option<PreKeyId>,
}

impl fmt::Debug for Decrypted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decrypted")
            .field("plaintext", &format_args!("[{} bytes]", self.plaintext.len()))
            .field("identity", &self.identity)
            .field("identity_changed", &self.identity_changed)
            .field("used_pre_key", &self.used_pre_key)
            .finish()
    }
}

/// What a ciphertext says about itself in the clear, so that a caller can load the records in one round.
///
/// Nothing of it is authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peek {
    /// The one-time prekey that a new session will take.
    pub pre_key: Option<PreKeyId>,
    /// The signed prekey that a new session will take; `None` for a msg.
    pub signed_pre_key: Option<SignedPreKeyId>,
    /// The identity that a pkmsg claims.
    pub identity: Option<PublicKey>,
    /// The registration id that a pkmsg claims.
    pub registration_id: Option<u32>,
}
