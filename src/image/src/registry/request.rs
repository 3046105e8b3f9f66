//! One request to one host: authentication and redirects, and what its failure means.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use reqwest::{Response, Url};

use super::{
    Registries,
    auth::{Credentials, Key},
    challenge,
    hosts::{Host, Tls, is_here},
};
use crate::error::ImageError;

/// Redirects of one request; registries need one or two.
const MAX_REDIRECTS: usize = 5;
/// A `Retry-After` longer than this is not waited for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Why a host did not deliver.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// It does not have it.
    Missing(String),
    /// It wants (other) credentials.
    Denied(String),
    /// Trying again may help, not before the given time.
    Transient(String, Option<Duration>),
    /// Trying again will not help.
    Permanent(String),
    /// Not about this host at all.
    Local(ImageError),
}

impl Failure {
    pub(crate) fn detail(&self) -> String {
        match self {
            Self::Missing(detail)
            | Self::Denied(detail)
            | Self::Transient(detail, _)
            | Self::Permanent(detail) => detail.clone(),
            Self::Local(error) => error.to_string(),
        }
    }
}

/// What is asked of a host.
pub(crate) struct Ask<'a> {
    /// Below the host's base, without a leading slash.
    pub(crate) path: String,
    pub(crate) accept: &'static str,
    /// Start of the wanted range.
    pub(crate) offset: u64,
    pub(crate) repository: &'a str,
    pub(crate) credentials: Option<&'a Credentials>,
}

impl Registries {
    /// Sends a request, answering the challenge that may come and following redirects. Returns the first answer that
    /// is a success.
    pub(crate) async fn get(&self, host: &Host, ask: &Ask<'_>) -> Result<Response, Failure> {
        let client =
            self.clients.get(&host.tls, host.dial_timeout, is_here(&host.base)).map_err(Failure::Local)?;
        let mut url = host.base.clone();
        url.set_path(&format!("{}/{}", host.base.path().trim_end_matches('/'), ask.path));
        if let Some(namespace) = &host.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        let key = Key::new(host.base.as_str(), ask.repository, ask.credentials);
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(ask.accept));
        if ask.offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={}-", ask.offset));
            headers.insert(header::RANGE, range.map_err(|e| Failure::Permanent(e.to_string()))?);
        }
        for (name, value) in &host.headers {
            headers.append(name.clone(), value.clone());
        }
        // Where the administrator has set the header, nothing else is tried.
        let configured = headers.contains_key(header::AUTHORIZATION);
        let mut answered = false;
        loop {
            let mut with_auth = headers.clone();
            if let Some(value) = self.tokens.get(&key).filter(|_| !configured) {
                with_auth.insert(header::AUTHORIZATION, value);
            }
            let response = self.send(&client, url.clone(), with_auth).await?;
            if response.status().is_redirection() && response.status() != StatusCode::NOT_MODIFIED {
                return self.follow(host, &url, response, &headers).await;
            }
            if response.status() != StatusCode::UNAUTHORIZED || configured {
                return judge(response).await;
            }
            let challenges = challenges(&response);
            if answered {
                self.tokens.forget(&key);
                return Err(Failure::Denied(format!("{}: 401 Unauthorized", host.authority())));
            }
            answered = true;
            self.tokens.forget(&key);
            self.tokens
                .answer(&client, &url, &challenges, key.clone(), ask.credentials)
                .await
                .map_err(|why| Failure::Denied(format!("{}: {why}", host.authority())))?;
        }
    }

    async fn send(
        &self,
        client: &reqwest::Client,
        url: Url,
        headers: HeaderMap,
    ) -> Result<Response, Failure> {
        let place = super::hosts::authority(&url);
        let send = client.get(url).headers(headers).send();
        match tokio::time::timeout(self.settings.progress_timeout, send).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Failure::Transient(format!("{place}: {}", describe(&error)), None)),
            Err(_) => Err(Failure::Transient(
                format!("{place}: no answer within {} s", self.settings.progress_timeout.as_secs()),
                None,
            )),
        }
    }

    /// Follows redirects, mostly to object stores with signed URLs. Only requests that stay at the host get what was
    /// configured for it, and a client certificate is shown to nobody else.
    async fn follow(
        &self,
        host: &Host,
        asked: &Url,
        mut response: Response,
        headers: &HeaderMap,
    ) -> Result<Response, Failure> {
        let mut at = asked.clone();
        let stranger_tls = Tls { client: Vec::new(), ..host.tls.clone() };
        for _ in 0..MAX_REDIRECTS {
            let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let Some(location) = location else { return judge(response).await };
            let permanent =
                |why: String| Failure::Permanent(format!("{}: {why}", super::hosts::authority(&at)));
            let next = at.join(location).map_err(|e| permanent(format!("redirect to {location:?}: {e}")))?;
            if !matches!(next.scheme(), "http" | "https")
                || (at.scheme() == "https" && next.scheme() != "https")
            {
                return Err(permanent(format!(
                    "redirect to {}, which has no TLS",
                    super::hosts::authority(&next)
                )));
            }
            let stays = next.origin() == host.base.origin();
            let client = self
                .clients
                .get(if stays { &host.tls } else { &stranger_tls }, host.dial_timeout, is_here(&next))
                .map_err(Failure::Local)?;
            let mut kept = HeaderMap::new();
            let harmless: [HeaderName; 2] = [header::ACCEPT, header::RANGE];
            for (name, value) in headers {
                if stays || harmless.contains(name) {
                    kept.append(name.clone(), value.clone());
                }
            }
            response = self.send(&client, next.clone(), kept).await?;
            if !response.status().is_redirection() {
                return judge(response).await;
            }
            at = next;
        }
        Err(Failure::Permanent(format!("{}: more than {MAX_REDIRECTS} redirects", host.authority())))
    }
}

fn challenges(response: &Response) -> Vec<challenge::Challenge> {
    response
        .headers()
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(challenge::parse)
        .collect()
}

/// What a final status means.
async fn judge(response: Response) -> Result<Response, Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let retry_after = retry_after(response.headers());
    let place = super::hosts::authority(response.url());
    let words = tokio::time::timeout(Duration::from_secs(5), message(response)).await.unwrap_or_default();
    let detail = format!("{place}: {status}{words}");
    Err(match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Failure::Missing(detail),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::Denied(detail),
        StatusCode::TOO_MANY_REQUESTS => match retry_after {
            Some(wait) if wait > MAX_RETRY_AFTER => {
                Failure::Permanent(format!("{detail}, for {} s", wait.as_secs()))
            }
            wait => Failure::Transient(detail, wait),
        },
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => Failure::Transient(detail, retry_after),
        // The other end of a wrong guess about TLS.
        _ if status.is_server_error() => {
            Failure::Transient(detail, retry_after.map(|wait| wait.min(MAX_RETRY_AFTER)))
        }
        _ => Failure::Permanent(detail),
    })
}

/// Seconds; dates are not used by registries.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The registry's own words about an error, shortened (distribution-spec, "Error Codes").
async fn message(mut response: Response) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Error>,
    }
    #[derive(serde::Deserialize)]
    struct Error {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > 16 << 10 {
            break;
        }
    }
    let Ok(errors) = serde_json::from_slice::<Errors>(&body) else { return String::new() };
    let words: Vec<String> =
        errors.errors.iter().take(3).map(|e| format!("{} {}", e.code, e.message).trim().to_owned()).collect();
    let words: String = words.join("; ").chars().filter(|c| !c.is_control()).take(300).collect();
    if words.is_empty() { words } else { format!(" ({words})") }
}

/// An error of the HTTP client with all its causes, without the URL, which may carry a signature.
pub(crate) fn describe(error: &reqwest::Error) -> String {
    let mut text = if error.is_connect() {
        "connecting failed".to_owned()
    } else if error.is_timeout() {
        "timed out".to_owned()
    } else if error.is_body() || error.is_decode() {
        "the connection broke".to_owned()
    } else {
        "the request failed".to_owned()
    };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
