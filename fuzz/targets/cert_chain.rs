#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wamd::noise::fuzz::cert_chain(data));
