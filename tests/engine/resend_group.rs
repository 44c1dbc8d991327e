//! Whoever in a group, or of a status's audience, could not read a message gets it again with our key, and nobody else does.

use std::collections::BTreeSet;

use crate::world::{World, text_of};
use wamd::{
    Jid,
    engine::{Audience, AudienceSetting, Command, Reply, SendRequest},
    node::Node,
    store::RecordKind,
};
use wamd_loopback::GroupMode;

const NUMBERS: [&str; 3] = ["15550000001", "15550000002", "15550000003"];

fn world(mode: GroupMode) -> (World, Jid) {
    let mut world = World::online(&["alice", "bob", "carol"]);
    let members = ["bob", "carol"].map(|name| world.jid(name));
    let group = world.group("alice", mode, members);
    send(&mut world, &group, "first");
    send(&mut world, &group, "second");
    world.heard("alice");
    world.forget();
    (world, group)
}

fn send(world: &mut World, to: &Jid, text: &str) -> String {
    match world.command("alice", Command::Send(SendRequest::text(to.clone(), text))) {
        Ok(Reply::Accepted { id, .. }) => id.as_str().to_owned(),
        other => panic!("not accepted: {other:?}"),
    }
}

/// Alice's messages that the server has heard since the last call.
fn messages(world: &mut World) -> Vec<Node> {
    world.heard("alice").into_iter().filter(|node| node.is("message")).collect()
}

/// The devices that a message hands the key to.
fn targets(message: &Node) -> BTreeSet<Jid> {
    let participants = message.find_child("participants").into_iter().flat_map(Node::child_nodes);
    participants.map(|to| to.attr_jid("jid").unwrap()).collect()
}

fn text(node: &Node, name: &str) -> Option<String> {
    node.attr_str(name).map(|text| text.into_owned())
}

/// Texts that an account was told since the last call.
fn texts(world: &mut World, name: &str) -> Vec<String> {
    world.events(name).iter().filter_map(text_of).map(str::to_owned).collect()
}

fn device(world: &World, name: &str, mode: GroupMode) -> Jid {
    let user = if mode == GroupMode::Lid { world.lid(name) } else { world.jid(name) };
    user.with_device(world.device(name).device())
}

/// Asks alice for a message again, as a member does.
fn request(chat: &Jid, device: &Jid, id: &str) -> Node {
    Node::new("receipt")
        .attr("from", chat)
        .attr("participant", device)
        .attr("id", id)
        .attr("type", "retry")
        .child(Node::new("retry").attr("id", id).attr("count", 1).attr("v", 1))
        .child(Node::new("registration").bytes(vec![0, 0, 0, 1]))
}

/// What alice's messages and acks are after a request.
fn ask(world: &mut World, request: &Node) -> (Vec<Node>, usize) {
    world.heard("alice");
    world.stanza_arrives("alice", request);
    let heard = world.heard("alice");
    let acks = heard.iter().filter(|node| node.is("ack") && text(node, "type").as_deref() == Some("retry")).count();
    (heard.into_iter().filter(|node| node.is("message")).collect(), acks)
}

#[test]
fn a_member_that_lost_our_key_is_healed_by_one_resend() {
    for mode in [GroupMode::Lid, GroupMode::Pn] {
        let (mut world, group) = world(mode);
        world.crash("bob");
        world.actor("bob").lose(RecordKind::SenderKey);
        world.start("bob");
        world.command("bob", Command::Connect).unwrap();
        world.forget();
        world.heard("alice");
        let id = send(&mut world, &group, "third");
        let sent = messages(&mut world);
        let bob = device(&world, "bob", mode);
        let again: Vec<_> = sent
            .iter()
            .filter(|node| node.find_child("enc").is_some_and(|enc| text(enc, "type").as_deref() != Some("skmsg")))
            .collect();
        let [again] = &again[..] else { panic!("one resend: {sent:?}") };
        assert_eq!((text(again, "id"), again.attr_jid("to")), (Some(id), Some(group.clone())));
        assert_eq!(again.attr_jid("participant"), Some(bob.clone()));
        let word = if mode == GroupMode::Lid { "lid" } else { "pn" };
        assert_eq!(text(again, "addressing_mode").as_deref(), Some(word));
        assert_eq!((text(again, "device_fanout"), text(again, "phash")), (None, None));
        assert_eq!(text(again.find_child("enc").unwrap(), "count").as_deref(), Some("1"));
        assert_eq!(texts(&mut world, "bob"), ["third"]);
        assert_eq!(texts(&mut world, "carol"), ["third"], "read the first time, and not told again");
        // The next message brings the key once more, to this device alone; the one after it to nobody.
        send(&mut world, &group, "fourth");
        let others = |world: &World, message: &Node| -> BTreeSet<Jid> {
            let own = [world.jid("alice"), world.lid("alice")];
            targets(message).into_iter().filter(|jid| !own.iter().any(|own| own.same_account(jid))).collect()
        };
        let fourth = messages(&mut world);
        assert_eq!(others(&world, &fourth[0]), BTreeSet::from([bob]));
        send(&mut world, &group, "fifth");
        let fifth = messages(&mut world);
        assert_eq!((fifth.len(), others(&world, &fifth[0]).len()), (1, 0));
        assert_eq!(texts(&mut world, "bob"), ["fourth", "fifth"], "with the key of the resend");
    }
}

#[test]
fn an_outsider_gets_nothing_and_our_key_is_replaced() {
    for mode in [GroupMode::Lid, GroupMode::Pn] {
        let (mut world, group) = world(mode);
        let id = send(&mut world, &group, "third");
        let now = world.now();
        world.server.phone(now, "15550000007").unwrap();
        let eve = Jid::pn("15550000007");
        let (answers, acks) = ask(&mut world, &request(&group, &eve, &id));
        assert_eq!((answers.len(), acks), (0, 1));
        world.forget();
        send(&mut world, &group, "fourth");
        let fourth = messages(&mut world);
        let expected: BTreeSet<Jid> = ["bob", "carol"].map(|name| device(&world, name, mode)).into();
        assert!(targets(&fourth[0]).is_superset(&expected), "everybody gets another key");
        assert_eq!(texts(&mut world, "bob"), ["fourth"]);
        // Somebody who was removed asks for what was said before.
        let carol = device(&world, "carol", mode);
        let remove =
            wamd_loopback::GroupChange::Remove { participants: vec![world.jid("carol")], linked_groups: false };
        world.server.change_group(now, &group, None, remove).unwrap();
        world.settle();
        let (answers, acks) = ask(&mut world, &request(&group, &carol, &id));
        assert_eq!((answers.len(), acks), (0, 1));
    }
}

#[test]
fn a_group_that_is_not_certain_is_asked_for_first() {
    let (mut world, group) = world(GroupMode::Lid);
    let id = send(&mut world, &group, "third");
    let dirty = Node::new("dirty").attr("type", "groups").attr("timestamp", 1_760_000_000);
    world.stanza_arrives("alice", &Node::new("ib").attr("from", Jid::whatsapp_server()).child(dirty));
    let bob = device(&world, "bob", GroupMode::Lid);
    world.heard("alice");
    world.stanza_arrives("alice", &request(&group, &bob, &id));
    let heard = world.heard("alice");
    let asked = heard.iter().filter(|node| text(node, "xmlns").as_deref() == Some("w:g2")).count();
    let sent = heard.iter().filter(|node| node.is("message")).count();
    let acks = heard.iter().filter(|node| node.is("ack") && text(node, "type").as_deref() == Some("retry")).count();
    assert_eq!((asked, sent, acks), (1, 1, 1), "{heard:?}");
    // We are not in it any more: nothing is known, and nobody gets anything.
    let id = send(&mut world, &group, "fourth");
    world.stanza_arrives(
        "alice",
        &Node::new("ib").child(Node::new("dirty").attr("type", "groups").attr("timestamp", 1)),
    );
    let now = world.now();
    let leave = wamd_loopback::GroupChange::Leave;
    let alice = world.jid("alice");
    world.server.change_group(now, &group, Some(&alice), leave).unwrap();
    world.settle();
    let (answers, acks) = ask(&mut world, &request(&group, &bob, &id));
    assert_eq!((answers.len(), acks), (0, 1));
}

/// An outsider's request makes what is known of the group uncertain. It once did so with the answer for which a member's
/// request was waiting, which then came to nothing.
#[test]
fn a_member_is_answered_although_an_outsider_asks_at_the_same_time() {
    let (mut world, group) = world(GroupMode::Lid);
    let id = send(&mut world, &group, "third");
    let now = world.now();
    world.server.phone(now, "15550000007").unwrap();
    let (bob, eve) = (device(&world, "bob", GroupMode::Lid), Jid::pn("15550000007"));
    let dirty = Node::new("dirty").attr("type", "groups").attr("timestamp", 1_760_000_000);
    world.stanza_arrives("alice", &Node::new("ib").attr("from", Jid::whatsapp_server()).child(dirty));
    world.heard("alice");
    // Both wait for the one answer about the group.
    let conn = world.conn("alice").unwrap();
    world.server.inject(now, conn, &request(&group, &eve, &id));
    world.stanza_arrives("alice", &request(&group, &bob, &id));
    let heard = world.heard("alice");
    let asked = heard.iter().filter(|node| text(node, "xmlns").as_deref() == Some("w:g2")).count();
    let sent: Vec<_> = heard.iter().filter(|node| node.is("message")).collect();
    assert_eq!((asked, sent.len()), (1, 1), "{heard:?}");
    assert_eq!(sent[0].attr_jid("participant"), Some(bob));
}

/// A request whose records came when the connection was gone once asked for the group then, into the void, and nobody asked
/// again on the next connection: whatever needed the group failed 75 seconds later.
#[test]
fn a_request_that_outlives_its_connection_is_in_nobodys_way() {
    let (mut world, group) = world(GroupMode::Lid);
    let id = send(&mut world, &group, "third");
    let dirty = Node::new("dirty").attr("type", "groups").attr("timestamp", 1_760_000_000);
    world.stanza_arrives("alice", &Node::new("ib").attr("from", Jid::whatsapp_server()).child(dirty));
    // Nothing is in the cache.
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    let request = request(&group, &device(&world, "bob", GroupMode::Lid), &id);
    world.reads("alice", false);
    world.stanza_arrives("alice", &request);
    world.cut("alice");
    world.reads("alice", true);
    assert_ne!(world.state("alice"), "CONNECTED");
    world.advance_secs(20);
    assert_eq!(world.state("alice"), "CONNECTED");
    // Not acknowledged, so it comes again.
    let (answers, acks) = ask(&mut world, &request);
    assert_eq!((answers.len(), acks), (1, 1));
    send(&mut world, &group, "fourth");
    assert_eq!(texts(&mut world, "bob").last().map(String::as_str), Some("fourth"));
}

#[test]
fn several_messages_of_a_group_at_once() {
    let (mut world, group) = world(GroupMode::Lid);
    let ids: Vec<String> = (0..3).map(|n| send(&mut world, &group, &n.to_string())).collect();
    let bob = device(&world, "bob", GroupMode::Lid);
    let items = ids[1..].iter().map(|id| Node::new("item").attr("id", id.as_str()));
    let all = request(&group, &bob, &ids[0]).child(Node::new("list").children(items));
    let (answers, acks) = ask(&mut world, &all);
    let answered: Vec<_> = answers.iter().filter_map(|node| text(node, "id")).collect();
    assert_eq!((answered, acks), (ids, 1));
}

#[test]
fn our_own_phone_gets_its_copy_of_a_group_message() {
    let (mut world, group) = world(GroupMode::Lid);
    let id = send(&mut world, &group, "third");
    let phone = world.lid("alice");
    let (answers, acks) = ask(&mut world, &request(&group, &phone, &id));
    assert_eq!((answers.len(), acks), (1, 1));
    assert_eq!(answers[0].attr_jid("participant"), Some(phone));
    let copies: Vec<_> = world.server.received(NUMBERS[0]).into_iter().filter(|copy| copy.id == id).collect();
    assert!(copies.iter().all(|copy| copy.chat == group && copy.text.as_deref() == Some("third")), "{copies:?}");
}

#[test]
fn a_status_goes_again_to_its_audience_alone() {
    let status = Jid::status_broadcast();
    let mut world = World::online(&["alice", "bob", "carol"]);
    let audience = Audience { setting: AudienceSetting::Allowlist, viewers: vec![world.jid("bob")] };
    let post = SendRequest::text(status.clone(), "look").with_audience(audience);
    let Ok(Reply::Accepted { id, .. }) = world.command("alice", Command::Send(post)) else { panic!("not accepted") };
    world.talk("alice", "carol");
    let (bob, carol) = (device(&world, "bob", GroupMode::Lid), device(&world, "carol", GroupMode::Lid));
    let (answers, acks) = ask(&mut world, &request(&status, &carol, id.as_str()));
    assert_eq!((answers.len(), acks), (0, 1), "not for carol");
    let (answers, acks) = ask(&mut world, &request(&status, &bob, id.as_str()));
    assert_eq!((answers.len(), acks), (1, 1));
    assert_eq!(answers[0].attr_jid("to"), Some(status));
    assert_eq!((text(&answers[0], "addressing_mode"), text(&answers[0], "device_fanout")), (None, None));
}
