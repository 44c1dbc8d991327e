//! Replies of bots are read with the secret of the message that they answer, whoever asked under whatever identity, piece by
//! piece, each told once (spec 03 §5.8).

use crate::puppet::{Puppet, enc, in_chat, online, stanza, text};
use crate::world::{World, text_of};
use bytes::Bytes;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use serde_json::json;
use wamd::{
    Jid,
    crypto::Secret,
    engine::Command,
    event::Envelope,
    message::secret::bot::{bot_secret, seal_reply},
    node::Node,
    proto::{Message as _, e2e},
};

const SECRET: [u8; 32] = [0x42; 32];
/// The message of the user that the bot answers.
const QUESTION: &str = "3EB0QUESTION";

fn bot() -> Jid {
    "867051314767696@bot".parse().unwrap()
}

fn group() -> Jid {
    "120363041234567890@g.us".parse().unwrap()
}

fn member() -> Jid {
    Jid::lid("77777777777777").with_device(3)
}

fn question() -> e2e::Message {
    let context = e2e::MessageContextInfo {
        message_secret: Some(Bytes::copy_from_slice(&SECRET)),
        ..e2e::MessageContextInfo::default()
    };
    e2e::Message { message_context_info: Some(Box::new(context)), ..text("what is the weather?") }
}

/// A piece of a reply: its stanza, without where it comes from.
struct Piece<'a> {
    id: &'a str,
    /// The id that the key is made with.
    made_with: &'a str,
    asker: &'a Jid,
    secret: [u8; 32],
    content: &'a [u8],
}

impl Piece<'_> {
    fn enc(&self, bot: &Jid) -> Node {
        let mut rng = ChaCha20Rng::from_seed([9; 32]);
        let secret = bot_secret(&Secret::new(self.secret));
        let sealed = seal_reply(&secret, self.made_with, self.asker, bot, self.content, &mut rng);
        enc("msmsg", sealed)
    }
}

fn meta(target: &str) -> Node {
    Node::new("meta").attr("target_id", target)
}

fn edit(kind: &str, first: &str) -> Node {
    Node::new("bot").attr("edit", kind).attr("edit_target_id", first)
}

fn texts(world: &mut World) -> Vec<String> {
    let of_piece = |event: &Envelope| match text_of(event) {
        None if event.event == "message.updated" => {
            let message = &event.data["messages"][0];
            assert_eq!((&message["key"]["id"], &message["edited"]), (&json!("FIRST"), &json!(true)));
            assert_ne!(message["bot"]["edit"], json!(null));
            message["text"].as_str().map(str::to_owned)
        }
        text => text.map(str::to_owned),
    };
    world.events("alice").iter().filter_map(of_piece).collect()
}

/// Tag and error of what alice answered since the last call.
fn answers(world: &mut World) -> Vec<(String, Option<u64>)> {
    world.heard("alice").iter().map(|node| (node.tag().to_owned(), node.attr_u64("error"))).collect()
}

/// Alice asked the bot from another device of hers, in a chat with it.
fn asked() -> World {
    let (mut world, upload) = online(&["alice"]);
    let own = world.lid("alice");
    let mut phone = Puppet::new(&own, &upload, 1);
    let copy = wamd::message::build::device_sent(&bot(), question());
    let copy = phone.tell(&copy);
    world.stanza_arrives("alice", &stanza(&own, QUESTION).attr("recipient", bot()).child(copy));
    assert_eq!(world.only("alice", "message.sent")["messages"][0]["key"]["id"], QUESTION);
    world.forget();
    world
}

#[test]
fn a_reply_comes_in_pieces_and_each_is_told_once() {
    let mut world = asked();
    let own = world.lid("alice");
    let piece = |id: &'static str, content: &str| {
        let content = text(content).encode_to_vec();
        Piece { id, made_with: "FIRST", asker: &own, secret: SECRET, content: &content }.enc(&bot())
    };
    let pieces = [
        ("FIRST", edit("first", "FIRST"), "sun"),
        ("SECOND", edit("inner", "FIRST"), "sunny"),
        ("THIRD", edit("last", "FIRST"), "sunny."),
    ];
    for (id, bot_node, content) in pieces {
        let arriving = stanza(&bot(), id).child(meta(QUESTION)).child(bot_node).child(piece(id, content));
        for again in [false, true] {
            world.stanza_arrives("alice", &arriving);
            assert_eq!(texts(&mut world), if again { vec![] } else { vec![content.to_owned()] });
            assert_eq!(answers(&mut world), [("receipt".to_owned(), None)]);
        }
    }
    // After a restart the secret is there still.
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    world.forget();
    let late = stanza(&bot(), "FOURTH").child(meta(QUESTION)).child(edit("inner", "FIRST"));
    world.stanza_arrives("alice", &late.child(piece("FOURTH", "and warm")));
    assert_eq!(texts(&mut world), ["and warm"]);
}

#[test]
fn every_spelling_of_the_asker_and_either_id_is_tried() {
    let mut world = asked();
    let (lid, pn) = (world.lid("alice"), world.jid("alice"));
    let mut number = 0;
    for asker in [&lid, &pn] {
        for named in [None, Some(&lid), Some(&pn)] {
            for by_first in [false, true] {
                number += 1;
                let id = format!("R{number}");
                let content = text(&id).encode_to_vec();
                let made_with = if by_first { "FIRST" } else { &id };
                let piece = Piece { id: &id, made_with, asker, secret: SECRET, content: &content };
                let meta = meta(QUESTION).attr_opt("target_sender_jid", named);
                let arriving = stanza(&bot(), piece.id).child(meta).child(edit("inner", "FIRST"));
                world.stanza_arrives("alice", &arriving.child(piece.enc(&bot())));
                assert_eq!(texts(&mut world), [id], "{asker} {named:?} {by_first}");
            }
        }
    }
}

#[test]
fn in_a_group_the_bot_answers_whoever_asked() {
    let (mut world, upload) = online(&["alice"]);
    let mut asker = Puppet::new(&member(), &upload, 1);
    let key = asker.key_for(&group());
    let stanza = in_chat(&group(), &member(), QUESTION).child(asker.tell(&key));
    world.stanza_arrives("alice", &stanza.child(asker.tell_all(&group(), &question())));
    world.forget();
    let (content, of) = (text("sunny").encode_to_vec(), member().to_bare());
    let piece = Piece { id: "REPLY", made_with: "REPLY", asker: &of, secret: SECRET, content: &content };
    let meta = meta(QUESTION).attr("target_sender_jid", &of);
    world.stanza_arrives("alice", &in_chat(&group(), &bot(), piece.id).child(meta).child(piece.enc(&bot())));
    let message = world.only("alice", "message.received")["messages"][0].clone();
    assert_eq!(
        (&message["key"]["remoteJid"], &message["key"]["participant"], &message["text"]),
        (&json!(group().to_string()), &json!(bot().to_string()), &json!("sunny"))
    );
    // Told, and no message that was delivered to us.
    assert_eq!(answers(&mut world), [("ack".to_owned(), None)]);
}

#[test]
fn a_bot_answers_in_the_chat_where_it_was_asked() {
    let (mut world, upload) = online(&["alice"]);
    let mut asker = Puppet::new(&member(), &upload, 1);
    let content = asker.tell(&question());
    world.stanza_arrives("alice", &stanza(&member(), QUESTION).child(content));
    world.forget();
    let (content, of) = (text("sunny").encode_to_vec(), member().to_bare());
    let piece = Piece { id: "REPLY", made_with: "REPLY", asker: &of, secret: SECRET, content: &content };
    let meta = meta(QUESTION).attr("target_sender_jid", &of).attr("target_chat_jid", &of);
    world.stanza_arrives("alice", &stanza(&bot(), piece.id).child(meta).child(piece.enc(&bot())));
    let key = world.only("alice", "message.received")["messages"][0]["key"].clone();
    assert_eq!((&key["remoteJid"], &key["participant"]), (&json!(of.to_string()), &json!(bot().to_string())));
    assert_eq!(answers(&mut world), [("ack".to_owned(), None)]);
}

#[test]
fn without_the_secret_it_is_refused_and_told_once() {
    let mut world = asked();
    let own = world.lid("alice");
    let content = text("sunny").encode_to_vec();
    let piece = |secret| Piece { id: "R", made_with: "R", asker: &own, secret, content: &content }.enc(&bot());
    let nack = ("ack".to_owned(), Some(495));
    let long = "Q".repeat(129);
    for (id, arriving, reason, answer) in [
        ("A", Some(meta("3EB0UNKNOWN")), "no_message_secret", &nack),
        ("B", None, "no_message_secret", &nack),
        ("C", Some(meta(&long)), "no_message_secret", &nack),
        ("D", Some(meta(QUESTION).attr("target_sender_jid", member())), "no_message_secret", &nack),
    ] {
        let arriving = stanza(&bot(), id).children(arriving).child(piece(SECRET));
        for again in [false, true] {
            world.stanza_arrives("alice", &arriving);
            let told = world.data("alice", "message.undecryptable");
            assert_eq!(told.len(), usize::from(!again), "{id}");
            assert!(told.iter().all(|told| told["reason"] == reason && told["willRetry"] == false));
            assert_eq!(answers(&mut world), std::slice::from_ref(answer), "{id}");
        }
    }
    // Another secret, or no ciphertext at all: nobody would send it again.
    for (id, spoiled) in [("E", piece([7; 32])), ("F", enc("msmsg", vec![0xff; 40])), ("G", enc("msmsg", Vec::new()))] {
        world.stanza_arrives("alice", &stanza(&bot(), id).child(meta(QUESTION)).child(spoiled));
        assert_eq!(world.only("alice", "message.undecryptable")["willRetry"], false);
        assert_eq!(answers(&mut world), [("ack".to_owned(), None)]);
    }
    // Bytes that are no message.
    let garbage = Piece { id: "H", made_with: "H", asker: &own, secret: SECRET, content: &[0xff; 12] }.enc(&bot());
    world.stanza_arrives("alice", &stanza(&bot(), "H").child(meta(QUESTION)).child(garbage));
    assert_eq!(answers(&mut world), [("ack".to_owned(), Some(491))]);
}
