//! Google's access token: one for each service account, fetched by one task at a time.
//!
//! In: a service account's key. Out: the header `authorization`, or the outcome of a message for
//! want of one. A token is fetched again at three quarters of its life, in the background; whoever
//! comes meanwhile uses the old one. Without one, all wait for the one fetch, each to its deadline.
//! A failed fetch is remembered for a while, so that a storm of messages makes no storm of fetches.
//! Source: RFC 7523 §2.1 and §4; Google, "Using OAuth 2.0 for server to server applications".

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use crate::clock::Clock;
use crate::config::AppFcm;
use crate::outcome::{Code, Outcome};
use crate::provider::jwt::Rs256Key;
use crate::provider::upstream::{Fields, Keep, Limits, Pool, Post, SendError};
use crate::provider::{CredentialVersion, Dialling, RenewalMetrics, SetupError};
use crate::push::Class;

/// Fetches the tokens of one service account.
pub struct TokenSource {
    shared: Arc<Shared>,
}

/// An access token in its header.
pub struct Token {
    authorization: HeaderValue,
    version: CredentialVersion,
    renewed_at: Instant,
    ends_at: Instant,
}

struct Shared {
    key: Rs256Key,
    key_id: String,
    client_email: String,
    /// What the grant is addressed to.
    audience: String,
    path: PathAndQuery,
    pool: Arc<Pool>,
    clock: Clock,
    metrics: RenewalMetrics,
    /// The state, its lock, and the bell that waiting messages hear.
    state: watch::Sender<State>,
}

struct State {
    token: Option<Arc<Token>>,
    version: CredentialVersion,
    fetching: bool,
    fault: Option<Fault>,
    /// Failed fetches in a row.
    failures: u32,
    /// When a refused token was last thrown away before its time.
    discarded_at: Option<Instant>,
}

/// Why the last fetch failed, and until when nobody tries again.
#[derive(Clone, Copy)]
struct Fault {
    kind: FaultKind,
    until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FaultKind {
    /// Google knows the account and says no, or the key does not sign: the operator's to mend.
    Refused,
    /// No answer, or one that blames itself.
    Unavailable,
}

#[derive(Deserialize)]
struct Grant {
    access_token: String,
    expires_in: Option<u64>,
}

const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Life of the signed grant, in seconds: what Google takes at most.
const GRANT_LIFE_S: u64 = 3600;

/// Google's tokens live an hour; an answer that does not say so is taken to mean it.
const LIFE_S_DEFAULT: u64 = 3600;
const LIFE_S_MAX: u64 = 86_400;

/// One task's tries, and the time for all of them.
const TRIES_MAX: u32 = 3;
const TRIES_PAUSE: Duration = Duration::from_millis(250);
const FETCH_TIME_MAX: Duration = Duration::from_secs(15);

/// How long a failure is remembered: doubled with each, never more than the last.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);
const UNAVAILABLE_PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// A refused token is thrown away once in this time: a service that refuses each one is not fed.
const DISCARD_INTERVAL: Duration = Duration::from_secs(60);

// === impl TokenSource ===

impl TokenSource {
    /// Reads the account's key; nothing is fetched yet. Must be called within a tokio runtime.
    /// Errors: [`SetupError`].
    pub fn new(
        app: &AppFcm,
        dialling: &Dialling,
        clock: Clock,
        metrics: RenewalMetrics,
    ) -> Result<Self, SetupError> {
        // One request an hour: one connection is plenty, of whichever HTTP the endpoint speaks.
        let limits = Limits {
            connections_max: 1,
            http1_allowed: true,
            http1_connections_max: 1,
            ..dialling.limits.clone()
        };
        let dialling = Dialling { limits, ..dialling.clone() };
        let pool = dialling.pool(&app.token_url, dialling.roots.client()?)?;
        Self::over(app, pool, clock, metrics)
    }

    fn over(
        app: &AppFcm,
        pool: Arc<Pool>,
        clock: Clock,
        metrics: RenewalMetrics,
    ) -> Result<Self, SetupError> {
        let path = PathAndQuery::try_from(app.token_path.as_str());
        let shared = Shared {
            key: Rs256Key::from_pem(&app.private_key_pem)?,
            key_id: app.private_key_id.clone(),
            client_email: app.client_email.clone(),
            audience: app.token_uri.clone(),
            path: path.map_err(|_| SetupError::Text("the token endpoint's path"))?,
            pool,
            clock,
            metrics,
            state: watch::Sender::new(State::new()),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Gives the token of this moment, and waits for one where there is none.
    /// Errors: `oauth_refused`, `oauth_unavailable`.
    pub async fn current(&self, deadline: Instant) -> Result<Arc<Token>, Outcome> {
        let mut states = self.shared.state.subscribe();
        loop {
            let now = Instant::now();
            let token = states.borrow_and_update().usable(now);
            if token.as_ref().is_none_or(|token| token.renewed_at <= now) {
                self.start_fetch(now);
            }
            if let Some(token) = token {
                return Ok(token);
            }
            if let Some(fault) = states.borrow().fault {
                return Err(fault.outcome(now));
            }
            // The sender of the state lives in `self`, so only the deadline ends this in vain.
            if timeout_at(deadline, states.changed()).await.is_err() {
                return Err(unavailable(UNAVAILABLE_PAUSE));
            }
        }
    }

    /// Throws away a token that Google refused, unless it is gone already, and waits for the next.
    /// True when another token is there now.
    pub async fn renew(&self, seen: CredentialVersion, deadline: Instant) -> bool {
        let now = Instant::now();
        self.shared.state.send_if_modified(|state| state.discard(seen, now));
        let token = self.current(deadline).await;
        token.is_ok_and(|token| token.version != seen)
    }

    /// The task outlives the message that started it: others wait for it too.
    fn start_fetch(&self, now: Instant) {
        if self.shared.state.send_if_modified(|state| state.begin(now)) {
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move { shared.fetch().await });
        }
    }
}

// === impl Shared ===

impl Shared {
    async fn fetch(&self) {
        let deadline = Instant::now() + FETCH_TIME_MAX;
        let mut result = self.try_once(deadline).await;
        for turn in 0..TRIES_MAX - 1 {
            if !matches!(result, Err(FaultKind::Unavailable)) {
                break;
            }
            sleep(TRIES_PAUSE * 2_u32.pow(turn)).await;
            result = self.try_once(deadline).await;
        }
        match result {
            Ok(_) => self.metrics.renewals.inc(),
            Err(_) => self.metrics.failures.inc(),
        }
        let now = Instant::now();
        self.state.send_modify(|state| match result {
            Ok((authorization, life)) => state.succeed(authorization, life, now),
            Err(kind) => state.fail(kind, now),
        });
    }

    async fn try_once(&self, deadline: Instant) -> Result<(HeaderValue, Duration), FaultKind> {
        let asked_at = Instant::now();
        let body = self.form().ok_or(FaultKind::Refused)?;
        let post = Post { path: self.path.as_str(), body, fields: &put_fields };
        // The highest: messages of every class wait for it.
        let answer = match self.pool.send(&post, Class::Alarm, deadline).await {
            Ok(answer) => answer,
            Err(SendError::Shed(_) | SendError::NotSent(_) | SendError::Unknown) => {
                return Err(FaultKind::Unavailable);
            }
        };
        if answer.status.is_success() && answer.complete {
            let (authorization, life) = parse(&answer.body).ok_or(FaultKind::Unavailable)?;
            return Ok((authorization, life.saturating_sub(asked_at.elapsed())));
        }
        match answer.status.as_u16() {
            408 | 429 => Err(FaultKind::Unavailable),
            // `invalid_grant` and its like: a wrong clock, a deleted key, a wrong endpoint.
            300..=499 => Err(FaultKind::Refused),
            _ => Err(FaultKind::Unavailable),
        }
    }

    fn form(&self) -> Option<Bytes> {
        let now_unix_s = self.clock.unix_s();
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": self.key_id });
        let claims = json!({
            "iss": self.client_email,
            "scope": SCOPE,
            "aud": self.audience,
            "iat": now_unix_s,
            "exp": now_unix_s + GRANT_LIFE_S,
        });
        let assertion = self.key.sign(&header, &claims).ok()?;
        // Colons are the only characters here that a form must escape.
        let grant_type = GRANT_TYPE.replace(':', "%3A");
        Some(Bytes::from(format!("grant_type={grant_type}&assertion={assertion}")))
    }
}

fn put_fields(fields: &mut dyn Fields) {
    fields.put(header::CONTENT_TYPE.as_str(), b"application/x-www-form-urlencoded", Keep::Field);
}

/// Reads `{"access_token": "…", "expires_in": <s>, …}`.
fn parse(body: &[u8]) -> Option<(HeaderValue, Duration)> {
    let grant: Grant = serde_json::from_slice(body).ok()?;
    let life_s = grant.expires_in.unwrap_or(LIFE_S_DEFAULT).min(LIFE_S_MAX);
    if grant.access_token.is_empty() || life_s == 0 {
        return None;
    }
    let mut authorization = HeaderValue::try_from(format!("Bearer {}", grant.access_token)).ok()?;
    authorization.set_sensitive(true);
    Some((authorization, Duration::from_secs(life_s)))
}

fn unavailable(retry_after: Duration) -> Outcome {
    Outcome::NotNow { code: Code::OauthUnavailable, retry_after }
}

/// A number from 0 to 1, so that replicas which began together do not go on together.
fn jitter() -> f64 {
    let mut byte = [0; 1];
    // Without randomness there is no jitter, and no harm.
    let filled = aws_lc_rs::rand::fill(&mut byte).is_ok();
    if filled { f64::from(byte[0]) / 255.0 } else { 0.0 }
}

// === impl State ===

impl State {
    const fn new() -> Self {
        Self {
            token: None,
            version: CredentialVersion::FIRST,
            fetching: false,
            fault: None,
            failures: 0,
            discarded_at: None,
        }
    }

    fn usable(&self, now: Instant) -> Option<Arc<Token>> {
        self.token.as_ref().filter(|token| now < token.ends_at).cloned()
    }

    /// True when the caller is the one who fetches.
    fn begin(&mut self, now: Instant) -> bool {
        // Looked at once more, because a fetch may have ended since the caller looked.
        let fresh = self.usable(now).is_some_and(|token| now < token.renewed_at);
        let waits = self.fault.is_some_and(|fault| now < fault.until);
        if fresh || waits || self.fetching {
            return false;
        }
        self.fetching = true;
        self.fault = None;
        true
    }

    fn succeed(&mut self, authorization: HeaderValue, life: Duration, now: Instant) {
        // The last twentieth is for the message's own way; the renewal comes between 70 and 75 %.
        self.token = Some(Arc::new(Token {
            authorization,
            version: self.version,
            renewed_at: now + life.mul_f64(0.75 - 0.05 * jitter()),
            ends_at: now + life.mul_f64(0.95),
        }));
        self.version = self.version.next();
        self.fetching = false;
        self.fault = None;
        self.failures = 0;
    }

    fn fail(&mut self, kind: FaultKind, now: Instant) {
        let first = match kind {
            FaultKind::Refused => REFUSED_PAUSE,
            FaultKind::Unavailable => UNAVAILABLE_PAUSE,
        };
        let pause = (first * 2_u32.pow(self.failures.min(6))).min(PAUSE_MAX);
        self.fault = Some(Fault { kind, until: now + pause.mul_f64(1.0 + 0.1 * jitter()) });
        self.failures = self.failures.saturating_add(1);
        self.fetching = false;
    }

    fn discard(&mut self, seen: CredentialVersion, now: Instant) -> bool {
        let lately = self.discarded_at.is_some_and(|then| now < then + DISCARD_INTERVAL);
        let same = self.token.as_ref().is_some_and(|token| token.version == seen);
        if !same || lately {
            return false;
        }
        self.token = None;
        self.discarded_at = Some(now);
        true
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
}

// === impl Fault ===

impl Fault {
    fn outcome(self, now: Instant) -> Outcome {
        match self.kind {
            FaultKind::Refused => Outcome::Misconfigured { code: Code::OauthRefused },
            FaultKind::Unavailable => {
                let left = self.until.saturating_duration_since(now);
                unavailable(left.max(UNAVAILABLE_PAUSE))
            }
        }
    }
}

#[cfg(test)]
mod tests;
