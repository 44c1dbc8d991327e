//! Connecting again: the short handshake when the server's key is known, the full one when it is not any more, and the
//! way back to the same place (spec 01 §1.3, §2.4).

use crate::world::{self, Network, World};
use bytes::Bytes;
use wamd::{
    engine::{Command, Reply},
    noise::frame::IntroReader,
};
use wamd_loopback::{Fault, Pattern};

const ROUTING: [u8; 6] = [0x08, 0x02, 0x08, 0x05, 0x12, 0x01];

/// The routing info in front of the newest connection that got so far as to send something.
fn routing(world: &mut World) -> Option<Vec<u8>> {
    let sent = &world.actor("alice").sent;
    let first = sent.iter().rev().find_map(|connection| connection.first()).expect("it has connected");
    let mut reader = IntroReader::new(0x1_0000);
    reader.push(first);
    let intro = reader.next_intro().unwrap().expect("an intro");
    intro.routing_info.map(|info| info.to_vec())
}

fn pattern(world: &World) -> Option<Pattern> {
    world.server.pattern(&world.device("alice"))
}

fn reconnect(world: &mut World) {
    assert_eq!(world.command("alice", Command::Reconnect), Ok(Reply::Done));
    assert_eq!(world.state("alice"), "CONNECTED");
}

#[test]
fn the_second_connection_resumes() {
    let mut world = World::online(&["alice", "bob"]);
    // Linked and logged in in one go: only a registered device caches the chain.
    assert_eq!(pattern(&world), Some(Pattern::Xx));
    for _ in 0..3 {
        reconnect(&mut world);
        assert_eq!(pattern(&world), Some(Pattern::Ik));
    }
    world.crash_and_start("alice");
    reconnect(&mut world);
    assert_eq!(pattern(&world), Some(Pattern::Ik));
    // In IK everything that identifies us is in the first message, sealed for the known key.
    let last = world.actor("alice").sent.last().unwrap().clone();
    assert!(last.len() > 1);
    world.talk("alice", "bob");
}

#[test]
fn another_key_of_the_server_costs_a_fallback_once() {
    let mut world = World::online(&["alice", "bob"]);
    reconnect(&mut world);
    for _ in 0..2 {
        let before = world.actor("alice").records(wamd::store::RecordKind::Account);
        world.fault(Fault::RotateStatic);
        world.forget();
        reconnect(&mut world);
        assert_eq!(pattern(&world), Some(Pattern::XxFallback));
        assert_eq!(world.data("alice", "session.disconnected").len(), 0, "it is not an outage");
        assert_ne!(world.actor("alice").records(wamd::store::RecordKind::Account), before, "the new key is kept");
        reconnect(&mut world);
        assert_eq!(pattern(&world), Some(Pattern::Ik));
        world.crash_and_start("alice");
        reconnect(&mut world);
        assert_eq!(pattern(&world), Some(Pattern::Ik));
    }
    world.talk("alice", "bob");
}

#[test]
fn resuming_can_be_switched_off() {
    let mut world = World::new(&["bob"]);
    world.add("alice", "15550000009", |config| config.resume = false);
    world.link("alice");
    world.link("bob");
    for _ in 0..2 {
        reconnect(&mut world);
        assert_eq!(pattern(&world), Some(Pattern::Xx));
    }
    world.talk("alice", "bob");
}

#[test]
fn routing_info_is_sent_back() {
    let mut world = World::new(&["alice", "bob"]);
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    assert_eq!(routing(&mut world), None);
    world.scan("alice", &Default::default());
    assert_eq!(routing(&mut world), None, "it comes with the login");
    reconnect(&mut world);
    assert_eq!(routing(&mut world).as_deref(), Some(&ROUTING[..]));
    world.crash_and_start("alice");
    reconnect(&mut world);
    assert_eq!(routing(&mut world).as_deref(), Some(&ROUTING[..]));
    // Where it leads nowhere, it does not lead again.
    world.change_next("alice", |_| Bytes::from_static(b"\x00\x00\x01\xff"));
    assert_eq!(world.command("alice", Command::Reconnect), Ok(Reply::Done));
    assert_eq!(world.state("alice"), "DISCONNECTED");
    world.network("alice", Network::Up);
    world.advance_secs(2);
    assert_eq!(world.state("alice"), "CONNECTED");
    assert_eq!(routing(&mut world), None);
    reconnect(&mut world);
    assert_eq!(routing(&mut world).as_deref(), Some(&ROUTING[..]));
    world.link("bob");
    world.talk("alice", "bob");
}

#[test]
fn without_routing_info_nothing_is_in_front() {
    let config = wamd_loopback::Config { edge_routing: None, ..wamd_loopback::Config::default() };
    let mut world = World::with_server(config, &["alice"]);
    world.link("alice");
    reconnect(&mut world);
    assert_eq!(routing(&mut world), None);
}

#[test]
fn certificates_out_of_their_time_are_refused() {
    let seconds = world::START_MS / 1_000;
    let validity = wamd_loopback::Validity { not_before: seconds, not_after: seconds + 3_600 };
    let config = wamd_loopback::Config { validity, ..wamd_loopback::Config::default() };
    let mut world = World::with_server(config, &["alice"]);
    world.link("alice");
    reconnect(&mut world);
    assert_eq!(pattern(&world), Some(Pattern::Ik));
    world.advance_secs(7_200);
    world.forget();
    // The cached chain is not used, and the one that is shown is not taken.
    assert_eq!(world.command("alice", Command::Reconnect), Ok(Reply::Done));
    let outage = world.only("alice", "session.disconnected");
    let detail = outage["detail"].as_str().unwrap();
    assert!(detail.starts_with("Xx handshake: ") && detail.contains("was valid until"), "{detail}");
    assert_eq!(world.heard("alice"), []);
}
