//! Answers of plugins: what is accepted can be used, and means the same after it was written in any version.
#![no_main]

use crisp_network::cni::{result::CniResult, version::Version};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(result) = CniResult::parse(bytes) else { return };
    let attached = result.attached("eth0");
    assert!(attached.ips.len() <= result.ips.len());
    for version in [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0] {
        let written = serde_json::to_vec(&result.to_value(version)).expect("values are plain");
        // Written out it may be longer than it was, as absent lists are named; then it may be refused.
        let Ok(again) = CniResult::parse(&written) else { continue };
        assert_eq!(again.ips, result.ips);
        assert_eq!(again.attached("eth0").ips, attached.ips);
        if version == Version::V1_1_0 {
            assert_eq!(again, result);
        }
    }
});
