//! One-time prekeys: durable before they are given out, refilled when few are left, used once (spec 03 §1.3, §1.4, §7.2).

use std::collections::BTreeSet;

use crate::world::{Disk, FEW_PRE_KEYS, World};
use wamd::{
    Jid,
    engine::{Command, Reply},
    event::Envelope,
    node::Node,
    store::RecordKind,
};
use wamd_loopback::{Fault, ScanOptions};

/// The ids of every upload that the server heard since the last call.
fn uploads(world: &mut World) -> Vec<Vec<u32>> {
    let heard = world.heard("alice");
    let lists = heard.iter().filter(|node| node.attr_str("xmlns").as_deref() == Some("encrypt"));
    let lists = lists.filter_map(|node| node.find_child("list"));
    let id = |key: &Node| {
        let bytes = key.find_child("id").and_then(Node::content_bytes).expect("an id");
        bytes.iter().fold(0, |id, byte| id << 8 | u32::from(*byte))
    };
    lists.map(|list| list.child_nodes().iter().map(id).collect()).collect()
}

fn stored(world: &mut World) -> BTreeSet<u32> {
    let records = world.actor("alice").records(RecordKind::PreKey);
    records.iter().map(|(key, _)| u32::from_be_bytes(key.id[..].try_into().unwrap())).collect()
}

fn few_left(id: &str) -> Node {
    Node::new("notification")
        .attr("from", Jid::whatsapp_server())
        .attr("type", "encrypt")
        .attr("id", id)
        .child(Node::new("count").attr("value", 2))
}

/// A phone that nobody has heard of takes a prekey of alice and writes to her.
fn strangers(world: &mut World, range: std::ops::Range<u32>) {
    for n in range {
        world.phone_sends(&format!("1666{n:07}"), "alice", &format!("from {n}"));
    }
}

#[test]
fn the_first_upload_has_812_keys() {
    let mut world = World::new(&["bob"]);
    world.add("alice", "15550000009", |config| config.pre_key_batch = 812);
    world.link("alice");
    let uploads = uploads(&mut world);
    assert_eq!(uploads.len(), 1);
    assert_eq!(uploads[0], (1..=812).collect::<Vec<_>>());
    // The own phone has taken one, and its session is there.
    assert_eq!(world.view("alice").prekeys, 811);
    assert_eq!(stored(&mut world), (2..=812).collect());
    assert_eq!(world.actor("alice").records(RecordKind::Session).len(), 1);
    world.link("bob");
    world.talk("alice", "bob");
}

#[test]
fn keys_are_durable_before_they_leave() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.forget();
    world.actor("alice").disk = Disk::Stuck;
    world.stanza_arrives("alice", &few_left("N1"));
    assert_eq!(uploads(&mut world).len(), 0, "not yet");
    let before = stored(&mut world);
    world.disk("alice", Disk::Works);
    let given = uploads(&mut world);
    assert_eq!(given.len(), 1);
    let new: BTreeSet<u32> = stored(&mut world).difference(&before).copied().collect();
    assert_eq!(new, given[0].iter().copied().collect());
    assert_eq!(new.len(), FEW_PRE_KEYS as usize);

    // The same when the process dies instead: what may have left stands in the store, what does not was not given out.
    world.actor("alice").disk = Disk::Stuck;
    world.stanza_arrives("alice", &few_left("N2"));
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(uploads(&mut world).len(), 0);
    world.actor("alice").disk = Disk::Silent;
    world.stanza_arrives("alice", &few_left("N3"));
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.stanza_arrives("alice", &few_left("N4"));
    let all = uploads(&mut world).concat();
    assert_eq!(all.len(), FEW_PRE_KEYS as usize);
    assert!(all.iter().all(|id| !new.contains(id) && !before.contains(id)), "no id is used twice");
    let stored = stored(&mut world);
    assert!(all.iter().all(|id| stored.contains(id)));
}

#[test]
fn the_first_upload_is_durable_too() {
    let mut world = World::new(&["alice", "bob"]);
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    world.actor("alice").disk = Disk::Stuck;
    world.scan("alice", &ScanOptions::default());
    // Pairing itself waits for the disk.
    assert!(!world.heard("alice").iter().any(|node| node.find_child("pair-device-sign").is_some()));
    world.disk("alice", Disk::Works);
    assert_eq!(world.state("alice"), "CONNECTED");
    let first = uploads(&mut world);
    assert_eq!(first.len(), 1);
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(uploads(&mut world).len(), 0, "the server has enough");
    world.link("bob");
    world.talk("alice", "bob");
}

#[test]
fn a_low_count_leads_to_more() {
    let mut world = World::online(&["alice"]);
    let mut seen: BTreeSet<u32> = (1..=FEW_PRE_KEYS).collect();
    let mut next = 0;
    for _ in 0..3 {
        world.forget();
        let left = u32::try_from(world.view("alice").prekeys).unwrap();
        // Down to four, when the server says so.
        strangers(&mut world, next..next + left - 4);
        next += left - 4;
        let given = uploads(&mut world);
        assert_eq!(given.iter().map(Vec::len).collect::<Vec<_>>(), [FEW_PRE_KEYS as usize]);
        assert!(given[0].iter().all(|id| seen.insert(*id)), "no id is used twice");
        assert_eq!(world.view("alice").prekeys, 4 + FEW_PRE_KEYS as usize);
        assert_eq!(world.data("alice", "message.received").len(), left as usize - 4);
        assert_eq!(world.queued("alice"), 0, "the notification is answered");
    }
}

#[test]
fn one_upload_at_a_time() {
    let mut world = World::online(&["alice"]);
    let conn = world.conn("alice").expect("online");
    let now = world.now();
    for n in 0..5 {
        world.server.inject(now, conn, &few_left(&format!("N{n}")));
    }
    world.settle();
    assert_eq!(uploads(&mut world).len(), 1);
}

/// Few are left because of what waits for us: those keys are used up whatever we do, and their messages are in front.
#[test]
fn a_refill_waits_for_the_backlog() {
    let ib = |child: Node| Node::new("ib").attr("from", Jid::whatsapp_server()).child(child);
    let waiting = || ib(Node::new("offline_preview").attr("count", 3).attr("message", 3));
    let over = || ib(Node::new("offline").attr("count", 3));
    for ends in [true, false] {
        let mut world = World::online(&["alice"]);
        world.command("alice", Command::Disconnect).unwrap();
        // The server does not begin with its backlog: the test does.
        let jid = world.device("alice");
        world.fault(Fault::AnswerIq { jid, xmlns: "passive".to_owned(), code: None, backoff: None, count: 1 });
        world.forget();
        world.begin("alice", Command::Connect);
        world.settle();
        let heard = world.heard("alice");
        let active = heard.iter().find(|node| node.attr_str("xmlns").as_deref() == Some("passive")).unwrap();
        let answer = Node::new("iq").attr("type", "result").attr("from", Jid::whatsapp_server());
        world.stanza_arrives("alice", &answer.attr("id", active.attr_str("id").unwrap().into_owned()));
        assert_eq!(world.state("alice"), "CONNECTED");
        world.stanza_arrives("alice", &waiting());
        for n in 0..3 {
            world.stanza_arrives("alice", &few_left(&format!("N{n}")));
        }
        let heard = world.heard("alice");
        let acks = heard.iter().filter(|node| node.is("ack")).count();
        assert_eq!(acks, 3, "they are answered at once");
        assert!(heard.iter().all(|node| node.find_child("list").is_none()));
        world.advance_secs(1);
        assert_eq!(uploads(&mut world).len(), 0, "the backlog is not through");
        match ends {
            true => world.stanza_arrives("alice", &over()),
            // It never ends.
            false => world.advance_secs(60),
        }
        assert_eq!(uploads(&mut world).len(), 1);
        world.stanza_arrives("alice", &few_left("N9"));
        assert_eq!(uploads(&mut world).len(), 1, "afterwards nothing waits");
    }
}

#[test]
fn the_count_is_asked_for_at_login() {
    let mut world = World::online(&["alice"]);
    world.command("alice", Command::Disconnect).unwrap();
    let left = u32::try_from(world.view("alice").prekeys).unwrap();
    strangers(&mut world, 0..left - 5);
    world.forget();
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(uploads(&mut world).len(), 0, "five are enough");
    world.command("alice", Command::Disconnect).unwrap();
    strangers(&mut world, 100..101);
    world.forget();
    world.command("alice", Command::Connect).unwrap();
    // The notification waits, too, and does not lead to a second upload while the first is under way.
    assert!(!uploads(&mut world).is_empty());
    assert!(world.view("alice").prekeys >= 4 + FEW_PRE_KEYS as usize);
    assert_eq!(world.state("alice"), "CONNECTED");
}

#[test]
fn a_prekey_goes_with_the_session_that_it_opened() {
    let mut world = World::online(&["alice"]);
    let before = stored(&mut world);
    let sessions = world.actor("alice").records(RecordKind::Session);
    world.actor("alice").disk = Disk::Stuck;
    strangers(&mut world, 0..1);
    assert_eq!(stored(&mut world), before, "nothing is half done");
    let held = world.actor("alice").held_batches();
    let uses = |batch: &&wamd::store::Batch| batch.deletes.iter().any(|key| key.kind == RecordKind::PreKey);
    let using: Vec<_> = held.iter().filter(uses).collect();
    assert_eq!(using.len(), 1);
    assert!(using[0].puts.iter().any(|(key, _)| key.kind == RecordKind::Session), "in one batch");
    let received = |body: &[u8]| Envelope::from_json(body).unwrap().event == "message.received";
    assert_eq!(using[0].events.iter().filter(|entry| received(&entry.body)).count(), 1, "with the event");
    world.disk("alice", Disk::Works);
    assert_eq!(before.difference(&stored(&mut world)).count(), 1);
    assert_eq!(world.actor("alice").records(RecordKind::Session).len(), sessions.len() + 1);

    // When the process dies before that, the key is there for the message that comes again.
    let before = stored(&mut world);
    world.actor("alice").disk = Disk::Stuck;
    strangers(&mut world, 1..2);
    world.crash_and_start("alice");
    assert_eq!(stored(&mut world), before);
    world.forget();
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(world.only("alice", "message.received")["messages"][0]["text"], "from 1");
    assert_eq!(before.difference(&stored(&mut world)).count(), 1);
}

#[test]
fn login_goes_on_when_the_server_takes_no_keys() {
    let mut world = World::online(&["alice", "bob"]);
    // The answer to an upload that nobody understands is an error; here the stream is cut instead, which is worse.
    world.actor("alice").disk = Disk::Stuck;
    world.stanza_arrives("alice", &few_left("N1"));
    world.cut("alice");
    world.disk("alice", Disk::Works);
    world.advance_secs(5);
    assert_eq!(world.state("alice"), "CONNECTED");
    world.talk("alice", "bob");
    let stored = stored(&mut world);
    world.forget();
    world.stanza_arrives("alice", &few_left("N2"));
    let given = uploads(&mut world).concat();
    assert!(given.iter().all(|id| !stored.contains(id)), "keys of a lost upload are not offered again");
}

// ---- at size, and over time ---------------------------------------------------------------------------------------------

/// Alice with full uploads, whose pool works when it is told to.
fn in_slices() -> World {
    let mut world = World::new(&["bob"]);
    world.link("bob");
    world.add("alice", "15550000009", |config| config.pre_key_batch = 812);
    world.thinks("alice", false);
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    world.scan("alice", &ScanOptions::default());
    world
}

#[test]
fn an_upload_is_made_in_slices() {
    let mut world = in_slices();
    let mut slices = 0;
    while world.waiting_jobs("alice") > 0 {
        assert_eq!(world.waiting_jobs("alice"), 1, "one after the other");
        assert!(uploads(&mut world).is_empty(), "not before all are there");
        let before = stored(&mut world).len();
        world.think_once("alice");
        assert!(stored(&mut world).len() - before <= 128);
        slices += 1;
    }
    // The last 44 keys are more than what is done at once, too.
    assert_eq!(slices, 7);
    assert_eq!(uploads(&mut world), [(1..=812).collect::<Vec<_>>()]);
    assert_eq!(world.state("alice"), "CONNECTED");
    world.thinks("alice", true);
    world.talk("alice", "bob");
}

#[test]
fn keys_that_were_made_without_a_connection_leave_with_the_next() {
    let mut world = in_slices();
    world.think_once("alice");
    world.cut("alice");
    world.thinks("alice", true);
    world.advance_secs(10);
    assert_eq!(world.state("alice"), "CONNECTED");
    assert_eq!(uploads(&mut world), [(1..=812).collect::<Vec<_>>()], "the same ids");
    world.talk("bob", "alice");
}

#[test]
fn a_pool_that_does_not_answer_holds_up_no_login() {
    let mut world = in_slices();
    assert_eq!(world.state("alice"), "CONNECTING");
    world.advance_secs(61);
    assert_eq!(world.state("alice"), "CONNECTED");
    assert!(uploads(&mut world).is_empty());
    // Counted after a pause, and made anew, with other ids.
    world.thinks("alice", true);
    world.advance_secs(2);
    let given = uploads(&mut world).concat();
    assert_eq!(given, (813..=1_624).collect::<Vec<_>>());
    world.talk("bob", "alice");
}

#[test]
fn a_failed_upload_is_tried_again_with_growing_pauses() {
    let mut world = World::online(&["alice"]);
    let refuse = |count| Fault::AnswerIq {
        jid: world.device("alice"),
        xmlns: "encrypt".to_owned(),
        code: Some(503),
        backoff: None,
        count,
    };
    world.fault(refuse(1));
    world.stanza_arrives("alice", &few_left("N1"));
    let first = uploads(&mut world).concat();
    assert_eq!(first.len(), FEW_PRE_KEYS as usize);
    // The server counts enough of them then: nothing more is uploaded.
    world.advance_secs(1);
    assert!(uploads(&mut world).is_empty());
    // When it has few indeed, other keys go.
    let left = u32::try_from(world.view("alice").prekeys).unwrap();
    world.command("alice", Command::Disconnect).unwrap();
    strangers(&mut world, 0..left - 2);
    world.fault(Fault::LoseNotices { jid: world.device("alice"), kind: "encrypt".to_owned(), count: 100 });
    world.forget();
    world.command("alice", Command::Connect).unwrap();
    let again = uploads(&mut world).concat();
    assert!(!again.is_empty() && again.iter().all(|id| !first.contains(id)));
}

#[test]
fn the_signed_prekey_is_replaced_in_intervals() {
    let mut world = World::new(&["bob"]);
    world.link("bob");
    let day = 86_400;
    world.add("alice", "15550000009", |config| {
        config.pre_key_batch = FEW_PRE_KEYS;
        config.signed_pre_key_age = Some(std::time::Duration::from_secs(7 * day));
        config.keepalive = std::time::Duration::from_secs(6 * 3_600)..=std::time::Duration::from_secs(6 * 3_600);
    });
    world.link("alice");
    let signed = |world: &mut World| -> Vec<u32> {
        let records = world.actor("alice").records(RecordKind::SignedPreKey);
        records.iter().map(|(key, _)| u32::from_be_bytes(key.id[..].try_into().unwrap())).collect()
    };
    assert_eq!(signed(&mut world), [1]);
    world.talk("bob", "alice");
    world.forget();
    world.advance_secs(6 * day);
    assert_eq!(signed(&mut world), [1]);
    world.advance_secs(2 * day);
    assert_eq!(signed(&mut world), [1, 2], "the former one is kept");
    let heard = world.heard("alice");
    let rotations: Vec<_> = heard.iter().filter(|node| node.find_child("rotate").is_some()).collect();
    assert_eq!(rotations.len(), 1);
    // Both are good for new sessions, and the digest that the server makes is ours.
    strangers(&mut world, 0..1);
    assert_eq!(world.only("alice", "message.received")["messages"][0]["text"], "from 0");

    // One that the server does not take changes nothing; another comes the next day.
    world.fault(Fault::AnswerIq {
        jid: world.device("alice"),
        xmlns: "encrypt".to_owned(),
        code: Some(500),
        backoff: None,
        count: 100,
    });
    world.advance_secs(7 * day);
    world.forget();
    world.fault(Fault::AnswerIq {
        jid: world.device("alice"),
        xmlns: "encrypt".to_owned(),
        code: Some(500),
        backoff: None,
        count: 0,
    });
    world.advance_secs(2 * day);
    let heard = world.heard("alice");
    assert!(heard.iter().any(|node| node.find_child("rotate").is_some()));
    strangers(&mut world, 1..2);
    assert_eq!(world.only("alice", "message.received")["messages"][0]["text"], "from 1");
    // After 30 days the first ones go.
    world.advance_secs(32 * day);
    let kept = signed(&mut world);
    assert!(!kept.contains(&1) && !kept.is_empty(), "{kept:?}");
    world.talk("bob", "alice");
}
