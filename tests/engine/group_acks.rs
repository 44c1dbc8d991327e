//! What the server answers to a message changes what we know of the group, the user and our key (spec 03 §4.6, §6.1).

use crate::world::World;
use wamd::{
    Jid,
    engine::{Command, Reply, SendRequest},
    message::MessageId,
    node::Node,
};
use wamd_loopback::{Fault, GroupMode};

const BOB: &str = "15550000002";
const DAVE: &str = "15550000009";

/// Alice is in a group with bob and dave, and has sent to it.
fn world() -> (World, Jid) {
    let (mut world, group) = cold_world();
    for _ in 0..2 {
        send(&mut world, &group);
    }
    world.forget();
    (world, group)
}

/// Nobody confirms a message before the server does.
fn silence(world: &mut World) {
    for number in [BOB, DAVE] {
        world.fault(Fault::MutePhone { jid: Jid::pn(number), on: true });
    }
    world.crash("bob");
}

fn cold_world() -> (World, Jid) {
    let mut world = World::online(&["alice", "bob"]);
    let now = world.now();
    world.server.phone(now, DAVE).unwrap();
    let group = world.group("alice", GroupMode::Lid, [BOB, DAVE].map(Jid::pn));
    silence(&mut world);
    world.forget();
    (world, group)
}

fn send(world: &mut World, to: &Jid) -> MessageId {
    match world.command("alice", Command::Send(SendRequest::text(to.clone(), "hello"))) {
        Ok(Reply::Accepted { id, .. }) => id,
        other => panic!("{other:?}"),
    }
}

/// Sends a message whose acknowledgement does not come.
fn send_unacknowledged(world: &mut World, to: &Jid) -> MessageId {
    let alice = world.device("alice");
    world.fault(Fault::DropAck { jid: alice, count: 1 });
    let id = send(world, to);
    assert_eq!(world.snapshot("alice").sends, 1);
    id
}

fn ack(id: &MessageId, from: &Jid) -> Node {
    Node::new("ack").attr("class", "message").attr("id", id.as_str()).attr("from", from).attr("t", 1_760_000_000)
}

/// What the server heard from alice: messages, and the namespaces of queries.
fn heard(world: &mut World) -> (Vec<Node>, Vec<String>) {
    let (mut messages, mut queries) = (Vec::new(), Vec::new());
    for node in world.heard("alice") {
        match node.tag() {
            "message" => messages.push(node),
            "iq" => queries.push(node.attr_str("xmlns").unwrap().into_owned()),
            _ => {}
        }
    }
    (messages, queries)
}

fn count(message: &Node) -> usize {
    message.find_child("participants").map_or(0, |participants| participants.child_nodes().len())
}

#[test]
fn a_stale_addressing_mode_is_looked_up_and_the_message_sent_once_more() {
    let (mut world, group) = world();
    let id = send_unacknowledged(&mut world, &group);
    let (first, _) = heard(&mut world);
    world.stanza_arrives("alice", &ack(&id, &group).attr("error", 421));
    let (again, queries) = heard(&mut world);
    assert_eq!(queries, ["w:g2"]);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].attr_str("id").as_deref(), Some(id.as_str()));
    let body = |message: &Node| message.find_child("enc").unwrap().content_bytes().unwrap();
    assert_ne!(body(&again[0]), body(&first[0]), "no key is used twice");
    assert_eq!(world.only("alice", "message.sent")["messages"][0]["key"]["id"], id.as_str());
    assert_eq!(world.snapshot("alice").sends, 0);
}

#[test]
fn a_mode_that_is_stale_twice_fails() {
    for restart in [false, true] {
        let (mut world, group) = world();
        let id = send_unacknowledged(&mut world, &group);
        let alice = world.device("alice");
        world.fault(Fault::DropAck { jid: alice, count: 1 });
        world.stanza_arrives("alice", &ack(&id, &group).attr("error", 421));
        if restart {
            world.crash_and_start("alice");
            let alice = world.device("alice");
            world.fault(Fault::DropAck { jid: alice, count: 1 });
            world.command("alice", Command::Connect).unwrap();
        }
        world.forget();
        world.stanza_arrives("alice", &ack(&id, &group).attr("error", 421));
        assert_eq!(world.only("alice", "message.failed")["messages"][0]["error"]["code"], 421, "restart: {restart}");
        assert_eq!(world.snapshot("alice").sends, 0);
        assert_eq!(heard(&mut world).0.len(), 0, "it is not sent a third time");
    }
}

#[test]
fn not_acceptable_makes_the_group_uncertain() {
    let (mut world, group) = world();
    let id = send_unacknowledged(&mut world, &group);
    world.stanza_arrives("alice", &ack(&id, &group).attr("error", 406));
    assert_eq!(world.only("alice", "message.failed")["messages"][0]["error"]["code"], 406);
    heard(&mut world);
    send(&mut world, &group);
    assert_eq!(heard(&mut world).1, ["w:g2"]);
}

#[test]
fn another_hash_of_a_group_drops_what_is_known_of_it_alone() {
    let (mut world, group) = world();
    let id = send_unacknowledged(&mut world, &group);
    world.stanza_arrives("alice", &ack(&id, &group).attr("phash", "2:AAAAAAAA"));
    assert_eq!(world.data("alice", "message.sent").len(), 1);
    let (before, _) = heard(&mut world);
    send(&mut world, &group);
    let (messages, queries) = heard(&mut world);
    assert_eq!(queries, ["w:g2"], "neither devices nor keys");
    assert_eq!(count(&messages[0]), 1, "nobody but our phone gets the key again");

    // The same hash changes nothing.
    let phash = before[0].attr_str("phash").unwrap().into_owned();
    let id = send_unacknowledged(&mut world, &group);
    world.stanza_arrives("alice", &ack(&id, &group).attr("phash", phash));
    heard(&mut world);
    send(&mut world, &group);
    assert_eq!(heard(&mut world).1, [""; 0]);
}

#[test]
fn who_was_to_get_the_key_with_a_refused_message_gets_it_with_the_next() {
    let (mut world, group) = cold_world();
    let alice = world.device("alice");
    world.fault(Fault::DropAck { jid: alice, count: 1 });
    let first = send(&mut world, &group);
    let second = send(&mut world, &group);
    let (messages, _) = heard(&mut world);
    assert_eq!(messages.len(), 1, "the second waits for the key");
    let all = count(&messages[0]);
    assert_eq!(all, 4);
    world.stanza_arrives("alice", &ack(&first, &group).attr("error", 500));
    assert_eq!(world.data("alice", "message.failed").len(), 1);
    let (messages, _) = heard(&mut world);
    assert_eq!(messages[0].attr_str("id").as_deref(), Some(second.as_str()));
    assert_eq!(count(&messages[0]), all);
}

#[test]
fn without_an_answer_later_messages_go_on() {
    let (mut world, group) = cold_world();
    let alice = world.device("alice");
    world.fault(Fault::DropAck { jid: alice, count: 1 });
    send(&mut world, &group);
    send(&mut world, &group);
    world.advance_secs(74);
    assert_eq!(heard(&mut world).0.len(), 1);
    world.advance_secs(1);
    assert_eq!(world.only("alice", "message.failed")["messages"][0]["error"]["code"], "timeout");
    assert_eq!(heard(&mut world).0.len(), 1);
    assert_eq!(world.snapshot("alice").sends, 0);
}

#[test]
fn another_hash_of_a_user_drops_the_device_lists() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    let bob = world.jid("bob");
    let chat = bob.clone();
    world.fault(Fault::MutePhone { jid: bob.clone(), on: true });
    world.crash("bob");
    // The account does not write to LIDs yet.
    let own = world.device("alice");
    let bob_device = world.server.accounts().iter().find(|account| account.number == BOB).unwrap().devices[0].device;
    let others = [chat.clone(), chat.with_device(bob_device), own.to_bare()];
    let all = [&others[..], std::slice::from_ref(&own)].concat();
    for (phash, dropped) in [
        (wamd::message::phash::phash(&others), false),
        (wamd::message::phash::phash(&all), false),
        ("2:AAAAAAAA".to_owned(), true),
    ] {
        let id = send_unacknowledged(&mut world, &bob);
        world.stanza_arrives("alice", &ack(&id, &chat).attr("phash", phash));
        heard(&mut world);
        send(&mut world, &bob);
        let (_, queries) = heard(&mut world);
        assert_eq!(queries.contains(&"usync".to_owned()), dropped, "{queries:?}");
    }
}

#[test]
fn a_stale_lid_is_asked_for_at_once() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    let (chat, bob) = (world.lid("bob"), world.jid("bob"));
    world.fault(Fault::MutePhone { jid: bob.clone(), on: true });
    world.crash("bob");
    let id = send_unacknowledged(&mut world, &bob);
    world.forget();
    world.stanza_arrives("alice", &ack(&id, &chat).attr("refresh_lid", "true"));
    let (messages, queries) = heard(&mut world);
    assert_eq!((messages.len(), queries), (0, vec!["usync".to_owned()]));
    assert_eq!(world.data("alice", "message.sent").len(), 1);
}
