//! What becomes of a sent message: delivered, read, played, per user and only upwards (spec 03 §6.2–6.3, 07 §5).

use crate::world::{World, named};
use serde_json::{Value, json};
use wamd::{
    Jid,
    engine::{Command, CommandError, Reply},
    event::Envelope,
    message::MessageId,
    node::Node,
};
use wamd_loopback::Fault;

/// Names and ids of the `message.*` events since the last call.
fn told(world: &mut World) -> Vec<(String, String)> {
    let events = world.events("alice");
    let about = events.iter().filter(|event| event.event.starts_with("message."));
    let name_and_id = |event: &Envelope| {
        let id = event.data["messages"][0]["key"]["id"].as_str().unwrap_or_default();
        (event.event.to_string(), id.to_owned())
    };
    about.map(name_and_id).collect()
}

fn pair(name: &str, id: &MessageId) -> (String, String) {
    (name.to_owned(), id.as_str().to_owned())
}

/// Alice and bob know each other; nothing of bob confirms a message by itself: his device is off and his phone cannot
/// read what it gets.
fn silent() -> World {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.talk("bob", "alice");
    let phone = world.jid("bob");
    world.fault(Fault::MutePhone { jid: phone, on: true });
    world.crash("bob");
    world.forget();
    world
}

fn receipt(from: &Jid, id: &MessageId, kind: &str) -> Node {
    let node = Node::new("receipt").attr("from", from).attr("id", id.as_str()).attr("t", 1_760_000_100);
    node.attr_opt("type", Some(kind).filter(|kind| !kind.is_empty()))
}

/// A receipt arrives, and is acknowledged whatever it says.
fn arrives(world: &mut World, node: &Node) {
    world.heard("alice");
    world.stanza_arrives("alice", node);
    let heard = world.heard("alice");
    let acks: Vec<_> = heard.iter().filter(|node| node.attr_str("class").as_deref() == Some("receipt")).collect();
    assert_eq!(acks.len(), 1, "{node:?}");
    for name in ["id", "type", "participant", "recipient"] {
        assert_eq!(acks[0].attr_str(name), node.attr_str(name), "{node:?}");
    }
    assert_eq!(acks[0].attr_jid("to"), node.attr_jid("from"));
}

#[test]
fn the_ladder() {
    let mut world = silent();
    let id = world.send("alice", "bob", "hello");
    assert_eq!(told(&mut world), [pair("message.sent", &id)]);
    let device = world.lid("bob").with_device(1);
    let key = json!({"remoteJid": "15550000002@s.whatsapp.net", "remoteJidAlt": world.lid("bob").to_string(),
        "fromMe": true, "id": id.as_str(), "addressingMode": "pn"});
    let expected = |status: &str, time: &str| {
        let mut receipt = json!({"userJid": "15550000002@s.whatsapp.net"});
        receipt[time] = json!(1_760_000_100);
        json!({"key": key, "status": status, "phone": "15550000002", "receipt": receipt,
            "message": {"conversation": "hello"}})
    };

    arrives(&mut world, &receipt(&device, &id, ""));
    assert_eq!(
        world.only("alice", "message.delivered")["messages"],
        json!([expected("DELIVERY_ACK", "receiptTimestamp")])
    );
    arrives(&mut world, &receipt(&device, &id, "read"));
    assert_eq!(world.only("alice", "message.read")["messages"], json!([expected("READ", "readTimestamp")]));
    arrives(&mut world, &receipt(&device, &id, "played"));
    assert_eq!(world.only("alice", "message.read")["messages"], json!([expected("PLAYED", "playedTimestamp")]));
    // Whatever comes late, from whatever device and under whatever name, is not news.
    for jid in [device, world.lid("bob"), world.jid("bob"), world.jid("bob").with_device(1)] {
        for kind in ["", "inactive", "read", "played"] {
            arrives(&mut world, &receipt(&jid, &id, kind));
            assert_eq!(told(&mut world), [], "{kind}");
        }
    }
}

#[test]
fn a_read_mark_implies_the_delivery() {
    for (kind, status) in [("read", "READ"), ("played", "PLAYED")] {
        let mut world = silent();
        let id = world.send("alice", "bob", "hello");
        told(&mut world);
        let lid = world.lid("bob");
        arrives(&mut world, &receipt(&lid, &id, kind));
        let events = world.events("alice");
        let message = |name: &str| named(&events, name)[0].data["messages"][0].clone();
        let (delivered, read) = (message("message.delivered"), message("message.read"));
        assert_eq!((&delivered["implied"], &delivered["status"]), (&json!(true), &json!("DELIVERY_ACK")));
        assert_eq!((&read["implied"], &read["status"]), (&Value::Null, &json!(status)));
        assert_eq!(events.len(), 2);
        // The delivery that comes late is not told again.
        arrives(&mut world, &receipt(&lid.with_device(1), &id, ""));
        assert_eq!(told(&mut world), []);
    }
}

#[test]
fn the_status_survives_a_restart() {
    let mut world = silent();
    let id = world.send("alice", "bob", "hello");
    let lid = world.lid("bob");
    arrives(&mut world, &receipt(&lid, &id, "read"));
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.forget();
    arrives(&mut world, &receipt(&lid, &id, ""));
    arrives(&mut world, &receipt(&lid, &id, "read"));
    assert_eq!(told(&mut world), []);
    arrives(&mut world, &receipt(&lid, &id, "played"));
    assert_eq!(told(&mut world), [pair("message.read", &id)]);
}

#[test]
fn one_receipt_for_several_messages() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    let ids: Vec<_> = (0..5).map(|n| world.send("alice", "bob", &format!("{n}"))).collect();
    told(&mut world);
    world.forget();
    let chat = world.lid("alice");
    let texts: Vec<_> = ids.iter().map(|id| id.as_str().to_owned()).collect();
    let read = Command::MarkRead { chat: chat.clone(), participant: None, ids: texts.clone() };
    assert_eq!(world.command("bob", read), Ok(Reply::Done));
    let heard = world.heard("bob");
    let receipts: Vec<_> = heard.iter().filter(|node| node.is("receipt")).collect();
    assert_eq!(receipts.len(), 1);
    let attr = |name| receipts[0].attr_str(name).map(|text| text.into_owned());
    assert_eq!((attr("id"), attr("type")), (Some(texts[0].clone()), Some("read".to_owned())));
    assert_eq!(receipts[0].attr_jid("to"), Some(chat));
    let list = receipts[0].find_child("list").expect("more ids").child_nodes();
    assert_eq!(list.iter().map(|item| item.attr_str("id").unwrap().into_owned()).collect::<Vec<_>>(), texts[1..]);

    let expected: Vec<_> = ids.iter().map(|id| pair("message.read", id)).collect();
    assert_eq!(told(&mut world), expected);
    // One that is unknown does not hide the others.
    let later = world.send("alice", "bob", "later");
    told(&mut world);
    let items = [ids[0].as_str(), "UNKNOWN", later.as_str()].map(|id| Node::new("item").attr("id", id));
    let node = receipt(&world.lid("bob"), &ids[1], "read").child(Node::new("list").children(items));
    arrives(&mut world, &node);
    assert_eq!(told(&mut world), [pair("message.read", &later)]);
}

#[test]
fn a_receipt_before_the_ack_settles_the_send() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.forget();
    let alice = world.device("alice");
    world.fault(Fault::DropAck { jid: alice, count: 1 });
    let id = world.send("alice", "bob", "hello");
    assert_eq!(told(&mut world), [pair("message.sent", &id), pair("message.delivered", &id)]);
    assert_eq!(world.snapshot("alice").sends, 0);
    // The ack that comes late is not news, and nothing is sent again.
    let ack = Node::new("ack").attr("class", "message").attr("id", id.as_str()).attr("from", world.lid("bob"));
    world.stanza_arrives("alice", &ack.attr("t", 1_760_000_000));
    world.advance_secs(100);
    world.heard("alice");
    world.cut("alice");
    world.advance_secs(5);
    assert_eq!(told(&mut world), []);
    assert!(!world.heard("alice").iter().any(|node| node.is("message")));
    world.talk("alice", "bob");
}

#[test]
fn own_devices_say_nothing_about_the_peer() {
    let mut world = silent();
    let id = world.send("alice", "bob", "hello");
    told(&mut world);
    let (pn, lid, bob) = (world.jid("alice"), world.lid("alice"), world.lid("bob"));
    for own in [pn.clone(), lid.clone(), pn.with_device(7), lid.with_device(7)] {
        for kind in ["", "inactive", "sender", "read", "played", "read-self", "played-self", "peer_msg", "hist_sync"] {
            arrives(&mut world, &receipt(&own, &id, kind).attr("recipient", &bob));
            assert_eq!(told(&mut world), [], "{kind} of {own}");
        }
    }
    // Nor do kinds without a status, whoever sends them.
    for kind in ["sender", "read-self", "played-self", "server-error", "view", "enc_rekey_retry", "future"] {
        arrives(&mut world, &receipt(&bob, &id, kind));
        assert_eq!(told(&mut world), [], "{kind}");
    }
    arrives(&mut world, &receipt(&bob, &id, ""));
    assert_eq!(told(&mut world), [pair("message.delivered", &id)]);
}

#[test]
fn strangers_cannot_confirm() {
    let mut world = silent();
    let id = world.send("alice", "bob", "hello");
    told(&mut world);
    let stranger = Jid::pn("15550000077");
    arrives(&mut world, &receipt(&stranger, &id, "read"));
    assert_eq!(told(&mut world), []);
    let lid = world.lid("bob");
    arrives(&mut world, &receipt(&lid, &id, "read"));
    assert_eq!(told(&mut world).len(), 2);
}

#[test]
fn mark_read() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.forget();
    let (bob, lid) = (world.jid("bob"), world.lid("bob"));
    let read = |ids: Vec<String>| Command::MarkRead { chat: bob.clone(), participant: None, ids };
    assert_eq!(world.command("alice", read(Vec::new())), Err(CommandError::NoIds));
    assert_eq!(world.heard("alice"), []);

    let id = world.send("bob", "alice", "hello");
    world.forget();
    assert_eq!(world.command("alice", read(vec![id.as_str().to_owned()])), Ok(Reply::Done));
    let heard: Vec<_> = world.heard("alice").into_iter().filter(|node| node.is("receipt")).collect();
    let now = world.now().unix_seconds();
    let expected = Node::new("receipt").attr("id", id.as_str()).attr("type", "read").attr("to", &lid).attr("t", now);
    assert_eq!(heard, [Node::decode(expected.encode().unwrap()).unwrap()], "by the name of the chat that is known");
    let events = world.events("bob");
    assert_eq!(named(&events, "message.read")[0].data["messages"][0]["key"]["id"], id.as_str());

    // At most 256 ids in one receipt.
    let ids: Vec<_> = (0..600).map(|n| format!("M{n}")).collect();
    world.forget();
    assert_eq!(world.command("alice", read(ids.clone())), Ok(Reply::Done));
    let heard: Vec<_> = world.heard("alice").into_iter().filter(|node| node.is("receipt")).collect();
    let mut sent = Vec::new();
    let mut sizes = Vec::new();
    for node in &heard {
        let items = node.find_child("list").into_iter().flat_map(Node::child_nodes);
        let of_node: Vec<_> =
            std::iter::once(node).chain(items).map(|node| node.attr_str("id").unwrap().into_owned()).collect();
        sizes.push(of_node.len());
        sent.extend(of_node);
    }
    assert_eq!((sizes, sent), (vec![256, 256, 88], ids));

    // In a group the author is named.
    let group: Jid = "120363000000000001@g.us".parse().unwrap();
    let ids = vec!["G".to_owned()];
    let read = Command::MarkRead { chat: group.clone(), participant: Some(lid.with_device(3)), ids };
    world.forget();
    assert_eq!(world.command("alice", read), Ok(Reply::Done));
    let node = world.heard("alice").remove(0);
    assert_eq!((node.attr_jid("to"), node.attr_jid("participant")), (Some(group), Some(lid)));
}
