//! GOAWAY, refusals and broken connections: what is replayed and what is not.

use std::time::Duration;

use sns_relay::provider::upstream::{
    CloseReason, GoAwayReason, Label, Limits, ReplayReason, SendError, ShedReason,
};
use tokio::time::sleep;

use super::peer::{Order, REFUSED_STREAM, Reply, answer};
use super::{Rig, counted, eventually, send};

fn goaway_reason(label: &str) -> GoAwayReason {
    *GoAwayReason::ALL.iter().find(|reason| reason.label() == label).unwrap()
}

/// GOAWAY again and again under load: each request is processed once, and answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goaway_under_load_loses_and_doubles_nothing() {
    let limits = Limits { waiting_max: 5_000, replays_max: 20, ..Limits::default() };
    let rig = Rig::start(limits, 50, |_, number| answer(15 + number % 20)).await;
    let debug = r#"{"reason":"Shutdown"}"#;
    let goer = async {
        for _ in 0..4 {
            sleep(Duration::from_millis(150)).await;
            rig.peer.order(Order::GoAway { last: None, code: 0, debug });
        }
    };
    let (burst, ()) = tokio::join!(rig.burst(5_000, 60), goer);
    for (number, result) in burst {
        assert!(result.is_ok(), "request {number}: {result:?}");
    }
    assert_eq!(rig.peer.processed(), (0..5_000).collect::<Vec<_>>());
    assert!(counted(&rig.metrics.goaways, goaway_reason("Shutdown")) >= 2);
    rig.assert_rest().await;
}

/// A stream above last-stream-id is sent again, one at it waits on the old connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn goaway_replays_above_and_waits_below_the_last_stream() {
    let rig = Rig::start(Limits { connections_max: 1, ..Limits::default() }, 10, |seen, number| {
        match number {
            0 => answer(0),
            1 => answer(400),
            _ if seen.times(number) == 1 => Reply::Hold,
            _ => answer(0),
        }
    })
    .await;
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    let below = send(&rig.pool, 1, 5_000);
    let above = async {
        eventually("1 is on its stream", || rig.peer.seen.times(1) == 1).await;
        send(&rig.pool, 2, 5_000).await
    };
    let goer = async {
        eventually("2 is on its stream", || rig.peer.seen.times(2) == 1).await;
        // Streams are 1, 3, 5: the third one was not processed.
        rig.peer.order(Order::GoAway { last: Some(3), code: 0, debug: "" });
    };
    let (below, above, ()) = tokio::join!(below, above, goer);
    assert!(below.is_ok() && above.is_ok(), "{below:?} {above:?}");
    assert_eq!(rig.peer.seen.times(1), 1);
    assert_eq!(rig.peer.seen.times(2), 2);
    assert_eq!(counted(&rig.metrics.replays, ReplayReason::GoAway), 1);
    assert_eq!(counted(&rig.metrics.goaways, goaway_reason("NO_ERROR")), 1);
    let closed = || counted(&rig.metrics.closed, CloseReason::GoAway) == 1;
    eventually("the old connection is closed", closed).await;
}

/// RFC 9113 §6.8: a first GOAWAY with the highest id, then the true one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goaway_in_two_steps_stops_new_streams_at_the_first() {
    let rig = Rig::start(Limits::default(), 10, |_, number| match number {
        0 => answer(0),
        1 => answer(300),
        _ => answer(0),
    })
    .await;
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    let later = async {
        eventually("1 is on its stream", || rig.peer.seen.times(1) == 1).await;
        rig.peer.order(Order::GoAway { last: Some(i32::MAX as u32), code: 0, debug: "" });
        eventually("the connection drains", || rig.pool.status().draining == 1).await;
        let second = send(&rig.pool, 2, 5_000).await;
        assert_eq!(rig.peer.count(|seen| &seen.connections), 2);
        second
    };
    let (first, second) = tokio::join!(send(&rig.pool, 1, 5_000), later);
    assert!(first.is_ok() && second.is_ok(), "{first:?} {second:?}");
    assert_eq!(rig.peer.processed(), [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_goaway_with_an_error_code_is_counted_by_its_code() {
    let rig = Rig::start(Limits::default(), 10, |_, _| answer(0)).await;
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    rig.peer.order(Order::GoAway { last: None, code: 11, debug: "Maximum active streams" });
    let counted = || counted(&rig.metrics.goaways, goaway_reason("ENHANCE_YOUR_CALM")) == 1;
    eventually("ENHANCE_YOUR_CALM is counted", counted).await;
    assert!(send(&rig.pool, 1, 5_000).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_stream_is_sent_again() {
    let rig = Rig::start(Limits::default(), 10, |seen, number| {
        if seen.times(number) == 1 { Reply::Reset(REFUSED_STREAM) } else { answer(0) }
    })
    .await;
    let burst = rig.burst(100, 10).await;
    assert!(burst.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(rig.peer.processed(), (0..100).collect::<Vec<_>>());
    assert_eq!(counted(&rig.metrics.replays, ReplayReason::Refused), 100);
    rig.assert_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_refused_each_time_is_shed_after_the_last_replay() {
    let rig = Rig::start(Limits::default(), 10, |_, _| Reply::Reset(REFUSED_STREAM)).await;
    let result = send(&rig.pool, 0, 5_000).await;
    assert_eq!(result.unwrap_err(), SendError::Shed(ShedReason::Refused));
    assert_eq!(rig.peer.seen.times(0), 4);
    rig.assert_rest().await;
}

/// Any other reset says nothing about what was done before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_reset_otherwise_is_unknown_and_not_sent_again() {
    let internal_error = 2;
    let rig = Rig::start(Limits::default(), 10, move |_, _| Reply::Reset(internal_error)).await;
    assert_eq!(send(&rig.pool, 0, 5_000).await.unwrap_err(), SendError::Unknown);
    assert_eq!(rig.peer.seen.times(0), 1);
    rig.assert_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_connection_leaves_its_requests_unknown_and_sends_none_again() {
    let rig = Rig::start(Limits { connections_max: 1, ..Limits::default() }, 50, |_, number| {
        if number == 1_000 { answer(0) } else { Reply::Hold }
    })
    .await;
    assert!(send(&rig.pool, 1_000, 5_000).await.is_ok());
    let killer = async {
        eventually("50 are held", || rig.peer.seen.processed.lock().unwrap().len() == 51).await;
        rig.peer.order(Order::Kill);
    };
    let (burst, ()) = tokio::join!(rig.burst(50, 10), killer);
    assert!(burst.into_iter().all(|(_, result)| result.unwrap_err() == SendError::Unknown));
    assert_eq!(rig.peer.processed().len(), 51);
    let closed = || counted(&rig.metrics.closed, CloseReason::Error) == 1;
    eventually("the connection's end is counted", closed).await;
    assert!(send(&rig.pool, 1_000, 5_000).await.is_ok(), "a new connection is dialled");
    rig.assert_rest().await;
}

/// GOAWAY names the stream as perhaps processed, then the connection breaks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_below_the_last_one_is_unknown_when_the_connection_then_breaks() {
    let rig = Rig::start(
        Limits::default(),
        10,
        |_, number| {
            if number == 0 { answer(0) } else { Reply::Hold }
        },
    )
    .await;
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    let killer = async {
        eventually("1 is held", || rig.peer.seen.times(1) == 1).await;
        rig.peer.order(Order::GoAway { last: None, code: 0, debug: "" });
        sleep(Duration::from_millis(50)).await;
        rig.peer.order(Order::Kill);
    };
    let (held, ()) = tokio::join!(send(&rig.pool, 1, 5_000), killer);
    assert_eq!(held.unwrap_err(), SendError::Unknown);
    assert_eq!(rig.peer.seen.times(1), 1);
    rig.assert_rest().await;
}
