//! What cannot be read is asked for again: once per stanza, with keys when they help, not without end, and not of those who
//! would not answer (spec 03 §5.4, §5.6).

use crate::puppet::{self, Puppet, enc, in_chat, online, stanza, text};
use crate::world::World;
use serde_json::json;
use wamd::{Jid, node::Node, store::RecordKind};
use wamd_loopback::{Fault, GroupMode};

fn group() -> Jid {
    "120363041234567890@g.us".parse().unwrap()
}

fn member() -> Jid {
    Jid::lid("77777777777777").with_device(3)
}

/// The requests to send again that alice made since the last call.
fn retries(world: &mut World) -> Vec<Node> {
    let heard = world.heard("alice");
    heard.into_iter().filter(|node| node.attr_str("type").as_deref() == Some("retry")).collect()
}

/// Count, reason, and whether keys come along.
fn shape(retry: &Node) -> (u64, u64, bool) {
    let inner = retry.find_child("retry").expect("a retry");
    let number = |name| inner.attr_u64(name).expect(name);
    (number("count"), number("error"), retry.find_child("keys").is_some())
}

#[test]
fn one_request_for_a_stanza_however_much_of_it_fails() {
    let (mut world, _) = online(&["alice"]);
    let stanza = in_chat(&group(), &member(), "A")
        .child(enc("msg", vec![0x33; 60]))
        .child(enc("pkmsg", vec![0x33; 60]))
        .child(enc("skmsg", vec![0x33; 100]));
    world.stanza_arrives("alice", &stanza);
    let asked = retries(&mut world);
    assert_eq!(asked.len(), 1);
    let retry = &asked[0];
    for (name, value) in [("id", "A"), ("to", &*group().to_string()), ("participant", &member().to_string())] {
        assert_eq!(retry.attr_str(name).as_deref(), Some(value), "{name}");
    }
    let inner = retry.find_child("retry").unwrap();
    assert_eq!(inner.attr_u64("t"), Some(puppet::SENT));
    assert_eq!(retry.find_child("registration").unwrap().content_bytes().unwrap().len(), 4);
}

#[test]
fn keys_come_with_the_second_request_and_stay_the_same() {
    let (mut world, _) = online(&["alice"]);
    let failing = stanza(&member(), "A").child(enc("msg", vec![0x33; 60]));
    let mut keys = Vec::new();
    for count in 1..=7 {
        world.stanza_arrives("alice", &failing);
        let asked = retries(&mut world);
        assert_eq!(asked.len(), usize::from(count <= 5), "five times at most");
        for retry in asked {
            let (number, _, has_keys) = shape(&retry);
            assert_eq!((number, has_keys), (count, count >= 2));
            keys.extend(retry.find_child("keys").map(|keys| keys.find_child("key").unwrap().clone()));
        }
    }
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| *key == keys[0]), "one prekey for one message");
}

#[test]
fn the_count_of_the_sender_goes_on_when_ours_is_lost() {
    let (mut world, _) = online(&["alice"]);
    for (id, count, expected) in [("A", 0, Some(1)), ("B", 3, Some(4)), ("C", 4, Some(5)), ("D", 5, None)] {
        world.stanza_arrives("alice", &stanza(&member(), id).child(enc("msg", vec![0x33; 60]).attr("count", count)));
        assert_eq!(retries(&mut world).first().map(|retry| shape(retry).0), expected, "{count}");
    }
}

#[test]
fn keys_come_at_once_where_nothing_else_helps() {
    let (mut world, upload) = online(&["alice"]);
    let mut sender = Puppet::new(&member(), &upload, 1);
    sender.key_for(&group());
    let content = sender.tell_all(&group(), &text("hello"));
    // The sender believes that we have its key, and has nothing to tell that we have not.
    world.stanza_arrives("alice", &in_chat(&group(), &member(), "A").child(content.clone()));
    assert_eq!(retries(&mut world).iter().map(shape).collect::<Vec<_>>(), [(1, 1, true)]);
    // It tried to hand the key over, so it will again.
    let both = in_chat(&group(), &member(), "B").child(enc("msg", vec![0x33; 60])).child(content);
    world.stanza_arrives("alice", &both);
    assert_eq!(retries(&mut world).iter().map(|retry| shape(retry).2).collect::<Vec<_>>(), [false]);
    let hosted: Jid = "77777777777777:99@hosted.lid".parse().unwrap();
    world.stanza_arrives("alice", &stanza(&hosted, "C").child(enc("msg", vec![0x33; 60])));
    assert_eq!(retries(&mut world).iter().map(|retry| shape(retry).2).collect::<Vec<_>>(), [true]);
}

#[test]
fn those_who_would_not_answer_are_not_asked() {
    let (mut world, _) = online(&["alice"]);
    let (own, bot) = (world.lid("alice").with_device(7), "867051314767696@bot".parse::<Jid>().unwrap());
    let failing = || enc("msg", vec![0x33; 60]);
    let elsewhere = Node::new("meta").attr("target_chat_jid", member().to_bare());
    for (what, stanza, asks) in [
        ("a copy for us that does not say whom it went to", stanza(&own, "A").child(failing()), 0),
        ("one that does", stanza(&own, "B").attr("recipient", member().to_bare()).child(failing()), 1),
        ("housekeeping", stanza(&own, "C").attr("category", "peer").child(failing()), 1),
        ("our own message in a group", in_chat(&group(), &own, "D").child(failing()), 0),
        ("a bot in its own chat", stanza(&bot, "E").child(failing()), 1),
        ("a bot in the chat of somebody else", stanza(&bot, "F").child(elsewhere).child(failing()), 0),
        ("a bot in a group", in_chat(&group(), &bot, "G").child(failing()), 0),
        ("what wants no placeholder", stanza(&member(), "H").child(failing().attr("decrypt-fail", "hide")), 1),
    ] {
        world.stanza_arrives("alice", &stanza);
        let heard = world.heard("alice");
        let (asked, rest): (Vec<_>, Vec<_>) =
            heard.iter().partition(|node| node.attr_str("type").as_deref() == Some("retry"));
        assert_eq!(asked.len(), asks, "{what}");
        assert_eq!(rest.iter().map(|node| node.tag()).collect::<Vec<_>>(), ["ack"], "{what}");
        assert_eq!(
            asked.first().and_then(|node| node.attr_str("category")).as_deref() == Some("peer"),
            what == "housekeeping"
        );
        let failed = world.only("alice", "message.undecryptable");
        assert_eq!(failed["hidden"], json!(what == "what wants no placeholder"), "{what}");
    }
}

#[test]
fn a_bot_in_the_chat_of_somebody_else_is_the_author_there() {
    let (mut world, _) = online(&["alice"]);
    let bot: Jid = "867051314767696@bot".parse().unwrap();
    let elsewhere = Node::new("meta").attr("target_chat_jid", member());
    world.stanza_arrives("alice", &stanza(&bot, "A").child(elsewhere).child(enc("msg", vec![0x33; 60])));
    let key = world.only("alice", "message.undecryptable")["key"].clone();
    assert_eq!((&key["remoteJid"], &key["participant"]), (&json!("77777777777777@lid"), &json!(bot.to_string())));
    assert_eq!(world.actor("alice").records(RecordKind::LidMap).len(), 0);
}

#[test]
fn a_storm_is_asked_about_in_part_and_acknowledged_whole() {
    let (mut world, _) = online(&["alice"]);
    let from = |user: u32| Jid::lid(format!("7777777{user:07}"));
    let send = |world: &mut World, user: u32, n: u32| {
        let failing = stanza(&from(user), &format!("M{n}")).child(enc("msg", vec![0x33; 60]));
        world.stanza_arrives("alice", &failing);
        let heard = world.heard("alice");
        assert_eq!(heard.iter().filter(|node| node.is("ack")).count(), 1, "acknowledged in any case");
        heard.iter().filter(|node| node.attr_str("type").as_deref() == Some("retry")).count()
    };
    let asked: usize = (0..100).map(|n| send(&mut world, 0, n)).sum();
    assert_eq!(asked, 60, "of one user");
    let asked: usize = (1..400).map(|user| send(&mut world, user, 0)).sum();
    assert_eq!(asked, 240, "and 300 of all");
    // A minute later it goes on.
    world.advance_secs(60);
    assert_eq!(send(&mut world, 0, 1_000), 1);
}

#[test]
fn what_a_group_lost_on_the_way_is_healed_by_its_sender() {
    let mut world = World::online(&["alice", "bob"]);
    let alice = world.jid("alice");
    let group = world.group("bob", GroupMode::Lid, [alice]);
    let alice = world.device("alice");
    for round in 0..4 {
        // With the key, without it, and several times.
        world.forget();
        world.fault(Fault::TamperNext { jid: alice.clone(), count: 1 + round % 2 });
        let id = world.send_to("bob", &group, "damaged");
        world.settle();
        let received = world.data("alice", "message.received");
        assert_eq!(received.len(), 1, "round {round}");
        let key = &received[0]["messages"][0]["key"];
        assert_eq!((&key["id"], &key["remoteJid"]), (&json!(id.as_str()), &json!(group.to_string())));
        assert_eq!(world.queued("alice"), 0);
        // And the next one needs no help.
        world.forget();
        world.send_to("bob", &group, "whole");
        assert_eq!(world.only("alice", "message.received")["messages"][0]["text"], "whole");
        assert_eq!(retries(&mut world).len(), 0);
    }
}
