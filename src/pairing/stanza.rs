//! The `md` iqs of linking (spec 01 §4): refs and the account's promise come in, three answers go out.
//!
//! ```text
//! in    <iq from=SERVER type="set" id xmlns="md"><pair-device><ref/>…</pair-device></iq>
//!       <iq from=SERVER type="set" id xmlns="md" t><pair-success>…</pair-success></iq>
//! out   <iq to=SERVER type="result" id/>
//!       <iq to=SERVER type="result" id><pair-device-sign><device-identity key-index/></pair-device-sign></iq>
//!       <iq to=SERVER type="error" id><error code text/></iq>
//! ```

use bytes::Bytes;

use super::{
    PairError,
    adv::{MAX_IDENTITY_LEN, SignedIdentity},
    limit, qr,
};
use crate::{
    jid::Jid,
    node::{Node, NodeRef},
    proto::{Message as _, companion::ClientPairingProps},
};

/// Longest platform word or business name that is accepted, in bytes.
pub const MAX_NAME_LEN: usize = 1_024;

/// An iq of the server that belongs to linking.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PairIq {
    /// Refs to show as QR codes.
    Device(PairDevice),
    /// The phone scanned a code.
    Success(Box<PairSuccess>),
}

/// `pair-device`: refs to show as QR codes, one after the other. Answer with [`result`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PairDevice {
    /// Id of the iq.
    pub id: String,
    /// 1 to [`qr::MAX_REFS`] refs, checked to be usable in a QR text.
    pub refs: Vec<String>,
}

/// `pair-success`: the phone scanned a code and vouches for us. Verify `identity` with [`super::adv::verify`]; answer with
/// [`sign`] or [`error`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PairSuccess {
    /// Id of the iq.
    pub id: String,
    /// The container with the signed device identity, at most [`MAX_IDENTITY_LEN`] bytes, not verified yet.
    pub identity: Bytes,
    /// Our phone-number JID with the device number that we were given (not 0).
    pub jid: Jid,
    /// Our LID with the same device number.
    pub lid: Option<Jid>,
    /// What the phone is: `android`, `iphone`, `smba`, `smbi` …
    pub platform: Option<String>,
    /// Name of a business account.
    pub business_name: Option<String>,
    /// The server's clock, unix seconds.
    pub server_time: Option<u64>,
    /// Whether the phone addresses chats by LID, if it says.
    pub lid_migrated: Option<bool>,
}

/// Reads an iq of linking. `None`: the node is something else.
///
/// # Errors
/// [`PairError::Missing`], [`PairError::Malformed`] or [`PairError::TooLong`]: the iq is one of linking but cannot be used.
pub fn parse(node: NodeRef<'_>) -> Result<Option<PairIq>, PairError> {
    if !node.is("iq") || node.attr("type").is_none_or(|kind| kind != "set") {
        return Ok(None);
    }
    if node.child("pair-device").is_some() {
        return PairDevice::parse(node).map(|device| Some(PairIq::Device(device)));
    }
    if node.child("pair-success").is_some() {
        return PairSuccess::parse(node).map(|success| Some(PairIq::Success(Box::new(success))));
    }
    Ok(None)
}

impl PairDevice {
    /// Reads the iq around a `pair-device`.
    ///
    /// # Errors
    /// [`PairError::Missing`], [`PairError::Malformed`] or [`PairError::TooLong`].
    pub fn parse(node: NodeRef<'_>) -> Result<Self, PairError> {
        let device = node.child("pair-device").ok_or(PairError::Missing("pair-device"))?;
        Ok(Self { id: server_iq(&node)?, refs: refs(&device)? })
    }
}

impl PairSuccess {
    /// Reads the iq around a `pair-success`.
    ///
    /// # Errors
    /// [`PairError::Missing`], [`PairError::Malformed`] or [`PairError::TooLong`].
    pub fn parse(node: NodeRef<'_>) -> Result<Self, PairError> {
        let success = node.child("pair-success").ok_or(PairError::Missing("pair-success"))?;
        pair_success(server_iq(&node)?, node.attr_u64("t"), &success)
    }
}

/// The answer to `pair-device`.
pub fn result(id: &str) -> Node {
    answer(id, "result")
}

/// The answer to a verified `pair-success`. Send it after the identity is durable (spec 01 §4.5).
pub fn sign(id: &str, identity: &SignedIdentity) -> Node {
    let device_identity =
        Node::new("device-identity").attr("key-index", identity.key_index()).bytes(identity.reply_bytes());
    answer(id, "result").child(Node::new("pair-device-sign").child(device_identity))
}

/// The answer to a `pair-success` that failed. Close the connection after it and stay unlinked.
pub fn error(id: &str, reason: &PairError) -> Node {
    let error = Node::new("error").attr("code", u32::from(reason.code())).attr("text", reason.text());
    answer(id, "error").child(error)
}

/// The id of a pairing iq, for an error answer when [`parse`] failed.
pub fn iq_id(node: NodeRef<'_>) -> Option<String> {
    name("id of the pairing iq", node.attr_str("id").as_deref()).ok().flatten()
}

impl std::fmt::Debug for PairDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PairDevice").field("id", &self.id).field("refs", &self.refs.len()).finish()
    }
}

impl std::fmt::Debug for PairSuccess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PairSuccess")
            .field("id", &self.id)
            .field("jid", &self.jid.redacted())
            .field("lid", &self.lid.as_ref().map(Jid::redacted))
            .field("platform", &self.platform)
            .field("server_time", &self.server_time)
            .field("lid_migrated", &self.lid_migrated)
            .finish_non_exhaustive()
    }
}

fn answer(id: &str, kind: &'static str) -> Node {
    Node::new("iq").attr("to", Jid::whatsapp_server()).attr("type", kind).attr("id", id)
}

/// Only the server pairs. Gives the id of the iq.
fn server_iq(node: &NodeRef<'_>) -> Result<String, PairError> {
    if node.attr_jid("from").is_some_and(|from| from != Jid::whatsapp_server()) {
        return Err(PairError::Malformed("sender of the pairing iq"));
    }
    name("id of the pairing iq", node.attr_str("id").as_deref())?.ok_or(PairError::Missing("id of the pairing iq"))
}

fn refs(device: &NodeRef<'_>) -> Result<Vec<String>, PairError> {
    let mut refs = Vec::new();
    for node in device.children_named("ref") {
        limit("refs", refs.len().saturating_add(1), qr::MAX_REFS)?;
        let text = node.text().ok_or(PairError::Malformed("ref"))?;
        qr::check_ref(&text)?;
        refs.push(text.into_owned());
    }
    if refs.is_empty() {
        return Err(PairError::Missing("ref"));
    }
    Ok(refs)
}

fn pair_success(id: String, server_time: Option<u64>, node: &NodeRef<'_>) -> Result<PairSuccess, PairError> {
    let identity = node
        .child("device-identity")
        .and_then(|identity| identity.bytes())
        .ok_or(PairError::Missing("device-identity of pair-success"))?;
    limit("device identity", identity.len(), MAX_IDENTITY_LEN)?;

    let device = node.child("device").ok_or(PairError::Missing("device of pair-success"))?;
    let jid = device.attr_jid("jid").ok_or(PairError::Missing("jid of pair-success"))?;
    let numeric = !jid.is_server_only() && jid.user().bytes().all(|b| b.is_ascii_digit());
    if !jid.is_pn_family() || !numeric || jid.device() == 0 {
        return Err(PairError::Malformed("jid of pair-success"));
    }
    let lid = device.attr_jid("lid");
    if lid.as_ref().is_some_and(|lid| !lid.is_lid_family() || lid.is_server_only() || lid.device() != jid.device()) {
        return Err(PairError::Malformed("lid of pair-success"));
    }

    let attr = |tag, what| match node.child(tag) {
        Some(child) => name(what, child.attr_str("name").as_deref()),
        None => Ok(None),
    };
    let props = node.child("client-props").and_then(|props| props.bytes());
    // Only a hint: what cannot be read says nothing.
    let props = props.filter(|props| props.len() <= MAX_PROPS_LEN).and_then(|p| ClientPairingProps::decode(p).ok());
    Ok(PairSuccess {
        id,
        identity,
        jid,
        lid,
        platform: attr("platform", "platform of pair-success")?,
        business_name: attr("biz", "business name of pair-success")?,
        server_time,
        lid_migrated: props.and_then(|props| props.is_chat_db_lid_migrated),
    })
}

/// A short text; an empty one is none.
fn name(what: &'static str, text: Option<&str>) -> Result<Option<String>, PairError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    limit(what, text.len(), MAX_NAME_LEN)?;
    Ok(Some(text.to_owned()))
}

/// `ClientPairingProps` has some ten bytes, plus a payload about subscriptions that is not used here.
const MAX_PROPS_LEN: usize = 65_536;
