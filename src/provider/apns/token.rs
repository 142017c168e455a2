//! Apple's provider token: one for each key, shared by every message, connection and app under it.
//!
//! In: a `.p8` key with its two names. Out: the header `authorization`, ready made.
//! ECDSA is randomized, so signing again makes a new token even in the same second: only one
//! renewer signs, and never sooner than 20 minutes after the last time (429
//! `TooManyProviderTokenUpdates`).
//! Source: Apple, "Establishing a token-based connection to APNs".

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use http::HeaderValue;
use serde_json::json;

use crate::clock::Clock;
use crate::config::Secret;
use crate::provider::jwt::{Es256Key, KeyError};
use crate::provider::{CredentialVersion, RenewalMetrics};

/// Signs the tokens of one key.
pub struct TokenSource {
    key: Es256Key,
    key_id: String,
    team_id: String,
    clock: Clock,
    metrics: RenewalMetrics,
    current: ArcSwap<Token>,
    renewer: Mutex<()>,
}

/// A token in its header.
pub struct Token {
    authorization: HeaderValue,
    version: CredentialVersion,
    issued_at_unix_s: u64,
}

/// Apple takes a token for an hour; another one is made well before.
const AGE_S_MAX: u64 = 45 * 60;

/// Apple refuses a sender that makes another token sooner.
const AGE_S_MIN: u64 = 20 * 60;

/// A token from further ahead than this was signed before the clock was set back: Apple refuses it.
const SKEW_S_MAX: u64 = 60;

// === impl TokenSource ===

impl TokenSource {
    /// Reads a key and signs a first token, so that there always is one.
    /// Errors: [`KeyError`].
    pub fn new(
        key_pem: &Secret<String>,
        key_id: &str,
        team_id: &str,
        clock: Clock,
        metrics: RenewalMetrics,
    ) -> Result<Self, KeyError> {
        let key = Es256Key::from_pem(key_pem)?;
        let first = Token::sign(&key, key_id, team_id, clock.unix_s(), CredentialVersion::FIRST)?;
        metrics.renewals.inc();
        Ok(Self {
            key,
            key_id: key_id.to_owned(),
            team_id: team_id.to_owned(),
            clock,
            metrics,
            current: ArcSwap::from_pointee(first),
            renewer: Mutex::new(()),
        })
    }

    /// Gives the token of this moment, renewed when its time has come.
    pub fn current(&self) -> Arc<Token> {
        let token = self.current.load_full();
        if !token.is_older_than(AGE_S_MAX, self.clock.unix_s()) {
            return token;
        }
        self.replace(&token, AGE_S_MAX);
        self.current.load_full()
    }

    /// Replaces the token that Apple refused, if Apple allows another one by now.
    /// True when the token is no longer the one that was `seen`.
    pub fn renew(&self, seen: CredentialVersion) -> bool {
        let token = self.current.load_full();
        if token.version == seen {
            self.replace(&token, AGE_S_MIN);
        }
        self.current.load().version != seen
    }

    /// Whoever waited for the renewer finds another version, and signs nothing.
    fn replace(&self, old: &Token, age_s: u64) {
        let _renewer = self.renewer.lock().unwrap_or_else(PoisonError::into_inner);
        let now_unix_s = self.clock.unix_s();
        if self.current.load().version != old.version || !old.is_older_than(age_s, now_unix_s) {
            return;
        }
        let version = old.version.next();
        match Token::sign(&self.key, &self.key_id, &self.team_id, now_unix_s, version) {
            Ok(token) => {
                self.current.store(Arc::new(token));
                self.metrics.renewals.inc();
            }
            Err(_) => self.metrics.failures.inc(),
        }
    }
}

// === impl Token ===

impl Token {
    /// Gives the header; it is marked sensitive, so that no connection remembers it in its tables.
    pub const fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    /// Gives the version, for [`TokenSource::renew`].
    pub const fn version(&self) -> CredentialVersion {
        self.version
    }

    fn sign(
        key: &Es256Key,
        key_id: &str,
        team_id: &str,
        now_unix_s: u64,
        version: CredentialVersion,
    ) -> Result<Self, KeyError> {
        let header = json!({ "alg": "ES256", "kid": key_id });
        let claims = json!({ "iss": team_id, "iat": now_unix_s });
        let text = format!("bearer {}", key.sign(&header, &claims)?);
        let mut authorization = HeaderValue::try_from(text).map_err(|_| KeyError::Signing)?;
        authorization.set_sensitive(true);
        Ok(Self { authorization, version, issued_at_unix_s: now_unix_s })
    }

    const fn is_older_than(&self, age_s: u64, now_unix_s: u64) -> bool {
        now_unix_s.saturating_sub(self.issued_at_unix_s) >= age_s
            || self.issued_at_unix_s > now_unix_s.saturating_add(SKEW_S_MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::provider::jwt::tests::{p256_pem, verify_es256};
    use crate::provider::tests::renewal_metrics;

    const START: u64 = 1_700_000_000;

    fn source() -> (TokenSource, Arc<AtomicU64>, String) {
        let now = Arc::new(AtomicU64::new(START));
        let clock = Arc::clone(&now);
        let clock = Clock::from_fn(move || clock.load(Ordering::SeqCst) * 1000);
        let pem = p256_pem();
        let point = Es256Key::from_pem(&pem).ok().unwrap().public_point();
        let source = TokenSource::new(&pem, "KEYKEYKEY1", "TEAMTEAM01", clock, renewal_metrics());
        (source.ok().unwrap(), now, point)
    }

    fn text(token: &Token) -> String {
        token.authorization().to_str().unwrap().to_owned()
    }

    #[test]
    fn a_token_has_apples_form_and_verifies() {
        let (source, _, point) = source();
        let token = source.current();
        assert!(token.authorization().is_sensitive());
        let text = text(&token);
        let (header, claims) = verify_es256(text.strip_prefix("bearer ").unwrap(), &point);
        assert_eq!(header, json!({"alg": "ES256", "kid": "KEYKEYKEY1"}));
        assert_eq!(claims, json!({"iss": "TEAMTEAM01", "iat": START}));
    }

    #[test]
    fn a_token_lives_forty_five_minutes() {
        let (source, now, point) = source();
        let first = text(&source.current());
        now.store(START + AGE_S_MAX - 1, Ordering::SeqCst);
        assert_eq!(text(&source.current()), first);
        now.store(START + AGE_S_MAX, Ordering::SeqCst);
        let second = text(&source.current());
        assert_ne!(second, first);
        let (_, claims) = verify_es256(second.strip_prefix("bearer ").unwrap(), &point);
        assert_eq!(claims["iat"], START + AGE_S_MAX);
        assert_eq!(source.metrics.renewals.get(), 2);
    }

    #[test]
    fn a_refused_token_is_replaced_after_twenty_minutes_and_not_before() {
        let (source, now, _) = source();
        let seen = source.current().version();
        now.store(START + AGE_S_MIN - 1, Ordering::SeqCst);
        assert!(!source.renew(seen));
        now.store(START + AGE_S_MIN, Ordering::SeqCst);
        assert!(source.renew(seen));
        // Another message that was refused with the same token gets the new one, and signs nothing.
        assert!(source.renew(seen));
        assert!(!source.renew(source.current().version()));
        assert_eq!(source.metrics.renewals.get(), 2);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_keep_a_token_from_the_future() {
        let (source, now, _) = source();
        let seen = source.current().version();
        now.store(START - SKEW_S_MAX, Ordering::SeqCst);
        assert_eq!(source.current().version(), seen);
        now.store(START - SKEW_S_MAX - 1, Ordering::SeqCst);
        assert_ne!(source.current().version(), seen);
    }

    #[test]
    fn many_senders_at_once_make_one_renewal() {
        let (source, now, _) = source();
        now.store(START + AGE_S_MAX, Ordering::SeqCst);
        let seen = source.current.load().version;
        let tokens: HashSet<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|turn| {
                    let source = &source;
                    scope.spawn(move || {
                        if turn % 2 == 0 {
                            assert!(source.renew(seen));
                        }
                        text(&source.current())
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(tokens.len(), 1);
        assert_eq!(source.metrics.renewals.get(), 2);
    }
}
