//! The layers of `wamd`.

use bytes::Bytes;
use wamd::jid::{Jid, Server};
use wamd::message::{self, build, padding};
use wamd::node::Decoder;
use wamd::proto::{Message as _, e2e::Message};
use wamd::signal::sender_key::memory::MemorySenderKeyStore;
use wamd::signal::sender_key::{self, SenderKeyName};
use wamd::signal::{self, Address, Ciphertext};
use wamd::stanza::message::{EncKind, InboundMessage, Own};
use wamd::stanza::outgoing::{Head, SenderKeyMessage, UserMessage};

use super::{GROUP, ID, OWN, PHASH, TEXT, Target, USER, introduce, sum};
use crate::signal::{Ours, Party};

/// Who sends.
pub struct Sender {
    pub device: Ours,
    pub keys: MemorySenderKeyStore,
    targets: Vec<(Jid, Address, bool)>,
    chat: Jid,
    group: Jid,
    name: SenderKeyName,
    identity: Bytes,
}

impl Sender {
    /// A device with sessions to all of these.
    pub fn new(targets: &[Target], receivers: &mut [Party]) -> Self {
        let mut device = Ours::new(1);
        let targets: Vec<_> =
            targets.iter().map(|to| (to.jid(), Address::new(&to.jid().to_string()), to.own)).collect();
        for ((_, address, _), receiver) in targets.iter().zip(receivers) {
            device.peer = address.clone();
            let mut party = Party::Ours(Box::new(device));
            introduce(&mut party, receiver);
            let Party::Ours(back) = party else { unreachable!("it was put in") };
            device = *back;
        }
        Self {
            device,
            keys: MemorySenderKeyStore::new(),
            targets,
            chat: Jid::lid(USER),
            group: Jid::new(GROUP, Server::Group),
            name: SenderKeyName::new(&format!("{GROUP}@g.us"), Address::new(&format!("{OWN}:5@lid"))),
            identity: Bytes::new(),
        }
    }

    /// To a user.
    pub fn send(&mut self) -> Vec<u8> {
        let message = build::text(TEXT);
        let plain = self.padded(&message);
        let has_own = self.targets.iter().any(|(_, _, own)| *own);
        let copy = has_own.then(|| self.padded(&build::device_sent(&self.chat, message)));
        let mut devices: Vec<(Jid, Ciphertext)> = Vec::with_capacity(self.targets.len());
        for (jid, address, own) in &self.targets {
            let plaintext = copy.as_ref().filter(|_| *own).unwrap_or(&plain);
            devices.push((jid.clone(), self.device.encrypt_to(address, plaintext)));
        }
        UserMessage { head: self.head(&self.chat), recipient_pn: None, devices: &devices }
            .encode()
            .expect("a good stanza")
    }

    /// To a group all of whose devices have the key.
    pub fn send_to_group(&mut self) -> Vec<u8> {
        self.group_message(&[])
    }

    /// To a group with a fresh key, which each device gets.
    pub fn send_with_fresh_key(&mut self) -> Vec<u8> {
        let key = sender_key::rotate(&mut self.keys, &self.name, &mut self.device.rng).encode();
        let plain = self.padded(&build::sender_key_distribution(&self.group, key));
        let mut devices: Vec<(Jid, Ciphertext)> = Vec::with_capacity(self.targets.len());
        for (jid, address, _) in &self.targets {
            devices.push((jid.clone(), self.device.encrypt_to(address, &plain)));
        }
        self.group_message(&devices)
    }

    fn group_message(&mut self, distribution: &[(Jid, Ciphertext)]) -> Vec<u8> {
        let plain = self.padded(&build::text(TEXT));
        let body = sender_key::encrypt(&mut self.keys, &self.name, &plain, &mut self.device.rng).expect("a key");
        let stanza = SenderKeyMessage {
            head: self.head(&self.group),
            phash: Some(PHASH),
            addressing_mode: Some("lid"),
            distribution,
            viewers: &[],
            body: &body,
        };
        stanza.encode().expect("a good stanza")
    }

    fn padded(&mut self, message: &Message) -> Vec<u8> {
        let mut plain = Vec::with_capacity(message.encoded_len() + usize::from(padding::MAX_PAD));
        message.encode(&mut plain).expect("room");
        padding::pad(&mut plain, &mut self.device.rng);
        plain
    }

    fn head<'a>(&'a self, to: &'a Jid) -> Head<'a> {
        Head {
            to,
            id: ID,
            kind: "text",
            edit: None,
            media_type: None,
            hide_failure: false,
            meta: &[],
            device_identity: &self.identity,
            report: None,
            token: None,
        }
    }
}

/// Who receives.
#[derive(Clone)]
pub struct Receiver {
    pub device: Ours,
    pub keys: MemorySenderKeyStore,
    pub sender: Address,
    group: String,
    own: Jid,
}

impl Receiver {
    pub fn new(device: Ours) -> Self {
        let sender = Address::new(&format!("{USER}:3@lid"));
        Self { device, keys: MemorySenderKeyStore::new(), sender, group: format!("{GROUP}@g.us"), own: Jid::lid(OWN) }
    }

    /// Takes over a sender key.
    pub fn process(&mut self, key: &[u8]) {
        let name = SenderKeyName::new(&self.group, self.sender.clone());
        sender_key::process(&mut self.keys, &name, key).expect("a good distribution message");
    }

    /// Reads a stanza and its one ciphertext.
    pub fn receive(&mut self, decoder: &mut Decoder, frame: Bytes) -> (InboundMessage, Message) {
        let own = Own { pn: &self.own, lid: None };
        let node = decoder.decode(frame).expect("a good frame");
        let inbound = InboundMessage::parse(node, &own).expect("a good message");
        let enc = inbound.encs.first().expect("a ciphertext");
        let version = u8::try_from(enc.version).expect("a version");
        let padded = match enc.kind {
            EncKind::Pairwise(kind) => self.device.decrypt(kind, &enc.bytes).expect("a good message"),
            EncKind::SenderKey => {
                let senders = std::slice::from_ref(&self.sender);
                let found = sender_key::decrypt(&mut self.keys, &self.group, senders, &enc.bytes);
                found.expect("a good message").plaintext
            }
            _ => panic!("no ciphertext of ours"),
        };
        let message = message::decode(padding::unpad(version, &padded).expect("padded")).expect("a message");
        (inbound, message)
    }
}

/// What was received, as one number.
pub fn checksum((inbound, message): &(InboundMessage, Message)) -> u64 {
    let name = inbound.push_name.as_deref().unwrap_or_default();
    let text = message.conversation.as_deref().unwrap_or_default();
    sum([&inbound.ack.id, inbound.sender.user(), name, text]) + inbound.timestamp + u64::from(inbound.sender.device())
}

/// The text that a sent frame has for a device.
pub fn read_sent(receiver: &mut Ours, to: &Jid, frame: Vec<u8>) -> Message {
    let mut decoder = Decoder::default();
    let node = decoder.decode(frame.into()).expect("a good frame");
    let participants = node.child("participants").expect("participants");
    let mut devices = participants.children_named("to");
    let to = devices.find(|device| device.attr_jid("jid").as_ref() == Some(to)).expect("the device");
    let enc = to.child("enc").expect("a ciphertext");
    let kind = match enc.attr_str("type").as_deref() {
        Some("msg") => signal::CiphertextKind::Whisper,
        other => panic!("{other:?} instead of a msg"),
    };
    let padded = receiver.decrypt(kind, &enc.bytes().expect("bytes")).expect("a good message");
    message::decode(padding::unpad(2, &padded).expect("padded")).expect("a message")
}

/// The skmsg of a sent frame.
pub fn sent_body(frame: Vec<u8>) -> Bytes {
    let mut decoder = Decoder::default();
    let node = decoder.decode(frame.into()).expect("a good frame");
    node.child("enc").and_then(|enc| enc.bytes()).expect("a ciphertext")
}
