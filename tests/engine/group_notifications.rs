//! Notifications keep what is stored of a group as the server has it, without asking; tell what happened; give our sender key
//! up when somebody leaves; and are acknowledged, whatever they say. What does not fit makes the group be asked for again.

use crate::world::World;
use serde_json::{Value, json};
use wamd::{
    Jid,
    engine::{Command, CommandError, GroupRequest, Reply},
    event::GroupObject,
    node::Node,
    store::{Batch, Key, RecordKind},
};
use wamd_loopback::{GroupChange, GroupMode};

/// Alice made the group; bob and carol are in it, dave is not.
fn world(mode: GroupMode) -> (World, Jid) {
    let mut world = World::online(&["alice", "bob", "carol", "dave"]);
    let members = ["bob", "carol"].map(|name| world.jid(name));
    let group = world.group("alice", mode, members);
    info(&mut world, "bob", &group);
    world.forget();
    world.heard("bob");
    (world, group)
}

fn info(world: &mut World, name: &str, group: &Jid) -> GroupObject {
    match world.command(name, Command::Group(GroupRequest::Info(group.clone()))) {
        Ok(Reply::Group(group)) => *group,
        other => panic!("no group: {other:?}"),
    }
}

fn change(world: &mut World, group: &Jid, change: GroupChange) {
    let now = world.now();
    world.server.change_group(now, group, None, change).expect("possible");
    world.settle();
}

/// How many queries about groups the server has heard since the last call.
fn queries(world: &mut World, name: &str) -> usize {
    let heard = world.heard(name);
    heard.iter().filter(|node| node.is("iq") && node.attr_str("xmlns").as_deref() == Some("w:g2")).count()
}

/// What is stored is what the server has: asking anew tells the same. Answers whether it was asked for the first time.
fn agrees(world: &mut World, name: &'static str, group: &Jid) -> bool {
    world.heard(name);
    let kept = info(world, name, group);
    let asked = queries(world, name) > 0;
    let dirty = Node::new("dirty").attr("type", "groups").attr("timestamp", 1_760_000_000);
    world.stanza_arrives(name, &Node::new("ib").attr("from", Jid::whatsapp_server()).child(dirty));
    let fresh = info(world, name, group);
    let plain = |mut object: GroupObject| {
        let all = object.participants.get_or_insert_default();
        all.sort_by_key(|one| one.id.to_string());
        // The query tells times and authors that some notifications do not.
        (object.subject_time, object.desc_time, object.desc_owner) = (None, None, None);
        serde_json::to_value(&object).unwrap()
    };
    assert_eq!(plain(kept), plain(fresh), "{name}");
    asked
}

fn people(world: &World, names: &[&str]) -> Vec<Jid> {
    names.iter().map(|name| world.jid(name)).collect()
}

#[test]
fn what_is_stored_follows_every_change_without_asking() {
    for mode in [GroupMode::Lid, GroupMode::Pn] {
        let (mut world, group) = world(mode);
        let participants = |names: &[&str]| people(&world, names);
        let changes = [
            GroupChange::Add { participants: participants(&["dave"]) },
            GroupChange::Promote { participants: participants(&["bob", "dave"]) },
            GroupChange::Demote { participants: participants(&["dave"]) },
            GroupChange::Remove { participants: participants(&["carol"]), linked_groups: false },
            GroupChange::Add { participants: participants(&["carol"]) },
            GroupChange::Subject { subject: "Crew".into() },
            GroupChange::Description { id: None, prev: None, body: Some("about".into()) },
            GroupChange::Description { id: None, prev: None, body: None },
            GroupChange::Announcement { on: true },
            GroupChange::Locked { on: true },
            GroupChange::AllMemberAdd { on: true },
            GroupChange::Approval { on: true },
            GroupChange::Ephemeral { seconds: 604_800 },
            GroupChange::Announcement { on: false },
            GroupChange::Locked { on: false },
            GroupChange::Ephemeral { seconds: 0 },
        ];
        for one in changes {
            world.heard("bob");
            change(&mut world, &group, one.clone());
            let acks = world.heard("bob");
            assert_eq!(acks.iter().filter(|node| node.is("ack")).count(), acks.len(), "acks alone: {acks:?}");
            assert!(!acks.is_empty());
            assert!(!agrees(&mut world, "bob", &group), "{one:?} needs no question");
        }
    }
}

#[test]
fn changes_while_away_and_at_once() {
    let (mut world, group) = world(GroupMode::Lid);
    world.command("bob", Command::Disconnect).unwrap();
    let dave = people(&world, &["dave"]);
    change(&mut world, &group, GroupChange::Add { participants: dave.clone() });
    change(&mut world, &group, GroupChange::Subject { subject: "Crew".into() });
    change(&mut world, &group, GroupChange::Remove { participants: dave, linked_groups: false });
    world.command("bob", Command::Connect).unwrap();
    world.advance_secs(1);
    assert!(!agrees(&mut world, "bob", &group));
    let told: Vec<_> = world.all_events("bob").iter().rev().filter(|event| event.event.starts_with("group")).collect();
    assert!(told[..3].iter().all(|event| event.offline), "of the time away");
}

#[test]
fn what_happened_is_told() {
    let (mut world, group) = world(GroupMode::Lid);
    let (alice, dave) = (world.lid("alice").to_string(), world.lid("dave").to_string());
    let (alice_pn, dave_pn) = (world.jid("alice"), world.jid("dave"));
    let participants = people(&world, &["dave"]);
    change(&mut world, &group, GroupChange::Add { participants: participants.clone() });
    let mut told = world.only("bob", "group-participants.update");
    assert!(told["timestamp"].as_u64().is_some_and(|at| at > 1_700_000_000));
    told.as_object_mut().unwrap().remove("timestamp");
    let dave_shown = json!({"id": dave, "phoneNumber": dave_pn.to_string(), "lid": dave, "phone": dave_pn.user(),
        "username": null, "admin": null, "label": null});
    assert_eq!(
        told,
        json!({"id": group.to_string(), "author": alice, "authorPn": alice_pn.to_string(), "authorUsername": null,
            "action": "add", "participants": [dave_shown], "self": false})
    );
    let upsert = world.only("dave", "groups.upsert");
    assert_eq!(upsert["groups"][0]["participants"].as_array().map(Vec::len), Some(4));
    world.forget();
    change(&mut world, &group, GroupChange::Promote { participants: participants.clone() });
    let told = world.only("dave", "group-participants.update");
    assert_eq!(
        (&told["action"], &told["self"], &told["participants"][0]["admin"]),
        (&"promote".into(), &true.into(), &"admin".into())
    );
    world.forget();
    change(&mut world, &group, GroupChange::Ephemeral { seconds: 86_400 });
    let told = world.only("bob", "groups.update");
    assert_eq!(
        told["groups"][0],
        json!({"id": group.to_string(), "ephemeralDuration": 86_400, "author": alice, "authorPn": alice_pn.to_string()})
    );
    change(&mut world, &group, GroupChange::Subject { subject: "Crew".into() });
    let told = world.only("bob", "groups.update");
    assert_eq!(
        (&told["groups"][0]["subject"], &told["groups"][0]["subjectOwnerPn"]),
        (&"Crew".into(), &alice_pn.to_string().into())
    );
    world.forget();
    // Dave leaves by himself.
    let now = world.now();
    world.server.change_group(now, &group, Some(&dave_pn), GroupChange::Leave).unwrap();
    world.settle();
    let told = world.only("bob", "group-participants.update");
    assert_eq!((&told["action"], &told["author"]), (&"remove".into(), &dave.as_str().into()));
    assert_eq!(told["participants"][0]["id"], dave);
}

// ---- our sender key ---------------------------------------------------------------------------------------------------

/// Our key of a group and its marks, under the names that they are stored by.
fn key_records(world: &World, group: &Jid) -> Vec<Key> {
    let pn = world.device("bob");
    let own = [world.lid("bob").with_device(pn.device()), pn].map(|own| own.to_string());
    let group = group.to_string();
    let keys = own.iter().map(|own| Key::joined(RecordKind::OwnSenderKey, &[group.as_bytes(), own.as_bytes()]));
    keys.chain([Key::new(RecordKind::SenderKeyMarks, &group)]).collect()
}

/// Bob has a key of the group, and does something; what is left of it.
fn left_of_the_key(world: &mut World, group: &Jid, act: impl FnOnce(&mut World)) -> usize {
    let keys = key_records(world, group);
    world.crash("bob");
    let puts = keys.iter().map(|key| (key.clone(), vec![1_u8; 40].into())).collect();
    world.actor("bob").write(Batch { puts, ..Batch::default() });
    world.start("bob");
    world.command("bob", Command::Connect).unwrap();
    world.forget();
    act(world);
    let bob = world.actor("bob");
    let stored = [RecordKind::OwnSenderKey, RecordKind::SenderKeyMarks].into_iter().flat_map(|kind| bob.records(kind));
    stored.filter(|(key, _)| keys.contains(key)).count()
}

/// How many records of a group there are.
fn stored_of(world: &mut World, group: &Jid) -> usize {
    let name = group.to_string();
    let records = world.actor("bob").records(RecordKind::Group);
    records.iter().filter(|(key, _)| key.id.starts_with(name.as_bytes())).count()
}

#[test]
fn our_key_goes_with_whoever_leaves() {
    let (mut world, group) = world(GroupMode::Lid);
    let all = key_records(&world, &group).len();
    let (carol, dave) = (people(&world, &["carol"]), people(&world, &["dave"]));
    let mut left = |one: GroupChange| left_of_the_key(&mut world, &group, |world| change(world, &group, one));
    assert_eq!(left(GroupChange::Add { participants: dave }), all, "who joins gets the key that is there");
    assert_eq!(left(GroupChange::Promote { participants: carol.clone() }), all);
    assert_eq!(left(GroupChange::Announcement { on: true }), all);
    assert_eq!(left(GroupChange::Remove { participants: carol, linked_groups: false }), 0);
    let dave = world.jid("dave");
    let leaves = |world: &mut World| {
        let now = world.now();
        world.server.change_group(now, &group, Some(&dave), GroupChange::Leave).unwrap();
        world.settle();
    };
    assert_eq!(left_of_the_key(&mut world, &group, leaves), 0);
    let (old, new) = (world.lid("alice"), Jid::lid("77777777777777"));
    let modified = notice(&group, &old, Node::new("modify").child(Node::new("participant").attr("jid", &new)));
    let told = |world: &mut World| {
        world.stanza_arrives("bob", &modified);
        let told = world.only("bob", "group-participants.update");
        assert_eq!((&told["action"], &told["oldId"]), (&"modify".into(), &old.to_string().into()));
    };
    assert_eq!(left_of_the_key(&mut world, &group, told), 0);
    let bob = people(&world, &["bob"]);
    let removed = |world: &mut World| {
        change(world, &group, GroupChange::Remove { participants: bob, linked_groups: false });
        assert_eq!(world.only("bob", "group-participants.update")["self"], true);
        assert_eq!(stored_of(world, &group), 0, "nothing is kept of it");
        let asked = world.command("bob", Command::Group(GroupRequest::Info(group.clone())));
        assert!(matches!(asked, Err(CommandError::Refused { code: 403, .. })));
    };
    assert_eq!(left_of_the_key(&mut world, &group, removed), 0);
}

#[test]
fn our_key_goes_when_it_is_seen_late_that_somebody_left() {
    let (mut world, group) = world(GroupMode::Lid);
    let all = key_records(&world, &group).len();
    let dirty = Node::new("ib").child(Node::new("dirty").attr("type", "groups").attr("timestamp", 1_760_000_000));
    let asks = |world: &mut World| {
        world.stanza_arrives("bob", &dirty);
        info(world, "bob", &group);
    };
    assert_eq!(left_of_the_key(&mut world, &group, asks), all, "nobody left");
    // The notification of it does not arrive: what is stored says that somebody is in it who is not.
    let eve = Node::new("participant").attr("jid", Jid::lid("66666666666666"));
    world.stanza_arrives("bob", &notice(&group, &world.lid("alice"), Node::new("add").child(eve)));
    assert_eq!(left_of_the_key(&mut world, &group, asks), 0);
}

// ---- what does not fit --------------------------------------------------------------------------------------------------

fn notice(group: &Jid, author: &Jid, change: Node) -> Node {
    Node::new("notification")
        .attr("from", group)
        .attr("type", "w:gp2")
        .attr("id", "N1")
        .attr("t", 1_760_000_000)
        .attr("participant", author)
        .child(change)
}

#[test]
fn what_does_not_fit_makes_the_group_be_asked_for_again() {
    let (mut world, group) = world(GroupMode::Lid);
    let (alice, bob) = (world.lid("alice"), world.lid("bob"));
    let stranger = Node::new("participant").attr("jid", Jid::lid("66666666666666"));
    let known = Node::new("participant").attr("jid", &bob);
    let many = (0..300).map(|n| Node::new("participant").attr("jid", Jid::lid(format!("6{n}"))));
    let unfit = [
        Node::new("something_new"),
        Node::new("remove").child(stranger.clone()),
        Node::new("promote").child(stranger.clone()),
        Node::new("add"),
        Node::new("add").child(Node::new("participant")),
        Node::new("add").children(many),
        Node::new("promote").attr("prev_v_id", "77").attr("v_id", "78").child(known.clone()),
        Node::new("locked").attr("prev_v_id", "77").attr("v_id", "78"),
        Node::new("link").attr("link_type", "what"),
        Node::new("create"),
        Node::new("change_number").child(stranger.clone()),
    ];
    for change in unfit {
        assert!(!agrees(&mut world, "bob", &group));
        world.heard("bob");
        world.stanza_arrives("bob", &notice(&group, &alice, change.clone()));
        acknowledged(&mut world, &group);
        assert!(agrees(&mut world, "bob", &group), "{change:?}");
    }
    let other_mode = notice(&group, &alice, Node::new("reports")).attr("addressing_mode", "pn");
    world.heard("bob");
    world.stanza_arrives("bob", &other_mode);
    acknowledged(&mut world, &group);
    assert!(agrees(&mut world, "bob", &group), "another addressing mode");
    let mut crowded = notice(&group, &alice, Node::new("reports"));
    crowded = crowded.children((0..100).map(|_| Node::new("reports")));
    world.heard("bob");
    world.stanza_arrives("bob", &crowded);
    acknowledged(&mut world, &group);
    assert!(agrees(&mut world, "bob", &group));
}

#[test]
fn what_is_of_no_account_is_acknowledged_alone() {
    let (mut world, group) = world(GroupMode::Lid);
    let alice = world.lid("alice");
    for tag in ["reports", "group_history", "created_sub_group_suggestion"] {
        world.heard("bob");
        world.stanza_arrives("bob", &notice(&group, &alice, Node::new(tag)));
        acknowledged(&mut world, &group);
        assert!(!agrees(&mut world, "bob", &group), "{tag}");
    }
    assert_eq!(world.event_names("bob").iter().filter(|name| name.starts_with("group")).count(), 0);
    // Not from a group.
    world.heard("bob");
    world.stanza_arrives("bob", &notice(&alice, &alice, Node::new("locked")));
    acknowledged(&mut world, &alice);
    // Of a group that is not known nothing is stored, and it is told all the same.
    let other: Jid = "120363099@g.us".parse().unwrap();
    let stored = world.actor("bob").records(RecordKind::Group);
    world.heard("bob");
    world.forget();
    world.stanza_arrives("bob", &notice(&other, &alice, Node::new("locked")));
    acknowledged(&mut world, &other);
    assert_eq!(world.only("bob", "groups.update")["groups"][0]["restrict"], true);
    assert_eq!(world.actor("bob").records(RecordKind::Group), stored);
}

/// The one thing that was answered is an ack of the notification.
fn acknowledged(world: &mut World, from: &Jid) {
    let heard = world.heard("bob");
    let [ack] = &heard[..] else { panic!("one answer: {heard:?}") };
    let text = |name: &str| ack.attr_str(name).map(|text| text.into_owned());
    assert!(ack.is("ack"));
    assert_eq!((text("class").as_deref(), text("type").as_deref()), (Some("notification"), Some("w:gp2")));
    assert_eq!((text("id").as_deref(), ack.attr_jid("to").as_ref()), (Some("N1"), Some(from)));
}

// ---- the rest of the vocabulary -------------------------------------------------------------------------------------------

/// The data of the events that a change led to, and their names.
fn told(world: &mut World, group: &Jid, author: &Jid, change: Node) -> Vec<(String, Value)> {
    world.forget();
    world.stanza_arrives("bob", &notice(group, author, change));
    let events = world.events("bob").into_iter();
    events.map(|event| (event.event.into_owned(), event.data)).collect()
}

#[test]
fn switches_links_and_the_end() {
    let (mut world, group) = world(GroupMode::Lid);
    let alice = world.lid("alice");
    let updates = [
        (Node::new("invite").attr("code", "ABC"), json!({"inviteCode": "ABC"})),
        (Node::new("suspended"), json!({"suspended": true})),
        (Node::new("unsuspended"), json!({"suspended": false})),
        (Node::new("growth_locked").attr("type", "invite"), json!({"growthLocked": true})),
        (Node::new("growth_unlocked"), json!({"growthLocked": false})),
        (Node::new("not_ephemeral"), json!({"ephemeralDuration": 0})),
        (Node::new("description").attr("id", "X").child(Node::new("delete")), json!({"desc": "", "descId": "X"})),
    ];
    for (change, expected) in updates {
        let events = told(&mut world, &group, &alice, change);
        let [(name, data)] = &events[..] else { panic!("one event: {events:?}") };
        assert_eq!(name, "groups.update");
        let shown = data["groups"][0].as_object().unwrap();
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(shown.get(key), Some(value));
        }
    }
    assert!(!agrees(&mut world, "bob", &group));

    let parent: Jid = "120363077@g.us".parse().unwrap();
    let link = |tag: &'static str, kind: &'static str, relation: &str| {
        Node::new(tag).attr(kind, relation).child(Node::new("group").attr("jid", &parent))
    };
    let events = told(&mut world, &group, &alice, link("link", "link_type", "parent_group"));
    let update = json!({"parent": parent.to_string(), "group": group.to_string(), "action": "link"});
    assert_eq!(events, [("community.update".to_owned(), update)]);
    assert_eq!(serde_json::to_value(info(&mut world, "bob", &group)).unwrap()["linkedParent"], parent.to_string());
    let events = told(&mut world, &group, &alice, link("unlink", "unlink_type", "parent_group"));
    assert_eq!(events[0].1["action"], "unlink");
    let events = told(&mut world, &group, &alice, link("link", "link_type", "sub_group"));
    assert_eq!(
        (&events[0].1["parent"], &events[0].1["group"]),
        (&group.to_string().into(), &parent.to_string().into())
    );
    assert_eq!(told(&mut world, &group, &alice, link("link", "link_type", "sibling_group")), []);

    let dave = world.lid("dave");
    let events =
        told(&mut world, &group, &dave, Node::new("membership_approval_request").attr("request_method", "invite_link"));
    let [(name, data)] = &events[..] else { panic!("one event: {events:?}") };
    assert_eq!(name, "group.join_request");
    assert_eq!(
        (&data["participant"], &data["action"], &data["method"]),
        (&dave.to_string().into(), &"created".into(), &"invite_link".into())
    );
    let revoked = Node::new("revoked_membership_requests").child(Node::new("participant").attr("jid", &dave));
    assert_eq!(told(&mut world, &group, &dave, revoked.clone())[0].1["action"], "revoked");
    assert_eq!(told(&mut world, &group, &alice, revoked)[0].1["action"], "rejected");

    let events = told(&mut world, &group, &alice, Node::new("delete").attr("reason", "gone"));
    assert_eq!(
        (&events[0].1["groups"][0]["deleted"], &events[0].1["groups"][0]["reason"]),
        (&true.into(), &"gone".into())
    );
    assert_eq!(stored_of(&mut world, &group), 0);
}

#[test]
fn identities_are_noted_before_they_are_told() {
    let (mut world, group) = world(GroupMode::Lid);
    let alice = world.lid("alice");
    let (pn, lid) = (Jid::pn("15557778888"), Jid::lid("88888888888888"));
    let add = Node::new("add").child(Node::new("participant").attr("jid", &lid).attr("phone_number", &pn));
    let events = told(&mut world, &group, &alice, add);
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["lid_mapping.updated", "group-participants.update"]);
    let maps = world.actor("bob").records(RecordKind::LidMap);
    assert!(maps.iter().any(|(key, value)| *key.id == *pn.to_string().as_bytes() && *value == lid.to_string()));
    // Known from elsewhere, it is shown although the server does not tell it.
    let promote = Node::new("promote").child(Node::new("participant").attr("jid", &lid));
    let events = told(&mut world, &group, &alice, promote);
    assert_eq!(events[0].1["participants"][0]["phone"], pn.user());
}
