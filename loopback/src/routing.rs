//! Messages from device to device (spec 01 §7.7, spec 03 §4.5 and §6.1, spec 06 §1.14).
//!
//! A message names its ciphertexts by device, or holds one for a single device. Every device gets a stanza with its own
//! ciphertext only, from the sending device, in the namespace that the sender used; the other name of the account stands
//! beside it. Groups, lists and channels are refused with error 404.

use wamd::jid::Jid;
use wamd::node::{Node, NodeContent, NodeRef};

use crate::ConnId;
use crate::core::Core;
use crate::directory::{Address, Namespace};
use crate::queue::{Class, Entry};
use crate::{phone, stanza};

/// A message that came in, taken apart.
pub(crate) struct Outgoing {
    id: String,
    sender: Address,
    /// The account that the message is for.
    recipient: u64,
    /// The chat as own devices see it: `recipient` of a resend to one of them, `to` otherwise.
    chat: Jid,
    namespace: Namespace,
    copies: Vec<(Address, Node)>,
    device_identity: Option<Node>,
    /// What every receiver gets beside its ciphertext.
    attrs: Vec<(String, String)>,
    children: Vec<Node>,
    peer: bool,
}

/// Why a message is refused: the `error` of its ack (spec 03 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(u16);

/// Routes a message of a companion and acknowledges it.
pub(crate) fn handle(core: &mut Core, id: ConnId, sender: Address, node: NodeRef<'_>) {
    let Some(stanza_id) = node.attr_str("id").filter(|id| !id.is_empty()) else {
        return core.send(id, &stanza::error(479, "smax-invalid"));
    };
    let to = node.attr_jid("to");
    let ack = Node::new("ack")
        .attr("class", "message")
        .attr("id", &*stanza_id)
        .attr_opt("from", to.clone())
        .attr("t", core.now.unix_seconds());
    match Outgoing::read(core, sender, &stanza_id, to, node) {
        // The ack goes first: a phone answers at once, and its receipt must not overtake.
        Ok(outgoing) => {
            if !core.faults.take(sender, |faults| &mut faults.drop_ack) {
                core.send(id, &ack);
            }
            route(core, outgoing);
        }
        Err(Refusal(code)) => core.send(id, &ack.attr("error", code)),
    }
}

impl Outgoing {
    fn read(core: &Core, sender: Address, id: &str, to: Option<Jid>, node: NodeRef<'_>) -> Result<Self, Refusal> {
        let to = to.ok_or(Refusal(400))?;
        let namespace = Namespace::of(&to).ok_or(Refusal(404))?;
        let recipient = core.directory.resolve(&to).ok_or(Refusal(404))?;
        let peer = node.attr_str("category").as_deref() == Some("peer");
        if peer && recipient.number != sender.number {
            return Err(Refusal(400));
        }
        let chat = node.attr_jid("recipient").filter(|_| recipient.number == sender.number).unwrap_or(to).to_bare();
        let mut outgoing = Self {
            id: id.to_owned(),
            chat,
            sender,
            recipient: recipient.number,
            namespace,
            copies: Vec::new(),
            device_identity: node.child("device-identity").map(|child| child.to_node()),
            attrs: Vec::new(),
            children: Vec::new(),
            peer,
        };
        for name in COPIED_ATTRS {
            outgoing.attrs.extend(node.attr_str(name).map(|value| (name.to_owned(), value.into_owned())));
        }
        for child in node.children() {
            match child.tag() {
                "enc" => outgoing.copies.push((recipient, child.to_node())),
                "participants" => {
                    for target in child.children_named("to") {
                        outgoing.read_target(core, target)?;
                    }
                }
                "device-identity" | "tctoken" | "cstoken" => {}
                _ => outgoing.children.push(child.to_node()),
            }
        }
        Ok(outgoing)
    }

    /// Reads a `<to jid><enc/></to>`. It must be in the namespace of the whole message, and of one of its two accounts.
    fn read_target(&mut self, core: &Core, target: NodeRef<'_>) -> Result<(), Refusal> {
        let jid = target.attr_jid("jid").ok_or(Refusal(400))?;
        if Namespace::of(&jid) != Some(self.namespace) {
            return Err(Refusal(400));
        }
        let Some(address) = core.directory.resolve(&jid) else { return Ok(()) };
        if address.number != self.recipient && address.number != self.sender.number {
            return Err(Refusal(400));
        }
        self.copies.extend(target.children_named("enc").map(|enc| (address, enc.to_node())));
        Ok(())
    }
}

/// Gives every device its copy.
pub(crate) fn route(core: &mut Core, mut outgoing: Outgoing) {
    note_contact(core, outgoing.sender.number, outgoing.recipient);
    for (target, enc) in std::mem::take(&mut outgoing.copies) {
        if target == outgoing.sender || !core.directory.exists(target) {
            continue;
        }
        let count = enc.attr_str("count").map(std::borrow::Cow::into_owned);
        let new = core.routed.pass((outgoing.sender, outgoing.id.clone(), target, count));
        if new || !core.config.deduplicate {
            deliver(core, target, outgoing.copy(core, target, enc));
        }
    }
}

/// Puts a finished message into a device's queue, with the faults that are due; the phone reads it at once.
pub(crate) fn deliver(core: &mut Core, target: Address, mut entry: Entry) {
    if core.faults.take(target, |faults| &mut faults.tamper) {
        tamper(&mut entry.node);
    }
    let twice = core.faults.take(target, |faults| &mut faults.duplicate);
    for _ in 0..=u8::from(twice) {
        if target.device == 0 {
            phone::receive(core, target.number, &entry);
        } else {
            if let Some(device) = core.directory.device_mut(target) {
                device.last_message = Some(entry.clone());
            }
            core.enqueue(target, entry.clone());
        }
    }
}

impl Outgoing {
    /// The stanza for one device.
    fn copy(&self, core: &Core, target: Address, enc: Node) -> Entry {
        let from = core.jid(self.sender, self.namespace);
        let account = core.directory.account(self.sender.number);
        let mut node = Node::new("message")
            .attr("from", &from)
            .attr("id", &self.id)
            .attr("t", core.now.unix_seconds())
            .attr_opt("notify", account.map(|account| &account.push_name));
        for (name, value) in &self.attrs {
            node = node.attr(name.as_str(), value);
        }
        let other = self.namespace.other();
        if target.number != self.sender.number || self.peer {
            let name = if other == Namespace::Lid { "sender_lid" } else { "sender_pn" };
            node = node.attr(name, core.jid(Address::phone(self.sender.number), other));
        } else {
            let name = if other == Namespace::Lid { "peer_recipient_lid" } else { "peer_recipient_pn" };
            let partner = core.directory.resolve(&self.chat);
            node = node
                .attr("recipient", &self.chat)
                .attr_opt(name, partner.map(|partner| core.jid(Address::phone(partner.number), other)));
        }
        let prekey = enc.attr_str("type").as_deref() == Some("pkmsg");
        let node = node
            .child(enc)
            .child_opt(self.device_identity.clone().filter(|_| prekey))
            .children(self.children.iter().cloned());
        let kind = self.attrs.iter().find(|(name, _)| name == "type").map(|(_, value)| value.clone());
        Entry { class: Class::Message, id: self.id.clone(), from, kind, node, delivered: false }
    }

    /// A message of a phone, which knows its ciphertexts already.
    pub(crate) fn of_phone(
        core: &Core,
        number: u64,
        to: &Jid,
        id: String,
        copies: Vec<(Address, Node)>,
        peer: bool,
    ) -> Option<Self> {
        let namespace = Namespace::of(to)?;
        let recipient = core.directory.resolve(to)?.number;
        let mut attrs = vec![("type".to_owned(), "text".to_owned())];
        if peer {
            attrs.push(("category".to_owned(), "peer".to_owned()));
        }
        let sender = Address::phone(number);
        Some(Self {
            id,
            chat: to.to_bare(),
            sender,
            recipient,
            namespace,
            copies,
            device_identity: None,
            attrs,
            children: Vec::new(),
            peer,
        })
    }
}

/// Changes one bit of the ciphertext. A message ends with its MAC, a prekey message with two short ids after it; this far
/// from the end is what the MAC covers, or the MAC itself, in both.
fn tamper(node: &mut Node) {
    const FROM_END: usize = 12;
    let NodeContent::Nodes(children) = &mut node.content else { return };
    for child in children.iter_mut().filter(|child| child.is("enc")) {
        let NodeContent::Bytes(bytes) = &mut child.content else { continue };
        let mut changed = bytes.to_vec();
        if let Some(byte) = changed.iter_mut().nth_back(FROM_END) {
            *byte ^= 1;
        }
        *bytes = changed.into();
    }
}

fn note_contact(core: &mut Core, one: u64, other: u64) {
    for (number, contact) in [(one, other), (other, one)] {
        if let Some(account) = core.directory.account_mut(number) {
            account.contacts.insert(contact);
        }
    }
}

/// Attributes that reach the receiver as the sender wrote them.
const COPIED_ATTRS: [&str; 4] = ["type", "edit", "category", "push_priority"];
