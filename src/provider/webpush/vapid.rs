//! Our own VAPID tokens: one for each app and origin, shared by every message that goes there.
//!
//! In: an origin. Out: the header `authorization`, ready made. A token lives twelve hours and is
//! replaced at half of that, so no origin sees another one sooner than Apple's hour.
//! The number of origins is bounded, because they come from outside.
//! Source: RFC 8292 §2 and §3; Apple, "Sending web push notifications".

use http::HeaderValue;
use moka::Entry;
use moka::ops::compute::Op;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde_json::json;

use crate::clock::Clock;
use crate::config::AppWebPush;
use crate::provider::RenewalMetrics;
use crate::provider::jwt::{Es256Key, KeyError};

/// Signs the tokens of one app.
pub struct Signer {
    key: Es256Key,
    public_point: String,
    subject: String,
    clock: Clock,
    metrics: RenewalMetrics,
    tokens: Cache<String, Token>,
}

#[derive(Clone)]
struct Token {
    authorization: HeaderValue,
    issued_at_unix_s: u64,
}

/// RFC 8292 allows 24 hours.
const LIFE_S: u64 = 12 * 3600;

const AGE_S_MAX: u64 = LIFE_S / 2;

/// A token from further ahead than this was signed before the clock was set back.
const SKEW_S_MAX: u64 = 60;

// === impl Signer ===

impl Signer {
    /// Reads an app's key; remembers the tokens of `origins_max` origins.
    /// Errors: [`KeyError`].
    pub fn new(
        app: &AppWebPush,
        origins_max: usize,
        clock: Clock,
        metrics: RenewalMetrics,
    ) -> Result<Self, KeyError> {
        let key = Es256Key::from_pem(&app.vapid_key_pem)?;
        Ok(Self {
            public_point: key.public_point(),
            key,
            subject: app.subject.clone(),
            clock,
            metrics,
            // Least recently used: a busy origin never loses its token to passing ones.
            tokens: Cache::builder()
                .max_capacity(u64::try_from(origins_max).unwrap_or(u64::MAX))
                .eviction_policy(EvictionPolicy::lru())
                .build(),
        })
    }

    /// Gives the header for an origin; nothing when the key does not sign.
    /// Shape: `vapid t=<JWT>, k=<public key>`, marked sensitive.
    pub fn authorization(&self, origin: &str) -> Option<HeaderValue> {
        let now_unix_s = self.clock.unix_s();
        if let Some(token) = self.tokens.get(origin).filter(|token| token.serves(now_unix_s)) {
            return Some(token.authorization);
        }
        // Whoever comes second finds the token of the first, and signs nothing.
        let computed = self.tokens.entry_by_ref(origin).and_try_compute_with(|entry| {
            match entry.map(Entry::into_value) {
                Some(token) if token.serves(now_unix_s) => Ok(Op::Nop),
                _ => self.sign(origin, now_unix_s).map(Op::Put),
            }
        });
        Some(computed.ok()?.into_entry()?.into_value().authorization)
    }

    fn sign(&self, origin: &str, now_unix_s: u64) -> Result<Token, KeyError> {
        let header = json!({ "typ": "JWT", "alg": "ES256" });
        let claims = json!({ "aud": origin, "exp": now_unix_s + LIFE_S, "sub": self.subject });
        let signed = self.key.sign(&header, &claims);
        let text = signed.map(|token| format!("vapid t={token}, k={}", self.public_point));
        match text.map(HeaderValue::try_from) {
            Ok(Ok(mut authorization)) => {
                authorization.set_sensitive(true);
                self.metrics.renewals.inc();
                Ok(Token { authorization, issued_at_unix_s: now_unix_s })
            }
            _ => {
                self.metrics.failures.inc();
                Err(KeyError::Signing)
            }
        }
    }
}

// === impl Token ===

impl Token {
    const fn serves(&self, now_unix_s: u64) -> bool {
        now_unix_s.saturating_sub(self.issued_at_unix_s) < AGE_S_MAX
            && self.issued_at_unix_s <= now_unix_s.saturating_add(SKEW_S_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::provider::jwt::tests::{p256_pem, verify_es256};
    use crate::provider::tests::renewal_metrics;

    const START: u64 = 1_700_000_000;

    fn signer(origins_max: usize) -> (Signer, Arc<AtomicU64>) {
        let now = Arc::new(AtomicU64::new(START));
        let clock = Arc::clone(&now);
        let clock = Clock::from_fn(move || clock.load(Ordering::SeqCst) * 1000);
        let app = AppWebPush {
            vapid_key_pem: p256_pem(),
            application_server_key: String::new(),
            subject: "mailto:push@example.com".to_owned(),
            body_bytes_max: 4096,
        };
        (Signer::new(&app, origins_max, clock, renewal_metrics()).ok().unwrap(), now)
    }

    #[test]
    fn a_token_is_for_its_origin_and_verifies_under_k() {
        let (signer, _) = signer(4);
        let authorization = signer.authorization("https://push.example:8443").unwrap();
        assert!(authorization.is_sensitive());
        let text = authorization.to_str().unwrap();
        let (token, key) = text.strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
        assert!(crate::push::SenderKey::parse(key).is_some());
        let (header, claims) = verify_es256(token, key);
        assert_eq!(header, json!({"typ": "JWT", "alg": "ES256"}));
        let (aud, sub) = ("https://push.example:8443", "mailto:push@example.com");
        assert_eq!(claims, json!({"aud": aud, "exp": START + 12 * 3600, "sub": sub}));
    }

    #[test]
    fn a_token_is_shared_for_half_its_life() {
        let (signer, now) = signer(4);
        let first = signer.authorization("https://a.example").unwrap();
        let other = signer.authorization("https://b.example").unwrap();
        assert_ne!(first, other);
        now.store(START + AGE_S_MAX - 1, Ordering::SeqCst);
        assert_eq!(signer.authorization("https://a.example").unwrap(), first);
        now.store(START + AGE_S_MAX, Ordering::SeqCst);
        assert_ne!(signer.authorization("https://a.example").unwrap(), first);
        assert_eq!(signer.metrics.renewals.get(), 3);
    }

    #[test]
    fn many_messages_at_once_make_one_token() {
        let (signer, _) = signer(4);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| signer.authorization("https://a.example").unwrap());
            }
        });
        assert_eq!(signer.metrics.renewals.get(), 1);
    }

    #[test]
    fn passing_origins_do_not_fill_the_memory() {
        let (signer, _) = signer(4);
        for number in 0..64 {
            signer.authorization(&format!("https://{number}.example")).unwrap();
        }
        signer.tokens.run_pending_tasks();
        assert_eq!(signer.tokens.entry_count(), 4);
    }
}
