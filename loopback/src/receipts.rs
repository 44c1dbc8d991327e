//! Receipts: they empty the queue of the device that sends them and travel on to the devices that they are for
//! (spec 03 §5.5, §5.6, §6.2, §6.3).

use std::collections::BTreeSet;

use wamd::jid::Jid;
use wamd::node::{Node, NodeRef};

use crate::ConnId;
use crate::core::Core;
use crate::directory::{Address, Namespace};
use crate::phone;
use crate::queue::{Class, Entry};

/// Handles a receipt of a companion: acknowledges it, takes the messages out of its queue, passes it on.
pub(crate) fn handle(core: &mut Core, id: ConnId, sender: Address, node: NodeRef<'_>) {
    let Some(stanza_id) = node.attr_str("id") else { return };
    let kind = node.attr_str("type").map(std::borrow::Cow::into_owned);
    let to = node.attr_jid("to");
    let ack = Node::new("ack")
        .attr("class", "receipt")
        .attr("id", &*stanza_id)
        .attr_opt("from", to.clone())
        .attr_opt("participant", node.attr_jid("participant"))
        .attr_opt("type", kind.clone())
        .attr("t", core.now.unix_seconds());
    if is_delivery(kind.as_deref()) {
        for message in message_ids(&stanza_id, node) {
            take_out(core, sender, &message, to.as_ref());
        }
    }
    core.send(id, &ack);
    if let Some(to) = to {
        pass_on(core, sender, &to, kind.as_deref(), node.to_node());
    }
}

/// Whether the receipt says that the messages arrived, and so that they need not be sent again.
fn is_delivery(kind: Option<&str>) -> bool {
    matches!(kind, None | Some("inactive" | "sender" | "peer_msg" | "hist_sync"))
}

fn message_ids(first: &str, node: NodeRef<'_>) -> BTreeSet<String> {
    let items = node.child("list").into_iter().flat_map(|list| list.children());
    let more = items.filter_map(|item| item.attr_str("id").map(std::borrow::Cow::into_owned));
    std::iter::once(first.to_owned()).chain(more).collect()
}

/// Takes a message out of a device's queue if the account that the receipt is for has sent it, by whatever name.
fn take_out(core: &mut Core, address: Address, id: &str, to: Option<&Jid>) {
    let sender = to.and_then(|to| core.directory.resolve(to)).and_then(|sender| core.directory.account(sender.number));
    let Some(names) = sender.map(|account| [Namespace::Pn, Namespace::Lid].map(|name| account.jid(name, 0))) else {
        return;
    };
    if let Some(device) = core.directory.device_mut(address) {
        device.queue.received(id, |from| names.iter().any(|name| name.same_account(from)));
    }
}

/// Sends a receipt to the device that it names, or to all devices of the account. The reader's own other devices hear of
/// read receipts, too.
pub(crate) fn pass_on(core: &mut Core, sender: Address, to: &Jid, kind: Option<&str>, receipt: Node) {
    let (Some(namespace), Some(target)) = (Namespace::of(to), core.directory.resolve(to)) else { return };
    if matches!(kind, Some("peer_msg" | "hist_sync")) {
        return;
    }
    let node = receipt_node(core, sender, namespace, receipt);
    let is_read = matches!(kind, Some("read" | "played" | "read-self" | "played-self"));
    let is_private = matches!(kind, Some("read-self" | "played-self"));
    if !(is_private && target.number != sender.number) {
        let targets = if kind == Some("retry") { vec![target] } else { targets(core, target) };
        for address in targets.into_iter().filter(|address| *address != sender) {
            give(core, address, kind, node.clone());
        }
    }
    if is_read && target.number != sender.number {
        let copy = node.attr("recipient", to.to_bare());
        for address in targets(core, Address::phone(sender.number)).into_iter().filter(|address| *address != sender) {
            give(core, address, kind, copy.clone());
        }
    }
}

/// The receipt as it is received: from the device, with a time, without a target.
fn receipt_node(core: &Core, sender: Address, namespace: Namespace, receipt: Node) -> Node {
    let id = receipt.attr_str("id").unwrap_or_default().into_owned();
    let mut node = Node::new("receipt")
        .attr("from", core.jid(sender, namespace))
        .attr("id", id)
        .attr_opt("type", receipt.get_attr("type"))
        .attr("t", core.now.unix_seconds());
    for name in ["participant", "recipient", "category", "context"] {
        node = node.attr_opt(name, receipt.get_attr(name));
    }
    Node { content: receipt.content, ..node }
}

/// The named device, or all of the account if the JID names its phone, which is the same as naming nobody.
fn targets(core: &Core, target: Address) -> Vec<Address> {
    if target.device != 0 {
        return vec![target];
    }
    let account = core.directory.account(target.number);
    let devices = account.into_iter().flat_map(|account| account.device_list());
    devices.map(|(device, _)| Address { number: target.number, device }).collect()
}

fn give(core: &mut Core, target: Address, kind: Option<&str>, node: Node) {
    if target.device == 0 {
        return phone::receive_receipt(core, target.number, &node);
    }
    let id = node.attr_str("id").unwrap_or_default().into_owned();
    let Some(from) = node.attr_jid("from") else { return };
    core.enqueue(
        target,
        Entry { class: Class::Receipt, id, from, kind: kind.map(str::to_owned), node, delivered: false },
    );
}
