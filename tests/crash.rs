//! A crash between any two outputs of the send and receive paths loses no message, repeats none, and uses no message key
//! twice. `WAMD_SEEDS=from..to` runs other seeds; a failing one is named.

#[path = "common/sim/mod.rs"]
mod sim;

use sim::{Chaos, Sim, each_seed};

const ALICE: usize = 0;
const BOB: usize = 1;
/// A second companion of Bob's number.
const BOB_2: usize = 2;
const ALICE_NUMBER: &str = "15550000001";
const BOB_NUMBER: &str = "15550000002";

fn world(seed: u64) -> Sim {
    let mut sim = Sim::new(seed, &[("alice", ALICE_NUMBER), ("bob", BOB_NUMBER), ("bob 2", BOB_NUMBER)]);
    sim.link_all();
    sim
}

/// Everybody writes to everybody while things go wrong, then it must all have arrived once.
fn exchange(seed: u64, chaos: Chaos) -> Sim {
    let mut sim = world(seed);
    sim.chaos = chaos;
    for round in 0..6 {
        let (from, to) = match sim.pick(3) {
            0 => (ALICE, BOB_NUMBER),
            1 => (BOB, ALICE_NUMBER),
            _ => (BOB_2, ALICE_NUMBER),
        };
        sim.send(from, to, &format!("message {round} of seed {seed}"));
        let steps = sim.pick(120) as u32;
        sim.run(steps, |_| false);
    }
    sim.settle();
    sim.check_settled();
    sim
}

#[test]
fn without_trouble_everything_arrives_once() {
    each_seed(0..10, |seed| {
        exchange(seed, Chaos::default());
    });
}

#[test]
fn crashes_lose_and_repeat_nothing() {
    each_seed(1_000..1_150, |seed| {
        let sim = exchange(seed, Chaos { crash: 25, ..Chaos::default() });
        assert!(sim.accounts.iter().any(|account| account.crashes > 0), "somebody crashed");
    });
}

#[test]
fn cut_wires_lose_and_repeat_nothing() {
    each_seed(2_000..2_060, |seed| {
        exchange(seed, Chaos { cut: 20, ..Chaos::default() });
    });
}

#[test]
fn crashes_and_cut_wires_together() {
    each_seed(3_000..3_100, |seed| {
        exchange(seed, Chaos { crash: 40, cut: 40, ..Chaos::default() });
    });
}

#[test]
fn the_same_seed_gives_the_same_outputs() {
    let run = |seed| {
        let sim = exchange(seed, Chaos { crash: 40, cut: 40, ..Chaos::default() });
        (sim.fingerprint, sim.steps)
    };
    assert_eq!(run(42), run(42));
    assert_ne!(run(42), run(43));
}
