//! The sender's key: P-256, what the relay knows a NAS or an application by.
//!
//! In: a PKCS#8 PEM file, or the machine's random source. Out: signatures, the public key, its
//! thumbprint. The private half leaves only by `save`, into a new file that its owner alone can
//! read, and by `pem`, for the journal; it is never printed, and no error carries it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::base64url;

/// A P-256 key that signs for a sender. Not printable.
pub struct SenderKey {
    pair: EcdsaKeyPair,
    public: [u8; 65],
}

/// Why a key could not be made, read or kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key file could not be read.
    #[error("cannot read the key file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key file could not be written; a file that is there already is never overwritten.
    #[error("cannot write the key file {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The text is not a P-256 private key in PKCS#8 PEM.
    #[error("not a P-256 private key in PKCS#8 PEM (\"BEGIN PRIVATE KEY\")")]
    NotAKey,
    /// The machine's random source or crypto library failed.
    #[error("the crypto library failed")]
    Crypto,
}

// === impl SenderKey ===

impl SenderKey {
    /// Makes a fresh key. Errors: `Crypto`.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        Self::of(pair.map_err(|_| KeyError::Crypto)?)
    }

    /// Reads a key from the text of a PKCS#8 PEM file. Errors: `NotAKey`.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| KeyError::NotAKey)?;
        let der = Zeroizing::new(der.secret_pkcs8_der().to_vec());
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der);
        Self::of(pair.map_err(|_| KeyError::NotAKey)?)
    }

    /// Reads a key from a file. Errors: `Read`, `NotAKey`.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let pem = fs::read(path)
            .map_err(|source| KeyError::Read { path: path.to_owned(), source })
            .map(Zeroizing::new)?;
        Self::from_pem(&pem)
    }

    /// Writes the key to a new file that only its owner can read (mode 0600), and syncs it.
    /// Errors: `Write`, also when the file exists: a lost key is a lost identity.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let pem = self.pem()?;
        write_new(path, pem.as_bytes())
            .map_err(|source| KeyError::Write { path: path.to_owned(), source })
    }

    /// Gives the public key, an uncompressed point.
    pub fn public(&self) -> [u8; 65] {
        self.public
    }

    /// Gives the public key as it travels: base64url without padding.
    pub fn public_base64url(&self) -> String {
        base64url::encode(self.public)
    }

    /// Gives SHA-256 of the public key, by which the relay names it.
    pub fn thumbprint(&self) -> [u8; 32] {
        let mut thumbprint = [0; 32];
        thumbprint.copy_from_slice(digest(&SHA256, &self.public).as_ref());
        thumbprint
    }

    /// Signs with ECDSA over SHA-256; gives `r ‖ s` (RFC 7518 §3.4). Errors: `Crypto`.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyError> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        let signature = signature.map_err(|_| KeyError::Crypto)?;
        signature.as_ref().try_into().map_err(|_| KeyError::Crypto)
    }

    /// Gives the key as the text of a PKCS#8 PEM file, wiped when dropped. Errors: `Crypto`.
    pub fn pem(&self) -> Result<Zeroizing<String>, KeyError> {
        let der = self.pair.to_pkcs8v1().map_err(|_| KeyError::Crypto)?;
        let body = Zeroizing::new(STANDARD.encode(der.as_ref()));
        let mut pem = Zeroizing::new(String::with_capacity(512));
        pem.push_str("-----BEGIN PRIVATE KEY-----\n");
        for (at, character) in body.chars().enumerate() {
            if at > 0 && at % 64 == 0 {
                pem.push('\n');
            }
            pem.push(character);
        }
        pem.push_str("\n-----END PRIVATE KEY-----\n");
        Ok(pem)
    }

    fn of(pair: EcdsaKeyPair) -> Result<Self, KeyError> {
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Crypto)?;
        Ok(Self { pair, public })
    }
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file: File = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256`.
    const OPENSSL_PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgVsd0G6diqqEgb2SW\n\
        JUMFdTrjiKNL8QShjPa7ewdSb/ahRANCAATE1YiKIYlVS28JYSCLgPFZeGzt/MEA\n\
        jbNzioZ7U+8CJ8tsUpxUIOeUPjdRfl4lpcEZFp+pxWjMxSDuJY1ju7gx\n\
        -----END PRIVATE KEY-----";
    const OPENSSL_PUBLIC: &str =
        "BMTViIohiVVLbwlhIIuA8Vl4bO38wQCNs3OKhntT7wIny2xSnFQg55Q-N1F-XiWlwRkWn6nFaMzFIO4ljWO7uDE";

    #[test]
    fn a_key_of_openssl_is_read() {
        let key = SenderKey::from_pem(OPENSSL_PEM.as_bytes()).unwrap();
        assert_eq!(key.public_base64url(), OPENSSL_PUBLIC);
    }

    #[test]
    fn a_key_survives_its_pem_and_anything_else_is_refused() {
        let key = SenderKey::generate().unwrap();
        let pem = key.pem().unwrap();
        assert!(pem.lines().all(|line| line.len() <= 64));
        let again = SenderKey::from_pem(pem.as_bytes()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(again.thumbprint(), key.thumbprint());
        let certificate = pem.replace("PRIVATE KEY", "CERTIFICATE");
        for text in ["", "-----BEGIN PRIVATE KEY-----", &pem[..100], &certificate] {
            assert!(matches!(SenderKey::from_pem(text.as_bytes()), Err(KeyError::NotAKey)));
        }
    }
}
