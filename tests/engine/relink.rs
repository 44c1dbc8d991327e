//! Linking after linking: no codes while there are credentials, fresh keys after a logout, and an end that is told.

use crate::world::{World, named};
use serde_json::json;
use wamd::{
    Jid,
    engine::{Command, CommandError, Reply},
    node::Node,
    store::RecordKind,
};
use wamd_loopback::{Disconnect, Fault, ScanOptions};

const ALICE: &str = "15550000001";

fn code() -> Command {
    Command::LinkCode { phone: ALICE.parse().unwrap(), code: None, notify: true }
}

/// Noise key, identity and secret of the code on the screen.
fn keys(world: &mut World) -> Vec<String> {
    world.qr("alice").split(',').skip(1).take(3).map(str::to_owned).collect()
}

#[test]
fn a_linked_account_shows_no_codes() {
    let mut world = World::online(&["alice", "bob"]);
    for command in [Command::LinkQr, code()] {
        assert_eq!(world.command("alice", command), Err(CommandError::AlreadyLinked));
    }
    // Whatever the server wants.
    let refs = Node::new("pair-device").child(Node::new("ref").bytes(b"2@ref".to_vec()));
    let iq = Node::new("iq").attr("from", Jid::whatsapp_server()).attr("type", "set").attr("xmlns", "md");
    world.stanza_arrives("alice", &iq.attr("id", "1").child(refs));
    for (kind, child) in [
        ("companion_reg_refresh", Node::new("companion_reg_refresh")),
        ("link_code_companion_reg", Node::new("link_code_companion_reg").attr("stage", "refresh_code")),
        ("passkey_prologue_request", Node::new("passkey_request_options").bytes(b"{}".to_vec())),
        ("crsc_continuation", Node::new("primary_ephemeral_identity").bytes(vec![7; 68])),
    ] {
        let node = Node::new("notification").attr("from", Jid::whatsapp_server()).attr("type", kind).attr("id", kind);
        world.heard("alice");
        world.stanza_arrives("alice", &node.child(child));
        let heard = world.heard("alice");
        assert_eq!((heard.len(), heard[0].tag()), (1, "ack"), "{kind} is acknowledged");
    }
    assert_eq!(world.event_names("alice"), [""; 0]);
    world.talk("alice", "bob");
    // Nor after a restart, or while it is offline.
    world.command("alice", Command::Disconnect).unwrap();
    assert_eq!(world.command("alice", code()), Err(CommandError::AlreadyLinked));
    world.crash_and_start("alice");
    assert_eq!(world.command("alice", code()), Err(CommandError::AlreadyLinked));
    assert_eq!(world.command("alice", Command::PasskeyConfirm), Err(CommandError::NoPasskey));
}

#[test]
fn after_a_logout_everything_is_fresh() {
    for by_phone in [false, true] {
        for by_code in [false, true] {
            let mut world = World::new(&["alice", "bob"]);
            world.link("bob");
            let first = {
                world.command("alice", Command::LinkQr).unwrap();
                keys(&mut world)
            };
            world.link("alice");
            let device = world.device("alice");
            world.talk("alice", "bob");
            if by_phone {
                world.disconnect("alice", Disconnect::DeviceRemoved);
            } else {
                assert_eq!(world.command("alice", Command::Logout), Ok(Reply::Done));
            }
            assert_eq!(world.state("alice"), "LOGGED_OUT");
            let left = [RecordKind::Account, RecordKind::Session, RecordKind::Identity, RecordKind::PreKey];
            assert!(left.iter().all(|kind| world.actor("alice").records(*kind).is_empty()), "nothing is left");

            if by_code {
                let Ok(Reply::PairCode { code, .. }) = world.command("alice", code()) else { panic!("no code") };
                assert_eq!(world.state("alice"), "PENDING");
                let second = keys(&mut world);
                assert!(first.iter().all(|key| !second.contains(key)), "noise key, identity and secret are new");
                let now = world.now();
                world.server.enter_code(now, ALICE, &code.shown(), &ScanOptions::default()).unwrap();
                world.settle();
            } else {
                assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
                let second = keys(&mut world);
                assert!(first.iter().all(|key| !second.contains(key)), "noise key, identity and secret are new");
                world.scan("alice", &ScanOptions::default());
            }
            assert_eq!(world.state("alice"), "CONNECTED");
            assert_ne!(world.device("alice"), device, "another device of the account");
            world.talk("alice", "bob");
        }
    }
}

#[test]
fn keys_that_were_kept_for_a_code_do_not_survive_a_logout() {
    let mut world = World::new(&["alice", "bob"]);
    world.link("bob");
    let Ok(Reply::PairCode { code, .. }) = world.command("alice", code()) else { panic!("no code") };
    let now = world.now();
    world.server.enter_code(now, ALICE, &code.shown(), &ScanOptions::default()).unwrap();
    world.settle();
    let first = keys(&mut world);
    assert_eq!(world.command("alice", Command::Logout), Ok(Reply::Done));
    world.crash_and_start("alice");
    assert_eq!(world.state("alice"), "PENDING");
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    let second = keys(&mut world);
    assert!(first.iter().all(|key| !second.contains(key)));
}

#[test]
fn an_attempt_that_is_given_up_leaves_a_session_without_credentials() {
    let mut world = World::new(&["alice", "bob"]);
    world.link("bob");
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    world.forget();
    assert_eq!(world.command("alice", Command::Disconnect), Ok(Reply::Done));
    let event = world.only("alice", "session.disconnected");
    assert_eq!((&event["reason"], &event["linked"]), (&json!("stopped"), &json!(false)));
    assert_eq!(world.state("alice"), "PENDING");
    world.link("alice");
    world.forget();
    assert_eq!(world.command("alice", Command::Disconnect), Ok(Reply::Done));
    let event = world.only("alice", "session.disconnected");
    assert_eq!(event.get("linked"), None, "of a linked device nothing is said");
    assert_eq!(world.state("alice"), "DISCONNECTED");
}

#[test]
fn a_server_that_restarts_the_stream_without_end_is_met_after_a_pause() {
    let mut world = World::new(&["alice"]);
    world.command("alice", Command::LinkQr).unwrap();
    let (qr, now) = (world.qr("alice"), world.now());
    let linked = world.server.scan(now, ALICE, &qr, &ScanOptions::default()).unwrap();
    // Every login is answered by 515.
    for _ in 0..200 {
        let node = Node::new("stream:error").attr("code", "515");
        let now = world.now();
        let _ = world.server.fault(now, Fault::RefuseLogin { jid: linked.jid.clone(), node });
        world.steps(1);
    }
    let events = world.events("alice");
    let retries = named(&events, "session.reconnecting");
    let pauses: Vec<_> = retries.iter().map(|event| event.data["delayMs"].as_u64().unwrap()).collect();
    assert!(pauses.len() < 20, "without end: {} attempts", pauses.len());
    assert!(pauses.len() >= 3 && pauses.last().is_some_and(|pause| *pause > 500), "{pauses:?}");
}
