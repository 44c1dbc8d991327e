//! Messages between devices: routing, receipts, queues, keys, phones, faults.

mod common;

use common::{Client, Device, World, ack, fan_out, iq, leaf, receipt};
use wamd::crypto::{PublicKey, sha1, xeddsa};
use wamd::jid::Jid;
use wamd::node::Node;
use wamd::proto::adv::{AdvKeyIndexList, AdvSignedKeyIndexList};
use wamd::proto::{Message as _, e2e};
use wamd::signal::SignalError;
use wamd_loopback::{Config, Disconnect, Fault};

const ALICE: &str = "15550000001";
const BOB: &str = "15550000002";

/// Alice with one companion, Bob with one companion, both ready.
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

    /// Alice's companion sends a text to Bob's companion.
    fn send(&mut self, id: &str, text: &str) -> Node {
        let enc = self.alice.encrypt(&self.bob.lid(), text);
        let message = fan_out(id, &self.bob.lid().to_bare(), vec![(self.bob.lid(), enc)], &self.alice);
        self.world.send(&mut self.alice_client, &message);
        message
    }

    fn expect_ack(&mut self, id: &str) -> Node {
        let ack = self.world.expect(&mut self.alice_client, "ack");
        assert_eq!(ack.attr_str("id").as_deref(), Some(id));
        assert_eq!(ack.attr_str("class").as_deref(), Some("message"));
        ack
    }
}

fn text(message: &e2e::Message) -> &str {
    message.conversation.as_deref().unwrap()
}

#[test]
fn every_device_gets_its_own_ciphertext() {
    let mut world = World::new(Config::default(), 1);
    let (mut alice, mut other, mut bob) = (Device::new(1), Device::new(2), Device::new(3));
    let mut client = world.ready(&mut alice, ALICE);
    let mut other_client = world.ready(&mut other, ALICE);
    let notice = world.expect(&mut client, "notification");
    assert_eq!(notice.attr_str("type").as_deref(), Some("account_sync"));
    world.send(&mut client, &ack(&notice));
    let mut bob_client = world.ready(&mut bob, BOB);

    let phone = bob.lid().to_bare();
    let mut copies = Vec::new();
    for to in [phone.clone(), bob.lid(), other.lid()] {
        world.open_session(&mut client, &mut alice, &to);
        copies.push((to.clone(), alice.encrypt(&to, &format!("for {to}"))));
    }
    let message =
        fan_out("M1", &phone, copies, &alice).attr("edit", "1").child(Node::new("meta").attr("polltype", "vote"));
    world.send(&mut client, &message);
    let ack = world.expect(&mut client, "ack");
    assert_eq!((ack.attr_jid("from"), ack.get_attr("error")), (Some(phone.clone()), None));
    assert_eq!(ack.attr_u64("t"), Some(world.now.unix_seconds()));

    // The phone's receipt is here already: it reads at once.
    let delivered = world.expect(&mut client, "receipt");
    assert_eq!((delivered.attr_jid("from"), delivered.get_attr("type")), (Some(phone.clone()), None));
    let received = world.server.received(BOB);
    assert_eq!(received[0].text.as_deref(), Some(&format!("for {phone}")[..]));

    let incoming = world.expect(&mut bob_client, "message");
    assert_eq!(incoming.attr_jid("from"), Some(alice.lid()));
    assert_eq!(incoming.attr_jid("sender_pn"), Some(alice.jid().to_bare()));
    assert_eq!(incoming.attr_str("notify").as_deref(), Some("User 0001"));
    assert_eq!(incoming.attr_str("edit").as_deref(), Some("1"));
    assert_eq!(incoming.get_attr("recipient"), None);
    assert!(incoming.find_child("participants").is_none());
    assert!(incoming.find_child("meta").is_some());
    assert_eq!(incoming.find_child("device-identity").unwrap().content_bytes(), Some(alice.device_identity.clone()));
    assert_eq!(text(&bob.decrypt(&incoming).unwrap()), format!("for {}", bob.lid()));
    world.send(&mut bob_client, &receipt(&incoming, None));
    let ack = world.expect(&mut bob_client, "ack");
    assert_eq!(ack.attr_str("class").as_deref(), Some("receipt"));
    let delivered = world.expect(&mut client, "receipt");
    assert_eq!(delivered.attr_jid("from"), Some(bob.lid()));

    let copy = world.expect(&mut other_client, "message");
    assert_eq!(copy.attr_jid("from"), Some(alice.lid()));
    assert_eq!(copy.attr_jid("recipient"), Some(phone));
    assert_eq!(copy.attr_jid("peer_recipient_pn"), Some(bob.jid().to_bare()));
    assert_eq!(text(&other.decrypt(&copy).unwrap()), format!("for {}", other.lid()));
    world.expect_silence(&mut bob_client);
}

#[test]
fn namespaces_do_not_mix_and_strangers_do_not_exist() {
    let mut pair = Pair::new();
    let lid = pair.bob.lid();
    let enc = || Node::new("enc").attr("v", "2").attr("type", "msg").bytes(vec![1]);
    let cases = [
        (lid.to_bare(), pair.bob.jid(), Some(400)),
        (pair.bob.jid().to_bare(), lid.clone(), Some(400)),
        (Jid::pn("15550009999"), pair.bob.jid(), Some(404)),
        ("120363041234567890@g.us".parse().unwrap(), lid.clone(), Some(404)),
        (lid.to_bare(), lid, None),
    ];
    for (index, (to, target, error)) in cases.into_iter().enumerate() {
        let id = format!("E{index}");
        let message = fan_out(&id, &to, vec![(target, enc())], &pair.alice);
        pair.world.send(&mut pair.alice_client, &message);
        assert_eq!(pair.expect_ack(&id).attr_u64("error"), error, "{to}");
    }
}

#[test]
fn pn_messages_carry_the_lid() {
    let mut pair = Pair::new();
    let (to, lid) = (pair.bob.jid(), pair.alice.lid().to_bare());
    pair.world.open_session(&mut pair.alice_client, &mut pair.alice, &to);
    let enc = pair.alice.encrypt(&to, "by number");
    let message = fan_out("P1", &to.to_bare(), vec![(to, enc)], &pair.alice);
    pair.world.send(&mut pair.alice_client, &message);
    pair.expect_ack("P1");
    let incoming = pair.world.expect(&mut pair.bob_client, "message");
    assert_eq!(incoming.attr_jid("from"), Some(pair.alice.jid()));
    assert_eq!(incoming.attr_jid("sender_lid"), Some(lid));
    assert_eq!(text(&pair.bob.decrypt(&incoming).unwrap()), "by number");
}

#[test]
fn a_resend_is_acknowledged_and_not_routed_again() {
    let mut pair = Pair::new();
    let message = pair.send("D1", "once");
    pair.expect_ack("D1");
    pair.world.send(&mut pair.alice_client, &message);
    pair.expect_ack("D1");
    pair.world.expect(&mut pair.bob_client, "message");
    pair.world.expect_silence(&mut pair.bob_client);

    // An answer to a retry receipt has the same id and a count, and passes.
    let enc = pair.alice.encrypt(&pair.bob.lid(), "again").attr("count", "1");
    let again = Node::new("message").attr("to", pair.bob.lid()).attr("id", "D1").attr("type", "text").child(enc);
    pair.world.send(&mut pair.alice_client, &again);
    pair.expect_ack("D1");
    let incoming = pair.world.expect(&mut pair.bob_client, "message");
    assert_eq!(incoming.find_child("enc").unwrap().attr_u64("count"), Some(1));

    pair.world.server.fault(pair.world.now, Fault::Deduplicate { on: false }).unwrap();
    pair.world.send(&mut pair.alice_client, &message);
    pair.expect_ack("D1");
    pair.world.expect(&mut pair.bob_client, "message");
}

#[test]
fn the_queue_keeps_what_is_not_answered() {
    let mut pair = Pair::new();
    pair.world.close(&pair.bob_client);
    for id in ["Q1", "Q2", "Q3"] {
        pair.send(id, id);
        pair.expect_ack(id);
    }
    assert_eq!(pair.world.server.accounts()[1].devices[0].queued, 3);

    let mut client = pair.world.login(&mut pair.bob, true);
    pair.world.expect_silence(&mut client);
    let active = iq("set", "passive").child(Node::new("active"));
    pair.world.ask(&mut client, &mut pair.bob, active);
    let backlog = pair.world.backlog(&mut client);
    let ids: Vec<_> = backlog.iter().map(|node| node.attr_str("id").unwrap().into_owned()).collect();
    assert_eq!(ids, ["Q1", "Q2", "Q3"]);
    for message in &backlog {
        let id = message.attr_str("id").unwrap().into_owned();
        assert_eq!(text(&pair.bob.decrypt(message).unwrap()), id);
    }
    // The first by a receipt, the third by an ack, the second not at all.
    pair.world.send(&mut client, &receipt(&backlog[0], Some("inactive")));
    pair.world.expect(&mut client, "ack");
    pair.world.send(&mut client, &ack(&backlog[2]));
    assert_eq!(pair.world.server.accounts()[1].devices[0].queued, 1);
    pair.world.close(&client);

    let mut client = pair.world.login(&mut pair.bob, false);
    let again = pair.world.backlog(&mut client);
    assert_eq!(again.len(), 1);
    let without_offline = |node: &Node| Node {
        attrs: node.attrs.iter().filter(|(name, _)| name != "offline").cloned().collect(),
        ..node.clone()
    };
    assert_eq!(without_offline(&again[0]), without_offline(&backlog[1]), "sent again as it was");

    // A merged receipt answers several.
    pair.send("Q4", "Q4");
    let fresh = pair.world.expect(&mut client, "message");
    assert_eq!(fresh.get_attr("offline"), None);
    let merged = receipt(&again[0], None).child(Node::new("list").child(Node::new("item").attr("id", "Q4")));
    pair.world.send(&mut client, &merged);
    assert_eq!(pair.world.server.accounts()[1].devices[0].queued, 0);
}

#[test]
fn receipts_wait_for_their_ack_in_one_order_with_messages() {
    let mut pair = Pair::new();
    pair.world.open_session(&mut pair.bob_client, &mut pair.bob, &pair.alice.lid());
    pair.send("R1", "hello");
    pair.expect_ack("R1");
    let incoming = pair.world.expect(&mut pair.bob_client, "message");
    pair.world.close(&pair.alice_client);
    pair.world.send(&mut pair.bob_client, &receipt(&incoming, None));
    let enc = pair.bob.encrypt(&pair.alice.lid(), "answer");
    let answer = fan_out("R2", &pair.alice.lid().to_bare(), vec![(pair.alice.lid(), enc)], &pair.bob);
    pair.world.send(&mut pair.bob_client, &answer);
    let read = Node::new("receipt").attr("id", "R1").attr("to", pair.alice.lid().to_bare()).attr("type", "read");
    pair.world.send(&mut pair.bob_client, &read);

    let mut client = pair.world.login(&mut pair.alice, false);
    let backlog = pair.world.backlog(&mut client);
    let kinds: Vec<_> =
        backlog.iter().map(|node| (node.tag().to_owned(), node.attr_str("type").map(|t| t.into_owned()))).collect();
    let expected = [("receipt", None), ("message", Some("text")), ("receipt", Some("read"))];
    assert_eq!(kinds, expected.map(|(tag, kind)| (tag.to_owned(), kind.map(str::to_owned))));
    for node in [&backlog[0], &backlog[2]] {
        pair.world.send(&mut client, &ack(node));
    }
    assert_eq!(pair.world.server.accounts()[0].devices[0].queued, 1);
}

#[test]
fn the_readers_own_devices_hear_of_read_receipts() {
    let mut world = World::new(Config::default(), 1);
    let (mut alice, mut bob, mut other) = (Device::new(1), Device::new(2), Device::new(3));
    let mut alice_client = world.ready(&mut alice, ALICE);
    let mut bob_client = world.ready(&mut bob, BOB);
    let mut other_client = world.ready(&mut other, BOB);
    world.expect(&mut bob_client, "notification");
    let chat = alice.lid().to_bare();
    let list = Node::new("list").child(Node::new("item").attr("id", "B"));
    let read = Node::new("receipt").attr("id", "A").attr("to", &chat).attr("type", "read").child(list);
    world.send(&mut bob_client, &read);
    world.expect(&mut bob_client, "ack");
    let there = world.expect(&mut alice_client, "receipt");
    let own = world.expect(&mut other_client, "receipt");
    assert_eq!((there.attr_jid("from"), there.attr_jid("recipient")), (Some(bob.lid()), None));
    assert_eq!((own.attr_jid("from"), own.attr_jid("recipient")), (Some(bob.lid()), Some(chat.clone())));
    assert!(own.find_child("list").is_some() && there.find_child("list").is_some());

    let quiet = Node::new("receipt").attr("id", "C").attr("to", &chat).attr("type", "read-self");
    world.send(&mut bob_client, &quiet);
    world.expect_silence(&mut alice_client);
    assert_eq!(world.expect(&mut other_client, "receipt").attr_str("type").as_deref(), Some("read-self"));
}

#[test]
fn one_time_keys_are_given_out_once_and_counted() {
    let mut pair = Pair::new();
    let count = |pair: &mut Pair| {
        let query = iq("get", "encrypt").child(Node::new("count"));
        let answer = pair.world.ask(&mut pair.bob_client, &mut pair.bob, query);
        answer.find_child("count").unwrap().attr_u64("value").unwrap()
    };
    assert_eq!(count(&mut pair), 28, "one went to Bob's own phone, one to Alice");
    let fetch = |pair: &mut Pair| {
        let user = Node::new("user").attr("jid", pair.bob.lid());
        let query = iq("get", "encrypt").child(Node::new("key").child(user));
        let answer = pair.world.ask(&mut pair.alice_client, &mut pair.alice, query);
        let user = answer.find_child("list").unwrap().find_child("user").unwrap().clone();
        assert!(user.find_child("device-identity").is_some());
        user.find_child("key").map(|key| key.find_child("id").unwrap().content_bytes().unwrap())
    };
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..23 {
        assert!(ids.insert(fetch(&mut pair).unwrap()));
        pair.world.expect_silence(&mut pair.bob_client);
    }
    assert!(ids.insert(fetch(&mut pair).unwrap()));
    let low = pair.world.expect(&mut pair.bob_client, "notification");
    assert_eq!(low.attr_str("type").as_deref(), Some("encrypt"));
    assert_eq!(low.find_child("count").unwrap().attr_u64("value"), Some(4));
    for _ in 0..4 {
        assert!(ids.insert(fetch(&mut pair).unwrap()));
    }
    assert_eq!(fetch(&mut pair), None, "the bundle then comes without one");
    pair.world.expect_silence(&mut pair.bob_client);
    pair.world.send(&mut pair.bob_client, &ack(&low));

    let upload = pair.bob.upload(10);
    pair.world.ask(&mut pair.bob_client, &mut pair.bob, upload);
    assert_eq!(count(&mut pair), 10);
    assert!(ids.insert(fetch(&mut pair).unwrap()));
}

#[test]
fn the_digest_is_over_what_the_server_holds() {
    let mut world = World::new(Config::default(), 1);
    let mut device = Device::new(1);
    world.link(&mut device, ALICE);
    let mut client = world.login(&mut device, true);
    let query = || iq("get", "encrypt").child(Node::new("digest"));
    let nothing = world.ask(&mut client, &mut device, query());
    assert_eq!(nothing.find_child("error").unwrap().attr_u64("code"), Some(404));

    let upload = device.upload(5);
    world.ask(&mut client, &mut device, upload.clone());
    let answer = world.ask(&mut client, &mut device, query());
    let digest = answer.find_child("digest").unwrap();
    let bytes = |node: &Node, tag: &str| node.find_child(tag).unwrap().content_bytes().unwrap();
    let skey = digest.find_child("skey").unwrap();
    let mut parts = vec![bytes(digest, "identity"), bytes(skey, "value"), bytes(skey, "signature")];
    let uploaded = upload.find_child("list").unwrap().child_nodes();
    let listed = digest.find_child("list").unwrap().child_nodes();
    assert_eq!(listed.len(), 5);
    for (id, key) in listed.iter().zip(uploaded) {
        assert_eq!(id.content_bytes().unwrap(), bytes(key, "id"));
        parts.push(bytes(key, "value"));
    }
    let parts: Vec<&[u8]> = parts.iter().map(|part| &part[..]).collect();
    assert_eq!(bytes(digest, "hash"), sha1(&parts)[..]);

    let broken = iq("set", "encrypt").child(leaf("identity", &[1; 31]));
    let refused = world.ask(&mut client, &mut device, broken);
    assert_eq!(refused.find_child("error").unwrap().attr_u64("code"), Some(406));
}

#[test]
fn usync_tells_devices_lids_and_numbers() {
    let mut pair = Pair::new();
    let query = ["devices", "lid", "contact", "status"].map(|name| Node::new(name).attr("version", "2"));
    let user = |jid: Jid| Node::new("user").attr("jid", jid);
    let contact = |number: &str| Node::new("user").child(Node::new("contact").bytes(number.to_owned()));
    let users = [
        user(pair.bob.jid().to_bare()),
        user(pair.bob.lid().to_bare()),
        user(Jid::pn("15550009999")),
        contact("+1 555-000-0002"),
        contact("+15550009999"),
    ];
    let usync = Node::new("usync")
        .attr("sid", "S")
        .attr("mode", "query")
        .child(Node::new("query").children(query))
        .child(Node::new("list").children(users));
    let answer = pair.world.ask(&mut pair.alice_client, &mut pair.alice, iq("get", "usync").child(usync));
    let usync = answer.find_child("usync").unwrap();
    assert_eq!(usync.attr_str("sid").as_deref(), Some("S"));
    let users = usync.find_child("list").unwrap().child_nodes();
    let (pn, lid) = (pair.bob.jid().to_bare(), pair.bob.lid().to_bare());
    let jids: Vec<_> = users.iter().map(|user| user.attr_jid("jid").unwrap()).collect();
    assert_eq!(jids, [pn.clone(), lid.clone(), Jid::pn("15550009999"), pn, Jid::pn("15550009999")]);
    let kinds = users.iter().map(|user| user.find_child("contact").unwrap().attr_str("type").unwrap().into_owned());
    assert_eq!(kinds.collect::<Vec<_>>(), ["in", "in", "out", "in", "out"]);
    for user in [&users[0], &users[1], &users[3]] {
        assert_eq!(user.find_child("lid").unwrap().attr_jid("val"), Some(lid.clone()));
        let devices = user.find_child("devices").unwrap();
        let list = devices.find_child("device-list").unwrap().child_nodes();
        let list: Vec<_> = list.iter().map(|one| (one.attr_u64("id").unwrap(), one.attr_u64("key-index"))).collect();
        assert_eq!(list, [(0, None), (1, Some(1))]);
        let signed = devices.find_child("key-index-list").unwrap().content_bytes().unwrap();
        let signed = AdvSignedKeyIndexList::decode(signed).unwrap();
        let key = PublicKey::from_slice(&signed.account_signature_key.unwrap()).unwrap();
        let details = signed.details.unwrap();
        assert_eq!(xeddsa::verify(&key, &[&[6, 2], &details], &signed.account_signature.unwrap()), Ok(()));
        let details = AdvKeyIndexList::decode(details).unwrap();
        assert_eq!((details.current_index, details.valid_indexes), (Some(1), vec![0, 1]));
    }
    let nobody = users[2].find_child("devices").unwrap().find_child("device-list").unwrap();
    assert!(nobody.child_nodes().is_empty() && users[2].find_child("lid").is_none());
}

#[test]
fn the_queries_of_a_login_are_answered() {
    let mut world = World::new(Config::default(), 1);
    let mut device = Device::new(1);
    let mut client = world.ready(&mut device, ALICE);
    let collection = Node::new("collection").attr("name", "critical_block").attr("version", "0");
    let cases = [
        (iq("get", "abt").child(Node::new("props").attr("protocol", "1")), Some("props")),
        (iq("get", "blocklist"), Some("list")),
        (iq("get", "privacy").child(Node::new("privacy")), Some("privacy")),
        (iq("set", "w:sync:app:state").child(Node::new("sync").child(collection)), Some("sync")),
        (iq("set", "w:m").child(Node::new("media_conn")), Some("media_conn")),
        (iq("get", "w:p"), None),
        (iq("get", "w:p").child(Node::new("ping")), None),
        (iq("set", "urn:xmpp:whatsapp:dirty").child(Node::new("clean").attr("type", "groups")), None),
    ];
    for (query, child) in cases {
        let answer = world.ask(&mut client, &mut device, query.clone());
        assert_eq!(answer.attr_str("type").as_deref(), Some("result"), "{query:?}");
        assert_eq!(answer.first_child().map(Node::tag), child, "{query:?}");
    }
    for unknown in [iq("get", "w:mex"), iq("get", "newsletter"), iq("get", "w:g2"), iq("get", "encrypt")] {
        let answer = world.ask(&mut client, &mut device, unknown);
        assert_eq!(answer.find_child("error").unwrap().attr_u64("code"), Some(404));
    }
}

#[test]
fn phones_talk_and_ask_again() {
    let mut pair = Pair::new();
    // A phone to a companion.
    let to = pair.bob.lid().to_bare();
    let id = pair.world.server.send_text(pair.world.now, ALICE, &to, "from the phone").unwrap();
    pair.world.drain();
    let incoming = pair.world.expect(&mut pair.bob_client, "message");
    assert_eq!(incoming.attr_jid("from"), Some(pair.alice.lid().to_bare()));
    assert_eq!(text(&pair.bob.decrypt(&incoming).unwrap()), "from the phone");
    let delivered = pair.world.expect(&mut pair.alice_client, "receipt");
    assert_eq!(delivered.attr_jid("from"), Some(to.clone()), "by Bob's phone, for all of Alice's devices");
    let copy = pair.world.expect(&mut pair.alice_client, "message");
    let sent = pair.alice.decrypt(&copy).unwrap().device_sent_message.unwrap();
    assert_eq!(sent.destination_jid, Some(to.to_string()));
    assert_eq!(text(&sent.message.unwrap()), "from the phone");
    assert_eq!(pair.world.server.received(BOB)[0].text.as_deref(), Some("from the phone"), "and to Bob's phone");

    // The companion says that it could not read it.
    let retry = Node::new("retry").attr("v", "1").attr("id", &id).attr("count", "1").attr("t", "1");
    let asked = receipt(&incoming, Some("retry")).child(retry).child(leaf("registration", &[0, 0, 0, 1]));
    pair.world.send(&mut pair.bob_client, &asked);
    pair.world.expect(&mut pair.bob_client, "ack");
    let again = pair.world.expect(&mut pair.bob_client, "message");
    assert_eq!(again.attr_str("id").as_deref(), Some(&id[..]));
    assert_eq!(again.find_child("enc").unwrap().attr_u64("count"), Some(1));
    assert_eq!(text(&pair.bob.decrypt(&again).unwrap()), "from the phone");

    // A companion to a phone that cannot read it.
    let phone = pair.bob.lid().to_bare();
    pair.world.open_session(&mut pair.alice_client, &mut pair.alice, &phone);
    pair.world.server.fault(pair.world.now, Fault::TamperNext { jid: phone.clone(), count: 2 }).unwrap();
    // First as it is sent, then as the answer to the first request.
    for (id, resend, count) in [("T1", None, 1), ("T1", Some(1), 2)] {
        let enc = pair.alice.encrypt(&phone, "to the phone").attr_opt("count", resend);
        pair.world.send(&mut pair.alice_client, &fan_out(id, &phone, vec![(phone.clone(), enc)], &pair.alice));
        pair.expect_ack(id);
        let retry = pair.world.expect(&mut pair.alice_client, "receipt");
        assert_eq!(retry.attr_str("type").as_deref(), Some("retry"));
        assert_eq!(retry.find_child("retry").unwrap().attr_u64("count"), Some(count));
        assert_eq!(retry.find_child("keys").is_some(), count > 1);
    }
}

#[test]
fn faults_happen_when_they_are_asked_for() {
    let mut pair = Pair::new();
    let bob = pair.bob.lid();
    let now = pair.world.now;

    pair.world.server.fault(now, Fault::TamperNext { jid: bob.clone(), count: 1 }).unwrap();
    pair.send("F1", "spoiled");
    let spoiled = pair.world.expect(&mut pair.bob_client, "message");
    assert_eq!(pair.bob.decrypt(&spoiled), Err(SignalError::BadMac));
    pair.send("F2", "whole");
    let whole = pair.world.expect(&mut pair.bob_client, "message");
    assert_eq!(text(&pair.bob.decrypt(&whole).unwrap()), "whole");

    pair.world.server.fault(now, Fault::ReplayLast { jid: bob.clone() }).unwrap();
    pair.world.drain();
    let replayed = pair.world.expect(&mut pair.bob_client, "message");
    assert_eq!(replayed, whole);
    assert_eq!(pair.bob.decrypt(&replayed), Err(SignalError::Duplicate));

    pair.world.server.fault(now, Fault::DuplicateNext { jid: bob.clone(), count: 1 }).unwrap();
    pair.send("F3", "twice");
    let first = pair.world.expect(&mut pair.bob_client, "message");
    assert_eq!(pair.world.expect(&mut pair.bob_client, "message"), first);

    while pair.world.next(&mut pair.alice_client).is_some() {}
    pair.world.server.fault(now, Fault::DropAck { jid: pair.alice.jid(), count: 1 }).unwrap();
    pair.send("F4", "unconfirmed");
    pair.world.expect_silence(&mut pair.alice_client);
    pair.world.expect(&mut pair.bob_client, "message");
    pair.send("F5", "confirmed");
    pair.expect_ack("F5");
    pair.world.expect(&mut pair.bob_client, "message");

    pair.world.server.fault(now, Fault::ForgePrekeySignature { jid: bob.clone(), on: true }).unwrap();
    let query = iq("get", "encrypt").child(Node::new("key").child(Node::new("user").attr("jid", &bob)));
    let answer = pair.world.ask(&mut pair.alice_client, &mut pair.alice, query);
    let user = answer.find_child("list").unwrap().find_child("user").unwrap();
    assert_eq!(pair.alice.establish(user), Err(SignalError::BadSignature));
    pair.world.server.fault(now, Fault::ForgePrekeySignature { jid: bob.clone(), on: false }).unwrap();
    pair.world.open_session(&mut pair.alice_client, &mut pair.alice, &bob);

    let odd = Node::new("odd").attr("a", "b");
    pair.world.server.fault(now, Fault::Inject { jid: bob.clone(), node: odd.clone() }).unwrap();
    let plaintext = odd.encode().unwrap().into();
    pair.world.server.fault(now, Fault::InjectRaw { jid: bob.clone(), plaintext }).unwrap();
    pair.world.server.fault(now, Fault::Ping { jid: bob.clone() }).unwrap();
    pair.world.drain();
    for _ in 0..2 {
        assert_eq!(pair.world.expect(&mut pair.bob_client, "odd"), odd);
    }
    pair.world.expect(&mut pair.bob_client, "iq");

    pair.world.server.disconnect(now, &bob, Disconnect::Plain).unwrap();
    assert!(pair.world.server.fault(now, Fault::Ping { jid: bob }).is_err());
}

#[test]
fn a_push_name_travels_with_later_messages() {
    let mut pair = Pair::new();
    let presence = Node::new("presence").attr("type", "available").attr("name", "Alice in a Jar");
    pair.world.send(&mut pair.alice_client, &presence);
    pair.send("N1", "hello");
    let incoming = pair.world.expect(&mut pair.bob_client, "message");
    assert_eq!(incoming.attr_str("notify").as_deref(), Some("Alice in a Jar"));
}

#[test]
fn contacts_hear_of_new_and_removed_devices() {
    let mut pair = Pair::new();
    pair.send("C1", "so that they know each other");
    pair.expect_ack("C1");
    let mut third = Device::new(3);
    pair.world.link(&mut third, BOB);
    let added = pair.world.expect(&mut pair.alice_client, "notification");
    assert_eq!(added.attr_str("type").as_deref(), Some("devices"));
    assert_eq!(added.attr_jid("from"), Some(pair.bob.jid().to_bare()));
    let add = added.find_child("add").unwrap();
    assert_eq!(add.find_child("device").unwrap().attr_jid("jid"), Some(third.jid()));
    pair.world.server.disconnect(pair.world.now, &third.jid(), Disconnect::DeviceRemoved).unwrap();
    pair.world.drain();
    let removed = pair.world.expect(&mut pair.alice_client, "notification");
    assert!(removed.find_child("remove").is_some());
}
