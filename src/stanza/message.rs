//! `<message>` as it comes in (spec 03 §5.1), and as it is sent again to one device (§5.7).

use bytes::Bytes;

use crate::{
    jid::Jid,
    node::{Node, NodeRef},
    signal::{Ciphertext, CiphertextKind},
    stanza::{StanzaError, ack::AckTarget, required_jid, required_text},
};

/// Most `<enc>` elements of one stanza that are looked at: official clients send at most three.
const MAX_ENCS: usize = 16;

/// How an `<enc>` is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncKind {
    /// `pkmsg` or `msg`: pairwise.
    Pairwise(CiphertextKind),
    /// `skmsg`: by sender key.
    SenderKey,
    /// `msmsg`: by a message secret (bot replies).
    MessageSecret,
    /// Unknown to us.
    Unknown,
}

/// One `<enc>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enc {
    /// How it is encrypted.
    pub kind: EncKind,
    /// The `v` attribute: 2 = padded.
    pub version: u64,
    /// The ciphertext; shares the frame's buffer.
    pub bytes: Bytes,
    /// How often the sender sent it again.
    pub count: u32,
    /// `decrypt-fail="hide"`: a failure is not shown to the user.
    pub hide: bool,
}

/// A message stanza, with its chat and sender worked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundMessage {
    /// What an answer must echo.
    pub ack: AckTarget,
    /// The chat, without device.
    pub chat: Jid,
    /// The sending device.
    pub sender: Jid,
    /// Whether the sender is our own account.
    pub from_me: bool,
    /// The other identity (PN or LID) of the sender, without device.
    pub sender_alt: Option<Jid>,
    /// The other identity of the chat, when it is not the sender's.
    pub chat_alt: Option<Jid>,
    /// Unix seconds.
    pub timestamp: u64,
    /// Push name of the sender.
    pub push_name: Option<String>,
    /// Part of the backlog.
    pub offline: bool,
    /// `category="peer"`: housekeeping between own devices.
    pub peer: bool,
    /// The `edit` attribute.
    pub edit: Option<String>,
    /// The ciphertexts for this device.
    pub encs: Vec<Enc>,
    /// The type of an `<unavailable>` placeholder.
    pub unavailable: Option<String>,
    /// Whether there is a `<plaintext>` (newsletters).
    pub plaintext: bool,
}

/// Who we are, for telling our own messages.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// Own phone-number JID with device.
    pub pn: &'a Jid,
    /// Own LID with device.
    pub lid: Option<&'a Jid>,
}

impl Own<'_> {
    /// Whether a JID belongs to our account.
    pub fn is_account(&self, jid: &Jid) -> bool {
        jid.same_account(self.pn) || self.lid.is_some_and(|lid| jid.same_account(lid))
    }

    /// Whether a JID is this very device.
    pub fn is_device(&self, jid: &Jid) -> bool {
        self.is_account(jid) && jid.device() == self.pn.device()
    }
}

impl InboundMessage {
    /// The author, in chats where it is not the chat itself; without device.
    pub fn author(&self) -> Option<Jid> {
        (self.chat.is_group() || self.chat.is_broadcast()).then(|| self.sender.to_bare())
    }

    /// Reads a `<message>`.
    ///
    /// # Errors
    /// [`StanzaError::Attribute`] when id, sender or (in groups) participant is missing.
    pub fn parse(node: NodeRef<'_>, own: &Own<'_>) -> Result<Self, StanzaError> {
        let from = required_jid(node, "message", "from")?;
        let id = required_text(node, "message", "id")?;
        let participant = node.attr_jid("participant");
        let recipient = node.attr_jid("recipient");
        let jid = |name| node.attr_jid(name);

        let by_participant = from.is_group() || from.is_broadcast();
        let sender = if by_participant {
            participant.clone().ok_or(StanzaError::Attribute { tag: "message", name: "participant" })?
        } else {
            from.clone()
        };
        let from_me = own.is_account(&sender);
        let chat = match &recipient {
            Some(recipient) if from_me && !by_participant => recipient.to_account(),
            _ if by_participant => from.clone(),
            _ => from.to_account(),
        };
        let (pn, lid) = match by_participant {
            true => ("participant_pn", "participant_lid"),
            false => ("sender_pn", "sender_lid"),
        };
        let sender_alt = if sender.is_lid_family() { jid(pn) } else { jid(lid) };
        let chat_alt = match from_me && !by_participant {
            true if chat.is_lid_family() => jid("peer_recipient_pn").or_else(|| jid("recipient_pn")),
            true => jid("peer_recipient_lid").or_else(|| jid("recipient_lid")),
            false => None,
        };
        let ack = AckTarget {
            class: "message".to_owned(),
            id,
            from,
            participant,
            recipient,
            kind: node.attr_str("type").map(|kind| kind.into_owned()),
        };
        let text = |name| node.attr_str(name).map(|text| text.into_owned());
        Ok(Self {
            ack,
            chat,
            sender,
            from_me,
            sender_alt: sender_alt.map(|alt| alt.to_account()),
            chat_alt: chat_alt.map(|alt| alt.to_account()),
            timestamp: node.attr_u64("t").unwrap_or(0),
            push_name: text("notify").filter(|name| !name.is_empty()),
            offline: node.attr_str("offline").is_some(),
            peer: node.attr_str("category").as_deref() == Some("peer"),
            edit: text("edit"),
            encs: encs(node, own),
            unavailable: node.child("unavailable").map(|child| child.attr_str("type").unwrap_or_default().into_owned()),
            plaintext: node.child("plaintext").is_some(),
        })
    }
}

/// The ciphertexts for this device: direct children, or those addressed to it inside `<participants>`.
fn encs(node: NodeRef<'_>, own: &Own<'_>) -> Vec<Enc> {
    let addressed = node
        .child("participants")
        .into_iter()
        .flat_map(|participants| participants.children())
        .filter(|to| to.attr_jid("jid").is_some_and(|jid| own.is_device(&jid)))
        .flat_map(|to| to.children());
    let direct = node.children();
    direct.chain(addressed).filter(|child| child.tag() == "enc").take(MAX_ENCS).map(enc).collect()
}

fn enc(node: NodeRef<'_>) -> Enc {
    let kind = match node.attr_str("type").as_deref() {
        Some("pkmsg") => EncKind::Pairwise(CiphertextKind::PreKey),
        Some("msg") => EncKind::Pairwise(CiphertextKind::Whisper),
        Some("skmsg") => EncKind::SenderKey,
        Some("msmsg") => EncKind::MessageSecret,
        _ => EncKind::Unknown,
    };
    Enc {
        kind,
        version: node.attr_u64("v").unwrap_or(0),
        bytes: node.bytes().unwrap_or_default(),
        count: node.attr_u64("count").and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
        hide: node.attr_str("decrypt-fail").as_deref() == Some("hide"),
    }
}

/// A message that one device asked for again (spec 03 §5.7).
#[derive(Clone, Debug)]
pub struct Resend<'a> {
    /// The `from` of the retry receipt, verbatim.
    pub to: &'a Jid,
    /// Its `participant`, verbatim.
    pub participant: Option<&'a Jid>,
    /// Its `recipient`, verbatim.
    pub recipient: Option<&'a Jid>,
    /// Message id.
    pub id: &'a str,
    /// `text`, `media` …
    pub kind: &'static str,
    /// When it was sent, unix seconds.
    pub timestamp: Option<u64>,
    /// `edit` attribute.
    pub edit: Option<&'static str>,
    /// `lid` or `pn`, in groups.
    pub addressing_mode: Option<&'static str>,
    /// The chat is a group, the status or a broadcast list.
    pub is_shared: bool,
    /// `mediatype` of the `<enc>`.
    pub media_type: Option<&'static str>,
    /// Whether a failure to decrypt stays hidden.
    pub hide_failure: bool,
    /// Attributes of `<meta>`; without any there is none.
    pub meta: &'a [(&'static str, &'static str)],
    /// How often it was asked for.
    pub count: u32,
    /// For the device that asked.
    pub ciphertext: &'a Ciphertext,
    /// Our serialised `ADVSignedDeviceIdentity`; sent with a `pkmsg`.
    pub device_identity: &'a Bytes,
}

impl Resend<'_> {
    /// The stanza.
    pub fn to_node(&self) -> Node {
        let enc = Node::new("enc")
            .attr("v", "2")
            .attr("type", self.ciphertext.kind.as_str())
            .attr("count", self.count)
            .attr_opt("mediatype", self.media_type)
            .attr_opt("decrypt-fail", self.hide_failure.then_some("hide"))
            .bytes(self.ciphertext.bytes.clone());
        let has_pre_key = self.ciphertext.kind == CiphertextKind::PreKey;
        let meta = self.meta.iter().fold(Node::new("meta"), |meta, (name, value)| meta.attr(*name, *value));
        Node::new("message")
            .attr("to", self.to)
            .attr("id", self.id)
            .attr("type", self.kind)
            .attr_opt("t", self.timestamp)
            .attr_opt("device_fanout", (!self.is_shared).then_some("false"))
            .attr_opt("edit", self.edit)
            .attr_opt("addressing_mode", self.addressing_mode)
            .attr_opt("participant", self.participant)
            .attr_opt("recipient", self.recipient)
            .child(enc)
            .children(has_pre_key.then(|| Node::new("device-identity").bytes(self.device_identity.clone())))
            .children((!self.meta.is_empty()).then_some(meta))
    }
}
