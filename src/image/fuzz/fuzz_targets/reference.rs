//! What parses must print as something that parses the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| crisp_image::fuzzing::reference(data));
