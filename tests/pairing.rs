//! Linking by QR code agrees with other clients, and refuses what a wrong or hostile phone sends:
//! `vectors/adv_pairing.json`, `vectors/signal_misc.json`, `vectors/stanzas.json` (spec 01 §4, spec 03 §1.6).

use serde_json::Value;
use wamd::{
    crypto::{KeyPair, PrivateKey, PublicKey, Secret, hmac_sha256, xeddsa},
    jid::Jid,
    node::{Decoder, Node},
    pairing::{
        PairError, adv,
        qr::{ClientType, QrContent, RefPlan},
        stanza::{self, PairIq},
    },
    proto::{
        Bytes, Message as _,
        adv::{AdvSignedDeviceIdentity, AdvSignedDeviceIdentityHmac},
    },
};

fn vectors(text: &str) -> Value {
    serde_json::from_str(text).expect("vector file is JSON")
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("hex text")).expect("hex")
}

fn pair(value: &Value) -> KeyPair {
    KeyPair::from_private(PrivateKey::from_slice(&bytes(&value["private"])).expect("32 bytes"))
}

struct Phone {
    file: Value,
    secret: Secret<32>,
    identity: KeyPair,
    account: KeyPair,
}

fn phone() -> Phone {
    let file = vectors(include_str!("vectors/adv_pairing.json"));
    let secret = Secret::from_slice(&bytes(&file["adv_secret"])).expect("32 bytes");
    let (identity, account) = (pair(&file["companion_identity"]), pair(&file["account_identity"]));
    Phone { file, secret, identity, account }
}

impl Phone {
    fn container(&self, case: &str) -> Vec<u8> {
        bytes(&self.file[case]["device_identity_content_of_pair_success"])
    }

    /// Seals changed contents as a phone with our secret would.
    fn seal(&self, signed: &AdvSignedDeviceIdentity) -> Vec<u8> {
        let details = signed.encode_to_vec();
        let hmac = hmac_sha256(self.secret.expose(), &[&details]);
        AdvSignedDeviceIdentityHmac {
            details: Some(details.into()),
            hmac: Some(Bytes::copy_from_slice(&hmac)),
            account_type: None,
        }
        .encode_to_vec()
    }

    fn verify(&self, container: &[u8]) -> Result<adv::VerifiedIdentity, PairError> {
        adv::verify(container, &self.secret, self.identity.public())
    }
}

#[test]
fn qr_text_agrees() {
    let phone = phone();
    let qr = &phone.file["qr"];
    let content = QrContent::new(
        qr["ref"].as_str().expect("text"),
        *pair(&phone.file["companion_noise"]).public(),
        *phone.identity.public(),
        phone.secret.clone(),
        ClientType::Chrome,
    );
    assert_eq!(content.bare(), qr["bare"].as_str().expect("text"));
    assert_eq!(content.text(), qr["deep_link"].as_str().expect("text"));
    assert_eq!(QrContent::parse(&content.bare()), Ok(content.clone()));
    assert_eq!(QrContent::parse(&content.text()), Ok(content.clone()));
    let secret = &content.bare()[content.bare().len() - 46..content.bare().len() - 2];
    assert!(!format!("{content:?}").contains(secret));
}

#[test]
fn an_ordinary_account_is_verified_and_signed() {
    let phone = phone();
    let case = &phone.file["e2ee"];
    let verified = phone.verify(&phone.container("e2ee")).expect("verifies");
    assert_eq!(verified.account_key(), phone.account.public());
    assert_eq!(u64::from(verified.key_index()), case["key_index"].as_u64().expect("number"));
    assert!(!verified.is_hosted());
    let signed = verified.sign_with(&phone.identity, &[0; 64]).expect("same identity");
    assert_eq!(hex::encode(signed.reply_bytes()), case["pair_device_sign_device_identity"].as_str().expect("hex"));
    assert_eq!(hex::encode(signed.to_bytes()), case["stored_account_with_signature_key"].as_str().expect("hex"));
    assert_eq!(signed.key_index(), 5);
    // What we store is what others will check.
    let device = adv::verify_device(&signed.to_bytes(), phone.identity.public(), None).expect("verifies");
    assert_eq!((device.account_key(), device.key_index()), (phone.account.public(), 5));
}

#[test]
fn a_hosted_account_is_verified_and_signed_as_an_ordinary_device() {
    let phone = phone();
    let case = &phone.file["hosted"];
    let verified = phone.verify(&phone.container("hosted")).expect("verifies");
    assert!(verified.is_hosted());
    let signed = verified.sign_with(&phone.identity, &[0; 64]).expect("same identity");
    let stored = AdvSignedDeviceIdentity::decode(&signed.to_bytes()[..]).expect("identity");
    let message = bytes(&case["device_signature_message_if_0601_prefix_is_used"]);
    let signature = stored.device_signature.expect("device signature");
    assert_eq!(xeddsa::verify(phone.identity.public(), &[&message], &signature), Ok(()));
    assert_eq!(stored.account_signature.expect("account signature")[..], bytes(&case["account_signature"])[..]);
    // Others may sign their hosted devices under either device prefix.
    for blob in [signed.to_bytes(), bytes(&case["stored_account_with_signature_key"])] {
        let device = adv::verify_device(&blob, phone.identity.public(), None).expect("verifies");
        assert!(device.is_hosted());
    }
}

#[test]
fn another_secret_or_a_changed_container_is_an_hmac_mismatch() {
    let phone = phone();
    let container = phone.container("e2ee");
    let refused = adv::verify(&container, &Secret::new([1; 32]), phone.identity.public());
    assert_eq!(refused, Err(PairError::HmacMismatch));

    let decoded = AdvSignedDeviceIdentityHmac::decode(&container[..]).expect("container");
    let changed = [
        AdvSignedDeviceIdentityHmac { account_type: Some(1), ..decoded.clone() },
        AdvSignedDeviceIdentityHmac { hmac: Some(Bytes::from_static(&[0; 32])), ..decoded.clone() },
        AdvSignedDeviceIdentityHmac { hmac: Some(decoded.hmac.clone().expect("hmac").slice(..31)), ..decoded.clone() },
        AdvSignedDeviceIdentityHmac { hmac: Some(Bytes::new()), ..decoded.clone() },
        AdvSignedDeviceIdentityHmac { details: Some(Bytes::new()), ..decoded },
    ];
    for container in changed {
        let error = phone.verify(&container.encode_to_vec()).expect_err("refused");
        assert_eq!((error.code(), error.text()), (401, "hmac-mismatch"), "{error}");
    }
}

#[test]
fn a_wrong_account_signature_is_a_signature_mismatch() {
    let phone = phone();
    let signed =
        AdvSignedDeviceIdentity::decode(&bytes(&phone.file["e2ee"]["signed_device_identity_from_primary"])[..])
            .expect("identity");
    assert!(phone.verify(&phone.seal(&signed)).is_ok(), "the test phone seals rightly");
    let mut flipped = signed.account_signature.clone().expect("signature").to_vec();
    flipped[7] ^= 1;
    let other = Bytes::copy_from_slice(PrivateKey::from_bytes([9; 32]).public().as_bytes());
    // Signed for a hosted device while the details speak of an ordinary one.
    let crossed = bytes(&phone.file["hosted"]["account_signature"]);
    let changed = [
        AdvSignedDeviceIdentity { account_signature: Some(flipped.into()), ..signed.clone() },
        AdvSignedDeviceIdentity { account_signature: Some(Bytes::from_static(&[0; 64])), ..signed.clone() },
        AdvSignedDeviceIdentity { account_signature: Some(Bytes::from_static(&[0; 63])), ..signed.clone() },
        AdvSignedDeviceIdentity { account_signature: Some(crossed.into()), ..signed.clone() },
        AdvSignedDeviceIdentity { account_signature_key: Some(other), ..signed.clone() },
        AdvSignedDeviceIdentity { account_signature_key: Some(Bytes::from_static(&[5; 33])), ..signed.clone() },
        AdvSignedDeviceIdentity { details: Some(Bytes::from_static(&[0x18, 6])), ..signed.clone() },
    ];
    for signed in changed {
        let error = phone.verify(&phone.seal(&signed)).expect_err("refused");
        assert_eq!((error.code(), error.text()), (401, "signature-mismatch"), "{error}");
    }
    let refused = adv::verify(&phone.seal(&signed), &phone.secret, &PublicKey::from_bytes([7; 32]));
    assert_eq!(refused, Err(PairError::AccountSignature), "the signature is for our identity only");
}

#[test]
fn what_cannot_be_read_is_an_internal_error() {
    let phone = phone();
    let signed =
        AdvSignedDeviceIdentity::decode(&bytes(&phone.file["e2ee"]["signed_device_identity_from_primary"])[..])
            .expect("identity");
    let unreadable = [
        vec![],
        vec![0xff; 10],
        vec![0; adv::MAX_IDENTITY_LEN + 1],
        phone.seal(&AdvSignedDeviceIdentity { details: None, ..signed.clone() }),
        phone.seal(&AdvSignedDeviceIdentity { details: Some(Bytes::from_static(&[0xff])), ..signed.clone() }),
        phone.seal(&AdvSignedDeviceIdentity { account_signature: None, ..signed.clone() }),
        phone.seal(&AdvSignedDeviceIdentity { account_signature_key: None, ..signed }),
    ];
    for container in unreadable {
        let error = phone.verify(&container).expect_err("refused");
        assert_eq!((error.code(), error.text()), (500, "internal-error"), "{error}");
    }
    let container = phone.container("e2ee");
    for len in 0..container.len() {
        assert!(phone.verify(&container[..len]).is_err(), "cut to {len} bytes");
    }
}

#[test]
fn only_the_verified_identity_can_sign() {
    let phone = phone();
    let verified = phone.verify(&phone.container("e2ee")).expect("verifies");
    assert_eq!(verified.sign_with(&phone.account, &[0; 64]).map(drop), Err(PairError::OtherIdentity));
}

#[test]
fn fetched_identities_are_checked() {
    let file = vectors(include_str!("vectors/signal_misc.json"));
    let case = &file["adv"];
    let account = PublicKey::from_slice(&bytes(&case["account_pub"])).expect("32 bytes");
    let identity = PublicKey::from_slice(&bytes(&case["device_identity_pub"])).expect("32 bytes");

    let complete = bytes(&case["signed_device_identity"]);
    for known in [None, Some(&account)] {
        let device = adv::verify_device(&complete, &identity, known).expect("verifies");
        assert_eq!((device.account_key(), device.key_index(), device.is_hosted()), (&account, 3, false));
    }
    let omitted = bytes(&case["signed_device_identity_key_omitted"]);
    assert!(adv::verify_device(&omitted, &identity, Some(&account)).is_ok());
    assert_eq!(adv::verify_device(&omitted, &identity, None), Err(PairError::NoAccountKey));
    assert_eq!(adv::verify_device(&omitted, &identity, Some(&identity)), Err(PairError::AccountSignature));
    assert_eq!(adv::verify_device(&complete, &account, None), Err(PairError::AccountSignature));
    assert!(adv::verify_device(&bytes(&case["hosted_variant"]["blob"]), &identity, None).is_ok());

    let rejects = case["reject"].as_array().expect("rejects");
    assert_eq!(rejects.len(), 4);
    for reject in rejects {
        let error = adv::verify_device(&bytes(&reject["blob"]), &identity, None).expect_err("refused");
        let expected = match reject["note"].as_str().expect("note") {
            "device signature flipped" => PairError::DeviceSignature,
            _ => PairError::AccountSignature,
        };
        assert_eq!(error, expected, "{}", reject["note"]);
    }
}

fn stanza(name: &str) -> Vec<u8> {
    let file = vectors(include_str!("vectors/stanzas.json"));
    let stanzas = file["stanzas"].as_array().expect("stanzas");
    let found = stanzas.iter().find(|stanza| stanza["name"] == name).expect(name);
    bytes(&found["encoded"])
}

fn parse(frame: impl Into<Bytes>) -> Result<Option<PairIq>, PairError> {
    stanza::parse(Decoder::default().decode(frame.into()).expect("frame"))
}

#[test]
fn a_whole_link_runs_over_stanzas() {
    let phone = phone();
    let Ok(Some(PairIq::Device(device))) = parse(stanza("pair-device")) else { panic!("pair-device") };
    assert_eq!(device.refs.len(), 6);
    let mut plan = RefPlan::new(device.refs.clone());
    let turn = plan.next_turn().expect("first ref");
    let client = ClientType::Chrome;
    let qr =
        QrContent::new(turn.reference, *phone.account.public(), *phone.identity.public(), phone.secret.clone(), client);
    assert_eq!(QrContent::parse(&qr.text()).expect("own text").reference, device.refs[0]);
    assert_eq!(
        Node::decode(stanza("pair-device result"))
            .map(|node| (node.attr_str("id").map(Into::into), node.attr_jid("to"))),
        Ok((Some(device.id.clone()), Some(Jid::whatsapp_server())))
    );
    let result = Node::decode(stanza::result(&device.id).encode().expect("encodes")).expect("decodes");
    assert_eq!((result.attr_str("type").as_deref(), result.child_nodes().len()), (Some("result"), 0));

    let Ok(Some(PairIq::Success(success))) = parse(stanza("pair-success")) else { panic!("pair-success") };
    assert_eq!(success.jid, Jid::pn("15551234567").with_device(3));
    assert_eq!(success.lid, Some(Jid::lid("98765432101234").with_device(3)));
    assert_eq!(success.platform.as_deref(), Some("android"));
    assert_eq!(success.business_name.as_deref(), Some("Test Shop"));
    assert_eq!(success.server_time, Some(1_700_000_060));
    assert_eq!(success.lid_migrated, Some(true));
    let signed =
        phone.verify(&success.identity).expect("verifies").sign_with(&phone.identity, &[0; 64]).expect("signs");
    let reply = stanza::sign(&success.id, &signed).encode().expect("encodes");
    assert_eq!(hex::encode(reply), hex::encode(stanza("pair-device-sign")));
}

#[test]
fn errors_answer_with_code_and_text() {
    let node = stanza::error("J", &PairError::HmacMismatch);
    let error = node.find_child("error").expect("error");
    assert_eq!((error.attr_u64("code"), error.attr_str("text").as_deref()), (Some(401), Some("hmac-mismatch")));
    assert_eq!((node.attr_str("type").as_deref(), node.attr_str("id").as_deref()), (Some("error"), Some("J")));
    let node = stanza::error("J", &PairError::Rejected);
    let error = node.find_child("error").expect("error");
    assert_eq!((error.attr_u64("code"), error.attr_str("text").as_deref()), (Some(500), Some("internal-error")));
}

fn iq(child: Node) -> Node {
    Node::new("iq").attr("from", Jid::whatsapp_server()).attr("type", "set").attr("id", "J").child(child)
}

fn success(jid: &str, lid: &str) -> Node {
    let device = Node::new("device").attr("jid", jid).attr("lid", lid);
    iq(Node::new("pair-success").child(Node::new("device-identity").bytes(vec![1])).child(device))
}

#[test]
fn unusable_pairing_iqs_are_refused() {
    let check = |node: Node| parse(node.encode().expect("encodes")).map(|iq| iq.is_some());
    let device = |refs: Vec<&'static [u8]>| {
        iq(Node::new("pair-device").children(refs.into_iter().map(|r| Node::new("ref").bytes(r))))
    };
    assert_eq!(check(device(vec![b"2@a", b"2@b"])), Ok(true));
    assert_eq!(check(device(vec![])), Err(PairError::Missing("ref")));
    assert_eq!(check(device(vec![b"2@a,b"])), Err(PairError::Malformed("ref")));
    assert_eq!(check(device(vec![b"2@\xff"])), Err(PairError::Malformed("ref")));
    assert_eq!(check(device(vec![b"x"; 33])), Err(PairError::TooLong { what: "refs", len: 33, max: 32 }));

    assert_eq!(check(success("1:3@s.whatsapp.net", "2:3@lid")), Ok(true));
    for jid in ["1@s.whatsapp.net", "1:3@lid", "a:3@s.whatsapp.net", "s.whatsapp.net"] {
        assert_eq!(check(success(jid, "2:3@lid")), Err(PairError::Malformed("jid of pair-success")), "{jid}");
    }
    for lid in ["2:4@lid", "2:3@s.whatsapp.net", "lid"] {
        assert_eq!(
            check(success("1:3@s.whatsapp.net", lid)),
            Err(PairError::Malformed("lid of pair-success")),
            "{lid}"
        );
    }
    assert!(check(iq(Node::new("pair-success"))).is_err());
    assert_eq!(check(iq(Node::new("ping"))), Ok(false));
    assert_eq!(check(Node::new("iq").attr("type", "result").child(Node::new("pair-device"))), Ok(false));
    let forged = success("1:3@s.whatsapp.net", "2:3@lid").attr("from", "666@s.whatsapp.net");
    assert!(check(forged).is_err(), "only the server pairs");
}

#[test]
fn refs_and_numbers_stay_out_of_debug() {
    let iq = parse(stanza("pair-device")).expect("parses").expect("pairing");
    assert!(!format!("{iq:?}").contains("2@"));
    let iq = parse(stanza("pair-success")).expect("parses").expect("pairing");
    assert!(!format!("{iq:?}").contains("15551234567") && !format!("{iq:?}").contains("98765432101234"));
}

proptest::proptest! {
    #[test]
    fn hostile_bytes_never_verify(bytes: Vec<u8>, text: String) {
        let phone = phone();
        assert!(phone.verify(&bytes).is_err());
        assert!(adv::verify_device(&bytes, phone.identity.public(), Some(phone.account.public())).is_err());
        assert!(QrContent::parse(&text).is_err());
    }

    #[test]
    fn a_changed_container_never_verifies(position: usize, byte: u8) {
        let phone = phone();
        let mut container = phone.container("e2ee");
        let position = position % container.len();
        let before = container[position];
        container[position] = byte;
        assert_eq!(phone.verify(&container).is_ok(), byte == before);
    }
}
