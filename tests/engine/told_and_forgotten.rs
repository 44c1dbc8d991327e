//! What the server told about a person or a group may be forgotten again, because a notification came, before whoever waited
//! for it goes on: then it is asked for once more, and nobody is left out.

use crate::world::{World, named};
use wamd::{
    Jid,
    engine::{Command, SendRequest},
    message::MessageId,
    node::Node,
    store::RecordKind,
};
use wamd_loopback::{Fault, GroupMode};

const BOB: &str = "15550000001";
const CAROL: &str = "15550000002";

/// Alice keeps hardly a record in memory, so that she reads at every turn. Bob is linked; carol has a phone alone.
fn world() -> (World, Jid) {
    let mut world = World::new(&["bob"]);
    world.add("alice", "15550000009", |config| config.cache_bytes = 1);
    world.settle();
    world.link("bob");
    world.link("alice");
    let now = world.now();
    world.server.phone(now, CAROL).expect("a phone");
    let group = world.group("alice", GroupMode::Pn, [Jid::pn(BOB), Jid::pn(CAROL)]);
    world.forget();
    (world, group)
}

fn devices_changed(number: &str) -> Node {
    let hash = Node::new("update").attr("hash", "2:AAAA");
    Node::new("notification").attr("type", "devices").attr("id", "D1").attr("from", Jid::pn(number)).child(hash)
}

/// Carol's phone could not read a message, in a group or not.
fn request(id: &MessageId, group: Option<&Jid>) -> Node {
    let carol = Jid::pn(CAROL);
    let retry = Node::new("retry").attr("v", 1).attr("count", 1).attr("id", id.as_str()).attr("t", 1);
    Node::new("receipt")
        .attr("type", "retry")
        .attr("id", id.as_str())
        .attr("from", group.unwrap_or(&carol))
        .attr_opt("participant", group.map(|_| &carol))
        .attr("t", 1)
        .child(retry)
        .child(Node::new("registration").bytes(vec![0, 0, 0, 1]))
}

/// How often alice sent a message, as far as it was heard.
fn times_sent(heard: &[Node], id: &MessageId) -> usize {
    let is_it = |node: &&Node| node.tag() == "message" && node.attr_str("id").as_deref() == Some(id.as_str());
    heard.iter().filter(is_it).count()
}

/// Whether a request for a message was answered, with or without the message.
fn was_done(heard: &[Node]) -> bool {
    heard.iter().any(|node| node.tag() == "ack" && node.attr_str("type").as_deref() == Some("retry"))
}

#[test]
fn a_device_list_that_changes_while_a_message_is_under_way() {
    let mut rounds = 0;
    loop {
        let (mut world, group) = world();
        world.reads("alice", false);
        world.begin("alice", Command::Send(SendRequest::text(group.clone(), "to all")));
        (0..rounds).for_each(|_| world.read_once("alice"));
        let was_out = world.heard("alice").iter().any(|node| node.tag() == "message");
        for number in [BOB, CAROL] {
            world.stanza_arrives("alice", &devices_changed(number));
        }
        world.reads("alice", true);
        let failed = world.data("alice", "message.failed");
        assert!(failed.is_empty(), "after {rounds} reads: {failed:?}");
        assert_eq!(named(&world.events("bob"), "message.received").len(), 1, "after {rounds} reads");
        let phone = world.server.received(CAROL);
        assert_eq!(phone.iter().filter(|message| message.chat == group).count(), 1, "after {rounds} reads");
        if was_out {
            break;
        }
        rounds += 1;
    }
    assert!(rounds > 3, "it is read several times: {rounds}");
}

#[test]
fn a_group_that_changes_while_a_request_for_a_message_waits() {
    let mut rounds = 0;
    loop {
        let (mut world, group) = world();
        world.send_to("alice", &group, "once");
        let id = world.send_to("alice", &group, "again");
        world.forget();
        let changed = |id: &str| {
            let subject = Node::new("unknown-change");
            Node::new("notification").attr("type", "w:gp2").attr("id", id).attr("from", &group).child(subject)
        };
        world.stanza_arrives("alice", &changed("G0"));
        world.reads("alice", false);
        let request = request(&id, Some(&group));
        world.stanza_arrives("alice", &request);
        (0..rounds).for_each(|_| world.read_once("alice"));
        let mut heard = world.heard("alice");
        let was_done = was_done(&heard);
        world.stanza_arrives("alice", &changed("G1"));
        world.reads("alice", true);
        heard.extend(world.heard("alice"));
        assert_eq!(times_sent(&heard, &id), 1, "after {rounds} reads: {heard:?}");
        if was_done {
            break;
        }
        rounds += 1;
    }
    assert!(rounds > 3, "it is read several times: {rounds}");
}

#[test]
fn an_identity_that_changes_while_a_request_for_a_message_waits_for_keys() {
    let mut rounds = 0;
    loop {
        let (mut world, _) = world();
        let id = world.send_to("alice", &Jid::pn(CAROL), "once");
        world.crash("alice");
        world.actor("alice").lose(RecordKind::Session);
        world.start("alice");
        world.command("alice", Command::Connect).unwrap();
        world.forget();
        world.reads("alice", false);
        world.stanza_arrives("alice", &request(&id, None));
        (0..rounds).for_each(|_| world.read_once("alice"));
        let mut heard = world.heard("alice");
        let was_done = was_done(&heard);
        world.fault(Fault::ChangeIdentity { jid: Jid::pn(CAROL) });
        world.reads("alice", true);
        heard.extend(world.heard("alice"));
        assert!(times_sent(&heard, &id) > 0, "after {rounds} reads: {heard:?}");
        if was_done {
            break;
        }
        rounds += 1;
    }
    assert!(rounds > 3, "it is read several times: {rounds}");
}
