//! The push services: one attempt to deliver one message, and what became of it.
//!
//! In: a [`Route`] (proof that the app has credentials and that the message fits) and a deadline.
//! Out: an [`Attempt`] with an [`Outcome`], whatever happens: nothing here gives back an error.
//! A provider makes one request. It never retries and never stores; the corridor decides what comes
//! next. Each `answer` room is the one that knows a vendor's words.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, header};
use prometheus::IntCounter;
use tokio::time::Instant;

use crate::config::{self, ServiceUrl};
use crate::outcome::{Code, Outcome};
use crate::push::Class;
use crate::route::Route;

pub mod upstream;

mod hold;

pub mod tls;

pub mod jwt;

pub mod apns;

pub mod fcm;

pub mod webpush;

pub mod email;

use upstream::{
    AddressGuard, BreakerMetrics, Egress, Limits, Names, Origin, Pool, PoolMetrics, Post, SendError,
};

/// One push service for one app.
pub trait Provider {
    /// Makes one attempt; it ends by `deadline`.
    fn send(&self, route: &Route, deadline: Instant) -> impl Future<Output = Attempt> + Send;

    /// Replaces the credential that `spent` was made with, unless somebody has done so already.
    /// True when another one is there now; false when a new attempt would meet the same fate.
    fn renew_credential(
        &self,
        spent: &Attempt,
        deadline: Instant,
    ) -> impl Future<Output = bool> + Send;

    /// Dials and fetches in advance, so that the first message does not wait for it. It ends when
    /// that is done or has failed, and by `deadline`.
    fn warm(&self, deadline: Instant) -> impl Future<Output = ()> + Send;
}

/// The push services that there are.
pub enum AnyProvider {
    /// Apple's, in one environment.
    Apns(apns::Apns),
    /// Google's.
    Fcm(fcm::Fcm),
    /// The browsers'.
    WebPush(webpush::WebPush),
    /// The operator's SMTP server.
    Email(email::Email),
}

/// What one attempt came to.
#[derive(Debug)]
pub struct Attempt {
    /// What became of the message.
    pub outcome: Outcome,
    /// The push service's part of the time; none when it gave no answer.
    pub upstream: Option<Duration>,
    /// Which credential it was made with, for [`Provider::renew_credential`].
    credential: Option<CredentialVersion>,
}

/// Counts up with every renewal of a credential, so that a late answer cannot renew a fresh one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CredentialVersion(u64);

/// What every connection pool of one push service is made with.
#[derive(Clone)]
pub struct Dialling {
    /// Who may certify the push service.
    pub roots: tls::Roots,
    /// The limits of each pool.
    pub limits: Limits,
    /// The way out; none dials directly.
    pub proxy: Option<Arc<config::Proxy>>,
    /// How often a refused credential is tried again.
    pub credential_probe: Duration,
    /// Where the pools count.
    pub metrics: Arc<PoolMetrics>,
    /// Where the holds of refused credentials are counted.
    pub holds: Arc<BreakerMetrics>,
}

/// Where renewals of a credential are counted.
#[derive(Debug, Clone)]
pub struct RenewalMetrics {
    /// Credentials made or fetched.
    pub renewals: IntCounter,
    /// Renewals that failed.
    pub failures: IntCounter,
}

/// Why a provider cannot be set up: always the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The signing key.
    #[error("the signing key cannot be used")]
    Key(#[from] jwt::KeyError),
    /// The client certificate or the roots.
    #[error("TLS cannot be set up")]
    Tls(#[from] tls::TlsError),
    /// The roots or the name of the SMTP server.
    #[error("TLS to the SMTP server cannot be set up")]
    MailTls(#[source] lettre::transport::smtp::Error),
    /// The push service's URL.
    #[error("the push service's host is not a name or an address")]
    Origin(#[from] upstream::OriginError),
    /// The topic, the project, or the token endpoint's path.
    #[error("{0} has characters that cannot stand in a request")]
    Text(&'static str),
}

/// A sender waits this long when our own queue is full.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// Bounds of what a push service may ask a sender to wait.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);

// === impl AnyProvider ===

impl Provider for AnyProvider {
    async fn send(&self, route: &Route, deadline: Instant) -> Attempt {
        match self {
            Self::Apns(apns) => apns.send(route, deadline).await,
            Self::Fcm(fcm) => fcm.send(route, deadline).await,
            Self::WebPush(webpush) => webpush.send(route, deadline).await,
            // The largest by far and the rarest: the others need not have room for it.
            Self::Email(email) => Box::pin(email.send(route, deadline)).await,
        }
    }

    async fn renew_credential(&self, spent: &Attempt, deadline: Instant) -> bool {
        match self {
            Self::Apns(apns) => apns.renew_credential(spent, deadline).await,
            Self::Fcm(fcm) => fcm.renew_credential(spent, deadline).await,
            Self::WebPush(webpush) => webpush.renew_credential(spent, deadline).await,
            Self::Email(email) => email.renew_credential(spent, deadline).await,
        }
    }

    async fn warm(&self, deadline: Instant) {
        match self {
            Self::Apns(apns) => apns.warm(deadline).await,
            Self::Fcm(fcm) => fcm.warm(deadline).await,
            Self::WebPush(webpush) => webpush.warm(deadline).await,
            Self::Email(email) => email.warm(deadline).await,
        }
    }
}

// === impl Attempt ===

impl Attempt {
    /// Settles before anything was sent.
    fn unsent(outcome: Outcome) -> Self {
        Self { outcome, upstream: None, credential: None }
    }

    /// A message came to a push service that is not its own, or made no well-formed request.
    fn impossible() -> Self {
        Self::unsent(Outcome::Misconfigured { code: Code::InternalFault })
    }

    /// Sends a request and reads its answer with `read`.
    async fn of_http(
        pool: &Pool,
        post: &Post<'_>,
        class: Class,
        credential: Option<CredentialVersion>,
        deadline: Instant,
        read: impl FnOnce(&upstream::Answer) -> Outcome,
    ) -> Self {
        match pool.send(post, class, deadline).await {
            Ok(answer) => {
                Self { outcome: read(&answer), upstream: Some(answer.elapsed), credential }
            }
            Err(error) => Self { outcome: outcome_of(error), upstream: None, credential },
        }
    }
}

// === impl CredentialVersion ===

impl CredentialVersion {
    const FIRST: Self = Self(1);

    const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

// === impl Dialling ===

impl Dialling {
    /// Makes a pool that dials one of the operator's own URLs.
    fn pool(&self, url: &ServiceUrl, tls: rustls::ClientConfig) -> Result<Arc<Pool>, SetupError> {
        let origin = Origin::new(&url.host, url.port)?;
        let (egress, metrics) = (self.egress(AddressGuard::Any), Arc::clone(&self.metrics));
        Ok(Pool::new(origin, Arc::new(tls), egress, self.limits.clone(), metrics))
    }

    fn egress(&self, guard: AddressGuard) -> Egress {
        Egress { guard, proxy: self.proxy.clone(), names: Names::System }
    }
}

/// Takes the limits of a pool from the configuration.
pub fn limits(upstream: &config::Upstream) -> Limits {
    let whole_ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Limits {
        connections_max: upstream.connections_max,
        prewarm_connections: upstream.prewarm,
        connection_age_s_max: upstream.connection_age_max.as_secs(),
        streams_per_connection_max: upstream.streams_per_connection_max,
        start_streams: upstream.streams_per_connection_max,
        waiting_max: upstream.waiting_max,
        waiting_ms_max: whole_ms(upstream.waiting),
        replays_max: upstream.replays_max,
        connect_ms: whole_ms(upstream.connect_timeout),
        idle_s: upstream.idle_timeout.as_secs(),
        ping_interval_s: upstream.ping_interval.as_secs(),
        ping_timeout_s: upstream.ping_timeout.as_secs(),
        wedge_ms: whole_ms(upstream.wedge),
        wedge_misses_max: upstream.wedge_misses_max,
        patience_ms: whole_ms(upstream.patience),
        backoff_ms_min: whole_ms(upstream.backoff_min),
        backoff_ms_max: whole_ms(upstream.backoff_max),
        breaker_failures: upstream.breaker_failures,
        breaker_failure_percent: upstream.breaker_failure_percent,
        breaker_open_ms_min: whole_ms(upstream.breaker_open_min),
        breaker_open_ms_max: whole_ms(upstream.breaker_open_max),
        adaptive_floor: upstream.adaptive_floor,
        answer_bytes_max: upstream.answer_bytes_max,
        http1_connections_max: upstream.http1_connections_max,
        ..Limits::default()
    }
}

/// Says what became of a message that got no answer.
fn outcome_of(error: SendError) -> Outcome {
    match error {
        SendError::Shed(_) => {
            Outcome::NotNow { code: Code::PushServiceBusy, retry_after: BUSY_WAIT }
        }
        SendError::NotSent(fault) => Outcome::NotNow {
            code: Code::PushServiceUnreachable,
            retry_after: fault.retry_after.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX),
        },
        SendError::Unknown => Outcome::Unknown { code: Code::NoAnswer },
    }
}

/// Reads the header `Retry-After`: seconds or a date; 1 second to 1 day.
/// Source: RFC 9110 §10.2.3.
fn retry_after(headers: &HeaderMap, now_unix_s: u64) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More than u64 holds is more than the bound.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        date.duration_since(UNIX_EPOCH + Duration::from_secs(now_unix_s)).unwrap_or(Duration::ZERO)
    };
    Some(wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests;
