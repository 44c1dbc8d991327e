#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wamd::jid::fuzz::jid_parse(data));
