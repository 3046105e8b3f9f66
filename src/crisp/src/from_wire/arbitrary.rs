//! Property: no message, however strange, makes the checks panic, and what passes them keeps their promises.
//!
//! Messages are decoded from random bytes that are mostly well-formed protobuf, and from random texts in the fields
//! that are parsed.

use crisp_proto::v1;
use proptest::{collection::vec, prelude::*};
use prost::Message;

use super::*;

/// A protobuf message of random fields: small field numbers, nested a few times.
fn message(depth: u32) -> BoxedStrategy<Vec<u8>> {
    let text = prop_oneof![
        any::<String>(),
        "[-0-9a-z/.,:=_ \\x00]{0,12}",
        Just("/".to_owned()),
        Just("..".to_owned()),
        Just("localhost/".to_owned()),
    ];
    let scalar = prop_oneof![
        (any::<i64>()).prop_map(|v| (0u8, varint(v as u64))),
        (-2i64..70).prop_map(|v| (0u8, varint(v as u64))),
        text.prop_map(|t| (2u8, delimited(t.as_bytes()))),
    ];
    let field = if depth == 0 {
        scalar.boxed()
    } else {
        prop_oneof![2 => scalar, 3 => message(depth - 1).prop_map(|m| (2u8, delimited(&m)))].boxed()
    };
    vec((1u32..20, field), 0..12)
        .prop_map(|fields| {
            let mut bytes = Vec::new();
            for (number, (wire_type, payload)) in fields {
                bytes.extend(varint(u64::from(number << 3 | u32::from(wire_type))));
                bytes.extend(payload);
            }
            bytes
        })
        .boxed()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn delimited(bytes: &[u8]) -> Vec<u8> {
    [varint(bytes.len() as u64), bytes.to_vec()].concat()
}

/// The fields of `bytes` that a message of this type accepts: merging stops at the first that it does not.
fn lenient<M: Message + Default>(bytes: &[u8]) -> M {
    let mut message = M::default();
    let _ = message.merge(bytes);
    message
}

fn at() -> At<'static> {
    At::root("config")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_message_panics(bytes in message(3)) {
        let _ = container_config(&at(), Some(&lenient::<v1::ContainerConfig>(&bytes)));
        let _ = sandbox_config(&at(), Some(&lenient::<v1::PodSandboxConfig>(&bytes)), "");
        let _ = linux_resources(&at(), Some(&lenient::<v1::LinuxContainerResources>(&bytes)));
        let _ = security::of_container(&at(), Some(&lenient(&bytes)));
        let _ = security::of_sandbox(&at(), Some(&lenient(&bytes)));
        let _ = mount::mounts(&at(), &[lenient(&bytes)]);
        let _ = mount::devices(&at(), &[lenient(&bytes)]);
        let _ = ContainerFilter::from_wire(&at(), Some(&lenient(&bytes)));
        let _ = SandboxFilter::from_wire(&at(), Some(&lenient(&bytes)));
        let _ = image::auth(&at(), Some(&lenient(&bytes)));
        let _ = request::pod_cidrs(Some(&lenient(&bytes)));
        let _ = request::exec_streams(&lenient(&bytes));
    }

    #[test]
    fn no_text_panics_and_no_error_floods(text in any::<String>()) {
        for error in [
            text::container_path(&at(), &text).err(),
            text::relative_path(&at(), &text).err(),
            text::name(&at(), &text).err(),
            text::cgroup_parent(&at(), &text).err(),
            sysctl::check(&at(), &text, &text, &Default::default()).err(),
            profile::seccomp(&at(), None, &text).err(),
        ].into_iter().flatten() {
            prop_assert!(error.to_string().len() < 4096);
        }
    }

    #[test]
    fn paths_inside_never_climb(text in "[a./]{1,20}") {
        if let Ok(path) = text::container_path(&at(), &format!("/{text}")) {
            prop_assert!(path.starts_with('/'));
            prop_assert!(path.split('/').skip(1).all(|part| part != "." && part != ".."));
        }
        if let Ok(path) = text::relative_path(&at(), &text) {
            prop_assert!(!path.starts_with('/') && path.split('/').all(|part| part != ".."));
        }
        if let Ok(name) = sysctl::check(&at(), &format!("net.{text}"), "1", &Default::default()) {
            // As a file below /proc/sys.
            let swap = |c| match c { '.' => '/', '/' => '.', other => other };
            let file: String = name.chars().map(swap).collect();
            prop_assert!(file.split('/').all(|part| !part.is_empty() && part != "." && part != ".."));
        }
    }

    #[test]
    fn numbers_in_the_model_are_in_range(period: i64, quota: i64, shares: i64, memory: i64, score: i64) {
        let wire = v1::LinuxContainerResources {
            cpu_period: period,
            cpu_quota: quota,
            cpu_shares: shares,
            memory_limit_in_bytes: memory,
            oom_score_adj: score,
            ..Default::default()
        };
        if let Ok(model) = linux_resources(&at(), Some(&wire)) {
            prop_assert!(model.cpu_period.is_none_or(|p| (1000..=1_000_000).contains(&p)));
            prop_assert!(model.cpu_shares.is_none_or(|s| (2..=262_144).contains(&s)));
            prop_assert!(model.memory_limit.is_none_or(|m| m >= -1));
            prop_assert!((-1000..=1000).contains(&model.oom_score_adj));
        }
    }
}
