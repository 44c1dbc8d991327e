//! Linking with a passkey, as a whole: the engine, the server and a phone under virtual time (spec 01 §5.8).

use crate::world::{Disk, START_MS, World, named};
use serde_json::{Value, json};
use wamd::{
    engine::{Command, CommandError, Reply},
    event::Envelope,
    node::Node,
    store::RecordKind,
};
use wamd_loopback::{Fault, LinkAction, LinkStage, PasskeyOptions, ScanOptions};

const ALICE: &str = "15550000001";

/// A world in which alice shows a QR code.
fn linking() -> World {
    let mut world = World::new(&["alice", "bob"]);
    world.link("bob");
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    world.forget();
    world
}

/// The same, at a server that keeps connections for long after the last ref.
fn patient() -> World {
    let server = wamd_loopback::Config { ref_grace: std::time::Duration::from_secs(1_000), ..Default::default() };
    let mut world = World::with_server(server, &["alice", "bob"]);
    world.link("bob");
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    world
}

/// The phone, which has read this QR code if any, wants a passkey.
fn begin(world: &mut World, qr: Option<&str>, options: &PasskeyOptions) {
    let now = world.now();
    world.server.begin_passkey(now, ALICE, qr, options).expect("somebody waits");
    world.settle();
}

fn assertion() -> Command {
    Command::PasskeyAssertion { credential_id: b"credential"[..].into(), assertion: b"{\"id\":\"x\"}"[..].into() }
}

/// The code that the phone shows.
fn phone_code(world: &World) -> String {
    let waiting = world.server.waiting();
    let passkey = serde_json::to_value(waiting.last().unwrap().passkey.as_ref().unwrap()).unwrap();
    passkey["code"].as_str().expect("the phone shows a code").to_owned()
}

fn told(events: &[Envelope], name: &str) -> Vec<(u64, Value)> {
    named(events, name).iter().map(|event| ((event.timestamp - START_MS) / 1_000, event.data.clone())).collect()
}

fn linked(world: &mut World) {
    assert_eq!(world.state("alice"), "CONNECTED");
    world.talk("alice", "bob");
}

/// The requests of a link with a passkey that the server has heard since the last call.
fn requests(world: &mut World) -> Vec<String> {
    let heard = world.heard("alice");
    let iqs = heard.iter().filter(|node| node.attr_str("xmlns").as_deref() == Some("md"));
    iqs.filter_map(|node| node.first_child().map(|child| child.tag().to_owned())).collect()
}

#[test]
fn a_phone_that_has_read_the_qr_code_needs_no_confirmation() {
    let mut world = linking();
    let qr = world.qr("alice");
    begin(&mut world, Some(&qr), &PasskeyOptions { require_proof: true, ..PasskeyOptions::default() });
    let events = world.events("alice");
    let (_, asked) = told(&events, "session.passkey_request").remove(0);
    assert_eq!(asked["options"]["rpId"], "whatsapp.com");
    assert_eq!(asked["challenge"], asked["options"]["challenge"]);
    assert_eq!((&asked["expiresInMs"], &asked["expiresAt"]), (&json!(600_000), &json!(START_MS + 600_000)));
    assert_eq!(world.state("alice"), "PENDING");
    assert_ne!(world.qr("alice"), qr, "the secret in the QR code was replaced");

    world.advance_secs(100);
    requests(&mut world);
    assert_eq!(world.command("alice", assertion()), Ok(Reply::Done));
    assert_eq!(requests(&mut world), ["ref", "passkey_prologue", "companion_nonce", "encrypted_pairing_request"]);
    let events = world.events("alice");
    let (_, confirmation) = told(&events, "session.passkey_confirmation").remove(0);
    assert_eq!(confirmation["required"], false);
    linked(&mut world);
}

#[test]
fn the_options_are_asked_for_when_they_do_not_come() {
    let mut world = linking();
    begin(&mut world, None, &PasskeyOptions { leave_out: true, ..PasskeyOptions::default() });
    assert_eq!(requests(&mut world), ["passkey_request_options"]);
    assert_eq!(world.only("alice", "session.passkey_request")["options"]["rpId"], "whatsapp.com");
    assert_eq!(world.command("alice", assertion()), Ok(Reply::Done));
    linked(&mut world);
}

#[test]
fn without_the_proof_people_compare_codes() {
    let mut world = patient();
    let qr = world.qr("alice");
    begin(&mut world, Some(&qr), &PasskeyOptions::default());
    // The proof is good for five minutes.
    world.advance_secs(300);
    requests(&mut world);
    world.forget();
    assert_eq!(world.command("alice", assertion()), Ok(Reply::Done));
    assert_eq!(requests(&mut world), ["ref", "passkey_prologue", "companion_nonce"], "and no more for now");
    let told = world.only("alice", "session.passkey_confirmation");
    assert_eq!(told["required"], true);
    assert_eq!(told["code"].as_str().unwrap().replace('-', ""), phone_code(&world));
    world.advance_secs(299);
    assert_eq!(world.command("alice", Command::PasskeyConfirm), Ok(Reply::Done));
    assert_eq!(requests(&mut world)[0], "encrypted_pairing_request");
    linked(&mut world);
}

#[test]
fn a_phone_that_insists_on_the_proof_gets_none_that_is_too_old() {
    let mut world = patient();
    let qr = world.qr("alice");
    begin(&mut world, Some(&qr), &PasskeyOptions { require_proof: true, ..PasskeyOptions::default() });
    world.advance_secs(300);
    world.command("alice", assertion()).unwrap();
    let error = world.only("alice", "session.passkey_error");
    assert_eq!(error, json!({"error": "bad_request", "code": 400}));
}

#[test]
fn the_phone_is_asked_for_everything_once() {
    let mut world = linking();
    assert_eq!(world.command("alice", assertion()), Err(CommandError::NoPasskey));
    begin(&mut world, None, &PasskeyOptions { hold: true, ..PasskeyOptions::default() });
    for (id, json, expected) in [
        (&b""[..], &b"{}"[..], CommandError::Content("the assertion is empty")),
        (b"id", b"", CommandError::Content("the assertion is empty")),
        (b"id", &[b' '; 65_537], CommandError::Content("the assertion is too large")),
    ] {
        let command = Command::PasskeyAssertion { credential_id: id.to_vec().into(), assertion: json.to_vec().into() };
        assert_eq!(world.command("alice", command), Err(expected));
    }
    assert_eq!(world.command("alice", assertion()), Ok(Reply::Done));
    assert_eq!(world.command("alice", assertion()), Err(CommandError::NoPasskey), "one is enough");
    assert_eq!(world.command("alice", Command::PasskeyConfirm), Err(CommandError::NoPasskey));
    // Nor is there room for a code beside it.
    let code = Command::LinkCode { phone: ALICE.parse().unwrap(), code: None, notify: true };
    assert_eq!(world.command("alice", code), Err(CommandError::LinkUnderWay));
}

#[test]
fn what_does_not_come_from_the_server_is_ignored() {
    let mut world = linking();
    begin(&mut world, None, &PasskeyOptions { foreign_sender: true, ..PasskeyOptions::default() });
    assert_eq!(world.event_names("alice"), [""; 0]);
    assert_eq!(world.heard("alice")[0].tag(), "ack");
    world.scan("alice", &ScanOptions::default());
    linked(&mut world);
}

#[test]
fn the_secret_is_durable_before_anything_rests_on_it() {
    let mut world = linking();
    world.disk("alice", Disk::Stuck);
    let qr = world.qr("alice");
    begin(&mut world, Some(&qr), &PasskeyOptions::default());
    assert_eq!(world.event_names("alice"), [""; 0], "not even the question");
    let batches = world.actor("alice").held_batches();
    assert!(batches[0].puts.iter().any(|(key, _)| key.kind == RecordKind::Account));
    world.disk("alice", Disk::Works);
    world.command("alice", assertion()).unwrap();
    linked(&mut world);
}

#[test]
fn a_step_that_the_server_refuses_ends_it() {
    let stages = [
        LinkStage::PasskeyOptions,
        LinkStage::PasskeyRef,
        LinkStage::PasskeyPrologue,
        LinkStage::CompanionNonce,
        LinkStage::PairingRequest,
    ];
    for stage in stages {
        for (code, after, error) in [
            (Some(400), 0, json!({"error": "bad_request", "code": 400})),
            (Some(429), 0, json!({"error": "rate_limited", "code": 429})),
            (None, 30, json!({"error": "timeout"})),
        ] {
            let mut world = linking();
            world.fault(Fault::LinkAnswer { stage, code, backoff: None, count: 1 });
            begin(&mut world, None, &PasskeyOptions { leave_out: true, ..PasskeyOptions::default() });
            let asked = world.command("alice", assertion());
            assert_eq!(asked.is_ok(), stage != LinkStage::PasskeyOptions);
            world.advance_secs(after);
            let (after, error) = match (stage, code) {
                // Nobody waits for its answer, and the next step cannot do without it.
                (LinkStage::CompanionNonce, None) => (0, json!({"error": "bad_request", "code": 400})),
                _ => (after, error),
            };
            let events = world.events("alice");
            assert_eq!(told(&events, "session.passkey_error"), [(after, error)], "{stage:?} {code:?}");
            assert_eq!(world.state("alice"), "PENDING");
            world.scan("alice", &ScanOptions::default());
            linked(&mut world);
        }
    }
}

#[test]
fn people_do_not_have_for_ever() {
    // For the assertion.
    let mut world = linking();
    begin(&mut world, None, &PasskeyOptions::default());
    world.advance_secs(170);
    // By then the server has closed, for its QR codes are used up: with an outstanding passkey that is the end.
    let events = world.events("alice");
    assert_eq!(told(&events, "session.passkey_error"), [(170, json!({"error": "connection_lost"}))]);
    assert_eq!((world.conn("alice"), world.state("alice")), (None, "PENDING"));

    let mut world = patient();
    begin(&mut world, None, &PasskeyOptions { hold: true, ..PasskeyOptions::default() });
    world.forget();
    world.advance_secs(599);
    assert!(world.conn("alice").is_some());
    world.advance_secs(1);
    let events = world.events("alice");
    assert_eq!(told(&events, "session.passkey_error"), [(600, json!({"error": "timeout"}))]);
    assert_eq!((world.conn("alice"), world.state("alice")), (None, "PENDING"));
    // Then for the phone.
    world.command("alice", Command::LinkQr).unwrap();
    begin(&mut world, None, &PasskeyOptions { hold: true, ..PasskeyOptions::default() });
    world.command("alice", assertion()).unwrap();
    world.forget();
    world.advance_secs(300);
    assert_eq!(told(&world.events("alice"), "session.passkey_error")[0].1, json!({"error": "timeout"}));
}

#[test]
fn options_that_are_not_json_are_refused() {
    let mut world = linking();
    begin(&mut world, None, &PasskeyOptions { request: Some("nonsense".to_owned()), ..PasskeyOptions::default() });
    let events = world.events("alice");
    assert_eq!(told(&events, "session.passkey_error"), [(0, json!({"error": "malformed"}))]);
    world.scan("alice", &ScanOptions::default());
    linked(&mut world);
}

#[test]
fn keys_of_small_order_are_refused() {
    for (key, error) in [(vec![0; 32], "weak_key"), (vec![0; 31], "malformed")] {
        let mut world = linking();
        begin(&mut world, None, &PasskeyOptions { hold: true, ..PasskeyOptions::default() });
        world.command("alice", assertion()).unwrap();
        world.forget();
        let identity = [&[0x0A, key.len() as u8][..], &key, &[0x12, 32], &[7; 32]].concat();
        let node = Node::new("notification").attr("from", wamd::Jid::whatsapp_server()).attr("id", "n");
        let node = node.attr("type", "crsc_continuation");
        world.stanza_arrives("alice", &node.child(Node::new("primary_ephemeral_identity").bytes(identity)));
        let events = world.events("alice");
        assert_eq!(told(&events, "session.passkey_error"), [(0, json!({"error": error}))]);
        assert_eq!(requests(&mut world), [""; 0], "the commitment stays closed");
    }
}

#[test]
fn a_passkey_takes_the_place_of_a_code_unless_it_was_typed() {
    let mut world = linking();
    let code = Command::LinkCode { phone: ALICE.parse().unwrap(), code: None, notify: true };
    let Ok(Reply::PairCode { .. }) = world.command("alice", code.clone()) else { panic!("no code") };
    world.forget();
    begin(&mut world, None, &PasskeyOptions::default());
    let events = world.events("alice");
    let error = json!({"error": "superseded", "codeValid": false});
    assert_eq!(told(&events, "session.pair_code_error"), [(0, error)]);
    world.command("alice", assertion()).unwrap();
    linked(&mut world);

    let mut world = linking();
    let Ok(Reply::PairCode { code, .. }) = world.command("alice", code) else { panic!("no code") };
    let now = world.now();
    let silent = ScanOptions { silent: true, ..ScanOptions::default() };
    world.server.enter_code(now, ALICE, &code.shown(), &silent).unwrap();
    world.settle();
    world.forget();
    begin(&mut world, None, &PasskeyOptions::default());
    assert_eq!(world.event_names("alice"), [""; 0], "the phone has the secret of the code");
}

#[test]
fn nothing_of_it_survives_the_connection() {
    let mut world = linking();
    begin(&mut world, None, &PasskeyOptions::default());
    world.forget();
    world.cut("alice");
    let names = world.event_names("alice");
    assert_eq!(names, ["session.passkey_error", "session.disconnected", "session.reconnecting"]);
    world.advance_secs(2);
    assert_eq!(world.command("alice", assertion()), Err(CommandError::NoPasskey));
    begin(&mut world, None, &PasskeyOptions::default());
    world.forget();
    assert_eq!(world.command("alice", Command::Disconnect), Ok(Reply::Done));
    assert_eq!(world.event_names("alice"), ["session.passkey_error", "session.disconnected"]);
    assert_eq!(world.state("alice"), "PENDING");
}

#[test]
fn the_secret_stays_while_a_passkey_is_used() {
    let mut world = linking();
    begin(&mut world, None, &PasskeyOptions::default());
    world.forget();
    let now = world.now();
    world.server.link_action(now, None, LinkAction::RotateSecret { rotate_qr: true }).unwrap();
    world.settle();
    assert_eq!(world.event_names("alice"), [""; 0]);
}
