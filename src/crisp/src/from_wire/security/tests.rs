use crisp_model::security::Profile;

use super::*;

fn container(wire: v1::LinuxContainerSecurityContext) -> Result<SecurityContext, Invalid> {
    of_container(&At::root("sc"), Some(&wire))
}

fn number(value: i64) -> Option<v1::Int64Value> {
    Some(v1::Int64Value { value })
}

#[test]
fn absent_contexts_are_the_default() {
    assert_eq!(of_container(&At::root("sc"), None), Ok(SecurityContext::default()));
    assert_eq!(of_sandbox(&At::root("sc"), None), Ok(SecurityContext::default()));
    assert_eq!(container(v1::LinuxContainerSecurityContext::default()), Ok(SecurityContext::default()));
}

#[test]
fn a_group_needs_a_user() {
    let base = v1::LinuxContainerSecurityContext { run_as_group: number(3), ..Default::default() };
    assert_eq!(container(base.clone()).expect_err("no user").field, "sc.run_as_group");
    assert!(container(v1::LinuxContainerSecurityContext { run_as_user: number(0), ..base.clone() }).is_ok());
    assert!(
        container(v1::LinuxContainerSecurityContext { run_as_username: "nobody".into(), ..base }).is_ok()
    );
    let sandbox = v1::LinuxSandboxSecurityContext { run_as_group: number(3), ..Default::default() };
    assert_eq!(of_sandbox(&At::root("sc"), Some(&sandbox)).expect_err("no user").field, "sc.run_as_group");
}

#[test]
fn wrong_ids_name_their_field() {
    for bad in [-1, i64::from(u32::MAX), i64::MAX, i64::MIN] {
        let user = v1::LinuxContainerSecurityContext { run_as_user: number(bad), ..Default::default() };
        assert_eq!(container(user).expect_err("user").field, "sc.run_as_user");
        let groups =
            v1::LinuxContainerSecurityContext { supplemental_groups: vec![0, bad], ..Default::default() };
        assert_eq!(container(groups).expect_err("groups").field, "sc.supplemental_groups[1]");
    }
    let last = v1::LinuxContainerSecurityContext { run_as_user: number(4_294_967_294), ..Default::default() };
    assert_eq!(container(last).map(|c| c.run_as_user), Ok(Some(u32::MAX - 1)));
}

#[test]
fn one_way_of_naming_the_user() {
    let both = v1::LinuxContainerSecurityContext {
        run_as_user: number(1),
        run_as_username: "nobody".into(),
        ..Default::default()
    };
    assert_eq!(container(both).expect_err("both").field, "sc.run_as_username");
    for bad in ["a:b", "a\nb", "\0"] {
        let wire = v1::LinuxContainerSecurityContext { run_as_username: bad.into(), ..Default::default() };
        assert!(container(wire).is_err(), "{bad:?}");
    }
}

#[test]
fn the_capability_table_can_be_searched() {
    assert!(CAPABILITIES.is_sorted());
}

#[test]
fn capabilities_are_known_by_any_spelling() {
    let wire = v1::LinuxContainerSecurityContext {
        capabilities: Some(v1::Capability {
            add_capabilities: vec!["NET_ADMIN".into(), "cap_sys_time".into()],
            drop_capabilities: vec!["all".into()],
            add_ambient_capabilities: vec!["CAP_CHOWN".into()],
        }),
        ..Default::default()
    };
    let caps = container(wire).expect("valid").capabilities;
    assert_eq!(caps.add, ["NET_ADMIN", "SYS_TIME"]);
    assert_eq!(caps.drop, ["ALL"]);
    assert_eq!(caps.add_ambient, ["CHOWN"]);
    for bad in ["", "CAP_", "NET-ADMIN", "CAP_CAP_CHOWN", "ROOT"] {
        assert!(capability(&At::root("c"), bad).is_err(), "{bad}");
    }
}

#[test]
fn selinux_parts_are_plain() {
    let option = |user: &str, level: &str| {
        Some(v1::SeLinuxOption { user: user.into(), level: level.into(), ..Default::default() })
    };
    let at = At::root("sc");
    assert_eq!(selinux(&at, option("", "").as_ref()), Ok(None));
    assert!(selinux(&at, option("user_u", "s0:c1,c2").as_ref()).is_ok_and(|o| o.is_some()));
    assert!(selinux(&at, option("a:b", "").as_ref()).is_err());
    assert!(selinux(&at, option("", "s0 x").as_ref()).is_err());
}

#[test]
fn paths_profiles_and_policies_are_carried_over() {
    let wire = v1::LinuxContainerSecurityContext {
        masked_paths: vec!["/proc/kcore".into()],
        readonly_paths: vec!["/proc/sys/".into()],
        seccomp: Some(v1::SecurityProfile::default()),
        apparmor_profile: "unconfined".into(),
        supplemental_groups_policy: 1,
        no_new_privs: true,
        readonly_rootfs: true,
        privileged: true,
        ..Default::default()
    };
    let model = container(wire).expect("valid");
    assert_eq!(model.masked_paths, ["/proc/kcore"]);
    assert_eq!(model.readonly_paths, ["/proc/sys"]);
    assert_eq!(model.seccomp, Profile::RuntimeDefault);
    assert_eq!(model.apparmor, Some(Profile::Unconfined));
    assert_eq!(model.supplemental_groups_policy, SupplementalGroupsPolicy::Strict);
    assert!(model.no_new_privs && model.readonly_rootfs && model.privileged);
    let relative =
        v1::LinuxContainerSecurityContext { masked_paths: vec!["proc".into()], ..Default::default() };
    assert_eq!(container(relative).expect_err("relative").field, "sc.masked_paths[0]");
    let policy = v1::LinuxContainerSecurityContext { supplemental_groups_policy: 2, ..Default::default() };
    assert_eq!(container(policy).expect_err("2").field, "sc.supplemental_groups_policy");
}
