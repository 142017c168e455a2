//! What Apple gives a publisher: a signing key with its identifier, a team, a bundle identifier.

use aws_lc_rs::rand;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;

use super::super::SimError;
use super::Environment;

/// One publisher's credentials.
#[derive(Clone)]
pub struct ApnsCredentials {
    /// The `.p8` file: PKCS#8 PEM, P-256.
    pub key_pem: String,
    /// The key identifier, 10 characters.
    pub key_id: String,
    /// The team identifier, 10 characters.
    pub team_id: String,
    /// The bundle identifier.
    pub topic: String,
    public_key: Vec<u8>,
}

/// What a simulator knows of a key.
#[derive(Clone)]
pub struct RegisteredKey {
    /// The key identifier.
    pub key_id: String,
    /// The team that owns it.
    pub team_id: String,
    /// The uncompressed P-256 point, 65 bytes.
    pub public_key: Vec<u8>,
    /// The one environment it is good for; `None` for both, as keys before 2025 are.
    pub environment: Option<Environment>,
}

impl ApnsCredentials {
    /// Makes a new key of a new team for this bundle identifier.
    pub fn generate(topic: &str) -> Result<ApnsCredentials, SimError> {
        let team_id = identifier()?;
        ApnsCredentials::generate_for(&team_id, topic)
    }

    /// Makes another key of the same team for this bundle identifier.
    pub fn generate_for(team_id: &str, topic: &str) -> Result<ApnsCredentials, SimError> {
        let key =
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| SimError::Key)?;
        let der = key.to_pkcs8v1().map_err(|_| SimError::Key)?;
        Ok(ApnsCredentials {
            key_pem: pem("PRIVATE KEY", der.as_ref()),
            key_id: identifier()?,
            team_id: team_id.to_owned(),
            topic: topic.to_owned(),
            public_key: key.public_key().as_ref().to_vec(),
        })
    }

    /// Takes up a key that was made before: its PEM text, its identifier, its team, its topic.
    /// Errors: `Key`, where the text is no P-256 key.
    pub fn of_key(
        key_pem: &str,
        key_id: &str,
        team_id: &str,
        topic: &str,
    ) -> Result<ApnsCredentials, SimError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes());
        let der = der.map_err(|_| SimError::Key)?;
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, der.secret_pkcs8_der());
        let key = key.map_err(|_| SimError::Key)?;
        Ok(ApnsCredentials {
            key_pem: key_pem.to_owned(),
            key_id: key_id.to_owned(),
            team_id: team_id.to_owned(),
            topic: topic.to_owned(),
            public_key: key.public_key().as_ref().to_vec(),
        })
    }

    /// What a simulator must know of this key; good for both environments.
    pub fn registered(&self) -> RegisteredKey {
        RegisteredKey {
            key_id: self.key_id.clone(),
            team_id: self.team_id.clone(),
            public_key: self.public_key.clone(),
            environment: None,
        }
    }
}

/// PEM text of DER bytes, lines of 64 characters. RFC 7468.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

/// Ten characters as Apple writes identifiers.
fn identifier() -> Result<String, SimError> {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let mut random = [0; 10];
    rand::fill(&mut random).map_err(|_| SimError::Key)?;
    Ok(random.iter().map(|byte| char::from(ALPHABET[usize::from(byte % 32)])).collect())
}
