//! Votes are read with the secret of their poll and counted; a vote that cannot be read is told (spec 03 §5.8, 06 §3.13, 07 §7.2).

use crate::world::{self, World};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use serde_json::{Value, json};
use wamd::{
    crypto::Secret,
    engine::{CommandError, Content, MessageRef},
    message::{
        MessageId,
        build::{self, Choice},
        secret::{Person, Target, UseCase, addon, option_hash, seal},
    },
    node::Node,
    proto::{
        Message as _,
        common::MessageKey,
        e2e::{Message, PollAddOptionMessage, poll_creation_message},
    },
    store::RecordKind,
};
use wamd_loopback::{Damage, Fault};

fn known() -> World {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.talk("alice", "bob");
    world.forget();
    world
}

fn lunch() -> Content {
    Content::Message(Box::new(build::poll("Lunch?", &["Yes", "No", "Later"], Choice::Any).expect("a poll")))
}

fn vote(poll: MessageRef, options: &[&str]) -> Content {
    Content::Vote { poll, options: options.iter().map(|name| (*name).to_owned()).collect() }
}

fn tally(yes: u32, no: u32, later: u32) -> Value {
    json!([{"name": "Yes", "votes": yes}, {"name": "No", "votes": no}, {"name": "Later", "votes": later}])
}

#[test]
fn a_vote_of_the_other_side() {
    let mut world = known();
    let poll = world.send_content("alice", "bob", lunch());
    let told = world.only("bob", "message.received");
    assert_eq!((&told["messages"][0]["kind"], &told["messages"][0]["text"]), (&json!("poll"), &json!("Lunch?")));
    assert_eq!(told["messages"][0]["message"].get("messageContextInfo"), None, "the secret does not leave");
    let stanza = world.heard("alice").into_iter().find(|node| node.is("message")).expect("it was sent");
    assert_eq!(stanza.attr_str("type").as_deref(), Some("poll"));
    assert_eq!(stanza.find_child("meta").expect("meta").attr_str("polltype").as_deref(), Some("creation"));
    world.forget();

    let id = world.send_content("bob", "alice", vote(MessageRef::theirs(poll.clone()), &["Later", "Yes"]));
    let stanza = world.heard("bob").into_iter().find(|node| node.is("message")).expect("it was sent");
    assert_eq!(stanza.find_child("meta").expect("meta").attr_str("polltype").as_deref(), Some("vote"));
    let events = world.events("alice");
    let votes = world::named(&events, "message.poll_vote");
    let (bob, lid) = (world.jid("bob").to_string(), world.lid("bob").to_string());
    let key = |from_me: bool, id: &MessageId| {
        json!({"remoteJid": bob, "remoteJidAlt": lid, "fromMe": from_me, "id": id.as_str(),
            "addressingMode": "pn"})
    };
    let hashes: Vec<String> = ["Later", "Yes"].map(|name| STANDARD.encode(option_hash(name))).into();
    assert_eq!(votes.len(), 1);
    assert_eq!(
        votes[0].data,
        json!({"key": key(false, &id), "pollKey": key(true, &poll), "voter": bob,
            "voterAlt": lid, "selected": ["Yes", "Later"], "hashes": hashes,
            "senderTimestampMs": world.now().wall_ms, "tally": tally(1, 0, 1)})
    );
    // For who looks at messages alone it is one, with what was picked.
    let received = world::named(&events, "message.received");
    assert_eq!(received[0].data["messages"][0]["kind"], "poll_vote");
    assert_eq!(received[0].data["messages"][0]["reply"], json!({"selectedText": "Yes, Later"}));
}

#[test]
fn a_later_vote_replaces_the_earlier_one() {
    let mut world = known();
    let poll = world.send_content("alice", "bob", lunch());
    world.forget();
    // Alice's own vote counts, too.
    world.send_content("alice", "bob", vote(MessageRef::own(poll.clone()), &["No"]));
    let own = world.only("bob", "message.poll_vote");
    assert_eq!((&own["selected"], &own["tally"]), (&json!(["No"]), &tally(0, 1, 0)));
    assert_eq!(own["pollKey"]["fromMe"], false);
    for (options, expected) in [
        (&["Yes"][..], tally(1, 1, 0)),
        (&["No"][..], tally(0, 2, 0)),
        (&[][..], tally(0, 1, 0)),
        (&["Yes", "No", "Later"][..], tally(1, 2, 1)),
    ] {
        world.advance_secs(1);
        // What is stored counts, not what is remembered.
        world.crash_and_start("alice");
        world.command("alice", wamd::engine::Command::Connect).unwrap();
        world.forget();
        world.send_content("bob", "alice", vote(MessageRef::theirs(poll.clone()), options));
        let told = world.only("alice", "message.poll_vote");
        assert_eq!((&told["selected"], &told["tally"]), (&json!(options), &expected));
    }
}

#[test]
fn a_vote_that_cannot_be_read_is_told() {
    let mut world = known();
    let poll = world.send_content("alice", "bob", lunch());
    world.crash("alice");
    world.actor("alice").lose(RecordKind::MessageSecret);
    world.start("alice");
    world.command("alice", wamd::engine::Command::Connect).unwrap();
    world.forget();
    let id = world.send_content("bob", "alice", vote(MessageRef::theirs(poll.clone()), &["Yes"]));
    let events = world.events("alice");
    let told = world::named(&events, "message.undecryptable");
    assert_eq!(told.len(), 1);
    let data = &told[0].data;
    assert_eq!((&data["reason"], &data["kind"]), (&json!("missing_secret"), &json!("poll_vote")));
    assert_eq!((&data["key"]["id"], &data["targetKey"]["id"]), (&json!(id.as_str()), &json!(poll.as_str())));
    assert_eq!((&data["hidden"], &data["willRetry"]), (&json!(true), &json!(false)));
    assert!(data["message"]["pollUpdateMessage"]["vote"]["encPayload"].is_string(), "what came is handed on");
    assert!(world::named(&events, "message.poll_vote").is_empty());
    assert_eq!(world.queued("alice"), 0, "it is acknowledged");
    // Nor can alice vote now.
    assert_eq!(world.refused("alice", "bob", vote(MessageRef::own(poll), &["Yes"])), CommandError::UnknownMessage);
}

#[test]
fn secrets_are_kept_for_their_time() {
    let mut world = known();
    let poll = world.send_content("alice", "bob", lunch());
    let vote = |options: &[&str]| vote(MessageRef::theirs(poll.clone()), options);
    world.sleep(89 * 86_400);
    world.send_content("bob", "alice", vote(&["Yes"]));
    assert_eq!(world.data("alice", "message.poll_vote").len(), 1);
    world.sleep(86_400);
    assert_eq!(world.refused("bob", "alice", vote(&["No"])), CommandError::UnknownMessage);
}

#[test]
fn what_is_no_option_is_refused() {
    let mut world = known();
    let poll = world.send_content("alice", "bob", lunch());
    let error = world.refused("bob", "alice", vote(MessageRef::theirs(poll), &["Maybe"]));
    assert_eq!(error, CommandError::Content("the poll has no such option"));
    for (question, options) in
        [("", &["a", "b"][..]), ("q", &["a"][..]), ("q", &["a", "a"][..]), ("q", &["a", ""][..]), ("q", &["a"; 13][..])]
    {
        assert!(build::poll(question, options, Choice::Single).is_err(), "{options:?}");
    }
    assert!(build::poll("q", &["a", "b"], Choice::UpTo(0)).is_err());
    let single = build::poll("q", &["a", "b"], Choice::Single).unwrap();
    assert_eq!(single.poll_creation_message_v3.unwrap().selectable_options_count, Some(1));
}

#[test]
fn a_poll_gets_more_options_and_another_question() {
    let mut world = known();
    let poll = world.send_content("alice", "bob", lunch());
    let phone = world.server.received("15550000002");
    let seen = phone.iter().find(|message| message.id == poll.as_str()).expect("bob's phone has it");
    let context = Message::decode(seen.message.clone()).unwrap().message_context_info.unwrap();
    let secret = Secret::from_slice(&context.message_secret.unwrap()).unwrap();
    world.forget();
    let (alice, bob) = (world.lid("alice"), world.lid("bob"));
    let key = |from_me| MessageKey {
        remote_jid: Some(alice.to_string()),
        from_me: Some(from_me),
        id: Some(poll.as_str().to_owned()),
        participant: None,
    };
    let about = Target { secret: &secret, id: poll.as_str(), author: Person::new(&alice) };
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    // Bob's phone adds an option to alice's poll.
    let option = poll_creation_message::Option { option_name: Some("Never".to_owned()), ..Default::default() };
    let add = PollAddOptionMessage { add_option: Some(Box::new(option)), ..Default::default() };
    let add = Message { poll_add_option_message: Some(Box::new(add)), ..Default::default() };
    let sealed = seal(&about, &bob, UseCase::PollAddOption, &add.encode_to_vec(), &mut rng);
    world.phone_sends_message("bob", "alice", &addon::carrier(UseCase::PollAddOption, key(false), sealed, 1));
    let told = world.only("alice", "message.updated");
    assert_eq!(told["messages"][0]["addedOption"], "Never");
    assert_eq!(told["messages"][0]["key"]["fromMe"], true);
    let votes =
        |names: &[&str]| addon::AddonContent::Vote(names.iter().map(|name| option_hash(name)).collect()).encode();
    let sealed = seal(&about, &bob, UseCase::PollVote, &votes(&["Never"]), &mut rng);
    world.phone_sends_message("bob", "alice", &addon::carrier(UseCase::PollVote, key(false), sealed, 1));
    let told = world.only("alice", "message.poll_vote");
    assert_eq!(told["selected"], json!(["Never"]));
    assert_eq!(told["tally"][3], json!({"name": "Never", "votes": 1}));
    // Twice the same option is one.
    let sealed = seal(&about, &bob, UseCase::PollAddOption, &add.encode_to_vec(), &mut rng);
    world.phone_sends_message("bob", "alice", &addon::carrier(UseCase::PollAddOption, key(false), sealed, 1));
    assert_eq!(world.data("alice", "message.updated").len(), 0);

    // Alice's phone changes the poll; votes stay with the options that stay.
    let changed = build::poll("Dinner?", &["Never", "Sure"], Choice::Any).unwrap();
    let sealed = seal(&about, &alice, UseCase::PollEdit, &changed.encode_to_vec(), &mut rng);
    let edit =
        addon::carrier(UseCase::PollEdit, MessageKey { remote_jid: Some(bob.to_string()), ..key(true) }, sealed, 1);
    world.phone_sends_message("alice", "bob", &edit);
    let told = world.only("bob", "message.updated");
    assert_eq!((&told["messages"][0]["edited"], &told["messages"][0]["text"]), (&json!(true), &json!("Dinner?")));
    let dinner = vote(MessageRef::theirs(poll.clone()), &["Sure"]);
    world.send_content("bob", "alice", dinner);
    let sealed = seal(&about, &alice, UseCase::PollVote, &votes(&["Never", "Sure"]), &mut rng);
    let key = MessageKey { remote_jid: Some(bob.to_string()), ..key(true) };
    world.phone_sends_message("alice", "bob", &addon::carrier(UseCase::PollVote, key, sealed, 1));
    let told = world.only("bob", "message.poll_vote");
    assert_eq!(told["tally"], json!([{"name": "Never", "votes": 1}, {"name": "Sure", "votes": 2}]));
}

/// The secret of a poll is found under whatever name its author, or the chat, is known by when the vote comes.
#[test]
fn a_vote_after_the_lid_became_known() {
    for (by, voter) in [("alice", "bob"), ("bob", "alice")] {
        let mut world = World::online(&["alice", "bob"]);
        for name in ["alice", "bob"] {
            let jid = world.jid(name);
            world.fault(Fault::HideLid { jid, on: true });
        }
        world.talk("alice", "bob");
        let poll = world.send_content(by, voter, lunch());
        for (name, other) in [("alice", "bob"), ("bob", "alice")] {
            assert_eq!(world.data(name, "lid_mapping.updated").len(), 0);
            let (pn, lid) = (world.jid(other), world.lid(other));
            world.fault(Fault::HideLid { jid: pn.clone(), on: false });
            let notice = Node::new("notification").attr("type", "devices").attr("id", "D").attr("from", pn);
            let notice = notice.attr("lid", lid).child(Node::new("update").attr("hash", "2:AAAAAAAA"));
            world.stanza_arrives(name, &notice);
            assert_eq!(world.data(name, "lid_mapping.updated").len(), 1);
        }
        world.send_content(voter, by, vote(MessageRef::theirs(poll.clone()), &["No"]));
        let told = world.only(by, "message.poll_vote");
        assert_eq!(told["selected"], json!(["No"]), "{by}");
    }
}

/// A vote that comes twice, or is spoiled and comes again, counts once.
#[test]
fn a_vote_counts_once_however_it_comes() {
    for what in [Damage::Duplicate, Damage::Corrupt, Damage::Unavailable { kind: None }, Damage::Behind { messages: 1 }]
    {
        let mut world = known();
        let poll = world.send_content("alice", "bob", lunch());
        world.forget();
        let jid = world.device("alice");
        world.fault(Fault::Delivery { jid, what: what.clone(), enc: None, id: None, every: 1, count: Some(1) });
        world.send_content("bob", "alice", vote(MessageRef::theirs(poll.clone()), &["Yes"]));
        world.send("bob", "alice", "behind it");
        world.advance_secs(60);
        let votes = world.data("alice", "message.poll_vote");
        assert_eq!(votes.len(), 1, "{what:?}");
        assert_eq!(votes[0]["tally"], tally(1, 0, 0), "{what:?}");
        world.send_content("bob", "alice", vote(MessageRef::theirs(poll), &["No"]));
        assert_eq!(world.only("alice", "message.poll_vote")["tally"], tally(0, 1, 0), "{what:?}");
    }
}
