//! Receipts of groups and of the status: one status for each member, in one stanza or in many (spec 03 §6.2), and ours for a
//! backlog, as few stanzas as there are places (spec 03 §5.5).

use crate::puppet::{self, Puppet, in_chat, online, stanza, text};
use crate::world::{Disk, World};
use serde_json::{Value, json};
use wamd::{
    Jid,
    engine::Command,
    node::Node,
    store::{Batch, Key, RecordKind},
};

fn group() -> Jid {
    "120363041234567890@g.us".parse().unwrap()
}

fn member(n: u32) -> Jid {
    Jid::lid(format!("7777777777{n:04}"))
}

/// Alice, who has sent a message to a chat: as the record of one that the server has taken.
fn sent_to(chat: &Jid, id: &str) -> World {
    let mut world = World::online(&["alice", "bob"]);
    let template = world.send("alice", "bob", "hello");
    world.crash("alice");
    let alice = world.actor("alice");
    let sent = alice.records(RecordKind::Sent);
    let (_, record) = sent.iter().find(|(key, _)| key.id.ends_with(template.as_str().as_bytes())).expect("stored");
    // The same message, to the group: only the chat in the record differs.
    let record = renamed(record, chat);
    let key = Key::joined(RecordKind::Sent, &[chat.to_string().as_bytes(), id.as_bytes()]);
    alice.write(Batch { puts: vec![(key, record.into())], ..Batch::default() });
    world.start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.forget();
    world
}

/// A sent record: version 1, then field 1 the message, 2 the time, and 4 the chat; no status of anybody.
fn renamed(record: &[u8], chat: &Jid) -> Vec<u8> {
    let message_len = usize::from(record[2]);
    let mut new = record[..3 + message_len].to_vec();
    let chat = chat.to_string();
    new.extend([0x10, 1, 0x22, u8::try_from(chat.len()).unwrap()]);
    new.extend(chat.as_bytes());
    new
}

fn receipt(from: &Jid, id: &str, kind: &str) -> Node {
    let node = Node::new("receipt").attr("from", from).attr("id", id).attr("t", 1_760_000_100);
    node.attr_opt("type", Some(kind).filter(|kind| !kind.is_empty()))
}

/// Event, participant, status, and whether it is the first of its kind.
fn told(world: &mut World) -> Vec<(String, String, String, bool)> {
    let events = world.events("alice");
    let about = events.iter().filter(|event| event.event.starts_with("message."));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    about
        .map(|event| {
            let message = &event.data["messages"][0];
            let first = message["first"].as_bool().unwrap_or(false);
            (event.event.to_string(), text(&message["key"]["participant"]), text(&message["status"]), first)
        })
        .collect()
}

fn line(event: &str, member: &Jid, status: &str, first: bool) -> (String, String, String, bool) {
    (event.to_owned(), member.to_string(), status.to_owned(), first)
}

/// The receipt arrives and is acknowledged once, with what it has.
fn arrives(world: &mut World, node: &Node) {
    world.heard("alice");
    world.stanza_arrives("alice", node);
    let heard = world.heard("alice");
    assert_eq!(heard.len(), 1, "{heard:?}");
    for name in ["id", "type", "participant"] {
        assert_eq!(heard[0].attr_str(name), node.attr_str(name), "{node:?}");
    }
    assert_eq!((heard[0].tag(), heard[0].attr_str("class").as_deref()), ("ack", Some("receipt")));
}

#[test]
fn every_member_has_a_status_of_its_own() {
    let mut world = sent_to(&group(), "A");
    let of = |n: u32, kind: &str| receipt(&group(), "A", kind).attr("participant", member(n).with_device(3));
    arrives(&mut world, &of(1, ""));
    arrives(&mut world, &of(2, "inactive"));
    arrives(&mut world, &of(1, ""));
    let delivered = "message.delivered";
    assert_eq!(
        told(&mut world),
        [line(delivered, &member(1), "DELIVERY_ACK", true), line(delivered, &member(2), "DELIVERY_ACK", false)]
    );
    arrives(&mut world, &of(2, "read"));
    arrives(&mut world, &of(3, "played"));
    assert_eq!(
        told(&mut world),
        [
            line("message.read", &member(2), "READ", true),
            line(delivered, &member(3), "DELIVERY_ACK", false),
            line("message.read", &member(3), "PLAYED", true)
        ]
    );
    // Our own devices, and a receipt that names nobody, say nothing.
    let own = world.lid("alice").with_device(7);
    arrives(&mut world, &receipt(&group(), "A", "read").attr("participant", &own));
    arrives(&mut world, &receipt(&group(), "A", "read"));
    // Neither does a device that cannot show it.
    let error = Node::new("error").attr("reason", "lid").attr("type", "feature-incapable");
    arrives(&mut world, &of(4, "").child(error));
    assert_eq!(told(&mut world), []);
}

#[test]
fn many_members_in_one_receipt() {
    let mut world = sent_to(&group(), "A");
    let user = |n: u32| Node::new("user").attr("jid", member(n)).attr("t", 1_760_000_200 + u64::from(n));
    let first = Node::new("participants").attr("key", "A").child(user(1)).child(user(2).attr("type", "read"));
    let other = Node::new("participants").attr("message_id", "UNKNOWN").child(user(1));
    let pn = Jid::pn("15559990003");
    let third = Node::new("participants").attr("message_id", "A").child(user(3).attr("participant_pn", &pn));
    arrives(&mut world, &receipt(&group(), "X", "").child(first).child(other).child(third));
    let events = world.events("alice");
    let names: Vec<_> = events.iter().map(|event| &*event.event).collect();
    let delivered = "message.delivered";
    assert_eq!(names, ["lid_mapping.updated", delivered, delivered, "message.read", delivered]);
    let last = &events[4].data["messages"][0];
    assert_eq!(
        (&last["key"]["participant"], &last["key"]["participantAlt"], &last["receipt"]["receiptTimestamp"]),
        (&json!(member(3).to_string()), &json!(pn.to_string()), &json!(1_760_000_203))
    );
    assert_eq!((&last["authorPhone"], &last["receipt"]["userJid"]), (&json!("15559990003"), &json!(pn.to_string())));
    // Shown with the first of a kind, and not with every reader.
    let shown: Vec<_> = events[1..].iter().map(|event| event.data["messages"][0]["message"].is_object()).collect();
    assert_eq!(shown, [true, false, true, false]);
    // It comes again: nothing is news. After a restart neither.
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.forget();
    let again = Node::new("participants").attr("key", "A").child(user(1)).child(user(2)).child(user(3));
    arrives(&mut world, &receipt(&group(), "X", "").child(again));
    assert_eq!(told(&mut world), []);
}

#[test]
fn a_receipt_about_a_crowd_is_bounded() {
    let mut world = sent_to(&group(), "A");
    let users = (0..3_000).map(|n| Node::new("user").attr("jid", member(n)));
    let crowd = Node::new("participants").attr("key", "A").children(users);
    arrives(&mut world, &receipt(&group(), "X", "").child(crowd));
    assert_eq!(told(&mut world).len(), 2_048);
}

#[test]
fn who_looked_at_a_status() {
    let feed = Jid::status_broadcast();
    let mut world = sent_to(&feed, "S");
    for (n, first) in [(1, true), (2, false)] {
        arrives(&mut world, &receipt(&feed, "S", "read").attr("participant", member(n)));
        assert_eq!(
            told(&mut world),
            [
                line("message.delivered", &member(n), "DELIVERY_ACK", first),
                line("message.read", &member(n), "READ", first)
            ]
        );
    }
}

#[test]
fn a_backlog_is_confirmed_in_as_few_stanzas_as_there_are_places() {
    let (mut world, upload) = online(&["alice"]);
    let (one, other) = (member(1).with_device(2), member(2).with_device(0));
    let mut senders = [Puppet::new(&one, &upload, 1), Puppet::new(&other, &upload, 2)];
    for sender in &mut senders {
        let key = sender.key_for(&group());
        let hello = in_chat(&group(), &sender.jid.clone(), "KEY").child(sender.tell(&key));
        world.stanza_arrives("alice", &hello);
    }
    world.forget();
    // The store is slow: everything is confirmed when it has it.
    world.actor("alice").acknowledges = true;
    world.disk("alice", Disk::Stuck);
    for n in 0..300 {
        for (at, sender) in senders.iter_mut().enumerate() {
            let id = format!("{at}-{n}");
            let content = sender.tell_all(&group(), &text("x"));
            let jid = sender.jid.clone();
            world.stanza_arrives("alice", &in_chat(&group(), &jid, &id).attr("offline", 1).child(content));
        }
    }
    let live = senders[0].tell(&text("live"));
    world.stanza_arrives("alice", &stanza(&one, "LIVE").child(live));
    assert_eq!(world.heard("alice").len(), 0);
    world.disk("alice", Disk::Works);
    let heard = world.heard("alice");
    let ids = |node: &Node| {
        let more = node.find_child("list").into_iter().flat_map(|list| list.child_nodes());
        let id = |node: &Node| node.attr_str("id").unwrap().into_owned();
        std::iter::once(id(node)).chain(more.map(id)).collect::<Vec<_>>()
    };
    let shape: Vec<_> = heard.iter().map(|node| (node.attr_jid("participant"), ids(node).len())).collect();
    let place = |jid: &Jid, count| (Some(jid.clone()), count);
    assert_eq!(shape, [place(&one, 256), place(&other, 256), place(&one, 44), place(&other, 44), (None, 1)]);
    for (at, jid) in [(0, &one), (1, &other)] {
        let all: Vec<_> = heard.iter().filter(|node| node.attr_jid("participant").as_ref() == Some(jid)).collect();
        assert_eq!(
            all.iter().flat_map(|node| ids(node)).collect::<Vec<_>>(),
            (0..300).map(|n| format!("{at}-{n}")).collect::<Vec<_>>()
        );
        for node in all {
            assert_eq!((node.tag(), node.attr_jid("to")), ("receipt", Some(group())));
            assert_eq!((node.attr_str("type").as_deref(), node.attr_u64("t")), (Some("inactive"), Some(puppet::SENT)));
        }
    }
    assert!(heard[4].find_child("list").is_none() && heard[4].attr_str("t").is_none(), "live ones stay as they are");
}
