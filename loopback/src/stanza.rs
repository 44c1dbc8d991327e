//! Stanzas of a logged-in device, by tag, and the small stanzas that the server answers with.

use std::collections::BTreeMap;

use wamd::node::{Node, NodeRef};

use crate::ConnId;
use crate::core::Core;
use crate::directory::Address;
use crate::faults::Refusal;
use crate::login::{LOCATION, server};
use crate::queue::Class;
use crate::{iq, receipts, routing};

/// Handles one stanza of a device.
pub(crate) fn handle(core: &mut Core, id: ConnId, address: Address, node: NodeRef<'_>) {
    match node.tag() {
        "iq" => iq::handle(core, id, address, node),
        "message" => routing::handle(core, id, address, node),
        "receipt" => receipts::handle(core, id, address, node),
        "ack" => acknowledge(core, address, node),
        "presence" => presence(core, address, node),
        // Chat states, offline batches and telemetry want no answer (spec 01 §7.4).
        other => tracing::trace!(tag = other, "swallowed"),
    }
}

/// A device's ack takes the stanza out of its queue.
fn acknowledge(core: &mut Core, address: Address, node: NodeRef<'_>) {
    let (Some(class), Some(id)) = (node.attr_str("class"), node.attr_str("id")) else { return };
    let Some(class) = Class::parse(&class) else { return };
    let (to, author, kind) = (node.attr_jid("to"), node.attr_jid("participant"), node.attr_str("type"));
    if let Some(device) = core.directory.device_mut(address) {
        device.queue.acknowledge(class, &id, (to.as_ref(), author.as_ref()), kind.as_deref());
    }
}

/// A name in a presence becomes the account's push name (spec 01 §7.7).
fn presence(core: &mut Core, address: Address, node: NodeRef<'_>) {
    let Some(name) = node.attr_str("name").filter(|name| !name.is_empty()) else { return };
    if let Some(account) = core.directory.account_mut(address.number) {
        account.push_name = name.chars().take(MAX_PUSH_NAME).collect();
    }
}

/// `<ib from=server>` with one child.
pub(crate) fn ib(child: Node) -> Node {
    Node::new("ib").attr("from", server()).child(child)
}

/// The empty result of a request.
pub(crate) fn result(request: NodeRef<'_>) -> Node {
    answer_to(request, "result")
}

/// The refusal of a request as a fault wants it.
pub(crate) fn refused(request: NodeRef<'_>, refusal: Refusal) -> Node {
    let error = error(refusal.code, error_text(refusal.code)).attr_opt("backoff", refusal.backoff);
    answer_to(request, "error").child(error)
}

/// The text that stands beside a code (spec 01 §6.10).
pub(crate) const fn error_text(code: u16) -> &'static str {
    match code {
        400 => "bad-request",
        401 => "not-authorized",
        403 => "forbidden",
        404 => "item-not-found",
        405 => "not-allowed",
        406 => "not-acceptable",
        409 => "conflict",
        410 => "gone",
        419 => "resource-limit",
        423 => "locked",
        429 => "rate-overlimit",
        452 => "feature-not-available",
        500 => "internal-server-error",
        503 => "service-unavailable",
        530 => "partial-server-error",
        _ => "unknown",
    }
}

/// `<failure reason location …/>` (spec 01 §6.3).
pub(crate) fn failure(reason: Option<u16>, attrs: &BTreeMap<String, String>) -> Node {
    let location = (!attrs.contains_key("location")).then_some(LOCATION);
    let failure = Node::new("failure").attr_opt("reason", reason).attr_opt("location", location);
    attrs.iter().fold(failure, |failure, (name, value)| failure.attr(name.as_str(), value.as_str()))
}

/// The refusal of a request.
pub(crate) fn iq_error(request: NodeRef<'_>, code: u16, text: &str) -> Node {
    answer_to(request, "error").child(error(code, text))
}

/// `<error code text/>`.
pub(crate) fn error(code: u16, text: &str) -> Node {
    Node::new("error").attr("code", code).attr("text", text)
}

fn answer_to(request: NodeRef<'_>, kind: &str) -> Node {
    let from = request.attr_jid("to").unwrap_or_else(server);
    let id = request.attr_str("id").unwrap_or_default();
    Node::new("iq").attr("from", from).attr("type", kind).attr("id", id)
}

/// `<stream:error code>` (spec 01 §6.4).
pub(crate) fn stream_error(code: u16) -> Node {
    Node::new("stream:error").attr("code", code)
}

/// The end of a connection because the device connected again.
pub(crate) fn replaced(code: Option<u16>) -> Node {
    let error = code.map_or_else(|| Node::new("stream:error"), stream_error);
    error.child(Node::new("conflict").attr("type", "replaced"))
}

/// The end of a connection because the device was unlinked.
pub(crate) fn device_removed() -> Node {
    stream_error(401).child(Node::new("conflict").attr("type", "device_removed"))
}

/// Pings a client (spec 01 §6.9). If answers are waited for, the connection ends when none comes in time.
pub(crate) fn ping(core: &mut Core, id: ConnId) {
    let stanza_id = core.stanza_id();
    let due = core.config.ping_timeout.map(|timeout| core.now.mono.saturating_add(timeout));
    if let (Some(due), Some(session)) = (due, core.session_mut(id)) {
        session.unanswered_ping.get_or_insert_with(|| (stanza_id.clone(), due));
    }
    let ping = Node::new("iq")
        .attr("from", server())
        .attr("type", "get")
        .attr("id", stanza_id)
        .attr("xmlns", "urn:xmpp:ping")
        .child(Node::new("ping"));
    core.send(id, &ping);
}

/// Takes the answer of a client to a ping.
pub(crate) fn pong(core: &mut Core, id: ConnId, node: NodeRef<'_>) {
    let answered = node.attr_str("id");
    if let Some(session) = core.session_mut(id) {
        session.unanswered_ping.take_if(|(ping, _)| answered.as_deref() == Some(ping.as_str()));
    }
}

/// Characters of a push name that are kept; the phones allow 25.
const MAX_PUSH_NAME: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::leaf;

    /// What the server says, as spec 01 §8 has it encoded.
    #[test]
    fn stanzas_of_the_specification() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/stanzas.json");
        let vectors: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let routing = Node::new("edge_routing").child(leaf("routing_info", [8, 2, 8, 5, 18, 1]));
        let built = [
            ("restart", stream_error(515)),
            ("device removed", device_removed()),
            ("offline end", ib(Node::new("offline").attr("count", 3))),
            ("edge routing", ib(routing)),
        ];
        for (name, node) in built {
            let all = vectors["stanzas"].as_array().unwrap();
            let expected = all.iter().find(|vector| vector["name"] == name).unwrap();
            assert_eq!(hex::encode(node.encode().unwrap()), expected["encoded"].as_str().unwrap(), "{name}");
        }
    }
}
