//! Entry point of the fuzz target, which an ordinary test replays, too.

use bytes::Bytes;

use super::{
    PairError,
    adv::{self, VerifiedIdentity},
    code::{self, FinishRandom, Keys},
    notice::{self, LinkNotice},
    passkey::{self, Commitment},
    payload::ClientConfig,
    qr::{QrContent, RefPlan},
    stanza::{self, PairIq},
};
use crate::{
    crypto::{KeyPair, PrivateKey, PublicKey, Secret, hmac_sha256},
    node::{Decoder, NodeRef},
    proto::{Message as _, adv::AdvSignedDeviceIdentityHmac},
};

/// Feeds `data` to a reader of this layer; the first byte chooses which.
///
/// # Panics
/// When a reader panics or accepts what nobody signed, which is what the fuzzer looks for.
pub fn pairing(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 4 {
        0 => texts(data),
        1 => stanzas(data),
        2 => container(data),
        _ => blob(data),
    }
}

/// What a phone reads is what we would have written; numbers and codes of a caller are what they say.
fn texts(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(phone) = text.parse::<code::PhoneNumber>() {
        assert_eq!(phone.as_str().parse(), Ok(phone));
    }
    if let Ok(code) = text.parse::<code::PairCode>() {
        assert_eq!((code.as_str().len(), code.shown().parse()), (code::CODE_LEN, Ok(code)));
    }
    if let Ok(content) = QrContent::parse(text) {
        assert_eq!(QrContent::parse(&content.text()), Ok(content));
    }
}

/// Every stanza of linking that the server may send.
fn stanzas(data: &[u8]) {
    let mut decoder = Decoder::default();
    let Ok(node) = decoder.decode(Bytes::copy_from_slice(data)) else { return };
    iq(node);
    answers(node);
    if let Some(notice) = notice::parse(node) {
        link_notice(notice);
    }
}

fn answers(node: NodeRef<'_>) {
    if let Ok(reference) = code::parse_reference(node) {
        assert!(!reference.is_empty() && reference.len() <= code::MAX_REFERENCE_LEN);
    }
    if let Ok(options) = passkey::parse_options(node) {
        assert!(!options.is_empty() && options.len() <= passkey::MAX_OPTIONS_LEN);
    }
    if let Ok(reference) = passkey::parse_reference(node) {
        let prologue = commitment(reference).prologue();
        assert!(passkey::handoff_proof(&Secret::new([3; 32]), &prologue) != [0; 32]);
    }
}

/// What a phone says leads to an answer that can be sent, or is refused.
fn link_notice(notice: LinkNotice) {
    let pair = KeyPair::from_private(PrivateKey::from_bytes([4; 32]));
    match notice {
        LinkNotice::PrimaryHello(Ok(hello)) => {
            let theirs = hello.wrapped.open(&Secret::new([3; 32]));
            let random = FinishRandom { adv: Secret::new([5; 32]), salt: [6; 32], iv: [7; 12] };
            let ours = Keys { identity: &pair, ephemeral: &pair };
            match code::finish(ours, Keys { identity: &hello.identity, ephemeral: &theirs }, &random) {
                Ok(finish) => {
                    assert_eq!(finish.bundle.len(), code::BUNDLE_LEN);
                    let Ok(phone) = "15551234567".parse() else { return };
                    let request = code::finish_request(&phone, &finish, pair.public(), &hello.reference);
                    assert!(request.encode().is_ok());
                }
                Err(error) => assert_eq!(error, PairError::WeakKey),
            }
        }
        LinkNotice::PasskeyContinuation(Ok(primary)) => {
            if let Ok(agreement) = commitment("2@r".to_owned()).agree(&primary) {
                let sealed = agreement.seal(pair.public(), pair.public(), &Secret::new([3; 32]), [7; 12]);
                assert!(passkey::pairing_request(sealed).encode().is_ok());
            }
        }
        _ => {}
    }
}

fn commitment(reference: String) -> Commitment {
    let ephemeral = KeyPair::from_private(PrivateKey::from_bytes([8; 32]));
    Commitment::new(ClientConfig::default().platform_type, reference, ephemeral, Secret::new([9; 32]))
}

fn iq(node: NodeRef<'_>) {
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
            let client = ClientConfig::default().client_type();
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
}

fn key(seed: u8) -> PublicKey {
    *KeyPair::from_private(PrivateKey::from_bytes([seed; 32])).public()
}
