use std::collections::{BTreeMap, BTreeSet};

use crisp_model::seccomp::{Action, Rule};
use proptest::prelude::*;

use super::*;

fn machine(arch: &'static str) -> Machine {
    Machine { arch, kernel: (6, 1) }
}

fn caps(names: &[&str]) -> Vec<String> {
    names.iter().map(|n| format!("CAP_{n}")).collect()
}

/// Rules without conditions, by name.
fn plain(filter: &Filter) -> BTreeMap<&str, Vec<(Action, Option<u16>)>> {
    let mut found: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for rule in filter.syscalls.iter().filter(|r| r.args.is_empty()) {
        for name in &rule.names {
            found.entry(name).or_default().push((rule.action, rule.errno_ret));
        }
    }
    found
}

#[test]
fn the_default_profile_answers_by_capability() {
    let eperm = (Action::Errno, Some(1));
    let allow = (Action::Allow, None);
    let none = default_profile().resolve(&[], &machine("amd64"));
    let admin = default_profile().resolve(&caps(&["SYS_ADMIN"]), &machine("amd64"));
    let bpf = default_profile().resolve(&caps(&["BPF"]), &machine("amd64"));
    for (name, without, with) in [
        ("read", allow, allow),
        ("mount", eperm, allow),
        ("unshare", eperm, allow),
        ("clone3", (Action::Errno, Some(38)), allow),
        ("keyctl", eperm, eperm),
        ("bpf", eperm, allow),
        ("reboot", eperm, eperm),
        ("arch_prctl", allow, allow),
    ] {
        assert_eq!(plain(&none)[name], [without], "{name} without capabilities");
        assert_eq!(plain(&admin)[name], [with], "{name} with CAP_SYS_ADMIN");
    }
    assert_eq!(plain(&bpf)["bpf"], [allow]);
    assert_eq!(plain(&bpf)["mount"], [eperm]);
    assert_eq!((none.default_action, none.default_errno_ret), (Action::Errno, Some(38)));
    assert_eq!(none.architectures, ["SCMP_ARCH_X32", "SCMP_ARCH_X86", "SCMP_ARCH_X86_64"]);
    let arm = default_profile().resolve(&[], &machine("arm64"));
    assert_eq!(arm.architectures, ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]);
    assert!(plain(&arm).contains_key("cacheflush") && !plain(&arm).contains_key("modify_ldt"));
}

#[test]
fn no_call_is_both_allowed_and_refused() {
    for names in [&[][..], &["SYS_ADMIN"], &["SYS_ADMIN", "BPF", "SYSLOG", "PERFMON"], &["SYS_TIME"]] {
        for arch in ["amd64", "arm64", "s390x"] {
            let filter = default_profile().resolve(&caps(names), &machine(arch));
            for (name, rules) in plain(&filter) {
                let actions: BTreeSet<_> = rules.iter().map(|(action, _)| *action == Action::Allow).collect();
                assert_eq!(actions.len(), 1, "{name} with {names:?} on {arch}: {rules:?}");
            }
        }
    }
}

#[test]
fn new_namespaces_need_the_capability() {
    let clones = |filter: &Filter| -> Vec<Rule> {
        filter.syscalls.iter().filter(|r| r.names == ["clone"]).cloned().collect()
    };
    let none = clones(&default_profile().resolve(&[], &machine("amd64")));
    assert_eq!(none.len(), 8);
    assert_eq!(none[0].args[0].value, 0x7e02_0000);
    assert!(none[1..].iter().all(|rule| rule.action == Action::Errno && rule.args[0].index == 0));
    let s390 = clones(&default_profile().resolve(&[], &machine("s390x")));
    assert!(s390.iter().all(|rule| rule.args[0].index == 1));
    assert!(clones(&default_profile().resolve(&caps(&["SYS_ADMIN"]), &machine("amd64"))).is_empty());
}

#[test]
fn the_names_are_sorted_and_unique() {
    let text = include_str!("../../profiles/seccomp-default.json");
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    for rule in value["syscalls"].as_array().unwrap() {
        let names: Vec<_> = rule["names"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }
}

#[test]
fn conditions_are_resolved() {
    let text = r#"{"defaultAction": "SCMP_ACT_KILL_PROCESS", "architectures": null, "syscalls": [
        {"names": ["both"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_A", "CAP_B"]}, "excludes": {}},
        {"names": ["neither"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_A", "CAP_B"]}, "args": null},
        {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
        {"name": "old", "action": "SCMP_ACT_LOG", "includes": {"minKernel": "4.8.0-rc1"}, "excludes": {"arches": ["arm64"]}}
    ]}"#;
    let document = Document::parse(text).unwrap();
    let names = |names: &[&str], arch| -> Vec<String> {
        document.resolve(&caps(names), &machine(arch)).syscalls.into_iter().flat_map(|r| r.names).collect()
    };
    assert_eq!(names(&[], "amd64"), ["neither", "old"]);
    assert_eq!(names(&["A"], "amd64"), ["old"]);
    assert_eq!(names(&["A", "B"], "arm64"), ["both"]);
}

#[test]
fn bad_profiles_say_where() {
    for (text, place) in [
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_KILL"}]}"#,
            "syscalls[0].names",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a b"], "action": "SCMP_ACT_KILL"}]}"#,
            "syscalls[0].names",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_KILL",
               "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
            "syscalls[0].args[0].index",
        ),
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x86"]}"#, "architectures"),
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["X"]}"#, "flags"),
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#, "listenerPath"),
    ] {
        match Document::parse(text) {
            Err(ProfileError::Value { place: found, .. }) => assert_eq!(found, place),
            other => panic!("{text}: {other:?}"),
        }
    }
    for text in ["", "[]", "{}", r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, r#"{"defaultAction": 1}"#] {
        assert!(matches!(Document::parse(text), Err(ProfileError::Json(_))), "{text}");
    }
    assert_eq!(Document::parse(&" ".repeat(MAX_PROFILE + 1)), Err(ProfileError::TooLarge));
}

#[test]
fn profiles_are_chosen() {
    let get = |choice: Profile, read: io::Result<&str>| {
        filter(&choice, default_profile(), &[], &machine("amd64"), |_| read.map(str::to_owned))
    };
    let unused = || Err(io::Error::other("not to be read"));
    assert_eq!(get(Profile::Unconfined, unused()), Ok(None));
    assert!(get(Profile::RuntimeDefault, unused()).unwrap().is_some());
    let local = || Profile::Localhost("/p.json".into());
    let found = get(local(), Ok(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#)).unwrap().unwrap();
    assert_eq!(found.default_action, Action::Allow);
    let missing = get(local(), Err(io::ErrorKind::NotFound.into())).unwrap_err();
    assert!(matches!(&missing, SpecError::NotFound { object, .. } if object.contains("/p.json")));
    let broken = get(local(), Ok("{")).unwrap_err().to_string();
    assert!(broken.contains("/p.json") && broken.starts_with(FIELD), "{broken}");
}

proptest! {
    #[test]
    fn any_text_is_survived(text in "\\PC{0,300}") {
        let _ = Document::parse(&text);
    }
}
