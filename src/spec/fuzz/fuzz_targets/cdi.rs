//! CDI files, JSON and YAML.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = crisp_spec::cdi::parse(text);
});
