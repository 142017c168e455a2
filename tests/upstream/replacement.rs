//! Connections that are to go: old ones, worn ones, wedged ones, and ones that are not trusted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sns_relay::provider::upstream::{CloseReason, FaultKind, Limits, SendError};
use tokio::time::{Instant, sleep};

use super::peer::{Reply, answer};
use super::{Rig, counted, eventually, send};

/// Under a steady load for five lives, every request is answered, and there always is a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_connection_is_replaced_before_it_goes() {
    let limits = Limits { connection_age_s_max: 1, connections_max: 1, ..Limits::default() };
    let rig = Rig::start(limits, 100, |_, number| answer(number % 30)).await;
    rig.pool.warm(Instant::now() + Duration::from_secs(5)).await;
    let ends_at = Instant::now() + Duration::from_secs(5);
    let mut number = 0;
    let mut sends = tokio::task::JoinSet::new();
    while Instant::now() < ends_at {
        assert!(rig.pool.status().connections >= 1, "no connection for request {number}");
        let pool = rig.pool.clone();
        sends.spawn(async move { send(&pool, number, 5_000).await });
        number += 1;
        sleep(Duration::from_millis(3)).await;
    }
    assert!(sends.join_all().await.iter().all(Result::is_ok));
    let aged = counted(&rig.metrics.closed, CloseReason::Age);
    assert!((4..=7).contains(&aged), "{aged} connections were replaced");
    assert_eq!(rig.peer.processed(), (0..number).collect::<Vec<_>>());
    assert_eq!(rig.peer.count(|seen| &seen.violations), 0);
    assert!(rig.metrics.connections.get() <= 2);
    rig.assert_rest().await;
}

/// The successor is asked first, and the old connection goes when it has answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_connection_serves_until_its_successor_has_answered() {
    let slow = Arc::new(AtomicBool::new(false));
    let first = slow.clone();
    let limits = Limits {
        connection_age_s_max: 1,
        connections_max: 1,
        start_streams: 1,
        ..Limits::default()
    };
    let rig = Rig::start(limits, 100, move |_, number| {
        if number == 1_000 && first.load(Ordering::SeqCst) { answer(500) } else { answer(0) }
    })
    .await;
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    eventually("the successor is there", || rig.pool.status().connections == 2).await;
    slow.store(true, Ordering::SeqCst);
    let others = async {
        eventually("1000 is on its stream", || rig.peer.seen.times(1_000) == 1).await;
        let started = Instant::now();
        for number in 1..50 {
            assert!(send(&rig.pool, number, 5_000).await.is_ok());
        }
        assert_eq!(rig.pool.status().connections, 2);
        assert!(started.elapsed() < Duration::from_millis(400), "they waited for the successor");
    };
    let (slow, ()) = tokio::join!(send(&rig.pool, 1_000, 5_000), others);
    assert!(slow.is_ok());
    let aged = || counted(&rig.metrics.closed, CloseReason::Age) >= 1;
    eventually("the old one is closed", aged).await;
}

/// A stand-in for the end of the stream numbers, which come to an end after 2^30 requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_is_replaced_before_its_stream_numbers_end() {
    let limits = Limits { requests_per_connection_max: 100, ..Limits::default() };
    let rig = Rig::start(limits, 10, |_, number| answer(number % 5)).await;
    let burst = rig.burst(2_000, 60).await;
    assert!(burst.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(rig.peer.processed(), (0..2_000).collect::<Vec<_>>());
    let worn = || counted(&rig.metrics.closed, CloseReason::StreamIds) >= 10;
    eventually("the worn ones are closed", worn).await;
    assert!(rig.peer.count(|seen| &seen.connections) >= 11);
    assert_eq!(rig.peer.count(|seen| &seen.violations), 0);
    rig.assert_rest().await;
}

/// A peer whose first connection answers request 0 and then nothing.
async fn first_connection_wedges(limits: Limits) -> Rig {
    Rig::start(limits, 100, |seen, number| {
        let wedged = seen.connections.load(Ordering::SeqCst) == 1 && number > 0;
        if wedged { Reply::Hold } else { answer(0) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_answers_nothing_while_requests_wait_is_replaced() {
    let rig = first_connection_wedges(Limits { wedge_ms: 300, ..Limits::default() }).await;
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    let later = async {
        let wedged = || rig.pool.status().draining == 1;
        eventually("the wedged one takes no more", wedged).await;
        for number in 2..20 {
            assert!(send(&rig.pool, number, 1_000).await.is_ok());
        }
    };
    let started = Instant::now();
    let (held, ()) = tokio::join!(send(&rig.pool, 1, 2_000), later);
    // Its stream was left alone until its own deadline.
    assert_eq!(held.unwrap_err(), SendError::Unknown);
    assert!(started.elapsed() >= Duration::from_secs(2));
    let closed = || counted(&rig.metrics.closed, CloseReason::Wedged) == 1;
    eventually("the wedged one is closed", closed).await;
    assert_eq!(rig.peer.count(|seen| &seen.connections), 2);
    assert_eq!(rig.peer.seen.times(1), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missed_deadlines_in_a_row_replace_a_connection_and_impatient_ones_do_not() {
    let limits = Limits { patience_ms: 150, wedge_misses_max: 3, ..Limits::default() };
    let rig = first_connection_wedges(limits).await;
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    for number in 1..10 {
        assert_eq!(send(&rig.pool, number, 50).await.unwrap_err(), SendError::Unknown);
    }
    assert_eq!(rig.pool.status().connections, 1);
    for number in 10..13 {
        assert_eq!(send(&rig.pool, number, 200).await.unwrap_err(), SendError::Unknown);
    }
    for number in 13..20 {
        assert!(send(&rig.pool, number, 5_000).await.is_ok(), "{number}");
    }
    let closed = || counted(&rig.metrics.closed, CloseReason::Wedged) == 1;
    eventually("the wedged one is closed", closed).await;
    rig.assert_rest().await;
}

/// A slow answer among quick ones is no wedge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_slow_request_does_not_wedge_a_connection_that_answers_others() {
    // The others take a second at least: the slow one is never alone.
    let limits = Limits { wedge_ms: 400, ..Limits::default() };
    let slow = |_: &_, number| answer(if number == 0 { 800 } else { 5 });
    let rig = Rig::start(limits, 100, slow).await;
    assert!(send(&rig.pool, 1, 5_000).await.is_ok());
    let others = async {
        for number in 2..200 {
            assert!(send(&rig.pool, number, 5_000).await.is_ok());
        }
    };
    let (first, ()) = tokio::join!(send(&rig.pool, 0, 5_000), others);
    assert!(first.is_ok());
    assert_eq!(rig.peer.count(|seen| &seen.connections), 1);
}

/// A dead service behind a live connection is not dialled over and over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wedged_connections_that_never_answered_start_the_pause() {
    let limits = Limits {
        wedge_ms: 100,
        backoff_ms_min: 60_000,
        backoff_ms_max: 60_000,
        ..Limits::default()
    };
    let rig = Rig::start(limits, 100, |_, _| Reply::Hold).await;
    for number in 0..20 {
        assert!(send(&rig.pool, number, 300).await.is_err());
    }
    assert_eq!(rig.peer.count(|seen| &seen.connections), 2);
    match send(&rig.pool, 20, 300).await {
        Err(SendError::NotSent(fault)) => assert_eq!(fault.kind, FaultKind::BackingOff),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_doubt_replaces_a_connection_and_those_of_one_moment_are_one() {
    let rig = Rig::start(Limits::default(), 100, |_, number| answer(number % 3)).await;
    let before = rig.burst(20, 10).await;
    let connection = before[0].1.as_ref().unwrap().connection;
    for (_, result) in &before {
        rig.pool.doubt(result.as_ref().unwrap());
    }
    let after = send(&rig.pool, 20, 5_000).await.unwrap();
    assert_eq!(after.connection, connection);
    rig.pool.doubt(&after);
    let closed = || counted(&rig.metrics.closed, CloseReason::Distrusted) == 1;
    eventually("it is closed", closed).await;
    let fresh = send(&rig.pool, 21, 5_000).await.unwrap();
    assert_ne!(fresh.connection, connection);
    // A late doubt about the old one touches nobody.
    rig.pool.doubt(&after);
    assert_eq!(send(&rig.pool, 22, 5_000).await.unwrap().connection, fresh.connection);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn warming_opens_as_many_connections_as_it_is_told() {
    let limits = Limits { prewarm_connections: 3, ..Limits::default() };
    let rig = Rig::start(limits, 10, |_, _| answer(0)).await;
    rig.pool.warm(Instant::now() + Duration::from_secs(5)).await;
    eventually("three are open", || rig.pool.status().connections == 3).await;
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    assert_eq!(rig.peer.count(|seen| &seen.connections), 3);
    let none = Limits { prewarm_connections: 0, ..Limits::default() };
    let rig = Rig::start(none, 10, |_, _| answer(0)).await;
    rig.pool.warm(Instant::now() + Duration::from_secs(5)).await;
    assert_eq!(rig.peer.count(|seen| &seen.connections), 0);
}
