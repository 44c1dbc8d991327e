//! Acknowledgements (spec 01 §6.11, 03 §5.3, §6.1): every stanza that is owed one gets exactly one.

use compact_str::CompactString;

use crate::{
    jid::Jid,
    node::{Node, NodeRef},
    stanza::{StanzaError, required_jid, required_text},
};

/// Why we refuse a stanza: the `error` attribute of a nack (spec 03 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Nack {
    /// Attributes cannot be parsed.
    Parsing = 487,
    /// The stanza or all its contents are unknown.
    UnrecognisedStanza = 488,
    /// The plaintext is not a `Message`.
    InvalidProtobuf = 491,
    /// The message secret that is needed is not known.
    MissingMessageSecret = 495,
    /// Something failed that should not.
    Unhandled = 500,
}

/// What an acknowledgement copies from the stanza it answers. Texts of up to 24 bytes, which is nearly all of them, take no
/// allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckTarget {
    /// Tag of the stanza.
    pub class: CompactString,
    /// Its id.
    pub id: CompactString,
    /// Its sender.
    pub from: Jid,
    /// Its participant, echoed when present.
    pub participant: Option<Jid>,
    /// Its recipient; the server needs it back.
    pub recipient: Option<Jid>,
    /// Its type.
    pub kind: Option<CompactString>,
}

impl AckTarget {
    /// Reads what is needed to acknowledge any stanza; `None` when it has no id or no sender (nothing is owed then).
    pub fn of(node: NodeRef<'_>) -> Option<Self> {
        Some(Self {
            class: node.tag().into(),
            id: node.attr_str("id")?.into(),
            from: node.attr_jid("from")?,
            participant: node.attr_jid("participant"),
            recipient: node.attr_jid("recipient"),
            kind: node.attr_str("type").map(CompactString::from),
        })
    }

    /// The plain acknowledgement. The type is echoed for every class but `message`.
    pub fn ack(&self) -> Node {
        let kind = self.kind.as_deref().filter(|_| self.class != "message");
        Node::new("ack")
            .attr("class", self.class.as_str())
            .attr("id", self.id.as_str())
            .attr("to", &self.from)
            .attr_opt("participant", self.participant.as_ref())
            .attr_opt("recipient", self.recipient.as_ref())
            .attr_opt("type", kind)
    }

    /// The refusal.
    pub fn nack(&self, reason: Nack) -> Node {
        self.ack().attr("error", reason as u32)
    }
}

/// The server's answer to a message we sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageAck {
    /// Id of our message.
    pub id: String,
    /// The chat it went to.
    pub from: Jid,
    /// Server time in unix seconds.
    pub timestamp: Option<u64>,
    /// Participant hash, when the server has one.
    pub phash: Option<String>,
    /// What we know of the user's LID is out of date.
    pub refresh_lid: bool,
    /// Set when the message was refused (spec 03 §6.1).
    pub error: Option<u32>,
}

impl MessageAck {
    /// Reads an `<ack class="message">`.
    ///
    /// # Errors
    /// [`StanzaError::Attribute`] without id or sender.
    pub fn parse(node: NodeRef<'_>) -> Result<Self, StanzaError> {
        Ok(Self {
            id: required_text(node, "ack", "id")?,
            from: required_jid(node, "ack", "from")?,
            timestamp: node.attr_u64("t"),
            phash: node.attr_str("phash").map(|text| text.into_owned()),
            refresh_lid: node.attr_str("refresh_lid").as_deref() == Some("true"),
            // A refusal stays one when its code cannot be read.
            error: node.attr_str("error").map(|code| code.parse().unwrap_or(u32::MAX)),
        })
    }
}
