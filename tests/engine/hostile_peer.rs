//! What others can and cannot bring about, and loads that are far from ordinary: nobody changes who somebody else is,
//! nothing spins, nothing overflows, and nobody gets what was not addressed to him.

use crate::world::{self, World, text_of};
use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use wamd::{
    Jid,
    crypto::{KeyPair, PrivateKey, xeddsa},
    engine::{Command, CommandError, Reply, SendRequest},
    event::Envelope,
    message::MessageId,
    node::Node,
    store::RecordKind,
};
use wamd_loopback::Fault;

/// Nobody that anybody here knows.
const STRANGER: &str = "15559990000";

fn texts(events: &[Envelope]) -> Vec<&str> {
    events.iter().filter_map(text_of).collect()
}

// ---- loads ----------------------------------------------------------------------------------------------------------

#[test]
fn a_thousand_sends_to_one_chat_go_out_at_once() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.command("alice", Command::Disconnect).unwrap();
    world.forget();
    for n in 0..1_000 {
        world.send("alice", "bob", &n.to_string());
    }
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(texts(&world.events("bob")).len(), 1_000);
    assert_eq!(world.snapshot("alice").sends, 0);
}

#[test]
fn more_chats_at_once_than_the_cache_holds() {
    let mut world = World::new(&["bob"]);
    world.add("alice", "15550000009", |config| config.cache_bytes = 8 * 1024);
    world.settle();
    world.link("bob");
    world.link("alice");
    let strangers: Vec<_> = (0..40).map(|n| format!("1555777{n:04}")).collect();
    for stranger in &strangers {
        world.phone_sends(stranger, "alice", "known");
    }
    world.crash("alice");
    world.forget();
    for stranger in &strangers {
        world.phone_sends(stranger, "alice", "hello");
    }
    world.start("alice");
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(texts(&world.events("alice")).len(), strangers.len());
}

// ---- who is who -----------------------------------------------------------------------------------------------------

/// Which identities alice takes for one person, as texts.
fn mappings(world: &mut World) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    world.actor("alice").records(RecordKind::LidMap).iter().map(|(key, value)| (text(&key.id), text(value))).collect()
}

/// A message that cannot be read, from a sender with this other identity.
fn unreadable(from: &Jid, alt: (&'static str, &Jid), id: &str) -> Node {
    let enc = Node::new("enc").attr("v", "2").attr("type", "msg").bytes(vec![0x33; 20]);
    let message = Node::new("message").attr("from", from).attr("id", id).attr("t", 1_760_000_000);
    message.attr(alt.0, alt.1).child(enc)
}

#[test]
fn nobody_becomes_our_own_account() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    let before = mappings(&mut world);
    let (own_pn, own_lid) = (world.jid("alice"), world.lid("alice"));
    let (pn, lid) = (Jid::pn(STRANGER), Jid::lid("77777777777777"));
    world.forget();
    world.stanza_arrives("alice", &unreadable(&pn, ("sender_lid", &own_lid), "A"));
    world.stanza_arrives("alice", &unreadable(&lid, ("sender_pn", &own_pn), "B"));
    let changed = Node::new("notification").attr("type", "devices").attr("id", "C");
    world.stanza_arrives("alice", &changed.clone().attr("from", &own_pn).attr("lid", &lid));
    world.stanza_arrives("alice", &changed.attr("from", &pn).attr("lid", &own_lid));
    assert_eq!(mappings(&mut world), before);
    assert_eq!(world.data("alice", "lid_mapping.updated").len(), 0);
    world.talk("alice", "bob");
    // A note to self stays with the own devices, and what goes to the stranger goes to the stranger.
    world.phone_sends(STRANGER, "alice", "it is me");
    world.heard("alice");
    world.send_to("alice", &pn, "secret of alice");
    let sent: Vec<_> = world.heard("alice").into_iter().filter(|node| node.is("message")).collect();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].attr_jid("to"), Some(pn));
    let own = world.server.received("15550000001");
    assert!(own.iter().all(|message| message.recipient.as_ref() != Some(&own_lid)), "no copy went astray: {own:?}");
}

#[test]
fn an_identity_belongs_to_one_person() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    let (bob, lid) = (world.jid("bob"), world.lid("bob"));
    // The number was given away, and the LID with it: the newest word counts.
    let pn = Jid::pn(STRANGER);
    world.stanza_arrives("alice", &unreadable(&pn, ("sender_lid", &lid), "A"));
    let known = mappings(&mut world);
    assert!(known.contains(&(pn.to_string(), lid.to_string())) && known.contains(&(lid.to_string(), pn.to_string())));
    assert!(!known.iter().any(|(key, _)| *key == bob.to_string()), "bob is not asked for under the LID of another");
    world.talk("alice", "bob");
}

// ---- ids, and who may say what of them ------------------------------------------------------------------------------

fn id(text: &str) -> MessageId {
    MessageId::new(text).expect("usable")
}

/// Bob confirms nothing by himself.
fn mute_bob(world: &mut World) {
    let phone = world.jid("bob");
    world.fault(Fault::MutePhone { jid: phone, on: true });
    world.crash("bob");
}

/// Alice's messages to a user that the server has heard since the last call.
fn messages_to(world: &mut World, to: &Jid) -> usize {
    let heard = world.heard("alice");
    heard.iter().filter(|node| node.is("message") && node.attr_jid("to").as_ref() == Some(to)).count()
}

#[test]
fn one_id_in_two_chats() {
    let mut world = World::online(&["alice", "bob", "carol"]);
    world.talk("alice", "bob");
    world.talk("alice", "carol");
    world.forget();
    let request = |world: &World, to: &str| SendRequest::text(world.jid(to), to).with_id(id("SAME"));
    let (bob, carol) = (request(&world, "bob"), request(&world, "carol"));
    assert!(world.command("alice", Command::Send(bob.clone())).is_ok());
    assert_eq!(texts(&world.events("bob")), ["bob"]);

    // While the one to carol waits, nothing that concerns bob's settles it, and no other may have its id.
    world.command("alice", Command::Disconnect).unwrap();
    assert!(world.command("alice", Command::Send(carol.clone())).is_ok());
    assert_eq!(world.command("alice", Command::Send(carol.clone())).map(drop), Ok(()), "it is answered alike");
    assert_eq!(world.command("alice", Command::Send(bob)), Err(CommandError::MessageId));
    let carol = world.jid("carol");
    let alice = world.device("alice");
    world.fault(Fault::DropAck { jid: alice, count: 1 });
    let phone = world.jid("carol");
    world.fault(Fault::MutePhone { jid: phone, on: true });
    world.crash("carol");
    world.command("alice", Command::Connect).unwrap();
    world.forget();
    let read = Node::new("receipt").attr("from", world.jid("bob")).attr("id", "SAME").attr("type", "read");
    world.stanza_arrives("alice", &read);
    let told = world.event_names("alice");
    assert_eq!(told, ["message.read"], "about bob's, and no word of carol's");
    assert_eq!(world.snapshot("alice").sends, 1);
    world.cut("alice");
    world.advance_secs(5);
    assert_eq!(messages_to(&mut world, &carol), 1, "it is sent until it is acknowledged");
    assert_eq!(world.only("alice", "message.sent")["messages"][0]["text"], "carol");
}

#[test]
fn a_send_with_an_unknown_outcome_can_be_tried_again() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    mute_bob(&mut world);
    let alice = world.device("alice");
    world.fault(Fault::DropAck { jid: alice, count: 1 });
    let request = SendRequest::text(world.jid("bob"), "hello").with_id(id("AGAIN"));
    assert!(world.command("alice", Command::Send(request.clone())).is_ok());
    world.advance_secs(80);
    world.forget();
    let again = world.command("alice", Command::Send(request.clone()));
    assert_eq!(again, Ok(Reply::Accepted { id: id("AGAIN"), timestamp: world.now().unix_seconds() }));
    assert_eq!(world.only("alice", "message.sent")["messages"][0]["key"]["id"], "AGAIN");
    let bob = world.jid("bob");
    assert_eq!(messages_to(&mut world, &bob), 1);
    assert!(world.command("alice", Command::Send(request)).is_ok());
    assert_eq!(messages_to(&mut world, &bob), 0, "now it is known");
    world.start("bob");
    world.command("bob", Command::Connect).unwrap();
    assert_eq!(texts(&world.events("bob")), ["hello"]);
}

#[test]
fn only_whom_it_was_sent_to_confirms_a_message() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    mute_bob(&mut world);
    let id = world.send("alice", "bob", "hello");
    world.forget();
    let receipt = |from: &Jid| Node::new("receipt").attr("from", from).attr("id", id.as_str()).attr("type", "read");
    let bob = world.jid("bob");
    world.stanza_arrives("alice", &receipt(&bob).attr("participant", Jid::pn(STRANGER)));
    assert_eq!(world.event_names("alice"), [""; 0]);
    assert_eq!(world.heard("alice").len(), 1, "it is acknowledged");
    world.stanza_arrives("alice", &receipt(&bob));
    assert_eq!(world.event_names("alice"), ["message.delivered", "message.read"]);
}

// ---- messages before and after the LID is known ------------------------------------------------------------------------

#[test]
fn what_was_sent_to_a_number_is_found_under_its_lid() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    mute_bob(&mut world);
    let id = world.send("alice", "bob", "hello");
    // As if it had been sent before the LID was known.
    world.crash("alice");
    let (pn, lid) = (world.jid("bob"), world.lid("bob"));
    let alice = world.actor("alice");
    let sent = alice.records(RecordKind::Sent);
    let (old, value) = sent.iter().find(|(key, _)| key.id.ends_with(id.as_str().as_bytes())).expect("stored").clone();
    assert!(old.id.starts_with(lid.to_string().as_bytes()));
    let new = wamd::store::Key::joined(RecordKind::Sent, &[pn.to_string().as_bytes(), id.as_str().as_bytes()]);
    let batch = wamd::store::Batch { puts: vec![(new, value)], deletes: vec![old], ..Default::default() };
    alice.write(batch);
    world.start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.forget();
    let again = SendRequest::text(pn, "hello").with_id(id.clone());
    assert!(world.command("alice", Command::Send(again)).is_ok());
    assert_eq!(messages_to(&mut world, &lid), 0, "it is not sent twice");
    let read = Node::new("receipt").attr("from", &lid).attr("id", id.as_str()).attr("type", "read");
    world.stanza_arrives("alice", &read);
    assert_eq!(world.event_names("alice"), ["message.delivered", "message.read"]);
}

#[test]
fn what_was_received_from_a_number_is_not_told_again_under_its_lid() {
    let mut world = World::online(&["alice", "bob"]);
    let text = world.send("bob", "alice", "hello");
    assert_eq!(texts(&world.events("alice")), ["hello"]);
    world.crash("alice");
    let (pn, lid) = (world.jid("bob").to_string(), world.lid("bob").to_string());
    let alice = world.actor("alice");
    let marks = alice.records(RecordKind::Received);
    let (old, value) = marks.into_iter().find(|(key, _)| key.id.ends_with(text.as_str().as_bytes())).expect("stored");
    assert!(old.id.starts_with(lid.as_bytes()));
    let parts = [pn.as_bytes(), pn.as_bytes(), text.as_str().as_bytes()];
    let new = wamd::store::Key::joined(RecordKind::Received, &parts);
    alice.write(wamd::store::Batch { puts: vec![(new, value)], deletes: vec![old], ..Default::default() });
    world.start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.forget();
    let device = world.device("alice");
    world.fault(Fault::ReplayLast { jid: device });
    assert!(world.event_names("alice").iter().all(|name| !name.starts_with("message.")));
    let answers = world.heard("alice");
    assert!(answers.iter().all(|node| node.attr_str("type").as_deref() != Some("retry")), "{answers:?}");
}

// ---- what cannot be read ------------------------------------------------------------------------------------------------

#[test]
fn what_cannot_be_read_is_told_once() {
    let mut world = World::online(&["alice", "bob"]);
    let bob = world.lid("bob").with_device(7);
    let own = world.lid("alice").with_device(9);
    let enc = |kind: &'static str| Node::new("enc").attr("v", "2").attr("type", kind).bytes(vec![0x33; 20]);
    let message =
        |from: &Jid, id: &str| Node::new("message").attr("from", from).attr("id", id).attr("t", 1_760_000_000);
    // The first that is seen of a message is its second copy.
    let second = message(&bob, "SECOND").child(enc("msg").attr("count", 1));
    // A copy of an own message that says not whom it is for is not asked for.
    let copy = message(&own, "COPY").child(enc("msg"));
    let absent = message(&bob, "ABSENT").child(Node::new("unavailable"));
    let group: Jid = "120363041234567890@g.us".parse().unwrap();
    let in_group = message(&group, "GROUP").attr("participant", &bob).child(enc("skmsg"));
    for stanza in [second, copy, absent, in_group] {
        world.stanza_arrives("alice", &stanza);
        assert_eq!(world.data("alice", "message.undecryptable").len(), 1, "{stanza:?}");
        world.stanza_arrives("alice", &stanza);
        assert_eq!(world.data("alice", "message.undecryptable").len(), 0, "{stanza:?} comes again");
    }
    let received = world.actor("alice").records(RecordKind::Received);
    let is_marked = |id: &str| received.iter().any(|(key, _)| key.id.ends_with(id.as_bytes()));
    assert!(!["SECOND", "COPY", "ABSENT", "GROUP"].into_iter().any(is_marked), "what comes after all is news");
}

// ---- a consumer that does not take anything ---------------------------------------------------------------------------

/// Alice, whose consumer has had enough; a message of bob's waits.
fn stalled() -> World {
    let mut world = World::new(&["bob"]);
    world.add("alice", "15550000009", |config| config.max_unacknowledged = 30);
    world.settle();
    world.link("bob");
    world.link("alice");
    world.talk("alice", "bob");
    world.actor("alice").acknowledges = false;
    for n in 0..40 {
        world.send("bob", "alice", &n.to_string());
    }
    assert!(world.queued("alice") > 0, "not everything is read");
    world.forget();
    world
}

/// The consumer goes on: everything that came is acknowledged.
fn goes_on(world: &mut World) {
    world.actor("alice").acknowledges = true;
    let newest = world.snapshot("alice").last_event;
    world.acknowledge("alice", newest);
    world.settle();
}

#[test]
fn nothing_is_too_late_while_nobody_reads() {
    let mut world = stalled();
    let id = world.send("alice", "bob", "meanwhile");
    world.phone_sends(STRANGER, "bob", "a number that the server knows");
    world.send_to("alice", &Jid::pn(STRANGER), "to somebody who must be asked for");
    world.advance_secs(600);
    assert_eq!(world.data("alice", "message.failed").len(), 0);
    assert_eq!(world.state("alice"), "CONNECTED");
    goes_on(&mut world);
    let sent = world.data("alice", "message.sent");
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert_eq!(sent[0]["messages"][0]["key"]["id"], id.as_str());
    assert_eq!(world.snapshot("alice").sends, 0);
    assert_eq!(texts(world.all_events("alice")).len(), 41);
}

#[test]
fn a_lost_connection_comes_back_while_nobody_acknowledges() {
    let mut world = stalled();
    world.cut("alice");
    world.advance_secs(5);
    assert_eq!(world.state("alice"), "CONNECTED");
    let told = world.snapshot("alice").last_event;
    world.advance_secs(3_600);
    assert_eq!(world.snapshot("alice").last_event, told, "no events of attempts pile up");
    goes_on(&mut world);
    assert_eq!(texts(world.all_events("alice")).len(), 41);
}

#[test]
fn a_question_that_nobody_answered_proves_no_life() {
    let mut world = World::new(&[]);
    world.add("alice", "15550000009", |config| config.query_timeout = std::time::Duration::from_secs(4));
    world.settle();
    world.link("alice");
    world.forget();
    world.network("alice", world::Network::Stalled);
    world.advance_secs(90);
    let names = world.event_names("alice");
    assert_eq!(names.iter().filter(|name| *name == "session.keepalive_lost").count(), 2, "{names:?}");
    assert_eq!(names.iter().filter(|name| *name == "session.disconnected").count(), 1, "{names:?}");
}

// ---- devices ----------------------------------------------------------------------------------------------------------

/// A device that asks for a message again, with keys of its own making.
fn asks_again(from: &Jid, id: &str, with_keys: bool, registration: u32) -> Node {
    let identity = KeyPair::from_private(PrivateKey::from_bytes([7; 32]));
    let signed = KeyPair::from_private(PrivateKey::from_bytes([9; 32]));
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let signature = xeddsa::sign(identity.private(), &[&signed.public().to_typed()], &mut rng);
    let keys = Node::new("keys")
        .child(Node::new("type").bytes(vec![5]))
        .child(Node::new("identity").bytes(identity.public().as_bytes().to_vec()))
        .child(
            Node::new("skey")
                .child(Node::new("id").bytes(vec![0, 0, 1]))
                .child(Node::new("value").bytes(signed.public().as_bytes().to_vec()))
                .child(Node::new("signature").bytes(signature.to_vec())),
        );
    Node::new("receipt")
        .attr("from", from)
        .attr("id", id)
        .attr("type", "retry")
        .child(Node::new("retry").attr("id", id).attr("count", 2).attr("v", 1))
        .child(Node::new("registration").bytes(registration.to_be_bytes().to_vec()))
        .children(with_keys.then_some(keys))
}

#[test]
fn a_device_that_is_not_listed_gets_nothing() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    let id = world.send("alice", "bob", "secret");
    let bob = world.device("bob");
    let lid = world.lid("bob").with_device(bob.device());
    let sessions = world.actor("alice").records(RecordKind::Session).len();
    let answers = |world: &mut World, receipt: &Node| -> Vec<String> {
        world.heard("alice");
        world.stanza_arrives("alice", receipt);
        world.heard("alice").iter().map(|node| node.tag().to_owned()).collect()
    };
    let ghost = world.lid("bob").with_device(77);
    for with_keys in [true, false] {
        let receipt = asks_again(&ghost, id.as_str(), with_keys, 1_234);
        assert_eq!(answers(&mut world, &receipt), ["ack"], "with keys: {with_keys}");
        // The list was forgotten, and is known again with the next send.
        world.talk("alice", "bob");
    }
    assert_eq!(answers(&mut world, &asks_again(&lid, id.as_str(), true, 0)), ["ack"], "a registration id of 0");
    assert_eq!(world.actor("alice").records(RecordKind::Session).len(), sessions);
    // A device that is there gets it.
    let again = answers(&mut world, &asks_again(&lid, id.as_str(), false, 1_234));
    assert!(again.contains(&"message".to_owned()), "{again:?}");
}

#[test]
fn a_damaged_session_is_made_anew() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.crash("alice");
    let alice = world.actor("alice");
    let sessions =
        alice.records(RecordKind::Session).into_iter().map(|(key, _)| (key, Bytes::from_static(b"\0damaged")));
    alice.write(wamd::store::Batch { puts: sessions.collect(), ..Default::default() });
    world.start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.forget();
    world.send("alice", "bob", "hello");
    assert_eq!(texts(&world.events("bob")), ["hello"]);
    world.talk("bob", "alice");
}

#[test]
fn a_refusal_that_cannot_be_read_is_one() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    mute_bob(&mut world);
    let alice = world.device("alice");
    world.fault(Fault::DropAck { jid: alice, count: 1 });
    let id = world.send("alice", "bob", "hello");
    world.forget();
    let ack = Node::new("ack").attr("class", "message").attr("from", world.lid("bob")).attr("id", id.as_str());
    world.stanza_arrives("alice", &ack.attr("error", "no"));
    assert_eq!(world.event_names("alice"), ["message.failed"]);
}

#[test]
fn a_resend_does_not_wait_for_another_question() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    let id = world.send("alice", "bob", "hello");
    let lid = world.lid("bob");
    // The devices of bob are asked for, while his phone asks for a message and its keys are needed: one JID for both.
    let changed = Node::new("notification").attr("type", "devices").attr("id", "N").attr("from", &lid);
    world.stanza_arrives("alice", &changed);
    world.heard("alice");
    world.begin("alice", Command::Send(SendRequest::text(lid.clone(), "next")));
    let (conn, now) = (world.conn("alice").unwrap(), world.now());
    world.server.inject(now, conn, &asks_again(&lid, id.as_str(), false, 1_234));
    world.settle();
    let heard = world.heard("alice");
    let acks = heard.iter().filter(|node| node.is("ack") && node.attr_str("type").as_deref() == Some("retry"));
    assert_eq!(acks.count(), 1, "{heard:?}");
    assert_eq!(messages(&heard, &id), 1);
}

/// How often a message was sent, by its id.
fn messages(heard: &[Node], id: &MessageId) -> usize {
    heard.iter().filter(|node| node.is("message") && node.attr_str("id").as_deref() == Some(id.as_str())).count()
}

#[test]
fn a_server_that_tells_without_end_while_linking_is_not_read_without_end() {
    let mut world = World::new(&[]);
    world.add("alice", "15550000009", |config| config.max_unacknowledged = 30);
    world.settle();
    world.actor("alice").acknowledges = false;
    world.command("alice", Command::LinkQr).unwrap();
    for at in 0..200_u32 {
        let news = Node::new("client_expiration").attr("t", at);
        world.stanza_arrives("alice", &Node::new("ib").attr("from", Jid::whatsapp_server()).child(news));
    }
    let told = world.snapshot("alice").unacknowledged;
    assert!((30..=60).contains(&told), "{told} events wait");
    // What waits is handled, and it goes on.
    world.actor("alice").acknowledges = true;
    world.acknowledge("alice", told);
    world.link("alice");
}
