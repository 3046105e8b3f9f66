//! HTTP clients, one per set of certificates, so that connections are kept and used again.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use super::hosts::Tls;
use crate::{digest::Digest, error::ImageError};

/// Clients that are kept; configurations are few, and each client holds idle connections.
const MAX_CLIENTS: usize = 64;
/// A connection that takes longer is given up, and the next host tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Clients by certificates.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    known: Mutex<HashMap<Key, reqwest::Client>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    /// Of the files' contents, so that renewed certificates make a new client.
    files: Vec<Digest>,
    skip_verify: bool,
    dial_timeout: Duration,
    direct: bool,
}

impl Clients {
    /// The client for these certificates. `direct`: whatever proxies the environment names.
    pub(crate) fn get(
        &self,
        tls: &Tls,
        dial_timeout: Option<Duration>,
        direct: bool,
    ) -> Result<reqwest::Client, ImageError> {
        let mut files = Vec::new();
        let paths =
            tls.ca.iter().chain(tls.client.iter().flat_map(|(cert, key)| [cert].into_iter().chain(key)));
        for path in paths {
            files.push(Digest::of(&read(path)?));
        }
        let key = Key {
            files,
            skip_verify: tls.skip_verify,
            dial_timeout: dial_timeout.unwrap_or(CONNECT_TIMEOUT),
            direct,
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = known.get(&key) {
            return Ok(client.clone());
        }
        let client = build(tls, key.dial_timeout, direct)?;
        if known.len() >= MAX_CLIENTS {
            known.clear();
        }
        known.insert(key, client.clone());
        Ok(client)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    std::fs::read(path).map_err(|e| ImageError::Config { path: path.to_owned(), why: e.to_string() })
}

fn build(tls: &Tls, connect_timeout: Duration, direct: bool) -> Result<reqwest::Client, ImageError> {
    let builder = reqwest::Client::builder();
    let builder = if direct { builder.no_proxy() } else { builder };
    builder
        .tls_backend_preconfigured(rustls_config(tls)?)
        // Redirects are followed by hand: credentials and configured headers must stay with their host.
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .user_agent(concat!("crisp/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect_timeout)
        .tcp_keepalive(Duration::from_secs(30))
        // Large enough for the distance to any registry at 1 Gbit/s and 100 ms; small frames cost processor time.
        .http2_initial_stream_window_size(4 << 20)
        .http2_initial_connection_window_size(16 << 20)
        .http2_max_frame_size(256 << 10)
        .pool_idle_timeout(Duration::from_secs(60))
        .build()
        .map_err(|e| ImageError::Unavailable {
            reference: String::new(),
            detail: format!("making an HTTP client: {e}"),
        })
}

fn rustls_config(tls: &Tls) -> Result<ClientConfig, ImageError> {
    let provider = Arc::new(ring::default_provider());
    let wrong = |path: &Path, why: String| ImageError::Config { path: path.to_owned(), why };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(Path::new("tls"), e.to_string()))?;
    let builder = if tls.skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        let mut roots = system_roots().clone();
        for path in &tls.ca {
            let mut any = false;
            for certificate in CertificateDer::pem_slice_iter(&read(path)?) {
                let certificate = certificate.map_err(|e| wrong(path, e.to_string()))?;
                roots.add(certificate).map_err(|e| wrong(path, e.to_string()))?;
                any = true;
            }
            if !any {
                return Err(wrong(path, "no certificate in it".into()));
            }
        }
        builder.with_root_certificates(roots)
    };
    // The first pair; a server that wants another one is configured as another host.
    let mut config = match tls.client.first() {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = CertificateDer::pem_slice_iter(&read(cert)?).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|e| wrong(cert, e.to_string()))?;
            let key_path = key.as_ref().unwrap_or(cert);
            let key = PrivateKeyDer::from_pem_slice(&read(key_path)?)
                .map_err(|e| wrong(key_path, e.to_string()))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| wrong(cert, e.to_string()))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Read once: it takes some ten milliseconds.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::warn!(%error, "reading the system's certificates");
        }
        roots.add_parsable_certificates(native.certs);
        roots
    })
}

/// For `skip_verify`: signatures are checked, but whose they are is not.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
