//! hosts.toml files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_image::fuzzing::hosts(data));
