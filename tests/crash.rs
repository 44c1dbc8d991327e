//! A crash between any two outputs of an engine, in chats and groups, while accounts link and while prekeys are uploaded, loses no
//! message, repeats none, and uses no message key twice. What leaves is checked against the disk as it was then: a process that
//! began anew from it would take no key again that is out. `WAMD_SEEDS=from..to` runs other seeds; a failing one is named.

#[path = "common/sim/mod.rs"]
mod sim;

use sim::{Chaos, Sim, each_seed};
use wamd_loopback::GroupMode;

const ALICE: usize = 0;
const BOB: usize = 1;
/// A second companion of Bob's number.
const BOB_2: usize = 2;
const ALICE_NUMBER: &str = "15550000001";
const BOB_NUMBER: &str = "15550000002";

fn accounts(seed: u64) -> Sim {
    Sim::new(seed, &[("alice", ALICE_NUMBER), ("bob", BOB_NUMBER), ("bob 2", BOB_NUMBER)])
}

/// Everybody writes to everybody while things go wrong, then it must all have arrived once.
fn write(sim: &mut Sim, chaos: Chaos) {
    sim.chaos = chaos;
    for round in 0..6 {
        let (from, to) = match sim.pick(3) {
            0 => (ALICE, BOB_NUMBER),
            1 => (BOB, ALICE_NUMBER),
            _ => (BOB_2, ALICE_NUMBER),
        };
        sim.send(from, to, &format!("message {round}"));
        let steps = sim.pick(120) as u32;
        sim.run(steps, |_| false);
    }
    if chaos.crash > 0 {
        somebody_crashes(sim);
    }
    sim.settle();
    sim.check_settled();
}

fn exchange(seed: u64, chaos: Chaos) -> Sim {
    let mut sim = accounts(seed);
    sim.link_all();
    write(&mut sim, chaos);
    sim
}

/// Chance may have let everybody live.
fn somebody_crashes(sim: &mut Sim) {
    if sim.accounts.iter().all(|account| account.crashes == 0) {
        let who = sim.pick(3);
        sim.crash_now(who);
    }
}

#[test]
fn without_trouble_everything_arrives_once() {
    each_seed(0..10, |seed| {
        exchange(seed, Chaos::default());
    });
}

#[test]
fn crashes_lose_and_repeat_nothing() {
    each_seed(10_000..11_500, |seed| {
        exchange(seed, Chaos { crash: 25, ..Chaos::default() });
    });
}

#[test]
fn cut_wires_lose_and_repeat_nothing() {
    each_seed(20_000..20_060, |seed| {
        exchange(seed, Chaos { cut: 20, ..Chaos::default() });
    });
}

#[test]
fn crashes_and_cut_wires_together() {
    each_seed(30_000..31_000, |seed| {
        exchange(seed, Chaos { crash: 40, cut: 40, ..Chaos::default() });
    });
}

#[test]
fn crashes_while_groups_talk() {
    each_seed(40_000..41_000, |seed| {
        let mut sim = accounts(seed);
        sim.link_all();
        let groups = [GroupMode::Lid, GroupMode::Pn].map(|mode| sim.create_group(mode, &[ALICE_NUMBER, BOB_NUMBER]));
        sim.settle();
        sim.chaos = Chaos { crash: 40, ..Chaos::default() };
        for round in 0..6 {
            let (from, group) = (sim.pick(3), sim.pick(2));
            sim.send_to(from, &groups[group], &format!("message {round}"));
            let steps = sim.pick(120) as u32;
            sim.run(steps, |_| false);
        }
        somebody_crashes(&mut sim);
        sim.settle();
        sim.check_settled();
    });
}

#[test]
fn crashes_while_accounts_link() {
    each_seed(50_000..50_700, |seed| {
        let mut sim = accounts(seed);
        sim.link_all_in(Chaos { crash: 60, cut: 200, ..Chaos::default() });
        write(&mut sim, Chaos { crash: 100, ..Chaos::default() });
    });
}

#[test]
fn crashes_while_prekeys_are_uploaded() {
    each_seed(60_000..60_800, |seed| {
        exchange(seed, Chaos { crash: 30, exhaust: 30, ..Chaos::default() });
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
