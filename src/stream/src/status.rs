//! What the error stream says at the end: a `metav1.Status` in JSON from version 4 on, plain text before.

use bytes::Bytes;
use serde::Serialize;

use crate::{backend::StreamError, negotiate::Version};

/// How a request ended, for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The process ended with code 0, or the attached container is over.
    Success,
    /// The process ended with another code.
    Exit(i32),
    /// It could not be started or watched. What was tried, and why not.
    Failure(&'static str, StreamError),
}

#[derive(Serialize)]
struct Status<'a> {
    metadata: Empty,
    status: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Details {
    causes: [Cause; 1],
}

#[derive(Serialize)]
struct Cause {
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn message(&self) -> String {
        match self {
            Self::Success => String::new(),
            Self::Exit(code) => format!("command terminated with non-zero exit code: exit status {code}"),
            Self::Failure(what, error) => format!("Internal error occurred: {what}: {error}"),
        }
    }

    /// The bytes for the error stream, none if there is nothing to say.
    pub(crate) fn encode(&self, version: Version) -> Bytes {
        let message = self.message();
        if version < Version::V4 {
            return message.into();
        }
        let (status, reason, details, code) = match self {
            Self::Success => ("Success", "", None, None),
            Self::Exit(code) => {
                let causes = [Cause { reason: "ExitCode", message: code.to_string() }];
                ("Failure", "NonZeroExitCode", Some(Details { causes }), None)
            }
            Self::Failure(..) => ("Failure", "InternalError", None, Some(500)),
        };
        let status = Status { metadata: Empty {}, status, message: &message, reason, details, code };
        // Serialising strings and numbers cannot fail; an empty status reads as success, so say something else.
        serde_json::to_vec(&status)
            .map_or_else(|_| Bytes::from_static(b"{\"status\":\"Failure\"}"), Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(verdict: &Verdict, version: Version) -> String {
        String::from_utf8(verdict.encode(version).to_vec()).unwrap()
    }

    #[test]
    fn statuses() {
        let failure =
            Verdict::Failure("error executing command in container", StreamError::NotFound("no sh".into()));
        for (verdict, version, expected) in [
            (Verdict::Success, Version::V4, r#"{"metadata":{},"status":"Success"}"#),
            (Verdict::Success, Version::V3, ""),
            (
                Verdict::Exit(3),
                Version::V5,
                r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: exit status 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#,
            ),
            (Verdict::Exit(3), Version::V1, "command terminated with non-zero exit code: exit status 3"),
            (
                failure.clone(),
                Version::V4,
                r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: error executing command in container: no sh","reason":"InternalError","code":500}"#,
            ),
            (failure, Version::V2, "Internal error occurred: error executing command in container: no sh"),
        ] {
            assert_eq!(text(&verdict, version), expected);
        }
    }
}
