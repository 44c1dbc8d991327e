//! Notifications of type `w:gp2`: what changed in a group, to the companions of its members (spec 06 §7.1).
//!
//! The device that asked for a change is told of it like all others.

use std::collections::BTreeSet;

use wamd::node::Node;

use super::Group;
use super::node::{self, Detail};
use crate::core::Core;
use crate::directory::Namespace;

/// Tells all companions of these accounts. `by` is whoever changed the group; nobody for the server itself.
pub(crate) fn tell(core: &mut Core, group: &Group, by: Option<u64>, to: &BTreeSet<u64>, change: &Node) {
    let account = by.and_then(|by| core.directory.account(by));
    let author = account.map(|account| (account.jid(group.mode, 0), account.push_name.clone()));
    let alias = account.and_then(|account| account.alias(group.mode.other()));
    let alias_name = match group.mode {
        Namespace::Lid => "participant_pn",
        Namespace::Pn => "participant_lid",
    };
    let devices: Vec<_> = to.iter().flat_map(|number| core.directory.companions(*number)).collect();
    for address in devices {
        core.notify(address, "w:gp2", group.jid(), |node| {
            node.attr_opt("participant", author.as_ref().map(|(jid, _)| jid))
                .attr_opt(alias_name, alias.as_ref())
                .attr_opt("notify", author.as_ref().map(|(_, name)| name))
                .attr("addressing_mode", group.mode_str())
                .child(change.clone())
        });
    }
}

/// Tells accounts that they are in a group now: a new one, or one that was there before them.
pub(crate) fn tell_created(core: &mut Core, group: &Group, by: u64, to: &BTreeSet<u64>, how: Creation<'_>) {
    let create = match how {
        Creation::New { key } => Node::new("create").attr("type", "new").attr_opt("key", key),
        Creation::Joined { reason } => Node::new("create").attr_opt("reason", reason),
    };
    let create = create.child(node::group(core, group, Detail::ALL));
    tell(core, group, Some(by), to, &create);
}

/// Why somebody is in a group now.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Creation<'a> {
    /// The group is new. `key` is what the client that made it sent along.
    New { key: Option<&'a str> },
    /// It was added.
    Joined { reason: Option<&'a str> },
}
