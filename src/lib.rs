//! WhatsApp multi-device protocol engine.
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo))]

pub mod clock;
pub mod crypto;
pub mod jid;
pub mod node;
pub mod noise;
pub mod signal;

pub use wamd_proto as proto;
