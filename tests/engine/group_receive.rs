//! Messages of groups and broadcast lists arrive: the key first, then what it is for, each told once, whoever sent it under
//! whatever identity (spec 03 §3.2, §5.2).

use crate::puppet::{self, Puppet, enc, in_chat, online, text};
use crate::world::{World, text_of};
use serde_json::json;
use wamd::{
    Jid,
    engine::Command,
    event::Prefer,
    message::build,
    node::Node,
    proto::{Message as _, e2e},
    store::RecordKind,
};

const MEMBER: &str = "77777777777777";

fn group() -> Jid {
    "120363041234567890@g.us".parse().unwrap()
}

fn member(device: u16) -> Jid {
    Jid::lid(MEMBER).with_device(device)
}

/// What alice was told since the last call.
fn texts(world: &mut World) -> Vec<String> {
    world.events("alice").iter().filter_map(text_of).map(str::to_owned).collect()
}

/// Tag, type and error of what alice answered since the last call.
fn answers(world: &mut World) -> Vec<(String, String, String)> {
    let attr = |node: &Node, name| node.attr_str(name).map(|text| text.into_owned()).unwrap_or_default();
    let heard = world.heard("alice");
    heard.iter().map(|node| (node.tag().to_owned(), attr(node, "type"), attr(node, "error"))).collect()
}

fn answer(tag: &str, kind: &str) -> (String, String, String) {
    (tag.to_owned(), kind.to_owned(), String::new())
}

/// A first message of a member: the key, and the text.
fn first(puppet: &mut Puppet, chat: &Jid, id: &str, content: &str) -> Node {
    let key = puppet.key_for(chat);
    in_chat(chat, &puppet.jid, id).child(puppet.tell(&key)).child(puppet.tell_all(chat, &text(content)))
}

#[test]
fn the_key_comes_before_the_text_wherever_it_stands() {
    let (mut world, upload) = online(&["alice"]);
    let mut sender = Puppet::new(&member(3), &upload, 1);
    let key = sender.key_for(&group());
    let (key, content) = (sender.tell(&key), sender.tell_all(&group(), &text("hello")));
    // The text stands in front of the key.
    let stanza = in_chat(&group(), &sender.jid, "A").attr("notify", "Ada").child(content).child(key);
    world.stanza_arrives("alice", &stanza);
    let events = world.events("alice");
    assert_eq!(events.len(), 1);
    assert_eq!(
        events[0].data["messages"][0],
        json!({"key": {"remoteJid": group().to_string(), "fromMe": false, "id": "A", "participant": "77777777777777@lid"},
            "messageTimestamp": puppet::SENT, "pushName": "Ada", "broadcast": false, "kind": "text", "text": "hello",
            "source": "live", "message": {"conversation": "hello"}})
    );
    let heard = world.heard("alice");
    assert_eq!(heard.len(), 1, "one answer: {heard:?}");
    for (name, value) in [
        ("id", "A".to_owned()),
        ("to", group().to_string()),
        ("participant", sender.jid.to_string()),
        ("type", "inactive".to_owned()),
    ] {
        assert_eq!(heard[0].attr_str(name).as_deref(), Some(&*value), "{name}");
    }
    // The next ones need no key, arrive in any order, and each once.
    let later: Vec<_> = ["B", "C", "D"].map(|id| (id, sender.tell_all(&group(), &text(id)))).into();
    for (id, content) in [&later[2], &later[0], &later[1], &later[0]] {
        world.stanza_arrives("alice", &in_chat(&group(), &sender.jid, id).child(content.clone()));
    }
    assert_eq!(texts(&mut world), ["D", "B", "C"]);
    assert_eq!(answers(&mut world), vec![answer("receipt", "inactive"); 4]);
}

#[test]
fn a_key_alone_is_no_event_and_the_text_behind_it_is() {
    let (mut world, upload) = online(&["alice"]);
    let mut sender = Puppet::new(&member(0), &upload, 1);
    let key = sender.key_for(&group());
    let key_only = in_chat(&group(), &sender.jid, "KEY").child(sender.tell(&key));
    for _ in 0..2 {
        // The second time it is a duplicate, and fine all the same.
        world.stanza_arrives("alice", &key_only);
        assert_eq!(world.event_names("alice"), [""; 0]);
        assert_eq!(answers(&mut world), [answer("receipt", "inactive")]);
    }
    // Another message uses the same id as the one that brought the key: nothing of it was read so far.
    let content = sender.tell_all(&group(), &text("hello"));
    world.stanza_arrives("alice", &in_chat(&group(), &sender.jid, "KEY").child(content));
    assert_eq!(texts(&mut world), ["hello"]);
}

#[test]
fn a_redelivered_stanza_is_answered_and_not_told_again_also_after_a_restart() {
    let (mut world, upload) = online(&["alice"]);
    let mut sender = Puppet::new(&member(3), &upload, 1);
    let stanza = first(&mut sender, &group(), "A", "hello");
    world.stanza_arrives("alice", &stanza);
    assert_eq!(texts(&mut world), ["hello"]);
    for restart in [false, true] {
        if restart {
            world.crash_and_start("alice");
            world.command("alice", Command::Connect).unwrap();
        }
        world.forget();
        world.stanza_arrives("alice", &stanza);
        assert_eq!(world.event_names("alice"), [""; 0], "restart: {restart}");
        assert_eq!(answers(&mut world), [answer("receipt", "inactive")]);
    }
}

#[test]
fn a_key_is_taken_for_the_chat_of_its_stanza_only() {
    let (mut world, upload) = online(&["alice"]);
    let mut sender = Puppet::new(&member(3), &upload, 1);
    let other: Jid = "120363049999999999@g.us".parse().unwrap();
    // In another group, in a direct chat, and from a member for another group.
    let key = sender.key_for(&other);
    world.stanza_arrives("alice", &in_chat(&group(), &sender.jid, "A").child(sender.tell(&key)));
    world.stanza_arrives("alice", &puppet::stanza(&sender.jid, "B").child(sender.tell(&key)));
    assert!(world.actor("alice").records(RecordKind::SenderKey).is_empty());
    world.forget();
    let content = sender.tell_all(&other, &text("not yet"));
    world.stanza_arrives("alice", &in_chat(&other, &sender.jid, "C").child(content.clone()));
    assert_eq!(world.only("alice", "message.undecryptable")["reason"], "no_sender_key");
    world.stanza_arrives("alice", &in_chat(&other, &sender.jid, "D").child(sender.tell(&key)));
    world.stanza_arrives("alice", &in_chat(&other, &sender.jid, "C").child(content));
    // The key was handed over after the chain had moved on: what lies before is asked for, what comes is read.
    let content = sender.tell_all(&other, &text("now"));
    world.stanza_arrives("alice", &in_chat(&other, &sender.jid, "E").child(content));
    assert_eq!(texts(&mut world).last().map(String::as_str), Some("now"));
}

#[test]
fn a_key_in_a_message_to_all_is_not_taken_and_the_message_is_received() {
    let (mut world, upload) = online(&["alice"]);
    let mut sender = Puppet::new(&member(3), &upload, 1);
    let stanza = first(&mut sender, &group(), "A", "hello");
    world.stanza_arrives("alice", &stanza);
    let stored = world.actor("alice").records(RecordKind::SenderKey);
    assert_eq!(stored.len(), 1);
    // A key of its own in the place of a content: read and confirmed, also when it comes again.
    sender.rotate(&group());
    let (key, other) = (sender.key_for(&group()), sender.key_for(&group()));
    let handed = in_chat(&group(), &sender.jid, "B").child(sender.tell(&key)).child(sender.tell_all(&group(), &other));
    world.forget();
    for _ in 0..2 {
        world.stanza_arrives("alice", &handed);
        assert_eq!(world.event_names("alice"), [""; 0]);
        assert_eq!(answers(&mut world), [answer("receipt", "inactive")]);
    }
    // One that comes by the sender key alone changes nothing.
    let stored = world.actor("alice").records(RecordKind::SenderKey);
    let mut stranger = Puppet::new(&member(3), &upload, 2);
    let foreign = sender.tell_all(&group(), &stranger.key_for(&group()));
    world.stanza_arrives("alice", &in_chat(&group(), &sender.jid, "C").child(foreign));
    let content = stranger.tell_all(&group(), &text("unread"));
    world.stanza_arrives("alice", &in_chat(&group(), &sender.jid, "D").child(content));
    assert_eq!(world.only("alice", "message.undecryptable")["reason"], "no_sender_key");
    assert_eq!(world.actor("alice").records(RecordKind::SenderKey).len(), stored.len());
}

#[test]
fn an_impostor_cannot_speak_with_the_key_of_another() {
    let (mut world, upload) = online(&["alice"]);
    let mut honest = Puppet::new(&member(3), &upload, 1);
    let stanza = first(&mut honest, &group(), "A", "hello");
    world.stanza_arrives("alice", &stanza);
    // Another content under the signature of the honest one, and a key that nobody has handed over.
    let mut impostor = Puppet::new(&member(3), &upload, 2);
    impostor.key_for(&group());
    let mut changed = honest.tell_all(&group(), &text("forged")).content_bytes().unwrap().to_vec();
    changed[12] ^= 1;
    for (id, forged, reason, error) in [
        ("B", enc("skmsg", changed), "bad_signature", 5),
        ("C", impostor.tell_all(&group(), &text("forged")), "no_sender_key", 1),
    ] {
        world.forget();
        world.stanza_arrives("alice", &in_chat(&group(), &member(3), id).child(forged));
        let failed = world.only("alice", "message.undecryptable");
        assert_eq!((&failed["key"]["id"], &failed["reason"]), (&json!(id), &json!(reason)));
        let heard = world.heard("alice");
        assert_eq!(heard[0].find_child("retry").unwrap().attr_u64("error"), Some(error));
        // Whoever has lost our key needs ours to start over; whoever has it and fails does not.
        assert_eq!(heard[0].find_child("keys").is_some(), reason == "no_sender_key");
    }
    let next = honest.tell_all(&group(), &text("still here"));
    world.stanza_arrives("alice", &in_chat(&group(), &member(3), "D").child(next));
    assert_eq!(texts(&mut world), ["still here"]);
}

#[test]
fn after_a_failed_pairwise_part_the_rest_waits_for_the_resend() {
    let (mut world, upload) = online(&["alice"]);
    let mut sender = Puppet::new(&member(3), &upload, 1);
    let key = sender.key_for(&group());
    let content = sender.tell_all(&group(), &text("hello"));
    let damaged = enc("msg", vec![0x33; 40]);
    let stanza = in_chat(&group(), &sender.jid, "A").child(damaged).child(content.clone());
    world.stanza_arrives("alice", &stanza);
    assert_eq!(world.only("alice", "message.undecryptable")["willRetry"], true);
    // One request, although two parts are unreadable; the key may still come, so none of ours is sent yet.
    let heard = world.heard("alice");
    assert_eq!(heard.iter().map(Node::tag).collect::<Vec<_>>(), ["receipt", "ack"]);
    assert!(heard[0].find_child("keys").is_none() && heard[0].attr_str("type").as_deref() == Some("retry"));
    assert_eq!(heard[0].attr_jid("participant"), Some(sender.jid.clone()));
    // The resend: the message itself, with the key beside it.
    let resent = e2e::Message { conversation: Some("hello".to_owned()), ..key };
    let resent = sender.tell(&resent);
    world.stanza_arrives("alice", &in_chat(&group(), &sender.jid, "A").child(resent.attr("count", 1)));
    assert_eq!(texts(&mut world), ["hello"]);
    assert_eq!(answers(&mut world), [answer("receipt", "inactive")]);
    // Then the first copy comes again: it was received.
    world.stanza_arrives("alice", &in_chat(&group(), &sender.jid, "A").child(content));
    assert_eq!(world.event_names("alice"), [""; 0]);
    let next = sender.tell_all(&group(), &text("on we go"));
    world.stanza_arrives("alice", &in_chat(&group(), &sender.jid, "B").child(next));
    assert_eq!(texts(&mut world), ["on we go"]);
}

#[test]
fn what_was_delivered_is_received_whatever_else_fails() {
    let (mut world, upload) = online(&["alice"]);
    let mut sender = Puppet::new(&member(3), &upload, 1);
    let good = sender.tell(&text("hello"));
    let stanza = in_chat(&group(), &sender.jid, "A").child(good).child(enc("skmsg", vec![0x33; 100]));
    for expected in [&["hello"][..], &[]] {
        world.stanza_arrives("alice", &stanza);
        assert_eq!(texts(&mut world), expected);
        assert_eq!(answers(&mut world), [answer("receipt", "inactive")]);
    }
}

#[test]
fn a_stanza_without_its_device_finds_the_key_of_the_device() {
    let (mut world, upload) = online(&["alice"]);
    let mut sender = Puppet::new(&member(0), &upload, 1);
    let stanza = first(&mut sender, &group(), "A", "hello");
    world.stanza_arrives("alice", &stanza);
    // The key was handed over by the primary; the next stanza names a companion.
    let content = sender.tell_all(&group(), &text("from elsewhere"));
    world.stanza_arrives("alice", &in_chat(&group(), &member(9), "B").child(content));
    assert_eq!(texts(&mut world), ["hello", "from elsewhere"]);
}

#[test]
fn keys_move_to_the_lid_with_their_device() {
    let (mut world, upload) = online(&["alice"]);
    let (pn, lid) = (Jid::pn("15559990000").with_device(3), member(3));
    let mut sender = Puppet::new(&pn, &upload, 1);
    let stanza = first(&mut sender, &group(), "A", "by number");
    world.stanza_arrives("alice", &stanza);
    assert_eq!(texts(&mut world), ["by number"]);
    // The group moves to LIDs: the same device, and the same key.
    let content = sender.tell_all(&group(), &text("by lid"));
    let stanza = in_chat(&group(), &lid, "B").attr("addressing_mode", "lid").attr("participant_pn", pn.to_bare());
    world.stanza_arrives("alice", &stanza.child(content));
    let events = world.events("alice");
    let names: Vec<_> = events.iter().map(|event| &*event.event).collect();
    assert_eq!(names, ["lid_mapping.updated", "message.received"], "who it is, before what it says");
    let message = &events[1].data["messages"][0];
    assert_eq!(
        (&message["key"]["participant"], &message["key"]["participantAlt"], &message["authorPhone"]),
        (&json!("77777777777777@lid"), &json!("15559990000@s.whatsapp.net"), &json!("15559990000"))
    );
    let keys = world.actor("alice").records(RecordKind::SenderKey);
    let names: Vec<_> = keys.iter().map(|(key, _)| String::from_utf8(key.id.to_vec()).unwrap()).collect();
    assert_eq!(names, [format!("{}\0{lid}", group())]);
    // A stanza that still has the number finds it.
    let content = sender.tell_all(&group(), &text("by number again"));
    world.stanza_arrives("alice", &in_chat(&group(), &pn, "C").child(content));
    assert_eq!(texts(&mut world), ["by number again"]);
}

#[test]
fn events_show_the_preferred_identity_of_the_author() {
    for (prefer, first_shown, other) in [
        (Prefer::Pn, "15559990000@s.whatsapp.net", "77777777777777@lid"),
        (Prefer::Lid, "77777777777777@lid", "15559990000@s.whatsapp.net"),
        (Prefer::Addressed, "77777777777777@lid", "15559990000@s.whatsapp.net"),
    ] {
        let mut world = World::new(&[]);
        world.add("alice", "15550000001", |config| config.prefer = prefer);
        world.settle();
        world.link("alice");
        let heard = world.heard("alice");
        let upload = heard.iter().find(|node| node.is("iq") && node.find_child("skey").is_some()).unwrap();
        let mut sender = Puppet::new(&member(3), upload, 1);
        world.forget();
        let stanza = first(&mut sender, &group(), "A", "hello").attr("participant_pn", Jid::pn("15559990000"));
        world.stanza_arrives("alice", &stanza);
        let key = &world.only("alice", "message.received")["messages"][0]["key"];
        assert_eq!((&key["participant"], &key["participantAlt"]), (&json!(first_shown), &json!(other)), "{prefer:?}");
        // What cannot be read is shown alike.
        world.stanza_arrives("alice", &in_chat(&group(), &member(3), "B").child(enc("skmsg", vec![0x33; 100])));
        let key = &world.only("alice", "message.undecryptable")["key"];
        assert_eq!((&key["participant"], &key["participantAlt"]), (&json!(first_shown), &json!(other)), "{prefer:?}");
    }
}

#[test]
fn own_devices_speak_in_groups_as_ourselves() {
    let (mut world, upload) = online(&["alice"]);
    let own = world.lid("alice").with_device(7);
    let mut device = Puppet::new(&own, &upload, 1);
    // The key comes in the wrapper that own devices use, or without it.
    let key = device.key_for(&group());
    let wrapped = build::device_sent(&group(), key);
    let stanza = in_chat(&group(), &own, "A").child(device.tell(&wrapped));
    world.stanza_arrives("alice", &stanza.child(device.tell_all(&group(), &text("hello"))));
    let sent = world.only("alice", "message.sent");
    let message = &sent["messages"][0];
    assert_eq!(message["key"]["remoteJid"], group().to_string());
    assert_eq!(
        (&message["key"]["fromMe"], &message["source"], &message["text"]),
        (&json!(true), &json!("device"), &json!("hello"))
    );
    let heard = world.heard("alice");
    assert_eq!((heard.len(), heard[0].attr_str("type").as_deref()), (1, Some("sender")));
    assert_eq!(heard[0].attr_jid("to"), Some(group()));
    // Nobody else is believed when he wraps.
    let mut stranger = Puppet::new(&member(3), &upload, 2);
    let key = stranger.key_for(&group());
    let wrapped = build::device_sent(&group(), key);
    world.stanza_arrives("alice", &in_chat(&group(), &member(3), "B").child(stranger.tell(&wrapped)));
    assert!(world.event_names("alice").is_empty());
    let content = stranger.tell_all(&group(), &text("unread"));
    world.stanza_arrives("alice", &in_chat(&group(), &member(3), "C").child(content));
    assert_eq!(world.only("alice", "message.undecryptable")["reason"], "no_sender_key");
}

#[test]
fn broadcast_lists_arrive_and_tell_whose_they_are() {
    let (mut world, upload) = online(&["alice"]);
    let list: Jid = "1594499999@broadcast".parse().unwrap();
    let mut sender = Puppet::new(&member(0), &upload, 1);
    let stanza = first(&mut sender, &list, "A", "to many").attr("recipient", member(0));
    world.stanza_arrives("alice", &stanza);
    let message = world.only("alice", "message.received")["messages"][0].clone();
    assert_eq!((&message["broadcast"], &message["text"]), (&json!(true), &json!("to many")));
    assert_eq!(message["key"]["participant"], "77777777777777@lid");
    let heard = world.heard("alice");
    assert_eq!((heard.len(), heard[0].attr_jid("to")), (1, Some(list.clone())));

    // Our own: the stanza says who else got it, and who they are.
    let own = world.lid("alice").with_device(7);
    let mut device = Puppet::new(&own, &upload, 2);
    let copy = build::device_sent(&list, text("from us"));
    let to = Node::new("to").attr("jid", member(0)).attr("peer_recipient_pn", Jid::pn("15559990000"));
    let stanza = in_chat(&list, &own, "B").child(device.tell(&copy)).child(Node::new("participants").child(to));
    world.stanza_arrives("alice", &stanza);
    let names = world.event_names("alice");
    assert_eq!(names, ["lid_mapping.updated", "message.sent"]);
}

#[test]
fn a_member_hosted_by_a_business_is_the_same_member() {
    let (mut world, upload) = online(&["alice"]);
    let hosted: Jid = format!("{MEMBER}:99@hosted.lid").parse().unwrap();
    let mut sender = Puppet::new(&hosted, &upload, 1);
    let stanza = first(&mut sender, &group(), "A", "hello");
    world.stanza_arrives("alice", &stanza);
    assert_eq!(texts(&mut world), ["hello"]);
    // It has no other way to learn our keys, so they come with the first request.
    world.forget();
    world.stanza_arrives("alice", &in_chat(&group(), &hosted, "B").child(enc("msg", vec![0x33; 60])));
    let heard = world.heard("alice");
    assert!(heard[0].find_child("keys").is_some(), "{heard:?}");
}

#[test]
fn what_nobody_knows_is_ignored_and_what_is_missing_is_refused() {
    let (mut world, upload) = online(&["alice"]);
    let mut sender = Puppet::new(&member(3), &upload, 1);
    let stanza = first(&mut sender, &group(), "A", "hello")
        .attr("verified_name", "1234567890")
        .attr("verified_level", "high")
        .child(Node::new("multicast"))
        .child(Node::new("verified_name").bytes(vec![1, 2, 3]))
        .child(enc("zzmsg", vec![1; 30]));
    world.stanza_arrives("alice", &stanza);
    assert_eq!(texts(&mut world), ["hello"]);
    assert_eq!(answers(&mut world), [answer("receipt", "inactive")]);
    // No participant; an id that is longer than any.
    let content = || enc("skmsg", vec![0x33; 100]);
    let long = "A".repeat(129);
    for (stanza, error) in [
        (puppet::stanza(&group(), "B").child(content()), "487"),
        (in_chat(&group(), &member(3), &long).child(content()), "487"),
        (in_chat(&group(), &member(3), "C").child(enc("zzmsg", vec![1; 30])), "488"),
    ] {
        world.stanza_arrives("alice", &stanza);
        assert_eq!(world.event_names("alice"), [""; 0]);
        assert_eq!(answers(&mut world), [("ack".to_owned(), String::new(), error.to_owned())]);
    }
}

#[test]
fn newsletters_are_told_and_acknowledged() {
    let (mut world, _) = online(&["alice"]);
    let channel: Jid = "120363099999999999@newsletter".parse().unwrap();
    let plaintext = || Node::new("plaintext").bytes(text("news").encode_to_vec());
    let stanza = || puppet::stanza(&channel, "A").attr("server_id", "117");
    world.stanza_arrives("alice", &stanza().child(plaintext()));
    let message = world.only("alice", "message.received")["messages"][0].clone();
    assert_eq!(
        message["key"],
        json!({"remoteJid": channel.to_string(), "fromMe": false, "id": "A", "server_id": "117"})
    );
    assert_eq!((&message["text"], &message["kind"]), (&json!("news"), &json!("text")));
    assert_eq!(answers(&mut world), [answer("ack", "")]);
    // Once, and nobody else may speak without encryption.
    world.stanza_arrives("alice", &stanza().child(plaintext()));
    let other = puppet::stanza(&member(0), "B").child(plaintext());
    world.stanza_arrives("alice", &other);
    assert_eq!(world.event_names("alice"), [""; 0]);
    assert_eq!(answers(&mut world), [answer("ack", ""), answer("ack", "")]);
    world.stanza_arrives("alice", &stanza().child(Node::new("plaintext").bytes(vec![0xff; 9])));
    assert_eq!(answers(&mut world), [("ack".to_owned(), String::new(), "491".to_owned())]);
}

#[test]
fn ciphertexts_that_come_twice_in_one_stanza_are_one_message() {
    let (mut world, upload) = online(&["alice"]);
    let mut sender = Puppet::new(&member(0), &upload, 1);
    let key = sender.key_for(&group());
    let (key, content) = (sender.tell(&key), sender.tell_all(&group(), &text("hello")));
    let stanza = in_chat(&group(), &member(0), "A");
    let twice = [content.clone(), key.clone(), key, content];
    world.stanza_arrives("alice", &stanza.children(twice));
    assert_eq!(texts(&mut world), ["hello"]);
    let heard = world.heard("alice");
    assert_eq!(
        heard.iter().map(|node| (node.tag(), node.attr_str("type"))).collect::<Vec<_>>(),
        [("receipt", Some("inactive".into()))]
    );
    // The same of two, where the second is another ciphertext of the same message.
    let direct = puppet::stanza(&member(0), "B").child(sender.tell(&text("once"))).child(sender.tell(&text("once")));
    world.stanza_arrives("alice", &direct);
    assert_eq!(texts(&mut world), ["once"]);
    assert_eq!(world.heard("alice").iter().map(Node::tag).collect::<Vec<_>>(), ["receipt"]);
}

/// In a fan-out as it was sent, the part for this device counts; a payload in another envelope is refused.
#[test]
fn of_a_fan_out_our_own_part_is_read() {
    let (mut world, upload) = online(&["alice"]);
    let mut sender = Puppet::new(&member(0), &upload, 1);
    let (pn, lid) = (world.device("alice"), world.lid("alice").with_device(world.device("alice").device()));
    for (n, to) in [pn, lid].iter().enumerate() {
        let other = Node::new("to").attr("jid", to.with_device(0)).child(enc("pkmsg", vec![0x33; 60]));
        let own = Node::new("to").attr("jid", to).child(sender.tell(&text("for you")));
        let stanza = puppet::stanza(&member(0), &format!("A{n}"));
        world.stanza_arrives("alice", &stanza.child(Node::new("participants").child(other).child(own)));
        assert_eq!(texts(&mut world), ["for you"], "{to}");
    }
    for (n, version) in [3, 1, 0, 300].into_iter().enumerate() {
        world.forget();
        let sealed = sender.tell(&text("in another envelope"));
        let enc = Node::new("enc").attr("v", version).attr("type", sealed.attr_str("type").unwrap().into_owned());
        let stanza = puppet::stanza(&member(0), &format!("B{n}"));
        world.stanza_arrives("alice", &stanza.child(enc.bytes(sealed.content_bytes().unwrap())));
        let heard = world.heard("alice");
        assert_eq!((heard.len(), heard[0].attr_u64("error")), (1, Some(491)), "{version}");
        assert_eq!(world.event_names("alice"), [""; 0]);
    }
}
