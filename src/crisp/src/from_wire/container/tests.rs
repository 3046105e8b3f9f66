use crisp_model::security::UserNamespace;

use super::*;

fn least() -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "web".into(), attempt: 2 }),
        image: Some(v1::ImageSpec {
            image: "sha256:abc".into(),
            user_specified_image: "nginx".into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn convert(wire: v1::ContainerConfig) -> Result<ContainerConfig, Invalid> {
    container_config(&At::root("config"), Some(&wire))
}

#[test]
fn the_least_container_has_a_name_and_an_image() {
    let model = convert(least()).expect("valid");
    assert_eq!((model.metadata.name.as_str(), model.metadata.attempt), ("web", 2));
    assert_eq!((model.image.as_str(), model.user_specified_image.as_str()), ("sha256:abc", "nginx"));
    assert_eq!(model.stop_signal, None);
    assert_eq!(container_config(&At::root("config"), None).expect_err("missing").field, "config");
}

#[test]
fn wrong_fields_are_named() {
    let env = |key: &str, value: &[u8]| vec![v1::KeyValue { key: key.into(), value: value.to_vec() }];
    for (field, wire) in [
        ("metadata", v1::ContainerConfig { metadata: None, ..least() }),
        ("metadata.name", v1::ContainerConfig { metadata: Some(Default::default()), ..least() }),
        ("image", v1::ContainerConfig { image: None, ..least() }),
        ("image.image", v1::ContainerConfig { image: Some(Default::default()), ..least() }),
        ("command[1]", v1::ContainerConfig { command: vec!["a".into(), "b\0".into()], ..least() }),
        ("args[0]", v1::ContainerConfig { args: vec!["\0".into()], ..least() }),
        ("working_dir", v1::ContainerConfig { working_dir: "srv".into(), ..least() }),
        ("log_path", v1::ContainerConfig { log_path: "../x.log".into(), ..least() }),
        ("log_path", v1::ContainerConfig { log_path: "/x.log".into(), ..least() }),
        ("envs[0].key", v1::ContainerConfig { envs: env("", b"x"), ..least() }),
        ("envs[0].key", v1::ContainerConfig { envs: env("A=B", b"x"), ..least() }),
        ("envs[0].key", v1::ContainerConfig { envs: env("A\0", b"x"), ..least() }),
        ("envs[0].value", v1::ContainerConfig { envs: env("A", b"x\0"), ..least() }),
        ("stop_signal", v1::ContainerConfig { stop_signal: 99, ..least() }),
        ("windows", v1::ContainerConfig { windows: Some(Default::default()), ..least() }),
    ] {
        assert_eq!(convert(wire).expect_err(field).field, format!("config.{field}"));
    }
}

#[test]
fn values_of_the_environment_are_bytes() {
    let wire = v1::ContainerConfig {
        envs: vec![v1::KeyValue { key: "A B".into(), value: vec![0xff, b'=', 0xfe] }],
        ..least()
    };
    assert_eq!(convert(wire).expect("valid").envs, [("A B".to_owned(), vec![0xff, b'=', 0xfe])]);
}

#[test]
fn a_container_has_to_fit_its_sandbox() {
    let at = At::root("config");
    let mut container = convert(least()).expect("valid");
    let mut sandbox = SandboxConfig::default();
    assert_eq!(fits_sandbox(&at, &container, &sandbox), Ok(()));

    container.security.privileged = true;
    let error = fits_sandbox(&at, &container, &sandbox).expect_err("not privileged");
    assert_eq!(error.field, "config.linux.security_context.privileged");
    sandbox.security.privileged = true;
    assert_eq!(fits_sandbox(&at, &container, &sandbox), Ok(()));

    container.security.namespaces.user = Some(UserNamespace::default());
    let error = fits_sandbox(&at, &container, &sandbox).expect_err("no user namespace");
    assert_eq!(error.field, "config.linux.security_context.namespace_options.userns_options");
    sandbox.security.namespaces.user = Some(UserNamespace::default());
    assert_eq!(fits_sandbox(&at, &container, &sandbox), Ok(()));
}
