//! `groups.*`, `group-participants.*`, `group.*` and `community.*` (spec 07 §5 and §7.4).

use serde::Serialize;

use super::{AddressingMode, message::phone};
use crate::jid::Jid;

/// A group as events and answers show it: everything that is known of it, or what changed. `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupObject {
    /// The group.
    pub id: Jid,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Who set the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_owner: Option<Jid>,
    /// Its phone number, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_owner_pn: Option<Jid>,
    /// When the name was set, unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject_time: Option<u64>,
    /// When the group was made, unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation: Option<u64>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Jid>,
    /// Its phone number, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_pn: Option<Jid>,
    /// The description; empty when it was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desc: Option<String>,
    /// Names this version of the description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desc_id: Option<String>,
    /// Who set the description.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desc_owner: Option<Jid>,
    /// When, unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desc_time: Option<u64>,
    /// How many participants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// How it addresses its participants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addressing_mode: Option<AddressingMode>,
    /// Only admins send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announce: Option<bool>,
    /// Only admins change subject, description and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restrict: Option<bool>,
    /// Every participant may add others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub member_add_mode: Option<bool>,
    /// Admins approve who joins by link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub join_approval_mode: Option<bool>,
    /// After how many seconds messages disappear; 0 for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_duration: Option<u32>,
    /// It is a community.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_community: Option<bool>,
    /// It is the announcement group of its community.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_community_announce: Option<bool>,
    /// The community that it belongs to, or that it belongs to none.
    #[serde(skip_serializing_if = "Known::is_unknown")]
    pub linked_parent: Known<Jid>,
    /// The code of the link by which one joins, or that it is not known.
    #[serde(skip_serializing_if = "Known::is_unknown")]
    pub invite_code: Known<String>,
    /// Who changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<Jid>,
    /// Its phone number, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author_pn: Option<Jid>,
    /// It does not exist any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deleted: Option<bool>,
    /// Why it was deleted or suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The server suspended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended: Option<bool>,
    /// Nobody can join for the time being.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth_locked: Option<bool>,
    /// Everybody in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participants: Option<Vec<GroupParticipant>>,
}

/// A member of an object that an update leaves out when it did not change, and that may also be nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Known<T> {
    /// Nothing is said of it.
    #[default]
    #[serde(skip)]
    Unknown,
    /// There is none.
    Nothing,
    /// This.
    Value(T),
}

impl<T> Known<T> {
    /// Whether nothing is said of it.
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }

    /// That it is so, or that there is none.
    pub fn from_option(value: Option<T>) -> Self {
        value.map_or(Self::Nothing, Self::Value)
    }
}

impl GroupObject {
    /// Of which nothing is said yet.
    pub const fn new(id: Jid) -> Self {
        Self {
            id,
            subject: None,
            subject_owner: None,
            subject_owner_pn: None,
            subject_time: None,
            creation: None,
            owner: None,
            owner_pn: None,
            desc: None,
            desc_id: None,
            desc_owner: None,
            desc_time: None,
            size: None,
            addressing_mode: None,
            announce: None,
            restrict: None,
            member_add_mode: None,
            join_approval_mode: None,
            ephemeral_duration: None,
            is_community: None,
            is_community_announce: None,
            linked_parent: Known::Unknown,
            invite_code: Known::Unknown,
            author: None,
            author_pn: None,
            deleted: None,
            reason: None,
            suspended: None,
            growth_locked: None,
            participants: None,
        }
    }
}

/// What a participant may do besides writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum GroupAdmin {
    /// An admin.
    Admin,
    /// The admin who made the group.
    SuperAdmin,
}

/// Somebody in a group.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct GroupParticipant {
    /// The preferred identity, else as the group addresses it.
    pub id: Jid,
    /// The phone number, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone_number: Option<Jid>,
    /// The hidden id, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lid: Option<Jid>,
    /// Digits of the phone number, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// The user name, if the server gives it.
    pub username: Option<String>,
    /// What it may do besides writing.
    pub admin: Option<GroupAdmin>,
    /// What the group calls it.
    pub label: Option<String>,
}

impl GroupParticipant {
    /// An ordinary participant under the identities that are known.
    pub fn new(id: Jid, phone_number: Option<Jid>, lid: Option<Jid>) -> Self {
        let digits = phone([phone_number.as_ref(), None]).map(str::to_owned);
        Self { id, phone_number, lid, phone: digits, username: None, admin: None, label: None }
    }
}

event_data! {
    /// We are in these groups from now on, or they were made.
    GroupsUpsert {
        /// One or more.
        groups: Vec<GroupObject>,
    }
}

event_data! {
    /// Something about these groups changed: each with its id and what changed.
    GroupsUpdate {
        /// One or more.
        groups: Vec<GroupObject>,
    }
}

/// What happened to participants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum GroupAction {
    /// They joined or were added.
    Add,
    /// They left or were removed: who left by itself is the author.
    Remove,
    /// They became admins.
    Promote,
    /// They are admins no longer.
    Demote,
    /// They have another number or identity.
    Modify,
}

event_data! {
    /// Participants of a group came, went, or changed.
    GroupParticipantsUpdate {
        /// The group.
        id: Jid,
        /// Who did it, if the server says.
        #[serde(skip_serializing_if = "Option::is_none")]
        author: Option<Jid>,
        /// Its phone number, if known.
        #[serde(skip_serializing_if = "Option::is_none")]
        author_pn: Option<Jid>,
        /// Its user name, if the server gives it.
        author_username: Option<String>,
        /// What happened.
        action: GroupAction,
        /// How they came or why they went: `invite` and others.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// With `modify`: the identity before.
        #[serde(skip_serializing_if = "Option::is_none")]
        old_id: Option<Jid>,
        /// Who.
        participants: Vec<GroupParticipant>,
        /// Our own account is among them.
        #[serde(rename = "self")]
        own: bool,
        /// When, unix seconds.
        timestamp: u64,
    }
}

/// What happened to a wish to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum JoinRequestAction {
    /// Somebody wants to join.
    Created,
    /// It wants no longer.
    Revoked,
    /// An admin does not want it.
    Rejected,
}

event_data! {
    /// Somebody wants to join a group whose admins approve who joins, or wants no longer.
    GroupJoinRequest {
        /// The group.
        id: Jid,
        /// Who.
        participant: Jid,
        /// Its phone number, if known.
        #[serde(skip_serializing_if = "Option::is_none")]
        participant_pn: Option<Jid>,
        /// What happened.
        action: JoinRequestAction,
        /// How it found the group: `invite_link`, `linked_group_join`, `non_admin_add`.
        #[serde(skip_serializing_if = "Option::is_none")]
        method: Option<String>,
    }
}

/// What happened to a community.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CommunityAction {
    /// The group belongs to it from now on.
    Link,
    /// It does no longer.
    Unlink,
}

event_data! {
    /// A group became a part of a community, or ceased to be one.
    CommunityUpdate {
        /// The community.
        parent: Jid,
        /// The group.
        group: Jid,
        /// What happened.
        action: CommunityAction,
    }
}

opaque_debug!(
    GroupObject,
    GroupParticipant,
    GroupsUpsert,
    GroupsUpdate,
    GroupParticipantsUpdate,
    GroupJoinRequest,
    CommunityUpdate
);
