//! Idle connections, dead connections, and the end of a pool; over in-memory bytes, on a paused
//! clock.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sns_relay::provider::upstream::{AddressGuard, CloseReason, Limits, SendError};
use tokio::io::duplex;
use tokio::time::{Instant, sleep};

use super::peer::{Peer, Reply, Script, answer};
use super::{Certified, Rig, counted, eventually, metrics, pool, send};

/// One adopted connection; the port is closed, so nothing else can be dialled.
async fn adopted(limits: Limits) -> Rig {
    let script = |_: &_, number| if number == 13 { Reply::Hold } else { answer(5) };
    adopted_with(limits, 10, Box::new(script)).await
}

pub(crate) async fn adopted_with(limits: Limits, max_streams: u32, script: Box<Script>) -> Rig {
    let limits = Limits { connections_max: 1, ..limits };
    let peer = Peer::offline(max_streams, script);
    let metrics = metrics();
    let pool = pool(1, Certified::new().client, AddressGuard::Any, limits, &metrics);
    let (ours, theirs) = duplex(64 * 1_024);
    peer.serve(theirs);
    pool.adopt(ours);
    Rig { pool, peer, metrics }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_closes_and_a_used_one_does_not() {
    let rig = adopted(Limits { idle_s: 100, ..Limits::default() }).await;
    for number in 0..5 {
        assert!(send(&rig.pool, number, 5_000).await.is_ok());
        sleep(Duration::from_secs(90)).await;
    }
    assert_eq!(rig.pool.status().connections, 1);
    sleep(Duration::from_secs(11)).await;
    assert_eq!(rig.pool.status().connections, 0);
    assert_eq!(counted(&rig.metrics.closed, CloseReason::Idle), 1);
    assert_eq!(rig.metrics.connections.get(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_ping_leaves_every_interval() {
    let rig = adopted(Limits { ping_interval_s: 60, ..Limits::default() }).await;
    sleep(Duration::from_secs(605)).await;
    assert_eq!(rig.peer.count(|seen| &seen.pings), 10);
    assert_eq!(rig.pool.status().connections, 1);
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_is_closed_by_its_missing_pong_and_its_requests_are_unknown() {
    let limits =
        Limits { ping_interval_s: 20, ping_timeout_s: 5, wedge_ms: 600_000, ..Limits::default() };
    let rig = adopted(limits).await;
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    rig.peer.seen.mute.store(true, Ordering::SeqCst);
    let started = Instant::now();
    assert_eq!(send(&rig.pool, 1, 300_000).await.unwrap_err(), SendError::Unknown);
    assert!(started.elapsed() <= Duration::from_secs(25));
    assert_eq!(counted(&rig.metrics.closed, CloseReason::PingTimeout), 1);
    assert_eq!(rig.pool.status().streams_in_use, 0);
}

/// A missed deadline asks at once whether the peer is alive, long before the next regular PING.
#[tokio::test(start_paused = true)]
async fn a_missed_deadline_finds_a_black_hole_at_once() {
    let limits = Limits { ping_interval_s: 3_000, ping_timeout_s: 5, ..Limits::default() };
    let rig = adopted(limits).await;
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    rig.peer.seen.mute.store(true, Ordering::SeqCst);
    assert_eq!(send(&rig.pool, 1, 1_000).await.unwrap_err(), SendError::Unknown);
    assert_eq!(rig.pool.status().connections, 1);
    sleep(Duration::from_secs(6)).await;
    assert_eq!(rig.pool.status().connections, 0);
    assert_eq!(counted(&rig.metrics.closed, CloseReason::PingTimeout), 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_pool_closes_its_connections() {
    let Rig { pool, peer, metrics } = adopted(Limits::default()).await;
    assert!(send(&pool, 0, 5_000).await.is_ok());
    assert_eq!(Arc::strong_count(&pool), 1);
    drop(pool);
    eventually("closed", || metrics.connections.get() == 0).await;
    assert_eq!(counted(&metrics.closed, CloseReason::Shutdown), 1);
    assert_eq!(peer.processed(), [0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_warmed_pool_has_its_connection_before_the_first_request() {
    let rig = Rig::start(Limits::default(), 10, |_, _| answer(0)).await;
    let soon = Instant::now() + Duration::from_secs(5);
    tokio::join!(rig.pool.warm(soon), rig.pool.warm(soon));
    assert_eq!(rig.pool.status().connections, 1);
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    assert_eq!(rig.peer.count(|seen| &seen.connections), 1);
}

/// Surplus connections fall idle, because the oldest ones are filled first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn surplus_connections_close_after_a_burst() {
    let limits = Limits { idle_s: 1, ..Limits::default() };
    let rig = Rig::start(limits, 1, |_, _| answer(20)).await;
    assert!(rig.burst(100, 30).await.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(rig.pool.status().connections, 4);
    for number in 100..140 {
        assert!(send(&rig.pool, number, 5_000).await.is_ok());
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rig.pool.status().connections, 1);
    assert_eq!(counted(&rig.metrics.closed, CloseReason::Idle), 3);
}
