//! Linking by QR code: which codes are shown, for how long, and what comes of them (spec 01 §4, 07 §3).

use crate::world::{START_MS, World, named};
use serde_json::{Value, json};
use wamd::{
    Jid,
    engine::{Command, CommandError, Reply},
    event::Envelope,
    node::Node,
};
use wamd_loopback::{ScanError, ScanOptions};

fn linking() -> World {
    let mut world = World::new(&["alice", "bob"]);
    world.link("bob");
    world.forget();
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    world
}

/// Index, total, lifetime and second of every code shown.
fn codes(events: &[Envelope]) -> Vec<(u64, u64, u64, u64)> {
    let number = |data: &Value, name: &str| data[name].as_u64().unwrap();
    let shown = named(events, "session.qr_updated").into_iter().map(|event| {
        let data = &event.data;
        let lifetime = number(data, "expiresInMs");
        assert_eq!(number(data, "expiresAt"), event.timestamp + lifetime);
        (number(data, "index"), number(data, "total"), lifetime, (event.timestamp - START_MS) / 1_000)
    });
    shown.collect()
}

fn pair_device(id: &str, refs: &[&str]) -> Node {
    let refs = refs.iter().map(|text| Node::new("ref").bytes(text.as_bytes().to_vec()));
    Node::new("iq")
        .attr("from", Jid::whatsapp_server())
        .attr("type", "set")
        .attr("id", id)
        .attr("xmlns", "md")
        .child(Node::new("pair-device").children(refs))
}

#[test]
fn six_codes_are_shown_and_then_none() {
    let mut world = linking();
    assert_eq!(world.state("alice"), "PENDING");
    // The refs are taken with a result.
    let heard = world.heard("alice");
    assert_eq!(heard.len(), 1);
    assert_eq!((heard[0].tag(), heard[0].attr_str("type").as_deref()), ("iq", Some("result")));

    world.advance_secs(159);
    assert_eq!(world.state("alice"), "PENDING");
    assert!(world.conn("alice").is_some());
    world.advance_secs(1);
    let events = world.events("alice");
    assert_eq!(
        codes(&events),
        [
            (1, 6, 60_000, 0),
            (2, 6, 20_000, 60),
            (3, 6, 20_000, 80),
            (4, 6, 20_000, 100),
            (5, 6, 20_000, 120),
            (6, 6, 20_000, 140)
        ]
    );
    let shown = named(&events, "session.qr_updated");
    let mut texts: Vec<_> = shown.iter().map(|event| event.data["qr"].as_str().unwrap()).collect();
    for text in &texts {
        let fields = text.strip_prefix("https://wa.me/settings/linked_devices#").expect("the link").split(',');
        assert_eq!(fields.count(), 5, "{text}");
    }
    texts.dedup();
    assert_eq!(texts.len(), 6);
    assert!(events.iter().all(|event| event.seq.is_none()), "codes are of no use after a restart");
    let last = events.last().unwrap();
    assert_eq!((&*last.event, &last.data), ("session.qr_exhausted", &json!({})));
    assert_eq!((world.state("alice"), world.conn("alice")), ("PENDING", None));
    assert_eq!(named(&events, "session.disconnected").len(), 0);

    world.advance_secs(3_600);
    assert_eq!(world.event_names("alice"), [""; 0], "nothing more happens by itself");
    world.link("alice");
    world.talk("alice", "bob");
}

#[test]
fn every_code_can_be_scanned_while_it_is_shown() {
    for (second, index) in [(0, 1), (59, 1), (61, 2), (99, 3), (159, 6)] {
        let mut world = linking();
        world.advance_secs(second);
        assert_eq!(codes(&world.events("alice")).last().unwrap().0, index);
        world.scan("alice", &ScanOptions::default());
        assert_eq!(world.state("alice"), "CONNECTED", "code {index}");
        world.advance_secs(300);
        assert_eq!(codes(&world.events("alice")), [], "no code is shown after it was scanned");
        world.talk("alice", "bob");
    }
}

#[test]
fn new_refs_start_again() {
    let mut world = linking();
    world.advance_secs(30);
    world.forget();
    world.stanza_arrives("alice", &pair_device("R2", &["2@one", "2@two"]));
    let heard = world.heard("alice");
    assert_eq!((heard.len(), heard[0].attr_str("id").as_deref()), (1, Some("R2")));
    world.advance_secs(79);
    let events = world.events("alice");
    assert_eq!(codes(&events), [(1, 2, 60_000, 30), (2, 2, 20_000, 90)]);
    let text = events[0].data["qr"].as_str().unwrap();
    assert!(text.contains("#2@one,"), "{text}");
    world.advance_secs(1);
    assert_eq!(world.event_names("alice"), ["session.qr_exhausted"]);
    assert_eq!((world.state("alice"), world.conn("alice")), ("PENDING", None));
}

#[test]
fn refs_that_cannot_be_shown_end_the_attempt() {
    let long = "x".repeat(10_000);
    let many = vec!["2@ref"; 1_000];
    let table: [&[&str]; 4] = [&[], &[""], &["2@a,b"], &[&long]];
    for refs in table.into_iter().chain([&many[..]]) {
        let mut world = linking();
        world.forget();
        world.stanza_arrives("alice", &pair_device("R2", refs));
        assert_eq!(world.only("alice", "session.pair_error"), json!({"error": "internal-error"}));
        let heard = world.heard("alice");
        assert_eq!((heard.len(), heard[0].attr_str("type").as_deref()), (1, Some("error")));
        assert_eq!((world.state("alice"), world.conn("alice")), ("PENDING", None));
        world.link("alice");
    }
}

#[test]
fn what_linking_tells() {
    let mut world = linking();
    world.forget();
    let options = ScanOptions {
        platform: Some("smba".to_owned()),
        business_name: Some("Ada's Shop".to_owned()),
        ..ScanOptions::default()
    };
    let linked = world.scan("alice", &options);
    let events = world.events("alice");
    let names: Vec<_> = events.iter().map(|event| &*event.event).collect();
    assert_eq!(names[..4], ["session.paired", "session.reconnecting", "session.connecting", "session.connected"]);
    assert_eq!(
        events[0].data,
        json!({"jid": linked.jid.to_string(), "lid": linked.lid.to_string(), "platform": "smba",
            "businessName": "Ada's Shop"})
    );
    assert_eq!(
        events[3].data,
        json!({"phone": "15550000001", "jid": linked.jid.to_string(), "lid": linked.lid.to_string(),
            "pushName": null, "platform": "smba", "isNewLogin": true, "businessName": "Ada's Shop"})
    );
    let snapshot = world.snapshot("alice");
    assert_eq!((snapshot.jid, snapshot.lid), (Some(linked.jid), Some(linked.lid)));
}

#[test]
fn hosted_accounts_and_those_without_lid_link_too() {
    for options in [
        ScanOptions { hosted: true, ..ScanOptions::default() },
        ScanOptions { without_lid: true, ..ScanOptions::default() },
    ] {
        let mut world = linking();
        world.forget();
        let linked = world.scan("alice", &options);
        let events = world.events("alice");
        let lid = if options.without_lid { Value::Null } else { json!(linked.lid.to_string()) };
        assert_eq!(named(&events, "session.paired")[0].data["lid"], lid);
        // The server tells it at login.
        assert_eq!(named(&events, "session.connected")[0].data["lid"], linked.lid.to_string());
        world.talk("alice", "bob");
        world.crash_and_start("alice");
        world.command("alice", Command::Connect).unwrap();
        world.talk("alice", "bob");
    }
}

#[test]
fn an_old_phone_is_told_and_the_code_stays() {
    let mut world = linking();
    world.forget();
    let told = Node::new("ib").attr("from", Jid::whatsapp_server()).child(Node::new("downgrade_webclient"));
    world.stanza_arrives("alice", &told);
    assert_eq!(world.event_names("alice"), ["session.qr_scanned_without_multidevice"]);
    assert_eq!(world.state("alice"), "PENDING");
    world.scan("alice", &ScanOptions::default());
    assert_eq!(world.state("alice"), "CONNECTED");
    world.forget();
    world.stanza_arrives("alice", &told);
    assert_eq!(world.event_names("alice"), [""; 0], "only while linking");
}

#[test]
fn linking_twice() {
    let mut world = linking();
    world.forget();
    let (conn, qr) = (world.conn("alice"), world.qr("alice"));
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done), "it is under way");
    assert_eq!((world.event_names("alice"), world.conn("alice")), (Vec::new(), conn));
    world.scan("alice", &ScanOptions::default());
    let device = world.device("alice");
    assert_eq!(world.command("alice", Command::LinkQr), Err(CommandError::AlreadyLinked));
    assert_eq!((world.device("alice"), world.state("alice")), (device, "CONNECTED"));
    // The code is gone.
    let now = world.now();
    let again = world.server.scan(now, "15550000009", &qr, &ScanOptions::default());
    assert_eq!(again, Err(ScanError::UnknownRef));
    // Nor can a second answer of a phone change anything.
    world.forget();
    world.stanza_arrives("alice", &pair_device("R9", &["2@late"]));
    assert_eq!((world.event_names("alice"), world.heard("alice")), (Vec::new(), Vec::new()));
    world.talk("alice", "bob");
}

#[test]
fn a_lost_connection_brings_new_codes() {
    let mut world = linking();
    let first = world.qr("alice");
    world.advance_secs(10);
    world.forget();
    world.cut("alice");
    world.advance_secs(2);
    let events = world.events("alice");
    let names: Vec<_> = events.iter().map(|event| &*event.event).collect();
    assert_eq!(names, ["session.disconnected", "session.reconnecting", "session.connecting", "session.qr_updated"]);
    assert_eq!(events[3].data["index"], 1);
    assert_ne!(world.qr("alice"), first);
    world.scan("alice", &ScanOptions::default());
    assert_eq!(world.state("alice"), "CONNECTED");
    world.talk("alice", "bob");
}

#[test]
fn an_attempt_can_be_given_up() {
    let mut world = linking();
    world.forget();
    assert_eq!(world.command("alice", Command::Disconnect), Ok(Reply::Done));
    assert_eq!(world.conn("alice"), None);
    assert_eq!(world.event_names("alice"), ["session.disconnected"]);
    world.advance_secs(300);
    assert_eq!(world.event_names("alice"), [""; 0]);
    world.link("alice");
    world.talk("alice", "bob");
}
