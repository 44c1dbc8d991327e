//! The same seed and the same inputs give the same outputs, byte for byte.

mod common;

use std::time::Duration;

use common::{Device, World, fan_out, receipt};
use wamd_loopback::{Config, Damage, Disconnect, Fault, GroupSpec, Output};

/// A run through linking, key exchange, messages both ways, faults and reconnects.
fn run(seed: u8) -> Vec<Output> {
    let mut world = World::new(Config::default(), seed);
    let (mut alice, mut bob) = (Device::new(1), Device::new(2));
    let mut alice_client = world.ready(&mut alice, "15550000001");
    let mut bob_client = world.ready(&mut bob, "15550000002");
    world.open_session(&mut alice_client, &mut alice, &bob.lid());
    let enc = alice.encrypt(&bob.lid(), "hello");
    world.send(&mut alice_client, &fan_out("M1", &bob.lid().to_bare(), vec![(bob.lid(), enc)], &alice));
    let message = world.expect(&mut bob_client, "message");
    world.send(&mut bob_client, &receipt(&message, None));
    let members = vec![bob.lid().to_bare()];
    let spec =
        GroupSpec { creator: "15550000001".to_owned(), subject: "G".to_owned(), members, ..GroupSpec::default() };
    let group = world.server.create_group(world.now, &spec).unwrap().jid;
    let what = Damage::Delay { ms: 700 };
    let delay = Fault::Delivery { jid: bob.lid(), what, enc: None, id: None, every: 1, count: Some(1) };
    world.server.fault(world.now, delay).unwrap();
    world.server.send_text(world.now, "15550000001", &group, "to all").unwrap();
    world.drain();
    world.advance(Duration::from_secs(1));
    world.server.fault(world.now, Fault::TamperNext { jid: bob.lid(), count: 1 }).unwrap();
    world.server.send_text(world.now, "15550000001", &bob.lid(), "from the phone").unwrap();
    world.server.disconnect(world.now, &bob.lid(), Disconnect::StreamError(503)).unwrap();
    world.drain();
    world.advance(Duration::from_secs(5));
    let mut bob_client = world.login(&mut bob, false);
    let backlog = world.backlog(&mut bob_client);
    let tags: Vec<_> = backlog.iter().map(|node| node.tag()).collect();
    assert_eq!(tags, ["notification", "message", "message"]);
    world.trace
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let first = run(1);
    assert!(first.len() > 40, "{} outputs", first.len());
    assert_eq!(first, run(1));
    assert_ne!(first, run(2));
}
