//! Whatever happens to a message on its way, and whatever notice of a change is lost, everybody reads it once in the end (spec 03
//! §5.3, §5.6, §4.6, §4.9): with the loopback server's faults of delivery.

use crate::world::{World, named, text_of};
use wamd::{
    Jid,
    engine::{Command, GroupRequest},
    event::Envelope,
    node::Node,
};
use wamd_loopback::{Damage, EncKind, Fault, GroupChange, GroupMode};

/// How often each text was received.
fn told(events: &[Envelope], texts: &[String]) -> Vec<usize> {
    texts.iter().map(|text| events.iter().filter(|event| text_of(event) == Some(text)).count()).collect()
}

/// Alice writes to bob, or to a group with him, cold or warm; something happens to the first message. How often he reads each.
fn reads(what: &Damage, enc: Option<EncKind>, in_group: bool, warm: bool) -> Vec<usize> {
    let mut world = World::online(&["alice", "bob"]);
    let bob = world.jid("bob");
    let chat = if in_group { world.group("alice", GroupMode::Lid, [bob.clone()]) } else { bob };
    if warm {
        world.send_to("alice", &chat, "warm");
        world.send_to("alice", &chat, "warmer");
    }
    world.forget();
    let jid = world.device("bob");
    world.fault(Fault::Delivery { jid, what: what.clone(), enc, id: None, every: 1, count: Some(1) });
    let texts: Vec<String> = (0..4).map(|n| format!("text {n}")).collect();
    texts.iter().for_each(|text| drop(world.send_to("alice", &chat, text)));
    world.advance_secs(60);
    assert_eq!((world.queued("bob"), world.snapshot("alice").sends), (0, 0));
    // Nothing is left to be healed.
    world.forget();
    world.send_to("alice", &chat, "the end");
    let asked = world.heard("bob").iter().filter(|node| node.attr_str("type").as_deref() == Some("retry")).count();
    assert_eq!((told(&world.events("bob"), &["the end".to_owned()]), asked), (vec![1], 0));
    told(world.all_events("bob"), &texts)
}

#[test]
fn everything_that_was_damaged_is_read_once() {
    let damages = [
        Damage::Corrupt,
        Damage::Unavailable { kind: None },
        Damage::Duplicate,
        Damage::Delay { ms: 500 },
        Damage::Behind { messages: 2 },
    ];
    for what in &damages {
        for enc in [None, Some(EncKind::Pairwise), Some(EncKind::SenderKey)] {
            for (in_group, warm) in [(false, false), (false, true), (true, false), (true, true)] {
                let context = format!("{what:?} of {enc:?}, group: {in_group}, warm: {warm}");
                assert_eq!(reads(what, enc, in_group, warm), [1; 4], "{context}");
            }
        }
    }
    // Our key got lost, and what it is for is there.
    assert_eq!(reads(&Damage::Drop, Some(EncKind::Pairwise), true, false), [1; 4]);
}

#[test]
fn what_has_no_ciphertext_is_refused_and_disturbs_nothing() {
    for in_group in [false, true] {
        for warm in [false, true] {
            assert_eq!(reads(&Damage::Drop, None, in_group, warm)[1..], [1; 3], "group: {in_group}, warm: {warm}");
        }
    }
}

#[test]
fn a_notice_that_somebody_left_is_lost() {
    for leaves in [false, true] {
        let mut world = World::online(&["alice", "bob", "carol"]);
        let (bob, carol) = (world.jid("bob"), world.jid("carol"));
        let group = world.group("alice", GroupMode::Lid, [bob, carol.clone()]);
        world.send_to("alice", &group, "before");
        let jid = world.device("alice");
        world.fault(Fault::LoseNotices { jid, kind: "w:gp2".to_owned(), count: 1 });
        if leaves {
            world.command("carol", Command::Group(GroupRequest::Leave(group.clone()))).unwrap();
        } else {
            let now = world.now();
            let change = GroupChange::Remove { participants: vec![carol], linked_groups: false };
            world.server.change_group(now, &group, None, change).unwrap();
            world.settle();
        }
        world.heard("alice");
        world.send_to("alice", &group, "not known yet");
        // The server counts others than we do: it is found out, and the key is another one.
        let texts = ["between".to_owned(), "after".to_owned()];
        texts.iter().for_each(|text| drop(world.send_to("alice", &group, text)));
        assert_eq!(told(world.all_events("bob"), &texts), [1, 1]);
        assert_eq!(told(world.all_events("carol"), &texts), [0, 0]);
        let heard = world.heard("alice");
        let messages: Vec<_> = heard.iter().filter(|node| node.is("message")).collect();
        let given = |n: usize| messages[n].find_child("participants").map_or(0, |to| to.child_nodes().len());
        assert_eq!((messages.len(), given(1), given(2)), (3, 3, 1), "bob's two devices get it once, carol's do not");
    }
}

#[test]
fn notices_of_devices_and_identities_are_lost() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.talk("bob", "alice");
    let jid = world.device("alice");
    for kind in ["devices", "encrypt"] {
        world.fault(Fault::LoseNotices { jid: jid.clone(), kind: kind.to_owned(), count: 100 });
    }
    // A device more: the server's hash of the first message says so.
    world.add("tablet", "15550000002", |_| {});
    world.link("tablet");
    world.send("alice", "bob", "not known yet");
    world.send("alice", "bob", "known");
    let texts = ["not known yet".to_owned(), "known".to_owned()];
    assert_eq!(told(world.all_events("bob"), &texts), [1, 1]);
    assert_eq!(told(world.all_events("tablet"), &texts)[1], 1);
    // Another identity, and no companions: whoever cannot read a message asks for it.
    world.forget();
    let bob = world.jid("bob");
    world.fault(Fault::ChangeIdentity { jid: bob });
    assert_eq!(world.data("alice", "identity.changed").len(), 0);
    for text in ["one", "two"] {
        let id = world.send("alice", "bob", text);
        let phone = world.server.received("15550000002");
        assert_eq!(phone.iter().filter(|message| message.id == id.as_str()).count(), 1, "{text}");
    }
    let changed = world.data("alice", "identity.changed");
    assert_eq!((changed.len(), &changed[0]["implicit"]), (1, &true.into()));
    assert_eq!(world.snapshot("alice").sends, 0);
}

#[test]
fn a_lid_changes() {
    let mut world = World::online(&["alice", "bob", "carol"]);
    let (bob, carol) = (world.jid("bob"), world.jid("carol"));
    let group = world.group("alice", GroupMode::Lid, [bob.clone(), carol]);
    world.talk("alice", "bob");
    world.talk("bob", "alice");
    let mut texts: Vec<String> = Vec::new();
    let mut say = |world: &mut World, from: &str, chat: &Jid| {
        texts.push(format!("{} from {from}", texts.len()));
        world.send_to(from, chat, texts.last().unwrap());
    };
    say(&mut world, "alice", &group);
    let before = world.lid("bob");
    world.fault(Fault::ChangeLid { jid: bob.clone() });
    let after = world.lid("bob");
    assert_ne!(before, after);
    for chat in [&bob, &before, &after, &group] {
        say(&mut world, "alice", chat);
    }
    world.advance_secs(60);
    assert_eq!(told(world.all_events("bob"), &texts), [1; 5], "{texts:?}");
    assert_eq!(named(world.all_events("alice"), "message.failed").len(), 0);
    world.talk("bob", "alice");
    world.talk("alice", "bob");
}

/// Nothing that is sent to bob's device can be read, for an hour: everybody gives up after a while, and what comes then is read.
#[test]
fn an_hour_of_noise_is_no_storm() {
    for in_group in [false, true] {
        let mut world = World::online(&["alice", "bob"]);
        let (bob, jid) = (world.jid("bob"), world.device("bob"));
        let chat = if in_group { world.group("alice", GroupMode::Lid, [bob.clone()]) } else { bob };
        world.send_to("alice", &chat, "before");
        world.forget();
        let what = Damage::Corrupt;
        world.fault(Fault::Delivery { jid: jid.clone(), what, enc: None, id: None, every: 1, count: None });
        let ids: Vec<_> = (0..3).map(|n| world.send_to("alice", &chat, &format!("noise {n}"))).collect();
        for _ in 0..60 {
            world.advance_secs(60);
        }
        let (of_bob, of_alice) = (world.heard("bob"), world.heard("alice"));
        let is_retry = |node: &&Node| node.attr_str("type").as_deref() == Some("retry");
        let about = |node: &&Node, id: &str| node.attr_str("id").as_deref() == Some(id);
        for id in &ids {
            let id = id.as_str();
            let asked = of_bob.iter().filter(|node| node.is("receipt") && is_retry(node) && about(node, id)).count();
            let sent = of_alice.iter().filter(|node| node.is("message") && about(node, id)).count();
            // Five times at most, and the fifth is not answered.
            assert_eq!((asked, sent), (5, 1 + 4), "group: {in_group}");
        }
        let requests = of_bob.iter().filter(|node| node.is("message")).count();
        let retries = of_bob.iter().filter(|node| node.is("receipt") && is_retry(node)).count();
        assert!(requests <= 3 && retries <= 15 + 5 * requests, "{requests} requests, {retries} retries");
        let told = world.data("bob", "message.undecryptable");
        assert_eq!(told.len(), 3, "{told:?}");
        world.fault(Fault::Mend { jid });
        world.forget();
        world.send_to("alice", &chat, "after");
        world.advance_secs(60);
        assert_eq!(told_once(&mut world, "bob"), ["after"]);
        assert_eq!((world.queued("bob"), world.snapshot("alice").sends), (0, 0));
    }
}

/// The texts since the last look.
fn told_once(world: &mut World, name: &str) -> Vec<String> {
    world.events(name).iter().filter_map(text_of).map(str::to_owned).collect()
}
