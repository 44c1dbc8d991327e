#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wamd::node::fuzz_decode(data));
