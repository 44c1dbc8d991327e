//! What WhatsApp does not let the account do is a state with an end: new chats are refused here, and nothing is sent again by
//! itself (spec 03 §6.1, 06 §9.9 and §15, 07 §7.1).

use crate::world::{self, World};
use serde_json::{Value, json};
use wamd::{
    Jid,
    engine::{Command, CommandError, SendRequest},
    event::{Prefer, RestrictionKind},
    message::MessageId,
    node::Node,
};
use wamd_loopback::Fault;

const STRANGER: &str = "15550000007";

/// Alice knows bob; nothing of bob confirms a message by itself; a stranger has a phone.
fn known() -> World {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    let now = world.now();
    world.server.phone(now, STRANGER).unwrap();
    let phone = world.jid("bob");
    world.fault(Fault::MutePhone { jid: phone, on: true });
    world.crash("bob");
    // What the account may not do is for the test to answer.
    let jid = world.device("alice");
    world.fault(Fault::AnswerIq { jid, xmlns: "w:mex".to_owned(), code: None, backoff: None, count: 100 });
    world.forget();
    world
}

/// The server refuses a message of alice's to bob.
fn refuse(world: &mut World, code: u32) -> MessageId {
    let (alice, chat) = (world.device("alice"), world.lid("bob"));
    world.fault(Fault::DropAck { jid: alice, count: 1 });
    let id = world.send("alice", "bob", "hello");
    world.forget();
    let ack = Node::new("ack").attr("class", "message").attr("id", id.as_str()).attr("from", &chat);
    world.stanza_arrives("alice", &ack.attr("error", code).attr("t", 1_760_000_000));
    id
}

fn send_to(world: &mut World, to: &str) -> Result<wamd::engine::Reply, CommandError> {
    world.command("alice", Command::Send(SendRequest::text(Jid::pn(to), "hello")))
}

/// The query about restrictions that alice asked, if she did.
fn asked(world: &mut World) -> Vec<Node> {
    let heard = world.heard("alice");
    heard.into_iter().filter(|node| node.attr_str("xmlns").as_deref() == Some("w:mex")).collect()
}

fn answer(query: &Node, data: &Value) -> Node {
    let id = query.attr_str("id").expect("an id").into_owned();
    let result = Node::new("result").bytes(json!({"data": data}).to_string().into_bytes());
    Node::new("iq").attr("type", "result").attr("id", id).attr("from", Jid::whatsapp_server()).child(result)
}

fn push(data: &Value) -> Node {
    let update = Node::new("update").attr("op_name", "x").bytes(json!({"data": data}).to_string().into_bytes());
    let notification =
        Node::new("notification").attr("type", "mex").attr("id", "n1").attr("from", Jid::whatsapp_server());
    notification.child(update)
}

fn restricted(kind: RestrictionKind, until_ms: u64) -> CommandError {
    CommandError::Restricted { kind, until_ms }
}

#[test]
fn a_refusal_is_told_and_asked_about_once() {
    let mut world = known();
    let id = refuse(&mut world, 463);
    let events = world.events("alice");
    let failed = world::named(&events, "message.failed");
    assert_eq!(failed[0].data["messages"][0]["key"]["id"], id.as_str());
    assert_eq!(failed[0].data["messages"][0]["error"]["code"], 463);
    let told = world::named(&events, "account.restricted");
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].data, json!({"type": "reach_out", "active": true}));
    let hour = world.now().wall_ms + 3_600_000;
    let restriction = &world.snapshot("alice").restrictions[0];
    assert_eq!((restriction.kind, restriction.until_ms, restriction.is_told), (RestrictionKind::ReachOut, hour, false));
    let queries = asked(&mut world);
    assert_eq!(queries.len(), 1);
    assert_eq!(queries[0].find_child("query").unwrap().attr_str("query_id").as_deref(), Some("23983697327930364"));

    // What the server answers makes it exact.
    let end = world.now().unix_seconds() + 86_400;
    let data = json!({"xwa2_fetch_account_reachout_timelock": {"is_active": true, "enforcement_type": "BIZ_QUALITY",
        "time_enforcement_ends": end.to_string()}});
    world.stanza_arrives("alice", &answer(&queries[0], &data));
    assert_eq!(
        world.only("alice", "account.restricted"),
        json!({"type": "reach_out", "active": true, "until": end * 1_000, "enforcement": "BIZ_QUALITY"})
    );
    // Another refusal changes nothing about what is known.
    refuse(&mut world, 463);
    assert_eq!(world.data("alice", "account.restricted").len(), 0);
    assert_eq!(world.snapshot("alice").restrictions[0].until_ms, end * 1_000);
    // Nothing goes out again by itself, now or later.
    world.cut("alice");
    world.advance_secs(3_600);
    assert!(world.heard("alice").iter().all(|node| !node.is("message")));
}

#[test]
fn new_chats_are_refused_and_others_go_on() {
    let mut world = known();
    refuse(&mut world, 463);
    world.forget();
    let until = world.snapshot("alice").restrictions[0].until_ms;
    let sends = world.snapshot("alice").sends;
    assert_eq!(send_to(&mut world, STRANGER), Err(restricted(RestrictionKind::ReachOut, until)));
    assert_eq!(world.snapshot("alice").sends, sends);
    assert!(world.heard("alice").iter().all(|node| !node.is("message")), "the server does not hear of it");
    world.send("alice", "bob", "an old friend");
    let own = world.jid("alice");
    world.send_to("alice", &own, "a note");
    assert_eq!(world.data("alice", "message.failed").len(), 0);

    // Whoever writes to us is no stranger, and whoever gives us a token is not, either.
    world.phone_sends(STRANGER, "alice", "hello?");
    world.send_to("alice", &Jid::pn(STRANGER), "hello!");
    let other = Jid::pn("15550000008");
    let now = world.now();
    world.server.phone(now, other.user()).unwrap();
    assert!(send_to(&mut world, other.user()).is_err());
    let token = Node::new("token").attr("type", "trusted_contact").attr("t", world.now().unix_seconds()).bytes(vec![1]);
    let notification = Node::new("notification").attr("type", "privacy_token").attr("id", "n2").attr("from", &other);
    world.stanza_arrives("alice", &notification.child(Node::new("tokens").child(token)));
    assert!(send_to(&mut world, other.user()).is_ok());
}

#[test]
fn it_survives_a_restart_and_ends_in_its_time() {
    let mut world = known();
    refuse(&mut world, 463);
    let end = world.now().unix_seconds() + 7_200;
    let data = json!({"xwa2_notify_account_reachout_timelock": {"is_active": true, "time_enforcement_ends": end}});
    world.stanza_arrives("alice", &push(&data));
    world.crash_and_start("alice");
    assert_eq!(send_to(&mut world, STRANGER), Err(restricted(RestrictionKind::ReachOut, end * 1_000)));
    world.command("alice", Command::Connect).unwrap();
    world.forget();
    world.advance_secs(7_199);
    assert_eq!(world.data("alice", "account.restricted").len(), 0);
    world.advance_secs(1);
    assert_eq!(world.only("alice", "account.restricted"), json!({"type": "reach_out", "active": false}));
    assert_eq!(world.snapshot("alice").restrictions, []);
    assert!(send_to(&mut world, STRANGER).is_ok());
    // What is over while nobody runs is over at the start.
    refuse(&mut world, 475);
    world.crash("alice");
    world.forget();
    world.advance_secs(3_600);
    world.start("alice");
    assert_eq!(world.only("alice", "account.restricted"), json!({"type": "message_cap", "active": false}));
}

#[test]
fn the_server_lifts_it_early() {
    let mut world = known();
    refuse(&mut world, 463);
    let queries = asked(&mut world);
    world.events("alice");
    let data = json!({"xwa2_fetch_account_reachout_timelock": {"is_active": false}});
    world.stanza_arrives("alice", &answer(&queries[0], &data));
    assert_eq!(world.only("alice", "account.restricted"), json!({"type": "reach_out", "active": false}));
    assert!(send_to(&mut world, STRANGER).is_ok());
    world.stanza_arrives("alice", &push(&data));
    assert_eq!(world.data("alice", "account.restricted").len(), 0, "that is no news");
}

#[test]
fn the_cap_on_new_chats() {
    let mut world = known();
    refuse(&mut world, 475);
    assert_eq!(world.only("alice", "account.restricted"), json!({"type": "message_cap", "active": true}));
    assert_eq!(asked(&mut world).len(), 1);
    let end = world.now().wall_ms + 86_400_000;
    let cap = |status: &str| {
        json!({"xwa2_notify_new_chat_messages_capping_info_update": {"total_quota": 250, "used_quota": 250,
            "capping_status": status, "cycle_end_timestamp": (end / 1_000).to_string()}})
    };
    world.stanza_arrives("alice", &push(&cap("CAPPED")));
    let events = world.events("alice");
    let told = world::named(&events, "account.message_cap");
    assert_eq!(told[0].data, json!({"total": 250, "used": 250, "status": "CAPPED", "until": end}));
    let told = world::named(&events, "account.restricted");
    assert_eq!(told[0].data, json!({"type": "message_cap", "active": true, "until": end}));
    assert_eq!(send_to(&mut world, STRANGER), Err(restricted(RestrictionKind::MessageCap, end)));
    world.stanza_arrives("alice", &push(&cap("SECOND_WARNING")));
    assert_eq!(world.only("alice", "account.restricted"), json!({"type": "message_cap", "active": false}));
    // A warning alone restricts nothing.
    world.stanza_arrives("alice", &push(&cap("FIRST_WARNING")));
    let names = world.event_names("alice");
    assert_eq!(names, ["account.message_cap"]);
}

#[test]
fn what_waits_to_be_sent_to_a_stranger_is_not_tried() {
    let mut world = known();
    world.command("alice", Command::Disconnect).unwrap();
    let Ok(wamd::engine::Reply::Accepted { id, .. }) = send_to(&mut world, STRANGER) else { panic!("not accepted") };
    // It was accepted before the restriction was known.
    let until = (world.now().unix_seconds() + 600).to_string();
    world.command("alice", Command::Connect).unwrap();
    let first = world.only("alice", "message.sent");
    assert_eq!(first["messages"][0]["key"]["id"], id.as_str(), "without a restriction it goes");
    let data = json!({"x": {"is_active": true, "time_enforcement_ends": until}});
    world.stanza_arrives("alice", &push(&data));
    world.forget();
    let now = world.now();
    world.server.phone(now, "15550000009").unwrap();
    assert!(send_to(&mut world, "15550000009").is_err());
}

#[test]
fn on_demand() {
    let mut world = known();
    world.command("alice", Command::CheckRestrictions).unwrap();
    let ids: Vec<String> = asked(&mut world)
        .iter()
        .map(|iq| iq.find_child("query").unwrap().attr_str("query_id").unwrap().into_owned())
        .collect();
    assert_eq!(ids, ["23983697327930364", "27910975521856601"]);
    world.command("alice", Command::Disconnect).unwrap();
    assert_eq!(world.command("alice", Command::CheckRestrictions), Err(CommandError::NotConnected));
}

/// Whom a refused message was for shows as everywhere else: under the identity that the application prefers, with the other beside.
#[test]
fn a_refusal_shows_both_identities() {
    for prefer in [Prefer::Pn, Prefer::Lid] {
        let mut world = World::new(&["bob"]);
        world.add("alice", "15550000004", |config| config.prefer = prefer);
        world.settle();
        for name in ["alice", "bob"] {
            world.link(name);
        }
        world.talk("alice", "bob");
        // Nothing of bob confirms the message.
        let phone = world.jid("bob");
        world.fault(Fault::MutePhone { jid: phone, on: true });
        world.crash("bob");
        refuse(&mut world, 400);
        let failed = world.only("alice", "message.failed")["messages"][0].clone();
        let (pn, lid) = (world.jid("bob").to_string(), world.lid("bob").to_string());
        let (shown, other) = if prefer == Prefer::Pn { (&pn, &lid) } else { (&lid, &pn) };
        assert_eq!((&failed["key"]["remoteJid"], &failed["key"]["remoteJidAlt"]), (&json!(shown), &json!(other)));
        assert_eq!((&failed["error"]["code"], &failed["phone"]), (&json!(400), &json!(world.jid("bob").user())));
    }
}

/// A chat that was begun by number is the same chat when a token came by LID before it was known that both are one.
#[test]
fn a_chat_known_under_both_names_goes_on() {
    let mut world = known();
    let (pn, lid) = (Jid::pn(STRANGER), Jid::lid("88887777000000"));
    world.fault(Fault::HideLid { jid: pn.clone(), on: true });
    assert!(send_to(&mut world, STRANGER).is_ok());
    assert_eq!(world.data("alice", "lid_mapping.updated").len(), 0);
    let now = world.now().unix_seconds();
    let token = Node::new("token").attr("type", "trusted_contact").attr("t", now).bytes(vec![7; 16]);
    let tokens = Node::new("notification").attr("type", "privacy_token").attr("id", "T").attr("from", &lid);
    world.stanza_arrives("alice", &tokens.child(Node::new("tokens").child(token)));
    // Then the pair is known, and the token is too old to show anything.
    let pair = Node::new("notification").attr("type", "devices").attr("id", "D").attr("from", &pn).attr("lid", &lid);
    world.stanza_arrives("alice", &pair.child(Node::new("update").attr("hash", "2:AAAAAAAA")));
    assert_eq!(world.data("alice", "lid_mapping.updated").len(), 1);
    world.sleep(5 * 604_800);
    let end = (world.now().unix_seconds() + 600).to_string();
    world.stanza_arrives("alice", &push(&json!({"x": {"is_active": true, "time_enforcement_ends": end}})));
    assert_eq!(world.snapshot("alice").restrictions.len(), 1);
    for to in [&pn, &lid] {
        let sent = world.command("alice", Command::Send(SendRequest::text(to.clone(), "we know each other")));
        assert!(sent.is_ok(), "{sent:?}");
    }
    assert!(send_to(&mut world, "15550000009").is_err());
}
