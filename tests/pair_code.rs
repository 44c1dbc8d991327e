//! Linking by code: numbers, codes, the key schedule and the stanzas (spec 01 §5). The vectors are of another implementation.

#[path = "common/vectors.rs"]
mod vectors;

use serde_json::Value;
use vectors::{array, bytes, vector};
use wamd::{
    Jid,
    crypto::{KeyPair, PrivateKey, PublicKey, Secret},
    node::{Decoder, Node},
    pairing::{
        PairError,
        code::{
            self, FinishRandom, Hello, Keys, PairCode, PairCodeError, PhoneNumber, PhoneNumberError, PrimaryHello,
            WrappedKey,
        },
        notice::{self, LinkNotice},
        payload::ClientConfig,
    },
    proto::companion::device_props::PlatformType,
};

fn pair(value: &Value) -> KeyPair {
    let pair = KeyPair::from_private(PrivateKey::from_bytes(array(&value["private"])));
    assert_eq!(pair.public().as_bytes(), &array(&value["public"]));
    pair
}

/// Reads a node as it comes off the wire.
fn notice(node: &Node) -> Option<LinkNotice> {
    let mut decoder = Decoder::default();
    notice::parse(decoder.decode(node.encode().expect("encodable").into()).expect("decodable"))
}

#[test]
fn codes_of_the_vectors() {
    let vector = vector("pair_code.json");
    for (random, code) in vector["alphabet_checks"].as_object().unwrap() {
        let random: [u8; 5] = hex::decode(random).unwrap().try_into().unwrap();
        assert_eq!(PairCode::from_bytes(&random).as_str(), code);
    }
    let code = PairCode::from_bytes(&array(&vector["code_bytes"]));
    assert_eq!(code.as_str(), vector["code"]);
    assert_eq!(code.shown(), vector["code_displayed"].as_str().unwrap());
}

#[test]
fn key_schedule_of_the_vectors() {
    let vector = vector("pair_code.json");
    let code: PairCode = vector["code_displayed"].as_str().unwrap().parse().unwrap();
    let (companion, primary) = (&vector["companion"], &vector["primary"]);

    let (ephemeral, identity) = (pair(&companion["ephemeral"]), pair(&companion["identity"]));
    let key = code::stretch(&code, &array(&companion["salt"]));
    assert_eq!(key.expose(), &array(&companion["pbkdf2_key"]));
    let wrapped = WrappedKey::seal(ephemeral.public(), &key, array(&companion["salt"]), array(&companion["iv"]));
    assert_eq!(wrapped.to_bytes(), array(&companion["wrapped_companion_ephemeral_pub_80"]));

    let theirs = WrappedKey::from_slice(&bytes(&primary["wrapped_primary_ephemeral_pub_80"])).unwrap();
    let key = code::stretch(&code, theirs.salt());
    assert_eq!(key.expose(), &array(&primary["pbkdf2_key"]));
    let theirs = theirs.open(&key);
    assert_eq!(theirs.as_bytes(), &array(&primary["ephemeral"]["public"]));

    let primary_identity = PublicKey::from_bytes(array(&primary["identity"]["public"]));
    let random = FinishRandom {
        adv: Secret::new(array(&vector["adv_random"])),
        salt: array(&vector["bundle_salt"]),
        iv: array(&vector["bundle_iv"]),
    };
    let ours = Keys { identity: &identity, ephemeral: &ephemeral };
    let finish = code::finish(ours, Keys { identity: &primary_identity, ephemeral: &theirs }, &random).unwrap();
    assert_eq!(finish.bundle, bytes(&vector["wrapped_key_bundle_156"]));
    assert_eq!(finish.bundle.len(), code::BUNDLE_LEN);
    assert_eq!(finish.adv_secret.expose(), &array(&vector["adv_secret"]));
}

#[test]
fn keys_of_small_order_are_refused() {
    let pair = KeyPair::from_private(PrivateKey::from_bytes([7; 32]));
    let random = FinishRandom { adv: Secret::new([1; 32]), salt: [2; 32], iv: [3; 12] };
    let ours = Keys { identity: &pair, ephemeral: &pair };
    let (good, weak) = (PublicKey::from_bytes(*pair.public().as_bytes()), PublicKey::from_bytes([0; 32]));
    assert!(code::finish(ours, Keys { identity: &good, ephemeral: &good }, &random).is_ok());
    for theirs in [Keys { identity: &weak, ephemeral: &good }, Keys { identity: &good, ephemeral: &weak }] {
        assert_eq!(code::finish(ours, theirs, &random).err(), Some(PairError::WeakKey));
    }
}

#[test]
fn numbers_are_digits_with_a_country_code() {
    let good = |text: &str, digits: &str| {
        let number: PhoneNumber = text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_eq!((number.as_str(), number.jid()), (digits, Jid::pn(digits)));
        assert!(!format!("{number:?}").contains(&digits[..5]), "Debug hides it");
    };
    good("15551234567", "15551234567");
    good("+55 11 98765-4321", "5511987654321");
    good(" +49 (171) 123.45/67 ", "491711234567");
    good("1234567", "1234567");
    good("123456789012345", "123456789012345");
    let bad = |text: &str, error: PhoneNumberError| assert_eq!(text.parse::<PhoneNumber>(), Err(error), "{text:?}");
    bad("", PhoneNumberError::Length { digits: 0 });
    bad("+", PhoneNumberError::Length { digits: 0 });
    bad("123456", PhoneNumberError::Length { digits: 6 });
    bad("1234567890123456", PhoneNumberError::Length { digits: 16 });
    bad(&"1".repeat(100_000), PhoneNumberError::Length { digits: 100_000 });
    bad("01711234567", PhoneNumberError::LeadingZero);
    bad("0049 171 1234567", PhoneNumberError::LeadingZero);
    for text in ["1555123456a", "15551234567@s.whatsapp.net", "1+5551234567", "١٢٣٤٥٦٧٨", "1555\u{0}1234567"] {
        bad(text, PhoneNumberError::Character);
    }
}

#[test]
fn codes_of_the_caller_are_of_the_alphabet() {
    let good = |text: &str, code: &str| assert_eq!(text.parse::<PairCode>().unwrap().as_str(), code);
    good("ABCD1234", "ABCD1234");
    good("abcd-1234", "ABCD1234");
    good(" zzzz zzzz ", "ZZZZZZZZ");
    let bad = |text: &str, error: PairCodeError| assert_eq!(text.parse::<PairCode>(), Err(error), "{text:?}");
    bad("", PairCodeError::Length { characters: 0 });
    bad("ABCD123", PairCodeError::Length { characters: 7 });
    bad("ABCD12345", PairCodeError::Length { characters: 9 });
    for text in ["ABCD1230", "ABCDI234", "ABCDO234", "ABCDU234", "ÄBCD1234", "ABCD_123"] {
        bad(text, PairCodeError::Character);
    }
    assert_eq!(format!("{:?}", "ABCD1234".parse::<PairCode>()), "Ok([redacted])");
}

#[test]
fn the_hello_names_a_browser_that_the_server_knows() {
    let display = |os: &str, platform_type| {
        ClientConfig { os: os.to_owned(), platform_type, ..ClientConfig::default() }.platform_display()
    };
    assert_eq!(ClientConfig::default().platform_display(), "Chrome (Linux)");
    assert_eq!(display("Windows", PlatformType::Edge), "Edge (Windows)");
    assert_eq!(display("mac os", PlatformType::Safari), "Safari (Mac OS)");
    assert_eq!(display("Ubuntu", PlatformType::Firefox), "Firefox (Ubuntu)");
    assert_eq!(display("My gateway", PlatformType::Desktop), "Chrome (Linux)");

    let (phone, noise) = ("15551234567".parse().unwrap(), PublicKey::from_bytes([5; 32]));
    let wrapped = WrappedKey::from_slice(&[9; 80]).unwrap();
    let client = ClientConfig::default();
    let hello = Hello { phone: &phone, notify: false, wrapped: &wrapped, noise: &noise, client: &client };
    let node = code::hello(&hello);
    assert_eq!((node.tag(), node.attr_str("type").as_deref()), ("iq", Some("set")));
    assert_eq!(node.attr_str("xmlns").as_deref(), Some("md"));
    let stage = node.find_child("link_code_companion_reg").unwrap();
    assert_eq!(stage.attr_jid("jid"), Some(Jid::pn("15551234567")));
    assert_eq!(stage.attr_str("stage").as_deref(), Some("companion_hello"));
    assert_eq!(stage.attr_str("should_show_push_notification").as_deref(), Some("false"));
    let content = |tag| stage.find_child(tag).unwrap().content_bytes().unwrap();
    assert_eq!(content("link_code_pairing_wrapped_companion_ephemeral_pub")[..], [9; 80]);
    assert_eq!(content("companion_server_auth_key_pub")[..], [5; 32]);
    assert_eq!(content("companion_platform_id")[..], *b"1");
    assert_eq!(content("companion_platform_display")[..], *b"Chrome (Linux)");
    assert_eq!(content("link_code_pairing_nonce")[..], [0]);
}

fn notification(kind: &'static str) -> Node {
    let node = Node::new("notification").attr("from", Jid::whatsapp_server());
    node.attr("type", kind).attr("id", "1")
}

fn primary_hello(wrapped: usize, identity: usize, reference: usize) -> Node {
    let leaf = |tag: &'static str, len| Node::new(tag).bytes(vec![7; len]);
    let stage = Node::new("link_code_companion_reg")
        .attr("stage", "primary_hello")
        .child(leaf("link_code_pairing_wrapped_primary_ephemeral_pub", wrapped))
        .child(leaf("primary_identity_pub", identity))
        .child(leaf("link_code_pairing_ref", reference));
    notification("link_code_companion_reg").child(stage)
}

#[test]
fn notifications_are_read() {
    let hello = |node: &Node| match notice(node) {
        Some(LinkNotice::PrimaryHello(hello)) => hello,
        other => panic!("{other:?}"),
    };
    let good: PrimaryHello = hello(&primary_hello(80, 32, 20)).unwrap();
    assert_eq!((good.identity, &good.reference[..]), (PublicKey::from_bytes([7; 32]), &[7; 20][..]));
    assert_eq!(good.wrapped, WrappedKey::from_slice(&[7; 80]).unwrap());
    assert!(hello(&primary_hello(81, 32, 20)).is_ok(), "80 bytes at least");
    assert_eq!(hello(&primary_hello(79, 32, 20)), Err(PairError::Malformed("wrapped key of primary_hello")));
    assert_eq!(hello(&primary_hello(80, 33, 20)), Err(PairError::Malformed("identity of primary_hello")));
    assert_eq!(hello(&primary_hello(80, 32, 0)), Err(PairError::Missing("link_code_pairing_ref")));
    assert!(matches!(hello(&primary_hello(80, 32, 600)), Err(PairError::TooLong { len: 600, .. })));

    let stage = |stage: &'static str| Node::new("link_code_companion_reg").attr("stage", stage);
    let of = |stage: Node| notice(&notification("link_code_companion_reg").child(stage));
    assert_eq!(of(stage("refresh_code")), Some(LinkNotice::RefreshCode { manual: false }));
    let forced = stage("refresh_code").attr("force_manual_refresh", "true");
    assert_eq!(of(forced), Some(LinkNotice::RefreshCode { manual: true }));
    assert_eq!(of(stage("something_else")), None);
    assert_eq!(of(Node::new("link_code_companion_reg")), None);

    for child in ["companion_reg_refresh", "pair-device-rotate-qr"] {
        let node = notification("companion_reg_refresh").child(Node::new(child));
        assert_eq!(notice(&node), Some(LinkNotice::RotateSecret));
    }
    assert_eq!(notice(&notification("companion_reg_refresh")), None);
    assert_eq!(notice(&notification("encrypt")), None);
    let stranger = primary_hello(80, 32, 20).attr("from", Jid::pn("15550000009"));
    assert_eq!(notice(&stranger), None, "only the server links");
}
