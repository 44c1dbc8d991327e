//! Promise: a message goes to the devices that the user's primary vouches for, the list of which is asked for once and kept
//! until it changes (spec 03 §4.9).

use crate::people::{self, Person, Stage, pair};
use crate::world::World;
use wamd::{Jid, engine::Command, node::Node, store::RecordKind};
use wamd_loopback::Fault;

const NUMBER: &str = "16660000001";

/// Zoe's devices.
fn devices(ids: &[u16]) -> Vec<Jid> {
    ids.iter().map(|id| Jid::pn(NUMBER).with_device(*id)).collect()
}

fn stage(ids: &[u16]) -> Stage {
    Stage::new(vec![Person::new(NUMBER, ids.iter().copied())])
}

fn zoe() -> Jid {
    Jid::pn(NUMBER)
}

/// The addresses that there are sessions with, but for our own phone.
fn sessions(stage: &mut Stage) -> Vec<String> {
    let records = stage.world.actor("alice").records(RecordKind::Session);
    let texts = records.iter().map(|(key, _)| String::from_utf8(key.id.to_vec()).expect("an address"));
    texts.filter(|text| text.contains(NUMBER)).collect()
}

#[test]
fn a_user_is_asked_for_once() {
    let mut stage = stage(&[0, 3]);
    stage.silent = true;
    stage.send(&zoe(), "one");
    stage.send(&zoe(), "two");
    assert_eq!(stage.users_asked(), [(zoe(), None)]);
    stage.silent = false;
    // Nothing was answered: asked again with the next connection, once.
    stage.reconnects(|world| world.cut("alice"));
    assert_eq!(stage.users_asked(), [(zoe(), None)]);
    assert_eq!(stage.recipients(), [devices(&[0, 3]), devices(&[0, 3])]);
    stage.send(&zoe(), "three");
    assert_eq!(stage.users_asked(), []);
    assert_eq!(stage.recipients(), [devices(&[0, 3])]);
}

#[test]
fn an_old_list_is_asked_for_by_its_hash() {
    let mut stage = stage(&[0, 3]);
    stage.send(&zoe(), "one");
    stage.users_asked();
    stage.recipients();
    stage.world.advance(people::LIST_AGE);
    stage.send(&zoe(), "two");
    let hash = stage.people[0].hash(&zoe());
    assert_eq!(stage.users_asked(), [(zoe(), Some(hash.clone()))]);
    assert_eq!(stage.recipients(), [devices(&[0, 3])], "unchanged");
    stage.send(&zoe(), "three");
    assert_eq!(stage.users_asked(), [], "new enough again");

    stage.world.advance(people::LIST_AGE);
    stage.people[0] = Person { timestamp: 1_759_100_000, ..Person::new(NUMBER, [0, 4]) };
    stage.recipients();
    stage.send(&zoe(), "four");
    assert_eq!(stage.users_asked(), [(zoe(), Some(hash))]);
    assert_eq!(stage.recipients(), [devices(&[0, 4])]);
    assert_eq!(sessions(&mut stage).len(), 2, "the one that is gone has no session any more");
}

#[test]
fn an_old_list_serves_when_the_server_does_not_answer() {
    let mut stage = stage(&[0, 3]);
    stage.send(&zoe(), "one");
    stage.world.advance(people::LIST_AGE);
    stage.usync = vec![Node::new("error").attr("code", 500)];
    stage.recipients();
    stage.send(&zoe(), "two");
    // The own list is old, too, and asked for in the same question.
    assert_eq!(stage.recipients(), [devices(&[0, 3])]);
}

#[test]
fn the_server_can_put_a_question_off() {
    let mut stage = stage(&[0, 3]);
    stage.usync = vec![Node::new("error").attr("code", 429).attr("backoff", 20)];
    stage.send(&zoe(), "one");
    stage.send(&Jid::pn("16660000002"), "somebody else waits, too");
    assert_eq!(stage.asked.len(), 1);
    stage.world.advance_secs(19);
    stage.serve();
    assert_eq!(stage.asked.len(), 1);
    stage.world.advance_secs(1);
    stage.serve();
    assert_eq!(stage.asked.len(), 3);
    assert_eq!(stage.recipients()[0], devices(&[0, 3]));

    // The same as the word of one protocol; and not for ever.
    let error = || Node::new("devices").child(Node::new("error").attr("code", 429).attr("backoff", 20));
    let refused = || Node::new("usync").child(Node::new("result").child(error())).child(Node::new("list"));
    stage.usync = vec![refused(), refused(), refused()];
    stage.asked.clear();
    stage.world.forget();
    stage.send(&Jid::pn("16660000003"), "one");
    for _ in 0..5 {
        stage.world.advance_secs(20);
        stage.serve();
    }
    assert_eq!(stage.asked.len(), 3);
    assert_eq!(stage.world.data("alice", "message.failed")[0]["messages"][0]["error"]["code"], "devices");
}

#[test]
fn companions_count_as_the_primary_says() {
    let mut stage = stage(&[0, 2, 3, 9]);
    // 3 was unlinked, 9 is newer than the list.
    stage.people[0].valid_indexes = vec![2];
    stage.people[0].current_index = 5;
    stage.send(&zoe(), "one");
    assert_eq!(stage.recipients(), [devices(&[0, 2, 9])]);
}

#[test]
fn without_a_list_the_primary_alone_counts_and_no_hash_is_shown() {
    let mut stage = stage(&[0, 2]);
    stage.people[0].signs = false;
    stage.send(&zoe(), "one");
    assert_eq!(stage.recipients(), [devices(&[0])]);
    stage.users_asked();
    stage.world.advance(people::LIST_AGE);
    stage.people[0].signs = true;
    stage.send(&zoe(), "two");
    assert_eq!(stage.users_asked(), [(zoe(), None)]);
    assert_eq!(stage.recipients(), [devices(&[0, 2])]);
}

#[test]
fn an_older_list_brings_no_device_back() {
    let mut stage = stage(&[0, 2]);
    stage.send(&zoe(), "one");
    let newer = Person { timestamp: 1_759_100_000, ..Person::new(NUMBER, [0]) };
    let older = std::mem::replace(&mut stage.people[0], newer);
    stage.arrives(&stage.people[0].change("N1", "remove", &[2]));
    stage.recipients();
    stage.send(&zoe(), "two");
    assert_eq!(stage.recipients(), [devices(&[0])]);
    // The notification of before comes late, and the answer of another server.
    stage.arrives(&older.change("N2", "add", &[2]));
    stage.people[0] = older;
    stage.send(&zoe(), "three");
    stage.world.advance(people::LIST_AGE);
    stage.send(&zoe(), "four");
    assert_eq!(stage.recipients(), [devices(&[0]), devices(&[0])]);
}

#[test]
fn a_new_registration_voids_the_sessions_with_companions() {
    let mut stage = stage(&[0, 2]);
    stage.send(&zoe(), "one");
    assert_eq!(sessions(&mut stage).len(), 2);
    stage.world.advance(people::LIST_AGE);
    stage.people[0].raw_id = 8;
    stage.people[0].generation = 1;
    // The server does not know that the hash says too little.
    stage.people[0].devices.push(3);
    stage.people[0].valid_indexes.push(3);
    stage.recipients();
    stage.fetched.clear();
    stage.send(&zoe(), "two");
    assert_eq!(stage.recipients(), [devices(&[0, 2, 3])]);
    assert_eq!(stage.fetched.concat(), devices(&[2, 3]), "a new session with each companion");
}

#[test]
fn a_list_of_another_primary_is_not_believed_before_it_is_seen() {
    let mut stage = stage(&[0, 2]);
    stage.send(&zoe(), "one");
    // Somebody made a list, and the bundle of the primary is the old one.
    let forger = Person { primary: pair("forger"), ..Person::new(NUMBER, [0, 2, 3]) };
    let real = stage.people[0].clone();
    stage.usync = vec![Node::new("usync").child(Node::new("list").child(forger.listed(&zoe())))];
    stage.arrives(&real.change("N1", "update", &[]));
    stage.recipients();
    stage.send(&zoe(), "two");
    assert_eq!(stage.recipients(), [devices(&[0])]);
    assert!(stage.world.data("alice", "identity.changed").is_empty());

    // The account was registered again indeed.
    let again = Person { primary: pair("again"), raw_id: 9, generation: 2, ..Person::new(NUMBER, [0, 5]) };
    stage.people[0] = again.clone();
    stage.arrives(&again.change("N2", "update", &[]));
    stage.send(&zoe(), "three");
    assert_eq!(stage.recipients(), [devices(&[0, 5])]);
    assert_eq!(stage.world.data("alice", "identity.changed").len(), 1);
}

#[test]
fn notifications_patch_the_list() {
    let mut stage = stage(&[0, 2]);
    stage.send(&zoe(), "one");
    stage.users_asked();
    stage.recipients();
    stage.people[0] = Person { timestamp: 1_759_000_001, ..Person::new(NUMBER, [0, 2, 3]) };
    stage.arrives(&stage.people[0].change("N1", "add", &[3]));
    stage.send(&zoe(), "two");
    assert_eq!(stage.recipients(), [devices(&[0, 2, 3])]);
    stage.people[0] = Person { timestamp: 1_759_000_002, ..Person::new(NUMBER, [0, 3]) };
    stage.arrives(&stage.people[0].change("N2", "remove", &[2]));
    assert_eq!(sessions(&mut stage).len(), 2, "its session went with it");
    stage.send(&zoe(), "three");
    assert_eq!(stage.recipients(), [devices(&[0, 3])]);
    assert_eq!(stage.users_asked(), [], "nobody was asked");

    // The next question shows the new hash.
    stage.world.advance(people::LIST_AGE);
    stage.send(&zoe(), "four");
    let hash = stage.people[0].hash(&zoe());
    assert_eq!(stage.users_asked(), [(zoe(), Some(hash))]);
}

#[test]
fn a_change_that_does_not_add_up_leads_to_a_question() {
    for spoiled in ["hash", "lid hash", "list", "update"] {
        let mut stage = stage(&[0, 2]);
        stage.people[0].tells_lid = spoiled == "lid hash";
        stage.send(&zoe(), "one");
        stage.users_asked();
        stage.recipients();
        stage.people[0] = Person { timestamp: 1_759_000_001, ..Person::new(NUMBER, [0, 2, 3]) };
        let mut told = stage.people[0].clone();
        match spoiled {
            // 4 is missing in what is told.
            "hash" | "lid hash" => told.devices.push(4),
            "list" => told.signs = false,
            _ => {}
        }
        let what = if spoiled == "update" { "update" } else { "add" };
        stage.arrives(&told.change("N1", what, &[3]));
        stage.send(&zoe(), "two");
        assert_eq!(stage.users_asked().len(), 1, "{spoiled}");
        assert_eq!(stage.recipients()[0].len(), 3, "{spoiled}");
    }
}

#[test]
fn devices_of_others_in_a_notification_do_not_count() {
    let mut stage = stage(&[0, 2]);
    stage.send(&zoe(), "one");
    stage.recipients();
    let stranger = Person::new("16660000002", [0, 2, 3]);
    let device = Node::new("device").attr("jid", stranger.pn.with_device(3)).attr("key-index", 3);
    let change = Node::new("add").child(device).child(stage.people[0].key_index_list());
    let notification = Node::new("notification").attr("type", "devices").attr("from", zoe()).attr("id", "N1");
    stage.arrives(&notification.child(change));
    stage.send(&zoe(), "two");
    assert_eq!(stage.recipients(), [devices(&[0, 2])]);
}

#[test]
fn hosted_devices_are_addressed_as_such() {
    let mut stage = stage(&[0, 99]);
    stage.people[0].hosted = vec![99];
    stage.send(&zoe(), "one");
    let hosted: Jid = format!("{NUMBER}:99@hosted").parse().unwrap();
    let recipients = stage.recipients().concat();
    assert_eq!(recipients.len(), 2);
    assert!(recipients.contains(&hosted), "{recipients:?}");
    assert!(stage.fetched.concat().contains(&hosted));
    // Its session has one address, whatever the server part.
    assert!(sessions(&mut stage).contains(&format!("{NUMBER}:99@s.whatsapp.net")));
}

#[test]
fn a_bot_is_one_device_and_nobody_is_asked() {
    let bot = Jid::pn("13135550002");
    let mut stage = Stage::new(vec![Person { pn: bot.clone(), ..Person::new("13135550002", [0]) }]);
    stage.send(&bot, "hello");
    assert_eq!(stage.users_asked(), []);
    assert_eq!(stage.recipients(), [[bot]]);
}

#[test]
fn a_device_that_is_not_registered_any_more_takes_the_list_with_it() {
    let mut stage = stage(&[0, 2]);
    stage.send(&zoe(), "one");
    stage.users_asked();
    // The device is listed, and the server has no bundle for it.
    stage.people[0] = Person { timestamp: 1_759_000_001, ..Person::new(NUMBER, [0, 2, 3]) };
    stage.arrives(&stage.people[0].change("N1", "add", &[3]));
    stage.silent = true;
    stage.recipients();
    stage.world.send_to("alice", &zoe(), "two");
    let heard = stage.world.heard("alice");
    let query = heard.iter().find(|node| node.find_child("key").is_some()).expect("keys are asked for");
    let error = Node::new("error").attr("code", 406).attr("text", "not-acceptable");
    let user = Node::new("user").attr("jid", zoe().with_device(3)).child(error);
    let answer = Node::new("iq").attr("from", Jid::whatsapp_server()).attr("type", "result");
    let answer = answer.attr("id", query.attr_str("id").unwrap().into_owned()).child(Node::new("list").child(user));
    stage.silent = false;
    stage.people[0] = Person { timestamp: 1_759_000_002, ..Person::new(NUMBER, [0, 2]) };
    stage.arrives(&answer);
    assert_eq!(stage.users_asked().len(), 1, "asked anew");
    assert_eq!(stage.recipients(), [devices(&[0, 2])]);
}

#[test]
fn the_own_list_is_replaced_as_the_server_says() {
    let mut stage = stage(&[0]);
    stage.send(&zoe(), "one");
    let own = stage.world.jid("alice");
    let device = |id: u16| Node::new("device").attr("jid", own.with_device(id)).attr("key-index", id);
    let list = |ids: &[u16]| {
        let jids: Vec<Jid> = ids.iter().map(|id| own.with_device(*id)).collect();
        let list = Node::new("devices").attr("dhash", wamd::message::phash::phash(&jids));
        let list = list.children(ids.iter().map(|id| device(*id)));
        Node::new("notification").attr("type", "account_sync").attr("from", &own).attr("id", "N1").child(list)
    };
    // Another companion, whose keys are fetched with the next message.
    stage.asked.clear();
    stage.fetched.clear();
    stage.arrives(&list(&[0, 1, 7]));
    stage.send(&zoe(), "two");
    assert_eq!(stage.asked, Vec::<Vec<(Jid, Option<String>)>>::new());
    let asked_keys = stage.fetched.concat();
    assert_eq!(asked_keys, [stage.world.lid("alice").with_device(7)]);
    // A list that does not have the hash that it claims is asked for.
    let wrong = Node::new("devices").attr("dhash", "2:AAAAAAAA").child(device(0));
    let wrong = Node::new("notification").attr("type", "account_sync").attr("from", &own).attr("id", "N2").child(wrong);
    stage.arrives(&wrong);
    stage.send(&zoe(), "three");
    assert_eq!(stage.asked.len(), 1);
    // Somebody else's are not ours.
    stage.asked.clear();
    let theirs = Node::new("devices").child(Node::new("device").attr("jid", zoe().with_device(9)));
    let theirs =
        Node::new("notification").attr("type", "account_sync").attr("from", zoe()).attr("id", "N3").child(theirs);
    stage.arrives(&theirs);
    stage.recipients();
    stage.send(&zoe(), "four");
    assert_eq!(stage.recipients(), [devices(&[0])]);
    assert_eq!(stage.world.command("alice", Command::Disconnect), Ok(wamd::engine::Reply::Done));
}

#[test]
fn a_question_that_came_up_without_a_connection_is_asked_on_the_next() {
    let mut world = World::new(&["bob"]);
    // Next to nothing stays in memory, so that every step waits for the store.
    world.add("alice", "15550000004", |config| config.cache_bytes = 1);
    world.settle();
    world.link("alice");
    world.link("bob");
    let (alice, bob) = (world.device("alice"), world.jid("bob"));
    world.fault(Fault::HideLid { jid: bob.clone(), on: true });
    world.talk("alice", "bob");
    for jid in [bob.clone(), world.jid("alice")] {
        world.fault(Fault::MutePhone { jid, on: true });
    }
    world.crash("bob");
    world.fault(Fault::DropAck { jid: alice, count: 1 });
    let id = world.send("alice", "bob", "first");
    for n in 0..4 {
        // What was read for bob is not at hand any more.
        let stranger = Node::new("receipt").attr("from", zoe()).attr("id", format!("S{n}"));
        world.stanza_arrives("alice", &stranger);
    }
    assert_eq!(world.snapshot("alice").sends, 1);
    // Who bob is must be asked again; that is read when the connection is gone.
    world.reads("alice", false);
    let ack =
        Node::new("ack").attr("class", "message").attr("id", id.as_str()).attr("from", &bob).attr("t", 1_760_000_000);
    world.stanza_arrives("alice", &ack.attr("refresh_lid", "true"));
    assert_eq!(world.snapshot("alice").sends, 1, "it waits for records");
    world.cut("alice");
    world.reads("alice", true);
    assert_eq!(world.snapshot("alice").sends, 0);
    world.advance_secs(10);
    assert_eq!(world.state("alice"), "CONNECTED");
    world.start("bob");
    world.command("bob", Command::Connect).unwrap();
    world.forget();
    world.talk("alice", "bob");
    assert_eq!(world.snapshot("alice").sends, 0);
}

#[test]
fn of_several_changes_at_once_the_removal_counts() {
    let change = |person: &Person, what: &str| person.change("N", what, &[3]).first_child().unwrap().clone();
    for (first, second, stays) in [("add", "remove", false), ("update", "remove", false), ("update", "add", true)] {
        let mut stage = stage(&[0, 2, 3]);
        stage.send(&zoe(), "one");
        let without = Person { timestamp: 1_759_000_001, ..Person::new(NUMBER, [0, 2]) };
        let with = Person { timestamp: 1_759_000_001, ..Person::new(NUMBER, [0, 2, 3]) };
        stage.people[0] = if stays { with.clone() } else { without.clone() };
        let notice = Node::new("notification").attr("type", "devices").attr("from", zoe()).attr("id", "N");
        let person = if stays { &with } else { &without };
        stage.arrives(&notice.child(change(person, first)).child(change(person, second)));
        stage.users_asked();
        stage.recipients();
        stage.send(&zoe(), "two");
        assert_eq!(stage.recipients(), [devices(if stays { &[0, 2, 3] } else { &[0, 2] })], "{first} and {second}");
        assert_eq!(stage.users_asked(), [], "{first} and {second}");
    }
}

/// Alice knows devices 0 and 2 of Zoe, and has just asked for the keys of a third, to send a message to all. Gives the question.
fn fetching() -> (Stage, Node) {
    let mut stage = stage(&[0, 2]);
    stage.send(&zoe(), "one");
    stage.people[0] = Person { timestamp: 1_759_000_001, ..Person::new(NUMBER, [0, 2, 3]) };
    stage.arrives(&stage.people[0].change("N1", "add", &[3]));
    stage.users_asked();
    stage.recipients();
    stage.world.send_to("alice", &zoe(), "two");
    let heard = stage.world.heard("alice");
    let query = heard.into_iter().find(|node| node.find_child("key").is_some()).expect("keys are asked for");
    (stage, query)
}

#[test]
fn a_device_that_goes_while_its_keys_are_fetched_gets_nothing() {
    let (mut stage, query) = fetching();
    let answer = stage.answer(&query).unwrap();
    stage.people[0] = Person { timestamp: 1_759_000_002, ..Person::new(NUMBER, [0, 2]) };
    stage.arrives(&stage.people[0].change("N2", "remove", &[3]));
    assert_eq!(stage.recipients().len(), 0);
    stage.arrives(&answer);
    assert_eq!(stage.recipients(), [devices(&[0, 2])]);
    stage.send(&zoe(), "three");
    assert_eq!(stage.recipients(), [devices(&[0, 2])]);
    assert_eq!(sessions(&mut stage).len(), 2, "nor is anything kept of it");
}
