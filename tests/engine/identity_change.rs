//! Promise: a user's new identity is told once, however it became known, and nothing that was built on the old one is used
//! again (spec 03 §4.9).

use crate::people::{Person, Stage, pair};
use crate::puppet::{self, Puppet, text};
use crate::world::{Network, World};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use serde_json::Value;
use wamd::{
    Jid,
    crypto::KeyPair,
    engine::{Audience, AudienceSetting, Command, SendRequest},
    node::Node,
    store::RecordKind,
};
use wamd_loopback::Fault;

const NUMBER: &str = "16660000001";

fn zoe() -> Jid {
    Jid::pn(NUMBER)
}

/// Alice has sessions with three devices of Zoe.
fn known() -> Stage {
    let mut stage = Stage::new(vec![Person::new(NUMBER, [0, 2, 3])]);
    stage.send(&zoe(), "one");
    assert_eq!(stage.recipients()[0].len(), 3);
    stage.users_asked();
    stage.fetched.clear();
    stage.world.forget();
    stage
}

fn changed(id: &str, from: &Jid) -> Node {
    let notification = Node::new("notification").attr("type", "encrypt").attr("from", from).attr("id", id);
    notification.child(Node::new("identity"))
}

fn count(stage: &mut Stage, kind: RecordKind) -> usize {
    let records = stage.world.actor("alice").records(kind);
    records.iter().filter(|(key, _)| key.id.starts_with(NUMBER.as_bytes())).count()
}

fn told(stage: &mut Stage) -> Vec<Value> {
    stage.world.data("alice", "identity.changed")
}

#[test]
fn a_notification_drops_what_was_built_on_the_old_one() {
    let mut stage = known();
    stage.arrives(&changed("N1", &zoe()));
    for kind in [RecordKind::Session, RecordKind::Identity, RecordKind::DeviceList] {
        assert_eq!(count(&mut stage, kind), 0, "{kind:?}");
    }
    let events = told(&mut stage);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["implicit"], false);
    // The account was registered again, and the next message finds that out without another event.
    stage.people[0] = Person { primary: pair("again"), raw_id: 8, generation: 1, ..Person::new(NUMBER, [0, 4]) };
    stage.send(&zoe(), "two");
    assert_eq!(stage.recipients(), [[zoe(), zoe().with_device(4)]]);
    assert!(told(&mut stage).is_empty());
    // The same word again is no news before something is known.
    let mut stage = known();
    stage.arrives(&changed("N1", &zoe()));
    stage.arrives(&changed("N2", &zoe()));
    assert_eq!(told(&mut stage).len(), 1);
}

#[test]
fn a_bundle_can_tell_it_first() {
    let mut stage = known();
    // Nothing is said, but the device list is another.
    let again = Person { primary: pair("again"), raw_id: 8, generation: 1, ..Person::new(NUMBER, [0, 4]) };
    stage.people[0] = again.clone();
    stage.arrives(&again.change("N0", "update", &[]));
    stage.send(&zoe(), "two");
    assert_eq!(stage.recipients(), [[zoe(), zoe().with_device(4)]]);
    let events = told(&mut stage);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["implicit"], true);
    assert_eq!(count(&mut stage, RecordKind::Session), 2, "those with the old companions are gone");
    // The notification about the same comes late, and takes nothing.
    stage.arrives(&changed("N1", &zoe()));
    assert!(told(&mut stage).is_empty());
    assert_eq!(count(&mut stage, RecordKind::Session), 2);
    // Another one, much later, is another change.
    stage.world.advance_secs(600);
    stage.arrives(&changed("N2", &zoe()));
    assert_eq!(told(&mut stage).len(), 1);
    assert_eq!(count(&mut stage, RecordKind::Session), 0);
}

#[test]
fn companions_and_the_own_account_tell_nothing() {
    let mut stage = known();
    stage.arrives(&changed("N1", &zoe().with_device(2)));
    let own = stage.world.jid("alice");
    stage.arrives(&changed("N2", &own));
    assert!(told(&mut stage).is_empty());
    assert_eq!(count(&mut stage, RecordKind::Session), 3);
    // A companion that was linked again under its old number has another key.
    stage.people[0] = Person { generation: 1, timestamp: 1_759_000_001, ..Person::new(NUMBER, [0, 2, 3]) };
    stage.arrives(&stage.people[0].change("N3", "remove", &[2]));
    stage.send(&zoe(), "two");
    assert_eq!(stage.recipients()[0].len(), 3);
    assert!(told(&mut stage).is_empty());
}

#[test]
fn the_status_gets_another_key() {
    let mut stage = known();
    let status = Jid::status_broadcast().to_string();
    let device = stage.world.snapshot("alice").lid.expect("a LID");
    let key = |kind: RecordKind, parts: &[&[u8]]| wamd::store::Key::joined(kind, parts);
    let own = key(RecordKind::OwnSenderKey, &[status.as_bytes(), device.to_string().as_bytes()]);
    let marks = key(RecordKind::SenderKeyMarks, &[status.as_bytes()]);
    // As if a status had been sent.
    let puts = vec![(own, bytes::Bytes::from_static(&[0])), (marks, bytes::Bytes::from_static(&[0]))];
    stage.reconnects(|world| {
        world.crash("alice");
        world.actor("alice").write(wamd::store::Batch { puts, ..wamd::store::Batch::default() });
        world.start("alice");
        world.command("alice", Command::Connect).expect("connects");
    });
    stage.arrives(&changed("N1", &zoe()));
    assert!(stage.world.actor("alice").records(RecordKind::OwnSenderKey).is_empty());
    let marks = stage.world.actor("alice").records(RecordKind::SenderKeyMarks);
    assert!(marks.iter().all(|(key, _)| key.id.is_empty()), "only the losses are left");
}

#[test]
fn a_first_message_can_tell_it() {
    let mut stage = Stage::new(vec![Person { tells_lid: true, ..Person::new(NUMBER, [0, 2, 3]) }]);
    stage.send(&zoe(), "one");
    let status = Jid::status_broadcast();
    let viewers = Audience { setting: AudienceSetting::Allowlist, viewers: vec![zoe()] };
    let post = SendRequest::text(status, "post").with_audience(viewers);
    stage.world.command("alice", Command::Send(post)).unwrap();
    stage.serve();
    let lid = stage.people[0].lid.clone();
    let own_keys = |stage: &mut Stage| stage.world.actor("alice").records(RecordKind::OwnSenderKey).len();
    assert_eq!(own_keys(&mut stage), 1);
    stage.world.forget();

    let mut again = Puppet::new(&zoe(), &stage.upload, 1);
    stage.arrives(&puppet::stanza(&zoe(), "A").child(again.tell(&text("it is me"))));
    let names = stage.world.events("alice").into_iter().map(|event| event.event.into_owned()).collect::<Vec<_>>();
    assert_eq!(names, ["identity.changed", "message.received"]);
    let sessions = |stage: &mut Stage| {
        let records = stage.world.actor("alice").records(RecordKind::Session);
        let ids: Vec<String> = records.iter().map(|(key, _)| String::from_utf8_lossy(&key.id).into_owned()).collect();
        ids.into_iter().filter(|id| id.starts_with(lid.user())).collect::<Vec<_>>()
    };
    assert_eq!(sessions(&mut stage), [lid.to_string()], "those with the old companions are gone, the new one stays");
    assert_eq!(own_keys(&mut stage), 0, "the old devices read no status any more");
    // The next message asks who there is now, and the notification about the same takes nothing.
    let primary = KeyPair::generate(&mut ChaCha20Rng::from_seed([1; 32]));
    stage.people[0] = Person { primary, raw_id: 8, generation: 1, tells_lid: true, ..Person::new(NUMBER, [0, 4]) };
    stage.users_asked();
    stage.recipients();
    stage.send(&zoe(), "two");
    assert_eq!(stage.users_asked().len(), 1);
    assert_eq!(stage.recipients(), [[zoe(), zoe().with_device(4)]]);
    stage.arrives(&changed("N1", &zoe()));
    assert!(told(&mut stage).is_empty());
    assert_eq!(sessions(&mut stage).len(), 2);
}

#[test]
fn a_first_message_of_a_companion_tells_nothing() {
    let mut stage = known();
    let own = stage.world.lid("alice").with_device(7);
    for (n, jid) in [zoe().with_device(2), own.clone(), own].into_iter().enumerate() {
        let mut again = Puppet::new(&jid, &stage.upload, n as u8 + 1);
        let recipient = jid.is_lid_family().then(zoe);
        let message = puppet::stanza(&jid, &format!("A{n}")).attr_opt("recipient", recipient);
        stage.arrives(&message.child(again.tell(&text("hello"))));
        let names = stage.world.events("alice").into_iter().map(|event| event.event.into_owned()).collect::<Vec<_>>();
        let expected = if n == 0 { "message.received" } else { "message.sent" };
        assert_eq!(names, [expected], "{n}");
    }
    assert_eq!(count(&mut stage, RecordKind::Session), 3);
}

/// With the loopback server: the phone is registered again, and its companion is linked again.
#[test]
fn people_talk_again_after_a_change() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.forget();
    let jid = world.jid("bob");
    world.fault(Fault::ChangeIdentity { jid });
    assert_eq!(world.data("alice", "identity.changed").len(), 1);
    world.forget();
    // The phone alone is there.
    let text = world.send("alice", "bob", "to the phone");
    let events = world.events("alice");
    assert!(events.iter().any(|event| event.event == "message.sent"), "{text}");
    assert!(!world.phone_sends("15550000002", "alice", "from the phone").is_empty());
    assert_eq!(world.only("alice", "message.received")["messages"][0]["text"], "from the phone");
    assert!(world.data("alice", "identity.changed").is_empty());
}

#[test]
fn a_change_while_keys_are_fetched_leads_to_the_new_devices() {
    let mut stage = known();
    stage.people[0] = Person { timestamp: 1_759_000_001, ..Person::new(NUMBER, [0, 2, 3, 4]) };
    stage.arrives(&stage.people[0].change("N1", "add", &[4]));
    stage.world.send_to("alice", &zoe(), "two");
    let heard = stage.world.heard("alice");
    let query = heard.iter().find(|node| node.find_child("key").is_some()).expect("keys are asked for");
    let old = stage.answer(query).unwrap();
    stage.people[0] = Person { primary: pair("again"), raw_id: 8, generation: 1, ..Person::new(NUMBER, [0, 5]) };
    stage.arrives(&changed("N2", &zoe()));
    assert_eq!(told(&mut stage).len(), 1);
    assert_eq!(stage.recipients().len(), 0);
    stage.fetched.clear();
    stage.arrives(&old);
    assert_eq!(stage.recipients(), [[zoe(), zoe().with_device(5)]]);
    let mut fetched = stage.fetched.concat();
    fetched.sort();
    assert_eq!(fetched, [zoe(), zoe().with_device(5)], "with keys of their own");
    assert!(told(&mut stage).is_empty());
}

/// What was encrypted for the old identity is of no use to the new one, which asks for it.
#[test]
fn a_change_while_a_message_is_on_its_way_costs_one_resend() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.talk("bob", "alice");
    world.network("alice", Network::Stalled);
    let id = world.send("alice", "bob", "in between");
    let jid = world.jid("bob");
    world.fault(Fault::ChangeIdentity { jid });
    world.heard("alice");
    world.network("alice", Network::Up);
    let phone = world.server.received("15550000002");
    let got: Vec<_> = phone.iter().filter(|message| message.id == id.as_str()).map(|message| &message.text).collect();
    assert_eq!(got, [&Some("in between".to_owned())], "once");
    let heard = world.heard("alice");
    let sent = heard.iter().filter(|node| node.is("message") && node.attr_str("id").as_deref() == Some(id.as_str()));
    assert_eq!(sent.count(), 2, "and once more for the phone");
    let names: Vec<_> = world.events("alice").into_iter().map(|event| event.event).collect();
    assert_eq!(names.iter().filter(|name| *name == "identity.changed").count(), 1, "{names:?}");
    assert_eq!(world.snapshot("alice").sends, 0);
}
