//! Device lists and LIDs of users (spec 03 §4.9).

use bytes::Bytes;

use crate::{
    jid::Jid,
    node::{Node, NodeRef},
    stanza::{StanzaError, iq::request, required_child},
};

/// Most devices of one user that are kept: no account has more.
pub const MAX_DEVICES: usize = 100;

/// Asks for the devices and the LID of users. `sid` is a unique short text.
pub fn devices_request<'a>(sid: &str, users: impl IntoIterator<Item = &'a Jid>) -> Node {
    let query = Node::new("query").child(Node::new("devices").attr("version", "2")).child(Node::new("lid"));
    let list = Node::new("list").children(users.into_iter().map(|jid| Node::new("user").attr("jid", jid)));
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

/// One user of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserDevices {
    /// The user as asked for.
    pub user: Jid,
    /// The user's LID, when the server told it.
    pub lid: Option<Jid>,
    /// Device ids and their key indexes; `None` when the server did not answer for this user.
    pub devices: Option<Vec<Device>>,
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
}

/// Reads the answer to [`devices_request`].
///
/// # Errors
/// [`StanzaError`] without a list.
pub fn devices(node: NodeRef<'_>) -> Result<Vec<UserDevices>, StanzaError> {
    let usync = required_child(node, "iq", "usync")?;
    let list = required_child(usync, "usync", "list")?;
    Ok(list.children().filter(|user| user.tag() == "user").filter_map(user_devices).collect())
}

fn user_devices(user: NodeRef<'_>) -> Option<UserDevices> {
    let devices = user.child("devices");
    let list = devices.and_then(|devices| devices.child("device-list"));
    Some(UserDevices {
        user: user.attr_jid("jid")?.to_bare(),
        lid: user.child("lid").and_then(|lid| lid.attr_jid("val")).map(|lid| lid.to_bare()),
        devices: list.map(|list| list.children().filter_map(device).take(MAX_DEVICES).collect()),
        key_index_list: devices.and_then(|devices| devices.child("key-index-list")).and_then(|list| list.bytes()),
    })
}

fn device(node: NodeRef<'_>) -> Option<Device> {
    Some(Device {
        id: node.attr_u64("id")?.try_into().ok()?,
        key_index: node.attr_u64("key-index").and_then(|index| index.try_into().ok()),
    })
}
