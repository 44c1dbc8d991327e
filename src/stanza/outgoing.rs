//! `<message>` as it goes out (spec 03 §4.5, spec 06 §1.1): to a user, to all who have our sender key, to our own phone.
//!
//! They are written straight into the frame from borrowed parts: one to a thousand devices is half a megabyte.

use bytes::Bytes;

use crate::{
    jid::Jid,
    node::{Node, NodeError, NodeWriter},
    signal::{Ciphertext, CiphertextKind},
};

/// What every `<message>` says about its content.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The chat.
    pub to: &'a Jid,
    /// Message id.
    pub id: &'a str,
    /// `text`, `media` …
    pub kind: &'static str,
    /// `edit` attribute.
    pub edit: Option<&'static str>,
    /// `mediatype` of the `<enc>` with the content.
    pub media_type: Option<&'static str>,
    /// Whether a failure to decrypt stays hidden.
    pub hide_failure: bool,
    /// Attributes of `<meta>`; without any there is none.
    pub meta: &'a [(&'static str, &'static str)],
    /// Our serialised `ADVSignedDeviceIdentity`; sent when a ciphertext is a `pkmsg`.
    pub device_identity: &'a Bytes,
    /// The reporting token, if the message has one (spec 03 §4.8).
    pub report: Option<[u8; 16]>,
    /// One more child, at the end.
    pub token: Option<&'a Node>,
}

/// A message to one user: the recipient's devices and our own other ones. Also a reaction to a status, which goes to its
/// author.
#[derive(Clone, Debug)]
pub struct UserMessage<'a> {
    /// A bare user, and all device JIDs are in its namespace; or the status.
    pub head: Head<'a>,
    /// The recipient's phone-number JID, when `to` is a LID.
    pub recipient_pn: Option<&'a Jid>,
    /// One ciphertext per device.
    pub devices: &'a [(Jid, Ciphertext)],
}

/// A message to all who have our sender key of a group or of the status, with the key for those who have not.
#[derive(Clone, Debug)]
pub struct SenderKeyMessage<'a> {
    /// A group, or the status.
    pub head: Head<'a>,
    /// Participant hash, in groups.
    pub phash: Option<&'a str>,
    /// `lid` or `pn`, in groups.
    pub addressing_mode: Option<&'static str>,
    /// The key, for each device that needs it.
    pub distribution: &'a [(Jid, Ciphertext)],
    /// Viewers of a status none of whose devices needs the key.
    pub viewers: &'a [Jid],
    /// The content.
    pub body: &'a [u8],
}

/// A message to our own phone, which is not shown to anybody.
#[derive(Clone, Debug)]
pub struct PeerMessage<'a> {
    /// The own account, without device.
    pub to: &'a Jid,
    /// Message id.
    pub id: &'a str,
    /// `push_priority`: `high` or `high_force`.
    pub push_priority: &'static str,
    /// `privacy_sensitive="1"`.
    pub privacy_sensitive: bool,
    /// For device 0.
    pub ciphertext: &'a Ciphertext,
    /// Our serialised `ADVSignedDeviceIdentity`; sent with a `pkmsg`.
    pub device_identity: &'a Bytes,
}

/// What a stanza has beside ciphertexts and JIDs, about.
const REST: usize = 256;
/// The most that a `<to>` with its `<enc>` has beside the ciphertext, about.
const PER_DEVICE: usize = 48;

impl UserMessage<'_> {
    /// The frame.
    ///
    /// # Errors
    /// [`NodeError`] for what cannot be encoded.
    pub fn encode(&self) -> Result<Vec<u8>, NodeError> {
        let head = &self.head;
        let mut out = Vec::with_capacity(head.room(self.devices));
        NodeWriter::frame(&mut out, "message", |message| {
            head.attrs(message);
            message.attr_opt("peer_recipient_pn", self.recipient_pn);
            message.child("participants", |participants| head.targets(participants, self.devices, head.media_type));
            head.rest(message, self.devices);
        })?;
        Ok(out)
    }
}

impl SenderKeyMessage<'_> {
    /// The frame.
    ///
    /// # Errors
    /// [`NodeError`] for what cannot be encoded.
    pub fn encode(&self) -> Result<Vec<u8>, NodeError> {
        let head = &self.head;
        let viewers = self.viewers.len().saturating_mul(PER_DEVICE);
        let room = head.room(self.distribution).saturating_add(viewers).saturating_add(self.body.len());
        let mut out = Vec::with_capacity(room);
        NodeWriter::frame(&mut out, "message", |message| {
            head.attrs(message);
            message.attr_opt("phash", self.phash).attr_opt("addressing_mode", self.addressing_mode);
            if !self.distribution.is_empty() || !self.viewers.is_empty() {
                message.child("participants", |participants| {
                    head.targets(participants, self.distribution, None);
                    for viewer in self.viewers {
                        participants.child("to", |to| {
                            to.attr("jid", viewer);
                        });
                    }
                });
            }
            message.child("enc", |enc| head.enc(enc, "skmsg", head.media_type, self.body));
            head.rest(message, self.distribution);
        })?;
        Ok(out)
    }
}

impl PeerMessage<'_> {
    /// The frame.
    ///
    /// # Errors
    /// [`NodeError`] for what cannot be encoded.
    pub fn encode(&self) -> Result<Vec<u8>, NodeError> {
        let (ciphertext, identity) = (self.ciphertext, self.device_identity);
        let room = ciphertext.bytes.len().saturating_add(identity.len()).saturating_add(REST);
        let mut out = Vec::with_capacity(room);
        NodeWriter::frame(&mut out, "message", |message| {
            message
                .attr("to", self.to)
                .attr("id", self.id)
                .attr("type", "text")
                .attr("category", "peer")
                .attr("push_priority", self.push_priority)
                .attr_opt("privacy_sensitive", self.privacy_sensitive.then_some("1"));
            message.child("meta", |meta| {
                meta.attr("appdata", "default");
            });
            message.child("enc", |enc| {
                enc.attr("v", "2").attr("type", ciphertext.kind.as_str());
                enc.bytes(&ciphertext.bytes);
            });
            if ciphertext.kind == CiphertextKind::PreKey {
                message.child("device-identity", |node| node.bytes(identity));
            }
        })?;
        Ok(out)
    }
}

impl Head<'_> {
    /// A buffer that is long enough, about.
    fn room(&self, devices: &[(Jid, Ciphertext)]) -> usize {
        let bytes = devices.iter().map(|(_, ciphertext)| ciphertext.bytes.len().saturating_add(PER_DEVICE));
        bytes.fold(self.device_identity.len().saturating_add(REST), usize::saturating_add)
    }

    fn attrs(&self, message: &mut NodeWriter<'_>) {
        message.attr("to", self.to).attr("id", self.id).attr("type", self.kind).attr_opt("edit", self.edit);
    }

    fn targets(
        &self,
        participants: &mut NodeWriter<'_>,
        devices: &[(Jid, Ciphertext)],
        media_type: Option<&'static str>,
    ) {
        for (jid, ciphertext) in devices {
            participants.child("to", |to| {
                to.attr("jid", jid);
                to.child("enc", |enc| self.enc(enc, ciphertext.kind.as_str(), media_type, &ciphertext.bytes));
            });
        }
    }

    fn enc(&self, enc: &mut NodeWriter<'_>, kind: &str, media_type: Option<&'static str>, bytes: &[u8]) {
        enc.attr("v", "2").attr("type", kind).attr_opt("mediatype", media_type);
        enc.attr_opt("decrypt-fail", self.hide_failure.then_some("hide"));
        enc.bytes(bytes);
    }

    fn rest(&self, message: &mut NodeWriter<'_>, devices: &[(Jid, Ciphertext)]) {
        if devices.iter().any(|(_, ciphertext)| ciphertext.kind == CiphertextKind::PreKey) {
            message.child("device-identity", |node| node.bytes(self.device_identity));
        }
        if !self.meta.is_empty() {
            message.child("meta", |meta| {
                for (name, value) in self.meta {
                    meta.attr(name, *value);
                }
            });
        }
        if let Some(report) = &self.report {
            message.child("reporting", |reporting| {
                reporting.child("reporting_token", |token| token.attr("v", "2").bytes(report));
            });
        }
        if let Some(token) = self.token {
            message.node(token);
        }
    }
}
