//! Localhost profiles: what is read can be resolved for any machine, and says nothing impossible.
#![no_main]

use crisp_spec::seccomp::{Document, Machine};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(document) = Document::parse(text) else { return };
    for arch in ["amd64", "arm64", "s390x"] {
        for capabilities in [&[][..], &["CAP_SYS_ADMIN".to_owned()]] {
            let filter = document.resolve(capabilities, &Machine { arch, kernel: (6, 1) });
            for rule in &filter.syscalls {
                assert!(!rule.names.is_empty() && rule.args.iter().all(|arg| arg.index < 6));
            }
        }
    }
});
