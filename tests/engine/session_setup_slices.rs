//! Promise: sessions with hundreds of devices are started in slices, and other chats go on meanwhile; whatever becomes of a
//! slice, nobody waits for ever (spec 03 §1.6, §2.1).

use crate::people::{self, Person, Stage};
use crate::world::{self, Disk};
use wamd::{
    Jid,
    engine::{Command, Reply},
    node::Node,
    store::RecordKind,
};

fn number(n: usize) -> String {
    format!("1666{n:07}")
}

/// Alice, with people of so many devices each, and a pool that works when it is told to.
fn crowd(users: usize, devices: u16) -> Stage {
    let people = (0..users).map(|n| Person::new(&number(n), 0..devices)).collect();
    let mut stage = Stage::new(people);
    stage.world.thinks("alice", false);
    stage
}

/// Everybody gets a message, as far as that goes without the pool. The lists are checked.
fn write_to_all(stage: &mut Stage) {
    for n in 0..stage.people.len() {
        stage.send(&Jid::pn(number(n)), "hello");
    }
}

/// Sessions with people of the crowd.
fn sessions(stage: &mut Stage) -> usize {
    let records = stage.world.actor("alice").records(RecordKind::Session);
    records.iter().filter(|(key, _)| key.id.starts_with(b"1666")).count()
}

#[test]
fn another_chat_goes_on_between_the_slices_of_a_thousand() {
    let mut stage = crowd(10, 100);
    stage.world.add("bob", "15550000002", |_| {});
    stage.world.link("bob");
    write_to_all(&mut stage);
    assert_eq!(stage.fetched.concat().len(), 1_000);
    let mut jobs = 0;
    while stage.world.waiting_jobs("alice") > 0 {
        assert!(stage.world.waiting_jobs("alice") <= 4, "not all at once");
        // Bob writes, and is read at once.
        let text = format!("in front of slice {jobs}");
        let before = stage.world.all_events("alice").len();
        stage.world.phone_sends("15550000002", "alice", &text);
        let received = &stage.world.all_events("alice")[before..];
        assert_eq!(received.iter().filter_map(world::text_of).collect::<Vec<_>>(), [text]);
        // No step stores more than a slice.
        stage.world.disk("alice", Disk::Stuck);
        stage.world.think_once("alice");
        let held = stage.world.actor("alice").held_batches();
        let is_session =
            |batch: &wamd::store::Batch| batch.puts.iter().filter(|(key, _)| key.kind == RecordKind::Identity).count();
        assert!(held.iter().all(|batch| is_session(batch) <= 32));
        stage.world.disk("alice", Disk::Works);
        stage.serve();
        jobs += 1;
    }
    assert_eq!(jobs, 30, "three slices of a user, and the rest at once");
    assert_eq!(sessions(&mut stage), 1_000);
    let recipients = stage.recipients();
    assert_eq!(recipients.len(), 10);
    assert!(recipients.iter().all(|devices| devices.len() == 100));
}

#[test]
fn few_devices_need_no_pool() {
    let mut stage = crowd(1, 4);
    write_to_all(&mut stage);
    assert_eq!(stage.world.waiting_jobs("alice"), 0);
    assert_eq!(stage.recipients()[0].len(), 4);
}

#[test]
fn results_that_do_not_come_are_not_waited_for_without_end() {
    let mut stage = crowd(2, 20);
    write_to_all(&mut stage);
    assert_eq!(stage.world.waiting_jobs("alice"), 2);
    stage.world.advance_secs(61);
    stage.serve();
    let failed = stage.world.data("alice", "message.failed");
    assert_eq!(failed.len(), 2);
    assert_eq!(failed[0]["messages"][0]["error"]["code"], "no_session");
    // What comes after that is dropped; the next message asks again.
    stage.world.thinks("alice", true);
    assert_eq!(sessions(&mut stage), 0);
    stage.fetched.clear();
    stage.send(&Jid::pn(number(0)), "again");
    assert_eq!(stage.fetched.concat().len(), 20);
    assert_eq!(stage.recipients()[0].len(), 20);
}

#[test]
fn a_lost_connection_costs_no_second_bundle() {
    let mut stage = crowd(1, 20);
    write_to_all(&mut stage);
    stage.fetched.clear();
    stage.reconnects(|world| world.cut("alice"));
    assert_eq!(stage.world.waiting_jobs("alice"), 1);
    stage.world.thinks("alice", true);
    stage.serve();
    assert_eq!(stage.fetched, Vec::<Vec<Jid>>::new());
    assert_eq!(stage.recipients()[0].len(), 20);

    // The same when they are ready before the account is online again.
    let mut stage = crowd(1, 20);
    write_to_all(&mut stage);
    stage.fetched.clear();
    stage.reconnects(|world| {
        world.cut("alice");
        world.thinks("alice", true);
    });
    assert_eq!(sessions(&mut stage), 20);
    assert_eq!(stage.fetched, Vec::<Vec<Jid>>::new());
    assert_eq!(stage.recipients()[0].len(), 20);
}

#[test]
fn a_store_that_fails_starts_over() {
    let mut stage = crowd(1, 20);
    write_to_all(&mut stage);
    stage.reconnects(|world| {
        world.disk("alice", Disk::FailsAfter(0));
        world.think_once("alice");
    });
    // Late results are of no use; everything is asked for again.
    stage.world.thinks("alice", true);
    stage.serve();
    assert_eq!(sessions(&mut stage), 20);
    assert_eq!(stage.recipients().concat().len(), 20);
}

#[test]
fn nothing_is_left_after_a_logout() {
    let mut stage = crowd(2, 20);
    write_to_all(&mut stage);
    assert_eq!(stage.world.command("alice", Command::Logout), Ok(Reply::Done));
    stage.world.thinks("alice", true);
    assert_eq!(sessions(&mut stage), 0);
    // The head of the outbox is all there is.
    assert_eq!(stage.world.actor("alice").count(), 1);
}

#[test]
fn companions_are_checked_again_when_their_primary_changed_meanwhile() {
    let mut stage = crowd(1, 10);
    let zoe = Jid::pn(number(0));
    // The primary is known, the companions are not.
    let all = stage.people[0].clone();
    stage.people[0] = Person { timestamp: all.timestamp - 1, ..Person::new(&number(0), [0]) };
    stage.send(&zoe, "one");
    assert_eq!(stage.recipients()[0].len(), 1);
    stage.people[0] = all.clone();
    stage.arrives(&all.change("N1", "update", &[]));
    stage.send(&zoe, "two");
    assert_eq!(stage.world.waiting_jobs("alice"), 1);
    // What the companions were to be checked with is gone when the job is done.
    let change = Node::new("notification").attr("type", "encrypt").attr("from", &zoe).attr("id", "N2");
    stage.arrives(&change.child(Node::new("identity")));
    stage.world.think_once("alice");
    assert_eq!(sessions(&mut stage), 0);
    assert_eq!(stage.world.waiting_jobs("alice"), 1, "again");
    stage.world.thinks("alice", true);
    stage.serve();
    assert_eq!(stage.recipients()[0].len(), 10);
    assert_eq!(stage.world.data("alice", "identity.changed").len(), 1);
}

#[test]
fn a_bundle_that_is_refused_concerns_its_device_alone() {
    let mut stage = crowd(1, 20);
    let zoe = Jid::pn(number(0));
    // Companion 5 is vouched for by somebody else.
    stage.forged = vec![(zoe.with_device(5), Person { primary: people::pair("forger"), ..stage.people[0].clone() })];
    stage.world.thinks("alice", true);
    write_to_all(&mut stage);
    let recipients = stage.recipients().concat();
    assert_eq!(recipients.len(), 19);
    assert!(!recipients.contains(&zoe.with_device(5)));
}
