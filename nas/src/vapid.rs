//! Signs a sender's requests: RFC 8292 (VAPID), the one credential of every door of the relay.
//!
//! In: a key, the origin that will read it, the time. Out: the value of `Authorization`. A token
//! says who signs, for which origin and until when, and nothing about the message.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use http::Uri;
use serde_json::json;
use thiserror::Error;

use crate::base64url;
use crate::key::{KeyError, SenderKey};

/// The longest life that RFC 8292 §2 allows a token, in seconds.
pub const LIFE_S_MAX: u64 = 24 * 60 * 60;

/// The life of a token where nothing else is said, in seconds: half the allowed one, so that a
/// wrong clock on either side does no harm.
pub const LIFE_S_DEFAULT: u64 = 12 * 60 * 60;

/// An origin (RFC 6454) as a token names it: scheme, host, and the port where it is not default.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Audience(String);

/// Signed tokens, kept until they have little life left, so that a busy sender signs rarely.
/// Bounded: at most 64 pairs of key and origin.
#[derive(Default)]
pub struct Tokens {
    signed: Mutex<HashMap<([u8; 65], Audience), Token>>,
}

/// Why a token could not be signed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum VapidError {
    /// The audience is not taken from a URL with a host.
    #[error("the audience is not an http or https URL")]
    BadAudience,
    /// The contact is not a URI that RFC 8292 §2.1 asks for.
    #[error("the subject is not a mailto: or https: URI")]
    BadSubject,
    /// The life is zero or longer than RFC 8292 §2 allows.
    #[error("a life of {life_s} s is outside 1..={LIFE_S_MAX}")]
    BadLife {
        /// The life that was asked for, in seconds.
        life_s: u64,
    },
    /// The key could not sign.
    #[error("cannot sign")]
    Key(#[from] KeyError),
}

/// Signs one token.
/// Shape: gives `vapid t=<JWT>, k=<public key>`, the value of `Authorization`.
/// Units: `now_unix_s` in whole seconds since 1970; `life_s` in 1..=86400.
/// Errors: `BadSubject`, `BadLife`, `Key`.
/// Source: RFC 8292 §2 and §3; RFC 7515 §3.1.
pub fn authorization(
    key: &SenderKey,
    audience: &Audience,
    subject: Option<&str>,
    now_unix_s: u64,
    life_s: u64,
) -> Result<String, VapidError> {
    if subject.is_some_and(|uri| !uri.starts_with("mailto:") && !uri.starts_with("https:")) {
        return Err(VapidError::BadSubject);
    }
    if !(1..=LIFE_S_MAX).contains(&life_s) {
        return Err(VapidError::BadLife { life_s });
    }
    let mut claims = json!({"aud": audience.0, "exp": now_unix_s.saturating_add(life_s)});
    if let Some(uri) = subject {
        claims["sub"] = uri.into();
    }
    let signed = format!("{}.{}", base64url::encode(HEADER), base64url::encode(claims.to_string()));
    let signature = base64url::encode(key.sign(signed.as_bytes())?);
    Ok(format!("vapid t={signed}.{signature}, k={}", key.public_base64url()))
}

const HEADER: &str = r#"{"typ":"JWT","alg":"ES256"}"#;
const TOKENS_MAX: usize = 64;

/// A token with less life than this is signed anew, in seconds.
const LIFE_LEFT_S_MIN: u64 = 60 * 60;

struct Token {
    authorization: String,
    expires_unix_s: u64,
}

// === impl Audience ===

impl Audience {
    /// Takes the origin of a URL; path and query are left out.
    /// Errors: `BadAudience` unless it is http or https with a host and no user.
    pub fn of_url(url: &str) -> Result<Self, VapidError> {
        url.parse::<Uri>().ok().as_ref().and_then(Self::of_uri).ok_or(VapidError::BadAudience)
    }

    /// Gives the origin.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn of_uri(uri: &Uri) -> Option<Self> {
        let default_port = match uri.scheme_str()? {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let authority = uri.authority()?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return None;
        }
        let host = authority.host().to_ascii_lowercase();
        let scheme = uri.scheme_str()?;
        Some(Self(match authority.port_u16().filter(|port| *port != default_port) {
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        }))
    }
}

// === impl Tokens ===

impl Tokens {
    /// Gives a token without a subject and with an hour of life at least, signed now or before.
    /// Units: `now_unix_s` in whole seconds since 1970.
    /// Errors: `Key`.
    pub fn authorization(
        &self,
        key: &SenderKey,
        audience: &Audience,
        now_unix_s: u64,
    ) -> Result<String, VapidError> {
        let name = (key.public(), audience.clone());
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |token: &Token| {
            let left_s = token.expires_unix_s.saturating_sub(now_unix_s);
            // A clock that was set back makes a token too long-lived for the relay.
            (LIFE_LEFT_S_MIN..=LIFE_S_DEFAULT).contains(&left_s)
        };
        if let Some(token) = signed.get(&name).filter(|token| fresh(token)) {
            return Ok(token.authorization.clone());
        }
        let authorization = authorization(key, audience, None, now_unix_s, LIFE_S_DEFAULT)?;
        if signed.len() >= TOKENS_MAX {
            signed.clear();
        }
        let expires_unix_s = now_unix_s.saturating_add(LIFE_S_DEFAULT);
        signed.insert(name, Token { authorization: authorization.clone(), expires_unix_s });
        Ok(authorization)
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    const RFC8292: &str = include_str!("../tests/vectors/rfc8292.json");

    /// Takes `vapid t=…, k=…` apart as a relay does: header, claims, whether the signature holds.
    fn read(authorization: &str) -> (Value, Value, bool) {
        let (token, public) =
            authorization.strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, claims) = signed.split_once('.').unwrap();
        let json = |part: &str| serde_json::from_slice(&base64url::decode(part).unwrap()).unwrap();
        let public = base64url::decode(public).unwrap();
        let verified = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public)
            .verify(signed.as_bytes(), &base64url::decode(signature).unwrap());
        (json(header), json(claims), verified.is_ok())
    }

    #[test]
    fn a_token_has_the_form_of_the_example_of_rfc_8292_and_verifies() {
        let vector: Value = serde_json::from_str(RFC8292).unwrap();
        let (header, claims, verified) = read(vector["authorization_header"].as_str().unwrap());
        assert!(verified, "the RFC's own token");

        let key = SenderKey::generate().unwrap();
        let audience = Audience::of_url("https://push.example.net/p/JzLQ3raZJfFBR0aqv").unwrap();
        let expires_unix_s = claims["exp"].as_u64().unwrap();
        let subject = claims["sub"].as_str();
        let ours = authorization(&key, &audience, subject, expires_unix_s - 60, 60).unwrap();
        assert_eq!(read(&ours), (header, claims, true));
        assert!(ours.ends_with(&format!(", k={}", key.public_base64url())));
    }

    #[test]
    fn a_token_without_subject_names_only_origin_and_end() {
        let key = SenderKey::generate().unwrap();
        let audience = Audience::of_url("http://127.0.0.1:8080").unwrap();
        let token = authorization(&key, &audience, None, 1_000, LIFE_S_MAX).unwrap();
        assert_eq!(read(&token).1, json!({"aud": "http://127.0.0.1:8080", "exp": 87_400}));
    }

    #[test]
    fn bad_lives_and_subjects_are_refused() {
        let key = SenderKey::generate().unwrap();
        let audience = Audience::of_url("https://push.example.net").unwrap();
        for life_s in [0, LIFE_S_MAX + 1] {
            let refused = authorization(&key, &audience, None, 0, life_s);
            assert!(matches!(refused, Err(VapidError::BadLife { .. })));
        }
        for subject in ["", "me@example.com", "http://example.com"] {
            let refused = authorization(&key, &audience, Some(subject), 0, 60);
            assert!(matches!(refused, Err(VapidError::BadSubject)), "{subject}");
        }
    }

    #[test]
    fn the_audience_is_the_origin_of_the_url() {
        let check = |url: &str, expect: Option<&str>| {
            assert_eq!(Audience::of_url(url).ok().as_ref().map(Audience::as_str), expect, "{url}");
        };
        check("https://push.example.net", Some("https://push.example.net"));
        check("https://push.example.net/push/x?y", Some("https://push.example.net"));
        check("https://push.example.net:443/", Some("https://push.example.net"));
        check("https://push.example.net:8443/", Some("https://push.example.net:8443"));
        check("http://push.example.net:443/", Some("http://push.example.net:443"));
        check("http://127.0.0.1:80/", Some("http://127.0.0.1"));
        check("https://[::1]:8443/", Some("https://[::1]:8443"));
        check("HTTPS://Push.Example.Net/", Some("https://push.example.net"));
        check("https://me@push.example.net/", None);
        check("ftp://push.example.net/", None);
        check("push.example.net", None);
        check("/push", None);
        check("", None);
    }

    #[test]
    fn a_token_is_signed_once_per_key_and_origin_until_little_life_is_left() {
        let key = SenderKey::generate().unwrap();
        let audience = Audience::of_url("https://push.example.net").unwrap();
        let tokens = Tokens::default();
        let at = |now_unix_s| tokens.authorization(&key, &audience, now_unix_s).unwrap();
        let now_unix_s = 1_800_000_000;
        let first = at(now_unix_s);
        assert_eq!(at(now_unix_s + LIFE_S_DEFAULT - LIFE_LEFT_S_MIN), first);
        let second = at(now_unix_s + LIFE_S_DEFAULT - LIFE_LEFT_S_MIN + 1);
        assert_ne!(second, first);
        assert_ne!(at(now_unix_s), second, "the clock was set back");

        let other = SenderKey::generate().unwrap();
        let others = tokens.authorization(&other, &audience, now_unix_s).unwrap();
        assert!(others.ends_with(&other.public_base64url()));
        for port in 1000..1000 + 2 * TOKENS_MAX {
            let audience = Audience::of_url(&format!("https://push.example.net:{port}")).unwrap();
            tokens.authorization(&key, &audience, now_unix_s).unwrap();
            assert!(tokens.signed.lock().unwrap().len() <= TOKENS_MAX);
        }
    }
}
