//! `store.*`: the store of the account fails, and works again. Events of our own: the protocol knows nothing of them.

use serde::Serialize;

/// What is wrong with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StoreFault {
    /// It could not do its work: disk full, I/O error, locked for too long, connection lost.
    Backend,
    /// What is stored is damaged, of a newer version, or sealed with a key that was not given.
    Unreadable,
    /// Somebody else writes to the account.
    Conflict,
    /// Another store has taken the account: this one has lost its lease.
    LeaseLost,
    /// It was shut down.
    Closed,
}

impl StoreFault {
    /// The word in events.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Unreadable => "unreadable",
            Self::Conflict => "conflict",
            Self::LeaseLost => "lease_lost",
            Self::Closed => "closed",
        }
    }
}

event_data! {
    /// The store did not take or give what it was asked for.
    #[derive(Debug)]
    StoreFailed {
        /// What is wrong.
        fault: StoreFault,
        /// In words of the backend, without personal data.
        detail: String,
        /// The account goes on from what is stored after a pause. If not, it has ended here.
        will_retry: bool,
        /// When, in milliseconds from the timestamp of the envelope.
        #[serde(skip_serializing_if = "Option::is_none")]
        next_retry_ms: Option<u64>,
        /// How often it has failed since it worked, this time included.
        failures: u32,
    }
}

event_data! {
    /// The store took a batch again.
    #[derive(Debug)]
    StoreRecovered {
        /// How often it had failed.
        failures: u32,
    }
}
