//! A certificate authority that lives as long as one test.
//!
//! Gives the simulators their server certificate (`localhost`, 127.0.0.1, ::1), senders the root to
//! trust, and client certificates for APNs. Remembers which client certificate carries which name,
//! so that nobody here needs to parse X.509. Never writes a file; a root that is to outlive
//! its process is taken up again by its key.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::sim::lock;

/// A root key and certificate; clones share it.
#[derive(Clone)]
pub struct TestCa {
    root: Arc<Root>,
}

/// A client certificate with its key, both PEM, as APNs certificate authentication wants them.
#[derive(Clone)]
pub struct ClientCertificate {
    /// The certificate and nothing else, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS#8 PEM.
    pub key_pem: String,
    /// The subject's common name: for APNs the bundle identifier.
    pub common_name: String,
}

/// A server certificate with its key, both PEM.
#[derive(Clone)]
pub struct ServerCertificate {
    /// The certificate and nothing else, PEM.
    pub certificate_pem: String,
    /// The private key, PKCS#8 PEM.
    pub key_pem: String,
}

/// What can go wrong while certificates are made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// The certificate library refused.
    #[error("a certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refused what was made.
    #[error("a TLS configuration could not be made")]
    Tls(#[from] rustls::Error),
    /// The TLS library refused the root that client certificates are checked against.
    #[error("a client certificate verifier could not be made")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

struct Root {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    names: Mutex<HashMap<Vec<u8>, String>>,
}

impl TestCa {
    /// Makes a new root.
    pub fn new() -> Result<TestCa, CaError> {
        TestCa::of_key(KeyPair::generate()?)
    }

    /// Takes up the key of a root that was made before: what trusts one trusts the other, though
    /// their serial numbers differ. Errors: not a key in PEM.
    pub fn of_key_pem(key_pem: &str) -> Result<TestCa, CaError> {
        TestCa::of_key(KeyPair::from_pem(key_pem)?)
    }

    /// The root key, PEM.
    pub fn key_pem(&self) -> String {
        self.root.issuer.key().serialize_pem()
    }

    fn of_key(key: KeyPair) -> Result<TestCa, CaError> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "sns-relay test root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        let (der, pem) = (certificate.der().clone(), certificate.pem());
        let issuer = Issuer::new(params, key);
        let names = Mutex::default();
        Ok(TestCa { root: Arc::new(Root { issuer, certificate: der, pem, names }) })
    }

    /// The root certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.root.pem
    }

    /// The root certificate, DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.root.certificate
    }

    /// A server for `localhost`, 127.0.0.1 and ::1 under a fresh certificate of this root.
    /// Shape: `alpn` in order of preference; a client certificate of this root is optional.
    pub fn server_config(&self, alpn: &[&str]) -> Result<rustls::ServerConfig, CaError> {
        self.server_config_until(alpn, None)
    }

    /// The same, but the certificate's time is over, since 2020.
    pub fn expired_server_config(&self, alpn: &[&str]) -> Result<rustls::ServerConfig, CaError> {
        self.server_config_until(alpn, Some(2020))
    }

    fn server_config_until(
        &self,
        alpn: &[&str],
        over_in_year: Option<i32>,
    ) -> Result<rustls::ServerConfig, CaError> {
        let (certificate, key) = self.sign_server(over_in_year)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.root.certificate.clone())?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], private)?;
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Ok(config)
    }

    /// Issues a server certificate for `localhost`, 127.0.0.1 and ::1, as files would hold it.
    pub fn issue_server(&self) -> Result<ServerCertificate, CaError> {
        let (certificate, key) = self.sign_server(None)?;
        Ok(ServerCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// Issues a client certificate with this common name.
    pub fn issue_client(&self, common_name: &str) -> Result<ClientCertificate, CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.root.issuer)?;
        lock(&self.root.names).insert(certificate.der().to_vec(), common_name.to_owned());
        Ok(ClientCertificate {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            common_name: common_name.to_owned(),
        })
    }

    fn sign_server(&self, over_in_year: Option<i32>) -> Result<(Certificate, KeyPair), CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, "localhost");
        params.subject_alt_names.extend([
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if let Some(year) = over_in_year {
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
        }
        let certificate = params.signed_by(&key, &self.root.issuer)?;
        Ok((certificate, key))
    }

    /// The common name of a client certificate that this root issued.
    pub(crate) fn common_name_of(&self, certificate: &[u8]) -> Option<String> {
        lock(&self.root.names).get(certificate).cloned()
    }
}
