//! Registration and login say byte for byte what other clients say: `vectors/client_payload.json` (spec 01 §3).

use serde_json::Value;
use wamd::{
    crypto::{PrivateKey, PublicKey, xeddsa},
    jid::Jid,
    pairing::{
        PairError,
        payload::{self, ClientConfig, Login, Registration},
    },
    proto::{Message as _, wa6::ClientPayload},
};

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).expect("vector file is JSON")
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("hex text")).expect("hex")
}

fn key(keys: &Value, name: &str) -> PrivateKey {
    PrivateKey::from_slice(&bytes(&keys["keys"][name]["private"])).expect("32 bytes")
}

fn fixed_registration(file: &Value) -> Registration {
    let keys = vectors(include_str!("vectors/keys.json"));
    let (identity, prekey) = (key(&keys, "identity"), key(&keys, "signed-prekey").public());
    let signature = xeddsa::sign_with(&identity, &[&prekey.to_typed()], &[0; 64]);
    assert_eq!(signature[..], bytes(&file["signedPreKeySignature"]["signature"])[..]);
    Registration {
        registration_id: u32::try_from(file["registrationId"].as_u64().expect("number")).expect("32 bits"),
        identity: identity.public(),
        signed_prekey_id: u32::try_from(file["signedPreKeyId"].as_u64().expect("number")).expect("32 bits"),
        signed_prekey: prekey,
        signed_prekey_signature: signature,
    }
}

#[test]
fn registration_agrees() {
    let file = vectors(include_str!("vectors/client_payload.json"));
    let config = ClientConfig::default();
    assert_eq!(config.version_text(), file["version"].as_str().expect("text"));
    assert_eq!(payload::build_hash(&config)[..], bytes(&file["buildHash_md5_of_version_string"])[..]);
    assert_eq!(hex::encode(payload::user_agent(&config)), file["userAgent"].as_str().expect("hex"));
    assert_eq!(hex::encode(payload::device_props(&config)), file["deviceProps"].as_str().expect("hex"));
    let encoded = payload::registration(&config, &fixed_registration(&file)).expect("fits");
    let pairing = ClientPayload::decode(&encoded[..]).expect("payload").device_pairing_data.expect("pairing data");
    assert_eq!(pairing.encode_to_vec(), bytes(&file["devicePairingData"]));
    assert_eq!(hex::encode(encoded), file["registration"].as_str().expect("hex"));
}

#[test]
fn login_agrees() {
    let file = vectors(include_str!("vectors/client_payload.json"));
    let own = Jid::pn("15551234567").with_device(3);
    let options = Login { passive: false, ..Login::default() };
    let encoded = payload::login(&ClientConfig::default(), &own, &options).expect("fits");
    assert_eq!(hex::encode(encoded), file["login"].as_str().expect("hex"));
}

#[test]
fn login_options_reach_the_payload() {
    let config = ClientConfig { push_name: Some("Ada".into()), ..ClientConfig::default() };
    let options = Login { passive: false, login_counter: 7, lid_migrated: false };
    let encoded = payload::login(&config, &Jid::pn("1").with_device(9), &options).expect("fits");
    let decoded = ClientPayload::decode(&encoded[..]).expect("payload");
    assert_eq!((decoded.username, decoded.device, decoded.lc), (Some(1), Some(9), Some(7)));
    assert_eq!((decoded.passive, decoded.pull, decoded.lid_db_migrated), (Some(false), Some(true), Some(false)));
    assert_eq!(decoded.push_name.as_deref(), Some("Ada"));
    assert_eq!(decoded.device_pairing_data, None);
}

#[test]
fn what_does_not_fit_is_refused() {
    let config = ClientConfig::default();
    let login = |own: Jid, counter| {
        payload::login(&config, &own, &Login { login_counter: counter, ..Login::default() }).map(drop)
    };
    assert_eq!(login(Jid::lid("1"), 1), Err(PairError::Payload("own JID")));
    assert_eq!(login(Jid::pn("ada"), 1), Err(PairError::Payload("own user")));
    assert_eq!(login(Jid::pn("1"), u32::MAX), Err(PairError::Payload("login counter")));
    let registration = Registration {
        registration_id: 1,
        identity: PublicKey::from_bytes([1; 32]),
        signed_prekey_id: 0x0100_0000,
        signed_prekey: PublicKey::from_bytes([2; 32]),
        signed_prekey_signature: [3; 64],
    };
    let refused = payload::registration(&config, &registration).map(drop);
    assert_eq!(refused, Err(PairError::Payload("signed prekey id")));
}
