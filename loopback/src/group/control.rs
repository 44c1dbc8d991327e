//! What a test asks of groups from the side: to make, to change and to see them.

use serde::{Deserialize, Serialize};
use wamd::jid::Jid;

use super::change::{self, GroupChange};
use super::{Group, Kind};
use crate::control::{ControlError, parse_number};
use crate::core::Core;
use crate::directory::Namespace;

/// A group to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupSpec {
    /// The phone number of whoever makes it; the account is made if it is new.
    pub creator: String,
    /// The subject.
    pub subject: String,
    /// The other members by number or LID. Their accounts exist.
    pub members: Vec<Jid>,
    /// How the group addresses its members; as the configuration says unless given.
    pub mode: Option<GroupMode>,
    /// Only admins write.
    pub announcement: bool,
    /// Only admins change subject and description.
    pub locked: bool,
    /// Make a community, and its announcement group with it.
    pub community: bool,
}

/// How a group addresses its members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupMode {
    /// By phone number.
    Pn,
    /// By hidden id.
    #[default]
    Lid,
}

impl GroupMode {
    pub(crate) const fn namespace(self) -> Namespace {
        match self {
            Self::Pn => Namespace::Pn,
            Self::Lid => Namespace::Lid,
        }
    }
}

/// A group as the control interface shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupView {
    /// Its address.
    pub jid: Jid,
    /// Its subject.
    pub subject: String,
    /// How it addresses its members.
    pub mode: GroupMode,
    /// The members.
    pub members: Vec<MemberView>,
    /// Only admins write.
    pub announcement: bool,
    /// Only admins change subject and description.
    pub locked: bool,
    /// It is a community.
    pub community: bool,
    /// The community that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Jid>,
    /// It is the announcement group of its community.
    pub default_sub_group: bool,
}

/// A member as the control interface shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemberView {
    /// The account by number.
    pub jid: Jid,
    /// The account by LID.
    pub lid: Jid,
    /// `admin` or `superadmin`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub rank: Option<&'static str>,
}

/// Makes a group.
pub(crate) fn create(core: &mut Core, spec: &GroupSpec) -> Result<GroupView, ControlError> {
    let creator = parse_number(&spec.creator).ok_or(ControlError::Number)?;
    core.directory.get_or_create(creator, core.now.unix_seconds(), &mut core.rng);
    let resolve = |jid: &Jid| core.directory.resolve(jid).map(|address| address.number);
    let members: Option<Vec<u64>> = spec.members.iter().map(resolve).collect();
    let request = change::Creation {
        subject: spec.subject.clone(),
        members: members.ok_or(ControlError::UnknownDevice)?,
        mode: spec.mode.unwrap_or(core.config.group_mode).namespace(),
        settings: super::Settings { announcement: spec.announcement, locked: spec.locked, ..Default::default() },
        kind: if spec.community { Kind::Community } else { Kind::Plain },
        key: None,
    };
    let id = change::create(core, creator, request).map_err(ControlError::Refused)?;
    core.groups.by_id(&id).map(|group| view(core, group)).ok_or(ControlError::UnknownGroup)
}

/// Changes a group in the name of a member: its creator unless one is named, or of who has most to say when that one is gone.
pub(crate) fn change(core: &mut Core, jid: &Jid, by: Option<&Jid>, change: GroupChange) -> Result<(), ControlError> {
    let group = core.groups.get(jid).ok_or(ControlError::UnknownGroup)?;
    let id = group.id.clone();
    let first = group.members.iter().max_by_key(|(number, rank)| (**rank, std::cmp::Reverse(**number)));
    let by = match by {
        Some(by) => core.directory.resolve(by).ok_or(ControlError::UnknownDevice)?.number,
        None => first.map_or(group.creator, |(number, _)| *number),
    };
    let outcomes = change::apply(core, &id, by, change).map_err(ControlError::Refused)?;
    match outcomes.into_iter().find_map(|outcome| outcome.error) {
        Some(code) => Err(ControlError::Refused(code)),
        None => Ok(()),
    }
}

pub(crate) fn view(core: &Core, group: &Group) -> GroupView {
    let member = |(number, rank): (&u64, &super::Rank)| {
        let account = core.directory.account(*number)?;
        Some(MemberView {
            jid: account.jid(Namespace::Pn, 0),
            lid: account.jid(Namespace::Lid, 0),
            rank: rank.as_str(),
        })
    };
    let (parent, default_sub_group) = match &group.kind {
        Kind::Sub { parent, is_default } => (core.groups.by_id(parent).map(Group::jid), *is_default),
        Kind::Plain | Kind::Community => (None, false),
    };
    GroupView {
        jid: group.jid(),
        subject: group.subject.text.clone(),
        mode: if group.mode == Namespace::Lid { GroupMode::Lid } else { GroupMode::Pn },
        members: group.members.iter().filter_map(member).collect(),
        announcement: group.settings.announcement,
        locked: group.settings.locked,
        community: group.kind == Kind::Community,
        parent,
        default_sub_group,
    }
}
