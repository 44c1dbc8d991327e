//! The life cycle of the connection (spec 01 §6, 07 §3).
//!
//! ```text
//!              connect, link, reconnect                  opened                   server hello
//!   Stopped ─────────────────────────────► Opening ────────────────► Handshaking ──────────────┐
//!    ▲  ▲  (fresh or stopped by the caller,  ▲  ▲                          not linked          │ linked
//!    │  │   codes used up, REPLACED, BANNED, │  │                   ┌──────────────────────────┤
//!    │  │   OUTDATED, LOGGED_OUT, refused)   │  │ 515               ▼                          ▼
//!    │  │                                    │  └─────────────── Linking                   LoggingIn
//!    │  │ nothing newer                      │ time is up,          │                          │ success
//!    │  ├────────── AwaitVersion ◄─────────┐ │ reconnect            │                          ▼
//!    │  │ another        │                 │ Backoff ◄──────────────┼───── lost, refused ──── Online
//!    │  │ version        └──► Opening      │  for now               │  from each with an id      │
//!    │  └──────────────────────────────────┼────────────────────────┴──── for good ─────────────┤
//!    │                                     └──────────────────────────── 405, once ─────────────┘
//!    └── store lost the account ── Suspended ◄── the store fails ── from each but Stopped and AwaitVersion
//!                                      └──► loaded again: Opening
//! ```
//!
//! Each state owns what it knows, and from it follows the public [`SessionState`], which is that of the last event
//! ([`State::agrees_with`] is checked after every input of a debug build). What lasts from one connection to the next
//! is [`Connection`]: the row of pauses, and how often things happened.
//!
//! # What a command answers
//!
//! | | `Connect` | `LinkQr` | `Reconnect` | `Disconnect` | `Logout` | `Send` | `MarkRead` | `SetVersion` |
//! |---|---|---|---|---|---|---|---|---|
//! | not linked: fresh, stopped, codes used up, `LOGGED_OUT`, `BANNED` (403, 406) | `NotLinked` | Done, dials | `NotLinked` | Done | `NotLinked` | `NotLinked` | `NotConnected` | Done |
//! | not linked: while linking | `NotLinked` | Done, dials if it waits | `NotLinked` | Done, stops | `NotLinked` | `NotLinked` | `NotConnected` | Done |
//! | linked: stopped, `REPLACED`, `BANNED` (402), `OUTDATED`, refused | Done, dials | `AlreadyLinked` | Done, dials | Done | Done, here only | Accepted | `NotConnected` | Done |
//! | linked: `OUTDATED`, a newer version is looked for | Done | `AlreadyLinked` | Done | Done, stops looking | Done, here only | Accepted | `NotConnected` | Done; another one dials |
//! | linked: waits to dial again | Done | `AlreadyLinked` | Done, dials | Done, stops | Done, here only | Accepted | `NotConnected` | Done |
//! | linked: dials, logs in | Done | `AlreadyLinked` | Done | Done, stops | Done, here only | Accepted | `NotConnected` | Done |
//! | linked: `CONNECTED` | Done | `AlreadyLinked` | Done, drops and dials | Done, stops | Done, with the server | Accepted | Done | Done |
//! | being loaded, the store failed | waits until the account is loaded; `Interrupted` when that fails | | | | | | | |
//! | what is stored cannot be read | `Record` | | | | | | | |
//!
//! `LinkCode` is answered as `LinkQr` is, but that "Done" is the code, once the server has taken it, or
//! [`CommandError::Link`](super::CommandError::Link) with why it did not. Passkeys are for a link that is under way.
//! `LinkQr`, `LinkCode` and `Reconnect` cut a pause short. Whatever is under way is not started twice, however often it
//! is asked for.
//!
//! "Dials" means: at once, or when [`Config::max_dials_per_minute`](super::Config::max_dials_per_minute) has room, which
//! `session.reconnecting` tells. An account with a temporary ban may be connected before the ban ends; the server
//! decides, and tells its end again. The end is in `session.banned` and in the snapshot. `Reconnect` after more than
//! 3 replacements in 30 s waits 30 s, so that two programs with the same credentials do not fight.
//!
//! # After a refusal (spec 01 §6.3, §6.4, 07 §3)
//!
//! | `failure` | stream error | what follows |
//! |---|---|---|
//! | 401, 415 | 401, 516, a conflict other than `replaced` | `LOGGED_OUT`, everything stored is removed; while linking: `PENDING` |
//! | 403, 406 | | the same, and `BANNED` |
//! | 402 | | `BANNED` until the caller acts |
//! | 405 | | `OUTDATED`: a version is asked for once, and one dial is made with another one; then until the caller acts |
//! | 409 | | `DISCONNECTED` until the caller acts: nothing gets better without another configuration |
//! | | 409, conflict `replaced` | `REPLACED` until the caller acts |
//! | | 515 | dials at once, no outage |
//! | 500, 501, 503 | 5xx, unknown, an ack that is missing | dials after a pause of class `Server` |
//! | 400, 413, 414, 418, unknown, missing | not well formed | dials after a pause of class `Refused` |
//! | | 429 | dials after a pause of class `RateLimited` |

mod dial;
mod failure;
mod frames;
pub(crate) mod pauses;
mod wire;

use std::time::Duration;

use self::wire::Wire;
use super::{Config, ConnectionId};
use crate::{
    engine::{link::Link, login::Online},
    event::{DisconnectReason, SessionState},
    noise::{FrameBuffer, Handshake, Protocol, TransportError},
    pairing::payload::Version,
};
use pauses::{Class, Row, STABLE_AFTER, Window};

/// The span in which dials are counted.
const DIAL_SPAN: Duration = Duration::from_secs(60);
/// More replacements than this in [`REPLACED_SPAN`] lead to a pause (spec 07 §3).
const MAX_REPLACED: u32 = 3;
/// The span in which replacements are counted, and how long the pause is.
const REPLACED_SPAN: Duration = Duration::from_secs(30);
/// Resumptions that failed in a row after which this process tries no more.
const MAX_RESUME_FAILURES: u32 = 3;
/// Handshakes by way of the same routing info that got no answer, after which it is dropped.
const MAX_ROUTING_FAILURES: u32 = 2;

/// Why there is no connection, and none is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Nobody asked for one, or the caller ended it; or linking came to its end.
    Idle,
    /// The same credentials connected elsewhere.
    Replaced,
    /// Banned; until when, if that is known, unix milliseconds.
    Banned { until_ms: Option<u64> },
    /// The version is refused, and there is no newer one.
    Outdated,
    /// The server does not take how we describe ourselves.
    Refused,
    /// Not linked any more.
    LoggedOut,
}

impl Stop {
    /// How `session.disconnected` calls it.
    const fn reason(self) -> DisconnectReason {
        match self {
            Self::Idle => DisconnectReason::Stopped,
            Self::Replaced => DisconnectReason::Replaced,
            Self::Banned { .. } => DisconnectReason::Banned,
            Self::Outdated => DisconnectReason::Outdated,
            Self::Refused => DisconnectReason::Refused,
            Self::LoggedOut => DisconnectReason::LoggedOut,
        }
    }
}

/// What a suspended account goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Link,
    Login,
}

#[derive(Debug)]
enum State {
    /// No connection, and none is wanted.
    Stopped(Stop),
    /// The store failed: goes on when the account is loaded again.
    Suspended(Goal),
    /// The next dial waits.
    Backoff { until: Duration, reason: DisconnectReason },
    /// The version was refused, and the driver looks for a newer one.
    AwaitVersion { refused: Version, until: Duration },
    /// The websocket is being opened.
    Opening { id: ConnectionId, deadline: Duration },
    /// The client hello was sent.
    Handshaking { id: ConnectionId, handshake: Box<Handshake>, frames: FrameBuffer, deadline: Duration },
    /// A device that is not linked, or that just was and waits for the restart.
    Linking { id: ConnectionId, wire: Box<Wire>, link: Link },
    /// The server says whether the login is accepted.
    LoggingIn { id: ConnectionId, wire: Box<Wire>, deadline: Duration },
    /// It is; active after the login tasks.
    Online { id: ConnectionId, wire: Box<Wire>, online: Online },
}

impl State {
    /// Whether the application may have been told this last.
    fn agrees_with(&self, told: SessionState) -> bool {
        use SessionState::{Banned, Connected, Connecting, Disconnected, LoggedOut, Outdated, Pending, Replaced};
        match self {
            Self::Stopped(Stop::Idle) => matches!(told, Pending | Disconnected),
            Self::Stopped(Stop::Replaced) => told == Replaced,
            Self::Stopped(Stop::Banned { .. }) => told == Banned,
            Self::Stopped(Stop::Outdated) | Self::AwaitVersion { .. } => told == Outdated,
            Self::Stopped(Stop::Refused) | Self::Suspended(_) => told == Disconnected,
            Self::Stopped(Stop::LoggedOut) => told == LoggedOut,
            // A restart that has to wait is not shown as an outage.
            Self::Backoff { reason: DisconnectReason::RestartRequired, .. } => told == Connecting,
            Self::Backoff { .. } => told == Disconnected,
            Self::Opening { .. } | Self::Handshaking { .. } | Self::LoggingIn { .. } => told == Connecting,
            Self::Linking { .. } => matches!(told, Pending | Connecting),
            Self::Online { online, .. } => told == if online.is_active() { Connected } else { Connecting },
        }
    }
}

/// How resuming went in this process (spec 01 §2.4).
#[derive(Debug, Default)]
struct Resume {
    /// It failed, and no handshake succeeded since.
    blocked: bool,
    /// Failures without a success in between.
    in_a_row: u32,
    /// Failures.
    total: u32,
}

impl Resume {
    const fn is_allowed(&self) -> bool {
        !self.blocked && self.in_a_row < MAX_RESUME_FAILURES
    }

    const fn failed(&mut self) {
        self.blocked = true;
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.total = self.total.saturating_add(1);
    }

    fn succeeded(&mut self, kind: Protocol) {
        self.blocked = false;
        if kind == Protocol::Ik {
            self.in_a_row = 0;
        }
    }
}

/// The connection, and what is remembered from one to the next.
#[derive(Debug)]
pub(crate) struct Connection {
    state: State,
    row: Row,
    /// When connections were opened.
    dials: Window,
    /// When the same credentials connected elsewhere.
    replaced: Window,
    /// No dial before this: too many replacements.
    cool_until: Duration,
    resume: Resume,
    /// Handshakes by way of the routing info that got no answer.
    routing_failures: u32,
    /// The version was refreshed since the caller last asked to connect, and no login was accepted since.
    refreshed: bool,
}

/// Why a connection ends, and what follows.
#[derive(Debug)]
pub(crate) enum Loss {
    /// Connect again after a pause.
    Retry { class: Class, reason: DisconnectReason, detail: String },
    /// Connect again at once; not an error.
    Restart,
    /// Stay offline until told otherwise.
    Stop,
}

impl Loss {
    fn network(detail: impl Into<String>) -> Self {
        Self::Retry { class: Class::Network, reason: DisconnectReason::Network, detail: detail.into() }
    }

    fn lost(detail: impl Into<String>) -> Self {
        Self::Retry { class: Class::Network, reason: DisconnectReason::ConnectionLost, detail: detail.into() }
    }

    pub(crate) fn server(class: Class, detail: impl Into<String>) -> Self {
        Self::Retry { class, reason: DisconnectReason::ServerError, detail: detail.into() }
    }
}

impl Connection {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            state: State::Stopped(Stop::Idle),
            row: Row::default(),
            dials: Window::new(config.max_dials_per_minute, DIAL_SPAN),
            replaced: Window::new(MAX_REPLACED, REPLACED_SPAN),
            cool_until: Duration::ZERO,
            resume: Resume::default(),
            routing_failures: 0,
            refreshed: false,
        }
    }

    /// The connection that stands or is being made.
    pub(crate) const fn id(&self) -> Option<ConnectionId> {
        match &self.state {
            State::Stopped(_) | State::Suspended(_) | State::Backoff { .. } | State::AwaitVersion { .. } => None,
            State::Opening { id, .. }
            | State::Handshaking { id, .. }
            | State::Linking { id, .. }
            | State::LoggingIn { id, .. }
            | State::Online { id, .. } => Some(*id),
        }
    }

    /// The connection, when stanzas can be sent on it that answer what came on this one.
    pub(crate) const fn speaking(&self) -> Option<ConnectionId> {
        match &self.state {
            State::Linking { id, .. } | State::LoggingIn { id, .. } | State::Online { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// The connection, when any stanza can be sent on it, whatever it answers. Before `success` nothing of an earlier
    /// connection may be sent; what is dropped comes again, since it was not acknowledged.
    pub(crate) const fn accepted(&self) -> Option<ConnectionId> {
        match &self.state {
            State::Linking { id, .. } | State::Online { id, .. } => Some(*id),
            _ => None,
        }
    }

    pub(crate) const fn is_suspended(&self) -> bool {
        matches!(self.state, State::Suspended(_))
    }

    /// Whether the application may have been told this last.
    pub(crate) fn agrees_with(&self, told: SessionState) -> bool {
        self.state.agrees_with(told)
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
            State::Stopped(_) | State::Suspended(_) => None,
            State::Backoff { until, .. } | State::AwaitVersion { until, .. } => Some(*until),
            State::Opening { deadline, .. }
            | State::Handshaking { deadline, .. }
            | State::LoggingIn { deadline, .. } => Some(*deadline),
            State::Linking { link, .. } => link.deadline(),
            State::Online { online, .. } => Some(online.deadline()),
        }
    }

    /// Until when the account is banned, if it is and that is known.
    pub(crate) const fn banned_until(&self) -> Option<u64> {
        match &self.state {
            State::Stopped(Stop::Banned { until_ms }) => *until_ms,
            _ => None,
        }
    }

    /// How many resumptions failed.
    pub(crate) const fn resume_failures(&self) -> u32 {
        self.resume.total
    }

    /// The application was told that we are online.
    pub(crate) const fn told_online(&mut self) {
        self.row.told = false;
        self.row.dials = 0;
    }

    /// The login was accepted.
    const fn login_accepted(&mut self) {
        self.refreshed = false;
    }

    /// Linking succeeded: what comes is another outage with a row of pauses of its own.
    pub(crate) fn now_linked(&mut self) {
        self.row = Row::default();
    }

    /// From when on the next dial is allowed.
    fn next_dial_at(&self, now: Duration) -> Duration {
        self.dials.free_at(now).max(self.cool_until)
    }

    /// What decides what comes next, without times, and without what matters elsewhere only.
    pub(crate) fn shape(&self, now: Duration) -> String {
        let Self { dials, cool_until, resume, refreshed, .. } = self;
        let limits = format!("full {} cool {}", dials.is_full(now), *cool_until > now);
        match &self.state {
            State::Stopped(stop) => format!("Stopped({stop:?}) {limits}"),
            State::Suspended(goal) => format!("Suspended({goal:?})"),
            State::Backoff { reason, .. } => format!("Backoff({reason:?}) {limits}"),
            State::AwaitVersion { .. } => "AwaitVersion".to_owned(),
            State::Opening { .. } => format!("Opening resume {} refreshed {refreshed}", resume.is_allowed()),
            State::Handshaking { handshake, .. } => format!("{handshake:?} refreshed {refreshed}"),
            State::Linking { .. } => "Linking".to_owned(),
            State::LoggingIn { .. } => format!("LoggingIn refreshed {refreshed}"),
            State::Online { online, .. } => format!("Online({})", online.shape()),
        }
    }
}
