//! An accepted message is sent exactly once, or reported as failed (spec 03 §4, §6.1, 07 §5).

use crate::world::{World, named, text_of};
use serde_json::{Value, json};
use wamd::{
    Jid,
    engine::{Command, CommandError, Reply, SendRequest},
    event::{Envelope, Prefer},
    message::MessageId,
    node::Node,
};
use wamd_loopback::Fault;

fn texts(events: &[Envelope]) -> Vec<&str> {
    events.iter().filter_map(text_of).collect()
}

fn id(text: &str) -> MessageId {
    MessageId::new(text).expect("usable")
}

fn send(world: &mut World, request: SendRequest) -> Result<Reply, CommandError> {
    world.command("alice", Command::Send(request))
}

fn to_bob(world: &World, text: &str) -> SendRequest {
    SendRequest::text(world.jid("bob"), text)
}

/// The messages that the server heard from alice.
fn messages(world: &mut World) -> Vec<Node> {
    world.heard("alice").into_iter().filter(|node| node.is("message")).collect()
}

/// Nothing of bob confirms a message by itself.
fn silence_bob(world: &mut World) {
    let phone = world.jid("bob");
    world.fault(Fault::MutePhone { jid: phone, on: true });
    world.crash("bob");
}

fn known() -> World {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.talk("alice", "bob");
    world.forget();
    world
}

// ---- accepted once ------------------------------------------------------------------------------------------------------

#[test]
fn a_send_can_be_repeated_with_its_id() {
    let mut world = known();
    let request = to_bob(&world, "once").with_id(id("3EB0AAAAAAAAAAAAAAAA")).with_client_ref("order 7");
    let accepted = Reply::Accepted { id: id("3EB0AAAAAAAAAAAAAAAA"), timestamp: world.now().unix_seconds() };

    // While it waits for a connection, when it is settled, and after a restart of both.
    world.command("alice", Command::Disconnect).unwrap();
    assert_eq!(send(&mut world, request.clone()), Ok(accepted.clone()));
    assert_eq!(send(&mut world, request.clone()), Ok(accepted.clone()));
    world.crash_and_start("alice");
    assert_eq!(send(&mut world, request.clone()), Ok(accepted.clone()));
    world.advance_secs(10);
    assert_eq!(send(&mut world, request.clone()), Ok(accepted));
    world.command("alice", Command::Connect).unwrap();
    let sent = world.only("alice", "message.sent");
    assert_eq!(sent["messages"][0]["clientRef"], "order 7");
    for _ in 0..2 {
        match send(&mut world, request.clone()) {
            Ok(Reply::Accepted { id, .. }) => assert_eq!(id.as_str(), "3EB0AAAAAAAAAAAAAAAA"),
            other => panic!("{other:?}"),
        }
        world.crash_and_start("alice");
        world.command("alice", Command::Connect).unwrap();
    }
    assert_eq!(texts(&world.events("bob")), ["once"]);
    let phone = world.server.received("15550000002");
    assert_eq!(phone.iter().filter(|message| message.text.as_deref() == Some("once")).count(), 1);
    assert_eq!(named(&world.events("alice"), "message.sent").len(), 0);
    world.talk("alice", "bob");
}

#[test]
fn the_event_of_a_sent_message() {
    let mut world = known();
    world.advance_secs(5);
    let request = to_bob(&world, "hello").with_client_ref("order 7");
    let Ok(Reply::Accepted { id, timestamp }) = send(&mut world, request) else { panic!("not accepted") };
    assert_eq!(timestamp, world.now().unix_seconds());
    let lid = world.lid("bob").to_string();
    assert_eq!(
        world.only("alice", "message.sent"),
        json!({"messages": [{"key": {"remoteJid": "15550000002@s.whatsapp.net", "remoteJidAlt": lid, "fromMe": true,
                "id": id.as_str(), "addressingMode": "pn"},
            "messageTimestamp": timestamp, "status": "SERVER_ACK", "phone": "15550000002", "kind": "text",
            "text": "hello", "message": {"conversation": "hello"}, "clientRef": "order 7"}]})
    );
}

#[test]
fn what_cannot_be_sent_is_refused_and_leaves_nothing() {
    let mut world = World::new(&["bob"]);
    world.add("alice", "15550000009", |config| config.max_sends = 3);
    world.link("alice");
    world.link("bob");
    world.command("alice", Command::Disconnect).unwrap();
    world.forget();
    let bob = world.jid("bob");
    let before = world.actor("alice").store.snapshot();
    let content = |text: String| SendRequest::text(bob.clone(), text);
    let mut refused = |request: SendRequest| match send(&mut world, request) {
        Err(error) => error,
        Ok(reply) => panic!("{reply:?}"),
    };
    assert_eq!(refused(content(String::new())), CommandError::Content("the text is empty"));
    let too_long = CommandError::Content("the text has more than 65,536 characters");
    assert_eq!(refused(content("ä".repeat(65_537))), too_long);
    let others = ["120363000000000001@newsletter", "1234@broadcast", "s.whatsapp.net", "lid", "15550000002@call"];
    for other in others {
        let error = refused(SendRequest::text(other.parse().unwrap(), "hello"));
        assert!(matches!(&error, CommandError::NotAChat(shown) if !shown.contains("5550000002")), "{other}: {error:?}");
    }
    assert!(world.actor("alice").store.snapshot() == before);

    for n in 0..3 {
        assert!(send(&mut world, content(format!("{n}"))).is_ok());
    }
    assert_eq!(send(&mut world, content("3".to_owned())), Err(CommandError::Busy { waiting: 3 }));
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(texts(&world.events("bob")), ["0", "1", "2"]);
    let longest = "ä".repeat(65_536);
    assert!(send(&mut world, content(longest.clone())).is_ok());
    assert_eq!(texts(&world.events("bob")), [longest]);
    // A device in the JID is not a choice of one device.
    let to = SendRequest::text(bob.with_device(5), "to all");
    assert!(send(&mut world, to).is_ok());
    assert_eq!(texts(&world.events("bob")), ["to all"]);
}

// ---- failed ---------------------------------------------------------------------------------------------------------------

fn failed(id: &str, jid: &str, error: &Value) -> Value {
    let number = jid.split('@').next().unwrap();
    json!({"messages": [{"key": {"remoteJid": jid, "fromMe": true, "id": id, "addressingMode": "pn"},
        "phone": number, "status": "ERROR", "error": error}]})
}

#[test]
fn somebody_who_is_not_there() {
    let mut world = known();
    let nobody: Jid = "15558887777@s.whatsapp.net".parse().unwrap();
    for _ in 0..2 {
        let id = world.send_to("alice", &nobody, "anybody?");
        let error = json!({"code": "not_on_whatsapp", "text": "the recipient has no devices"});
        assert_eq!(world.only("alice", "message.failed"), failed(id.as_str(), "15558887777@s.whatsapp.net", &error));
        assert_eq!(world.snapshot("alice").sends, 0);
    }
    assert_eq!(messages(&mut world).len(), 0);
    // Then somebody is: that there was nobody is not remembered.
    let now = world.now();
    world.server.phone(now, "15558887777").unwrap();
    world.send_to("alice", &nobody, "and now?");
    assert_eq!(world.server.received("15558887777").len(), 1);
    world.talk("alice", "bob");
}

#[test]
fn a_refusal_of_the_server_is_told_with_its_number() {
    let table = [
        (400, "malformed, or mixed namespaces"),
        (404, "unknown recipient"),
        (405, "content not allowed for this sender"),
        (406, "not acceptable"),
        (421, "stale group addressing mode"),
        (429, "rate limited"),
        (463, "reach-out restricted"),
        (473, "content not allowed for this sender"),
        (475, "cap on new chats reached"),
        (479, "stanza violates the server's schema"),
        (500, "server error"),
        (777, "refused by the server"),
    ];
    let mut world = known();
    silence_bob(&mut world);
    let (alice, chat) = (world.device("alice"), world.lid("bob"));
    for (code, text) in table {
        world.fault(Fault::DropAck { jid: alice.clone(), count: 1 });
        let id = world.send("alice", "bob", "hello");
        world.forget();
        let ack = Node::new("ack").attr("class", "message").attr("id", id.as_str()).attr("from", &chat);
        let refusal = ack.attr("error", code).attr("t", 1_760_000_000);
        world.stanza_arrives("alice", &refusal);
        let told = world.only("alice", "message.failed");
        assert_eq!(told["messages"][0]["error"], json!({"code": code, "text": text}));
        assert_eq!(told["messages"][0]["key"]["id"], id.as_str());
        assert_eq!(world.snapshot("alice").sends, 0);
        // Said twice, or taken back, it is not told again.
        world.stanza_arrives("alice", &refusal);
        assert_eq!(world.event_names("alice"), [""; 0]);
    }
    world.cut("alice");
    world.advance_secs(5);
    assert_eq!(messages(&mut world).len(), 0, "what was refused is not sent again");
}

#[test]
fn without_an_answer_the_outcome_is_unknown() {
    let mut world = known();
    silence_bob(&mut world);
    let alice = world.device("alice");
    world.fault(Fault::DropAck { jid: alice, count: 1 });
    let id = world.send("alice", "bob", "hello");
    world.advance_secs(74);
    assert_eq!(named(&world.events("alice"), "message.failed").len(), 0);
    world.advance_secs(1);
    let told = world.only("alice", "message.failed");
    assert_eq!(told["messages"][0]["error"], json!({"code": "timeout", "outcome": "unknown"}));
    assert_eq!(told["messages"][0]["key"]["id"], id.as_str());
    assert_eq!(world.snapshot("alice").sends, 0);
    messages(&mut world);
    world.cut("alice");
    world.advance_secs(5);
    assert_eq!(messages(&mut world).len(), 0);
    // It did arrive, and that is told when it is known.
    world.forget();
    world.start("bob");
    world.command("bob", Command::Connect).unwrap();
    assert_eq!(texts(&world.events("bob")), ["hello"]);
    assert_eq!(world.only("alice", "message.delivered")["messages"][0]["key"]["id"], id.as_str());
}

// ---- lost connections -----------------------------------------------------------------------------------------------------

#[test]
fn what_was_not_acknowledged_is_sent_again_byte_by_byte() {
    let mut world = known();
    silence_bob(&mut world);
    let alice = world.device("alice");
    world.fault(Fault::DropAck { jid: alice, count: 2 });
    let ids = [world.send("alice", "bob", "first"), world.send("alice", "bob", "second")];
    let first = messages(&mut world);
    assert_eq!(first.len(), 2);
    world.cut("alice");
    world.advance_secs(2);
    assert_eq!(messages(&mut world), first);
    let sent = world.data("alice", "message.sent");
    assert_eq!(
        sent.iter().map(|data| data["messages"][0]["key"]["id"].as_str().unwrap()).collect::<Vec<_>>(),
        ids.each_ref().map(MessageId::as_str)
    );
    // The same after a crash.
    let alice = world.device("alice");
    world.fault(Fault::DropAck { jid: alice, count: 1 });
    world.send("alice", "bob", "third");
    let third = messages(&mut world);
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(messages(&mut world), third);
    world.start("bob");
    world.command("bob", Command::Connect).unwrap();
    assert_eq!(texts(&world.events("bob")), ["first", "second", "third"]);
}

#[test]
fn sends_without_a_connection_go_out_in_order() {
    // To somebody whose devices are not known yet, and to somebody who is.
    for is_known in [false, true] {
        for restart in [false, true] {
            let mut world = World::online(&["alice", "bob"]);
            if is_known {
                world.talk("alice", "bob");
            }
            world.command("alice", Command::Disconnect).unwrap();
            world.forget();
            let all: Vec<_> = (0..10).map(|n| format!("{n}")).collect();
            for text in &all {
                world.send("alice", "bob", text);
            }
            if restart {
                world.crash_and_start("alice");
            }
            assert_eq!(world.snapshot("alice").sends, 10);
            world.command("alice", Command::Connect).unwrap();
            assert_eq!(texts(&world.events("bob")), all, "known: {is_known}, restart: {restart}");
            assert_eq!(world.data("alice", "message.sent").len(), 10);
            assert_eq!(world.snapshot("alice").sends, 0);
            world.talk("alice", "bob");
        }
    }
}

#[test]
fn sends_at_once_keep_their_order_chat_by_chat() {
    let mut world = World::online(&["alice", "bob", "carol"]);
    let mut ids = Vec::new();
    for n in 0..10 {
        let to = world.jid(if n % 2 == 0 { "bob" } else { "carol" });
        ids.push(world.begin("alice", Command::Send(SendRequest::text(to, format!("{n}")))));
    }
    world.settle();
    assert_eq!(texts(&world.events("bob")), ["0", "2", "4", "6", "8"]);
    assert_eq!(texts(&world.events("carol")), ["1", "3", "5", "7", "9"]);
    for id in ids {
        assert!(matches!(world.answer("alice", id), Some(Ok(Reply::Accepted { .. }))));
    }
    // One who cannot be reached does not hold up the others.
    let nobody: Jid = "15558887777@s.whatsapp.net".parse().unwrap();
    world.begin("alice", Command::Send(SendRequest::text(nobody, "lost")));
    world.talk("alice", "bob");
}

#[test]
fn number_and_lid_of_one_person_have_one_order() {
    let mut world = World::online(&["alice", "bob"]);
    // Bob's identities are known from now on, his devices are not.
    world.send("bob", "alice", "hello");
    world.command("alice", Command::Disconnect).unwrap();
    world.forget();
    let names = [world.lid("bob"), world.jid("bob")];
    let all: Vec<_> = (0..10).map(|n| format!("{n}")).collect();
    for (n, text) in all.iter().enumerate() {
        world.send_to("alice", &names[n % 2], text);
    }
    world.crash_and_start("alice");
    for text in ["10", "11"] {
        world.send_to("alice", &names[0], text);
    }
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(texts(&world.events("bob")), [&all[..], &["10".to_owned(), "11".to_owned()]].concat());
}

#[test]
fn a_connection_lost_in_the_middle_of_a_send() {
    // Cut after so many steps of the conversation about devices, keys and the message itself.
    for steps in 0..12 {
        let mut world = World::online(&["alice", "bob"]);
        let to = world.jid("bob");
        world.begin("alice", Command::Send(SendRequest::text(to, "hello")));
        world.steps(steps);
        world.cut("alice");
        world.advance_secs(5);
        assert_eq!(texts(&world.events("bob")), ["hello"], "after {steps} steps");
        assert_eq!(world.data("alice", "message.sent").len(), 1, "after {steps} steps");
        assert_eq!(world.snapshot("alice").sends, 0);
        world.talk("alice", "bob");
    }
}

// ---- several devices ------------------------------------------------------------------------------------------------------

#[test]
fn a_note_to_self() {
    let mut world = known();
    let id = world.send("alice", "alice", "remember");
    let events = world.events("alice");
    assert_eq!(named(&events, "message.sent").len(), 1);
    assert_eq!(named(&events, "message.sent")[0].data["messages"][0]["key"]["id"], id.as_str());
    assert_eq!(named(&events, "message.failed").len() + named(&events, "message.received").len(), 0);
    let phone = world.server.received("15550000001");
    assert_eq!(phone.iter().filter(|message| message.text.as_deref() == Some("remember")).count(), 1);

    world.add("alice2", "15550000001", |_| {});
    world.link("alice2");
    world.forget();
    world.send("alice", "alice", "on all devices");
    let copy = world.only("alice2", "message.sent");
    assert_eq!(
        (&copy["messages"][0]["text"], &copy["messages"][0]["source"]),
        (&json!("on all devices"), &json!("device"))
    );
    world.talk("alice", "bob");
}

#[test]
fn every_device_gets_its_copy() {
    let mut world = World::new(&["alice", "bob"]);
    world.add("alice2", "15550000001", |_| {});
    world.add("bob2", "15550000002", |_| {});
    for name in ["alice", "alice2", "bob", "bob2"] {
        world.link(name);
    }
    world.forget();
    for text in ["first", "second"] {
        let id = world.send("alice", "bob", text);
        for name in ["bob", "bob2"] {
            let received = world.only(name, "message.received");
            assert_eq!(
                (&received["messages"][0]["text"], &received["messages"][0]["key"]["id"]),
                (&json!(text), &json!(id.as_str()))
            );
        }
        let copy = world.only("alice2", "message.sent");
        let lid = world.lid("bob").to_string();
        assert_eq!(
            copy["messages"][0],
            json!({"key": {"remoteJid": "15550000002@s.whatsapp.net", "remoteJidAlt": lid, "fromMe": true,
                    "id": id.as_str(), "addressingMode": "pn"},
                "messageTimestamp": world.now().unix_seconds(), "status": "SERVER_ACK", "phone": "15550000002",
                "kind": "text", "text": text, "source": "device",
                "message": {"conversation": text}})
        );
        let events = world.events("alice");
        let about: Vec<_> =
            events.iter().map(|event| &*event.event).filter(|name| name.starts_with("message.")).collect();
        assert_eq!(about, ["message.sent", "message.delivered"], "three devices confirm, and it is told once");
        for (number, count) in [("15550000001", 1), ("15550000002", 1)] {
            let phone = world.server.received(number);
            assert_eq!(phone.iter().filter(|message| message.text.as_deref() == Some(text)).count(), count, "{number}");
        }
    }
    // The other way, from the second device.
    world.send("bob2", "alice", "answer");
    for name in ["alice", "alice2"] {
        assert_eq!(world.only(name, "message.received")["messages"][0]["text"], "answer");
    }
    assert_eq!(world.only("bob", "message.sent")["messages"][0]["text"], "answer");
}

#[test]
fn devices_that_come_and_go_are_noticed() {
    let mut world = known();
    world.add("bob2", "15550000002", |_| {});
    world.add("alice2", "15550000001", |_| {});
    world.link("bob2");
    world.link("alice2");
    world.forget();
    world.send("alice", "bob", "to all of you");
    assert_eq!(texts(&world.events("bob")), ["to all of you"]);
    assert_eq!(texts(&world.events("bob2")), ["to all of you"]);
    assert_eq!(world.only("alice2", "message.sent")["messages"][0]["text"], "to all of you");

    // A device that is gone is not encrypted for.
    let gone = world.lid("bob").with_device(2);
    world.command("bob2", Command::Logout).unwrap();
    world.forget();
    world.send("alice", "bob", "to the rest");
    assert_eq!(texts(&world.events("bob")), ["to the rest"]);
    let stanza = messages(&mut world).remove(0);
    let targets: Vec<_> =
        stanza.find_child("participants").unwrap().child_nodes().iter().filter_map(|to| to.attr_jid("jid")).collect();
    assert!(targets.len() == 4 && !targets.contains(&gone), "{targets:?}");
    // It comes back as another one.
    world.link("bob2");
    world.forget();
    world.send("alice", "bob", "welcome back");
    assert_eq!(texts(&world.events("bob2")), ["welcome back"]);
    world.talk("alice", "bob");
}

#[test]
fn a_chat_by_lid_is_the_same_chat() {
    let mut world = known();
    let lid = world.lid("bob");
    let pn = world.jid("bob");
    for (n, jid) in [&lid, &pn, &lid].into_iter().enumerate() {
        world.forget();
        let id = world.send_to("alice", jid, &format!("{n}"));
        let events = world.events("alice");
        let about: Vec<_> = events
            .iter()
            .map(|event| (&*event.event, event.data["messages"][0]["key"]["id"].as_str().unwrap()))
            .collect();
        assert_eq!(about, [("message.sent", id.as_str()), ("message.delivered", id.as_str())]);
        let key = &events[0].data["messages"][0]["key"];
        assert_eq!((&key["remoteJid"], &key["remoteJidAlt"]), (&json!(pn.to_string()), &json!(lid.to_string())));
        assert_eq!(texts(&world.events("bob")), [format!("{n}")]);
    }
    // Also for somebody who is known by nothing else.
    let mut world = World::online(&["alice", "bob"]);
    let lid = world.lid("bob");
    world.send_to("alice", &lid, "hello");
    assert_eq!(texts(&world.events("bob")), ["hello"]);
    world.talk("alice", "bob");
}

/// Whom a message was for shows as everywhere else, whatever went wrong: under the identity that the application prefers, with the
/// other beside.
#[test]
fn a_failure_shows_both_identities_whatever_failed() {
    let stranger = ("15558887777@s.whatsapp.net".parse::<Jid>().unwrap(), Jid::lid("88887777000000"));
    for prefer in [Prefer::Pn, Prefer::Lid, Prefer::Addressed] {
        for by_lid in [false, true] {
            let mut world = World::new(&["bob"]);
            world.add("alice", "15550000004", |config| config.prefer = prefer);
            world.settle();
            world.link("alice");
            world.link("bob");
            world.talk("alice", "bob");
            silence_bob(&mut world);
            world.forget();
            let shown = |world: &mut World, (pn, lid): (&Jid, &Jid)| {
                // What left is shown as it was addressed, by number; what did not, as the caller named it.
                let failed = world.only("alice", "message.failed")["messages"][0].clone();
                let first = match prefer {
                    Prefer::Lid => lid,
                    Prefer::Addressed if by_lid && failed["error"]["code"] != "timeout" => lid,
                    _ => pn,
                };
                let other = if first == pn { lid } else { pn };
                let key = &failed["key"];
                assert_eq!((&key["remoteJid"], &key["remoteJidAlt"]), (&json!(first), &json!(other)), "{prefer:?}");
                assert_eq!(failed["phone"], pn.user());
                failed["error"]["code"].as_str().unwrap().to_owned()
            };

            // It is not there, as it turns out here.
            let (pn, lid) = (&stranger.0, &stranger.1);
            let notice = Node::new("notification").attr("type", "devices").attr("id", "D").attr("from", pn);
            let notice = notice.attr("lid", lid).child(Node::new("update").attr("hash", "2:AAAAAAAA"));
            world.stanza_arrives("alice", &notice);
            world.send_to("alice", if by_lid { lid } else { pn }, "anybody?");
            assert_eq!(shown(&mut world, (pn, lid)), "not_on_whatsapp");

            // The server does not answer.
            let (pn, lid) = (world.jid("bob"), world.lid("bob"));
            let to = if by_lid { &lid } else { &pn };
            let alice = world.device("alice");
            world.fault(Fault::DropAck { jid: alice, count: 1 });
            world.send_to("alice", to, "hello");
            world.advance_secs(75);
            assert_eq!(shown(&mut world, (&pn, &lid)), "timeout");

            // The account is gone before it left.
            world.command("alice", Command::Disconnect).unwrap();
            world.send_to("alice", to, "hello");
            world.command("alice", Command::Logout).unwrap();
            assert_eq!(shown(&mut world, (&pn, &lid)), "logged_out");
        }
    }
}

/// Whoever has no one-time keys left with the server is written to without.
#[test]
fn somebody_whose_prekeys_are_used_up_is_reached() {
    let mut world = World::online(&["alice", "bob"]);
    for jid in [world.device("bob"), world.jid("bob")] {
        world.fault(Fault::WithholdPrekey { jid, on: true });
    }
    world.talk("alice", "bob");
    world.talk("bob", "alice");
    assert_eq!(world.server.received("15550000002").len(), 4, "and so is the phone");
}

/// Two who begin at the same time have two sessions for a moment, and end with one that both use.
#[test]
fn two_who_begin_at_once() {
    for hidden in [false, true] {
        let mut world = World::online(&["alice", "bob"]);
        for name in ["alice", "bob"] {
            let jid = world.jid(name);
            world.fault(Fault::HideLid { jid, on: hidden });
        }
        // Each has fetched the keys of the other when the first message arrives.
        for name in ["alice", "bob"] {
            world.thinks(name, false);
        }
        for (from, to) in [("alice", "bob"), ("bob", "alice")] {
            let request = SendRequest::text(world.jid(to), format!("first of {from}"));
            world.begin(from, Command::Send(request));
        }
        world.steps(6);
        for name in ["alice", "bob"] {
            world.thinks(name, true);
        }
        assert_eq!(texts(&world.events("bob")), ["first of alice"]);
        assert_eq!(texts(&world.events("alice")), ["first of bob"]);
        for _ in 0..3 {
            world.talk("alice", "bob");
        }
        for name in ["alice", "bob"] {
            let heard = world.heard(name);
            assert!(heard.iter().all(|node| node.attr_str("type").as_deref() != Some("retry")), "{name}");
        }
    }
}
