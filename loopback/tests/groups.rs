//! Groups and communities: queries, changes with their notifications, and who may do what.

mod common;

use common::many::group_server;
use common::{Client, Device, World, ack, leaf};
use wamd::jid::Jid;
use wamd::node::Node;
use wamd_loopback::{Config, ControlError, GroupChange, GroupMode, GroupSpec};

const ALICE: &str = "15550000001";
const BOB: &str = "15550000002";
const CAROL: &str = "15550000003";

/// Alice and Bob with one companion each, and Carol with her phone alone.
struct People {
    world: World,
    alice: Device,
    alice_client: Client,
    bob: Device,
    bob_client: Client,
    carol: Jid,
}

impl People {
    fn new(config: Config) -> Self {
        let mut world = World::new(config, 1);
        let (mut alice, mut bob) = (Device::new(1), Device::new(2));
        let alice_client = world.ready(&mut alice, ALICE);
        let bob_client = world.ready(&mut bob, BOB);
        let carol = world.server.phone(world.now, CAROL).unwrap().lid;
        Self { world, alice, alice_client, bob, bob_client, carol }
    }

    /// Alice makes a group with Bob; both took the notification.
    fn with_group(config: Config) -> (Self, Jid) {
        let mut people = Self::new(config);
        let create = Node::new("create").attr("subject", "Picnic").child(participant(&people.bob.lid().to_bare()));
        let answer = people.alice_asks("set", &group_server(), create);
        let jid = group_jid(answer.find_child("group").unwrap());
        people.world.expect_notice(&mut people.alice_client, "w:gp2");
        people.world.expect_notice(&mut people.bob_client, "w:gp2");
        (people, jid)
    }

    fn alice_asks(&mut self, kind: &str, to: &Jid, request: Node) -> Node {
        self.world.group_iq(&mut self.alice_client, &mut self.alice, kind, to, request)
    }

    fn bob_asks(&mut self, kind: &str, to: &Jid, request: Node) -> Node {
        self.world.group_iq(&mut self.bob_client, &mut self.bob, kind, to, request)
    }
}

fn participant(jid: &Jid) -> Node {
    Node::new("participant").attr("jid", jid)
}

fn group_jid(group: &Node) -> Jid {
    format!("{}@g.us", group.attr_str("id").unwrap()).parse().unwrap()
}

fn code(answer: &Node) -> Option<u64> {
    answer.find_child("error").and_then(|error| error.attr_u64("code"))
}

/// The addresses of the participants of a node, with their rank.
fn participants(node: &Node) -> Vec<(Jid, Option<String>)> {
    let all = node.child_nodes().iter().filter(|child| child.is("participant"));
    all.map(|one| (one.attr_jid("jid").unwrap(), one.attr_str("type").map(|kind| kind.into_owned()))).collect()
}

#[test]
fn a_new_group_is_told_to_everybody_in_it() {
    let mut people = People::new(Config::default());
    let (alice, bob) = (people.alice.lid().to_bare(), people.bob.lid().to_bare());
    let create = Node::new("create")
        .attr("subject", "Picnic")
        .attr("key", "0123456789ABCDEF")
        .child(participant(&bob))
        .child(participant(&Jid::pn("15550009999")))
        .child(Node::new("locked"))
        .child(Node::new("ephemeral").attr("expiration", "86400"));
    let answer = people.alice_asks("set", &group_server(), create);
    let group = answer.find_child("group").unwrap();
    let jid = group_jid(group);
    assert!(jid.is_group() && jid.user().starts_with("120363"));
    assert_eq!(group.attr_str("addressing_mode").as_deref(), Some("lid"));
    assert_eq!(group.attr_jid("creator"), Some(alice.clone()));
    assert_eq!(group.attr_jid("creator_pn"), Some(people.alice.jid().to_bare()));
    assert!(group.find_child("locked").is_some() && group.find_child("announcement").is_none());
    assert_eq!(group.find_child("ephemeral").unwrap().attr_u64("expiration"), Some(86_400));
    let listed = participants(group);
    assert_eq!(listed[0], (alice.clone(), Some("superadmin".to_owned())));
    assert_eq!(listed[1], (bob, None));
    assert_eq!(listed[2].0, Jid::pn("15550009999"));
    let unknown = group.child_nodes().iter().filter(|node| node.is("participant")).nth(2).unwrap();
    assert_eq!(unknown.attr_u64("error"), Some(404));

    for client in [&mut people.alice_client, &mut people.bob_client] {
        let notice = people.world.expect_notice(client, "w:gp2");
        assert_eq!(notice.attr_jid("from"), Some(jid.clone()));
        assert_eq!(notice.attr_jid("participant"), Some(alice.clone()));
        assert_eq!(notice.attr_jid("participant_pn"), Some(people.alice.jid().to_bare()));
        let created = notice.find_child("create").unwrap();
        assert_eq!(created.attr_str("type").as_deref(), Some("new"));
        assert_eq!(created.attr_str("key").as_deref(), Some("0123456789ABCDEF"));
        assert_eq!(participants(created.find_child("group").unwrap()).len(), 2);
        people.world.send(client, &ack(&notice));
    }
    let view = &people.world.server.groups()[0];
    assert_eq!((&view.jid, view.mode, view.members.len()), (&jid, GroupMode::Lid, 2));
    assert_eq!(people.world.server.accounts()[1].devices[0].queued, 0, "the acknowledged notification is gone");
}

#[test]
fn groups_are_told_to_members_only() {
    let (mut people, group) = People::with_group(Config::default());
    let query = || Node::new("query").attr("request", "interactive");
    let answer = people.bob_asks("get", &group, query());
    let node = answer.find_child("group").unwrap();
    assert_eq!(node.attr_str("subject").as_deref(), Some("Picnic"));
    let other_names: Vec<_> = node.child_nodes().iter().filter_map(|one| one.attr_jid("phone_number")).collect();
    assert_eq!(other_names, [people.alice.jid().to_bare(), people.bob.jid().to_bare()]);

    let devices = [people.alice.lid().to_bare(), people.alice.lid(), people.bob.lid().to_bare(), people.bob.lid()];
    let known = query().attr("phash", common::many::hash(&devices));
    assert!(people.bob_asks("get", &group, known).find_child("group").is_none(), "nothing is new");

    let participating = Node::new("participating").child(Node::new("participants"));
    let mine = people.bob_asks("get", &group_server(), participating);
    let mine = mine.find_child("groups").unwrap().child_nodes();
    assert_eq!((mine.len(), participants(&mine[0]).len()), (1, 2));
    let bare = people.bob_asks("get", &group_server(), Node::new("participating"));
    assert!(participants(&bare.find_child("groups").unwrap().child_nodes()[0]).is_empty());

    let mut carol = Device::new(3);
    let mut client = people.world.ready(&mut carol, CAROL);
    let refused = people.world.group_iq(&mut client, &mut carol, "get", &group, query());
    assert_eq!(code(&refused), Some(403));
    let nobody: Jid = "120363000000000000@g.us".parse().unwrap();
    assert_eq!(code(&people.bob_asks("get", &nobody, query())), Some(404));
    let group_node = |jid: &Jid| Node::new("group").attr("jid", jid);
    let batch = Node::new("query").child(group_node(&group)).child(group_node(&nobody));
    let batch = people.bob_asks("get", &group_server(), batch);
    let errors: Vec<_> =
        batch.find_child("groups").unwrap().child_nodes().iter().map(|one| one.attr_u64("error")).collect();
    assert_eq!(errors, [None, Some(404)]);
    let none = people.world.group_iq(&mut client, &mut carol, "get", &group_server(), Node::new("participating"));
    assert!(none.find_child("groups").unwrap().child_nodes().is_empty());
}

#[test]
fn members_come_and_go() {
    let (mut people, group) = People::with_group(Config::default());
    let (alice, bob, carol) = (people.alice.lid().to_bare(), people.bob.lid().to_bare(), people.carol.clone());

    // An added member gets the whole group, the others its name.
    let mut companion = Device::new(3);
    let mut client = people.world.ready(&mut companion, CAROL);
    let answer = people.alice_asks("set", &group, Node::new("add").child(participant(&carol)).child(participant(&bob)));
    let errors = answer.find_child("add").unwrap().child_nodes().iter().map(|one| one.attr_u64("error"));
    assert_eq!(errors.collect::<Vec<_>>(), [None, Some(409)]);
    let notice = people.world.expect_notice(&mut people.bob_client, "w:gp2");
    let add = notice.find_child("add").unwrap();
    assert_eq!(participants(add), [(carol.clone(), None)]);
    assert_eq!((add.attr_u64("prev_v_id"), add.attr_u64("v_id")), (Some(1), Some(2)));
    let joined = people.world.expect_notice(&mut client, "w:gp2");
    let joined = joined.find_child("create").unwrap();
    assert_eq!(joined.get_attr("type"), None, "the group is not new");
    assert_eq!(joined.find_child("group").unwrap().attr_u64("p_v_id"), Some(2));
    people.world.rest(&mut people.alice_client);

    // Only admins do so, and nobody removes who made the group.
    let refused = people.bob_asks("set", &group, Node::new("remove").child(participant(&carol)));
    assert_eq!(code(&refused), Some(403));
    people.alice_asks("set", &group, Node::new("promote").child(participant(&bob)));
    let notice = people.world.expect_notice(&mut people.bob_client, "w:gp2");
    assert_eq!(participants(notice.find_child("promote").unwrap()), [(bob.clone(), Some("admin".to_owned()))]);
    let answer =
        people.bob_asks("set", &group, Node::new("remove").child(participant(&alice)).child(participant(&carol)));
    let errors = answer.find_child("remove").unwrap().child_nodes().iter().map(|one| one.attr_u64("error"));
    assert_eq!(errors.collect::<Vec<_>>(), [Some(403), None]);
    people.world.expect_notice(&mut client, "w:gp2");
    let gone = people.world.expect_notice(&mut client, "w:gp2");
    assert_eq!(gone.attr_jid("participant"), Some(bob.clone()));
    assert_eq!(participants(gone.find_child("remove").unwrap()), [(carol, None)]);

    // Whoever leaves is its own author; the last one takes the group along.
    let leave = |group: &Jid| Node::new("leave").child(Node::new("group").attr("id", group));
    let left = people.bob_asks("set", &group_server(), leave(&group));
    assert_eq!(left.find_child("leave").unwrap().child_nodes()[0].get_attr("error"), None);
    let notices = people.world.rest(&mut people.alice_client);
    let last = notices.last().unwrap();
    assert_eq!(last.attr_jid("participant"), Some(bob.clone()));
    assert_eq!(participants(last.find_child("remove").unwrap()), [(bob, None)]);
    people.alice_asks("set", &group_server(), leave(&group));
    assert!(people.world.server.groups().is_empty());
}

#[test]
fn one_change_of_several_members_is_one_notification() {
    let (mut people, group) = People::with_group(Config::default());
    let dave = people.world.server.phone(people.world.now, "15550000004").unwrap().lid;
    let both = |tag: &'static str, people: &People| {
        Node::new(tag).child(participant(&people.carol)).child(participant(&dave)).child(participant(&dave))
    };
    for (tag, versions) in [("add", (1, 2)), ("promote", (2, 3)), ("demote", (3, 4)), ("remove", (4, 5))] {
        let request = both(tag, &people);
        let answer = people.alice_asks("set", &group, request);
        let errors = answer.find_child(tag).unwrap().child_nodes().iter().map(|one| one.attr_u64("error"));
        assert_eq!(errors.collect::<Vec<_>>(), [None; 3]);
        let notice = people.world.expect_notice(&mut people.bob_client, "w:gp2");
        let told = notice.find_child(tag).unwrap();
        assert_eq!(participants(told).len(), 2);
        assert_eq!((told.attr_u64("prev_v_id").unwrap(), told.attr_u64("v_id").unwrap()), versions);
        people.world.expect_silence(&mut people.bob_client);
    }
    let request = both("remove", &people);
    people.alice_asks("set", &group, request);
    people.world.expect_silence(&mut people.bob_client);
}

#[test]
fn settings_are_changed_by_those_who_may() {
    let (mut people, group) = People::with_group(Config::default());
    let subject = |text: &str| leaf("subject", text.as_bytes());
    assert_eq!(code(&people.bob_asks("set", &group, subject("Bob's"))), None, "the group is not locked");
    let notice = people.world.expect_notice(&mut people.alice_client, "w:gp2");
    let told = notice.find_child("subject").unwrap();
    assert_eq!(told.attr_str("subject").as_deref(), Some("Bob's"));
    assert_eq!(told.attr_jid("s_o_pn"), Some(people.bob.jid().to_bare()));
    assert_eq!(code(&people.bob_asks("set", &group, Node::new("locked"))), Some(403));
    people.alice_asks("set", &group, Node::new("locked"));
    assert_eq!(code(&people.bob_asks("set", &group, subject("again"))), Some(403));
    assert_eq!(code(&people.alice_asks("set", &group, subject(&"x".repeat(101)))), Some(406));
    people.world.rest(&mut people.alice_client);

    let description = |id: &str, prev: Option<&str>, text: &str| {
        let body = leaf("body", text.as_bytes());
        Node::new("description").attr("id", id).attr_opt("prev", prev).child(body)
    };
    people.alice_asks("set", &group, description("AAAAAAAA", None, "at noon"));
    let notice = people.world.expect_notice(&mut people.alice_client, "w:gp2");
    let told = notice.find_child("description").unwrap();
    assert_eq!(told.find_child("body").unwrap().content_text().as_deref(), Some("at noon"));
    assert_eq!(code(&people.alice_asks("set", &group, description("BBBBBBBB", Some("CCCCCCCC"), "x"))), Some(409));

    let cases = [
        (Node::new("announcement"), "announcement"),
        (Node::new("not_announcement"), "not_announcement"),
        (Node::new("unlocked"), "unlocked"),
        (Node::new("ephemeral").attr("expiration", "604800"), "ephemeral"),
        (Node::new("not_ephemeral"), "not_ephemeral"),
        (leaf("member_add_mode", b"all_member_add"), "member_add_mode"),
    ];
    people.world.rest(&mut people.bob_client);
    for (request, told) in cases {
        assert_eq!(code(&people.alice_asks("set", &group, request)), None, "{told}");
        let notice = people.world.expect_notice(&mut people.bob_client, "w:gp2");
        assert!(notice.find_child(told).is_some(), "{notice:?}");
        people.world.rest(&mut people.alice_client);
    }
    let add = Node::new("add").child(participant(&people.carol));
    assert_eq!(code(&people.bob_asks("set", &group, add)), None, "every member adds now");
    assert_eq!(code(&people.alice_asks("set", &group, Node::new("unheard_of"))), Some(404));
}

#[test]
fn a_community_comes_with_its_announcement_group() {
    let mut people = People::new(Config::default());
    let create = Node::new("create").attr("subject", "Town").child(Node::new("parent"));
    let answer = people.alice_asks("set", &group_server(), create);
    let community = answer.find_child("group").unwrap();
    assert!(community.find_child("parent").is_some());
    let town = group_jid(community);
    let groups = people.world.server.groups();
    let announcements = groups.iter().find(|group| group.default_sub_group).unwrap().clone();
    assert_eq!((announcements.parent.as_ref(), announcements.announcement), (Some(&town), true));

    // Members of one are members of the other, and of a linked group only if they are in it.
    people.world.rest(&mut people.alice_client);
    let bob = people.bob.lid().to_bare();
    people.alice_asks("set", &town, Node::new("add").child(participant(&bob)));
    let kinds: Vec<_> =
        people.world.rest(&mut people.bob_client).iter().map(|notice| notice.attr_jid("from").unwrap()).collect();
    assert_eq!(kinds, [town.clone(), announcements.jid.clone()]);
    let spec = GroupSpec {
        creator: ALICE.to_owned(),
        subject: "Choir".to_owned(),
        members: vec![people.carol.clone()],
        ..GroupSpec::default()
    };
    let choir = people.world.server.create_group(people.world.now, &spec).unwrap().jid;
    people.world.drain();
    people.world.rest(&mut people.alice_client);
    let link = Node::new("link").attr("link_type", "sub_group").child(Node::new("group").attr("jid", &choir));
    let answer = people.alice_asks("set", &town, Node::new("links").child(link));
    let linked = answer.find_child("links").unwrap().find_child("link").unwrap();
    assert_eq!(linked.child_nodes()[0].get_attr("error"), None);
    assert!(people.world.rest(&mut people.bob_client).iter().any(|notice| notice.find_child("link").is_some()));
    let members = |world: &World, jid: &Jid| {
        world.server.groups().iter().find(|group| group.jid == *jid).map(|group| group.members.len())
    };
    assert_eq!(members(&people.world, &town), Some(3), "Carol of the choir came along");
    assert_eq!(members(&people.world, &announcements.jid), Some(3));
    assert_eq!(members(&people.world, &choir), Some(2));

    let list = people.bob_asks("get", &town, Node::new("sub_groups"));
    let list = list.find_child("sub_groups").unwrap().child_nodes();
    assert_eq!(list.iter().filter(|group| group.find_child("default_sub_group").is_some()).count(), 1);
    assert_eq!(list.len(), 2);
    let all = people.bob_asks("get", &town, Node::new("linked_groups_participants"));
    assert_eq!(participants(all.find_child("linked_groups_participants").unwrap()).len(), 3);
    let choir_query = people.bob_asks("get", &town, Node::new("query_linked").attr("jid", &choir));
    assert_eq!(choir_query.find_child("linked_group").unwrap().find_child("group").map(group_jid), Some(choir.clone()));

    let remove = Node::new("remove").attr("linked_groups", "true").child(participant(&people.carol));
    people.alice_asks("set", &town, remove);
    assert_eq!(members(&people.world, &choir), Some(1));
    assert_eq!(members(&people.world, &announcements.jid), Some(2));
    people.alice_asks("set", &town, Node::new("delete_parent"));
    let left: Vec<_> = people.world.server.groups().into_iter().map(|group| (group.jid, group.parent)).collect();
    assert_eq!(left, [(choir, None)]);
}

#[test]
fn tests_make_and_change_groups_without_a_client() {
    let mut people = People::new(Config::default());
    let now = people.world.now;
    let spec = GroupSpec {
        creator: CAROL.to_owned(),
        subject: "By number".to_owned(),
        members: vec![people.bob.jid().to_bare()],
        mode: Some(GroupMode::Pn),
        ..GroupSpec::default()
    };
    let group = people.world.server.create_group(now, &spec).unwrap();
    people.world.drain();
    let notice = people.world.expect_notice(&mut people.bob_client, "w:gp2");
    let node = notice.find_child("create").unwrap().find_child("group").unwrap();
    assert_eq!(node.attr_str("addressing_mode").as_deref(), Some("pn"));
    let bob = node.child_nodes().iter().find(|one| one.attr_jid("jid") == Some(people.bob.jid().to_bare())).unwrap();
    assert_eq!(bob.attr_jid("lid"), Some(people.bob.lid().to_bare()));
    assert_eq!(notice.attr_jid("participant_lid"), Some(people.carol.clone()));

    let mut change = |by: Option<&Jid>, change| people.world.server.change_group(now, &group.jid, by, change);
    let alice = vec![people.alice.lid().to_bare()];
    assert_eq!(change(None, GroupChange::Add { participants: alice.clone() }), Ok(()));
    assert_eq!(change(None, GroupChange::Add { participants: alice.clone() }), Err(ControlError::Refused(409)));
    let by_bob = change(Some(&people.bob.lid()), GroupChange::Remove { participants: alice, linked_groups: false });
    assert_eq!(by_bob, Err(ControlError::Refused(403)));
    assert_eq!(change(Some(&people.bob.lid()), GroupChange::Leave), Ok(()));
    people.world.drain();
    assert!(people.world.rest(&mut people.alice_client)[0].find_child("create").is_some());
    let nowhere: Jid = "1@g.us".parse().unwrap();
    let unknown = people.world.server.change_group(now, &nowhere, None, GroupChange::Leave);
    assert_eq!(unknown, Err(ControlError::UnknownGroup));
}

#[test]
fn members_and_subjects_are_bounded() {
    let mut people = People::new(Config { max_members: 2, ..Config::default() });
    let (bob, carol) = (people.bob.lid().to_bare(), people.carol.clone());
    let create = Node::new("create").attr("subject", "Full").child(participant(&bob)).child(participant(&carol));
    assert_eq!(code(&people.alice_asks("set", &group_server(), create)), Some(419));
    assert_eq!(code(&people.alice_asks("set", &group_server(), Node::new("create"))), Some(406), "no subject");
    let create = Node::new("create").attr("subject", "Two").child(participant(&bob));
    let answer = people.alice_asks("set", &group_server(), create);
    let group = group_jid(answer.find_child("group").unwrap());
    people.world.rest(&mut people.alice_client);
    let answer = people.alice_asks("set", &group, Node::new("add").child(participant(&carol)));
    assert_eq!(answer.find_child("add").unwrap().child_nodes()[0].attr_u64("error"), Some(419));
}
