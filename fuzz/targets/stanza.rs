#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wamd::stanza::fuzz::stanza(data));
