//! Queries about the connection itself: active, keepalive, clean, logout (spec 01 §6.6–6.12).

use crate::{jid::Jid, node::Node, stanza::iq::request};

/// Asks the server to start delivering (`passive`/`active`).
pub fn active() -> Node {
    request("set", "passive").child(Node::new("active"))
}

/// A keepalive; any answer proves that the connection lives.
pub fn ping() -> Node {
    request("get", "w:p")
}

/// Reports that an area of server state was fetched again; `timestamp` is the one that the server gave (spec 01 §6.6).
pub fn clean(area: &str, timestamp: u64) -> Node {
    request("set", "urn:xmpp:whatsapp:dirty").child(Node::new("clean").attr("type", area).attr("timestamp", timestamp))
}

/// Unlinks a companion device.
pub fn remove_companion(device: &Jid) -> Node {
    request("set", "md")
        .child(Node::new("remove-companion-device").attr("jid", device).attr("reason", "user_initiated"))
}
