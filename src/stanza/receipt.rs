//! Receipts (spec 03 §5.5, §5.6, §6.2, §6.3): delivery and read marks, and requests to send again.

use bytes::Bytes;

use crate::{
    jid::Jid,
    node::{Node, NodeRef},
    signal::PreKeyBundle,
    stanza::{StanzaError, fixed, iq::prekeys, required_child, required_jid, required_text},
};

/// Most message ids in one receipt, in and out (spec 03 §5.5).
pub const MAX_IDS: usize = 256;

/// What a receipt says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReceiptKind {
    /// No type, or `inactive`: the message reached a device.
    Delivered,
    /// `sender`: another own device has the copy of our message.
    Sender,
    /// `read`.
    Read,
    /// `played`.
    Played,
    /// `read-self`: another own device read it without telling the peer.
    ReadSelf,
    /// `played-self`.
    PlayedSelf,
    /// `retry`: a device could not decrypt and asks for the message again.
    Retry,
    /// Any other, kept as it came.
    Other(String),
}

impl ReceiptKind {
    fn parse(kind: Option<&str>) -> Self {
        match kind {
            None | Some("inactive") => Self::Delivered,
            Some("sender") => Self::Sender,
            Some("read") => Self::Read,
            Some("played") => Self::Played,
            Some("read-self") => Self::ReadSelf,
            Some("played-self") => Self::PlayedSelf,
            Some("retry") => Self::Retry,
            Some(other) => Self::Other(other.to_owned()),
        }
    }
}

/// A receipt from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundReceipt {
    /// Chat or device it comes from.
    pub from: Jid,
    /// Group member it comes from.
    pub participant: Option<Jid>,
    /// The peer chat, for receipts of the own account.
    pub recipient: Option<Jid>,
    /// Ids of the messages, at most [`MAX_IDS`].
    pub ids: Vec<String>,
    /// What it says.
    pub kind: ReceiptKind,
    /// Unix seconds.
    pub timestamp: u64,
    /// Part of the backlog.
    pub offline: bool,
    /// What a device needs that asks for a message again.
    pub retry: Option<RetryRequest>,
}

/// The inside of a retry receipt of somebody else (spec 03 §5.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryRequest {
    /// How often it asked, from 1.
    pub count: u32,
    /// The registration id of the device.
    pub registration_id: u32,
    /// Its keys, when it brings them. Their signature is not checked yet.
    pub keys: Option<PreKeyBundle>,
    /// The device identity that a companion shows with its keys, not checked yet.
    pub device_identity: Option<Bytes>,
}

impl RetryRequest {
    /// Reads a retry receipt.
    ///
    /// # Errors
    /// [`StanzaError`] when count, registration id or a part of the keys is missing.
    fn parse(node: NodeRef<'_>) -> Result<Self, StanzaError> {
        let retry = required_child(node, "receipt", "retry")?;
        let count = retry.attr_u64("count").and_then(|count| u32::try_from(count).ok());
        let registration_id =
            u32::from_be_bytes(fixed(required_child(node, "receipt", "registration")?, "registration")?);
        let keys = node.child("keys").map(|keys| prekeys::keys_of(keys, registration_id)).transpose()?;
        let shown = node.child("keys").and_then(|keys| keys.child("device-identity"));
        let device_identity = shown.and_then(|identity| identity.bytes());
        Ok(Self { count: count.unwrap_or(1), registration_id, keys, device_identity })
    }
}

impl InboundReceipt {
    /// Reads a `<receipt>`. Ids above [`MAX_IDS`] are left out: no client sends them.
    ///
    /// # Errors
    /// [`StanzaError`] without id or sender, and for a retry receipt that lacks what one must have.
    pub fn parse(node: NodeRef<'_>) -> Result<Self, StanzaError> {
        let mut ids = vec![required_text(node, "receipt", "id")?];
        let items = node.child("list").into_iter().flat_map(|list| list.children());
        for item in items.filter(|item| item.tag() == "item").take(MAX_IDS - 1) {
            if let Some(id) = item.attr_str("id") {
                ids.push(id.into_owned());
            }
        }
        let kind = ReceiptKind::parse(node.attr_str("type").as_deref());
        let retry = match kind {
            ReceiptKind::Retry => Some(RetryRequest::parse(node)?),
            _ => None,
        };
        Ok(Self {
            from: required_jid(node, "receipt", "from")?,
            participant: node.attr_jid("participant"),
            recipient: node.attr_jid("recipient"),
            ids,
            kind,
            retry,
            timestamp: node.attr_u64("t").unwrap_or(0),
            offline: node.attr_str("offline").is_some(),
        })
    }
}

/// A delivery receipt in place of an ack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryReceipt<'a> {
    /// Message id.
    pub id: &'a str,
    /// The stanza's `from`, verbatim.
    pub to: &'a Jid,
    /// The stanza's `participant`, verbatim.
    pub participant: Option<&'a Jid>,
    /// The chat, for own messages from another device.
    pub recipient: Option<&'a Jid>,
    /// Absent, `inactive`, `sender`, `peer_msg`, `hist_sync`.
    pub kind: Option<&'static str>,
    /// `status` for the status.
    pub context: Option<&'static str>,
}

impl DeliveryReceipt<'_> {
    /// The stanza.
    pub fn to_node(&self) -> Node {
        Node::new("receipt")
            .attr("id", self.id)
            .attr("to", self.to)
            .attr_opt("type", self.kind)
            .attr_opt("participant", self.participant)
            .attr_opt("recipient", self.recipient)
            .attr_opt("context", self.context)
    }
}

/// Marks messages of one author in one chat as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadReceipt<'a> {
    /// The chat.
    pub chat: &'a Jid,
    /// The author, in groups.
    pub participant: Option<&'a Jid>,
    /// One to [`MAX_IDS`] message ids.
    pub ids: &'a [String],
    /// Unix seconds.
    pub timestamp: u64,
}

impl ReadReceipt<'_> {
    /// The stanza; `None` without ids.
    pub fn to_node(&self) -> Option<Node> {
        let (first, rest) = self.ids.split_first()?;
        let node = Node::new("receipt")
            .attr("id", first.as_str())
            .attr("type", "read")
            .attr("to", self.chat)
            .attr("t", self.timestamp)
            .attr_opt("participant", self.participant);
        if rest.is_empty() {
            return Some(node);
        }
        let items = rest.iter().map(|id| Node::new("item").attr("id", id.as_str()));
        Some(node.child(Node::new("list").children(items)))
    }
}

/// Asks the sending device to encrypt a message again.
#[derive(Clone, Debug)]
pub struct RetryReceipt<'a> {
    /// Id of the message that could not be decrypted.
    pub id: &'a str,
    /// The stanza's `from`, verbatim.
    pub to: &'a Jid,
    /// The stanza's `participant`, verbatim.
    pub participant: Option<&'a Jid>,
    /// The stanza's `recipient`, verbatim.
    pub recipient: Option<&'a Jid>,
    /// Whether the failed stanza was a peer message.
    pub peer: bool,
    /// The stanza's time, unix seconds.
    pub timestamp: u64,
    /// How often it is asked for now, from 1.
    pub count: u32,
    /// Why (spec 03 §5.4).
    pub reason: u8,
    /// Our registration id.
    pub registration_id: u32,
    /// Fresh keys for a new session, from the second request on.
    pub keys: Option<RetryKeys<'a>>,
}

/// The key bundle inside a retry receipt.
#[derive(Clone, Debug)]
pub struct RetryKeys<'a> {
    /// Our identity key.
    pub identity: [u8; 32],
    /// A one-time prekey that is never uploaded.
    pub pre_key: (u32, [u8; 32]),
    /// The signed prekey: id, key, signature.
    pub signed_pre_key: (u32, [u8; 32], [u8; 64]),
    /// The serialised `ADVSignedDeviceIdentity` of this device.
    pub device_identity: &'a Bytes,
}

impl RetryReceipt<'_> {
    /// The stanza.
    pub fn to_node(&self) -> Node {
        let retry = Node::new("retry")
            .attr("v", "1")
            .attr("id", self.id)
            .attr("t", self.timestamp)
            .attr("count", self.count)
            .attr("error", u32::from(self.reason));
        let registration = Node::new("registration").bytes(self.registration_id.to_be_bytes().to_vec());
        let keys = self.keys.as_ref().map(|keys| {
            let (pre_key_id, pre_key) = keys.pre_key;
            let (signed_id, signed_key, signature) = keys.signed_pre_key;
            Node::new("keys")
                .child(Node::new("type").bytes(vec![prekeys::KEY_TYPE]))
                .child(Node::new("identity").bytes(keys.identity.to_vec()))
                .child(prekeys::key_node(pre_key_id, &pre_key))
                .child(prekeys::signed_key_node(signed_id, &signed_key, &signature))
                .child(Node::new("device-identity").bytes(keys.device_identity.clone()))
        });
        Node::new("receipt")
            .attr("id", self.id)
            .attr("to", self.to)
            .attr("type", "retry")
            .attr_opt("participant", self.participant)
            .attr_opt("recipient", self.recipient)
            .attr_opt("category", self.peer.then_some("peer"))
            .child(retry)
            .child(registration)
            .children(keys)
    }
}
