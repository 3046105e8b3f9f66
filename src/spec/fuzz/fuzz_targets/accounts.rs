//! Account files of an image and its user: whatever they say, the groups are sound.
//!
//! The input is three texts between NUL bytes: passwd, group, user.
#![no_main]

use crisp_model::{image::ImageConfig, security::SecurityContext};
use crisp_spec::{Accounts, user};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut parts = text.splitn(3, '\0').map(str::to_owned);
    let accounts = Accounts { passwd: parts.next(), group: parts.next() };
    let image = ImageConfig { user: parts.next().unwrap_or_default(), ..Default::default() };
    if let Ok(found) = user(&SecurityContext::default(), &image, &accounts) {
        assert_eq!(found.supplemental.first(), Some(&found.gid));
        assert!(found.uid != u32::MAX && !found.supplemental.contains(&u32::MAX));
        let mut groups = found.supplemental.clone();
        groups.sort_unstable();
        groups.dedup();
        assert_eq!(groups.len(), found.supplemental.len());
    }
});
