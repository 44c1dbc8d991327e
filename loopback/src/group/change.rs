//! Changes of a group: who may make them, what they do, and who is told (spec 06 §7, §7.1).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use wamd::crypto::Rng as _;
use wamd::jid::Jid;
use wamd::node::Node;

use super::control::GroupMode;
use super::notify::{self, Creation as Why};
use super::{Group, Kind, MAX_DESCRIPTION, MAX_SUBJECT, Note, Rank, Settings, community, node};
use crate::core::Core;
use crate::directory::Namespace;

/// What changes in a group.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum GroupChange {
    /// Accounts become members.
    Add {
        /// By number or LID.
        participants: Vec<Jid>,
    },
    /// Members are removed, whoever made the group excepted.
    Remove {
        /// By number or LID.
        participants: Vec<Jid>,
        /// Out of all groups of the community, too.
        #[serde(default)]
        linked_groups: bool,
    },
    /// Members become admins.
    Promote {
        /// By number or LID.
        participants: Vec<Jid>,
    },
    /// Admins become plain members.
    Demote {
        /// By number or LID.
        participants: Vec<Jid>,
    },
    /// Whoever changes the group leaves it. A group without members is gone.
    Leave,
    /// Another subject.
    Subject {
        /// At most 100 characters.
        subject: String,
    },
    /// Another description, or none.
    Description {
        /// Its id; made up unless given.
        #[serde(default)]
        id: Option<String>,
        /// The id of the one that it replaces: another is refused with 409.
        #[serde(default)]
        prev: Option<String>,
        /// At most 2,048 characters; none deletes.
        body: Option<String>,
    },
    /// Whether only admins write.
    Announcement {
        /// On or off.
        on: bool,
    },
    /// Whether only admins change subject, description and timer.
    Locked {
        /// On or off.
        on: bool,
    },
    /// Whether every member adds others.
    AllMemberAdd {
        /// On or off.
        on: bool,
    },
    /// Whether admins approve whoever joins.
    Approval {
        /// On or off.
        on: bool,
    },
    /// After how long messages vanish.
    Ephemeral {
        /// 0 is never.
        seconds: u32,
    },
    /// The group addresses its members otherwise from now on. Nobody is told: clients find out by error 421.
    Mode {
        /// The new way.
        mode: GroupMode,
    },
}

/// What became of one participant of a change.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) jid: Jid,
    pub(crate) number: Option<u64>,
    pub(crate) error: Option<u16>,
}

/// A group that is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Creation {
    pub(crate) subject: String,
    pub(crate) members: Vec<u64>,
    pub(crate) mode: Namespace,
    pub(crate) settings: Settings,
    pub(crate) kind: Kind,
    pub(crate) key: Option<String>,
}

/// Makes a group and tells everybody in it; gives its id. A community gets its announcement group.
pub(crate) fn create(core: &mut Core, creator: u64, request: Creation) -> Result<String, u16> {
    if core.groups.is_full() || request.members.len() >= core.config.max_members {
        return Err(FULL);
    }
    if request.subject.is_empty() || request.subject.chars().count() > MAX_SUBJECT {
        return Err(NOT_ACCEPTABLE);
    }
    let (id, now) = (core.groups.fresh_id(&mut core.rng), core.now.unix_seconds());
    let mut members: BTreeMap<u64, Rank> = request.members.iter().map(|number| (*number, Rank::Member)).collect();
    members.insert(creator, Rank::Superadmin);
    let group = Group {
        id: id.clone(),
        mode: request.mode,
        subject: Note { text: request.subject, at: now, by: creator },
        description: None,
        creator,
        created: now,
        members,
        settings: request.settings,
        kind: request.kind,
        versions: (1, 1),
    };
    core.groups.insert(group.clone());
    let everybody = group.members.keys().copied().collect();
    notify::tell_created(core, &group, creator, &everybody, Why::New { key: request.key.as_deref() });
    if group.kind == Kind::Community {
        community::add_announcement_group(core, &group)?;
    }
    Ok(id)
}

/// Makes a change in the name of an account. A change of participants may fail for some of them only.
pub(crate) fn apply(core: &mut Core, id: &str, by: u64, change: GroupChange) -> Result<Vec<Outcome>, u16> {
    let group = core.groups.by_id(id).ok_or(NOT_FOUND)?;
    may(group, by, &change)?;
    match change {
        GroupChange::Add { participants } => Ok(each(core, &participants, |core, numbers| {
            let errors = join(core, id, by, numbers, None);
            community::joined(core, id, by, &succeeded(numbers, &errors));
            errors
        })),
        GroupChange::Remove { participants, linked_groups } => {
            Ok(each(core, &participants, |core, numbers| community::remove(core, id, by, numbers, linked_groups)))
        }
        GroupChange::Promote { participants } => {
            Ok(each(core, &participants, |core, numbers| rank(core, id, by, numbers, Rank::Admin)))
        }
        GroupChange::Demote { participants } => {
            Ok(each(core, &participants, |core, numbers| rank(core, id, by, numbers, Rank::Member)))
        }
        GroupChange::Leave => {
            community::remove(core, id, by, &BTreeSet::from([by]), false);
            Ok(Vec::new())
        }
        setting => set(core, id, by, setting).map(|()| Vec::new()),
    }
}

/// Whether a member may make a change.
fn may(group: &Group, by: u64, change: &GroupChange) -> Result<(), u16> {
    let rank = group.rank(by).ok_or(FORBIDDEN)?;
    let everybody = match change {
        GroupChange::Leave => true,
        GroupChange::Add { .. } => group.settings.all_add,
        GroupChange::Subject { .. } | GroupChange::Description { .. } | GroupChange::Ephemeral { .. } => {
            !group.settings.locked
        }
        _ => false,
    };
    if everybody || rank >= Rank::Admin { Ok(()) } else { Err(FORBIDDEN) }
}

/// What a change refused, by account.
pub(crate) type Errors = BTreeMap<u64, u16>;

/// Those whom a change did not refuse.
pub(crate) fn succeeded(numbers: &BTreeSet<u64>, errors: &Errors) -> BTreeSet<u64> {
    numbers.iter().copied().filter(|number| !errors.contains_key(number)).collect()
}

/// Makes one change for all participants that exist, and says what became of each.
fn each(
    core: &mut Core,
    participants: &[Jid],
    change: impl FnOnce(&mut Core, &BTreeSet<u64>) -> Errors,
) -> Vec<Outcome> {
    let resolve = |jid: &Jid| (jid.to_bare(), core.directory.resolve(jid).map(|address| address.number));
    let resolved: Vec<(Jid, Option<u64>)> = participants.iter().map(resolve).collect();
    let errors = change(core, &resolved.iter().filter_map(|(_, number)| *number).collect());
    let outcome = |(jid, number): (Jid, Option<u64>)| {
        let error = number.map_or(Some(NOT_FOUND), |number| errors.get(&number).copied());
        Outcome { jid, number, error }
    };
    resolved.into_iter().map(outcome).collect()
}

/// Makes accounts members. The others hear of it; they get the group itself.
pub(crate) fn join(core: &mut Core, id: &str, by: u64, numbers: &BTreeSet<u64>, reason: Option<&str>) -> Errors {
    let limit = core.config.max_members;
    let Some(group) = core.groups.by_id_mut(id) else { return all(numbers, NOT_FOUND) };
    let before: BTreeSet<u64> = group.members.keys().copied().collect();
    let mut errors = Errors::new();
    for number in numbers {
        if before.contains(number) {
            errors.insert(*number, CONFLICT);
        } else if group.members.len() >= limit {
            errors.insert(*number, FULL);
        } else {
            group.members.insert(*number, Rank::Member);
        }
    }
    let joined = succeeded(numbers, &errors);
    if !joined.is_empty() {
        let (group, add) = people_changed(group, "add");
        let add = with_participants(core, &group, add, &joined).attr_opt("reason", reason);
        notify::tell(core, &group, Some(by), &before, &add);
        notify::tell_created(core, &group, by, &joined, Why::Joined { reason });
    }
    errors
}

/// Takes members out. All hear of it, they themselves included. A group without members is gone.
pub(crate) fn part(core: &mut Core, id: &str, by: u64, numbers: &BTreeSet<u64>) -> Errors {
    let Some(group) = core.groups.by_id_mut(id) else { return all(numbers, NOT_FOUND) };
    let before = group.members.keys().copied().collect();
    let mut errors = Errors::new();
    for number in numbers {
        match group.rank(*number) {
            None => drop(errors.insert(*number, NOT_FOUND)),
            Some(Rank::Superadmin) if by != *number => drop(errors.insert(*number, FORBIDDEN)),
            Some(_) => drop(group.members.remove(number)),
        }
    }
    let gone = succeeded(numbers, &errors);
    if !gone.is_empty() {
        let is_empty = group.members.is_empty();
        let (group, remove) = people_changed(group, "remove");
        if is_empty {
            core.groups.remove(id);
        }
        let remove = with_participants(core, &group, remove, &gone);
        notify::tell(core, &group, Some(by), &before, &remove);
    }
    errors
}

fn rank(core: &mut Core, id: &str, by: u64, numbers: &BTreeSet<u64>, rank: Rank) -> Errors {
    let Some(group) = core.groups.by_id_mut(id) else { return all(numbers, NOT_FOUND) };
    let mut errors = Errors::new();
    for number in numbers {
        match group.rank(*number) {
            None => drop(errors.insert(*number, NOT_FOUND)),
            Some(Rank::Superadmin) => drop(errors.insert(*number, FORBIDDEN)),
            Some(_) => drop(group.members.insert(*number, rank)),
        }
    }
    let changed = succeeded(numbers, &errors);
    if !changed.is_empty() {
        let everybody = group.members.keys().copied().collect();
        let (group, node) = people_changed(group, if rank == Rank::Admin { "promote" } else { "demote" });
        let node = with_participants(core, &group, node, &changed);
        notify::tell(core, &group, Some(by), &everybody, &node);
    }
    errors
}

fn all(numbers: &BTreeSet<u64>, code: u16) -> Errors {
    numbers.iter().map(|number| (*number, code)).collect()
}

fn with_participants(core: &Core, group: &Group, node: Node, numbers: &BTreeSet<u64>) -> Node {
    node.children(numbers.iter().map(|number| node::participant(core, group, *number, group.rank(*number))))
}

/// Counts a change of the members: the group as it is now, and the node that tells of the change.
fn people_changed(group: &mut Group, tag: &str) -> (Group, Node) {
    let before = group.versions.0;
    group.versions.0 = before.saturating_add(1);
    (group.clone(), Node::new(tag).attr("prev_v_id", before).attr("v_id", group.versions.0))
}

/// Changes what is no member.
fn set(core: &mut Core, id: &str, by: u64, change: GroupChange) -> Result<(), u16> {
    let (now, fresh) = (core.now.unix_seconds(), format!("{:08X}", core.rng.next_u32()));
    let group = core.groups.by_id_mut(id).ok_or(NOT_FOUND)?;
    let on_or_off = |on: bool, yes: &'static str, no: &'static str| Node::new(if on { yes } else { no });
    let told = match change {
        GroupChange::Subject { subject } => {
            if subject.is_empty() || subject.chars().count() > MAX_SUBJECT {
                return Err(NOT_ACCEPTABLE);
            }
            group.subject = Note { text: subject, at: now, by };
            Told::Subject
        }
        GroupChange::Description { id, prev, body } => {
            let held = group.description.as_ref().map(|(id, _)| id);
            if prev.is_some() && prev.as_ref() != held {
                return Err(CONFLICT);
            }
            let too_long = |text: &String, max| text.chars().count() > max;
            if body.as_ref().is_some_and(|body| too_long(body, MAX_DESCRIPTION))
                || id.as_ref().is_some_and(|id| too_long(id, MAX_DESCRIPTION_ID))
            {
                return Err(NOT_ACCEPTABLE);
            }
            let id = id.unwrap_or(fresh);
            let gone = Node::new("description").attr("id", &id).child(Node::new("delete"));
            group.description = body.map(|text| (id, Note { text, at: now, by }));
            if group.description.is_some() { Told::Description } else { Told::Node(gone) }
        }
        GroupChange::Announcement { on } => {
            group.settings.announcement = on;
            Told::Node(on_or_off(on, "announcement", "not_announcement"))
        }
        GroupChange::Locked { on } => {
            group.settings.locked = on;
            Told::Node(on_or_off(on, "locked", "unlocked"))
        }
        GroupChange::AllMemberAdd { on } => {
            group.settings.all_add = on;
            Told::Node(node::member_add_mode(on))
        }
        GroupChange::Approval { on } => {
            group.settings.approval = on;
            Told::Node(node::approval(on))
        }
        GroupChange::Ephemeral { seconds } => {
            group.settings.ephemeral = seconds;
            let on = Node::new("ephemeral").attr("expiration", seconds);
            Told::Node(if seconds > 0 { on } else { Node::new("not_ephemeral") })
        }
        GroupChange::Mode { mode } => {
            group.mode = mode.namespace();
            return Ok(());
        }
        GroupChange::Add { .. }
        | GroupChange::Remove { .. }
        | GroupChange::Promote { .. }
        | GroupChange::Demote { .. }
        | GroupChange::Leave => return Err(NOT_ACCEPTABLE),
    };
    let before = group.versions.1;
    group.versions.1 = before.saturating_add(1);
    let group = group.clone();
    let told = match told {
        Told::Node(told) => told,
        Told::Subject => subject(core, &group),
        Told::Description => node::description(core, &group).unwrap_or_else(|| Node::new("description")),
    };
    let told = told.attr("prev_v_id", before).attr("v_id", group.versions.1);
    let everybody = group.members.keys().copied().collect();
    notify::tell(core, &group, Some(by), &everybody, &told);
    Ok(())
}

/// What members are told of a setting.
enum Told {
    Node(Node),
    Subject,
    Description,
}

/// The change of a subject.
fn subject(core: &Core, group: &Group) -> Node {
    let node = Node::new("subject").attr("subject", &group.subject.text).attr("s_t", group.subject.at);
    node::named(core, node, "s_o", "s_o_pn", group, group.subject.by)
}

/// Codes of refusals (spec 06 §7).
pub(crate) const FORBIDDEN: u16 = 403;
pub(crate) const NOT_FOUND: u16 = 404;
pub(crate) const NOT_ACCEPTABLE: u16 = 406;
const CONFLICT: u16 = 409;
const FULL: u16 = 419;

/// Ids of descriptions are 8 hex digits.
const MAX_DESCRIPTION_ID: usize = 64;
