//! WhatsApp multi-device protocol engine.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo))]

#[cfg(feature = "client")]
pub mod client;
pub mod clock;
pub mod crypto;
pub mod engine;
pub mod event;
pub mod jid;
pub mod message;
pub mod node;
pub mod noise;
pub mod pairing;
pub mod signal;
pub mod stanza;
pub mod store;

pub use wamd_proto as proto;

#[cfg(feature = "client")]
pub use client::{Client, Error};
pub use jid::Jid;
