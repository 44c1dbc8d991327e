//! One-line entries for fuzz targets. They hold on every input; a panic is a finding.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use super::{
    Address, ArchiveIndex, CiphertextKind, Own, PreKeyBundle, PreKeyId, Session, SignedPreKeyId, SkippedPage, State,
    StepError, decrypt, establish,
    import::import_record,
    memory::MemorySignalStore,
    wire::{PreKeyMessage, WhisperMessage},
};
use crate::crypto::{CryptoRng, KeyPair, PrivateKey, xeddsa};

/// Feeds `bytes` to a reader of this layer; the first byte chooses which.
///
/// # Panics
/// When one of the properties of the others does not hold, which is what the fuzzer looks for.
pub fn signal(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        0 => decode_messages(bytes),
        1 => decode_records(bytes),
        2 => decrypt_without_session(bytes),
        _ => decrypt_with_session(bytes, &mut ChaCha20Rng::from_seed([7; 32])),
    }
}

/// Decodes arbitrary bytes as each message; what decodes survives its canonical form.
pub fn decode_messages(bytes: &[u8]) {
    if let Ok(message) = WhisperMessage::decode(bytes) {
        let canonical = message.encode();
        let again = WhisperMessage::decode(&canonical).map(|again| again.encode());
        assert_eq!(again.as_ref(), Ok(&canonical), "msg");
    }
    if let Ok(message) = PreKeyMessage::decode(bytes) {
        assert_eq!(PreKeyMessage::decode(&message.encode()), Ok(message), "pkmsg");
    }
}

/// Decodes arbitrary bytes as each record; what decodes encodes to something equal.
pub fn decode_records(bytes: &[u8]) {
    if let Ok(record) = Session::decode(bytes) {
        assert_eq!(Session::decode(&record.encode()), Ok(record), "session");
    }
    if let Ok(record) = State::decode(bytes) {
        assert_eq!(State::decode(&record.encode()), Ok(record), "state");
    }
    if let Ok(record) = ArchiveIndex::decode(bytes) {
        assert_eq!(ArchiveIndex::decode(&record.encode()), Ok(record), "archive index");
    }
    if let Ok(record) = SkippedPage::decode(bytes) {
        assert_eq!(SkippedPage::decode(&record.encode()), Ok(record), "skipped page");
    }
    if let Ok(snapshot) = import_record(bytes) {
        assert_eq!(Session::decode(&snapshot.session.encode()), Ok(snapshot.session), "imported session");
    }
}

/// Decrypts arbitrary bytes, taken as a pkmsg if the first one is odd, in the place of a device without a session.
pub fn decrypt_without_session(bytes: &[u8]) {
    let mut store = MemorySignalStore::new();
    let pair = |seed| KeyPair::from_private(PrivateKey::from_bytes([seed; 32]));
    store.put_pre_key(PreKeyId(1), pair(1));
    store.put_signed_pre_key(SignedPreKeyId(1), pair(2));
    let identity = pair(3);
    decrypt_in(&mut store, &Own { identity: &identity, registration_id: 1 }, &Address::new("a"), bytes);
}

/// Decrypts arbitrary bytes in the place of a device that has started a session and waits for the first answer.
pub fn decrypt_with_session(bytes: &[u8], rng: &mut impl CryptoRng) {
    let pair = |seed| KeyPair::from_private(PrivateKey::from_bytes([seed; 32]));
    let (identity, peer, signed) = (pair(1), pair(2), pair(3));
    let bundle = PreKeyBundle {
        registration_id: 2,
        identity: *peer.public(),
        signed_pre_key_id: SignedPreKeyId(1),
        signed_pre_key: *signed.public(),
        signature: xeddsa::sign_with(peer.private(), &[&signed.public().to_typed()], &[0; 64]),
        pre_key: None,
    };
    let (mut store, address) = (MemorySignalStore::new(), Address::new("a"));
    let own = Own { identity: &identity, registration_id: 1 };
    assert!(establish(&mut store, &own, &address, &bundle, rng).is_ok());
    decrypt_in(&mut store, &own, &address, bytes);
}

/// Decrypts arbitrary bytes in a store. A refusal leaves it as it was.
pub fn decrypt_in(store: &mut MemorySignalStore, own: &Own<'_>, address: &Address, bytes: &[u8]) {
    let Some((&selector, bytes)) = bytes.split_first() else { return };
    let kind = if selector % 2 == 1 { CiphertextKind::PreKey } else { CiphertextKind::Whisper };
    let before = store.encode();
    match decrypt(store, own, address, kind, bytes) {
        Ok(_) => {}
        Err(StepError::Signal(_)) => assert!(store.encode() == before, "a refused message changed the store"),
        Err(StepError::Miss(never)) => match never {},
    }
}
