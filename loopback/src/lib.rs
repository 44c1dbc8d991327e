//! The other side: a small WhatsApp-like server with simulated phones.
//!
//! [`Server`] is a machine without I/O. It answers the Noise handshake, links companions by QR code or pair code with a
//! simulated phone, logs devices in, keeps their key bundles and device lists, routes messages and receipts between them,
//! and keeps what they have not acknowledged. The same seed and the same inputs give the same outputs, byte for byte.
//!
//! ```text
//!  websocket ──Input::Opened, Bytes, Closed──▶ ┌────────┐ ──Output::Send, Close──▶ websocket
//!  clock ──────Input::Tick───────────────────▶ │ Server │
//!  test ───────phone, scan, disconnect, fault─▶└────────┘ ──views──▶ test
//! ```
//!
//! `Loopback` (feature `shell`, on by default) runs a [`Server`] on a socket of this machine: the websocket that clients
//! connect to, and an HTTP interface for tests in other languages, on one port.
//!
//! What is simulated, and how the pieces fit:
//!
//! | module | what |
//! |---|---|
//! | `authority`, `handshake`, `connection` | certificate chain, Noise responder, frames (spec 01 §2, §7.1, §7.2) |
//! | `login`, `linking`, `pair_code`, `passkey`, `adv` | success and failure, linking, device identities (spec 01 §4–§6) |
//! | `directory`, `keys`, `usync`, `notices` | accounts, key bundles, device lists and their changes (spec 03 §1, §4.9) |
//! | `routing`, `receipts`, `queue` | messages, receipts, what waits for a device (spec 03 §4–§6) |
//! | `tokens`, `late` | privacy tokens (spec 03 §4.7), messages that come later |
//! | `group` | groups and communities: queries, changes, notifications (spec 06 §7, §8) |
//! | `phone` | device 0 of every account, with a Signal store of its own |
//! | `control`, `waiting`, `fault`, `faults`, `json` | what tests ask for, what goes wrong on purpose |
//!
//! Not there: channels, app state, media.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo))]

mod adv;
mod authority;
mod config;
mod connection;
mod control;
mod core;
mod directory;
mod fault;
mod faults;
mod group;
mod handshake;
#[cfg(feature = "shell")]
mod http;
mod iq;
mod json;
mod keys;
mod late;
mod linking;
mod login;
mod notices;
mod pair_code;
mod passkey;
mod phone;
mod queue;
mod receipts;
mod routing;
mod server;
#[cfg(feature = "shell")]
mod shell;
mod stanza;
mod tokens;
mod usync;
mod waiting;

use bytes::Bytes;

pub use authority::Validity;
pub use config::Config;
pub use control::{
    AccountView, ControlError, DeviceView, Disconnect, Linked, PasskeyOptions, PasskeyView, ReceivedMessage, ScanError,
    ScanOptions,
};
pub use fault::{Fault, LinkStage};
pub use faults::delivery::{Damage, EncKind};
pub use group::change::GroupChange;
pub use group::control::{GroupMode, GroupSpec, GroupView, MemberView};
pub use handshake::Pattern;
pub use server::Server;
#[cfg(feature = "shell")]
pub use shell::{Builder, Loopback, LoopbackError, Phone};
pub use waiting::{CodeView, LinkAction, WaitingView};

/// A connection, by the number that whoever drives the server gives it. A number is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// What the server is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A client has connected.
    Opened(ConnId),
    /// The content of a binary websocket message, in whatever pieces.
    Bytes(ConnId, Bytes),
    /// The client is gone.
    Closed(ConnId),
    /// Nothing but time has passed.
    Tick,
}

/// What the server wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this as one binary websocket message.
    Send(ConnId, Bytes),
    /// Close the connection. Nothing more follows for it, and no `Closed` is needed.
    Close(ConnId),
}
