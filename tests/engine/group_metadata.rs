//! What a group is, is asked once, kept across restarts, and asked again only when it is not certain; requests about groups
//! are answered with what the server said.

use crate::world::{Network, World};
use wamd::{
    Jid,
    engine::{Command, CommandError, GroupRequest, Reply},
    event::{AddressingMode, GroupAdmin, GroupObject},
    node::{Decoder, Node},
    stanza::{
        StanzaError,
        group::{GroupInfo, MAX_PARTICIPANTS, Role, Setting},
        iq::groups::{self, MemberAction, NewGroup},
    },
    store::RecordKind,
};
use wamd_loopback::{GroupChange, GroupMode};

const STRANGER: &str = "15559990000";

fn group_of(world: &mut World, mode: GroupMode, members: &[&str]) -> Jid {
    let members: Vec<Jid> = members.iter().map(|name| world.jid(name)).collect();
    let group = world.group("alice", mode, members);
    world.forget();
    group
}

/// What is stored of groups is gone, as for an account that was not there when the group was made.
fn strip(world: &mut World, name: &'static str) {
    world.crash(name);
    let stored = world.actor(name).records(RecordKind::Group).into_iter().map(|(key, _)| key).collect();
    world.actor(name).write(wamd::store::Batch { deletes: stored, ..Default::default() });
    world.start(name);
    world.command(name, Command::Connect).unwrap();
    world.forget();
}

fn ask(world: &mut World, name: &str, request: GroupRequest) -> Result<Reply, CommandError> {
    world.command(name, Command::Group(request))
}

fn info(world: &mut World, name: &str, group: &Jid) -> GroupObject {
    match ask(world, name, GroupRequest::Info(group.clone())) {
        Ok(Reply::Group(group)) => *group,
        other => panic!("no group: {other:?}"),
    }
}

/// How many queries about groups the server has heard since the last call.
fn queries(world: &mut World, name: &str) -> usize {
    let heard = world.heard(name);
    heard.iter().filter(|node| node.is("iq") && node.attr_str("xmlns").as_deref() == Some("w:g2")).count()
}

#[test]
fn a_group_is_asked_for_once() {
    for mode in [GroupMode::Lid, GroupMode::Pn] {
        let mut world = World::online(&["alice", "bob", "carol"]);
        let group = group_of(&mut world, mode, &["bob", "carol"]);
        strip(&mut world, "bob");
        let known = info(&mut world, "bob", &group);
        assert_eq!(queries(&mut world, "bob"), 1);
        assert_eq!(known.subject.as_deref(), Some("Team"));
        let by_lid = mode == GroupMode::Lid;
        assert_eq!(known.addressing_mode, Some(if by_lid { AddressingMode::Lid } else { AddressingMode::Pn }));
        let participants = known.participants.clone().unwrap();
        assert_eq!(participants.len(), 3);
        for name in ["alice", "bob", "carol"] {
            let (pn, lid) = (world.jid(name), world.lid(name));
            let one = participants.iter().find(|one| one.phone_number.as_ref() == Some(&pn)).expect("by number");
            assert_eq!((one.id.clone(), one.lid.clone()), (if by_lid { lid.clone() } else { pn.clone() }, Some(lid)));
            assert_eq!(one.admin, (name == "alice").then_some(GroupAdmin::SuperAdmin));
        }
        assert_eq!(info(&mut world, "bob", &group), known);
        world.crash_and_start("bob");
        world.command("bob", Command::Connect).unwrap();
        world.heard("bob");
        assert_eq!(info(&mut world, "bob", &group), known);
        assert_eq!(queries(&mut world, "bob"), 0, "it is kept");
    }
}

#[test]
fn whoever_asks_meanwhile_waits_for_the_same_answer() {
    let mut world = World::online(&["alice", "bob"]);
    let group = group_of(&mut world, GroupMode::Lid, &["bob"]);
    strip(&mut world, "bob");
    world.network("bob", Network::Stalled);
    let asked: Vec<_> = (0..5).map(|_| world.begin("bob", Command::Group(GroupRequest::Info(group.clone())))).collect();
    world.settle();
    world.network("bob", Network::Up);
    for id in asked {
        assert!(matches!(world.answer("bob", id), Some(Ok(Reply::Group(_)))));
    }
    assert_eq!(queries(&mut world, "bob"), 1);
}

#[test]
fn a_lost_connection_answers_who_waits() {
    let mut world = World::online(&["alice", "bob"]);
    let group = group_of(&mut world, GroupMode::Lid, &["bob"]);
    strip(&mut world, "bob");
    world.network("bob", Network::Stalled);
    let asked: Vec<_> = [GroupRequest::Info(group.clone()), GroupRequest::List, GroupRequest::Leave(group.clone())]
        .map(|request| world.begin("bob", Command::Group(request)))
        .into();
    world.settle();
    world.network("bob", Network::Up);
    let late: Vec<_> = asked.iter().filter(|id| world.answer("bob", **id).is_none()).collect();
    assert!(late.is_empty(), "an answer each");

    strip(&mut world, "alice");
    world.network("alice", Network::Stalled);
    let asked = [GroupRequest::Info(group.clone()), GroupRequest::List]
        .map(|request| world.begin("alice", Command::Group(request)));
    world.settle();
    world.cut("alice");
    for id in asked {
        assert_eq!(world.answer("alice", id), Some(Err(CommandError::Interrupted)));
    }
    assert_eq!(ask(&mut world, "alice", GroupRequest::List), Err(CommandError::NotConnected));
    world.network("alice", Network::Up);
    world.advance_secs(10);
    assert_eq!(info(&mut world, "alice", &group).size, Some(1));
}

#[test]
fn what_does_not_come_in_time_is_told() {
    let mut world = World::online(&["alice", "bob"]);
    let group = group_of(&mut world, GroupMode::Lid, &["bob"]);
    strip(&mut world, "bob");
    let mut config = world.actor("bob").config.clone();
    config.query_timeout = std::time::Duration::from_secs(3);
    world.actor("bob").config = config;
    world.crash_and_start("bob");
    world.command("bob", Command::Connect).unwrap();
    world.network("bob", Network::Stalled);
    let asked =
        [GroupRequest::Info(group), GroupRequest::List].map(|request| world.begin("bob", Command::Group(request)));
    world.advance_secs(4);
    for id in asked {
        assert_eq!(world.answer("bob", id), Some(Err(CommandError::NoAnswer)));
    }
}

#[test]
fn all_groups_are_kept_from_the_list() {
    let mut world = World::online(&["alice", "bob", "carol"]);
    let one = group_of(&mut world, GroupMode::Lid, &["bob"]);
    let other = group_of(&mut world, GroupMode::Pn, &["bob", "carol"]);
    strip(&mut world, "bob");
    let Ok(Reply::Groups(list)) = ask(&mut world, "bob", GroupRequest::List) else { panic!("no list") };
    let sizes: Vec<_> = list.iter().map(|group| (group.id.clone(), group.size)).collect();
    assert_eq!(list.len(), 2);
    assert!(sizes.contains(&(one.clone(), Some(2))) && sizes.contains(&(other.clone(), Some(3))), "{sizes:?}");
    world.heard("bob");
    assert_eq!(world.data("bob", "lid_mapping.updated").len(), 0, "people are noted when a group is used");
    for group in [one, other] {
        assert!(list.contains(&info(&mut world, "bob", &group)));
    }
    assert_eq!(queries(&mut world, "bob"), 0);
    assert!(world.actor("bob").records(RecordKind::LidMap).len() >= 4);
}

#[test]
fn groups_that_are_dirty_are_asked_for_again() {
    let mut world = World::online(&["alice", "bob"]);
    let group = group_of(&mut world, GroupMode::Lid, &["bob"]);
    strip(&mut world, "bob");
    for kind in ["groups", "communities"] {
        info(&mut world, "bob", &group);
        world.heard("bob");
        let dirty = Node::new("dirty").attr("type", kind).attr("timestamp", 1_760_000_000);
        world.stanza_arrives("bob", &Node::new("ib").attr("from", Jid::whatsapp_server()).child(dirty));
        info(&mut world, "bob", &group);
        info(&mut world, "bob", &group);
        assert_eq!(queries(&mut world, "bob"), 1, "{kind}");
    }
}

#[test]
fn a_large_group_is_one_step_and_tells_little() {
    let config = wamd_loopback::Config { max_members: 2_000, ..wamd_loopback::Config::default() };
    let mut world = World::with_server(config, &["alice"]);
    world.link("alice");
    let members: Vec<Jid> = (0..1_000).map(|n| Jid::pn(format!("1777000{n:04}"))).collect();
    let now = world.now();
    for member in &members {
        world.server.phone(now, member.user()).expect("an account");
    }
    let group = world.group("alice", GroupMode::Lid, members);
    strip(&mut world, "alice");
    world.crash("alice");
    let maps = world.actor("alice").records(RecordKind::LidMap).into_iter().map(|(key, _)| key).collect();
    world.actor("alice").write(wamd::store::Batch { deletes: maps, ..Default::default() });
    world.start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.forget();
    let batches = world.snapshot("alice").batches;
    let known = info(&mut world, "alice", &group);
    assert_eq!(known.participants.map(|all| all.len()), Some(1_001));
    assert_eq!(world.snapshot("alice").batches - batches, 1, "one batch");
    assert_eq!(world.actor("alice").records(RecordKind::LidMap).len(), 2_000);
    assert_eq!(world.data("alice", "lid_mapping.updated").len(), 64);
    assert_eq!(queries(&mut world, "alice"), 1);
}

#[test]
fn making_and_changing_a_group() {
    let mut world = World::online(&["alice", "bob", "carol"]);
    let now = world.now();
    world.server.phone(now, STRANGER).unwrap();
    let mut new = NewGroup::new("Team", vec![world.jid("bob"), Jid::pn("15551112222")]);
    new.settings = vec![Setting::Locked(true), Setting::Ephemeral(86_400)];
    let Ok(Reply::Group(made)) = ask(&mut world, "alice", GroupRequest::Create(new)) else { panic!("not made") };
    let group = made.id.clone();
    assert_eq!((made.restrict, made.ephemeral_duration, made.announce), (Some(true), Some(86_400), Some(false)));
    assert_eq!(world.only("alice", "groups.upsert")["groups"][0]["id"], group.to_string());
    let told = world.data("bob", "group-participants.update");
    assert_eq!((&told[0]["action"], &told[0]["self"]), (&"add".into(), &true.into()));

    let change = |world: &mut World, action, members: Vec<Jid>| {
        let request = GroupRequest::Members { group: group.clone(), action, members };
        match ask(world, "alice", request) {
            Ok(Reply::Members(results)) => {
                results.into_iter().map(|result| (result.jid, result.error)).collect::<Vec<_>>()
            }
            other => panic!("no results: {other:?}"),
        }
    };
    let (carol, carol_lid, bob) = (world.jid("carol"), world.lid("carol"), world.lid("bob"));
    let unknown = Jid::pn("15553334444");
    let added = change(&mut world, MemberAction::Add, vec![carol, unknown.clone(), bob.clone()]);
    assert_eq!(added.len(), 3);
    assert!(added.contains(&(carol_lid.clone(), None)), "{added:?}");
    assert!(added.contains(&(unknown, Some(404))) && added.contains(&(bob.clone(), Some(409))), "{added:?}");
    assert_eq!(change(&mut world, MemberAction::Promote, vec![bob.clone()]), [(bob.clone(), None)]);
    let role = |group: &GroupObject, jid: &Jid| {
        let all = group.participants.as_ref().unwrap();
        all.iter().find(|one| one.id == *jid).map(|one| one.admin)
    };
    for name in ["alice", "bob", "carol"] {
        let seen = info(&mut world, name, &group);
        assert_eq!((role(&seen, &bob), role(&seen, &carol_lid)), (Some(Some(GroupAdmin::Admin)), Some(None)), "{name}");
    }
    assert_eq!(change(&mut world, MemberAction::Demote, vec![bob.clone()]), [(bob.clone(), None)]);
    assert_eq!(change(&mut world, MemberAction::Remove, vec![carol_lid.clone()]), [(carol_lid.clone(), None)]);
    let seen = info(&mut world, "bob", &group);
    assert_eq!((role(&seen, &bob), role(&seen, &carol_lid), seen.size), (Some(None), None, Some(2)));

    let subject = |subject: &str| GroupRequest::Subject { group: group.clone(), subject: subject.into() };
    let setting = |setting| GroupRequest::Setting { group: group.clone(), setting };
    assert_eq!(ask(&mut world, "alice", subject("Crew")), Ok(Reply::Done));
    for moved in [Setting::Announcement(true), Setting::Locked(false), Setting::Ephemeral(0), Setting::AllMayAdd(true)]
    {
        assert_eq!(ask(&mut world, "alice", setting(moved)), Ok(Reply::Done));
    }
    assert_eq!(ask(&mut world, "alice", setting(Setting::JoinApproval(true))), Ok(Reply::Done));
    for name in ["alice", "bob"] {
        let seen = info(&mut world, name, &group);
        assert_eq!(seen.subject.as_deref(), Some("Crew"), "{name}");
        assert_eq!((seen.announce, seen.restrict, seen.ephemeral_duration), (Some(true), Some(false), Some(0)));
        assert_eq!((seen.member_add_mode, seen.join_approval_mode), (Some(true), Some(true)));
    }
    // Bob is no admin, and carol not in it.
    let refused = |code| Some(code);
    let code = |answer: Result<Reply, CommandError>| match answer {
        Err(CommandError::Refused { code, .. }) => Some(code),
        other => panic!("not refused: {other:?}"),
    };
    assert_eq!(code(ask(&mut world, "bob", setting(Setting::Announcement(false)))), refused(403));
    assert_eq!(code(ask(&mut world, "carol", GroupRequest::Info(group.clone()))), refused(403));
    assert_eq!(ask(&mut world, "bob", GroupRequest::Leave(group.clone())), Ok(Reply::Done));
    assert_eq!(code(ask(&mut world, "bob", GroupRequest::Info(group.clone()))), refused(403));
    assert_eq!(info(&mut world, "alice", &group).size, Some(1));
}

#[test]
fn what_cannot_be_asked_is_refused_here() {
    let mut world = World::online(&["alice"]);
    let group: Jid = "1203630@g.us".parse().unwrap();
    let user = world.jid("alice");
    world.heard("alice");
    for request in [
        GroupRequest::Info(user.clone()),
        GroupRequest::Leave("g.us".parse().unwrap()),
        GroupRequest::Subject { group: user.clone(), subject: "x".into() },
    ] {
        assert!(matches!(ask(&mut world, "alice", request), Err(CommandError::NotAGroup(_))));
    }
    let subject = |text: String| GroupRequest::Subject { group: group.clone(), subject: text };
    let members = |members| GroupRequest::Members { group: group.clone(), action: MemberAction::Add, members };
    let new = |subject: &str, participants| GroupRequest::Create(NewGroup::new(subject, participants));
    for request in [
        subject(String::new()),
        subject("x".repeat(101)),
        members(vec![]),
        members(vec![group.clone()]),
        members(vec![user.clone(); 1_025]),
        new("", vec![user.clone()]),
        new("x", vec![group.clone()]),
    ] {
        assert!(matches!(ask(&mut world, "alice", request), Err(CommandError::Content(_))));
    }
    assert_eq!(queries(&mut world, "alice"), 0);
    world.add("new", "15550000009", |_| {});
    world.settle();
    assert_eq!(ask(&mut world, "new", GroupRequest::List), Err(CommandError::NotLinked));
}

#[test]
fn an_addressing_mode_that_changed_is_seen_when_it_is_asked_for() {
    let mut world = World::online(&["alice", "bob"]);
    let group = group_of(&mut world, GroupMode::Pn, &["bob"]);
    assert_eq!(info(&mut world, "bob", &group).addressing_mode, Some(AddressingMode::Pn));
    let now = world.now();
    world.server.change_group(now, &group, None, GroupChange::Mode { mode: GroupMode::Lid }).unwrap();
    // The next notification says so.
    let subject = GroupChange::Subject { subject: "Crew".into() };
    world.server.change_group(now, &group, None, subject).unwrap();
    world.settle();
    assert_eq!(info(&mut world, "bob", &group).addressing_mode, Some(AddressingMode::Lid));
}

// ---- reading ----------------------------------------------------------------------------------------------------------

fn read(group: Node) -> Result<GroupInfo, StanzaError> {
    let iq = Node::new("iq").attr("id", "1").attr("type", "result").child(group);
    let mut decoder = Decoder::default();
    groups::info(decoder.decode(iq.encode().unwrap().into()).unwrap())
}

fn participant(user: &str) -> Node {
    Node::new("participant").attr("jid", Jid::lid(user))
}

#[test]
fn all_that_the_server_tells_is_read() {
    let person = |node: Node, name: &'static str, pn: &'static str| {
        node.attr(name, Jid::lid("1").with_device(3)).attr(pn, Jid::pn("49151"))
    };
    let group = Node::new("group").attr("id", "123-456").attr("subject", "Team").attr("s_t", 10);
    let group = person(person(group, "s_o", "s_o_pn"), "creator", "creator_pn");
    let description = Node::new("description").attr("id", "AB12").attr("t", 11);
    let group = group
        .attr("creation", 9)
        .attr("size", 2)
        .attr("addressing_mode", "lid")
        .attr("p_v_id", "5")
        .attr("a_v_id", "6")
        .child(person(description, "participant", "participant_pn").child(Node::new("body").bytes("about")))
        .child(participant("1").attr("phone_number", Jid::pn("49151")).attr("type", "superadmin"))
        .child(participant("2").attr("phone_number", Jid::lid("9")).attr("type", "admin").attr("username", "two"))
        .child(participant("2"))
        .child(Node::new("locked"))
        .child(Node::new("announcement"))
        .child(Node::new("ephemeral").attr("expiration", 86_400))
        .child(Node::new("membership_approval_mode").child(Node::new("group_join").attr("state", "on")))
        .child(Node::new("member_add_mode").bytes("all_member_add"))
        .child(Node::new("linked_parent").attr("jid", "7@g.us".parse::<Jid>().unwrap()))
        .child(Node::new("default_sub_group"))
        .child(Node::new("suspended"))
        .child(Node::new("something_new"));
    let info = read(group).unwrap();
    assert_eq!(info.id.to_string(), "123-456@g.us");
    assert_eq!((info.subject.text.as_str(), info.subject.time), ("Team", Some(10)));
    for person in [info.subject.owner, info.owner, info.description.as_ref().unwrap().owner.clone()] {
        let person = person.unwrap();
        assert_eq!((person.jid, person.alt), (Jid::lid("1"), Some(Jid::pn("49151"))));
    }
    assert_eq!(
        info.description.map(|about| (about.id, about.text, about.time)),
        Some(("AB12".into(), "about".into(), Some(11)))
    );
    assert_eq!((info.creation, info.size, info.addressing_mode), (Some(9), Some(2), AddressingMode::Lid));
    assert_eq!((info.participant_version.as_deref(), info.attribute_version.as_deref()), (Some("5"), Some("6")));
    let [one, two] = &info.participants[..] else { panic!("each once") };
    assert_eq!((&one.person.alt, one.role), (&Some(Jid::pn("49151")), Role::SuperAdmin));
    assert_eq!((&two.person.alt, two.role), (&None, Role::Admin), "a LID is no phone number");
    assert_eq!(two.person.username.as_deref(), Some("two"));
    let settings = info.settings;
    assert!(settings.locked && settings.announcement && settings.join_approval && settings.all_may_add);
    assert_eq!(settings.ephemeral, 86_400);
    assert_eq!(info.linked_parent.map(|jid| jid.to_string()), Some("7@g.us".into()));
    assert!(info.is_announcement_group && info.suspended && !info.is_community);
}

#[test]
fn what_is_no_group_is_refused() {
    let attribute = |tag, name| Err(StanzaError::Attribute { tag, name });
    for id in ["", "1@s.whatsapp.net", "1:2@g.us", "a@b@g.us"] {
        assert_eq!(read(Node::new("group").attr("id", id)).map(drop), attribute("group", "id"), "{id:?}");
    }
    let group = Node::new("group").attr("id", "1");
    assert_eq!(read(Node::new("other")).map(drop), Err(StanzaError::Child { tag: "iq", child: "group" }));
    for bad in [Node::new("participant"), Node::new("participant").attr("jid", "1@g.us".parse::<Jid>().unwrap())] {
        assert_eq!(read(group.clone().child(bad)).map(drop), attribute("participant", "jid"));
    }
    let all = |count: usize| group.clone().children((0..count).map(|n| participant(&n.to_string())));
    assert_eq!(read(all(MAX_PARTICIPANTS)).map(|info| info.participants.len()), Ok(MAX_PARTICIPANTS));
    let too_many = StanzaError::TooMany { tag: "participant", max: MAX_PARTICIPANTS };
    assert_eq!(read(all(MAX_PARTICIPANTS + 1)).map(drop), Err(too_many));
    let long = read(group.attr("subject", "ä".repeat(10_000))).unwrap();
    assert_eq!(long.subject.text.chars().count(), 4_096);
}
