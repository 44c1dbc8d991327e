//! For unit tests: the account whose sends are planned, with its records on the desk, and devices of others that read what it
//! encrypts.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::SendOp;
use crate::{
    clock::Now,
    crypto::{KeyPair, xeddsa},
    engine::{
        Config,
        account::Account,
        address::{self, User},
        cache::Cache,
        fuzz::linked_account,
        retry,
        step::{Collected, Frame, Miss, Step, own},
    },
    jid::Jid,
    message::{self, MessageId, padding},
    node::Node,
    proto::e2e,
    signal::{
        self, Address, CiphertextKind, Own, PreKeyBundle, PreKeyId, SignedPreKeyId,
        memory::MemorySignalStore,
        sender_key::{self, SenderKeyName, memory::MemorySenderKeyStore},
    },
    store::{AccountId, Key},
};

/// The own account: device 2 of this number.
pub(super) const OWN_PN: &str = "15550000001:2@s.whatsapp.net";
/// The same by LID.
pub(super) const OWN_LID: &str = "100000000000001:2@lid";

pub(super) fn jid(text: &str) -> Jid {
    text.parse().unwrap()
}

/// The records of one account.
pub(super) struct Desk {
    pub(super) records: BTreeMap<Key, Bytes>,
    pub(super) account: Arc<Account>,
    config: Config,
    rng: ChaCha20Rng,
}

impl Desk {
    pub(super) fn new() -> Self {
        let mut rng = ChaCha20Rng::from_seed([7; 32]);
        let account = linked_account(&mut rng, &jid(OWN_PN), &jid(OWN_LID));
        let config = Config::new(AccountId::new("desk"));
        Self { records: BTreeMap::new(), account: Arc::new(account), config, rng }
    }

    /// Runs a handler as the engine does: as often as it misses records, with its writes kept in the end. Gives what it
    /// answered and the stanzas that it sent.
    pub(super) fn run<T>(&mut self, handler: impl Fn(&mut Step<'_>) -> Result<T, Miss>) -> (T, Vec<Node>) {
        let (mut cache, retries) = (Cache::new(1 << 24), retry::Memory::default());
        let now = Now { mono: std::time::Duration::ZERO, wall_ms: 1_760_000_000_000 };
        for _ in 0..10 {
            let mut step = Step::new(now, &self.config, &mut self.rng, &mut cache, &retries, Arc::clone(&self.account));
            match handler(&mut step) {
                Ok(value) => {
                    let Collected { overlay, frames, .. } = step.collect();
                    for (key, value) in overlay {
                        match value {
                            Some(value) => drop(self.records.insert(key, value)),
                            None => drop(self.records.remove(&key)),
                        }
                    }
                    return (value, frames.into_iter().map(decoded).collect());
                }
                Err(Miss) => {
                    let missing = step.needs.missing;
                    let load = |key: Key| (key.clone(), self.records.get(&key).cloned());
                    cache.fill(missing.into_iter().map(load).collect(), 0);
                }
            }
        }
        panic!("the handler never has what it needs");
    }

    /// Runs a handler that sends nothing.
    pub(super) fn get<T>(&mut self, handler: impl Fn(&mut Step<'_>) -> Result<T, Miss>) -> T {
        let (value, sent) = self.run(handler);
        assert_eq!(sent, []);
        value
    }

    pub(super) fn user(&mut self, text: &str) -> User {
        self.get(|step| address::user(step, &jid(text)))
    }

    /// Starts a session with a device.
    pub(super) fn meet(&mut self, device: &Device) {
        let account = Arc::clone(&self.account);
        self.get(|step| {
            let address = address::device(step, &device.jid)?;
            let mut rng = ChaCha20Rng::from_seed([9; 32]);
            match signal::establish(step, &own(&account), &address, &device.bundle, &mut rng) {
                Ok(_) => Ok(()),
                Err(signal::StepError::Miss(miss)) => Err(miss),
                Err(other) => panic!("{other:?}"),
            }
        });
    }
}

fn decoded(frame: Frame) -> Node {
    Node::decode(frame).unwrap()
}

/// A send to nobody yet.
pub(super) fn op(id: &str, message: &e2e::Message) -> SendOp {
    let now = Now { mono: std::time::Duration::ZERO, wall_ms: 1_760_000_000_000 };
    SendOp::new(0, MessageId::new(id).unwrap(), message, now)
}

/// A device of somebody.
pub(super) struct Device {
    pub(super) jid: Jid,
    identity: KeyPair,
    bundle: PreKeyBundle,
    store: MemorySignalStore,
    sender_keys: MemorySenderKeyStore,
}

impl Device {
    pub(super) fn new(text: &str) -> Self {
        let mut seed = [0; 32];
        seed[..text.len()].copy_from_slice(text.as_bytes());
        let mut rng = ChaCha20Rng::from_seed(seed);
        let [identity, signed, one_time] = [(); 3].map(|()| KeyPair::generate(&mut rng));
        let bundle = PreKeyBundle {
            registration_id: 1,
            identity: *identity.public(),
            signed_pre_key_id: SignedPreKeyId(1),
            signed_pre_key: *signed.public(),
            signature: xeddsa::sign(identity.private(), &[&signed.public().to_typed()], &mut rng),
            pre_key: Some((PreKeyId(1), *one_time.public())),
        };
        let mut store = MemorySignalStore::new();
        store.put_signed_pre_key(SignedPreKeyId(1), signed);
        store.put_pre_key(PreKeyId(1), one_time);
        Self { jid: jid(text), identity, bundle, store, sender_keys: MemorySenderKeyStore::new() }
    }

    /// Decrypts an `<enc>` from the account on the desk, takes the sender key in it, and gives the message.
    pub(super) fn read(&mut self, enc: &Node) -> e2e::Message {
        let sender = Address::new(OWN_LID);
        let bytes = enc.content_bytes().unwrap();
        let kind = match enc.attr_str("type").as_deref().unwrap() {
            "pkmsg" => CiphertextKind::PreKey,
            "msg" => CiphertextKind::Whisper,
            other => panic!("{other}"),
        };
        let own = Own { identity: &self.identity, registration_id: 1 };
        let decrypted = signal::decrypt(&mut self.store, &own, &sender, kind, &bytes).unwrap();
        let message = message::decode(padding::unpad(2, &decrypted.plaintext).unwrap()).unwrap();
        if let Some((chat, key)) = message::build::handed_sender_key(&message) {
            let name = SenderKeyName::new(chat, sender);
            sender_key::process(&mut self.sender_keys, &name, key).unwrap();
        }
        message
    }

    /// Reads the `skmsg` of a stanza.
    pub(super) fn read_group(&mut self, chat: &Jid, enc: &Node) -> Option<e2e::Message> {
        assert_eq!(enc.attr_str("type").as_deref(), Some("skmsg"));
        let bytes = enc.content_bytes().unwrap();
        let senders = [Address::new(OWN_LID)];
        let read = sender_key::decrypt(&mut self.sender_keys, &chat.to_string(), &senders, &bytes).ok()?;
        Some(message::decode(padding::unpad(2, &read.plaintext).unwrap()).unwrap())
    }
}
