//! CNI network configuration: lists (`.conflist`) and single plugins (`.conf`, `.json`). Parsing is pure.
//!
//! CNI specification, section 1. What a plugin's part holds beside the keys that the specification defines is the
//! plugin's own business and is handed on untouched.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::version::Version;
use crate::NetworkError;

/// A file longer than this is no network configuration.
pub(crate) const MAX_FILE: usize = 1 << 20;
/// More plugins than this in one list are a mistake.
const MAX_PLUGINS: usize = 32;

/// A network as it is configured: a chain of plugins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkList {
    /// Network name.
    pub name: String,
    /// Version that plugins are spoken to in.
    pub version: Version,
    /// CHECK is not wanted (`disableCheck`).
    #[serde(default)]
    pub disable_check: bool,
    /// GC is not wanted (`disableGC`).
    #[serde(default)]
    pub disable_gc: bool,
    /// In the order of ADD.
    pub plugins: Vec<Plugin>,
}

/// One plugin of a list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plugin {
    /// Name of its binary.
    pub kind: String,
    /// All of its configuration as written.
    pub config: Map<String, Value>,
}

impl Plugin {
    /// Whether it takes that part of the runtime configuration (`capabilities`).
    pub fn has_capability(&self, name: &str) -> bool {
        self.config.get("capabilities").and_then(|c| c.get(name)).and_then(Value::as_bool).unwrap_or(false)
    }
}

fn bad(problem: impl Into<String>) -> NetworkError {
    NetworkError::Invalid { field: "CNI configuration", problem: problem.into() }
}

fn name(map: &Map<String, Value>) -> Result<String, NetworkError> {
    let name = map.get("name").and_then(Value::as_str).ok_or_else(|| bad("it has no name"))?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    // The specification's rule; names end up in paths.
    let starts_well = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !starts_well || name.len() > 255 || !name.bytes().all(plain) {
        return Err(bad(format!(
            "{name:?} is not a network name: letters, digits, '-', '_' and '.' are allowed"
        )));
    }
    Ok(name.to_owned())
}

fn flag(map: &Map<String, Value>, key: &str) -> bool {
    // libcni takes "true" as text too.
    match map.get(key) {
        Some(Value::Bool(value)) => *value,
        Some(Value::String(text)) => text == "true",
        _ => false,
    }
}

/// The version to speak: the highest of `cniVersion` and `cniVersions` that both sides know.
fn version(map: &Map<String, Value>) -> Result<Version, NetworkError> {
    let single = map.get("cniVersion").map(|v| v.as_str().ok_or_else(|| bad("cniVersion is not a text")));
    let mut named: Vec<&str> = single.transpose()?.into_iter().filter(|t| !t.is_empty()).collect();
    if let Some(list) = map.get("cniVersions").and_then(Value::as_array) {
        named.extend(list.iter().filter_map(Value::as_str));
    }
    if named.is_empty() {
        return Err(bad("it has no cniVersion; 0.3.1, 0.4.0, 1.0.0 and 1.1.0 are supported"));
    }
    let known = named.iter().filter_map(|t| t.parse().ok()).max();
    known.ok_or_else(|| {
        bad(format!("cniVersion {} is not supported; 0.3.1, 0.4.0, 1.0.0 and 1.1.0 are", named.join(", ")))
    })
}

fn plugin(value: &Value) -> Result<Plugin, NetworkError> {
    let config = value.as_object().ok_or_else(|| bad("a plugin is not an object"))?.clone();
    let kind = config.get("type").and_then(Value::as_str).unwrap_or_default();
    // It is the name of a program in one of the plugin folders and nothing else.
    if kind.is_empty()
        || kind.contains('/')
        || kind.starts_with('.')
        || kind.len() > 255
        || kind.contains('\0')
    {
        return Err(bad(format!("plugin type {kind:?} is not the name of a program")));
    }
    Ok(Plugin { kind: kind.to_owned(), config })
}

impl NetworkList {
    /// Reads a file's contents. `file` tells a list from a single plugin by its extension.
    pub fn parse(file: &Path, bytes: &[u8]) -> Result<Self, NetworkError> {
        if bytes.len() > MAX_FILE {
            return Err(bad("it is longer than 1 MiB"));
        }
        let value: Value = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        let map = value.as_object().ok_or_else(|| bad("it is not an object"))?;
        let list = file.extension().is_some_and(|e| e == "conflist") || map.contains_key("plugins");
        let plugins: Vec<Plugin> = if list {
            let plugins = map.get("plugins").and_then(Value::as_array);
            plugins
                .ok_or_else(|| bad("it has no list of plugins"))?
                .iter()
                .map(plugin)
                .collect::<Result<_, _>>()?
        } else {
            vec![plugin(&value)?]
        };
        if plugins.is_empty() || plugins.len() > MAX_PLUGINS {
            return Err(bad(format!("it has {} plugins; 1 to {MAX_PLUGINS} are allowed", plugins.len())));
        }
        Ok(Self {
            name: name(map)?,
            version: version(map)?,
            disable_check: flag(map, "disableCheck"),
            disable_gc: flag(map, "disableGC"),
            plugins,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(file: &str, text: &str) -> Result<NetworkList, String> {
        NetworkList::parse(Path::new(file), text.as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn lists_and_single_plugins() {
        let list = parse(
            "10-a.conflist",
            r#"{"cniVersion":"1.0.0","cniVersions":["0.4.0","1.1.0","9.0.0"],"name":"a","disableCheck":"true",
                "plugins":[{"type":"bridge","x":1},{"type":"portmap","capabilities":{"portMappings":true}}]}"#,
        )
        .unwrap();
        assert_eq!(list.version, Version::V1_1_0);
        assert!(list.disable_check && !list.disable_gc);
        assert!(list.plugins[1].has_capability("portMappings") && !list.plugins[1].has_capability("dns"));
        assert_eq!(list.plugins[0].config["x"], 1);
        let single = parse("10-a.conf", r#"{"cniVersion":"0.3.1","name":"a","type":"ptp"}"#).unwrap();
        assert_eq!((single.plugins.len(), single.plugins[0].kind.as_str()), (1, "ptp"));
        assert_eq!(single.version, Version::V0_3_1);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, problem) in [
            ("", "EOF"),
            ("[]", "not an object"),
            (r#"{"cniVersion":"1.0.0","name":"a"}"#, "no list of plugins"),
            (r#"{"cniVersion":"1.0.0","name":"a","plugins":[]}"#, "0 plugins"),
            (r#"{"cniVersion":"1.0.0","name":"../a","plugins":[{"type":"b"}]}"#, "not a network name"),
            (r#"{"cniVersion":"1.0.0","plugins":[{"type":"b"}]}"#, "no name"),
            (r#"{"name":"a","plugins":[{"type":"b"}]}"#, "no cniVersion"),
            (r#"{"cniVersion":"0.2.0","name":"a","plugins":[{"type":"b"}]}"#, "0.2.0 is not supported"),
            (r#"{"cniVersion":"1.0.0","name":"a","plugins":[{"type":"../b"}]}"#, "not the name of a program"),
            (r#"{"cniVersion":"1.0.0","name":"a","plugins":[{}]}"#, "not the name of a program"),
            (r#"{"cniVersion":"1.0.0","name":"a","plugins":[7]}"#, "not an object"),
        ] {
            let error = parse("a.conflist", text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            let _ = parse("a.conflist", &text);
            let _ = parse("a.conf", &text);
        }
    }
}
