//! What is wrong with a request, and the path of the field that is.

use std::fmt;

/// A field of a request that cannot be accepted. The services answer it with `InvalidArgument`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}{}", Hint(*hint))]
pub struct Invalid {
    /// Path from the request down, with the names of `api.proto`: `config.mounts[2].host_path`.
    pub field: String,
    /// What is wrong with it, with the value where that helps.
    pub reason: String,
    /// What to send instead.
    pub hint: Option<&'static str>,
}

impl Invalid {
    /// Adds what to send instead.
    #[must_use]
    pub fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }
}

struct Hint(Option<&'static str>);

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |hint| write!(f, " ({hint})"))
    }
}

/// A place in a request. Lives on the stack and costs nothing until something is wrong there.
#[derive(Debug, Clone, Copy)]
pub struct At<'a> {
    parent: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> At<'a> {
    /// A field of the request itself.
    pub fn root(field: &'a str) -> Self {
        Self { parent: None, step: Step::Field(field) }
    }

    /// A field of the message at this place.
    pub fn field(&'a self, name: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Field(name) }
    }

    /// An element of the list at this place.
    pub fn index(&'a self, index: usize) -> At<'a> {
        At { parent: Some(self), step: Step::Index(index) }
    }

    /// A value of the map at this place.
    pub fn key(&'a self, key: &'a str) -> At<'a> {
        At { parent: Some(self), step: Step::Key(key) }
    }

    /// The error that something is wrong here.
    pub fn invalid(&self, reason: impl Into<String>) -> Invalid {
        Invalid { field: self.to_string(), reason: reason.into(), hint: None }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Field(name) if self.parent.is_some() => write!(f, ".{name}"),
            Step::Field(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{}]", Shown(key)),
        }
    }
}

/// A text from a request inside an error: quoted, escaped, and cut so that a hostile one cannot flood a log.
#[derive(Debug)]
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 120;
        match self.0.char_indices().nth(LONGEST) {
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
            None => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_as_in_the_proto() {
        let config = At::root("config");
        let linux = config.field("linux");
        let sysctls = linux.field("sysctls");
        assert_eq!(sysctls.key("net.x").to_string(), r#"config.linux.sysctls["net.x"]"#);
        assert_eq!(
            config.field("mounts").index(2).field("host_path").to_string(),
            "config.mounts[2].host_path"
        );
    }

    #[test]
    fn the_text_names_field_reason_and_hint() {
        let error = At::root("timeout").invalid("-1 is negative").hint("0 means no limit");
        assert_eq!(error.to_string(), "timeout: -1 is negative (0 means no limit)");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        let text = "ü".repeat(500);
        assert_eq!(Shown(&text).to_string().chars().count(), 120 + 3);
    }
}
