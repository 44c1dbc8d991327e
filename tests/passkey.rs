//! Linking with a passkey: the formulas, and what is read and written (spec 01 §5.8). The exchange is in `passkey_link.rs`.

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
        notice::{self, LinkNotice},
        passkey::{self, Assertion, Commitment, PrimaryIdentity},
    },
    proto::companion::device_props::PlatformType,
};

fn pair(value: &Value) -> KeyPair {
    KeyPair::from_private(PrivateKey::from_bytes(array(&value["private"])))
}

fn notice(node: &Node) -> Option<LinkNotice> {
    let mut decoder = Decoder::default();
    notice::parse(decoder.decode(node.encode().expect("encodable").into()).expect("decodable"))
}

fn notification(kind: &'static str) -> Node {
    Node::new("notification").attr("from", Jid::whatsapp_server()).attr("type", kind).attr("id", "1")
}

#[test]
fn key_schedule_of_the_vectors() {
    let vector = vector("passkey_pairing.json");
    let reference = vector["ref"].as_str().unwrap().to_owned();
    assert_eq!(vector["device_type"], PlatformType::Chrome as i32);
    let nonce = Secret::new(array(&vector["companion_nonce"]));
    let commitment = Commitment::new(PlatformType::Chrome, reference, pair(&vector["companion_ephemeral"]), nonce);
    let prologue = commitment.prologue();
    assert_eq!(prologue, bytes(&vector["prologue_payload"]));
    assert_eq!(commitment.nonce(), &array(&vector["companion_nonce"]));

    let primary = PrimaryIdentity::decode(&bytes(&vector["primary_ephemeral_identity"])).unwrap();
    assert_eq!(primary.public, *pair(&vector["primary_ephemeral"]).public());
    assert_eq!(primary.nonce, array(&vector["primary_nonce"]));
    let agreement = commitment.agree(&primary).unwrap();
    assert_eq!(agreement.code().as_str(), vector["verification_code"]);

    let handoff = Secret::new(array(&vector["handoff_hmac_key_from_old_adv_secret"]));
    assert_eq!(passkey::handoff_proof(&handoff, &prologue), array(&vector["pairing_handoff_proof"]));

    // The request holds noise key, identity and ADV secret; they stand in the plaintext of the vector.
    let request = bytes(&vector["pairing_request"]);
    let field = |at: usize| <[u8; 32]>::try_from(&request[at + 2..at + 34]).unwrap();
    let (noise, identity) = (PublicKey::from_bytes(field(0)), PublicKey::from_bytes(field(34)));
    assert_eq!(field(68), array(&vector["new_adv_secret"]));
    let sealed = agreement.seal(&noise, &identity, &Secret::new(field(68)), array(&vector["iv"]));
    assert_eq!(sealed, bytes(&vector["encrypted_pairing_request"]));
}

#[test]
fn what_the_phone_says_is_checked() {
    let vector = vector("passkey_pairing.json");
    let good = bytes(&vector["primary_ephemeral_identity"]);
    const BAD: PairError = PairError::Malformed("primary ephemeral identity");
    for (bad, error) in [
        (Vec::new(), BAD),
        (good[..34].to_vec(), BAD),
        ([&good[..], &[0xFF]].concat(), BAD),
        (vec![0; 2_000], PairError::TooLong { what: "primary ephemeral identity", len: 2_000, max: 1_024 }),
    ] {
        assert_eq!(PrimaryIdentity::decode(&bad), Err(error));
    }
    let mut weak = PrimaryIdentity::decode(&good).unwrap();
    weak.public = PublicKey::from_bytes([0; 32]);
    let commitment = Commitment::new(
        PlatformType::Chrome,
        "2@r".to_owned(),
        pair(&vector["companion_ephemeral"]),
        Secret::new([1; 32]),
    );
    assert_eq!(commitment.agree(&weak).err(), Some(PairError::WeakKey));
}

#[test]
fn notifications_and_requests() {
    let options = Node::new("passkey_request_options").bytes(b"{}".to_vec());
    let request = notification("passkey_prologue_request");
    assert_eq!(notice(&request), Some(LinkNotice::PasskeyRequest(Ok(None))), "they have to be asked for");
    let read = notice(&request.clone().child(options));
    assert_eq!(read, Some(LinkNotice::PasskeyRequest(Ok(Some(b"{}"[..].into())))));
    let huge = request.child(Node::new("passkey_request_options").bytes(vec![b' '; 70_000]));
    assert!(matches!(notice(&huge), Some(LinkNotice::PasskeyRequest(Err(PairError::TooLong { len: 70_000, .. })))));

    let continuation = notification("crsc_continuation");
    let missing = PairError::Missing("primary_ephemeral_identity");
    assert_eq!(notice(&continuation), Some(LinkNotice::PasskeyContinuation(Err(missing))));
    let identity = bytes(&vector("passkey_pairing.json")["primary_ephemeral_identity"]);
    let told = continuation.child(Node::new("primary_ephemeral_identity").bytes(identity.clone()));
    let expected = PrimaryIdentity::decode(&identity).unwrap();
    assert_eq!(notice(&told), Some(LinkNotice::PasskeyContinuation(Ok(expected))));
    assert_eq!(notice(&told.attr("from", Jid::pn("15550000009"))), None, "only the server links");

    let assertion = Assertion { credential_id: b"id"[..].into(), json: b"{\"a\":1}"[..].into() };
    for (key, proof) in [(None, None), (Some(Secret::new([4; 32])), Some(32))] {
        let node = passkey::prologue_request(&assertion, vec![1, 2, 3], key.as_ref());
        let request = node.find_child("passkey_prologue").unwrap();
        let content = |tag| request.find_child(tag).and_then(Node::content_bytes);
        assert_eq!(content("credential_id").as_deref(), Some(&b"id"[..]));
        assert_eq!(content("webauthn_assertion").as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(content("prologue_payload").as_deref(), Some(&[1, 2, 3][..]));
        assert_eq!(content("pairing_handoff_proof").map(|proof| proof.len()), proof);
    }
}
