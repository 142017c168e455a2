//! Dials that fail, and origins without HTTP/2.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sns_relay::provider::upstream::{
    AddressGuard, Egress, FaultKind, Limits, Origin, Pool, PoolMetrics, SendError,
};
use sns_relay::push::Class;
use tokio::io::duplex;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_rustls::TlsAcceptor;

use super::peer::{Peer, answer};
use super::{Certified, counted, eventually, metrics, pool, post, send};

/// Sends to a pool that cannot dial; the fault must be told at once and start the pause.
async fn check_fault(pool: &Pool, metrics: &PoolMetrics, expect: FaultKind) {
    match send(pool, 0, 20_000).await {
        Err(SendError::NotSent(fault)) => {
            assert_eq!(fault.kind, expect);
            assert!(fault.retry_after > Duration::ZERO);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(counted(&metrics.dial_failures, expect), 1);
    match send(pool, 1, 20_000).await {
        Err(SendError::NotSent(fault)) => assert_eq!(fault.kind, FaultKind::BackingOff),
        other => panic!("{other:?}"),
    }
    assert_eq!(counted(&metrics.dial_failures, expect), 1, "no dial during the pause");
}

fn slow_backoff() -> Limits {
    Limits { backoff_ms_min: 60_000, backoff_ms_max: 60_000, ..Limits::default() }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_dns_fault() {
    let metrics = metrics();
    let origin = Origin::new("push.invalid", 443).unwrap();
    let tls = Certified::new().client;
    let pool =
        Pool::new(origin, tls, Egress::direct(AddressGuard::Any), slow_backoff(), metrics.clone());
    check_fault(&pool, &metrics, FaultKind::Dns).await;
}

#[tokio::test]
async fn an_address_that_is_not_public_is_not_dialled() {
    let certified = Certified::new();
    let peer = Peer::start(certified.acceptor(&["h2"]), 10, Box::new(|_, _| answer(0))).await;
    let metrics = metrics();
    let guard = AddressGuard::PublicOnly(|address| !address.is_loopback());
    let pool = pool(peer.port, certified.client, guard, slow_backoff(), &metrics);
    check_fault(&pool, &metrics, FaultKind::Address).await;
    assert_eq!(peer.count(|seen| &seen.handshakes_at_once_max), 0);
}

#[tokio::test]
async fn a_closed_port_is_a_connect_fault() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let metrics = metrics();
    let pool = pool(port, Certified::new().client, AddressGuard::Any, slow_backoff(), &metrics);
    check_fault(&pool, &metrics, FaultKind::Connect).await;
}

#[tokio::test]
async fn an_unknown_certificate_is_a_tls_fault() {
    let acceptor = Certified::new().acceptor(&["h2"]);
    let peer = Peer::start(acceptor, 10, Box::new(|_, _| answer(0))).await;
    let metrics = metrics();
    let tls = Certified::new().client;
    let pool = pool(peer.port, tls, AddressGuard::Any, slow_backoff(), &metrics);
    check_fault(&pool, &metrics, FaultKind::Tls).await;
}

#[tokio::test]
async fn a_silent_server_is_a_tls_fault_when_the_connect_time_is_over() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let metrics = metrics();
    let limits = Limits { connect_ms: 200, ..slow_backoff() };
    let pool = pool(port, Certified::new().client, AddressGuard::Any, limits, &metrics);
    check_fault(&pool, &metrics, FaultKind::Tls).await;
    drop(listener);
}

/// Once by an alert (the peer insists on its list), once without any protocol.
#[tokio::test]
async fn a_peer_without_http2_is_an_alpn_fault() {
    for alpn in [&["http/1.1"][..], &[]] {
        let certified = Certified::new();
        let acceptor = certified.acceptor(alpn);
        let peer = Peer::start(acceptor, 10, Box::new(|_, _| answer(0))).await;
        let metrics = metrics();
        let tls = certified.client;
        let pool = pool(peer.port, tls, AddressGuard::Any, slow_backoff(), &metrics);
        check_fault(&pool, &metrics, FaultKind::Alpn).await;
    }
}

/// A refused client certificate looks like this under TLS 1.3.
#[tokio::test]
async fn a_connection_that_ends_before_its_first_answer_starts_the_pause() {
    let certified = Certified::new();
    let acceptor = certified.acceptor(&["h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dials = Arc::new(AtomicUsize::new(0));
    let counter = dials.clone();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            drop(acceptor.accept(tcp).await);
        }
    });
    let metrics = metrics();
    let pool = pool(port, certified.client, AddressGuard::Any, slow_backoff(), &metrics);
    let mut sends = JoinSet::new();
    for number in 0..20 {
        let pool = pool.clone();
        sends.spawn(async move { send(&pool, number, 20_000).await });
    }
    let results = sends.join_all().await;
    // Only the request that was written on each of the two connections can have been processed.
    let unknown = results.iter().filter(|result| matches!(result, Err(SendError::Unknown)));
    assert!(unknown.count() <= 2);
    assert!(results.iter().all(Result::is_err));
    assert_eq!(dials.load(Ordering::SeqCst), 2);
    assert_eq!(counted(&metrics.dial_failures, FaultKind::Lost), 2);
}

/// The pauses grow, and the pool recovers by itself once the peer is there.
#[tokio::test]
async fn after_the_pause_the_next_request_dials_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let certified = Certified::new();
    let metrics = metrics();
    let limits = Limits { backoff_ms_min: 50, backoff_ms_max: 100, ..Limits::default() };
    let pool = pool(port, certified.client.clone(), AddressGuard::Any, limits, &metrics);
    for number in 0..3 {
        assert!(matches!(send(&pool, number, 5_000).await, Err(SendError::NotSent(_))));
        sleep(Duration::from_millis(110)).await;
    }
    assert_eq!(counted(&metrics.dial_failures, FaultKind::Connect), 3);
    let server = Http1::start_at(port, certified.acceptor(&["http/1.1"])).await;
    assert!(matches!(send(&pool, 4, 5_000).await, Err(SendError::NotSent(_))));
    assert_eq!(counted(&metrics.dial_failures, FaultKind::Alpn), 1);
    assert_eq!(server.requests.load(Ordering::SeqCst), 0);
}

/// An HTTP/1.1 server that echoes the request's head, slowly enough to overlap.
struct Http1 {
    port: u16,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    at_once_max: Arc<AtomicUsize>,
}

impl Http1 {
    async fn start_at(port: u16, acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let server = Self {
            port: listener.local_addr().unwrap().port(),
            connections: Arc::default(),
            requests: Arc::default(),
            at_once_max: Arc::default(),
        };
        let (connections, requests) = (server.connections.clone(), server.requests.clone());
        let (at_once, at_once_max) = (Arc::new(AtomicUsize::new(0)), server.at_once_max.clone());
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let Ok(io) = acceptor.accept(tcp).await else { continue };
                connections.fetch_add(1, Ordering::SeqCst);
                let (requests, at_once) = (requests.clone(), at_once.clone());
                let at_once_max = at_once_max.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    requests.fetch_add(1, Ordering::SeqCst);
                    at_once_max
                        .fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    let at_once = at_once.clone();
                    async move {
                        let path = request.uri().to_string();
                        let host = request.headers()["host"].to_str().unwrap().to_owned();
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        sleep(Duration::from_millis(5)).await;
                        at_once.fetch_sub(1, Ordering::SeqCst);
                        let echo = format!("{path} {host} {}", String::from_utf8_lossy(&body));
                        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(echo))))
                    }
                });
                let server = hyper::server::conn::http1::Builder::new();
                tokio::spawn(server.serve_connection(TokioIo::new(io), service));
            }
        });
        server
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_without_http2_is_served_by_http1_within_its_own_cap() {
    for alpn in [&["http/1.1"][..], &[]] {
        let certified = Certified::new();
        let server = Http1::start_at(0, certified.acceptor(alpn)).await;
        let metrics = metrics();
        let limits = Limits { http1_allowed: true, http1_connections_max: 3, ..Limits::default() };
        let pool = pool(server.port, certified.client, AddressGuard::Any, limits, &metrics);
        let mut sends = JoinSet::new();
        for number in 0..200 {
            let pool = pool.clone();
            sends.spawn(async move { (number, send(&pool, number, 30_000).await) });
        }
        for (number, result) in sends.join_all().await {
            let expect = format!("/push localhost:{} {number}", server.port);
            assert_eq!(result.unwrap().body, expect);
        }
        assert_eq!(server.connections.load(Ordering::SeqCst), 3);
        assert_eq!(server.at_once_max.load(Ordering::SeqCst), 3);
        assert_eq!(server.requests.load(Ordering::SeqCst), 200);
        let idle = || pool.status().streams_in_use == 0;
        eventually("no stream in use", idle).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http1_request_past_its_deadline_is_unknown_and_closes_its_connection() {
    let certified = Certified::new();
    let server = Http1::start_at(0, certified.acceptor(&["http/1.1"])).await;
    let metrics = metrics();
    let limits = Limits { http1_allowed: true, ..Limits::default() };
    let pool = pool(server.port, certified.client, AddressGuard::Any, limits, &metrics);
    assert!(send(&pool, 0, 5_000).await.is_ok());
    let soon = Instant::now() + Duration::from_millis(2);
    assert_eq!(pool.send(&post(1), Class::Ordinary, soon).await.unwrap_err(), SendError::Unknown);
    eventually("closed", || pool.status().connections == 0).await;
    assert!(send(&pool, 2, 5_000).await.is_ok());
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
}

/// The peer takes the connection and ends it: the dials stop, whatever waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_http1_peer_that_ends_each_connection_starts_the_pause() {
    let certified = Certified::new();
    let acceptor = certified.acceptor(&["http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dials = Arc::new(AtomicUsize::new(0));
    let counter = dials.clone();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
            drop(acceptor.accept(tcp).await);
        }
    });
    let metrics = metrics();
    let limits = Limits { http1_allowed: true, ..slow_backoff() };
    let pool = pool(port, certified.client, AddressGuard::Any, limits, &metrics);
    for number in 0..50 {
        assert!(send(&pool, number, 2_000).await.is_err());
    }
    let made = dials.load(Ordering::SeqCst);
    assert!((2..=3).contains(&made), "{made} dials");
}

/// Answers on the old connection do not end the pause after the failed dial of a new one.
#[tokio::test]
async fn a_surplus_dial_that_fails_harms_nobody_and_is_not_repeated_at_once() {
    let metrics = metrics();
    let tls = Certified::new().client;
    let pool = pool(1, tls, AddressGuard::Any, slow_backoff(), &metrics);
    let peer = Peer::offline(1, Box::new(|_, _| answer(2)));
    let (ours, theirs) = duplex(64 * 1_024);
    peer.serve(theirs);
    pool.adopt(ours);
    let mut sends = JoinSet::new();
    for number in 0..100 {
        let pool = pool.clone();
        sends.spawn(async move { send(&pool, number, 20_000).await });
    }
    assert!(sends.join_all().await.iter().all(Result::is_ok));
    assert_eq!(counted(&metrics.dial_failures, FaultKind::Connect), 1);
}
