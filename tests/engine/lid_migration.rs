//! Promise: a person has one chat and one session per device, whichever of the two identities is used; what stands under the
//! number moves when the LID becomes known, and never to somebody else (spec 03 §4.10).

use crate::people::{self, Person, Stage};
use crate::world::{self, World};
use bytes::Bytes;
use wamd::{
    Jid,
    engine::{Command, Content, MessageRef, SendRequest},
    node::Node,
    proto::{
        Message as _, e2e,
        lid_migration::{LidMigrationMapping, LidMigrationMappingSyncPayload},
    },
    store::{Batch, RecordKind},
};
use wamd_loopback::{Fault, GroupMode, ScanOptions};

const NUMBER: &str = "16660000001";

/// The ids of alice's records of a kind.
fn ids(world: &mut World, kind: RecordKind) -> Vec<String> {
    let records = world.actor("alice").records(kind);
    records.iter().map(|(key, _)| String::from_utf8_lossy(&key.id).into_owned()).collect()
}

/// Those that are of a number or a LID.
fn of(world: &mut World, kind: RecordKind, user: &Jid) -> usize {
    ids(world, kind).iter().filter(|id| id.starts_with(user.user()) && id.contains(user.server().as_str())).count()
}

fn chats(messages: &[Node]) -> Vec<Jid> {
    messages.iter().map(|message| message.attr_jid("to").expect("a chat")).collect()
}

#[test]
fn sessions_move_when_the_lid_becomes_known() {
    let mut world = World::new(&["alice", "bob"]);
    for name in ["alice", "bob"] {
        world.link(name);
    }
    let (pn, lid) = (world.jid("bob"), world.lid("bob"));
    world.fault(Fault::HideLid { jid: pn.clone(), on: true });
    world.talk("alice", "bob");
    world.talk("bob", "alice");
    assert_eq!((of(&mut world, RecordKind::Session, &pn), of(&mut world, RecordKind::Session, &lid)), (2, 0));
    let before = ids(&mut world, RecordKind::Session).len();
    let unread = world.send("alice", "bob", "receipts for this come later");
    world.fault(Fault::HideLid { jid: pn.clone(), on: false });
    world.forget();
    world.talk("bob", "alice");
    assert_eq!(world.data("alice", "lid_mapping.updated").len(), 1, "told once");
    // Phone and companion moved in one batch, the device list with them.
    for kind in [RecordKind::Session, RecordKind::Identity] {
        assert_eq!((of(&mut world, kind, &pn), of(&mut world, kind, &lid)), (0, 2), "{kind:?}");
    }
    assert_eq!((of(&mut world, RecordKind::DeviceList, &pn), of(&mut world, RecordKind::DeviceList, &lid)), (0, 1));
    assert_eq!(ids(&mut world, RecordKind::Session).len(), before);
    // Nothing was set up anew, and nobody asked for anything again.
    let heard = world.heard("alice");
    assert!(heard.iter().all(|node| node.attr_str("type").as_deref() != Some("retry")));
    assert!(heard.iter().all(|node| node.find_child("key").is_none()));
    // What was sent before is found under the new name.
    let receipt = Node::new("receipt").attr("from", lid.with_device(1)).attr("id", unread.as_str());
    world.forget();
    world.stanza_arrives("alice", &receipt.attr("type", "read").attr("t", 1_760_000_100));
    assert_eq!(world.data("alice", "message.read").len(), 1);
    world.talk("alice", "bob");
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.talk("alice", "bob");
}

#[test]
fn a_user_moves_with_all_devices_in_one_batch() {
    let mut stage = Stage::new(vec![Person::new(NUMBER, [0, 2, 99])]);
    stage.people[0].hosted = vec![99];
    let (pn, lid) = (stage.people[0].pn.clone(), stage.people[0].lid.clone());
    stage.send(&pn, "one");
    assert_eq!(of(&mut stage.world, RecordKind::Session, &pn), 3);
    stage.people[0].tells_lid = true;
    // Only the pair becomes known.
    let update = stage.people[0].change("N1", "update", &[]);
    stage.arrives(&update);
    stage.fetched.clear();
    stage.world.actor("alice").disk = world::Disk::Stuck;
    stage.world.begin("alice", Command::Send(SendRequest::text(pn.clone(), "two")));
    stage.world.settle();
    stage.serve();
    let held = stage.world.actor("alice").held_batches();
    let moves = |batch: &&Batch| batch.deletes.iter().any(|key| key.kind == RecordKind::Session);
    let moving: Vec<_> = held.iter().filter(moves).collect();
    assert_eq!(moving.len(), 1);
    let count = |kind| moving[0].deletes.iter().filter(|key| key.kind == kind).count();
    assert_eq!((count(RecordKind::Session), count(RecordKind::Identity)), (3, 3));
    stage.world.disk("alice", world::Disk::Works);
    stage.serve();
    assert_eq!(
        (of(&mut stage.world, RecordKind::Session, &pn), of(&mut stage.world, RecordKind::Session, &lid)),
        (0, 3)
    );
    assert!(stage.fetched.is_empty(), "the sessions go on");
}

#[test]
fn another_lid_of_a_number_is_another_person() {
    let mut stage = Stage::new(vec![Person::new(NUMBER, [0])]);
    let (pn, first) = (stage.people[0].pn.clone(), stage.people[0].lid.clone());
    let second = Jid::lid("777");
    stage.send(&pn, "under the number");
    // Then the pair is known, and nobody has used it when the number goes to somebody else.
    let receipt = |id: &str, lid: &Jid| {
        let devices =
            Node::new("notification").attr("type", "devices").attr("from", &pn).attr("lid", lid).attr("id", id);
        devices.child(Node::new("update").attr("hash", "x"))
    };
    stage.arrives(&receipt("N1", &first));
    stage.arrives(&receipt("N2", &second));
    assert_eq!(stage.world.data("alice", "lid_mapping.updated").len(), 2);
    // The session is the first person's.
    assert_eq!(of(&mut stage.world, RecordKind::Session, &first), 1);
    assert_eq!(of(&mut stage.world, RecordKind::Session, &second), 0);
    stage.people[0] = Person { lid: second.clone(), primary: people::pair("second"), ..Person::new(NUMBER, [0]) };
    stage.fetched.clear();
    stage.send(&pn, "to the second");
    assert_eq!(stage.fetched.concat(), std::slice::from_ref(&second), "a session of their own");
    assert!(stage.world.data("alice", "identity.changed").is_empty());
    assert_eq!(of(&mut stage.world, RecordKind::Session, &first), 1);
    // Nobody becomes the own account.
    let own = stage.world.lid("alice");
    stage.arrives(&receipt("N3", &own));
    assert!(stage.world.data("alice", "lid_mapping.updated").is_empty());
}

/// The table that the phone sends.
fn table(pairs: &[(u64, u64)]) -> Vec<u8> {
    let mapping = |(pn, lid): &(u64, u64)| LidMigrationMapping {
        pn: Some(*pn),
        assigned_lid: Some(*lid),
        ..LidMigrationMapping::default()
    };
    let payload = LidMigrationMappingSyncPayload {
        pn_to_lid_mappings: pairs.iter().map(mapping).collect(),
        chat_db_migration_timestamp: Some(1),
    };
    let sync = e2e::LidMigrationMappingSyncMessage { encoded_mapping_payload: Some(payload.encode_to_vec().into()) };
    let protocol = e2e::ProtocolMessage {
        r#type: Some(e2e::protocol_message::Type::LidMigrationMappingSync as i32),
        lid_migration_mapping_sync_message: Some(Box::new(sync)),
        ..e2e::ProtocolMessage::default()
    };
    let message = e2e::Message { protocol_message: Some(Box::new(protocol)), ..e2e::Message::default() };
    message.encode_to_vec()
}

/// A phone sends any content to a companion of alice.
fn sends(world: &mut World, number: &str, content: &[u8]) {
    let (to, now) = (world.jid("alice"), world.now());
    world.server.send_content(now, number, &to, content).expect("the phone can send");
    world.settle();
}

#[test]
fn the_table_of_the_phone_makes_the_account_speak_by_lid() {
    let mut world = World::online(&["alice", "bob", "carol"]);
    world.talk("alice", "bob");
    let sent = |world: &mut World| -> Vec<Node> {
        world.heard("alice").into_iter().filter(|node| node.is("message")).collect()
    };
    assert_eq!(chats(&sent(&mut world)), [world.jid("bob")], "by number before");
    let number = |jid: &Jid| jid.user().parse::<u64>().expect("digits");
    let pairs = [(number(&world.jid("carol")), number(&world.lid("carol"))), (16_669_999_999, 424_242)];
    // A stranger's table is none.
    sends(&mut world, "15550000002", &table(&[(1_777, 1_778)]));
    world.forget();
    sends(&mut world, "15550000001", &table(&pairs));
    let told = world.data("alice", "lid_mapping.updated");
    assert_eq!(told.len(), 2);
    assert_eq!(told[1]["lid"], "424242@lid");
    world.forget();
    for name in ["bob", "carol"] {
        world.talk("alice", name);
    }
    let messages = sent(&mut world);
    assert_eq!(chats(&messages), [world.lid("bob"), world.lid("carol")]);
    for message in &messages {
        let to = message.find_child("participants").unwrap().child_nodes();
        assert!(to.iter().all(|to| to.attr_jid("jid").unwrap().is_lid_family()), "one namespace");
        assert!(message.attr_jid("peer_recipient_pn").is_some());
    }
    // That it does is kept.
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.heard("alice");
    world.talk("alice", "bob");
    assert_eq!(chats(&sent(&mut world)), [world.lid("bob")]);
    // The same table again is no news.
    world.forget();
    sends(&mut world, "15550000001", &table(&pairs));
    assert!(world.data("alice", "lid_mapping.updated").is_empty());
}

#[test]
fn the_own_identity_moves_when_the_login_tells_the_lid() {
    let mut world = World::new(&["alice", "bob"]);
    assert_eq!(world.command("alice", Command::LinkQr), Ok(wamd::engine::Reply::Done));
    world.scan("alice", &ScanOptions { without_lid: true, ..ScanOptions::default() });
    assert_eq!(world.state("alice"), "CONNECTED");
    world.link("bob");
    let (pn, lid) = (world.jid("alice"), world.lid("alice"));
    world.talk("alice", "bob");
    assert_eq!(of(&mut world, RecordKind::Identity, &pn), 0, "the login told the LID");
    assert_eq!(of(&mut world, RecordKind::Identity, &lid), 1);
    assert!(world.data("alice", "identity.changed").is_empty());
}

#[test]
fn a_stale_lid_is_asked_for_again() {
    let mut world = World::online(&["alice", "bob"]);
    let bob = world.jid("bob");
    world.fault(Fault::HideLid { jid: bob.clone(), on: true });
    world.talk("alice", "bob");
    assert!(world.data("alice", "lid_mapping.updated").is_empty());
    world.fault(Fault::HideLid { jid: bob.clone(), on: false });
    let jid = world.device("alice");
    world.fault(Fault::Acks { jid, chat: None, error: None, phash: None, refresh_lid: true, count: Some(1) });
    world.forget();
    world.send("alice", "bob", "the ack says that it is stale");
    let heard = world.heard("alice");
    let asked = heard.iter().filter_map(|node| node.find_child("usync")?.find_child("list"));
    let asked: Vec<Jid> = asked.flat_map(Node::child_nodes).filter_map(|user| user.attr_jid("jid")).collect();
    assert_eq!(asked, [bob]);
    assert_eq!(world.data("alice", "lid_mapping.updated").len(), 1);
    world.talk("alice", "bob");
}

#[test]
fn a_damaged_table_changes_nothing() {
    let mut world = World::online(&["alice"]);
    let sync = e2e::LidMigrationMappingSyncMessage { encoded_mapping_payload: Some(Bytes::from_static(&[0x0A, 9])) };
    let protocol = e2e::ProtocolMessage {
        lid_migration_mapping_sync_message: Some(Box::new(sync)),
        ..e2e::ProtocolMessage::default()
    };
    let message = e2e::Message { protocol_message: Some(Box::new(protocol)), ..e2e::Message::default() };
    sends(&mut world, "15550000001", &message.encode_to_vec());
    assert!(world.data("alice", "lid_mapping.updated").is_empty());
    assert_eq!(world.queued("alice"), 0);
    assert_eq!(world.state("alice"), "CONNECTED");
}

/// Whenever it becomes known who is who, and by whatever name people write to each other meanwhile, everything arrives once.
#[test]
fn nothing_is_lost_or_repeated_whenever_the_lid_becomes_known() {
    for seed in 1..=40 {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

fn run(seed: u64) {
    let mut random = seed;
    let mut pick = move |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    let mut world = World::new(&["alice", "bob"]);
    for name in ["alice", "bob"] {
        let jid = world.jid(name);
        world.link(name);
        world.fault(Fault::HideLid { jid, on: pick(3) > 0 });
    }
    let bob = world.jid("bob");
    let mode = if pick(2) == 0 { GroupMode::Pn } else { GroupMode::Lid };
    let group = if pick(2) == 0 { Some(world.group("alice", mode, [bob])) } else { None };
    // Who sent it, and what.
    let mut texts: Vec<(&str, String)> = Vec::new();
    for n in 0..14 {
        let (from, to) = if pick(2) == 0 { ("alice", "bob") } else { ("bob", "alice") };
        match pick(9) {
            0..=2 => {
                let chat = match (pick(3), &group) {
                    (0, Some(group)) => group.clone(),
                    (1, _) => world.lid(to),
                    _ => world.jid(to),
                };
                let text = format!("{n} of {from}");
                world.send_to(from, &chat, &text);
                texts.push((from, text));
            }
            3 => {
                let (jid, on) = (world.jid(to), pick(2) == 0);
                world.fault(Fault::HideLid { jid, on });
            }
            4 if world.state(from) == "CONNECTED" => {
                // Somebody tells who is who.
                let (pn, lid) = (world.jid(to), world.lid(to));
                let notice = Node::new("notification").attr("type", "devices").attr("id", "D").attr("from", pn);
                let notice = notice.attr("lid", lid).child(Node::new("update").attr("hash", "2:AAAAAAAA"));
                world.stanza_arrives(from, &notice);
            }
            5 => {
                world.crash_and_start(from);
                world.command(from, Command::Connect).unwrap();
            }
            6 => {
                world.crash(from);
                world.actor(from).lose(RecordKind::Session);
                world.start(from);
                world.command(from, Command::Connect).unwrap();
            }
            7 => {
                let number = world.actor(from).number;
                let text = format!("{n} of the phone of {from}");
                world.phone_sends(number, to, &text);
                texts.push((from, text));
            }
            _ if world.conn(from).is_some() => world.cut(from),
            _ => {}
        }
        world.advance_secs(pick(12));
    }
    world.advance_secs(60);
    for (from, text) in texts {
        let to = if from == "alice" { "bob" } else { "alice" };
        let told = world.all_events(to).iter().filter(|event| world::text_of(event) == Some(&*text)).count();
        assert_eq!(told, 1, "{to} hears {text:?} of {from}");
    }
    for name in ["alice", "bob"] {
        assert_eq!((world.snapshot(name).sends, world.queued(name)), (0, 0), "{name}");
    }
    let sent = world.all_events("alice").iter().filter(|event| event.event == "message.failed").count();
    assert_eq!(sent, 0);
}

/// What refers to a message, and what is said of how far it got, finds it under the name that it had before.
#[test]
fn what_was_sent_under_the_number_is_the_same_message_under_the_lid() {
    let mut world = World::online(&["alice", "bob"]);
    for name in ["alice", "bob"] {
        let jid = world.jid(name);
        world.fault(Fault::HideLid { jid, on: true });
    }
    world.talk("alice", "bob");
    world.talk("bob", "alice");
    let (ours, theirs) = (world.send("alice", "bob", "ours"), world.send("bob", "alice", "theirs"));
    let gone = world.send("bob", "alice", "gone");
    let delivered = world.all_events("alice").iter().filter(|event| event.event == "message.delivered").count();
    assert_eq!(delivered, 3);
    for name in ["alice", "bob"] {
        let jid = world.jid(name);
        world.fault(Fault::HideLid { jid, on: false });
    }
    world.send("bob", "alice", "now it is known");
    assert_eq!(world.data("alice", "lid_mapping.updated").len(), 1);
    let device = world.lid("bob").with_device(world.device("bob").device());
    let receipt = |kind: Option<&str>, t: u64| {
        let receipt = Node::new("receipt").attr("from", &device).attr("id", ours.as_str()).attr("t", t);
        receipt.attr_opt("type", kind)
    };
    world.stanza_arrives("alice", &receipt(None, 1_760_000_100));
    assert_eq!(world.event_names("alice"), [""; 0], "it was told");
    world.stanza_arrives("alice", &receipt(Some("read"), 1_760_000_101));
    world.stanza_arrives("alice", &receipt(Some("read"), 1_760_000_102));
    assert_eq!(world.event_names("alice"), ["message.read"]);

    let reaction = Content::Reaction { target: MessageRef::theirs(ours.clone()), emoji: "👍".to_owned() };
    world.send_content("bob", "alice", reaction);
    let edit = Content::Edit { id: theirs.clone(), message: Box::new(wamd::message::build::text("changed")) };
    world.send_content("bob", "alice", edit);
    world.send_content("bob", "alice", Content::Delete { target: MessageRef::own(gone.clone()) });
    let events = world.events("alice");
    for (event, id) in events.iter().zip([&ours, &theirs, &gone]) {
        let message = &event.data["messages"][0];
        let key = if event.event == "message.deleted" { &event.data["messages"][0]["key"] } else { &message["key"] };
        assert_eq!((key["id"].as_str(), message.get("orphan")), (Some(id.as_str()), None), "{event:?}");
    }
    let names: Vec<_> = events.iter().map(|event| &*event.event).collect();
    assert_eq!(names, ["message.reaction", "message.updated", "message.deleted"]);
}
