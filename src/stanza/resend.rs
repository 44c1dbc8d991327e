//! `<message>` as it is sent again to one device (spec 03 §5.7).

use bytes::Bytes;

use crate::{
    jid::Jid,
    node::Node,
    signal::{Ciphertext, CiphertextKind},
};

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
