//! The server's certificates: the chain of `vectors/cert_chain.json` is accepted, each of its bad chains is refused for
//! the reason that the file gives, and so is everything that was changed (spec 01 §2.5).

use proptest::prelude::*;
use serde_json::Value;
use wamd::{
    crypto::{KeyPair, PrivateKey, PublicKey, xeddsa},
    noise::{Certificate, CertificateError, CertificatePolicy, PRODUCTION_ROOT, Validity, VerifiedChain},
};
use wamd_proto::{
    Message as _,
    cert::{CertChain, cert_chain},
};

/// The time that the vectors are made for.
const NOW: u64 = 1_700_000_100;
const NOT_BEFORE: u64 = 1_700_000_000;
const NOT_AFTER: u64 = 4_102_444_800;

fn file() -> Value {
    serde_json::from_str(include_str!("vectors/cert_chain.json")).expect("vector file is JSON")
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("hex text")).expect("hex")
}

fn pair(value: &Value) -> KeyPair {
    KeyPair::from_private(PrivateKey::from_slice(&bytes(&value["private"])).unwrap())
}

fn policy(check_validity: bool) -> CertificatePolicy {
    CertificatePolicy { roots: vec![*pair(&file()["root"]).public()], check_validity }
}

fn server_static() -> PublicKey {
    *pair(&file()["leaf"]["key"]).public()
}

fn verify(chain: &[u8]) -> Result<VerifiedChain, CertificateError> {
    policy(true).verify(chain, &server_static(), NOW)
}

/// A certificate of the vector chain, to be changed and signed again.
#[derive(Clone)]
struct Draft {
    details: cert_chain::noise_certificate::Details,
    signer: KeyPair,
}

impl Draft {
    fn leaf() -> Self {
        Self::new(18, 17, &server_static(), pair(&file()["intermediate"]["key"]))
    }

    fn intermediate() -> Self {
        Self::new(17, 0, pair(&file()["intermediate"]["key"]).public(), pair(&file()["root"]))
    }

    fn new(serial: u32, issuer: u32, key: &PublicKey, signer: KeyPair) -> Self {
        let details = cert_chain::noise_certificate::Details {
            serial: Some(serial),
            issuer_serial: Some(issuer),
            key: Some(key.as_bytes().to_vec().into()),
            not_before: Some(NOT_BEFORE),
            not_after: Some(NOT_AFTER),
        };
        Self { details, signer }
    }

    fn sign(&self) -> Option<Box<cert_chain::NoiseCertificate>> {
        Some(Box::new(sign(&self.details.encode_to_vec(), &self.signer)))
    }
}

fn sign(details: &[u8], signer: &KeyPair) -> cert_chain::NoiseCertificate {
    cert_chain::NoiseCertificate {
        details: Some(details.to_vec().into()),
        signature: Some(xeddsa::sign_with(signer.private(), &[details], &[0; 64]).to_vec().into()),
    }
}

fn chain(leaf: &Draft, intermediate: &Draft) -> Vec<u8> {
    CertChain { leaf: leaf.sign(), intermediate: intermediate.sign() }.encode_to_vec()
}

#[test]
fn the_default_trusts_the_production_root() {
    let production = bytes(&file()["production_root_public"]);
    assert_eq!(PRODUCTION_ROOT.as_bytes()[..], production);
    assert_eq!(CertificatePolicy::default(), CertificatePolicy { roots: vec![PRODUCTION_ROOT], check_validity: true });
}

#[test]
fn the_good_chain_is_accepted() {
    let good = bytes(&file()["chain"]);
    let verified = verify(&good).unwrap();
    assert_eq!(*verified.leaf_key(), server_static());
    assert_eq!(verified.root(), pair(&file()["root"]).public());
    let window = Validity { not_before: NOT_BEFORE, not_after: NOT_AFTER };
    assert_eq!((verified.leaf_validity(), verified.intermediate_validity()), (window, window));
    assert_eq!(chain(&Draft::leaf(), &Draft::intermediate()), good, "the drafts below start from this chain");
}

#[test]
fn each_bad_chain_is_refused_for_its_reason() {
    use Certificate::{Intermediate, Leaf};
    let reason = |why: &str| match why {
        "intermediate signed by a key that is not the root" => CertificateError::UntrustedRoot,
        "intermediate issuerSerial is not 0" => {
            CertificateError::Issuer { certificate: Intermediate, found: 1, expected: 0 }
        }
        "leaf signed by the root instead of the intermediate key" => CertificateError::LeafSignature,
        "leaf issuerSerial differs from intermediate serial" => {
            CertificateError::Issuer { certificate: Leaf, found: 16, expected: 17 }
        }
        "leaf key differs from the static key of the handshake (server-static)" => CertificateError::LeafKey,
        "leaf expired (notAfter in the past)" => {
            CertificateError::Expired { certificate: Leaf, not_after: NOT_BEFORE + 1, now: NOW }
        }
        "intermediate not yet valid" => {
            CertificateError::NotYetValid { certificate: Intermediate, not_before: NOT_AFTER - 1, now: NOW }
        }
        "one bit of the intermediate signature flipped" => CertificateError::UntrustedRoot,
        "leaf missing" => CertificateError::Missing(Leaf),
        "intermediate missing" => CertificateError::Missing(Intermediate),
        "leaf signature has 63 bytes" => {
            CertificateError::Length { certificate: Leaf, field: "signature", len: 63, expected: 64 }
        }
        other => panic!("a bad chain without a reason here: {other}"),
    };
    let file = file();
    let cases = file["bad_chains"].as_array().unwrap();
    assert_eq!(cases.len(), 11);
    for case in cases {
        let why = case["why"].as_str().unwrap();
        assert_eq!(verify(&bytes(&case["chain"])), Err(reason(why)), "{why}");
    }
}

#[test]
fn without_validity_only_the_windows_are_ignored() {
    let file = file();
    for case in file["bad_chains"].as_array().unwrap() {
        let why = case["why"].as_str().unwrap();
        let windows = ["leaf expired (notAfter in the past)", "intermediate not yet valid"];
        let verdict = policy(false).verify(&bytes(&case["chain"]), &server_static(), NOW);
        assert_eq!(verdict.is_ok(), windows.contains(&why), "{why}");
        assert!(!verdict.is_ok_and(|chain| chain.usable_at(NOW)), "no resumption outside a window: {why}");
    }
}

#[test]
fn both_ends_of_a_window_are_valid_but_the_last_second_does_not_resume() {
    let good = bytes(&file()["chain"]);
    let at = |now| policy(true).verify(&good, &server_static(), now);
    let certificate = Certificate::Leaf;
    assert_eq!(
        at(NOT_BEFORE - 1),
        Err(CertificateError::NotYetValid { certificate, not_before: NOT_BEFORE, now: NOT_BEFORE - 1 })
    );
    assert_eq!(
        at(NOT_AFTER + 1),
        Err(CertificateError::Expired { certificate, not_after: NOT_AFTER, now: NOT_AFTER + 1 })
    );
    let verified = at(NOT_BEFORE).unwrap();
    assert_eq!(at(NOT_AFTER), Ok(verified.clone()));
    for (now, usable) in [
        (0, false),
        (NOT_BEFORE - 1, false),
        (NOT_BEFORE, true),
        (NOT_AFTER - 1, true),
        (NOT_AFTER, false),
        (u64::MAX, false),
    ] {
        assert_eq!(verified.usable_at(now), usable, "{now}");
    }
}

#[test]
fn any_of_several_roots_may_sign_and_none_is_nothing() {
    let good = bytes(&file()["chain"]);
    let root = *pair(&file()["root"]).public();
    let with = |roots| CertificatePolicy { roots, check_validity: true }.verify(&good, &server_static(), NOW);
    assert_eq!(with(vec![PRODUCTION_ROOT, root]).unwrap().root(), &root);
    assert_eq!(with(vec![PRODUCTION_ROOT]), Err(CertificateError::UntrustedRoot));
    assert_eq!(with(vec![]), Err(CertificateError::UntrustedRoot));
}

#[test]
fn keys_and_signatures_of_other_lengths_are_refused() {
    for len in [0, 31, 33] {
        let key = Some(vec![7; len].into());
        let mut draft = Draft::leaf();
        draft.details.key.clone_from(&key);
        let error = |certificate| CertificateError::Length { certificate, field: "key", len, expected: 32 };
        assert_eq!(verify(&chain(&draft, &Draft::intermediate())), Err(error(Certificate::Leaf)));
        let mut draft = Draft::intermediate();
        draft.details.key = key;
        assert_eq!(verify(&chain(&Draft::leaf(), &draft)), Err(error(Certificate::Intermediate)));
    }
    for len in [0, 63, 65, 128] {
        let mut intermediate = Draft::intermediate().sign().unwrap();
        intermediate.signature = Some(vec![7; len].into());
        let chain = CertChain { leaf: Draft::leaf().sign(), intermediate: Some(intermediate) }.encode_to_vec();
        let certificate = Certificate::Intermediate;
        assert_eq!(
            verify(&chain),
            Err(CertificateError::Length { certificate, field: "signature", len, expected: 64 })
        );
    }
}

#[test]
fn absent_fields_count_as_zero() {
    let mut intermediate = Draft::intermediate();
    intermediate.details.issuer_serial = None;
    assert!(verify(&chain(&Draft::leaf(), &intermediate)).is_ok(), "the root's serial is 0");

    let mut leaf = Draft::leaf();
    leaf.details.issuer_serial = None;
    let issuer = CertificateError::Issuer { certificate: Certificate::Leaf, found: 0, expected: 17 };
    assert_eq!(verify(&chain(&leaf, &Draft::intermediate())), Err(issuer));

    let mut leaf = Draft::leaf();
    leaf.details.not_after = None;
    let expired = CertificateError::Expired { certificate: Certificate::Leaf, not_after: 0, now: NOW };
    assert_eq!(verify(&chain(&leaf, &Draft::intermediate())), Err(expired));

    let empty = cert_chain::NoiseCertificate { details: None, signature: None };
    let chain = CertChain { leaf: Some(Box::new(empty)), intermediate: Draft::intermediate().sign() };
    assert!(matches!(
        verify(&chain.encode_to_vec()),
        Err(CertificateError::Length { certificate: Certificate::Leaf, len: 0, .. })
    ));
}

#[test]
fn the_raw_details_are_what_is_signed() {
    // The fields in another order and with an unknown one: a re-encoding would give other bytes.
    let draft = Draft::leaf();
    let mut details = vec![0x7A, 1, b'x'];
    details.extend(draft.details.encode_to_vec().split_off(2));
    details.extend([0x08, 18]);
    let leaf = sign(&details, &draft.signer);
    let chain = CertChain { leaf: Some(Box::new(leaf)), intermediate: Draft::intermediate().sign() }.encode_to_vec();
    assert!(verify(&chain).is_ok());
}

#[test]
fn garbage_is_told_apart() {
    assert_eq!(verify(b"\xff"), Err(CertificateError::UndecodableChain));
    assert_eq!(verify(b""), Err(CertificateError::Missing(Certificate::Leaf)));
    let leaf = sign(b"\xff", &keys());
    let chain = CertChain { leaf: Some(Box::new(leaf)), intermediate: None }.encode_to_vec();
    assert_eq!(verify(&chain), Err(CertificateError::UndecodableDetails(Certificate::Leaf)));
}

fn keys() -> KeyPair {
    KeyPair::from_private(PrivateKey::from_bytes([5; 32]))
}

#[test]
fn the_cache_takes_only_its_own_format() {
    let verified = verify(&bytes(&file()["chain"])).unwrap();
    let encoded = verified.encode();
    assert_eq!(encoded.len(), VerifiedChain::ENCODED_LEN);
    assert_eq!(VerifiedChain::decode(&encoded), Some(verified));
    for len in 0..encoded.len() {
        assert_eq!(VerifiedChain::decode(&encoded[..len]), None);
    }
    assert_eq!(VerifiedChain::decode(&[&encoded[..], &[0]].concat()), None);
    let mut other_version = encoded;
    other_version[0] = 2;
    assert_eq!(VerifiedChain::decode(&other_version), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_changed_byte_is_accepted(position: prop::sample::Index, flip in 1_u8..) {
        let good = bytes(&file()["chain"]);
        let mut bad = good.clone();
        bad[position.index(good.len())] ^= flip;
        // An added unknown field or the like may leave details and signatures as they are; then it is the same chain.
        let same = CertChain::decode(&bad[..]).is_ok_and(|bad| bad == CertChain::decode(&good[..]).unwrap());
        prop_assert_eq!(verify(&bad).is_ok(), same);
    }
}
