//! Signs tokens, well and badly.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use sns_loadtest::sim::apns::ApnsCredentials;

pub(crate) fn now_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

/// A P-256 key with its public point.
pub(crate) struct Key {
    pkcs8: Vec<u8>,
    pub(crate) point: [u8; 65],
}

impl Key {
    pub(crate) fn generate() -> Key {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let pkcs8 = pair.to_pkcs8v1().unwrap().as_ref().to_vec();
        Key { pkcs8, point: pair.public_key().as_ref().try_into().unwrap() }
    }

    pub(crate) fn of(credentials: &ApnsCredentials) -> Key {
        let der = PrivatePkcs8KeyDer::from_pem_slice(credentials.key_pem.as_bytes()).unwrap();
        let pkcs8 = der.secret_pkcs8_der().to_vec();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8).unwrap();
        Key { point: pair.public_key().as_ref().try_into().unwrap(), pkcs8 }
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_with(header, claims, &ECDSA_P256_SHA256_FIXED_SIGNING)
    }

    /// The same token with an ASN.1 signature, as no JWT may have it.
    pub(crate) fn sign_der(&self, header: &Value, claims: &Value) -> String {
        self.sign_with(header, claims, &ECDSA_P256_SHA256_ASN1_SIGNING)
    }

    /// A good token in padded base64url.
    pub(crate) fn sign_padded(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &self.pkcs8).unwrap();
        let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE.encode(signature))
    }

    /// A VAPID header for this origin, good for an hour.
    pub(crate) fn vapid(&self, origin: &str) -> String {
        self.vapid_claiming(
            &json!({ "aud": origin, "exp": now_s() + 3600, "sub": "mailto:push@example.com" }),
        )
    }

    pub(crate) fn vapid_claiming(&self, claims: &Value) -> String {
        let token = self.sign(&json!({ "typ": "JWT", "alg": "ES256" }), claims);
        format!("vapid t={token}, k={}", URL_SAFE_NO_PAD.encode(self.point))
    }

    fn sign_with(
        &self,
        header: &Value,
        claims: &Value,
        algorithm: &'static EcdsaSigningAlgorithm,
    ) -> String {
        let signed = signed(header, claims);
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, &self.pkcs8).unwrap();
        let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// An RS256 token by the key of a service account file.
pub(crate) fn sign_rs256(private_key_pem: &str, claims: &Value) -> String {
    let der = PrivatePkcs8KeyDer::from_pem_slice(private_key_pem.as_bytes()).unwrap();
    let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
    let signed = signed(&json!({ "alg": "RS256", "typ": "JWT" }), claims);
    let mut signature = vec![0; pair.public_modulus_len()];
    let random = SystemRandom::new();
    pair.sign(&RSA_PKCS1_SHA256, &random, signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn signed(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}
