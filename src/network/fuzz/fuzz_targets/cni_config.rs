//! Configuration files: whatever is accepted names only programs, and a network name that is a plain file name.
#![no_main]

use std::path::Path;

use crisp_network::cni::config::NetworkList;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for file in ["10-a.conflist", "10-a.conf"] {
        let Ok(list) = NetworkList::parse(Path::new(file), bytes) else { continue };
        assert!(!list.plugins.is_empty());
        assert!(!list.name.contains('/') && !list.name.starts_with('.'));
        for plugin in &list.plugins {
            assert_eq!(Path::new(&plugin.kind).components().count(), 1);
            assert!(plugin.kind != ".." && plugin.kind != ".");
        }
    }
});
