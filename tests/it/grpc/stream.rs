//! What only a stream can do: acknowledgements, back-pressure, deadlines, ends.

use std::time::Duration;

use futures_util::StreamExt as _;
use sns_loadtest::device::DeviceKind;
use sns_loadtest::sim::journal::MessageKey;
use sns_loadtest::sim::script::Step;
use sns_proto::v1::{self, stream_request};
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::{PATIENCE, Party, channel, stream_push, told};
use crate::cluster::Cluster;
use crate::house::House;
use crate::process::Process;

/// A thousand messages on one call, one of them bad: each is acknowledged once.
#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_a_stream_is_acknowledged_once() {
    const MESSAGES: u64 = 1_000;
    let party = Party::with_ios().await;
    let (sender, mut acknowledgements) = party.open(channel(None)).await.unwrap();
    let messages: Vec<v1::StreamRequest> = (0..MESSAGES)
        .map(|sequence| match sequence {
            500 => v1::StreamRequest { sequence, message: None },
            501 => {
                let notify = stream_request::Message::Notify(party.notify());
                v1::StreamRequest { sequence, message: Some(notify) }
            }
            _ => stream_push(sequence, party.push()),
        })
        .collect();
    let keys: Vec<MessageKey> = messages
        .iter()
        .filter_map(|message| match message.message.as_ref()? {
            stream_request::Message::Push(push) => Some(MessageKey::sealed(&push.sealed)),
            stream_request::Message::Notify(notify) => {
                Some(MessageKey::sealed(&notify.targets[0].sealed))
            }
        })
        .collect();
    let sending = async move {
        for message in messages {
            sender.send(message).await.unwrap();
        }
    };
    let reading = async {
        let mut seen = std::collections::BTreeMap::new();
        while let Some(acknowledgement) = acknowledgements.next().await {
            let acknowledgement = acknowledgement.unwrap();
            assert_eq!(acknowledgement.results.len(), 1);
            let result = acknowledgement.results.into_iter().next().unwrap();
            assert!(seen.insert(acknowledgement.sequence, result).is_none());
        }
        seen
    };
    let ((), seen) = timeout(PATIENCE, async { tokio::join!(sending, reading) }).await.unwrap();
    assert_eq!(seen.len() as u64, MESSAGES);
    for (sequence, result) in seen {
        let expected = if sequence == 500 { v1::Outcome::Refused } else { v1::Outcome::Accepted };
        assert_eq!(result.outcome(), expected, "{sequence}: {}", result.reason);
    }
    let acceptances = party.house.stage.apns.journal().acceptances();
    assert!(keys.iter().all(|key| acceptances.get(key) == Some(&1)));
}

/// Nobody reads the acknowledgements: messages stop to be taken; read, they go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_does_not_read_is_slowed_and_loses_nothing() {
    const MESSAGES: u64 = 6_000;
    let house = House::with(|stage| {
        stage.make_room();
        stage.set_key("server.grpc_stream_messages_max", 16);
    })
    .await;
    let party = Party::at(house, DeviceKind::Ios).await;
    let (sender, mut acknowledgements) = party.open(channel(Some(1_024))).await.unwrap();
    let push = party.push();
    let sending = tokio::spawn(async move {
        for sequence in 0..MESSAGES {
            sender.send(stream_push(sequence, push.clone())).await.unwrap();
        }
    });
    let journal = party.house.stage.apns.journal();
    let mut taken = 0;
    let mut unchanged = 0;
    while unchanged < 20 {
        sleep(Duration::from_millis(50)).await;
        unchanged = if journal.accepted() == taken { unchanged + 1 } else { 0 };
        taken = journal.accepted();
    }
    // What fits the windows and buffers between us, and no more.
    assert!(taken < MESSAGES / 2, "{taken} were taken though nothing was read");
    let mut read = 0;
    while let Some(acknowledgement) = timeout(PATIENCE, acknowledgements.next()).await.unwrap() {
        assert_eq!(acknowledgement.unwrap().results[0].outcome(), v1::Outcome::Accepted);
        read += 1;
    }
    sending.await.unwrap();
    assert_eq!((read, journal.accepted()), (MESSAGES, MESSAGES));
}

/// The authorization is good for half a day; then the stream goes on, and its messages do not.
#[tokio::test(flavor = "multi_thread")]
async fn messages_after_the_authorizations_end_are_refused() {
    let party = Party::with_ios().await;
    let (sender, mut acknowledgements) = party.open(channel(None)).await.unwrap();
    sender.send(stream_push(1, party.push())).await.unwrap();
    let first = acknowledgements.next().await.unwrap().unwrap();
    assert_eq!(first.results[0].outcome(), v1::Outcome::Accepted);
    party.house.pass_time(13 * 3600);
    sender.send(stream_push(2, party.push())).await.unwrap();
    let second = acknowledgements.next().await.unwrap().unwrap();
    assert_eq!(second.results[0].reason, "vapid_expired");
    drop(sender);
    assert!(acknowledgements.next().await.is_none(), "the stream ends well");
}

/// A call's own deadline reaches Apple's answer; a sender that leaves is waited for no longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_honoured_and_a_cancelled_call_is_given_up() {
    let mut party = Party::with_ios().await;
    party.house.stage.apns.script().standing(Step::Stall);
    let mut request = party.signed(party.push());
    request.set_timeout(Duration::from_millis(400));
    let asked_at = Instant::now();
    let status = party.grpc.push(request).await.unwrap_err();
    assert!(asked_at.elapsed() < Duration::from_secs(5));
    assert_eq!((status.code(), told(&status).0.as_str()), (Code::DeadlineExceeded, "no_answer"));

    let (sender, acknowledgements) = party.open(channel(None)).await.unwrap();
    sender.send(stream_push(1, party.push())).await.unwrap();
    assert!(party.house.stage.apns.journal().wait_requests(2, PATIENCE).await);
    let stats = || party.house.stage.apns.connections().stats();
    let open = || stats().iter().map(|connection| connection.streams_open).sum::<usize>();
    assert_eq!(open(), 1);
    drop((sender, acknowledgements));
    let until = Instant::now() + PATIENCE;
    while open() > 0 {
        assert!(Instant::now() < until, "the request to Apple is still open");
        sleep(Duration::from_millis(10)).await;
    }
}

/// Two calls are allowed, the third is told to wait; when one ends there is room again.
#[tokio::test(flavor = "multi_thread")]
async fn a_sender_has_a_bounded_number_of_streams() {
    let house = House::with(|stage| stage.set_key("server.grpc_streams_per_sender_max", 2)).await;
    let party = Party::at(house, DeviceKind::Ios).await;
    let first = party.open(channel(None)).await.unwrap();
    let _second = party.open(channel(None)).await.unwrap();
    let refused = party.open(channel(None)).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert_eq!(told(&refused).0, "too_many_streams");
    drop(first);
    let until = Instant::now() + PATIENCE;
    while party.open(channel(None)).await.is_err() {
        assert!(Instant::now() < until, "a place comes back");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The relay stops with a message in work: it is acknowledged, and then the stream is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_acknowledges_what_is_in_work_and_ends_the_stream() {
    let mut party = Party::with_ios().await;
    party.house.stage.apns.script().latency(Duration::from_millis(500));
    let (sender, mut acknowledgements) = party.open(channel(None)).await.unwrap();
    sender.send(stream_push(7, party.push())).await.unwrap();
    assert!(party.house.stage.apns.journal().wait_requests(1, PATIENCE).await);
    let reading = async {
        let acknowledged = acknowledgements.next().await.unwrap().unwrap();
        (acknowledged, acknowledgements.next().await.unwrap().unwrap_err())
    };
    let stopping = party.house.stop();
    let (read, ()) = timeout(PATIENCE, async { tokio::join!(reading, stopping) }).await.unwrap();
    let (acknowledged, status) = read;
    assert_eq!(acknowledged.sequence, 7);
    assert_eq!(acknowledged.results[0].outcome(), v1::Outcome::Accepted);
    assert_eq!((status.code(), told(&status).0.as_str()), (Code::Unavailable, "draining"));
}

/// The operator's command stops a NAS whose call is open and idle: the call ends by itself, with a
/// file and with a server.
#[tokio::test(flavor = "multi_thread")]
async fn the_open_call_of_a_nas_that_is_stopped_ends() {
    let database = Cluster::shared().await.database().await;
    for keys in [&[][..], &database.keys()[..]] {
        let house = House::with(|stage| {
            keys.iter().for_each(|(key, value)| stage.set_key(key, value.as_str()));
        })
        .await;
        let party = Party::at(house, DeviceKind::Ios).await;
        let (sender, mut acknowledgements) = party.open(channel(None)).await.unwrap();
        let notify = |sequence| v1::StreamRequest {
            sequence,
            message: Some(stream_request::Message::Notify(party.notify())),
        };
        sender.send(notify(1)).await.unwrap();
        let acknowledged = acknowledgements.next().await.unwrap().unwrap();
        assert_eq!(acknowledged.results[0].outcome(), v1::Outcome::Accepted);
        let ds_id = party.house.client.identity(&party.sender).await.unwrap().ds_id;
        Process::run(&party.house.config_file, &["nas", "revoke", &ds_id]);
        let end = timeout(Duration::from_secs(2), acknowledgements.next()).await;
        let status = end.expect("within two seconds").unwrap().unwrap_err();
        assert_eq!(told(&status).0, "nas_suspended");
    }
}
