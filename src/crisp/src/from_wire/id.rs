//! Ids in requests: whole, or the first digits, as people type them to crictl.

use super::error::{At, Invalid};

/// What a client wrote where an id is expected. Any text: one that is no id names nothing and is simply not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdQuery(String);

/// What a query names among the ids that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named<T> {
    /// Nothing.
    None,
    /// Exactly this.
    One(T),
    /// The digits are not enough to tell several apart.
    Several,
}

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

    /// Looks for the one thing that is meant; the whole id always wins.
    pub fn find<T>(&self, all: impl IntoIterator<Item = T>, id: impl Fn(&T) -> &str) -> Named<T> {
        let mut found = Named::None;
        for item in all {
            if id(&item) == self.0 {
                return Named::One(item);
            }
            if self.matches(id(&item)) {
                found = match found {
                    Named::None => Named::One(item),
                    Named::One(_) | Named::Several => Named::Several,
                };
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(query: &str, all: &[&'a str]) -> Named<&'a str> {
        IdQuery(query.to_owned()).find(all.iter().copied(), |id| id)
    }

    #[test]
    fn first_digits_name_one_if_they_tell_it_apart() {
        let all = ["aaab", "aabb", "aa"];
        for (query, named) in [
            ("aaab", Named::One("aaab")),
            ("aaa", Named::One("aaab")),
            ("a", Named::Several),
            ("aa", Named::One("aa")),
            ("b", Named::None),
            ("aaabb", Named::None),
            ("../..", Named::None),
        ] {
            assert_eq!(find(query, &all), named, "{query}");
        }
    }

    #[test]
    fn an_id_may_be_left_out_of_filters_only() {
        assert_eq!(IdQuery::optional(""), None);
        assert_eq!(
            IdQuery::required(&At::root("container_id"), "").expect_err("empty").field,
            "container_id"
        );
    }
}
