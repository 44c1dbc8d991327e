//! What others can and cannot bring about, and loads that are far from ordinary: nobody changes who somebody else is,
//! nothing spins, nothing overflows, and nobody gets what was not addressed to him.

#[path = "common/world.rs"]
mod world;

use wamd::{Jid, engine::Command, event::Envelope, node::Node, store::RecordKind};
use world::{World, text_of};

/// Nobody that anybody here knows.
const STRANGER: &str = "15559990000";

fn texts(events: &[Envelope]) -> Vec<&str> {
    events.iter().filter_map(text_of).collect()
}

// ---- loads ----------------------------------------------------------------------------------------------------------

#[test]
fn a_thousand_sends_to_one_chat_go_out_at_once() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    world.command("alice", Command::Disconnect).unwrap();
    world.forget();
    for n in 0..1_000 {
        world.send("alice", "bob", &n.to_string());
    }
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(texts(&world.events("bob")).len(), 1_000);
    assert_eq!(world.snapshot("alice").sends, 0);
}

#[test]
fn more_chats_at_once_than_the_cache_holds() {
    let mut world = World::new(&["bob"]);
    world.add("alice", "15550000009", |config| config.cache_bytes = 8 * 1024);
    world.settle();
    world.link("bob");
    world.link("alice");
    let strangers: Vec<_> = (0..40).map(|n| format!("1555777{n:04}")).collect();
    for stranger in &strangers {
        world.phone_sends(stranger, "alice", "known");
    }
    world.crash("alice");
    world.forget();
    for stranger in &strangers {
        world.phone_sends(stranger, "alice", "hello");
    }
    world.start("alice");
    world.command("alice", Command::Connect).unwrap();
    assert_eq!(texts(&world.events("alice")).len(), strangers.len());
}

// ---- who is who -----------------------------------------------------------------------------------------------------

/// Which identities alice takes for one person, as texts.
fn mappings(world: &mut World) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    world.actor("alice").records(RecordKind::LidMap).iter().map(|(key, value)| (text(&key.id), text(value))).collect()
}

/// A message that cannot be read, from a sender with this other identity.
fn unreadable(from: &Jid, alt: (&'static str, &Jid), id: &str) -> Node {
    let enc = Node::new("enc").attr("v", "2").attr("type", "msg").bytes(vec![0x33; 20]);
    let message = Node::new("message").attr("from", from).attr("id", id).attr("t", 1_760_000_000);
    message.attr(alt.0, alt.1).child(enc)
}

#[test]
fn nobody_becomes_our_own_account() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    let before = mappings(&mut world);
    let (own_pn, own_lid) = (world.jid("alice"), world.lid("alice"));
    let (pn, lid) = (Jid::pn(STRANGER), Jid::lid("77777777777777"));
    world.forget();
    world.stanza_arrives("alice", &unreadable(&pn, ("sender_lid", &own_lid), "A"));
    world.stanza_arrives("alice", &unreadable(&lid, ("sender_pn", &own_pn), "B"));
    let changed = Node::new("notification").attr("type", "devices").attr("id", "C");
    world.stanza_arrives("alice", &changed.clone().attr("from", &own_pn).attr("lid", &lid));
    world.stanza_arrives("alice", &changed.attr("from", &pn).attr("lid", &own_lid));
    assert_eq!(mappings(&mut world), before);
    assert_eq!(world.data("alice", "lid_mapping.updated").len(), 0);
    world.talk("alice", "bob");
    // A note to self stays with the own devices, and what goes to the stranger goes to the stranger.
    world.phone_sends(STRANGER, "alice", "it is me");
    world.heard("alice");
    world.send_to("alice", &pn, "secret of alice");
    let sent: Vec<_> = world.heard("alice").into_iter().filter(|node| node.is("message")).collect();
    assert_eq!(sent.len(), 1);
    let account = world.server.accounts().into_iter().find(|account| account.number == STRANGER).unwrap();
    assert_eq!(sent[0].attr_jid("to"), Some(account.lid));
    let own = world.server.received("15550000001");
    assert!(own.iter().all(|message| message.recipient.as_ref() != Some(&own_lid)), "no copy went astray: {own:?}");
}

#[test]
fn an_identity_belongs_to_one_person() {
    let mut world = World::online(&["alice", "bob"]);
    world.talk("alice", "bob");
    let (bob, lid) = (world.jid("bob"), world.lid("bob"));
    // The number was given away, and the LID with it: the newest word counts.
    let pn = Jid::pn(STRANGER);
    world.stanza_arrives("alice", &unreadable(&pn, ("sender_lid", &lid), "A"));
    let known = mappings(&mut world);
    assert!(known.contains(&(pn.to_string(), lid.to_string())) && known.contains(&(lid.to_string(), pn.to_string())));
    assert!(!known.iter().any(|(key, _)| *key == bob.to_string()), "bob is not asked for under the LID of another");
    world.talk("alice", "bob");
}
