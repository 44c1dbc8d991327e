#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wamd::signal::fuzz::session_record(data));
