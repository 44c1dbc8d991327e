//! Queries about the connection itself: active, keepalive, logout (spec 01 §6.7, §6.9, §6.12).

use crate::{jid::Jid, node::Node, stanza::iq::request};

/// Asks the server to start delivering (`passive`/`active`).
pub fn active() -> Node {
    request("set", "passive").child(Node::new("active"))
}

/// A keepalive; any answer proves that the connection lives.
pub fn ping() -> Node {
    request("get", "w:p")
}

/// Unlinks a companion device.
pub fn remove_companion(device: &Jid) -> Node {
    request("set", "md")
        .child(Node::new("remove-companion-device").attr("jid", device).attr("reason", "user_initiated"))
}
