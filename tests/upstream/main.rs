//! The connection pools against peers that a test controls frame by frame, over real TLS.

#![expect(clippy::unwrap_used, reason = "a test may fail that way")]

mod faults;
mod goaway;
mod limits;
mod liveness;
mod peer;
mod pressure;
mod proxies;
mod queue;
mod random;
mod replacement;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus::{IntCounter, IntGauge};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::RootCertStore;
use rustls_pki_types::PrivateKeyDer;
use sns_relay::provider::upstream::{
    AddressGuard, Answer, BreakerMetrics, Counters, Egress, Fields, Label, Limits, Origin, Pool,
    PoolMetrics, Post, SendError,
};
use sns_relay::push::Class;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use peer::{Peer, Reply, Script, Seen};

/// A pool, the peer it talks to, and what it counts.
struct Rig {
    pool: Arc<Pool>,
    peer: Peer,
    metrics: Arc<PoolMetrics>,
}

/// A certificate for "localhost" and both ends' configuration.
struct Certified {
    client: Arc<rustls::ClientConfig>,
    key: CertifiedKey<rcgen::KeyPair>,
}

impl Rig {
    async fn start(
        limits: Limits,
        max_streams: u32,
        script: impl Fn(&Seen, u64) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let certified = Certified::new();
        let script: Box<Script> = Box::new(script);
        let peer = Peer::start(certified.acceptor(&["h2"]), max_streams, script).await;
        let metrics = metrics();
        let pool = pool(peer.port, certified.client, AddressGuard::Any, limits, &metrics);
        Self { pool, peer, metrics }
    }

    /// Sends requests 0..count at once and collects what came of each.
    async fn burst(&self, count: u64, deadline_s: u64) -> Vec<(u64, Result<Answer, SendError>)> {
        let mut sends = JoinSet::new();
        for number in 0..count {
            let pool = self.pool.clone();
            sends.spawn(async move { (number, send(&pool, number, deadline_s * 1_000).await) });
        }
        sends.join_all().await
    }

    /// Asserts that the pool comes to rest with nothing in use and nothing waiting.
    async fn assert_rest(&self) {
        let rest = || {
            let status = self.pool.status();
            status.streams_in_use == 0 && status.waiting == 0
        };
        eventually("no stream in use, nobody waiting", rest).await;
        assert_eq!(self.metrics.streams_in_use.get(), 0);
        assert_eq!(self.metrics.waiting.get(), 0);
    }
}

impl Certified {
    fn new() -> Self {
        let key = generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(key.cert.der().clone()).unwrap();
        let client =
            rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        Self { client: Arc::new(client), key }
    }

    fn acceptor(&self, alpn: &[&str]) -> TlsAcceptor {
        let chain = vec![self.key.cert.der().clone()];
        let secret = PrivateKeyDer::try_from(self.key.signing_key.serialize_der()).unwrap();
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, secret)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

fn pool(
    port: u16,
    tls: Arc<rustls::ClientConfig>,
    guard: AddressGuard,
    limits: Limits,
    metrics: &Arc<PoolMetrics>,
) -> Arc<Pool> {
    let origin = Origin::new("localhost", port).unwrap();
    Pool::new(origin, tls, Egress::direct(guard), limits, metrics.clone())
}

fn metrics() -> Arc<PoolMetrics> {
    fn gauge() -> IntGauge {
        IntGauge::new("gauge", "help").unwrap()
    }
    fn counter() -> IntCounter {
        IntCounter::new("counter", "help").unwrap()
    }
    fn counters<L: Label>() -> Counters<L> {
        Counters::resolve(|_| counter())
    }
    Arc::new(PoolMetrics {
        connections: gauge(),
        streams_in_use: gauge(),
        waiting: gauge(),
        opened: counter(),
        closed: counters(),
        sheds: counters(),
        replays: counters(),
        goaways: counters(),
        dial_failures: counters(),
        breakers: Arc::new(BreakerMetrics { open: gauge(), events: counters() }),
    })
}

/// Sends a request whose body is its number, with all the room and to its deadline: what its class
/// changes is tested with the queue.
async fn send(pool: &Pool, number: u64, deadline_ms: u64) -> Result<Answer, SendError> {
    send_as(Class::Alarm, pool, number, deadline_ms).await
}

async fn send_as(
    class: Class,
    pool: &Pool,
    number: u64,
    deadline_ms: u64,
) -> Result<Answer, SendError> {
    let deadline = Instant::now() + Duration::from_millis(deadline_ms);
    pool.send(&post(number), class, deadline).await
}

fn post(number: u64) -> Post<'static> {
    let body = Bytes::from(number.to_string());
    Post { path: "/push", body, fields: &|_: &mut dyn Fields| {} }
}

fn counted<L: Label>(counters: &Counters<L>, label: L) -> u64 {
    counters.of(label).unwrap().get()
}

/// Waits until the condition holds, at most ten seconds.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(within(10, wait).await.is_some(), "not within ten seconds: {what}");
}

async fn within<F: Future>(seconds: u64, future: F) -> Option<F::Output> {
    timeout(Duration::from_secs(seconds), future).await.ok()
}
