//! What is wrong with the input is told, answered as the protocol wants, and costs nothing else: no stored state is
//! lost, the connection goes on where it can, and the next message arrives exactly once.

use crate::world::{World, named, text_of};
use bytes::Bytes;
use serde_json::json;
use wamd::{
    Jid,
    engine::{Command, Reply},
    event::Envelope,
    node::Node,
    noise::{
        FrameBuffer,
        frame::{IntroReader, MAX_HANDSHAKE_PAYLOAD},
    },
    proto::{Message as _, e2e, wa6::HandshakeMessage},
    store::RecordKind,
};
use wamd_loopback::{Fault, Pattern, ScanOptions};

/// A phone that has no device in this world.
const STRANGER: &str = "15559990000";

fn acks(heard: &[Node], id: &str) -> Vec<Node> {
    let of_id = heard.iter().filter(|node| node.attr_str("id").as_deref() == Some(id));
    of_id.filter(|node| node.is("ack") || node.is("receipt")).cloned().collect()
}

fn attr(node: &Node, name: &str) -> String {
    node.attr_str(name).map(|text| text.into_owned()).unwrap_or_default()
}

fn texts(events: &[Envelope]) -> Vec<&str> {
    events.iter().filter_map(text_of).collect()
}

// ---- the server is not who it should be -----------------------------------------------------------------------------

#[test]
fn a_server_of_another_root_learns_nothing() {
    let mut world = World::new(&["alice"]);
    world.fault(Fault::ForgedCertificate { on: true });
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));

    let events = world.events("alice");
    let names: Vec<_> = events.iter().map(|event| &*event.event).collect();
    assert_eq!(names, ["session.connecting", "session.disconnected", "session.reconnecting"]);
    let pause = events[1].data["nextRetryMs"].as_u64().unwrap();
    assert!((7_200..=8_800).contains(&pause), "{pause}");
    assert_eq!(
        events[1].data,
        json!({"reason": "network", "statusCode": 408, "permanent": false, "willReconnect": true, "attempt": 2,
            "nextRetryMs": pause,
            "detail": "Xx handshake: intermediate certificate is not signed by a trusted root"})
    );
    assert_eq!(events[2].data, json!({"attempt": 2, "delayMs": pause, "reason": "network"}));

    // All that left is the hello, and it holds a key that is used once.
    let sent = world.actor("alice").sent.clone();
    assert_eq!((sent.len(), sent[0].len()), (1, 1));
    let mut intro = IntroReader::new(0x1_0000);
    intro.push(&sent[0][0]);
    let mut frames = FrameBuffer::new(MAX_HANDSHAKE_PAYLOAD);
    frames.push_owned(intro.next_intro().unwrap().expect("an intro").rest);
    let hello = HandshakeMessage::decode(&*frames.next_frame().unwrap().expect("a hello")).unwrap();
    let hello = hello.client_hello.expect("a client hello");
    assert_eq!(hello.ephemeral.as_ref().map(Bytes::len), Some(32));
    assert!(hello.r#static.is_none() && hello.payload.is_none());
    assert_eq!(frames.buffered(), 0);
    assert_eq!(world.server.accounts(), []);

    // It goes on in the background, without a word to the wrong server, until the right one is there.
    world.advance_secs(30);
    assert!(world.actor("alice").sent.iter().all(|connection| connection.len() == 1));
    assert_eq!(named(&world.events("alice"), "session.disconnected").len(), 0, "an outage is told once");
    world.fault(Fault::ForgedCertificate { on: false });
    world.advance_secs(30);
    world.scan("alice", &ScanOptions::default());
    assert_eq!(world.state("alice"), "CONNECTED");
}

#[test]
fn a_linked_device_does_not_log_in_at_a_server_of_another_root() {
    let mut world = World::online(&["alice", "bob"]);
    world.fault(Fault::ForgedCertificate { on: true });
    // The cached key does not fit any more, so that the certificates are looked at.
    world.fault(Fault::RotateStatic);
    world.cut("alice");
    world.advance_secs(60);
    assert_eq!(world.state("alice"), "DISCONNECTED");
    let outage = world.only("alice", "session.disconnected");
    assert_eq!((&outage["reason"], &outage["detail"]), (&json!("connection_lost"), &json!("reset by peer")));
    assert_eq!(world.heard("alice").len(), 0);
    world.fault(Fault::ForgedCertificate { on: false });
    world.advance_secs(60);
    assert_eq!(world.state("alice"), "CONNECTED");
    world.talk("alice", "bob");
}

// ---- the phone's answer does not verify -------------------------------------------------------------------------------

fn spoiled_link(options: &ScanOptions, text: &str) {
    let mut world = World::new(&["alice", "bob"]);
    world.link("bob");
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    let before = world.qr("alice");
    world.forget();
    world.scan("alice", options);

    assert_eq!(world.only("alice", "session.pair_error"), json!({"error": text}));
    assert_eq!(world.state("alice"), "PENDING");
    assert_eq!(world.conn("alice"), None);
    let answers: Vec<_> = world.heard("alice").into_iter().filter(|node| attr(node, "type") == "error").collect();
    assert_eq!(answers.len(), 1);
    let error = answers[0].find_child("error").expect("an error");
    assert_eq!((attr(error, "code"), attr(error, "text")), ("401".to_owned(), text.to_owned()));
    let accounts = world.server.accounts();
    let account = accounts.iter().find(|account| account.number == "15550000001").expect("scanned");
    assert_eq!(account.last_link_error, Some(format!("401 {text}")));
    assert_eq!(account.devices, []);

    // Nothing is stored but the number of the event, and nothing happens by itself.
    let snapshot = world.snapshot("alice");
    assert_eq!((snapshot.jid, snapshot.lid), (None, None));
    assert_eq!(world.actor("alice").count(), world.actor("alice").records(RecordKind::OutboxHead).len());
    world.advance_secs(300);
    assert_eq!(world.event_names("alice"), [""; 0]);

    // The device is as it was: the same keys are shown again, and an honest phone links it.
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    let keys = |qr: &str| qr.split(',').skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(keys(&world.qr("alice")), keys(&before));
    world.scan("alice", &ScanOptions::default());
    assert_eq!(world.state("alice"), "CONNECTED");
    world.talk("alice", "bob");
}

#[test]
fn a_wrong_hmac_is_refused() {
    spoiled_link(&ScanOptions { spoil_hmac: true, ..ScanOptions::default() }, "hmac-mismatch");
}

#[test]
fn a_wrong_account_signature_is_refused() {
    spoiled_link(&ScanOptions { spoil_signature: true, ..ScanOptions::default() }, "signature-mismatch");
}

#[test]
fn a_pair_success_without_identity_is_refused() {
    let mut world = World::new(&["alice"]);
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    world.forget();
    let iq =
        Node::new("iq").attr("from", Jid::whatsapp_server()).attr("type", "set").attr("id", "J").attr("xmlns", "md");
    world.stanza_arrives("alice", &iq.child(Node::new("pair-success")));
    assert_eq!(world.only("alice", "session.pair_error"), json!({"error": "internal-error"}));
    let answer = world.heard("alice").pop().expect("an answer");
    let error = answer.find_child("error").expect("an error");
    assert_eq!((attr(&answer, "id"), attr(error, "code")), ("J".to_owned(), "500".to_owned()));
    assert_eq!(world.state("alice"), "PENDING");
    world.link("alice");
}

// ---- keys -----------------------------------------------------------------------------------------------------------

#[test]
fn a_device_with_a_forged_prekey_signature_is_skipped() {
    let mut world = World::online(&["alice", "bob"]);
    let bob = world.device("bob");
    world.fault(Fault::ForgePrekeySignature { jid: bob.clone(), on: true });
    let sessions = world.actor("alice").records(RecordKind::Session).len();
    let id = world.send("alice", "bob", "to the phone");

    assert_eq!(world.only("alice", "message.sent")["messages"][0]["key"]["id"], id.as_str());
    assert_eq!(world.data("bob", "message.received"), [json!(null); 0]);
    let phone = world.server.received("15550000002");
    assert_eq!(phone.iter().filter(|message| message.text.as_deref() == Some("to the phone")).count(), 1);
    let alice = world.actor("alice");
    // The own phone has its session since it shared the app state key; new is that with bob's phone.
    assert_eq!(alice.records(RecordKind::Session).len(), sessions + 1);
    let named_bob = |kind| {
        let lid = format!(":{}@lid", bob.device());
        alice.records(kind).iter().any(|(key, _)| String::from_utf8_lossy(&key.id).ends_with(&lid))
    };
    assert!(!named_bob(RecordKind::Session) && !named_bob(RecordKind::Identity), "nothing is kept of a forged bundle");

    world.fault(Fault::ForgePrekeySignature { jid: bob, on: false });
    world.talk("alice", "bob");
}

#[test]
fn a_send_fails_when_no_device_has_usable_keys() {
    let mut world = World::online(&["alice", "bob"]);
    let (bob, phone) = (world.device("bob"), world.jid("bob"));
    for jid in [&bob, &phone] {
        world.fault(Fault::ForgePrekeySignature { jid: jid.clone(), on: true });
    }
    let sessions = world.actor("alice").records(RecordKind::Session);
    let id = world.send("alice", "bob", "nobody can read this");
    let (failed, lid) = (world.only("alice", "message.failed"), world.lid("bob").to_string());
    assert_eq!(
        failed["messages"][0],
        json!({"key": {"remoteJid": "15550000002@s.whatsapp.net", "remoteJidAlt": lid, "fromMe": true,
                "id": id.as_str(), "addressingMode": "pn"},
            "phone": "15550000002", "status": "ERROR",
            "error": {"code": "no_session", "text": "no device of the recipient has usable keys"}})
    );
    assert_eq!(world.actor("alice").records(RecordKind::Session), sessions, "sessions are untouched");
    assert_eq!(world.snapshot("alice").sends, 0);
    for jid in [&bob, &phone] {
        world.fault(Fault::ForgePrekeySignature { jid: jid.clone(), on: false });
    }
    world.talk("alice", "bob");
}

#[test]
fn a_pkmsg_for_a_lost_prekey_is_asked_for_again() {
    let mut world = World::online(&["alice", "bob"]);
    world.crash("alice");
    world.actor("alice").lose(RecordKind::PreKey);
    world.start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.forget();
    let id = world.phone_sends(STRANGER, "alice", "hello");

    let events = world.events("alice");
    let failed = named(&events, "message.undecryptable");
    assert_eq!(failed.len(), 1, "told once, however often it is asked for");
    assert_eq!((&failed[0].data["reason"], &failed[0].data["willRetry"]), (&json!("invalid_prekey_id"), &json!(true)));
    assert_eq!(failed[0].data["key"]["id"], id.as_str());
    // The second request brings keys, and with them the phone gets through.
    let heard = world.heard("alice");
    let retries: Vec<_> = acks(&heard, &id).into_iter().filter(|node| attr(node, "type") == "retry").collect();
    let counts: Vec<_> = retries.iter().map(|node| node.find_child("retry").unwrap().attr_u64("count")).collect();
    assert_eq!(counts, [Some(1), Some(2)]);
    assert_eq!(retries.iter().map(|node| node.find_child("keys").is_some()).collect::<Vec<_>>(), [false, true]);
    assert!(retries.iter().all(|node| attr(node.find_child("retry").unwrap(), "error") == "3"));
    assert_eq!(texts(&events), ["hello"]);
    assert_eq!(world.queued("alice"), 0);
    world.talk("alice", "bob");
}

// ---- messages that come twice, or damaged -----------------------------------------------------------------------------

#[test]
fn a_replayed_message_is_answered_and_not_told_again() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    for _ in 0..2 {
        let id = world.send("alice", "bob", "once");
        assert_eq!(texts(&world.events("bob")).last(), Some(&"once"));
        let bob = world.device("bob");
        for restart in [false, true] {
            if restart {
                world.crash_and_start("bob");
                world.command("bob", Command::Connect).unwrap();
                world.events("bob");
            }
            world.heard("bob");
            world.fault(Fault::ReplayLast { jid: bob.clone() });
            let answers = acks(&world.heard("bob"), id.as_str());
            assert_eq!(answers.len(), 1);
            assert_eq!((answers[0].tag(), attr(&answers[0], "type")), ("receipt", "inactive".to_owned()));
            assert_eq!(world.event_names("bob"), [""; 0]);
            assert_eq!(world.queued("bob"), 0);
        }
        world.talk("alice", "bob");
        world.events("bob");
    }
}

#[test]
fn a_message_that_comes_twice_at_once_is_told_once() {
    let mut world = World::online(&["alice", "bob"]);
    let bob = world.device("bob");
    world.fault(Fault::DuplicateNext { jid: bob, count: 2 });
    // The first is a pkmsg, which would open its session twice.
    for text in ["first", "second"] {
        world.send("alice", "bob", text);
        assert_eq!(texts(&world.events("bob")), [text]);
    }
    assert_eq!(world.queued("bob"), 0);
    world.talk("alice", "bob");
}

#[test]
fn a_damaged_message_is_asked_for_again_and_the_chat_goes_on() {
    let mut world = World::online(&["alice", "bob"]);
    for opened in [false, true] {
        let bob = world.device("bob");
        world.fault(Fault::TamperNext { jid: bob, count: 1 });
        world.forget();
        let id = world.send("alice", "bob", "damaged");
        let sender = world.lid("alice");
        assert_eq!(
            world.only("bob", "message.undecryptable"),
            json!({"key": {"remoteJid": "15550000001@s.whatsapp.net", "remoteJidAlt": sender.to_string(),
                    "fromMe": false, "id": id.as_str(), "addressingMode": "pn"},
                "reason": "bad_mac", "willRetry": true, "hidden": false}),
            "session known: {opened}"
        );
        let answers = acks(&world.heard("bob"), id.as_str());
        assert_eq!(answers.iter().map(Node::tag).collect::<Vec<_>>(), ["receipt", "ack", "receipt"]);
        // The second copy arrives, and once.
        let arrived = named(world.all_events("bob"), "message.received");
        assert_eq!(arrived.iter().filter(|event| event.data["messages"][0]["key"]["id"] == id.as_str()).count(), 1);
        let retry = answers[0].find_child("retry").expect("a retry receipt");
        assert_eq!(
            (attr(&answers[0], "type"), attr(retry, "count"), attr(retry, "error")),
            ("retry".to_owned(), "1".to_owned(), "7".to_owned())
        );
        assert_eq!(attr(&answers[0], "to"), world.device("alice").to_string());
        assert_eq!(attr(&answers[1], "error"), "");
        assert_eq!(world.queued("bob"), 0);
        world.talk("alice", "bob");
    }
}

#[test]
fn a_damaged_message_of_a_phone_arrives_when_it_is_sent_again() {
    let mut world = World::online(&["alice"]);
    for text in ["first", "second"] {
        let alice = world.device("alice");
        world.fault(Fault::TamperNext { jid: alice, count: 1 });
        world.phone_sends(STRANGER, "alice", text);
        let events = world.events("alice");
        assert_eq!(named(&events, "message.undecryptable").len(), 1);
        assert_eq!(texts(&events), [text]);
        assert_eq!(world.queued("alice"), 0);
    }
}

#[test]
fn a_message_is_not_asked_for_without_end() {
    let mut world = World::online(&["alice"]);
    let alice = world.device("alice");
    world.fault(Fault::TamperNext { jid: alice, count: 100 });
    let id = world.phone_sends(STRANGER, "alice", "never");
    let asked = acks(&world.heard("alice"), &id).iter().filter(|node| attr(node, "type") == "retry").count();
    assert_eq!(asked, 5);
    assert_eq!(named(&world.events("alice"), "message.undecryptable").len(), 1);
    assert_eq!((world.queued("alice"), world.state("alice")), (0, "CONNECTED"));
}

#[test]
fn ciphertexts_of_garbage_are_asked_for_again() {
    let mut world = World::online(&["alice", "bob"]);
    let from = world.lid("bob").with_device(7);
    let garbage: [&[u8]; 5] = [b"", b"\x33", b"\x33\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", &[0x33; 200], &[0; 200]];
    let mut number = 0;
    for kind in ["msg", "pkmsg"] {
        for bytes in garbage {
            number += 1;
            let id = format!("G{number}");
            let enc = Node::new("enc").attr("v", "2").attr("type", kind).bytes(bytes.to_vec());
            let message = Node::new("message").attr("from", &from).attr("id", &id).attr("t", 1_760_000_000).child(enc);
            world.stanza_arrives("alice", &message);
            let failed = world.only("alice", "message.undecryptable");
            assert_eq!(failed["willRetry"], true, "{kind} {bytes:?}");
            let answers = acks(&world.heard("alice"), &id);
            assert_eq!(answers.iter().map(Node::tag).collect::<Vec<_>>(), ["receipt", "ack"], "{kind} {bytes:?}");
        }
    }
    // A sender that says that it has sent the message often enough is not asked again.
    let enc = Node::new("enc").attr("v", "2").attr("type", "msg").attr("count", u32::MAX).bytes(vec![0x33; 20]);
    world.stanza_arrives("alice", &Node::new("message").attr("from", &from).attr("id", "LAST").child(enc));
    assert_eq!(world.only("alice", "message.undecryptable")["willRetry"], false);
    assert_eq!(acks(&world.heard("alice"), "LAST").iter().map(Node::tag).collect::<Vec<_>>(), ["ack"]);
    world.talk("alice", "bob");
}

// ---- contents ---------------------------------------------------------------------------------------------------------

fn stranger_sends(world: &mut World, content: &[u8]) -> String {
    let (to, now) = (world.jid("alice"), world.now());
    let id = world.server.send_content(now, STRANGER, &to, content).expect("the phone can send");
    world.settle();
    id
}

#[test]
fn a_plaintext_that_is_not_a_message_is_refused() {
    let mut world = World::online(&["alice"]);
    for opened in [false, true] {
        world.forget();
        let id = stranger_sends(&mut world, &[0xff; 12]);
        assert_eq!(world.event_names("alice").iter().filter(|name| name.starts_with("message.")).count(), 0);
        let answers = acks(&world.heard("alice"), &id);
        assert_eq!(answers.len(), 1, "session known: {opened}");
        assert_eq!((answers[0].tag(), attr(&answers[0], "error")), ("ack", "491".to_owned()));
        assert_eq!(world.queued("alice"), 0);
        world.phone_sends(STRANGER, "alice", "readable");
        assert_eq!(texts(&world.events("alice")), ["readable"]);
    }
}

#[test]
fn a_copy_for_own_devices_from_a_stranger_is_not_believed() {
    let mut world = World::online(&["alice"]);
    let inner = e2e::Message { conversation: Some("you wrote this".to_owned()), ..e2e::Message::default() };
    let sent = e2e::DeviceSentMessage {
        destination_jid: Some("15550000009@s.whatsapp.net".to_owned()),
        message: Some(Box::new(inner)),
        ..e2e::DeviceSentMessage::default()
    };
    let message = e2e::Message { device_sent_message: Some(Box::new(sent)), ..e2e::Message::default() };
    let id = stranger_sends(&mut world, &message.encode_to_vec());
    let events = world.events("alice");
    assert!(events.iter().all(|event| !event.event.starts_with("message.")), "{events:?}");
    assert_eq!(acks(&world.heard("alice"), &id).iter().map(Node::tag).collect::<Vec<_>>(), ["receipt"]);
    world.phone_sends(STRANGER, "alice", "honest");
    assert_eq!(texts(&world.events("alice")), ["honest"]);
}

#[test]
fn app_state_keys_of_a_stranger_are_not_taken() {
    let mut world = World::online(&["alice"]);
    let keys = world.actor("alice").records(RecordKind::AppStateKey);
    assert_eq!(keys.len(), 1, "the own phone's key");
    let id = Bytes::copy_from_slice(&keys[0].0.id);
    let key = |id: Bytes| e2e::AppStateSyncKey {
        key_id: Some(Box::new(e2e::AppStateSyncKeyId { key_id: Some(id) })),
        key_data: Some(Box::new(e2e::AppStateSyncKeyData {
            key_data: Some(Bytes::from_static(&[7; 32])),
            ..e2e::AppStateSyncKeyData::default()
        })),
    };
    let protocol = e2e::ProtocolMessage {
        r#type: Some(e2e::protocol_message::Type::AppStateSyncKeyShare.into()),
        app_state_sync_key_share: Some(Box::new(e2e::AppStateSyncKeyShare {
            keys: vec![key(id), key(Bytes::from_static(b"new"))],
        })),
        ..e2e::ProtocolMessage::default()
    };
    let message = e2e::Message { protocol_message: Some(Box::new(protocol)), ..e2e::Message::default() };
    let id = stranger_sends(&mut world, &message.encode_to_vec());
    assert_eq!(world.actor("alice").records(RecordKind::AppStateKey), keys);
    assert!(world.events("alice").iter().all(|event| !event.event.starts_with("message.")));
    assert_eq!(acks(&world.heard("alice"), &id).iter().map(Node::tag).collect::<Vec<_>>(), ["receipt"]);
    world.phone_sends(STRANGER, "alice", "honest");
    assert_eq!(texts(&world.events("alice")), ["honest"]);
}

// ---- stanzas ----------------------------------------------------------------------------------------------------------

#[test]
fn every_stanza_gets_the_answer_that_it_is_owed() {
    let mut world = World::online(&["alice", "bob"]);
    let from = world.lid("bob").with_device(1);
    let group: Jid = "120363000000000001@g.us".parse().unwrap();
    let enc = |kind: &str| Node::new("enc").attr("v", "2").attr("type", kind).bytes(vec![1; 40]);
    let of = |tag: &str| Node::new(tag).attr("id", "X").attr("from", &from);
    let without_id = |tag: &str| Node::new(tag).attr("from", &from);
    let without_from = |tag: &str| Node::new(tag).attr("id", "X");

    // Stanza, class and error of the one ack that answers it; none for what cannot be answered or needs no answer.
    let table: Vec<(Node, Option<(&str, &str)>)> = vec![
        (of("mystery"), Some(("mystery", "488"))),
        (of("mystery").child(Node::new("message")), Some(("mystery", "488"))),
        (without_id("mystery"), None),
        (without_from("mystery"), None),
        (of("message"), Some(("message", "488"))),
        (of("message").child(enc("frankmsg")), Some(("message", "488"))),
        (of("message").attr("from", &group).child(enc("skmsg")), Some(("message", "487"))),
        (without_id("message").child(enc("msg")), None),
        (without_from("message").child(enc("msg")), None),
        (of("receipt"), Some(("receipt", ""))),
        (of("receipt").attr("type", "news"), Some(("receipt", ""))),
        (of("receipt").child(Node::new("list").child(Node::new("item"))), Some(("receipt", ""))),
        (without_id("receipt"), None),
        (without_from("receipt"), None),
        (of("notification").attr("type", "future"), Some(("notification", ""))),
        (of("notification"), Some(("notification", ""))),
        (of("notification").attr("type", "devices").child(Node::new("add")), Some(("notification", ""))),
        (without_id("notification").attr("type", "encrypt"), None),
        (of("call").child(Node::new("offer")), Some(("call", ""))),
        (of("ack").attr("class", "message"), None),
        (without_id("ack").attr("class", "message"), None),
        (of("iq").attr("type", "result"), None),
        (of("iq").attr("type", "error").child(Node::new("error")), None),
        (of("iq").attr("type", "set").attr("xmlns", "md").child(Node::new("pair-success")), None),
        (of("iq").attr("type", "set").attr("xmlns", "md").child(Node::new("pair-device")), None),
        (of("presence"), None),
        (of("chatstate").child(Node::new("composing")), None),
        (of("error").attr("code", 479), None),
        (of("success").attr("t", 1), None),
        (of("ib").child(Node::new("offline")).child(Node::new("news")), None),
        (of("ib"), None),
        (of("xmlstreamstart"), None),
    ];
    for (stanza, answer) in table {
        world.forget();
        // An attribute that is set twice keeps its last value on the way through the builder of the test only.
        world.stanza_arrives("alice", &stanza);
        let heard = world.heard("alice");
        match answer {
            None => assert_eq!(heard, [], "{stanza:?}"),
            Some((class, error)) => {
                assert_eq!(heard.len(), 1, "{stanza:?}: {heard:?}");
                let said = (heard[0].tag(), attr(&heard[0], "class"), attr(&heard[0], "error"), attr(&heard[0], "id"));
                assert_eq!(said, ("ack", class.to_owned(), error.to_owned(), "X".to_owned()), "{stanza:?}");
                assert_eq!(heard[0].attr_jid("to"), stanza.attr_jid("from"), "{stanza:?}");
            }
        }
        let events = world.event_names("alice");
        assert!(events.iter().all(|name| name == "session.offline_sync_completed"), "{stanza:?}: {events:?}");
        assert_eq!(world.state("alice"), "CONNECTED");
    }
    world.talk("alice", "bob");
}

#[test]
fn placeholders_and_unreadable_kinds_are_told_once() {
    let mut world = World::online(&["alice", "bob"]);
    let from = world.lid("bob").with_device(1);
    let of = |id: &str| Node::new("message").attr("id", id).attr("from", &from).attr("t", 1_760_000_000);
    let enc = |kind: &str| Node::new("enc").attr("v", "2").attr("type", kind).bytes(vec![1; 40]);
    let table = [
        (
            of("A").child(Node::new("unavailable").attr("type", "view_once")),
            "view_once",
            false,
            ["ack ", "ack "].as_slice(),
        ),
        (of("B").child(Node::new("unavailable")), "unavailable", true, &["ack ", "message ", "receipt ", "ack "]),
        (of("C").child(enc("skmsg")), "invalid_message", true, &["receipt ", "ack ", "receipt ", "ack "]),
        (of("D").child(enc("msmsg")), "no_message_secret", false, &["ack 495", "ack 495"]),
    ];
    for (stanza, reason, will_retry, answers) in table {
        world.forget();
        world.stanza_arrives("alice", &stanza);
        world.stanza_arrives("alice", &stanza);
        let failed = world.only("alice", "message.undecryptable");
        assert_eq!((&failed["reason"], &failed["willRetry"]), (&json!(reason), &json!(will_retry)));
        let heard = world.heard("alice");
        let heard: Vec<_> = heard.iter().map(|node| format!("{} {}", node.tag(), attr(node, "error"))).collect();
        assert_eq!(heard, answers, "{reason}");
    }
    world.talk("alice", "bob");
}

// ---- frames -----------------------------------------------------------------------------------------------------------

#[test]
fn garbage_in_an_authentic_frame_is_dropped() {
    let mut world = World::online(&["alice", "bob"]);
    let garbage: [&'static [u8]; 9] = [
        b"",
        b"\x00",
        b"\x00\x00",
        b"\x00\xf8",
        b"\x00\xf8\x02",
        b"\x00\xf8\x03\xff\xff\xff",
        b"\x00\xf9\xff\xff\xf8",
        b"\x02not zlib",
        b"\xff\xf8\x01\x02",
    ];
    let alice = world.device("alice");
    for bytes in garbage {
        world.fault(Fault::InjectRaw { jid: alice.clone(), plaintext: Bytes::from_static(bytes) });
        assert_eq!(world.event_names("alice"), [""; 0], "{bytes:?}");
        assert_eq!(world.heard("alice"), [], "{bytes:?}");
        assert_eq!(world.state("alice"), "CONNECTED");
    }
    world.talk("alice", "bob");
}

/// The connection is given up with this detail, comes back by itself, and messages arrive.
fn recovers(world: &mut World, reason: &str, detail: &str) {
    let outage = world.only("alice", "session.disconnected");
    assert_eq!((&outage["reason"], &outage["detail"]), (&json!(reason), &json!(detail)));
    assert_eq!((&outage["willReconnect"], &outage["permanent"]), (&json!(true), &json!(false)));
    assert_eq!(world.conn("alice"), None);
    assert_eq!(world.state("alice"), "DISCONNECTED");
    world.advance_secs(2);
    assert_eq!(world.state("alice"), "CONNECTED");
    world.talk("alice", "bob");
    // The next loss starts the row of pauses again.
    world.advance_secs(60);
    world.forget();
}

#[test]
fn a_damaged_stream_ends_the_connection_and_nothing_else() {
    let mut world = World::new(&["bob"]);
    world.add("alice", "15550000009", |config| config.max_frame = 0x1_0000);
    world.link("alice");
    world.link("bob");
    world.talk("alice", "bob");
    world.advance_secs(60);
    world.forget();
    let sessions = world.actor("alice").records(RecordKind::Session).len();

    // Announced longer than allowed: refused before anything of it has come.
    world.bytes_arrive("alice", vec![1, 0, 1]);
    recovers(&mut world, "network", "frame of 65537 bytes, at most 65536 allowed");
    // Not sealed by the server.
    world.bytes_arrive("alice", [&[0, 0, 20][..], &[9; 20]].concat());
    recovers(&mut world, "network", "transport: frame does not authenticate");
    // Shorter than a tag.
    world.bytes_arrive("alice", vec![0, 0, 1, 9]);
    recovers(&mut world, "network", "transport: frame does not authenticate");
    // The end of the connection within a frame.
    world.bytes_arrive("alice", vec![0, 0, 20, 1, 2, 3]);
    assert_eq!(world.state("alice"), "CONNECTED", "the rest may come yet");
    world.cut("alice");
    recovers(&mut world, "connection_lost", "reset by peer");
    // A frame that lost its end swallows the next one.
    world.bytes_arrive("alice", vec![0, 0, 20, 1, 2, 3]);
    let alice = world.device("alice");
    world.fault(Fault::Ping { jid: alice });
    recovers(&mut world, "network", "transport: frame does not authenticate");
    assert_eq!(world.actor("alice").records(RecordKind::Session).len(), sessions);
}

#[test]
fn a_damaged_server_hello_costs_one_attempt() {
    let mut world = World::online(&["alice", "bob"]);
    let jid = world.device("alice");
    // A stream that is no handshake at all says nothing about the key of the server, and so the next try resumes again.
    let cases: [(&'static [u8], &str, Pattern); 6] = [
        (b"\x10\x00\x00", "frame of 1048576 bytes, at most 65536 allowed", Pattern::Ik),
        (b"\x00\x00\x00", "Ik handshake: answer is not a server hello", Pattern::Xx),
        (b"\x00\x00\x04\xff\xff\xff\xff", "Ik handshake: answer does not decode", Pattern::Xx),
        (b"\x00\x00\x02\x12\x00", "Ik handshake: answer is not a server hello", Pattern::Xx),
        (b"\x00\x00\x02\x1a\x00", "Ik handshake: server payload is missing", Pattern::Xx),
        (b"\x00\x00\x05\x1a\x03\x1a\x01\x07", "Ik handshake: server ephemeral is missing", Pattern::Xx),
    ];
    for (hello, detail, pattern) in cases {
        world.advance_secs(60);
        world.forget();
        world.change_next("alice", move |_| Bytes::from_static(hello));
        assert_eq!(world.command("alice", Command::Reconnect), Ok(Reply::Done));
        let outage = world.only("alice", "session.disconnected");
        assert_eq!((&outage["reason"], &outage["detail"]), (&json!("network"), &json!(detail)));
        assert_eq!(world.state("alice"), "DISCONNECTED");
        world.advance_secs(2);
        assert_eq!(world.state("alice"), "CONNECTED", "{detail}");
        world.talk("alice", "bob");
        // A failed resumption is not tried again in this process; a new one does.
        assert_eq!(world.server.pattern(&jid), Some(pattern), "{detail}");
        world.crash_and_start("alice");
        world.command("alice", Command::Connect).unwrap();
        assert_eq!(world.server.pattern(&jid), Some(Pattern::Ik), "{detail}");
    }
    // Half a hello is waited for, and not for ever. (The server waits, too, when it could not resume.)
    world.fault(Fault::RotateStatic);
    world.advance_secs(60);
    world.forget();
    world.change_next("alice", |bytes| bytes.slice(..bytes.len() / 2));
    assert_eq!(world.command("alice", Command::Reconnect), Ok(Reply::Done));
    world.advance_secs(19);
    assert_eq!(world.state("alice"), "CONNECTING");
    world.advance_secs(3);
    let outage = world.only("alice", "session.disconnected");
    assert_eq!(outage["reason"], "connection_lost");
    world.advance_secs(2);
    assert_eq!(world.state("alice"), "CONNECTED");
    world.talk("alice", "bob");
}
