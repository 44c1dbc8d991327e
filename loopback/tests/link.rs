//! Linking and logging in, seen by a strict client: handshake patterns, pair-success, refusals.

mod common;

use std::time::Duration;

use common::{Device, World, iq, result};
use wamd::jid::Jid;
use wamd::node::Node;
use wamd::noise::Protocol;
use wamd_loopback::{Config, ConnId, Disconnect, Fault, Input, Pattern, ScanError, ScanOptions};

const ALICE: &str = "15550000001";

#[test]
fn a_companion_is_linked_and_logs_in() {
    let mut world = World::new(Config::default(), 1);
    let mut device = Device::new(1);
    let linked = world.link(&mut device, ALICE);
    assert_eq!((Some(&linked.jid), Some(&linked.lid), linked.device), (device.jid.as_ref(), device.lid.as_ref(), 1));
    let account = &world.server.accounts()[0];
    assert_eq!((account.devices[0].connected, account.devices[0].registered), (false, false));

    let mut client = world.login(&mut device, false);
    assert!(world.backlog(&mut client).is_empty(), "passive=false is served straight away");
    let account = &world.server.accounts()[0];
    assert_eq!((account.devices[0].connected, account.devices[0].registered), (true, true));
    assert_eq!(account.last_link_error, None);

    world.close(&client);
    assert!(!world.server.accounts()[0].devices[0].connected);
}

#[test]
fn six_refs_come_and_the_client_is_dropped_after_the_last() {
    let mut world = World::new(Config { ref_grace: Duration::ZERO, ..Config::default() }, 1);
    let mut device = Device::new(1);
    let (client, refs) = world.begin_link(&mut device);
    assert_eq!(refs.len(), 6);
    let scan = |world: &mut World, index: usize| {
        let qr = device.qr(&refs[index]);
        world.server.scan(world.now, ALICE, &qr, &ScanOptions { spoil_hmac: true, ..ScanOptions::default() })
    };
    world.advance(Duration::from_secs(61));
    assert_eq!(scan(&mut world, 0), Err(ScanError::ExpiredRef));
    world.advance(Duration::from_secs(98));
    assert!(!world.is_closed(&client));
    assert_eq!(scan(&mut world, 4), Err(ScanError::ExpiredRef));
    world.advance(Duration::from_secs(1));
    assert!(world.is_closed(&client));
    assert_eq!(scan(&mut world, 5), Err(ScanError::UnknownRef));
}

#[test]
fn the_phone_checks_what_it_scans() {
    let mut world = World::new(Config::default(), 1);
    let (mut device, mut other) = (Device::new(1), Device::new(2));
    let (_client, refs) = world.begin_link(&mut device);
    let good = device.qr(&refs[0]);
    let mut scan = |number: &str, qr: &str| world.server.scan(world.now, number, qr, &ScanOptions::default());

    assert_eq!(scan("0", &good), Err(ScanError::Number));
    assert_eq!(scan(ALICE, ""), Err(ScanError::Malformed("five fields are needed")));
    let four = good.rsplit_once(',').unwrap().0;
    assert_eq!(scan(ALICE, four), Err(ScanError::Malformed("five fields are needed")));
    assert_eq!(scan(ALICE, &format!("{four},x")), Err(ScanError::Malformed("unknown client type")));
    assert_eq!(scan(ALICE, &format!("{four},12")), Err(ScanError::Malformed("unknown client type")));
    assert_eq!(scan(ALICE, &good.replace("=,1", ",1")), Err(ScanError::Malformed("bad ADV secret")));
    assert_eq!(scan(ALICE, &device.qr("2@unknown")), Err(ScanError::UnknownRef));
    assert_eq!(scan(ALICE, &other.qr(&refs[0])), Err(ScanError::NoiseKey));
    other.noise = device.noise.clone();
    assert_eq!(scan(ALICE, &other.qr(&refs[0])), Err(ScanError::IdentityKey));
    let bare = good.split_once('#').unwrap().1;
    assert!(scan(ALICE, bare).is_ok(), "the bare form is fine, and failures before it did no harm");
    assert_eq!(scan(ALICE, &good), Err(ScanError::AlreadyScanned));
}

#[test]
fn a_spoiled_scan_is_refused_by_the_client() {
    let spoiled = [
        (ScanOptions { spoil_hmac: true, ..ScanOptions::default() }, "hmac-mismatch"),
        (ScanOptions { spoil_signature: true, ..ScanOptions::default() }, "signature-mismatch"),
    ];
    for (options, expected) in spoiled {
        let mut world = World::new(Config::default(), 1);
        let mut device = Device::new(1);
        let (mut client, refs) = world.begin_link(&mut device);
        world.server.scan(world.now, ALICE, &device.qr(&refs[0]), &options).unwrap();
        world.drain();
        let success = world.expect(&mut client, "iq");
        assert_eq!(device.answer_pair_success(&success).unwrap_err(), expected);
        let error = Node::new("error").attr("code", "401").attr("text", expected);
        world.send(&mut client, &result(&success).attr("type", "error").child(error));
        let account = &world.server.accounts()[0];
        assert_eq!(account.last_link_error.as_deref(), Some(&format!("401 {expected}")[..]));
        assert!(account.devices.is_empty());
    }
}

#[test]
fn a_wrong_device_signature_links_nothing() {
    let mut world = World::new(Config::default(), 1);
    let mut device = Device::new(1);
    let (mut client, refs) = world.begin_link(&mut device);
    world.server.scan(world.now, ALICE, &device.qr(&refs[0]), &ScanOptions::default()).unwrap();
    world.drain();
    let success = world.expect(&mut client, "iq");
    let answer = {
        // The device signature is the last field, so this changes a bit of it.
        let honest = device.answer_pair_success(&success).unwrap();
        let sign = honest.find_child("pair-device-sign").unwrap().find_child("device-identity").unwrap();
        let mut bytes = sign.content_bytes().unwrap().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        let forged = Node { content: wamd::node::NodeContent::Bytes(bytes.into()), ..sign.clone() };
        result(&success).child(Node::new("pair-device-sign").child(forged))
    };
    world.send(&mut client, &answer);
    world.advance(Duration::from_secs(1));
    assert!(world.is_closed(&client));
    let account = &world.server.accounts()[0];
    assert_eq!(account.last_link_error.as_deref(), Some("the device signature does not verify"));
    assert!(account.devices.is_empty());
}

#[test]
fn known_devices_resume_and_fall_back() {
    let mut world = World::new(Config::default(), 1);
    let mut device = Device::new(1);
    world.link(&mut device, ALICE);
    let login = device.login_payload(true);
    let attempts = [
        (false, false, Protocol::Xx, Pattern::Xx),
        (false, true, Protocol::Ik, Pattern::Ik),
        (true, true, Protocol::XxFallback, Pattern::XxFallback),
        (false, true, Protocol::Ik, Pattern::Ik),
    ];
    for (rotate, resume, expected, pattern) in attempts {
        if rotate {
            world.server.fault(world.now, Fault::RotateStatic).unwrap();
        }
        let mut client = world.connect(&mut device, &login, resume);
        assert_eq!(client.wire.outcome, Some(Ok(expected)));
        world.expect(&mut client, "success");
        assert_eq!(world.server.pattern(&device.jid()), Some(pattern));
        world.close(&client);
    }
}

#[test]
fn the_static_key_follows_from_the_root() {
    let root = wamd::crypto::PrivateKey::from_bytes([9; 32]);
    let config = || Config { root: Some(root.clone()), ..Config::default() };
    let mut device = Device::new(1);
    let mut first = World::new(config(), 1);
    first.link(&mut device, ALICE);
    let mut second = World::new(config(), 2);
    let payload = device.login_payload(true);
    let mut client = second.connect(&mut device, &payload, true);
    assert_eq!(client.wire.outcome, Some(Ok(Protocol::Ik)));
    assert_eq!(second.expect(&mut client, "failure").attr_u64("reason"), Some(401), "but it knows nobody");
}

#[test]
fn a_foreign_chain_is_refused_by_the_client() {
    let mut world = World::new(Config::default(), 1);
    world.server.fault(world.now, Fault::ForgedCertificate { on: true }).unwrap();
    let mut device = Device::new(1);
    let payload = device.registration_payload();
    let client = world.connect(&mut device, &payload, false);
    assert!(matches!(client.wire.outcome, Some(Err(_))), "{:?}", client.wire.outcome);
    world.server.fault(world.now, Fault::ForgedCertificate { on: false }).unwrap();
    assert_eq!(world.connect(&mut device, &payload, false).wire.outcome, Some(Ok(Protocol::Xx)));
}

#[test]
fn unknown_and_outdated_clients_fail() {
    let mut world = World::new(Config::default(), 1);
    let mut device = Device::new(1);
    world.link(&mut device, ALICE);
    let login = device.login_payload(true);

    let mut stranger = Device::new(2);
    let mut client = world.connect(&mut stranger, &login, false);
    let failure = world.expect(&mut client, "failure");
    assert_eq!(failure.attr_u64("reason"), Some(401), "another noise key");
    world.advance(Duration::from_millis(200));
    assert!(world.is_closed(&client));

    let unknown = wamd::proto::wa6::ClientPayload { device: Some(2), ..login.clone() };
    let mut client = world.connect(&mut device, &unknown, false);
    assert_eq!(world.expect(&mut client, "failure").attr_u64("reason"), Some(401), "another device");

    let fault = Fault::FailLogin { jid: device.jid(), reason: 503, count: 1 };
    world.server.fault(world.now, fault).unwrap();
    let mut client = world.connect(&mut device, &login, false);
    assert_eq!(world.expect(&mut client, "failure").attr_u64("reason"), Some(503));

    let too_new = Fault::MinimumVersion { version: Some([2, 3000, 1_045_649_368]) };
    world.server.fault(world.now, too_new).unwrap();
    let mut client = world.connect(&mut device, &login, false);
    assert_eq!(world.expect(&mut client, "failure").attr_u64("reason"), Some(405));
    let just_right = Fault::MinimumVersion { version: Some([2, 3000, 1_045_649_367]) };
    world.server.fault(world.now, just_right).unwrap();
    let mut client = world.connect(&mut device, &login, false);
    world.expect(&mut client, "success");
}

#[test]
fn connections_end_in_every_way_a_test_may_want() {
    let mut world = World::new(Config::default(), 1);
    let mut device = Device::new(1);
    world.link(&mut device, ALICE);
    let jid = device.jid();
    for code in [403, 429, 500, 503, 515, 516] {
        let mut client = world.login(&mut device, true);
        world.server.disconnect(world.now, &jid, Disconnect::StreamError(code)).unwrap();
        world.drain();
        assert_eq!(world.expect(&mut client, "stream:error").attr_u64("code"), Some(u64::from(code)));
        world.advance(Duration::from_millis(200));
        assert!(world.is_closed(&client));
        assert!(!world.server.accounts()[0].devices[0].connected);
    }
    for (how, code) in [(Disconnect::StreamError(409), Some(409)), (Disconnect::Replaced, None)] {
        let mut client = world.login(&mut device, true);
        world.server.disconnect(world.now, &jid, how).unwrap();
        world.drain();
        let error = world.expect(&mut client, "stream:error");
        assert_eq!(error.attr_u64("code"), code);
        assert_eq!(error.find_child("conflict").unwrap().attr_str("type").as_deref(), Some("replaced"));
    }
    let mut client = world.login(&mut device, true);
    world.server.disconnect(world.now, &jid, Disconnect::XmlStreamEnd).unwrap();
    world.drain();
    world.expect(&mut client, "xmlstreamend");

    let mut client = world.login(&mut device, true);
    world.server.disconnect(world.now, &jid, Disconnect::Plain).unwrap();
    world.drain();
    world.expect_silence(&mut client);
    assert!(world.is_closed(&client), "at once");

    let mut client = world.login(&mut device, true);
    world.server.disconnect(world.now, &jid, Disconnect::DeviceRemoved).unwrap();
    world.drain();
    let error = world.expect(&mut client, "stream:error");
    assert_eq!(error.attr_u64("code"), Some(401));
    assert_eq!(error.find_child("conflict").unwrap().attr_str("type").as_deref(), Some("device_removed"));
    let login = device.login_payload(true);
    let mut client = world.connect(&mut device, &login, false);
    assert_eq!(world.expect(&mut client, "failure").attr_u64("reason"), Some(401));
}

#[test]
fn a_second_connection_replaces_the_first() {
    let mut world = World::new(Config::default(), 1);
    let mut device = Device::new(1);
    world.link(&mut device, ALICE);
    let mut first = world.login(&mut device, true);
    let _second = world.login(&mut device, true);
    let error = world.expect(&mut first, "stream:error");
    assert_eq!(error.find_child("conflict").unwrap().attr_str("type").as_deref(), Some("replaced"));
    world.advance(Duration::from_millis(200));
    assert!(world.is_closed(&first));
    assert!(world.server.accounts()[0].devices[0].connected, "the end of the first does not touch the second");
}

#[test]
fn a_device_can_log_itself_out_and_nobody_else() {
    let mut world = World::new(Config::default(), 1);
    let (mut one, mut two) = (Device::new(1), Device::new(2));
    world.link(&mut one, ALICE);
    world.link(&mut two, ALICE);
    let mut client = world.login(&mut one, true);
    let remove = |jid: Jid| {
        iq("set", "md").child(Node::new("remove-companion-device").attr("jid", jid).attr("reason", "user_initiated"))
    };
    let other = world.ask(&mut client, &mut one, remove(two.jid()));
    assert_eq!(other.attr_str("type").as_deref(), Some("error"));
    let own = remove(one.jid());
    let own = world.ask(&mut client, &mut one, own);
    assert_eq!(own.attr_str("type").as_deref(), Some("result"));
    assert_eq!(world.expect(&mut client, "stream:error").attr_u64("code"), Some(401));
    let devices: Vec<u16> = world.server.accounts()[0].devices.iter().map(|device| device.device).collect();
    assert_eq!(devices, [2]);
}

#[test]
fn the_server_pings_and_waits_for_handshakes_only_so_long() {
    let config = Config { ping_every: Some(Duration::from_secs(10)), ..Config::default() };
    let mut world = World::new(config, 1);
    let mut device = Device::new(1);
    world.link(&mut device, ALICE);
    let mut client = world.login(&mut device, true);
    world.advance(Duration::from_secs(20));
    for _ in 0..2 {
        let ping = world.expect(&mut client, "iq");
        assert_eq!(ping.attr_str("xmlns").as_deref(), Some("urn:xmpp:ping"));
        world.send(&mut client, &result(&ping));
    }
    world.expect_silence(&mut client);

    world.feed(Input::Opened(ConnId(999)));
    world.advance(Duration::from_secs(20));
    assert!(world.trace.contains(&wamd_loopback::Output::Close(ConnId(999))));
}
