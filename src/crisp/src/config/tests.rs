use std::fs;

use super::*;
use crate::config::{
    load::load,
    schema::{KEYS, variable},
};

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// A folder with config.toml and drop-ins.
fn folder(main: Option<&str>, drop_ins: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    if let Some(text) = main {
        fs::write(folder.path().join("config.toml"), text).expect("write");
    }
    fs::create_dir(folder.path().join("conf.d")).expect("conf.d");
    for (name, text) in drop_ins {
        fs::write(folder.path().join("conf.d").join(name), text).expect("write");
    }
    folder
}

fn load_text(text: &str) -> Result<Loaded, ConfigError> {
    let folder = folder(Some(text), &[]);
    load(&Sources { file: Some(folder.path().join("config.toml")), ..Sources::default() })
}

fn flags(list: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let folder = folder(Some(""), &[]);
    let file = Some(folder.path().join("config.toml"));
    load(&Sources { file, flags: pairs(list), ..Sources::default() })
}

#[test]
fn an_empty_file_gives_the_defaults() {
    let loaded = load_text("").expect("defaults");
    assert_eq!(loaded.config.root, Path::new("/var/lib/crisp"));
    assert_eq!(loaded.config.socket, Path::new("/run/crisp/crisp.sock"));
    assert_eq!(loaded.config.exec_sync_output_limit, Size(16 << 20));
    assert_eq!(loaded.config.monitor_path(Path::new("/usr/bin/crisp")), Path::new("/usr/bin/crisp-monitor"));
    assert_eq!(loaded.config.cgroup.driver, CgroupDriver::Auto);
    assert!(loaded.config.runtime.handlers.is_empty());
    assert!(loaded.origins.values().all(|origin| *origin == Origin::Default));
}

#[test]
fn every_default_is_of_its_kind_and_documented() {
    for key in KEYS {
        let table: toml::Table = format!("v = {}", key.default).parse().expect(key.path);
        assert_eq!(key.kind.check(&table["v"]), Ok(()), "{}", key.path);
        assert!(key.doc.ends_with('.') || key.doc.ends_with(')'), "{}", key.path);
    }
    let mut variables: Vec<_> = KEYS.iter().filter_map(variable).collect();
    let all = variables.len();
    variables.sort();
    variables.dedup();
    assert_eq!(variables.len(), all, "two keys share an environment variable");
}

#[test]
fn later_sources_win_and_are_remembered() {
    let main = "root = \"/a\"\nstate = \"/b\"\n[log]\nlevel = \"warn\"\nformat = \"json\"";
    let drop_ins = [("20.toml", "root = \"/c\""), ("10.toml", "root = \"/d\""), ("x.bak", "nonsense")];
    let folder = folder(Some(main), &drop_ins);
    let loaded = load(&Sources {
        file: Some(folder.path().join("config.toml")),
        environment: pairs(&[
            ("CRISP_STATE", "/e"),
            ("CRISP_LOG_LEVEL", "error"),
            ("CRISP_NONSENSE", "1"),
            ("HOME", "/"),
        ]),
        flags: pairs(&[("log.level", "debug")]),
    })
    .expect("valid");
    let config = &loaded.config;
    assert_eq!((config.root.as_path(), config.state.as_path()), (Path::new("/c"), Path::new("/e")));
    assert_eq!((config.log.level.as_str(), config.log.format), ("debug", LogFormat::Json));
    assert_eq!(loaded.origins["root"], Origin::File(folder.path().join("conf.d/20.toml")));
    assert_eq!(loaded.origins["state"], Origin::Environment("CRISP_STATE".into()));
    assert_eq!(loaded.origins["log.level"], Origin::Flag("log.level".into()));
    assert_eq!(config.socket, Path::new("/e/crisp.sock"));
    assert_eq!(loaded.origins["socket"], Origin::Follows("state"));
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].contains("CRISP_NONSENSE"));
}

#[test]
fn unknown_keys_name_file_and_key() {
    for (text, key) in [
        ("rooot = \"/a\"", "rooot"),
        ("[network]\nbridge = \"x\"", "network.bridge"),
        ("[network.builtin.deep]\nx = 1", "network.builtin.deep"),
        ("[runtime.handlers.x]\ny = 1", "runtime.handlers.x.y"),
        ("\"log.level\" = \"info\"", "log.level"),
        ("log = 1", "log"),
        ("[runtime.handlers.\"a.b\"]", "runtime.handlers.a.b"),
    ] {
        let error = load_text(text).expect_err(text);
        let ConfigError::UnknownKey { origin: Origin::File(path), key: named } = &error else {
            panic!("{text}: {error}");
        };
        assert!(path.ends_with("config.toml"));
        assert_eq!(named, key);
    }
    assert!(matches!(flags(&[("nonsense", "1")]), Err(ConfigError::UnknownKey { .. })));
}

#[test]
fn wrong_values_name_their_key() {
    for (key, value) in [
        ("root", "relative"),
        ("image.max_concurrent_downloads", "0"),
        ("image.max_concurrent_downloads", "many"),
        ("image.pull_progress_timeout", "5"),
        ("exec_sync_output_limit", "16MB"),
        ("network.builtin.enabled", "yes"),
        ("network.builtin.subnets", "10.88.0.0"),
        ("network.builtin.subnets", "10.88.0.0/16,10.89.0.0/16"),
        ("network.builtin.bridge", "a-name-that-is-too-long"),
        ("network.cni_bin_dirs", "/a,b"),
        ("stream.address", "localhost"),
        ("stream.port", "65536"),
        ("stream.tls_cert", "/c.pem"),
        ("cgroup.driver", "fs"),
        ("cgroup.default_parent", "crisp"),
        ("cgroup.default_parent", "/a/../b"),
        ("log.level", "loud=,"),
        ("log.format", "xml"),
        ("state", "/var/lib/crisp/state"),
    ] {
        match flags(&[(key, value)]) {
            Err(ConfigError::Value { key: named, .. }) => assert_eq!(named, key),
            other => panic!("{key} = {value}: {other:?}"),
        }
    }
    assert!(matches!(load_text("root = 5"), Err(ConfigError::Value { .. })));
    assert!(matches!(load_text("root = "), Err(ConfigError::Syntax { .. })));
}

#[test]
fn handlers_are_made_by_their_table() {
    let text = "[runtime.handlers.plain]\n[runtime.handlers.strict]\nallow_privileged = false";
    let handlers = load_text(text).expect("valid").config.runtime.handlers;
    assert_eq!(handlers.keys().collect::<Vec<_>>(), ["plain", "strict"]);
    assert!(handlers["plain"].allow_privileged && handlers["plain"].allow_host_namespaces);
    assert!(!handlers["strict"].allow_privileged && handlers["strict"].allow_host_namespaces);
}

#[test]
fn a_named_file_must_exist() {
    let folder = folder(None, &[]);
    let sources = Sources { file: Some(folder.path().join("config.toml")), ..Sources::default() };
    assert!(matches!(load(&sources), Err(ConfigError::Read { .. })));
}

#[test]
fn what_is_printed_can_be_read_again() {
    let text = "[network.builtin]\nsubnets = [\"10.1.0.0/16\", \"fd00::/64\"]\n[runtime.handlers.x]";
    let loaded = load_text(text).expect("valid");
    assert_eq!(load_text(&print::effective(&loaded)).expect("printed").config, loaded.config);

    let defaults = print::defaults();
    let uncommented: Vec<&str> =
        defaults.lines().filter(|l| !l.starts_with("# ")).map(|l| l.trim_start_matches('#')).collect();
    let mut all = load_text(&uncommented.join("\n")).expect("all defaults").config;
    assert_eq!(all.runtime.handlers.remove("NAME").map(|h| h.allow_privileged), Some(true));
    assert_eq!(all, load_text("").expect("empty").config);

    let origins = print::origins(&loaded);
    assert!(
        origins
            .lines()
            .next()
            .is_some_and(|l| l.contains("network.builtin.subnets") && l.contains("config.toml"))
    );
    assert_eq!(origins.lines().count(), loaded.origins.len());
}
