//! `account.*`, `lid_mapping.*` and `identity.*` (spec 07 §7.1 and §7.3).

use serde::Serialize;

use crate::jid::Jid;

/// Where a mapping between phone number and hidden id was learnt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MappingSource {
    /// The answer to a query about users.
    Usync,
    /// The attributes of a message.
    Message,
    /// The list of a group's participants.
    Group,
    /// Our own JIDs, when the device was linked or logged in.
    Own,
    /// The table that the phone sends when the account migrates.
    Migration,
    /// A notification of the server.
    Notification,
    /// History or app state.
    Sync,
}

event_data! {
    /// A phone number and a hidden id turned out to be the same account. Replace one by the other where only one is known.
    LidMappingUpdated {
        /// The hidden id, without device.
        #[serde(serialize_with = "super::message::bare")]
        lid: Jid,
        /// The phone number, without device.
        #[serde(serialize_with = "super::message::bare")]
        pn: Jid,
        /// Where it was learnt.
        source: MappingSource,
    }
}

event_data! {
    /// The server says that a part of the account's data changed; the engine fetches it again.
    #[derive(Debug)]
    AccountDirty {
        /// `account_sync`, `groups`, `syncd_app_state`, `newsletter_metadata`, `communities`, or a newer word.
        #[serde(rename = "type")]
        kind: String,
        /// When it changed, unix seconds, if the server says.
        #[serde(skip_serializing_if = "Option::is_none")]
        timestamp: Option<u64>,
    }
}

event_data! {
    /// A contact's security code changed: a new phone or a reinstalled app. Show it where the contact was verified.
    IdentityChanged {
        /// Whose, without device.
        #[serde(serialize_with = "super::message::bare")]
        jid: Jid,
        /// Noticed by ourselves (a message or bundle with another key), not announced by the server.
        implicit: bool,
    }
}

/// What an account may not do for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RestrictionKind {
    /// Write to people who have not written to it: `463`.
    ReachOut,
    /// Begin more chats in this cycle of the cap: `475`.
    MessageCap,
}

event_data! {
    /// WhatsApp restricts the account, or does not any more. While it is restricted, messages to people whom it had no word with
    /// are refused before they are sent; chats that there are go on.
    #[derive(Debug)]
    AccountRestricted {
        /// What it may not do.
        #[serde(rename = "type")]
        kind: RestrictionKind,
        /// Whether it is restricted now.
        active: bool,
        /// When the restriction ends, unix milliseconds, if the server says so. Otherwise it is tried again after an hour.
        #[serde(skip_serializing_if = "Option::is_none")]
        until: Option<u64>,
        /// The server's own word for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        enforcement: Option<String>,
    }
}

event_data! {
    /// How many chats the account may begin in a cycle, and how many it has.
    #[derive(Debug)]
    AccountMessageCap {
        /// All of them.
        #[serde(skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
        /// Those that are used up.
        #[serde(skip_serializing_if = "Option::is_none")]
        used: Option<u64>,
        /// `NONE`, `FIRST_WARNING`, `SECOND_WARNING`, `CAPPED`, or a newer word.
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<String>,
        /// When the cycle ends, unix milliseconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        until: Option<u64>,
    }
}

opaque_debug!(LidMappingUpdated, IdentityChanged);
