//! Messages are read and refused as by other implementations: `vectors/double_ratchet.json` (spec 03 §2.4 – §2.6).
//!
//! Reordering, simultaneous initiation, archived states, the jump limit, malformed input, a swapped identity, variants
//! that must be tolerated.

#[path = "common/signal.rs"]
mod transcripts;

use transcripts::{Storage, replay_file};

const FILE: &str = include_str!("vectors/double_ratchet.json");

#[test]
fn bytes_verdicts_and_states_agree() {
    let counts = replay_file(FILE, Storage::Keep);
    let verdicts = ["ok", "bad_mac", "duplicate", "invalid", "no_session"].map(|v| counts[&format!("decrypt {v}")]);
    assert_eq!((verdicts, counts["state"]), ([36, 10, 6, 16, 1], 15));
}

#[test]
fn they_agree_after_a_reload_at_every_step() {
    replay_file(FILE, Storage::Reload);
}

#[test]
fn stored_sessions_of_other_clients_go_on() {
    replay_file(FILE, Storage::Import);
}

#[test]
fn they_agree_when_turns_are_made_whole_at_once() {
    replay_file(FILE, Storage::Whole);
}
