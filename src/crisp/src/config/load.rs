//! Reads the sources, checks each value where it stands, and puts them together.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{
    Config, ConfigError, DEFAULT_FILE,
    schema::{self, KEYS},
};

/// Longest file that is read. A configuration with every key and comment is a hundredth of this.
const FILE_MAX: u64 = 1 << 20;

/// Where to look.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file that was named; it has to exist. `None`: [`DEFAULT_FILE`], which need not.
    pub file: Option<PathBuf>,
    /// All environment variables.
    pub environment: Vec<(String, String)>,
    /// Keys and values of flags.
    pub flags: Vec<(String, String)>,
}

/// Who set a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody.
    Default,
    /// Nobody, but it follows from another key.
    Follows(&'static str),
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Follows(key) => write!(f, "default, from {key}"),
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A configuration and where it came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Who set each key, by dotted path.
    pub origins: BTreeMap<String, Origin>,
    /// Things to tell the administrator that are no errors.
    pub warnings: Vec<String>,
}

/// Values by dotted path, each with who set it.
type Values = BTreeMap<String, (Value, Origin)>;

/// Reads everything. Changes nothing anywhere.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut values = defaults();
    for file in files(sources)? {
        read_file(&file, &mut values)?;
    }
    let warnings = read_environment(&sources.environment, &mut values)?;
    for (name, text) in &sources.flags {
        set(name, text, Origin::Flag(name.clone()), &mut values)?;
    }
    follow(&mut values);
    handler_defaults(&mut values);
    check_together(&values)?;
    let origins = values.iter().map(|(key, (_, origin))| (key.clone(), origin.clone())).collect();
    Ok(Loaded { config: build(values)?, origins, warnings })
}

fn parse_default(text: &str) -> Value {
    let table: Option<Table> = format!("v = {text}").parse().ok();
    table.and_then(|mut table| table.remove("v")).unwrap_or_else(|| Value::String(String::new()))
}

fn defaults() -> Values {
    let fixed = KEYS.iter().filter(|key| !key.path.contains('*'));
    fixed.map(|key| (key.path.to_owned(), (parse_default(key.default), Origin::Default))).collect()
}

/// The main file and the drop-ins beside it, in the order in which they count.
fn files(sources: &Sources) -> Result<Vec<PathBuf>, ConfigError> {
    let named = sources.file.as_deref();
    let main = named.unwrap_or(Path::new(DEFAULT_FILE));
    let mut files = Vec::new();
    if named.is_some() || main.exists() {
        files.push(main.to_owned());
    }
    let folder = main.with_file_name("conf.d");
    let failed = |source| ConfigError::Read { path: folder.clone(), source };
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(failed(error)),
    };
    let mut drop_ins = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|end| end == "toml") {
            drop_ins.push(path);
        }
    }
    drop_ins.sort();
    files.append(&mut drop_ins);
    Ok(files)
}

fn read_file(path: &Path, values: &mut Values) -> Result<(), ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > FILE_MAX {
        return Err(failed(io::Error::other(format!("has {length} bytes; {FILE_MAX} are allowed"))));
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        message: error.to_string(),
    })?;
    flatten("", table, &Origin::File(path.to_owned()), values)
}

/// Puts the leaves of a table under their dotted paths, checking each.
fn flatten(prefix: &str, table: Table, origin: &Origin, values: &mut Values) -> Result<(), ConfigError> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        if name.contains('.') || name.is_empty() {
            return Err(ConfigError::UnknownKey { origin: origin.clone(), key });
        }
        match (value, schema::find(&key)) {
            (value, Some(known)) => {
                let wrong = |reason| ConfigError::Value { origin: origin.clone(), key: key.clone(), reason };
                known.kind.check(&value).map_err(wrong)?;
                values.insert(key, (value, origin.clone()));
            }
            (Value::Table(table), None) if schema::is_table(&key) => {
                mention_handler(&key, origin, values);
                flatten(&key, table, origin, values)?;
            }
            (_, None) => return Err(ConfigError::UnknownKey { origin: origin.clone(), key }),
        }
    }
    Ok(())
}

/// `[runtime.handlers.NAME]` without a key in it makes a handler all the same.
fn mention_handler(table: &str, origin: &Origin, values: &mut Values) {
    let name = table.strip_prefix("runtime.handlers.").filter(|name| !name.contains('.'));
    if let Some((name, first)) = name.zip(KEYS.iter().find(|key| key.path.contains('*'))) {
        let key = first.path.replace('*', name);
        values.entry(key).or_insert_with(|| (parse_default(first.default), origin.clone()));
    }
}

fn read_environment(variables: &[(String, String)], values: &mut Values) -> Result<Vec<String>, ConfigError> {
    for key in KEYS {
        let Some(name) = schema::variable(key) else { continue };
        if let Some((_, text)) = variables.iter().find(|(variable, _)| *variable == name) {
            set(key.path, text, Origin::Environment(name), values)?;
        }
    }
    let known = |name: &str| {
        name == "CRISP_CONFIG" || KEYS.iter().any(|key| schema::variable(key).as_deref() == Some(name))
    };
    let strange = variables.iter().filter(|(name, _)| name.starts_with("CRISP_") && !known(name));
    Ok(strange.map(|(name, _)| format!("environment variable {name} is no setting of crisp")).collect())
}

fn set(key: &str, text: &str, origin: Origin, values: &mut Values) -> Result<(), ConfigError> {
    let Some(known) = schema::find(key) else {
        return Err(ConfigError::UnknownKey { origin, key: key.to_owned() });
    };
    match known.kind.read(text) {
        Ok(value) => {
            values.insert(key.to_owned(), (value, origin));
            Ok(())
        }
        Err(reason) => Err(ConfigError::Value { origin, key: key.to_owned(), reason }),
    }
}

/// The socket lies in the state folder unless it was given itself.
fn follow(values: &mut Values) {
    let moved = values.get("state").filter(|(_, origin)| *origin != Origin::Default);
    let state = moved.and_then(|(value, _)| value.as_str()).map(str::to_owned);
    if let (Some(state), Some(socket)) = (state, values.get_mut("socket"))
        && socket.1 == Origin::Default
    {
        let path = Path::new(&state).join("crisp.sock");
        *socket = (Value::String(path.to_string_lossy().into_owned()), Origin::Follows("state"));
    }
}

/// Fills in the keys that a handler's table leaves out.
fn handler_defaults(values: &mut Values) {
    let handler =
        |key: &str| key.strip_prefix("runtime.handlers.")?.split_once('.').map(|(name, _)| name.to_owned());
    let names: Vec<String> = values.keys().filter_map(|key| handler(key)).collect();
    for key in KEYS.iter().filter(|key| key.path.contains('*')) {
        for name in &names {
            let path = key.path.replace('*', name);
            values.entry(path).or_insert_with(|| (parse_default(key.default), Origin::Default));
        }
    }
}

/// What two keys must agree on.
fn check_together(values: &Values) -> Result<(), ConfigError> {
    let text = |key: &str| values.get(key).and_then(|(value, _)| value.as_str()).unwrap_or_default();
    let wrong = |key: &str, reason: &str| {
        let origin = values.get(key).map_or(Origin::Default, |(_, origin)| origin.clone());
        Err(ConfigError::Value { origin, key: key.to_owned(), reason: reason.to_owned() })
    };
    match (text("stream.tls_cert"), text("stream.tls_key")) {
        ("", "") => {}
        ("", _) => return wrong("stream.tls_key", "is set, but stream.tls_cert is not"),
        (_, "") => return wrong("stream.tls_cert", "is set, but stream.tls_key is not"),
        _ => {}
    }
    let (root, state) = (Path::new(text("root")), Path::new(text("state")));
    if root.starts_with(state) || state.starts_with(root) {
        return wrong("state", "lies in root or the other way round; they live and die apart");
    }
    let driver = text("cgroup.driver");
    if driver == "systemd"
        && !text("cgroup.default_parent").ends_with(".slice")
        && text("cgroup.default_parent") != "/crisp"
    {
        return wrong("cgroup.default_parent", "has to be a slice, since cgroup.driver is systemd");
    }
    Ok(())
}

fn build(values: Values) -> Result<Config, ConfigError> {
    let mut root = Table::new();
    put(&mut root, "runtime.handlers", Value::Table(Table::new()));
    for (key, (value, _)) in values {
        put(&mut root, &key, value);
    }
    // Every value was checked by its kind; what is left are mistakes in the table of keys, which the tests find.
    root.try_into().map_err(|error: toml::de::Error| {
        let reason = error.message().to_owned();
        ConfigError::Value { origin: Origin::Default, key: "configuration".into(), reason }
    })
}

/// Puts a value under a dotted path.
fn put(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}
