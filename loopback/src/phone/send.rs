//! What a phone sends: to a user pairwise, to a group or an audience with its sender key (spec 03 §3.4, §4.5).

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use wamd::jid::Jid;
use wamd::node::Node;
use wamd::proto::e2e;
use wamd::signal::sender_key::{self, SenderKeyName};
use wamd::signal::{self, Own, PreKeyBundle, PreKeyId, SignalStore as _, SignedPreKeyId};

use super::{Sent, message_id, pad, signal_address};
use crate::control::ControlError;
use crate::core::Core;
use crate::directory::{Address, Bundle, Namespace};
use crate::keys::take_bundle;
use crate::notices;
use crate::routing::{self, Refusal};

/// Sends a text: to all devices of an account and to the sender's own companions, or to a group.
pub(crate) fn send_text(core: &mut Core, number: u64, to: &Jid, text: &str) -> Result<String, ControlError> {
    let message = text_message(text);
    let to = to.to_bare();
    if to.is_group() {
        let content = message.encode_to_vec();
        let id = message_id(&mut core.rng);
        // First, because another phone asks for it again before this is over.
        let id = remember(core, number, id, to.clone(), message);
        return send_to_group(core, number, &to, id, content);
    }
    let recipient = core.directory.resolve(&to).ok_or(ControlError::UnknownDevice)?;
    let mut targets: Vec<Address> = core.directory.all_addresses(recipient.number).collect();
    if number != recipient.number {
        targets.extend(core.directory.companions(number));
    }
    let mut copies = Vec::new();
    for target in targets.into_iter().filter(|target| *target != Address::phone(number)) {
        copies.push((target, encrypt_for(core, number, target, &to, &message, None)?));
    }
    let id = message_id(&mut core.rng);
    let id = remember(core, number, id, to.clone(), message);
    send_copies(core, number, &to, id, copies)
}

/// Sends any bytes as a message to all devices of an account, or to a group. It is not kept: retry receipts for it lead to
/// nothing.
pub(crate) fn send_content(core: &mut Core, number: u64, to: &Jid, content: &[u8]) -> Result<String, ControlError> {
    let to = to.to_bare();
    if to.is_group() {
        let id = message_id(&mut core.rng);
        return send_to_group(core, number, &to, id, content.to_vec());
    }
    let recipient = core.directory.resolve(&to).ok_or(ControlError::UnknownDevice)?;
    let targets: Vec<Address> = core.directory.all_addresses(recipient.number).collect();
    let mut copies = Vec::new();
    for target in targets.into_iter().filter(|target| *target != Address::phone(number)) {
        copies.push((target, encrypt_bytes(core, number, target, content.to_vec(), None)?));
    }
    let id = message_id(&mut core.rng);
    send_copies(core, number, &to, id, copies)
}

/// Posts a text to a status audience or a broadcast list.
pub(crate) fn send_to_audience(
    core: &mut Core,
    number: u64,
    to: &Jid,
    audience: &[Jid],
    text: &str,
) -> Result<String, ControlError> {
    let resolve = |jid: &Jid| core.directory.resolve(jid).map(|address| address.number);
    let users: Option<BTreeSet<u64>> = audience.iter().map(resolve).collect();
    let users = users.ok_or(ControlError::UnknownDevice)?;
    let devices = users.iter().copied().filter(|user| *user != number).chain([number]);
    let devices: Vec<Address> = devices.flat_map(|user| core.directory.addresses(user)).collect();
    let message = text_message(text);
    let mut sealed = seal_to_many(core, number, to, Namespace::Lid, &devices, message.encode_to_vec())?;
    let bare = users.iter().map(|user| Node::new("to").attr("jid", core.jid(Address::phone(*user), Namespace::Lid)));
    sealed.targets.extend(bare);
    let id = message_id(&mut core.rng);
    let node = sealed.message(to, &id);
    let setting = to.is_status_broadcast().then(|| Node::new("meta").attr("status_setting", "contacts"));
    mark(core, number, to, devices);
    let id = remember(core, number, id, to.clone(), message);
    submit(core, number, &node.child_opt(setting))?;
    Ok(id)
}

fn text_message(text: &str) -> e2e::Message {
    e2e::Message { conversation: Some(text.to_owned()), ..e2e::Message::default() }
}

/// Keeps what was sent, for those who ask for it again.
fn remember(core: &mut Core, number: u64, id: String, to: Jid, message: e2e::Message) -> String {
    let at = core.now.unix_seconds();
    if let Some(account) = core.directory.account_mut(number) {
        account.phone.sent.insert(id.clone(), Sent { to, message, at });
    }
    id
}

/// Sends ciphertexts that are there, device by device.
fn send_copies(
    core: &mut Core,
    number: u64,
    to: &Jid,
    id: String,
    copies: Vec<(Address, Node)>,
) -> Result<String, ControlError> {
    let namespace = Namespace::of(to).ok_or(ControlError::UnknownDevice)?;
    let targets = copies.into_iter().map(|(target, enc)| entry(core, target, namespace, enc));
    let participants = Node::new("participants").children(targets);
    let node = Node::new("message").attr("to", to).attr("id", &id).attr("type", "text").child(participants);
    submit(core, number, &node)?;
    Ok(id)
}

/// Hands a stanza of the phone to the server.
pub(super) fn submit(core: &mut Core, number: u64, node: &Node) -> Result<(), ControlError> {
    let planned = routing::plan(core, Address::phone(number), node);
    let outgoing = planned.map_err(|Refusal(code)| ControlError::Refused(code))?;
    routing::route(core, outgoing);
    Ok(())
}

fn entry(core: &Core, target: Address, namespace: Namespace, enc: Node) -> Node {
    Node::new("to").attr("jid", core.jid(target, namespace)).child(enc)
}

fn send_to_group(core: &mut Core, number: u64, to: &Jid, id: String, content: Vec<u8>) -> Result<String, ControlError> {
    let group = core.groups.get(to).ok_or(ControlError::UnknownGroup)?;
    let (mode, mode_str) = (group.mode, group.mode_str());
    let (devices, phash) = (group.devices(core), notices::group_hash(core, group));
    let sealed = seal_to_many(core, number, to, mode, &devices, content)?;
    let node = sealed.message(to, &id).attr("phash", phash).attr("addressing_mode", mode_str);
    submit(core, number, &node)?;
    mark(core, number, to, devices);
    Ok(id)
}

/// A message under the sender key, and the key itself for those who lack it.
struct Sealed {
    targets: Vec<Node>,
    body: Bytes,
}

impl Sealed {
    fn message(self, to: &Jid, id: &str) -> Node {
        let participants = (!self.targets.is_empty()).then(|| Node::new("participants").children(self.targets));
        let body = Node::new("enc").attr("v", "2").attr("type", "skmsg").bytes(self.body);
        Node::new("message").attr("to", to).attr("id", id).attr("type", "text").child_opt(participants).child(body)
    }
}

/// Encrypts for many. The key is replaced when a device that has it is not meant any more.
fn seal_to_many(
    core: &mut Core,
    number: u64,
    chat: &Jid,
    namespace: Namespace,
    devices: &[Address],
    content: Vec<u8>,
) -> Result<Sealed, ControlError> {
    let name = SenderKeyName::new(&chat.to_string(), signal_address(Address::phone(number)));
    let phone = &mut core.directory.account_mut(number).ok_or(ControlError::UnknownDevice)?.phone;
    let marked = phone.marks.entry(chat.clone()).or_default();
    let meant: BTreeSet<Address> = devices.iter().copied().collect();
    if !marked.is_subset(&meant) {
        marked.clear();
        sender_key::discard(&mut phone.sender_keys, &name);
    }
    let marked = marked.clone();
    let key = distribution(core, number, chat)?;
    let mut targets = Vec::new();
    let lacks = |device: &&Address| device.number == number || !marked.contains(device);
    for device in devices.iter().filter(|device| **device != Address::phone(number)).filter(lacks) {
        // A device without keys must not keep the message from the others (spec 03 §4.5).
        if let Ok(enc) = encrypt_bytes(core, number, *device, key.encode_to_vec(), None) {
            targets.push(entry(core, *device, namespace, enc));
        }
    }
    let padded = pad(content, &mut core.rng);
    let phone = &mut core.directory.account_mut(number).ok_or(ControlError::UnknownDevice)?.phone;
    let body = sender_key::encrypt(&mut phone.sender_keys, &name, &padded, &mut core.rng)
        .map_err(|error| ControlError::Encrypt(error.to_string()))?;
    Ok(Sealed { targets, body })
}

/// The message that hands the phone's sender key of a chat out; the key is made if there is none.
pub(super) fn distribution(core: &mut Core, number: u64, chat: &Jid) -> Result<e2e::Message, ControlError> {
    let group_id = chat.to_string();
    let name = SenderKeyName::new(&group_id, signal_address(Address::phone(number)));
    let phone = &mut core.directory.account_mut(number).ok_or(ControlError::UnknownDevice)?.phone;
    let Ok(key) = sender_key::distribute(&mut phone.sender_keys, &name, &mut core.rng);
    let key = e2e::SenderKeyDistributionMessage {
        group_id: Some(group_id),
        axolotl_sender_key_distribution_message: Some(Bytes::copy_from_slice(&key.encode())),
    };
    Ok(e2e::Message { sender_key_distribution_message: Some(Box::new(key)), ..e2e::Message::default() })
}

fn mark(core: &mut Core, number: u64, chat: &Jid, devices: Vec<Address>) {
    if let Some(account) = core.directory.account_mut(number) {
        account.phone.marks.insert(chat.clone(), devices.into_iter().collect());
    }
}

/// Encrypts for a device; own devices get the copy that says whom the message went to (spec 03 §4.2).
pub(super) fn encrypt_for(
    core: &mut Core,
    number: u64,
    target: Address,
    to: &Jid,
    message: &e2e::Message,
    count: Option<u64>,
) -> Result<Node, ControlError> {
    if target.number != number {
        return encrypt(core, number, target, message, count);
    }
    let sent = e2e::DeviceSentMessage {
        destination_jid: Some(to.to_string()),
        message: Some(Box::new(message.clone())),
        ..e2e::DeviceSentMessage::default()
    };
    let copy = e2e::Message { device_sent_message: Some(Box::new(sent)), ..e2e::Message::default() };
    encrypt(core, number, target, &copy, count)
}

/// Encrypts for a device, with a new session if there is none.
pub(super) fn encrypt(
    core: &mut Core,
    number: u64,
    target: Address,
    message: &e2e::Message,
    count: Option<u64>,
) -> Result<Node, ControlError> {
    encrypt_bytes(core, number, target, message.encode_to_vec(), count)
}

fn encrypt_bytes(
    core: &mut Core,
    number: u64,
    target: Address,
    content: Vec<u8>,
    count: Option<u64>,
) -> Result<Node, ControlError> {
    let address = signal_address(target);
    let account = core.directory.account_mut(number).ok_or(ControlError::UnknownDevice)?;
    let Ok(session) = account.phone.store.session(&address);
    if session.is_none() {
        let bundle = take_bundle(core, target).ok_or(ControlError::UnknownDevice)?;
        establish(core, number, target, &bundle)?;
    }
    let plaintext = pad(content, &mut core.rng);
    let account = core.directory.account_mut(number).ok_or(ControlError::UnknownDevice)?;
    let phone = &mut account.phone;
    let own = Own { identity: &account.identity, registration_id: phone.registration_id };
    let sealed = signal::encrypt(&mut phone.store, &own, &address, &plaintext, &mut core.rng)
        .map_err(|error| ControlError::Encrypt(error.to_string()))?;
    Ok(Node::new("enc").attr("v", "2").attr("type", sealed.kind.as_str()).attr_opt("count", count).bytes(sealed.bytes))
}

/// Starts a session with a device.
pub(super) fn establish(core: &mut Core, number: u64, target: Address, bundle: &Bundle) -> Result<(), ControlError> {
    let signature = bundle.signed_prekey.signature[..].try_into();
    let bundle = PreKeyBundle {
        registration_id: bundle.registration_id,
        identity: bundle.identity,
        signed_pre_key_id: SignedPreKeyId(bundle.signed_prekey.id),
        signed_pre_key: bundle.signed_prekey.public,
        signature: signature.map_err(|_| ControlError::Encrypt("short signature".to_owned()))?,
        pre_key: bundle.prekey.map(|(id, key)| (PreKeyId(id), key)),
    };
    let account = core.directory.account_mut(number).ok_or(ControlError::UnknownDevice)?;
    let phone = &mut account.phone;
    let own = Own { identity: &account.identity, registration_id: phone.registration_id };
    signal::establish(&mut phone.store, &own, &signal_address(target), &bundle, &mut core.rng)
        .map(|_| ())
        .map_err(|error| ControlError::Encrypt(error.to_string()))
}
