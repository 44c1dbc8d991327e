#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wamd::pairing::fuzz::qr_and_pair_stanzas(data));
