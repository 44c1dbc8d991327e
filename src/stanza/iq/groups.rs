//! Groups (`w:g2`, spec 06 §7): what they are, and changes of them.
//!
//! | request | answer |
//! |---|---|
//! | [`info_request`] | [`info`] |
//! | [`participating_request`] | [`participating`] |
//! | [`NewGroup::request`] | [`info`] |
//! | [`members_request`] | [`members`] |
//! | [`leave_request`] | [`left`] |
//! | [`subject_request`], [`setting_request`] | empty |

use std::fmt;

use crate::{
    jid::{Jid, Server},
    node::{Node, NodeRef},
    stanza::{
        StanzaError,
        group::{GroupInfo, Setting, number},
        iq::request,
        required_child, required_jid,
    },
};

/// Most groups of one answer.
pub const MAX_GROUPS: usize = 16_384;
/// Most participants that all groups of one answer have together.
pub const MAX_ALL_PARTICIPANTS: usize = 1 << 20;

fn to_group(kind: &'static str, group: &Jid) -> Node {
    request(kind, "w:g2").attr("to", group)
}

fn to_service(kind: &'static str) -> Node {
    to_group(kind, &Jid::new("", Server::Group))
}

/// Asks what there is to know of a group.
pub fn info_request(group: &Jid) -> Node {
    to_group("get", group).child(Node::new("query").attr("request", "interactive"))
}

/// Reads the answer to [`info_request`], and to the creation of a group.
///
/// # Errors
/// [`StanzaError`] without a usable group.
pub fn info(node: NodeRef<'_>) -> Result<GroupInfo, StanzaError> {
    GroupInfo::parse(required_child(node, "iq", "group")?)
}

/// Asks for all groups that we are in.
pub fn participating_request() -> Node {
    let asked = Node::new("participating").child(Node::new("participants")).child(Node::new("description"));
    to_service("get").child(asked)
}

/// Reads the answer to [`participating_request`]. A group that cannot be used is left out.
///
/// # Errors
/// [`StanzaError`] without a list, and when it holds more than [`MAX_GROUPS`] or [`MAX_ALL_PARTICIPANTS`].
pub fn participating(node: NodeRef<'_>) -> Result<Vec<GroupInfo>, StanzaError> {
    let (mut groups, mut participants) = (Vec::new(), 0_usize);
    for group in required_child(node, "iq", "groups")?.children_named("group") {
        let Ok(group) = GroupInfo::parse(group) else { continue };
        participants = participants.saturating_add(group.participants.len());
        if groups.len() >= MAX_GROUPS || participants > MAX_ALL_PARTICIPANTS {
            return Err(StanzaError::TooMany { tag: "group", max: MAX_GROUPS });
        }
        groups.push(group);
    }
    Ok(groups)
}

/// A group to be made. `Debug` does not show its name.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewGroup {
    /// Its name.
    pub subject: String,
    /// Who is in it besides us.
    pub participants: Vec<Jid>,
    /// Switches that do not stand as they do by default.
    pub settings: Vec<Setting>,
    /// The community that it belongs to.
    pub linked_parent: Option<Jid>,
}

impl NewGroup {
    /// A group with these participants besides us, set as groups are by default.
    pub fn new(subject: impl Into<String>, participants: Vec<Jid>) -> Self {
        Self { subject: subject.into(), participants, settings: Vec::new(), linked_parent: None }
    }

    /// The request. `key` are 16 hex digits, which the notification of the creation repeats.
    pub fn request(&self, key: &str) -> Node {
        let participants = self.participants.iter().map(participant);
        let parent = self.linked_parent.as_ref().map(|parent| Node::new("linked_parent").attr("jid", parent));
        let create = Node::new("create").attr("subject", self.subject.as_str()).attr("key", key);
        let settings = self.settings.iter().map(|setting| setting_node(*setting));
        to_service("set").child(create.children(participants).children(settings).children(parent))
    }
}

impl fmt::Debug for NewGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewGroup").field("participants", &self.participants.len()).finish_non_exhaustive()
    }
}

fn participant(jid: &Jid) -> Node {
    Node::new("participant").attr("jid", jid)
}

/// What happens to participants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberAction {
    /// They join.
    Add,
    /// They go.
    Remove,
    /// They become admins.
    Promote,
    /// They are admins no longer.
    Demote,
}

impl MemberAction {
    /// The tag in requests and notifications, which is the word in events, too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
            Self::Promote => "promote",
            Self::Demote => "demote",
        }
    }
}

/// A user to be added, removed, promoted or demoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// In the addressing mode of the group, if that is known.
    pub jid: Jid,
    /// The phone number, when `jid` is a LID and it is known.
    pub phone_number: Option<Jid>,
}

/// Asks for a change of some participants.
pub fn members_request(group: &Jid, action: MemberAction, members: &[Member]) -> Node {
    let members =
        members.iter().map(|member| participant(&member.jid).attr_opt("phone_number", member.phone_number.as_ref()));
    to_group("set", group).child(Node::new(action.as_str()).children(members))
}

/// What became of one participant of a [`members_request`]. `Debug` does not show the invitation.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberResult {
    /// The participant, as the server calls it.
    pub jid: Jid,
    /// Why not (spec 06 §7): 403 wants to be invited, 404 is not on WhatsApp, 408 left lately, 409 is in it already, 419 the
    /// group is full, and others.
    pub error: Option<u32>,
    /// With 403: the code of the invitation to send instead, and until when it is good, unix seconds.
    pub invite: Option<(String, u64)>,
}

impl fmt::Debug for MemberResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemberResult").field("jid", &self.jid).field("error", &self.error).finish_non_exhaustive()
    }
}

/// Reads the answer to [`members_request`]: a result for every participant.
///
/// # Errors
/// [`StanzaError`] without the action, and for a participant without JID.
pub fn members(node: NodeRef<'_>, action: MemberAction) -> Result<Vec<MemberResult>, StanzaError> {
    let list = required_child(node, "iq", action.as_str())?;
    list.children_named("participant").map(member_result).collect()
}

fn member_result(node: NodeRef<'_>) -> Result<MemberResult, StanzaError> {
    let invite = node.child("add_request");
    let invite =
        invite.and_then(|add| Some((add.attr_str("code")?.into_owned(), add.attr_u64("expiration").unwrap_or(0))));
    // A refusal stays one when its code cannot be read.
    let error = node.attr_str("error").map(|code| code.parse().unwrap_or(u32::MAX));
    Ok(MemberResult { jid: required_jid(node, "participant", "jid")?.to_account(), error, invite })
}

/// Asks to leave a group.
pub fn leave_request(group: &Jid) -> Node {
    to_service("set").child(Node::new("leave").child(Node::new("group").attr("id", group)))
}

/// Reads the answer to [`leave_request`]: the code of a refusal.
///
/// # Errors
/// [`StanzaError`] without a result.
pub fn left(node: NodeRef<'_>) -> Result<Option<u32>, StanzaError> {
    let leave = required_child(node, "iq", "leave")?;
    Ok(leave.child("group").and_then(|group| number(group, "error")))
}

/// Asks for another name of a group; at most 100 characters.
pub fn subject_request(group: &Jid, subject: &str) -> Node {
    to_group("set", group).child(Node::new("subject").bytes(subject.as_bytes().to_vec()))
}

/// Asks for a switch of a group to be moved.
pub fn setting_request(group: &Jid, setting: Setting) -> Node {
    to_group("set", group).child(setting_node(setting))
}

fn setting_node(setting: Setting) -> Node {
    let either = |on: bool, yes, no| Node::new(if on { yes } else { no });
    match setting {
        Setting::Locked(on) => either(on, "locked", "unlocked"),
        Setting::Announcement(on) => either(on, "announcement", "not_announcement"),
        Setting::Ephemeral(0) => Node::new("not_ephemeral"),
        Setting::Ephemeral(seconds) => Node::new("ephemeral").attr("expiration", seconds),
        Setting::JoinApproval(on) => {
            let join = Node::new("group_join").attr("state", if on { "on" } else { "off" });
            Node::new("membership_approval_mode").child(join)
        }
        Setting::AllMayAdd(on) => {
            let mode = if on { "all_member_add" } else { "admin_add" };
            Node::new("member_add_mode").bytes(mode.as_bytes().to_vec())
        }
    }
}
