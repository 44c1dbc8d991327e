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

opaque_debug!(LidMappingUpdated, IdentityChanged);
