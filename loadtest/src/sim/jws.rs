//! Reads signed tokens exactly as RFC 7515 writes them, and no other way.
//!
//! In: compact JWS text. Out: header, claims and whether the signature holds. base64url must be
//! without padding and canonical; an ES256 signature must be the 64 bytes r‖s, never DER.
//! RFC 7515 §2, §7.1; RFC 7518 §3.3, §3.4.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::lock;

/// A token in its parts; nothing is verified yet.
pub(crate) struct Jws<'a> {
    pub(crate) header: Map<String, Value>,
    pub(crate) claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

/// Remembers verified tokens, so that a busy sender costs one signature check; bounded.
pub(crate) struct Verified<T> {
    tokens: Mutex<HashMap<String, Arc<T>>>,
}

const TOKENS_MAX: usize = 4096;

impl<'a> Jws<'a> {
    pub(crate) fn parse(text: &'a str) -> Option<Jws<'a>> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        Some(Jws {
            header: object(header)?,
            claims: object(claims)?,
            signed,
            signature: decode(signature)?,
        })
    }

    /// Whether the header names this algorithm, and nothing but `alg`, `kid` and `typ: JWT`.
    pub(crate) fn is_plain(&self, algorithm: &str) -> bool {
        self.header.get("alg").and_then(Value::as_str) == Some(algorithm)
            && self.header.get("typ").is_none_or(|typ| typ.as_str() == Some("JWT"))
            && self.header.keys().all(|key| matches!(key.as_str(), "alg" | "kid" | "typ"))
    }

    /// Checks an ES256 signature; `point` is the uncompressed P-256 point, 65 bytes.
    pub(crate) fn verify_es256(&self, point: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        key.verify(self.signed.as_bytes(), &self.signature).is_ok()
    }

    /// Checks an RS256 signature; `key` is an RFC 8017 `RSAPublicKey`, DER.
    pub(crate) fn verify_rs256(&self, key: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key);
        key.verify(self.signed.as_bytes(), &self.signature).is_ok()
    }

    pub(crate) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    pub(crate) fn seconds(&self, claim: &str) -> Option<i64> {
        self.claims.get(claim).and_then(Value::as_i64)
    }
}

impl<T> Verified<T> {
    pub(crate) fn new() -> Verified<T> {
        Verified { tokens: Mutex::default() }
    }

    /// The remembered claims, else those that `verify` finds.
    pub(crate) fn claims<E>(
        &self,
        token: &str,
        verify: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        if let Some(known) = lock(&self.tokens).get(token) {
            return Ok(known.clone());
        }
        let claims = Arc::new(verify()?);
        let tokens = &mut *lock(&self.tokens);
        if tokens.len() == TOKENS_MAX {
            tokens.clear();
        }
        tokens.insert(token.to_owned(), claims.clone());
        Ok(claims)
    }
}

/// Decodes base64url without padding, canonical form only.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&decode(text)?).ok()
}
