use super::*;

fn bind(container_path: &str) -> v1::Mount {
    v1::Mount { container_path: container_path.into(), host_path: "/srv".into(), ..Default::default() }
}

fn error_of(wire: v1::Mount) -> String {
    mounts(&At::root("mounts"), &[wire]).expect_err("must be refused").field
}

#[test]
fn a_plain_volume_passes() {
    let model = mounts(&At::root("mounts"), &[bind("/data/")]).expect("valid");
    assert_eq!(model[0].container_path, "/data");
    assert_eq!(model[0].host_path, PathBuf::from("/srv"));
}

#[test]
fn wrong_volumes_name_their_field() {
    for (field, wire) in [
        ("container_path", bind("data")),
        ("container_path", bind("")),
        ("container_path", bind("/..")),
        ("container_path", bind("/a/..")),
        ("host_path", v1::Mount { host_path: String::new(), ..bind("/d") }),
        ("host_path", v1::Mount { host_path: "srv".into(), ..bind("/d") }),
        ("host_path", v1::Mount { host_path: "/a\0".into(), ..bind("/d") }),
        ("propagation", v1::Mount { propagation: 3, ..bind("/d") }),
        ("recursive_read_only", v1::Mount { recursive_read_only: true, ..bind("/d") }),
        (
            "recursive_read_only",
            v1::Mount { recursive_read_only: true, readonly: true, propagation: 1, ..bind("/d") },
        ),
        ("image_sub_path", v1::Mount { image_sub_path: "x".into(), ..bind("/d") }),
        ("mount_options[0]", v1::Mount { mount_options: vec!["bind".into()], ..bind("/d") }),
        ("gidMappings", v1::Mount { uid_mappings: vec![mapping(1)], ..bind("/d") }),
        (
            "uidMappings[0].length",
            v1::Mount { uid_mappings: vec![mapping(0)], gid_mappings: vec![mapping(1)], ..bind("/d") },
        ),
    ] {
        assert_eq!(error_of(wire), format!("mounts[0].{field}"));
    }
}

fn mapping(length: u32) -> v1::IdMapping {
    v1::IdMapping { host_id: 65536, container_id: 0, length }
}

#[test]
fn one_path_is_mounted_once() {
    let error = mounts(&At::root("mounts"), &[bind("/d"), bind("//d/.")]).expect_err("twice");
    assert_eq!(error.field, "mounts[1].container_path");
}

#[test]
fn recursive_read_only_needs_readonly_and_private() {
    let wire = v1::Mount { recursive_read_only: true, readonly: true, ..bind("/d") };
    assert!(mounts(&At::root("mounts"), &[wire]).expect("valid")[0].recursive_readonly);
}

#[test]
fn an_image_is_read_only_and_has_no_host_path() {
    let image = v1::ImageSpec { image: "sha256:1".into(), ..Default::default() };
    let good = v1::Mount {
        container_path: "/model".into(),
        image: Some(image.clone()),
        image_sub_path: "weights/v1".into(),
        readonly: true,
        ..Default::default()
    };
    let model = mounts(&At::root("mounts"), std::slice::from_ref(&good)).expect("valid");
    assert_eq!(model[0].image.as_deref(), Some("sha256:1"));
    assert_eq!(error_of(v1::Mount { host_path: "/srv".into(), ..good.clone() }), "mounts[0].host_path");
    assert_eq!(error_of(v1::Mount { readonly: false, ..good.clone() }), "mounts[0].readonly");
    assert_eq!(error_of(v1::Mount { propagation: 2, ..good.clone() }), "mounts[0].propagation");
    assert_eq!(error_of(v1::Mount { image_sub_path: "../x".into(), ..good }), "mounts[0].image_sub_path");
    // An empty ImageSpec is no image.
    let empty = v1::Mount { image: Some(v1::ImageSpec::default()), ..bind("/d") };
    assert!(mounts(&At::root("mounts"), &[empty]).is_ok());
}

#[test]
fn the_option_table_can_be_searched() {
    assert!(OPTIONS.is_sorted());
    let options = vec!["noexec".into(), "nosuid".into(), "nodev".into()];
    let wire = v1::Mount { mount_options: options.clone(), ..bind("/d") };
    assert_eq!(mounts(&At::root("mounts"), &[wire]).expect("valid")[0].mount_options, options);
}

#[test]
fn devices_have_permissions() {
    let device = |container: &str, permissions: &str| v1::Device {
        container_path: container.into(),
        host_path: "/dev/fuse".into(),
        permissions: permissions.into(),
    };
    let at = At::root("devices");
    for (given, kept) in [("", "rwm"), ("rw", "rw"), ("wr", "rw"), ("mmm", "m")] {
        let model = devices(&at, &[device("", given)]).expect(given);
        assert_eq!((model[0].permissions.as_str(), model[0].container_path.as_str()), (kept, "/dev/fuse"));
    }
    assert_eq!(devices(&at, &[device("/dev/x", "rwx")]).expect_err("x").field, "devices[0].permissions");
    assert_eq!(devices(&at, &[device("dev", "r")]).expect_err("rel").field, "devices[0].container_path");
    assert_eq!(devices(&at, &[v1::Device::default()]).expect_err("empty").field, "devices[0].host_path");
}

#[test]
fn cdi_names_follow_their_grammar() {
    for good in
        ["vendor.com/class=name", "v/c=0", "nvidia.com/gpu=0:1", "a-b_c.d/e-f=g.h", "vendor.com/c=all"]
    {
        assert!(is_cdi_name(good), "{good}");
    }
    for bad in [
        "", "a", "a/b", "a=b", "/b=c", "a/=c", "a/b=", "1a/b=c", "a-/b=c", "a/b-=c", "a/b=c/", "a/b=-c",
        "a/b=c=d",
    ] {
        assert!(!is_cdi_name(bad), "{bad}");
    }
    let wire = v1::CdiDevice { name: "bad".into() };
    assert_eq!(cdi_devices(&At::root("d"), &[wire]).expect_err("bad").field, "d[0].name");
}
