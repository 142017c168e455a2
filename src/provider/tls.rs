//! TLS towards the push services: who may certify them, and our own certificate where one is due.
//!
//! The system's roots, and a PEM file beside them where the operator names one. The cryptography is
//! aws-lc's and named here, so that no process-wide default decides. ALPN is the pool's to set.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Secret;

/// The roots that a push service's certificate may lead to.
#[derive(Clone)]
pub struct Roots(Arc<RootCertStore>);

/// Why TLS cannot be set up. Nothing of a key is in it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Neither the system nor the file has a certificate.
    #[error("there are no root certificates")]
    NoRoots,
    /// The file of further roots.
    #[error("the file of further root certificates cannot be read as PEM")]
    CaFile,
    /// The client certificate.
    #[error("the client certificate is not a PEM file with a chain and its key")]
    ClientCertificate,
    /// The protocol versions are not there.
    #[error("TLS 1.2 and 1.3 are not available")]
    Versions,
}

// === impl Roots ===

impl Roots {
    /// Reads the system's roots and those of a PEM file.
    /// Errors: [`TlsError::NoRoots`], [`TlsError::CaFile`].
    pub fn load(ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        // Single unreadable system certificates are no reason to stop: the rest still vouch.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = ca_file {
            let certificates = CertificateDer::pem_file_iter(path).map_err(|_| TlsError::CaFile)?;
            let before = roots.len();
            for certificate in certificates {
                let certificate = certificate.map_err(|_| TlsError::CaFile)?;
                roots.add(certificate).map_err(|_| TlsError::CaFile)?;
            }
            if roots.len() == before {
                return Err(TlsError::CaFile);
            }
        }
        if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(Self(Arc::new(roots))) }
    }

    /// Makes a client that shows no certificate.
    /// Errors: [`TlsError::Versions`].
    pub fn client(&self) -> Result<ClientConfig, TlsError> {
        Ok(self.builder()?.with_no_client_auth())
    }

    /// Makes a client that shows the certificate of a PEM file: the chain, leaf first, and its key.
    /// Errors: [`TlsError::ClientCertificate`], [`TlsError::Versions`].
    pub fn client_with_certificate(&self, pem: &Secret<String>) -> Result<ClientConfig, TlsError> {
        let bytes = pem.expose().as_bytes();
        let chain: Vec<_> = CertificateDer::pem_slice_iter(bytes)
            .collect::<Result<_, _>>()
            .map_err(|_| TlsError::ClientCertificate)?;
        let key = PrivateKeyDer::from_pem_slice(bytes).map_err(|_| TlsError::ClientCertificate)?;
        self.builder()?.with_client_auth_cert(chain, key).map_err(|_| TlsError::ClientCertificate)
    }

    fn builder(&self) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| TlsError::Versions)?
            .with_root_certificates(Arc::clone(&self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["push.example".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn further_roots_come_from_a_file_that_must_have_some() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, certificate().0).unwrap();
        assert!(Roots::load(Some(&path)).is_ok());
        std::fs::write(&path, "no certificate").unwrap();
        assert!(matches!(Roots::load(Some(&path)), Err(TlsError::CaFile)));
        assert!(matches!(Roots::load(Some(&folder.path().join("no"))), Err(TlsError::CaFile)));
    }

    #[test]
    fn a_client_certificate_needs_its_own_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let (chain, key) = certificate();
        std::fs::write(&path, &chain).unwrap();
        let roots = Roots::load(Some(&path)).ok().unwrap();
        let client = |pem: String| roots.client_with_certificate(&Secret::new(pem));
        assert!(client(format!("{chain}{key}")).is_ok());
        for wrong in [chain.clone(), key.clone(), format!("{chain}{}", certificate().1)] {
            assert!(matches!(client(wrong), Err(TlsError::ClientCertificate)));
        }
    }
}
