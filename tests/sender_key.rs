//! Group messages are made, read and refused as by other implementations: `vectors/sender_key.json` (spec 03 §3).
//!
//! Distribution, gaps, late messages, repeated distribution, rotation, the jump limit, malformed input.

use std::{collections::BTreeMap, convert::Infallible};

use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use wamd::{
    crypto::{KeyPair, PrivateKey, PublicKey, Secret, xeddsa::VerifyingKey},
    signal::{
        Address, SignalError, StepError,
        sender_key::{
            self, Processed, SenderKeyId, SenderKeyName, SenderKeyPageId, SenderKeyRecord, SenderKeySerial,
            SenderKeyStore, memory::MemorySenderKeyStore, wire::DistributionMessage,
        },
    },
};

const FILE: &str = include_str!("vectors/sender_key.json");
const GROUP: &str = "120363000000000000@g.us";

#[test]
fn bytes_verdicts_and_states_agree() {
    let counts = replay(false);
    let verdicts = ["ok", "duplicate", "invalid", "no_sender_key"].map(|v| counts[&format!("decrypt {v}")]);
    assert_eq!((verdicts, counts["process_skdm ok"], counts["process_skdm invalid"]), ([10, 3, 7, 2], 3, 4));
    assert_eq!((counts["encrypt"], counts["create"], counts["make_skdm"], counts["receiver_states"]), (12, 2, 1, 1));
}

#[test]
fn they_agree_after_a_reload_at_every_step() {
    assert_eq!(replay(true), replay(false));
}

/// Replays the transcripts; returns how many steps of each kind and verdict were checked.
fn replay(reload: bool) -> BTreeMap<String, usize> {
    let file: Value = serde_json::from_str(FILE).expect("vector file is JSON");
    let mut counts = BTreeMap::new();
    for transcript in file["transcripts"].as_array().expect("transcripts") {
        let mut world = World::new();
        for (number, step) in transcript["steps"].as_array().expect("steps").iter().enumerate() {
            let at = format!("step {number}: {} {}", step["op"], step["note"]);
            let before = world.receiver.encode();
            let kind = world.run(step, &at);
            if kind.ends_with("invalid") || kind.ends_with("duplicate") || kind.ends_with("no_sender_key") {
                assert!(world.receiver.encode() == before, "{at}: a refused message changed the store");
            }
            if reload {
                world.sender.reload().expect("own records decode");
                world.receiver.reload().expect("records decode");
            }
            *counts.entry(kind).or_default() += 1;
        }
    }
    counts
}

struct World {
    sender: MemorySenderKeyStore,
    receiver: MemorySenderKeyStore,
    name: SenderKeyName,
}

impl World {
    fn new() -> Self {
        let name = SenderKeyName::new(GROUP, Address::new("1.0:2@lid"));
        Self { sender: MemorySenderKeyStore::new(), receiver: MemorySenderKeyStore::new(), name }
    }

    /// Runs a step and says what kind it was, with the verdict.
    fn run(&mut self, step: &Value, at: &str) -> String {
        match step["op"].as_str().expect("op") {
            "create" => self.create(step, at),
            "make_skdm" => {
                let message = sender_key::distribute(&mut self.sender, &self.name, &mut Script::empty());
                let Ok(message) = message;
                assert_eq!(hex::encode(message.encode()), text(&step["bytes"]), "{at}");
            }
            "encrypt" => self.encrypt(step, at),
            "advance" => self.advance(step),
            "process_skdm" => return format!("process_skdm {}", self.process(step, at)),
            "decrypt" => return format!("decrypt {}", self.decrypt(step, at)),
            "receiver_states" => self.check_states(step, at),
            other => panic!("unknown step {other}"),
        }
        text(&step["op"]).to_owned()
    }

    /// The key is drawn in the order that is documented: id, chain key, signing key.
    fn create(&mut self, step: &Value, at: &str) {
        let state = &step["state"];
        let id = u32::try_from(state["key_id"].as_u64().expect("key id")).expect("key id");
        let random = [&(id << 1).to_be_bytes()[..], &bytes(&state["chain_key"]), &bytes(&state["signing_priv"])];
        let mut rng = Script { bytes: random.concat(), at: 0 };
        let message = sender_key::rotate(&mut self.sender, &self.name, &mut rng);
        assert_eq!(rng.at, rng.bytes.len(), "{at}: all of the randomness is used");
        assert_eq!(hex::encode(message.encode()), text(&step["skdm"]), "{at}");
        assert_eq!(hex::encode(message.signing.as_bytes()), text(&state["signing_pub"]), "{at}");
        assert_eq!(DistributionMessage::decode(&message.encode()), Ok(message), "{at}");
    }

    fn encrypt(&mut self, step: &Value, at: &str) {
        let mut rng = Script { bytes: bytes(&step["signature_random"]), at: 0 };
        let sent = sender_key::encrypt(&mut self.sender, &self.name, &bytes(&step["plaintext"]), &mut rng);
        assert_eq!(hex::encode(sent.expect(at)), text(&step["bytes"]), "{at}");
    }

    fn advance(&mut self, step: &Value) {
        let Ok(key) = self.sender.own_sender_key(&self.name);
        let (mut key, mut left) = (key.expect("own key"), step["count"].as_u64().expect("count") as u32);
        // A single jump of a receiver's limit is the most that a sender may take at once.
        while left > 0 {
            let jump = left.min(sender_key::MAX_JUMP);
            key.advance(key.position().iteration + jump).expect("within the limit");
            left -= jump;
        }
        self.sender.put_own_sender_key(&self.name, key);
    }

    fn process(&mut self, step: &Value, at: &str) -> String {
        let expected = text(&step["expect"]).to_owned();
        let found = sender_key::process(&mut self.receiver, &self.name, &bytes(&step["bytes"]));
        match (&*expected, found) {
            ("ok", Ok(processed)) => {
                let expected = if at.contains("same id") { Processed::Known } else { Processed::Added };
                assert_eq!(processed, expected, "{at}");
            }
            ("invalid", Err(StepError::Signal(error))) => match text(&step["why"]) {
                "version" => assert_eq!(error, SignalError::Version(2), "{at}"),
                "lengths" => {
                    assert!(matches!(error, SignalError::Malformed(_) | SignalError::Key(_)), "{at}: {error}")
                }
                "fields" => assert_eq!(error, SignalError::Malformed("iteration is missing"), "{at}"),
                other => panic!("{at}: unknown reason {other}"),
            },
            (_, found) => panic!("{at}: {found:?}"),
        }
        expected
    }

    fn decrypt(&mut self, step: &Value, at: &str) -> String {
        let expected = text(&step["expect"]).to_owned();
        let senders = [self.name.sender().clone()];
        let found = sender_key::decrypt(&mut self.receiver, GROUP, &senders, &bytes(&step["bytes"]));
        match (&*expected, found) {
            ("ok", Ok(found)) => assert_eq!(hex::encode(found.plaintext), text(&step["plaintext"]), "{at}"),
            ("duplicate", Err(StepError::Signal(SignalError::Duplicate))) => {}
            ("no_sender_key", Err(StepError::Signal(error))) => {
                assert_eq!((error, error.retry_reason()), (SignalError::NoSenderKey, 1), "{at}");
            }
            ("invalid", Err(StepError::Signal(error))) => match text(&step["why"]) {
                "signature" => assert_eq!((error, error.retry_reason()), (SignalError::BadSignature, 5), "{at}"),
                "too far" => {
                    assert_eq!(error, SignalError::TooFarAhead { jump: 4_101, max: 2_000 }, "{at}");
                    assert_eq!(error.retry_reason(), 6, "{at}");
                }
                "version/length" => {
                    assert!(matches!(error, SignalError::Version(2) | SignalError::Malformed(_)), "{at}: {error}");
                }
                other => panic!("{at}: unknown reason {other}"),
            },
            (_, found) => panic!("{at}: {found:?}"),
        }
        expected
    }

    /// Compares the whole receiving record with the snapshot, by building it anew from there.
    fn check_states(&mut self, step: &Value, at: &str) {
        let Ok(record) = self.receiver.sender_key(&self.name);
        let record = record.expect("a record");
        let states = step["states"].as_array().expect("states");
        assert_eq!(record.positions().count(), states.len(), "{at}");
        let mut expected = vec![1, 0, 0, 0, states.len() as u8, 0, states.len() as u8];
        for (serial, state) in states.iter().rev().enumerate().rev() {
            let iteration = state["iteration"].as_u64().expect("iteration") as u32;
            expected.extend((serial as u32).to_be_bytes());
            expected.extend((state["key_id"].as_u64().expect("key id") as u32).to_be_bytes());
            let signing = bytes(&state["signing_pub"]);
            let verifying = VerifyingKey::new(&PublicKey::from_slice(&signing).expect("32 bytes")).expect("a point");
            expected.extend(signing);
            expected.push(1);
            expected.extend(verifying.as_bytes());
            expected.extend(iteration.to_be_bytes());
            expected.extend(bytes(&state["chain_key"]));
            let skipped = state["skipped"].as_object().expect("skipped");
            let counters: Vec<u32> = skipped.keys().map(|at| at.parse().expect("iteration")).collect();
            assert!(counters.iter().all(|&at| at < 64), "{at}: one page");
            expected.extend([0, u8::from(!counters.is_empty())]);
            if counters.is_empty() {
                continue;
            }
            let bitmap = counters.iter().fold(0u64, |bits, at| bits | 1 << at);
            expected.extend(0u32.to_be_bytes());
            expected.extend(bitmap.to_be_bytes());
            let id = SenderKeyPageId { serial: SenderKeySerial(serial as u32), page: 0 };
            let Ok(page) = self.receiver.sender_key_page(&self.name, id);
            let mut seeds: Vec<(u32, Vec<u8>)> =
                counters.iter().map(|at| (*at, bytes(&skipped[&at.to_string()]))).collect();
            seeds.sort_unstable();
            let seeds: Vec<u8> = seeds.into_iter().flat_map(|(_, seed)| seed).collect();
            let page = page.expect("the page of the skipped keys").encode();
            assert_eq!(page, [&[1][..], &bitmap.to_be_bytes(), &[0; 8], &seeds].concat(), "{at}");
        }
        assert_eq!(hex::encode(record.encode()), hex::encode(&expected), "{at}");
        assert_eq!(SenderKeyRecord::decode(&expected), Ok(record), "{at}");
    }
}

/// The first vector's intermediate values, derived here from the chain key alone.
#[test]
fn the_key_schedule_is_that_of_the_trace() {
    use wamd::crypto::{aes256_cbc_encrypt, hkdf_sha256, hmac_sha256};

    let file: Value = serde_json::from_str(FILE).expect("vector file is JSON");
    let steps = file["transcripts"][0]["steps"].as_array().expect("steps").iter();
    let mut seen = 0;
    for step in steps.filter(|step| step["trace"].is_object()) {
        let trace = &step["trace"];
        let seed = hmac_sha256(&bytes(&trace["chain_key"]), &[&[0x01]]);
        assert_eq!(hex::encode(seed), text(&trace["message_key_seed"]));
        let okm: [u8; 48] = hkdf_sha256(None, &seed, b"WhisperGroup");
        let (iv, key) = okm.split_first_chunk::<16>().expect("16 of 48 bytes");
        assert_eq!((hex::encode(iv), hex::encode(key)), (text(&trace["iv"]).into(), text(&trace["cipher_key"]).into()));
        let sealed = aes256_cbc_encrypt(key.try_into().expect("32 bytes"), iv, &bytes(&step["plaintext"]));
        assert_eq!(hex::encode(sealed), text(&trace["aes_ciphertext"]));
        seen += 1;
    }
    assert_eq!(seen, 2);
}

/// A key that is not of type 5, and one that is, under the same id: the newer one counts (spec 03 §3.2).
#[test]
fn the_same_id_with_another_signing_key_replaces() {
    let mut world = World::new();
    let message = |seed: u8| DistributionMessage {
        id: SenderKeyId(5),
        iteration: 0,
        chain_key: Secret::new([seed; 32]),
        signing: *KeyPair::from_private(PrivateKey::from_bytes([seed; 32])).public(),
    };
    let process = |world: &mut World, seed| {
        sender_key::process(&mut world.receiver, &world.name, &message(seed).encode()).expect("good message")
    };
    assert_eq!(process(&mut world, 1), Processed::Added);
    assert_eq!(process(&mut world, 1), Processed::Known);
    assert_eq!(process(&mut world, 2), Processed::Replaced);
    let Ok(record) = world.receiver.sender_key(&world.name);
    assert_eq!(record.expect("record").positions().collect::<Vec<_>>(), [(SenderKeyId(5), 0)]);
    let untyped: PublicKey = message(1).signing;
    let mut bytes = message(1).encode();
    let at = bytes.len() - 33;
    bytes[at] = 6;
    assert_eq!(&bytes[at + 1..], untyped.as_bytes());
    let refused = sender_key::process(&mut world.receiver, &world.name, &bytes);
    assert!(matches!(refused, Err(StepError::Signal(SignalError::Key(_)))));
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(text(value)).expect("hex")
}

/// Gives out the bytes of a vector in order.
struct Script {
    bytes: Vec<u8>,
    at: usize,
}

impl Script {
    const fn empty() -> Self {
        Self { bytes: Vec::new(), at: 0 }
    }
}

impl TryRng for Script {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("keys are filled, not drawn by number")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("keys are filled, not drawn by number")
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.copy_from_slice(&self.bytes[self.at..self.at + to.len()]);
        self.at += to.len();
        Ok(())
    }
}

impl TryCryptoRng for Script {}
