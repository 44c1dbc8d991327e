//! Message ids and participant hashes are those of other clients: `vectors/signal_misc.json`, `vectors/phash.json`
//! (spec 03 §4.3 and §4.6).

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde_json::Value;
use wamd::{
    jid::{Jid, Server},
    message::{MessageError, MessageId, phash::phash},
};

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).expect("vector file is JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

#[test]
fn ids_agree() {
    let file = vectors(include_str!("vectors/signal_misc.json"));
    let cases = file["message_ids"].as_array().expect("message_ids");
    assert_eq!(cases.len(), 2);
    for case in cases {
        let random = hex::decode(text(&case["random"])).expect("hex").try_into().expect("16 bytes");
        let seconds = case["unix_seconds"].as_u64().expect("number");
        assert_eq!(MessageId::derive(seconds, Some(text(&case["user"])), &random).as_str(), text(&case["id"]));
    }
    // The vector in the text of spec 06 §1.11.
    let random = std::array::from_fn(|i| u8::try_from(i).expect("byte"));
    let id = MessageId::derive(1_716_894_200, Some("2348012345678"), &random);
    assert_eq!(id.as_str(), "3EB07864B52AB1708E9182");
}

#[test]
fn fresh_ids_differ_and_look_like_a_web_client() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let a = MessageId::generate(1_700_000_000, None, &mut rng);
    let b = MessageId::generate(1_700_000_000, None, &mut rng);
    assert_ne!(a, b);
    for id in [a, b] {
        assert!(id.as_str().starts_with("3EB0") && id.as_str().len() == 22, "{id}");
        assert!(id.as_str().bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()), "{id}");
        let json = serde_json::to_string(&id).expect("JSON");
        assert_eq!(serde_json::from_str::<MessageId>(&json).expect("id"), id);
    }
}

#[test]
fn remote_ids_are_opaque_but_bounded() {
    for id in ["A", "3EB0D361C790503540D945", "id with spaces", &"x".repeat(255)] {
        assert_eq!(MessageId::new(id).as_ref().map(MessageId::as_str), Ok(id));
    }
    for id in ["", "a\nb", "\0", &"x".repeat(256)] {
        assert_eq!(MessageId::new(id), Err(MessageError::Id { len: id.len() }));
        assert!(serde_json::from_str::<MessageId>(&serde_json::to_string(id).expect("JSON")).is_err());
    }
}

#[test]
fn participant_hashes_agree() {
    let file = vectors(include_str!("vectors/phash.json"));
    let cases = file["vectors"].as_array().expect("vectors");
    assert_eq!(cases.len(), 7);
    for case in cases {
        let devices: Vec<Jid> = case["devices"].as_array().expect("devices").iter().map(|d| device(text(d))).collect();
        assert_eq!(phash(&devices), text(&case["phash"]), "{}", case["name"]);
        let mut reversed = devices;
        reversed.reverse();
        assert_eq!(phash(&reversed), text(&case["phash"]), "any order");
    }
}

/// `user.0:device@server`
fn device(name: &str) -> Jid {
    let (user, server) = name.split_once('@').expect("server");
    let (user, device) = user.split_once(".0:").expect("device");
    let server = Server::parse(server).expect("server");
    let jid = Jid::new(user, server).with_device(device.parse().expect("number"));
    assert_eq!(jid.ad_string(), name);
    jid
}
