//! Notifications of type `w:gp2`: what happened in a group (spec 06 §7.1).
//!
//! ```text
//! <notification type="w:gp2" from=GROUP participant=AUTHOR … t id>  child*  </notification>
//!                                                        each child one change, `v_id` and `prev_v_id` on it
//! ```

use crate::{
    event::AddressingMode,
    jid::Jid,
    node::NodeRef,
    stanza::{
        StanzaError,
        group::{Description, GroupInfo, Participant, Person, Setting, Subject, participants, text},
        iq::groups::MemberAction,
        required_jid,
    },
};

/// Most changes of one notification. One is usual.
pub const MAX_CHANGES: usize = 64;
/// Most people that want to join, of one change.
const MAX_REQUESTS: usize = 256;

/// What happened in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupNotice {
    /// The group.
    pub group: Jid,
    /// Who did it.
    pub author: Option<Person>,
    /// When, unix seconds.
    pub timestamp: u64,
    /// How the group addresses its participants, if told.
    pub addressing_mode: Option<AddressingMode>,
    /// What was done, in order.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The version that it makes.
    pub version: Option<String>,
    /// The version that it follows upon.
    pub previous: Option<String>,
    /// What was done.
    pub action: Action,
}

/// What was done to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// We are in it from now on.
    Created {
        /// All of it.
        group: Box<GroupInfo>,
        /// Why.
        reason: Option<String>,
    },
    /// Participants came, went or changed their role.
    Members {
        /// What they did.
        action: MemberAction,
        /// Who.
        participants: Vec<Participant>,
        /// How they came or why they went.
        reason: Option<String>,
    },
    /// A participant has another number or identity.
    Modified {
        /// Who, as it is called from now on.
        participants: Vec<Participant>,
    },
    /// It has another name.
    Subject(Subject),
    /// It has another description, or none.
    Described {
        /// Names this version.
        id: Option<String>,
        /// `None` when it was removed.
        description: Option<Description>,
    },
    /// A switch was moved.
    Setting(Setting),
    /// It has another link by which one joins.
    InviteLink(String),
    /// Somebody wants to join, or wants no longer.
    JoinRequests {
        /// Who.
        people: Vec<Person>,
        /// No longer.
        revoked: bool,
        /// How they found it.
        method: Option<String>,
    },
    /// It does not exist any more.
    Deleted {
        /// Why.
        reason: Option<String>,
    },
    /// It became a part of a community, or is one that got or lost these groups.
    Linked {
        /// The other groups.
        groups: Vec<Jid>,
        /// What they are to this one.
        relation: Relation,
        /// It is so no longer.
        unlinked: bool,
    },
    /// The server suspended it, or no longer.
    Suspended(bool),
    /// Nobody can join for the time being, or can again.
    GrowthLocked(bool),
    /// Nothing that is kept or told.
    Remark,
    /// Unknown, or not what it should be: what is stored may be wrong from now on.
    Unknown,
}

/// What another group is to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The community that it belongs to.
    Parent,
    /// A part of it.
    Part,
    /// Another part of the same community.
    Sibling,
}

impl GroupNotice {
    /// Reads a `<notification type="w:gp2">`. What comes behind the first [`MAX_CHANGES`] counts as one unknown change.
    ///
    /// # Errors
    /// [`StanzaError::Attribute`] when it does not come from a group.
    pub fn parse(node: NodeRef<'_>) -> Result<Self, StanzaError> {
        let group = required_jid(node, "notification", "from")?;
        if !group.is_group() {
            return Err(StanzaError::Attribute { tag: "notification", name: "from" });
        }
        let mut changes: Vec<_> = node.children().take(MAX_CHANGES).map(change).collect();
        if node.children().nth(MAX_CHANGES).is_some() {
            changes.push(Change { version: None, previous: None, action: Action::Unknown });
        }
        Ok(Self {
            group: group.to_bare(),
            author: Person::of(node, "participant"),
            timestamp: node.attr_u64("t").unwrap_or(0),
            addressing_mode: match node.attr_str("addressing_mode").as_deref() {
                Some("lid") => Some(AddressingMode::Lid),
                Some("pn") => Some(AddressingMode::Pn),
                _ => None,
            },
            changes,
        })
    }
}

fn change(node: NodeRef<'_>) -> Change {
    let action = action(node).unwrap_or(Action::Unknown);
    Change { version: text(node, "v_id"), previous: text(node, "prev_v_id"), action }
}

/// Reads one change.
fn action(node: NodeRef<'_>) -> Result<Action, StanzaError> {
    if let Some(setting) = Setting::parse(node) {
        return Ok(Action::Setting(setting));
    }
    let members =
        |action| Ok(Action::Members { action, participants: some_participants(node)?, reason: text(node, "reason") });
    match node.tag() {
        "create" => created(node),
        "add" | "linked_group_join" => members(MemberAction::Add),
        "remove" => members(MemberAction::Remove),
        "promote" | "linked_group_promote" => members(MemberAction::Promote),
        "demote" | "linked_group_demote" => members(MemberAction::Demote),
        "modify" | "change_number" => Ok(Action::Modified { participants: participants(node)? }),
        "subject" => Ok(Action::Subject(Subject {
            text: text(node, "subject").unwrap_or_default(),
            owner: Person::of(node, "s_o"),
            time: node.attr_u64("s_t"),
        })),
        "description" => Ok(Action::Described { id: text(node, "id"), description: Description::parse(node) }),
        "invite" => Ok(text(node, "code").map_or(Action::Unknown, Action::InviteLink)),
        "membership_approval_request" => {
            let people = Vec::new();
            Ok(Action::JoinRequests { people, revoked: false, method: text(node, "request_method") })
        }
        "created_membership_requests" => Ok(join_requests(node, false)),
        "revoked_membership_requests" => Ok(join_requests(node, true)),
        "delete" => Ok(Action::Deleted { reason: text(node, "reason") }),
        "link" => linked(node, "link_type", false),
        "unlink" => linked(node, "unlink_type", true),
        "suspended" => Ok(Action::Suspended(true)),
        "unsuspended" => Ok(Action::Suspended(false)),
        "growth_locked" => Ok(Action::GrowthLocked(true)),
        "growth_unlocked" => Ok(Action::GrowthLocked(false)),
        tag if REMARKS.contains(&tag) => Ok(Action::Remark),
        _ => Ok(Action::Unknown),
    }
}

/// Changes of what is not kept of a group.
const REMARKS: [&str; 20] = [
    "allow_admin_reports",
    "allow_non_admin_sub_group_creation",
    "auto_add_disabled",
    "created_sub_group_suggestion",
    "frequently_forwarded_ok",
    "group_history",
    "group_safety_check",
    "is_capi_hosted_group",
    "limit_sharing_enabled",
    "member_link_mode",
    "member_share_group_history_mode",
    "no_frequently_forwarded",
    "no_group_history",
    "not_allow_admin_reports",
    "not_allow_non_admin_sub_group_creation",
    "reports",
    "revoke",
    "revoked_invite",
    "revoked_sub_group_suggestions",
    "sub_group_suggestions",
];

fn created(node: NodeRef<'_>) -> Result<Action, StanzaError> {
    let group = node.child("group").ok_or(StanzaError::Child { tag: "create", child: "group" })?;
    Ok(Action::Created { group: Box::new(GroupInfo::parse(group)?), reason: text(node, "reason") })
}

/// A change of nobody is none that we understand.
fn some_participants(node: NodeRef<'_>) -> Result<Vec<Participant>, StanzaError> {
    let list = participants(node)?;
    if list.is_empty() {
        return Err(StanzaError::Child { tag: "participants", child: "participant" });
    }
    Ok(list)
}

fn join_requests(node: NodeRef<'_>, revoked: bool) -> Action {
    let asked = node.children().filter(|child| matches!(child.tag(), "requested_user" | "participant"));
    let people = asked.filter_map(|child| Person::with_number(child, "jid")).take(MAX_REQUESTS).collect();
    Action::JoinRequests { people, revoked, method: text(node, "request_method") }
}

fn linked(node: NodeRef<'_>, kind: &'static str, unlinked: bool) -> Result<Action, StanzaError> {
    let relation = match node.attr_str(kind).as_deref() {
        Some("parent_group") => Relation::Parent,
        Some("sub_group") => Relation::Part,
        Some("sibling_group") => Relation::Sibling,
        _ => return Err(StanzaError::Attribute { tag: "link", name: kind }),
    };
    let groups = node.children_named("group").take(MAX_REQUESTS).filter_map(|group| group.attr_jid("jid"));
    Ok(Action::Linked { groups: groups.filter(Jid::is_group).collect(), relation, unlinked })
}
