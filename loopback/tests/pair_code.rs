//! Linking by phone number, with the companion's side written out here (spec 01 §5).

mod common;

use common::{Client, Device, World, ack, iq, leaf};
use rand_core::Rng as _;
use wamd::crypto::{AesGcm, KeyPair, PublicKey, aes256_ctr, hkdf_sha256, pbkdf2_hmac_sha256, x25519};
use wamd::jid::Jid;
use wamd::node::Node;
use wamd_loopback::{CodeView, Config, ControlError, Fault, LinkAction, LinkStage, ScanError, ScanOptions};

const ALICE: &str = "15550000001";

fn code_key(code: &str, salt: &[u8]) -> [u8; 32] {
    *pbkdf2_hmac_sha256(code.as_bytes(), salt, 131_072).expose()
}

/// A companion that has shown its code.
struct Companion {
    world: World,
    device: Device,
    client: Client,
    ephemeral: KeyPair,
    reference: Vec<u8>,
}

impl Companion {
    fn hello(code: &str) -> Self {
        let mut world = World::new(Config::default(), 1);
        let mut device = Device::new(1);
        let (mut client, _) = world.begin_link(&mut device);
        let ephemeral = KeyPair::generate(&mut device.rng);
        let request = hello(&mut device, &ephemeral, code, "Chrome (Linux)");
        let answer = world.ask(&mut client, &mut device, request);
        let reference = answer.find_child("link_code_companion_reg").unwrap().find_child("link_code_pairing_ref");
        let reference = reference.unwrap().content_bytes().unwrap().to_vec();
        Self { world, device, client, ephemeral, reference }
    }

    fn enter(&mut self, code: &str) -> Result<(), ScanError> {
        self.enter_with(code, &ScanOptions::default())
    }

    fn enter_with(&mut self, code: &str, options: &ScanOptions) -> Result<(), ScanError> {
        let entered = self.world.server.enter_code(self.world.now, ALICE, code, options);
        self.world.drain();
        entered
    }

    fn fault(&mut self, fault: Fault) {
        self.world.server.fault(self.world.now, fault).unwrap();
        self.world.drain();
    }

    /// Sends a companion_hello that the server is to refuse, so that no key needs to be in it.
    fn refused_hello(&mut self) -> Node {
        let request = hello_with(&self.device, &[0; 80], "Chrome (Linux)");
        self.world.ask(&mut self.client, &mut self.device, request)
    }

    /// Goes through pair-success.
    fn linked(&mut self) {
        let success = self.world.expect(&mut self.client, "iq");
        let answer = self.device.answer_pair_success(&success).unwrap();
        self.world.send(&mut self.client, &answer);
        assert_eq!(self.world.expect(&mut self.client, "stream:error").attr_u64("code"), Some(515));
    }

    fn last_link_error(&self) -> Option<String> {
        self.world.server.accounts()[0].last_link_error.clone()
    }

    /// Answers primary_hello with the key bundle; `code` is the one that this side believes in.
    fn finish(&mut self, code: &str) -> Node {
        let request = self.answer_hello(code);
        self.world.ask(&mut self.client, &mut self.device, request)
    }

    /// The same while more stanzas wait.
    fn finish_in_turn(&mut self, code: &str) -> Node {
        let request = self.answer_hello(code).attr("id", self.device.id());
        self.world.pump(&mut self.client);
        let waiting: Vec<Node> = self.client.wire.nodes.drain(..).collect();
        self.world.send(&mut self.client, &request);
        let answer = self.world.expect(&mut self.client, "iq");
        self.world.pump(&mut self.client);
        for (place, node) in waiting.into_iter().enumerate() {
            self.client.wire.nodes.insert(place, node);
        }
        answer
    }

    fn answer_hello(&mut self, code: &str) -> Node {
        let notification = self.world.expect(&mut self.client, "notification");
        self.world.send(&mut self.client, &ack(&notification));
        let hello = notification.find_child("link_code_companion_reg").unwrap();
        assert_eq!(hello.attr_str("stage").as_deref(), Some("primary_hello"));
        let bytes = |tag: &str| hello.find_child(tag).unwrap().content_bytes().unwrap();
        assert_eq!(bytes("link_code_pairing_ref"), self.reference);
        let primary = PublicKey::from_slice(&bytes("primary_identity_pub")).unwrap();
        let wrapped = bytes("link_code_pairing_wrapped_primary_ephemeral_pub");
        let mut theirs: [u8; 32] = wrapped[48..].try_into().unwrap();
        aes256_ctr(&code_key(code, &wrapped[..32]), wrapped[32..48].try_into().unwrap(), &mut theirs);

        let device = &mut self.device;
        let shared = x25519(self.ephemeral.private(), &PublicKey::from_bytes(theirs)).unwrap();
        let (mut salt, mut iv, mut random) = ([0; 32], [0; 12], [0; 32]);
        device.rng.fill_bytes(&mut salt);
        device.rng.fill_bytes(&mut iv);
        device.rng.fill_bytes(&mut random);
        let info = b"link_code_pairing_key_bundle_encryption_key";
        let key: [u8; 32] = hkdf_sha256(Some(&salt), shared.expose(), info);
        let mut bundle = [&device.identity.public().as_bytes()[..], primary.as_bytes(), &random].concat();
        AesGcm::new(&key).seal(&iv, &[], &mut bundle);
        let identities = x25519(device.identity.private(), &primary).unwrap();
        let secrets = [&shared.expose()[..], identities.expose(), &random].concat();
        device.adv_secret = hkdf_sha256(None, &secrets, b"adv_secret");
        let finish = Node::new("link_code_companion_reg")
            .attr("jid", Jid::pn(ALICE))
            .attr("stage", "companion_finish")
            .child(leaf("link_code_pairing_wrapped_key_bundle", &[&salt[..], &iv, &bundle].concat()))
            .child(leaf("companion_identity_public", device.identity.public().as_bytes()))
            .child(leaf("link_code_pairing_ref", &self.reference));
        iq("set", "md").child(finish)
    }
}

fn error_code(answer: &Node) -> Option<u64> {
    answer.find_child("error").and_then(|error| error.attr_u64("code"))
}

fn hello(device: &mut Device, ephemeral: &KeyPair, code: &str, display: &str) -> Node {
    let (mut salt, mut iv) = ([0; 32], [0; 16]);
    device.rng.fill_bytes(&mut salt);
    device.rng.fill_bytes(&mut iv);
    let mut sealed = *ephemeral.public().as_bytes();
    aes256_ctr(&code_key(code, &salt), &iv, &mut sealed);
    hello_with(device, &[&salt[..], &iv, &sealed].concat(), display)
}

fn hello_with(device: &Device, wrapped: &[u8], display: &str) -> Node {
    let hello = Node::new("link_code_companion_reg")
        .attr("jid", Jid::pn(ALICE))
        .attr("stage", "companion_hello")
        .child(leaf("link_code_pairing_wrapped_companion_ephemeral_pub", wrapped))
        .child(leaf("companion_server_auth_key_pub", device.noise.public().as_bytes()))
        .child(Node::new("companion_platform_id").text("1"))
        .child(Node::new("companion_platform_display").text(display))
        .child(leaf("link_code_pairing_nonce", &[0]));
    iq("set", "md").child(hello)
}

#[test]
fn the_right_code_links() {
    let mut companion = Companion::hello("HLPBF19S");
    companion.enter("hlpb-f19s").unwrap();
    assert_eq!(companion.enter("HLPBF19S"), Err(ScanError::AlreadyScanned));
    assert_eq!(companion.finish("HLPBF19S").attr_str("type").as_deref(), Some("result"));
    let success = companion.world.expect(&mut companion.client, "iq");
    let answer = companion.device.answer_pair_success(&success).unwrap();
    companion.world.send(&mut companion.client, &answer);
    let error = companion.world.expect(&mut companion.client, "stream:error");
    assert_eq!(error.attr_u64("code"), Some(515));
    let mut client = companion.world.login(&mut companion.device, false);
    assert!(companion.world.backlog(&mut client).is_empty());
}

#[test]
fn a_wrong_code_fails_silently() {
    let mut companion = Companion::hello("HLPBF19S");
    companion.enter("HLPBF19Z").unwrap();
    assert_eq!(companion.finish("HLPBF19S").attr_str("type").as_deref(), Some("result"));
    companion.world.expect_silence(&mut companion.client);
    let account = &companion.world.server.accounts()[0];
    assert_eq!(account.last_link_error.as_deref(), Some("the key bundle does not open: wrong code"));
    assert!(account.devices.is_empty());
}

#[test]
fn what_cannot_be_is_refused() {
    let mut companion = Companion::hello("HLPBF19S");
    assert!(matches!(companion.enter("HLPBF190"), Err(ScanError::Malformed(_))));
    let nobody =
        companion.world.server.enter_code(companion.world.now, "15550000009", "HLPBF19S", &ScanOptions::default());
    assert_eq!(nobody, Err(ScanError::UnknownRef));

    let mut bad = hello(&mut companion.device, &companion.ephemeral, "HLPBF19S", "no system");
    let answer = companion.world.ask(&mut companion.client, &mut companion.device, bad);
    assert_eq!(answer.find_child("error").unwrap().attr_u64("code"), Some(400));
    let noise = companion.device.noise.clone();
    companion.device.noise = KeyPair::generate(&mut companion.device.rng);
    bad = hello(&mut companion.device, &companion.ephemeral, "HLPBF19S", "Chrome (Linux)");
    companion.device.noise = noise;
    let answer = companion.world.ask(&mut companion.client, &mut companion.device, bad);
    assert_eq!(answer.find_child("error").unwrap().attr_u64("code"), Some(400), "another noise key");
    let early = Node::new("link_code_companion_reg").attr("stage", "companion_finish");
    let answer = companion.world.ask(&mut companion.client, &mut companion.device, iq("set", "md").child(early));
    assert_eq!(answer.find_child("error").unwrap().attr_u64("code"), Some(400));
}

#[test]
fn after_a_wrong_code_another_one_can_be_typed() {
    let mut companion = Companion::hello("HLPBF19S");
    companion.enter("HLPBF19Z").unwrap();
    companion.finish("HLPBF19S");
    let code = CodeView { number: ALICE.to_owned(), typed: false };
    assert_eq!(companion.world.server.waiting()[0].code, Some(code));
    companion.enter("HLPBF19S").unwrap();
    assert!(companion.world.server.waiting()[0].code.as_ref().unwrap().typed);
    companion.finish("HLPBF19S");
    assert!(companion.world.server.waiting()[0].offered);
    companion.linked();
    assert_eq!(companion.last_link_error(), None);
}

#[test]
fn a_phone_that_declines_says_nothing_and_its_code_is_void() {
    let mut companion = Companion::hello("HLPBF19S");
    let refuse = |companion: &mut Companion| companion.world.server.refuse_link(companion.world.now, ALICE);
    companion.enter("HLPBF19S").unwrap();
    refuse(&mut companion).unwrap();
    assert_eq!(refuse(&mut companion), Err(ControlError::NotWaiting));
    assert_eq!(error_code(&companion.finish("HLPBF19S")), Some(400));
    companion.world.expect_silence(&mut companion.client);
    assert_eq!(companion.enter("HLPBF19S"), Err(ScanError::UnknownRef));
}

#[test]
fn the_server_refuses_either_stage_or_says_nothing() {
    let mut companion = Companion::hello("HLPBF19S");
    let stage = LinkStage::CompanionHello;
    for code in [400, 403, 429, 452, 500] {
        companion.fault(Fault::LinkAnswer { stage, code: Some(code), backoff: None, count: 1 });
        assert_eq!(error_code(&companion.refused_hello()), Some(u64::from(code)));
    }
    companion.fault(Fault::LinkAnswer { stage, code: Some(429), backoff: Some(30), count: 2 });
    for _ in 0..2 {
        let answer = companion.refused_hello();
        let error = answer.find_child("error").unwrap();
        assert_eq!((error.attr_u64("code"), error.attr_u64("backoff")), (Some(429), Some(30)));
        assert_eq!(error.attr_str("text").as_deref(), Some("rate-overlimit"));
    }
    companion.fault(Fault::LinkAnswer { stage, code: None, backoff: None, count: 1 });
    let request = hello_with(&companion.device, &[0; 80], "Chrome (Linux)").attr("id", "silence");
    companion.world.send(&mut companion.client, &request);
    companion.world.expect_silence(&mut companion.client);

    // What was refused has changed nothing: the first code still holds.
    companion.enter("HLPBF19S").unwrap();
    let stage = LinkStage::CompanionFinish;
    companion.fault(Fault::LinkAnswer { stage, code: Some(500), backoff: None, count: 1 });
    assert_eq!(error_code(&companion.finish("HLPBF19S")), Some(500));
    companion.enter_with("HLPBF19S", &ScanOptions { again: true, ..ScanOptions::default() }).unwrap();
    companion.finish("HLPBF19S");
    companion.linked();
}

#[test]
fn silence_after_the_finish() {
    let mut companion = Companion::hello("HLPBF19S");
    companion.enter_with("HLPBF19S", &ScanOptions { silent: true, ..ScanOptions::default() }).unwrap();
    assert_eq!(companion.finish("HLPBF19S").attr_str("type").as_deref(), Some("result"));
    companion.world.expect_silence(&mut companion.client);
    assert_eq!(companion.last_link_error().as_deref(), Some("the phone says nothing more"));
}

#[test]
fn a_foreign_ref_can_be_followed_by_the_right_one() {
    let mut companion = Companion::hello("HLPBF19S");
    companion.enter_with("HLPBF19S", &ScanOptions { foreign_ref: true, ..ScanOptions::default() }).unwrap();
    let notification = companion.world.expect(&mut companion.client, "notification");
    let hello = notification.find_child("link_code_companion_reg").unwrap();
    let reference = hello.find_child("link_code_pairing_ref").unwrap().content_bytes().unwrap();
    assert_ne!(reference[..], companion.reference[..]);
    companion.enter("HLPBF19S").unwrap();
    companion.finish("HLPBF19S");
    companion.linked();
}

#[test]
fn of_several_hellos_the_last_one_counts() {
    let mut companion = Companion::hello("HLPBF19S");
    companion.enter_with("HLPBF19S", &ScanOptions { further_hellos: 2, ..ScanOptions::default() }).unwrap();
    // All three are there before the first is answered.
    for last in [false, false, true] {
        assert!(!companion.world.server.waiting()[0].offered);
        assert_eq!(companion.finish_in_turn("HLPBF19S").attr_str("type").as_deref(), Some("result"));
        assert_eq!(companion.world.server.waiting()[0].offered, last);
    }
    companion.linked();
}

#[test]
fn the_server_may_ask_for_a_new_code() {
    let mut companion = Companion::hello("HLPBF19S");
    for force_manual in [false, true] {
        let action = LinkAction::RefreshCode { force_manual };
        companion.world.server.link_action(companion.world.now, None, action).unwrap();
        companion.world.drain();
        let notification = companion.world.expect(&mut companion.client, "notification");
        assert_eq!(notification.attr_str("type").as_deref(), Some("link_code_companion_reg"));
        let request = notification.find_child("link_code_companion_reg").unwrap();
        assert_eq!(request.attr_str("stage").as_deref(), Some("refresh_code"));
        assert_eq!(request.attr_str("force_manual_refresh").is_some(), force_manual);
    }
    assert_eq!(companion.enter("HLPBF19S"), Err(ScanError::UnknownRef), "the former code is void");
    let request = hello(&mut companion.device, &companion.ephemeral, "15JMBSWA", "Chrome (Linux)");
    companion.world.ask(&mut companion.client, &mut companion.device, request);
    companion.enter("15JMBSWA").unwrap();
}
