//! `chats.*`: what chats are set to (spec 07 §5).

use serde::Serialize;

use super::message::{bare, bare_option};
use crate::jid::Jid;

/// A chat with the members that changed.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ChatObject {
    /// The chat, as the server addresses it.
    #[serde(serialize_with = "bare")]
    pub id: Jid,
    /// The chat's other identity, if known.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "bare_option")]
    pub alt_id: Option<Jid>,
    /// Digits of the chat's phone number, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// Seconds after which messages disappear; 0 for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_expiration: Option<u32>,
    /// When that was set, unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ephemeral_setting_timestamp: Option<u64>,
    /// Whether content may be passed on to others and to assistants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_sharing: Option<bool>,
}

impl ChatObject {
    /// A chat without changes.
    pub fn new(id: Jid, alt_id: Option<Jid>) -> Self {
        let phone = [Some(&id), alt_id.as_ref()].into_iter().flatten().find(|jid| jid.is_pn_family());
        Self {
            phone: phone.map(|jid| jid.user().to_owned()),
            id,
            alt_id,
            ephemeral_expiration: None,
            ephemeral_setting_timestamp: None,
            limit_sharing: None,
        }
    }
}

event_data! {
    /// Chats are set to something else. Members that did not change are left out.
    #[derive(Debug)]
    ChatsUpdate {
        /// The chats.
        chats: Vec<ChatObject>,
    }
}

event_data! {
    /// A member of a group took another label, or dropped it.
    GroupMemberTag {
        /// The group.
        #[serde(serialize_with = "bare")]
        group_id: Jid,
        /// The member, as addressed.
        #[serde(serialize_with = "bare")]
        participant: Jid,
        /// The member's other identity, if known.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "bare_option")]
        participant_alt: Option<Jid>,
        /// The label; null when it was dropped.
        label: Option<String>,
    }
}

opaque_debug!(ChatObject, GroupMemberTag);
