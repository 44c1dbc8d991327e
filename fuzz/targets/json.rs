#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wamd_proto::json::fuzz::json(data));
