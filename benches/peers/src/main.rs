//! Prints how `wamd` compares with published crates that do the same work. See `measure.rs`.
//!
//! `cargo run -- transcripts` lets our sessions and theirs talk to each other, `cargo run -- crossed` lets each side read the
//! stanzas of the other. `cargo run --release` prints all tables; `cargo run --release -- usync` only the cases whose name
//! contains the word.

mod measure;
mod node;
mod noise;
mod pipeline;
mod signal;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("transcripts") => return signal::transcripts::run(),
        Some("crossed") => return pipeline::check(),
        _ => {}
    }
    node::run_all();
    noise::run_all();
    signal::run_all();
    pipeline::run_all();
}
