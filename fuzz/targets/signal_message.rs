#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wamd::signal::fuzz::signal_message(data));
