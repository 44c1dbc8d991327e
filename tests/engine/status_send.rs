//! A status post reaches the viewers that the caller names and nobody else (spec 03 §4.5, "Status"; spec 06 §1.1).

use std::collections::BTreeSet;

use crate::world::World;
use wamd::{
    Jid,
    engine::{Audience, AudienceSetting, Command, CommandError, Reply, SendRequest},
    node::Node,
};
use wamd_loopback::Fault;

const ALICE: &str = "15550000001";
const BOB: &str = "15550000002";
const CAROL: &str = "15550000003";
/// Has a phone only.
const DAVE: &str = "15550000009";

fn world() -> World {
    let mut world = World::online(&["alice", "bob", "carol"]);
    let now = world.now();
    world.server.phone(now, DAVE).unwrap();
    world
}

fn post(viewers: &[Jid], text: &str) -> Command {
    let audience = Audience { setting: AudienceSetting::Allowlist, viewers: viewers.to_vec() };
    Command::Send(SendRequest::text(Jid::status_broadcast(), text).with_audience(audience))
}

fn numbers(numbers: &[&str]) -> Vec<Jid> {
    numbers.iter().map(Jid::pn).collect()
}

/// The one message that the server heard from alice: the devices that get the key, and the viewers that are named beside them.
fn addressed(world: &mut World) -> (Node, BTreeSet<Jid>, BTreeSet<Jid>) {
    let mut messages: Vec<_> = world.heard("alice").into_iter().filter(|node| node.is("message")).collect();
    assert_eq!(messages.len(), 1);
    let message = messages.remove(0);
    let participants: Vec<Node> = message.find_child("participants").unwrap().child_nodes().to_vec();
    let jids = |with: bool| {
        let of = participants.iter().filter(|to| to.first_child().is_some() == with);
        of.map(|to| to.attr_jid("jid").unwrap()).collect()
    };
    let (given, named) = (jids(true), jids(false));
    (message, given, named)
}

fn lids(world: &World, list: &[(&str, u16)]) -> BTreeSet<Jid> {
    let accounts = world.server.accounts();
    let lid = |number: &str| accounts.iter().find(|account| account.number == number).unwrap().lid.clone();
    list.iter().map(|(number, device)| lid(number).with_device(*device)).collect()
}

fn read(world: &World, number: &str) -> Vec<String> {
    let posts = world.server.received(number).into_iter().filter(|message| message.chat.is_status_broadcast());
    posts.map(|message| message.text.expect("a text")).collect()
}

#[test]
fn every_viewer_is_named_and_the_key_goes_once() {
    let mut world = world();
    let (bob, carol) = (world.device("bob").device(), world.device("carol").device());
    // Named by number and by LID, and twice.
    let viewers = [Jid::pn(BOB), world.lid("carol"), Jid::pn(DAVE), Jid::pn(DAVE).with_device(0), Jid::pn(ALICE)];

    world.command("alice", post(&viewers, "first")).unwrap();
    let (message, given, named) = addressed(&mut world);
    let all = lids(&world, &[(ALICE, 0), (BOB, 0), (BOB, bob), (CAROL, 0), (CAROL, carol), (DAVE, 0)]);
    assert_eq!((given, named), (all, BTreeSet::new()));
    assert_eq!(message.attr_jid("to"), Some(Jid::status_broadcast()));
    assert!(message.get_attr("phash").is_none() && message.get_attr("addressing_mode").is_none());
    assert_eq!(message.find_child("meta").unwrap().attr_str("status_setting").as_deref(), Some("allowlist"));

    for text in ["second", "third"] {
        world.command("alice", post(&viewers, text)).unwrap();
        let (_, given, named) = addressed(&mut world);
        assert_eq!(given, lids(&world, &[(ALICE, 0)]));
        assert_eq!(named, lids(&world, &[(BOB, 0), (CAROL, 0), (DAVE, 0)]));
    }
    for number in [ALICE, BOB, CAROL, DAVE] {
        assert_eq!(read(&world, number), ["first", "second", "third"], "{number}");
    }
    let sent = world.data("alice", "message.sent");
    assert_eq!(sent.len(), 3);
    assert_eq!(sent[0]["messages"][0]["key"]["remoteJid"], "status@broadcast");
}

#[test]
fn a_larger_audience_keeps_the_key_and_a_smaller_one_does_not() {
    let mut world = world();
    let carol = world.device("carol").device();
    world.command("alice", post(&numbers(&[BOB, DAVE]), "first")).unwrap();
    world.command("alice", post(&numbers(&[BOB, DAVE]), "second")).unwrap();
    world.forget();
    world.command("alice", post(&numbers(&[BOB, CAROL, DAVE]), "third")).unwrap();
    let (_, given, named) = addressed(&mut world);
    assert_eq!(given, lids(&world, &[(ALICE, 0), (CAROL, 0), (CAROL, carol)]));
    assert_eq!(named, lids(&world, &[(BOB, 0), (DAVE, 0)]));

    world.command("alice", post(&numbers(&[CAROL, DAVE]), "fourth")).unwrap();
    let (_, given, named) = addressed(&mut world);
    assert_eq!(given, lids(&world, &[(ALICE, 0), (CAROL, 0), (CAROL, carol), (DAVE, 0)]), "a new key");
    assert_eq!(named, BTreeSet::new());
    assert_eq!(read(&world, BOB), ["first", "second", "third"]);
    assert_eq!(read(&world, CAROL), ["third", "fourth"]);
    assert_eq!(read(&world, DAVE), ["first", "second", "third", "fourth"]);
}

#[test]
fn another_hash_of_the_server_takes_the_key_to_all_again() {
    let mut world = world();
    let viewers = numbers(&[BOB, DAVE]);
    world.command("alice", post(&viewers, "first")).unwrap();
    world.command("alice", post(&viewers, "second")).unwrap();
    let (alice, bob) = (world.device("alice"), world.device("bob").device());
    for number in [BOB, DAVE] {
        world.fault(Fault::MutePhone { jid: Jid::pn(number), on: true });
    }
    world.crash("bob");
    world.fault(Fault::DropAck { jid: alice, count: 1 });
    let Ok(Reply::Accepted { id, .. }) = world.command("alice", post(&viewers, "third")) else { panic!("refused") };
    let ack = Node::new("ack").attr("class", "message").attr("id", id.as_str()).attr("from", Jid::status_broadcast());
    world.stanza_arrives("alice", &ack.attr("phash", "2:AAAAAAAA"));
    world.forget();
    world.command("alice", post(&viewers, "fourth")).unwrap();
    let (_, given, named) = addressed(&mut world);
    assert_eq!((given, named), (lids(&world, &[(ALICE, 0), (BOB, 0), (BOB, bob), (DAVE, 0)]), BTreeSet::new()));
}

#[test]
fn a_viewer_who_cannot_be_reached_does_not_stop_the_others() {
    let mut world = world();
    world.command("alice", post(&numbers(&[BOB, "15558887777"]), "first")).unwrap();
    assert_eq!(read(&world, BOB), ["first"]);
    assert_eq!(world.snapshot("alice").sends, 0);
    world.forget();
    world.command("alice", post(&numbers(&["15558887777"]), "to nobody")).unwrap();
    assert_eq!(world.only("alice", "message.failed")["messages"][0]["error"]["code"], "no_viewers");
}

#[test]
fn the_audience_survives_a_crash() {
    let mut world = world();
    world.command("alice", Command::Disconnect).unwrap();
    world.command("alice", post(&numbers(&[BOB, DAVE]), "first")).unwrap();
    world.crash_and_start("alice");
    world.forget();
    world.command("alice", Command::Connect).unwrap();
    let (message, ..) = addressed(&mut world);
    assert_eq!(message.find_child("meta").unwrap().attr_str("status_setting").as_deref(), Some("allowlist"));
    assert_eq!((read(&world, BOB), read(&world, CAROL)), (vec!["first".to_owned()], Vec::new()));
}

#[test]
fn an_audience_must_be_usable() {
    let mut world = world();
    let mut refused = |command| match world.command("alice", command) {
        Err(CommandError::Audience(why)) => why,
        other => panic!("{other:?}"),
    };
    let status = SendRequest::text(Jid::status_broadcast(), "hello");
    assert_eq!(refused(Command::Send(status)), "a status needs one");
    assert_eq!(refused(post(&[], "hello")), "1 to 8,192 viewers are possible");
    let many: Vec<Jid> = (0..8_193).map(|n| Jid::lid(format!("{n}"))).collect();
    assert_eq!(refused(post(&many, "hello")), "1 to 8,192 viewers are possible");
    for other in ["120363000000000001@g.us", "s.whatsapp.net", "1@newsletter"] {
        assert_eq!(refused(post(&[other.parse().unwrap()], "hello")), "viewers are users");
    }
}
