//! Push services that do not answer: too slow, broken off, or not there at all.

use std::time::Duration;

use sns_loadtest::device::DeviceKind;
use sns_loadtest::sim::script::Step;
use sns_loadtest::stage::Stage;
use tokio::time::{Instant, sleep};

use super::{Heard, Line, accepted, not_now, unknown};
use crate::house::KINDS;

/// A port of this machine where nobody listens: tcpmux, which needs root and is long dead.
const CLOSED: &str = "https://localhost:1";

/// The sender has its answer soon after the relay's own limit, however long the service thinks.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_gets_no_answer_by_the_deadline_has_an_unknown_fate() {
    for kind in KINDS {
        let line = Line::with(kind, |stage| stage.set_key("server.request_timeout_ms", 1500)).await;
        assert_eq!(accepted_in_the_end(&line).await, accepted(), "{kind:?}");
        for step in [Step::Stall, Step::AcceptThenStall] {
            line.script().next(1, step);
            let before = line.arrived().len();
            let asked_at = Instant::now();
            assert_eq!(line.push().await, unknown(), "{kind:?}");
            assert!(asked_at.elapsed() < Duration::from_secs(10), "{kind:?}");
            assert_eq!(line.arrived().len() - before, 1, "{kind:?}: nothing is sent twice");
        }
        assert_eq!(line.push().await, accepted(), "{kind:?}");
    }
}

/// The push service may have processed the message, so that only the sender may repeat it.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_connection_breaks_has_an_unknown_fate_and_is_not_sent_twice() {
    for kind in KINDS {
        let line = Line::to(kind).await;
        assert_eq!(line.push().await, accepted());
        let broken = [
            (Step::AcceptThenDrop, 1),
            (Step::DropConnection, 0),
            (Step::ResetStream(h2::Reason::INTERNAL_ERROR), 0),
            (Step::ResetStream(h2::Reason::CANCEL), 0),
        ];
        for (step, deliveries) in broken {
            let name = format!("{kind:?} {step:?}");
            let (before, read) = (line.arrived().len(), line.house.read_by(&line.device).len());
            line.script().next(1, step);
            assert_eq!(line.push().await, unknown(), "{name}");
            assert_eq!(line.arrived().len() - before, 1, "{name}");
            assert_eq!(line.house.read_by(&line.device).len() - read, deliveries, "{name}");
            assert_eq!(line.push().await, accepted(), "after {name}");
        }
    }
}

/// REFUSED_STREAM says that nothing was processed (RFC 9113 section 8.7).
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_stream_is_sent_once_more_and_the_sender_hears_nothing_of_it() {
    for kind in KINDS {
        let line = Line::to(kind).await;
        assert_eq!(line.push().await, accepted());
        line.script().next(1, Step::RefuseStream);
        assert_eq!(line.push().await, accepted(), "{kind:?}");
        assert_eq!(line.arrived().len(), 3, "{kind:?}");
        assert_eq!(line.house.read_by(&line.device).len(), 2, "{kind:?}");
    }
}

/// Connections are closed as soon as they are made, then taken again.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_service_that_is_down_is_unreachable_until_it_is_back() {
    for kind in KINDS {
        let line = Line::to(kind).await;
        assert_eq!(line.push().await, accepted());
        line.connections().turn_away(true);
        line.connections().drop_all();
        let before = line.arrived().len();
        let heard = heard_past_the_last_connection(&line).await;
        assert_unreachable(kind, &heard);
        assert_unreachable(kind, &line.push().await);
        assert_eq!(line.arrived().len(), before, "{kind:?}: nothing was sent");
        line.connections().turn_away(false);
        assert_eq!(accepted_in_the_end(&line).await, accepted(), "{kind:?}");
    }
}

/// Nobody listens at the push service's port.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_service_behind_a_closed_port_is_unreachable() {
    let apns = |stage: &mut Stage| stage.set_key("apns.production_url", CLOSED);
    let line = Line::with(DeviceKind::Ios, apns).await;
    assert_unreachable(line.kind, &line.push().await);
    let fcm = |stage: &mut Stage| stage.set_key("fcm.base_url", CLOSED);
    let line = Line::with(DeviceKind::Android, fcm).await;
    assert_unreachable(line.kind, &line.push().await);
    // The token endpoint stands elsewhere, and answered.
    assert_eq!(line.journal().token_fetches(), 1);
}

/// The service's certificate is of another authority than the relay trusts.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_service_that_the_relay_does_not_trust_gets_no_message() {
    for kind in KINDS {
        let line = Line::with(kind, |stage| {
            let other = sns_loadtest::ca::TestCa::new().unwrap();
            std::fs::write(stage.folder().join("other.pem"), other.pem()).unwrap();
            for service in ["apns", "fcm", "webpush"] {
                stage.set_key(&format!("{service}.ca_file"), "other.pem");
            }
        })
        .await;
        let heard = line.push().await;
        match kind {
            // The token endpoint is the first that cannot be trusted.
            DeviceKind::Android => assert_eq!(heard.code, "oauth_unavailable"),
            DeviceKind::Ios | DeviceKind::Browser => assert_unreachable(kind, &heard),
        }
        assert!(line.arrived().is_empty(), "{kind:?}");
    }
}

fn assert_unreachable(kind: DeviceKind, heard: &Heard) {
    let wait = heard.retry_after_s.unwrap_or_default();
    assert_eq!(*heard, not_now(503, "push_service_unreachable", wait), "{kind:?}");
    assert!((1..=60).contains(&wait), "{kind:?}: {wait}");
}

/// Whether a message is written before the relay sees that its connection is gone, is a race.
async fn heard_past_the_last_connection(line: &Line) -> Heard {
    let heard = line.push().await;
    if heard == unknown() { line.push().await } else { heard }
}

/// Sends until a message is accepted, as a sender that retries would; thirty seconds at most.
pub(super) async fn accepted_in_the_end(line: &Line) -> Heard {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let heard = line.push().await;
        if heard == accepted() || Instant::now() > until {
            return heard;
        }
        sleep(Duration::from_secs(heard.retry_after_s.unwrap_or(1))).await;
    }
}
