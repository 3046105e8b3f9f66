//! Explains which hosts would be tried for an image, and what each answers now.

use std::sync::Arc;

use crate::{
    error::ImageError,
    manifest::Document,
    reference::Reference,
    registry::{Credentials, Session},
    store::ImageStore,
};

/// One host that would be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostReport {
    /// Base URL.
    pub url: String,
    /// The file or rule that names the host.
    pub origin: String,
    /// `resolve` and `pull`, as far as the host may do them.
    pub capabilities: Vec<&'static str>,
    /// What protects the connection.
    pub tls: String,
    /// Where the credentials for this host come from; `none`.
    pub credentials: String,
    /// Names of the headers that are configured; values may be secrets.
    pub headers: Vec<String>,
    /// What it answers: a digest with a kind, or the failure.
    pub answer: Result<String, String>,
}

impl ImageStore {
    /// Asks every host for an image, in the order of a pull, and tells what was found. Changes nothing.
    pub async fn why(
        &self,
        reference: &str,
        credentials: Option<Credentials>,
    ) -> Result<Vec<HostReport>, ImageError> {
        let reference = Reference::parse(reference)?;
        let session = Session::open(Arc::clone(&self.inner.registries), reference, credentials).await?;
        let wanted = session.reference.manifest().to_owned();
        let digest = session.reference.digest().cloned();
        let mut reports = Vec::new();
        for ((host, credentials), source) in session.hosts().iter().zip(&session.sources) {
            let may = if digest.is_some() { host.pull } else { host.resolve };
            let answer = if may {
                let fetched =
                    session.manifest_from(host, credentials.as_ref(), &wanted, digest.as_ref()).await;
                fetched.map_err(|failure| failure.detail()).and_then(|fetched| {
                    let kind = match Document::parse(&wanted, &fetched.bytes, &fetched.media_type) {
                        Ok(Document::Index(index)) => format!("index of {} images", index.manifests.len()),
                        Ok(Document::Manifest(manifest)) => {
                            format!("image of {} layers", manifest.layers.len())
                        }
                        Err(error) => return Err(error.to_string()),
                    };
                    Ok(format!("{} ({kind})", fetched.digest))
                })
            } else {
                Err("not asked: it lacks the capability".to_owned())
            };
            let capabilities = [("resolve", host.resolve), ("pull", host.pull)];
            reports.push(HostReport {
                url: host.base.to_string(),
                origin: host.origin.clone(),
                capabilities: capabilities.iter().filter(|(_, has)| *has).map(|(name, _)| *name).collect(),
                tls: describe_tls(host),
                credentials: source.clone(),
                headers: host.headers.iter().map(|(name, _)| name.to_string()).collect(),
                answer,
            });
        }
        Ok(reports)
    }
}

fn describe_tls(host: &crate::registry::hosts::Host) -> String {
    if host.base.scheme() == "http" {
        return "none (plain HTTP)".to_owned();
    }
    let mut text = match (host.tls.skip_verify, host.tls.ca.as_slice()) {
        (true, _) => "certificates are not checked".to_owned(),
        (false, []) => "the system's authorities".to_owned(),
        (false, files) => {
            let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            format!("the system's authorities and {}", files.join(", "))
        }
    };
    if let Some((certificate, _)) = host.tls.client.first() {
        text.push_str(&format!(", client certificate {}", certificate.display()));
    }
    text
}
