//! A push service that fails or slows down: the breaker, and the limit by latency.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sns_relay::provider::upstream::{BreakerEvent, FaultKind, Limits, SendError};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::liveness::adopted_with;
use super::peer::{Reply, answer};
use super::{Rig, counted, send};

fn status(status: u16) -> Reply {
    Reply::Answer { after: Duration::ZERO, status, body: Vec::new() }
}

fn is_refused(result: &Result<super::Answer, SendError>) -> bool {
    matches!(result, Err(SendError::NotSent(fault)) if fault.kind == FaultKind::BreakerOpen)
}

/// Down for a while under load, then back: few probes, no rush, and soon well again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_service_is_left_alone_but_for_probes_and_found_again() {
    let down = Arc::new(AtomicBool::new(true));
    let is_down = down.clone();
    let limits = Limits {
        breaker_failures: 5,
        breaker_open_ms_min: 200,
        breaker_open_ms_max: 400,
        ..Limits::default()
    };
    let rig = Rig::start(limits, 100, move |_, _| {
        if is_down.load(Ordering::SeqCst) { status(503) } else { answer(1) }
    })
    .await;
    let mut number = 0;
    let started = Instant::now();
    while counted(&rig.metrics.breakers.events, BreakerEvent::Opened) == 0 {
        let _ = send(&rig.pool, number, 5_000).await;
        number += 1;
        sleep(Duration::from_millis(10)).await;
        assert!(started.elapsed() < Duration::from_secs(5), "it does not open");
    }
    assert_eq!(rig.metrics.breakers.open.get(), 1);
    let before = rig.peer.processed().len();
    let opened_at = Instant::now();
    while opened_at.elapsed() < Duration::from_secs(2) {
        let sent_at = Instant::now();
        let result = send(&rig.pool, number, 5_000).await;
        if is_refused(&result) {
            assert!(sent_at.elapsed() < Duration::from_millis(50), "it is not told at once");
        }
        number += 1;
        sleep(Duration::from_millis(1)).await;
    }
    let probes = rig.peer.processed().len() - before;
    assert!((3..=7).contains(&probes), "{probes} probes in two seconds");
    down.store(false, Ordering::SeqCst);
    let back_at = Instant::now();
    while send(&rig.pool, number, 5_000).await.is_err() {
        number += 1;
        sleep(Duration::from_millis(1)).await;
    }
    assert!(back_at.elapsed() < Duration::from_millis(600), "{:?}", back_at.elapsed());
    assert_eq!(rig.metrics.breakers.open.get(), 0);
    assert_eq!(counted(&rig.metrics.breakers.events, BreakerEvent::Closed), 1);
    assert!(rig.burst(200, 5).await.iter().all(|(_, result)| result.is_ok()));
    rig.assert_rest().await;
}

/// Whatever an answer below 500 says, it shows that the service lives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejections_and_throttles_open_nothing() {
    let limits = Limits { breaker_failures: 3, breaker_failure_percent: 10, ..Limits::default() };
    let rig = Rig::start(limits, 100, |_, number| match number % 4 {
        0 => status(400),
        1 => status(403),
        2 => status(410),
        _ => status(429),
    })
    .await;
    for number in 0..150 {
        assert!(send(&rig.pool, number, 5_000).await.is_ok());
        sleep(Duration::from_millis(10)).await;
    }
}

/// A sender with short deadlines cannot shut the service off for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_deadlines_open_nothing_and_long_ones_do() {
    let limits = Limits {
        breaker_failures: 5,
        patience_ms: 300,
        wedge_misses_max: 1_000,
        connections_max: 1,
        ..Limits::default()
    };
    let rig =
        Rig::start(limits, 1_000, |_, number| if number == 0 { answer(0) } else { Reply::Hold })
            .await;
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    for number in 1..60 {
        assert_eq!(send(&rig.pool, number, 20).await.unwrap_err(), SendError::Unknown);
    }
    for number in 60..65 {
        assert_eq!(send(&rig.pool, number, 350).await.unwrap_err(), SendError::Unknown);
    }
    assert!(is_refused(&send(&rig.pool, 65, 350).await));
}

/// A pool that is dropped while its breaker is open leaves the gauge as it found it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_pool_takes_its_open_breaker_with_it() {
    let limits = Limits { breaker_failures: 1, ..Limits::default() };
    let rig = Rig::start(limits, 100, |_, _| status(500)).await;
    while rig.metrics.breakers.open.get() == 0 {
        let _ = send(&rig.pool, 0, 5_000).await;
        sleep(Duration::from_millis(50)).await;
    }
    drop(rig.pool);
    assert_eq!(rig.metrics.breakers.open.get(), 0);
}

/// A hundred senders at once, again and again, for so many seconds; gives how many were answered.
async fn load(rig: &Rig, seconds: u64) -> u64 {
    let ends_at = Instant::now() + Duration::from_secs(seconds);
    let mut senders = JoinSet::new();
    for _ in 0..100 {
        let pool = rig.pool.clone();
        senders.spawn(async move {
            let mut answered = 0;
            while Instant::now() < ends_at {
                answered += u64::from(send(&pool, 1, 60_000).await.is_ok());
            }
            answered
        });
    }
    senders.join_all().await.iter().sum()
}

/// Over in-memory bytes, on a paused clock.
#[tokio::test(start_paused = true)]
async fn a_latency_that_rises_lowers_the_streams_in_use_to_the_floor_and_not_at_all_when_steady() {
    let latency_ms = Arc::new(AtomicU64::new(20));
    let now_ms = latency_ms.clone();
    let limits = Limits {
        adaptive_floor: Some(10),
        streams_per_connection_max: 100,
        wedge_ms: 600_000,
        ..Limits::default()
    };
    let script = move |_: &_, _| answer(now_ms.load(Ordering::SeqCst));
    let rig = adopted_with(limits, 100, Box::new(script)).await;
    let steady = load(&rig, 30).await;
    // A hundred in flight at 20 ms is 5,000 a second.
    assert!(steady > 140_000, "{steady}");
    let open = rig.peer.count(|seen| &seen.open_max);
    assert_eq!(open, 100);
    latency_ms.store(400, Ordering::SeqCst);
    load(&rig, 60).await;
    rig.peer.seen.open_max.store(0, Ordering::SeqCst);
    load(&rig, 10).await;
    let open = rig.peer.count(|seen| &seen.open_max);
    assert!((10..=40).contains(&open), "{open} streams in use");
}
