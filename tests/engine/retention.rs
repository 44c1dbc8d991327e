//! What is kept for a time goes when the time is over, oldest first and a slice at a time, whatever crashes; until then it is
//! there after a restart.

use std::collections::BTreeSet;

use crate::world::{self, World};
use wamd::{
    engine::{Command, Config, Content},
    message::{
        MessageId,
        build::{self, Choice},
    },
    node::Node,
    store::{Key, RecordKind},
};

const DAY: u64 = 86_400;

fn world(change: impl FnOnce(&mut Config)) -> World {
    let mut world = World::new(&["bob"]);
    world.add("alice", "15550000009", change);
    world.settle();
    world.link("bob");
    world.link("alice");
    world.talk("alice", "bob");
    world
}

/// Time passes without a connection.
fn away(world: &mut World, seconds: u64) {
    for name in ["alice", "bob"] {
        world.command(name, Command::Disconnect).unwrap();
    }
    world.advance_secs(seconds);
    for name in ["alice", "bob"] {
        world.command(name, Command::Connect).unwrap();
    }
    world.forget();
}

fn keys(world: &mut World, kind: RecordKind) -> BTreeSet<Vec<u8>> {
    world.actor("alice").records(kind).into_iter().map(|(key, _)| key.id.to_vec()).collect()
}

fn has(world: &mut World, kind: RecordKind, id: &str) -> bool {
    keys(world, kind).iter().any(|key| key.ends_with(id.as_bytes()))
}

/// The entries of each queue are numbered without gaps, and every record that is kept for a time has one.
fn check(world: &mut World) {
    let records = world.actor("alice").records(RecordKind::Expiry);
    let mut named = BTreeSet::new();
    for queue in 0..4_u8 {
        let entries: Vec<_> = records.iter().filter(|(key, _)| key.id.len() == 10 && key.id[0] == queue).collect();
        let numbers: Vec<u64> =
            entries.iter().map(|(key, _)| u64::from_be_bytes(key.id[2..].try_into().unwrap())).collect();
        assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "queue {queue}: {numbers:?}");
        named.extend(entries.into_iter().map(|(_, value)| value.to_vec()));
    }
    for kind in [
        RecordKind::Sent,
        RecordKind::Received,
        RecordKind::RetryCount,
        RecordKind::ResendBaseKey,
        RecordKind::MessageSecret,
        RecordKind::Placeholder,
    ] {
        for key in keys(world, kind) {
            let is_named = named.iter().any(|entry| entry.ends_with(&key));
            assert!(is_named, "a {kind:?} that would be kept for ever");
        }
    }
}

#[test]
fn what_was_sent_and_received_goes_in_its_time() {
    let mut world = world(|_| {});
    let sent = world.send("alice", "bob", "hello");
    let received = world.send("bob", "alice", "hello");
    check(&mut world);
    away(&mut world, 6 * DAY);
    assert!(
        has(&mut world, RecordKind::Sent, sent.as_str()) && has(&mut world, RecordKind::Received, received.as_str())
    );
    away(&mut world, DAY + 100);
    assert!(!has(&mut world, RecordKind::Sent, sent.as_str()), "after 7 days");
    assert!(has(&mut world, RecordKind::Received, received.as_str()));
    let later = world.send("alice", "bob", "later");
    away(&mut world, 7 * DAY - 50);
    assert!(!has(&mut world, RecordKind::Received, received.as_str()), "after 14 days");
    assert!(has(&mut world, RecordKind::Sent, later.as_str()));
    check(&mut world);
    world.talk("alice", "bob");
}

#[test]
fn a_busy_account_trims_without_a_login() {
    let mut world = world(|config| config.sent_age = std::time::Duration::from_secs(600));
    let first = world.send("alice", "bob", "first");
    world.advance_secs(3_000);
    world.send("alice", "bob", "second");
    assert!(has(&mut world, RecordKind::Sent, first.as_str()), "it is looked at once an hour");
    world.advance_secs(1_000);
    let third = world.send("alice", "bob", "third");
    assert!(!has(&mut world, RecordKind::Sent, first.as_str()));
    assert!(has(&mut world, RecordKind::Sent, third.as_str()));
    check(&mut world);
}

#[test]
fn no_more_bytes_are_kept_than_may_be() {
    const CAP: u64 = 20_000;
    let mut world = world(|config| config.sent_bytes = CAP);
    let text = "x".repeat(500);
    let ids: Vec<MessageId> = (0..100).map(|_| world.send("alice", "bob", &text)).collect();
    let stored: u64 = world.actor("alice").records(RecordKind::Sent).iter().map(|(_, value)| value.len() as u64).sum();
    // What grew since, by the receipts, is not counted.
    assert!(stored < CAP + CAP / 4, "{stored} bytes");
    assert!(stored > CAP / 2, "{stored} bytes");
    let kept: Vec<bool> = ids.iter().map(|id| has(&mut world, RecordKind::Sent, id.as_str())).collect();
    let first = kept.iter().position(|kept| *kept).expect("some");
    assert!(first > 50 && kept[first..].iter().all(|kept| *kept), "the newest are kept: {kept:?}");
    check(&mut world);
    // A device that asks for one that is gone is told so by silence.
    let device = world.device("bob").device();
    let from = world.lid("bob").with_device(device);
    for (id, answers) in [(&ids[0], 0), (ids.last().unwrap(), 1)] {
        let receipt = Node::new("receipt")
            .attr("from", &from)
            .attr("id", id.as_str())
            .attr("type", "retry")
            .child(Node::new("retry").attr("id", id.as_str()).attr("count", 1))
            .child(Node::new("registration").bytes(vec![0, 0, 0, 1]));
        world.heard("alice");
        world.stanza_arrives("alice", &receipt);
        let heard = world.heard("alice");
        assert_eq!(heard.iter().filter(|node| node.is("message")).count(), answers);
        let retry = |node: &&Node| node.is("ack") && node.attr_str("type").as_deref() == Some("retry");
        assert_eq!(heard.iter().filter(retry).count(), 1);
    }
}

#[test]
fn what_is_old_goes_in_slices() {
    let mut world = world(|_| {});
    for n in 0..400 {
        world.send("alice", "bob", &n.to_string());
    }
    check(&mut world);
    let secrets = keys(&mut world, RecordKind::MessageSecret).len();
    assert!(secrets >= 400, "{secrets} secrets");
    away(&mut world, 29 * DAY);
    check(&mut world);
    assert!(keys(&mut world, RecordKind::Sent).is_empty());
    assert_eq!(keys(&mut world, RecordKind::MessageSecret).len(), secrets);
    away(&mut world, 2 * DAY);
    assert!(keys(&mut world, RecordKind::MessageSecret).is_empty(), "after 30 days");
    // The states of the queues, and what the logins led to.
    let left = keys(&mut world, RecordKind::Expiry).len();
    assert!(left <= 4 + 2, "{left} left");
    world.talk("alice", "bob");
}

#[test]
fn secrets_of_polls_are_kept_longer_than_those_of_texts() {
    let mut world = world(|_| {});
    let poll = build::poll("Lunch?", &["Yes", "No"], Choice::Single).expect("a poll");
    let poll = world.send_content("alice", "bob", Content::Message(Box::new(poll)));
    let text = world.send("alice", "bob", "hello");
    check(&mut world);
    away(&mut world, 31 * DAY);
    assert!(!has(&mut world, RecordKind::MessageSecret, text.as_str()));
    assert!(has(&mut world, RecordKind::MessageSecret, poll.as_str()));
    away(&mut world, 60 * DAY);
    assert!(!has(&mut world, RecordKind::MessageSecret, poll.as_str()));
}

#[test]
fn a_crash_at_any_time_leaves_nothing_behind() {
    let mut world = world(|_| {});
    for round in 0..12 {
        for n in 0..10 {
            world.send("alice", "bob", &n.to_string());
            world.send("bob", "alice", &n.to_string());
        }
        let disk = if round % 2 == 0 { world::Disk::Stuck } else { world::Disk::FailsAfter(round) };
        world.disk("alice", disk);
        for n in 0..5 {
            world.send("bob", "alice", &n.to_string());
        }
        world.crash_and_start("alice");
        world.command("alice", Command::Connect).unwrap();
        world.advance_secs(5);
        check(&mut world);
        away(&mut world, if round % 3 == 0 { 10 * DAY } else { DAY });
        check(&mut world);
    }
    away(&mut world, 30 * DAY);
    for kind in [RecordKind::Sent, RecordKind::Received] {
        let left = keys(&mut world, kind).len();
        // What came in since is young.
        assert!(left <= 5, "{left} {kind:?}");
    }
}

#[test]
fn a_logout_takes_everything_and_begins_anew() {
    let mut world = world(|_| {});
    world.send("alice", "bob", "hello");
    world.command("alice", Command::Logout).unwrap();
    world.advance_secs(6);
    assert!(keys(&mut world, RecordKind::Expiry).is_empty());
    world.link("alice");
    world.talk("alice", "bob");
    check(&mut world);
    let heads: Vec<Key> = world.actor("alice").records(RecordKind::Expiry).into_iter().map(|(key, _)| key).collect();
    assert!(heads.iter().any(|key| key.id.len() == 10 && key.id[2..] == [0; 8]), "numbered from the beginning");
}
