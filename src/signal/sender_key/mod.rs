//! Sender keys: one ciphertext for all devices of a group, a status audience or a broadcast list (spec 03 §3).
//!
//! A device that sends to a group keeps an [`OwnSenderKey`]: a hash chain and a signing key. It hands the chain out once, in
//! a distribution message that travels inside pairwise sessions, and from then on every message to the group is one `skmsg`.
//! A device that receives keeps a [`SenderKeyRecord`] per sender.
//!
//! ```text
//!          rotate, distribute                        process
//!  OwnSenderKey ──── DistributionMessage (pairwise) ────► SenderKeyRecord
//!       │                                                      ▲
//!       └─encrypt──────────── skmsg (to the group) ──decrypt───┴──► plaintext, padded still (spec 03 §4.1)
//! ```
//!
//! As with sessions, records are values and a step is a function of them: it reads through [`SenderKeyStore`], checks
//! everything, and only then writes. A step that fails, or that misses a record, has written nothing.
//!
//! | record | content | size | written |
//! |---|---|---|---|
//! | [`OwnSenderKey`] | our key for a group: id, chain, signing pair, lease | 145 bytes | every message sent |
//! | [`SenderKeyRecord`] | up to 5 keys of a sender, newest first | < 600 bytes, and 12 per page | every message read |
//! | [`SkippedPage`](super::SkippedPage) | message keys of skipped iterations, up to 64 | < 2.1 KiB | a message is late or early |
//!
//! Each key of a sender has at most 2,000 skipped message keys on 128 pages. What a forged `skmsg` costs is bounded: one
//! verification for each record that has its key id, at most [`MAX_SENDERS`]; no hash is computed before the signature holds.
//!
//! **A message key is used once.** A chain only moves forward: a repeated distribution message does not rewind it, and
//! moving a record to another address unites two copies of a key so that nothing which either has read is readable again.

mod own;
mod receive;
mod record;
mod send;
mod store;
pub mod wire;

#[doc(hidden)]
pub mod fuzz;
pub mod memory;
#[cfg(test)]
mod tests;

use std::fmt;

use compact_str::CompactString;

use super::Address;

pub use own::{OwnSenderKey, SenderKeyPosition};
pub use receive::{MAX_SENDERS, decrypt, forget, process, relocate};
pub use record::SenderKeyRecord;
pub use send::{discard, distribute, encrypt, rotate};
pub use store::SenderKeyStore;

/// Iterations that a message may skip (spec 03 §2.9).
pub const MAX_JUMP: u32 = 2_000;

/// Whose sender key, and for what: the key of a record (spec 03 §3.3).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SenderKeyName {
    group: CompactString,
    sender: Address,
}

impl SenderKeyName {
    /// `group` is the JID of the group, of the broadcast list, or `status@broadcast`; `sender` the device that sends.
    pub fn new(group: &str, sender: Address) -> Self {
        Self { group: CompactString::new(group), sender }
    }

    /// The chat.
    pub fn group(&self) -> &str {
        self.group.as_str()
    }

    /// The device that sends.
    pub const fn sender(&self) -> &Address {
        &self.sender
    }
}

impl fmt::Debug for SenderKeyName {
    // Addresses hold phone numbers, and so do the JIDs of old groups.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SenderKeyName([redacted])")
    }
}

/// The id of a sender key, chosen at random by its owner: 31 bits when it is one of ours, 32 on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SenderKeyId(pub u32);

/// The number of a key within its [`SenderKeyRecord`], never used again there: it names the pages of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SenderKeySerial(pub u32);

/// The key of a page of skipped message keys among the records of one [`SenderKeyName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SenderKeyPageId {
    /// The sender key that the page belongs to.
    pub serial: SenderKeySerial,
    /// The iterations: `page * 64 .. (page + 1) * 64`.
    pub page: u32,
}

/// What a distribution message changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processed {
    /// The key was not known; the oldest of more than five is gone.
    Added,
    /// Another key had this id; it is gone.
    Replaced,
    /// The key was known and stays as it is, but is the newest again.
    Known,
    /// The key was known, but so far behind that its messages could not be read any more: it was moved forward.
    CaughtUp,
}

/// What [`decrypt`] gives.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupPlaintext {
    /// The plaintext, with the message padding of spec 03 §4.1 still on.
    pub plaintext: Vec<u8>,
    /// Which of the senders given had the key: 0 is the exact device.
    pub sender: usize,
    /// The key.
    pub id: SenderKeyId,
    /// The number of the message in its chain.
    pub iteration: u32,
}

impl fmt::Debug for GroupPlaintext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupPlaintext")
            .field("plaintext", &format_args!("[{} bytes]", self.plaintext.len()))
            .field("sender", &self.sender)
            .field("id", &self.id)
            .field("iteration", &self.iteration)
            .finish()
    }
}
