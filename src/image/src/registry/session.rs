//! Everything that is fetched for one image: its hosts, its credentials, documents and blobs.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::header;
use reqwest::Response;

use super::{
    Credentials, Failure, Registries, docker_config,
    hosts::{self, Host},
    request::Ask,
};
use crate::{
    digest::Digest,
    error::ImageError,
    manifest::{self, Descriptor},
    reference::Reference,
};

/// Longest pause between tries.
const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// One image's view of its registry.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) registries: Arc<Registries>,
    pub(crate) reference: Reference,
    hosts: Vec<(Host, Option<Credentials>)>,
    /// Where each host's credentials come from, for people.
    pub(crate) sources: Vec<String>,
}

/// A document and how it was served.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) bytes: Bytes,
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
}

/// What a host must be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Resolve,
    Pull,
}

impl Session {
    /// Reads the configuration for an image's registry. Credentials of the request go to their own host only, as do
    /// those of Docker's configuration.
    pub(crate) async fn open(
        registries: Arc<Registries>,
        reference: Reference,
        credentials: Option<Credentials>,
    ) -> Result<Self, ImageError> {
        let (mut hosts, mut sources) = (Vec::new(), Vec::new());
        for host in hosts::resolve(&registries.settings.certs_dirs, reference.host())? {
            let authority = host.authority();
            let given = credentials.clone().filter(|c| c.are_for(&authority, reference.host()));
            let (credentials, source) = match (given, &registries.settings.docker_config) {
                (Some(given), _) => (Some(given), "the request".to_owned()),
                (None, Some(config)) => (
                    docker_config::lookup(config, &authority, reference.path()).await?,
                    config.display().to_string(),
                ),
                (None, None) => (None, String::new()),
            };
            sources.push(if credentials.is_some() { source } else { "none".to_owned() });
            hosts.push((host, credentials));
        }
        Ok(Self { registries, reference, hosts, sources })
    }

    /// The hosts that are tried, in order, with the credentials they would get.
    pub(crate) fn hosts(&self) -> &[(Host, Option<Credentials>)] {
        &self.hosts
    }

    /// Fetches what a tag or digest stands for, and checks that it is that.
    pub(crate) async fn manifest(&self, wanted: &str) -> Result<Fetched, ImageError> {
        let digest = wanted.parse::<Digest>().ok();
        let need = if digest.is_some() { Need::Pull } else { Need::Resolve };
        self.ask_hosts(need, |host, credentials| {
            let digest = digest.clone();
            async move { self.manifest_from(host, credentials, wanted, digest.as_ref()).await }
        })
        .await
    }

    pub(crate) async fn manifest_from(
        &self,
        host: &Host,
        credentials: Option<&Credentials>,
        wanted: &str,
        digest: Option<&Digest>,
    ) -> Result<Fetched, Failure> {
        let path = format!("{}/manifests/{wanted}", self.reference.path());
        let response = self.get(host, credentials, path, manifest::ACCEPT, 0).await?;
        let text =
            |name| response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        let (media_type, claimed) =
            (text(header::CONTENT_TYPE), text(header::HeaderName::from_static("docker-content-digest")));
        let bytes = self.read(host, response, manifest::MAX_MANIFEST).await?;
        let found = Digest::of(&bytes);
        let claimed = claimed.parse::<Digest>().ok();
        if let Some(expected) = digest.or(claimed.as_ref())
            && *expected != found
        {
            return Err(Failure::Permanent(format!(
                "{}: sent {found} instead of {expected}",
                host.authority()
            )));
        }
        Ok(Fetched { bytes, media_type, digest: found })
    }

    /// Fetches a small blob into memory, and checks it.
    pub(crate) async fn blob(&self, blob: &Descriptor) -> Result<Bytes, ImageError> {
        self.ask_hosts(Need::Pull, |host, credentials| async move {
            let response = self.open_blob(host, credentials, &blob.digest, 0).await?;
            let bytes = self.read(host, response, blob.size).await?;
            let found = Digest::of(&bytes);
            if found != blob.digest || bytes.len() as u64 != blob.size {
                let why = format!(
                    "{}: sent {} bytes with {found} instead of {}",
                    host.authority(),
                    bytes.len(),
                    blob.digest
                );
                return Err(Failure::Permanent(why));
            }
            Ok(bytes)
        })
        .await
    }

    pub(crate) async fn open_blob(
        &self,
        host: &Host,
        credentials: Option<&Credentials>,
        digest: &Digest,
        offset: u64,
    ) -> Result<Response, Failure> {
        let path = format!("{}/blobs/{digest}", self.reference.path());
        self.get(host, credentials, path, "*/*", offset).await
    }

    async fn get(
        &self,
        host: &Host,
        credentials: Option<&Credentials>,
        path: String,
        accept: &'static str,
        offset: u64,
    ) -> Result<Response, Failure> {
        let ask = Ask { path, accept, offset, repository: self.reference.path(), credentials };
        self.registries.get(host, &ask).await
    }

    async fn read(&self, host: &Host, mut response: Response, limit: u64) -> Result<Bytes, Failure> {
        let mut bytes = Vec::new();
        let patience = self.registries.settings.progress_timeout;
        loop {
            let broken = |why: String| Failure::Transient(format!("{}: {why}", host.authority()), None);
            match tokio::time::timeout(patience, response.chunk()).await {
                Err(_) => return Err(broken(format!("nothing arrived for {} s", patience.as_secs()))),
                Ok(Err(error)) => return Err(broken(super::describe(&error))),
                Ok(Ok(None)) => return Ok(bytes.into()),
                Ok(Ok(Some(chunk))) => bytes.extend_from_slice(&chunk),
            }
            if bytes.len() as u64 > limit {
                return Err(Failure::Permanent(format!(
                    "{}: sent more than {limit} bytes",
                    host.authority()
                )));
            }
        }
    }

    /// Hosts that may do what is needed, in order.
    pub(crate) fn pulling(&self) -> Vec<&(Host, Option<Credentials>)> {
        self.able(Need::Pull)
    }

    fn able(&self, need: Need) -> Vec<&(Host, Option<Credentials>)> {
        self.hosts
            .iter()
            .filter(|(host, _)| if need == Need::Pull { host.pull } else { host.resolve })
            .collect()
    }

    /// Asks each host in turn, and all of them again while that may help.
    async fn ask_hosts<'s, T, F, R>(&'s self, need: Need, ask: F) -> Result<T, ImageError>
    where
        F: Fn(&'s Host, Option<&'s Credentials>) -> R,
        R: Future<Output = Result<T, Failure>>,
    {
        let mut attempt = 0;
        loop {
            let mut failures = Vec::new();
            for (host, credentials) in self.able(need) {
                match ask(host, credentials.as_ref()).await {
                    Ok(found) => return Ok(found),
                    Err(Failure::Local(error)) => return Err(error),
                    Err(failure) => {
                        tracing::debug!(image = %self.reference, failure = %failure.detail(), "a host failed");
                        failures.push(failure);
                    }
                }
            }
            attempt += 1;
            match self.pause(&failures, attempt) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(self.verdict(failures)),
            }
        }
    }

    /// How long to wait before the next try; `None` if it is of no use.
    pub(crate) fn pause(&self, failures: &[Failure], attempt: u32) -> Option<Duration> {
        let settings = &self.registries.settings;
        if attempt >= settings.attempts {
            return None;
        }
        let waits = failures
            .iter()
            .filter_map(|f| if let Failure::Transient(_, wait) = f { Some(*wait) } else { None });
        // The host that may come back soonest decides.
        let asked = waits.min_by_key(|wait| wait.unwrap_or_default())?;
        let backoff = settings.backoff.saturating_mul(1 << (attempt - 1).min(10)).min(MAX_BACKOFF);
        // Half to the whole of it, so that many nodes do not return together.
        let jittered = backoff.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        Some(asked.map_or(jittered, |asked| asked.max(jittered)))
    }

    /// One error for the failures of all hosts: what the user can most likely change.
    pub(crate) fn verdict(&self, failures: Vec<Failure>) -> ImageError {
        let reference = self.reference.to_string();
        if failures.is_empty() {
            return ImageError::Unavailable { reference, detail: "no configured host may serve it".into() };
        }
        let detail = failures.iter().map(Failure::detail).collect::<Vec<_>>().join("; ");
        if failures
            .iter()
            .any(|f| matches!(f, Failure::Transient(..) | Failure::Permanent(_) | Failure::Local(_)))
        {
            return ImageError::Unavailable { reference, detail };
        }
        if failures.iter().any(|f| matches!(f, Failure::Denied(_))) {
            return ImageError::Denied { reference, detail };
        }
        ImageError::NotFound { reference, detail }
    }
}
