//! Credentials of Docker's `config.json` and its credential helpers, if configured.

use std::{collections::HashMap, path::Path, process::Stdio, time::Duration};

use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use super::auth::{Credentials, decode_basic};
use crate::error::ImageError;

/// Helpers talk to clouds; one that takes longer is broken.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: HashMap<String, Entry>,
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Credentials for a host, if the file has any. A file that is not there has none.
pub(crate) async fn lookup(
    path: &Path,
    authority: &str,
    repository: &str,
) -> Result<Option<Credentials>, ImageError> {
    let wrong = |why: String| ImageError::Config { path: path.to_owned(), why };
    let text = match tokio::fs::read(path).await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(wrong(error.to_string())),
    };
    let file: File = serde_json::from_slice(&text)
        .map_err(|e| wrong(format!("line {}, column {}", e.line(), e.column())))?;
    let name = if authority == "registry-1.docker.io" { "docker.io" } else { authority };
    if let Some(helper) = file.cred_helpers.get(name).or(file.creds_store.as_ref()) {
        let server = if name == "docker.io" { "https://index.docker.io/v1/" } else { name };
        if let Some(found) = ask_helper(helper, server, authority).await.map_err(wrong)? {
            return Ok(Some(found));
        }
    }
    let Some(entry) = keys(name, repository).iter().find_map(|key| file.auths.get(key)) else {
        return Ok(None);
    };
    let (username, password) = match decode_basic(&entry.auth) {
        Some(pair) => pair,
        None => (entry.username.clone(), entry.password.clone()),
    };
    let found = Credentials {
        username,
        password,
        identity_token: entry.identitytoken.clone(),
        registry_token: entry.registrytoken.clone(),
        server_address: authority.to_owned(),
    };
    let empty =
        found.username.is_empty() && found.identity_token.is_empty() && found.registry_token.is_empty();
    Ok((!empty).then_some(found))
}

/// Names an entry may have, the most specific first.
fn keys(name: &str, repository: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = format!("{name}/{repository}");
    loop {
        keys.push(path.clone());
        match path.rfind('/') {
            Some(at) => path.truncate(at),
            None => break,
        }
    }
    for scheme in ["https://", "http://"] {
        for end in ["", "/", "/v1/", "/v2/"] {
            keys.push(format!("{scheme}{name}{end}"));
        }
    }
    if name == "docker.io" {
        keys.extend(
            ["https://index.docker.io/v1/", "index.docker.io", "registry-1.docker.io"].map(str::to_owned),
        );
    }
    keys
}

/// Runs `docker-credential-<helper> get`.
async fn ask_helper(helper: &str, server: &str, authority: &str) -> Result<Option<Credentials>, String> {
    if helper.is_empty() || !helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(format!("{helper:?} is not a helper's name"));
    }
    let program = format!("docker-credential-{helper}");
    let failed = |why: String| format!("{program}: {why}");
    let mut child = tokio::process::Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(format!("{server}\n").as_bytes()).await.map_err(|e| failed(e.to_string()))?;
    }
    let output = tokio::time::timeout(HELPER_TIMEOUT, child.wait_with_output())
        .await
        .map_err(|_| failed(format!("no answer within {} s", HELPER_TIMEOUT.as_secs())))?
        .map_err(|e| failed(e.to_string()))?;
    // Helpers say on stdout that they know nothing, and fail.
    if !output.status.success() {
        return Ok(None);
    }
    let answer: HelperAnswer =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("its answer is malformed".into()))?;
    let mut found = Credentials { server_address: authority.to_owned(), ..Credentials::default() };
    if answer.username == "<token>" {
        found.identity_token = answer.secret;
    } else {
        (found.username, found.password) = (answer.username, answer.secret);
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn entries_are_found_under_all_their_names() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("config.json");
        let text = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"aHViOnB3"},"q.io":{"username":"q","password":"p"},
            "q.io/team":{"auth":"dDpw"},"id.io":{"identitytoken":"tok"},"none.io":{}}}"#;
        std::fs::write(&path, text).expect("write");
        let user = async |authority: &str, repository: &str| {
            lookup(&path, authority, repository)
                .await
                .expect("lookup")
                .map(|c| c.username + &c.identity_token)
        };
        assert_eq!(user("registry-1.docker.io", "library/x").await.as_deref(), Some("hub"));
        assert_eq!(user("q.io", "other/x").await.as_deref(), Some("q"));
        assert_eq!(user("q.io", "team/x").await.as_deref(), Some("t"));
        assert_eq!(user("id.io", "x").await.as_deref(), Some("tok"));
        assert_eq!(user("none.io", "x").await, None);
        assert_eq!(user("absent.io", "x").await, None);
        assert!(lookup(&folder.path().join("absent"), "q.io", "x").await.expect("no file").is_none());
        std::fs::write(&path, "{").expect("write");
        assert!(matches!(lookup(&path, "q.io", "x").await, Err(ImageError::Config { .. })));
    }
}
