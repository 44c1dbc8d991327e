//! Status posts arrive as messages of their author, and nobody is asked for one that nobody sees any more (spec 03 §5.4,
//! §5.5).

use crate::puppet::{Puppet, SENT, enc, in_chat, online, text};
use crate::world;
use serde_json::json;
use wamd::{Jid, message::build, node::Node};

fn author() -> Jid {
    Jid::lid("77777777777777").with_device(2)
}

#[test]
fn a_status_is_told_and_confirmed_as_one() {
    for is_online in [false, true] {
        let (mut world, upload) = match is_online {
            false => online(&["alice"]),
            true => {
                let mut world = world::World::new(&[]);
                world.add("alice", "15550000001", |config| config.online = true);
                world.settle();
                world.link("alice");
                let heard = world.heard("alice");
                let upload = heard.iter().find(|node| node.is("iq") && node.find_child("skey").is_some()).unwrap();
                (world, upload.clone())
            }
        };
        let mut sender = Puppet::new(&author(), &upload, 1);
        world.forget();
        let feed = Jid::status_broadcast();
        let key = sender.key_for(&feed);
        let stanza =
            in_chat(&feed, &author(), "A").child(sender.tell(&key)).child(sender.tell_all(&feed, &text("sun")));
        world.stanza_arrives("alice", &stanza);
        let message = world.only("alice", "message.received")["messages"][0].clone();
        assert_eq!(
            (&message["key"]["remoteJid"], &message["key"]["participant"], &message["broadcast"], &message["text"]),
            (&json!("status@broadcast"), &json!("77777777777777@lid"), &json!(true), &json!("sun"))
        );
        let heard = world.heard("alice");
        assert_eq!(heard.len(), 1);
        for (name, value) in [
            ("id", Some("A".to_owned())),
            ("to", Some("status@broadcast".to_owned())),
            ("participant", Some(author().to_string())),
            ("context", Some("status".to_owned())),
            ("type", None),
        ] {
            assert_eq!(heard[0].attr_str(name).map(|text| text.into_owned()), value, "{name}, online: {is_online}");
        }
    }
}

#[test]
fn an_own_status_is_a_sent_message() {
    let (mut world, upload) = online(&["alice"]);
    let own = world.lid("alice");
    let mut phone = Puppet::new(&own, &upload, 1);
    let feed = Jid::status_broadcast();
    let copy = build::device_sent(&feed, text("ours"));
    let audience = Node::new("participants").child(Node::new("to").attr("jid", author().to_bare()));
    world.stanza_arrives("alice", &in_chat(&feed, &own, "A").child(phone.tell(&copy)).child(audience));
    let message = world.only("alice", "message.sent")["messages"][0].clone();
    assert_eq!((&message["key"]["remoteJid"], &message["source"]), (&json!("status@broadcast"), &json!("device")));
}

#[test]
fn a_status_of_yesterday_is_not_asked_for() {
    let (mut world, _) = online(&["alice"]);
    for (id, age, asks) in [("A", 24 * 3_600, true), ("B", 24 * 3_600 + 1, false)] {
        let stanza = Node::new("message").attr("from", Jid::status_broadcast()).attr("participant", author());
        let stanza = stanza.attr("id", id).attr("t", SENT - age).child(enc("skmsg", vec![0x33; 100]));
        world.stanza_arrives("alice", &stanza);
        let heard = world.heard("alice");
        let tags: Vec<_> = heard.iter().map(Node::tag).collect();
        assert_eq!(tags, if asks { vec!["receipt", "ack"] } else { vec!["ack"] }, "{age}");
    }
}
