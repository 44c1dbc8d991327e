//! Linking by passkey, with the companion's side written out here (spec 01 §5.8).

mod common;

use bytes::Bytes;
use common::{Client, Device, World, ack, iq, leaf};
use prost::Message as _;
use rand_core::Rng as _;
use wamd::crypto::{AesGcm, KeyPair, PublicKey, hkdf_sha256, hmac_sha256, sha256, x25519};
use wamd::node::Node;
use wamd::proto::companion::{
    CompanionCommitment, CompanionEphemeralIdentity, EncryptedPairingRequest, PairingRequest, PrimaryEphemeralIdentity,
    ProloguePayload,
};
use wamd_loopback::{Config, Fault, LinkStage, PasskeyOptions, PasskeyView, ScanError};

const ALICE: &str = "15550000001";

/// A companion that was asked for a passkey.
struct Companion {
    world: World,
    device: Device,
    client: Client,
    ephemeral: KeyPair,
    handoff: [u8; 32],
    nonce: [u8; 32],
    reference: String,
    identity: Bytes,
}

impl Companion {
    /// Shows its QR code, which the phone reads if `scanned`, and is asked.
    fn asked(scanned: bool, options: &PasskeyOptions) -> Self {
        let mut world = World::new(Config::default(), 1);
        let mut device = Device::new(1);
        let (client, refs) = world.begin_link(&mut device);
        let qr = device.qr(&refs[0]);
        world.server.begin_passkey(world.now, ALICE, scanned.then_some(&qr), options).unwrap();
        world.drain();
        let handoff = hkdf_sha256(None, &device.adv_secret, b"shortcake-passkey-handoff-v1");
        device.rng.fill_bytes(&mut device.adv_secret);
        let (ephemeral, mut nonce) = (KeyPair::generate(&mut device.rng), [0; 32]);
        device.rng.fill_bytes(&mut nonce);
        let (reference, identity) = (String::new(), Bytes::new());
        Self { world, device, client, ephemeral, handoff, nonce, reference, identity }
    }

    fn ask(&mut self, kind: &str, request: Node) -> Node {
        self.world.ask(&mut self.client, &mut self.device, iq(kind, "md").child(request))
    }

    fn set(&mut self, request: Node) -> Result<(), u64> {
        let answer = self.ask("set", request);
        answer.find_child("error").map_or(Ok(()), |error| Err(error.attr_u64("code").unwrap()))
    }

    fn prologue(&mut self, proof: Option<[u8; 32]>) -> Result<(), u64> {
        let answer = self.ask("get", Node::new("ref"));
        self.reference = answer.find_child("ref").unwrap().content_text().unwrap().into_owned();
        self.prologue_for(&self.reference.clone(), proof)
    }

    fn prologue_for(&mut self, reference: &str, proof: Option<[u8; 32]>) -> Result<(), u64> {
        let payload = self.payload(reference);
        let proof = proof.map(|handoff| leaf("pairing_handoff_proof", &hmac_sha256(&handoff, &[&payload])));
        let prologue = Node::new("passkey_prologue")
            .child(leaf("credential_id", b"credential"))
            .child(leaf("webauthn_assertion", br#"{"id":"x"}"#))
            .child(leaf("prologue_payload", &payload))
            .child_opt(proof);
        self.set(prologue)
    }

    fn payload(&mut self, reference: &str) -> Vec<u8> {
        let identity = CompanionEphemeralIdentity {
            public_key: Some(Bytes::copy_from_slice(self.ephemeral.public().as_bytes())),
            device_type: Some(1),
            r#ref: Some(reference.to_owned()),
        };
        self.identity = identity.encode_to_vec().into();
        let hash = Bytes::copy_from_slice(&sha256(&[&self.identity, &self.nonce]));
        let payload = ProloguePayload {
            companion_ephemeral_identity: Some(self.identity.clone()),
            commitment: Some(Box::new(CompanionCommitment { hash: Some(hash) })),
        };
        payload.encode_to_vec()
    }

    /// Reads the phone's key; gives the key of the exchange and the code.
    fn continuation(&mut self) -> ([u8; 32], String) {
        let notification = self.world.expect(&mut self.client, "notification");
        assert_eq!(notification.attr_str("type").as_deref(), Some("crsc_continuation"));
        self.world.send(&mut self.client, &ack(&notification));
        let identity = notification.find_child("primary_ephemeral_identity").unwrap().content_bytes().unwrap();
        let identity = PrimaryEphemeralIdentity::decode(identity).unwrap();
        let (theirs, nonce) = (identity.public_key.unwrap(), identity.nonce.unwrap());
        let shared = x25519(self.ephemeral.private(), &PublicKey::from_slice(&theirs).unwrap()).unwrap();
        let salt = format!("Companion Pairing 1 with ref {}", self.reference);
        let key = hkdf_sha256(Some(salt.as_bytes()), shared.expose(), b"Pairing Information Encryption Key");
        let hash = sha256(&[&self.nonce, &theirs]);
        let alphabet: Vec<char> = "123456789ABCDEFGHJKLMNPQRSTVWXYZ".chars().collect();
        let bits: String = (0..5).map(|index| format!("{:08b}", nonce[index] ^ hash[index])).collect();
        let digit = |place: usize| usize::from_str_radix(&bits[place * 5..place * 5 + 5], 2).unwrap();
        (key, (0..8).map(|place| alphabet[digit(place)]).collect())
    }

    fn request(&self, key: &[u8; 32], noise: &PublicKey) -> Node {
        let bytes = |bytes: &[u8]| Some(Bytes::copy_from_slice(bytes));
        let request = PairingRequest {
            companion_public_key: bytes(noise.as_bytes()),
            companion_identity_key: bytes(self.device.identity.public().as_bytes()),
            adv_secret: bytes(&self.device.adv_secret),
        };
        let mut sealed = request.encode_to_vec();
        AesGcm::new(key).seal(&[7; 12], &[], &mut sealed);
        let sealed = EncryptedPairingRequest { encrypted_payload: Some(sealed.into()), iv: bytes(&[7; 12]) };
        leaf("encrypted_pairing_request", &sealed.encode_to_vec())
    }

    fn view(&self) -> PasskeyView {
        self.world.server.waiting()[0].passkey.clone().unwrap()
    }

    fn last_link_error(&self) -> Option<String> {
        self.world.server.accounts()[0].last_link_error.clone()
    }
}

#[test]
fn a_passkey_links() {
    for (scanned, proof) in [(true, true), (true, false), (false, false)] {
        let mut companion = Companion::asked(scanned, &PasskeyOptions::default());
        let notification = companion.world.expect(&mut companion.client, "notification");
        assert_eq!(notification.attr_str("type").as_deref(), Some("passkey_prologue_request"));
        let options = notification.find_child("passkey_request_options").unwrap().content_bytes().unwrap();
        assert!(serde_json::from_slice::<serde_json::Value>(&options).unwrap()["challenge"].is_string());

        let handoff = companion.handoff;
        companion.prologue(proof.then_some(handoff)).unwrap();
        let view = companion.view();
        assert_eq!((view.proven, view.code, &*view.assertion), (proof, None, r#"{"id":"x"}"#));
        assert_eq!(view.credential_id, hex::encode("credential"));
        let (key, code) = companion.continuation();
        companion.set(leaf("companion_nonce", &companion.nonce.clone())).unwrap();
        assert_eq!(companion.view().code, Some(code), "both show the same");

        let noise = *companion.device.noise.public();
        companion.set(companion.request(&key, &noise)).unwrap();
        let success = companion.world.expect(&mut companion.client, "iq");
        for child in ["client-props", "encryption-metadata", "jurisdiction"] {
            assert!(success.find_child("pair-success").unwrap().find_child(child).is_some(), "{child}");
        }
        let answer = companion.device.answer_pair_success(&success).unwrap();
        companion.world.send(&mut companion.client, &answer);
        assert_eq!(companion.world.expect(&mut companion.client, "stream:error").attr_u64("code"), Some(515));
        assert_eq!(companion.last_link_error(), None);
        companion.world.login(&mut companion.device, false);
    }
}

#[test]
fn the_options_can_be_asked_for() {
    let request = r#"{"challenge":"abc"}"#.to_owned();
    let options = PasskeyOptions { leave_out: true, request: Some(request.clone()), ..PasskeyOptions::default() };
    let mut companion = Companion::asked(true, &options);
    let notification = companion.world.expect(&mut companion.client, "notification");
    assert!(notification.child_nodes().is_empty());
    let answer = companion.ask("get", Node::new("passkey_request_options"));
    let told = answer.find_child("passkey_request_options").unwrap().content_text().unwrap().into_owned();
    assert_eq!(told, request);
}

#[test]
fn what_is_not_right_is_refused() {
    let check = |scanned: bool, options: PasskeyOptions, why: &str, spoil: fn(&mut Companion) -> Result<(), u64>| {
        let mut companion = Companion::asked(scanned, &options);
        companion.world.expect(&mut companion.client, "notification");
        assert_eq!(spoil(&mut companion), Err(400), "{why}");
        assert_eq!(companion.last_link_error().as_deref(), Some(why));
    };
    let honest = PasskeyOptions::default;
    check(true, honest(), "the handoff proof is wrong", |companion| companion.prologue(Some([1; 32])));
    let strict = PasskeyOptions { require_proof: true, ..honest() };
    check(true, strict, "no handoff proof", |companion| companion.prologue(None));
    check(false, honest(), "the ref is not the one that was given", |companion| companion.prologue_for("2@x", None));
    check(false, honest(), "no commitment to open", |companion| companion.set(leaf("companion_nonce", &[1; 32])));
    check(false, honest(), "the nonce does not open the commitment", |companion| {
        companion.prologue(None).unwrap();
        companion.continuation();
        companion.set(leaf("companion_nonce", &[1; 32]))
    });
    check(false, honest(), "no key was agreed on", |companion| {
        companion.prologue(None).unwrap();
        companion.continuation();
        companion.set(companion.request(&[1; 32], companion.device.noise.public()))
    });
    check(false, honest(), "the pairing request does not open", |companion| {
        companion.prologue(None).unwrap();
        companion.continuation();
        companion.set(leaf("companion_nonce", &companion.nonce.clone())).unwrap();
        companion.set(companion.request(&[1; 32], companion.device.noise.public()))
    });
    check(false, honest(), "the noise key is not that of the connection", |companion| {
        companion.prologue(None).unwrap();
        let (key, _) = companion.continuation();
        companion.set(leaf("companion_nonce", &companion.nonce.clone())).unwrap();
        companion.set(companion.request(&key, companion.device.identity.public()))
    });
}

#[test]
fn the_phone_may_decline_hold_or_come_from_elsewhere() {
    let mut companion = Companion::asked(false, &PasskeyOptions { hold: true, ..PasskeyOptions::default() });
    companion.world.expect(&mut companion.client, "notification");
    companion.prologue(None).unwrap();
    companion.world.expect_silence(&mut companion.client);
    companion.world.server.refuse_link(companion.world.now, ALICE).unwrap();
    assert_eq!(companion.set(leaf("companion_nonce", &companion.nonce.clone())), Err(400));

    let mut companion = Companion::asked(false, &PasskeyOptions { foreign_sender: true, ..PasskeyOptions::default() });
    let notification = companion.world.expect(&mut companion.client, "notification");
    assert_eq!(notification.attr_jid("from").unwrap().user(), "15550009999");

    let stage = LinkStage::PasskeyPrologue;
    let fault = Fault::LinkAnswer { stage, code: Some(403), backoff: None, count: 1 };
    companion.world.server.fault(companion.world.now, fault).unwrap();
    assert_eq!(companion.prologue(None), Err(403));
    companion.world.expect_silence(&mut companion.client);
    companion.prologue(None).unwrap();

    let mut world = World::new(Config::default(), 1);
    let nobody = world.server.begin_passkey(world.now, ALICE, None, &PasskeyOptions::default());
    assert_eq!(nobody, Err(ScanError::UnknownRef));
}
