//! A message that cannot be read is asked of our own phone, unless the sender's resend comes first; what the phone sends
//! again is told as the message that it is, once (spec 03 §5.6).

use crate::puppet::{Puppet, SENT, enc, in_chat, online, stanza, text};
use crate::world::{World, text_of};
use bytes::Bytes;
use serde_json::{Value, json};
use wamd::{
    Jid,
    engine::{Command, Input},
    node::Node,
    proto::{
        Message as _, common,
        e2e::{
            self, PeerDataOperationRequestResponseMessage,
            peer_data_operation_request_response_message::{
                PeerDataOperationResult, peer_data_operation_result::PlaceholderMessageResendResponse,
            },
        },
        web,
    },
    store::{RecordKind, StoreError},
};
use wamd_loopback::Fault;

const STRANGER: &str = "15559990000";

fn group() -> Jid {
    "120363041234567890@g.us".parse().unwrap()
}

fn member() -> Jid {
    Jid::lid("77777777777777").with_device(3)
}

/// Alice, and her phone as a puppet that has just opened a session.
fn with_phone() -> (World, Puppet) {
    let (mut world, upload) = online(&["alice"]);
    let own = world.lid("alice");
    let mut phone = Puppet::new(&own, &upload, 1);
    let hello = phone.tell(&text("note to self"));
    world.stanza_arrives("alice", &stanza(&own, "HELLO").attr("recipient", &own).child(hello));
    world.forget();
    (world, phone)
}

/// The requests that alice sent to her phone since the last call: their ids, and the keys in them.
fn requests(world: &mut World, phone: &mut Puppet) -> Vec<(String, Vec<common::MessageKey>)> {
    let own = world.jid("alice");
    let heard = world.heard("alice");
    let peer = heard.iter().filter(|node| node.is("message") && node.attr_str("category").as_deref() == Some("peer"));
    peer.map(|node| {
        assert_eq!(node.attr_jid("to"), Some(own.clone()));
        assert_eq!(node.attr_str("push_priority").as_deref(), Some("high_force"));
        let message = phone.read(node.find_child("enc").unwrap());
        let protocol = message.protocol_message.expect("a protocol message");
        assert_eq!(protocol.r#type(), e2e::protocol_message::Type::PeerDataOperationRequestMessage);
        let request = protocol.peer_data_operation_request_message.expect("a request");
        assert_eq!(
            request.peer_data_operation_request_type(),
            e2e::PeerDataOperationRequestType::PlaceholderMessageResend
        );
        let keys = request.placeholder_message_resend_request.into_iter().map(|one| *one.message_key.unwrap());
        (node.attr_str("id").unwrap().into_owned(), keys.collect())
    })
    .collect()
}

fn key(chat: &Jid, id: &str) -> common::MessageKey {
    common::MessageKey {
        remote_jid: Some(chat.to_string()),
        from_me: Some(false),
        id: Some(id.to_owned()),
        participant: chat.is_group().then(|| member().to_bare().to_string()),
    }
}

fn info(key: common::MessageKey, content: &str) -> web::WebMessageInfo {
    web::WebMessageInfo {
        key: Some(Box::new(key)),
        message: Some(Box::new(text(content))),
        message_timestamp: Some(SENT),
        push_name: Some("Ada".to_owned()),
        ..web::WebMessageInfo::default()
    }
}

/// The message by which a phone answers.
fn response(infos: Vec<Vec<u8>>) -> e2e::Message {
    let results = infos.into_iter().map(|bytes| PeerDataOperationResult {
        placeholder_message_resend_response: Some(Box::new(PlaceholderMessageResendResponse {
            web_message_info_bytes: Some(Bytes::from(bytes)),
        })),
        ..PeerDataOperationResult::default()
    });
    let response = PeerDataOperationRequestResponseMessage {
        peer_data_operation_request_type: Some(e2e::PeerDataOperationRequestType::PlaceholderMessageResend.into()),
        stanza_id: Some("REQUEST".to_owned()),
        peer_data_operation_result: results.collect(),
    };
    let protocol = e2e::ProtocolMessage {
        r#type: Some(e2e::protocol_message::Type::PeerDataOperationRequestResponseMessage.into()),
        peer_data_operation_request_response_message: Some(Box::new(response)),
        ..e2e::ProtocolMessage::default()
    };
    e2e::Message { protocol_message: Some(Box::new(protocol)), ..e2e::Message::default() }
}

fn unreadable(id: &str) -> Node {
    in_chat(&group(), &member(), id).child(enc("skmsg", vec![0x33; 100]))
}

/// What was wanted and not settled, by message id.
fn wanted(world: &mut World) -> usize {
    world.actor("alice").records(RecordKind::Placeholder).len()
}

#[test]
fn the_real_phone_hands_out_what_was_damaged_on_the_way() {
    let mut world = World::online(&["alice"]);
    let alice = world.device("alice");
    world.fault(Fault::TamperNext { jid: alice, count: 100 });
    let id = world.phone_sends(STRANGER, "alice", "for the phone");
    let failed = world.only("alice", "message.undecryptable");
    assert_eq!((&failed["willRetry"], &failed["key"]["id"]), (&json!(true), &json!(id)));
    assert_eq!(wanted(&mut world), 1);
    let alice = world.device("alice");
    world.fault(Fault::TamperNext { jid: alice, count: 0 });
    world.advance_secs(5);
    let message = world.only("alice", "message.received")["messages"][0].clone();
    assert_eq!((&message["source"], &message["text"]), (&json!("phone_resend"), &json!("for the phone")));
    assert_eq!(message["key"], failed["key"]);
    assert_eq!(wanted(&mut world), 0);
}

#[test]
fn the_phone_is_asked_after_five_seconds_for_all_at_once() {
    let (mut world, mut phone) = with_phone();
    for id in ["A", "B"] {
        world.stanza_arrives("alice", &unreadable(id));
    }
    let direct = stanza(&member(), "C").child(enc("msg", vec![0x33; 60]));
    world.stanza_arrives("alice", &direct);
    world.advance(std::time::Duration::from_millis(4_999));
    assert_eq!(requests(&mut world, &mut phone), []);
    world.advance(std::time::Duration::from_millis(1));
    let asked = requests(&mut world, &mut phone);
    assert_eq!(asked.len(), 1);
    let mut keys = asked[0].1.clone();
    keys.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(keys, [key(&group(), "A"), key(&group(), "B"), key(&member().to_bare(), "C")]);
    // Once, however long it takes, and whatever comes again.
    world.stanza_arrives("alice", &unreadable("A"));
    world.advance_secs(120);
    assert_eq!(requests(&mut world, &mut phone), []);

    // The answer: messages like any other, but for where they come from.
    world.forget();
    let direct = key(&member().to_bare(), "C");
    let infos = [info(key(&group(), "A"), "first"), info(direct, "third")].map(|info| info.encode_to_vec());
    let answer = phone.tell(&response(infos.to_vec()));
    let own = world.lid("alice");
    let peer = stanza(&own, "ANSWER").attr("category", "peer").child(answer);
    world.stanza_arrives("alice", &peer);
    let events = world.events("alice");
    let told: Vec<_> = events.iter().map(|event| (event.event.to_string(), text_of(event))).collect();
    assert_eq!(told, [("message.received".to_owned(), Some("first")), ("message.received".to_owned(), Some("third"))]);
    assert_eq!(
        events[0].data["messages"][0],
        json!({"key": {"remoteJid": group().to_string(), "fromMe": false, "id": "A",
                "participant": "77777777777777@lid"},
            "messageTimestamp": SENT, "pushName": "Ada", "broadcast": false, "kind": "text", "text": "first",
            "source": "phone_resend", "message": {"conversation": "first"}})
    );
    let heard = world.heard("alice");
    assert_eq!(heard.len(), 1);
    assert_eq!((heard[0].tag(), heard[0].attr_str("type").as_deref()), ("receipt", Some("peer_msg")));
    // Neither the answer again, nor the message itself, is news.
    world.stanza_arrives("alice", &peer);
    let again = phone.tell(&response(vec![info(key(&group(), "A"), "first").encode_to_vec()]));
    world.stanza_arrives("alice", &stanza(&own, "AGAIN").attr("category", "peer").child(again));
    world.stanza_arrives("alice", &unreadable("A"));
    assert_eq!(world.event_names("alice"), [""; 0]);
    assert_eq!(wanted(&mut world), 1, "B is waited for still");
}

#[test]
fn a_resend_that_comes_first_makes_it_unnecessary() {
    let (mut world, upload) = online(&["alice"]);
    let own = world.lid("alice");
    let mut phone = Puppet::new(&own, &upload, 1);
    let mut sender = Puppet::new(&member(), &upload, 2);
    let hello = phone.tell(&text("note to self"));
    world.stanza_arrives("alice", &stanza(&own, "HELLO").attr("recipient", &own).child(hello));
    world.forget();
    world.stanza_arrives("alice", &unreadable("A"));
    assert_eq!(wanted(&mut world), 1);
    world.advance_secs(4);
    let resent = sender.tell(&text("hello")).attr("count", 1);
    world.stanza_arrives("alice", &in_chat(&group(), &member(), "A").child(resent));
    assert_eq!(world.only("alice", "message.received")["messages"][0]["source"], "live");
    assert_eq!(wanted(&mut world), 0);
    world.advance_secs(60);
    assert_eq!(requests(&mut world, &mut phone), []);

    // The other way round: it is told once.
    world.stanza_arrives("alice", &unreadable("B"));
    world.advance_secs(5);
    assert_eq!(requests(&mut world, &mut phone).len(), 1);
    let answer = phone.tell(&response(vec![info(key(&group(), "B"), "from the phone").encode_to_vec()]));
    world.stanza_arrives("alice", &stanza(&own, "ANSWER").attr("category", "peer").child(answer));
    let resent = sender.tell(&text("from the sender")).attr("count", 1);
    world.stanza_arrives("alice", &in_chat(&group(), &member(), "B").child(resent));
    let received = world.data("alice", "message.received");
    let texts: Vec<_> = received.iter().map(|data| data["messages"][0]["text"].clone()).collect();
    assert_eq!(texts, ["from the phone"]);
}

#[test]
fn what_stayed_on_the_phone_is_asked_for_at_once_unless_it_stays_there() {
    let (mut world, mut phone) = with_phone();
    let unavailable = |id: &str, kind: &str| {
        let child = Node::new("unavailable").attr_opt("type", Some(kind).filter(|kind| !kind.is_empty()));
        in_chat(&group(), &member(), id).child(child)
    };
    for (id, kind, comes) in [
        ("A", "", true),
        ("B", "some_new_fanout", true),
        ("C", "view_once", false),
        ("D", "view_once_unavailable_fanout", false),
        ("E", "bot_unavailable_fanout", false),
        ("F", "hosted_unavailable_fanout", false),
    ] {
        world.stanza_arrives("alice", &unavailable(id, kind));
        let failed = world.only("alice", "message.undecryptable");
        let reason = if kind.is_empty() { "unavailable" } else { kind };
        assert_eq!((&failed["willRetry"], &failed["reason"]), (&json!(comes), &json!(reason)));
        let asked: Vec<_> = requests(&mut world, &mut phone).into_iter().flat_map(|(_, keys)| keys).collect();
        assert_eq!(asked, if comes { vec![key(&group(), id)] } else { vec![] }, "{kind}");
    }
    world.advance_secs(60);
    assert_eq!(requests(&mut world, &mut phone), []);
}

#[test]
fn the_phone_does_not_have_what_is_older_than_two_weeks() {
    let (mut world, mut phone) = with_phone();
    let limit = 14 * 86_400;
    for (id, age, comes) in [("A", limit - 1, true), ("B", limit, false)] {
        let old = Node::new("message").attr("from", group()).attr("participant", member()).attr("id", id);
        let old = old.attr("t", SENT - age).child(Node::new("unavailable"));
        world.stanza_arrives("alice", &old);
        assert_eq!(world.only("alice", "message.undecryptable")["willRetry"], comes);
        assert_eq!(requests(&mut world, &mut phone).len(), usize::from(comes));
    }
}

#[test]
fn only_our_own_phone_answers_and_only_what_was_asked() {
    let (mut world, upload) = online(&["alice"]);
    let own = world.lid("alice");
    let mut phone = Puppet::new(&own, &upload, 1);
    let mut companion = Puppet::new(&own.with_device(7), &upload, 2);
    let mut stranger = Puppet::new(&member(), &upload, 3);
    let hello = phone.tell(&text("note to self"));
    world.stanza_arrives("alice", &stanza(&own, "HELLO").attr("recipient", &own).child(hello));
    world.stanza_arrives("alice", &unreadable("A"));
    world.advance_secs(5);
    world.forget();
    let received = |world: &mut World| -> Vec<Value> { world.data("alice", "message.received") };
    let good = response(vec![info(key(&group(), "A"), "forged").encode_to_vec()]);
    let (from_companion, from_stranger) = (companion.tell(&good), stranger.tell(&good));
    world.stanza_arrives("alice", &stanza(&companion.jid, "X").attr("category", "peer").child(from_companion));
    world.stanza_arrives("alice", &stanza(&member(), "Y").attr("category", "peer").child(from_stranger));
    assert_eq!(received(&mut world), [Value::Null; 0]);

    let other = common::MessageKey { participant: Some("88888888888888@lid".to_owned()), ..key(&group(), "A") };
    let chat: Jid = "120363049999999999@g.us".parse().unwrap();
    let own_one = common::MessageKey { from_me: Some(true), ..key(&group(), "A") };
    let keyless = web::WebMessageInfo { key: None, ..info(key(&group(), "A"), "x") };
    let empty = web::WebMessageInfo { message: None, ..info(key(&group(), "A"), "x") };
    let infos = [
        info(key(&group(), "NEVER ASKED"), "x").encode_to_vec(),
        info(other, "x").encode_to_vec(),
        info(key(&chat, "A"), "x").encode_to_vec(),
        info(own_one, "x").encode_to_vec(),
        keyless.encode_to_vec(),
        empty.encode_to_vec(),
        vec![0xff; 20],
        Vec::new(),
    ];
    let answer = phone.tell(&response(infos.to_vec()));
    world.stanza_arrives("alice", &stanza(&own, "Z").attr("category", "peer").child(answer));
    assert_eq!(received(&mut world), [Value::Null; 0]);
    // A recovered message that claims to be an answer is none, and does not lead anywhere.
    let nested = web::WebMessageInfo { message: Some(Box::new(good.clone())), ..info(key(&group(), "A"), "") };
    let answer = phone.tell(&response(vec![nested.encode_to_vec()]));
    world.stanza_arrives("alice", &stanza(&own, "N").attr("category", "peer").child(answer));
    assert_eq!(received(&mut world), [Value::Null; 0]);
    assert_eq!(world.state("alice"), "CONNECTED");
}

#[test]
fn a_restart_forgets_nothing_and_asks_nothing_twice() {
    let (mut world, mut phone) = with_phone();
    world.stanza_arrives("alice", &unreadable("A"));
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.heard("alice");
    world.advance_secs(5);
    let asked = requests(&mut world, &mut phone);
    assert_eq!(asked.iter().map(|(_, keys)| keys.as_slice()).collect::<Vec<_>>(), [[key(&group(), "A")]]);
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.heard("alice");
    world.advance_secs(60);
    assert_eq!(requests(&mut world, &mut phone), []);
    let own = world.lid("alice");
    let answer = phone.tell(&response(vec![info(key(&group(), "A"), "late").encode_to_vec()]));
    world.stanza_arrives("alice", &stanza(&own, "ANSWER").attr("category", "peer").child(answer));
    assert_eq!(world.only("alice", "message.received")["messages"][0]["text"], "late");
    assert_eq!(wanted(&mut world), 0);
}

#[test]
fn while_there_is_no_connection_nothing_is_asked_and_nothing_spins() {
    let (mut world, mut phone) = with_phone();
    world.stanza_arrives("alice", &unreadable("A"));
    world.command("alice", Command::Disconnect).unwrap();
    world.advance_secs(600);
    assert_eq!(requests(&mut world, &mut phone), []);
    world.command("alice", Command::Connect).unwrap();
    let asked: usize = requests(&mut world, &mut phone).iter().map(|(_, keys)| keys.len()).sum();
    assert_eq!(asked, 1);
}

#[test]
fn a_storm_becomes_a_few_requests_and_what_is_kept_is_bounded() {
    let (mut world, mut phone) = with_phone();
    for n in 0..700 {
        world.stanza_arrives("alice", &unreadable(&format!("S{n:04}")));
    }
    assert_eq!(wanted(&mut world), 512);
    let retries = world.heard("alice").iter().filter(|node| node.attr_str("type").as_deref() == Some("retry")).count();
    assert_eq!(retries, 60, "and no more than that in a minute");
    world.advance_secs(5);
    let asked = requests(&mut world, &mut phone);
    assert_eq!(asked.len(), 8, "512 messages, 64 each");
    world.advance_secs(60);
    assert_eq!(requests(&mut world, &mut phone), []);
    // New ones take the place of those that were asked for long ago.
    world.stanza_arrives("alice", &unreadable("NEW"));
    assert_eq!(wanted(&mut world), 512);
    world.advance_secs(5);
    assert_eq!(requests(&mut world, &mut phone)[0].1, [key(&group(), "NEW")]);
    // After a day nobody waits any more.
    world.advance_secs(86_401);
    world.stanza_arrives("alice", &unreadable("LAST").attr("ignored", "1"));
    world.advance_secs(5);
    assert_eq!(wanted(&mut world), 1);
}

#[test]
fn a_logout_forgets_what_was_wanted() {
    let (mut world, _) = with_phone();
    world.stanza_arrives("alice", &unreadable("A"));
    world.command("alice", Command::Logout).unwrap();
    assert_eq!(wanted(&mut world), 0);
    world.advance_secs(60);
    assert_eq!(world.actor("alice").records(RecordKind::Outgoing).len(), 0);
}

#[test]
fn what_the_phone_does_not_answer_is_given_up() {
    let received = |world: &mut World| world.data("alice", "message.received").len();
    let answers = |world: &mut World, phone: &mut Puppet, id: &str| {
        let own = world.lid("alice");
        let answer = phone.tell(&response(vec![info(key(&group(), id), "late").encode_to_vec()]));
        world.stanza_arrives("alice", &stanza(&own, &format!("ANSWER {id}")).attr("category", "peer").child(answer));
    };
    // Within a day it may be answered, and no later.
    for (seconds, comes) in [(86_400 - 60, true), (86_400 + 60, false)] {
        let (mut world, mut phone) = with_phone();
        world.stanza_arrives("alice", &unreadable("A"));
        world.advance_secs(5);
        assert_eq!(requests(&mut world, &mut phone).len(), 1);
        world.sleep(seconds);
        world.stanza_arrives("alice", &unreadable("B"));
        world.advance_secs(5);
        assert_eq!(wanted(&mut world), 1 + usize::from(comes));
        world.forget();
        answers(&mut world, &mut phone, "A");
        assert_eq!(received(&mut world), usize::from(comes), "{seconds}");
        answers(&mut world, &mut phone, "B");
        assert_eq!((received(&mut world), wanted(&mut world)), (1, 0));
    }
    // Nothing else need be asked for: its time ends by itself, while there is a connection, without one, and across a restart.
    for (online, restart) in [(true, false), (false, false), (true, true), (false, true)] {
        let (mut world, mut phone) = with_phone();
        world.stanza_arrives("alice", &unreadable("A"));
        world.advance_secs(5);
        assert_eq!(requests(&mut world, &mut phone).len(), 1);
        if restart {
            world.advance_secs(40_000);
            world.crash_and_start("alice");
        } else if !online {
            world.command("alice", Command::Disconnect).unwrap();
        }
        if restart && online {
            world.command("alice", Command::Connect).unwrap();
        }
        world.advance_secs(86_400 - 60 - if restart { 40_000 } else { 0 });
        assert_eq!(wanted(&mut world), 1, "online: {online}, restart: {restart}");
        world.advance_secs(61);
        assert_eq!(wanted(&mut world), 0, "online: {online}, restart: {restart}");
        if online {
            world.forget();
            answers(&mut world, &mut phone, "A");
            assert_eq!(received(&mut world), 0);
        }
    }
}

/// What another device of ours sent, and this one cannot read, is asked of the phone as our own and told as sent.
#[test]
fn what_our_own_devices_sent_is_asked_for_as_ours() {
    let (mut world, mut phone) = with_phone();
    let own = world.lid("alice").with_device(7);
    let direct = stanza(&own, "A").attr("recipient", member().to_bare()).child(enc("msg", vec![0x33; 60]));
    world.stanza_arrives("alice", &direct);
    world.stanza_arrives("alice", &in_chat(&group(), &own, "B").child(enc("skmsg", vec![0x33; 100])));
    world.advance_secs(5);
    let mut keys = requests(&mut world, &mut phone).remove(0).1;
    keys.sort_by(|a, b| a.id.cmp(&b.id));
    let of = |chat: &Jid, id: &str| common::MessageKey {
        from_me: Some(true),
        participant: chat.is_group().then(|| own.to_bare().to_string()),
        ..key(chat, id)
    };
    let expected = [of(&member().to_bare(), "A"), of(&group(), "B")];
    assert_eq!(keys, expected);
    world.forget();
    let infos = expected.map(|key| info(key, "ours").encode_to_vec());
    let answer = phone.tell(&response(infos.to_vec()));
    let phone = world.lid("alice");
    world.stanza_arrives("alice", &stanza(&phone, "ANSWER").attr("category", "peer").child(answer));
    let told = world.events("alice");
    let names: Vec<_> = told.iter().map(|event| &*event.event).collect();
    assert_eq!(names, ["message.sent", "message.sent"]);
    let chats: Vec<_> = told.iter().map(|event| event.data["messages"][0]["key"]["remoteJid"].clone()).collect();
    assert_eq!(chats, [json!(member().to_bare().to_string()), json!(group().to_string())]);
    assert_eq!(wanted(&mut world), 0);
}

/// The time is up while the store is not there: nothing spins, and it is given up when the account is loaded again.
#[test]
fn what_ends_while_the_store_is_away_is_given_up_afterwards() {
    let (mut world, _) = with_phone();
    world.stanza_arrives("alice", &unreadable("A"));
    world.advance_secs(5);
    world.command("alice", Command::Disconnect).unwrap();
    world.advance_secs(86_400 - 1);
    world.say("alice", Input::StoreFailed(StoreError::Backend("disk full".to_owned())));
    world.advance(std::time::Duration::from_millis(1_500));
    world.say("alice", Input::StoreFailed(StoreError::Backend("disk full".to_owned())));
    world.advance_secs(120);
    assert_eq!(wanted(&mut world), 0);
}
