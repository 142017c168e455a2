//! The files that a configuration names: read with a cap, and parsed for validity.
//!
//! A path comes in; text goes out that the key's user can parse again without a surprise. No
//! error repeats a file's content, nor its name: a name may be a secret in the wrong place.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroize as _;

use super::Secret;

/// Largest file that is read: a chain or a key ring has a few KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// The system refuses.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// A folder, a pipe, a device.
    #[error("must be a file")]
    NotAFile,
    /// Larger than anything that belongs here.
    #[error("must have at most {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// Bytes that are no UTF-8.
    #[error("must be text")]
    NotText,
    /// No key of the wanted kind.
    #[error("must hold a P-256 key in PKCS#8 PEM (BEGIN PRIVATE KEY)")]
    NotP256,
    /// No key of the wanted kind.
    #[error("must hold an RSA key in PKCS#8 PEM (BEGIN PRIVATE KEY)")]
    NotRsa,
    /// No certificate.
    #[error("must hold at least one certificate in PEM")]
    NoCertificate,
    /// No private key, or one of a kind that TLS does not know.
    #[error("must hold a private key in PEM")]
    NoPrivateKey,
    /// A key of another certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
}

/// Reads a file of text, at most 1 MiB, into memory that is wiped.
pub fn read_text(path: &Path) -> Result<Secret<String>, FileFault> {
    // Before it is opened, which on a pipe would wait for somebody to write.
    let metadata = std::fs::metadata(path).map_err(FileFault::Unreadable)?;
    if !metadata.is_file() {
        return Err(FileFault::NotAFile);
    }
    let file = File::open(path).map_err(FileFault::Unreadable)?;
    if metadata.len() > FILE_BYTES_MAX {
        return Err(FileFault::TooLarge);
    }
    // Room for all of it at once: a buffer that grows leaves copies behind that nobody wipes.
    let capacity = usize::try_from(metadata.len()).unwrap_or_default() + 1;
    let mut bytes = Vec::with_capacity(capacity);
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(FileFault::Unreadable)?;
    String::from_utf8(bytes).map(Secret::new).map_err(|error| {
        error.into_bytes().zeroize();
        FileFault::NotText
    })
}

/// Tells whether others than the owner may read a file, or write it.
pub fn is_open_to_others(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

/// Gives when the first certificate of a PEM text ends, in seconds since 1970.
/// Gives nothing where there is no certificate that can be read.
/// Source: RFC 5280 §4.1.2.5.
pub fn certificate_expiry_unix_s(pem: &[u8]) -> Option<i64> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

/// Gives the public half of a P-256 key: 65 bytes, uncompressed.
/// Errors: [`FileFault::NotP256`].
pub fn p256_public(pem: &str) -> Result<Vec<u8>, FileFault> {
    let mut public = None;
    with_pkcs8(pem, |der| {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der);
        public = pair.ok().map(|pair| pair.public_key().as_ref().to_vec());
        public.is_some()
    });
    public.ok_or(FileFault::NotP256)
}

/// Checks a token or VAPID key.
pub fn check_p256(pem: &str) -> Result<(), FileFault> {
    with_pkcs8(pem, |der| EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).is_ok())
        .ok_or(FileFault::NotP256)
}

/// Checks a service account's key.
pub fn check_rsa(pem: &str) -> Result<(), FileFault> {
    with_pkcs8(pem, |der| rsa::KeyPair::from_pkcs8(der).is_ok()).ok_or(FileFault::NotRsa)
}

/// Checks a certificate chain and its key; the two texts may be one.
pub fn check_certificate_and_key(chain_pem: &str, key_pem: &str) -> Result<(), FileFault> {
    let chain = certificates(chain_pem)?;
    let key =
        PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| FileFault::NoPrivateKey)?;
    match CertifiedKey::from_der(chain, key, &default_provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err(FileFault::KeyMismatch),
        Err(rustls::Error::InvalidCertificate(_)) => Err(FileFault::NoCertificate),
        Err(_) => Err(FileFault::NoPrivateKey),
    }
}

/// Checks a file of certificate authorities.
pub fn check_authorities(pem: &str) -> Result<(), FileFault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_| FileFault::NoCertificate)?;
    }
    Ok(())
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, FileFault> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or(FileFault::NoCertificate)
}

fn with_pkcs8(pem: &str, is_valid: impl FnOnce(&[u8]) -> bool) -> Option<()> {
    let mut der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?;
    let valid = is_valid(der.secret_pkcs8_der());
    der.zeroize();
    valid.then_some(())
}
