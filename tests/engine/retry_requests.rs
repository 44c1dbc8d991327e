//! What cannot be read is asked for again: once per stanza, with keys when they help, not without end, and not of those who
//! would not answer (spec 03 §5.4, §5.6).

use crate::puppet::{self, Puppet, enc, in_chat, online, stanza, text};
use crate::world::World;
use serde_json::json;
use wamd::{Jid, engine::Command, node::Node, store::RecordKind};
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
fn a_request_that_was_lost_with_its_connection_is_made_once_more() {
    let (mut world, _) = online(&["alice"]);
    let failing = |resend: u64| stanza(&member(), "A").child(enc("msg", vec![0x33; 60]).attr("count", resend));
    let counts = |world: &mut World| retries(world).iter().map(|retry| shape(retry).0).collect::<Vec<_>>();
    // The server gives out again, on each connection, what nobody has acknowledged there.
    for connection in 0..8 {
        world.stanza_arrives("alice", &failing(0));
        assert_eq!(counts(&mut world), [1], "connection {connection}");
        world.cut("alice");
        world.advance_secs(70);
        world.heard("alice");
    }
    // After a crash as well.
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.heard("alice");
    world.stanza_arrives("alice", &failing(0));
    assert_eq!(counts(&mut world), [1]);
    // An answer that cannot be read either is another request, on whatever connection.
    world.cut("alice");
    world.advance_secs(70);
    world.heard("alice");
    world.stanza_arrives("alice", &failing(1));
    assert_eq!(counts(&mut world), [2]);
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
        let told = world.data("alice", "message.undecryptable");
        // Housekeeping is nothing that would be shown.
        assert_eq!(told.len(), usize::from(what != "housekeeping"), "{what}");
        for failed in told {
            assert_eq!(failed["hidden"], json!(what == "what wants no placeholder"), "{what}");
        }
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

#[test]
fn one_that_is_known_by_its_lid_meanwhile_is_asked_and_told_once() {
    let (mut world, _) = online(&["alice"]);
    let (pn, lid) = (Jid::pn("15559990000").with_device(3), member());
    for (chat, id) in [(None, "A"), (Some(group()), "B")] {
        let failing = |sender: &Jid| {
            let stanza = match &chat {
                None => stanza(sender, id),
                Some(chat) => in_chat(chat, sender, id),
            };
            stanza.child(enc("msg", vec![0x33; 60]))
        };
        world.forget();
        if chat.is_some() {
            // It was forgotten who is who.
            world.crash("alice");
            world.actor("alice").lose(RecordKind::LidMap);
            world.start("alice");
            world.command("alice", Command::Connect).unwrap();
            world.forget();
        }
        world.stanza_arrives("alice", &failing(&pn));
        assert_eq!(world.data("alice", "message.undecryptable").len(), 1);
        assert_eq!(retries(&mut world).iter().map(|retry| shape(retry).0).collect::<Vec<_>>(), [1]);
        let alt = if chat.is_some() { "participant_pn" } else { "sender_pn" };
        let by_lid = failing(&lid).attr("addressing_mode", "lid").attr(alt, pn.to_bare());
        world.stanza_arrives("alice", &by_lid);
        assert_eq!(world.event_names("alice"), ["lid_mapping.updated"], "{id}");
        assert_eq!(retries(&mut world).iter().map(shape).collect::<Vec<_>>(), [(2, 4, true)], "{id}");
        assert_eq!(world.actor("alice").records(RecordKind::Placeholder).len(), if chat.is_some() { 2 } else { 1 });
    }
}

#[test]
fn a_jump_too_far_is_asked_for_again_and_leaves_the_chain_as_it_was() {
    let (mut world, upload) = online(&["alice"]);
    let mut sender = Puppet::new(&member(), &upload, 1);
    let received = |world: &mut World| world.data("alice", "message.received").len();
    // In a session of two.
    let hello = sender.tell(&text("hello"));
    world.stanza_arrives("alice", &stanza(&member(), "A0").child(hello));
    let mut sealed: Vec<Node> = (1..=2_002).map(|n| sender.tell(&text(&n.to_string()))).collect();
    world.forget();
    // Counters 1 to 2,000 lie between.
    world.stanza_arrives("alice", &stanza(&member(), "A2002").child(sealed.pop().unwrap()));
    assert_eq!(retries(&mut world).iter().map(shape).collect::<Vec<_>>(), [(1, 6, false)]);
    assert_eq!(received(&mut world), 0);
    world.stanza_arrives("alice", &stanza(&member(), "A2001").child(sealed.pop().unwrap()));
    assert_eq!((received(&mut world), retries(&mut world).len()), (1, 0), "2,000 are few enough");
    for (n, enc) in [(0, &sealed[0]), (1_999, &sealed[1_999])] {
        world.stanza_arrives("alice", &stanza(&member(), &format!("L{n}")).child(enc.clone()));
        assert_eq!((received(&mut world), retries(&mut world).len()), (1, 0), "skipped ones are kept");
    }
    // Under a sender key.
    let first = in_chat(&group(), &member(), "B0");
    let key = sender.key_for(&group());
    let (key, content) = (sender.tell(&key), sender.tell_all(&group(), &text("hello")));
    world.stanza_arrives("alice", &first.child(key).child(content));
    let mut sealed: Vec<Node> = (1..=2_002).map(|n| sender.tell_all(&group(), &text(&n.to_string()))).collect();
    world.forget();
    world.stanza_arrives("alice", &in_chat(&group(), &member(), "B2002").child(sealed.pop().unwrap()));
    assert_eq!(retries(&mut world).iter().map(|retry| shape(retry).1).collect::<Vec<_>>(), [6]);
    world.stanza_arrives("alice", &in_chat(&group(), &member(), "B2001").child(sealed.pop().unwrap()));
    assert_eq!((received(&mut world), retries(&mut world).len()), (1, 0));
    world.stanza_arrives("alice", &in_chat(&group(), &member(), "BL").child(sealed.swap_remove(0)));
    assert_eq!((received(&mut world), retries(&mut world).len()), (1, 0));
}

#[test]
fn a_broadcast_list_is_asked_for_again_of_the_one_who_sent_it() {
    let (mut world, upload) = online(&["alice"]);
    let list: Jid = "1594499999@broadcast".parse().unwrap();
    let stanza = |enc: Node| in_chat(&list, &member(), "A").attr("recipient", member().to_bare()).child(enc);
    world.stanza_arrives("alice", &stanza(enc("pkmsg", vec![0x33; 60])).child(enc("skmsg", vec![0x33; 100])));
    let asked = retries(&mut world);
    assert_eq!(
        (asked.len(), asked[0].attr_jid("to"), asked[0].attr_jid("participant")),
        (1, Some(list.clone()), Some(member()))
    );
    world.forget();
    let mut sender = Puppet::new(&member(), &upload, 1);
    let resent = sender.tell(&text("to many")).attr("count", 1);
    world.stanza_arrives("alice", &stanza(resent));
    let message = world.only("alice", "message.received")["messages"][0].clone();
    assert_eq!((&message["text"], &message["key"]["remoteJid"]), (&json!("to many"), &json!(list.to_string())));
    assert_eq!(world.actor("alice").records(RecordKind::Placeholder).len(), 0);
}
