//! Status posts and broadcast lists (spec 03 §4.5, spec 06 §11): the sender names the audience, device by device with the sender
//! key, user by user without. A reaction to a status has no `skmsg`: it goes to the named devices alone.

use std::collections::{BTreeMap, BTreeSet};

use wamd::jid::Jid;
use wamd::node::Node;

use super::{BAD_REQUEST, Content, INVALID, NOT_FOUND, Outgoing, Refusal};
use crate::core::Core;
use crate::directory::{Address, Namespace};

/// An audience.
pub(super) struct Chat {
    pub(super) jid: Jid,
    /// The users, as the sender's other devices are told them.
    audience: Vec<Jid>,
}

pub(super) fn plan(
    core: &Core,
    sender: Address,
    to: &Jid,
    node: &Node,
    mut content: Content,
) -> Result<Outgoing, Refusal> {
    if to.is_status_broadcast() {
        check_status(node)?;
    }
    let resend = node.attr_jid("participant");
    let named = match &resend {
        Some(jid) => Namespace::of(jid),
        None => content.namespace()?,
    };
    let namespace = named.ok_or(BAD_REQUEST)?;
    let (copies, audience) = match &resend {
        Some(jid) => {
            let target = core.directory.resolve(jid).ok_or(NOT_FOUND)?;
            let encs = std::mem::take(&mut content.encs);
            if encs.is_empty() || !content.is_pairwise() {
                return Err(BAD_REQUEST);
            }
            (vec![(target, encs)], Vec::new())
        }
        None => to_audience(core, sender, namespace, &mut content),
    };
    Ok(Outgoing {
        id: node.attr_str("id").unwrap_or_default().into_owned(),
        sender,
        namespace,
        chat: super::Chat::Broadcast(Chat { jid: to.clone(), audience }),
        copies,
        content,
        phash: None,
        stale_lid: false,
    })
}

/// What makes a status malformed: a mode, and who may see it where nothing new is posted (spec 03 §4.5).
fn check_status(node: &Node) -> Result<(), Refusal> {
    if node.get_attr("addressing_mode").is_some() {
        return Err(INVALID);
    }
    let settings: Vec<_> = node.child_nodes().iter().filter_map(|meta| meta.attr_str("status_setting")).collect();
    let is_post = node.attr_str("type").as_deref() != Some("reaction") && node.get_attr("edit").is_none();
    let known = settings.iter().all(|setting| matches!(&**setting, "contacts" | "allowlist" | "denylist"));
    if settings.is_empty() || is_post && known { Ok(()) } else { Err(INVALID) }
}

/// All devices of the users that are named, and the sender's other ones.
fn to_audience(
    core: &Core,
    sender: Address,
    namespace: Namespace,
    content: &mut Content,
) -> (Vec<(Address, Vec<Node>)>, Vec<Jid>) {
    let mut own: BTreeMap<Address, Vec<Node>> = BTreeMap::new();
    let mut users = BTreeSet::new();
    for (jid, encs) in std::mem::take(&mut content.targets) {
        let Some(address) = core.directory.resolve(&jid) else { continue };
        users.insert(address.number);
        if !encs.is_empty() {
            own.insert(address, encs);
        }
    }
    let shared = std::mem::take(&mut content.encs);
    let copies = if shared.is_empty() {
        own.into_iter().collect()
    } else {
        let everybody: BTreeSet<u64> = users.iter().copied().chain([sender.number]).collect();
        let devices = everybody.iter().flat_map(|number| core.directory.addresses(*number));
        let copy = |device: Address| {
            let mut encs = own.remove(&device).unwrap_or_default();
            encs.extend(shared.iter().cloned());
            (device, encs)
        };
        devices.map(copy).collect()
    };
    let audience = users.iter().filter(|number| **number != sender.number);
    (copies, audience.map(|number| core.jid(Address::phone(*number), namespace)).collect())
}

/// Adds what the sender's other devices are told: the audience; and to whom a list belongs.
pub(super) fn addressed(outgoing: &Outgoing, chat: &Chat, core: &Core, target: Address, node: Node) -> Node {
    let owner = core.jid(Address::phone(outgoing.sender.number), outgoing.namespace);
    let node = node.attr_opt("recipient", (!chat.jid.is_status_broadcast()).then_some(owner));
    if target.number != outgoing.sender.number || chat.audience.is_empty() {
        return node;
    }
    let other = outgoing.namespace.other();
    let alias_name = if other == Namespace::Lid { "peer_recipient_lid" } else { "peer_recipient_pn" };
    let user = |jid: &Jid| {
        let account = core.directory.resolve(jid).and_then(|address| core.directory.account(address.number));
        Node::new("to").attr("jid", jid).attr_opt(alias_name, account.and_then(|account| account.alias(other)))
    };
    node.child(Node::new("participants").children(chat.audience.iter().map(user)))
}
