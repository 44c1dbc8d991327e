//! Messages to one user, and from device to device of one account (spec 03 §4.5).

use wamd::jid::Jid;
use wamd::node::Node;

use super::{BAD_REQUEST, Content, INVALID, NO_TOKEN, NOT_FOUND, Outgoing, Refusal};
use crate::core::Core;
use crate::directory::{Address, Namespace};
use crate::{notices, tokens};

/// A chat with one user.
pub(super) struct Chat {
    /// The account that the message is for.
    pub(super) recipient: u64,
    /// The chat as own devices see it: `recipient` of a resend to one of them, `to` otherwise.
    chat: Jid,
    peer: bool,
}

pub(super) fn plan(
    core: &Core,
    sender: Address,
    to: &Jid,
    node: &Node,
    mut content: Content,
) -> Result<Outgoing, Refusal> {
    let namespace = Namespace::of(to).ok_or(NOT_FOUND)?;
    let recipient = core.directory.resolve(to).ok_or(NOT_FOUND)?;
    let own = recipient.number == sender.number;
    let peer = node.attr_str("category").as_deref() == Some("peer");
    if peer && !own || content.namespace()?.is_some_and(|used| used != namespace) {
        return Err(BAD_REQUEST);
    }
    check_tokens(core, sender.number, recipient.number, peer, node, &content)?;
    let chat = node.attr_jid("recipient").filter(|_| own).unwrap_or_else(|| to.clone()).to_bare();
    let encs = std::mem::take(&mut content.encs);
    let is_fan_out = !peer && encs.is_empty();
    let mut copies = if encs.is_empty() { Vec::new() } else { vec![(recipient, encs)] };
    for (jid, encs) in std::mem::take(&mut content.targets) {
        let Some(address) = core.directory.resolve(&jid) else { continue };
        if address.number != recipient.number && address.number != sender.number {
            return Err(BAD_REQUEST);
        }
        if !encs.is_empty() {
            copies.push((address, encs));
        }
    }
    Ok(Outgoing {
        id: node.attr_str("id").unwrap_or_default().into_owned(),
        sender,
        namespace,
        chat: super::Chat::Direct(Chat { recipient: recipient.number, chat, peer }),
        copies,
        content,
        phash: is_fan_out.then(|| hash(core, sender, recipient.number, namespace)),
        stale_lid: namespace == Namespace::Lid && !to.same_account(&core.jid(recipient, Namespace::Lid)),
    })
}

/// Refuses a new chat without the token that it needs, and tokens where none belong (spec 03 §4.7, spec 06 §1.1).
fn check_tokens(
    core: &Core,
    sender: u64,
    recipient: u64,
    peer: bool,
    node: &Node,
    content: &Content,
) -> Result<(), Refusal> {
    let shown = ["tctoken", "cstoken"].into_iter().filter(|tag| node.find_child(tag).is_some()).count();
    if shown > 1 || peer && shown > 0 {
        return Err(INVALID);
    }
    let is_resend = content.encs.iter().any(|enc| enc.get_attr("count").is_some());
    let is_free = sender == recipient || is_resend;
    if is_free || tokens::admits(core, sender, recipient, node) { Ok(()) } else { Err(NO_TOKEN) }
}

/// The hash over the devices that such a message is for: the recipient's, and the sender's other ones (spec 03 §4.6).
fn hash(core: &Core, sender: Address, recipient: u64, namespace: Namespace) -> String {
    let accounts = [Some(recipient), (recipient != sender.number).then_some(sender.number)];
    let devices = accounts.into_iter().flatten().flat_map(|number| core.directory.all_addresses(number));
    let devices = devices.filter(|address| *address != sender);
    notices::participant_hash(devices.map(|address| core.jid(address, namespace).ad_string()).collect())
}

/// Adds whom the message comes from or went to.
pub(super) fn addressed(outgoing: &Outgoing, chat: &Chat, core: &Core, target: Address, node: Node) -> Node {
    let other = outgoing.namespace.other();
    let alias = |number: u64| core.directory.account(number).and_then(|account| account.alias(other));
    if target.number != outgoing.sender.number || chat.peer {
        let name = if other == Namespace::Lid { "sender_lid" } else { "sender_pn" };
        return node.attr_opt(name, alias(outgoing.sender.number));
    }
    let name = if other == Namespace::Lid { "peer_recipient_lid" } else { "peer_recipient_pn" };
    let partner = core.directory.resolve(&chat.chat);
    node.attr("recipient", &chat.chat).attr_opt(name, partner.and_then(|partner| alias(partner.number)))
}
