//! Whatever a client sends ends at most its own connection.

mod common;

use bytes::{Bytes, BytesMut};
use common::many::group_server;
use common::{Device, World, ack, fan_out, iq, leaf, receipt};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng as _};
use wamd::jid::Jid;
use wamd::node::{AttrValue, Node, NodeContent};
use wamd::noise::frame;
use wamd_loopback::{Config, ConnId, GroupChange, GroupSpec, Input, Output};

fn random(rng: &mut ChaCha20Rng, max: u32) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(rng.next_u32() % max).unwrap()];
    rng.fill_bytes(&mut bytes);
    bytes
}

/// One of the alternatives, at random.
fn pick<'a, T>(rng: &mut ChaCha20Rng, from: &'a [T]) -> &'a T {
    &from[usize::try_from(rng.next_u32()).unwrap() % from.len()]
}

#[test]
fn garbage_before_and_in_the_handshake_closes_the_connection() {
    let mut rng = ChaCha20Rng::from_seed([1; 32]);
    let mut world = World::new(Config::default(), 1);
    for round in 0..2_000 {
        let id = ConnId(10_000 + round);
        world.feed(Input::Opened(id));
        let mut bytes = BytesMut::new();
        match round % 4 {
            0 => bytes.extend_from_slice(&random(&mut rng, 100)),
            1 => {
                bytes.extend_from_slice(&frame::intro(None));
                bytes.extend_from_slice(&random(&mut rng, 100));
            }
            2 => {
                bytes.extend_from_slice(&frame::intro(Some(&[1])));
                frame::encode(&random(&mut rng, 200), &mut bytes).unwrap();
            }
            // A client hello (field 2) with an ephemeral key and noise where static and payload should be.
            _ => {
                bytes.extend_from_slice(&frame::intro(None));
                let mut key = [7; 32];
                rng.fill_bytes(&mut key);
                let hello = [&[0x12, 38, 0x0a, 32][..], &key, &[0x12, 1, 0, 0x1a][..], &random(&mut rng, 3)].concat();
                frame::encode(&hello, &mut bytes).unwrap();
            }
        }
        world.feed(Input::Bytes(id, bytes.freeze()));
        world.feed(Input::Bytes(id, random(&mut rng, 50).into()));
        world.feed(Input::Closed(id));
    }
    world.feed(Input::Bytes(ConnId(10_001), Bytes::from_static(b"after the end")));
    world.feed(Input::Closed(ConnId(77_777)));
    world.link(&mut Device::new(1), "15550000001");
}

#[test]
fn a_frame_that_is_not_sealed_closes_the_connection() {
    let mut world = World::new(Config::default(), 1);
    let mut device = Device::new(1);
    let client = world.ready(&mut device, "15550000001");
    let mut bytes = BytesMut::new();
    frame::encode(&[0; 40], &mut bytes).unwrap();
    world.feed(Input::Bytes(client.id, bytes.freeze()));
    assert!(world.is_closed(&client));
    assert!(!world.server.accounts()[0].devices[0].connected);
}

#[test]
fn mutated_stanzas_harm_nobody_else() {
    let mut rng = ChaCha20Rng::from_seed([2; 32]);
    let mut world = World::new(Config::default(), 1);
    let (mut alice, mut bob) = (Device::new(1), Device::new(2));
    let mut alice_client = world.ready(&mut alice, "15550000001");
    let _bob_client = world.ready(&mut bob, "15550000002");
    let enc = Node::new("enc").attr("v", "2").attr("type", "pkmsg").bytes(vec![3, 1, 2]);
    let message =
        fan_out("M", &bob.lid().to_bare(), vec![(bob.lid(), enc.clone()), (bob.lid().to_bare(), enc.clone())], &alice);
    let user = Node::new("user").attr("jid", bob.lid()).child(Node::new("contact").bytes("+15550000002"));
    let usync = Node::new("usync")
        .child(Node::new("query").child(Node::new("devices")).child(Node::new("contact")))
        .child(Node::new("list").child(user.clone()));
    let carol = world.server.phone(world.now, "15550000003").unwrap().lid;
    let spec = GroupSpec {
        creator: "15550000001".to_owned(),
        subject: "G".to_owned(),
        members: vec![bob.lid().to_bare(), carol],
        ..GroupSpec::default()
    };
    let group = world.server.create_group(world.now, &spec).unwrap().jid;
    world.drain();
    let participant = Node::new("participant").attr("jid", bob.lid().to_bare());
    let to_group = |kind: &str, id: &str| iq(kind, "w:g2").attr("to", &group).attr("id", id);
    let group_message = alice.group_message("G", &group, "lid", &[], "x");
    let targets = Node::new("participants").child(Node::new("to").attr("jid", bob.lid()).child(enc.clone()));
    let status = group_message.clone().attr("to", Jid::status_broadcast()).child(targets.clone());
    let status =
        Node { attrs: status.attrs.iter().filter(|(name, _)| name != "addressing_mode").cloned().collect(), ..status };
    let templates = [
        group_message.clone().child(targets),
        status,
        Node::new("message").attr("to", &group).attr("id", "A").attr("participant", bob.lid()).child(enc.clone()),
        receipt(&group_message, Some("retry")).attr("to", &group).attr("participant", bob.lid()),
        to_group("get", "6").child(Node::new("query").attr("request", "interactive")),
        to_group("set", "7").child(Node::new("add").child(participant.clone())),
        to_group("set", "8").child(Node::new("promote").child(participant.clone())),
        to_group("set", "9").child(Node::new("description").attr("id", "A").child(leaf("body", b"x"))),
        to_group("set", "10").child(Node::new("ephemeral").attr("expiration", "5")),
        to_group("set", "11")
            .child(Node::new("links").child(Node::new("link").child(Node::new("group").attr("jid", &group)))),
        iq("set", "w:g2")
            .attr("to", group_server())
            .attr("id", "12")
            .child(Node::new("create").attr("subject", "H").child(participant).child(Node::new("parent"))),
        iq("set", "w:g2")
            .attr("to", group_server())
            .attr("id", "13")
            .child(Node::new("leave").child(Node::new("group").attr("id", &group))),
        iq("set", "privacy")
            .attr("id", "14")
            .child(Node::new("tokens").child(Node::new("token").attr("jid", bob.lid()).attr("t", "1"))),
        receipt(&message, Some("retry")).child(Node::new("retry").attr("count", "1")).attr("from", bob.lid()),
        ack(&message),
        message,
        iq("get", "usync").attr("id", "1").child(usync),
        iq("get", "encrypt").attr("id", "2").child(Node::new("key").child(user)),
        alice.upload(2).attr("id", "3"),
        iq("set", "w:sync:app:state").attr("id", "4").child(Node::new("sync").child(Node::new("collection"))),
        Node::new("presence").attr("name", "x"),
        iq("set", "md").attr("id", "5").child(Node::new("remove-companion-device").attr("jid", bob.lid())),
    ];
    let tags = ["enc", "to", "participants", "user", "list", "key", "id", "value", "skey", "query", "message", "x"];
    let texts = ["", "0", "-1", "99999999999999999999", "peer", "read", "retry", "pkmsg", "\u{10FFFF}"];
    let jids: Vec<Jid> =
        ["s.whatsapp.net", "g.us", "15550000002:98@s.whatsapp.net", "1@lid", "15550000001@s.whatsapp.net"]
            .iter()
            .map(|jid| jid.parse().unwrap())
            .collect();
    for round in 0..8_000 {
        // Whoever has left by chance is back soon.
        if round % 20 == 0 {
            let add = GroupChange::Add { participants: vec![alice.lid(), bob.lid()] };
            let _ = world.server.change_group(world.now, &group, None, add);
            world.drain();
        }
        let mut node = pick(&mut rng, &templates).clone();
        for _ in 0..=rng.next_u32() % 3 {
            mutate(&mut node, &mut rng, &tags, &texts, &jids);
        }
        if node.encode().is_ok() {
            world.send(&mut alice_client, &node);
        }
        while world.next(&mut alice_client).is_some() {}
        if world.is_closed(&alice_client) {
            alice_client = world.login(&mut alice, false);
        }
    }
    let bobs = world.server.accounts()[1].devices.len();
    assert_eq!(bobs, 1, "Alice cannot unlink Bob");
    assert!(world.server.groups().iter().any(|known| known.jid == group));
    assert!(!world.trace.iter().any(|output| matches!(output, Output::Close(id) if *id == _bob_client.id)));
}

/// Changes something somewhere in the tree.
fn mutate(node: &mut Node, rng: &mut ChaCha20Rng, tags: &[&str], texts: &[&str], jids: &[Jid]) {
    if let NodeContent::Nodes(children) = &mut node.content
        && !children.is_empty()
        && !rng.next_u32().is_multiple_of(3)
    {
        let index = usize::try_from(rng.next_u32()).unwrap() % children.len();
        return mutate(&mut children[index], rng, tags, texts, jids);
    }
    let keep_first = usize::from(!node.attrs.is_empty());
    match rng.next_u32() % 7 {
        0 => node.content = NodeContent::None,
        1 => node.content = NodeContent::Bytes(random(rng, 80).into()),
        2 => node.tag = (*pick(rng, tags)).into(),
        3 => node.attrs.truncate(keep_first),
        4 => {
            let value = AttrValue::from(*pick(rng, texts));
            if let Some(attr) = node.attrs.last_mut() {
                attr.1 = value;
            }
        }
        5 => {
            let value = AttrValue::from(pick(rng, jids));
            if let Some(attr) = node.attrs.first_mut() {
                attr.1 = value;
            }
        }
        _ => {
            let tag = *pick(rng, tags);
            *node = node.clone().child(Node::new(tag).attr("jid", pick(rng, jids)));
        }
    }
}
