//! The namespace `encrypt`: upload, count, digest and rotation of a device's keys, and the bundles that peers fetch
//! (spec 03 §1.3–§1.7).

use bytes::Bytes;
use wamd::crypto::{PublicKey, sha1};
use wamd::node::{Node, NodeRef};

use crate::adv::flip_last;
use crate::core::{Core, leaf};
use crate::directory::{Address, Bundle, SignedPreKey};
use crate::iq::Answer;
use crate::login::server;
use crate::{phone, stanza};

/// How many one-time keys the device still has here.
pub(crate) fn count(core: &mut Core, address: Address, _: NodeRef<'_>) -> Answer {
    let held = core.directory.device(address).map_or(0, |device| device.prekeys.len());
    Answer::child(Node::new("count").attr("value", held))
}

/// Stores the keys of an upload: all of them, or none if one is malformed.
pub(crate) fn upload(core: &mut Core, address: Address, node: NodeRef<'_>) -> Answer {
    let Some(upload) = Upload::read(node) else { return Answer::error(406, "not-acceptable") };
    let Some(device) = core.directory.device_mut(address) else { return Answer::error(404, "item-not-found") };
    if upload.identity.is_some_and(|identity| identity != device.identity) {
        return Answer::error(406, "not-acceptable");
    }
    if let Some(signed_prekey) = upload.signed_prekey {
        device.signed_prekey = signed_prekey;
    }
    device.registration_id = upload.registration_id.unwrap_or(device.registration_id);
    device.store_prekeys(upload.prekeys);
    Answer::empty().then(|core, _, address| phone::greet(core, address))
}

/// Replaces the signed prekey.
pub(crate) fn rotate(core: &mut Core, address: Address, node: NodeRef<'_>) -> Answer {
    let signed_prekey = node.child("rotate").and_then(|rotate| rotate.child("skey")).and_then(read_signed_prekey);
    let (Some(signed_prekey), Some(device)) = (signed_prekey, core.directory.device_mut(address)) else {
        return Answer::error(406, "not-acceptable");
    };
    device.signed_prekey = signed_prekey;
    Answer::empty()
}

/// What the server holds of the device, and the hash over it (spec 03 §1.5).
pub(crate) fn digest(core: &mut Core, address: Address, _: NodeRef<'_>) -> Answer {
    let Some(device) = core.directory.device(address).filter(|device| device.uploaded) else {
        return Answer::error(404, "item-not-found");
    };
    let signed = &device.signed_prekey;
    let mut parts: Vec<&[u8]> = vec![device.identity.as_bytes(), signed.public.as_bytes(), &signed.signature];
    parts.extend(device.prekeys.iter().map(|(_, key)| &key.as_bytes()[..]));
    let hash = sha1(&parts);
    let list = Node::new("list").children(device.prekeys.iter().map(|(id, _)| leaf("id", write_id(*id))));
    let digest = Node::new("digest")
        .child(leaf("registration", device.registration_id.to_be_bytes()))
        .child(leaf("type", KEY_TYPE))
        .child(leaf("identity", device.identity.as_bytes()))
        .child(signed_prekey_node(signed))
        .child(list)
        .child(leaf("hash", hash));
    Answer::child(digest)
}

/// Gives out bundles, each with a one-time key that nobody else gets.
pub(crate) fn fetch(core: &mut Core, _: Address, node: NodeRef<'_>) -> Answer {
    let Some(request) = node.child("key") else { return Answer::error(400, "bad-request") };
    let mut list = Node::new("list");
    for user in request.children_named("user") {
        let Some(jid) = user.attr_jid("jid") else { continue };
        let answer = Node::new("user").attr("jid", jid.clone());
        let address = core.directory.resolve(&jid);
        let refused = address.filter(|address| core.faults.take(*address, |faults| &mut faults.refuse_bundle));
        let code = refused.map_or(406, |address| core.faults.of(address).bundle_error);
        let bundle = address.filter(|_| refused.is_none()).and_then(|address| take_bundle(core, address));
        list = list.child(match bundle {
            Some(bundle) => answer.children(bundle_children(&bundle)),
            None => answer.child(stanza::error(code, stanza::error_text(code))),
        });
    }
    Answer::child(list)
}

/// Takes the bundle of a device, and with it one of its one-time keys.
pub(crate) fn take_bundle(core: &mut Core, address: Address) -> Option<Bundle> {
    let faults = core.faults.of(address);
    let account = core.directory.account_mut(address.number)?;
    let mut bundle = account.take_bundle(address.device, faults.withhold_prekey, &mut core.rng)?;
    if faults.forge_prekey_signature {
        bundle.signed_prekey.signature = flip_last(&bundle.signed_prekey.signature);
    }
    report_low(core, address);
    Some(bundle)
}

/// Tells a device once that its one-time keys run low.
pub(crate) fn report_low(core: &mut Core, address: Address) {
    let low = core.config.low_prekeys;
    let Some(device) = core.directory.device_mut(address) else { return };
    let left = device.prekeys.len();
    if left >= low || !device.uploaded || device.told_low {
        return;
    }
    device.told_low = true;
    core.notify(address, "encrypt", server(), |node| node.child(Node::new("count").attr("value", left)));
}

fn bundle_children(bundle: &Bundle) -> Vec<Node> {
    let mut children = vec![
        leaf("registration", bundle.registration_id.to_be_bytes()),
        leaf("type", KEY_TYPE),
        leaf("identity", bundle.identity.as_bytes()),
    ];
    children.extend(
        bundle
            .prekey
            .iter()
            .map(|(id, key)| Node::new("key").child(leaf("id", write_id(*id))).child(leaf("value", key.as_bytes()))),
    );
    children.push(signed_prekey_node(&bundle.signed_prekey));
    children.extend(bundle.device_identity.iter().map(|identity| leaf("device-identity", identity)));
    children
}

pub(crate) fn signed_prekey_node(key: &SignedPreKey) -> Node {
    Node::new("skey")
        .child(leaf("id", write_id(key.id)))
        .child(leaf("value", key.public.as_bytes()))
        .child(leaf("signature", &key.signature))
}

/// A key id on the wire: 3 bytes, big-endian.
pub(crate) fn read_id(bytes: &[u8]) -> Option<u32> {
    let [a, b, c] = bytes.try_into().ok()?;
    Some(u32::from_be_bytes([0, a, b, c]))
}

/// See [`read_id`].
pub(crate) fn write_id(id: u32) -> [u8; 3] {
    let [_, a, b, c] = id.to_be_bytes();
    [a, b, c]
}

/// The parts of an upload; each may be missing.
struct Upload {
    registration_id: Option<u32>,
    identity: Option<PublicKey>,
    signed_prekey: Option<SignedPreKey>,
    prekeys: Vec<(u32, PublicKey)>,
}

impl Upload {
    fn read(node: NodeRef<'_>) -> Option<Self> {
        let mut upload = Self { registration_id: None, identity: None, signed_prekey: None, prekeys: Vec::new() };
        for child in node.children() {
            match child.tag() {
                "registration" => {
                    upload.registration_id = Some(u32::from_be_bytes(child.bytes()?[..].try_into().ok()?));
                }
                "identity" => upload.identity = Some(PublicKey::from_slice(&child.bytes()?).ok()?),
                "skey" => upload.signed_prekey = Some(read_signed_prekey(child)?),
                "list" => upload.prekeys = child.children().map(read_prekey).collect::<Option<_>>()?,
                _ => {}
            }
        }
        Some(upload)
    }
}

fn read_prekey(node: NodeRef<'_>) -> Option<(u32, PublicKey)> {
    let id = read_id(&node.child("id")?.bytes()?)?;
    Some((id, PublicKey::from_slice(&node.child("value")?.bytes()?).ok()?))
}

fn read_signed_prekey(node: NodeRef<'_>) -> Option<SignedPreKey> {
    let (id, public) = read_prekey(node)?;
    let signature = Bytes::copy_from_slice(&node.child("signature")?.bytes()?);
    (signature.len() == wamd::crypto::xeddsa::SIGNATURE_LEN).then_some(SignedPreKey { id, public, signature })
}

/// The bundle in a retry receipt: `<registration>` beside `<keys>` (spec 03 §5.6).
pub(crate) fn read_bundle(receipt: &Node, keys: &Node) -> Option<Bundle> {
    let bytes = |node: &Node, tag: &str| node.find_child(tag).and_then(Node::content_bytes);
    let key = |node: &Node| Some((read_id(&bytes(node, "id")?)?, PublicKey::from_slice(&bytes(node, "value")?).ok()?));
    let signed = keys.find_child("skey")?;
    let (id, public) = key(signed)?;
    Some(Bundle {
        registration_id: u32::from_be_bytes(bytes(receipt, "registration")?[..].try_into().ok()?),
        identity: PublicKey::from_slice(&bytes(keys, "identity")?).ok()?,
        signed_prekey: SignedPreKey { id, public, signature: bytes(signed, "signature")? },
        prekey: keys.find_child("key").and_then(key),
        device_identity: bytes(keys, "device-identity"),
    })
}

/// The type of a key, as `<type>` holds it.
pub(crate) const KEY_TYPE: [u8; 1] = [wamd::crypto::keys::KEY_TYPE];
