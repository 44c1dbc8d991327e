//! Whoever a stanza shows under both identities is known by both before anything else is told of it, whatever kind of stanza
//! it is (spec 03 §4.10).

use crate::world::World;
use serde_json::{Value, json};
use wamd::{Jid, node::Node};

fn lid(n: u32) -> Jid {
    Jid::lid(format!("7777777777{n:04}"))
}

fn pn(n: u32) -> Jid {
    Jid::pn(format!("1555999{n:04}"))
}

#[test]
fn every_kind_of_stanza_tells_who_is_who() {
    let mut world = World::online(&["alice"]);
    let group: Jid = "120363041234567890@g.us".parse().unwrap();
    let enc = || Node::new("enc").attr("v", "2").attr("type", "msg").bytes(vec![0x33; 60]);
    let of = |tag: &str, n: u32| Node::new(tag).attr("id", format!("I{n}")).attr("t", 1_760_000_000);
    let stanzas = [
        of("message", 1).attr("from", lid(1).with_device(3)).attr("sender_pn", pn(1)).child(enc()),
        of("message", 2).attr("from", pn(2)).attr("sender_lid", lid(2).with_device(7)).child(enc()),
        of("message", 3).attr("from", &group).attr("participant", lid(3)).attr("participant_pn", pn(3)).child(enc()),
        of("receipt", 4).attr("from", lid(4)).attr("sender_pn", pn(4)),
        of("receipt", 5).attr("from", &group).attr("participant", pn(5)).attr("participant_lid", lid(5)),
        of("receipt", 6)
            .attr("from", world.lid("alice").with_device(9))
            .attr("recipient", lid(6))
            .attr("recipient_pn", pn(6)),
        of("notification", 7).attr("from", lid(7)).attr("type", "picture").attr("sender_pn", pn(7)),
        of("notification", 8)
            .attr("from", &group)
            .attr("type", "something")
            .attr("participant", lid(8))
            .attr("participant_pn", pn(8)),
        of("call", 9)
            .attr("from", lid(9))
            .child(Node::new("offer").attr("call-id", "C").attr("call-creator", lid(9)).attr("caller_pn", pn(9))),
    ];
    for (n, stanza) in (1..).zip(stanzas) {
        world.forget();
        world.stanza_arrives("alice", &stanza);
        let events = world.events("alice");
        let first = events.first().unwrap_or_else(|| panic!("nothing was learnt from {stanza:?}"));
        assert_eq!(first.event, "lid_mapping.updated", "{stanza:?}");
        let (lid, pn) = (json!(lid(n).to_string()), json!(pn(n).to_string()));
        assert_eq!((&first.data["lid"], &first.data["pn"]), (&lid, &pn), "{stanza:?}");
        let acks = world.heard("alice").iter().filter(|node| node.is("ack")).count();
        assert_eq!(acks, 1, "{stanza:?}");
        // Once.
        world.stanza_arrives("alice", &stanza);
        assert_eq!(world.data("alice", "lid_mapping.updated"), [Value::Null; 0]);
    }
}
