//! Communities: a parent, its announcement group, and the groups linked to it (spec 06 §8).

use std::collections::BTreeSet;

use wamd::jid::{Jid, Server};
use wamd::node::Node;

use super::change::{self, Errors, FORBIDDEN, NOT_FOUND};
use super::notify;
use super::{Group, Kind, Settings, node};
use crate::core::Core;

/// Makes the announcement group of a new community, with the same members.
pub(crate) fn add_announcement_group(core: &mut Core, parent: &Group) -> Result<(), u16> {
    let request = change::Creation {
        subject: parent.subject.text.clone(),
        members: parent.members.keys().copied().filter(|number| *number != parent.creator).collect(),
        mode: parent.mode,
        settings: Settings { announcement: true, ..Settings::default() },
        kind: Kind::Sub { parent: parent.id.clone(), is_default: true },
        key: None,
    };
    change::create(core, parent.creator, request).map(|_| ())
}

/// Whoever joins a community is in its announcement group, and the other way round.
pub(crate) fn joined(core: &mut Core, id: &str, by: u64, numbers: &BTreeSet<u64>) {
    let kind = core.groups.by_id(id).map(|group| group.kind.clone());
    match kind {
        Some(Kind::Community) => {
            if let Some(announcements) = sub_groups(core, id, true).pop() {
                // A member already is what it should be.
                change::join(core, &announcements, by, numbers, Some(DEFAULT_REASON));
            }
        }
        Some(Kind::Sub { parent, .. }) => joined_parent(core, &parent, by, numbers),
        Some(Kind::Plain) | None => {}
    }
}

fn joined_parent(core: &mut Core, parent: &str, by: u64, numbers: &BTreeSet<u64>) {
    let errors = change::join(core, parent, by, numbers, Some(DEFAULT_REASON));
    joined(core, parent, by, &change::succeeded(numbers, &errors));
}

/// Takes members out of a group. Leaving a community is leaving its announcement group, or on request all its groups.
pub(crate) fn remove(core: &mut Core, id: &str, by: u64, numbers: &BTreeSet<u64>, linked_groups: bool) -> Errors {
    let errors = change::part(core, id, by, numbers);
    let gone = change::succeeded(numbers, &errors);
    if core.groups.by_id(id).is_none_or(|group| group.kind == Kind::Community) {
        for sub in sub_groups(core, id, !linked_groups) {
            // Whoever is not in a linked group need not be taken out.
            change::part(core, &sub, by, &gone);
        }
    }
    errors
}

/// The ids of a community's groups, or of its announcement group alone.
fn sub_groups(core: &Core, id: &str, default_only: bool) -> Vec<String> {
    let linked = |group: &&Group| match &group.kind {
        Kind::Sub { parent, is_default } => parent == id && (*is_default || !default_only),
        Kind::Plain | Kind::Community => false,
    };
    core.groups.iter().filter(linked).map(|group| group.id.clone()).collect()
}

/// The list of a community's groups, for its members.
pub(crate) fn list(core: &Core, id: &str) -> Node {
    let groups = sub_groups(core, id, false).into_iter().filter_map(|sub| core.groups.by_id(&sub));
    Node::new("sub_groups").children(groups.map(brief))
}

/// A group of a community, without its members.
fn brief(group: &Group) -> Node {
    let default = matches!(group.kind, Kind::Sub { is_default: true, .. });
    Node::new("group")
        .attr("id", &group.id)
        .attr("subject", &group.subject.text)
        .attr("s_t", group.subject.at)
        .attr("size", group.members.len())
        .child_opt(default.then(|| Node::new("default_sub_group")))
}

/// All members of a community.
pub(crate) fn participants(core: &Core, group: &Group) -> Node {
    let members = group.members.iter().map(|(number, rank)| node::participant(core, group, *number, Some(*rank)));
    Node::new("linked_groups_participants").children(members)
}

/// Links a group to a community; its members join the community.
pub(crate) fn link(core: &mut Core, parent: &str, by: u64, sub: &Jid) -> Result<(), u16> {
    let community = core.groups.by_id(parent).filter(|group| group.kind == Kind::Community).ok_or(NOT_FOUND)?;
    let group = core.groups.get(sub).filter(|group| group.kind == Kind::Plain).ok_or(NOT_FOUND)?;
    if !community.is_admin(by) || !group.is_admin(by) {
        return Err(FORBIDDEN);
    }
    let id = group.id.clone();
    let group = core.groups.by_id_mut(&id).ok_or(NOT_FOUND)?;
    group.kind = Kind::Sub { parent: parent.to_owned(), is_default: false };
    let group = group.clone();
    joined_parent(core, parent, by, &group.members.keys().copied().collect());
    tell_link(core, parent, by, &group, "link");
    Ok(())
}

/// Ends the link of a group to its community. The announcement group stays.
pub(crate) fn unlink(core: &mut Core, parent: &str, by: u64, sub: &Jid) -> Result<(), u16> {
    let community = core.groups.by_id(parent).filter(|group| group.is_admin(by)).ok_or(FORBIDDEN)?;
    let linked = Kind::Sub { parent: community.id.clone(), is_default: false };
    let id = core.groups.get(sub).filter(|group| group.kind == linked).map(|group| group.id.clone());
    let group = core.groups.by_id_mut(&id.ok_or(NOT_FOUND)?).ok_or(NOT_FOUND)?;
    group.kind = Kind::Plain;
    let group = group.clone();
    tell_link(core, parent, by, &group, "unlink");
    Ok(())
}

/// Both sides hear of a link: each is told of the other.
fn tell_link(core: &mut Core, parent: &str, by: u64, sub: &Group, tag: &'static str) {
    let Some(parent) = core.groups.by_id(parent).cloned() else { return };
    let kind = if tag == "link" { "link_type" } else { "unlink_type" };
    let change = |name: &'static str, other: &Group| Node::new(tag).attr(kind, name).child(brief(other));
    let members = |group: &Group| group.members.keys().copied().collect::<BTreeSet<u64>>();
    notify::tell(core, &parent, Some(by), &members(&parent), &change("sub_group", sub));
    notify::tell(core, sub, Some(by), &members(sub), &change("parent_group", &parent));
}

/// Dissolves a community: its groups stand alone again, its announcement group is gone.
pub(crate) fn delete(core: &mut Core, id: &str, by: u64) -> Result<(), u16> {
    let community = core.groups.by_id(id).filter(|group| group.kind == Kind::Community).ok_or(NOT_FOUND)?;
    if !community.is_admin(by) {
        return Err(FORBIDDEN);
    }
    for sub in sub_groups(core, id, false) {
        match core.groups.by_id(&sub).map(|group| group.kind.clone()) {
            Some(Kind::Sub { is_default: true, .. }) => dissolve(core, &sub, by),
            _ => drop(unlink(core, id, by, &Jid::new(&sub, Server::Group))),
        }
    }
    dissolve(core, id, by);
    Ok(())
}

fn dissolve(core: &mut Core, id: &str, by: u64) {
    let Some(group) = core.groups.remove(id) else { return };
    let delete = Node::new("delete").attr("reason", "delete_parent");
    notify::tell(core, &group, Some(by), &group.members.keys().copied().collect(), &delete);
}

/// Why somebody is in the announcement group.
const DEFAULT_REASON: &str = "default_sub_group_addition";
