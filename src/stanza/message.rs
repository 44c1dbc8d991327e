//! `<message>` as it comes in (spec 03 §5.1).

use bytes::Bytes;
use compact_str::CompactString;
use smallvec::SmallVec;

use crate::{
    jid::Jid,
    node::{NodeRef, Value},
    signal::CiphertextKind,
    stanza::{MAX_ID, StanzaError, ack::AckTarget},
};

/// Its tag.
const MESSAGE: CompactString = CompactString::const_new("message");
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
    pub push_name: Option<CompactString>,
    /// Part of the backlog.
    pub offline: bool,
    /// `category="peer"`: housekeeping between own devices.
    pub peer: bool,
    /// The `edit` attribute.
    pub edit: Option<String>,
    /// The ciphertexts for this device; nearly always one.
    pub encs: SmallVec<[Enc; 1]>,
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
                class: MESSAGE,
                id: CompactString::default(),
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
            encs: SmallVec::new(),
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
        let (attrs, children) = (Attributes::of(node), Parts::of(node));
        let from = jid(attrs.from).ok_or(StanzaError::Attribute { tag: "message", name: "from" })?;
        let id = attrs.id.map(Value::as_text).filter(|id| !id.is_empty() && id.len() <= MAX_ID);
        let id = CompactString::from(id.ok_or(StanzaError::Attribute { tag: "message", name: "id" })?);
        let (participant, recipient) = (jid(attrs.participant), jid(attrs.recipient));

        let by_participant = from.is_group() || from.is_broadcast();
        let sender = if by_participant {
            participant.clone().ok_or(StanzaError::Attribute { tag: "message", name: "participant" })?
        } else {
            from.clone()
        };
        let from_me = own.is_account(&sender);
        // A bot may answer in the chat where it was asked, and still write from its own.
        let target_chat = children.meta.filter(|_| from.is_bot()).and_then(|meta| meta.attr_jid("target_chat_jid"));
        let chat = match (&recipient, target_chat) {
            (Some(recipient), _) if from_me && !by_participant => recipient.to_account(),
            _ if by_participant => from.to_bare(),
            (_, Some(chat)) => chat.to_account(),
            _ => from.to_account(),
        };
        let (pn, lid) = match by_participant {
            true => (attrs.participant_pn, attrs.participant_lid),
            false => (attrs.sender_pn, attrs.sender_lid),
        };
        let sender_alt = if sender.is_lid_family() { jid(pn) } else { jid(lid) };
        let chat_alt = match from_me && !by_participant {
            true if chat.is_lid_family() => jid(attrs.peer_recipient_pn).or_else(|| jid(attrs.recipient_pn)),
            true => jid(attrs.peer_recipient_lid).or_else(|| jid(attrs.recipient_lid)),
            false => None,
        };
        let text = |value: Option<Value<'_>>| value.map(|value| value.as_text().into_owned());
        let compact = |value: Option<Value<'_>>| value.map(|value| CompactString::from(value.as_text()));
        Ok(Self {
            ack: AckTarget { class: MESSAGE, id, from, participant, recipient, kind: compact(attrs.kind) },
            chat,
            sender,
            from_me,
            sender_alt: sender_alt.map(|alt| alt.to_account()),
            chat_alt: chat_alt.map(|alt| alt.to_account()),
            timestamp: attrs.timestamp.and_then(Value::as_u64).unwrap_or(0),
            push_name: compact(attrs.notify).filter(|name| !name.is_empty()),
            offline: attrs.offline.is_some(),
            peer: attrs.category.is_some_and(|category| category == "peer"),
            edit: text(attrs.edit),
            encs: encs(node, children.participants, own),
            unavailable: children.unavailable.map(|child| child.attr_str("type").unwrap_or_default().into_owned()),
            plaintext: children.plaintext.map(|child| child.bytes().unwrap_or_default()),
            server_id: text(attrs.server_id).filter(|number| number.len() <= MAX_ID),
            audience: if from_me && by_participant { audience(children.participants) } else { Vec::new() },
            bot: bot_info(children.meta, children.bot),
        })
    }
}

/// The attributes that matter, found in one pass. Of duplicates the last one counts.
#[derive(Default)]
struct Attributes<'a> {
    from: Option<Value<'a>>,
    id: Option<Value<'a>>,
    participant: Option<Value<'a>>,
    recipient: Option<Value<'a>>,
    kind: Option<Value<'a>>,
    timestamp: Option<Value<'a>>,
    notify: Option<Value<'a>>,
    offline: Option<Value<'a>>,
    category: Option<Value<'a>>,
    edit: Option<Value<'a>>,
    server_id: Option<Value<'a>>,
    participant_pn: Option<Value<'a>>,
    participant_lid: Option<Value<'a>>,
    sender_pn: Option<Value<'a>>,
    sender_lid: Option<Value<'a>>,
    recipient_pn: Option<Value<'a>>,
    recipient_lid: Option<Value<'a>>,
    peer_recipient_pn: Option<Value<'a>>,
    peer_recipient_lid: Option<Value<'a>>,
}

impl<'a> Attributes<'a> {
    fn of(node: NodeRef<'a>) -> Self {
        let mut found = Self::default();
        for (key, value) in node.attrs() {
            let place = match key {
                "from" => &mut found.from,
                "id" => &mut found.id,
                "participant" => &mut found.participant,
                "recipient" => &mut found.recipient,
                "type" => &mut found.kind,
                "t" => &mut found.timestamp,
                "notify" => &mut found.notify,
                "offline" => &mut found.offline,
                "category" => &mut found.category,
                "edit" => &mut found.edit,
                "server_id" => &mut found.server_id,
                "participant_pn" => &mut found.participant_pn,
                "participant_lid" => &mut found.participant_lid,
                "sender_pn" => &mut found.sender_pn,
                "sender_lid" => &mut found.sender_lid,
                "recipient_pn" => &mut found.recipient_pn,
                "recipient_lid" => &mut found.recipient_lid,
                "peer_recipient_pn" => &mut found.peer_recipient_pn,
                "peer_recipient_lid" => &mut found.peer_recipient_lid,
                _ => continue,
            };
            *place = Some(value);
        }
        found
    }
}

/// The children that matter beside `<enc>`; the first of each kind.
#[derive(Default)]
struct Parts<'a> {
    participants: Option<NodeRef<'a>>,
    meta: Option<NodeRef<'a>>,
    bot: Option<NodeRef<'a>>,
    unavailable: Option<NodeRef<'a>>,
    plaintext: Option<NodeRef<'a>>,
}

impl<'a> Parts<'a> {
    fn of(node: NodeRef<'a>) -> Self {
        let mut found = Self::default();
        for child in node.children() {
            let place = match child.tag() {
                "participants" => &mut found.participants,
                "meta" => &mut found.meta,
                "bot" => &mut found.bot,
                "unavailable" => &mut found.unavailable,
                "plaintext" => &mut found.plaintext,
                _ => continue,
            };
            place.get_or_insert(child);
        }
        found
    }
}

/// As [`NodeRef::attr_jid`] reads it.
fn jid(value: Option<Value<'_>>) -> Option<Jid> {
    value.and_then(Value::to_jid).filter(Jid::has_text_form)
}

/// The identities in `<participants><to jid peer_recipient_pn|peer_recipient_lid/>` of an own broadcast.
fn audience(participants: Option<NodeRef<'_>>) -> Vec<(Jid, Jid)> {
    let recipients = participants.into_iter().flat_map(|participants| participants.children());
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
fn encs(node: NodeRef<'_>, participants: Option<NodeRef<'_>>, own: &Own<'_>) -> SmallVec<[Enc; 1]> {
    let addressed = participants
        .into_iter()
        .flat_map(|participants| participants.children())
        .filter(|to| to.attr_jid("jid").is_some_and(|jid| own.is_device(&jid)))
        .flat_map(|to| to.children());
    let all = node.children().chain(addressed).filter(|child| child.tag() == "enc");
    let mut encs = SmallVec::new();
    for child in all.take(MAX_ENCS) {
        encs.push(enc(child));
    }
    encs
}

fn enc(node: NodeRef<'_>) -> Enc {
    let mut enc =
        Enc { kind: EncKind::Unknown, version: 0, bytes: node.bytes().unwrap_or_default(), count: 0, hide: false };
    for (key, value) in node.attrs() {
        match key {
            "type" => enc.kind = enc_kind(&value.as_text()),
            "v" => enc.version = value.as_u64().unwrap_or(0),
            "count" => enc.count = value.as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
            "decrypt-fail" => enc.hide = value == "hide",
            _ => {}
        }
    }
    enc
}

fn enc_kind(kind: &str) -> EncKind {
    match kind {
        "pkmsg" => EncKind::Pairwise(CiphertextKind::PreKey),
        "msg" => EncKind::Pairwise(CiphertextKind::Whisper),
        "skmsg" => EncKind::SenderKey,
        "msmsg" => EncKind::MessageSecret,
        _ => EncKind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Decoder, NodeWriter};

    #[test]
    fn of_duplicates_the_last_attribute_and_the_first_child_count() {
        let (own, other) = (Jid::lid("200").with_device(5), Jid::lid("200").with_device(6));
        let enc = |node: &mut NodeWriter<'_>, kind: &str, byte: u8| {
            node.child("enc", |enc| {
                enc.attr("type", "msg").attr("v", "1").attr("v", "2").attr("type", kind).bytes(&[byte])
            });
        };
        let mut frame = Vec::new();
        let written = NodeWriter::frame(&mut frame, "message", |message| {
            message.attr("id", "first").attr("from", &Jid::lid("1")).attr("notify", "first").attr("t", "1");
            message
                .attr("from", &Jid::lid("100").with_device(3))
                .attr("t", "x")
                .attr("notify", "last")
                .attr("id", "last");
            message.child("participants", |participants| {
                for (jid, byte) in [(&other, 3), (&own, 4)] {
                    participants.child("to", |to| {
                        to.attr("jid", jid);
                        enc(to, "pkmsg", byte);
                    });
                }
            });
            message.child("unavailable", |node| {
                node.attr("type", "view_once");
            });
            message.child("unavailable", |node| {
                node.attr("type", "hosted");
            });
            enc(message, "msg", 1);
            enc(message, "skmsg", 2);
        });
        written.unwrap();
        let mut decoder = Decoder::default();
        let node = decoder.decode(frame.into()).unwrap();
        let found = InboundMessage::parse(node, &Own { pn: &own, lid: None }).unwrap();
        assert_eq!((found.ack.id.as_str(), found.push_name.as_deref(), found.timestamp), ("last", Some("last"), 0));
        assert_eq!((found.sender, found.chat), (Jid::lid("100").with_device(3), Jid::lid("100")));
        assert_eq!(found.unavailable.as_deref(), Some("view_once"));
        let encs: Vec<_> = found.encs.iter().map(|enc| (enc.kind.clone(), enc.version, enc.bytes[0])).collect();
        let (pairwise, pre_key) = (CiphertextKind::Whisper, CiphertextKind::PreKey);
        let expected =
            [(EncKind::Pairwise(pairwise), 2, 1), (EncKind::SenderKey, 2, 2), (EncKind::Pairwise(pre_key), 2, 4)];
        assert_eq!(encs, expected);
    }
}
