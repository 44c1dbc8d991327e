//! Receipts (spec 03 §5.5, §5.6, §6.2, §6.3): delivery and read marks, and requests to send again.

use bytes::Bytes;

use crate::{
    jid::Jid,
    node::{Node, NodeRef},
    signal::PreKeyBundle,
    stanza::{
        MAX_ID, StanzaError, fixed, iq::prekeys, other_identity, people, required_child, required_id, required_jid,
    },
};

/// Most message ids in one receipt, in and out (spec 03 §5.5).
pub const MAX_IDS: usize = 256;
/// Most marks taken from one receipt about several members of a group: the largest groups have 1,024.
pub const MAX_MARKS: usize = 2_048;

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

/// What one user did with one message, in a receipt that is about many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The message.
    pub id: String,
    /// The user, or one of its devices.
    pub user: Jid,
    /// Delivered, read or played.
    pub kind: ReceiptKind,
    /// Unix seconds.
    pub timestamp: u64,
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
    /// What several members of a group did, at most [`MAX_MARKS`]; then `ids` and `kind` say nothing.
    pub marks: Vec<Mark>,
    /// Both identities of those in the receipt, as far as it has them; without device.
    pub people: Vec<(Jid, Jid)>,
    /// The device cannot show the message: it is no more than sent.
    pub incapable: bool,
    /// What a device needs that asks for a message again.
    pub retry: Option<RetryRequest>,
}

/// The inside of a retry receipt of somebody else (spec 03 §5.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryRequest {
    /// How often it asked, from 1.
    pub count: u32,
    /// The registration id of the device. Some have 0, which most implementations take for none.
    pub registration_id: u32,
    /// Its keys, when it brings them and has a registration id other than 0. Their signature is not checked yet.
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
        let keys_node = node.child("keys").filter(|_| registration_id != 0);
        let keys = keys_node.map(|keys| prekeys::keys_of(keys, registration_id)).transpose()?;
        let shown = keys_node.and_then(|keys| keys.child("device-identity"));
        let device_identity = shown.and_then(|identity| identity.bytes());
        Ok(Self { count: count.unwrap_or(1), registration_id, keys, device_identity })
    }
}

impl InboundReceipt {
    /// Reads a `<receipt>`. Ids above [`MAX_IDS`] are left out, and those above [`MAX_ID`] bytes: no client sends them.
    ///
    /// # Errors
    /// [`StanzaError`] without id or sender, and for a retry receipt that lacks what one must have.
    pub fn parse(node: NodeRef<'_>) -> Result<Self, StanzaError> {
        let mut ids = vec![required_id(node, "receipt")?];
        let items = node.child("list").into_iter().flat_map(|list| list.children());
        for item in items.filter(|item| item.tag() == "item").take(MAX_IDS - 1) {
            ids.extend(message_id(item, "id"));
        }
        let kind = ReceiptKind::parse(node.attr_str("type").as_deref());
        let retry = match kind {
            ReceiptKind::Retry => Some(RetryRequest::parse(node)?),
            _ => None,
        };
        let (from, participant, recipient) =
            (required_jid(node, "receipt", "from")?, node.attr_jid("participant"), node.attr_jid("recipient"));
        let timestamp = node.attr_u64("t").unwrap_or(0);
        let mut people = people(node);
        let marks = marks(node, &kind, timestamp, &mut people);
        let error = node.child("error").and_then(|error| error.attr_str("type"));
        let incapable = error.as_deref() == Some("feature-incapable");
        let offline = node.attr_str("offline").is_some();
        Ok(Self { from, participant, recipient, ids, kind, timestamp, offline, marks, people, incapable, retry })
    }
}

/// The marks in `<participants key=ID><user jid [t] [type]/></participants>`, one such element for each message.
fn marks(node: NodeRef<'_>, kind: &ReceiptKind, timestamp: u64, people: &mut Vec<(Jid, Jid)>) -> Vec<Mark> {
    let mut marks = Vec::new();
    for message in node.children_named("participants") {
        let Some(id) = message_id(message, "key").or_else(|| message_id(message, "message_id")) else { continue };
        for user in message.children_named("user") {
            let Some(jid) = user.attr_jid("jid") else { continue };
            if marks.len() >= MAX_MARKS {
                return marks;
            }
            people.extend(other_identity(user, &jid, &["participant_pn", "participant_lid"]));
            let kind = user.attr_str("type").map_or_else(|| kind.clone(), |kind| ReceiptKind::parse(Some(&kind)));
            let timestamp = user.attr_u64("t").unwrap_or(timestamp);
            marks.push(Mark { id: id.clone(), user: jid, kind, timestamp });
        }
    }
    marks
}

fn message_id(node: NodeRef<'_>, name: &str) -> Option<String> {
    let id = node.attr_str(name)?;
    (!id.is_empty() && id.len() <= MAX_ID).then(|| id.into_owned())
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

/// Delivery receipts that go to one place, as one stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryReceipts {
    /// Where to, and what they say.
    pub head: ReceiptHead,
    /// One to [`MAX_IDS`] ids.
    ids: Vec<String>,
}

/// What delivery receipts share that may be one stanza.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReceiptHead {
    to: Jid,
    participant: Option<Jid>,
    recipient: Option<Jid>,
    kind: Option<&'static str>,
    context: Option<&'static str>,
}

impl From<&DeliveryReceipt<'_>> for DeliveryReceipts {
    fn from(receipt: &DeliveryReceipt<'_>) -> Self {
        let head = ReceiptHead {
            to: receipt.to.clone(),
            participant: receipt.participant.cloned(),
            recipient: receipt.recipient.cloned(),
            kind: receipt.kind,
            context: receipt.context,
        };
        Self { head, ids: vec![receipt.id.to_owned()] }
    }
}

impl DeliveryReceipts {
    /// Takes the ids of another one of the same head over; false, and nothing is taken, when there is no room.
    pub fn join(&mut self, other: &mut Self) -> bool {
        let fits = self.head == other.head && self.ids.len().saturating_add(other.ids.len()) <= MAX_IDS;
        if fits {
            self.ids.append(&mut other.ids);
        }
        fits
    }

    /// The stanza; `now` is in unix seconds, and shown with several ids.
    pub fn to_node(&self, now: u64) -> Node {
        let ReceiptHead { to, participant, recipient, kind, context } = &self.head;
        let (first, rest) = self.ids.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
        let (participant, recipient) = (participant.as_ref(), recipient.as_ref());
        let node = DeliveryReceipt { id: first, to, participant, recipient, kind: *kind, context: *context }.to_node();
        if rest.is_empty() {
            return node;
        }
        let items = rest.iter().map(|id| Node::new("item").attr("id", id.as_str()));
        node.attr("t", now).child(Node::new("list").children(items))
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
