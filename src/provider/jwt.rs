//! The tokens that we sign ourselves: RFC 7515 in its compact form, base64url without padding.
//!
//! ES256 for APNs and VAPID, RS256 for Google's grant. A key is read from PKCS#8 PEM, never shown.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::config::Secret;
use crate::push::BASE64URL;

/// A P-256 key.
pub struct Es256Key(EcdsaKeyPair);

/// An RSA key of 2048 bits or more.
pub struct Rs256Key(RsaKeyPair);

/// Why a key cannot be used. Nothing of the key is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not PEM, or encrypted, or another kind of PEM.
    #[error("the key is not an unencrypted PKCS#8 PEM (BEGIN PRIVATE KEY)")]
    Pem,
    /// Not a P-256 key.
    #[error("the key is not an elliptic curve key on P-256")]
    NotP256,
    /// Not an RSA key.
    #[error("the key is not an RSA key of 2048 bits or more")]
    NotRsa,
    /// The system has no randomness.
    #[error("the key did not sign")]
    Signing,
}

// === impl Es256Key ===

impl Es256Key {
    /// Reads a key, as Apple's `.p8` files and `openssl genpkey` have it.
    /// Errors: [`KeyError::Pem`], [`KeyError::NotP256`].
    pub fn from_pem(pem: &Secret<String>) -> Result<Self, KeyError> {
        let key = pkcs8(pem)?;
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der());
        key.map(Self).map_err(|_| KeyError::NotP256)
    }

    /// Signs; the signature is r ‖ s in 64 bytes (RFC 7518 §3.4), never DER.
    /// Errors: [`KeyError::Signing`].
    pub fn sign(&self, header: &Value, claims: &Value) -> Result<String, KeyError> {
        let mut token = signing_input(header, claims);
        let signature = self.0.sign(&SystemRandom::new(), token.as_bytes());
        append(&mut token, signature.map_err(|_| KeyError::Signing)?.as_ref());
        Ok(token)
    }

    /// Gives the uncompressed public point in base64url: the `k` of RFC 8292.
    pub fn public_point(&self) -> String {
        BASE64URL.encode(self.0.public_key())
    }
}

// === impl Rs256Key ===

impl Rs256Key {
    /// Reads a key, as Google's key files have it.
    /// Errors: [`KeyError::Pem`], [`KeyError::NotRsa`].
    pub fn from_pem(pem: &Secret<String>) -> Result<Self, KeyError> {
        let key = pkcs8(pem)?;
        let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der());
        key.map(Self).map_err(|_| KeyError::NotRsa)
    }

    /// Signs with RSASSA-PKCS1-v1_5 and SHA-256 (RFC 7518 §3.3).
    /// Errors: [`KeyError::Signing`].
    pub fn sign(&self, header: &Value, claims: &Value) -> Result<String, KeyError> {
        let mut token = signing_input(header, claims);
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), token.as_bytes(), &mut signature)
            .map_err(|_| KeyError::Signing)?;
        append(&mut token, &signature);
        Ok(token)
    }
}

fn pkcs8(pem: &Secret<String>) -> Result<PrivatePkcs8KeyDer<'static>, KeyError> {
    PrivatePkcs8KeyDer::from_pem_slice(pem.expose().as_bytes()).map_err(|_| KeyError::Pem)
}

fn signing_input(header: &Value, claims: &Value) -> String {
    let mut text = BASE64URL.encode(header.to_string());
    append(&mut text, claims.to_string().as_bytes());
    text
}

fn append(text: &mut String, bytes: &[u8]) {
    text.push('.');
    BASE64URL.encode_string(bytes, text);
}

#[cfg(test)]
pub(in crate::provider) mod tests {
    use aws_lc_rs::encoding::{AsBigEndian as _, AsDer as _};
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    };
    use serde_json::json;

    use super::*;

    pub(in crate::provider) fn pem(der: &[u8]) -> Secret<String> {
        let body = base64::engine::general_purpose::STANDARD.encode(der);
        Secret::new(format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n"))
    }

    pub(in crate::provider) fn p256_pem() -> Secret<String> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        pem(key.to_pkcs8v1().unwrap().as_ref())
    }

    pub(in crate::provider) fn rsa_pem() -> (Secret<String>, Vec<u8>) {
        let key = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
        (pem(key.as_der().unwrap().as_ref()), key.public_key().as_ref().to_vec())
    }

    /// Checks an ES256 token against a public point in base64url and gives its two JSON parts.
    pub(in crate::provider) fn verify_es256(token: &str, point: &str) -> (Value, Value) {
        let (input, signature) = token.rsplit_once('.').unwrap();
        let signature = BASE64URL.decode(signature).unwrap();
        assert_eq!(signature.len(), 64, "r ‖ s, never DER");
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, BASE64URL.decode(point).unwrap())
            .verify(input.as_bytes(), &signature)
            .unwrap();
        parts(token)
    }

    pub(in crate::provider) fn verify_rs256(token: &str, public: &[u8]) -> (Value, Value) {
        let (input, signature) = token.rsplit_once('.').unwrap();
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public)
            .verify(input.as_bytes(), &BASE64URL.decode(signature).unwrap())
            .unwrap();
        parts(token)
    }

    fn parts(token: &str) -> (Value, Value) {
        assert!(!token.contains(['=', '+', '/']), "RFC 7515: base64url without padding");
        let parts: Vec<_> = token.split('.').collect();
        assert_eq!(parts.len(), 3);
        let json = |text| serde_json::from_slice(&BASE64URL.decode(text).unwrap()).unwrap();
        (json(parts[0]), json(parts[1]))
    }

    #[test]
    fn signatures_verify_and_the_parts_come_back() {
        let header = json!({"alg": "x"});
        let claims = json!({"iat": 1, "text": "ÿÿ>?"});
        let key = Es256Key::from_pem(&p256_pem()).ok().unwrap();
        let token = key.sign(&header, &claims).unwrap();
        assert_eq!(verify_es256(&token, &key.public_point()), (header.clone(), claims.clone()));
        let (pem, public) = rsa_pem();
        let token = Rs256Key::from_pem(&pem).ok().unwrap().sign(&header, &claims).unwrap();
        assert_eq!(verify_rs256(&token, &public), (header, claims));
    }

    /// Apple's `.p8` files repeat the curve inside the key; some tools leave the public point out.
    #[test]
    fn all_shapes_of_a_pkcs8_key_are_read() {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let secret = key.private_key().as_be_bytes().unwrap();
        let point = key.public_key().as_ref();
        let curve = [0x06, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
        let algorithm =
            [&[0x30, 0x13, 0x06, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1][..], &curve].concat();
        let start = [&[2, 1, 1, 4, 32][..], secret.as_ref()].concat();
        let apple = [&start[..], &[0xa0, 10], &curve, &[0xa1, 0x44, 3, 0x42, 0], point].concat();
        for inner in [start, apple] {
            let sequence = der(0x30, &inner);
            let outer = [&[2, 1, 0][..], &algorithm, &der(4, &sequence)].concat();
            let read = Es256Key::from_pem(&pem(&der(0x30, &outer))).ok().unwrap();
            assert_eq!(read.public_point(), BASE64URL.encode(point));
        }
    }

    #[test]
    fn a_key_of_another_kind_is_refused() {
        let (rsa, _) = rsa_pem();
        assert_eq!(Es256Key::from_pem(&rsa).err(), Some(KeyError::NotP256));
        assert_eq!(Rs256Key::from_pem(&p256_pem()).err(), Some(KeyError::NotRsa));
        for wrong in ["", "-----BEGIN PRIVATE KEY-----", "-----BEGIN EC PRIVATE KEY-----\nMHc=\n"] {
            let wrong = Secret::new(wrong.to_owned());
            assert_eq!(Es256Key::from_pem(&wrong).err(), Some(KeyError::Pem));
        }
    }

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        let head = if length < 128 { vec![tag, length] } else { vec![tag, 0x81, length] };
        [head, content.to_vec()].concat()
    }
}
