//! Credentials, and the tokens they are exchanged for (distribution-spec: token authentication, Basic).

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::HeaderValue;
use reqwest::Url;
use serde::Deserialize;

use super::{challenge::Challenge, hosts};
use crate::digest::Digest;

/// Tokens that are kept; each belongs to a repository.
const MAX_TOKENS: usize = 1024;
/// A token that says nothing lives this long (distribution-spec: 60 seconds).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Longest answer of a token server that is read.
const MAX_ANSWER: usize = 1 << 20;

/// What a registry wants to see. Its `Debug` form shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// With `password`.
    pub username: String,
    /// With `username`.
    pub password: String,
    /// An OAuth 2 refresh token, in the place of a password.
    pub identity_token: String,
    /// A Bearer token, sent as it is.
    pub registry_token: String,
    /// The only host these are for; empty: the registry of the image.
    pub server_address: String,
}

impl Credentials {
    /// From the CRI's `AuthConfig`, whose `auth` is base64 of `user:password`. `None`: there is nothing in it.
    pub fn from_parts(
        (username, password): (&str, &str),
        auth: &str,
        server_address: &str,
        (identity_token, registry_token): (&str, &str),
    ) -> Result<Option<Self>, &'static str> {
        let mut credentials = Self {
            username: username.to_owned(),
            password: password.to_owned(),
            identity_token: identity_token.to_owned(),
            registry_token: registry_token.to_owned(),
            server_address: server_address.to_owned(),
        };
        if credentials.username.is_empty() && !auth.is_empty() {
            (credentials.username, credentials.password) =
                decode_basic(auth).ok_or("auth must be base64 of user:password")?;
        }
        let empty = credentials.username.is_empty() && identity_token.is_empty() && registry_token.is_empty();
        Ok((!empty).then_some(credentials))
    }

    /// Whether these may be shown to `authority` for an image of `registry`.
    pub(crate) fn are_for(&self, authority: &str, registry: &str) -> bool {
        let own = |name: &str| name == authority || hosts::server_name(name) == authority;
        if self.server_address.is_empty() {
            return own(registry);
        }
        let address =
            self.server_address.split_once("://").map_or(self.server_address.as_str(), |(_, rest)| rest);
        let address = address.split('/').next().unwrap_or_default();
        own(if address == "index.docker.io" { "docker.io" } else { address })
    }

    /// Tells credentials apart without keeping them.
    fn fingerprint(&self) -> Digest {
        let parts = [&self.username, &self.password, &self.identity_token, &self.registry_token];
        Digest::of(serde_json::to_string(&parts).unwrap_or_default().as_bytes())
    }

    fn basic(&self) -> Option<HeaderValue> {
        if self.username.is_empty() {
            return None;
        }
        secret(&format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.password))))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("server_address", &self.server_address).finish_non_exhaustive()
    }
}

/// base64 of `user:password`.
pub(crate) fn decode_basic(auth: &str) -> Option<(String, String)> {
    let bytes = STANDARD.decode(auth.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    // Docker pads the password with zero bytes.
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

fn secret(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Authorization headers that worked, by host, repository and credentials.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    known: Mutex<HashMap<Key, Token>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    host: String,
    repository: String,
    credentials: Option<Digest>,
}

impl Key {
    pub(crate) fn new(host: &str, repository: &str, credentials: Option<&Credentials>) -> Self {
        Self {
            host: host.to_owned(),
            repository: repository.to_owned(),
            credentials: credentials.map(Credentials::fingerprint),
        }
    }
}

#[derive(Debug, Clone)]
struct Token {
    value: HeaderValue,
    expires: Option<Instant>,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Tokens {
    /// A header that has worked and should still.
    pub(crate) fn get(&self, key: &Key) -> Option<HeaderValue> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let token = known.get(key)?;
        if token.expires.is_some_and(|at| at <= Instant::now()) {
            known.remove(key);
            return None;
        }
        Some(token.value.clone())
    }

    pub(crate) fn forget(&self, key: &Key) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    fn put(&self, key: Key, token: Token) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_TOKENS {
            known.clear();
        }
        known.insert(key, token);
    }

    /// Answers a registry's challenges. The error says what the registry or its token server wants.
    pub(crate) async fn answer(
        &self,
        client: &reqwest::Client,
        from: &Url,
        challenges: &[Challenge],
        key: Key,
        credentials: Option<&Credentials>,
    ) -> Result<HeaderValue, String> {
        if let Some(credentials) = credentials.filter(|c| !c.registry_token.is_empty()) {
            let value = secret(&format!("Bearer {}", credentials.registry_token))
                .ok_or("the registry token is malformed")?;
            self.put(key, Token { value: value.clone(), expires: None });
            return Ok(value);
        }
        if let Some(bearer) = challenges.iter().find(|c| c.scheme == "bearer") {
            let scope = bearer
                .get("scope")
                .map_or_else(|| format!("repository:{}:pull", key.repository), str::to_owned);
            let token = request_token(client, from, bearer, &scope, credentials).await?;
            let value = token.value.clone();
            self.put(key, token);
            return Ok(value);
        }
        if challenges.iter().any(|c| c.scheme == "basic") {
            let value =
                credentials.and_then(Credentials::basic).ok_or("a user name and password are needed")?;
            self.put(key, Token { value: value.clone(), expires: None });
            return Ok(value);
        }
        Err("the registry asks for no known kind of authentication".into())
    }
}

async fn request_token(
    client: &reqwest::Client,
    from: &Url,
    bearer: &Challenge,
    scope: &str,
    credentials: Option<&Credentials>,
) -> Result<Token, String> {
    let realm = bearer.get("realm").ok_or("the registry names no token server")?;
    let realm = Url::parse(realm).map_err(|e| format!("token server {realm:?}: {e}"))?;
    // Whoever can see this request gets the password: no weaker protection than the registry's own.
    if realm.scheme() != "https" && from.scheme() == "https" {
        return Err(format!("token server {} has no TLS, but the registry does", hosts::authority(&realm)));
    }
    if !matches!(realm.scheme(), "http" | "https") {
        return Err(format!("token server {realm} is no http or https URL"));
    }
    let service = bearer.get("service").unwrap_or_default();
    if let Some(credentials) = credentials.filter(|c| !c.identity_token.is_empty()) {
        let form = [
            ("grant_type", "refresh_token"),
            ("service", service),
            ("scope", scope),
            ("client_id", "crisp"),
            ("refresh_token", &credentials.identity_token),
        ];
        let mut body = Url::parse("http://form").map_err(|e| e.to_string())?;
        body.query_pairs_mut().extend_pairs(form);
        let request = client
            .post(realm.clone())
            .header(http::header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(body.query().unwrap_or_default().to_owned());
        return token_from(request, &realm).await;
    }
    let mut url = realm.clone();
    if !service.is_empty() {
        url.query_pairs_mut().append_pair("service", service);
    }
    for scope in scope.split_ascii_whitespace() {
        url.query_pairs_mut().append_pair("scope", scope);
    }
    let mut request = client.get(url);
    if let Some(value) = credentials.and_then(Credentials::basic) {
        request = request.header(http::header::AUTHORIZATION, value);
    }
    token_from(request, &realm).await
}

async fn token_from(request: reqwest::RequestBuilder, realm: &Url) -> Result<Token, String> {
    let server = format!("token server {}", hosts::authority(realm));
    let mut response = request
        .timeout(Duration::from_secs(30))
        .send()
        .await
        .map_err(|e| format!("{server}: {}", super::describe(&e)))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(chunk) =
        response.chunk().await.map_err(|e| format!("{server}: {}", super::describe(&e)))?
    {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_ANSWER {
            return Err(format!("{server}: its answer is longer than 1 MiB"));
        }
    }
    if !status.is_success() {
        return Err(format!("{server}: {status}"));
    }
    let answer: Answer = serde_json::from_slice(&body).map_err(|e| format!("{server}: {e}"))?;
    let token =
        answer.token.or(answer.access_token).ok_or_else(|| format!("{server}: no token in its answer"))?;
    let value =
        secret(&format!("Bearer {token}")).ok_or_else(|| format!("{server}: its token is malformed"))?;
    let life =
        answer.expires_in.map_or(DEFAULT_LIFE, |seconds| Duration::from_secs(seconds.clamp(60, 24 * 3600)));
    // Renewed a little early, so that it does not expire on the way.
    Ok(Token { value, expires: Some(Instant::now() + life.saturating_sub(Duration::from_secs(10))) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_belong_to_one_host() {
        let any = Credentials { username: "u".into(), ..Credentials::default() };
        assert!(any.are_for("quay.io", "quay.io"));
        assert!(any.are_for("registry-1.docker.io", "docker.io"));
        assert!(!any.are_for("mirror.local", "quay.io"));
        let hub = Credentials { server_address: "https://index.docker.io/v1/".into(), ..any.clone() };
        assert!(hub.are_for("registry-1.docker.io", "docker.io"));
        assert!(!hub.are_for("quay.io", "quay.io"));
        let mirror = Credentials { server_address: "mirror.local:5000".into(), ..any };
        assert!(mirror.are_for("mirror.local:5000", "quay.io"));
        assert!(!mirror.are_for("quay.io", "quay.io"));
    }

    #[test]
    fn parts_of_an_auth_config() {
        let parse = |user, auth| Credentials::from_parts((user, "p"), auth, "", ("", ""));
        assert_eq!(parse("", ""), Ok(None));
        assert_eq!(
            parse("", "dTpwOnc=").map(|c| c.map(|c| (c.username, c.password))),
            Ok(Some(("u".into(), "p:w".into())))
        );
        assert!(parse("", "!").is_err());
        assert_eq!(parse("a", "!").map(|c| c.map(|c| c.username)), Ok(Some("a".into())));
        let debug = format!("{:?}", Credentials { password: "geheim".into(), ..Credentials::default() });
        assert!(!debug.contains("geheim"));
    }
}
