//! The prekey service (spec 03 §1.3–1.6): upload, count, and bundles of other devices.

use bytes::Bytes;

use crate::{
    crypto::{PublicKey, sha1},
    jid::Jid,
    node::{Node, NodeRef},
    signal::{PreKeyBundle, PreKeyId, SignedPreKeyId},
    stanza::{
        StanzaError, fixed,
        iq::{IqError, error_of, request},
        required_child, required_jid,
    },
};

/// Content of `<type>`: all keys are Curve25519.
pub const KEY_TYPE: u8 = 0x05;

/// What an upload holds.
#[derive(Clone, Debug)]
pub struct Upload<'a> {
    /// Our registration id.
    pub registration_id: u32,
    /// Our identity key.
    pub identity: &'a PublicKey,
    /// One-time prekeys: id (24 bit) and public key.
    pub pre_keys: &'a [(u32, PublicKey)],
    /// Signed prekey: id, public key, signature.
    pub signed_pre_key: (u32, PublicKey, [u8; 64]),
}

impl Upload<'_> {
    /// The request; its answer is an empty result.
    pub fn request(&self) -> Node {
        let (id, key, signature) = &self.signed_pre_key;
        let keys = self.pre_keys.iter().map(|(id, key)| key_node(*id, key.as_bytes()));
        request("set", "encrypt")
            .child(Node::new("registration").bytes(self.registration_id.to_be_bytes().to_vec()))
            .child(Node::new("type").bytes(vec![KEY_TYPE]))
            .child(Node::new("identity").bytes(self.identity.as_bytes().to_vec()))
            .child(Node::new("list").children(keys))
            .child(signed_key_node(*id, key.as_bytes(), signature))
    }
}

/// `<key>` with a one-time prekey.
pub(crate) fn key_node(id: u32, key: &[u8; 32]) -> Node {
    Node::new("key").child(id_node(id)).child(Node::new("value").bytes(key.to_vec()))
}

/// `<skey>` with a signed prekey.
pub(crate) fn signed_key_node(id: u32, key: &[u8; 32], signature: &[u8; 64]) -> Node {
    Node::new("skey")
        .child(id_node(id))
        .child(Node::new("value").bytes(key.to_vec()))
        .child(Node::new("signature").bytes(signature.to_vec()))
}

/// `<id>`: three bytes, big-endian.
fn id_node(id: u32) -> Node {
    let [_, a, b, c] = id.to_be_bytes();
    Node::new("id").bytes(vec![a, b, c])
}

/// Asks how many one-time prekeys the server still has.
pub fn count_request() -> Node {
    request("get", "encrypt").child(Node::new("count"))
}

/// Reads the answer to [`count_request`].
///
/// # Errors
/// [`StanzaError`] without a count.
pub fn count(node: NodeRef<'_>) -> Result<u64, StanzaError> {
    required_child(node, "iq", "count")?.attr_u64("value").ok_or(StanzaError::Attribute { tag: "count", name: "value" })
}

/// Asks what the server holds of our keys (spec 03 §1.5).
pub fn digest_request() -> Node {
    request("get", "encrypt").child(Node::new("digest"))
}

/// What the server holds of our keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The one-time prekeys that it has not given out, at most [`MAX_DIGEST_KEYS`].
    pub pre_keys: Vec<u32>,
    /// SHA-1, see [`key_hash`].
    pub hash: [u8; 20],
}

/// Most one-time prekeys of a [`Digest`]: five uploads.
pub const MAX_DIGEST_KEYS: usize = 4_096;

/// Reads the answer to [`digest_request`].
///
/// # Errors
/// [`StanzaError`] without a hash or the list of keys, or with more of them than [`MAX_DIGEST_KEYS`].
pub fn digest(node: NodeRef<'_>) -> Result<Digest, StanzaError> {
    let digest = required_child(node, "iq", "digest")?;
    let list = required_child(digest, "digest", "list")?;
    let ids = list.children().filter(|child| child.tag() == "id").take(MAX_DIGEST_KEYS.saturating_add(1));
    let pre_keys = ids.map(|id| fixed(id, "id").map(three_bytes)).collect::<Result<Vec<_>, _>>()?;
    if pre_keys.len() > MAX_DIGEST_KEYS {
        return Err(StanzaError::Content { tag: "list" });
    }
    Ok(Digest { pre_keys, hash: fixed(required_child(digest, "digest", "hash")?, "hash")? })
}

/// The hash over published keys (spec 03 §1.5): the identity, the signed prekey with its signature, and the one-time
/// prekeys in the order of the server's list.
pub fn key_hash<'a>(
    identity: &PublicKey,
    signed_pre_key: &PublicKey,
    signature: &[u8; 64],
    pre_keys: impl IntoIterator<Item = &'a PublicKey>,
) -> [u8; 20] {
    let mut parts: Vec<&[u8]> = vec![identity.as_bytes(), signed_pre_key.as_bytes(), signature];
    parts.extend(pre_keys.into_iter().map(|key| &key.as_bytes()[..]));
    sha1(&parts)
}

/// Replaces the signed prekey (spec 03 §1.7).
pub fn rotate_request(id: u32, key: &PublicKey, signature: &[u8; 64]) -> Node {
    request("set", "encrypt").child(Node::new("rotate").child(signed_key_node(id, key.as_bytes(), signature)))
}

/// Asks for the bundles of devices.
pub fn bundles_request<'a>(devices: impl IntoIterator<Item = &'a Jid>) -> Node {
    let users = devices.into_iter().map(|jid| Node::new("user").attr("jid", jid).attr("reason", "identity"));
    request("get", "encrypt").child(Node::new("key").children(users))
}

/// The bundle of one device, as fetched.
#[derive(Clone, Debug)]
pub struct FetchedBundle {
    /// The keys. Their signature is not checked yet.
    pub bundle: PreKeyBundle,
    /// The device identity that a companion must show (spec 03 §1.6).
    pub device_identity: Option<Bytes>,
}

/// Why a device has no usable bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// The server has none.
    #[error(transparent)]
    Refused(#[from] IqError),
    /// What it has cannot be read.
    #[error(transparent)]
    Malformed(#[from] StanzaError),
}

/// A device, and its bundle or why there is none.
pub type DeviceBundle = (Jid, Result<FetchedBundle, BundleError>);

/// Reads the answer to [`bundles_request`]: one result per device answered, in no particular order.
///
/// # Errors
/// [`StanzaError`] without a list.
pub fn bundles(node: NodeRef<'_>) -> Result<Vec<DeviceBundle>, StanzaError> {
    let list = required_child(node, "iq", "list")?;
    let users = list.children().filter(|user| user.tag() == "user");
    users.map(|user| Ok((required_jid(user, "user", "jid")?, bundle(user)))).collect()
}

fn bundle(user: NodeRef<'_>) -> Result<FetchedBundle, BundleError> {
    if user.child("error").is_some() {
        return Err(error_of(user).into());
    }
    let registration_id = u32::from_be_bytes(fixed(required_child(user, "user", "registration")?, "registration")?);
    let bundle = keys_of(user, registration_id)?;
    Ok(FetchedBundle { bundle, device_identity: user.child("device-identity").and_then(|node| node.bytes()) })
}

/// The keys inside a `<user>` or, in a retry receipt, a `<keys>` element.
pub(crate) fn keys_of(node: NodeRef<'_>, registration_id: u32) -> Result<PreKeyBundle, StanzaError> {
    let signed = required_child(node, "user", "skey")?;
    let pre_key = match node.child("key") {
        Some(key) => Some((PreKeyId(key_id(key)?), key_value(key)?)),
        None => None,
    };
    Ok(PreKeyBundle {
        registration_id,
        identity: PublicKey::from_bytes(fixed(required_child(node, "user", "identity")?, "identity")?),
        signed_pre_key_id: SignedPreKeyId(key_id(signed)?),
        signed_pre_key: key_value(signed)?,
        signature: fixed(required_child(signed, "skey", "signature")?, "signature")?,
        pre_key,
    })
}

fn key_id(key: NodeRef<'_>) -> Result<u32, StanzaError> {
    fixed(required_child(key, "key", "id")?, "id").map(three_bytes)
}

fn three_bytes([a, b, c]: [u8; 3]) -> u32 {
    u32::from_be_bytes([0, a, b, c])
}

fn key_value(key: NodeRef<'_>) -> Result<PublicKey, StanzaError> {
    Ok(PublicKey::from_bytes(fixed(required_child(key, "key", "value")?, "value")?))
}
