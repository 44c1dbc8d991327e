//! Sessions are set up as other implementations do it: `vectors/signal_x3dh.json` (spec 03 §2.1).

#[path = "common/signal.rs"]
mod transcripts;

use transcripts::{Storage, replay_file};

const FILE: &str = include_str!("vectors/signal_x3dh.json");

#[test]
fn bytes_and_states_agree() {
    let counts = replay_file(FILE, Storage::Keep);
    assert_eq!((counts["establish"], counts["state"], counts["encrypt"], counts["decrypt ok"]), (3, 15, 12, 12));
}

#[test]
fn bytes_and_states_agree_after_a_reload_at_every_step() {
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
