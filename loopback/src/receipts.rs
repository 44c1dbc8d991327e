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
    if let Some(to) = to.as_ref().filter(|_| is_delivery(kind.as_deref())) {
        let author = node.attr_jid("participant");
        for message in message_ids(&stanza_id, node) {
            take_out(core, sender, &message, to, author.as_ref());
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

/// Takes a message out of a device's queue if the account that the receipt is for has sent it, by whatever name, and in a
/// chat of many if it came from there.
fn take_out(core: &mut Core, address: Address, id: &str, to: &Jid, author: Option<&Jid>) {
    let chat = is_of_many(to).then(|| to.clone());
    let author = author.unwrap_or(to);
    let names = core.directory.resolve(author).and_then(|author| core.directory.account(author.number));
    let Some(names) = names.map(|account| [Namespace::Pn, Namespace::Lid].map(|name| account.jid(name, 0))) else {
        return;
    };
    if let Some(device) = core.directory.device_mut(address) {
        device.queue.received(id, |entry| {
            chat.as_ref().is_none_or(|chat| *chat == entry.from)
                && names.iter().any(|name| name.same_account(&entry.author()))
        });
    }
}

/// Whether the author of a message in this chat stands beside it.
fn is_of_many(chat: &Jid) -> bool {
    chat.is_group() || chat.is_broadcast()
}

/// Sends a receipt to the device that it names, or to all devices of the account: in a chat of many to all devices of the
/// author. The reader's own other devices hear of read receipts, too. A retry receipt is for the sending device alone.
pub(crate) fn pass_on(core: &mut Core, sender: Address, to: &Jid, kind: Option<&str>, receipt: Node) {
    let author = if is_of_many(to) { receipt.attr_jid("participant") } else { Some(to.clone()) };
    let Some(author) = author else { return };
    let (Some(namespace), Some(target)) = (Namespace::of(&author), core.directory.resolve(&author)) else { return };
    if matches!(kind, Some("peer_msg" | "hist_sync")) {
        return;
    }
    let chat = is_of_many(to).then_some(to);
    let node = receipt_node(core, sender, namespace, chat, receipt);
    let is_read = matches!(kind, Some("read" | "played" | "read-self" | "played-self"));
    let is_private = matches!(kind, Some("read-self" | "played-self"));
    if !(is_private && target.number != sender.number) {
        let targets = match chat {
            _ if kind == Some("retry") => vec![target],
            Some(_) => targets(core, Address::phone(target.number)),
            None => targets(core, target),
        };
        for address in targets.into_iter().filter(|address| *address != sender) {
            give(core, address, kind, node.clone());
        }
    }
    if is_read && target.number != sender.number {
        let copy = node.attr_opt("recipient", chat.is_none().then(|| to.to_bare()));
        for address in targets(core, Address::phone(sender.number)).into_iter().filter(|address| *address != sender) {
            give(core, address, kind, copy.clone());
        }
    }
}

/// The receipt as it is received: from the device, or from the chat with the device beside it; with a time, without a target.
fn receipt_node(core: &Core, sender: Address, namespace: Namespace, chat: Option<&Jid>, receipt: Node) -> Node {
    let id = receipt.attr_str("id").unwrap_or_default().into_owned();
    let device = core.jid(sender, namespace);
    let node = Node::new("receipt");
    let mut node = match chat {
        Some(chat) => {
            let name = if namespace == Namespace::Lid { "participant_pn" } else { "participant_lid" };
            let account = core.directory.account(sender.number);
            let alias = account.and_then(|account| account.alias(namespace.other()));
            node.attr("from", chat).attr("participant", device).attr_opt(name, alias)
        }
        None => node.attr("from", device).attr_opt("participant", receipt.get_attr("participant")),
    };
    node = node.attr("id", id).attr_opt("type", receipt.get_attr("type")).attr("t", core.now.unix_seconds());
    for name in ["recipient", "category", "context"] {
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
