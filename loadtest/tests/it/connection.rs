//! Connections and streams: limits, GOAWAY, refusals, stalls, drops.

use std::time::Duration;

use sns_loadtest::sim::journal::StreamOutcome;
use sns_loadtest::sim::script::{GoAway, Step};

use crate::apns::{Bench, push};
use crate::client::{Client, finish};

const SOON: Duration = Duration::from_secs(5);
const PAYLOAD: &[u8] = br#"{"aps":{"alert":"."}}"#;

fn open(client: &mut Client, token: &str) -> h2::client::ResponseFuture {
    let headers =
        [("authorization", token), ("apns-topic", "org.example.app"), ("apns-push-type", "alert")];
    client.open(&format!("/3/device/{}", "ab".repeat(32)), &headers, PAYLOAD)
}

fn device() -> String {
    "ab".repeat(32)
}

/// One stream until the first answer, then the configured limit, then whatever a test sets.
#[tokio::test]
async fn the_stream_limit_opens_after_the_first_answer_and_follows_the_test() {
    let bench = Bench::start_with(|config| config.stream_limit = 50).await;
    let (mut client, token) = (bench.client().await, bench.token());
    let limit = || bench.sim.connections().stats()[0].stream_limit;
    assert_eq!(push(&mut client, "bearer x.y.z", &device()).await.status, 403);
    assert_eq!(limit(), 1);
    assert_eq!(push(&mut client, &token, &device()).await.status, 200);
    assert_eq!(push(&mut client, &token, &device()).await.status, 200);
    assert_eq!(limit(), 50);

    bench.sim.script().latency(Duration::from_millis(200));
    let answers: Vec<_> =
        (0..50).map(|_| tokio::spawn(finish(open(&mut client, &token)))).collect();
    for answer in answers {
        assert_eq!(answer.await.unwrap().unwrap().status, 200);
    }
    assert_eq!(bench.sim.connections().streams_max(), 50);

    bench.sim.connections().set_stream_limit(2);
    // A whole exchange later the client has acknowledged the new limit.
    assert_eq!(push(&mut client, &token, &device()).await.status, 200);
    assert_eq!(limit(), 2);
    assert_eq!(bench.sim.connections().excess_streams(), 0);
    assert_eq!(bench.sim.connections().early_streams(), 0);
}

/// Streams that the h2 client opens before it has read the first SETTINGS are refused and counted
/// as early, never as excess.
#[tokio::test]
async fn surplus_streams_are_refused_and_counted() {
    let bench = Bench::start().await;
    let (mut client, token) = (bench.client().await, bench.token());
    bench.sim.script().latency(Duration::from_millis(100));
    let answers: Vec<_> = (0..5).map(|_| tokio::spawn(finish(open(&mut client, &token)))).collect();
    let mut refused = 0;
    for answer in answers {
        match answer.await.unwrap() {
            Ok(got) => assert_eq!(got.status, 200),
            Err(error) => {
                assert_eq!(error.reason(), Some(h2::Reason::REFUSED_STREAM));
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 4);
    let connections = bench.sim.connections();
    assert_eq!((connections.early_streams(), connections.excess_streams()), (4, 0));
    assert_eq!(bench.sim.journal().requests(), 1);
}

/// A graceful GOAWAY answers what is open, carries its debug data, and then the connection ends.
#[tokio::test]
async fn a_graceful_goaway_answers_open_streams() {
    let bench = Bench::start().await;
    let (mut client, token) = (bench.client().await, bench.token());
    assert_eq!(push(&mut client, &token, &device()).await.status, 200);
    bench.sim.script().latency(Duration::from_millis(200));
    let answer = tokio::spawn(finish(open(&mut client, &token)));
    assert!(bench.sim.journal().wait_requests(2, SOON).await);
    let go_away = GoAway::graceful().saying(h2::Reason::NO_ERROR, r#"{"reason":"Shutdown"}"#);
    bench.sim.connections().go_away(&go_away);
    assert_eq!(answer.await.unwrap().unwrap().status, 200);
    let headers = [("authorization", token.as_str())];
    let error = client.post("/3/device/ab", &headers, PAYLOAD).await.unwrap_err();
    assert!(error.is_go_away() && error.to_string().contains("Shutdown"), "{error}");
}

/// After N requests the connection goes away; what it had not processed is disowned, what it had
/// processed is answered.
#[tokio::test]
async fn a_cutting_goaway_disowns_what_was_not_processed() {
    let bench = Bench::start().await;
    let (mut client, token) = (bench.client().await, bench.token());
    assert_eq!(push(&mut client, &token, &device()).await.status, 200);
    bench.sim.script().latency(Duration::from_millis(300));
    bench.sim.script().go_away_after(2, GoAway::cutting());
    let kept = tokio::spawn(finish(open(&mut client, &token)));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let lost: Vec<_> = (0..3).map(|_| tokio::spawn(finish(open(&mut client, &token)))).collect();
    assert_eq!(kept.await.unwrap().unwrap().status, 200);
    for answer in lost {
        let error = answer.await.unwrap().unwrap_err();
        assert!(error.is_go_away() && error.is_remote(), "{error}");
    }
    assert_eq!(bench.sim.journal().accepted(), 2);
}

/// A refused stream, a reset one, a stalled one and a dropped connection, each as scripted.
#[tokio::test]
async fn faults_happen_as_scripted() {
    let bench = Bench::start().await;
    let (mut client, token) = (bench.client().await, bench.token());
    assert_eq!(push(&mut client, &token, &device()).await.status, 200);
    let script = bench.sim.script();
    script.next(1, Step::RefuseStream);
    script.next(1, Step::ResetStream(h2::Reason::INTERNAL_ERROR));
    script.next(1, Step::AcceptThenStall);
    script.next(1, Step::DropConnection);
    let reason = finish(open(&mut client, &token)).await.unwrap_err().reason();
    assert_eq!(reason, Some(h2::Reason::REFUSED_STREAM));
    let reason = finish(open(&mut client, &token)).await.unwrap_err().reason();
    assert_eq!(reason, Some(h2::Reason::INTERNAL_ERROR));
    let stalled =
        tokio::time::timeout(Duration::from_millis(200), finish(open(&mut client, &token)));
    assert!(stalled.await.is_err());
    assert_eq!(bench.sim.journal().accepted(), 2);
    assert!(finish(open(&mut client, &token)).await.is_err());
    let outcomes: Vec<_> =
        bench.sim.journal().entries().into_iter().map(|entry| entry.outcome).collect();
    assert_eq!(
        outcomes,
        [
            StreamOutcome::Answered(200),
            StreamOutcome::Reset,
            StreamOutcome::Reset,
            StreamOutcome::Stalled,
            StreamOutcome::Dropped,
        ]
    );
    assert_eq!(bench.sim.connections().live(), 0);
}

/// A frozen connection answers nothing until it is thawed; a service that is down closes at once.
#[tokio::test]
async fn connections_freeze_thaw_and_are_turned_away() {
    let bench = Bench::start().await;
    let (mut client, token) = (bench.client().await, bench.token());
    let device = device();
    assert_eq!(push(&mut client, &token, &device).await.status, 200);
    bench.sim.connections().freeze_all();
    let mut answer = Box::pin(push(&mut client, &token, &device));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut answer).await.is_err());
    bench.sim.connections().thaw_all();
    assert_eq!(answer.await.status, 200);
    bench.sim.connections().drop_all();
    bench.sim.connections().turn_away(true);
    let ca = bench.ca.clone();
    let base_url = bench.sim.base_url().to_owned();
    let refused = tokio::spawn(async move { Client::connect(&ca, &base_url).await }).await;
    assert!(refused.is_err());
    bench.sim.connections().turn_away(false);
    let mut client = bench.client().await;
    assert_eq!(push(&mut client, &token, &device).await.status, 200);
    assert_eq!(bench.sim.connections().opened(), 2);
}
