//! What calls of the client answer when they fail.

use std::time::Duration;

use crate::{engine::CommandError, store::StoreError};

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The account refused the command.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The server's address is not a usable `ws://` or `wss://` URL.
    #[error("not a websocket address: {0}")]
    Url(String),
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random,
    /// Somebody has taken the events already.
    #[error("the events were taken already")]
    EventsTaken,
    /// The fleet has as many accounts as it may.
    #[error("{0} accounts run, which is the limit")]
    TooManyAccounts(usize),
    /// The account was stopped.
    #[error("the account was stopped")]
    Stopped,
}

impl Error {
    /// Whether the same call may succeed later without anybody doing something about it.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Command(error) => {
                matches!(error, CommandError::NotConnected | CommandError::Busy { .. } | CommandError::Interrupted)
                    || matches!(error, CommandError::Link { error, .. } if error.is_retryable())
                    || matches!(error, CommandError::LinkUnderWay | CommandError::NoAnswer)
                    || matches!(error, CommandError::Refused { code: 429 | 500..=599, .. })
            }
            Self::Store(error) => matches!(error, StoreError::Backend(_) | StoreError::Leased { until: Some(_), .. }),
            Self::Url(_) | Self::Random | Self::EventsTaken | Self::TooManyAccounts(_) | Self::Stopped => false,
        }
    }

    /// Whether the account has to be linked (again) first.
    pub const fn is_logged_out(&self) -> bool {
        matches!(self, Self::Command(CommandError::NotLinked))
    }

    /// How long to wait before trying again, where that is known.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Command(CommandError::NotConnected | CommandError::Busy { .. }) => Some(Duration::from_secs(1)),
            Self::Command(CommandError::Link { retry_after, .. } | CommandError::Refused { retry_after, .. }) => {
                *retry_after
            }
            _ => None,
        }
    }
}
