//! What the server says about the stream: success, failure, errors, info broadcasts, notifications (spec 01 §6).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    jid::Jid,
    node::NodeRef,
    stanza::{
        group_notice::GroupNotice,
        iq::{mex, tokens},
    },
};

/// `<success>`: the login was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Success {
    /// Server time, unix seconds.
    pub timestamp: Option<u64>,
    /// Own LID with device.
    pub lid: Option<Jid>,
}

impl Success {
    /// Reads the stanza; every attribute is optional.
    pub fn parse(node: NodeRef<'_>) -> Self {
        Self { timestamp: node.attr_u64("t"), lid: node.attr_jid("lid") }
    }
}

/// `<failure>`: the login was refused (spec 01 §6.3, 07 §3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// Reason number; 0 when missing.
    pub reason: u32,
    /// Detail number of a ban.
    pub code: Option<u32>,
    /// Seconds until a temporary ban ends.
    pub expire: Option<u64>,
    /// Text for the user.
    pub message: Option<String>,
    /// Address with more information.
    pub url: Option<String>,
    /// All attributes as texts: some are sent once only. At most 64 with 4,096 characters each.
    pub attrs: BTreeMap<String, String>,
}

impl Failure {
    /// Reads the stanza.
    pub fn parse(node: NodeRef<'_>) -> Self {
        let number = |name| node.attr_u64(name).and_then(|number| u32::try_from(number).ok());
        let text = |name| node.attr_str(name).map(|text| text.into_owned());
        Self {
            reason: number("reason").unwrap_or(0),
            code: number("code"),
            expire: node.attr_u64("expire"),
            message: text("message"),
            url: text("url"),
            attrs: node
                .attrs()
                .take(MAX_ATTRS)
                .map(|(key, value)| (key.to_owned(), value.as_text().chars().take(MAX_ATTR).collect()))
                .collect(),
        }
    }
}

/// `<stream:error>`, classified (spec 01 §6.4).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamError {
    /// 515: connect again at once; not an error.
    RestartRequired,
    /// 516, 401, or a conflict of any kind but `replaced`: the device is unlinked.
    LoggedOut,
    /// The same credentials connected elsewhere.
    Replaced,
    /// 429.
    RateLimited,
    /// 503 or another 5xx: the server goes away for a while.
    Unavailable(u32),
    /// We sent something that is not well formed.
    NotWellFormed,
    /// The server is still owed an ack.
    MissingAck,
    /// Anything else.
    Unknown(Option<u32>),
}

impl StreamError {
    /// Reads the stanza.
    pub fn parse(node: NodeRef<'_>) -> Self {
        let code = node.attr_u64("code").and_then(|code| u32::try_from(code).ok());
        let conflict = node.child("conflict").map(|conflict| conflict.attr_str("type").unwrap_or_default());
        match (code, conflict.as_deref()) {
            (_, Some("replaced")) | (Some(409), None) => Self::Replaced,
            (_, Some(_)) => Self::LoggedOut,
            (Some(515), None) => Self::RestartRequired,
            (Some(401 | 516), None) => Self::LoggedOut,
            (Some(429), None) => Self::RateLimited,
            (Some(code @ 500..=599), None) => Self::Unavailable(code),
            (None, None) if node.child("xml-not-well-formed").is_some() => Self::NotWellFormed,
            (None, None) if node.child("ack").is_some() => Self::MissingAck,
            (code, None) => Self::Unknown(code),
        }
    }
}

/// One child of an `<ib>` that the engine acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InfoBroadcast {
    /// The backlog begins; how many stanzas wait.
    OfflinePreview {
        /// All of them.
        count: u64,
        /// Messages.
        messages: u64,
        /// Receipts.
        receipts: u64,
        /// Notifications.
        notifications: u64,
    },
    /// The backlog is delivered.
    Offline {
        /// How many there were.
        count: u64,
    },
    /// Opaque bytes for the next connection's pre-intro.
    EdgeRouting(Bytes),
    /// An area of server state changed.
    Dirty {
        /// Which one.
        kind: String,
        /// Version to send back when it was fetched.
        timestamp: Option<u64>,
    },
    /// The phone scanned the code but knows no linked devices.
    DowngradeWebClient,
    /// This client version stops working then (unix seconds).
    ClientExpiration(u64),
}

impl InfoBroadcast {
    /// Reads the children that are known; others are ignored, and what comes behind the first 64.
    pub fn parse(node: NodeRef<'_>) -> Vec<Self> {
        node.children().take(MAX_CHILDREN).filter_map(Self::parse_child).collect()
    }

    fn parse_child(node: NodeRef<'_>) -> Option<Self> {
        let number = |name| node.attr_u64(name).unwrap_or(0);
        match node.tag() {
            "offline_preview" => Some(Self::OfflinePreview {
                count: number("count"),
                messages: number("message"),
                receipts: number("receipt"),
                notifications: number("notification"),
            }),
            "offline" => Some(Self::Offline { count: number("count") }),
            "edge_routing" => Some(Self::EdgeRouting(node.child("routing_info")?.bytes()?)),
            "dirty" => {
                Some(Self::Dirty { kind: node.attr_str("type")?.into_owned(), timestamp: node.attr_u64("timestamp") })
            }
            "downgrade_webclient" => Some(Self::DowngradeWebClient),
            "client_expiration" => Some(Self::ClientExpiration(node.attr_u64("t")?)),
            _ => None,
        }
    }
}

/// How many attributes of a failure are kept.
const MAX_ATTRS: usize = 64;
/// How many characters of each.
const MAX_ATTR: usize = 4_096;
/// How many children of an `<ib>` are read. One is usual.
const MAX_CHILDREN: usize = 64;

/// A notification that the engine acts on (spec 03 §1.4, §4.9).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notification {
    /// One-time prekeys run low on the server.
    PreKeysLow {
        /// How many it has.
        count: u64,
    },
    /// The identity key of a user changed.
    IdentityChanged {
        /// Whose.
        user: Jid,
    },
    /// The device list of a user changed.
    DevicesChanged {
        /// Whose.
        user: Jid,
        /// The user's other identity, when told.
        lid: Option<Jid>,
    },
    /// Something happened in a group.
    Group(Box<GroupNotice>),
    /// A user gives us privacy tokens.
    Tokens {
        /// Who.
        user: Jid,
        /// The user's other identity, when told.
        lid: Option<Jid>,
        /// The tokens.
        tokens: Vec<tokens::Token>,
    },
    /// What the account may not do for a while.
    Restrictions(Vec<mex::Restriction>),
    /// Anything else: acknowledged, not acted on.
    Other,
}

impl Notification {
    /// Classifies a `<notification>`.
    pub fn parse(node: NodeRef<'_>) -> Self {
        let from = node.attr_jid("from");
        match (node.attr_str("type").as_deref(), from) {
            (Some("encrypt"), Some(from)) => {
                if let Some(count) = node.child("count") {
                    Self::PreKeysLow { count: count.attr_u64("value").unwrap_or(0) }
                } else if node.child("identity").is_some() {
                    Self::IdentityChanged { user: from }
                } else {
                    Self::Other
                }
            }
            (Some("devices"), Some(from)) => {
                Self::DevicesChanged { user: from.to_bare(), lid: node.attr_jid("lid").map(|lid| lid.to_bare()) }
            }
            (Some("account_sync"), Some(from)) if node.child("devices").is_some() => {
                Self::DevicesChanged { user: from.to_bare(), lid: None }
            }
            (Some("w:gp2"), Some(_)) => {
                GroupNotice::parse(node).map_or(Self::Other, |notice| Self::Group(Box::new(notice)))
            }
            (Some("privacy_token"), Some(from)) => Self::Tokens {
                user: from.to_account(),
                lid: node.attr_jid("sender_lid").map(|lid| lid.to_account()),
                tokens: tokens::tokens(node),
            },
            (Some("mex"), _) => match mex::updates(node) {
                updates if updates.is_empty() => Self::Other,
                updates => Self::Restrictions(updates),
            },
            _ => Self::Other,
        }
    }
}
