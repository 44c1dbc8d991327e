//! A device that no engine drives: it encrypts what a test wants to be said, and reads what it is told.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of this module, and is a crate")]

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use wamd::{
    Jid,
    crypto::{KeyPair, PublicKey},
    message::{build, padding},
    node::Node,
    proto::{Message as _, e2e},
    signal::{
        self, Address, Ciphertext, CiphertextKind, Own, PreKeyBundle, PreKeyId, SignedPreKeyId,
        memory::MemorySignalStore,
        sender_key::{self, SenderKeyName, memory::MemorySenderKeyStore},
    },
};

use crate::world::World;

/// When the stanzas of puppets were sent, unix seconds: when every world begins.
pub const SENT: u64 = crate::world::START_MS / 1_000;

/// The device.
pub struct Puppet {
    pub jid: Jid,
    identity: KeyPair,
    registration_id: u32,
    sessions: MemorySignalStore,
    keys: MemorySenderKeyStore,
    peer: Address,
    rng: ChaCha20Rng,
}

/// Accounts that are online, and the prekeys that the first of them has uploaded.
pub fn online(names: &[&'static str]) -> (World, Node) {
    let mut world = World::new(names);
    for name in names {
        world.link(name);
    }
    let heard = world.heard(names[0]);
    let is_upload = |node: &&Node| node.is("iq") && node.find_child("skey").is_some();
    let upload = heard.iter().find(is_upload).expect("prekeys are uploaded").clone();
    world.forget();
    (world, upload)
}

impl Puppet {
    /// A device with a fresh session with whoever has uploaded these keys. Every puppet of one account needs another
    /// `number`, which is also the one-time prekey that it takes.
    pub fn new(jid: &Jid, upload: &Node, number: u8) -> Self {
        let mut rng = ChaCha20Rng::from_seed([number; 32]);
        let identity = KeyPair::generate(&mut rng);
        let mut puppet = Self {
            jid: jid.clone(),
            identity,
            registration_id: 1_000 + u32::from(number),
            sessions: MemorySignalStore::new(),
            keys: MemorySenderKeyStore::new(),
            peer: Address::new("peer"),
            rng,
        };
        puppet.meet(upload, usize::from(number));
        puppet
    }

    /// Starts a session anew, with another one-time prekey.
    pub fn meet(&mut self, upload: &Node, pre_key: usize) {
        let bundle = bundle(upload, pre_key);
        let own = Own { identity: &self.identity, registration_id: self.registration_id };
        signal::establish(&mut self.sessions, &own, &self.peer, &bundle, &mut self.rng).expect("the keys are good");
    }

    /// Encrypts a payload, which is padded here, for the one that the session is with.
    pub fn seal(&mut self, payload: &[u8]) -> Node {
        let mut padded = payload.to_vec();
        padding::pad(&mut padded, &mut self.rng);
        let own = Own { identity: &self.identity, registration_id: self.registration_id };
        let Ciphertext { kind, bytes } =
            signal::encrypt(&mut self.sessions, &own, &self.peer, &padded, &mut self.rng).expect("there is a session");
        enc(kind.as_str(), bytes)
    }

    /// The same for a message.
    pub fn tell(&mut self, message: &e2e::Message) -> Node {
        self.seal(&message.encode_to_vec())
    }

    /// The message that hands over our key for a chat.
    pub fn key_for(&mut self, chat: &Jid) -> e2e::Message {
        let name = self.name(chat);
        let Ok(distribution) = sender_key::distribute(&mut self.keys, &name, &mut self.rng);
        build::sender_key_distribution(chat, distribution.encode())
    }

    /// A new key for a chat takes the place of the old one.
    pub fn rotate(&mut self, chat: &Jid) {
        let name = self.name(chat);
        sender_key::rotate(&mut self.keys, &name, &mut self.rng);
    }

    /// Encrypts a message for all of a chat.
    pub fn tell_all(&mut self, chat: &Jid, message: &e2e::Message) -> Node {
        let mut padded = message.encode_to_vec();
        padding::pad(&mut padded, &mut self.rng);
        let name = self.name(chat);
        let ciphertext = sender_key::encrypt(&mut self.keys, &name, &padded, &mut self.rng).expect("a key");
        enc("skmsg", ciphertext)
    }

    /// Reads what the other one says to this device.
    pub fn read(&mut self, enc: &Node) -> e2e::Message {
        let kind = match enc.attr_str("type").as_deref() {
            Some("msg") => CiphertextKind::Whisper,
            other => panic!("a session stands, and this is {other:?}"),
        };
        let own = Own { identity: &self.identity, registration_id: self.registration_id };
        let bytes = enc.content_bytes().expect("a ciphertext");
        let decrypted = signal::decrypt(&mut self.sessions, &own, &self.peer, kind, &bytes);
        let plaintext = decrypted.expect("it is for this device").plaintext;
        e2e::Message::decode(padding::unpad(2, &plaintext).expect("padded")).expect("a message")
    }

    fn name(&self, chat: &Jid) -> SenderKeyName {
        SenderKeyName::new(&chat.to_string(), Address::new("self"))
    }
}

/// An `<enc>`.
pub fn enc(kind: &str, bytes: impl Into<bytes::Bytes>) -> Node {
    Node::new("enc").attr("v", "2").attr("type", kind).bytes(bytes)
}

/// A message stanza of a chat with several authors.
pub fn in_chat(chat: &Jid, author: &Jid, id: &str) -> Node {
    stanza(chat, id).attr("participant", author)
}

/// A message stanza.
pub fn stanza(from: &Jid, id: &str) -> Node {
    Node::new("message").attr("from", from).attr("id", id).attr("type", "text").attr("t", SENT)
}

pub fn text(text: &str) -> e2e::Message {
    build::text(text)
}

fn bundle(upload: &Node, pre_key: usize) -> PreKeyBundle {
    let bytes = |node: &Node, tag: &str| node.find_child(tag).expect(tag).content_bytes().expect(tag).to_vec();
    let key = |bytes: Vec<u8>| PublicKey::from_slice(&bytes).expect("a public key");
    let id = |node: &Node| bytes(node, "id").iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
    let signed = upload.find_child("skey").expect("a signed prekey");
    let one_time = &upload.find_child("list").expect("one-time prekeys").child_nodes()[pre_key];
    PreKeyBundle {
        registration_id: u32::from_be_bytes(bytes(upload, "registration").try_into().expect("four bytes")),
        identity: key(bytes(upload, "identity")),
        signed_pre_key_id: SignedPreKeyId(id(signed)),
        signed_pre_key: key(bytes(signed, "value")),
        signature: bytes(signed, "signature").try_into().expect("a signature"),
        pre_key: Some((PreKeyId(id(one_time)), key(bytes(one_time, "value")))),
    }
}
