//! In a group what refers to a message names its author, and the same holds of all that it may do (spec 06 §3.12, §3.20, §3.36, §4).

use crate::world::World;
use serde_json::json;
use wamd::{
    Jid,
    engine::{Command, CommandError, Content, MessageRef, Reply, SendRequest},
    message::{
        MessageId,
        build::{self, Choice},
        reporting,
    },
    node::Node,
    proto::{
        Message as _,
        common::MessageKey,
        e2e::{MemberLabel, Message, ProtocolMessage, protocol_message::Type},
    },
};
use wamd_loopback::{GroupChange, GroupMode, GroupSpec};

const BOB: &str = "15550000002";
const CAROL: &str = "15550000003";

/// Alice made a group with bob and carol; everybody has sent something.
fn world(mode: GroupMode) -> (World, Jid) {
    let mut world = World::online(&["alice", "bob", "carol"]);
    let group = world.group("alice", mode, [BOB, CAROL].map(Jid::pn));
    for name in ["alice", "bob", "carol"] {
        send(&mut world, name, &group, Content::Text("hello".to_owned()));
    }
    world.forget();
    (world, group)
}

fn send(world: &mut World, from: &str, group: &Jid, content: Content) -> MessageId {
    match world.command(from, Command::Send(SendRequest::new(group.clone(), content))) {
        Ok(Reply::Accepted { id, .. }) => id,
        other => panic!("{from}: {other:?}"),
    }
}

/// Somebody as a group of this mode addresses them.
fn member(world: &World, name: &str, mode: GroupMode) -> Jid {
    match mode {
        GroupMode::Pn => world.jid(name),
        GroupMode::Lid => world.lid(name),
    }
}

fn message(world: &mut World, name: &str) -> Node {
    world.heard(name).into_iter().find(|node| node.is("message")).expect("it was sent")
}

#[test]
fn keys_name_authors_from_everybody_s_point_of_view() {
    for mode in [GroupMode::Pn, GroupMode::Lid] {
        let (mut world, group) = world(mode);
        let [alice, bob] = ["alice", "bob"].map(|name| member(&world, name, mode));
        let target = send(&mut world, "bob", &group, Content::Text("look".to_owned()));
        world.forget();
        let reference = MessageRef::of_member(target.clone(), bob.clone());
        let id = send(&mut world, "alice", &group, Content::Reaction { target: reference, emoji: "👍".to_owned() });
        for (name, is_bob) in [("bob", true), ("carol", false)] {
            let told = world.only(name, "message.reaction");
            let message = &told["messages"][0];
            assert_eq!(message["key"]["fromMe"], is_bob, "{name}");
            assert_eq!(message["key"]["participant"], bob.to_string());
            assert_eq!(message["reaction"]["key"]["participant"], alice.to_string());
            assert_eq!(message["reaction"]["key"]["id"], id.as_str());
            assert_eq!(message.get("orphan"), None, "{name} has the message");
        }
        // Bob's own edit, and his deletion.
        let edit = Content::Edit { id: target.clone(), message: Box::new(build::text("look here")) };
        send(&mut world, "bob", &group, edit);
        let told = world.only("carol", "message.updated");
        assert_eq!(told["messages"][0]["key"]["participant"], bob.to_string());
        assert_eq!(told["messages"][0]["text"], "look here");
        send(&mut world, "bob", &group, Content::Delete { target: MessageRef::own(target) });
        let told = world.only("carol", "message.deleted");
        assert_eq!(
            (&told["messages"][0]["reason"], &told["messages"][0]["deletedBy"]),
            (&json!("author"), &json!(bob.to_string()))
        );
    }
}

#[test]
fn an_admin_deletes_what_others_wrote_and_nobody_else_does() {
    let (mut world, group) = world(GroupMode::Lid);
    let [bob, carol] = ["bob", "carol"].map(|name| world.lid(name));
    let target = send(&mut world, "bob", &group, Content::Text("spam".to_owned()));
    world.forget();
    let reference = || MessageRef::of_member(target.clone(), bob.clone());
    // Carol is no admin, whatever her stanza says.
    send(&mut world, "carol", &group, Content::Delete { target: reference() });
    assert_eq!(message(&mut world, "carol").attr_str("edit").as_deref(), Some("8"));
    assert_eq!(world.data("alice", "message.deleted").len(), 0);
    assert_eq!(world.data("bob", "message.deleted").len(), 0);
    send(&mut world, "alice", &group, Content::Delete { target: reference() });
    for (name, is_bob) in [("bob", true), ("carol", false)] {
        let told = world.only(name, "message.deleted");
        let message = &told["messages"][0];
        assert_eq!((&message["reason"], &message["key"]["fromMe"]), (&json!("admin"), &json!(is_bob)));
        assert_eq!(message["deletedBy"], world.lid("alice").to_string());
    }
    // In a group it must be said whose message it is.
    let nobody = MessageRef::theirs(target);
    let request = SendRequest::new(group, Content::Delete { target: nobody });
    let error = world.command("alice", Command::Send(request)).unwrap_err();
    assert_eq!(error, CommandError::Content("the author of the message is missing"));
    assert_ne!(bob, carol);
}

#[test]
fn votes_of_all() {
    for mode in [GroupMode::Pn, GroupMode::Lid] {
        let (mut world, group) = world(mode);
        let alice = member(&world, "alice", mode);
        let poll = build::poll("Lunch?", &["Yes", "No"], Choice::Single).unwrap();
        let poll = send(&mut world, "alice", &group, Content::Message(Box::new(poll)));
        world.forget();
        for (name, option) in [("bob", "Yes"), ("carol", "No")] {
            let reference = MessageRef::of_member(poll.clone(), alice.clone());
            let vote = Content::Vote { poll: reference, options: vec![option.to_owned()] };
            send(&mut world, name, &group, vote);
        }
        for name in ["alice", "bob", "carol"] {
            let told = world.data(name, "message.poll_vote");
            let last = told.last().expect("a vote");
            assert_eq!(last["tally"].as_array().unwrap().len(), 2);
            assert_eq!(told.len(), if name == "alice" { 2 } else { 1 });
            assert_eq!(last["tally"][0], json!({"name": "Yes", "votes": 1}), "{name}: own votes count");
        }
    }
}

#[test]
fn a_reporting_token_for_the_group() {
    let (mut world, group) = world(GroupMode::Lid);
    let id = send(&mut world, "alice", &group, Content::Text("something".to_owned()));
    let stanza = message(&mut world, "alice");
    let token = stanza.find_child("reporting").unwrap().find_child("reporting_token").unwrap();
    let phone = world.server.received(BOB);
    let seen = phone.iter().find(|message| message.id == id.as_str()).expect("bob's phone has it");
    let context = Message::decode(seen.message.clone()).unwrap().message_context_info.unwrap();
    let secret = wamd::crypto::Secret::from_slice(&context.message_secret.unwrap()).unwrap();
    let expected = reporting::token(&secret, id.as_str(), &world.lid("alice"), &group, &seen.message).unwrap();
    assert_eq!(token.content_bytes().unwrap()[..], expected);
    assert!(stanza.find_child("tctoken").is_none() && stanza.find_child("cstoken").is_none());
}

#[test]
fn member_labels() {
    let (mut world, group) = world(GroupMode::Lid);
    let label = |text: &str| {
        let label = MemberLabel { label: Some(text.to_owned()), label_timestamp: Some(1) };
        let protocol = ProtocolMessage {
            r#type: Some(Type::GroupMemberLabelChange as i32),
            member_label: Some(Box::new(label)),
            ..Default::default()
        };
        Content::Message(Box::new(Message { protocol_message: Some(Box::new(protocol)), ..Default::default() }))
    };
    let bob = world.lid("bob").to_string();
    for (text, expected, reason) in [("boss", json!("boss"), "user_update"), ("", json!(null), "user_delete")] {
        send(&mut world, "bob", &group, label(text));
        let meta = message(&mut world, "bob").find_child("meta").expect("meta").clone();
        assert_eq!(meta.attr_str("tag_reason").as_deref(), Some(reason));
        let told = world.only("alice", "group.member_tag");
        assert_eq!((&told["groupId"], &told["participant"]), (&json!(group.to_string()), &json!(bob)));
        assert_eq!(told["label"], expected);
    }
    // A timer that a member sets by a message is not the group's.
    let timer = ProtocolMessage {
        key: Some(Box::new(MessageKey::default())),
        r#type: Some(Type::EphemeralSetting as i32),
        ephemeral_expiration: Some(86_400),
        ..Default::default()
    };
    let timer = Message { protocol_message: Some(Box::new(timer)), ..Default::default() };
    send(&mut world, "bob", &group, Content::Message(Box::new(timer)));
    assert_eq!(world.data("alice", "chats.update").len(), 0);
}

/// In the announcement group of a community admins write; reactions are encrypted with the secret of what they are to.
#[test]
fn announcements_of_a_community() {
    for mode in [GroupMode::Lid, GroupMode::Pn] {
        let mut world = World::online(&["alice", "bob", "carol"]);
        let now = world.now();
        let spec = GroupSpec {
            creator: "15550000001".to_owned(),
            subject: "Village".to_owned(),
            members: [BOB, CAROL].map(Jid::pn).into(),
            mode: Some(mode),
            community: true,
            ..GroupSpec::default()
        };
        let community = world.server.create_group(now, &spec).unwrap().jid;
        world.settle();
        let group = world.server.groups().into_iter().map(|group| group.jid).find(|jid| *jid != community).unwrap();
        let now = world.now();
        let promotion = GroupChange::Promote { participants: vec![Jid::pn(BOB)] };
        world.server.change_group(now, &group, None, promotion).unwrap();
        world.settle();
        world.forget();
        let post = send(&mut world, "alice", &group, Content::Text("news".to_owned()));
        for name in ["bob", "carol"] {
            assert_eq!(world.only(name, "message.received")["messages"][0]["text"], "news");
        }
        world.heard("bob");
        let author = member(&world, "alice", mode);
        let reaction = |emoji: &str| Content::Reaction {
            target: MessageRef::of_member(post.clone(), author.clone()),
            emoji: emoji.to_owned(),
        };
        send(&mut world, "bob", &group, reaction("👍"));
        assert_eq!(message(&mut world, "bob").attr_str("type").as_deref(), Some("reaction"));
        let phone = world.server.received("15550000001");
        let got = Message::decode(phone.last().unwrap().message.clone()).unwrap();
        assert!(got.enc_reaction_message.is_some() && got.reaction_message.is_none());
        for name in ["alice", "carol"] {
            let told = world.only(name, "message.reaction")["messages"][0].clone();
            assert_eq!((&told["reaction"]["text"], told.get("orphan")), (&json!("👍"), None), "{mode:?}: {name}");
            assert_eq!(told["key"]["id"], post.as_str());
        }
        // A member may not write, is told so, and may once it is an admin: nobody is missing the key then.
        send(&mut world, "carol", &group, Content::Text("may I?".to_owned()));
        let failed = world.only("carol", "message.failed")["messages"][0].clone();
        assert_eq!(failed["error"]["code"], 403);
        let now = world.now();
        let promotion = GroupChange::Promote { participants: vec![Jid::pn(CAROL)] };
        world.server.change_group(now, &group, None, promotion).unwrap();
        world.settle();
        world.forget();
        send(&mut world, "carol", &group, Content::Text("thank you".to_owned()));
        for name in ["alice", "bob"] {
            assert_eq!(world.only(name, "message.received")["messages"][0]["text"], "thank you", "{mode:?}: {name}");
            let asked = world.heard(name);
            assert!(asked.iter().all(|node| node.attr_str("type").as_deref() != Some("retry")), "{mode:?}: {name}");
        }
    }
}
