//! Google's table, and the token endpoint that stands before it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use sns_loadtest::device::DeviceKind;
use sns_loadtest::sim::fcm::{
    bad_request, device_quota_exceeded, error, gateway_error, oauth_error, project_quota_exceeded,
    third_party_auth_error,
};
use sns_loadtest::sim::journal::StreamOutcome;
use sns_loadtest::sim::script::{Answer, Step};
use tokio::task::JoinSet;

use super::silence::accepted_in_the_end;
use super::{
    Line, Row, accepted, after, assert_complete, gone, misconfigured, not_now, page, refused,
    strange_bodies,
};

/// Every error that Google documents, with an `FcmError` and without one.
fn documented() -> Vec<Row> {
    let coded = |status, canonical, code| error(status, canonical, Some(code));
    vec![
        Row::new(
            coded(400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
            refused(400, "fcm_invalid_argument"),
        ),
        Row::new(
            bad_request("message.data[0].value", "not a string"),
            misconfigured("fcm_bad_request"),
        ),
        Row::new(error(400, "INVALID_ARGUMENT", None), misconfigured("fcm_bad_request")),
        Row::new(third_party_auth_error(), misconfigured("fcm_third_party_auth_error")),
        Row::new(
            coded(401, "UNAUTHENTICATED", "APNS_AUTH_ERROR"),
            misconfigured("fcm_third_party_auth_error"),
        ),
        Row::new(
            coded(403, "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
            misconfigured("fcm_sender_id_mismatch"),
        ),
        Row::new(
            gateway_error(403, "PERMISSION_DENIED", "SERVICE_DISABLED"),
            misconfigured("fcm_permission_denied"),
        ),
        Row::new(error(403, "PERMISSION_DENIED", None), misconfigured("fcm_permission_denied")),
        Row::new(coded(404, "NOT_FOUND", "UNREGISTERED"), gone("fcm_unregistered")),
        Row::new(coded(404, "UNREGISTERED", "UNREGISTERED"), gone("fcm_unregistered")),
        Row::new(error(404, "NOT_FOUND", None), misconfigured("fcm_project_not_found")),
        Row::new(device_quota_exceeded(), not_now(429, "fcm_quota_exceeded", 60)),
        Row::new(
            coded(429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
            not_now(429, "fcm_quota_exceeded", 60),
        ),
        Row::new(project_quota_exceeded(), not_now(429, "fcm_project_quota_exceeded", 60)),
        Row::new(coded(500, "INTERNAL", "INTERNAL"), not_now(503, "fcm_internal", 10)),
        Row::new(error(500, "INTERNAL", None), not_now(503, "fcm_internal", 10)),
        Row::new(coded(503, "UNAVAILABLE", "UNAVAILABLE"), not_now(503, "fcm_unavailable", 10)),
        Row::new(error(503, "UNAVAILABLE", None), not_now(503, "fcm_unavailable", 10)),
    ]
}

/// Google's own wait counts, within bounds; never sooner than ten seconds.
fn waits() -> Vec<Row> {
    let down = || error(503, "UNAVAILABLE", Some("UNAVAILABLE"));
    let past = "Sun, 06 Nov 1994 08:49:37 GMT";
    let far = "Fri, 31 Dec 2100 23:59:59 GMT";
    let wait = |says: Answer, seconds| Row::new(says, not_now(503, "fcm_unavailable", seconds));
    vec![
        wait(after(down(), "120"), 120),
        wait(after(down(), "3"), 10),
        wait(after(down(), past), 10),
        wait(after(down(), far), 86_400),
        wait(after(down(), "99999999999999999999"), 86_400),
        wait(after(down(), "soon"), 10),
        wait(after(down(), "-1"), 10),
        Row::new(after(device_quota_exceeded(), "90"), not_now(429, "fcm_quota_exceeded", 90)),
        Row::new(
            after(project_quota_exceeded(), "240"),
            not_now(429, "fcm_project_quota_exceeded", 240),
        ),
        Row::new(after(page(429, ""), "7"), not_now(429, "fcm_other_throttle", 10)),
        Row::new(after(page(502, ""), "30"), not_now(503, "fcm_other_server_error", 30)),
    ]
}

/// A code that is unknown or another status's, and bodies that are not Google's.
fn by_status() -> Vec<Row> {
    let other = |status| match status {
        429 => not_now(429, "fcm_other_throttle", 60),
        500..=599 => not_now(503, "fcm_other_server_error", 10),
        _ => misconfigured("fcm_other_rejection"),
    };
    let bare = |status| match status {
        403 => misconfigured("fcm_permission_denied"),
        404 => misconfigured("fcm_project_not_found"),
        _ => other(status),
    };
    let mut rows = Vec::new();
    for status in [302, 400, 401, 403, 404, 405, 410, 413, 418, 429, 500, 502, 503, 504] {
        for code in ["UNSPECIFIED_ERROR", "UNHEARD", "unregistered"] {
            rows.push(Row::new(error(status, "X", Some(code)), other(status)));
        }
        if status != 404 {
            rows.push(Row::new(error(status, "NOT_FOUND", Some("UNREGISTERED")), other(status)));
        }
        if status != 401 {
            // The word alone, without an FcmError, kills no device.
            rows.push(Row::new(error(status, "UNREGISTERED", None), bare(status)));
        }
    }
    for body in strange_bodies() {
        for status in [400, 403, 404, 410, 429, 502, 503] {
            rows.push(Row::new(page(status, body.clone()), bare(status)));
        }
    }
    // A code in a body that is too long to be read whole is no code.
    let unregistered = error(404, "NOT_FOUND", Some("UNREGISTERED"));
    let open = unregistered.body.slice(..unregistered.body.len() - 1);
    let pad = format!(",\"pad\":\"{}\"}}", "x".repeat(1 << 20));
    let long = [open.as_ref(), pad.as_bytes()].concat();
    rows.push(Row::new(page(404, long), bare(404)));
    rows
}

/// Our own access token is refused: the two forms of it, and a gateway's page.
fn unauthenticated() -> Vec<Row> {
    let refused = |says| Row::new(says, misconfigured("fcm_unauthenticated")).twice();
    vec![
        refused(gateway_error(401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED")),
        refused(error(401, "UNAUTHENTICATED", None)),
        refused(page(401, "<html>")),
    ]
}

/// One relay, a row after the other.
#[tokio::test(flavor = "multi_thread")]
async fn every_documented_error_of_googles_is_told_to_the_sender() {
    let rows: Vec<Row> = documented().into_iter().chain(waits()).collect();
    let line = Line::to(DeviceKind::Android).await;
    line.play(&rows).await;
    assert_eq!(line.journal().token_fetches(), 1, "no row touches the access token");
}

/// One relay, a row after the other.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_google_does_not_document_goes_by_its_status_and_is_never_gone() {
    let rows = by_status();
    assert!(rows.iter().all(|row| row.heard.outcome != "gone"));
    Line::to(DeviceKind::Android).await.play(&rows).await;
}

/// The tables against the list of codes.
#[test]
fn every_code_of_googles_is_heard_over_the_wire() {
    let tables = [documented(), by_status(), unauthenticated()];
    assert_complete("fcm_", tables.iter().flatten());
}

/// Any 2xx is accepted, whatever its body is.
#[tokio::test(flavor = "multi_thread")]
async fn a_success_without_googles_name_is_accepted() {
    let line = Line::to(DeviceKind::Android).await;
    let names = ["", "/", "a b", "a\nb", "a\u{0}b", "\u{1f600}", "projects/p/messages/a?b#c"];
    let names = names.map(|name| Bytes::from(json!({ "name": name }).to_string()));
    for body in strange_bodies().into_iter().chain(names) {
        line.check(&Row::new(page(200, body), accepted())).await;
    }
}

/// A relay for each form: a refused token is thrown away once in a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_access_token_is_renewed_and_the_message_sent_once_more() {
    for row in unauthenticated() {
        let line = Line::to(DeviceKind::Android).await;
        line.check_second_try(row.says).await;
        assert_eq!((line.journal().token_fetches(), line.journal().credentials_seen()), (2, 2));
    }
}

/// Google refuses every token: one renewal, one more request, and the operator is to blame.
#[tokio::test(flavor = "multi_thread")]
async fn an_access_token_that_is_refused_twice_is_told_to_the_sender() {
    for row in unauthenticated() {
        let line = Line::to(DeviceKind::Android).await;
        line.check(&row).await;
        assert_eq!(line.journal().token_fetches(), 2);
        // Google is not fed with token after token.
        line.check(&Row { requests: 1, ..row }).await;
        assert_eq!(line.journal().token_fetches(), 2);
    }
}

/// Google forgets the access token under which 50 messages are in flight.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_messages_with_a_refused_access_token_renew_it_once() {
    let line = Arc::new(Line::to(DeviceKind::Android).await);
    assert_eq!(line.push().await, accepted());
    line.house.stage.fcm.revoke_access_tokens();
    line.script().latency(Duration::from_millis(500));
    assert_eq!(line.push_at_once(50).await, vec![accepted(); 50]);
    let arrived = line.arrived();
    let expired = arrived.iter().filter(|end| **end == StreamOutcome::Answered(401)).count();
    assert!(expired > 1, "only {expired} messages met the old token");
    assert_eq!(arrived.len(), 1 + 50 + expired);
    assert_eq!(line.journal().token_fetches(), 2);
}

/// Google refuses every access token, to 50 messages at once.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_messages_that_are_refused_for_good_renew_the_access_token_once() {
    let line = Arc::new(Line::to(DeviceKind::Android).await);
    assert_eq!(line.push().await, accepted());
    line.script().standing(Step::Answer(error(401, "UNAUTHENTICATED", None)));
    let heard = line.push_at_once(50).await;
    assert_eq!(heard, vec![misconfigured("fcm_unauthenticated"); 50]);
    assert!(line.arrived().len() <= 1 + 2 * 50);
    assert_eq!(line.journal().token_fetches(), 2);
}

/// What the token endpoint does, and what the sender hears; a relay for each, side by side.
fn oauth_faults() -> Vec<(Step, &'static str)> {
    let refused = [
        oauth_error(400, "invalid_grant"),
        oauth_error(401, "invalid_client"),
        oauth_error(403, "access_denied"),
        page(404, "<html>"),
        page(302, ""),
    ];
    let unavailable = [
        page(408, ""),
        page(429, ""),
        page(500, ""),
        page(503, "<html>"),
        page(200, "<html>"),
        page(200, ""),
        page(200, json!({ "token_type": "Bearer" }).to_string()),
        page(200, json!({ "access_token": "", "expires_in": 3600 }).to_string()),
        page(200, json!({ "access_token": "a\nb", "expires_in": 3600 }).to_string()),
        page(200, "x".repeat(1 << 20)),
    ];
    let refused = refused.into_iter().map(|says| (Step::Answer(says), "oauth_refused"));
    let unavailable = unavailable.into_iter().map(|says| (Step::Answer(says), "oauth_unavailable"));
    let broken = [Step::DropConnection, Step::ResetStream(h2::Reason::INTERNAL_ERROR)];
    refused.chain(unavailable).chain(broken.map(|step| (step, "oauth_unavailable"))).collect()
}

/// A relay for each fault; nothing reaches FCM itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_token_endpoint_is_told_to_the_sender() {
    let mut checks = JoinSet::new();
    for (step, code) in oauth_faults() {
        checks.spawn(async move {
            let name = format!("{step:?}");
            let line = Line::with(DeviceKind::Android, |stage| {
                stage.fcm.oauth_script().standing(step);
            })
            .await;
            let heard = line.push().await;
            let wait = heard.retry_after_s;
            let expected = match code {
                "oauth_refused" => misconfigured(code),
                _ => not_now(503, code, wait.unwrap_or_default()),
            };
            assert_eq!(heard, expected, "{name}");
            assert!(wait.is_none_or(|wait| (1..=60).contains(&wait)), "{name}: {wait:?}");
            assert!(line.arrived().is_empty(), "{name}");
        });
    }
    checks.join_all().await;
}

/// The token endpoint is down, then up again.
#[tokio::test(flavor = "multi_thread")]
async fn messages_go_out_again_once_the_token_endpoint_answers() {
    let line = Line::with(DeviceKind::Android, |stage| {
        stage.fcm.oauth_script().standing(Step::Answer(page(503, "")));
    })
    .await;
    assert_eq!(line.push().await.code, "oauth_unavailable");
    line.house.stage.fcm.oauth_script().reset();
    assert_eq!(accepted_in_the_end(&line).await, accepted());
}
