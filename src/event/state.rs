//! The session state that follows from an event (spec 07 §3), so that a snapshot always equals the last event.
//!
//! ```text
//! PENDING ──► CONNECTING ──► CONNECTED ──► DISCONNECTED ──► CONNECTING …
//!                                │
//!                                └► LOGGED_OUT, BANNED, REPLACED, OUTDATED: until the caller acts
//! ```

use serde::{Deserialize, Serialize};

use super::{DisconnectReason, Event};

/// Where a session stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum SessionState {
    /// Not linked: no credentials, or a code is on the screen.
    #[default]
    Pending,
    /// A connection is being opened.
    Connecting,
    /// Logged in and able to send.
    Connected,
    /// Not connected; the engine comes back by itself unless it was stopped.
    Disconnected,
    /// Not linked any more.
    LoggedOut,
    /// Banned or locked.
    Banned,
    /// The same credentials connected elsewhere.
    Replaced,
    /// The protocol version was refused.
    Outdated,
}

impl SessionState {
    /// The word in snapshots.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Connecting => "CONNECTING",
            Self::Connected => "CONNECTED",
            Self::Disconnected => "DISCONNECTED",
            Self::LoggedOut => "LOGGED_OUT",
            Self::Banned => "BANNED",
            Self::Replaced => "REPLACED",
            Self::Outdated => "OUTDATED",
        }
    }

    /// Whether only the caller can bring the session back.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::LoggedOut | Self::Banned | Self::Replaced | Self::Outdated)
    }

    /// The state after an event; `None` when the event says nothing about it.
    ///
    /// The last event counts, so of a ban that also ends the link, `session.logged_out` goes first and `session.banned`
    /// last.
    pub fn after(event: &Event) -> Option<Self> {
        Some(match event {
            // Codes and passkeys come beside QR codes and say nothing more.
            Event::QrUpdated(_) | Event::QrExhausted(_) | Event::PairError(_) => Self::Pending,
            Event::Connecting(_) | Event::Paired(_) => Self::Connecting,
            Event::Reconnecting(retry) if retry.reason == DisconnectReason::RestartRequired => Self::Connecting,
            Event::Reconnecting(_) => Self::Disconnected,
            Event::Connected(_) => Self::Connected,
            // Without credentials there is nothing to come back to.
            Event::Disconnected(outage) if !outage.linked && !outage.will_reconnect && !outage.permanent => {
                Self::Pending
            }
            Event::Disconnected(outage) => match outage.reason {
                DisconnectReason::Replaced => Self::Replaced,
                DisconnectReason::LoggedOut => Self::LoggedOut,
                DisconnectReason::Banned => Self::Banned,
                DisconnectReason::Outdated => Self::Outdated,
                DisconnectReason::RestartRequired => Self::Connecting,
                DisconnectReason::ConnectionLost
                | DisconnectReason::Stopped
                | DisconnectReason::ServerError
                | DisconnectReason::Network
                | DisconnectReason::Refused
                | DisconnectReason::Storage => Self::Disconnected,
            },
            Event::LoggedOut(_) => Self::LoggedOut,
            Event::Banned(_) => Self::Banned,
            Event::Outdated(_) => Self::Outdated,
            _ => return None,
        })
    }
}
