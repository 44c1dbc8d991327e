//! Messages to a group (spec 03 §4.5, §4.6, §5.7): one `skmsg` for all devices of its members, and beside it the sender key for
//! the devices that lack it, each for one of them.

use std::collections::BTreeMap;

use wamd::jid::Jid;
use wamd::node::Node;

use super::{BAD_REQUEST, Chat, Content, FORBIDDEN, NOT_ACCEPTABLE, NOT_FOUND, Outgoing, Refusal, STALE_MODE};
use crate::core::Core;
use crate::directory::{Address, Namespace};
use crate::group::Group;
use crate::notices;

pub(super) fn plan(
    core: &Core,
    sender: Address,
    to: &Jid,
    node: &Node,
    mut content: Content,
) -> Result<Outgoing, Refusal> {
    let group = core.groups.get(to).ok_or(NOT_FOUND)?;
    let participant = node.attr_jid("participant");
    check_mode(group, node, participant.is_some())?;
    if group.rank(sender.number).is_none() {
        return Err(NOT_ACCEPTABLE);
    }
    if group.settings.announcement && !group.is_admin(sender.number) && participant.is_none() {
        return Err(FORBIDDEN);
    }
    if content.namespace()?.is_some_and(|used| used != group.mode) {
        return Err(BAD_REQUEST);
    }
    let (copies, phash) = match participant {
        Some(jid) => (again(core, group, &jid, &mut content)?, None),
        None => (to_all(core, group, &mut content)?, disagreement(core, group, node)),
    };
    Ok(Outgoing {
        id: node.attr_str("id").unwrap_or_default().into_owned(),
        sender,
        namespace: group.mode,
        chat: Chat::Group(group.jid()),
        copies,
        content,
        phash,
        stale_lid: false,
    })
}

/// A message that says no mode means numbers. A resend need not say any.
fn check_mode(group: &Group, node: &Node, is_resend: bool) -> Result<(), Refusal> {
    let used = match node.attr_str("addressing_mode").as_deref() {
        Some("lid") => Namespace::Lid,
        Some("pn") => Namespace::Pn,
        Some(_) => return Err(super::INVALID),
        None if is_resend => return Ok(()),
        None => Namespace::Pn,
    };
    if used == group.mode { Ok(()) } else { Err(STALE_MODE) }
}

/// The answer to a retry receipt: for one device of a member.
fn again(
    core: &Core,
    group: &Group,
    participant: &Jid,
    content: &mut Content,
) -> Result<Vec<(Address, Vec<Node>)>, Refusal> {
    let target = core.directory.resolve(participant).ok_or(NOT_FOUND)?;
    if group.rank(target.number).is_none() {
        return Err(NOT_ACCEPTABLE);
    }
    let encs = std::mem::take(&mut content.encs);
    if encs.is_empty() || !content.is_pairwise() {
        return Err(BAD_REQUEST);
    }
    Ok(vec![(target, encs)])
}

/// Every device of every member gets the message, and its own ciphertexts in front of it.
fn to_all(core: &Core, group: &Group, content: &mut Content) -> Result<Vec<(Address, Vec<Node>)>, Refusal> {
    if content.encs.is_empty() || content.is_pairwise() {
        return Err(BAD_REQUEST);
    }
    let shared = std::mem::take(&mut content.encs);
    let targets = std::mem::take(&mut content.targets);
    let own = targets.into_iter().filter_map(|(jid, encs)| Some((core.directory.resolve(&jid)?, encs)));
    let mut own: BTreeMap<Address, Vec<Node>> = own.collect();
    let encs = |device: &Address| {
        let mut encs = own.remove(device).unwrap_or_default();
        encs.extend(shared.iter().cloned());
        encs
    };
    let devices = group.devices(core);
    let encs: Vec<_> = devices.iter().map(encs).collect();
    Ok(devices.into_iter().zip(encs).collect())
}

/// The server's own hash, when the sender means other devices.
fn disagreement(core: &Core, group: &Group, node: &Node) -> Option<String> {
    let claimed = node.attr_str("phash")?;
    let own = notices::group_hash(core, group);
    (own != *claimed).then_some(own)
}
