//! What others can and cannot bring about, and loads that are far from ordinary: nobody changes who somebody else is,
//! nothing spins, nothing overflows, and nobody gets what was not addressed to him.

#[path = "common/world.rs"]
mod world;

use wamd::{
    engine::Command,
    event::Envelope,
};
use world::{World, text_of};

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
