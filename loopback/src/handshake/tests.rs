//! The responder against the handshakes of spec 01 §8, byte for byte: with the server's ephemeral key of the vectors it must
//! give their server hello, read their client finish, and arrive at their transport keys.

use std::convert::Infallible;

use bytes::BytesMut;
use serde_json::Value;
use wamd::crypto::PrivateKey;

use super::*;

/// Gives out one private key and then nothing more.
struct Fixed(Option<[u8; 32]>);

impl rand_core::TryRng for Fixed {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        panic!("only keys are drawn")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("only keys are drawn")
    }

    fn try_fill_bytes(&mut self, to: &mut [u8]) -> Result<(), Infallible> {
        to.copy_from_slice(&self.0.take().expect("one key is drawn"));
        Ok(())
    }
}

fn vector(name: &str) -> Value {
    let path = format!("{}/../tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().unwrap()).unwrap()
}

fn key(value: &Value) -> KeyPair {
    KeyPair::from_private(PrivateKey::from_slice(&bytes(&value["private"])).unwrap())
}

/// The frames of the vector, both directions.
fn check_transport(mut transport: Transport, vector: &Value) {
    let frames = vector["transport"].as_array().unwrap();
    assert!(frames.len() >= 2);
    for frame in frames {
        let (plaintext, ciphertext) = (bytes(&frame["plaintext"]), bytes(&frame["ciphertext"]));
        if frame["direction"] == "client_to_server" {
            assert_eq!(transport.receiver.open(BytesMut::from(&ciphertext[..])).unwrap(), plaintext);
        } else {
            let mut sealed = BytesMut::new();
            transport.sender.seal_into(&plaintext, &mut sealed).unwrap();
            assert_eq!(sealed[3..], ciphertext);
        }
    }
}

fn check_established(established: Established, vector: &Value, pattern: Pattern) {
    let client = key(&self::vector("noise_ik")["keys"]["client-noise-static"]);
    assert_eq!((established.pattern, established.client), (pattern, *client.public()));
    assert_eq!(established.payload, bytes(&vector["client_payload_plaintext"]));
    check_transport(established.transport, vector);
}

fn check_full(step: Step, vector: &Value, pattern: Pattern) {
    let Step::Reply(reply, next) = step else { panic!("a server hello that waits is expected") };
    assert_eq!(hex::encode(&reply), vector["server_hello"]["proto"].as_str().unwrap());
    let server = KeyPair::from_private(PrivateKey::from_bytes([1; 32]));
    let credentials = Credentials { server: &server, chain: &[] };
    let finish = bytes(&vector["client_finish"]["proto"]);
    let Step::Done(None, established) = next.step(&finish, credentials, &mut Fixed(None)).unwrap() else {
        panic!("the handshake is over")
    };
    check_established(*established, vector, pattern);
}

#[test]
fn xx() {
    let vector = vector("noise_xx");
    let keys = &vector["keys"];
    let server = key(&keys["server-static"]);
    let chain = bytes(&vector["cert_chain_plaintext"]);
    let mut rng = Fixed(bytes(&keys["server-ephemeral"]["private"]).try_into().ok());
    let credentials = Credentials { server: &server, chain: &chain };
    let hello = bytes(&vector["client_hello"]["proto"]);
    check_full(Responder::AwaitHello.step(&hello, credentials, &mut rng).unwrap(), &vector, Pattern::Xx);
}

#[test]
fn ik() {
    let vector = vector("noise_ik");
    let keys = &vector["keys"];
    let server = key(&keys["server-static"]);
    let chain = bytes(&vector["cert_chain_plaintext"]);
    let mut rng = Fixed(bytes(&keys["server-ephemeral"]["private"]).try_into().ok());
    let credentials = Credentials { server: &server, chain: &chain };
    let hello = bytes(&vector["client_hello"]["proto"]);
    let step = Responder::AwaitHello.step(&hello, credentials, &mut rng).unwrap();
    let Step::Done(Some(reply), established) = step else { panic!("IK needs no finish") };
    assert_eq!(hex::encode(&reply), vector["server_hello"]["proto"].as_str().unwrap());
    check_established(*established, &vector, Pattern::Ik);
}

#[test]
fn xx_fallback() {
    // The vector's server falls back although it owns the key, so the choice is made for it here.
    let (vector, keys) = (vector("noise_xxfallback"), &vector("noise_ik")["keys"]);
    let server = key(&keys["server-static"]);
    let chain = bytes(&vector["cert_chain_plaintext"]);
    let credentials = Credentials { server: &server, chain: &chain };
    let theirs = *key(&keys["client-ephemeral"]).public();
    let step = full(Pattern::XxFallback, theirs, key(&keys["server-ephemeral"]), credentials).unwrap();
    check_full(step, &vector, Pattern::XxFallback);
}
