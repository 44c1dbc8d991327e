//! Our sender key of a chat is replaced exactly once by whatever makes it void, and by nothing else (spec 03 §3.4). Seen from
//! outside: the key id and the iteration that the ciphertext carries, and who is handed the key.

use std::collections::BTreeSet;

use crate::world::{World, text_of};
use wamd::{
    Jid,
    engine::{Audience, AudienceSetting, Command, GroupRequest, Reply, SendRequest},
    node::Node,
};
use wamd_loopback::{Fault, GroupChange, GroupMode};

const MODES: [GroupMode; 2] = [GroupMode::Lid, GroupMode::Pn];
const DAVE: &str = "15550000009";
const EVE: &str = "15550000008";

/// One of alice's messages: key id, iteration, and the devices of others that it hands the key to.
#[derive(Debug)]
struct Said {
    key: u64,
    iteration: u64,
    given: BTreeSet<Jid>,
}

/// Alice, bob and carol are linked, and in a group with dave's phone; eve has a phone and is nowhere. Alice has spoken twice.
fn world(mode: GroupMode) -> (World, Jid) {
    let mut world = World::online(&["alice", "bob", "carol"]);
    for number in [DAVE, EVE] {
        let now = world.now();
        world.server.phone(now, number).unwrap();
    }
    let members = [world.jid("bob"), world.jid("carol"), Jid::pn(DAVE)];
    let group = world.group("alice", mode, members);
    let first = says(&mut world, text(&group, "first"));
    let second = says(&mut world, text(&group, "second"));
    assert_eq!((first.iteration, first.given.len()), (0, 5), "two devices each, and dave's phone");
    assert_eq!((second.key, second.iteration, second.given.len()), (first.key, 1, 0));
    world.forget();
    (world, group)
}

fn text(chat: &Jid, text: &str) -> Command {
    Command::Send(SendRequest::text(chat.clone(), text))
}

/// Alice sends one message by sender key.
fn says(world: &mut World, command: Command) -> Said {
    let mut said = say_all(world, command);
    assert_eq!(said.len(), 1, "one message: {said:?}");
    said.remove(0)
}

/// The same, when it may be encrypted more than once.
fn say_all(world: &mut World, command: Command) -> Vec<Said> {
    world.heard("alice");
    let sent = world.command("alice", command);
    assert!(matches!(sent, Ok(Reply::Accepted { .. })), "{sent:?}");
    let heard = world.heard("alice");
    let is_body = |node: &&Node| {
        node.is("message") && node.find_child("enc").is_some_and(|enc| enc.attr_str("type").as_deref() == Some("skmsg"))
    };
    let own = [world.jid("alice"), world.lid("alice")];
    let said = |message: &Node| {
        let bytes = message.find_child("enc").unwrap().content_bytes().unwrap();
        // Version 3, then the protobuf: 1 key id, 2 iteration.
        let (key, rest) = field(&bytes[1..], 0x08);
        let (iteration, _) = field(rest, 0x10);
        assert_eq!(bytes[0], 0x33);
        let participants = message.find_child("participants").into_iter().flat_map(Node::child_nodes);
        let given = participants.filter(|to| to.first_child().is_some()).map(|to| to.attr_jid("jid").unwrap());
        let given = given.filter(|jid| !own.iter().any(|own| own.same_account(jid))).collect();
        Said { key, iteration, given }
    };
    heard.iter().filter(is_body).map(said).collect()
}

/// A varint of the protobuf under this tag, and what follows.
fn field(bytes: &[u8], tag: u8) -> (u64, &[u8]) {
    assert_eq!(bytes[0], tag);
    let len = 1 + bytes[1..].iter().position(|byte| byte & 0x80 == 0).unwrap();
    let value = bytes[1..=len].iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7F));
    (value, &bytes[len + 1..])
}

/// Something happens to a group in which alice has spoken twice: whether her key is another one then. If it is, everybody who is
/// in it gets it, once; if not, it goes on.
fn rotates(mode: GroupMode, act: impl FnOnce(&mut World, &Jid)) -> bool {
    let (mut world, group) = world(mode);
    let before = says(&mut world, text(&group, "before"));
    assert_eq!(before.iteration, 2);
    act(&mut world, &group);
    let after = says(&mut world, text(&group, "after"));
    let later = says(&mut world, text(&group, "later"));
    assert_eq!((later.key, later.iteration), (after.key, after.iteration + 1), "once");
    assert_eq!(later.given, BTreeSet::new(), "once");
    match after.key == before.key {
        true => assert_eq!(after.iteration, 3),
        false => {
            assert_eq!(after.iteration, 0);
            let view = world.server.groups().into_iter().find(|view| view.jid == group).unwrap();
            let reached: BTreeSet<Jid> = after.given.iter().map(Jid::to_bare).collect();
            assert_eq!(reached.len(), view.members.len() - 1, "{mode:?}: all but alice");
        }
    }
    after.key != before.key
}

fn check(mode: GroupMode, what: &str, expected: bool, act: impl FnOnce(&mut World, &Jid)) {
    assert_eq!(rotates(mode, act), expected, "{mode:?}: {what}");
}

fn change(world: &mut World, group: &Jid, author: Option<&Jid>, change: GroupChange) {
    let now = world.now();
    world.server.change_group(now, group, author, change).unwrap();
    world.settle();
}

fn retry(chat: &Jid, device: &Jid, id: &str) -> Node {
    Node::new("receipt")
        .attr("from", chat)
        .attr("participant", device)
        .attr("id", id)
        .attr("type", "retry")
        .child(Node::new("retry").attr("id", id).attr("count", 1).attr("v", 1))
        .child(Node::new("registration").bytes(vec![0, 0, 0, 1]))
}

fn accepted(world: &mut World, group: &Jid) -> String {
    match world.command("alice", text(group, "asked for")) {
        Ok(Reply::Accepted { id, .. }) => id.as_str().to_owned(),
        other => panic!("not accepted: {other:?}"),
    }
}

fn in_mode(world: &World, mode: GroupMode, name: &str) -> Jid {
    if mode == GroupMode::Lid { world.lid(name) } else { world.jid(name) }
}

#[test]
fn whoever_leaves_makes_it_void() {
    for mode in MODES {
        check(mode, "removed", true, |world, group| {
            let participants = vec![world.jid("carol")];
            change(world, group, None, GroupChange::Remove { participants, linked_groups: false });
        });
        check(mode, "two removed, one after the other", true, |world, group| {
            for participant in [world.jid("carol"), Jid::pn(DAVE)] {
                let participants = vec![participant];
                change(world, group, None, GroupChange::Remove { participants, linked_groups: false });
            }
        });
        check(mode, "left", true, |world, group| {
            world.command("carol", Command::Group(GroupRequest::Leave(group.clone()))).unwrap();
        });
        check(mode, "left while alice was away", true, |world, group| {
            world.command("alice", Command::Disconnect).unwrap();
            world.command("carol", Command::Group(GroupRequest::Leave(group.clone()))).unwrap();
            world.command("alice", Command::Connect).unwrap();
        });
        check(mode, "left, and came back", true, |world, group| {
            let participants = vec![world.jid("carol")];
            change(world, group, None, GroupChange::Remove { participants, linked_groups: false });
            let participants = vec![world.jid("carol")];
            change(world, group, None, GroupChange::Add { participants });
        });
    }
}

#[test]
fn whoever_is_called_otherwise_makes_it_void() {
    for mode in MODES {
        check(mode, "modified", true, |world, group| {
            let carol = in_mode(world, mode, "carol");
            let one = Node::new("participant").attr("jid", &carol);
            let notice = Node::new("notification").attr("type", "w:gp2").attr("from", group).attr("id", "M1");
            let notice = notice.attr("participant", &carol).attr("t", 1_760_000_001);
            world.stanza_arrives("alice", &notice.child(Node::new("modify").child(one)));
        });
    }
}

#[test]
fn a_thousand_messages_wear_it_out() {
    let (mut world, group) = world(GroupMode::Lid);
    let mut texts = Vec::new();
    let mut next = |world: &mut World| {
        texts.push(texts.len().to_string());
        says(world, text(&group, texts.last().unwrap()))
    };
    let first = next(&mut world);
    let mut last = first.iteration;
    // Each restart leaves out what is left of a lease.
    while last < 940 {
        world.crash_and_start("alice");
        world.command("alice", Command::Connect).unwrap();
        let said = next(&mut world);
        assert!(said.key == first.key && said.iteration > last && said.given.is_empty(), "{said:?} after {last}");
        last = said.iteration;
    }
    assert!(last < 1_000);
    while last < 999 {
        let said = next(&mut world);
        assert_eq!((said.key, said.iteration, said.given.len()), (first.key, last + 1, 0));
        last = said.iteration;
    }
    let fresh = next(&mut world);
    assert_ne!(fresh.key, first.key);
    assert_eq!((fresh.iteration, fresh.given.len()), (0, 5), "everybody gets the new one");
    let later = next(&mut world);
    assert_eq!((later.key, later.iteration, later.given.len()), (fresh.key, 1, 0));
    for name in ["bob", "carol"] {
        let told: Vec<String> = world.events(name).iter().filter_map(text_of).map(str::to_owned).collect();
        assert_eq!(told, texts, "{name} reads every one, once and in order");
    }
    let phone = world.server.received(DAVE);
    assert_eq!(phone.iter().filter(|message| message.chat == group).count(), 2 + texts.len());
}

#[test]
fn another_addressing_mode_loses_nothing_and_uses_nothing_twice() {
    for (mode, other) in [(GroupMode::Lid, GroupMode::Pn), (GroupMode::Pn, GroupMode::Lid)] {
        for told in [false, true] {
            let (mut world, group) = world(mode);
            let mut said = say_all(&mut world, text(&group, "before"));
            change(&mut world, &group, None, GroupChange::Mode { mode: other });
            if told {
                // The next notification says so; else the server's refusal, after which it is encrypted once more.
                change(&mut world, &group, None, GroupChange::Subject { subject: "Other".to_owned() });
            }
            let after = say_all(&mut world, text(&group, "after"));
            assert_eq!(after.len(), if told { 1 } else { 2 }, "{mode:?}: {after:?}");
            said.extend(after);
            said.extend(say_all(&mut world, text(&group, "later")));
            assert_eq!(said.last().unwrap().given.len(), 0, "{mode:?}: {said:?}");
            let used: BTreeSet<(u64, u64)> = said.iter().map(|said| (said.key, said.iteration)).collect();
            assert_eq!(used.len(), said.len(), "{mode:?}: no key twice: {said:?}");
            for name in ["bob", "carol"] {
                let events = world.events(name);
                let texts: Vec<&str> = events.iter().filter_map(text_of).collect();
                assert_eq!(texts, ["before", "after", "later"], "{mode:?}, told: {told}: {name}");
            }
        }
    }
}

#[test]
fn an_outsiders_request_makes_it_void_and_a_members_does_not() {
    for mode in MODES {
        let asks = |asker: fn(&World, GroupMode) -> Jid| {
            move |world: &mut World, group: &Jid| {
                let stanza = retry(group, &asker(world, mode), "3EB0000000000000000A");
                world.stanza_arrives("alice", &stanza);
            }
        };
        check(mode, "outsider, of what was never sent", false, asks(|_, _| Jid::pn(EVE)));
        check(mode, "member, of what was never sent", false, asks(|world, mode| in_mode(world, mode, "bob")));
    }
    for mode in MODES {
        let (mut world, group) = world(mode);
        let id = accepted(&mut world, &group);
        let before = says(&mut world, text(&group, "before"));
        for _ in 0..3 {
            world.stanza_arrives("alice", &retry(&group, &Jid::pn(EVE), &id));
        }
        let after = says(&mut world, text(&group, "after"));
        let later = says(&mut world, text(&group, "later"));
        assert_ne!(before.key, after.key);
        assert_eq!(
            (after.given.len(), later.key, later.given.len()),
            (5, after.key, 0),
            "once, whoever asks how often"
        );
        // A member has it again, alone.
        let id = accepted(&mut world, &group);
        let bob = in_mode(&world, mode, "bob").with_device(world.device("bob").device());
        world.stanza_arrives("alice", &retry(&group, &bob, &id));
        let again = says(&mut world, text(&group, "again"));
        assert_eq!((again.key, again.given), (after.key, BTreeSet::from([bob])));
    }
}

/// A companion counts as having the key only while its primary does.
#[test]
fn a_phone_that_lacks_it_gets_it_with_its_companions() {
    for mode in MODES {
        let (mut world, group) = world(mode);
        let id = accepted(&mut world, &group);
        let phone = in_mode(&world, mode, "bob");
        world.fault(Fault::MutePhone { jid: world.jid("bob"), on: true });
        world.stanza_arrives("alice", &retry(&group, &phone, &id));
        let next = says(&mut world, text(&group, "next"));
        let companion = phone.with_device(world.device("bob").device());
        assert_eq!(next.given, BTreeSet::from([phone, companion]), "{mode:?}");
        assert_eq!(says(&mut world, text(&group, "later")).given.len(), 0);
    }
}

#[test]
fn settings_roles_and_devices_keep_it() {
    for mode in MODES {
        let (mut world, group) = world(mode);
        let before = says(&mut world, text(&group, "before"));
        let carol = vec![world.jid("carol")];
        let changes = [
            GroupChange::Promote { participants: carol.clone() },
            GroupChange::Demote { participants: carol },
            GroupChange::Subject { subject: "Other".to_owned() },
            GroupChange::Locked { on: true },
            GroupChange::Announcement { on: true },
            GroupChange::AllMemberAdd { on: true },
        ];
        let mut iteration = before.iteration;
        let mut goes_on = |world: &mut World, what: &str, given: usize| {
            let said = says(world, text(&group, what));
            // A restart leaves out what was leased.
            assert!(said.key == before.key && said.iteration > iteration, "{mode:?}: {what}: {said:?}");
            iteration = said.iteration;
            assert_eq!(said.given.len(), given, "{mode:?}: {what}: {:?}", said.given);
        };
        for one in changes {
            let what = format!("{one:?}");
            change(&mut world, &group, None, one);
            goes_on(&mut world, &what, 0);
        }
        change(&mut world, &group, None, GroupChange::Add { participants: vec![Jid::pn(EVE)] });
        goes_on(&mut world, "eve joins", 1);
        // A restart, and what the server says when nothing changed.
        world.crash_and_start("alice");
        world.command("alice", Command::Connect).unwrap();
        goes_on(&mut world, "restart", 0);
        let dirty = Node::new("ib").child(Node::new("dirty").attr("type", "groups").attr("timestamp", 1_760_000_000));
        world.stanza_arrives("alice", &dirty);
        goes_on(&mut world, "all groups are asked for again", 0);
        // Devices come and go; the server delivers to no device that is gone.
        world.add("tablet", "15550000002", |_| {});
        world.link("tablet");
        goes_on(&mut world, "a new device", 1);
        world.command("tablet", Command::Logout).unwrap();
        goes_on(&mut world, "a device that is gone", 0);
        // Somebody registers again: theirs are other devices, which lack it.
        let jid = world.jid("carol");
        world.fault(Fault::ChangeIdentity { jid });
        goes_on(&mut world, "another identity", 1);
        goes_on(&mut world, "at last", 0);
    }
}

#[test]
fn that_of_the_status_goes_with_its_audience_and_with_identities() {
    let mut world = World::online(&["alice", "bob", "carol"]);
    let (bob, carol) = (world.jid("bob"), world.jid("carol"));
    let post = |viewers: &[&Jid]| {
        let viewers = viewers.iter().map(|jid| (*jid).clone()).collect();
        let audience = Audience { setting: AudienceSetting::Allowlist, viewers };
        Command::Send(SendRequest::text(Jid::status_broadcast(), "post").with_audience(audience))
    };
    let first = says(&mut world, post(&[&bob, &carol]));
    let other_order = says(&mut world, post(&[&carol, &bob]));
    assert_eq!((other_order.key, other_order.given.len()), (first.key, 0));
    let smaller = says(&mut world, post(&[&carol]));
    assert_ne!(smaller.key, first.key);
    let larger = says(&mut world, post(&[&carol, &bob]));
    assert_eq!((larger.key, larger.given.len()), (smaller.key, 2), "bob's two devices");
    let notice = Node::new("notification").attr("type", "encrypt").attr("from", &bob).attr("id", "N1");
    world.stanza_arrives("alice", &notice.child(Node::new("identity")));
    let changed = says(&mut world, post(&[&carol, &bob]));
    let later = says(&mut world, post(&[&carol, &bob]));
    assert_ne!(changed.key, larger.key);
    assert_eq!((changed.given.len(), later.key, later.given.len()), (4, changed.key, 0));
}
