//! A reaction names its message from the point of view of whoever hears of it, encrypted or not (spec 06 §3.12, 07 §5).

use std::collections::BTreeSet;

use crate::world::World;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde_json::json;
use wamd::{
    Jid,
    crypto::Secret,
    engine::{Audience, AudienceSetting, Command, CommandError, Content, MessageRef, Reply, SendRequest},
    message::{
        MessageId, build,
        secret::{Person, Target, UseCase, addon, seal},
    },
    node::Node,
    proto::{
        Message as _,
        common::MessageKey,
        e2e::{Message, ReactionMessage},
    },
};

fn known() -> World {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.talk("alice", "bob");
    world.forget();
    world
}

fn reaction(target: MessageRef, emoji: &str) -> Content {
    Content::Reaction { target, emoji: emoji.to_owned() }
}

fn key(jid: &Jid, from_me: bool, id: &str) -> MessageKey {
    MessageKey { remote_jid: Some(jid.to_string()), from_me: Some(from_me), id: Some(id.to_owned()), participant: None }
}

#[test]
fn to_a_message_of_each_side() {
    let mut world = known();
    let (alices, bobs) = (world.send("alice", "bob", "mine"), world.send("bob", "alice", "yours"));
    world.forget();
    world.advance_secs(3);
    let (alice, bob) = (world.jid("alice").to_string(), world.jid("bob").to_string());
    let lid = world.lid("alice").to_string();
    let now = world.now().wall_ms.to_string();
    for (target, author_is_bob) in [(MessageRef::own(alices.clone()), false), (MessageRef::theirs(bobs.clone()), true)]
    {
        let target_id = target.id.as_str().to_owned();
        let id = world.send_content("alice", "bob", reaction(target, "👍"));
        let key = json!({"remoteJid": alice, "remoteJidAlt": lid, "fromMe": author_is_bob,
            "id": target_id, "addressingMode": "pn"});
        let own = json!({"remoteJid": alice, "remoteJidAlt": lid, "fromMe": false,
            "id": id.as_str(), "addressingMode": "pn"});
        let told = world.only("bob", "message.reaction");
        assert_eq!(
            told,
            json!({"messages": [{"key": key, "messageTimestamp": world.now().unix_seconds(), "phone": "15550000001",
                "pushName": "User 0001",
                "reaction": {"key": own, "text": "👍", "senderTimestampMs": now, "removed": false},
                "message": {"reactionMessage": {"key": {"remoteJid": alice, "fromMe": author_is_bob, "id": target_id},
                    "text": "👍", "senderTimestampMs": now}}}]})
        );
        // To who sent it, it is a message like any other.
        let sent = world.only("alice", "message.sent");
        assert_eq!(sent["messages"][0]["key"]["id"], id.as_str());
        assert_eq!(sent["messages"][0]["kind"], "reaction");
        assert_eq!(sent["messages"][0]["key"]["remoteJid"], bob);
        assert!(world.event_names("bob").iter().all(|name| name != "message.received"));
    }
}

#[test]
fn the_stanza_says_what_it_is() {
    let mut world = known();
    let target = world.send("bob", "alice", "yours");
    world.forget();
    for (emoji, edit) in [("👍", None), ("", Some("7"))] {
        world.send_content("alice", "bob", reaction(MessageRef::theirs(target.clone()), emoji));
        let heard = world.heard("alice");
        let stanza = heard.iter().find(|node| node.is("message")).expect("it was sent");
        assert_eq!(stanza.attr_str("type").as_deref(), Some("reaction"));
        assert_eq!(stanza.attr_str("edit").as_deref(), edit);
        let participants = stanza.find_child("participants").expect("participants");
        for to in participants.child_nodes() {
            let enc = to.find_child("enc").expect("a ciphertext");
            assert_eq!(enc.attr_str("decrypt-fail").as_deref(), Some("hide"), "nobody draws a placeholder for it");
        }
        assert!(stanza.find_child("reporting").is_none(), "reactions are not reported");
    }
    let told = world.data("bob", "message.reaction");
    assert_eq!(told.len(), 2);
    assert_eq!(told[1]["messages"][0]["reaction"]["text"], "");
    assert_eq!(told[1]["messages"][0]["reaction"]["removed"], true);
}

#[test]
fn of_another_device_of_ours() {
    let mut world = known();
    world.add("tablet", "15550000001", |_| {});
    world.link("tablet");
    let target = world.send("bob", "alice", "yours");
    world.forget();
    let id = world.send_content("tablet", "bob", reaction(MessageRef::theirs(target.clone()), "👍"));
    let told = world.only("alice", "message.reaction");
    assert_eq!(told["messages"][0]["key"]["fromMe"], false);
    assert_eq!(told["messages"][0]["key"]["remoteJid"], world.jid("bob").to_string());
    assert_eq!(told["messages"][0].get("orphan"), None);
    let reaction = &told["messages"][0]["reaction"];
    assert_eq!((&reaction["key"]["fromMe"], &reaction["key"]["id"]), (&json!(true), &json!(id.as_str())));
    let told = world.only("bob", "message.reaction");
    assert_eq!(told["messages"][0]["key"]["fromMe"], true, "bob wrote it");
    // What the tablet sends leaves its secret with the others.
    let poll = build::poll("Lunch?", &["Yes", "No"], build::Choice::Any).unwrap();
    let poll = world.send_content("tablet", "bob", Content::Message(Box::new(poll)));
    let vote = Content::Vote { poll: MessageRef::own(poll), options: vec!["No".to_owned()] };
    world.send_content("alice", "bob", vote);
    let told = world.only("tablet", "message.poll_vote");
    assert_eq!((&told["selected"], &told["key"]["fromMe"]), (&json!(["No"]), &json!(true)));
}

#[test]
fn to_what_this_device_has_not_seen() {
    let mut world = known();
    let message = build::reaction(key(&world.lid("bob"), true, "3EB0AAAAAAAAAAAAAAAA"), "👍", 5);
    world.phone_sends_message("alice", "bob", &message);
    assert_eq!(world.only("bob", "message.reaction")["messages"][0]["orphan"], true);
    // A key that names nothing is nobody's business, and the message is received all the same.
    for id in [None, Some(String::new()), Some("a\0b".to_owned())] {
        let key = MessageKey { id, ..key(&world.lid("bob"), true, "") };
        world.heard("bob");
        world.phone_sends_message("alice", "bob", &build::reaction(key, "👍", 5));
        assert_eq!(world.event_names("bob"), [""; 0]);
        assert!(world.heard("bob").iter().any(|node| node.is("receipt")));
    }
    world.talk("alice", "bob");
}

/// To a status: it goes to the devices of its author and to our own, and nobody else in the audience hears of it.
#[test]
fn to_a_status() {
    let mut world = World::online(&["alice", "bob", "carol"]);
    let viewers = vec![world.jid("alice"), world.jid("carol")];
    let audience = Audience { setting: AudienceSetting::Allowlist, viewers };
    let post = Command::Send(SendRequest::text(Jid::status_broadcast(), "sun").with_audience(audience));
    let Ok(Reply::Accepted { id: post, .. }) = world.command("bob", post) else { panic!("refused") };
    let told = world.only("alice", "message.received")["messages"][0].clone();
    let author: Jid = told["key"]["participant"].as_str().unwrap().parse().unwrap();
    world.forget();
    world.heard("alice");
    for author in [author, world.jid("bob"), world.lid("bob")] {
        for (emoji, ready_made) in [("👍", false), ("", false), ("👍", true), ("", true)] {
            let content = match ready_made {
                false => reaction(MessageRef::of_member(post.clone(), author.clone()), emoji),
                true => {
                    let key = MessageKey {
                        remote_jid: Some(Jid::status_broadcast().to_string()),
                        from_me: Some(false),
                        id: Some(post.as_str().to_owned()),
                        participant: Some(author.to_string()),
                    };
                    Content::Message(Box::new(build::reaction(key, emoji, 1_760_000_000_000)))
                }
            };
            let request = SendRequest::new(Jid::status_broadcast(), content);
            let sent = world.command("alice", Command::Send(request));
            assert!(matches!(sent, Ok(Reply::Accepted { .. })), "{sent:?}");
            let heard = world.heard("alice");
            let stanzas: Vec<_> = heard.iter().filter(|node| node.is("message")).collect();
            let [stanza] = stanzas[..] else { panic!("one stanza: {heard:?}") };
            assert_eq!(stanza.attr_jid("to"), Some(Jid::status_broadcast()));
            assert_eq!(stanza.attr_str("type").as_deref(), Some("reaction"));
            for attr in ["phash", "addressing_mode"] {
                assert!(stanza.get_attr(attr).is_none(), "{attr}");
            }
            assert!(stanza.find_child("meta").is_none_or(|meta| meta.get_attr("status_setting").is_none()));
            assert!(stanza.find_child("enc").is_none(), "not with the key of our status");
            let to = stanza.find_child("participants").unwrap().child_nodes();
            let accounts: BTreeSet<String> =
                to.iter().map(|to| to.attr_jid("jid").unwrap().to_account().to_string()).collect();
            let people = ["alice", "bob"].map(|name| [world.jid(name).to_string(), world.lid(name).to_string()]);
            assert_eq!((to.len(), accounts.len()), (3, 2), "{accounts:?}");
            assert!(people.iter().all(|both| both.iter().any(|jid| accounts.contains(jid))));
            let told = world.only("bob", "message.reaction")["messages"][0].clone();
            assert_eq!(told["key"]["remoteJid"], "status@broadcast");
            assert_eq!((&told["key"]["id"], &told["key"]["fromMe"]), (&json!(post.as_str()), &json!(true)));
            assert_eq!((&told["reaction"]["text"], told.get("orphan")), (&json!(emoji), None));
            assert_eq!(world.only("alice", "message.sent")["messages"][0]["kind"], "reaction");
        }
    }
    assert_eq!(world.event_names("carol"), [""; 0]);
    // Anything else that is ready-made is a post, and needs one.
    let text = Content::Message(Box::new(build::text("post")));
    let refused = world.command("alice", Command::Send(SendRequest::new(Jid::status_broadcast(), text)));
    assert_eq!(refused, Err(CommandError::Audience("a status needs one")));
    // One that does not say whose status is meant cannot be sent.
    let request = SendRequest::new(Jid::status_broadcast(), reaction(MessageRef::theirs(post), "👍"));
    match world.command("alice", Command::Send(request)) {
        Ok(_) => assert_eq!(world.only("alice", "message.failed")["messages"][0]["error"]["code"], "no_author"),
        Err(error) => assert!(matches!(error, CommandError::Content(_)), "{error:?}"),
    }
}

#[test]
fn encrypted_with_the_secret_of_its_message() {
    let mut world = known();
    // Alice's phone reacts to what bob sent, with any spelling of the two.
    let target = world.send("bob", "alice", "yours");
    let phone = world.server.received("15550000001");
    let seen = phone.iter().find(|message| message.id == target.as_str()).expect("the phone has it");
    let secret = Message::decode(seen.message.clone()).unwrap().message_context_info.unwrap().message_secret.unwrap();
    let secret = Secret::from_slice(&secret).unwrap();
    world.forget();
    let plaintext =
        ReactionMessage { text: Some("👍".into()), sender_timestamp_ms: Some(7), ..Default::default() }.encode_to_vec();
    let (authors, senders) = ([world.lid("bob"), world.jid("bob")], [world.lid("alice"), world.jid("alice")]);
    for author in &authors {
        for sender in &senders {
            let about = Target { secret: &secret, id: target.as_str(), author: Person::new(author) };
            let sealed = seal(&about, sender, UseCase::Reaction, &plaintext, &mut ChaCha20Rng::seed_from_u64(1));
            let key = key(&world.lid("bob"), false, target.as_str());
            world.phone_sends_message("alice", "bob", &addon::carrier(UseCase::Reaction, key, sealed, 7));
            let told = world.only("bob", "message.reaction");
            assert_eq!(told["messages"][0]["reaction"]["text"], "👍");
            assert_eq!(told["messages"][0]["key"]["fromMe"], true);
            assert_eq!(told["messages"][0]["key"]["id"], target.as_str());
        }
    }
    // With another secret it is told as what it is.
    let about = Target { secret: &Secret::new([1; 32]), id: target.as_str(), author: Person::new(&authors[0]) };
    let sealed = seal(&about, &senders[0], UseCase::Reaction, &plaintext, &mut ChaCha20Rng::seed_from_u64(1));
    let carrier = addon::carrier(UseCase::Reaction, key(&world.lid("bob"), false, target.as_str()), sealed, 7);
    world.phone_sends_message("alice", "bob", &carrier);
    let told = world.only("bob", "message.undecryptable");
    assert_eq!((&told["reason"], &told["kind"]), (&json!("bad_secret"), &json!("reaction")));
    assert_eq!(told["targetKey"]["id"], target.as_str());
    assert_eq!(told["willRetry"], false);
    assert!(told["message"]["encReactionMessage"]["encPayload"].is_string());
}

#[test]
fn what_is_no_emoji_is_refused() {
    let mut world = known();
    let target = MessageRef::theirs(MessageId::new("3EB0AAAAAAAAAAAAAAAA").unwrap());
    let error = world.refused("alice", "bob", reaction(target, &"x".repeat(65)));
    assert_eq!(error, CommandError::Content("a reaction is one emoji"));
    let heard: Vec<Node> = world.heard("alice").into_iter().filter(|node| node.is("message")).collect();
    assert_eq!(heard.len(), 0);
}
