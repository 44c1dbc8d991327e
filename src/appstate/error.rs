//! What the layer refuses.

use super::KeyId;

/// Why a snapshot, a patch or a stored record cannot be used. Nothing of it was applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AppStateError {
    /// More bytes than are looked at.
    #[error("{len} bytes, at most {max} allowed")]
    TooLarge {
        /// Bytes received.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// The bytes break their format.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The version is not the next one: a duplicate, if it is not above the local one, or a gap.
    #[error("version {version}, local state has {local}")]
    Version {
        /// That of the patch or the snapshot.
        version: u64,
        /// That of the local state.
        local: u64,
    },
    /// A patch, a snapshot or a record names no key, or one whose id is longer than any.
    #[error("no usable key id")]
    NoKeyId,
    /// Keys that we do not have: the collection waits until they are there (spec 05 §A2.4).
    #[error("{} keys are missing", .0.len())]
    MissingKeys(Vec<KeyId>),
    /// The mutations of a patch are in another place and are fetched first (spec 05 §A6).
    #[error("mutations are external and were not given")]
    External,
    /// The sender gave up in the middle of a patch.
    #[error("sender aborted with code {0}")]
    Aborted(u64),
    /// The MAC of a patch does not match: it was made by nobody who has the key.
    #[error("patch MAC does not match")]
    PatchMac,
    /// The MAC over the whole collection does not match: what we have differs from what the sender had.
    #[error("snapshot MAC does not match")]
    SnapshotMac,
    /// The MAC of a value does not match.
    #[error("value MAC does not match")]
    ValueMac,
    /// The MAC of an index has the wrong length or does not match.
    #[error("index MAC does not match")]
    IndexMac,
    /// A value with a good MAC cannot be decrypted.
    #[error("value cannot be decrypted")]
    Decrypt,
    /// One patch sets or removes the same index twice.
    #[error("same index for several mutations of a patch")]
    DuplicateIndex,
    /// The sum of a recovery snapshot is not that of its records.
    #[error("hash of a recovery snapshot does not match")]
    LtHash,
    /// A stored record is damaged or of an unknown version.
    #[error("{what} record: {reason}")]
    Record {
        /// Which record.
        what: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// There is nothing to send, or no key to send it with.
    #[error("{0}")]
    Unsendable(&'static str),
}
