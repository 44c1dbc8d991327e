//! The simulated phone: device 0 of every account (spec 01 §7.7).
//!
//! It has the keys of a real device and a Signal store of its own: its identity is the account key, and one-time keys are
//! made when somebody asks for them. It decrypts what it is sent, answers with delivery or retry receipts, resends on retry
//! receipts, and gives every freshly linked companion the app state keys.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use wamd::crypto::{KeyPair, Rng, keys::Secret};
use wamd::jid::Jid;
use wamd::node::Node;
use wamd::proto::e2e;
use wamd::signal::memory::MemorySignalStore;
use wamd::signal::{
    self, CiphertextKind, Own, PreKeyBundle, PreKeyId, SignalError, SignalStore as _, SignedPreKeyId, StepError,
};

use crate::adv;
use crate::control::{ControlError, ReceivedMessage};
use crate::core::{Core, leaf};
use crate::directory::{Account, Address, Bundle, Namespace, SignedPreKey};
use crate::keys::{KEY_TYPE, read_bundle, signed_prekey_node, take_bundle, write_id};
use crate::queue::Entry;
use crate::receipts;
use crate::routing::{self, Outgoing};

/// Keys, sessions and mailbox of a phone.
#[derive(Clone, Debug)]
pub(crate) struct Phone {
    registration_id: u32,
    signed_prekey: SignedPreKey,
    next_prekey: u32,
    store: MemorySignalStore,
    app_state_key: Secret<32>,
    pub(crate) received: Vec<ReceivedMessage>,
    /// How often each message was asked for again.
    retries: BTreeMap<(Address, String), u32>,
    /// What was sent, by id, for retry receipts.
    sent: BTreeMap<String, Sent>,
}

/// A message that a phone has sent.
#[derive(Clone, Debug)]
struct Sent {
    to: Jid,
    message: e2e::Message,
}

impl Phone {
    pub(crate) fn new(identity: &KeyPair, rng: &mut impl Rng) -> Self {
        let pair = KeyPair::generate(rng);
        let signature = adv::sign(identity, &[&pair.public().to_typed()]);
        let signed_prekey =
            SignedPreKey { id: 1, public: *pair.public(), signature: Bytes::copy_from_slice(&signature) };
        let mut store = MemorySignalStore::new();
        store.put_signed_pre_key(SignedPreKeyId(signed_prekey.id), pair);
        Self {
            registration_id: rng.next_u32() % 16_380 + 1,
            signed_prekey,
            next_prekey: 1,
            store,
            app_state_key: Secret::random(rng),
            received: Vec::new(),
            retries: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    /// The bundle of the phone, with a fresh one-time key.
    pub(crate) fn take_bundle(&mut self, identity: &KeyPair, rng: &mut impl Rng) -> Bundle {
        let pair = KeyPair::generate(rng);
        let id = self.next_prekey;
        self.next_prekey = if id >= LAST_PREKEY { 1 } else { id + 1 };
        let public = *pair.public();
        self.store.put_pre_key(PreKeyId(id), pair);
        Bundle {
            registration_id: self.registration_id,
            identity: *identity.public(),
            signed_prekey: self.signed_prekey.clone(),
            prekey: Some((id, public)),
            device_identity: None,
        }
    }

    /// Forgets the sessions with a device.
    pub(crate) fn forget(&mut self, address: Address) {
        let Ok(()) = signal::forget(&mut self.store, &signal_address(address));
    }
}

/// Sends the app state keys to a companion once it is there and has uploaded its keys, once in its life.
pub(crate) fn greet(core: &mut Core, address: Address) {
    let wanted = core.directory.device(address).is_some_and(|device| device.uploaded && !device.greeted);
    if !wanted || !core.config.share_app_state_keys || core.live_connection(address).is_none() {
        return;
    }
    if let Some(device) = core.directory.device_mut(address) {
        device.greeted = true;
    }
    share_app_state_keys(core, address);
}

fn share_app_state_keys(core: &mut Core, address: Address) {
    let Some(account) = core.directory.account(address.number) else { return };
    let message = app_state_key_share(account, core.now.wall_ms);
    let to = account.jid(Namespace::Lid, 0);
    let id = message_id(&mut core.rng);
    match encrypt(core, address.number, address, &message, None) {
        Ok(enc) => {
            let outgoing = Outgoing::of_phone(core, address.number, &to, id, vec![(address, enc)], true);
            if let Some(outgoing) = outgoing {
                routing::route(core, outgoing);
            }
        }
        Err(error) => tracing::warn!(%error, "the app state keys could not be shared"),
    }
}

/// Sends a text to all devices of an account and to the sender's own companions.
pub(crate) fn send_text(core: &mut Core, number: u64, to: &Jid, text: &str) -> Result<String, ControlError> {
    let to = to.to_bare();
    let recipient = core.directory.resolve(&to).ok_or(ControlError::UnknownDevice)?;
    let message = e2e::Message { conversation: Some(text.to_owned()), ..e2e::Message::default() };
    let id = message_id(&mut core.rng);
    let mut targets = companions_and_phone(core, recipient.number);
    if number != recipient.number {
        targets.extend(companions_and_phone(core, number));
    }
    let mut copies = Vec::new();
    for target in targets.into_iter().filter(|target| *target != Address::phone(number)) {
        copies.push((target, encrypt_for(core, number, target, &to, &message, None)?));
    }
    if let Some(account) = core.directory.account_mut(number) {
        account.phone.sent.insert(id.clone(), Sent { to: to.clone(), message });
    }
    let outgoing = Outgoing::of_phone(core, number, &to, id.clone(), copies, false);
    routing::route(core, outgoing.ok_or(ControlError::UnknownDevice)?);
    Ok(id)
}

/// Sends any bytes as a message to all devices of an account. It is not kept: retry receipts for it lead to nothing.
pub(crate) fn send_content(core: &mut Core, number: u64, to: &Jid, content: &[u8]) -> Result<String, ControlError> {
    let to = to.to_bare();
    let recipient = core.directory.resolve(&to).ok_or(ControlError::UnknownDevice)?;
    let id = message_id(&mut core.rng);
    let targets = companions_and_phone(core, recipient.number);
    let mut copies = Vec::new();
    for target in targets.into_iter().filter(|target| *target != Address::phone(number)) {
        copies.push((target, encrypt_bytes(core, number, target, content.to_vec(), None)?));
    }
    let outgoing = Outgoing::of_phone(core, number, &to, id.clone(), copies, false);
    routing::route(core, outgoing.ok_or(ControlError::UnknownDevice)?);
    Ok(id)
}

/// Decrypts a message for the phone and answers it.
pub(crate) fn receive(core: &mut Core, number: u64, entry: &Entry) {
    let Some(sender) = core.directory.resolve(&entry.from) else { return };
    let Some(enc) = entry.node.find_child("enc") else { return };
    let kind = match enc.attr_str("type").as_deref() {
        Some("pkmsg") => CiphertextKind::PreKey,
        Some("msg") => CiphertextKind::Whisper,
        _ => return,
    };
    let bytes = enc.content_bytes().unwrap_or_default();
    let mute = core.faults.of(Address { number, device: 0 }).mute;
    let Some(account) = core.directory.account_mut(number) else { return };
    let phone = &mut account.phone;
    let own = Own { identity: &account.identity, registration_id: phone.registration_id };
    let opened = signal::decrypt(&mut phone.store, &own, &signal_address(sender), kind, &bytes);
    match opened {
        Ok(opened) => {
            let message = keep(phone, entry, &opened.plaintext);
            if !mute {
                confirm(core, number, sender, entry);
            }
            if message.is_some_and(|message| asks_for_keys(&message)) && sender.number == number {
                share_app_state_keys(core, sender);
            }
        }
        Err(StepError::Signal(_)) if mute => {}
        Err(StepError::Signal(SignalError::Duplicate)) => confirm(core, number, sender, entry),
        Err(StepError::Signal(error)) => ask_again(core, number, sender, entry, error),
        Err(StepError::Miss(miss)) => match miss {},
    }
}

/// A receipt for the phone: only a retry receipt makes it act.
pub(crate) fn receive_receipt(core: &mut Core, number: u64, receipt: &Node) {
    if receipt.attr_str("type").as_deref() != Some("retry") {
        return;
    }
    let Some(from) = receipt.attr_jid("from") else { return };
    let Some(target) = core.directory.resolve(&from) else { return };
    let id = receipt.attr_str("id").unwrap_or_default().into_owned();
    let count = receipt.find_child("retry").and_then(|retry| retry.attr_u64("count")).unwrap_or(1);
    let Some(account) = core.directory.account_mut(number) else { return };
    let Some(sent) = account.phone.sent.get(&id).cloned() else { return };
    let bundle = receipt.find_child("keys").and_then(|keys| read_bundle(receipt, keys));
    if count > MAX_RETRIES {
        return;
    }
    let prepared = match bundle {
        Some(bundle) => establish(core, number, target, &bundle),
        None => Ok(()),
    };
    let enc = prepared.and_then(|()| encrypt_for(core, number, target, &sent.to, &sent.message, Some(count)));
    match enc {
        Ok(enc) => {
            if let Some(outgoing) = Outgoing::of_phone(core, number, &sent.to, id, vec![(target, enc)], false) {
                routing::route(core, outgoing);
            }
        }
        Err(error) => tracing::warn!(%error, "a message could not be sent again"),
    }
}

/// Puts a decrypted message into the mailbox; `None` if it is no message.
fn keep(phone: &mut Phone, entry: &Entry, plaintext: &[u8]) -> Option<e2e::Message> {
    let message = Bytes::copy_from_slice(unpad(plaintext)?);
    let decoded = e2e::Message::decode(message.clone()).ok()?;
    let content = match &decoded.device_sent_message {
        Some(sent) => sent.message.as_deref(),
        None => Some(&decoded),
    };
    let text = content.and_then(|content| {
        let extended = content.extended_text_message.as_ref().and_then(|extended| extended.text.clone());
        content.conversation.clone().or(extended)
    });
    let recipient = entry.node.attr_jid("recipient");
    if phone.received.len() >= MAX_RECEIVED {
        phone.received.drain(..MAX_RECEIVED / 2);
    }
    phone.received.push(ReceivedMessage { id: entry.id.clone(), from: entry.from.clone(), recipient, text, message });
    Some(decoded)
}

/// Sends the delivery receipt of a message.
fn confirm(core: &mut Core, number: u64, sender: Address, entry: &Entry) {
    let kind = if entry.node.attr_str("category").as_deref() == Some("peer") {
        Some("peer_msg")
    } else if sender.number == number {
        Some("sender")
    } else {
        None
    };
    let receipt = Node::new("receipt")
        .attr("id", &entry.id)
        .attr_opt("type", kind)
        .attr_opt("recipient", entry.node.attr_jid("recipient"));
    receipts::pass_on(core, Address::phone(number), &entry.from, kind, receipt);
}

/// Sends a retry receipt, from the second one on with keys (spec 03 §5.6).
fn ask_again(core: &mut Core, number: u64, sender: Address, entry: &Entry, error: SignalError) {
    let now = core.now.unix_seconds();
    let Some(account) = core.directory.account_mut(number) else { return };
    let count = account.phone.retries.entry((sender, entry.id.clone())).or_default();
    *count = count.saturating_add(1);
    let count = *count;
    if u64::from(count) > MAX_RETRIES {
        return;
    }
    let retry = Node::new("retry")
        .attr("v", "1")
        .attr("id", &entry.id)
        .attr("t", entry.node.attr_u64("t").unwrap_or(now))
        .attr("count", count)
        .attr("error", error.retry_reason());
    let keys = (count > 1).then(|| {
        let bundle = account.phone.take_bundle(&account.identity, &mut core.rng);
        let prekey = bundle
            .prekey
            .map(|(id, key)| Node::new("key").child(leaf("id", write_id(id))).child(leaf("value", key.as_bytes())));
        Node::new("keys")
            .child(leaf("type", KEY_TYPE))
            .child(leaf("identity", bundle.identity.as_bytes()))
            .child_opt(prekey)
            .child(signed_prekey_node(&bundle.signed_prekey))
    });
    let receipt = Node::new("receipt")
        .attr("id", &entry.id)
        .attr("type", "retry")
        .attr_opt("recipient", entry.node.attr_jid("recipient"))
        .child(retry)
        .child(leaf("registration", account.phone.registration_id.to_be_bytes()))
        .child_opt(keys);
    receipts::pass_on(core, Address::phone(number), &entry.from, Some("retry"), receipt);
}

/// Encrypts for a device; own devices get the copy that says whom the message went to (spec 03 §4.2).
fn encrypt_for(
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
fn encrypt(
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

fn establish(core: &mut Core, number: u64, target: Address, bundle: &Bundle) -> Result<(), ControlError> {
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

/// One name per device, whatever JID it is called by.
fn signal_address(address: Address) -> signal::Address {
    signal::Address::new(&format!("{}.{}", address.number, address.device))
}

fn companions_and_phone(core: &Core, number: u64) -> Vec<Address> {
    let account = core.directory.account(number);
    let devices = account.into_iter().flat_map(|account| account.device_list());
    devices.map(|(device, _)| Address { number, device }).collect()
}

/// The account's one app state key, for all devices that there are (spec 05 A2.3).
fn app_state_key_share(account: &Account, wall_ms: u64) -> e2e::Message {
    let indexes = account.device_list().map(|(_, index)| index.unwrap_or(0));
    let fingerprint = e2e::AppStateSyncKeyFingerprint {
        raw_id: Some(account.raw_id),
        current_index: Some(account.key_index),
        device_indexes: indexes.collect(),
    };
    let data = e2e::AppStateSyncKeyData {
        key_data: Some(Bytes::copy_from_slice(account.phone.app_state_key.expose())),
        fingerprint: Some(Box::new(fingerprint)),
        timestamp: i64::try_from(wall_ms).ok(),
    };
    let id = e2e::AppStateSyncKeyId { key_id: Some(Bytes::from_static(&APP_STATE_KEY_ID)) };
    let key = e2e::AppStateSyncKey { key_id: Some(Box::new(id)), key_data: Some(Box::new(data)) };
    let protocol = e2e::ProtocolMessage {
        r#type: Some(e2e::protocol_message::Type::AppStateSyncKeyShare.into()),
        app_state_sync_key_share: Some(Box::new(e2e::AppStateSyncKeyShare { keys: vec![key] })),
        ..e2e::ProtocolMessage::default()
    };
    e2e::Message { protocol_message: Some(Box::new(protocol)), ..e2e::Message::default() }
}

fn asks_for_keys(message: &e2e::Message) -> bool {
    message.protocol_message.as_ref().is_some_and(|protocol| protocol.app_state_sync_key_request.is_some())
}

/// 32 hex digits, as Android phones make them.
fn message_id(rng: &mut impl Rng) -> String {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    hex::encode_upper(bytes)
}

/// Appends 1 to 16 bytes of that value (spec 03 §4.1).
fn pad(mut message: Vec<u8>, rng: &mut impl Rng) -> Vec<u8> {
    let length = u8::try_from(rng.next_u32() % 16 + 1).unwrap_or(1);
    message.extend(std::iter::repeat_n(length, usize::from(length)));
    message
}

fn unpad(message: &[u8]) -> Option<&[u8]> {
    let length = usize::from(*message.last()?);
    if length == 0 {
        return None;
    }
    message.get(..message.len().checked_sub(length)?)
}

/// Device 0, epoch 1 (spec 05 A2.2).
const APP_STATE_KEY_ID: [u8; 6] = [0, 0, 0, 0, 0, 1];

/// Ids have three bytes, and 0 means absent.
const LAST_PREKEY: u32 = 0xFF_FFFF;

/// Messages that a phone keeps; the older half goes when there are so many.
const MAX_RECEIVED: usize = 100_000;

/// How often one message is asked for or sent again.
const MAX_RETRIES: u64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_comes_off() {
        assert_eq!(unpad(b"ab\x01"), Some(&b"ab"[..]));
        assert_eq!(unpad(b"\x03\x03\x03"), Some(&b""[..]));
        assert_eq!(unpad(b"ab\x04"), None);
        assert_eq!(unpad(b"ab\x00"), None);
        assert_eq!(unpad(b""), None);
    }
}
