//! Device lists and LIDs of users (spec 03 §4.9).

use bytes::Bytes;

use crate::{
    jid::{Jid, Server},
    node::{Node, NodeRef},
    stanza::{
        StanzaError,
        iq::{IqError, error_of, request},
        required_child,
    },
};

/// Most devices of one user that are kept: no account has more.
pub const MAX_DEVICES: usize = 100;
/// Longest device hash that is kept; real ones have ten characters.
const MAX_HASH: usize = 64;

/// Whose devices are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicesOf {
    /// The user.
    pub user: Jid,
    /// The hash of the list that is known. If it is still that of the server, the answer leaves the user out.
    pub hash: Option<String>,
    /// When the primary made the key-index list that is known, unix seconds.
    pub timestamp: Option<u64>,
}

/// Asks for the devices and the LID of users. `sid` is a unique short text.
pub fn devices_request<'a>(sid: &str, users: impl IntoIterator<Item = &'a DevicesOf>) -> Node {
    let query = Node::new("query").child(Node::new("devices").attr("version", "2")).child(Node::new("lid"));
    let list = Node::new("list").children(users.into_iter().map(user_node));
    let usync = Node::new("usync")
        .attr("sid", sid)
        .attr("mode", "query")
        .attr("last", "true")
        .attr("index", "0")
        .attr("context", "message")
        .child(query)
        .child(list);
    request("get", "usync").child(usync)
}

fn user_node(asked: &DevicesOf) -> Node {
    let known = asked
        .hash
        .as_deref()
        .map(|hash| Node::new("devices").attr("device_hash", hash).attr_opt("ts", asked.timestamp));
    Node::new("user").attr("jid", &asked.user).child_opt(known)
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicesAnswer {
    /// One per user answered. Who was asked for with a hash and is missing has the devices that are known.
    pub users: Vec<UserDevices>,
    /// Why there are no device lists at all.
    pub error: Option<IqError>,
}

/// One user of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDevices {
    /// The user as asked for.
    pub user: Jid,
    /// The user's LID, when the server told it.
    pub lid: Option<Jid>,
    /// The user's phone number, when the server told it.
    pub pn: Option<Jid>,
    /// The list; `None` when the server did not answer for this user.
    pub list: Option<DeviceList>,
}

/// The devices of a user, as the server knows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceList {
    /// At most [`MAX_DEVICES`].
    pub devices: Vec<Device>,
    /// For the next question.
    pub hash: Option<String>,
    /// The serialised `ADVSignedKeyIndexList`.
    pub key_index_list: Option<Bytes>,
}

/// One device of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Device id; 0 is the primary.
    pub id: u16,
    /// Key index of a companion.
    pub key_index: Option<u32>,
    /// Meta runs it for a business.
    pub hosted: bool,
}

impl Device {
    /// The address of the device, for one of the identities of its user.
    pub fn jid(&self, user: &Jid) -> Jid {
        let server = match (self.hosted, user.is_lid_family()) {
            (true, true) => Server::HostedLid,
            (true, false) => Server::Hosted,
            (false, _) => return user.with_device(self.id),
        };
        Jid::new(user.user(), server).with_device(self.id)
    }
}

/// Reads the answer to [`devices_request`].
///
/// # Errors
/// [`StanzaError`] without a list.
pub fn devices(node: NodeRef<'_>) -> Result<DevicesAnswer, StanzaError> {
    let usync = required_child(node, "iq", "usync")?;
    let protocol = usync.child("result").and_then(|result| result.child("devices"));
    let error = protocol.filter(|devices| devices.child("error").is_some()).map(error_of);
    let list = match usync.child("list") {
        None if error.is_some() => return Ok(DevicesAnswer { users: Vec::new(), error }),
        _ => required_child(usync, "usync", "list")?,
    };
    let users = list.children().filter(|user| user.tag() == "user").filter_map(user_devices).collect();
    Ok(DevicesAnswer { users, error })
}

fn user_devices(user: NodeRef<'_>) -> Option<UserDevices> {
    let devices = user.child("devices");
    let list = devices.and_then(|devices| Some((devices, devices.child("device-list")?)));
    Some(UserDevices {
        user: user.attr_jid("jid")?.to_bare(),
        lid: user.child("lid").and_then(|lid| lid.attr_jid("val")).map(|lid| lid.to_bare()),
        pn: user.attr_jid("pn_jid").map(|pn| pn.to_bare()),
        list: list.map(|(devices, list)| DeviceList {
            devices: list.children().filter_map(device).take(MAX_DEVICES).collect(),
            hash: text(list, "hash"),
            key_index_list: devices.child("key-index-list").and_then(|list| list.bytes()),
        }),
    })
}

fn device(node: NodeRef<'_>) -> Option<Device> {
    let hosted = is_hosted(node);
    Some(Device { id: node.attr_u64("id")?.try_into().ok()?, key_index: key_index(node), hosted })
}

/// The `key-index` of a `<device>`.
pub(crate) fn key_index(device: NodeRef<'_>) -> Option<u32> {
    device.attr_u64("key-index").and_then(|index| index.try_into().ok())
}

/// The `is_hosted` of a `<device>`.
pub(crate) fn is_hosted(device: NodeRef<'_>) -> bool {
    matches!(device.attr_str("is_hosted").as_deref(), Some("true" | "1"))
}

/// A hash among the attributes.
pub(crate) fn text(node: NodeRef<'_>, name: &str) -> Option<String> {
    node.attr_str(name).filter(|hash| !hash.is_empty() && hash.len() <= MAX_HASH).map(|hash| hash.into_owned())
}
