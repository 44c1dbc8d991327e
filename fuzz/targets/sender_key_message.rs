#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wamd::signal::sender_key::fuzz::sender_key_message(data));
