//! What tests can have the server do to clients that wait to be linked, and to devices that are logged in.

mod common;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use common::{Client, Device, World, iq, result};
use wamd::node::Node;
use wamd_loopback::{Config, ControlError, Fault, LinkAction, ScanError, ScanOptions};

const ALICE: &str = "15550000001";

fn fault(world: &mut World, fault: Fault) {
    world.server.fault(world.now, fault).unwrap();
    world.drain();
}

fn act(world: &mut World, action: LinkAction) {
    world.server.link_action(world.now, None, action).unwrap();
    world.drain();
}

fn refs(node: &Node) -> Vec<String> {
    let refs = node.find_child("pair-device").unwrap().child_nodes();
    refs.iter().map(|one| one.content_text().unwrap().into_owned()).collect()
}

#[test]
fn refs_may_be_few_many_and_new() {
    for count in [1, 2, 9] {
        let mut world = World::new(Config::default(), 1);
        let mut device = Device::new(1);
        fault(&mut world, Fault::Refs { count });
        let (mut client, first) = world.begin_link(&mut device);
        assert_eq!(first.len(), usize::from(count));
        assert_eq!(world.server.waiting()[0].refs, first);
        act(&mut world, LinkAction::NewRefs { count: 3 });
        let again = refs(&world.expect(&mut client, "iq"));
        assert_eq!(again.len(), 3);
        let scan = |world: &mut World, reference: &str| {
            world.server.scan(world.now, ALICE, &device.qr(reference), &ScanOptions::default())
        };
        assert_eq!(scan(&mut world, &first[0]), Err(ScanError::UnknownRef), "the former refs are void");
        scan(&mut world, &again[2]).unwrap();
    }
}

#[test]
fn a_client_without_account_meets_what_the_test_wants() {
    let mut world = World::new(Config::default(), 1);
    let mut device = Device::new(1);
    assert_eq!(world.server.link_action(world.now, None, LinkAction::Close), Err(ControlError::NotWaiting));
    let failure = Fault::LinkFailure {
        reason: Some(402),
        attrs: BTreeMap::from([("expire".to_owned(), "60".to_owned()), ("code".to_owned(), "101".to_owned())]),
        count: 1,
    };
    fault(&mut world, failure);
    let payload = device.registration_payload();
    let mut client = world.connect(&mut device, &payload, false);
    let failure = world.expect(&mut client, "failure");
    let attrs = ["reason", "expire", "code"].map(|name| failure.attr_u64(name));
    assert_eq!(attrs, [Some(402), Some(60), Some(101)]);

    let (mut client, _) = world.begin_link(&mut device);
    for rotate_qr in [false, true] {
        act(&mut world, LinkAction::RotateSecret { rotate_qr });
        let notification = world.expect(&mut client, "notification");
        assert_eq!(notification.attr_str("type").as_deref(), Some("companion_reg_refresh"));
        let child = if rotate_qr { "pair-device-rotate-qr" } else { "companion_reg_refresh" };
        assert!(notification.find_child(child).is_some());
    }
    act(&mut world, LinkAction::DowngradeWebclient);
    assert!(world.expect(&mut client, "ib").find_child("downgrade_webclient").is_some());
    act(&mut world, LinkAction::Ping);
    assert_eq!(world.expect(&mut client, "iq").attr_str("xmlns").as_deref(), Some("urn:xmpp:ping"));
    act(&mut world, LinkAction::Send { node: Node::new("anything") });
    world.expect(&mut client, "anything");
    act(&mut world, LinkAction::StreamError { code: Some(503) });
    assert_eq!(world.expect(&mut client, "stream:error").attr_u64("code"), Some(503));
    world.advance(Duration::from_millis(200));
    assert!(world.is_closed(&client));

    let (mut client, _) = world.begin_link(&mut device);
    act(&mut world, LinkAction::Failure { reason: Some(405), attrs: BTreeMap::new() });
    assert_eq!(world.expect(&mut client, "failure").attr_u64("reason"), Some(405));

    // One of two, by the number of its connection.
    let (first, _) = world.begin_link(&mut device);
    let (second, _) = world.begin_link(&mut device);
    world.server.link_action(world.now, Some(first.id), LinkAction::Close).unwrap();
    world.drain();
    assert!(world.is_closed(&first) && !world.is_closed(&second));
}

fn online(config: Config) -> (World, Device, Client) {
    let mut world = World::new(config, 1);
    let mut device = Device::new(1);
    world.link(&mut device, ALICE);
    let client = world.login(&mut device, true);
    (world, device, client)
}

#[test]
fn a_login_fails_in_any_shape() {
    let (mut world, mut device, _) = online(Config::default());
    let attrs = BTreeMap::from([("expire".to_owned(), "3600".to_owned()), ("location".to_owned(), "frc".to_owned())]);
    let jid = device.jid();
    fault(&mut world, Fault::LoginFailure { jid: jid.clone(), reason: Some(402), attrs, count: 2 });
    let login = device.login_payload(true);
    for _ in 0..2 {
        let mut client = world.connect(&mut device, &login, false);
        let failure = world.expect(&mut client, "failure");
        assert_eq!((failure.attr_u64("reason"), failure.attr_u64("expire")), (Some(402), Some(3600)));
        assert_eq!(failure.attr_str("location").as_deref(), Some("frc"));
    }
    fault(&mut world, Fault::LoginFailure { jid, reason: None, attrs: BTreeMap::new(), count: 1 });
    let mut client = world.connect(&mut device, &login, false);
    assert_eq!(world.expect(&mut client, "failure").attr_u64("reason"), None);
    world.login(&mut device, true);
}

#[test]
fn stream_errors_have_every_shape() {
    let (mut world, mut device, mut client) = online(Config::default());
    let jid = device.jid();
    let shapes = [
        (Some(401), None, None),
        (None, Some("other"), None),
        (Some(409), Some("replaced"), None),
        (None, None, Some("xml-not-well-formed")),
        (None, None, Some("ack")),
        (None, None, None),
    ];
    for (code, conflict, child) in shapes {
        let (conflict, child) = (conflict.map(str::to_owned), child.map(str::to_owned));
        let error = Fault::StreamError {
            jid: jid.clone(),
            code,
            conflict: conflict.clone(),
            child: child.clone(),
            stay: false,
        };
        fault(&mut world, error);
        let error = world.expect(&mut client, "stream:error");
        assert_eq!(error.attr_u64("code"), code.map(u64::from));
        let told =
            error.find_child("conflict").and_then(|conflict| conflict.attr_str("type").map(|kind| kind.into_owned()));
        assert_eq!(told, conflict);
        assert!(child.is_none_or(|child| error.find_child(&child).is_some()));
        world.advance(Duration::from_millis(200));
        assert!(world.is_closed(&client));
        client = world.login(&mut device, true);
    }
    let late = Fault::StreamError { jid: jid.clone(), code: Some(503), conflict: None, child: None, stay: true };
    fault(&mut world, late);
    world.expect(&mut client, "stream:error");
    world.advance(Duration::from_secs(5));
    assert!(!world.is_closed(&client));
    fault(&mut world, Fault::EndWith { jid, node: Node::new("xmlstreamend") });
    world.expect(&mut client, "xmlstreamend");
    world.advance(Duration::from_millis(200));
    assert!(world.is_closed(&client));
}

#[test]
fn broadcasts_of_the_server() {
    let (mut world, device, mut client) = online(Config::default());
    let jid = device.jid();
    fault(&mut world, Fault::Dirty { jid: jid.clone(), kind: "groups".to_owned(), timestamp: None });
    let ib = world.expect(&mut client, "ib");
    let dirty = ib.find_child("dirty").unwrap();
    assert_eq!(dirty.attr_str("type").as_deref(), Some("groups"));
    assert_eq!(dirty.attr_u64("timestamp"), Some(world.now.unix_seconds()));
    let info = Bytes::from_static(&[1, 2]);
    fault(&mut world, Fault::EdgeRouting { jid: jid.clone(), info: info.clone(), dns_domain: Some("fb".to_owned()) });
    let ib = world.expect(&mut client, "ib");
    let routing = ib.find_child("edge_routing").unwrap();
    assert_eq!(routing.find_child("routing_info").unwrap().content_bytes(), Some(info));
    assert_eq!(routing.find_child("dns_domain").unwrap().content_text().as_deref(), Some("fb"));
    fault(&mut world, Fault::ClientExpiration { jid, t: 5 });
    let ib = world.expect(&mut client, "ib");
    assert_eq!(ib.find_child("client_expiration").unwrap().attr_u64("t"), Some(5));
}

#[test]
fn queries_are_refused_or_not_answered() {
    let (mut world, mut device, mut client) = online(Config::default());
    let jid = device.jid();
    let refuse = |code: Option<u16>, count: u32| Fault::AnswerIq {
        jid: jid.clone(),
        xmlns: "w:p".to_owned(),
        code,
        backoff: code.map(|_| 9),
        count,
    };
    fault(&mut world, refuse(Some(503), 1));
    let answer = world.ask(&mut client, &mut device, iq("get", "w:p"));
    let error = answer.find_child("error").unwrap();
    assert_eq!((error.attr_u64("code"), error.attr_u64("backoff")), (Some(503), Some(9)));
    fault(&mut world, refuse(None, 1));
    world.send(&mut client, &iq("get", "w:p").attr("id", "1"));
    world.expect_silence(&mut client);
    let answer = world.ask(&mut client, &mut device, iq("get", "w:p"));
    assert_eq!(answer.attr_str("type").as_deref(), Some("result"), "other queries and later ones are answered");

    fault(&mut world, Fault::Silence { jid: device.jid(), on: true });
    world.send(&mut client, &iq("get", "w:p").attr("id", "2"));
    fault(&mut world, Fault::Ping { jid: device.jid() });
    world.expect_silence(&mut client);
    assert!(!world.is_closed(&client));
    fault(&mut world, Fault::Silence { jid: device.jid(), on: false });
    world.ask(&mut client, &mut device, iq("get", "w:p"));
}

#[test]
fn a_client_that_does_not_answer_pings_is_dropped() {
    let config = Config {
        ping_every: Some(Duration::from_secs(10)),
        ping_timeout: Some(Duration::from_secs(15)),
        ..Config::default()
    };
    let (mut world, device, mut client) = online(config);
    for _ in 0..3 {
        world.advance(Duration::from_secs(10));
        let ping = world.expect(&mut client, "iq");
        world.send(&mut client, &result(&ping));
    }
    world.advance(Duration::from_secs(24));
    assert!(!world.is_closed(&client));
    world.advance(Duration::from_secs(1));
    assert!(world.is_closed(&client), "15 s after the first ping without an answer");
    assert!(!world.server.accounts()[0].devices[0].connected);
    assert_eq!(world.server.fault(world.now, Fault::Ping { jid: device.jid() }), Err(ControlError::NotConnected));
}
