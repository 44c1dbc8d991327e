//! Payloads are padded as everybody pads them, and bad padding is refused: `vectors/padding.json` (spec 03 §4.1).

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::Value;
use wamd::message::{MessageError, padding};

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("hex text")).expect("hex")
}

#[test]
fn vectors_agree() {
    let file: Value = serde_json::from_str(include_str!("vectors/padding.json")).expect("JSON");
    let mut seen = [0; 3];
    for case in file["vectors"].as_array().expect("vectors") {
        let padded = bytes(&case["padded"]);
        match case["op"].as_str().expect("op") {
            "pad" => {
                let mut buffer = bytes(&case["plaintext"]);
                padding::pad_with(&mut buffer, u8::try_from(case["pad_len"].as_u64().expect("number")).expect("byte"));
                assert_eq!(buffer, padded);
                assert_eq!(padding::unpad(2, &padded), Ok(&bytes(&case["plaintext"])[..]));
                seen[0] += 1;
            }
            "unpad" => {
                assert_eq!(padding::unpad(2, &padded), Ok(&bytes(&case["plaintext"])[..]), "{}", case["note"]);
                seen[1] += 1;
            }
            "unpad_reject" => {
                let error = padding::unpad(2, &padded).expect_err("refused");
                let expected = match case["note"].as_str().expect("note") {
                    "empty" => MessageError::Empty,
                    "last byte 0" => MessageError::PaddingLength { pad: 0, len: padded.len() },
                    "pad longer than data" => MessageError::PaddingLength { pad: 9, len: padded.len() },
                    _ => MessageError::PaddingBytes,
                };
                assert_eq!(error, expected, "{}", case["note"]);
                seen[2] += 1;
            }
            other => panic!("unknown op {other}"),
        }
    }
    assert_eq!(seen, [16, 3, 5]);
}

#[test]
fn random_padding_uses_every_length() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut lengths = [0; 17];
    for _ in 0..1_000 {
        let mut buffer = b"hello".to_vec();
        padding::pad(&mut buffer, &mut rng);
        lengths[buffer.len() - 5] += 1;
        assert_eq!(padding::unpad(2, &buffer), Ok(&b"hello"[..]));
    }
    assert_eq!(lengths[0], 0);
    assert!(lengths[1..].iter().all(|&n| n > 20), "{lengths:?}");
}

#[test]
fn other_versions_are_not_guessed() {
    for version in [0, 1, 3, 255] {
        assert_eq!(padding::unpad(version, &[1]), Err(MessageError::Version(version)));
    }
}
