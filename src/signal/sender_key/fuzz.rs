//! One-line entries for fuzz targets. They hold on every input; a panic is a finding.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{
    OwnSenderKey, SenderKeyId, SenderKeyName, SenderKeyRecord, SenderKeyStore, decrypt, distribute, encrypt,
    memory::MemorySenderKeyStore,
    process, rotate,
    wire::{DistributionMessage, SenderKeyMessage},
};
use crate::{
    crypto::{
        KeyPair, PrivateKey,
        xeddsa::{self, SigningKey, VerifyingKey},
    },
    signal::{Address, SignalError, StepError},
};

const GROUP: &str = "1@g.us";

/// Feeds `bytes` to a reader of messages; the first byte chooses which. Records are read by
/// [`session_record`](crate::signal::fuzz::session_record).
///
/// # Panics
/// When one of the properties of the others does not hold, which is what the fuzzer looks for.
pub fn sender_key_message(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 3 {
        0 => decode_messages(bytes),
        1 => receive(bytes),
        _ => converse(bytes),
    }
}

/// Decodes arbitrary bytes as each message; what decodes survives its canonical form.
pub fn decode_messages(bytes: &[u8]) {
    if let Ok(message) = DistributionMessage::decode(bytes) {
        assert_eq!(DistributionMessage::decode(&message.encode()), Ok(message), "distribution");
    }
    if let Ok(message) = SenderKeyMessage::decode(bytes) {
        let (mut pair, mut rng) = (SigningKey::new(signing()), ChaCha20Rng::from_seed([7; 32]));
        let mut canonical = SenderKeyMessage::begin(message.id, message.iteration, message.ciphertext.len());
        canonical.extend_from_slice(message.ciphertext);
        SenderKeyMessage::sign(&mut canonical, &mut pair, &mut rng);
        let again = SenderKeyMessage::decode(&canonical).map(|again| {
            let verifying = VerifyingKey::new(pair.pair().public());
            assert_eq!(verifying.map(|key| again.verify(&key)), Some(Ok(())));
            (again.id, again.iteration, again.ciphertext)
        });
        assert_eq!(again, Ok((message.id, message.iteration, message.ciphertext)), "skmsg");
    }
}

/// Decodes arbitrary bytes as each record; what decodes encodes to something equal.
pub fn decode_records(bytes: &[u8]) {
    if let Ok(record) = OwnSenderKey::decode(bytes) {
        assert_eq!(OwnSenderKey::decode(&record.encode()).as_ref(), Ok(&record), "own sender key");
    }
    if let Ok(record) = SenderKeyRecord::decode(bytes) {
        assert_eq!(SenderKeyRecord::decode(&record.encode()), Ok(record), "sender key");
    }
}

/// Arbitrary bytes in the place of what another device sends. Each piece is a byte that says how to take it, its length
/// (16 bits) and its bytes: a distribution message, a group message, or the body of one, which then gets a good signature.
pub fn receive(mut bytes: &[u8]) {
    let (mut store, sender) = (MemorySenderKeyStore::new(), Address::new("a"));
    let name = SenderKeyName::new(GROUP, sender.clone());
    let known = DistributionMessage {
        id: SenderKeyId(1),
        iteration: 0,
        chain_key: crate::crypto::Secret::new([5; 32]),
        signing: *signing().public(),
    };
    assert!(process(&mut store, &name, &known.encode()).is_ok());
    while let Some(([kind, high, low], rest)) = bytes.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let Some((piece, rest)) = rest.split_at_checked(len) else { return };
        bytes = rest;
        let before = store.encode();
        let refused = match kind % 3 {
            0 => process(&mut store, &name, piece).is_err(),
            1 => decrypt(&mut store, GROUP, std::slice::from_ref(&sender), piece).is_err(),
            _ => {
                let signature = xeddsa::sign_with(signing().private(), &[piece], &[7; 64]);
                let signed = [piece, &signature].concat();
                let refused = decrypt(&mut store, GROUP, std::slice::from_ref(&sender), &signed).is_err();
                let again = decrypt(&mut store, GROUP, std::slice::from_ref(&sender), &signed);
                assert!(again.is_err(), "a message was read twice");
                refused
            }
        };
        assert!(!refused || store.encode() == before, "a refused message changed the store");
        check_store(&mut store, &name);
    }
}

/// Two devices, one of which sends; each byte is a step: distribute, rotate, send a message and skip up to 992 iterations
/// behind it, deliver one of the messages sent, again if it was delivered before. Nothing is read twice.
pub fn converse(bytes: &[u8]) {
    let (mut rng, own) = (ChaCha20Rng::from_seed([7; 32]), SenderKeyName::new(GROUP, Address::new("a")));
    let (mut sender, mut receiver) = (MemorySenderKeyStore::new(), MemorySenderKeyStore::new());
    let mut sent = Vec::new();
    for &byte in bytes.iter().take(128) {
        let value = usize::from(byte >> 2);
        match byte & 3 {
            0 => {
                let Ok(message) = distribute(&mut sender, &own, &mut rng);
                assert!(process(&mut receiver, &own, &message.encode()).is_ok());
            }
            1 if value == 0 => drop(rotate(&mut sender, &own, &mut rng)),
            1 => {
                let number = sent.len().to_be_bytes();
                match encrypt(&mut sender, &own, &number, &mut rng) {
                    Ok(bytes) => sent.push((bytes, false)),
                    Err(error) => assert_eq!(error, StepError::Signal(SignalError::NoSenderKey)),
                }
                skip(&mut sender, &own, value.saturating_sub(1));
            }
            _ => {
                let Some(at) = sent.len().checked_sub(value.saturating_add(1)) else { continue };
                let Some((message, was_read)) = sent.get_mut(at) else { continue };
                let found = decrypt(&mut receiver, GROUP, std::slice::from_ref(own.sender()), message);
                match found {
                    Ok(found) => {
                        assert!(!*was_read, "a message was read twice");
                        assert_eq!(found.plaintext, at.to_be_bytes());
                        *was_read = true;
                    }
                    Err(StepError::Signal(SignalError::Duplicate | SignalError::NoSenderKey)) => {}
                    Err(other) => assert!(matches!(other, StepError::Signal(SignalError::TooFarAhead { .. }))),
                }
            }
        }
        check_store(&mut receiver, &own);
    }
}

/// Moves our own chain on by 16 times `count`, as a sender does that crashed with a lease.
fn skip(store: &mut MemorySenderKeyStore, own: &SenderKeyName, count: usize) {
    let Ok(Some(mut key)) = store.own_sender_key(own) else { return };
    let by = u32::try_from(count).unwrap_or_default().saturating_mul(16);
    assert_eq!(key.advance(key.position().iteration.saturating_add(by)), Ok(()));
    store.put_own_sender_key(own, key);
}

/// Records survive their encoding, and no page is without its key.
fn check_store(store: &mut MemorySenderKeyStore, name: &SenderKeyName) {
    let before = store.clone();
    assert_eq!(store.reload(), Ok(()));
    assert!(*store == before, "a record changed by its encoding");
    let Ok(record) = store.sender_key(name);
    let pages = record.map_or(0, |record| record.page_ids().count());
    assert_eq!(pages, store.page_count(name), "pages and index agree");
}

fn signing() -> KeyPair {
    KeyPair::from_private(PrivateKey::from_bytes([3; 32]))
}
