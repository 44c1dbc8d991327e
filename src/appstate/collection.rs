//! The five collections and what is known of one of them.

use super::{AppStateError, LtHash};

/// A collection: an independent, versioned log of patches (spec 05 §A1). In the order in which they are fetched first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum CollectionName {
    /// Push name, locale: what must be there first.
    CriticalBlock = 4,
    /// Contacts of the address book.
    CriticalUnblockLow = 5,
    /// Mute, star, delete, clear, status privacy …
    RegularHigh = 3,
    /// Labels, quick replies, business …
    Regular = 1,
    /// Pin, archive, read marks, locks, settings …
    RegularLow = 2,
}

impl CollectionName {
    /// All of them, in the order in which they are fetched first.
    pub const ALL: [Self; 5] =
        [Self::CriticalBlock, Self::CriticalUnblockLow, Self::RegularHigh, Self::Regular, Self::RegularLow];

    /// The name on the wire, which the MACs cover, too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CriticalBlock => "critical_block",
            Self::CriticalUnblockLow => "critical_unblock_low",
            Self::RegularHigh => "regular_high",
            Self::Regular => "regular",
            Self::RegularLow => "regular_low",
        }
    }

    /// The collection of a name; `None` for one of a newer server.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|collection| collection.as_str() == name)
    }

    /// The number in the schema, and in the ids of records.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl std::fmt::Display for CollectionName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether what we have is what the senders of patches have (spec 05 §A7.5).
///
/// ```text
///              a patch matches
///           ┌───────────────────┐
///           ▼                   │
///        Verified ──mismatch──► Refetched ──mismatch──► Mismatched
///           ▲     (drop, ask             (applied all      │
///           │      for a snapshot)        the same, told)  │
///           └───────────────── a snapshot ◄────────────────┘
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Trust {
    /// The last comparison matched.
    #[default]
    Verified = 0,
    /// The state was dropped for a mismatch, and no patch has matched since.
    Refetched = 1,
    /// It mismatched again: patches are applied without the comparison until the next snapshot.
    Mismatched = 2,
}

/// What is known of a collection, without its entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CollectionState {
    /// The version behind the last patch; 0 when there is no local state.
    pub version: u64,
    /// The sum of the value MACs of all entries.
    pub lthash: LtHash,
    /// Whether it agrees with what others have.
    pub trust: Trust,
}

/// The first byte of the record.
const VERSION: u8 = 1;

impl CollectionState {
    /// The state after it was dropped for a mismatch: nothing is left, but that it was.
    pub fn dropped_for_mismatch() -> Self {
        Self { trust: Trust::Refetched, ..Self::default() }
    }

    /// Whether there is no local state.
    pub const fn is_fresh(&self) -> bool {
        self.version == 0
    }

    /// Its record: 01, trust, version (u64 big-endian), 128 bytes of hash.
    pub fn encode(&self) -> Vec<u8> {
        let head = [VERSION, self.trust as u8];
        [&head[..], &self.version.to_be_bytes(), &self.lthash.to_bytes()].concat()
    }

    /// Reads its record.
    ///
    /// # Errors
    /// [`AppStateError::Record`] when it is damaged.
    pub fn decode(record: &[u8]) -> Result<Self, AppStateError> {
        let damaged = |reason| AppStateError::Record { what: "collection", reason };
        let Some(([VERSION, trust], rest)) = record.split_first_chunk() else {
            return Err(damaged("it is cut off or of an unknown version"));
        };
        let Some((version, lthash)) = rest.split_first_chunk() else { return Err(damaged("it is cut off")) };
        let lthash = lthash.try_into().map_err(|_| damaged("the hash is not 128 bytes"))?;
        let trust = match trust {
            0 => Trust::Verified,
            1 => Trust::Refetched,
            2 => Trust::Mismatched,
            _ => return Err(damaged("unknown trust")),
        };
        Ok(Self { version: u64::from_be_bytes(*version), lthash: LtHash::from_bytes(lthash), trust })
    }
}
