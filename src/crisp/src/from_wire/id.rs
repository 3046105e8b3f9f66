//! Ids in requests: whole, or the first digits, as people type them to crictl.

use super::error::{At, Invalid};

/// What a client wrote where an id is expected. Any text: one that is no id names nothing and is simply not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdQuery(String);

impl IdQuery {
    /// An id that must be there.
    pub fn required(at: &At<'_>, text: &str) -> Result<Self, Invalid> {
        if text.is_empty() { Err(at.invalid("must not be empty")) } else { Ok(Self(text.to_owned())) }
    }

    /// An id of a filter; empty is none.
    pub fn optional(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// As the client wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `id` is, or begins with, what was written.
    pub fn matches(&self, id: &str) -> bool {
        id.starts_with(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_be_left_out_of_filters_only() {
        assert_eq!(IdQuery::optional(""), None);
        assert_eq!(
            IdQuery::required(&At::root("container_id"), "").expect_err("empty").field,
            "container_id"
        );
    }
}
