//! A message in a warm chat leaves before it is durable, within counters that are reserved; whatever is lost then, no message key
//! is used twice and everything arrives once. The simulator checks every key on the wire.

#[path = "common/sim/mod.rs"]
mod sim;

use sim::{Chaos, Sim, each_seed};
use wamd::signal::LEASE;
use wamd_loopback::GroupMode;

const ALICE: usize = 0;
const BOB: usize = 1;
const ALICE_NUMBER: &str = "15550000001";
const BOB_NUMBER: &str = "15550000002";

/// Alice has written to bob, and everything is durable.
fn warm(seed: u64) -> Sim {
    let mut sim = Sim::new(seed, &[("alice", ALICE_NUMBER), ("bob", BOB_NUMBER)]);
    sim.link_all();
    send(&mut sim, 1);
    sim.settle();
    sim
}

fn send(sim: &mut Sim, count: usize) {
    for _ in 0..count {
        let text = format!("message {}", sim.sent.len());
        sim.send(ALICE, BOB_NUMBER, &text);
    }
}

/// How many of the newest messages bob has, when nothing more happens by itself.
fn arrived(sim: &mut Sim, newest: usize) -> usize {
    sim.exhaust();
    has(sim, newest)
}

fn has(sim: &Sim, newest: usize) -> usize {
    let ids = sim.sent.iter().rev().take(newest);
    ids.filter(|sent| sim.accounts[BOB].disk.count("message.received", &sent.id) == 1).count()
}

/// Whether an answer to any of the newest sends is there.
fn is_any_accepted(sim: &Sim, newest: usize) -> bool {
    let mut ids = sim.sent.iter().rev().take(newest);
    ids.any(|sent| sent.from.is_some_and(|from| sim.accounts[from].accepted.contains(&sent.id)))
}

/// The largest counter that alice used for a device of bob.
fn last_counter(sim: &Sim) -> u32 {
    sim.counters(ALICE, &format!("{BOB_NUMBER}@s.whatsapp.net")).into_iter().max().expect("a message to the phone")
}

#[test]
fn a_warm_chat_does_not_wait_for_the_disk() {
    each_seed(0..5, |seed| {
        let mut sim = warm(seed);
        sim.hold_commits(ALICE, true);
        send(&mut sim, 3);
        assert_eq!(arrived(&mut sim, 3), 3);
        assert!(!is_any_accepted(&sim, 3), "an answer waits for the store");
        sim.hold_commits(ALICE, false);
        sim.settle();
        sim.check_settled();
    });
}

#[test]
fn a_lease_that_is_used_up_is_renewed_durably() {
    let mut sim = warm(1);
    sim.hold_commits(ALICE, true);
    let count = LEASE as usize + 10;
    send(&mut sim, count);
    sim.exhaust();
    // One was used before, under the lease that the sessions were begun with.
    assert_eq!(has(&sim, count), LEASE as usize - 1);
    sim.hold_commits(ALICE, false);
    sim.settle();
    sim.check_settled();
}

#[test]
fn a_crash_within_a_lease_uses_no_key_again() {
    each_seed(0..10, |seed| {
        let mut sim = warm(seed);
        sim.hold_commits(ALICE, true);
        send(&mut sim, 3);
        assert_eq!(arrived(&mut sim, 3), 3);
        assert!(last_counter(&sim) < LEASE);
        // The caller got no answer and asks again: whoever has a message does not hear of it again.
        sim.crash_now(ALICE);
        send(&mut sim, 2);
        sim.settle();
        sim.check_settled();
        assert!(last_counter(&sim) >= LEASE, "what was reserved is passed over");
    });
}

#[test]
fn a_store_that_fails_within_a_lease_costs_no_key_either() {
    each_seed(0..10, |seed| {
        let mut sim = warm(seed);
        for _ in 0..2 {
            sim.hold_commits(ALICE, true);
            send(&mut sim, 2);
            assert_eq!(arrived(&mut sim, 2), 2);
            sim.fail_store(ALICE);
            sim.settle();
            send(&mut sim, 1);
            sim.settle();
        }
        sim.check_settled();
    });
}

#[test]
fn a_turn_of_the_ratchet_takes_a_new_lease() {
    each_seed(0..5, |seed| {
        let mut sim = warm(seed);
        sim.send(BOB, ALICE_NUMBER, "an answer");
        sim.settle();
        sim.hold_commits(ALICE, true);
        send(&mut sim, 2);
        sim.exhaust();
        assert_eq!(has(&sim, 2), 0, "a new chain has no lease yet");
        sim.hold_commits(ALICE, false);
        sim.settle();
        sim.hold_commits(ALICE, true);
        send(&mut sim, 1);
        assert_eq!(arrived(&mut sim, 1), 1);
        sim.crash_now(ALICE);
        sim.settle();
        sim.check_settled();
    });
}

#[test]
fn a_warm_group_does_not_wait_either() {
    each_seed(0..5, |seed| {
        let mut sim = warm(seed);
        let group = sim.create_group(GroupMode::Lid, &[ALICE_NUMBER, BOB_NUMBER]);
        sim.settle();
        let post = |sim: &mut Sim, text: &str| sim.send_to(ALICE, &group, text);
        sim.hold_commits(ALICE, true);
        post(&mut sim, "with our key");
        sim.exhaust();
        assert_eq!(has(&sim, 1), 0, "who gets our key is known for certain");
        sim.hold_commits(ALICE, false);
        sim.settle();
        sim.hold_commits(ALICE, true);
        post(&mut sim, "under our key");
        assert_eq!(arrived(&mut sim, 1), 1);
        sim.crash_now(ALICE);
        post(&mut sim, "after the crash");
        sim.settle();
        sim.check_settled();
        let counters = sim.counters(ALICE, &group.to_string());
        assert!(counters.iter().any(|counter| *counter >= LEASE), "{counters:?}");
    });
}

#[test]
fn crashes_and_wires_that_are_cut_between_a_message_and_its_batch() {
    each_seed(5_000..5_040, |seed| {
        let mut sim = warm(seed);
        sim.chaos = Chaos { crash: 60, cut: 60, ..Chaos::default() };
        for _ in 0..8 {
            let hold = sim.pick(2) == 0;
            sim.hold_commits(ALICE, hold);
            send(&mut sim, 2);
            let steps = sim.pick(80) as u32;
            sim.run(steps, |_| false);
            if hold {
                sim.crash_now(ALICE);
            }
        }
        sim.settle();
        sim.check_settled();
    });
}
