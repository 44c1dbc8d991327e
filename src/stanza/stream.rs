//! What the server says about the stream: success, failure, errors, info broadcasts, notifications (spec 01 §6).

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{
    jid::Jid,
    node::NodeRef,
    stanza::{
        group_notice::GroupNotice,
        iq::{
            mex, tokens,
            usync::{self, Device, MAX_DEVICES},
        },
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
    /// The server wants us to compare what it holds of our keys with what we have.
    KeyDigest,
    /// The identity key of a user changed.
    IdentityChanged {
        /// Whose.
        user: Jid,
        /// When, unix seconds.
        timestamp: Option<u64>,
    },
    /// The device list of a user changed.
    DevicesChanged {
        /// Whose.
        user: Jid,
        /// The user's other identity, when told.
        other: Option<Jid>,
        /// What changed.
        change: DeviceChange,
    },
    /// Our own devices, all of them.
    OwnDevices {
        /// The own account.
        user: Jid,
        /// At most [`MAX_DEVICES`].
        devices: Vec<Device>,
        /// The participant hash of the list.
        hash: Option<String>,
    },
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
    /// Something happened in a group.
    Group(Box<GroupNotice>),
    /// Anything else: acknowledged, not acted on.
    Other,
}

/// What changed in a device list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChange {
    /// Devices were linked.
    Added(ChangedDevices),
    /// Devices were unlinked.
    Removed(ChangedDevices),
    /// Something: the list must be asked for.
    Unknown,
}

/// The devices that were added or removed, and what the whole list is after that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangedDevices {
    /// At most [`MAX_DEVICES`].
    pub devices: Vec<Device>,
    /// The serialised `ADVSignedKeyIndexList`.
    pub key_index_list: Option<Bytes>,
    /// The participant hash of the list by phone number.
    pub hash: Option<String>,
    /// The participant hash of the list by LID.
    pub lid_hash: Option<String>,
}

impl Notification {
    /// Classifies a `<notification>`.
    pub fn parse(node: NodeRef<'_>) -> Self {
        let Some(from) = node.attr_jid("from") else { return Self::Other };
        match node.attr_str("type").as_deref() {
            Some("encrypt") => Self::parse_encrypt(node, from),
            Some("devices") => {
                let lid = node.attr_jid("lid").filter(|lid| lid.is_lid_family() != from.is_lid_family());
                let other = lid.or_else(|| node.attr_jid("pn"));
                let user = from.to_account();
                let change = DeviceChange::parse(node, [Some(&user), other.as_ref()]);
                Self::DevicesChanged { user, other: other.map(|other| other.to_account()), change }
            }
            Some("privacy_token") => Self::Tokens {
                user: from.to_account(),
                lid: node.attr_jid("sender_lid").map(|lid| lid.to_account()),
                tokens: tokens::tokens(node),
            },
            Some("mex") => match mex::updates(node) {
                updates if updates.is_empty() => Self::Other,
                updates => Self::Restrictions(updates),
            },
            Some("account_sync") => {
                let Some(list) = node.child("devices") else { return Self::Other };
                let user = from.to_account();
                let devices = changed_devices(list, [Some(&user), None]);
                Self::OwnDevices { user, devices, hash: usync::text(list, "dhash") }
            }
            Some("w:gp2") => GroupNotice::parse(node).map_or(Self::Other, |notice| Self::Group(Box::new(notice))),
            _ => Self::Other,
        }
    }

    fn parse_encrypt(node: NodeRef<'_>, from: Jid) -> Self {
        if let Some(count) = node.child("count") {
            Self::PreKeysLow { count: count.attr_u64("value").unwrap_or(0) }
        } else if node.child("digest").is_some() {
            Self::KeyDigest
        } else if node.child("identity").is_some() {
            Self::IdentityChanged { user: from, timestamp: node.attr_u64("t") }
        } else {
            Self::Other
        }
    }
}

impl DeviceChange {
    /// If there are several, a removal counts more than an addition, and that more than an update.
    fn parse(node: NodeRef<'_>, users: [Option<&Jid>; 2]) -> Self {
        let read = |change: NodeRef<'_>| ChangedDevices {
            devices: changed_devices(change, users),
            key_index_list: change.child("key-index-list").and_then(|list| list.bytes()),
            hash: usync::text(change, "device_hash"),
            lid_hash: usync::text(change, "device_lid_hash"),
        };
        match (node.child("remove"), node.child("add")) {
            (Some(removed), _) => Self::Removed(read(removed)),
            (None, Some(added)) => Self::Added(read(added)),
            (None, None) => Self::Unknown,
        }
    }
}

/// The `<device>` children that are devices of the user.
fn changed_devices(node: NodeRef<'_>, users: [Option<&Jid>; 2]) -> Vec<Device> {
    let is_theirs = |jid: &Jid| users.into_iter().flatten().any(|user| user.same_account(jid));
    let device = |device: NodeRef<'_>| {
        let jid = device.attr_jid("jid").filter(is_theirs)?;
        let hosted = jid.is_hosted() || usync::is_hosted(device);
        Some(Device { id: jid.device(), key_index: usync::key_index(device), hosted })
    };
    node.children().filter(|child| child.tag() == "device").filter_map(device).take(MAX_DEVICES).collect()
}
