//! Prints how `wamd` compares with published crates that do the same work. See `measure.rs`.
//!
//! `cargo run --release` prints all tables; `cargo run --release -- usync` only the cases whose name contains the word.

mod measure;
mod node;
mod noise;

fn main() {
    node::run_all();
    noise::run_all();
}
