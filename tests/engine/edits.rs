//! Only its author changes a message, for 20 minutes; the change is told with the key of the message (spec 06 §3.19, 07 §5).

use crate::world::{self, World};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde_json::json;
use wamd::{
    Jid,
    crypto::Secret,
    engine::{CommandError, Content, MessageRef, PinDuration},
    message::{
        MessageId, build,
        secret::{Person, Target, UseCase, addon, seal},
    },
    proto::{
        Message as _,
        common::MessageKey,
        e2e::{FutureProofMessage, KeepInChatMessage, KeepType, Message},
    },
};

fn known() -> World {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.talk("alice", "bob");
    world.forget();
    world
}

fn edit(id: &MessageId, text: &str) -> Content {
    Content::Edit { id: id.clone(), message: Box::new(build::text(text)) }
}

fn key(jid: &Jid, from_me: bool, id: &str) -> MessageKey {
    MessageKey { remote_jid: Some(jid.to_string()), from_me: Some(from_me), id: Some(id.to_owned()), participant: None }
}

#[test]
fn an_edit_keeps_the_id_of_its_message() {
    let mut world = known();
    let original = world.send("alice", "bob", "old");
    world.forget();
    world.advance_secs(60);
    let id = world.send_content("alice", "bob", edit(&original, "new"));
    let now = world.now().unix_seconds();
    assert_eq!(
        world.only("bob", "message.updated"),
        json!({"messages": [{"key": {"remoteJid": world.jid("alice").to_string(),
                "remoteJidAlt": world.lid("alice").to_string(), "fromMe": false, "id": original.as_str(),
                "addressingMode": "pn"},
            "messageTimestamp": now, "edited": true, "editId": id.as_str(), "phone": "15550000001",
            "update": {"message": {"editedMessage": {"message": {"conversation": "new"}}}, "messageTimestamp": now},
            "message": {"conversation": "new"}, "text": "new"}]})
    );
    let heard = world.heard("alice");
    let stanza = heard.iter().find(|node| node.is("message")).expect("it was sent");
    assert_eq!(stanza.attr_str("edit").as_deref(), Some("1"));
    assert_eq!(stanza.attr_str("type").as_deref(), Some("text"));
    assert_ne!(id, original);
    // A second one refers to the original, too.
    world.send_content("alice", "bob", edit(&original, "newer"));
    let told = world.only("bob", "message.updated");
    assert_eq!(told["messages"][0]["key"]["id"], original.as_str());
    assert_eq!(told["messages"][0]["text"], "newer");
}

#[test]
fn after_20_minutes_it_is_refused() {
    let mut world = known();
    let original = world.send("alice", "bob", "old");
    world.advance_secs(1_200);
    world.send_content("alice", "bob", edit(&original, "just in time"));
    world.advance_secs(1);
    assert_eq!(world.refused("alice", "bob", edit(&original, "too late")), CommandError::TooLate);
    // What was sent elsewhere, or before a time that is known, is for the server to judge.
    world.send_content("alice", "bob", edit(&MessageId::new("3EB0AAAAAAAAAAAAAAAA").unwrap(), "who knows"));
    let empty = world.refused("alice", "bob", edit(&original, ""));
    assert_eq!(empty, CommandError::Content("the text is empty"));
    let reaction = build::reaction(key(&world.lid("bob"), true, "A"), "👍", 1);
    let not_content = Content::Edit { id: original, message: Box::new(reaction) };
    let error = world.refused("alice", "bob", not_content);
    assert_eq!(error, CommandError::Content("only content can take the place of a message"));
}

#[test]
fn one_that_came_late_is_marked() {
    let mut world = known();
    let original = world.send("alice", "bob", "old");
    world.forget();
    let at = |seconds: u64| i64::try_from((world::START_MS / 1_000 + seconds) * 1_000).unwrap();
    let sent = world.now().unix_seconds() - world::START_MS / 1_000;
    for (seconds, late) in [(1_200, false), (1_201, true)] {
        let message =
            build::edit(key(&world.lid("bob"), true, original.as_str()), build::text("new"), at(sent + seconds));
        world.phone_sends_message("alice", "bob", &message);
        let told = world.only("bob", "message.updated");
        assert_eq!(told["messages"][0]["late"] == true, late, "{seconds}");
    }
}

#[test]
fn nobody_changes_what_somebody_else_wrote() {
    let mut world = known();
    let bobs = world.send("bob", "alice", "mine");
    world.forget();
    let now = i64::try_from(world.now().wall_ms).unwrap();
    // Alice's phone says that bob's message says something else now.
    let message = build::edit(key(&world.lid("bob"), false, bobs.as_str()), build::text("not his words"), now);
    world.phone_sends_message("alice", "bob", &message);
    assert_eq!(world.data("bob", "message.updated").len(), 0);
    assert_eq!(world.data("alice", "message.updated").len(), 0);
    world.talk("alice", "bob");
}

#[test]
fn in_an_edit_wrapper_and_encrypted() {
    let mut world = known();
    let original = world.send("alice", "bob", "old");
    let phone = world.server.received("15550000001");
    let seen = phone.iter().find(|message| message.id == original.as_str()).expect("the phone has a copy");
    let seen = Message::decode(seen.message.clone()).unwrap();
    let context = seen.message_context_info.as_deref().or_else(|| {
        seen.device_sent_message.as_ref().and_then(|sent| sent.message.as_ref()?.message_context_info.as_deref())
    });
    let secret = Secret::from_slice(context.unwrap().message_secret.as_ref().unwrap()).unwrap();
    world.forget();
    let now = i64::try_from(world.now().wall_ms).unwrap();
    let bob = world.lid("bob");
    let target = || key(&bob, true, original.as_str());
    let plain = build::edit(target(), build::text("wrapped"), now);
    let wrapped = FutureProofMessage { message: Some(Box::new(plain)) };
    let wrapped = Message { edited_message: Some(Box::new(wrapped)), ..Default::default() };
    world.phone_sends_message("alice", "bob", &wrapped);
    assert_eq!(world.only("bob", "message.updated")["messages"][0]["text"], "wrapped");

    let alice = world.lid("alice");
    let inner = build::edit(target(), build::text("sealed"), now);
    let about = Target { secret: &secret, id: original.as_str(), author: Person::new(&alice) };
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let sealed = seal(&about, &alice, UseCase::MessageEdit, &inner.encode_to_vec(), &mut rng);
    world.phone_sends_message("alice", "bob", &addon::carrier(UseCase::MessageEdit, target(), sealed.clone(), now));
    let told = world.only("bob", "message.updated");
    assert_eq!(told["messages"][0]["text"], "sealed");
    assert_eq!(told["messages"][0]["key"]["id"], original.as_str());
    // Of a message that is not known, nobody can tell what it says.
    let unknown = key(&alice, true, "3EB0BBBBBBBBBBBBBBBB");
    world.phone_sends_message("alice", "bob", &addon::carrier(UseCase::MessageEdit, unknown, sealed, now));
    let told = world.only("bob", "message.undecryptable");
    assert_eq!(told["reason"], "missing_secret");
    assert_eq!(told["targetKey"]["id"], "3EB0BBBBBBBBBBBBBBBB");
}

#[test]
fn pins_and_keeps() {
    let mut world = known();
    let theirs = world.send("bob", "alice", "keep this");
    world.forget();
    let target = || MessageRef::theirs(theirs.clone());
    world.send_content("alice", "bob", Content::Pin { target: target(), duration: PinDuration::Week });
    let heard = world.heard("alice");
    let stanza = heard.iter().find(|node| node.is("message")).expect("it was sent");
    assert_eq!(stanza.attr_str("edit").as_deref(), Some("2"));
    let told = world.only("bob", "message.updated");
    let alice = world.jid("alice").to_string();
    let until = (world.now().unix_seconds() + 604_800) * 1_000;
    assert_eq!(told["messages"][0]["pin"], json!({"action": "PIN_FOR_ALL", "by": alice, "expiresAt": until}));
    assert_eq!(told["messages"][0]["key"]["fromMe"], true);
    assert_eq!(told["messages"][0].get("edited"), None);
    world.send_content("alice", "bob", Content::Unpin { target: target() });
    let told = world.only("bob", "message.updated");
    assert_eq!(told["messages"][0]["pin"], json!({"action": "UNPIN_FOR_ALL", "by": alice}));

    let keep = KeepInChatMessage {
        key: Some(Box::new(key(&world.lid("bob"), false, theirs.as_str()))),
        keep_type: Some(KeepType::KeepForAll as i32),
        timestamp_ms: Some(1),
    };
    let keep = Message { keep_in_chat_message: Some(Box::new(keep)), ..Default::default() };
    world.phone_sends_message("alice", "bob", &keep);
    let told = world.only("bob", "message.updated");
    assert_eq!(told["messages"][0]["keep"], json!({"action": "KEEP_FOR_ALL", "by": world.jid("alice").to_string()}));
    assert_eq!(told["messages"][0]["key"]["id"], theirs.as_str());
}
