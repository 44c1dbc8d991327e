//! Promise: what the server holds of our prekeys is compared with what we have; when it has nothing, it gets everything, and
//! nothing else is changed by it (spec 03 §1.5).

use crate::{vectors, world::World};
use wamd::{Jid, crypto::PublicKey, engine::Command, node::Node, stanza::iq::prekeys::key_hash};
use wamd_loopback::Fault;

/// What alice asked the server about her keys since the last call.
fn asked(world: &mut World, what: &str) -> usize {
    let heard = world.heard("alice");
    heard
        .iter()
        .filter(|node| node.find_child(what).is_some() && node.attr_str("xmlns").as_deref() == Some("encrypt"))
        .count()
}

fn wants_digest(id: &str) -> Node {
    let notification = Node::new("notification").attr("type", "encrypt").attr("from", Jid::whatsapp_server());
    notification.attr("id", id).child(Node::new("digest"))
}

#[test]
fn the_hash_of_the_vectors() {
    let file = vectors::vector("signal_misc.json");
    let vector = &file["prekey_digest"];
    let key = |value: &serde_json::Value| PublicKey::from_bytes(vectors::array(value));
    let signature = vectors::array(&vector["signature"]);
    let keys: Vec<PublicKey> = vector["one_time_pubs"].as_array().expect("keys").iter().map(key).collect();
    let hash = |keys: &[PublicKey]| {
        let hash = key_hash(&key(&vector["identity_pub"]), &key(&vector["signed_pre_key_pub"]), &signature, keys);
        hex::encode(hash)
    };
    assert_eq!(hash(&keys), vector["sha1"].as_str().expect("hex digits"));
    assert_eq!(hash(&[]), vector["sha1_empty_list"].as_str().expect("hex digits"));
}

#[test]
fn compared_when_the_server_wants_it_and_at_most_so_often() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.forget();
    let jid = world.device("alice");
    world.fault(Fault::AskDigest { jid });
    let heard = world.heard("alice");
    let is = |node: &&Node, what: &str| node.find_child(what).is_some();
    assert_eq!(heard.iter().filter(|node| is(node, "digest")).count(), 1);
    assert_eq!(heard.iter().filter(|node| is(node, "list")).count(), 0, "all is well: nothing is uploaded");
    for n in 0..10 {
        world.stanza_arrives("alice", &wants_digest(&format!("N{n}")));
    }
    assert_eq!(asked(&mut world, "digest"), 4, "five in ten minutes");
    world.advance_secs(601);
    world.stanza_arrives("alice", &wants_digest("N11"));
    assert_eq!(asked(&mut world, "digest"), 1);
}

#[test]
fn compared_once_a_day() {
    let mut world = World::online(&["alice"]);
    let reconnect = |world: &mut World| {
        world.command("alice", Command::Disconnect).unwrap();
        world.command("alice", Command::Connect).unwrap();
        asked(world, "digest")
    };
    assert_eq!(reconnect(&mut world), 0, "the server has just got them");
    world.advance_secs(86_400);
    assert_eq!(asked(&mut world, "digest"), 1, "while it is online");
    assert_eq!(reconnect(&mut world), 0);
    world.command("alice", Command::Disconnect).unwrap();
    world.advance_secs(86_400);
    world.crash_and_start("alice");
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(asked(&mut world, "digest"), 1, "with the first login of the day");
    assert_eq!(reconnect(&mut world), 0);
}

#[test]
fn a_server_without_keys_gets_all() {
    let mut world = World::online(&["alice", "bob"]);
    let jid = world.device("alice");
    let nothing =
        |code| Fault::AnswerIq { jid: jid.clone(), xmlns: "encrypt".to_owned(), code, backoff: None, count: 1 };
    world.fault(nothing(Some(404)));
    world.stanza_arrives("alice", &wants_digest("N1"));
    let heard = world.heard("alice");
    let upload = heard.iter().find(|node| node.find_child("list").is_some()).expect("an upload");
    for child in ["registration", "type", "identity", "skey"] {
        assert!(upload.find_child(child).is_some(), "{child}");
    }
    world.talk("alice", "bob");
    // Any other error changes nothing.
    for code in [406, 503] {
        world.forget();
        world.fault(nothing(Some(code)));
        world.stanza_arrives("alice", &wants_digest("N2"));
        assert_eq!(asked(&mut world, "list"), 0);
    }
    // Nor does a difference.
    world.forget();
    world.fault(nothing(None));
    world.stanza_arrives("alice", &wants_digest("N3"));
    let heard = world.heard("alice");
    let query = heard.iter().find(|node| node.find_child("digest").is_some()).expect("a question");
    let answer = Node::new("iq").attr("type", "result").attr("from", Jid::whatsapp_server());
    let digest = Node::new("digest").child(Node::new("list").child(Node::new("id").bytes(vec![9, 9, 9])));
    let digest = digest.child(Node::new("hash").bytes(vec![0; 20]));
    let answer = answer.attr("id", query.attr_str("id").unwrap().into_owned()).child(digest);
    world.stanza_arrives("alice", &answer);
    assert_eq!(asked(&mut world, "list"), 0);
    assert_eq!(world.state("alice"), "CONNECTED");
    world.talk("bob", "alice");
}
