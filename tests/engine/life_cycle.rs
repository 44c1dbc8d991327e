//! The life of a session: what the server says, what the application hears, and what happens next (spec 01 §6.3–6.13,
//! 07 §3). That the state asked for is the state last told, and that an outage is told once, is checked by the world at
//! every event.

use std::time::Duration;

use crate::world::{self, Network, World, named};
use serde_json::{Value, json};
use wamd::{
    Jid,
    engine::{Command, CommandError, Reply, SendRequest},
    event::Envelope,
    node::Node,
    store::{AccountId, Batch, RecordKind},
};
use wamd_loopback::{Disconnect, Fault, ScanOptions};

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It connects by itself after a pause.
    Retries,
    /// It stays linked, and offline until it is told to connect.
    Stops,
    /// It is not linked any more.
    Unlinked,
}

fn names(events: &[Envelope]) -> Vec<&str> {
    events.iter().map(|event| &*event.event).collect()
}

fn is_about(value: u64, nominal: u64) -> bool {
    (nominal * 9 / 10..=nominal * 11 / 10).contains(&value)
}

/// Checks what must hold some time after the end of a connection.
fn follows(world: &mut World, next: Next, state: &str) {
    assert_eq!(world.state("alice"), state);
    world.forget();
    world.advance_secs(60);
    match next {
        Next::Retries => assert_eq!(world.state("alice"), "CONNECTED"),
        Next::Stops => {
            assert_eq!((world.state("alice"), world.event_names("alice")), (state, Vec::new()));
            assert!(world.snapshot("alice").jid.is_some(), "it is linked still");
            assert_eq!(world.command("alice", Command::Reconnect), Ok(Reply::Done));
        }
        Next::Unlinked => {
            assert_eq!((world.state("alice"), world.event_names("alice")), (state, Vec::new()));
            assert_eq!(world.snapshot("alice").jid, None);
            let alice = world.actor("alice");
            assert_eq!((alice.count(), alice.records(RecordKind::OutboxHead).len()), (1, 1), "nothing is left stored");
            assert_eq!(world.command("alice", Command::Connect), Err(CommandError::NotLinked));
            world.link("alice");
        }
    }
    assert_eq!(world.state("alice"), "CONNECTED");
    world.talk("alice", "bob");
}

// ---- refused at login -------------------------------------------------------------------------------------------------

fn failure(reason: u16) -> Node {
    Node::new("failure").attr("reason", u32::from(reason)).attr("location", "frc")
}

/// The login is refused with this stanza; gives the events from the refusal on.
fn refused(world: &mut World, node: Node) -> Vec<Envelope> {
    let jid = world.device("alice");
    world.advance_secs(60);
    world.fault(Fault::RefuseLogin { jid, node });
    world.forget();
    assert_eq!(world.command("alice", Command::Reconnect), Ok(Reply::Done));
    let mut events = world.events("alice");
    assert_eq!(names(&events[..2]), ["session.reconnecting", "session.connecting"]);
    assert_eq!(events[0].data, json!({"attempt": 1, "delayMs": 0, "reason": "stopped"}));
    events.drain(..2);
    events
}

fn gone(reason: &str, status: u16) -> Value {
    json!({"reason": reason, "statusCode": status, "permanent": true, "willReconnect": false})
}

#[test]
fn refusals_that_end_the_link() {
    let logged_out = |reason: &str| json!({"reason": reason, "onConnect": true});
    for (reason, word) in [(401, "unauthorized"), (415, "not_found")] {
        let mut world = World::online(&["alice", "bob"]);
        let events = refused(&mut world, failure(reason));
        assert_eq!(names(&events), ["session.disconnected", "session.logged_out"], "{reason}");
        assert_eq!(events[0].data, gone("logged_out", 401), "{reason}");
        assert_eq!(events[1].data, logged_out(word), "{reason}");
        follows(&mut world, Next::Unlinked, "LOGGED_OUT");
    }
    for (reason, word, kind) in [(403, "locked", "locked"), (406, "banned", "permanent")] {
        let mut world = World::online(&["alice", "bob"]);
        let node = failure(reason).attr("url", "https://example.com/appeal").attr("message", "talk to us");
        let events = refused(&mut world, node);
        assert_eq!(names(&events), ["session.disconnected", "session.logged_out", "session.banned"], "{reason}");
        assert_eq!(events[0].data, gone("logged_out", 401), "{reason}");
        assert_eq!(events[1].data, logged_out(word), "{reason}");
        assert_eq!(
            events[2].data,
            json!({"kind": kind, "reason": reason, "code": null, "codeText": null, "expiresAt": null,
                "url": "https://example.com/appeal", "message": "talk to us"}),
            "{reason}"
        );
        follows(&mut world, Next::Unlinked, "BANNED");
    }
}

#[test]
fn a_temporary_ban_stops() {
    let mut world = World::online(&["alice", "bob"]);
    let node = failure(402).attr("code", 104).attr("expire", 3_600);
    let events = refused(&mut world, node);
    assert_eq!(names(&events), ["session.disconnected", "session.banned"]);
    assert_eq!(events[0].data, gone("banned", 403));
    let until = world.now().wall_ms + 3_600_000;
    assert_eq!(
        events[1].data,
        json!({"kind": "temporary", "reason": 402, "code": 104, "codeText": "same message sent too often",
            "expiresAt": until, "url": null, "message": null})
    );
    assert_eq!(world.snapshot("alice").banned_until_ms, Some(until));
    follows(&mut world, Next::Stops, "BANNED");
    // Before the end it may be tried, and the server had lifted it.
    assert_eq!(world.snapshot("alice").banned_until_ms, None);
}

#[test]
fn an_outdated_version_stops() {
    let mut world = World::online(&["alice", "bob"]);
    let events = refused(&mut world, failure(405));
    assert_eq!(names(&events), ["session.disconnected", "session.outdated"]);
    assert_eq!(events[0].data, gone("outdated", 405));
    let version = world.actor("alice").config.client.version_text();
    assert_eq!(events[1].data, json!({"version": version}));
    follows(&mut world, Next::Stops, "OUTDATED");
}

#[test]
fn a_bad_user_agent_stops() {
    let mut world = World::online(&["alice", "bob"]);
    let events = refused(&mut world, failure(409));
    assert_eq!(names(&events), ["session.connect_failure", "session.disconnected"]);
    assert_eq!(events[0].data, json!({"reason": 409, "attrs": {"reason": "409", "location": "frc"}}));
    assert_eq!(events[1].data, gone("refused", 409));
    follows(&mut world, Next::Stops, "DISCONNECTED");
}

#[test]
fn other_refusals_pass() {
    // The first pause, in milliseconds: what is the server's own trouble passes sooner than what it has against us.
    let server = [500, 501, 503].map(|reason| (Some(reason), 2_000));
    let refused = [400, 413, 414, 418, 599, 999].map(|reason| (Some(reason), 8_000));
    for (reason, pause) in server.into_iter().chain(refused).chain([(None, 8_000)]) {
        let mut world = World::online(&["alice", "bob"]);
        let node = reason.map_or_else(|| Node::new("failure").attr("appeal_token", "once"), failure);
        let events = self::refused(&mut world, node);
        assert_eq!(
            names(&events),
            ["session.connect_failure", "session.disconnected", "session.reconnecting"],
            "{reason:?}"
        );
        match reason {
            Some(reason) => assert_eq!(events[0].data["reason"], reason),
            None => assert_eq!(events[0].data, json!({"attrs": {"appeal_token": "once"}})),
        }
        let outage = &events[1].data;
        assert!(is_about(outage["nextRetryMs"].as_u64().unwrap(), pause), "{reason:?}");
        assert_eq!((&outage["reason"], &outage["willReconnect"]), (&json!("server_error"), &json!(true)), "{reason:?}");
        follows(&mut world, Next::Retries, "DISCONNECTED");
    }
}

// ---- stream errors ----------------------------------------------------------------------------------------------------

/// The stream of a connection that stood for a while ends with this stanza; gives the events.
fn stream_ends(world: &mut World, node: &Node) -> Vec<Envelope> {
    world.advance_secs(60);
    world.forget();
    world.stanza_arrives("alice", node);
    world.events("alice")
}

fn stream_error() -> Node {
    Node::new("stream:error")
}

fn conflict(kind: &str) -> Node {
    Node::new("conflict").attr("type", kind)
}

#[test]
fn a_restart_is_not_an_outage() {
    let mut world = World::online(&["alice", "bob"]);
    let events = stream_ends(&mut world, &stream_error().attr("code", 515));
    assert_eq!(names(&events)[..3], ["session.reconnecting", "session.connecting", "session.connected"]);
    assert_eq!(events[0].data, json!({"attempt": 1, "delayMs": 0, "reason": "restart_required"}));
    assert_eq!(events[1].data, json!({"attempt": 1}));
    assert_eq!(events[2].data["isNewLogin"], false);
    assert_eq!(named(&events, "session.disconnected").len(), 0);
    world.talk("alice", "bob");
}

#[test]
fn stream_errors_that_end_the_link() {
    let removed = || stream_error().attr("code", 401).child(conflict("device_removed"));
    let table = [
        removed(),
        stream_error().child(conflict("device_removed")),
        stream_error().attr("code", 401),
        stream_error().attr("code", 516),
        stream_error().child(conflict("another")),
        stream_error().child(Node::new("conflict")),
    ];
    for node in table {
        let mut world = World::online(&["alice", "bob"]);
        let events = stream_ends(&mut world, &node);
        assert_eq!(names(&events), ["session.disconnected", "session.logged_out"], "{node:?}");
        assert_eq!(events[0].data, gone("logged_out", 401), "{node:?}");
        assert_eq!(events[1].data, json!({"reason": "device_removed", "onConnect": false}), "{node:?}");
        follows(&mut world, Next::Unlinked, "LOGGED_OUT");
    }
}

#[test]
fn a_replaced_session_does_not_fight_back() {
    let table = [
        stream_error().child(conflict("replaced")),
        stream_error().attr("code", 409),
        stream_error().attr("code", 401).child(conflict("replaced")),
    ];
    for node in table {
        let mut world = World::online(&["alice", "bob"]);
        let events = stream_ends(&mut world, &node);
        assert_eq!(names(&events), ["session.disconnected"], "{node:?}");
        assert_eq!(events[0].data, gone("replaced", 440), "{node:?}");
        world.advance_secs(3_600);
        follows(&mut world, Next::Stops, "REPLACED");
    }
}

/// `code` and `node` of `session.stream_error`.
type Told = (Option<&'static str>, &'static str);

#[test]
fn passing_stream_errors() {
    // The stanza, what is told of it besides the outage, and the pause that follows in milliseconds.
    let table: Vec<(Node, Option<Told>, u64)> = vec![
        (stream_error().attr("code", 503), None, 2_000),
        (stream_error().attr("code", 500), None, 2_000),
        (stream_error().attr("code", 599), None, 2_000),
        // Five steps further in the row of pauses, although the connection stood long enough.
        (stream_error().attr("code", 429), None, 8_000),
        (stream_error().attr("code", 777), Some((Some("777"), "<stream:error code=\"777\"/>")), 2_000),
        (stream_error(), Some((None, "<stream:error/>")), 2_000),
        (
            stream_error().child(Node::new("xml-not-well-formed")),
            Some((None, "<stream:error><xml-not-well-formed/></stream:error>")),
            8_000,
        ),
        (
            stream_error().child(Node::new("ack").attr("class", "receipt")),
            Some((None, "<stream:error><ack class=\"receipt\"/></stream:error>")),
            2_000,
        ),
    ];
    for (node, told, pause) in table {
        let mut world = World::online(&["alice", "bob"]);
        let events = stream_ends(&mut world, &node);
        let (outage, first) = match &told {
            Some(_) => (&events[1..], Some(&events[0])),
            None => (&events[..], None),
        };
        if let (Some((code, text)), Some(event)) = (told, first) {
            assert_eq!(event.event, "session.stream_error", "{node:?}");
            let code = code.map_or(Value::Null, Value::from);
            assert_eq!((&event.data["code"], &event.data["node"]), (&code, &json!(text)), "{node:?}");
        }
        assert_eq!(names(outage), ["session.disconnected", "session.reconnecting"], "{node:?}");
        assert_eq!((&outage[0].data["reason"], &outage[0].data["statusCode"]), (&json!("server_error"), &json!(503)));
        assert!(is_about(outage[0].data["nextRetryMs"].as_u64().unwrap(), pause), "{node:?}");
        follows(&mut world, Next::Retries, "DISCONNECTED");
    }
}

#[test]
fn the_end_of_the_stream_passes() {
    for how in [Disconnect::XmlStreamEnd, Disconnect::Plain] {
        let mut world = World::online(&["alice", "bob"]);
        world.advance_secs(60);
        world.forget();
        world.disconnect("alice", how);
        let events = world.events("alice");
        assert_eq!(names(&events), ["session.disconnected", "session.reconnecting"], "{how:?}");
        let outage = &events[0].data;
        assert_eq!((&outage["reason"], &outage["statusCode"]), (&json!("connection_lost"), &json!(428)), "{how:?}");
        follows(&mut world, Next::Retries, "DISCONNECTED");
    }
}

#[test]
fn the_same_credentials_elsewhere_replace_the_first() {
    let mut world = World::online(&["alice", "bob"]);
    // The same stored account, started twice.
    world.add("double", "15550000001", |_| {});
    world.crash("double");
    let records = world.actor("alice").store.snapshot();
    let alice = AccountId::new("alice");
    let puts = records.records(&alice).filter(|(key, _)| key.kind != RecordKind::OutboxHead);
    let puts = puts.map(|(key, value)| (key.clone(), value.clone())).collect();
    world.actor("double").write(Batch { puts, ..Batch::default() });
    world.start("double");
    world.command("double", Command::Connect).unwrap();
    assert_eq!(world.state("double"), "CONNECTED");
    assert_eq!(world.state("alice"), "REPLACED");
    world.advance_secs(600);
    assert_eq!((world.state("double"), world.state("alice")), ("CONNECTED", "REPLACED"));
    world.command("alice", Command::Reconnect).unwrap();
    assert_eq!((world.state("double"), world.state("alice")), ("REPLACED", "CONNECTED"));
}

// ---- pauses -----------------------------------------------------------------------------------------------------------

const ROW: [u64; 18] = [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 900, 900, 900];

/// The pauses that were told, in milliseconds.
fn pauses(events: &[Envelope]) -> Vec<u64> {
    named(events, "session.reconnecting").iter().map(|event| event.data["delayMs"].as_u64().unwrap()).collect()
}

#[test]
fn pauses_grow_and_are_kept() {
    let mut world = World::online(&["alice", "bob"]);
    world.advance_secs(60);
    world.forget();
    world.network("alice", Network::Refused);
    world.cut("alice");
    world.advance_secs(ROW[..17].iter().sum::<u64>() * 11 / 10);
    let events = world.events("alice");
    assert_eq!(named(&events, "session.disconnected").len(), 1, "one outage");
    let told = pauses(&events);
    assert!(told.len() >= 17, "{told:?}");
    for (pause, nominal) in told.iter().zip(ROW) {
        assert!(is_about(*pause, nominal * 1_000), "{told:?}");
    }
    assert!(told.iter().zip(ROW).any(|(pause, nominal)| *pause != nominal * 1_000), "they are not all alike");
    // Each attempt begins when it was announced, and has the number that was announced.
    let plan: Vec<_> = named(&events, "session.reconnecting");
    let begun: Vec<_> = named(&events, "session.connecting");
    for (planned, begun) in plan.iter().zip(&begun) {
        assert_eq!(begun.timestamp, planned.timestamp + planned.data["delayMs"].as_u64().unwrap());
    }
    let attempts: Vec<_> = plan.iter().map(|event| event.data["attempt"].as_u64().unwrap()).collect();
    assert_eq!(attempts, (1..=attempts.len() as u64).collect::<Vec<_>>());

    // A command does not wait.
    world.network("alice", Network::Up);
    world.command("alice", Command::Reconnect).unwrap();
    assert_eq!(world.state("alice"), "CONNECTED");
    world.talk("alice", "bob");
}

#[test]
fn only_a_stable_connection_starts_the_row_again() {
    let mut world = World::online(&["alice"]);
    world.advance_secs(60);
    let mut lose = |stood: u64| {
        world.advance_secs(stood);
        world.forget();
        world.cut("alice");
        let pause = pauses(&world.events("alice"))[0];
        world.advance(Duration::from_millis(pause));
        assert_eq!(world.state("alice"), "CONNECTED");
        pause
    };
    for nominal in [1, 1, 2, 3, 5] {
        assert!(is_about(lose(if nominal == 1 { 0 } else { 29 }), nominal * 1_000), "{nominal}");
    }
    assert!(is_about(lose(30), 1_000));
    assert!(is_about(lose(1), 1_000));
    assert!(is_about(lose(1), 2_000));
}

#[test]
fn what_the_caller_stopped_begins_anew() {
    let mut world = World::online(&["alice", "bob"]);
    world.advance_secs(60);
    world.network("alice", Network::Refused);
    world.cut("alice");
    world.advance_secs(20);
    world.forget();
    assert_eq!(world.command("alice", Command::Disconnect), Ok(Reply::Done));
    assert_eq!(
        world.only("alice", "session.disconnected"),
        json!({"reason": "stopped", "statusCode": 428, "permanent": false, "willReconnect": false})
    );
    world.advance_secs(600);
    assert_eq!(world.event_names("alice"), [""; 0]);
    // A new attempt that fails is a new outage, and has the first pause.
    assert_eq!(world.command("alice", Command::Connect), Ok(Reply::Done));
    let events = world.events("alice");
    assert_eq!(names(&events), ["session.connecting", "session.disconnected", "session.reconnecting"]);
    assert_eq!((&events[1].data["reason"], &events[1].data["attempt"]), (&json!("connection_lost"), &json!(2)));
    assert!(is_about(pauses(&events)[0], 1_000));
    world.network("alice", Network::Up);
    world.advance_secs(2);
    assert_eq!(world.state("alice"), "CONNECTED");
    world.talk("alice", "bob");
}

// ---- keepalive --------------------------------------------------------------------------------------------------------

/// Lets time pass second by second until an event comes; gives it.
fn wait_for(world: &mut World, event: &str, seconds: u64) -> Envelope {
    for _ in 0..seconds {
        world.advance_secs(1);
        if let Some(found) = world.events("alice").into_iter().find(|envelope| envelope.event == event) {
            return found;
        }
    }
    panic!("no {event} within {seconds} s");
}

#[test]
fn missed_pings_are_told_and_two_in_a_row_end_the_connection() {
    let mut world = World::online(&["alice", "bob"]);
    world.advance_secs(300);
    assert_eq!(world.event_names("alice"), [""; 0], "pings that are answered are not told");
    let pings = world.heard("alice").iter().filter(|node| node.attr_str("xmlns").as_deref() == Some("w:p")).count();
    assert!((10..=15).contains(&pings), "one in 20 to 30 s: {pings}");

    world.network("alice", Network::Stalled);
    let lost = wait_for(&mut world, "session.keepalive_lost", 41);
    assert_eq!(lost.data["errorCount"], 1);
    let last = lost.data["lastSuccess"].as_u64().expect("there was one");
    assert!(lost.timestamp - last <= 40_000);
    assert_eq!(world.state("alice"), "CONNECTED");
    world.network("alice", Network::Up);
    world.advance_secs(1);
    let restored = world.only("alice", "session.keepalive_restored");
    assert_eq!((&restored["errorCount"], restored["lastSuccess"].is_u64()), (&json!(1), true));
    world.talk("alice", "bob");
    world.advance_secs(300);
    world.forget();

    world.network("alice", Network::Stalled);
    wait_for(&mut world, "session.keepalive_lost", 41);
    // The second ping leaves at once, and has its ten seconds.
    world.advance_secs(9);
    world.events("alice");
    assert_eq!(world.state("alice"), "CONNECTED");
    world.advance_secs(1);
    let events = world.events("alice");
    assert_eq!(names(&events), ["session.keepalive_lost", "session.disconnected", "session.reconnecting"]);
    assert_eq!(events[0].data["errorCount"], 2);
    assert_eq!(
        (&events[1].data["reason"], &events[1].data["detail"]),
        (&json!("connection_lost"), &json!("keepalives are not answered"))
    );
    world.network("alice", Network::Up);
    world.advance_secs(60);
    assert_eq!(world.state("alice"), "CONNECTED");
    world.talk("alice", "bob");
}

#[test]
fn pings_of_the_server_are_answered() {
    let mut world = World::online(&["alice"]);
    let ping = || Node::new("iq").attr("from", Jid::whatsapp_server()).attr("type", "get");
    let table = [
        (ping().attr("id", "P1").attr("xmlns", "urn:xmpp:ping"), Some("P1")),
        (ping().attr("id", "P2").child(Node::new("ping")), Some("P2")),
        (Node::new("iq").attr("from", Jid::whatsapp_server()).attr("xmlns", "urn:xmpp:ping"), None),
    ];
    for (stanza, id) in table {
        world.forget();
        world.stanza_arrives("alice", &stanza);
        let heard = world.heard("alice");
        assert_eq!(heard.len(), 1, "{stanza:?}");
        assert_eq!(heard[0].attr_str("type").as_deref(), Some("result"));
        assert_eq!(heard[0].attr_str("id").as_deref(), id);
        assert_eq!(heard[0].attr_jid("to"), Some(Jid::whatsapp_server()));
    }
}

// ---- logout -----------------------------------------------------------------------------------------------------------

/// What must hold after a logout: told once, nothing stored, and the next link is another device.
fn logged_out_for_good(world: &mut World, identity: &str) {
    assert_eq!(world.only("alice", "session.logged_out"), json!({"reason": "requested", "onConnect": false}),);
    assert_eq!(world.state("alice"), "LOGGED_OUT");
    let alice = world.actor("alice");
    assert_eq!((alice.count(), alice.records(RecordKind::OutboxHead).len()), (1, 1));
    world.network("alice", Network::Up);
    world.advance_secs(600);
    assert_eq!(world.event_names("alice"), [""; 0]);
    assert_eq!(world.command("alice", Command::Logout), Err(CommandError::NotLinked));

    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    let fields: Vec<_> = world.qr("alice").split(',').map(str::to_owned).collect();
    assert!(!identity.split(',').skip(1).take(3).any(|old| fields.iter().any(|new| new == old)), "all keys are new");
    world.scan("alice", &ScanOptions::default());
    assert_eq!(world.state("alice"), "CONNECTED");
    assert_eq!(world.data("alice", "session.connected").last().unwrap()["isNewLogin"], true);
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.talk("alice", "bob");
}

#[test]
fn a_logout_unlinks_and_removes_everything() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    let (identity, old) = (world.qr("alice"), world.device("alice"));
    world.forget();
    assert_eq!(world.command("alice", Command::Logout), Ok(Reply::Done));
    let accounts = world.server.accounts();
    assert!(
        accounts.iter().all(|account| account.devices.iter().all(|device| device.jid != old)),
        "unlinked there, too"
    );
    logged_out_for_good(&mut world, &identity);
    assert_ne!(world.device("alice"), old);
}

#[test]
fn a_logout_does_not_depend_on_the_server() {
    // The server does not answer.
    let mut world = World::online(&["alice", "bob"]);
    let identity = world.qr("alice");
    world.network("alice", Network::Stalled);
    let id = world.begin("alice", Command::Logout);
    world.advance_secs(4);
    assert_eq!(world.answer("alice", id), None);
    world.advance_secs(2);
    assert_eq!(world.answer("alice", id), Some(Ok(Reply::Done)));
    logged_out_for_good(&mut world, &identity);

    // The connection ends before the answer.
    let mut world = World::online(&["alice", "bob"]);
    let identity = world.qr("alice");
    world.network("alice", Network::Stalled);
    let id = world.begin("alice", Command::Logout);
    world.cut("alice");
    assert_eq!(world.answer("alice", id), Some(Ok(Reply::Done)));
    assert_eq!(world.only("alice", "session.logged_out")["reason"], "requested");
    assert_eq!(world.state("alice"), "LOGGED_OUT");
    assert_eq!(world.actor("alice").count(), 1);
    world.network("alice", Network::Up);
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    assert_ne!(world.qr("alice").split(',').nth(2), identity.split(',').nth(2));

    // There is no connection.
    let mut world = World::online(&["alice", "bob"]);
    let identity = world.qr("alice");
    world.command("alice", Command::Disconnect).unwrap();
    world.forget();
    assert_eq!(world.command("alice", Command::Logout), Ok(Reply::Done));
    let told = world.only("alice", "session.logged_out");
    assert_eq!(told["reason"], "requested");
    assert_eq!(world.actor("alice").count(), 1);
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    assert_ne!(world.qr("alice").split(',').nth(2), identity.split(',').nth(2));
}

#[test]
fn sends_that_were_under_way_are_told_as_failed_when_the_link_ends() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.command("alice", Command::Disconnect).unwrap();
    let ids: Vec<_> = (0..3).map(|n| world.send("alice", "bob", &format!("{n}"))).collect();
    world.forget();
    assert_eq!(world.command("alice", Command::Logout), Ok(Reply::Done));
    let events = world.events("alice");
    let failed: Vec<_> = named(&events, "message.failed");
    let told: Vec<_> = failed.iter().map(|event| event.data["messages"][0]["key"]["id"].as_str().unwrap()).collect();
    assert_eq!(told, ids.iter().map(|id| id.as_str()).collect::<Vec<_>>());
    assert!(failed.iter().all(|event| event.data["messages"][0]["error"]["code"] == "logged_out"));
    assert_eq!(world.snapshot("alice").sends, 0);
    world.link("alice");
    assert!(!world.all_events("bob").iter().any(|event| matches!(world::text_of(event), Some("0" | "1" | "2"))));
    world.talk("alice", "bob");
}

#[test]
fn a_removal_by_the_phone_is_noticed_at_once_or_at_the_next_login() {
    let mut world = World::online(&["alice", "bob"]);
    world.disconnect("alice", Disconnect::DeviceRemoved);
    assert_eq!(world.only("alice", "session.logged_out"), json!({"reason": "device_removed", "onConnect": false}));
    follows(&mut world, Next::Unlinked, "LOGGED_OUT");

    let mut world = World::online(&["alice", "bob"]);
    world.network("alice", Network::Refused);
    world.cut("alice");
    world.disconnect("alice", Disconnect::DeviceRemoved);
    world.forget();
    world.network("alice", Network::Up);
    world.advance_secs(5);
    assert_eq!(world.only("alice", "session.logged_out"), json!({"reason": "unauthorized", "onConnect": true}));
    follows(&mut world, Next::Unlinked, "LOGGED_OUT");
}

// ---- every command in every state ---------------------------------------------------------------------------------------

fn in_state(state: &str) -> World {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.advance_secs(60);
    let jid = world.device("alice");
    match state {
        "new" => {
            world = World::new(&["alice", "bob"]);
            world.link("bob");
        }
        "codes on the screen" => {
            world = World::new(&["alice", "bob"]);
            world.link("bob");
            world.command("alice", Command::LinkQr).unwrap();
        }
        "offline" => drop(world.command("alice", Command::Disconnect)),
        "just started" => world.crash_and_start("alice"),
        "opening" => {
            world.network("alice", Network::Stalled);
            world.command("alice", Command::Reconnect).unwrap();
        }
        "pause" => {
            world.network("alice", Network::Refused);
            world.cut("alice");
            world.network("alice", Network::Up);
        }
        "online" => {}
        "replaced" => world.disconnect("alice", Disconnect::Replaced),
        "outdated" | "banned" => {
            let reason = if state == "banned" { 402 } else { 405 };
            world.fault(Fault::RefuseLogin { jid, node: failure(reason) });
            world.command("alice", Command::Reconnect).unwrap();
        }
        "logged out" => world.disconnect("alice", Disconnect::DeviceRemoved),
        other => panic!("{other}"),
    }
    world.forget();
    world
}

#[test]
fn every_command_has_an_answer_in_every_state() {
    use CommandError::{AlreadyLinked, NotConnected, NotLinked};
    let done = || Ok(Reply::Done);
    let unlinked = ["new", "codes on the screen", "logged out"];
    let linked = ["offline", "just started", "opening", "pause", "online", "replaced", "outdated", "banned"];
    for state in unlinked.into_iter().chain(linked) {
        let is_linked = linked.contains(&state);
        let check = |command: Command, expected: Result<Reply, CommandError>| {
            let mut world = in_state(state);
            assert_eq!(world.command("alice", command.clone()), expected, "{command:?} when {state}");
            world.state("alice");
            world
        };
        let need_link = if is_linked { done() } else { Err(NotLinked) };

        let mut world = check(Command::Connect, need_link.clone());
        world.network("alice", Network::Up);
        world.advance_secs(5);
        assert_eq!(world.state("alice") == "CONNECTED", is_linked, "connect when {state}");

        let mut world = check(Command::Reconnect, need_link.clone());
        world.network("alice", Network::Up);
        world.advance_secs(5);
        assert_eq!(world.state("alice") == "CONNECTED", is_linked, "reconnect when {state}");

        let mut world = check(Command::LinkQr, if is_linked { Err(AlreadyLinked) } else { done() });
        if !is_linked {
            world.scan("alice", &ScanOptions::default());
            assert_eq!(world.state("alice"), "CONNECTED");
        }

        let mut world = check(Command::Disconnect, done());
        world.network("alice", Network::Up);
        let state_after = world.state("alice");
        world.forget();
        world.advance_secs(600);
        assert_eq!(
            (world.state("alice"), world.event_names("alice")),
            (state_after, Vec::new()),
            "stopped when {state}"
        );
        assert_eq!(world.conn("alice"), None);

        let mut world = check(Command::Logout, need_link);
        world.advance_secs(1);
        assert_eq!(world.snapshot("alice").jid, None);
        assert_eq!(world.command("alice", Command::LinkQr), done());

        let ids = vec!["A".to_owned()];
        let bob = world.jid("bob");
        let read = Command::MarkRead { chat: bob.clone(), participant: None, ids };
        check(read, if state == "online" { done() } else { Err(NotConnected) });

        let mut world = in_state(state);
        let answer = world.command("alice", Command::Send(SendRequest::text(bob, "hello")));
        assert_eq!(answer.is_ok(), is_linked, "send when {state}: {answer:?}");
        if is_linked {
            world.network("alice", Network::Up);
            world.command("alice", Command::Connect).unwrap();
            world.advance_secs(5);
            let events = world.events("bob");
            assert_eq!(events.iter().filter_map(world::text_of).collect::<Vec<_>>(), ["hello"], "send when {state}");
        } else {
            assert_eq!(answer, Err(NotLinked), "send when {state}");
        }
    }
}

#[test]
fn commands_that_change_nothing_tell_nothing() {
    let mut world = World::online(&["alice"]);
    for (command, answer) in [
        (Command::Connect, Ok(Reply::Done)),
        (Command::Connect, Ok(Reply::Done)),
        (Command::LinkQr, Err(CommandError::AlreadyLinked)),
    ] {
        assert_eq!(world.command("alice", command), answer);
    }
    assert_eq!(world.event_names("alice"), [""; 0]);
    for _ in 0..3 {
        assert_eq!(world.command("alice", Command::Disconnect), Ok(Reply::Done));
    }
    assert_eq!(world.event_names("alice"), ["session.disconnected"]);
}
