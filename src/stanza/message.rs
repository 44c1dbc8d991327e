//! `<message>` as it comes in (spec 03 §5.1), and as it is sent again to one device (§5.7).

use bytes::Bytes;

use crate::{
    jid::Jid,
    node::{Node, NodeRef},
    signal::{Ciphertext, CiphertextKind},
    stanza::{MAX_ID, StanzaError, ack::AckTarget, required_id, required_jid},
};

/// Most `<enc>` elements of one stanza that are looked at: official clients send at most three.
const MAX_ENCS: usize = 16;
/// Most recipients of an own broadcast whose identities are taken from the stanza.
const MAX_AUDIENCE: usize = 256;

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

/// What a bot says about its reply: which message it answers, and which reply it goes on with (spec 03 §5.8). All of it is
/// optional; ids are at most [`MAX_ID`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BotInfo {
    /// Id of the message that it answers: `<meta target_id>`.
    pub target_id: Option<String>,
    /// Who wrote that message, without device.
    pub target_sender: Option<Jid>,
    /// Id of the first piece of the reply: `<bot edit_target_id>`.
    pub edit_target_id: Option<String>,
    /// The piece replaces an earlier one: `<bot edit>` is `inner` or `last`.
    pub is_edit: bool,
    /// No piece comes after it: `<bot edit>` is `last`.
    pub is_last: bool,
}

/// A message stanza, with its chat and sender worked out. The default is one of nobody, in which nothing stands.
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
    /// Both identities of those whom an own broadcast went to, as far as the stanza has them.
    pub audience: Vec<(Jid, Jid)>,
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
    /// The `<plaintext>` of a newsletter: a `Message`, without padding.
    pub plaintext: Option<Bytes>,
    /// The number that a newsletter gives the message.
    pub server_id: Option<String>,
    /// What a bot says about its reply.
    pub bot: BotInfo,
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

impl Default for InboundMessage {
    fn default() -> Self {
        let nobody = Jid::whatsapp_server();
        Self {
            ack: AckTarget {
                class: "message".to_owned(),
                id: String::new(),
                from: nobody.clone(),
                participant: None,
                recipient: None,
                kind: None,
            },
            chat: nobody.clone(),
            sender: nobody,
            from_me: false,
            sender_alt: None,
            chat_alt: None,
            audience: Vec::new(),
            timestamp: 0,
            push_name: None,
            offline: false,
            peer: false,
            edit: None,
            encs: Vec::new(),
            unavailable: None,
            plaintext: None,
            server_id: None,
            bot: BotInfo::default(),
        }
    }
}

impl InboundMessage {
    /// The author, in chats where it is not the chat itself; without device.
    pub fn author(&self) -> Option<Jid> {
        (self.is_by_sender_key() || self.is_of_bot_elsewhere()).then(|| self.sender.to_bare())
    }

    /// The chat is one in which messages are encrypted by sender key: a group, the status or a broadcast list.
    pub fn is_by_sender_key(&self) -> bool {
        self.chat.is_group() || self.chat.is_broadcast()
    }

    /// A bot wrote it in a chat with somebody else.
    pub fn is_of_bot_elsewhere(&self) -> bool {
        self.sender.is_bot() && !self.chat.same_account(&self.sender)
    }

    /// Reads a `<message>`.
    ///
    /// # Errors
    /// [`StanzaError::Attribute`] when id, sender or (in groups) participant is missing, or the id is too long.
    pub fn parse(node: NodeRef<'_>, own: &Own<'_>) -> Result<Self, StanzaError> {
        let from = required_jid(node, "message", "from")?;
        let id = required_id(node, "message")?;
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
        let meta = node.child("meta");
        // A bot may answer in the chat where it was asked, and still write from its own.
        let target_chat = meta.filter(|_| from.is_bot()).and_then(|meta| meta.attr_jid("target_chat_jid"));
        let chat = match (&recipient, target_chat) {
            (Some(recipient), _) if from_me && !by_participant => recipient.to_account(),
            _ if by_participant => from.to_bare(),
            (_, Some(chat)) => chat.to_account(),
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
            plaintext: node.child("plaintext").map(|child| child.bytes().unwrap_or_default()),
            server_id: text("server_id").filter(|number| number.len() <= MAX_ID),
            audience: if from_me && by_participant { audience(node) } else { Vec::new() },
            bot: bot_info(meta, node.child("bot")),
        })
    }
}

/// The identities in `<participants><to jid peer_recipient_pn|peer_recipient_lid/>` of an own broadcast.
fn audience(node: NodeRef<'_>) -> Vec<(Jid, Jid)> {
    let recipients = node.child("participants").into_iter().flat_map(|participants| participants.children());
    let pairs = recipients.filter_map(|to| {
        let other = to.attr_jid("peer_recipient_pn").or_else(|| to.attr_jid("peer_recipient_lid"))?;
        Some((to.attr_jid("jid")?.to_account(), other.to_account()))
    });
    pairs.take(MAX_AUDIENCE).collect()
}

fn bot_info(meta: Option<NodeRef<'_>>, bot: Option<NodeRef<'_>>) -> BotInfo {
    let id = |node: Option<NodeRef<'_>>, name| {
        let id = node?.attr_str(name)?.into_owned();
        (!id.is_empty() && id.len() <= MAX_ID).then_some(id)
    };
    let edit = bot.and_then(|bot| bot.attr_str("edit"));
    BotInfo {
        target_id: id(meta, "target_id"),
        target_sender: meta.and_then(|meta| meta.attr_jid("target_sender_jid")).map(|jid| jid.to_account()),
        edit_target_id: id(bot, "edit_target_id"),
        is_edit: matches!(edit.as_deref(), Some("inner" | "last")),
        is_last: edit.as_deref() == Some("last"),
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
