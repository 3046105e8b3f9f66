//! TLS of the stream server, from files in PEM.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// A certificate and its key, ready for use.
#[derive(Debug, Clone)]
pub struct Tls(pub(crate) Arc<ServerConfig>);

/// Why files are not a certificate and its key.
#[derive(Debug, thiserror::Error)]
#[error("TLS of the stream server: {what}: {reason}")]
pub struct TlsError {
    what: String,
    reason: String,
}

impl Tls {
    /// Reads a chain of certificates and the key of the first one.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let failed = |path: &Path, reason: &dyn std::fmt::Display| TlsError {
            what: path.display().to_string(),
            reason: reason.to_string(),
        };
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| failed(certificate, &e))?;
        let private = PrivateKeyDer::from_pem_file(key).map_err(|e| failed(key, &e))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
            .map_err(|e| failed(certificate, &e))?;
        Ok(Self(Arc::new(config)))
    }
}
