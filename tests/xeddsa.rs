//! Keys and signatures agree with other implementations: `vectors/xeddsa.json`, `vectors/keys.json` (spec 03 §1.2).

use std::convert::Infallible;

use rand_core::{TryCryptoRng, TryRng};
use serde_json::Value;
use wamd::crypto::{
    KeyPair, PrivateKey, PublicKey,
    xeddsa::{self, SigningKey, VerifyingKey},
};

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).expect("vector file is JSON")
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("hex text")).expect("hex")
}

#[test]
fn public_keys_follow_from_private_keys() {
    let file = vectors(include_str!("vectors/keys.json"));
    let keys = file["keys"].as_object().expect("keys");
    assert!(!keys.is_empty());
    for (name, pair) in keys {
        let private = PrivateKey::from_slice(&bytes(&pair["private"])).expect("32 bytes");
        assert_eq!(private.public().as_bytes()[..], bytes(&pair["public"])[..], "{name}");
    }
}

#[test]
fn signatures_are_reproduced_and_verify() {
    let file = vectors(include_str!("vectors/xeddsa.json"));
    let cases = file["sign"].as_array().expect("sign");
    let mut signs = [false; 2];
    for case in cases {
        let private = PrivateKey::from_slice(&bytes(&case["priv"])).expect("32 bytes");
        let public = PublicKey::from_slice(&bytes(&case["pub"])).expect("32 bytes");
        assert_eq!(private.public(), public);
        let (message, random) = (bytes(&case["message"]), bytes(&case["random"]));
        let signature = xeddsa::sign_with(&private, &[&message], random[..].try_into().expect("64 bytes"));
        assert_eq!(hex::encode(signature), case["signature"].as_str().expect("hex"));
        let (head, tail) = message.split_at(message.len() / 2);
        assert_eq!(xeddsa::verify(&public, &[head, tail], &signature), Ok(()), "parts are concatenated");
        signs[usize::from(signature[63] >> 7)] = true;

        let (kept, mut script) = (SigningKey::new(KeyPair::from_private(private)), Script(random));
        let mut stored = SigningKey::from_parts(kept.pair().clone(), kept.edwards());
        assert_eq!(stored.sign(&[&message], &mut script), signature, "with the kept form");
        let mut seed = Script(stored.pair().private().expose().to_vec());
        let fresh = SigningKey::generate(&mut seed);
        assert_eq!(fresh, stored, "both forms of one multiplication");
        for mut key in [kept, fresh.clone(), fresh] {
            assert_eq!(key.sign(&[&message], &mut script), signature, "the first, which makes the kept form");
            assert_eq!(key.sign(&[&message], &mut script), signature, "the second, which has it");
            assert_eq!(key.edwards(), stored.edwards());
        }
    }
    assert_eq!(signs, [true; 2], "both sign bits are covered");
}

#[test]
fn verdicts_agree() {
    let file = vectors(include_str!("vectors/xeddsa.json"));
    let cases = file["verify"].as_array().expect("verify");
    assert!(cases.len() >= 16);
    for case in cases {
        let public = PublicKey::from_slice(&bytes(&case["pub"])).expect("32 bytes");
        let valid = xeddsa::verify(&public, &[&bytes(&case["message"])], &bytes(&case["signature"])).is_ok();
        // `null`: clients differ; we refuse, as the specification recommends.
        assert_eq!(valid, case["valid"].as_bool().unwrap_or(false), "{}", case["note"]);
        let kept = VerifyingKey::new(&public).map(|key| VerifyingKey::from_bytes(*key.as_bytes()));
        for key in [kept, VerifyingKey::new(&public)] {
            let verify = |key: &VerifyingKey| key.verify(&[&bytes(&case["message"])], &bytes(&case["signature"]));
            let verdicts = key.map(|key| [verify(&key).is_ok(), verify(&key).is_ok()]).unwrap_or_default();
            assert_eq!(verdicts, [valid; 2], "with the kept form: {}", case["note"]);
        }
    }
}

#[test]
fn signatures_of_other_lengths_are_refused() {
    let public = PrivateKey::from_bytes([1; 32]).public();
    for len in [0, 63, 65, 128] {
        assert!(xeddsa::verify(&public, &[b"x"], &vec![0; len]).is_err());
    }
}

/// Randomness that is written down: it is drawn whole.
struct Script(Vec<u8>);

impl TryRng for Script {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        unreachable!("it is drawn as bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        unreachable!("it is drawn as bytes")
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Infallible> {
        into.copy_from_slice(&self.0);
        Ok(())
    }
}

impl TryCryptoRng for Script {}
