//! Provider tokens: who may push on this connection.
//!
//! In: the `authorization` header. Out: the token, or Apple's reason against it. A token is
//! RFC 7515 ES256 with header `alg`, `kid` (and `typ`) and claims `iss`, `iat` alone. One
//! connection takes keys of one identifier, and a new token at most every 20 minutes (between
//! arrivals or between `iat`s, whichever is longer, so that a connection opened late in a token's
//! life is not blamed). Source: Apple, "Establishing a token-based connection to APNs".

use std::sync::Mutex;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::super::jws::{Jws, Verified};
use super::super::lock;
use super::super::script::Answer;
use super::{Environment, RegisteredKey, error};

/// Checks provider tokens against the registered keys.
pub(crate) struct Authority {
    environment: Environment,
    keys: Vec<RegisteredKey>,
    verified: Verified<ProviderToken>,
}

/// What a connection is bound to.
pub(crate) struct Binding {
    certificate_topic: Option<String>,
    state: Mutex<State>,
}

struct ProviderToken {
    key_id: String,
    issued_s: i64,
    is_foreign: bool,
}

#[derive(Default)]
struct State {
    bound: Option<Bound>,
    is_open: bool,
}

struct Bound {
    key_id: String,
    token: String,
    issued_s: i64,
    since_s: i64,
}

const TOKEN_AGE_MAX_S: i64 = 3600;
const TOKEN_CHANGE_MIN_S: i64 = 1200;

impl Authority {
    pub(crate) fn new(environment: Environment, keys: Vec<RegisteredKey>) -> Authority {
        Authority { environment, keys, verified: Verified::new() }
    }

    /// Gives the provider token of a request that may push on this connection.
    pub(crate) fn check<'a>(
        &self,
        binding: &Binding,
        headers: &'a HeaderMap,
        now_s: i64,
    ) -> Result<&'a str, Answer> {
        let value = headers.get(AUTHORIZATION).ok_or_else(|| error(403, "MissingProviderToken"))?;
        let value = value.to_str().map_err(|_| error(403, "InvalidProviderToken"))?;
        let (scheme, token) =
            value.split_once(' ').ok_or_else(|| error(403, "InvalidProviderToken"))?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(error(403, "MissingProviderToken"));
        }
        let provider = self.verified.claims(token, || {
            self.verify(token).ok_or_else(|| error(403, "InvalidProviderToken"))
        })?;
        if provider.is_foreign {
            // Documented as BadEnvironmentKeyIdInToken; this is what the wire shows.
            return Err(error(403, "BadEnvironmentKeyInToken"));
        }
        if (now_s - provider.issued_s).abs() > TOKEN_AGE_MAX_S {
            return Err(error(403, "ExpiredProviderToken"));
        }
        binding.bind(&provider, token, now_s)?;
        Ok(token)
    }

    fn verify(&self, token: &str) -> Option<ProviderToken> {
        let jws = Jws::parse(token)?;
        let key_id = jws.header.get("kid")?.as_str()?;
        let key = self.keys.iter().find(|key| key.key_id == key_id)?;
        let only_known = jws.claims.keys().all(|claim| matches!(claim.as_str(), "iss" | "iat"));
        let is_good = jws.is_plain("ES256")
            && only_known
            && jws.text("iss") == Some(key.team_id.as_str())
            && jws.verify_es256(&key.public_key);
        is_good.then_some(ProviderToken {
            key_id: key_id.to_owned(),
            issued_s: jws.seconds("iat")?,
            is_foreign: key.environment.is_some_and(|own| own != self.environment),
        })
    }
}

impl Binding {
    pub(crate) fn new(certificate_topic: Option<String>) -> Binding {
        Binding { certificate_topic, state: Mutex::default() }
    }

    /// The bundle identifier of the client certificate, if there is one.
    pub(crate) fn certificate_topic(&self) -> Option<&String> {
        self.certificate_topic.as_ref()
    }

    /// True once: when a valid provider token has been seen and the limit was not raised yet.
    pub(crate) fn open_up(&self) -> bool {
        let state = &mut *lock(&self.state);
        state.bound.is_some() && !std::mem::replace(&mut state.is_open, true)
    }

    fn bind(&self, provider: &ProviderToken, token: &str, now_s: i64) -> Result<(), Answer> {
        let state = &mut *lock(&self.state);
        if let Some(bound) = &state.bound {
            if bound.key_id != provider.key_id {
                return Err(error(403, "UnrelatedKeyIdInToken"));
            }
            if bound.token == token {
                return Ok(());
            }
            let apart_s = (now_s - bound.since_s).max(provider.issued_s - bound.issued_s);
            if apart_s < TOKEN_CHANGE_MIN_S {
                return Err(error(429, "TooManyProviderTokenUpdates"));
            }
        }
        state.bound = Some(Bound {
            key_id: provider.key_id.clone(),
            token: token.to_owned(),
            issued_s: provider.issued_s,
            since_s: now_s,
        });
        Ok(())
    }
}
