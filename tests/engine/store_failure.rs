//! A store that fails once, at any commit: the account starts over from what is stored, and whatever was accepted or
//! received is there once in the end.

use crate::world::{Disk, World, text_of};
use wamd::{
    engine::{Command, CommandError, Input, Reply, SendRequest},
    message::MessageId,
    store::{Batch, RecordKind},
};
use wamd_loopback::ScanOptions;

/// Lets a commit of alice fail while `work` goes on: the first, the second, and so on until there are no more.
fn with_failures(prepare: impl Fn() -> World, work: impl Fn(&mut World)) {
    for commit in 0.. {
        let mut world = prepare();
        world.actor("alice").disk = Disk::FailsAfter(commit);
        work(&mut world);
        if world.actor("alice").failures == 0 {
            assert!(commit > 0, "nothing was written");
            return;
        }
    }
}

#[test]
fn while_sending() {
    for is_known in [false, true] {
        with_failures(
            || {
                let mut world = World::online(&["alice", "bob"]);
                if is_known {
                    world.talk("alice", "bob");
                }
                world.forget();
                world
            },
            |world| {
                let bob = world.jid("bob");
                // As callers do: without an answer, the same send again.
                for n in 0..3 {
                    let id = MessageId::new(format!("3EB0000000000000000{n}")).unwrap();
                    let request = || Command::Send(SendRequest::text(bob.clone(), format!("{n}")).with_id(id.clone()));
                    for _ in 0..3 {
                        let command = world.begin("alice", request());
                        world.advance_secs(5);
                        if let Some(Ok(Reply::Accepted { .. })) = world.answer("alice", command) {
                            break;
                        }
                    }
                }
                world.advance_secs(30);
                assert_eq!(world.state("alice"), "CONNECTED");
                let events = world.events("bob");
                assert_eq!(events.iter().filter_map(text_of).collect::<Vec<_>>(), ["0", "1", "2"]);
                assert_eq!(world.data("alice", "message.sent").len(), 3);
                assert_eq!(world.snapshot("alice").sends, 0);
                world.actor("alice").disk = Disk::Works;
                world.talk("alice", "bob");
            },
        );
    }
}

#[test]
fn while_receiving() {
    for is_known in [false, true] {
        with_failures(
            || {
                let mut world = World::online(&["alice", "bob"]);
                if is_known {
                    world.talk("alice", "bob");
                }
                world.forget();
                world
            },
            |world| {
                for n in 0..3 {
                    world.send("bob", "alice", &format!("{n}"));
                }
                world.advance_secs(30);
                assert_eq!(world.state("alice"), "CONNECTED");
                let events = world.events("alice");
                assert_eq!(events.iter().filter_map(text_of).collect::<Vec<_>>(), ["0", "1", "2"]);
                assert_eq!(world.queued("alice"), 0);
                world.actor("alice").disk = Disk::Works;
                world.talk("alice", "bob");
            },
        );
    }
}

#[test]
fn while_linking() {
    with_failures(
        || {
            let mut world = World::new(&["alice", "bob"]);
            world.link("bob");
            world.command("alice", Command::LinkQr).unwrap();
            world
        },
        |world| {
            world.scan("alice", &ScanOptions::default());
            world.advance_secs(5);
            // Pairing that was not stored did not happen: there is a new code, of another device.
            if world.snapshot("alice").jid.is_none() {
                assert_eq!(world.state("alice"), "PENDING");
                world.scan("alice", &ScanOptions::default());
            }
            assert_eq!(world.state("alice"), "CONNECTED");
            world.actor("alice").disk = Disk::Works;
            world.talk("alice", "bob");
            world.crash_and_start("alice");
            world.command("alice", Command::Connect).unwrap();
            world.talk("alice", "bob");
        },
    );
}

#[test]
fn while_logging_out() {
    with_failures(
        || World::online(&["alice", "bob"]),
        |world| {
            for _ in 0..3 {
                world.begin("alice", Command::Logout);
                world.advance_secs(20);
            }
            world.actor("alice").disk = Disk::Works;
            assert_eq!(world.snapshot("alice").jid, None);
            assert_eq!(world.actor("alice").count(), 1, "nothing but the number of the last event");
            world.link("alice");
            world.talk("alice", "bob");
        },
    );
}

#[test]
fn a_logout_is_answered_when_the_account_turns_out_to_be_damaged() {
    let mut world = World::online(&["alice"]);
    let id = world.begin("alice", Command::Logout);
    let (key, _) = world.actor("alice").records(RecordKind::Account).remove(0);
    world.actor("alice").write(Batch { puts: vec![(key, "damaged".into())], ..Batch::default() });
    world.say("alice", Input::StoreFailed("disk".to_owned()));
    world.advance_secs(20);
    let answer = world.answer("alice", id);
    assert!(matches!(answer, Some(Err(CommandError::Record(_)))), "{answer:?}");
    assert_eq!(world.state("alice"), "DISCONNECTED");
}
