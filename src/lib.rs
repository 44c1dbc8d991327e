//! WhatsApp multi-device protocol engine.

pub mod jid;
pub mod node;
