use proptest::prelude::*;

use super::{program::*, *};

const M: u32 = 1;
const R: u32 = 2;
const W: u32 = 4;
const B: u32 = 1;
const C: u32 = 2;

/// Runs a program as the kernel would, for the few instructions that are used.
fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let context = [access << 16 | kind, major, minor];
    let mut registers = [0i64; 11];
    let mut at = 0usize;
    loop {
        let i = program[at];
        let (d, s) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
        let k = i64::from(i.immediate);
        let mut next = i64::try_from(at).unwrap() + 1;
        let jump = i64::from(i.offset);
        match i.code {
            LOAD => registers[d] = i64::from(context[usize::try_from(i.offset).unwrap() / 4]),
            MOVE => registers[d] = registers[s],
            SET => registers[d] = k,
            AND => registers[d] &= k,
            SHIFT_RIGHT => registers[d] >>= k,
            JUMP_UNEQUAL if registers[d] != k => next += jump,
            JUMP_ANY_BIT if registers[d] & k != 0 => next += jump,
            JUMP_UNEQUAL | JUMP_ANY_BIT => {}
            JUMP => next += jump,
            EXIT => return registers[0] != 0,
            code => panic!("{code:#x}"),
        }
        at = usize::try_from(next).unwrap();
    }
}

/// What the rules mean, said another way: each kind of access is decided by the last rule that speaks of it.
fn meaning(rules: &[DeviceRule], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    [M, R, W].into_iter().filter(|bit| access & bit != 0).all(|bit| {
        let letter = match bit {
            M => 'm',
            R => 'r',
            _ => 'w',
        };
        let number = |n: Option<i64>, is: u32| n.is_none_or(|n| n < 0 || n == i64::from(is));
        let speaks = |r: &&DeviceRule| {
            let of_kind = match r.kind {
                DeviceKind::All => true,
                DeviceKind::Block => kind == B,
                DeviceKind::Char => kind == C,
            };
            let of_access = r.access.is_empty() || r.access.contains(letter);
            of_kind && of_access && number(r.major, major) && number(r.minor, minor)
        };
        rules.iter().rev().find(speaks).is_some_and(|r| r.allow)
    })
}

fn rules(json: &str) -> Vec<DeviceRule> {
    serde_json::from_str(json).unwrap()
}

/// The rules of an ordinary container, shortened.
const USUAL: &str = r#"[
    {"allow": false, "access": "rwm"},
    {"allow": true, "type": "c", "access": "m"},
    {"allow": true, "type": "b", "access": "m"},
    {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
    {"allow": true, "type": "c", "major": 136, "minor": -1, "access": "rwm"}
]"#;

#[test]
fn an_ordinary_container() {
    let program = build(&rules(USUAL));
    let table = [
        (C, R | W, 1, 3, true),
        (C, R, 136, 77, true),
        (C, M, 10, 200, true),
        (B, M, 8, 0, true),
        (B, R, 8, 0, false),
        (C, R, 1, 1, false),
        (C, R | M, 10, 200, false),
        (B, R, 1, 3, false),
    ];
    for (kind, access, major, minor, allowed) in table {
        assert_eq!(run(&program, kind, access, major, minor), allowed, "{kind} {access} {major}:{minor}");
    }
}

#[test]
fn no_rules_deny_and_a_privileged_container_may_all() {
    assert!(!run(&build(&[]), C, R, 1, 3));
    let all = build(&rules(r#"[{"allow": true, "access": "rwm"}]"#));
    assert!(run(&all, B, R | W | M, 8, 0) && run(&all, C, R, 10, 229));
}

fn rule() -> impl Strategy<Value = DeviceRule> {
    let kind = prop_oneof![Just(DeviceKind::All), Just(DeviceKind::Block), Just(DeviceKind::Char)];
    (any::<bool>(), kind, proptest::option::of(-1i64..3), proptest::option::of(-1i64..3), "[rwm]{0,3}")
        .prop_map(|(allow, kind, major, minor, access)| DeviceRule { allow, kind, major, minor, access })
}

proptest! {
    #[test]
    fn a_program_does_what_its_rules_mean(
        rules in proptest::collection::vec(rule(), 0..8),
        kind in 1u32..3, access in 1u32..8, major in 0u32..4, minor in 0u32..4,
    ) {
        let expected = meaning(&rules, kind, access, major, minor);
        prop_assert_eq!(run(&build(&rules), kind, access, major, minor), expected);
    }
}

/// A hybrid host has v2 beside v1, without controllers, but device programs work there too.
#[test]
fn the_kernel_keeps_the_rules() {
    let root = match crate::cgroup::Layout::detect() {
        Ok(crate::cgroup::Layout::Hybrid { unified, .. }) => unified,
        Ok(crate::cgroup::Layout::V2 { root, .. }) => root,
        _ => return eprintln!("skipped: no cgroup2 here"),
    };
    if let Err(error) = supported() {
        return eprintln!("skipped: no device programs: {error}");
    }
    let dir = root.join(format!("crisp-test-{}-devices", std::process::id()));
    std::fs::create_dir(&dir).unwrap();
    let result = std::panic::catch_unwind(|| {
        let rules = rules(
            r#"[{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"}]"#,
        );
        restrict_path(&dir, &rules).unwrap();
        let script = format!(
            "echo $$ > {}/cgroup.procs && (: < /dev/zero) 2>/dev/null && echo zero; \
             (: <> /dev/null) 2>/dev/null && echo null",
            dir.display()
        );
        let out = std::process::Command::new("/bin/sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), "null\n", "{out:?}");
    });
    // The shell has been reaped; nothing is in it.
    std::fs::remove_dir(&dir).unwrap();
    result.unwrap();
}
