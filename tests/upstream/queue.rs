//! The queue in front of the streams, deadlines, and slots on their way back.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sns_relay::provider::upstream::{Limits, SendError, ShedReason};
use sns_relay::push::Class;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::peer::{Reply, answer};
use super::{Rig, counted, eventually, send, send_as};

fn one_stream(waiting_max: usize) -> Limits {
    Limits { connections_max: 1, waiting_max, ..Limits::default() }
}

/// Holds the only stream until all of a line wait, one behind the other, and gives the order in
/// which the peer saw them.
async fn served_behind_one(line: &[(Class, u64)]) -> Vec<u64> {
    let rig = Rig::start(
        one_stream(1_000),
        1,
        |_, number| {
            if number == 0 { answer(1_500) } else { answer(0) }
        },
    )
    .await;
    let mut sends = JoinSet::new();
    let mut spawn = |class, number| {
        let pool = rig.pool.clone();
        sends.spawn(async move { send_as(class, &pool, number, 20_000).await });
    };
    spawn(Class::Ordinary, 0);
    eventually("0 is on its stream", || rig.peer.seen.times(0) == 1).await;
    for (place, (class, number)) in line.iter().enumerate() {
        spawn(*class, *number);
        eventually("it waits", || rig.pool.status().waiting > place).await;
    }
    assert!(sends.join_all().await.iter().all(Result::is_ok));
    rig.assert_rest().await;
    rig.peer.processed_in_order()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_sheds_at_once() {
    let rig = Rig::start(one_stream(3), 1, |_, _| answer(500)).await;
    let started = Instant::now();
    let burst = rig.burst(10, 30).await;
    let shed = burst
        .iter()
        .filter(|(_, result)| matches!(result, Err(SendError::Shed(ShedReason::QueueFull))));
    // Three wait for the first connection; none was there to take one at once.
    assert_eq!(shed.count(), 7);
    assert_eq!(rig.peer.processed().len(), 3);
    assert_eq!(counted(&rig.metrics.sheds, ShedReason::QueueFull), 7);
    assert!(started.elapsed() < Duration::from_secs(5));
    rig.assert_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_passes_in_the_queue_sheds_unsent() {
    let rig = Rig::start(one_stream(10), 1, |_, _| answer(600)).await;
    let (first, second) = tokio::join!(send(&rig.pool, 0, 5_000), async {
        eventually("0 is on its stream", || rig.peer.seen.times(0) == 1).await;
        send(&rig.pool, 1, 100).await
    });
    assert!(first.is_ok());
    assert_eq!(second.unwrap_err(), SendError::Shed(ShedReason::Deadline));
    assert_eq!(rig.peer.processed(), [0]);
    assert_eq!(counted(&rig.metrics.sheds, ShedReason::Deadline), 1);
    rig.assert_rest().await;
}

/// The answer takes 400 ms, and the wait leaves 200 of 600: sent, it would end `unknown`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_waited_too_long_to_be_answered_in_time_is_not_sent() {
    let rig = Rig::start(one_stream(10), 1, |_, _| answer(400)).await;
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    let (first, second) = tokio::join!(send(&rig.pool, 1, 5_000), async {
        eventually("1 is on its stream", || rig.peer.seen.times(1) == 1).await;
        send(&rig.pool, 2, 600).await
    });
    assert!(first.is_ok());
    assert_eq!(second.unwrap_err(), SendError::Shed(ShedReason::Deadline));
    assert_eq!(rig.peer.processed(), [0, 1]);
    rig.assert_rest().await;
}

/// The slot of a cancelled stream is free only when the peer has seen the reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_after_sending_is_unknown_and_the_slot_comes_back_by_pong() {
    let rig = Rig::start(
        one_stream(10),
        1,
        |_, number| {
            if number == 1 { Reply::Hold } else { answer(0) }
        },
    )
    .await;
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    rig.peer.seen.withhold_pongs.store(true, Ordering::SeqCst);
    assert_eq!(send(&rig.pool, 1, 100).await.unwrap_err(), SendError::Unknown);
    eventually("the peer has seen the PING", || rig.peer.count(|seen| &seen.pings) == 1).await;
    assert_eq!(rig.peer.count(|seen| &seen.resets), 1);
    assert_eq!(rig.pool.status().streams_in_use, 1);
    rig.peer.seen.withhold_pongs.store(false, Ordering::SeqCst);
    assert!(send(&rig.pool, 2, 5_000).await.is_ok());
    assert_eq!(rig.peer.count(|seen| &seen.connections), 1);
    assert_eq!(rig.peer.count(|seen| &seen.violations), 0);
    rig.assert_rest().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_send_gives_its_stream_back() {
    let rig = Rig::start(
        one_stream(10),
        1,
        |_, number| {
            if number == 1 { Reply::Hold } else { answer(0) }
        },
    )
    .await;
    assert!(send(&rig.pool, 0, 5_000).await.is_ok());
    let pool = rig.pool.clone();
    let held = tokio::spawn(async move { send(&pool, 1, 60_000).await });
    eventually("1 is held", || rig.peer.seen.times(1) == 1).await;
    held.abort();
    assert!(send(&rig.pool, 2, 5_000).await.is_ok());
    assert_eq!(rig.peer.count(|seen| &seen.resets), 1);
    rig.assert_rest().await;
}

/// Waiters go away in the middle of the queue; those behind them are served all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_waiter_passes_its_slot_on() {
    let rig = Rig::start(one_stream(1_000), 1, |_, _| answer(1)).await;
    for round in 0..20_u64 {
        let mut sends = Vec::new();
        for place in 0..20 {
            let pool = rig.pool.clone();
            let number = round * 20 + place;
            sends.push(tokio::spawn(async move { send(&pool, number, 20_000).await }));
        }
        // At different times of the queue's life, so that some hold a slot already.
        sleep(Duration::from_micros(300 * round)).await;
        for waiter in sends.iter().step_by(2) {
            waiter.abort();
        }
        for (place, waiter) in sends.into_iter().enumerate() {
            if place % 2 == 1 {
                assert!(waiter.await.unwrap().is_ok(), "round {round}, place {place}");
            }
        }
    }
    assert_eq!(rig.peer.count(|seen| &seen.violations), 0);
    rig.assert_rest().await;
}

/// One request holds the only stream until all others stand in line, one behind the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_requests_are_served_in_order() {
    let line: Vec<_> = (1..=50).map(|number| (Class::Ordinary, number)).collect();
    let line = served_behind_one(&line).await;
    assert_eq!(line, (0..=50).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_cut_at_its_limit_and_the_connection_lives_on() {
    let rig = Rig::start(one_stream(10), 10, |_, number| Reply::Answer {
        after: Duration::ZERO,
        status: 400,
        body: vec![b'x'; if number == 0 { 60_000 } else { 100 }],
    })
    .await;
    let cut = send(&rig.pool, 0, 5_000).await.unwrap();
    assert_eq!((cut.status.as_u16(), cut.body.len(), cut.complete), (400, 16_384, false));
    for number in 1..200 {
        let whole = send(&rig.pool, number, 5_000).await.unwrap();
        assert_eq!((whole.body.len(), whole.complete), (100, true));
    }
    assert_eq!(rig.peer.count(|seen| &seen.connections), 1);
    rig.assert_rest().await;
}

/// Low and ordinary messages stand in line, and then the alarms come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_overtakes_all_who_wait_and_a_low_message_none() {
    let line = served_behind_one(&[
        (Class::Low, 1),
        (Class::Ordinary, 2),
        (Class::Low, 3),
        (Class::Ordinary, 4),
        (Class::Alarm, 5),
        (Class::Alarm, 6),
    ])
    .await;
    assert_eq!(line, [0, 5, 6, 2, 4, 1, 3]);
}

/// The peer answers nothing for a while: newcomers hear so at once, an alarm waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_has_waited_too_long_takes_no_more_but_alarms() {
    let limits = Limits { waiting_ms_max: 50, ..one_stream(1_000) };
    let rig = Rig::start(limits, 1, |_, _| answer(400)).await;
    let ordinary = Class::Ordinary;
    let (on_stream, waits, shed, alarm) = tokio::join!(
        send_as(ordinary, &rig.pool, 0, 20_000),
        async {
            eventually("0 is on its stream", || rig.peer.seen.times(0) == 1).await;
            send_as(ordinary, &rig.pool, 1, 20_000).await
        },
        async {
            eventually("1 waits", || rig.pool.status().waiting == 1).await;
            sleep(Duration::from_millis(100)).await;
            let asked_at = Instant::now();
            (send_as(ordinary, &rig.pool, 2, 20_000).await, asked_at.elapsed())
        },
        async {
            eventually("1 waits", || rig.pool.status().waiting == 1).await;
            sleep(Duration::from_millis(100)).await;
            send_as(Class::Alarm, &rig.pool, 3, 20_000).await
        },
    );
    assert!(on_stream.is_ok() && waits.is_ok() && alarm.is_ok());
    assert_eq!(shed.0.unwrap_err(), SendError::Shed(ShedReason::QueueSlow));
    assert!(shed.1 < Duration::from_millis(200), "it was told after {:?}", shed.1);
    assert_eq!(rig.peer.processed_in_order(), [0, 3, 1]);
    rig.assert_rest().await;
}

/// Requests whose deadline passed in the queue make room for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_has_gone_leaves_the_queue() {
    let rig = Rig::start(one_stream(3), 1, |_, _| answer(600)).await;
    let later = async {
        eventually("0 is on its stream", || rig.peer.seen.times(0) == 1).await;
        let (a, b, c) =
            tokio::join!(send(&rig.pool, 1, 50), send(&rig.pool, 2, 50), send(&rig.pool, 3, 50));
        for gone in [a, b, c] {
            assert_eq!(gone.unwrap_err(), SendError::Shed(ShedReason::Deadline));
        }
        assert_eq!(rig.pool.status().waiting, 0);
        send(&rig.pool, 4, 5_000).await
    };
    let (first, last) = tokio::join!(send(&rig.pool, 0, 5_000), later);
    assert!(first.is_ok() && last.is_ok(), "{first:?} {last:?}");
    assert_eq!(rig.peer.processed(), [0, 4]);
}
