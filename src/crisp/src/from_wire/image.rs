//! Image names and registry credentials.

use std::fmt;

use base64::Engine as _;
use crisp_proto::v1;

use super::{
    error::{At, Invalid},
    text,
};

/// Longest image name: a repository name has at most 255 bytes, tag 128, digest 135.
const NAME_MAX: usize = 1024;

/// The image that a request is about; the syntax of references is the image store's matter.
pub fn image_name(at: &At<'_>, wire: Option<&v1::ImageSpec>) -> Result<String, Invalid> {
    let Some(wire) = wire else { return Err(at.invalid("is missing")) };
    let at = at.field("image");
    let name = text::required(&at, &wire.image)?;
    if name.len() > NAME_MAX || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(at.invalid(format!("is not one word of at most {NAME_MAX} bytes")));
    }
    Ok(name)
}

/// The name in a filter of images; `None` means all images.
pub fn image_filter(at: &At<'_>, wire: Option<&v1::ImageFilter>) -> Result<Option<String>, Invalid> {
    let named = wire.and_then(|filter| filter.image.as_ref()).filter(|image| !image.image.is_empty());
    named.map(|image| image_name(&at.field("image"), Some(image))).transpose()
}

/// How to present oneself to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// User name and password.
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: String,
    },
    /// A refresh token for the registry's token service.
    Identity(String),
    /// A bearer token for the registry itself.
    Bearer(String),
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::Basic { .. } => "Basic(…)",
            Secret::Identity(_) => "Identity(…)",
            Secret::Bearer(_) => "Bearer(…)",
        })
    }
}

/// Credentials of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// Only for this registry, as the client names it (a URL or a host); empty: for the image's.
    pub server_address: String,
    /// The secret.
    pub secret: Secret,
}

/// Checks credentials. An absent or empty message is none.
///
/// A kubelet fills one of the forms; of several a user name counts before a token, and that before `auth`.
pub fn auth(at: &At<'_>, wire: Option<&v1::AuthConfig>) -> Result<Option<Auth>, Invalid> {
    let Some(wire) = wire else { return Ok(None) };
    for (name, value) in [
        ("username", &wire.username),
        ("password", &wire.password),
        ("server_address", &wire.server_address),
        ("identity_token", &wire.identity_token),
        ("registry_token", &wire.registry_token),
    ] {
        if value.chars().any(|c| c == '\0' || c == '\r' || c == '\n') {
            return Err(at.field(name).invalid("has a line break or a NUL byte"));
        }
    }
    let secret = if !wire.username.is_empty() {
        Secret::Basic { username: wire.username.clone(), password: wire.password.clone() }
    } else if !wire.identity_token.is_empty() {
        Secret::Identity(wire.identity_token.clone())
    } else if !wire.registry_token.is_empty() {
        Secret::Bearer(wire.registry_token.clone())
    } else if !wire.auth.is_empty() {
        basic(&at.field("auth"), &wire.auth)?
    } else if !wire.password.is_empty() {
        return Err(at.field("username").invalid("is empty, but password is set"));
    } else {
        return Ok(None);
    };
    Ok(Some(Auth { server_address: wire.server_address.clone(), secret }))
}

/// `user:password` in base64, as in Docker's `config.json`; some writers pad it with NUL bytes.
fn basic(at: &At<'_>, encoded: &str) -> Result<Secret, Invalid> {
    let wrong = || at.invalid("is not user:password in base64");
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).map_err(|_| wrong())?;
    let text = String::from_utf8(bytes).map_err(|_| wrong())?;
    let (username, password) = text.split_once(':').ok_or_else(wrong)?;
    let password = password.trim_end_matches('\0');
    if username.is_empty() || text.contains(['\r', '\n']) {
        return Err(wrong());
    }
    Ok(Secret::Basic { username: username.to_owned(), password: password.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: fn() -> At<'static> = || At::root("auth");

    fn convert(wire: v1::AuthConfig) -> Result<Option<Secret>, Invalid> {
        auth(&AT(), Some(&wire)).map(|auth| auth.map(|a| a.secret))
    }

    fn user(username: &str, password: &str) -> Secret {
        Secret::Basic { username: username.into(), password: password.into() }
    }

    #[test]
    fn every_form_of_credentials_is_understood() {
        let none = v1::AuthConfig { server_address: "r.example".into(), ..Default::default() };
        assert_eq!(convert(none), Ok(None));
        assert_eq!(auth(&AT(), None), Ok(None));
        let basic = v1::AuthConfig { username: "u".into(), password: "p".into(), ..Default::default() };
        assert_eq!(convert(basic), Ok(Some(user("u", "p"))));
        // "u:p:q" and "u:p\0" in base64.
        for (encoded, password) in [("dTpwOnE=", "p:q"), ("dTpwAA==", "p")] {
            let wire = v1::AuthConfig { auth: encoded.into(), ..Default::default() };
            assert_eq!(convert(wire), Ok(Some(user("u", password))), "{encoded}");
        }
        let identity = v1::AuthConfig { identity_token: "t".into(), ..Default::default() };
        assert_eq!(convert(identity), Ok(Some(Secret::Identity("t".into()))));
        let bearer = v1::AuthConfig { registry_token: "t".into(), ..Default::default() };
        assert_eq!(convert(bearer), Ok(Some(Secret::Bearer("t".into()))));
    }

    #[test]
    fn broken_credentials_name_their_field_and_do_not_show_them() {
        for encoded in ["%", "bm9jb2xvbg==", "OnA=", "/////w=="] {
            let wire = v1::AuthConfig { auth: encoded.into(), ..Default::default() };
            let error = convert(wire).expect_err(encoded);
            assert_eq!(error.field, "auth.auth");
            assert!(!error.to_string().contains(encoded));
        }
        let split = v1::AuthConfig { username: "u\r\nX: y".into(), ..Default::default() };
        assert_eq!(convert(split).expect_err("header").field, "auth.username");
        let lone = v1::AuthConfig { password: "p".into(), ..Default::default() };
        assert_eq!(convert(lone).expect_err("lone").field, "auth.username");
        assert_eq!(format!("{:?}", user("u", "hunter2")), "Basic(…)");
    }

    #[test]
    fn images_are_one_word() {
        let at = At::root("image");
        let name =
            |image: &str| image_name(&at, Some(&v1::ImageSpec { image: image.into(), ..Default::default() }));
        assert_eq!(name("nginx:1").as_deref(), Ok("nginx:1"));
        assert_eq!(image_name(&at, None).expect_err("none").field, "image");
        for bad in ["", "a b", "a\n", "\0"] {
            assert_eq!(name(bad).expect_err(bad).field, "image.image");
        }
        assert!(name(&"a".repeat(1025)).is_err());
        assert_eq!(image_filter(&At::root("filter"), Some(&Default::default())), Ok(None));
    }
}
