//! Messages from device to devices (spec 01 §7.7, spec 03 §4.5 and §6.1, spec 06 §1.1 and §1.14).
//!
//! A message names its ciphertexts by device, or holds one for a single device or for a whole group. Every device gets a
//! stanza with what it can read only, from the sending device, in the namespace that the sender used; the other name of
//! the sender stands beside it.
//!
//! ```text
//!  <message> ─▶ plan: direct, group or broadcast ─▶ ack ─▶ route ─▶ deliver ─▶ queue of a companion, or a phone
//!                 └ refused ─▶ ack with error
//! ```

mod broadcast;
mod direct;
mod group;

use wamd::jid::Jid;
use wamd::node::{Node, NodeRef};

use crate::ConnId;
use crate::core::Core;
use crate::directory::{Address, Namespace};
use crate::faults::acks::AckRule;
use crate::faults::delivery;
use crate::queue::{Class, Entry};
use crate::{phone, stanza};

/// A message that came in, taken apart: who gets what.
pub(crate) struct Outgoing {
    id: String,
    sender: Address,
    /// How sender and receivers are named.
    namespace: Namespace,
    chat: Chat,
    /// The ciphertexts for each device.
    copies: Vec<(Address, Vec<Node>)>,
    content: Content,
    /// What the server makes of the devices, for the ack.
    phash: Option<String>,
    /// Whether the message goes to a LID that its account has no more.
    stale_lid: bool,
}

/// Where a message goes.
enum Chat {
    Direct(direct::Chat),
    Group(Jid),
    Broadcast(broadcast::Chat),
}

/// What a message holds beside its destination.
struct Content {
    /// Ciphertexts that stand directly in it.
    encs: Vec<Node>,
    /// The entries of `<participants>`.
    targets: Vec<(Jid, Vec<Node>)>,
    device_identity: Option<Node>,
    /// What every receiver gets beside its ciphertext.
    attrs: Vec<(String, String)>,
    children: Vec<Node>,
}

/// Why a message is refused: the `error` of its ack (spec 03 §6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal(pub(crate) u16);

/// Routes a message of a companion and acknowledges it.
pub(crate) fn handle(core: &mut Core, id: ConnId, sender: Address, node: NodeRef<'_>) {
    let Some(stanza_id) = node.attr_str("id").filter(|id| !id.is_empty() && id.len() <= MAX_ID) else {
        return core.send(id, &stanza::error(479, "smax-invalid"));
    };
    let ack = Node::new("ack")
        .attr("class", "message")
        .attr("id", &*stanza_id)
        .attr_opt("from", node.attr_jid("to"))
        .attr("t", core.now.unix_seconds());
    let rule = ack_rule(core, sender, node);
    let planned = match rule.error {
        Some(code) => Err(Refusal(code)),
        None => plan(core, sender, &node.to_node()),
    };
    match planned {
        // The ack goes first: a phone answers at once, and its receipt must not overtake.
        Ok(outgoing) => {
            if !core.faults.take(sender, |faults| &mut faults.drop_ack) {
                let refresh = (outgoing.stale_lid || rule.refresh_lid).then_some(true);
                let phash = rule.phash.as_ref().or(outgoing.phash.as_ref());
                core.send(id, &ack.attr_opt("phash", phash).attr_opt("refresh_lid", refresh));
            }
            route(core, outgoing);
        }
        Err(Refusal(code)) => core.send(id, &ack.attr("error", code)),
    }
}

/// What a test wants the ack of a message to be. What is sent again for one device is not meant.
fn ack_rule(core: &mut Core, sender: Address, node: NodeRef<'_>) -> AckRule {
    if node.children().any(|child| child.is("enc") && child.attr_str("count").is_some()) {
        return AckRule::default();
    }
    let to = node.attr_jid("to").map(|to| to.to_bare());
    let account = to.as_ref().and_then(|to| core.directory.resolve(to));
    let account = account.and_then(|address| core.directory.account(address.number));
    let known =
        account.into_iter().flat_map(|account| [Namespace::Pn, Namespace::Lid].map(|name| account.jid(name, 0)));
    let names: Vec<Jid> = to.iter().cloned().chain(known).collect();
    core.faults.acks.take(sender, &names)
}

/// Decides who gets what of a message.
pub(crate) fn plan(core: &Core, sender: Address, node: &Node) -> Result<Outgoing, Refusal> {
    let to = node.attr_jid("to").ok_or(BAD_REQUEST)?;
    let content = Content::read(node)?;
    if to.is_group() {
        group::plan(core, sender, &to, node, content)
    } else if to.is_broadcast() {
        broadcast::plan(core, sender, &to, node, content)
    } else {
        direct::plan(core, sender, &to, node, content)
    }
}

/// Gives every device its copy.
pub(crate) fn route(core: &mut Core, mut outgoing: Outgoing) {
    note_contacts(core, &outgoing);
    for (target, encs) in std::mem::take(&mut outgoing.copies) {
        if target == outgoing.sender || !core.directory.exists(target) {
            continue;
        }
        let count = encs.iter().find_map(|enc| enc.attr_str("count").map(std::borrow::Cow::into_owned));
        let new = core.routed.pass((outgoing.sender, outgoing.id.clone(), target, count));
        if new || !core.config.deduplicate {
            deliver(core, target, outgoing.copy(core, target, encs));
        }
    }
}

/// Sends a finished message on its way to a device, with the faults that are due.
pub(crate) fn deliver(core: &mut Core, target: Address, mut entry: Entry) {
    if core.faults.take(target, |faults| &mut faults.tamper) {
        delivery::corrupt(&mut entry.node, |child| child.is("enc"));
    }
    let fate = core.faults.delivery.apply(target, &mut entry);
    let twice = core.faults.take(target, |faults| &mut faults.duplicate) || fate.twice;
    for _ in 0..=u8::from(twice) {
        if fate.behind > 0 {
            core.faults.delivery.hold(target, fate.behind, entry.clone());
        } else if fate.delay > std::time::Duration::ZERO {
            let at = core.now.mono.saturating_add(fate.delay);
            core.late.push(at, target, entry.clone());
        } else {
            hand_over(core, target, entry.clone());
        }
    }
}

/// Puts a message into a device's queue, and behind it those that waited for it; the phone reads it at once.
pub(crate) fn hand_over(core: &mut Core, target: Address, entry: Entry) {
    let waited = core.faults.delivery.delivered(target);
    for entry in std::iter::once(entry).chain(waited) {
        if target.device == 0 {
            phone::receive(core, target.number, &entry);
        } else {
            if let Some(device) = core.directory.device_mut(target) {
                device.last_message = Some(entry.clone());
            }
            core.enqueue(target, entry);
        }
    }
}

impl Content {
    fn read(node: &Node) -> Result<Self, Refusal> {
        let mut content = Self {
            encs: Vec::new(),
            targets: Vec::new(),
            device_identity: None,
            attrs: Vec::new(),
            children: Vec::new(),
        };
        for name in COPIED_ATTRS {
            content.attrs.extend(node.attr_str(name).map(|value| (name.to_owned(), value.into_owned())));
        }
        for child in node.child_nodes() {
            match child.tag() {
                "enc" => content.encs.push(child.clone()),
                "participants" => {
                    for target in child.child_nodes().iter().filter(|target| target.is("to")) {
                        let jid = target.attr_jid("jid").ok_or(BAD_REQUEST)?;
                        let encs = target.child_nodes().iter().filter(|enc| enc.is("enc"));
                        content.targets.push((jid, encs.cloned().collect()));
                    }
                }
                "device-identity" => content.device_identity = Some(child.clone()),
                "tctoken" | "cstoken" => {}
                _ => content.children.push(child.clone()),
            }
        }
        Ok(content)
    }

    /// The one namespace of all entries, none without any.
    ///
    /// # Errors
    /// 400 when they mix, or name what is no user.
    fn namespace(&self) -> Result<Option<Namespace>, Refusal> {
        let mut all = self.targets.iter().map(|(jid, _)| Namespace::of(jid).ok_or(BAD_REQUEST));
        let Some(first) = all.next().transpose()? else { return Ok(None) };
        for one in all {
            if one? != first {
                return Err(BAD_REQUEST);
            }
        }
        Ok(Some(first))
    }

    /// Whether the only ciphertext is one for a single device that asked for it again (spec 03 §5.7).
    fn is_pairwise(&self) -> bool {
        self.encs.iter().all(|enc| enc.attr_str("type").as_deref() != Some("skmsg"))
    }
}

impl Outgoing {
    /// The stanza for one device.
    fn copy(&self, core: &Core, target: Address, encs: Vec<Node>) -> Entry {
        let sender = core.jid(self.sender, self.namespace);
        let from = match &self.chat {
            Chat::Direct(_) => sender.clone(),
            Chat::Group(jid) => jid.clone(),
            Chat::Broadcast(chat) => chat.jid.clone(),
        };
        let account = core.directory.account(self.sender.number);
        let mut node = Node::new("message")
            .attr("from", &from)
            .attr("id", &self.id)
            .attr("t", core.now.unix_seconds())
            .attr_opt("notify", account.map(|account| &account.push_name));
        for (name, value) in &self.content.attrs {
            node = node.attr(name.as_str(), value);
        }
        node = match &self.chat {
            Chat::Direct(chat) => direct::addressed(self, chat, core, target, node),
            Chat::Group(_) => self.participant(core, node, &sender),
            Chat::Broadcast(chat) => {
                broadcast::addressed(self, chat, core, target, self.participant(core, node, &sender))
            }
        };
        let prekey = encs.iter().any(|enc| enc.attr_str("type").as_deref() == Some("pkmsg"));
        let node = node
            .children(encs)
            .child_opt(self.content.device_identity.clone().filter(|_| prekey))
            .children(self.content.children.iter().cloned());
        let kind = self.content.attrs.iter().find(|(name, _)| name == "type").map(|(_, value)| value.clone());
        Entry { class: Class::Message, id: self.id.clone(), from, kind, node, delivered: false }
    }

    /// The sender of a message to many: device, other name, and which of the two stands where.
    fn participant(&self, core: &Core, node: Node, sender: &Jid) -> Node {
        let (mode, alias_name) = match self.namespace {
            Namespace::Lid => ("lid", "participant_pn"),
            Namespace::Pn => ("pn", "participant_lid"),
        };
        let account = core.directory.account(self.sender.number);
        node.attr("participant", sender)
            .attr_opt(alias_name, account.and_then(|account| account.alias(self.namespace.other())))
            .attr("addressing_mode", mode)
    }
}

/// Sender and receivers know each other from now on.
fn note_contacts(core: &mut Core, outgoing: &Outgoing) {
    let one = outgoing.sender.number;
    let named = outgoing.copies.iter().map(|(address, _)| address.number);
    let receivers: std::collections::BTreeSet<u64> = match &outgoing.chat {
        Chat::Direct(chat) => std::iter::once(chat.recipient).collect(),
        Chat::Group(_) | Chat::Broadcast(_) => named.collect(),
    };
    for other in receivers {
        for (number, contact) in [(one, other), (other, one)] {
            if let Some(account) = core.directory.account_mut(number) {
                account.contacts.insert(contact);
            }
        }
    }
}

/// Attributes that reach the receiver as the sender wrote them.
const COPIED_ATTRS: [&str; 4] = ["type", "edit", "category", "push_priority"];

/// Bytes of an id; real ones have at most 32.
const MAX_ID: usize = 128;

const BAD_REQUEST: Refusal = Refusal(400);
const FORBIDDEN: Refusal = Refusal(403);
const NOT_FOUND: Refusal = Refusal(404);
const NOT_ACCEPTABLE: Refusal = Refusal(406);
const STALE_MODE: Refusal = Refusal(421);
const NO_TOKEN: Refusal = Refusal(463);
const INVALID: Refusal = Refusal(479);
