//! Groups as nodes: `<group>` and `<participant>` (spec 06 §7).

use wamd::jid::Jid;
use wamd::node::Node;

use super::{Group, Kind, Rank};
use crate::core::Core;
use crate::directory::{Account, Namespace};

/// What a `<group>` holds beside its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Detail {
    pub(crate) participants: bool,
    pub(crate) description: bool,
}

impl Detail {
    pub(crate) const ALL: Self = Self { participants: true, description: true };
}

/// The whole group.
pub(crate) fn group(core: &Core, group: &Group, detail: Detail) -> Node {
    let (people, rest) = group.versions;
    let node = Node::new("group")
        .attr("id", &group.id)
        .attr("subject", &group.subject.text)
        .attr("s_t", group.subject.at)
        .attr("creation", group.created)
        .attr("size", group.members.len())
        .attr("addressing_mode", group.mode_str())
        .attr("p_v_id", people)
        .attr("a_v_id", rest);
    let node = named(core, node, "creator", "creator_pn", group, group.creator);
    let mut node = named(core, node, "s_o", "s_o_pn", group, group.subject.by);
    if detail.participants {
        node = node.children(group.members.iter().map(|(number, rank)| participant(core, group, *number, Some(*rank))));
    }
    if detail.description {
        node = node.child_opt(description(core, group));
    }
    let kind = match &group.kind {
        Kind::Plain => vec![],
        Kind::Community => vec![Node::new("parent")],
        Kind::Sub { parent, is_default } => {
            let linked = Node::new("linked_parent").attr("jid", Jid::new(parent, wamd::jid::Server::Group));
            std::iter::once(linked).chain(is_default.then(|| Node::new("default_sub_group"))).collect()
        }
    };
    node.children(settings(group)).children(kind)
}

/// The settings that are on. The mode of adding is always told.
fn settings(group: &Group) -> Vec<Node> {
    let settings = group.settings;
    let flags = [(settings.announcement, "announcement"), (settings.locked, "locked")];
    let mut nodes: Vec<Node> = flags.into_iter().filter(|(on, _)| *on).map(|(_, tag)| Node::new(tag)).collect();
    if settings.ephemeral > 0 {
        nodes.push(Node::new("ephemeral").attr("expiration", settings.ephemeral));
    }
    nodes.push(member_add_mode(settings.all_add));
    if settings.approval {
        nodes.push(approval(true));
    }
    nodes
}

pub(crate) fn member_add_mode(all: bool) -> Node {
    Node::new("member_add_mode").bytes(if all { "all_member_add" } else { "admin_add" })
}

pub(crate) fn approval(on: bool) -> Node {
    let state = if on { "on" } else { "off" };
    Node::new("membership_approval_mode").child(Node::new("group_join").attr("state", state))
}

/// The description with whoever set it; `None` without one.
pub(crate) fn description(core: &Core, group: &Group) -> Option<Node> {
    let (id, note) = group.description.as_ref()?;
    let node = Node::new("description").attr("id", id).attr("t", note.at);
    let node = named(core, node, "participant", "participant_pn", group, note.by);
    Some(node.child(Node::new("body").bytes(note.text.clone())))
}

/// A member, or former member, by both of its names.
pub(crate) fn participant(core: &Core, group: &Group, number: u64, rank: Option<Rank>) -> Node {
    let node = Node::new("participant");
    let Some(account) = core.directory.account(number) else { return node };
    let node = node.attr("jid", account.jid(group.mode, 0));
    let node = match group.mode {
        Namespace::Lid => node.attr("phone_number", account.jid(Namespace::Pn, 0)),
        Namespace::Pn => node.attr_opt("lid", account.alias(Namespace::Lid)),
    };
    node.attr_opt("type", rank.and_then(Rank::as_str))
}

/// Sets two attributes: the account as the group addresses it, and in LID groups its number.
pub(crate) fn named(core: &Core, node: Node, name: &str, pn: &str, group: &Group, number: u64) -> Node {
    let account = core.directory.account(number);
    let number = account.filter(|_| group.mode == Namespace::Lid).and_then(|account| account.alias(Namespace::Pn));
    node.attr_opt(name, account.map(|account: &Account| account.jid(group.mode, 0))).attr_opt(pn, number)
}
