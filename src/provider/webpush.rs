//! The browsers' push services: a route becomes one `POST` to the subscription's endpoint.
//!
//! The endpoint came from outside, so the guard looks at it before every send: only hosts that the
//! operator allows, only public addresses. Connections are shared by all apps, a pool for each
//! origin, a bounded number of them; what tells apps apart is the VAPID token. Redirects are
//! answers, never followed.
//! Sources: RFC 8030 §5, RFC 8291 §4, RFC 8292 §3.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderValue, header};
use tokio::time::Instant;

use crate::clock::Clock;
use crate::config::{self, AppWebPush};
use crate::outcome::{Code, Outcome, Refusal};
use crate::provider::upstream::{
    AddressGuard, Decimal, Egress, Fields, Keep, Limits, Names, Origin, Pool, PoolMetrics, Post,
};
use crate::provider::{Attempt, BUSY_WAIT, Dialling, Provider, RenewalMetrics, SetupError};
use crate::push::{Address, Endpoint};
use crate::route::Route;

pub mod address;

pub mod answer;

pub mod vapid;

use address::HostGuard;
use vapid::Signer;

/// The browsers' services for one app.
pub struct WebPush {
    pools: Arc<WebPushPools>,
    signer: Signer,
    clock: Clock,
}

/// The connections to all browsers' services, shared by the apps.
pub struct WebPushPools {
    guard: HostGuard,
    tls: Arc<rustls::ClientConfig>,
    proxy: Option<Arc<config::Proxy>>,
    limits: Limits,
    metrics: Arc<PoolMetrics>,
    origins_max: usize,
    open: Mutex<HashMap<String, Entry>>,
}

const TOPIC: &str = "topic";
const TTL: &str = "ttl";
const URGENCY: &str = "urgency";

struct Entry {
    pool: Arc<Pool>,
    used_at: Instant,
}

// === impl WebPush ===

impl WebPush {
    /// Makes a provider for an app's VAPID key.
    /// Errors: [`SetupError`].
    pub fn new(
        app: &AppWebPush,
        pools: Arc<WebPushPools>,
        clock: Clock,
        metrics: RenewalMetrics,
    ) -> Result<Self, SetupError> {
        let origins_max = pools.origins_max;
        let signer = Signer::new(app, origins_max, clock.clone(), metrics)?;
        Ok(Self { pools, signer, clock })
    }
}

impl Provider for WebPush {
    async fn send(&self, route: &Route, deadline: Instant) -> Attempt {
        let Address::WebPush { endpoint } = route.address() else {
            return Attempt::impossible();
        };
        let origin = endpoint.origin();
        let pool = match self.pools.pool(endpoint, &origin) {
            Ok(pool) => pool,
            Err(outcome) => return Attempt::unsent(outcome),
        };
        let Some(authorization) = self.signer.authorization(&origin) else {
            return Attempt::impossible();
        };
        let fields = |fields: &mut dyn Fields| put_fields(route, &authorization, fields);
        let (path, body) = (endpoint.path(), route.body().clone());
        let post = Post { path, body, fields: &fields };
        Attempt::of_http(&pool, &post, route.class(), None, deadline, |answer| {
            answer::read(answer.status, &answer.headers, &answer.body, self.clock.unix_s())
        })
        .await
    }

    /// A VAPID token lives half a day, and no service says that it has had enough of one.
    async fn renew_credential(&self, _spent: &Attempt, _deadline: Instant) -> bool {
        false
    }

    /// Which origins there will be, only the subscriptions know.
    async fn warm(&self, _deadline: Instant) {}
}

/// The token is the same for half a day; apps with keys of their own share the connection.
fn put_fields(route: &Route, authorization: &HeaderValue, fields: &mut dyn Fields) {
    let ttl = Decimal::of(u64::from(route.ttl_s()));
    fields.put(TTL, ttl.as_bytes(), Keep::Name);
    fields.put(URGENCY, route.urgency().label().as_bytes(), Keep::Field);
    fields.put(header::CONTENT_ENCODING.as_str(), b"aes128gcm", Keep::Field);
    fields.put(header::CONTENT_TYPE.as_str(), b"application/octet-stream", Keep::Field);
    fields.put(header::AUTHORIZATION.as_str(), authorization.as_bytes(), Keep::Field);
    if let Some(topic) = route.collapse_id() {
        fields.put(TOPIC, topic.as_bytes(), Keep::Name);
    }
}

// === impl WebPushPools ===

impl WebPushPools {
    /// Takes the allowed hosts and the bounds; nothing is dialled yet.
    /// Errors: [`SetupError::Tls`].
    pub fn new(config: &config::WebPush, dialling: &Dialling) -> Result<Self, SetupError> {
        Ok(Self {
            guard: HostGuard::new(&config.allow_hosts, &config.danger_allow_origins),
            tls: Arc::new(dialling.roots.client()?),
            proxy: dialling.proxy.clone(),
            limits: Limits { http1_allowed: true, ..dialling.limits.clone() },
            metrics: Arc::clone(&dialling.metrics),
            origins_max: config.origins_max.max(1),
            open: Mutex::new(HashMap::new()),
        })
    }

    /// Gives the guard, for the door where subscriptions come in.
    pub const fn guard(&self) -> &HostGuard {
        &self.guard
    }

    /// Gives the pool of an endpoint's origin, made where there is none.
    /// At the bound the one idle for longest makes room; when none is idle, it is not now.
    /// Errors: `endpoint_not_allowed`, `push_service_busy`.
    fn pool(&self, endpoint: &Endpoint, name: &str) -> Result<Arc<Pool>, Outcome> {
        let refuse = || Outcome::from(Refusal::new(Code::EndpointNotAllowed));
        let guard = self.guard.addresses_of(endpoint).ok_or_else(refuse)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = open.get_mut(name) {
            entry.used_at = Instant::now();
            return Ok(Arc::clone(&entry.pool));
        }
        if open.len() >= self.origins_max && !evict(&mut open) {
            return Err(busy(BUSY_WAIT));
        }
        let origin = Origin::new(endpoint.host(), endpoint.port()).map_err(|_| refuse())?;
        let pool = self.dial(origin, guard);
        let entry = Entry { pool: Arc::clone(&pool), used_at: Instant::now() };
        open.insert(name.to_owned(), entry);
        Ok(pool)
    }

    fn dial(&self, origin: Origin, guard: AddressGuard) -> Arc<Pool> {
        let (tls, metrics) = (Arc::clone(&self.tls), Arc::clone(&self.metrics));
        let egress = Egress { guard, proxy: self.proxy.clone(), names: Names::System };
        Pool::new(origin, tls, egress, self.limits.clone(), metrics)
    }
}

const fn busy(retry_after: Duration) -> Outcome {
    Outcome::NotNow { code: Code::PushServiceBusy, retry_after }
}

/// Closes the pool that was used least lately, of those that no message holds.
fn evict(open: &mut HashMap<String, Entry>) -> bool {
    let idle = open.iter().filter(|(_, entry)| Arc::strong_count(&entry.pool) == 1);
    let oldest = idle.min_by_key(|(_, entry)| entry.used_at).map(|(name, _)| name.clone());
    oldest.is_some_and(|name| open.remove(&name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::tests::{bare_tls, pool_metrics};

    fn pools(origins_max: usize) -> WebPushPools {
        WebPushPools {
            guard: HostGuard::new(&[".example".to_owned()], &[]),
            tls: Arc::new(bare_tls()),
            proxy: None,
            limits: Limits::default(),
            metrics: pool_metrics(),
            origins_max,
            open: Mutex::new(HashMap::new()),
        }
    }

    fn pool(pools: &WebPushPools, url: &str) -> Result<Arc<Pool>, Outcome> {
        let endpoint = Endpoint::parse(url).ok().unwrap();
        pools.pool(&endpoint, &endpoint.origin())
    }

    #[tokio::test(start_paused = true)]
    async fn origins_share_pools_and_the_idle_one_makes_room() {
        let pools = pools(2);
        let a = pool(&pools, "https://a.example/1").unwrap();
        assert!(Arc::ptr_eq(&a, &pool(&pools, "https://a.example/2").unwrap()));
        tokio::time::advance(Duration::from_secs(1)).await;
        let b = Arc::downgrade(&pool(&pools, "https://b.example/").unwrap());
        // Both are full of messages: a third origin has to wait.
        let held = b.upgrade();
        assert_eq!(pool(&pools, "https://c.example/").err(), Some(busy(BUSY_WAIT)));
        // `a` was used before `b`, but a message holds it.
        drop(held);
        assert!(pool(&pools, "https://c.example/").is_ok());
        assert!(b.upgrade().is_none());
        assert!(Arc::ptr_eq(&a, &pool(&pools, "https://a.example/").unwrap()));
    }

    #[tokio::test]
    async fn a_foreign_host_gets_no_pool() {
        let pools = pools(2);
        let refused = Outcome::from(Refusal::new(Code::EndpointNotAllowed));
        for url in ["https://a.test/", "https://a.example:8443/", "https://example/"] {
            assert_eq!(pool(&pools, url).err(), Some(refused.clone()), "{url}");
        }
        assert!(pools.open.lock().unwrap().is_empty());
    }
}
