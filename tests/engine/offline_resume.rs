//! What happened while the account was away arrives once, in order, and marked as late; and a crash at any moment
//! between receiving and answering changes nothing of that (spec 01 §6.8, 07 §6).

use std::time::Duration;

use crate::world::{self, Disk, World, named, text_of};
use serde_json::json;
use wamd::{
    Jid,
    engine::{Command, Reply},
    event::Envelope,
    node::Node,
};

fn texts(events: &[Envelope]) -> Vec<&str> {
    events.iter().filter_map(text_of).collect()
}

fn away(world: &mut World, name: &str) {
    assert_eq!(world.command(name, Command::Disconnect), Ok(Reply::Done));
    world.forget();
}

fn back(world: &mut World, name: &str) {
    assert_eq!(world.command(name, Command::Connect), Ok(Reply::Done));
    assert_eq!(world.state(name), "CONNECTED");
}

fn batches_asked(heard: &[Node]) -> Vec<Option<u64>> {
    let asked = heard.iter().filter(|node| node.is("ib")).filter_map(|node| node.find_child("offline_batch"));
    asked.map(|batch| batch.attr_u64("count")).collect()
}

#[test]
fn messages_of_the_absence_arrive_once_and_in_order() {
    let mut world = World::online(&["alice", "bob", "carol"]);
    world.talk("alice", "bob");
    world.talk("alice", "carol");
    away(&mut world, "alice");
    let mut ids = Vec::new();
    for n in 0..30 {
        world.advance_secs(1);
        ids.push(world.send(if n % 3 == 0 { "carol" } else { "bob" }, "alice", &format!("{n}")));
    }
    assert_eq!(world.queued_of("alice"), 30);
    world.advance_secs(100);
    world.forget();
    back(&mut world, "alice");

    let events = world.events("alice");
    let names: Vec<_> = events.iter().map(|event| &*event.event).collect();
    assert_eq!(names[..3], ["session.connecting", "session.connected", "session.offline_sync_started"]);
    assert_eq!(events[2].data, json!({"counts": {"total": 30, "messages": 30, "receipts": 0, "notifications": 0}}));
    assert_eq!(names[3..33], ["message.received"; 30]);
    assert_eq!(names[33..], ["session.offline_sync_completed"]);
    assert_eq!(events[33].data, json!({"counts": {"total": 30}}));
    let mut told = Vec::new();
    for event in &events[3..33] {
        let message = &event.data["messages"][0];
        let n: usize = message["text"].as_str().unwrap().parse().unwrap();
        assert_eq!(message["key"]["id"], ids[n].as_str());
        assert_eq!(message["source"], "offline");
        assert!(event.offline);
        // The time of sending, not of arrival.
        assert_eq!(message["messageTimestamp"], world::START_MS / 1_000 + n as u64 + 1);
        told.push(n);
    }
    // In the order of sending, chat by chat.
    for chat in [&[0][..], &[1, 2]] {
        let of_chat = |n: &usize| chat.contains(&(n % 3));
        let told: Vec<_> = told.iter().copied().filter(of_chat).collect();
        assert_eq!(told, (0..30).filter(of_chat).collect::<Vec<_>>());
    }
    assert_eq!(world.queued("alice"), 0, "everything is answered");
    assert_eq!(batches_asked(&world.heard("alice")), [Some(200)]);

    // Once means once.
    away(&mut world, "alice");
    back(&mut world, "alice");
    assert_eq!(texts(&world.events("alice")), [""; 0]);
    world.send("bob", "alice", "live");
    let live = world.only("alice", "message.received");
    assert_eq!(live["messages"][0]["source"], "live");
    world.talk("alice", "carol");
}

#[test]
fn receipts_of_the_absence_arrive_once_and_in_order() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    away(&mut world, "bob");
    let ids: Vec<_> = (0..3).map(|n| world.send("alice", "bob", &format!("{n}"))).collect();
    away(&mut world, "alice");
    back(&mut world, "bob");
    let texts: Vec<_> = ids.iter().map(|id| id.as_str().to_owned()).collect();
    let read = Command::MarkRead { chat: world.jid("alice"), participant: None, ids: texts.clone() };
    assert_eq!(world.command("bob", read), Ok(Reply::Done));
    world.forget();
    back(&mut world, "alice");
    let events = world.events("alice");
    let read = named(&events, "message.read");
    let told: Vec<_> = read.iter().map(|event| event.data["messages"][0]["key"]["id"].as_str().unwrap()).collect();
    assert_eq!(told, texts);
    assert!(read.iter().all(|event| event.offline));
    assert_eq!(named(&events, "session.offline_sync_started")[0].data["counts"]["receipts"], 4);
    assert_eq!(world.queued("alice"), 0);
    away(&mut world, "alice");
    back(&mut world, "alice");
    assert_eq!(named(&world.events("alice"), "message.read").len(), 0);
    world.talk("alice", "bob");
}

#[test]
fn batches_are_asked_for_until_the_end_marker() {
    let mut world = World::online(&["alice", "bob"]);
    let ib = |child: Node| Node::new("ib").attr("from", Jid::whatsapp_server()).child(child);
    let late = |id: &str| {
        Node::new("notification")
            .attr("from", Jid::whatsapp_server())
            .attr("type", "future")
            .attr("id", id)
            .attr("offline", "1")
    };
    world.stanza_arrives("alice", &ib(Node::new("offline_preview").attr("count", 0)));
    assert_eq!(batches_asked(&world.heard("alice")), [], "nothing waits");
    world.stanza_arrives("alice", &ib(Node::new("offline_preview").attr("count", 500)));
    assert_eq!(batches_asked(&world.heard("alice")), [Some(200)]);
    world.advance_secs(5);
    assert_eq!(batches_asked(&world.heard("alice")), [], "nothing of the batch has come");
    // The first of a batch leads to the next request, after a moment; the others do not.
    for batch in 0..2 {
        for n in 0..5 {
            world.stanza_arrives("alice", &late(&format!("N{batch}.{n}")));
        }
        assert_eq!(batches_asked(&world.heard("alice")), []);
        world.advance(Duration::from_millis(99));
        assert_eq!(batches_asked(&world.heard("alice")), []);
        world.advance(Duration::from_millis(1));
        assert_eq!(batches_asked(&world.heard("alice")), [Some(200)]);
    }
    world.stanza_arrives("alice", &late("N9"));
    world.stanza_arrives("alice", &ib(Node::new("offline").attr("count", 11)));
    world.advance_secs(5);
    assert_eq!(batches_asked(&world.heard("alice")), [], "that was all");
    world.stanza_arrives("alice", &late("N10"));
    world.advance_secs(5);
    assert_eq!(batches_asked(&world.heard("alice")), []);
    world.talk("alice", "bob");
}

/// Crashes alice while messages wait for the disk in this way, and checks that all come out once.
fn crash_while(disk: Disk, offline: bool, acknowledges: bool) {
    let what = format!("{disk:?}, offline: {offline}, acknowledges: {acknowledges}");
    let mut world = World::online(&["alice", "bob"]);
    if acknowledges {
        world.talk("alice", "bob");
    }
    world.actor("alice").acknowledges = acknowledges;
    if offline {
        away(&mut world, "alice");
    }
    world.forget();
    world.actor("alice").disk = disk;
    for n in 0..4 {
        world.send("bob", "alice", &format!("{n}"));
    }
    if offline {
        world.begin("alice", Command::Connect);
        world.settle();
    }
    assert_eq!(texts(&world.events("alice")), [""; 0], "not told before it is stored: {what}");
    assert!(world.queued_of("alice") >= 4, "not answered before it is stored: {what}");
    world.crash_and_start("alice");
    let replayed = world.all_events("alice").len();
    world.command("alice", Command::Connect).unwrap();
    let told = world.events("alice");
    let mut once = texts(&told);
    once.sort_unstable();
    assert_eq!(once, ["0", "1", "2", "3"], "{what}");
    assert_eq!(texts(&told), ["0", "1", "2", "3"], "in order: {what}");
    assert_eq!(world.queued("alice"), 0, "{what}");
    assert!(replayed > 0);
    world.talk("alice", "bob");
    // Nor do they come when the process ends once more.
    world.forget();
    let acknowledged = world.snapshot("alice").last_event;
    world.acknowledge("alice", acknowledged);
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(texts(&world.events("alice")), [""; 0], "{what}");
}

#[test]
fn a_crash_between_receiving_and_answering_repeats_nothing() {
    for disk in [Disk::Stuck, Disk::Silent] {
        for offline in [false, true] {
            for acknowledges in [false, true] {
                crash_while(disk, offline, acknowledges);
            }
        }
    }
}

#[test]
fn events_that_were_not_acknowledged_come_again_alike() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.actor("alice").acknowledges = false;
    world.forget();
    for n in 0..5 {
        world.send("bob", "alice", &format!("{n}"));
    }
    let before: Vec<_> = world.events("alice").into_iter().filter(|event| event.seq.is_some()).collect();
    assert_eq!(texts(&before), ["0", "1", "2", "3", "4"]);
    // The consumer has the first two.
    world.acknowledge("alice", before[1].seq.unwrap());
    world.crash_and_start("alice");
    assert_eq!(world.events("alice"), before[2..]);
    assert_eq!(world.snapshot("alice").unacknowledged, 3);
    world.command("alice", Command::Connect).unwrap();
    world.send("bob", "alice", "5");
    let after: Vec<_> = world.events("alice").into_iter().filter(|event| event.seq.is_some()).collect();
    assert_eq!(texts(&after), ["5"]);
    assert_eq!(after[0].seq, Some(before[4].seq.unwrap() + 1), "numbers go on");
}

#[test]
fn a_slow_consumer_gets_the_backlog_piece_by_piece() {
    let mut world = World::new(&["bob"]);
    world.add("alice", "15550000009", |config| config.max_unacknowledged = 5);
    world.link("alice");
    world.link("bob");
    world.talk("alice", "bob");
    away(&mut world, "alice");
    let all: Vec<_> = (0..40).map(|n| format!("{n}")).collect();
    for text in &all {
        world.send("bob", "alice", text);
    }
    world.actor("alice").acknowledges = false;
    back(&mut world, "alice");
    let mut told = Vec::new();
    let mut rounds = 0;
    while told.len() < all.len() {
        rounds += 1;
        assert!(rounds < 40, "{told:?}");
        let events = world.events("alice");
        let unacknowledged = world.snapshot("alice").unacknowledged;
        assert!(unacknowledged <= 8, "{unacknowledged}: five, and what the connection itself tells");
        told.extend(texts(&events).into_iter().map(str::to_owned));
        assert!(world.queued_of("alice") >= all.len() - told.len(), "the server keeps the rest");
        if rounds % 3 == 0 {
            // The connection may be lost meanwhile.
            world.cut("alice");
            world.advance_secs(20);
        }
        let newest = world.snapshot("alice").last_event;
        world.acknowledge("alice", newest);
        world.settle();
    }
    assert_eq!(told, all);
    world.actor("alice").acknowledges = true;
    let newest = world.snapshot("alice").last_event;
    world.acknowledge("alice", newest);
    world.advance_secs(60);
    assert_eq!((world.state("alice"), world.queued("alice")), ("CONNECTED", 0));
    world.talk("alice", "bob");
}

#[test]
fn a_backlog_that_is_interrupted_goes_on() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    away(&mut world, "alice");
    for n in 0..10 {
        world.send("bob", "alice", &format!("{n}"));
    }
    // The batches of what was read wait when the connection ends.
    world.begin("alice", Command::Connect);
    world.actor("alice").disk = Disk::Stuck;
    world.settle();
    world.cut("alice");
    assert_eq!(world.queued_of("alice"), 10);
    world.disk("alice", Disk::Works);
    world.advance_secs(5);
    assert_eq!(texts(&world.events("alice")), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    assert_eq!(world.queued("alice"), 0);
    world.talk("alice", "bob");
}
