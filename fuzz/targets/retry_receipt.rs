#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wamd::engine::fuzz_retry_receipt(data));
