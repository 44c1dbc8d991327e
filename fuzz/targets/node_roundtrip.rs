#![no_main]

#[path = "../../tests/script/node.rs"]
mod node;

libfuzzer_sys::fuzz_target!(|data: &[u8]| node::roundtrip(data));
