//! Linking by phone number, as a whole: the engine, the server and a phone under virtual time (spec 01 §5).

use std::time::Duration;

use crate::world::{self, Disk, START_MS, World, named};
use serde_json::{Value, json};
use wamd::{
    Jid,
    engine::{Command, CommandError, CommandId, Reply},
    event::{Envelope, LinkFailure},
    node::Node,
    store::RecordKind,
};
use wamd_loopback::{Config, Fault, LinkAction, LinkStage, ScanError, ScanOptions};

const ALICE: &str = "15550000001";

fn request() -> Command {
    Command::LinkCode { phone: "+1 555 000-0001".parse().unwrap(), code: None, notify: true }
}

/// A world in which alice has asked for a code, and the code.
fn shown() -> (World, String) {
    shown_by(Config::default())
}

fn shown_by(server: Config) -> (World, String) {
    let mut world = World::with_server(server, &["alice", "bob"]);
    world.link("bob");
    world.forget();
    let code = ask(&mut world);
    (world, code)
}

/// A server that keeps connections for long after the last ref.
fn patient() -> Config {
    Config { ref_grace: Duration::from_secs(1_000), ..Config::default() }
}

fn ask(world: &mut World) -> String {
    match world.command("alice", request()) {
        Ok(Reply::PairCode { code, expires_at }) => {
            let told = world.all_events("alice").last().unwrap().clone();
            assert_eq!(told.event, "session.pair_code");
            assert_eq!((&told.data["code"], &told.data["expiresAt"]), (&json!(code.shown()), &json!(expires_at)));
            code.shown()
        }
        other => panic!("{other:?}"),
    }
}

fn enter_with(world: &mut World, code: &str, options: &ScanOptions) {
    let now = world.now();
    world.server.enter_code(now, ALICE, code, options).expect("a companion waits for it");
    world.settle();
}

fn enter(world: &mut World, code: &str) {
    enter_with(world, code, &ScanOptions::default());
}

/// Another code than this one.
fn wrong(code: &str) -> &'static str {
    if code == "ABCD-1234" { "WXYZ-9876" } else { "ABCD-1234" }
}

fn linked(world: &mut World) {
    assert_eq!(world.state("alice"), "CONNECTED");
    world.talk("alice", "bob");
}

fn act(world: &mut World, action: LinkAction) {
    let now = world.now();
    world.server.link_action(now, None, action).expect("somebody waits");
    world.settle();
}

fn refuse(world: &mut World, stage: LinkStage, code: Option<u16>, backoff: Option<u32>) {
    world.fault(Fault::LinkAnswer { stage, code, backoff, count: 1 });
}

/// The stages of linking by code that the server has heard since the last call.
fn stages(world: &mut World) -> Vec<String> {
    let stage = |node: &Node| Some(node.find_child("link_code_companion_reg")?.attr_str("stage")?.into_owned());
    world.heard("alice").iter().filter_map(stage).collect()
}

/// The reference of the last bundle that the server has heard.
fn reference(world: &mut World) -> Vec<u8> {
    let heard = world.heard("alice");
    let finish = heard.iter().filter_map(|node| node.find_child("link_code_companion_reg")).next_back().unwrap();
    finish.find_child("link_code_pairing_ref").unwrap().content_bytes().unwrap().to_vec()
}

/// A primary_hello with this identity and an ephemeral key that nobody has.
fn hello(reference: &[u8], identity: Vec<u8>) -> Node {
    let stage = Node::new("link_code_companion_reg")
        .attr("stage", "primary_hello")
        .child(Node::new("link_code_pairing_wrapped_primary_ephemeral_pub").bytes(vec![7; 80]))
        .child(Node::new("primary_identity_pub").bytes(identity))
        .child(Node::new("link_code_pairing_ref").bytes(reference.to_vec()));
    let node = Node::new("notification").attr("from", Jid::whatsapp_server()).attr("id", "n");
    node.attr("type", "link_code_companion_reg").child(stage)
}

/// Second and data of the events of one name.
fn told(events: &[Envelope], name: &str) -> Vec<(u64, Value)> {
    named(events, name).iter().map(|event| ((event.timestamp - START_MS) / 1_000, event.data.clone())).collect()
}

fn failed(error: LinkFailure) -> CommandError {
    CommandError::Link { error, code: None, retry_after: None }
}

// ---- the way it should go -------------------------------------------------------------------------------------

#[test]
fn a_code_links() {
    let (mut world, code) = shown();
    let names: Vec<_> = world.event_names("alice");
    assert_eq!(names, ["session.connecting", "session.qr_updated", "session.pair_code"], "both ways are shown");
    assert_eq!(world.state("alice"), "PENDING");
    let heard = world.heard("alice");
    let tags: Vec<_> = heard.iter().map(|node| node.attr_str("type").unwrap_or_default().into_owned()).collect();
    assert_eq!(tags, ["result", "set"], "pair-device is taken first");
    let hello = heard[1].find_child("link_code_companion_reg").unwrap();
    assert_eq!(hello.attr_jid("jid"), Some(Jid::pn(ALICE)));
    assert_eq!(hello.attr_str("should_show_push_notification").as_deref(), Some("true"));
    let events = world.all_events("alice");
    let (_, data) = told(events, "session.pair_code").remove(0);
    let expires = START_MS + 180_000;
    assert_eq!(data, json!({"code": code, "expiresInMs": 180_000, "expiresAt": expires}));

    enter(&mut world, &code);
    let names = world.event_names("alice");
    let end =
        ["session.qr_updated", "session.paired", "session.reconnecting", "session.connecting", "session.connected"];
    assert_eq!(
        names.iter().filter(|name| name.starts_with("session.") && !name.contains("offline")).collect::<Vec<_>>(),
        end
    );
    let acks = world.heard("alice");
    let ack = acks.iter().find(|node| node.tag() == "ack").expect("the notification is acknowledged");
    assert_eq!(ack.attr_str("class").as_deref(), Some("notification"));
    assert_eq!(ack.attr_str("type").as_deref(), Some("link_code_companion_reg"));
    linked(&mut world);
    // The time of the code passes, and nothing happens.
    world.forget();
    world.advance_secs(200);
    assert_eq!(named(&world.events("alice"), "session.pair_code_error").len(), 0);
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    linked(&mut world);
}

#[test]
fn a_code_can_be_asked_for_while_the_qr_code_is_on_the_screen() {
    let mut world = World::new(&["alice", "bob"]);
    world.link("bob");
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    world.advance_secs(70);
    let conn = world.conn("alice");
    let code = ask(&mut world);
    assert_eq!(world.conn("alice"), conn, "on the same connection");
    // It is typed while the next QR code is shown.
    world.advance_secs(30);
    enter(&mut world, &code);
    linked(&mut world);
}

#[test]
fn the_caller_chooses_code_and_notification() {
    let mut world = World::new(&["alice", "bob"]);
    world.link("bob");
    let (phone, code) = (ALICE.parse().unwrap(), Some("my-wamd-74".parse().unwrap()));
    let reply = world.command("alice", Command::LinkCode { phone, code, notify: false });
    let Ok(Reply::PairCode { code, .. }) = reply else { panic!("{reply:?}") };
    assert_eq!(code.shown(), "MYWA-MD74");
    let heard = world.heard("alice");
    let hello = heard.iter().find_map(|node| node.find_child("link_code_companion_reg")).unwrap();
    assert_eq!(hello.attr_str("should_show_push_notification").as_deref(), Some("false"));
    enter(&mut world, "MYWA-MD74");
    linked(&mut world);
}

#[test]
fn codes_are_drawn_anew() {
    let (mut world, first) = shown();
    let second = ask(&mut world);
    assert_ne!(first, second);
}

#[test]
fn the_phone_reads_the_qr_code_instead() {
    let (mut world, code) = shown();
    world.scan("alice", &ScanOptions::default());
    linked(&mut world);
    let now = world.now();
    let late = world.server.enter_code(now, ALICE, &code, &ScanOptions::default());
    assert_eq!(late, Err(ScanError::UnknownRef), "nobody waits for the code any more");
    assert_eq!(named(world.all_events("alice"), "session.pair_code_error").len(), 0);
}

#[test]
fn the_qr_code_is_read_before_the_code_is_there() {
    let mut world = World::new(&["alice", "bob"]);
    world.link("bob");
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    world.thinks("alice", false);
    let asked = world.begin("alice", request());
    world.scan("alice", &ScanOptions::default());
    assert_eq!(world.answer("alice", asked), Some(Err(CommandError::AlreadyLinked)));
    // The stretched code finds nobody.
    world.thinks("alice", true);
    linked(&mut world);
}

// ---- the secret -----------------------------------------------------------------------------------------------

#[test]
fn the_secret_is_durable_before_the_phone_gets_it() {
    let (mut world, code) = shown();
    stages(&mut world);
    world.disk("alice", Disk::Stuck);
    enter(&mut world, &code);
    assert_eq!(stages(&mut world), [""; 0], "it waits for the disk");
    let batches = world.actor("alice").held_batches();
    assert!(batches[0].puts.iter().any(|(key, _)| key.kind == RecordKind::Account), "the account with its new secret");
    world.disk("alice", Disk::Works);
    assert_eq!(stages(&mut world), ["companion_finish"]);
    linked(&mut world);
}

#[test]
fn a_crash_after_the_secret_was_given_away_keeps_the_keys() {
    let (mut world, code) = shown();
    let keys = |qr: &str| qr.split(',').skip(1).take(2).map(str::to_owned).collect::<Vec<_>>();
    let before = keys(&world.qr("alice"));
    enter_with(&mut world, &code, &ScanOptions { silent: true, ..ScanOptions::default() });
    world.crash_and_start("alice");
    assert_eq!(world.state("alice"), "PENDING");
    assert_eq!(world.command("alice", Command::Connect), Err(CommandError::NotLinked));
    assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
    assert_eq!(keys(&world.qr("alice")), before, "noise key and identity");
    world.link("alice");
    world.talk("alice", "bob");
}

#[test]
fn the_qr_code_follows_the_secret() {
    let (mut world, code) = shown();
    let old = world.qr("alice");
    world.advance_secs(10);
    enter_with(&mut world, &code, &ScanOptions { silent: true, ..ScanOptions::default() });
    let events = world.events("alice");
    let data = &named(&events, "session.qr_updated").last().unwrap().data;
    assert_ne!(data["qr"], json!(old));
    assert_eq!((&data["index"], &data["expiresInMs"]), (&json!(1), &json!(50_000)), "the same ref, for as long");
    world.scan("alice", &ScanOptions::default());
    linked(&mut world);
}

#[test]
fn the_server_may_want_a_new_secret() {
    for rotate_qr in [false, true] {
        let mut world = World::new(&["alice", "bob"]);
        world.link("bob");
        assert_eq!(world.command("alice", Command::LinkQr), Ok(Reply::Done));
        let old = world.qr("alice");
        world.forget();
        act(&mut world, LinkAction::RotateSecret { rotate_qr });
        assert_eq!(world.event_names("alice"), ["session.qr_updated"]);
        assert_eq!(world.heard("alice")[0].tag(), "ack");
        let new = world.qr("alice");
        let secret = |qr: &str| qr.split(',').nth(3).unwrap().to_owned();
        assert_ne!(secret(&old), secret(&new));
        assert_eq!(old.split(',').next(), new.split(',').next(), "the same ref");
        world.scan("alice", &ScanOptions::default());
        linked(&mut world);
    }
}

#[test]
fn the_secret_stays_while_a_code_is_live() {
    let (mut world, code) = shown();
    world.forget();
    act(&mut world, LinkAction::RotateSecret { rotate_qr: false });
    assert_eq!(world.event_names("alice"), [""; 0]);
    enter_with(&mut world, &code, &ScanOptions { silent: true, ..ScanOptions::default() });
    let qr = world.qr("alice");
    act(&mut world, LinkAction::RotateSecret { rotate_qr: false });
    assert_eq!(world.qr("alice"), qr, "the phone may use it any moment");
}

// ---- the phone ------------------------------------------------------------------------------------------------

#[test]
fn after_a_wrong_code_another_one_can_be_typed() {
    let (mut world, code) = shown();
    enter(&mut world, wrong(&code));
    assert_eq!(world.state("alice"), "PENDING");
    world.advance_secs(20);
    enter(&mut world, &code);
    linked(&mut world);
}

#[test]
fn what_the_server_says_to_an_older_bundle_does_not_end_a_newer_attempt() {
    let (mut world, code) = shown_by(patient());
    refuse(&mut world, LinkStage::CompanionFinish, None, None);
    enter_with(&mut world, &code, &ScanOptions { silent: true, ..ScanOptions::default() });
    world.advance_secs(20);
    let reference = reference(&mut world);
    world.stanza_arrives("alice", &hello(&reference, vec![7; 32]));
    assert_eq!(stages(&mut world), ["companion_finish"]);
    // The answer to the first bundle is overdue, that to the second has come.
    world.advance_secs(15);
    let events = world.events("alice");
    assert_eq!(told(&events, "session.pair_code_error"), []);
    world.advance_secs(45);
    let refresh = told(&world.events("alice"), "session.pair_code_refresh");
    assert_eq!(refresh, [(80, json!({"reason": "unconfirmed", "willRefresh": true}))]);
}

#[test]
fn a_phone_that_does_not_go_on_leads_to_a_new_code() {
    let (mut world, code) = shown_by(patient());
    world.advance_secs(30);
    enter(&mut world, wrong(&code));
    world.forget();
    world.advance_secs(59);
    assert_eq!(named(&world.events("alice"), "session.pair_code_refresh").len(), 0);
    world.advance_secs(1);
    let events = world.events("alice");
    let refresh = told(&events, "session.pair_code_refresh");
    assert_eq!(refresh, [(90, json!({"reason": "unconfirmed", "willRefresh": true}))]);
    let (_, new) = told(&events, "session.pair_code").remove(0);
    assert_ne!(new["code"], json!(code));
    assert_eq!(new["expiresAt"], json!(START_MS + 270_000));
    enter(&mut world, new["code"].as_str().unwrap());
    linked(&mut world);
}

#[test]
fn new_codes_come_three_times_and_then_no_more() {
    let (mut world, code) = shown_by(patient());
    for _ in 0..3 {
        enter(&mut world, wrong(&code));
        world.forget();
        world.advance_secs(60);
        let events = world.events("alice");
        assert_eq!(named(&events, "session.pair_code").len(), 1);
    }
    enter(&mut world, wrong(&code));
    world.forget();
    world.advance_secs(60);
    let events = world.events("alice");
    let error = json!({"error": "too_many_attempts", "codeValid": false});
    assert_eq!(told(&events, "session.pair_code_error"), [(240, error)]);
    // The QR codes were used up long ago: this was the end.
    assert_eq!((world.conn("alice"), world.state("alice")), (None, "PENDING"));
    world.advance_secs(1_000);
    assert_eq!(world.event_names("alice"), [""; 0]);
    let code = ask(&mut world);
    enter(&mut world, &code);
    linked(&mut world);
}

#[test]
fn a_code_takes_three_hellos() {
    // The phone knows the key of its last hello only; three are one code's worth.
    let (mut world, code) = shown();
    enter_with(&mut world, &code, &ScanOptions { further_hellos: 2, ..ScanOptions::default() });
    linked(&mut world);

    let (mut world, code) = shown();
    world.forget();
    enter_with(&mut world, &code, &ScanOptions { further_hellos: 3, silent: true, ..ScanOptions::default() });
    let events = world.events("alice");
    let error = json!({"error": "too_many_attempts", "codeValid": false});
    assert_eq!(told(&events, "session.pair_code_error"), [(0, error)]);
    assert_eq!(world.state("alice"), "PENDING");
    // The QR codes go on.
    world.scan("alice", &ScanOptions::default());
    linked(&mut world);
}

#[test]
fn hellos_of_others_are_told_and_do_not_count() {
    let (mut world, code) = shown();
    world.forget();
    enter_with(&mut world, &code, &ScanOptions { foreign_ref: true, further_hellos: 4, ..ScanOptions::default() });
    let events = world.events("alice");
    let error = json!({"error": "wrong_ref", "codeValid": true});
    assert_eq!(told(&events, "session.pair_code_error"), vec![(0, error); 5]);
    assert_eq!(stages(&mut world), [""; 0], "nothing is given to them");
    enter(&mut world, &code);
    linked(&mut world);
}

#[test]
fn keys_of_small_order_are_refused_and_the_code_stays() {
    let (mut world, code) = shown();
    enter(&mut world, wrong(&code));
    let reference = reference(&mut world);
    for (identity, error) in [(vec![0; 32], "weak_key"), (vec![0; 31], "malformed")] {
        world.forget();
        world.stanza_arrives("alice", &hello(&reference, identity));
        let events = world.events("alice");
        assert_eq!(told(&events, "session.pair_code_error"), [(0, json!({"error": error, "codeValid": true}))]);
        assert_eq!(stages(&mut world), [""; 0]);
    }
    enter(&mut world, &code);
    linked(&mut world);
}

#[test]
fn a_hello_that_is_no_good_does_not_give_up_the_bundle_before_it() {
    let (mut world, code) = shown();
    enter_with(&mut world, &code, &ScanOptions { silent: true, ..ScanOptions::default() });
    let reference = reference(&mut world);
    world.stanza_arrives("alice", &hello(&reference, vec![0; 32]));
    world.forget();
    // The phone may still use what the first bundle gave it.
    assert_eq!(world.command("alice", request()), Err(CommandError::LinkUnderWay));
    world.advance_secs(60);
    let events = world.events("alice");
    let refreshed = json!({"reason": "unconfirmed", "willRefresh": true});
    let told: Vec<_> = told(&events, "session.pair_code_refresh").into_iter().map(|(_, data)| data).collect();
    assert_eq!(told, [refreshed], "the time for pair-success goes on");
}

#[test]
fn a_person_who_declines_leaves_a_code_that_runs_out() {
    let (mut world, _) = shown_by(patient());
    let now = world.now();
    world.server.refuse_link(now, ALICE).unwrap();
    world.advance_secs(179);
    assert!(world.conn("alice").is_some(), "a code is outstanding: the connection stays after the last QR code");
    assert_eq!(told(world.all_events("alice"), "session.qr_exhausted").len(), 1);
    world.forget();
    world.advance_secs(1);
    let events = world.events("alice");
    assert_eq!(told(&events, "session.pair_code_error"), [(180, json!({"error": "expired", "codeValid": false}))]);
    assert_eq!((world.conn("alice"), world.state("alice")), (None, "PENDING"));
    world.advance_secs(1_000);
    assert_eq!(world.event_names("alice"), [""; 0], "that was all");
    let code = ask(&mut world);
    enter(&mut world, &code);
    linked(&mut world);
}

// ---- the server -----------------------------------------------------------------------------------------------

#[test]
fn every_refusal_has_a_reason() {
    for (code, error) in [
        (400, LinkFailure::BadRequest),
        (403, LinkFailure::Forbidden),
        (452, LinkFailure::NotAvailable),
        (500, LinkFailure::ServerError),
        (503, LinkFailure::ServerError),
        (418, LinkFailure::Refused),
    ] {
        let mut world = World::new(&["alice", "bob"]);
        world.link("bob");
        refuse(&mut world, LinkStage::CompanionHello, Some(code), None);
        let code = Some(u32::from(code));
        let refused = world.command("alice", request());
        assert_eq!(refused, Err(CommandError::Link { error, code, retry_after: None }));
        let data = world.only("alice", "session.pair_code_error");
        assert_eq!(data, json!({"error": error.as_str(), "code": code, "codeValid": false}));
        assert_eq!(world.state("alice"), "PENDING");
        assert_eq!(named(world.all_events("alice"), "session.pair_code").len(), 0, "no code was shown");
        // The QR codes go on, and another code may be asked for.
        let code = ask(&mut world);
        enter(&mut world, &code);
        linked(&mut world);
    }
}

#[test]
fn a_server_that_wants_to_be_left_alone_is() {
    let mut world = World::new(&["alice", "bob"]);
    world.link("bob");
    refuse(&mut world, LinkStage::CompanionHello, Some(429), Some(90));
    let limited = |secs| {
        let retry_after = Some(Duration::from_secs(secs));
        Err(CommandError::Link { error: LinkFailure::RateLimited, code: Some(429), retry_after })
    };
    assert_eq!(world.command("alice", request()), limited(90));
    let data = world.only("alice", "session.pair_code_error");
    assert_eq!(data, json!({"error": "rate_limited", "code": 429, "retryAfterMs": 90_000, "codeValid": false}));
    world.advance_secs(60);
    stages(&mut world);
    assert_eq!(world.command("alice", request()), limited(30));
    assert_eq!(stages(&mut world), [""; 0], "it is not asked");
    world.advance_secs(30);
    let code = ask(&mut world);
    enter(&mut world, &code);
    linked(&mut world);
}

#[test]
fn a_server_that_does_not_answer_is_not_waited_for() {
    let mut world = World::new(&["alice"]);
    refuse(&mut world, LinkStage::CompanionHello, None, None);
    let asked = world.begin("alice", request());
    world.advance_secs(29);
    assert_eq!(world.answer("alice", asked), None);
    world.advance_secs(1);
    assert_eq!(world.answer("alice", asked), Some(Err(failed(LinkFailure::Timeout))));
    assert_eq!(world.only("alice", "session.pair_code_error"), json!({"error": "timeout", "codeValid": false}));
    assert_eq!(world.state("alice"), "PENDING");
}

#[test]
fn a_refused_bundle_ends_the_code() {
    for (answer, after, error) in [
        (Some(400), 0, json!({"error": "bad_request", "code": 400, "codeValid": false})),
        (Some(500), 0, json!({"error": "server_error", "code": 500, "codeValid": false})),
        (None, 30, json!({"error": "timeout", "codeValid": false})),
    ] {
        let (mut world, code) = shown();
        refuse(&mut world, LinkStage::CompanionFinish, answer, None);
        world.forget();
        enter(&mut world, &code);
        world.advance_secs(after);
        let events = world.events("alice");
        assert_eq!(told(&events, "session.pair_code_error"), [(after, error)]);
        assert_eq!(world.state("alice"), "PENDING");
        world.scan("alice", &ScanOptions::default());
        linked(&mut world);
    }
}

#[test]
fn the_server_may_want_a_new_code() {
    let (mut world, code) = shown();
    world.advance_secs(30);
    world.forget();
    act(&mut world, LinkAction::RefreshCode { force_manual: false });
    let events = world.events("alice");
    assert_eq!(told(&events, "session.pair_code_refresh"), [(30, json!({"reason": "server", "willRefresh": true}))]);
    let (_, new) = told(&events, "session.pair_code").remove(0);
    assert_ne!(new["code"], json!(code));
    enter(&mut world, new["code"].as_str().unwrap());
    linked(&mut world);

    // Or only if a person wants it.
    let (mut world, _) = shown();
    world.forget();
    act(&mut world, LinkAction::RefreshCode { force_manual: true });
    let events = world.events("alice");
    assert_eq!(told(&events, "session.pair_code_refresh"), [(0, json!({"reason": "server", "willRefresh": false}))]);
    assert_eq!(told(&events, "session.pair_code").len(), 0);
    let code = ask(&mut world);
    enter(&mut world, &code);
    linked(&mut world);
}

#[test]
fn a_server_that_wants_new_codes_without_end_gets_three() {
    let (mut world, _) = shown();
    world.forget();
    for _ in 0..5 {
        act(&mut world, LinkAction::RefreshCode { force_manual: false });
    }
    let events = world.events("alice");
    assert_eq!(told(&events, "session.pair_code").len(), 3);
    let error = json!({"error": "too_many_attempts", "codeValid": false});
    assert_eq!(told(&events, "session.pair_code_error"), [(0, error)]);
}

#[test]
fn new_refs_leave_the_code_alone() {
    let (mut world, code) = shown();
    world.forget();
    act(&mut world, LinkAction::NewRefs { count: 2 });
    assert_eq!(world.event_names("alice"), ["session.qr_updated"]);
    enter(&mut world, &code);
    linked(&mut world);
}

// ---- one at a time --------------------------------------------------------------------------------------------

#[test]
fn another_request_makes_the_first_code_void() {
    let (mut world, first) = shown();
    world.forget();
    let second = ask(&mut world);
    let events = world.events("alice");
    assert_eq!(told(&events, "session.pair_code_error"), [(0, json!({"error": "superseded", "codeValid": false}))]);
    enter(&mut world, &first);
    assert_eq!(world.state("alice"), "PENDING", "the phone cannot open the bundle");
    enter(&mut world, &second);
    linked(&mut world);
}

#[test]
fn a_request_without_a_code_yet_can_be_replaced() {
    let mut world = World::new(&["alice", "bob"]);
    world.link("bob");
    world.thinks("alice", false);
    let first = world.begin("alice", request());
    let second = world.begin("alice", request());
    world.settle();
    assert_eq!(world.answer("alice", first), Some(Err(failed(LinkFailure::Superseded))));
    assert_eq!(world.answer("alice", second), None);
    world.thinks("alice", true);
    let Some(Ok(Reply::PairCode { code, .. })) = world.answer("alice", second) else { panic!("no code") };
    assert_eq!(stages(&mut world), ["companion_hello"], "the first was never asked for");
    enter(&mut world, &code.shown());
    linked(&mut world);
}

#[test]
fn no_other_code_while_the_phone_answers() {
    let (mut world, code) = shown();
    enter(&mut world, wrong(&code));
    assert_eq!(world.command("alice", request()), Err(CommandError::LinkUnderWay));
    enter(&mut world, &code);
    linked(&mut world);
    assert_eq!(world.command("alice", request()), Err(CommandError::AlreadyLinked));
}

// ---- the connection -------------------------------------------------------------------------------------------

#[test]
fn nothing_of_a_code_survives_the_connection() {
    let (mut world, code) = shown();
    world.forget();
    world.cut("alice");
    let names = world.event_names("alice");
    assert_eq!(names, ["session.pair_code_error", "session.disconnected", "session.reconnecting"]);
    let events = world.all_events("alice");
    let error = json!({"error": "connection_lost", "codeValid": false});
    assert_eq!(told(events, "session.pair_code_error"), [(0, error)]);
    world.advance_secs(2);
    let now = world.now();
    let late = world.server.enter_code(now, ALICE, &code, &ScanOptions::default());
    assert_eq!(late, Err(ScanError::UnknownRef));
    let code = ask(&mut world);
    enter(&mut world, &code);
    linked(&mut world);
}

#[test]
fn a_stretched_code_that_comes_too_late_finds_nobody() {
    let mut world = World::new(&["alice", "bob"]);
    world.link("bob");
    world.thinks("alice", false);
    let asked = world.begin("alice", request());
    world.settle();
    world.cut("alice");
    assert_eq!(world.answer("alice", asked), Some(Err(failed(LinkFailure::ConnectionLost))));
    world.advance_secs(2);
    world.forget();
    world.thinks("alice", true);
    assert_eq!((stages(&mut world), world.event_names("alice")), (Vec::new(), Vec::new()));

    // The same after the phone has answered.
    let code = ask(&mut world);
    world.thinks("alice", false);
    enter(&mut world, &code);
    world.cut("alice");
    world.advance_secs(2);
    stages(&mut world);
    world.thinks("alice", true);
    assert_eq!(stages(&mut world), [""; 0]);
    let code = ask(&mut world);
    enter(&mut world, &code);
    linked(&mut world);
}

#[test]
fn a_server_that_closes_after_the_last_qr_code_ends_the_attempt() {
    let (mut world, _) = shown();
    world.forget();
    world.advance_secs(1_000);
    let events = world.events("alice");
    let names: Vec<_> = events.iter().map(|event| &*event.event).filter(|name| *name != "session.qr_updated").collect();
    assert_eq!(names, ["session.qr_exhausted", "session.pair_code_error"]);
    let error = json!({"error": "connection_lost", "codeValid": false});
    assert_eq!(told(&events, "session.pair_code_error")[0].1, error);
    assert_eq!((world.conn("alice"), world.state("alice")), (None, "PENDING"));
}

#[test]
fn an_attempt_can_be_given_up() {
    let (mut world, _) = shown();
    world.forget();
    assert_eq!(world.command("alice", Command::Disconnect), Ok(Reply::Done));
    let events = world.events("alice");
    assert_eq!(told(&events, "session.pair_code_error"), [(0, json!({"error": "stopped", "codeValid": false}))]);
    let (_, data) = told(&events, "session.disconnected").remove(0);
    assert_eq!((&data["reason"], &data["linked"]), (&json!("stopped"), &json!(false)));
    assert_eq!((world.conn("alice"), world.state("alice")), (None, "PENDING"));
    world.advance_secs(1_000);
    assert_eq!(world.event_names("alice"), [""; 0]);
}

#[test]
fn a_request_that_finds_no_server_is_answered() {
    let mut world = World::new(&["alice", "bob"]);
    world.link("bob");
    world.network("alice", world::Network::Refused);
    assert_eq!(world.command("alice", request()), Err(failed(LinkFailure::ConnectionLost)));
    // The next one does not wait for the pause before the next attempt.
    world.network("alice", world::Network::Up);
    let code = ask(&mut world);
    enter(&mut world, &code);
    linked(&mut world);
}

#[test]
fn a_server_without_refs_is_not_waited_for() {
    let mut world = World::new(&["alice"]);
    world.network("alice", world::Network::Stalled);
    let asked: CommandId = world.begin("alice", request());
    world.advance_secs(61);
    assert_eq!(world.answer("alice", asked), Some(Err(failed(LinkFailure::ConnectionLost))));
}

#[test]
fn a_store_that_fails_ends_the_code() {
    let (mut world, code) = shown();
    world.forget();
    world.disk("alice", Disk::FailsAfter(0));
    enter(&mut world, &code);
    let events = world.events("alice");
    let error = json!({"error": "connection_lost", "codeValid": false});
    assert_eq!(told(&events, "session.pair_code_error"), [(0, error)]);
    assert!(!stages(&mut world).contains(&"companion_finish".to_owned()), "the secret is not durable");
    world.advance_secs(10);
    let code = ask(&mut world);
    enter(&mut world, &code);
    linked(&mut world);
}

#[test]
fn a_server_that_restarts_the_stream_while_linking_is_met_after_a_pause() {
    let (mut world, _) = shown();
    world.forget();
    for _ in 0..5 {
        act(&mut world, LinkAction::StreamError { code: Some(515) });
        world.advance_secs(1);
        let events = world.events("alice");
        let (_, retry) = told(&events, "session.reconnecting").remove(0);
        assert!(retry["delayMs"].as_u64().unwrap() >= 900, "{retry}");
        world.advance_secs(10);
    }
    let code = ask(&mut world);
    enter(&mut world, &code);
    linked(&mut world);
}
