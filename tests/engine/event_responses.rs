//! Answers to events and comments are read with the secret of what they are about (spec 03 §5.8, 06 §3.14, §3.26, 07 §7.2).

use crate::world::World;
use serde_json::json;
use wamd::{
    engine::{CommandError, Content, MessageRef},
    event::EventAnswer,
    message::{
        MessageId,
        build::{self, EventDetails},
    },
};

fn known() -> World {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.talk("alice", "bob");
    world.forget();
    world
}

fn party() -> Content {
    let details =
        EventDetails { name: "Party".to_owned(), start: 1_760_100_000, extra_guests: true, ..Default::default() };
    Content::Message(Box::new(build::event(details)))
}

#[test]
fn an_answer() {
    let mut world = known();
    let event = world.send_content("alice", "bob", party());
    let stanza = world.heard("alice").into_iter().find(|node| node.is("message")).expect("it was sent");
    assert_eq!(stanza.attr_str("type").as_deref(), Some("event"));
    assert_eq!(stanza.find_child("meta").expect("meta").attr_str("event_type").as_deref(), Some("creation"));
    assert_eq!(world.only("bob", "message.received")["messages"][0]["kind"], "event");
    world.forget();
    let (bob, lid) = (world.jid("bob").to_string(), world.lid("bob").to_string());
    let key = |from_me: bool, id: &MessageId| {
        json!({"remoteJid": bob, "remoteJidAlt": lid, "fromMe": from_me, "id": id.as_str(),
            "addressingMode": "pn"})
    };
    let answers =
        [(EventAnswer::Going, 2, "GOING"), (EventAnswer::NotGoing, 0, "NOT_GOING"), (EventAnswer::Maybe, 0, "MAYBE")];
    for (answer, extra_guests, word) in answers {
        let content = Content::EventResponse { event: MessageRef::theirs(event.clone()), answer, extra_guests };
        let id = world.send_content("bob", "alice", content);
        let stanza = world.heard("bob").into_iter().find(|node| node.is("message")).expect("it was sent");
        assert_eq!(stanza.find_child("meta").expect("meta").attr_str("event_type").as_deref(), Some("response"));
        assert_eq!(
            world.only("alice", "message.event_response"),
            json!({"key": key(false, &id), "eventKey": key(true, &event), "responder": bob,
                "responderAlt": lid, "response": word, "extraGuestCount": extra_guests,
                "senderTimestampMs": world.now().wall_ms})
        );
    }
    // A later version of the event, as a text is edited.
    let later = EventDetails { name: "Bigger party".to_owned(), start: 1_760_200_000, ..Default::default() };
    let edit = Content::Edit { id: event, message: Box::new(build::event(later)) };
    world.send_content("alice", "bob", edit);
    assert_eq!(world.only("bob", "message.updated")["messages"][0]["text"], "Bigger party");
}

#[test]
fn to_what_is_not_known() {
    let mut world = known();
    let event = MessageRef::theirs(MessageId::new("3EB0AAAAAAAAAAAAAAAA").unwrap());
    let content = |answer, extra_guests| Content::EventResponse { event: event.clone(), answer, extra_guests };
    assert_eq!(world.refused("bob", "alice", content(EventAnswer::Going, 0)), CommandError::UnknownMessage);
    let error = world.refused("bob", "alice", content(EventAnswer::Unknown, 0));
    assert_eq!(error, CommandError::Content("this is not an answer"));
    let error = world.refused("bob", "alice", content(EventAnswer::Going, 1_001));
    assert_eq!(error, CommandError::Content("too many guests"));
}

#[test]
fn a_comment() {
    let mut world = known();
    let post = world.send("alice", "bob", "an announcement");
    world.forget();
    let target = MessageRef::theirs(post.clone());
    let comment = Content::Comment { target, message: Box::new(build::text("well said")) };
    let id = world.send_content("bob", "alice", comment);
    let told = world.only("alice", "message.comment");
    assert_eq!((&told["key"]["id"], &told["text"]), (&json!(id.as_str()), &json!("well said")));
    assert_eq!((&told["targetKey"]["id"], &told["targetKey"]["fromMe"]), (&json!(post.as_str()), &json!(true)));
    assert_eq!(told["message"], json!({"conversation": "well said"}));
    // It has a secret of its own, so it can be commented on in turn.
    let reply =
        Content::Comment { target: MessageRef::theirs(id.clone()), message: Box::new(build::text("thank you")) };
    world.send_content("alice", "bob", reply);
    let told = world.only("bob", "message.comment");
    assert_eq!((&told["targetKey"]["id"], &told["targetKey"]["fromMe"]), (&json!(id.as_str()), &json!(true)));
}
