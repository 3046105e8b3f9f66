//! Archives must not make anything outside their folder, whatever they say.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_image::fuzzing::archive(data));
