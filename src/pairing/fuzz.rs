//! Entry point of the fuzz target, which an ordinary test replays, too.

use bytes::Bytes;

use super::{
    PairError,
    adv::{self, VerifiedIdentity},
    code::{self, FinishRandom, Keys, PairCode, PhoneNumber, PrimaryHello, WrappedKey},
    key_index::{self, ListSignature},
    notice::{self, LinkNotice},
    passkey::{self, Commitment, PrimaryIdentity},
    qr::{QrContent, RefPlan},
    stanza::{self, PairIq},
};
use crate::{
    crypto::{KeyPair, PrivateKey, PublicKey, Secret, hmac_sha256},
    node::Decoder,
    proto::{Message as _, adv::AdvSignedDeviceIdentityHmac, companion::device_props::PlatformType},
};

/// Feeds `data` to a reader of this layer; the first byte chooses which.
///
/// ```text
/// data = kind (1) | rest
/// kind : 0 text of a QR code      2 container of pair-success    4 phone number or pair code as somebody types it
///        1 stanza                 3 signed device identity       5 primary_ephemeral_identity of a passkey
/// ```
///
/// # Panics
/// When a reader panics or accepts what nobody signed, which is what the fuzzer looks for.
pub fn qr_and_pair_stanzas(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 6 {
        0 => qr_text(data),
        1 => stanza_of_linking(data),
        2 => container(data),
        3 => blob(data),
        4 => typed(data),
        _ => {
            if let Ok(primary) = PrimaryIdentity::decode(data) {
                agree(&primary);
            }
        }
    }
}

/// What a phone reads is what we would have written.
fn qr_text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(content) = QrContent::parse(text) {
        assert_eq!(QrContent::parse(&content.text()), Ok(content));
    }
}

/// A stanza of each stage: iqs with refs or the container, notifications of a code or a passkey, answers to queries.
fn stanza_of_linking(data: &[u8]) {
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
    if let Ok(Some(PairIq::Success(success))) = stanza::parse(node) {
        assert!(adv::verify(&success.identity, &Secret::new([3; 32]), &key(1)).is_err(), "nobody signed it");
    }
    match notice::parse(node) {
        Some(LinkNotice::PrimaryHello(Ok(hello))) => finish(&hello),
        Some(LinkNotice::PasskeyContinuation(Ok(primary))) => agree(&primary),
        Some(LinkNotice::PasskeyRequest(Ok(Some(options)))) => assert!(options.len() <= passkey::MAX_OPTIONS_LEN),
        _ => {}
    }
    if let Ok(reference) = code::parse_reference(node) {
        assert!((1..=code::MAX_REFERENCE_LEN).contains(&reference.len()));
    }
    let _ = (passkey::parse_options(node), passkey::parse_reference(node));
}

/// The answer to the phone's keys can be made, unless they have small order. Stretching the code is too slow for a fuzzer;
/// any key opens the wrapping to something.
fn finish(hello: &PrimaryHello) {
    assert_eq!(WrappedKey::from_slice(&hello.wrapped.to_bytes()).as_ref(), Some(&hello.wrapped));
    let ephemeral = hello.wrapped.open(&Secret::new([4; 32]));
    let ours = Keys { identity: &pair(1), ephemeral: &pair(2) };
    let random = FinishRandom { adv: Secret::new([5; 32]), salt: [6; 32], iv: [7; 12] };
    match code::finish(ours, Keys { identity: &hello.identity, ephemeral: &ephemeral }, &random) {
        Ok(finish) => {
            assert_eq!(finish.bundle.len(), code::BUNDLE_LEN);
            let Ok(phone) = "+1 555 000 0001".parse() else { unreachable!("a phone number") };
            let request = code::finish_request(&phone, &finish, &key(1), &hello.reference);
            assert!(request.encode().is_ok());
        }
        Err(error) => assert_eq!(error, PairError::WeakKey),
    }
}

/// The passkey exchange goes on with any key of full order.
fn agree(primary: &PrimaryIdentity) {
    let commitment = Commitment::new(PlatformType::Chrome, "ref".to_owned(), pair(2), Secret::new([8; 32]));
    match commitment.agree(primary) {
        Ok(agreement) => assert_eq!(agreement.code().as_str().len(), code::CODE_LEN),
        Err(error) => assert_eq!(error, PairError::WeakKey),
    }
}

/// What is accepted is in its normal form, which reads as itself.
fn typed(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(number) = text.parse::<PhoneNumber>() {
        assert!(number.as_str().bytes().all(|byte| byte.is_ascii_digit()));
        assert_eq!(number.as_str().parse(), Ok(number.clone()));
        assert_eq!(number.jid().to_string().parse(), Ok(number.jid()));
    }
    if let Ok(code) = text.parse::<PairCode>() {
        assert_eq!(code.as_str().len(), code::CODE_LEN);
        assert_eq!(code.shown().parse(), Ok(code));
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
    *pair(seed).public()
}

fn pair(seed: u8) -> KeyPair {
    KeyPair::from_private(PrivateKey::from_bytes([seed; 32]))
}
