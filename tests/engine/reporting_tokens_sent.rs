//! What users can report carries a reporting token made from the very bytes that they get (spec 03 §4.8, 06 §1.8).

use crate::world::World;
use wamd::{
    crypto::Secret,
    engine::{Content, MessageRef, PinDuration},
    message::{build, reporting},
    node::Node,
    proto::{Message as _, e2e::Message},
};

fn known() -> World {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.talk("alice", "bob");
    world.forget();
    world
}

fn token(stanza: &Node) -> Option<Vec<u8>> {
    let token = stanza.find_child("reporting")?.find_child("reporting_token")?;
    assert_eq!(token.attr_str("v").as_deref(), Some("2"));
    Some(token.content_bytes().expect("bytes").to_vec())
}

/// Sends something; gives the stanza, and the bytes that bob's phone decrypted.
fn sent(world: &mut World, content: Content) -> (Node, Vec<u8>, String) {
    world.heard("alice");
    let id = world.send_content("alice", "bob", content);
    let stanza = world.heard("alice").into_iter().find(|node| node.is("message")).expect("it was sent");
    let phone = world.server.received("15550000002");
    let seen = phone.iter().find(|message| message.id == id.as_str()).expect("the phone has it");
    (stanza, seen.message.to_vec(), id.as_str().to_owned())
}

#[test]
fn the_recipient_can_make_the_same_one() {
    let mut world = known();
    let first = sent(&mut world, Content::Text("something".to_owned()));
    let own = wamd::message::MessageId::new(&first.2).unwrap();
    let edit = Content::Edit { id: own.clone(), message: Box::new(build::text("something else")) };
    let edit = sent(&mut world, edit);
    let delete = sent(&mut world, Content::Delete { target: MessageRef::own(own) });
    for (stanza, bytes, id) in [first, edit, delete] {
        let message = Message::decode(&bytes[..]).unwrap();
        let context = message.message_context_info.expect("a context");
        assert_eq!(context.reporting_token_version, Some(2));
        let secret = Secret::from_slice(&context.message_secret.expect("a secret")).unwrap();
        let expected = reporting::token(&secret, &id, &world.jid("alice"), &world.jid("bob"), &bytes);
        assert_eq!(token(&stanza), Some(expected.expect("a token").to_vec()));
    }
}

#[test]
fn a_secret_of_the_caller_stays() {
    let mut world = known();
    let mut message = build::text("mine");
    message.message_context_info.get_or_insert_default().message_secret = Some(vec![9; 32].into());
    let (stanza, bytes, id) = sent(&mut world, Content::Message(Box::new(message)));
    let expected = reporting::token(&Secret::new([9; 32]), &id, &world.jid("alice"), &world.jid("bob"), &bytes);
    assert_eq!(token(&stanza), expected.map(|token| token.to_vec()));
}

#[test]
fn what_cannot_be_reported_has_none() {
    let mut world = known();
    let target = world.send("bob", "alice", "yours");
    let target = || MessageRef::theirs(target.clone());
    for content in [
        Content::Reaction { target: target(), emoji: "👍".to_owned() },
        Content::Pin { target: target(), duration: PinDuration::Day },
    ] {
        let (stanza, bytes, _) = sent(&mut world, content);
        assert_eq!(token(&stanza), None);
        let context = Message::decode(&bytes[..]).unwrap().message_context_info.unwrap_or_default();
        assert_eq!((context.reporting_token_version, context.message_secret), (None, None));
    }
}
