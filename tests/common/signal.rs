//! Replays the transcripts of `vectors/signal_x3dh.json` and `vectors/double_ratchet.json`: two parties, step by step.

use std::{collections::BTreeMap, convert::Infallible};

use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use wamd::{
    crypto::{KeyPair, PrivateKey, PublicKey, xeddsa},
    signal::{
        self, Address, CiphertextKind, Own, PreKeyBundle, PreKeyId, SignalError, SignalStore, SignedPreKeyId, State,
        StepError,
        import::{Snapshot, import_record},
        memory::MemorySignalStore,
    },
};

/// What happens to the records between two steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Storage {
    /// They stay as they are.
    Keep,
    /// Each is encoded and decoded.
    Reload,
    /// Where the transcript has a snapshot, the party goes on with that one.
    Import,
    /// As [`Self::Keep`], and a turn is made whole as soon as the other side has turned.
    Whole,
}

/// Replays all transcripts of a file; returns how many steps of each kind were checked.
pub(crate) fn replay_file(text: &str, storage: Storage) -> BTreeMap<String, usize> {
    let file: Value = serde_json::from_str(text).expect("vector file is JSON");
    let mut counts = BTreeMap::new();
    for transcript in file["transcripts"].as_array().expect("transcripts") {
        let name = transcript["name"].as_str().expect("name");
        let mut parties = [Party::new(&transcript["parties"]["alice"]), Party::new(&transcript["parties"]["bob"])];
        for (number, step) in transcript["steps"].as_array().expect("steps").iter().enumerate() {
            let op = step["op"].as_str().expect("op");
            let at = format!("{name}, step {number} ({op} {})", step["note"].as_str().unwrap_or_default());
            let me = usize::from(step["party"] == "bob");
            match op {
                "establish" => parties[me].establish(&parties[1 - me].bundle(step), step, &at),
                "encrypt" => parties[me].encrypt(step, &at),
                "encrypt_and_drop" => parties[me].encrypt_and_drop(step),
                "decrypt" => {
                    let expected = parties[me].decrypt(step, &at);
                    if storage == Storage::Whole {
                        parties[me].begin_sending(&at);
                    }
                    *counts.entry(format!("decrypt {expected}")).or_default() += 1;
                }
                "state" => parties[me].check_state(step, storage, &at),
                other => panic!("unknown step {other}"),
            }
            if storage == Storage::Reload {
                parties.iter_mut().for_each(|party| party.store.reload().expect("records decode"));
            }
            *counts.entry(op.to_owned()).or_default() += 1;
        }
    }
    counts
}

struct Party {
    identity: KeyPair,
    registration_id: u32,
    signed_pre_key: (SignedPreKeyId, PublicKey),
    signature: [u8; 64],
    pre_keys: Vec<(PreKeyId, PublicKey)>,
    store: MemorySignalStore,
    /// The other party. There are only two, so one name will do.
    peer: Address,
    /// The ratchet keys to draw when something is sent, by the base key of the state that waits for it.
    due: BTreeMap<PublicKey, [u8; 32]>,
}

impl Party {
    fn new(value: &Value) -> Self {
        let identity = pair(value, "identity_priv", "identity_pub");
        let signed = &value["signed_pre_key"];
        let (id, key) = (SignedPreKeyId(number(&signed["id"])), pair(signed, "priv", "pub"));
        let signature = array(&signed["signature"]);
        let signed_bytes = key.public().to_typed();
        let made = xeddsa::sign_with(identity.private(), &[&signed_bytes], &array(&signed["signature_random"]));
        assert_eq!(made, signature, "signature of the signed prekey");
        let mut store = MemorySignalStore::new();
        let signed_pre_key = (id, *key.public());
        store.put_signed_pre_key(id, key);
        let mut pre_keys = Vec::new();
        for value in value["one_time_pre_keys"].as_array().expect("one-time prekeys") {
            let (id, key) = (PreKeyId(number(&value["id"])), pair(value, "priv", "pub"));
            pre_keys.push((id, *key.public()));
            store.put_pre_key(id, key);
        }
        let registration_id = number(&value["registration_id"]);
        let (peer, due) = (Address::new("peer"), BTreeMap::new());
        Self { identity, registration_id, signed_pre_key, signature, pre_keys, store, peer, due }
    }

    fn bundle(&self, step: &Value) -> PreKeyBundle {
        let pre_key = step["one_time_pre_key_id"].as_u64().map(|wanted| {
            *self.pre_keys.iter().find(|(id, _)| u64::from(id.0) == wanted).expect("one-time prekey of the step")
        });
        PreKeyBundle {
            registration_id: self.registration_id,
            identity: *self.identity.public(),
            signed_pre_key_id: self.signed_pre_key.0,
            signed_pre_key: self.signed_pre_key.1,
            signature: self.signature,
            pre_key,
        }
    }

    fn establish(&mut self, bundle: &PreKeyBundle, step: &Value, at: &str) {
        let mut rng = Script([&step["ratchet_priv"], &step["ephemeral_priv"]].map(array).to_vec());
        let own = Own { identity: &self.identity, registration_id: self.registration_id };
        signal::establish(&mut self.store, &own, &self.peer, bundle, &mut rng).expect(at);
        rng.finish(at);
    }

    fn encrypt(&mut self, step: &Value, at: &str) {
        let mut rng = Script(self.due_now().into_iter().collect());
        let own = Own { identity: &self.identity, registration_id: self.registration_id };
        let made = signal::encrypt(&mut self.store, &own, &self.peer, &bytes(&step["plaintext"]), &mut rng).expect(at);
        rng.finish(at);
        assert_eq!(made.kind.as_str(), step["type"].as_str().expect("type"), "{at}");
        assert_eq!(hex::encode(made.bytes), step["bytes"].as_str().expect("bytes"), "{at}");
    }

    fn encrypt_and_drop(&mut self, step: &Value) {
        for _ in 0..number(&step["count"]) {
            let mut rng = Script(self.due_now().into_iter().collect());
            let own = Own { identity: &self.identity, registration_id: self.registration_id };
            signal::encrypt(&mut self.store, &own, &self.peer, b"", &mut rng).expect("session");
            rng.finish("drop");
        }
    }

    fn decrypt(&mut self, step: &Value, at: &str) -> String {
        let kind = if step["type"] == "pkmsg" { CiphertextKind::PreKey } else { CiphertextKind::Whisper };
        let (before, input) = (self.store.encode(), bytes(&step["bytes"]));
        let own = Own { identity: &self.identity, registration_id: self.registration_id };
        let result = signal::decrypt(&mut self.store, &own, &self.peer, kind, &input);
        let expected = step["expect"].as_str().expect("expect");
        match result {
            Ok(found) => {
                assert_eq!("ok", expected, "{at}");
                assert_eq!(found.plaintext, bytes(&step["plaintext"]), "{at}");
                // A turn is read without drawing anything; what the transcript drew comes with the next message sent.
                if let key @ Value::String(_) = &step["inject_ratchet_priv"] {
                    let current = self.current();
                    assert_eq!(current.sender(), None, "{at}");
                    assert_eq!(self.due.insert(*current.base_key(), array(key)), None, "{at}");
                }
            }
            Err(StepError::Signal(failure)) => {
                assert_eq!(class(&failure), expected, "{at}: {failure}");
                assert!(self.store.encode() == before, "{at}: a refused message changed the store");
            }
            Err(StepError::Miss(never)) => match never {},
        }
        expected.to_owned()
    }

    fn check_state(&mut self, step: &Value, storage: Storage, at: &str) {
        let Ok(found) = Snapshot::read(&mut self.store, &self.peer);
        let mut found = found.expect("a session");
        let states = found.session.current().into_iter().chain(&found.states);
        let due = states.filter(|state| state.sender().is_none()).map(|state| self.due[state.base_key()]);
        let mut rng = Script(due.collect());
        rng.0.reverse();
        found.begin_sending(&mut rng);
        rng.finish(at);
        let record = bytes(&step["record_proto"]);
        assert_eq!(hex::encode(found.export()), hex::encode(&record), "{at}");
        assert_eq!(found.states.len(), number(&step["archived"]) as usize, "{at}");
        let unused: Vec<_> = self.store.pre_key_ids().map(|id| Value::from(id.0)).collect();
        assert_eq!(Value::from(unused), step["unused_one_time_pre_keys"], "{at}");
        let imported = import_record(&record).expect(at);
        assert_eq!(imported.export(), record, "{at}: export of the import");
        if storage == Storage::Import {
            let Ok(()) = signal::forget(&mut self.store, &self.peer);
            assert_eq!(self.store.page_count(&self.peer), 0, "{at}: pages left behind");
            imported.write(&mut self.store, &self.peer);
            self.due.clear();
        }
    }

    fn current(&mut self) -> State {
        let Ok(session) = self.store.session(&self.peer);
        session.expect("a session").current().expect("a state").clone()
    }

    /// The ratchet key that the next message draws, if it draws one.
    fn due_now(&mut self) -> Option<[u8; 32]> {
        let current = self.current();
        let waits = current.sender().is_none();
        waits.then(|| self.due.remove(current.base_key()).expect("a key of the transcript"))
    }

    fn begin_sending(&mut self, at: &str) {
        let Ok(Some(mut session)) = self.store.session(&self.peer) else { return };
        let waits = session.current().is_some_and(|state| state.sender().is_none());
        if waits {
            let mut rng = Script(self.due_now().into_iter().collect());
            session.current_mut().expect("a state").begin_sending(&mut rng).expect(at);
            rng.finish(at);
            self.store.put_session(&self.peer, session);
        }
    }
}

/// The word that the vectors have for a refusal.
fn class(failure: &SignalError) -> &'static str {
    match failure {
        SignalError::Duplicate => "duplicate",
        SignalError::BadMac => "bad_mac",
        SignalError::NoSession => "no_session",
        _ => "invalid",
    }
}

/// A source of the private keys that a step is to draw, and of nothing else, in reverse order.
struct Script(Vec<[u8; 32]>);

impl Script {
    fn finish(self, at: &str) {
        assert!(self.0.is_empty(), "{at}: {} keys were not drawn", self.0.len());
    }
}

impl TryRng for Script {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("keys are drawn as bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("keys are drawn as bytes")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        out.copy_from_slice(&self.0.pop().expect("no key may be drawn in this step"));
        Ok(())
    }
}

impl TryCryptoRng for Script {}

fn pair(value: &Value, private: &str, public: &str) -> KeyPair {
    let pair = KeyPair::from_private(PrivateKey::from_bytes(array(&value[private])));
    assert_eq!(pair.public().as_bytes(), &array(&value[public]), "{public}");
    pair
}

fn number(value: &Value) -> u32 {
    value.as_u64().expect("number").try_into().expect("32 bits")
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("hex text")).expect("hex")
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    bytes(value).try_into().expect("length of a byte string")
}
