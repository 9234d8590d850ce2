//! The certificate authorities that a publisher's TLS connections trust.

use std::fmt;
use std::sync::{Arc, LazyLock};

use outbox_engine::text::shown;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ALL_VERSIONS, ClientConfig, RootCertStore, crypto::ring};

/// The variables that say where the system's authorities are.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The certificate authorities that are trusted: the system's, and those that are added.
///
/// The system's authorities are those of `SSL_CERT_FILE` and `SSL_CERT_DIR` if one of these variables is set, else
/// those in the places where systems keep them. If there are none, those that Mozilla trusts are used. They are read
/// once.
#[derive(Clone, Default)]
pub struct Authorities(Option<Arc<ClientConfig>>);

/// A text that contains no certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "it holds no certificates that can be used: {reason}; a file of authorities is PEM, with `-----BEGIN CERTIFICATE-----` in it"
)]
pub struct InvalidAuthorities {
    reason: String,
}

impl Authorities {
    /// The system's authorities, and those in `pem`.
    ///
    /// # Errors
    ///
    /// An [`InvalidAuthorities`] if `pem` contains none, or a damaged one.
    pub fn with(pem: &[u8]) -> Result<Self, InvalidAuthorities> {
        let invalid = |reason: String| InvalidAuthorities { reason };
        let mut roots = SYSTEM.clone();
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
            roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
        }
        if roots.len() == before {
            return Err(invalid("there is none in it".to_owned()));
        }
        Ok(Self(Some(client(roots))))
    }

    pub(super) fn client(&self) -> Arc<ClientConfig> {
        static OF_SYSTEM: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| client(SYSTEM.clone()));
        self.0.clone().unwrap_or_else(|| OF_SYSTEM.clone())
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Authorities(the system's and more)" } else { "Authorities(the system's)" })
    }
}

static SYSTEM: LazyLock<RootCertStore> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    let named: Vec<&str> = VARIABLES.into_iter().filter(|name| std::env::var_os(name).is_some()).collect();
    for error in found.errors {
        tracing::warn!("certificate authorities: {}", shown(error));
    }
    if roots.is_empty() && named.is_empty() {
        tracing::info!("this system has no certificate authorities: those that Mozilla trusts are used");
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    } else if roots.is_empty() {
        // If the environment names a place, only that place is trusted.
        tracing::warn!("{} names no certificate authority: none of the system's is trusted", shown(named.join(", ")));
    }
    roots
});

fn client(roots: RootCertStore) -> Arc<ClientConfig> {
    let config =
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider())).with_protocol_versions(ALL_VERSIONS);
    #[expect(clippy::expect_used, reason = "the provider is linked in and has suites for both versions")]
    let config = config.expect("ring supports TLS 1.2 and 1.3");
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}
