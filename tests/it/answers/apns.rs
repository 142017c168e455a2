//! Apple's table.

use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use sns_loadtest::device::DeviceKind;
use sns_loadtest::sim::apns::{error, gone as unregistered};
use sns_loadtest::sim::journal::StreamOutcome;
use sns_loadtest::sim::script::{Answer, Step};
use sns_loadtest::stage::Stage;

use super::{
    Line, Row, accepted, after, assert_complete, gone, gone_since, misconfigured, not_now, page,
    refused, strange_bodies,
};

/// Apple allows another provider token after so long.
const TOKEN_AGE_S: u64 = 20 * 60;

/// Every reason that Apple documents, and those seen on the wire, each under its own status.
fn documented() -> Vec<Row> {
    let dead_at = |reason: &str, timestamp_ms: u64| {
        let body = serde_json::json!({ "reason": reason, "timestamp": timestamp_ms });
        Answer::json(http::StatusCode::GONE, &body)
    };
    let mut rows = vec![
        Row::new(error(400, "BadDeviceToken"), gone("apns_bad_device_token")),
        Row::new(error(400, "IdleTimeout"), not_now(503, "apns_idle_timeout", 1)).twice(),
        Row::new(error(410, "Unregistered"), gone("apns_unregistered")),
        Row::new(
            unregistered(1_629_000_000_123),
            gone_since("apns_unregistered", "2021-08-15T04:00:00Z"),
        ),
        Row::new(error(410, "ExpiredToken"), gone("apns_expired_token")),
        Row::new(
            dead_at("ExpiredToken", 951_782_400_999),
            gone_since("apns_expired_token", "2000-02-29T00:00:00Z"),
        ),
        Row::new(error(413, "PayloadTooLarge"), refused(413, "apns_payload_too_large")),
        Row::new(
            error(429, "TooManyProviderTokenUpdates"),
            not_now(503, "apns_too_many_provider_token_updates", 60),
        ),
        Row::new(error(429, "TooManyRequests"), not_now(429, "apns_too_many_requests", 60)),
        Row::new(
            error(500, "InternalServerError"),
            not_now(503, "apns_internal_server_error", 900),
        ),
        Row::new(error(503, "ServiceUnavailable"), not_now(503, "apns_service_unavailable", 900)),
        Row::new(error(503, "Shutdown"), not_now(503, "apns_shutdown", 10)).twice(),
    ];
    let operators = [
        (400, "BadCollapseId", "apns_bad_collapse_id"),
        (400, "BadExpirationDate", "apns_bad_expiration_date"),
        (400, "BadMessageId", "apns_bad_message_id"),
        (400, "BadPriority", "apns_bad_priority"),
        (400, "BadTopic", "apns_bad_topic"),
        (400, "DeviceTokenNotForTopic", "apns_device_token_not_for_topic"),
        (400, "DuplicateHeaders", "apns_duplicate_headers"),
        (400, "InvalidPushType", "apns_invalid_push_type"),
        (400, "MissingDeviceToken", "apns_missing_device_token"),
        (400, "MissingTopic", "apns_missing_topic"),
        (400, "PayloadEmpty", "apns_payload_empty"),
        (400, "TopicDisallowed", "apns_topic_disallowed"),
        (403, "BadCertificate", "apns_bad_certificate"),
        (403, "BadCertificateEnvironment", "apns_bad_certificate_environment"),
        // The token is too young for another one.
        (403, "ExpiredProviderToken", "apns_expired_provider_token"),
        (403, "Forbidden", "apns_forbidden"),
        (403, "InvalidProviderToken", "apns_invalid_provider_token"),
        (403, "MissingProviderToken", "apns_missing_provider_token"),
        (403, "UnrelatedKeyIdInToken", "apns_unrelated_key_id_in_token"),
        (403, "BadEnvironmentKeyIdInToken", "apns_bad_environment_key_id_in_token"),
        (403, "BadEnvironmentKeyInToken", "apns_bad_environment_key_id_in_token"),
        (404, "BadPath", "apns_bad_path"),
        (405, "MethodNotAllowed", "apns_method_not_allowed"),
    ];
    let row = |(status, reason, code)| Row::new(error(status, reason), misconfigured(code));
    rows.extend(operators.map(row));
    rows
}

/// What a status says whose reason is unknown, or is another status's.
fn by_status() -> Vec<Row> {
    let other = |status| match status {
        429 => not_now(503, "apns_other_throttle", 60),
        500..=599 => not_now(503, "apns_other_server_error", 900),
        _ => misconfigured("apns_other_rejection"),
    };
    let mut rows = Vec::new();
    for status in [302, 400, 401, 403, 404, 405, 410, 413, 418, 429, 500, 502, 503, 504, 599] {
        for reason in ["Unheard", "", "unregistered"] {
            rows.push(Row::new(error(status, reason), other(status)));
        }
        if status != 410 {
            rows.push(Row::new(unregistered(1_629_000_000_123), other(status)));
            let last = rows.last_mut().unwrap();
            last.says.status = http::StatusCode::from_u16(status).unwrap();
        }
        if !matches!(status, 403) {
            rows.push(Row::new(error(status, "ExpiredProviderToken"), other(status)));
        }
    }
    for body in strange_bodies() {
        for status in [400, 403, 410, 429, 502, 503] {
            rows.push(Row::new(page(status, body.clone()), other(status)));
        }
    }
    // Apple documents no header of this kind: its own rules decide.
    let down = after(error(503, "ServiceUnavailable"), "5");
    rows.push(Row::new(down, not_now(503, "apns_service_unavailable", 900)));
    // A reason in a body that is too long to be read whole is no reason.
    let long = format!(r#"{{"reason":"Unregistered","pad":"{}"}}"#, "x".repeat(1 << 20));
    rows.push(Row::new(page(410, long), other(410)));
    rows
}

/// One relay, a row after the other.
#[tokio::test(flavor = "multi_thread")]
async fn every_documented_reason_of_apples_is_told_to_the_sender() {
    Line::to(DeviceKind::Ios).await.play(&documented()).await;
}

/// One relay, a row after the other.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_apple_does_not_document_goes_by_its_status_and_is_never_gone() {
    let rows = by_status();
    assert!(rows.iter().all(|row| row.heard.outcome != "gone"));
    Line::to(DeviceKind::Ios).await.play(&rows).await;
}

/// The time of a death that cannot be told is left out; the device is dead all the same.
fn timestamps() -> Vec<Row> {
    let told = [
        ("0", "1970-01-01T00:00:00Z"),
        ("1629000000999", "2021-08-15T04:00:00Z"),
        ("253402300799999", "9999-12-31T23:59:59Z"),
    ];
    // RFC 3339 ends with the year 9999.
    let untold = ["253402300800000", "18446744073709551615", "-1", "1.5", "\"0\"", "null", "{}"];
    let says =
        |timestamp| page(410, format!(r#"{{"reason":"Unregistered","timestamp":{timestamp}}}"#));
    let told = told.map(|(ms, since)| Row::new(says(ms), gone_since("apns_unregistered", since)));
    let untold = untold.map(|ms| Row::new(says(ms), gone("apns_unregistered")));
    told.into_iter().chain(untold).collect()
}

/// One relay, a row after the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_time_of_death_is_told_only_where_it_is_one() {
    Line::to(DeviceKind::Ios).await.play(&timestamps()).await;
}

/// The tables against the list of codes.
#[test]
fn every_code_of_apples_is_heard_over_the_wire() {
    assert_complete("apns_", documented().iter().chain(&by_status()));
}

/// The simulator says each once, then accepts.
#[tokio::test(flavor = "multi_thread")]
async fn what_apple_certainly_did_not_process_is_sent_once_more() {
    let line = Line::to(DeviceKind::Ios).await;
    line.check_second_try(error(400, "IdleTimeout")).await;
    line.check_second_try(error(503, "Shutdown")).await;
    line.house.pass_time(TOKEN_AGE_S);
    line.check_second_try(error(403, "ExpiredProviderToken")).await;
    assert_eq!(line.journal().credentials_seen(), 2);
}

/// The second answer is an error of another kind: it is the one that counts.
#[tokio::test(flavor = "multi_thread")]
async fn the_second_answer_is_the_one_that_is_told() {
    let line = Line::to(DeviceKind::Ios).await;
    line.script().next(1, Step::Answer(error(503, "Shutdown")));
    let row = Row::new(unregistered(1_629_000_000_123), gone("apns_unregistered")).twice();
    let since = gone_since("apns_unregistered", "2021-08-15T04:00:00Z");
    line.check(&Row { heard: since, ..row }).await;
}

/// Apple refuses every token: one renewal, one more request, and the operator is to blame.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_token_that_is_refused_twice_is_told_to_the_sender() {
    let line = Line::to(DeviceKind::Ios).await;
    line.house.pass_time(TOKEN_AGE_S);
    let refused = error(403, "ExpiredProviderToken");
    let row = Row::new(refused, misconfigured("apns_expired_provider_token"));
    line.check(&row.twice()).await;
    // The fresh token is too young for another one.
    line.check(&Row::new(
        error(403, "ExpiredProviderToken"),
        misconfigured("apns_expired_provider_token"),
    ))
    .await;
    assert_eq!(line.journal().credentials_seen(), 2);
}

/// Apple's clock runs ahead, so that it finds the token of 50 messages in flight too old.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_messages_with_an_expired_provider_token_renew_it_once() {
    let line = Arc::new(Line::to(DeviceKind::Ios).await);
    assert_eq!(line.push().await, accepted());
    line.house.stage.apns.advance_clock(Duration::from_secs(61 * 60));
    line.house.pass_time(TOKEN_AGE_S + 60);
    line.script().latency(Duration::from_millis(500));
    assert_eq!(line.push_at_once(50).await, vec![accepted(); 50]);
    let arrived = line.arrived();
    let expired = arrived.iter().filter(|end| **end == StreamOutcome::Answered(403)).count();
    assert!(expired > 1, "only {expired} messages met the old token");
    assert_eq!(arrived.len(), 1 + 50 + expired);
    assert_eq!(line.journal().credentials_seen(), 2);
}

/// The app's credential is a client certificate, for which no token is made.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_reaches_a_device() {
    let line = Line::with(DeviceKind::Ios, with_certificate).await;
    assert_eq!(line.push().await, accepted());
    assert_eq!(line.house.read_by(&line.device), ["hello from the NAS"]);
    // There is no token to renew.
    for reason in ["ExpiredProviderToken", "BadCertificate", "BadCertificateEnvironment"] {
        let snake = match reason {
            "ExpiredProviderToken" => "apns_expired_provider_token",
            "BadCertificate" => "apns_bad_certificate",
            _ => "apns_bad_certificate_environment",
        };
        line.check(&Row::new(error(403, reason), misconfigured(snake))).await;
    }
    let entries = line.journal().entries();
    assert!(entries.iter().all(|entry| !entry.headers.contains_key(AUTHORIZATION)));
    assert_eq!(line.journal().credentials_seen(), 0);
}

/// A certificate of another app is refused by the simulator's own check, as Apple's.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_of_another_app_is_the_operators_fault() {
    let line = Line::with(DeviceKind::Ios, |stage| certify(stage, "com.example.other")).await;
    assert_eq!(line.push().await, misconfigured("apns_topic_disallowed"));
}

fn with_certificate(stage: &mut Stage) {
    certify(stage, "com.example.chat");
}

/// Replaces the app's token key by a client certificate.
fn certify(stage: &mut Stage, bundle_id: &str) {
    let certificate = stage.ca.issue_client(bundle_id).unwrap();
    let pem = format!("{}{}", certificate.certificate_pem, certificate.key_pem);
    std::fs::write(stage.folder().join("apns.pem"), pem).unwrap();
    for key in ["key_file", "key_id", "team_id"] {
        stage.set_key(&format!("apps.chat.apns.{key}"), "");
    }
    stage.set_key("apps.chat.apns.certificate_file", "apns.pem");
}
