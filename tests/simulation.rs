//! Several accounts with several devices each, their phones among them, write to each other and to groups, while a seeded
//! scheduler decides what happens next and what goes wrong. Promised is, whatever the seed:
//!
//! - Every message that the server accepted is received exactly once by every device of everybody it was for, as far as the
//!   device was there when it was sent, its sender could know of it, and neither was removed before it got it.
//! - A message that failed reached nobody. The sender is told one of the two, once.
//! - No message key makes two ciphertexts, in pairwise sessions and under sender keys: looked for in every stanza.
//! - No device is asked more than five times for one message, and nothing is acknowledged before its event is durable.
//! - Everything comes to rest.
//!
//! Each kind of trouble is a field of `Chaos` with a range of seeds of its own here. A failing seed is named;
//! `WAMD_SEEDS=from..to cargo test --release --test simulation NAME` runs it, or others, again.

#[path = "common/sim/mod.rs"]
mod sim;

use sim::{Chaos, Sim, each_seed};
use wamd_loopback::GroupMode;

const ALICE: &str = "15550000001";
const BOB: &str = "15550000002";
const CAROL: &str = "15550000003";
/// The linked devices; Bob has two.
const DEVICES: [(&str, &str); 4] = [("alice", ALICE), ("bob", BOB), ("bob 2", BOB), ("carol", CAROL)];

/// Everybody is linked, there is a group of each addressing mode, and everybody writes while things go wrong. Then
/// everything must have arrived.
fn talk(seed: u64, messages: usize, chaos: Chaos) -> Sim {
    let mut sim = Sim::new(seed, &DEVICES);
    sim.link_all();
    sim.create_group(GroupMode::Lid, &[ALICE, BOB, CAROL]);
    sim.create_group(GroupMode::Pn, &[ALICE, BOB]);
    // Everybody has written with everybody else, and so hears of changes.
    sim.greet();
    sim.settle();
    sim.chaos = chaos;
    for round in 0..messages {
        sim.say_something(&format!("message {round}"));
        let steps = u32::try_from(sim.pick(150)).expect("few");
        sim.run(steps, |_| false);
    }
    sim.settle();
    sim.check_delivered();
    sim.check_retries();
    sim
}

#[test]
fn without_trouble_everything_arrives_in_order() {
    each_seed(0..50, |seed| {
        talk(seed, 12, Chaos::default()).check_settled();
    });
}

#[test]
fn cut_wires_and_crashes_lose_nothing() {
    each_seed(10_000..10_200, |seed| {
        talk(seed, 10, Chaos { crash: 60, cut: 60, ..Chaos::default() });
    });
}

#[test]
fn lost_keys_heal_by_asking_again() {
    each_seed(20_000..20_200, |seed| {
        talk(seed, 10, Chaos { wipe: 150, ..Chaos::default() });
    });
}

#[test]
fn messages_that_come_twice_are_told_once() {
    each_seed(30_000..30_150, |seed| {
        talk(seed, 10, Chaos { duplicate: 3, replay: 40, ..Chaos::default() });
    });
}

#[test]
fn late_messages_arrive() {
    each_seed(40_000..40_150, |seed| {
        talk(seed, 10, Chaos { delay: 3, ..Chaos::default() });
    });
}

#[test]
fn messages_in_another_order_arrive() {
    each_seed(50_000..50_200, |seed| {
        talk(seed, 12, Chaos { reorder: 3, ..Chaos::default() });
    });
}

#[test]
fn spoilt_ciphertexts_heal_by_asking_again() {
    each_seed(60_000..60_200, |seed| {
        talk(seed, 10, Chaos { corrupt: 5, lose: 5, ..Chaos::default() });
    });
}

#[test]
fn the_phone_gives_what_is_withheld() {
    each_seed(70_000..70_100, |seed| {
        talk(seed, 10, Chaos { hide: 4, ..Chaos::default() });
    });
}

#[test]
fn refused_messages_reach_nobody_and_unacknowledged_ones_everybody() {
    each_seed(80_000..80_150, |seed| {
        talk(seed, 10, Chaos { refuse: 4, unacked: 4, cut: 200, ..Chaos::default() });
    });
}

#[test]
fn devices_without_prekeys_are_reached() {
    each_seed(90_000..90_150, |seed| {
        talk(seed, 10, Chaos { exhaust: 40, wipe: 200, ..Chaos::default() });
    });
}

#[test]
fn devices_come_and_go() {
    each_seed(100_000..100_150, |seed| {
        talk(seed, 10, Chaos { relink: 250, ..Chaos::default() });
    });
}

#[test]
fn accounts_that_register_again_are_reached() {
    each_seed(110_000..110_150, |seed| {
        talk(seed, 10, Chaos { reregister: 300, ..Chaos::default() });
    });
}

#[test]
fn members_come_and_go() {
    each_seed(120_000..120_150, |seed| {
        talk(seed, 12, Chaos { members: 100, ..Chaos::default() });
    });
}

#[test]
fn everything_at_once() {
    each_seed(130_000..130_300, |seed| {
        talk(seed, 10, EVERYTHING);
    });
}

#[test]
fn the_same_seed_gives_the_same_outputs() {
    let run = |seed| {
        let sim = talk(seed, 6, EVERYTHING);
        (sim.fingerprint, sim.steps)
    };
    assert_eq!(run(42), run(42));
    assert_ne!(run(42), run(43));
}

const EVERYTHING: Chaos = Chaos {
    crash: 150,
    cut: 120,
    wipe: 400,
    replay: 100,
    exhaust: 200,
    relink: 600,
    reregister: 1_500,
    members: 300,
    duplicate: 8,
    delay: 8,
    reorder: 8,
    corrupt: 12,
    lose: 12,
    hide: 0,
    refuse: 15,
    unacked: 15,
};
