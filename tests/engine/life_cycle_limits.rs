//! What bounds the life of a connection: dials a minute, looking for a newer version, replacements, resuming, routing, uploads
//! of prekeys, reports, and times that are too long (spec 01 §1.3, §2.4, §3.6, §6; 07 §3).

use std::time::Duration;

use crate::world::{Disk, Network, Provider, World, named};
use serde_json::json;
use wamd::{
    Jid,
    engine::{Command, CommandError, Input, Reply},
    event::Envelope,
    node::Node,
    noise::frame::IntroReader,
    pairing::payload::{VERSION, Version},
    store::{RecordKind, StoreError},
};
use wamd_loopback::{Disconnect, Fault, Pattern};

/// The limit unless a test says otherwise.
const MAX_DIALS: usize = 12;

fn names(events: &[Envelope]) -> Vec<&str> {
    events.iter().map(|event| &*event.event).collect()
}

fn reconnect(world: &mut World) {
    assert_eq!(world.command("alice", Command::Reconnect), Ok(Reply::Done));
}

fn dials(world: &mut World) -> usize {
    world.actor("alice").sent.len()
}

fn ib(child: Node) -> Node {
    Node::new("ib").attr("from", Jid::whatsapp_server()).child(child)
}

// ---- versions -----------------------------------------------------------------------------------------------------------

fn newer(by: u32) -> Version {
    Version::web(VERSION.tertiary + by)
}

/// Alice was online for a while, and from now on the server takes this version and later ones.
fn outdated(minimum: Version) -> World {
    let mut world = World::online(&["alice", "bob"]);
    world.advance_secs(61);
    world.fault(Fault::MinimumVersion { version: Some([minimum.primary, minimum.secondary, minimum.tertiary]) });
    world.forget();
    world
}

const REFUSED: [&str; 4] = ["session.reconnecting", "session.connecting", "session.disconnected", "session.outdated"];

#[test]
fn a_refused_version_is_refreshed_and_one_dial_is_made_with_it() {
    let mut world = outdated(newer(1));
    world.actor("alice").provider = Provider::Answers(Some(newer(1)));
    reconnect(&mut world);
    let events = world.events("alice");
    assert_eq!(names(&events)[..4], REFUSED);
    assert_eq!(events[3].data, json!({"version": VERSION.to_string()}));
    assert_eq!(names(&events)[4..7], ["session.reconnecting", "session.connecting", "session.connected"]);
    assert_eq!(events[4].data, json!({"attempt": 1, "delayMs": 0, "reason": "outdated"}));
    assert_eq!((world.actor("alice").refreshes, world.snapshot("alice").version), (1, newer(1)));
    // The next time it is looked for again.
    world.fault(Fault::MinimumVersion { version: Some([2, 3000, newer(2).tertiary]) });
    world.actor("alice").provider = Provider::Answers(Some(newer(2)));
    reconnect(&mut world);
    assert_eq!((world.state("alice"), world.actor("alice").refreshes), ("CONNECTED", 2));
    world.talk("alice", "bob");
}

#[test]
fn a_refreshed_version_that_is_refused_is_the_end_until_the_caller_acts() {
    let mut world = outdated(newer(9));
    world.actor("alice").provider = Provider::Answers(Some(newer(1)));
    reconnect(&mut world);
    let events = world.events("alice");
    assert_eq!(names(&events)[..4], REFUSED);
    assert_eq!(names(&events)[4..], REFUSED);
    assert_eq!(events[7].data, json!({"version": newer(1).to_string()}));
    let made = dials(&mut world);
    world.advance_secs(3_600);
    assert_eq!((world.state("alice"), dials(&mut world)), ("OUTDATED", made));
    assert_eq!(world.actor("alice").refreshes, 1);

    world.actor("alice").provider = Provider::Answers(Some(newer(9)));
    reconnect(&mut world);
    assert_eq!((world.state("alice"), world.actor("alice").refreshes), ("CONNECTED", 2));
}

#[test]
fn without_another_version_there_is_no_other_dial() {
    for answer in [None, Some(VERSION)] {
        let mut world = outdated(newer(1));
        world.actor("alice").provider = Provider::Answers(answer);
        reconnect(&mut world);
        assert_eq!(world.event_names("alice"), REFUSED);
        world.advance_secs(3_600);
        assert_eq!((world.state("alice"), world.actor("alice").refreshes), ("OUTDATED", 1));
        assert_eq!(world.event_names("alice"), [""; 0]);
        // One that comes later is used when the caller says so.
        assert_eq!(world.command("alice", Command::SetVersion(newer(1))), Ok(Reply::Done));
        assert_eq!((world.state("alice"), world.snapshot("alice").version), ("OUTDATED", newer(1)));
        assert_eq!(world.command("alice", Command::Connect), Ok(Reply::Done));
        assert_eq!(world.state("alice"), "CONNECTED");
    }
}

#[test]
fn a_version_is_waited_for_for_a_while() {
    let waits = || {
        let mut world = outdated(newer(1));
        world.actor("alice").provider = Provider::Silent;
        reconnect(&mut world);
        assert_eq!(world.event_names("alice"), REFUSED);
        world.advance_secs(29);
        world
    };
    let mut world = waits();
    world.say("alice", Input::Version(Some(newer(1))));
    assert_eq!(world.state("alice"), "CONNECTED");

    // The caller knows better than the driver.
    let mut world = waits();
    assert_eq!(world.command("alice", Command::SetVersion(newer(1))), Ok(Reply::Done));
    assert_eq!(world.state("alice"), "CONNECTED");

    // Asking once more is no other dial with the same version.
    let mut world = waits();
    let made = dials(&mut world);
    reconnect(&mut world);
    assert_eq!(world.command("alice", Command::Connect), Ok(Reply::Done));
    assert_eq!((world.state("alice"), dials(&mut world)), ("OUTDATED", made));

    let mut world = waits();
    world.advance_secs(1);
    world.say("alice", Input::Version(Some(newer(1))));
    assert_eq!(world.state("alice"), "OUTDATED");
    assert_eq!(world.event_names("alice"), [""; 0]);
    reconnect(&mut world);
    assert_eq!((world.state("alice"), world.actor("alice").refreshes), ("CONNECTED", 1));

    // Who gave up is not called back.
    let mut world = waits();
    assert_eq!(world.command("alice", Command::Disconnect), Ok(Reply::Done));
    world.say("alice", Input::Version(Some(newer(1))));
    assert_eq!((world.state("alice"), world.event_names("alice")), ("OUTDATED", Vec::new()));
}

// ---- dials --------------------------------------------------------------------------------------------------------------

#[test]
fn asking_often_is_one_dial() {
    let mut world = World::online(&["alice", "bob"]);
    world.network("alice", Network::Stalled);
    let before = dials(&mut world);
    world.forget();
    for _ in 0..10 {
        reconnect(&mut world);
    }
    assert_eq!(dials(&mut world), before + 1);
    assert_eq!(world.event_names("alice"), ["session.reconnecting", "session.connecting"]);
    world.network("alice", Network::Up);
    assert_eq!(world.state("alice"), "CONNECTED");

    // A pause is cut short, once.
    world.network("alice", Network::Refused);
    world.cut("alice");
    world.advance_secs(15);
    world.network("alice", Network::Stalled);
    let before = dials(&mut world);
    for _ in 0..10 {
        reconnect(&mut world);
    }
    assert_eq!(dials(&mut world), before + 1);
    world.network("alice", Network::Up);
    world.talk("alice", "bob");
}

#[test]
fn dials_a_minute_are_limited_whoever_asks_for_them() {
    let mut world = World::online(&["alice", "bob"]);
    world.advance_secs(61);
    world.network("alice", Network::Refused);
    world.forget();
    let before = dials(&mut world);
    for _ in 0..50 {
        reconnect(&mut world);
    }
    assert_eq!(dials(&mut world), before + MAX_DIALS);
    // The last pause that was told is the one until there is room.
    let events = world.events("alice");
    let told = named(&events, "session.reconnecting").last().unwrap().data["delayMs"].as_u64().unwrap();
    assert_eq!(told, 60_000);
    world.network("alice", Network::Up);
    world.advance_secs(59);
    assert_eq!((world.state("alice"), dials(&mut world)), ("DISCONNECTED", before + MAX_DIALS));
    world.advance_secs(1);
    assert_eq!(world.state("alice"), "CONNECTED");
    world.talk("alice", "bob");
}

#[test]
fn an_own_limit_holds_and_none_at_all_is_one() {
    for (limit, dialled) in [(3, 3), (0, 1)] {
        let mut world = World::new(&["bob"]);
        world.add("alice", "15550000009", |config| config.max_dials_per_minute = limit);
        assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
        world.forget();
        for _ in 0..10 {
            world.command("alice", Command::Disconnect).unwrap();
            world.command("alice", Command::LinkQr).unwrap();
        }
        assert_eq!(dials(&mut world), dialled);
        assert_eq!(world.state("alice"), "DISCONNECTED");
        world.advance_secs(60);
        assert_eq!(dials(&mut world), dialled + 1);
        assert_eq!(world.state("alice"), "PENDING");
    }
}

#[test]
fn a_loop_of_restarts_is_no_outage_and_no_storm() {
    let mut world = World::online(&["alice"]);
    world.advance_secs(61);
    world.forget();
    let before = dials(&mut world);
    let restart = Node::new("stream:error").attr("code", 515);
    for _ in 0..MAX_DIALS {
        assert_eq!(world.state("alice"), "CONNECTED");
        world.stanza_arrives("alice", &restart);
    }
    world.stanza_arrives("alice", &restart);
    assert_eq!((world.state("alice"), dials(&mut world)), ("CONNECTING", before + MAX_DIALS));
    let events = world.events("alice");
    assert_eq!(named(&events, "session.disconnected").len(), 0);
    assert_eq!(
        named(&events, "session.reconnecting").last().unwrap().data,
        json!({"attempt": 1, "delayMs": 60_000, "reason": "restart_required"})
    );
    world.advance_secs(60);
    assert_eq!((world.state("alice"), dials(&mut world)), ("CONNECTED", before + MAX_DIALS + 1));
}

#[test]
fn who_is_replaced_too_often_cools_down() {
    let mut world = World::online(&["alice", "bob"]);
    for _ in 0..3 {
        world.disconnect("alice", Disconnect::Replaced);
        assert_eq!(world.state("alice"), "REPLACED");
        world.advance_secs(5);
        reconnect(&mut world);
        assert_eq!(world.state("alice"), "CONNECTED");
    }
    world.disconnect("alice", Disconnect::Replaced);
    world.advance_secs(10);
    world.forget();
    reconnect(&mut world);
    assert_eq!(
        world.only("alice", "session.reconnecting"),
        json!({"attempt": 1, "delayMs": 20_000, "reason": "replaced"})
    );
    reconnect(&mut world);
    assert_eq!(world.command("alice", Command::Connect), Ok(Reply::Done));
    assert_eq!(world.event_names("alice"), [""; 0], "nothing new");
    world.advance_secs(19);
    assert_eq!(world.state("alice"), "DISCONNECTED");
    world.advance_secs(1);
    assert_eq!(world.state("alice"), "CONNECTED");
    // Once in a while is no fight.
    world.advance_secs(60);
    world.disconnect("alice", Disconnect::Replaced);
    reconnect(&mut world);
    assert_eq!(world.state("alice"), "CONNECTED");
}

// ---- resuming, routing --------------------------------------------------------------------------------------------------

/// The server hello of the next handshake is spoiled in its last byte, inside the sealed certificates.
fn spoil_hello(world: &mut World) {
    world.change_next("alice", |bytes| {
        let mut bytes = bytes.to_vec();
        *bytes.last_mut().expect("a frame") ^= 1;
        bytes.into()
    });
}

fn pattern(world: &World) -> Option<Pattern> {
    world.server.pattern(&world.device("alice"))
}

#[test]
fn resuming_that_fails_is_counted_and_given_up() {
    let mut world = World::online(&["alice", "bob"]);
    for failures in 1..=3 {
        reconnect(&mut world);
        assert_eq!((world.state("alice"), pattern(&world)), ("CONNECTED", Some(Pattern::Ik)), "{failures}");
        world.advance_secs(60);
        let chain = world.actor("alice").records(RecordKind::Account);
        spoil_hello(&mut world);
        reconnect(&mut world);
        assert_eq!((world.state("alice"), world.snapshot("alice").resume_failures), ("DISCONNECTED", failures));
        assert_ne!(world.actor("alice").records(RecordKind::Account), chain, "the chain is not kept");
        world.advance_secs(2);
        assert_eq!((world.state("alice"), pattern(&world)), ("CONNECTED", Some(Pattern::Xx)), "{failures}");
        world.advance_secs(60);
    }
    reconnect(&mut world);
    assert_eq!(pattern(&world), Some(Pattern::Ik), "each was followed by one that succeeded");

    let mut world = World::online(&["alice", "bob"]);
    for failures in 1..=3 {
        world.advance_secs(60);
        spoil_hello(&mut world);
        reconnect(&mut world);
        assert_eq!(world.snapshot("alice").resume_failures, failures);
        world.advance_secs(2);
        assert_eq!(pattern(&world), Some(Pattern::Xx));
    }
    for _ in 0..3 {
        world.advance_secs(60);
        reconnect(&mut world);
        assert_eq!(pattern(&world), Some(Pattern::Xx), "this process tries no more");
    }
    world.crash_and_start("alice");
    reconnect(&mut world);
    assert_eq!(pattern(&world), Some(Pattern::Ik), "another one does");
}

/// A connection is made, and the client hello gets no answer.
fn unanswered(world: &mut World) {
    world.actor("alice").network = Network::Up;
    world.begin("alice", Command::Reconnect);
    world.steps(1);
    world.network("alice", Network::Stalled);
    assert_eq!(world.state("alice"), "CONNECTING");
    world.advance_secs(20);
    assert_eq!(world.state("alice"), "DISCONNECTED");
}

#[test]
fn trouble_of_the_network_does_not_count_against_resuming() {
    let mut world = World::online(&["alice"]);
    for _ in 0..4 {
        world.advance_secs(60);
        unanswered(&mut world);
        world.network("alice", Network::Up);
        world.advance_secs(2);
        assert_eq!((world.state("alice"), pattern(&world)), ("CONNECTED", Some(Pattern::Ik)));
    }
    assert_eq!(world.snapshot("alice").resume_failures, 0);
}

/// The routing info in front of the newest connection that got so far as to send something.
fn routing(world: &mut World) -> Option<Vec<u8>> {
    let sent = &world.actor("alice").sent;
    let first = sent.iter().rev().find_map(|connection| connection.first()).expect("it has connected");
    let mut reader = IntroReader::new(0x1_0000);
    reader.push(first);
    reader.next_intro().unwrap().expect("an intro").routing_info.map(|info| info.to_vec())
}

#[test]
fn routing_info_that_gets_no_answer_twice_is_dropped() {
    let mut world = World::online(&["alice"]);
    world.advance_secs(60);
    for _ in 0..2 {
        // Once may be the network.
        unanswered(&mut world);
        assert!(routing(&mut world).is_some());
    }
    world.network("alice", Network::Up);
    world.advance_secs(2);
    assert_eq!((world.state("alice"), routing(&mut world)), ("CONNECTED", None));
    reconnect(&mut world);
    assert!(routing(&mut world).is_some(), "the server gave another one");
}

#[test]
fn routing_info_is_kept_when_it_is_new_and_not_too_long() {
    let mut world = World::online(&["alice"]);
    let info = |bytes: Vec<u8>| ib(Node::new("edge_routing").child(Node::new("routing_info").bytes(bytes)));
    world.stanza_arrives("alice", &info(vec![1; 4_096]));
    let batches = world.snapshot("alice").batches;
    world.stanza_arrives("alice", &info(vec![1; 4_096]));
    world.stanza_arrives("alice", &info(vec![2; 4_097]));
    assert_eq!(world.snapshot("alice").batches, batches, "nothing to store");
    reconnect(&mut world);
    assert_eq!(routing(&mut world), Some(vec![1; 4_096]));
}

// ---- what the server asks for -------------------------------------------------------------------------------------------

/// What was reported as clean since the last call: area and timestamp.
fn cleaned(world: &mut World) -> Vec<(String, u64)> {
    let heard = world.heard("alice");
    let clean = heard.iter().filter_map(|node| {
        assert!(
            node.find_child("clean").is_none() || node.attr_str("xmlns").as_deref() == Some("urn:xmpp:whatsapp:dirty")
        );
        node.find_child("clean")
    });
    clean.map(|clean| (clean.attr_str("type").unwrap().into_owned(), clean.attr_u64("timestamp").unwrap())).collect()
}

fn dirty(kind: &str, timestamp: u64) -> Node {
    ib(Node::new("dirty").attr("type", kind).attr("timestamp", timestamp))
}

#[test]
fn what_is_dirty_is_told_and_reported_as_clean() {
    let mut world = World::online(&["alice", "bob"]);
    world.heard("alice");
    for kind in ["account_sync", "groups", "communities", "newsletter_metadata"] {
        world.stanza_arrives("alice", &dirty(kind, 7));
        assert_eq!(world.only("alice", "account.dirty"), json!({"type": kind, "timestamp": 7}));
        assert_eq!(cleaned(&mut world), [(kind.to_owned(), 7)]);
    }
    for kind in ["syncd_app_state", "something"] {
        world.stanza_arrives("alice", &dirty(kind, 7));
        assert_eq!(world.only("alice", "account.dirty")["type"], kind);
        assert_eq!(cleaned(&mut world), [], "nothing of it is fetched");
    }
    // Without a version there is nothing to report.
    world.stanza_arrives("alice", &ib(Node::new("dirty").attr("type", "account_sync")));
    assert_eq!(cleaned(&mut world), []);
}

#[test]
fn one_report_per_area_is_under_way() {
    let mut world = World::online(&["alice"]);
    world.network("alice", Network::Stalled);
    for timestamp in 1..50 {
        let (conn, now) = (world.conn("alice").unwrap(), world.now());
        world.server.inject(now, conn, &dirty("groups", timestamp));
    }
    world.heard("alice");
    world.network("alice", Network::Up);
    let reports = cleaned(&mut world);
    assert_eq!(reports.first().map(|report| report.1), Some(1));
    assert_eq!(reports.last().map(|report| report.1), Some(49), "the newest is reported");
    assert_eq!(reports.len(), 2, "{reports:?}");
}

#[test]
fn prekeys_are_not_made_as_often_as_the_server_likes() {
    let mut world = World::online(&["alice"]);
    let uploads = |world: &mut World| {
        let heard = world.heard("alice");
        heard.iter().filter(|node| node.find_child("skey").is_some()).count()
    };
    world.advance_secs(3_600);
    uploads(&mut world);
    let low = |n: u32| {
        let count = Node::new("count").attr("value", 1);
        let node = Node::new("notification").attr("type", "encrypt").attr("id", format!("N{n}"));
        node.attr("from", Jid::whatsapp_server()).child(count)
    };
    for n in 0..40 {
        world.stanza_arrives("alice", &low(n));
    }
    assert_eq!(uploads(&mut world), 5);
    assert_eq!(world.state("alice"), "CONNECTED");
    // Later they are counted, and there are enough.
    world.advance_secs(599);
    world.heard("alice");
    world.advance_secs(1);
    let asked = world.heard("alice").iter().filter(|node| node.find_child("count").is_some()).count();
    assert_eq!(asked, 1);
    world.stanza_arrives("alice", &low(99));
    assert_eq!(uploads(&mut world), 1);
}

// ---- the embedding program ----------------------------------------------------------------------------------------------

#[test]
fn times_may_be_as_long_as_they_like() {
    let mut world = World::new(&["bob"]);
    world.link("bob");
    world.add("alice", "15550000009", |config| {
        config.keepalive = Duration::MAX..=Duration::MAX;
        for span in [
            &mut config.keepalive_timeout,
            &mut config.handshake_timeout,
            &mut config.login_timeout,
            &mut config.query_timeout,
            &mut config.ack_timeout,
            &mut config.logout_timeout,
            &mut config.max_backoff,
            &mut config.version_timeout,
        ] {
            *span = Duration::MAX;
        }
    });
    world.link("alice");
    world.talk("alice", "bob");
    reconnect(&mut world);
    world.cut("alice");
    world.advance_secs(2);
    world.talk("alice", "bob");
    world.fault(Fault::MinimumVersion { version: Some([9, 0, 0]) });
    reconnect(&mut world);
    assert_eq!(world.state("alice"), "OUTDATED");
    assert_eq!(world.command("alice", Command::Logout), Ok(Reply::Done));
}

#[test]
fn times_of_nothing_do_not_spin() {
    let mut world = World::new(&["bob"]);
    world.link("bob");
    world.add("alice", "15550000009", |config| {
        config.keepalive = Duration::ZERO..=Duration::ZERO;
        config.keepalive_timeout = Duration::ZERO;
        config.max_backoff = Duration::ZERO;
        config.version_timeout = Duration::ZERO;
    });
    world.link("alice");
    world.advance_secs(60);
    let made = dials(&mut world);
    world.network("alice", Network::Refused);
    world.advance_secs(60);
    assert!(dials(&mut world) <= made + MAX_DIALS);
}

#[test]
fn a_logout_that_several_want_is_one() {
    let mut world = World::online(&["alice"]);
    world.network("alice", Network::Stalled);
    let ids: Vec<_> = (0..3).map(|_| world.begin("alice", Command::Logout)).collect();
    world.settle();
    world.heard("alice");
    world.network("alice", Network::Up);
    for id in ids {
        assert_eq!(world.answer("alice", id), Some(Ok(Reply::Done)));
    }
    let asked = world.heard("alice").iter().filter(|node| node.find_child("remove-companion-device").is_some()).count();
    assert_eq!(asked, 1);
    assert_eq!(world.data("alice", "session.logged_out").len(), 1);
}

#[test]
fn a_device_that_may_not_be_linked_is_told() {
    let refusals = [401, 403, 406, 415].map(|reason| Node::new("failure").attr("reason", reason));
    let errors = [401, 516].map(|code| Node::new("stream:error").attr("code", code));
    for node in refusals.into_iter().chain(errors) {
        let mut world = World::new(&["alice"]);
        assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
        world.forget();
        world.stanza_arrives("alice", &node);
        let events = world.events("alice");
        let told = names(&events);
        assert_eq!(told.last(), Some(&"session.pair_error"), "{node:?}");
        assert_eq!(events.last().unwrap().data, json!({"error": "refused"}));
        assert_eq!(named(&events, "session.connect_failure").len(), usize::from(node.tag() == "failure"));
        world.advance_secs(600);
        assert_eq!((world.state("alice"), world.conn("alice")), ("PENDING", None));
        world.link("alice");
    }
}

#[test]
fn a_store_that_fails_is_told_without_it() {
    let mut world = World::online(&["alice", "bob"]);
    world.advance_secs(60);
    world.forget();
    world.disk("alice", Disk::FailsAfter(0));
    world.phone_sends("15550000002", "alice", "hello");
    let events = world.events("alice");
    assert_eq!(names(&events), ["store.failed", "session.disconnected", "session.reconnecting"]);
    assert!(events.iter().all(|event| event.seq.is_none()), "they stand in no outbox");
    assert_eq!(
        events[1].data,
        json!({"reason": "storage", "statusCode": 500, "permanent": false, "willReconnect": true, "attempt": 1,
            "nextRetryMs": 1_000, "detail": "the store failed"})
    );
    assert_eq!(world.state("alice"), "DISCONNECTED");
    let id = world.begin("alice", Command::SetVersion(newer(1)));
    assert_eq!(world.answer("alice", id), None, "it waits for the account");
    world.advance_secs(1);
    assert_eq!(world.answer("alice", id), Some(Ok(Reply::Done)));
    assert_eq!(world.state("alice"), "CONNECTED");
    world.talk("alice", "bob");

    // A second failure is what a command waits for at most.
    world.say("alice", Input::StoreFailed(StoreError::Backend("disk full".into())));
    let id = world.begin("alice", Command::Connect);
    world.say("alice", Input::StoreFailed(StoreError::Backend("disk full".into())));
    assert_eq!(world.answer("alice", id), Some(Err(CommandError::Interrupted)));
    world.advance_secs(2);
    assert_eq!(world.state("alice"), "CONNECTED");
}
