//! Kinds of values: how they are checked in a file and read from an environment variable or a flag.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use toml::Value;

use super::units;

/// What a key may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number between these two.
    Integer(i64, i64),
    /// One of these.
    Choice(&'static [&'static str]),
    /// A plain name of at most so many bytes.
    Name(usize),
    /// A filter of log lines.
    Directive,
    /// Any texts.
    Texts,
    /// An absolute path.
    Path,
    /// An absolute path, or empty.
    OptionalPath,
    /// Absolute paths.
    Paths,
    /// A cgroup path or slice.
    Parent,
    /// An IP address.
    Address,
    /// An IP address with a port, or empty.
    Listen,
    /// Subnets, at most one of each family.
    Networks,
    /// A length of time.
    Span,
    /// A number of bytes.
    Size,
}

impl Kind {
    /// Checks a value of a file and says what is wrong with it.
    pub fn check(self, value: &Value) -> Result<(), String> {
        match self {
            Kind::Bool => value.as_bool().map(drop).ok_or_else(|| "true or false is needed".to_owned()),
            Kind::Integer(least, most) => match value.as_integer() {
                Some(n) if (least..=most).contains(&n) => Ok(()),
                _ => Err(format!("a whole number between {least} and {most} is needed")),
            },
            Kind::Texts => texts(value).map(drop),
            Kind::Paths => texts(value)?.into_iter().try_for_each(absolute),
            Kind::Networks => networks(&texts(value)?),
            _ => self.check_text(value.as_str().ok_or("a text in quotes is needed")?),
        }
    }

    fn check_text(self, text: &str) -> Result<(), String> {
        match self {
            Kind::Choice(all) if all.contains(&text) => Ok(()),
            Kind::Choice(all) => Err(format!("{text:?} is not one of {}", all.join(", "))),
            Kind::Name(longest) => name(text, longest),
            Kind::Directive => text.split(',').try_for_each(directive),
            Kind::OptionalPath if text.is_empty() => Ok(()),
            Kind::Path | Kind::OptionalPath => absolute(text),
            Kind::Parent => parent(text),
            Kind::Address => match text.parse::<IpAddr>() {
                Ok(_) => Ok(()),
                Err(_) => Err(format!("{text:?} is not an IP address")),
            },
            Kind::Listen if text.is_empty() => Ok(()),
            Kind::Listen => match text.parse::<SocketAddr>() {
                Ok(address) if address.port() != 0 => Ok(()),
                _ => Err(format!("{text:?} is not an address with a port such as 127.0.0.1:9340")),
            },
            Kind::Span => text.parse::<units::Span>().map(drop),
            Kind::Size => text.parse::<units::Size>().map(drop),
            Kind::Bool | Kind::Integer(..) | Kind::Texts | Kind::Paths | Kind::Networks => Ok(()),
        }
    }

    /// Reads the text of an environment variable or a flag; lists are separated by commas.
    pub fn read(self, text: &str) -> Result<Value, String> {
        let value = match self {
            Kind::Bool => text.parse().map(Value::Boolean).map_err(|_| "true or false is needed")?,
            Kind::Integer(..) => text.parse().map(Value::Integer).map_err(|_| "a whole number is needed")?,
            Kind::Texts | Kind::Paths | Kind::Networks => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Value::Array(parts.map(|part| Value::String(part.to_owned())).collect())
            }
            _ => Value::String(text.to_owned()),
        };
        self.check(&value).map(|()| value)
    }
}

fn texts(value: &Value) -> Result<Vec<&str>, String> {
    let wrong = || "a list of texts in quotes is needed".to_owned();
    value.as_array().ok_or_else(wrong)?.iter().map(|item| item.as_str().ok_or_else(wrong)).collect()
}

fn absolute(text: &str) -> Result<(), String> {
    if text.starts_with('/') && !text.contains('\0') {
        Ok(())
    } else {
        Err(format!("{text:?} is not an absolute path"))
    }
}

fn name(text: &str, longest: usize) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > longest || !text.chars().all(plain) || text.starts_with('.') {
        return Err(format!("{text:?} is not a name of at most {longest} letters, digits, -, _ and ."));
    }
    Ok(())
}

/// `LEVEL` or `module=LEVEL`.
fn directive(text: &str) -> Result<(), String> {
    let (module, level) = text.trim().rsplit_once('=').unwrap_or(("crisp", text.trim()));
    let known = matches!(level, "off" | "error" | "warn" | "info" | "debug" | "trace");
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    if known && !module.is_empty() && module.chars().all(plain) {
        Ok(())
    } else {
        Err(format!("{text:?} is neither a level (error, warn, info, debug, trace) nor module=level"))
    }
}

fn parent(text: &str) -> Result<(), String> {
    let dots = text.split('/').any(|part| part == "." || part == "..");
    if (text.starts_with('/') && text.len() > 1 || text.ends_with(".slice")) && !dots && !text.contains('\0')
    {
        Ok(())
    } else {
        Err(format!("{text:?} is neither a cgroup path such as /crisp nor a slice such as crisp.slice"))
    }
}

fn networks(list: &[&str]) -> Result<(), String> {
    let (mut v4, mut v6) = (0, 0);
    for text in list {
        match text.parse::<IpNet>() {
            Ok(IpNet::V4(_)) => v4 += 1,
            Ok(IpNet::V6(_)) => v6 += 1,
            Err(_) => return Err(format!("{text:?} is not a subnet such as 10.88.0.0/16")),
        }
    }
    if v4 > 1 || v6 > 1 { Err("at most one subnet of each family is possible".into()) } else { Ok(()) }
}

/// In TOML an empty text stands for "no path".
pub mod optional_path {
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// `None` for the empty text.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
        let path = PathBuf::deserialize(from)?;
        Ok((!path.as_os_str().is_empty()).then_some(path))
    }

    /// The empty text for `None`.
    pub fn serialize<S: Serializer>(path: &Option<PathBuf>, to: S) -> Result<S::Ok, S::Error> {
        path.clone().unwrap_or_default().serialize(to)
    }
}

/// In TOML an empty text stands for "nowhere".
pub mod optional_address {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    /// `None` for the empty text.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
        match String::deserialize(from)?.as_str() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(D::Error::custom),
        }
    }

    /// The empty text for `None`.
    pub fn serialize<S: Serializer>(address: &Option<SocketAddr>, to: S) -> Result<S::Ok, S::Error> {
        address.map(|a| a.to_string()).unwrap_or_default().serialize(to)
    }
}
