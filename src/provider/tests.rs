//! What every provider has in common: times to wait, and messages that got no answer.

mod wire;

use prometheus::IntGauge;

use super::upstream::{Counters, DialFault, FaultKind, ShedReason};
use super::*;

pub(in crate::provider) fn renewal_metrics() -> RenewalMetrics {
    let counter = || IntCounter::new("renewals", "of a credential").unwrap();
    RenewalMetrics { renewals: counter(), failures: counter() }
}

/// Trusts nobody: for pools whose connections a test brings along.
pub(in crate::provider) fn bare_tls() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
}

pub(in crate::provider) fn bare_pool(host: &str) -> Arc<Pool> {
    let origin = Origin::new(host, 443).unwrap();
    let (tls, metrics) = (Arc::new(bare_tls()), pool_metrics());
    Pool::new(origin, tls, AddressGuard::Any, Limits::default(), metrics)
}

pub(in crate::provider) fn pool_metrics() -> Arc<PoolMetrics> {
    let counter = || IntCounter::new("events", "of a pool").unwrap();
    let gauge = || IntGauge::new("things", "of a pool").unwrap();
    Arc::new(PoolMetrics {
        connections: gauge(),
        streams_in_use: gauge(),
        waiting: gauge(),
        opened: counter(),
        closed: Counters::resolve(|_| counter()),
        sheds: Counters::resolve(|_| counter()),
        replays: Counters::resolve(|_| counter()),
        goaways: Counters::resolve(|_| counter()),
        dial_failures: Counters::resolve(|_| counter()),
    })
}

#[test]
fn what_got_no_answer_is_never_refused_or_gone() {
    let fault = |retry_after| DialFault { kind: FaultKind::Connect, retry_after };
    let not_now = |code, s| Outcome::NotNow { code, retry_after: Duration::from_secs(s) };
    let rows = [
        (SendError::Shed(ShedReason::QueueFull), not_now(Code::PushServiceBusy, 2)),
        (SendError::Shed(ShedReason::Deadline), not_now(Code::PushServiceBusy, 2)),
        (
            SendError::NotSent(fault(Duration::from_millis(50))),
            not_now(Code::PushServiceUnreachable, 1),
        ),
        (
            SendError::NotSent(fault(Duration::from_secs(30))),
            not_now(Code::PushServiceUnreachable, 30),
        ),
        (SendError::Unknown, Outcome::Unknown { code: Code::NoAnswer }),
    ];
    for (error, outcome) in rows {
        assert_eq!(outcome_of(error), outcome, "{error:?}");
    }
}

#[test]
fn a_retry_after_is_seconds_or_a_date_within_bounds() {
    let now = 1_700_000_000; // Tue, 14 Nov 2023 22:13:20 GMT
    let rows = [
        ("30", Some(30)),
        (" 7 ", Some(7)),
        ("0", Some(1)),
        ("86401", Some(86_400)),
        ("99999999999999999999999", Some(86_400)),
        ("Tue, 14 Nov 2023 22:14:20 GMT", Some(60)),
        ("Tue, 14 Nov 2023 22:13:00 GMT", Some(1)),
        ("Sat, 14 Nov 2043 22:13:00 GMT", Some(86_400)),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
    ];
    for (text, wait_s) in rows {
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, text.parse().unwrap());
        assert_eq!(retry_after(&headers, now), wait_s.map(Duration::from_secs), "{text:?}");
    }
    assert_eq!(retry_after(&HeaderMap::new(), now), None);
}
