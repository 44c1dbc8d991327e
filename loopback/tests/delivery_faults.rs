//! What can go wrong between two devices, on request: identities, prekeys, ciphertexts, order and time, acks, tokens.

mod common;

use std::time::Duration;

use common::many::hash;
use common::{Client, Device, World, ack, fan_out, iq, leaf, receipt};
use wamd::crypto::{KeyPair, hmac_sha256, xeddsa};
use wamd::jid::Jid;
use wamd::node::Node;
use wamd::pairing::key_index;
use wamd::signal::SignalError;
use wamd_loopback::{Config, Damage, EncKind, Fault, GroupMode, GroupSpec};

const ALICE: &str = "15550000001";
const BOB: &str = "15550000002";

/// Alice and Bob with one companion each; Alice's has a session with Bob's.
struct Pair {
    world: World,
    alice: Device,
    alice_client: Client,
    bob: Device,
    bob_client: Client,
}

impl Pair {
    fn new() -> Self {
        let mut world = World::new(Config::default(), 1);
        let (mut alice, mut bob) = (Device::new(1), Device::new(2));
        let mut alice_client = world.ready(&mut alice, ALICE);
        let bob_client = world.ready(&mut bob, BOB);
        world.open_session(&mut alice_client, &mut alice, &bob.lid());
        Self { world, alice, alice_client, bob, bob_client }
    }

    /// Alice's companion sends a text to Bob's; gives the ack.
    fn send(&mut self, id: &str) -> Node {
        self.send_with(id, |node| node)
    }

    fn send_with(&mut self, id: &str, change: impl Fn(Node) -> Node) -> Node {
        let bob = self.bob.lid();
        let enc = self.alice.encrypt(&bob, id);
        let message = change(fan_out(id, &bob.to_bare(), vec![(bob, enc)], &self.alice));
        self.world.send(&mut self.alice_client, &message);
        self.world.pick(&mut self.alice_client, |node| node.is("ack") && node.attr_str("id").as_deref() == Some(id))
    }

    fn fault(&mut self, fault: Fault) {
        self.world.server.fault(self.world.now, fault).unwrap();
        self.world.drain();
    }

    /// A rule for all messages to Bob's companion.
    fn delivery(&mut self, what: Damage, every: u32, count: Option<u32>) {
        let jid = self.bob.lid();
        self.fault(Fault::Delivery { jid, what, enc: None, id: None, every, count });
    }

    fn mend(&mut self) {
        let jid = self.bob.lid();
        self.fault(Fault::Mend { jid });
    }

    /// What Bob's companion reads in all that has come: ids, or what they failed of.
    fn bob_reads(&mut self) -> Vec<Result<String, SignalError>> {
        let messages = self.world.rest(&mut self.bob_client).into_iter().filter(|node| node.is("message"));
        messages.map(|message| Ok(self.bob.decrypt(&message)?.conversation.unwrap())).collect()
    }

    fn bundle(&mut self, of: &Jid) -> Node {
        let query = iq("get", "encrypt").child(Node::new("key").child(Node::new("user").attr("jid", of)));
        self.world.rest(&mut self.alice_client);
        let answer = self.world.ask(&mut self.alice_client, &mut self.alice, query);
        answer.find_child("list").unwrap().find_child("user").unwrap().clone()
    }
}

fn read(ids: &[&str]) -> Vec<Result<String, SignalError>> {
    ids.iter().map(|id| Ok((*id).to_owned())).collect()
}

fn identity(bundle: &Node) -> Option<bytes::Bytes> {
    bundle.find_child("identity").and_then(Node::content_bytes)
}

#[test]
fn an_account_that_registers_again_is_somebody_else() {
    let mut pair = Pair::new();
    pair.send("I1");
    let bob = pair.bob.lid().to_bare();
    let list = |pair: &mut Pair| {
        let query = Node::new("query").child(Node::new("devices").attr("version", "2"));
        let users = Node::new("list").child(Node::new("user").attr("jid", &bob));
        pair.world.rest(&mut pair.alice_client);
        let usync = iq("get", "usync").child(Node::new("usync").child(query).child(users));
        let answer = pair.world.ask(&mut pair.alice_client, &mut pair.alice, usync);
        let user = answer.find_child("usync").unwrap().find_child("list").unwrap().child_nodes()[0].clone();
        let devices = user.find_child("devices").unwrap();
        let index = devices.find_child("key-index-list").unwrap().content_bytes().unwrap();
        (
            devices.find_child("device-list").unwrap().child_nodes().len(),
            key_index::decode(&index, None).unwrap().raw_id(),
        )
    };
    let (before, (devices, raw_id)) = (identity(&pair.bundle(&bob)), list(&mut pair));
    assert_eq!(devices, 2);

    pair.fault(Fault::ChangeIdentity { jid: bob.clone() });
    let notices = pair.world.rest(&mut pair.alice_client);
    let kinds: Vec<_> =
        notices.iter().map(|node| (node.attr_str("type").unwrap(), node.first_child().unwrap().tag())).collect();
    assert_eq!(kinds, [("devices".into(), "remove"), ("encrypt".into(), "identity")]);
    assert_eq!(notices[1].attr_jid("from"), Some(pair.bob.jid().to_bare()));
    assert_eq!(notices[1].attr_jid("lid"), Some(bob.clone()));
    let error = pair.world.rest(&mut pair.bob_client).pop().unwrap();
    assert_eq!((error.tag(), error.attr_u64("code")), ("stream:error", Some(401)), "its companion is unlinked");
    assert_ne!(identity(&pair.bundle(&bob)), before);
    let (devices, other) = list(&mut pair);
    assert_eq!(devices, 1);
    assert_ne!(other, raw_id);

    // Both phones go on with the new keys.
    let alice = pair.alice.lid().to_bare();
    for (from, to) in [(ALICE, &bob), (BOB, &alice), (ALICE, &bob)] {
        pair.world.server.send_text(pair.world.now, from, to, from).unwrap();
        let reader = if from == ALICE { BOB } else { ALICE };
        assert_eq!(pair.world.server.received(reader).last().unwrap().text.as_deref(), Some(from));
    }
}

#[test]
fn one_time_keys_run_out() {
    let mut pair = Pair::new();
    let (bob, phone) = (pair.bob.lid(), pair.bob.lid().to_bare());
    pair.fault(Fault::WithholdPrekey { jid: bob.clone(), on: true });
    pair.fault(Fault::WithholdPrekey { jid: phone.clone(), on: true });
    for jid in [&bob, &phone] {
        let bundle = pair.bundle(jid);
        assert!(bundle.find_child("key").is_none() && bundle.find_child("skey").is_some());
    }
    assert_eq!(pair.world.server.accounts()[1].devices[0].prekeys, 28, "none was lost by it");
    pair.fault(Fault::WithholdPrekey { jid: bob.clone(), on: false });
    assert!(pair.bundle(&bob).find_child("key").is_some());

    pair.fault(Fault::EmptyPrekeys { jid: bob.clone() });
    let notice = pair.world.expect_notice(&mut pair.bob_client, "encrypt");
    assert_eq!(notice.find_child("count").unwrap().attr_u64("value"), Some(0));
    pair.world.send(&mut pair.bob_client, &ack(&notice));
    assert!(pair.bundle(&bob).find_child("key").is_none());
    // A session without one-time key works.
    pair.world.open_session(&mut pair.alice_client, &mut pair.alice, &bob);
    pair.send("K1");
    assert_eq!(pair.bob_reads(), read(&["K1"]));
    let upload = pair.bob.upload(10);
    pair.world.ask(&mut pair.bob_client, &mut pair.bob, upload);
    assert!(pair.bundle(&bob).find_child("key").is_some());

    pair.fault(Fault::RefuseBundle { jid: bob.clone(), code: 406, count: 1 });
    assert_eq!(pair.bundle(&bob).find_child("error").unwrap().attr_u64("code"), Some(406));
    assert!(pair.bundle(&bob).find_child("error").is_none());
}

#[test]
fn a_digest_is_asked_for_and_follows_the_signed_prekey() {
    let mut pair = Pair::new();
    let jid = pair.bob.lid();
    pair.fault(Fault::AskDigest { jid });
    let notice = pair.world.expect_notice(&mut pair.bob_client, "encrypt");
    assert!(notice.find_child("digest").is_some());
    let skey_id = |pair: &mut Pair| {
        let answer =
            pair.world.ask(&mut pair.bob_client, &mut pair.bob, iq("get", "encrypt").child(Node::new("digest")));
        let skey = answer.find_child("digest").unwrap().find_child("skey").unwrap();
        skey.find_child("id").unwrap().content_bytes().unwrap()
    };
    assert_eq!(skey_id(&mut pair)[..], [0, 0, 1]);
    let fresh = KeyPair::generate(&mut pair.bob.rng);
    let signature = xeddsa::sign(pair.bob.identity.private(), &[&fresh.public().to_typed()], &mut pair.bob.rng);
    let skey = Node::new("skey")
        .child(leaf("id", &[0, 0, 2]))
        .child(leaf("value", fresh.public().as_bytes()))
        .child(leaf("signature", &signature));
    let rotate = iq("set", "encrypt").child(Node::new("rotate").child(skey));
    assert_eq!(pair.world.ask(&mut pair.bob_client, &mut pair.bob, rotate).attr_str("type").as_deref(), Some("result"));
    assert_eq!(skey_id(&mut pair)[..], [0, 0, 2]);
}

#[test]
fn ciphertexts_are_lost_and_spoiled() {
    let mut pair = Pair::new();
    pair.delivery(Damage::Corrupt, 2, Some(2));
    for id in ["C1", "C2", "C3", "C4", "C5", "C6"] {
        pair.send(id);
    }
    let bad = || Err(SignalError::BadMac);
    let mut expected = read(&["C1", "C2", "C3", "C4", "C5", "C6"]);
    (expected[1], expected[3]) = (bad(), bad());
    assert_eq!(pair.bob_reads(), expected, "every second, twice");

    pair.delivery(Damage::Drop, 1, Some(1));
    pair.send("D1");
    let bare = pair.world.expect(&mut pair.bob_client, "message");
    assert!(bare.find_child("enc").is_none() && bare.find_child("unavailable").is_none());
    pair.mend();
    let unavailable = Damage::Unavailable { kind: Some("view_once_unavailable_fanout".to_owned()) };
    let jid = pair.bob.lid();
    pair.fault(Fault::Delivery { jid, what: unavailable, enc: None, id: Some("U2".to_owned()), every: 1, count: None });
    for id in ["U1", "U2", "U3"] {
        pair.send(id);
    }
    let messages = pair.world.rest(&mut pair.bob_client);
    let kinds: Vec<_> = messages
        .iter()
        .map(|message| {
            let unavailable =
                message.find_child("unavailable").and_then(|node| node.attr_str("type").map(|kind| kind.into_owned()));
            (message.find_child("enc").is_some(), unavailable)
        })
        .collect();
    assert_eq!(kinds, [(true, None), (false, Some("view_once_unavailable_fanout".to_owned())), (true, None)]);
    pair.mend();
    pair.send("U4");
    assert_eq!(pair.bob_reads(), read(&["U4"]));
}

#[test]
fn a_group_message_may_lose_its_key_or_its_text_alone() {
    let mut pair = Pair::new();
    let members = vec![pair.bob.lid().to_bare()];
    let spec = GroupSpec {
        creator: ALICE.to_owned(),
        subject: "G".to_owned(),
        members,
        mode: Some(GroupMode::Lid),
        ..GroupSpec::default()
    };
    let group = pair.world.server.create_group(pair.world.now, &spec).unwrap().jid;
    pair.world.drain();
    let bob = pair.bob.lid();
    let send = |pair: &mut Pair, id: &str, enc: EncKind, what: Damage| {
        pair.fault(Fault::Delivery { jid: bob.clone(), what, enc: Some(enc), id: None, every: 1, count: Some(1) });
        let message = pair.alice.group_message(id, &group, "lid", std::slice::from_ref(&bob), id);
        pair.world.send(&mut pair.alice_client, &message);
        pair.world.rest(&mut pair.bob_client).pop().unwrap()
    };
    let lost = send(&mut pair, "G1", EncKind::Pairwise, Damage::Drop);
    assert_eq!(pair.bob.read(&lost), Err(SignalError::NoSenderKey));
    let spoiled = send(&mut pair, "G2", EncKind::SenderKey, Damage::Corrupt);
    assert_eq!(pair.bob.read(&spoiled), Err(SignalError::BadSignature));
    let spoiled = send(&mut pair, "G3", EncKind::Pairwise, Damage::Corrupt);
    assert_eq!(pair.bob.read(&spoiled), Err(SignalError::BadMac));
    let textless = send(&mut pair, "G4", EncKind::SenderKey, Damage::Drop);
    assert_eq!(textless.child_nodes().iter().filter(|child| child.is("enc")).count(), 1);
}

#[test]
fn messages_come_twice_late_and_in_another_order() {
    let mut pair = Pair::new();
    pair.delivery(Damage::Duplicate, 1, Some(1));
    pair.send("T1");
    assert_eq!(pair.bob_reads(), [Ok("T1".to_owned()), Err(SignalError::Duplicate)]);

    pair.delivery(Damage::Behind { messages: 2 }, 1, Some(1));
    for id in ["O1", "O2", "O3", "O4"] {
        pair.send(id);
    }
    assert_eq!(pair.bob_reads(), read(&["O2", "O3", "O1", "O4"]));
    pair.delivery(Damage::Behind { messages: 5 }, 1, Some(1));
    pair.send("W1");
    pair.send("W2");
    assert_eq!(pair.bob_reads(), read(&["W2"]));
    pair.mend();
    assert_eq!(pair.bob_reads(), read(&["W1"]));

    pair.delivery(Damage::Delay { ms: 1_500 }, 1, Some(1));
    pair.send("L1");
    pair.send("L2");
    assert_eq!(pair.bob_reads(), read(&["L2"]));
    assert_eq!(pair.world.server.deadline(), Some(pair.world.now.mono + Duration::from_millis(1_500)));
    pair.world.advance(Duration::from_millis(1_499));
    assert_eq!(pair.bob_reads(), []);
    pair.world.advance(Duration::from_millis(1));
    assert_eq!(pair.bob_reads(), read(&["L1"]));
    assert_eq!(pair.world.server.deadline(), None);
}

#[test]
fn messages_are_refused_by_code() {
    let mut pair = Pair::new();
    let (alice, chat) = (pair.alice.jid(), pair.bob.jid().to_bare());
    let rule = |chat: Option<Jid>, error: Option<u16>, count: Option<u32>| Fault::Acks {
        jid: alice.clone(),
        chat,
        error,
        phash: None,
        refresh_lid: false,
        count,
    };
    for (index, code) in [400, 404, 406, 421, 429, 463, 475, 479, 500].into_iter().enumerate() {
        pair.fault(rule(None, Some(code), Some(1)));
        let ack = pair.send(&format!("R{index}"));
        assert_eq!((ack.attr_u64("error"), ack.get_attr("phash")), (Some(u64::from(code)), None));
    }
    assert_eq!(pair.bob_reads(), [], "what is refused goes nowhere");
    assert_eq!(pair.send("S0").get_attr("error"), None);

    // For one chat, called by its other name, until it is ended; the other rule holds for the rest.
    pair.fault(rule(Some(chat.clone()), Some(475), None));
    pair.fault(rule(None, Some(500), Some(1)));
    for id in ["S1", "S2", "S3"] {
        assert_eq!(pair.send(id).attr_u64("error"), Some(475));
    }
    pair.fault(rule(Some(chat), None, Some(0)));
    assert_eq!(pair.send("S4").attr_u64("error"), Some(500));
    assert_eq!(pair.send("S5").get_attr("error"), None);
    assert_eq!(pair.bob_reads(), read(&["S0", "S5"]));
}

#[test]
fn acks_say_more_than_there_is() {
    let mut pair = Pair::new();
    let devices = [pair.bob.lid().to_bare(), pair.bob.lid(), pair.alice.lid().to_bare()];
    assert_eq!(pair.send("P0").attr_str("phash").as_deref(), Some(&hash(&devices)[..]));
    let jid = pair.alice.lid();
    let phash = Some("2:AAAAAAAA".to_owned());
    pair.fault(Fault::Acks { jid, chat: None, error: None, phash, refresh_lid: true, count: Some(1) });
    let ack = pair.send("P1");
    assert_eq!(ack.attr_str("phash").as_deref(), Some("2:AAAAAAAA"));
    assert_eq!(ack.attr_str("refresh_lid").as_deref(), Some("true"));
    let ack = pair.send("P2");
    assert_eq!((ack.attr_str("phash").as_deref(), ack.get_attr("refresh_lid")), (Some(&hash(&devices)[..]), None));
    assert_eq!(pair.bob_reads(), read(&["P0", "P1", "P2"]));
}

#[test]
fn a_new_chat_needs_a_token_when_one_is_demanded() {
    let mut pair = Pair::new();
    let bob = pair.bob.lid().to_bare();
    pair.fault(Fault::DemandToken { jid: bob.clone(), on: true });
    assert_eq!(pair.send("N1").attr_u64("error"), Some(463));
    let wrong = pair.send_with("N2", |node| node.child(leaf("tctoken", &[7; 32])));
    assert_eq!(wrong.attr_u64("error"), Some(463));

    // Bob gives Alice a token; her companion hears of it.
    let now = pair.world.now.unix_seconds();
    let token = |t: u64| {
        Node::new("token").attr("jid", pair.alice.lid().to_bare()).attr("t", t).attr("type", "trusted_contact")
    };
    let (fresh, old) = (token(now), token(now - 40 * 86_400));
    let issue = |pair: &mut Pair, token: Node| {
        let issue = iq("set", "privacy").child(Node::new("tokens").child(token));
        pair.world.ask(&mut pair.bob_client, &mut pair.bob, issue);
        let notice = pair.world.expect_notice(&mut pair.alice_client, "privacy_token");
        assert_eq!(notice.attr_jid("from"), Some(pair.bob.jid().to_bare()));
        assert_eq!(notice.attr_jid("sender_lid"), Some(pair.bob.lid().to_bare()));
        let token = notice.find_child("tokens").unwrap().find_child("token").unwrap().clone();
        assert_eq!(token.attr_str("type").as_deref(), Some("trusted_contact"));
        token
    };
    let stale = issue(&mut pair, old).content_bytes().unwrap();
    let ack = pair.send_with("N3", |node| node.child(leaf("tctoken", &stale)));
    assert_eq!(ack.attr_u64("error"), Some(463), "the token is older than four weeks");
    let given = issue(&mut pair, fresh);
    assert_eq!(given.attr_u64("t"), Some(now));
    let given = given.content_bytes().unwrap();
    let both = |node: Node| node.child(leaf("tctoken", &given)).child(leaf("cstoken", &[0; 32]));
    assert_eq!(pair.send_with("N4", both).attr_u64("error"), Some(479));
    let ack = pair.send_with("N5", |node| node.child(leaf("tctoken", &given)));
    assert_eq!(ack.get_attr("error"), None);
    let incoming = pair.world.expect(&mut pair.bob_client, "message");
    assert!(incoming.find_child("tctoken").is_none(), "the token is for the server");
    assert_eq!(pair.send("N6").get_attr("error"), None, "the chat is open now");

    // A stranger opens it by its own salt.
    let mut carol = Device::new(3);
    let mut client = pair.world.ready(&mut carol, "15550000003");
    pair.world.open_session(&mut client, &mut carol, &pair.bob.lid());
    let salt = pair.world.server.nct_salt("15550000003").unwrap();
    let cstoken = hmac_sha256(&salt, &[bob.to_string().as_bytes()]);
    for (id, token, error) in [("M1", [0; 32], Some(463)), ("M2", cstoken, None)] {
        let enc = carol.encrypt(&pair.bob.lid(), id);
        let message = fan_out(id, &bob, vec![(pair.bob.lid(), enc)], &carol).child(leaf("cstoken", &token));
        pair.world.send(&mut client, &message);
        let ack = pair.world.pick(&mut client, |node| node.is("ack"));
        assert_eq!(ack.attr_u64("error"), error, "{id}");
    }
    let refused = pair.world.server.send_text(pair.world.now, "15550000004", &bob, "x").unwrap_err();
    assert_eq!(refused.to_string(), "the server refuses it with error 463");
    pair.fault(Fault::DemandToken { jid: bob.clone(), on: false });
    pair.world.server.send_text(pair.world.now, "15550000004", &bob, "x").unwrap();
}

#[test]
fn a_peer_message_carries_no_token() {
    let mut pair = Pair::new();
    let phone = pair.alice.lid().to_bare();
    pair.world.open_session(&mut pair.alice_client, &mut pair.alice, &phone);
    let peer = |id: &str, enc: Node| {
        Node::new("message").attr("to", &phone).attr("id", id).attr("type", "text").attr("category", "peer").child(enc)
    };
    for (id, token, error) in [("E1", true, Some(479)), ("E2", false, None)] {
        let enc = pair.alice.encrypt(&phone, id);
        let token = token.then(|| leaf("tctoken", &[1; 32]));
        pair.world.send(&mut pair.alice_client, &peer(id, enc).child_opt(token));
        let ack = pair.world.pick(&mut pair.alice_client, |node| node.is("ack"));
        assert_eq!((ack.attr_u64("error"), ack.get_attr("phash")), (error, None), "{id}");
    }
}

#[test]
fn notifications_may_be_lost() {
    let mut pair = Pair::new();
    pair.send("so that they know each other");
    let (alice, bob) = (pair.alice.lid(), pair.bob.lid().to_bare());
    pair.world.rest(&mut pair.alice_client);
    pair.fault(Fault::LoseNotices { jid: alice, kind: "devices".to_owned(), count: 1 });
    pair.fault(Fault::DevicesUpdate { jid: bob.clone() });
    pair.world.expect_silence(&mut pair.alice_client);
    pair.fault(Fault::DevicesUpdate { jid: bob });
    pair.world.expect_notice(&mut pair.alice_client, "devices");
}

#[test]
fn a_retry_passes_all_rules_but_its_own() {
    // A resend is not refused for want of a token, and rules count it like any message.
    let mut pair = Pair::new();
    pair.delivery(Damage::Corrupt, 1, Some(1));
    pair.send("A1");
    let spoiled = pair.world.expect(&mut pair.bob_client, "message");
    assert_eq!(pair.bob.decrypt(&spoiled), Err(SignalError::BadMac));
    let bob = pair.bob.lid();
    pair.fault(Fault::DemandToken { jid: bob.clone(), on: true });
    let retry = Node::new("retry").attr("v", "1").attr("id", "A1").attr("count", "1").attr("t", "1");
    let asked = receipt(&spoiled, Some("retry")).child(retry).child(leaf("registration", &[0, 0, 0, 1]));
    pair.world.send(&mut pair.bob_client, &asked);
    let request = pair.world.pick(&mut pair.alice_client, |node| node.is("receipt"));
    assert_eq!(request.attr_jid("from"), Some(bob.clone()));
    let enc = pair.alice.encrypt(&bob, "A1").attr("count", "1");
    let again = Node::new("message").attr("to", &bob).attr("id", "A1").attr("type", "text").child(enc);
    pair.world.send(&mut pair.alice_client, &again);
    assert_eq!(pair.bob_reads(), read(&["A1"]));
}
