//! The life cycle of the connection (spec 01 §6, 07 §3).
//!
//! ```text
//!            connect, link                    opened                 server hello
//!   Idle ──────────────────► Opening ─────────────────► Handshaking ──────────────┐
//!    ▲ ▲                        ▲                                                 │
//!    │ │ stop                   │ time is up                not linked            │ linked
//!    │ │                     Backoff                            ┌─────────────────┴──────┐
//!    │ └── replaced, banned,    ▲                               ▼                        ▼
//!    │     outdated, logged out │ lost                       Linking ──(515)──►      LoggingIn
//!    │                          │                               │                        │ success
//!    └── codes used up ─────────┼───────────────────────────────┘                        ▼
//!                               └────────────────────────────────────────────────────  Online
//! ```
//!
//! A connection that is lost comes back by itself after a pause: 1, 1, 2, 3, 5, 8 … seconds, ±10 %, at most
//! [`Config::max_backoff`](super::Config::max_backoff); the row starts again after 30 s of a standing connection.

mod dial;
mod failure;
mod frames;
mod wire;

use std::time::Duration;

use self::wire::Wire;
use super::ConnectionId;
use crate::{
    engine::{link::Link, login::Online},
    event::DisconnectReason,
    noise::{FrameBuffer, Handshake, TransportError},
};

/// How long a connection must stand before the next loss starts the row of pauses again.
const STABLE_AFTER: Duration = Duration::from_secs(30);
/// How many steps a rate limit advances the row of pauses (spec 01 §6.4).
const RATE_LIMIT_STEPS: u32 = 5;

/// What the engine works towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// No connection.
    Offline,
    /// Logged in, for ever.
    Online,
    /// Linked to a phone.
    Linked,
}

#[derive(Debug)]
enum State {
    Idle,
    Backoff { until: Duration },
    Opening { id: ConnectionId, deadline: Duration },
    Handshaking { id: ConnectionId, handshake: Box<Handshake>, frames: FrameBuffer, deadline: Duration },
    Linking { id: ConnectionId, wire: Box<Wire>, link: Link },
    LoggingIn { id: ConnectionId, wire: Box<Wire>, deadline: Duration },
    Online { id: ConnectionId, wire: Box<Wire>, online: Online },
}

/// The connection, and what is remembered from one to the next.
#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    goal: Goal,
    /// Losses in a row.
    attempt: u32,
    /// The application knows that we are offline.
    outage_told: bool,
    /// Resuming failed in this process: use the full handshake.
    resume_failed: bool,
}

/// Why a connection ends, and what follows.
#[derive(Debug)]
pub(crate) enum Loss {
    /// Connect again after a pause.
    Retry { reason: DisconnectReason, detail: String },
    /// Connect again at once; not an error.
    Restart,
    /// Stay offline until told otherwise.
    Stop,
}

impl Connection {
    pub(crate) const fn new() -> Self {
        Self { state: State::Idle, goal: Goal::Offline, attempt: 0, outage_told: false, resume_failed: false }
    }

    /// The connection that stands or is being made.
    pub(crate) const fn id(&self) -> Option<ConnectionId> {
        match &self.state {
            State::Idle | State::Backoff { .. } => None,
            State::Opening { id, .. }
            | State::Handshaking { id, .. }
            | State::Linking { id, .. }
            | State::LoggingIn { id, .. }
            | State::Online { id, .. } => Some(*id),
        }
    }

    /// The wire of a connection, after its handshake.
    pub(crate) fn wire(&mut self, wanted: ConnectionId) -> Option<&mut Wire> {
        match &mut self.state {
            State::Linking { id, wire, .. } | State::LoggingIn { id, wire, .. } | State::Online { id, wire, .. }
                if *id == wanted =>
            {
                Some(wire)
            }
            _ => None,
        }
    }

    /// What goes on while logged in.
    pub(crate) fn online(&mut self) -> Option<&mut Online> {
        match &mut self.state {
            State::Online { online, .. } => Some(online),
            _ => None,
        }
    }

    /// What goes on while linking.
    pub(crate) fn link(&mut self) -> Option<&mut Link> {
        match &mut self.state {
            State::Linking { link, .. } => Some(link),
            _ => None,
        }
    }

    /// Whether messages can be sent.
    pub(crate) fn is_online(&self) -> bool {
        matches!(&self.state, State::Online { online, .. } if online.is_active())
    }

    /// Why the wire cannot go on, when it cannot.
    const fn wire_failure(&self) -> Option<TransportError> {
        match &self.state {
            State::Linking { wire, .. } | State::LoggingIn { wire, .. } | State::Online { wire, .. } => wire.failure(),
            _ => None,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Duration> {
        if self.wire_failure().is_some() {
            return Some(Duration::ZERO);
        }
        match &self.state {
            State::Idle => None,
            State::Backoff { until } => Some(*until),
            State::Opening { deadline, .. }
            | State::Handshaking { deadline, .. }
            | State::LoggingIn { deadline, .. } => Some(*deadline),
            State::Linking { link, .. } => link.deadline(),
            State::Online { online, .. } => Some(online.deadline()),
        }
    }

    /// The application was told that we are online.
    pub(crate) const fn told_online(&mut self) {
        self.outage_told = false;
    }

    /// Offline until somebody wants otherwise: what comes then is another outage with a row of pauses of its own.
    const fn stop(&mut self) {
        self.goal = Goal::Offline;
        self.attempt = 0;
        self.outage_told = false;
    }

    /// Linking succeeded: from now on the goal is to be online.
    pub(crate) const fn now_linked(&mut self) {
        self.goal = Goal::Online;
    }
}
