//! `WWW-Authenticate` (RFC 9110, section 11; distribution-spec token authentication). Pure.

/// One challenge of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Lower case: `bearer`, `basic`.
    pub scheme: String,
    /// Keys in lower case, in order.
    pub parameters: Vec<(String, String)>,
}

impl Challenge {
    /// A parameter's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.parameters.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// Splits a header into its challenges. What cannot be understood ends the list: a registry's nonsense must not
/// become a request somewhere.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while let Some((word, after)) = token(rest) {
        let after = after.trim_start_matches([' ', '\t']);
        match (after.strip_prefix('='), challenges.last_mut()) {
            (Some(value), Some(challenge)) => {
                let Some((value, after)) = value_of(value.trim_start_matches([' ', '\t'])) else { break };
                challenge.parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => {
                challenges.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    challenges
}

fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        // Some registries leave out the quotes around URLs.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_registries_send() {
        let hub = parse(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
        );
        assert_eq!(hub.len(), 1);
        assert_eq!(hub[0].get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(hub[0].get("scope"), Some("repository:a/b:pull,push"));
        let two = parse(r#"Basic realm="a \"quoted\" realm", BEARER Realm = https://x/token , service=y"#);
        assert_eq!(two[0].get("realm"), Some(r#"a "quoted" realm"#));
        assert_eq!((two[1].scheme.as_str(), two[1].get("service")), ("bearer", Some("y")));
        assert_eq!(parse("Negotiate, Basic").len(), 2);
        for odd in ["", "=", "realm=\"x\"", "\"", ",,,"] {
            assert_eq!(parse(odd), [], "{odd}");
        }
        assert_eq!(parse("Bearer realm=\"unterminated")[0].parameters, []);
    }

    proptest! {
        #[test]
        fn never_panics_and_keeps_quoted_values(text in "\\PC{0,60}", value in "[a-z:/?&=, ]{0,20}") {
            let _ = parse(&text);
            let parsed = parse(&format!("Bearer realm=\"{value}\""));
            prop_assert_eq!(parsed[0].get("realm"), Some(value.as_str()));
        }
    }
}
