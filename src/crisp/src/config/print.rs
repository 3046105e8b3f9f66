//! The configuration as text: what `crisp config` prints.

use std::fmt::Write as _;

use toml::{Table, Value};

use super::{
    Loaded, Origin,
    schema::{self, KEYS},
};

/// A configuration file with every key at its default, commented out, each with what it means.
pub fn defaults() -> String {
    let mut text = String::from("# Configuration of crisp. Every key is shown with its default.\n");
    let mut section = String::new();
    for key in KEYS {
        let (table, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
        if table != section {
            section = table.to_owned();
            let _ = write!(
                text,
                "\n{}[{}]\n",
                if table.contains('*') { "#" } else { "" },
                table.replace('*', "NAME")
            );
        } else {
            text.push('\n');
        }
        for line in key.doc.lines() {
            let _ = writeln!(text, "# {line}");
        }
        if let Some(variable) = schema::variable(key) {
            let live = if key.live { "; SIGHUP reloads it" } else { "" };
            let _ = writeln!(text, "# (environment: {variable}{live})");
        }
        let _ = writeln!(text, "#{name} = {}", key.default);
    }
    text
}

/// The configuration in force, as a file that gives the same again.
pub fn effective(loaded: &Loaded) -> String {
    toml::to_string_pretty(&loaded.config).unwrap_or_else(|error| format!("# {error}\n"))
}

/// Each key in force on a line of its own, with who set it.
pub fn origins(loaded: &Loaded) -> String {
    let table = Table::try_from(&loaded.config).unwrap_or_default();
    let mut lines = Vec::new();
    for (key, origin) in &loaded.origins {
        lines.push((format!("{key} = {}", lookup(&table, key).unwrap_or(&Value::Boolean(false))), origin));
    }
    // Who was asked for something goes first; the order of keys is kept among equals.
    lines.sort_by_key(|(_, origin)| **origin == Origin::Default);
    let width = lines.iter().map(|(line, _)| line.len()).max().unwrap_or(0).min(60);
    let mut text = String::new();
    for (line, origin) in lines {
        let _ = writeln!(text, "{line:width$}  # {origin}");
    }
    text
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let value = table.get(first)?;
    match rest {
        None => Some(value),
        Some(rest) => lookup(value.as_table()?, rest),
    }
}
