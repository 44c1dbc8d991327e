//! A store that fails once, at any call: it is told, the account starts over from what is stored, and whatever was accepted or
//! received is there once in the end.

use crate::world::{Disk, Network, World, text_of};
use serde_json::json;
use wamd::{
    engine::{Command, CommandError, Input, Reply, SendRequest},
    message::MessageId,
    store::{Batch, RecordKind, StoreError},
};
use wamd_loopback::ScanOptions;

/// Lets a call of alice's store fail while `work` goes on: the first, the second, and so on until there are no more.
fn with_failures(prepare: impl Fn() -> World, work: impl Fn(&mut World)) {
    for call in 0.. {
        let mut world = prepare();
        world.actor("alice").disk = Disk::CallFailsAfter(call);
        work(&mut world);
        if world.actor("alice").failures == 0 {
            assert!(call > 0, "nothing was asked of the store");
            return;
        }
        let told = |name| world.all_events("alice").iter().filter(move |event| event.event == name);
        let failed: Vec<_> = told("store.failed").map(|event| (event.seq, &event.data)).collect();
        let data = json!({"fault": "backend", "detail": "store failed: disk full", "willRetry": true,
            "nextRetryMs": 1_000, "failures": 1});
        assert_eq!(failed, [(None, &data)], "call {call}");
        let recovered: Vec<_> = told("store.recovered").map(|event| &event.data).collect();
        assert_eq!(recovered, [&json!({"failures": 1})], "call {call}");
    }
}

/// They are online, and have talked, or not.
fn alice_and_bob(is_known: bool) -> World {
    let mut world = World::online(&["alice", "bob"]);
    if is_known {
        world.talk("alice", "bob");
    }
    world.forget();
    world
}

#[test]
fn while_sending() {
    for is_known in [false, true] {
        with_failures(
            || alice_and_bob(is_known),
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
            || alice_and_bob(is_known),
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
    world.say("alice", Input::StoreFailed(StoreError::Backend("disk".into())));
    world.advance_secs(20);
    let answer = world.answer("alice", id);
    assert!(matches!(answer, Some(Err(CommandError::Record(_)))), "{answer:?}");
    assert_eq!(world.state("alice"), "DISCONNECTED");
}

/// Another node has the account: whatever this one is doing, nothing more of it is stored or sent.
#[test]
fn a_lease_that_is_lost_ends_the_account_here() {
    type Prepare = fn() -> World;
    let cases: [(&str, Prepare); 4] = [
        ("not linked", || World::new(&["alice"])),
        ("linking", || {
            let mut world = World::new(&["alice"]);
            world.command("alice", Command::LinkQr).unwrap();
            world
        }),
        ("online", || World::online(&["alice"])),
        ("logging out", || {
            let mut world = World::online(&["alice"]);
            world.network("alice", Network::Stalled);
            world
        }),
    ];
    for (case, prepare) in cases {
        let mut world = prepare();
        world.forget();
        let logout = (case == "logging out").then(|| world.begin("alice", Command::Logout));
        let (stored, frames) = (world.actor("alice").store.snapshot(), world.actor("alice").sent.clone());
        world.say("alice", Input::StoreFailed(StoreError::LeaseLost));
        if let Some(id) = logout {
            assert_eq!(world.answer("alice", id), Some(Err(CommandError::LeaseLost)), "{case}");
        }
        let events = world.events("alice");
        let failed: Vec<_> = events.iter().filter(|event| event.event == "store.failed").collect();
        assert_eq!(failed.len(), 1, "{case}");
        let data = json!({"fault": "lease_lost", "detail": "the lease of the account was lost", "willRetry": false,
            "failures": 1});
        assert_eq!(failed[0].data, data, "{case}");
        let ended = events.last().unwrap();
        assert_eq!(ended.event, "session.disconnected", "{case}");
        assert_eq!((&ended.data["reason"], &ended.data["willReconnect"]), (&json!("storage"), &json!(false)), "{case}");
        for command in [Command::Connect, Command::LinkQr, Command::Logout] {
            assert_eq!(world.command("alice", command), Err(CommandError::LeaseLost), "{case}");
        }
        world.say("alice", Input::StoreFailed(StoreError::LeaseLost));
        world.advance_secs(600);
        assert_eq!(world.events("alice"), [], "{case}");
        assert_eq!(world.actor("alice").store.snapshot(), stored, "{case}");
        assert_eq!(world.actor("alice").sent, frames, "{case}");
    }
}
