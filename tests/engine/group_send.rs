//! A message to a group reaches every device of every member: the first one takes our sender key to all, later ones to those
//! who lack it alone (spec 03 §3.4, §4.5).

use std::collections::BTreeSet;

use crate::people::{Person, Stage};
use crate::world::{Disk, World, named};
use wamd::{
    Jid,
    engine::{Command, CommandError, Reply, SendRequest},
    node::Node,
    signal::wire::{PreKeyMessage, WhisperMessage},
    store::{Batch, RecordKind},
};
use wamd_loopback::{Fault, GroupChange, GroupMode};

const ALICE: &str = "15550000001";
const BOB: &str = "15550000002";
const CAROL: &str = "15550000003";
/// Has a phone only.
const DAVE: &str = "15550000009";

/// Alice, bob and carol are linked and in a group; dave is in it with his phone.
fn world(mode: GroupMode) -> (World, Jid) {
    let mut world = World::online(&["alice", "bob", "carol"]);
    let now = world.now();
    world.server.phone(now, DAVE).unwrap();
    let group = make(&mut world, mode, &[BOB, CAROL, DAVE]);
    (world, group)
}

fn make(world: &mut World, mode: GroupMode, members: &[&str]) -> Jid {
    let group = world.group("alice", mode, members.iter().map(Jid::pn));
    world.forget();
    group
}

fn change(world: &mut World, group: &Jid, change: GroupChange) {
    let now = world.now();
    world.server.change_group(now, group, None, change).unwrap();
    world.settle();
    world.forget();
}

fn text(group: &Jid, text: &str) -> Command {
    Command::Send(SendRequest::text(group.clone(), text))
}

/// What the server heard from alice.
struct Heard {
    messages: Vec<Node>,
    /// Namespaces of the queries.
    queries: Vec<String>,
}

fn heard(world: &mut World) -> Heard {
    let (mut messages, mut queries) = (Vec::new(), Vec::new());
    for node in world.heard("alice") {
        match node.tag() {
            "message" => messages.push(node),
            "iq" => queries.push(node.attr_str("xmlns").unwrap().into_owned()),
            _ => {}
        }
    }
    Heard { messages, queries }
}

/// The devices that a message hands the key to.
fn targets(message: &Node) -> BTreeSet<Jid> {
    let participants = message.find_child("participants").into_iter().flat_map(Node::child_nodes);
    participants.map(|to| to.attr_jid("jid").unwrap()).collect()
}

/// The texts that a phone got in a group.
fn read(world: &World, number: &str, group: &Jid) -> Vec<String> {
    let received = world.server.received(number).into_iter().filter(|message| message.chat == *group);
    received.map(|message| message.text.expect("a text")).collect()
}

fn devices(world: &World, mode: GroupMode, list: &[(&str, u16)]) -> BTreeSet<Jid> {
    let accounts = world.server.accounts();
    let jid = |(number, device): &(&str, u16)| {
        let account = accounts.iter().find(|account| account.number == *number).unwrap();
        let user = if mode == GroupMode::Lid { &account.lid } else { &account.jid };
        user.with_device(*device)
    };
    list.iter().map(jid).collect()
}

fn companion(world: &World, name: &str) -> u16 {
    world.device(name).device()
}

// ---- who gets the key -----------------------------------------------------------------------------------------------------

#[test]
fn the_first_message_takes_the_key_to_all_and_later_ones_to_own_devices() {
    for mode in [GroupMode::Lid, GroupMode::Pn] {
        let (mut world, group) = world(mode);
        let all = [
            (ALICE, 0),
            (BOB, 0),
            (BOB, companion(&world, "bob")),
            (CAROL, 0),
            (CAROL, companion(&world, "carol")),
            (DAVE, 0),
        ];
        let all = devices(&world, mode, &all);
        let phone = devices(&world, mode, &[(ALICE, 0)]);

        world.command("alice", text(&group, "first")).unwrap();
        let first = heard(&mut world).messages.remove(0);
        assert_eq!(targets(&first), all, "{mode:?}");
        assert_eq!(first.attr_jid("to"), Some(group.clone()));
        let word = if mode == GroupMode::Lid { "lid" } else { "pn" };
        assert_eq!(first.attr_str("addressing_mode").as_deref(), Some(word));
        assert!(first.attr_str("phash").is_some_and(|phash| phash.starts_with("2:") && phash.len() == 10));
        assert!(first.find_child("device-identity").is_some());
        assert_eq!(first.find_child("enc").unwrap().attr_str("type").as_deref(), Some("skmsg"));

        for text in ["second", "third", "fourth"] {
            world.command("alice", self::text(&group, text)).unwrap();
            let Heard { messages, queries } = heard(&mut world);
            assert_eq!(targets(&messages[0]), phone, "{mode:?}");
            assert!(queries.is_empty(), "{queries:?}");
        }
        for number in [ALICE, BOB, CAROL, DAVE] {
            assert_eq!(read(&world, number, &group), ["first", "second", "third", "fourth"], "{number}");
        }
        let sent = world.data("alice", "message.sent");
        assert_eq!(sent.len(), 4);
        assert_eq!(sent[0]["messages"][0]["key"]["remoteJid"], group.to_string());
        assert_eq!(world.snapshot("alice").sends, 0);
    }
}

#[test]
fn messages_at_once_distribute_once_and_keep_their_order() {
    let (mut world, group) = world(GroupMode::Lid);
    let all: Vec<_> = (0..6).map(|n| format!("{n}")).collect();
    let ids: Vec<_> = all.iter().map(|text| world.begin("alice", self::text(&group, text))).collect();
    world.settle();
    for id in ids {
        assert!(matches!(world.answer("alice", id), Some(Ok(Reply::Accepted { .. }))));
    }
    let Heard { messages, queries } = heard(&mut world);
    assert_eq!(messages.iter().filter(|message| targets(message).len() > 1).count(), 1, "one takes the key to others");
    assert_eq!(queries.iter().filter(|xmlns| *xmlns == "usync").count(), 1);
    for number in [ALICE, BOB, CAROL, DAVE] {
        assert_eq!(read(&world, number, &group), all, "{number}");
    }
}

#[test]
fn who_joins_gets_the_key_and_who_leaves_makes_it_void() {
    let (mut world, group) = world(GroupMode::Lid);
    let now = world.now();
    world.server.phone(now, "15550000008").unwrap();
    for text in ["first", "second"] {
        world.command("alice", self::text(&group, text)).unwrap();
    }
    change(&mut world, &group, GroupChange::Add { participants: vec![Jid::pn("15550000008")] });
    world.command("alice", text(&group, "third")).unwrap();
    let third = heard(&mut world).messages.remove(0);
    assert_eq!(targets(&third), devices(&world, GroupMode::Lid, &[(ALICE, 0), ("15550000008", 0)]));

    change(&mut world, &group, GroupChange::Remove { participants: vec![Jid::pn(BOB)], linked_groups: false });
    world.command("alice", text(&group, "fourth")).unwrap();
    let fourth = heard(&mut world).messages.remove(0);
    let rest = [(ALICE, 0), (CAROL, 0), (CAROL, companion(&world, "carol")), (DAVE, 0), ("15550000008", 0)];
    assert_eq!(targets(&fourth), devices(&world, GroupMode::Lid, &rest));
    assert_eq!(read(&world, BOB, &group), ["first", "second", "third"]);
    assert_eq!(read(&world, "15550000008", &group), ["third", "fourth"]);
    assert_eq!(read(&world, DAVE, &group), ["first", "second", "third", "fourth"]);
}

#[test]
fn a_new_device_of_a_member_gets_the_key_alone() {
    let (mut world, group) = world(GroupMode::Lid);
    for text in ["first", "second", "third"] {
        world.command("alice", self::text(&group, text)).unwrap();
    }
    world.add("bob2", BOB, |_| {});
    world.link("bob2");
    world.forget();
    world.command("alice", text(&group, "fourth")).unwrap();
    let Heard { messages, queries } = heard(&mut world);
    let expected = [(ALICE, 0), (BOB, companion(&world, "bob2"))];
    assert_eq!(targets(&messages[0]), devices(&world, GroupMode::Lid, &expected));
    assert_eq!(queries, ["encrypt"], "the keys of one");
    world.command("alice", text(&group, "fifth")).unwrap();
    let Heard { messages, queries } = heard(&mut world);
    assert_eq!(targets(&messages[0]), devices(&world, GroupMode::Lid, &[(ALICE, 0)]));
    assert_eq!(queries, [""; 0]);
}

#[test]
fn a_person_is_asked_for_once_by_a_chat_and_a_group() {
    let (mut world, group) = world(GroupMode::Pn);
    // The group told bob's LID.
    world.command("alice", text(&group, "first")).unwrap();
    let bob = world.jid("bob");
    let changed = Node::new("notification").attr("type", "devices").attr("id", "U").attr("from", &bob);
    world.stanza_arrives("alice", &changed.child(Node::new("update").attr("hash", "2:AAAAAAAA")));
    world.command("alice", Command::Disconnect).unwrap();
    world.command("alice", text(&bob, "to bob")).unwrap();
    world.command("alice", text(&group, "to all")).unwrap();
    world.forget();
    world.command("alice", Command::Connect).unwrap();
    let mut asked = Vec::new();
    for node in world.heard("alice").iter().filter(|node| node.attr_str("xmlns").as_deref() == Some("usync")) {
        let list = node.find_child("usync").and_then(|usync| usync.find_child("list")).unwrap();
        asked.extend(list.child_nodes().iter().map(|user| user.attr_jid("jid").unwrap()));
    }
    asked.retain(|jid| *jid == bob || *jid == world.lid("bob"));
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(read(&world, BOB, &group), ["first", "to all"]);
}

#[test]
fn the_keys_marks_survive_a_restart() {
    let (mut world, group) = world(GroupMode::Lid);
    world.command("alice", text(&group, "first")).unwrap();
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.forget();
    world.command("alice", text(&group, "second")).unwrap();
    let Heard { messages, queries } = heard(&mut world);
    assert_eq!(targets(&messages[0]), devices(&world, GroupMode::Lid, &[(ALICE, 0)]));
    assert_eq!(queries.iter().filter(|xmlns| matches!(&***xmlns, "w:g2" | "usync" | "encrypt")).count(), 0);
    assert_eq!(read(&world, DAVE, &group), ["first", "second"]);
}

/// What Meta hosts reads no groups, and is not counted either: the server agrees with the hash.
#[test]
fn hosted_companions_are_passed_by() {
    let (mut world, group) = world(GroupMode::Lid);
    let hosted = world.device("carol");
    world.fault(Fault::Hosted { jid: hosted.clone(), on: true });
    for n in 0..2 {
        world.forget();
        world.command("alice", text(&group, &n.to_string())).unwrap();
        let Heard { messages, queries } = heard(&mut world);
        assert_eq!(messages.len(), 1);
        assert!(
            !targets(&messages[0])
                .iter()
                .any(|jid| jid.device() == hosted.device() && jid.same_account(&world.lid("carol")))
        );
        assert_eq!(queries.iter().filter(|xmlns| *xmlns == "w:g2").count(), 0, "the hash is the server's");
    }
    assert_eq!(read(&world, CAROL, &group), ["0", "1"], "the phone does");
    assert_eq!(world.data("carol", "message.received").len(), 0);
    assert_eq!(world.data("bob", "message.received").len(), 1);
}

/// A device of our own that is linked while the group is warm.
#[test]
fn a_new_device_of_our_own_reads_what_we_send() {
    let (mut world, group) = world(GroupMode::Lid);
    for n in 0..2 {
        world.command("alice", text(&group, &format!("before {n}"))).unwrap();
    }
    world.add("laptop", ALICE, |_| {});
    world.link("laptop");
    world.forget();
    world.command("alice", text(&group, "after")).unwrap();
    let message = world.only("laptop", "message.sent")["messages"][0].clone();
    assert_eq!(
        (message["text"].as_str(), message["key"]["remoteJid"].as_str()),
        (Some("after"), Some(&*group.to_string()))
    );
    world.command("laptop", text(&group, "from the laptop")).unwrap();
    for name in ["bob", "carol"] {
        let texts: Vec<_> =
            world.data(name, "message.received").iter().map(|data| data["messages"][0]["text"].clone()).collect();
        assert_eq!(texts, ["after", "from the laptop"], "{name}");
    }
    assert_eq!(world.data("alice", "message.sent").len(), 2);
}

/// Nobody else is there: the message is for our own devices.
#[test]
fn a_group_of_ourselves_alone() {
    let mut world = World::online(&["alice"]);
    let group = make(&mut world, GroupMode::Lid, &[]);
    world.command("alice", text(&group, "a note")).unwrap();
    assert_eq!(world.data("alice", "message.sent").len(), 1);
    assert_eq!(read(&world, ALICE, &group), ["a note"]);
}

/// A member without devices stops nobody, and costs no question per message.
#[test]
fn a_member_without_devices_is_not_asked_for_again_and_again() {
    let mut stage = Stage::new(Vec::new());
    let (now, numbers) = (stage.world.now(), ["16660000001", "16660000002"]);
    for (number, devices) in numbers.iter().zip([vec![0, 2], vec![]]) {
        stage.world.server.phone(now, number).unwrap();
        // The keys are those of the stage: the phone would ask for what it cannot read.
        stage.world.fault(Fault::MutePhone { jid: Jid::pn(number), on: true });
        let account = stage.world.server.accounts().into_iter().find(|account| account.number == *number).unwrap();
        stage.people.push(Person { lid: account.lid, ..Person::new(number, devices) });
    }
    let group = make(&mut stage.world, GroupMode::Lid, &numbers);
    let gone = stage.people[1].lid.clone();
    let mut asked = Vec::new();
    for n in 0..5 {
        stage.send(&group, &n.to_string());
        asked.push(stage.users_asked().iter().filter(|(jid, _)| *jid == gone).count());
        if n == 0 {
            // The server of this stage knows the same devices.
            let phash = stage.sent[0].attr_str("phash").map(|phash| phash.into_owned());
            let (jid, chat) = (stage.world.device("alice"), Some(group.clone()));
            stage.world.fault(Fault::Acks { jid, chat, error: None, phash, refresh_lid: false, count: None });
        }
    }
    assert_eq!(stage.sent.len(), 5);
    // With the first message, and once more when it is known who has our key.
    assert_eq!(asked, [1, 1, 0, 0, 0]);
    let given: Vec<usize> = stage.recipients().iter().map(Vec::len).collect();
    assert_eq!(given, [2, 0, 0, 0, 0]);
}

// ---- what cannot be sent --------------------------------------------------------------------------------------------------

#[test]
fn an_outsider_encrypts_nothing() {
    let (mut world, group) = world(GroupMode::Lid);
    change(&mut world, &group, GroupChange::Promote { participants: vec![Jid::pn(BOB)] });
    let (now, by) = (world.now(), world.jid("bob"));
    let removal = GroupChange::Remove { participants: vec![Jid::pn(CAROL)], linked_groups: false };
    world.server.change_group(now, &group, Some(&by), removal).unwrap();
    world.settle();
    world.forget();
    world.command("carol", text(&group, "let me in")).unwrap();
    let told = world.only("carol", "message.failed");
    assert_eq!(told["messages"][0]["key"]["remoteJid"], group.to_string());
    let code = told["messages"][0]["error"]["code"].as_str().unwrap();
    assert!(["not_a_participant", "group"].contains(&code), "{code}");
    assert!(world.heard("carol").iter().all(|node| !node.is("message")));
    assert_eq!(world.snapshot("carol").sends, 0);
}

#[test]
fn an_audience_belongs_to_a_status() {
    let (mut world, group) = world(GroupMode::Lid);
    let audience =
        wamd::engine::Audience { setting: wamd::engine::AudienceSetting::Contacts, viewers: vec![world.jid("bob")] };
    let request = SendRequest::text(group, "hello").with_audience(audience);
    let refused = world.command("alice", Command::Send(request));
    assert_eq!(refused, Err(CommandError::Audience("the message is no status")));
}

// ---- lost connections, lost processes -------------------------------------------------------------------------------------

#[test]
fn a_connection_lost_in_the_middle() {
    for steps in 0..16 {
        let (mut world, group) = world(GroupMode::Lid);
        world.begin("alice", text(&group, "first"));
        world.begin("alice", text(&group, "second"));
        world.steps(steps);
        world.cut("alice");
        world.advance_secs(5);
        for number in [ALICE, BOB, CAROL, DAVE] {
            assert_eq!(read(&world, number, &group), ["first", "second"], "{number} after {steps} steps");
        }
        assert_eq!(world.data("alice", "message.sent").len(), 2, "after {steps} steps");
        assert_eq!(world.snapshot("alice").sends, 0);
    }
}

#[test]
fn a_process_lost_in_the_middle() {
    for steps in 1..16 {
        let (mut world, group) = world(GroupMode::Lid);
        let (first, second) =
            (world.begin("alice", text(&group, "first")), world.begin("alice", text(&group, "second")));
        world.steps(steps);
        assert!(world.answer("alice", first).is_some() && world.answer("alice", second).is_some());
        world.crash_and_start("alice");
        world.command("alice", Command::Connect).unwrap();
        for number in [ALICE, BOB, CAROL, DAVE] {
            assert_eq!(read(&world, number, &group), ["first", "second"], "{number} after {steps} steps");
        }
        assert_eq!(named(world.all_events("alice"), "message.sent").len(), 2, "after {steps} steps");
        assert_eq!(world.snapshot("alice").sends, 0);
    }
}

/// A group of alice and three hundred phones, and their numbers.
fn hundreds() -> (World, Jid, Vec<String>) {
    let mut world = World::online(&["alice"]);
    let numbers: Vec<String> = (0..300).map(|n| format!("1777{n:07}")).collect();
    let now = world.now();
    numbers.iter().for_each(|number| drop(world.server.phone(now, number).unwrap()));
    let members: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let group = make(&mut world, GroupMode::Lid, &members);
    (world, group, numbers)
}

/// The addresses of the sessions that a batch writes.
fn sessions(batch: &Batch) -> BTreeSet<String> {
    let sessions = batch.puts.iter().filter(|(key, _)| key.kind == RecordKind::Session);
    sessions.map(|(key, _)| String::from_utf8(key.id.to_vec()).unwrap()).collect()
}

#[test]
fn a_process_lost_between_the_parts() {
    let mut lost = 0;
    // So many of the parts are durable.
    for durable in 1..=2 {
        let (mut world, group, numbers) = hundreds();
        world.disk("alice", Disk::Stuck);
        world.begin("alice", text(&group, "hello"));
        world.settle();
        let batches = world.actor("alice").held_batches();
        let parts: Vec<usize> = (0..batches.len()).filter(|n| sessions(&batches[*n]).len() > 32).collect();
        let mut used = BTreeSet::new();
        for (n, batch) in batches.into_iter().enumerate().take(parts[durable - 1] + 1) {
            if parts.contains(&n) {
                used.extend(sessions(&batch));
            }
            world.actor("alice").write(batch);
        }
        assert!(heard(&mut world).messages.is_empty());
        world.crash_and_start("alice");
        world.command("alice", Command::Connect).unwrap();

        let messages = heard(&mut world).messages;
        assert_eq!((messages.len(), targets(&messages[0]).len()), (1, 301), "once, {durable}");
        for to in messages[0].find_child("participants").unwrap().child_nodes() {
            let enc = to.find_child("enc").unwrap().content_bytes().unwrap();
            let whisper = match PreKeyMessage::decode(&enc) {
                Ok(first) => WhisperMessage::decode(first.message).unwrap(),
                Err(_) => WhisperMessage::decode(&enc).unwrap(),
            };
            // Nobody has seen what was made of the counters that were used.
            if used.contains(&to.attr_jid("jid").unwrap().to_string()) {
                assert!(whisper.counter > 0, "a counter is not used again");
                lost += 1;
            }
        }
        for number in &numbers {
            assert_eq!(read(&world, number, &group), ["hello"], "{durable}");
        }
        assert_eq!(named(world.all_events("alice"), "message.sent").len(), 1);
        world.command("alice", text(&group, "again")).unwrap();
        let again = heard(&mut world).messages;
        assert_eq!(targets(&again[0]).len(), 1, "everybody has it");
        assert!(numbers.iter().all(|number| read(&world, number, &group) == ["hello", "again"]));
    }
    assert_eq!(lost, 256 + 301);
}

#[test]
fn hundreds_get_our_key_in_parts() {
    let (mut world, group, numbers) = hundreds();
    world.disk("alice", Disk::Stuck);
    world.begin("alice", text(&group, "hello"));
    world.settle();
    let batches = world.actor("alice").held_batches();
    let batches: Vec<usize> = batches.iter().map(|batch| sessions(batch).len()).collect();
    // Sessions are begun with 32 devices at a time; our own phone gets the key, too.
    let parts: Vec<usize> = batches.iter().copied().filter(|sessions| *sessions > 32).collect();
    assert_eq!(parts, [256, 45]);
    assert_eq!(batches.last(), Some(&0), "the stanza is made of all of them");
    assert!(heard(&mut world).messages.is_empty(), "it waits for every part");

    world.disk("alice", Disk::Works);
    world.settle();
    let messages = heard(&mut world).messages;
    assert_eq!((messages.len(), targets(&messages[0]).len()), (1, 301));
    for number in &numbers {
        assert_eq!(read(&world, number, &group), ["hello"]);
    }
    world.command("alice", text(&group, "again")).unwrap();
    assert_eq!(targets(&heard(&mut world).messages[0]).len(), 1, "everybody has it");
}
