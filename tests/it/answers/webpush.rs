//! The browsers' services' table: Mozilla's, Apple's, Google's and Microsoft's answers.

use http::header::{HeaderName, HeaderValue, LOCATION};
use sns_loadtest::device::DeviceKind;
use sns_loadtest::sim::webpush::{apple, google, mozilla};

use super::{
    Heard, Line, Row, accepted, after, assert_complete, gone, misconfigured, not_now, page,
    refused, strange_bodies,
};

const WNS_CONTINUE_AFTER: HeaderName = HeaderName::from_static("x-wns-continue-after");
const WNS_DESCRIPTION: HeaderName = HeaderName::from_static("x-wns-error-description");

/// Mozilla's `errno` under each status; 0 is null.
fn mozillas() -> Vec<Row> {
    let rows = [
        (400, 101, refused(400, "webpush_crypto_rejected")),
        (400, 108, refused(400, "webpush_router_invalid")),
        (400, 110, refused(400, "webpush_crypto_rejected")),
        (400, 111, misconfigured("webpush_ttl_rejected")),
        (400, 112, misconfigured("webpush_ttl_rejected")),
        (400, 113, misconfigured("webpush_topic_rejected")),
        (400, 114, misconfigured("webpush_ttl_rejected")),
        (400, 0, misconfigured("webpush_request_rejected")),
        (401, 109, misconfigured("webpush_vapid_rejected")),
        (404, 102, gone("webpush_subscription_unknown")),
        (410, 103, gone("webpush_user_gone")),
        (410, 105, gone("webpush_subscription_expired")),
        (410, 106, gone("webpush_subscription_expired")),
        (413, 104, refused(413, "webpush_payload_too_large")),
        (500, 999, not_now(503, "webpush_server_error", 30)),
        (500, 0, not_now(503, "webpush_server_error", 30)),
        (502, 900, not_now(503, "webpush_bridge_fault", 30)),
        (502, 901, not_now(503, "webpush_bridge_fault", 30)),
        (502, 902, not_now(503, "webpush_bridge_fault", 30)),
        (502, 903, not_now(503, "webpush_bridge_fault", 30)),
        (502, 0, not_now(503, "webpush_bridge_fault", 30)),
        (503, 201, not_now(503, "webpush_unavailable", 120)),
        (503, 202, not_now(503, "webpush_unavailable", 1)),
        (503, 0, not_now(503, "webpush_unavailable", 120)),
        (301, 0, misconfigured("webpush_redirected")),
    ];
    rows.map(|(status, errno, heard)| Row::new(mozilla(status, errno), heard)).into()
}

/// Apple's `reason` under each status that it was seen with.
fn apples() -> Vec<Row> {
    let rows = [
        (400, "BadTtl", misconfigured("webpush_ttl_rejected")),
        (400, "BadUrgency", misconfigured("webpush_urgency_rejected")),
        (400, "BadWebPushTopic", misconfigured("webpush_topic_rejected")),
        (400, "BadWebPushRequest", refused(400, "webpush_crypto_rejected")),
        (400, "BadAuthorizationHeader", misconfigured("webpush_vapid_rejected")),
        (400, "BadVapidPublicKey", misconfigured("webpush_vapid_rejected")),
        (400, "BadWebPushToken", gone("webpush_subscription_unknown")),
        (400, "BadDeviceToken", gone("webpush_subscription_unknown")),
        (400, "VapidPkHashMismatch", misconfigured("webpush_vapid_key_mismatch")),
        (403, "VapidPkHashMismatch", misconfigured("webpush_vapid_key_mismatch")),
        (403, "BadJwtToken", misconfigured("webpush_vapid_rejected")),
        (404, "BadPath", misconfigured("webpush_path_rejected")),
        (410, "BadPath", misconfigured("webpush_path_rejected")),
        (405, "MethodNotAllowed", misconfigured("webpush_method_rejected")),
        (410, "Unregistered", gone("webpush_subscription_expired")),
        (413, "PayloadTooLarge", refused(413, "webpush_payload_too_large")),
        (429, "TooManyRequests", not_now(429, "webpush_throttled", 60)),
        (500, "InternalServerError", not_now(503, "webpush_server_error", 30)),
        (500, "Shutdown", not_now(503, "webpush_shutdown", 10)),
        (503, "ServiceUnavailable", not_now(503, "webpush_unavailable", 120)),
        (503, "Shutdown", not_now(503, "webpush_shutdown", 10)),
    ];
    let mut rows: Vec<Row> =
        rows.map(|(status, reason, heard)| Row::new(apple(status, reason), heard)).into();
    let idle = not_now(503, "webpush_idle_timeout", 1);
    rows.push(Row::new(apple(400, "IdleTimeout"), idle).twice());
    rows
}

/// Google's sentences.
fn googles() -> Vec<Row> {
    let present = "the VAPID credentials in the authorization header do not correspond to the \
                   credentials used to create the subscriptions.";
    let older = "the key in the authorization header does not correspond to the sender ID";
    let ended = "push subscription has unsubscribed or expired.\n";
    let rows = [
        (400, "UnauthorizedRegistration", misconfigured("webpush_vapid_rejected")),
        (400, "payload too large", misconfigured("webpush_request_rejected")),
        (401, "authorization header must be specified.", misconfigured("webpush_vapid_rejected")),
        (403, "invalid JWT provided", misconfigured("webpush_vapid_rejected")),
        (403, present, misconfigured("webpush_vapid_key_mismatch")),
        (403, older, misconfigured("webpush_vapid_key_mismatch")),
        (404, ended, gone("webpush_subscription_unknown")),
        (410, ended, gone("webpush_subscription_expired")),
        (413, "payload too large", refused(413, "webpush_payload_too_large")),
    ];
    rows.map(|(status, text, heard)| Row::new(google(status, text), heard)).into()
}

/// Microsoft's headers; its bodies are empty.
fn microsofts() -> Vec<Row> {
    let with = |status, name: HeaderName, value| {
        page(status, "").with_header(name, HeaderValue::from_static(value))
    };
    let wait = |says, seconds| Row::new(says, not_now(429, "webpush_throttled", seconds));
    let ttl = "Ttl value conflicts with X-WNS-Cache-Policy";
    vec![
        Row::new(with(400, WNS_DESCRIPTION, ttl), misconfigured("webpush_ttl_rejected")),
        Row::new(with(400, WNS_DESCRIPTION, "Other"), misconfigured("webpush_request_rejected")),
        wait(page(406, ""), 60),
        wait(with(406, WNS_CONTINUE_AFTER, "7"), 7),
        wait(with(429, WNS_CONTINUE_AFTER, "0"), 1),
        wait(with(406, WNS_CONTINUE_AFTER, "soon"), 60),
        wait(after(with(406, WNS_CONTINUE_AFTER, "7"), "9"), 9),
    ]
}

/// A service's own wait counts, within bounds.
fn waits() -> Vec<Row> {
    let past = "Sun, 06 Nov 1994 08:49:37 GMT";
    let far = "Fri, 31 Dec 2100 23:59:59 GMT";
    let throttled = |wait, seconds| {
        Row::new(after(page(429, ""), wait), not_now(429, "webpush_throttled", seconds))
    };
    vec![
        throttled("5", 5),
        throttled("0", 1),
        throttled("soon", 60),
        throttled(past, 1),
        throttled(far, 86_400),
        throttled("99999999999999999999", 86_400),
        Row::new(after(mozilla(503, 201), "300"), not_now(503, "webpush_unavailable", 300)),
        Row::new(after(page(500, ""), "45"), not_now(503, "webpush_server_error", 45)),
        Row::new(after(apple(503, "Shutdown"), "20"), not_now(503, "webpush_shutdown", 20)),
    ]
}

/// What a status alone says: RFC 8030 §5 and §7, and the services' practice.
fn bare(status: u16) -> Heard {
    match status {
        300..=399 => misconfigured("webpush_redirected"),
        400 => misconfigured("webpush_request_rejected"),
        401 | 403 => misconfigured("webpush_vapid_rejected"),
        404 => gone("webpush_subscription_unknown"),
        405 => misconfigured("webpush_method_rejected"),
        406 | 429 => not_now(429, "webpush_throttled", 60),
        410 => gone("webpush_subscription_expired"),
        413 => refused(413, "webpush_payload_too_large"),
        503 => not_now(503, "webpush_unavailable", 120),
        500..=599 => not_now(503, "webpush_server_error", 30),
        _ => misconfigured("webpush_other_rejection"),
    }
}

/// Bodies that no service documents, and details that belong to another status.
fn by_status() -> Vec<Row> {
    let statuses =
        [301, 307, 400, 401, 402, 403, 404, 405, 406, 409, 410, 413, 418, 429, 500, 502, 503, 504];
    let mut rows: Vec<Row> =
        statuses.map(|status| Row::new(apple(status, "Unheard"), bare(status))).into();
    for body in strange_bodies().into_iter().filter(|body| !body.starts_with(b"{\"errno\"")) {
        rows.extend(statuses.map(|status| Row::new(page(status, body.clone()), bare(status))));
    }
    // Words for a dead subscription kill none under another status.
    for status in statuses.into_iter().filter(|status| !matches!(status, 404 | 410)) {
        rows.push(Row::new(apple(status, "Unregistered"), bare(status)));
        if status != 502 {
            rows.push(Row::new(mozilla(status, 103), bare(status)));
        }
        if status != 400 {
            rows.push(Row::new(apple(status, "BadWebPushToken"), bare(status)));
        }
    }
    rows
}

/// One relay, a row after the other.
#[tokio::test(flavor = "multi_thread")]
async fn every_known_answer_of_the_browsers_services_is_told_to_the_sender() {
    let line = Line::to(DeviceKind::Browser).await;
    for rows in [mozillas(), apples(), googles(), microsofts(), waits()] {
        line.play(&rows).await;
    }
}

/// One relay, a row after the other.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_no_browsers_service_documents_goes_by_its_status() {
    Line::to(DeviceKind::Browser).await.play(&by_status()).await;
}

/// The tables against the list of codes.
#[test]
fn every_code_of_web_push_is_heard_over_the_wire() {
    let tables = [mozillas(), apples(), googles(), microsofts(), by_status()];
    assert_complete("webpush_", tables.iter().flatten());
}

/// Any 2xx is accepted, with or without a resource, and whatever its body is.
#[tokio::test(flavor = "multi_thread")]
async fn any_success_of_a_browsers_service_is_accepted() {
    let line = Line::to(DeviceKind::Browser).await;
    for status in [200, 201, 202, 204] {
        line.check(&Row::new(page(status, ""), accepted())).await;
        for resource in ["https://push.example/m/1", "/m/1", "", "a b", "\u{e9}", "//"] {
            let resource = HeaderValue::from_str(resource).unwrap();
            let says = page(status, "").with_header(LOCATION, resource);
            line.check(&Row::new(says, accepted())).await;
        }
    }
    for body in strange_bodies() {
        line.check(&Row::new(page(201, body), accepted())).await;
    }
}

/// The simulator says it once, then accepts.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_browsers_service_certainly_did_not_process_is_sent_once_more() {
    let line = Line::to(DeviceKind::Browser).await;
    line.check_second_try(apple(400, "IdleTimeout")).await;
}

/// The simulator refuses by its own check, as Mozilla does when a subscription has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_has_ended_is_gone() {
    let line = Line::to(DeviceKind::Browser).await;
    line.house.stage.webpush.unsubscribe(line.device.address());
    assert_eq!(line.push().await, gone("webpush_subscription_unknown"));
}
