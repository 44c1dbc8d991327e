#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wamd::appstate::fuzz::appstate_snapshot(data));
