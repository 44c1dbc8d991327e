//! The peer's crates, put together.

use buffa::{Message as _, MessageField};
use bytes::Bytes;
use wacore_binary::builder::NodeBuilder;
use wacore_binary::jid::Jid;
use wacore_binary::marshal;
use wacore_binary::node::{Node, NodeContentRef, NodeRef};
use wacore_libsignal::protocol::{DeviceId, ProtocolAddress};
use wacore_libsignal::store::sender_key_name::SenderKeyName;
use wamd::crypto::Rng;
use wamd::signal::CiphertextKind;
use waproto::whatsapp::{
    Message,
    message::{DeviceSentMessage, SenderKeyDistributionMessage},
};

use super::{GROUP, ID, OWN, PHASH, TEXT, Target, USER, introduce, sum};
use crate::signal::{Party, Theirs, theirs::kind};

/// Writes a node; there are several ways.
pub type Marshal = fn(&Node) -> Vec<u8>;

pub const MARSHAL: [(&str, Marshal); 2] = [
    ("marshal", |node| marshal::marshal(node).expect("a good node")),
    ("marshal_exact", |node| marshal::marshal_exact(node).expect("a good node")),
];

/// Who sends.
pub struct Sender {
    pub device: Theirs,
    targets: Vec<(Jid, ProtocolAddress, bool)>,
    chat: Jid,
    group: Jid,
    name: SenderKeyName,
}

impl Sender {
    /// A device with sessions to all of these.
    pub fn new(targets: &[Target], receivers: &mut [Party]) -> Self {
        let mut device = Theirs::new(1);
        let target = |to: &Target| {
            let address = ProtocolAddress::new(&to.user, DeviceId::new(to.device.into()));
            (Jid::lid_device(to.user.as_str(), to.device), address, to.own)
        };
        let targets: Vec<_> = targets.iter().map(target).collect();
        for ((_, address, _), receiver) in targets.iter().zip(receivers) {
            device.peer = address.clone();
            let mut party = Party::Theirs(Box::new(device));
            introduce(&mut party, receiver);
            let Party::Theirs(back) = party else { unreachable!("it was put in") };
            device = *back;
        }
        let name = SenderKeyName::from_parts(&format!("{GROUP}@g.us"), &format!("{OWN}:5@lid"));
        Self { device: device.handing_out(), targets, chat: Jid::lid(USER), group: Jid::group(GROUP), name }
    }

    /// To a user.
    pub fn send(&mut self, marshal: Marshal) -> Vec<u8> {
        let message = Message { conversation: Some(TEXT.into()), ..Default::default() };
        let plain = self.padded(&message);
        let has_own = self.targets.iter().any(|(_, _, own)| *own);
        let copy = has_own.then(|| {
            let sent = DeviceSentMessage {
                destination_jid: Some(self.chat.to_string()),
                message: MessageField::some(message),
                ..Default::default()
            };
            self.padded(&Message { device_sent_message: MessageField::some(sent), ..Default::default() })
        });
        let mut devices = Vec::with_capacity(self.targets.len());
        for (jid, address, own) in &self.targets {
            let plaintext = copy.as_ref().filter(|_| *own).unwrap_or(&plain);
            devices.push(to(&mut self.device, jid, address, plaintext));
        }
        let participants = NodeBuilder::new("participants").children(devices).build();
        let node = NodeBuilder::new("message")
            .attr("to", self.chat.clone())
            .attr("id", ID)
            .attr("type", "text")
            .children([participants])
            .build();
        marshal(&node)
    }

    /// To a group all of whose devices have the key.
    pub fn send_to_group(&mut self, marshal: Marshal) -> Vec<u8> {
        let enc = self.skmsg();
        marshal(&self.group_message().children([enc]).build())
    }

    /// To a group with a fresh key, which each device gets.
    pub fn send_with_fresh_key(&mut self, marshal: Marshal) -> Vec<u8> {
        self.device.forget_sender_keys();
        let key = self.device.distribute(&self.name).into_serialized();
        let key = SenderKeyDistributionMessage {
            group_id: Some(self.group.to_string()),
            axolotl_sender_key_distribution_message: Some(key.into()),
            ..Default::default()
        };
        let message = Message { sender_key_distribution_message: MessageField::some(key), ..Default::default() };
        let plain = self.padded(&message);
        let mut devices = Vec::with_capacity(self.targets.len());
        for (jid, address, _) in &self.targets {
            devices.push(to(&mut self.device, jid, address, &plain));
        }
        let participants = NodeBuilder::new("participants").children(devices).build();
        let enc = self.skmsg();
        marshal(&self.group_message().children([participants, enc]).build())
    }

    fn group_message(&self) -> NodeBuilder {
        NodeBuilder::new("message")
            .attr("to", self.group.clone())
            .attr("id", ID)
            .attr("type", "text")
            .attr("phash", PHASH)
            .attr("addressing_mode", "lid")
    }

    fn skmsg(&mut self) -> Node {
        let plain = self.padded(&Message { conversation: Some(TEXT.into()), ..Default::default() });
        let body = self.device.group_encrypt(&self.name, &plain);
        enc("skmsg", body.into_vec())
    }

    fn padded(&mut self, message: &Message) -> Vec<u8> {
        let mut plain = Vec::with_capacity(message.encoded_len() as usize + 16);
        message.encode(&mut plain);
        let mut random = [0];
        Rng::fill_bytes(&mut self.device.rng, &mut random);
        let pad = random[0] % 16 + 1;
        plain.resize(plain.len() + usize::from(pad), pad);
        plain
    }
}

fn to(device: &mut Theirs, jid: &Jid, address: &ProtocolAddress, plaintext: &[u8]) -> Node {
    let sent = device.encrypt_to(address, plaintext);
    let kind = kind(&sent).as_str();
    NodeBuilder::new("to").attr("jid", jid.clone()).children([enc(kind, sent.serialize().to_vec())]).build()
}

fn enc(kind: &'static str, bytes: Vec<u8>) -> Node {
    NodeBuilder::new("enc").attr("v", "2").attr("type", kind).bytes(bytes).build()
}

/// Who receives.
#[derive(Clone)]
pub struct Receiver {
    pub device: Theirs,
    name: SenderKeyName,
}

/// What is kept of a received stanza.
pub struct Received {
    from: Jid,
    participant: Option<Jid>,
    id: String,
    name: String,
    time: u64,
    other: Option<Jid>,
    pub message: Message,
}

impl Receiver {
    pub fn new(device: Theirs) -> Self {
        Self { device, name: SenderKeyName::from_parts(&format!("{GROUP}@g.us"), &format!("{USER}:3@lid")) }
    }

    /// A device that has the key of this name.
    pub fn with_name(device: Theirs, name: SenderKeyName) -> Self {
        Self { device, name }
    }

    /// Takes over a sender key.
    pub fn process(&mut self, key: &[u8]) {
        self.device.process(&self.name, key).expect("a good distribution message");
    }

    /// Reads a stanza and its one ciphertext. With `in_place` the frame may be written over.
    pub fn receive(&mut self, frame: Bytes, in_place: bool) -> Received {
        let node = marshal::unmarshal_ref(&frame[1..]).expect("a good frame");
        let mut attrs = node.attrs();
        let from = attrs.required_jid("from").expect("a sender");
        let participant = attrs.optional_jid("participant");
        let other = attrs.optional_jid(if participant.is_some() { "participant_pn" } else { "sender_pn" });
        let id = attrs.required_string("id").expect("an id").into_owned();
        let name = attrs.optional_string("notify").unwrap_or_default().into_owned();
        let time = attrs.optional_u64("t").unwrap_or_default();
        let (kind, ciphertext) = enc_of(&node);
        let padded = match (kind, in_place) {
            (Kind::SenderKey, _) => self.device.group_decrypt(&self.name, ciphertext),
            (Kind::Session, false) => self.device.decrypt(CiphertextKind::Whisper, ciphertext),
            (Kind::Session, true) => {
                let ciphertext = frame.slice_ref(ciphertext);
                drop(node);
                drop(frame);
                self.device.decrypt_owned(ciphertext)
            }
        };
        let message = decode(&padded.expect("a good message"));
        Received { from, participant, id, name, time, other, message }
    }
}

enum Kind {
    Session,
    SenderKey,
}

/// The ciphertext of a stanza, and what it is.
fn enc_of<'a>(node: &'a NodeRef<'_>) -> (Kind, &'a [u8]) {
    let enc = node.get_optional_child("enc").expect("a ciphertext");
    let mut attrs = enc.attrs();
    assert_eq!(attrs.optional_u64("v"), Some(2));
    let kind = match attrs.required_string("type").expect("a type").as_ref() {
        "skmsg" => Kind::SenderKey,
        "msg" => Kind::Session,
        other => panic!("{other} instead of a msg"),
    };
    (kind, bytes(enc))
}

fn bytes<'a>(node: &'a NodeRef<'_>) -> &'a [u8] {
    match &node.content {
        Some(NodeContentRef::Bytes(bytes)) => bytes,
        _ => panic!("no bytes"),
    }
}

/// Takes the padding off, and reads what is left.
fn decode(padded: &[u8]) -> Message {
    let pad = *padded.last().expect("padding");
    let (plain, padding) = padded.split_at(padded.len().checked_sub(usize::from(pad)).expect("padding"));
    assert!(pad > 0 && padding.iter().all(|byte| *byte == pad), "padding");
    Message::decode_from_slice(plain).expect("a message")
}

/// What was received, as one number.
pub fn checksum(received: &Received) -> u64 {
    let sender = received.participant.as_ref().unwrap_or(&received.from);
    assert!(received.other.is_some(), "the other identity");
    let text = received.message.conversation.as_deref().unwrap_or_default();
    sum([&received.id, &sender.user, &received.name, text]) + received.time + u64::from(sender.device)
}

/// The message that a sent frame has for a device.
pub fn read_sent(receiver: &mut Theirs, to: &Target, frame: &[u8]) -> Message {
    let node = marshal::unmarshal_ref(&frame[1..]).expect("a good frame");
    let participants = node.get_optional_child("participants").expect("participants");
    let jid = Jid::lid_device(to.user.as_str(), to.device);
    let mut devices = participants.get_children_by_tag("to");
    let to = devices.find(|device| device.attrs().optional_jid("jid").as_ref() == Some(&jid)).expect("the device");
    let enc = to.get_optional_child("enc").expect("a ciphertext");
    assert_eq!(enc.attrs().optional_string("type").as_deref(), Some("msg"));
    decode(&receiver.decrypt(CiphertextKind::Whisper, bytes(enc)).expect("a good message"))
}

/// The skmsg of a sent frame.
pub fn sent_body(frame: &[u8]) -> Vec<u8> {
    let node = marshal::unmarshal_ref(&frame[1..]).expect("a good frame");
    bytes(node.get_optional_child("enc").expect("a ciphertext")).to_vec()
}
