#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wamd::noise::fuzz::handshake_server_hello(data));
