//! The peer's stream limit: used up, never passed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sns_relay::provider::upstream::{Limits, ReplayReason};
use tokio::time::sleep;

use super::peer::{Order, answer};
use super::{Rig, counted, eventually, send};

/// Sends 1,000 requests at once at a limit; every one must be answered, none refused.
async fn check_limit(max_streams: u32, streams_at_once: usize) {
    let rig = Rig::start(Limits::default(), max_streams, |_, _| answer(2)).await;
    for (number, result) in rig.burst(1_000, 60).await {
        assert!(result.is_ok(), "request {number}: {result:?}");
    }
    assert_eq!(rig.peer.processed(), (0..1_000).collect::<Vec<_>>());
    assert_eq!(rig.peer.count(|seen| &seen.violations), 0);
    assert_eq!(rig.peer.count(|seen| &seen.open_max), streams_at_once);
    assert_eq!(counted(&rig.metrics.replays, ReplayReason::Refused), 0);
    assert!(rig.peer.count(|seen| &seen.connections) <= 4);
    assert_eq!(rig.peer.count(|seen| &seen.handshakes_at_once_max), 1);
    rig.assert_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_one_serves_a_thousand_at_once() {
    check_limit(1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_two_serves_a_thousand_at_once() {
    check_limit(2, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_a_hundred_serves_a_thousand_at_once() {
    check_limit(100, 100).await;
}

/// Limit 1 and slow answers: all four connections open, one dial at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_burst_opens_no_more_than_the_cap_one_dial_at_a_time() {
    let rig = Rig::start(Limits::default(), 1, |_, _| answer(20)).await;
    let burst = rig.burst(1_000, 60).await;
    assert!(burst.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(rig.peer.count(|seen| &seen.connections), 4);
    assert_eq!(rig.peer.count(|seen| &seen.handshakes_at_once_max), 1);
    assert_eq!(rig.metrics.opened.get(), 4);
}

/// The first connection carries what comes; no second one is opened for a trickle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trickle_needs_one_connection() {
    let rig = Rig::start(Limits::default(), 1, |_, _| answer(0)).await;
    for number in 0..50 {
        assert!(send(&rig.pool, number, 5_000).await.is_ok());
    }
    assert_eq!(rig.peer.count(|seen| &seen.connections), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_moves_under_load_is_followed_up_and_down() {
    let rig = Rig::start(Limits { waiting_max: 4_000, ..Limits::default() }, 100, |_, number| {
        answer(number % 7)
    })
    .await;
    let mover = async {
        for limit in [1, 50, 2, 500, 3, 1, 200, 5, 1_000] {
            sleep(Duration::from_millis(40)).await;
            rig.peer.order(Order::MaxStreams(limit));
        }
    };
    let (burst, ()) = tokio::join!(rig.burst(4_000, 60), mover);
    for (number, result) in burst {
        assert!(result.is_ok(), "request {number}: {result:?}");
    }
    assert_eq!(rig.peer.count(|seen| &seen.violations), 0);
    assert_eq!(rig.peer.processed(), (0..4_000).collect::<Vec<_>>());
    rig.assert_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_zero_stops_the_connection_until_it_rises() {
    let rig =
        Rig::start(Limits { connections_max: 1, ..Limits::default() }, 10, |_, _| answer(0)).await;
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    rig.peer.order(Order::MaxStreams(0));
    eventually("the limit is 0", || rig.pool.status().streams_allowed == 0).await;
    let (waited, ()) = tokio::join!(send(&rig.pool, 1, 5_000), async {
        sleep(Duration::from_millis(100)).await;
        assert_eq!(rig.peer.processed(), [0]);
        rig.peer.order(Order::MaxStreams(10));
    });
    assert!(waited.is_ok());
}

/// APNs: the first answer opens the connection, not the SETTINGS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_first_answer_one_stream_is_used() {
    let limits = Limits { start_streams: 1, connections_max: 1, ..Limits::default() };
    let rig = Rig::start(limits, 1_000, |seen, _| {
        let first = seen.arrived.lock().unwrap().len() == 1;
        if first { answer(300) } else { answer(50) }
    })
    .await;
    let (burst, ()) = tokio::join!(rig.burst(100, 30), async {
        sleep(Duration::from_millis(200)).await;
        assert_eq!(rig.peer.count(|seen| &seen.open_max), 1);
    });
    assert!(burst.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(rig.peer.seen.open_max.load(Ordering::SeqCst), 99);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_cap_holds_below_the_peers_limit() {
    let limits = Limits { streams_per_connection_max: 5, connections_max: 2, ..Limits::default() };
    let rig = Rig::start(limits, 1_000, |_, _| answer(3)).await;
    let burst = rig.burst(300, 30).await;
    assert!(burst.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(rig.peer.count(|seen| &seen.open_max), 5);
    assert_eq!(rig.peer.count(|seen| &seen.connections), 2);
}
