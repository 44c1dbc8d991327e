//! Entry point of the fuzz target, which an ordinary test replays, too.

use bytes::Bytes;

use super::{
    PairError,
    adv::{self, VerifiedIdentity},
    key_index::{self, ListSignature},
    qr::{QrContent, RefPlan},
    stanza::{self, PairIq},
};
use crate::{
    crypto::{KeyPair, PrivateKey, PublicKey, Secret, hmac_sha256},
    node::Decoder,
    proto::{Message as _, adv::AdvSignedDeviceIdentityHmac},
};

/// Feeds `data` to a reader of this layer; the first byte chooses which.
///
/// # Panics
/// When a reader panics or accepts what nobody signed, which is what the fuzzer looks for.
pub fn pairing(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 4 {
        0 => qr_text(data),
        1 => iq(data),
        2 => container(data),
        _ => blob(data),
    }
}

/// What a phone reads is what we would have written.
fn qr_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(content) = QrContent::parse(text) {
        assert_eq!(QrContent::parse(&content.text()), Ok(content));
    }
}

fn iq(data: &[u8]) {
    let mut decoder = Decoder::default();
    let Ok(node) = decoder.decode(Bytes::copy_from_slice(data)) else { return };
    if let Some(id) = stanza::iq_id(node) {
        assert!(stanza::result(&id).encode().is_ok());
        assert!(stanza::error(&id, &PairError::HmacMismatch).encode().is_ok());
    }
    if let Ok(Some(PairIq::Device(device))) = stanza::parse(node) {
        let refs = device.refs.clone();
        let mut plan = RefPlan::new(device.refs);
        for reference in refs {
            assert_eq!(plan.next_turn().map(|turn| turn.reference), Some(reference.clone()));
            // Every ref that is accepted makes a code that a phone can read.
            let client = super::payload::ClientConfig::default().client_type();
            let content = QrContent::new(reference, key(1), key(2), Secret::new([3; 32]), client);
            assert_eq!(QrContent::parse(&content.text()), Ok(content));
        }
        assert!(plan.next_turn().is_none());
    }
}

/// `data` as container, and as the content of a container whose HMAC is right.
fn container(data: &[u8]) {
    let secret = Secret::new([3; 32]);
    let verify = |container: &[u8]| adv::verify(container, &secret, &key(1));
    assert!(verify(data).is_err(), "nobody signed it");
    for account_type in [None, Some(1)] {
        let prefix: &[u8] = if account_type.is_some() { &adv::HOSTED_ACCOUNT } else { &[] };
        let sealed = AdvSignedDeviceIdentityHmac {
            details: Some(Bytes::copy_from_slice(data)),
            hmac: Some(hmac_sha256(secret.expose(), &[prefix, data]).to_vec().into()),
            account_type,
        };
        let refused: Result<VerifiedIdentity, PairError> = verify(&sealed.encode_to_vec());
        assert!(refused.is_err(), "nobody signed it");
    }
}

fn blob(data: &[u8]) {
    assert!(adv::verify_device(data, &key(1), None).is_err(), "nobody signed it");
    assert!(adv::verify_device(data, &key(1), Some(&key(2))).is_err(), "nobody signed it");
    if let Ok(list) = key_index::decode(data, Some(&key(2))) {
        assert_ne!(list.signature(), ListSignature::Verified, "nobody signed it");
        assert!(list.valid_indexes().iter().all(|index| list.accepts(*index)));
    }
}

fn key(seed: u8) -> PublicKey {
    *KeyPair::from_private(PrivateKey::from_bytes([seed; 32])).public()
}
