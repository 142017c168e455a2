//! The browsers' services' answers: status and detail become an outcome, a row for each known one.
//!
//! RFC 8030 settles little but the statuses; the detail is Mozilla's `errno`, Apple's `reason`, a
//! plain sentence of Google's or a header of Microsoft's. The status is read first; a detail counts
//! only under its own status. What is not in the table goes by the status.
//! Sources: RFC 8030 §5 and §7, RFC 8292 §4.2; autopush "Error codes"; Apple, "Sending web push
//! notifications"; Microsoft, "Push notification service request and response headers".

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use crate::outcome::{Code, Outcome, Refusal};
use crate::provider::retry_after;

const THROTTLE_WAIT: Duration = Duration::from_secs(60);

const SERVER_ERROR_WAIT: Duration = Duration::from_secs(30);

/// What Mozilla's service says in `Retry-After` when its storage is busy.
const UNAVAILABLE_WAIT: Duration = Duration::from_secs(120);

/// Another server takes over.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

const RECONNECT_WAIT: Duration = Duration::from_secs(1);

/// The parts of an answer that decide beside the status.
struct Detail<'a> {
    /// Apple's `reason`, or nothing.
    reason: &'a str,
    /// Mozilla's `errno`, or nothing.
    errno: Option<u64>,
    /// Whether the body has Mozilla's form, `errno` or not.
    is_mozillas: bool,
    /// The body as text: Google's sentences.
    text: &'a str,
    /// Microsoft's description, or nothing.
    wns: &'a str,
}

/// Reads one answer.
pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8], now_unix_s: u64) -> Outcome {
    if status.is_success() {
        let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        return Outcome::Accepted { provider_message_id: location.map(str::to_owned) };
    }
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let detail = Detail {
        reason: json["reason"].as_str().unwrap_or_default(),
        errno: json["errno"].as_u64(),
        is_mozillas: json.get("errno").is_some(),
        text: std::str::from_utf8(body).unwrap_or_default(),
        wns: text_of(headers, "x-wns-error-description").unwrap_or_default(),
    };
    let wait = |code, default| {
        let retry_after = retry_after(headers, now_unix_s).unwrap_or(default);
        Outcome::NotNow { code, retry_after }
    };
    match status.as_u16() {
        300..=399 => misconfigured(Code::WebpushRedirected),
        400 => bad_request(&detail),
        401 => misconfigured(Code::WebpushVapidRejected),
        403 => forbidden(&detail),
        // Only here may a missing resource be our own fault.
        404 if detail.reason == "BadPath" => misconfigured(Code::WebpushPathRejected),
        404 => gone(Code::WebpushSubscriptionUnknown),
        405 => misconfigured(Code::WebpushMethodRejected),
        // 406 is Microsoft's throttle.
        406 | 429 => wait(Code::WebpushThrottled, continue_after(headers)),
        410 if detail.reason == "BadPath" => misconfigured(Code::WebpushPathRejected),
        410 if detail.errno == Some(103) => gone(Code::WebpushUserGone),
        410 => gone(Code::WebpushSubscriptionExpired),
        413 => Refusal::new(Code::WebpushPayloadTooLarge).into(),
        502 if detail.is_mozillas => wait(Code::WebpushBridgeFault, SERVER_ERROR_WAIT),
        500 | 503 if detail.reason == "Shutdown" => wait(Code::WebpushShutdown, SHUTDOWN_WAIT),
        // Mozilla: to be retried at once.
        503 if detail.errno == Some(202) => wait(Code::WebpushUnavailable, RECONNECT_WAIT),
        503 => wait(Code::WebpushUnavailable, UNAVAILABLE_WAIT),
        500..=599 => wait(Code::WebpushServerError, SERVER_ERROR_WAIT),
        _ => misconfigured(Code::WebpushOtherRejection),
    }
}

fn bad_request(detail: &Detail<'_>) -> Outcome {
    let apples = match detail.reason {
        // Apple says 400 where RFC 8030 wants 404.
        "BadWebPushToken" | "BadDeviceToken" => gone(Code::WebpushSubscriptionUnknown),
        "VapidPkHashMismatch" => misconfigured(Code::WebpushVapidKeyMismatch),
        "BadTtl" => misconfigured(Code::WebpushTtlRejected),
        "BadUrgency" => misconfigured(Code::WebpushUrgencyRejected),
        "BadWebPushTopic" => misconfigured(Code::WebpushTopicRejected),
        // The sender encrypted the body.
        "BadWebPushRequest" => Refusal::new(Code::WebpushCryptoRejected).into(),
        "BadAuthorizationHeader" | "BadVapidPublicKey" => misconfigured(Code::WebpushVapidRejected),
        "IdleTimeout" => {
            Outcome::NotNow { code: Code::WebpushIdleTimeout, retry_after: RECONNECT_WAIT }
        }
        _ => misconfigured(Code::WebpushRequestRejected),
    };
    match detail.errno {
        Some(101 | 110) => Refusal::new(Code::WebpushCryptoRejected).into(),
        Some(108) => Refusal::new(Code::WebpushRouterInvalid).into(),
        Some(111 | 112 | 114) => misconfigured(Code::WebpushTtlRejected),
        Some(113) => misconfigured(Code::WebpushTopicRejected),
        _ if detail.wns.starts_with("Ttl value") => misconfigured(Code::WebpushTtlRejected),
        _ if detail.text.contains("UnauthorizedRegistration") => {
            misconfigured(Code::WebpushVapidRejected)
        }
        _ => apples,
    }
}

fn forbidden(detail: &Detail<'_>) -> Outcome {
    // Google's sentence, in its present and its older wording.
    let googles = ["do not correspond to", "does not correspond to"];
    let mismatch = detail.reason == "VapidPkHashMismatch"
        || googles.iter().any(|words| detail.text.contains(words));
    misconfigured(match mismatch {
        true => Code::WebpushVapidKeyMismatch,
        false => Code::WebpushVapidRejected,
    })
}

/// Microsoft's own `Retry-After`: whole seconds.
fn continue_after(headers: &HeaderMap) -> Duration {
    let seconds = text_of(headers, "x-wns-continue-after").and_then(|text| text.parse().ok());
    seconds.map_or(THROTTLE_WAIT, |seconds: u16| Duration::from_secs(u64::from(seconds.max(1))))
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

const fn misconfigured(code: Code) -> Outcome {
    Outcome::Misconfigured { code }
}

const fn gone(code: Code) -> Outcome {
    Outcome::Gone { code, since_unix_ms: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn refused(code: Code) -> Outcome {
        Refusal::new(code).into()
    }

    fn wait(code: Code, seconds: u64) -> Outcome {
        Outcome::NotNow { code, retry_after: Duration::from_secs(seconds) }
    }

    fn rejected() -> Outcome {
        misconfigured(Code::WebpushRequestRejected)
    }

    /// Mozilla's `errno` under each status.
    fn mozillas() -> Vec<(u16, &'static str, Outcome)> {
        vec![
            (400, "101", refused(Code::WebpushCryptoRejected)),
            (400, "108", refused(Code::WebpushRouterInvalid)),
            (400, "110", refused(Code::WebpushCryptoRejected)),
            (400, "111", misconfigured(Code::WebpushTtlRejected)),
            (400, "112", misconfigured(Code::WebpushTtlRejected)),
            (400, "113", misconfigured(Code::WebpushTopicRejected)),
            (400, "114", misconfigured(Code::WebpushTtlRejected)),
            (400, "999", rejected()),
            (401, "109", misconfigured(Code::WebpushVapidRejected)),
            (404, "102", gone(Code::WebpushSubscriptionUnknown)),
            (410, "103", gone(Code::WebpushUserGone)),
            (410, "105", gone(Code::WebpushSubscriptionExpired)),
            (410, "106", gone(Code::WebpushSubscriptionExpired)),
            (413, "104", refused(Code::WebpushPayloadTooLarge)),
            (500, "999", wait(Code::WebpushServerError, 30)),
            (500, "null", wait(Code::WebpushServerError, 30)),
            (502, "900", wait(Code::WebpushBridgeFault, 30)),
            (502, "901", wait(Code::WebpushBridgeFault, 30)),
            (502, "902", wait(Code::WebpushBridgeFault, 30)),
            (502, "903", wait(Code::WebpushBridgeFault, 30)),
            (502, "null", wait(Code::WebpushBridgeFault, 30)),
            (503, "201", wait(Code::WebpushUnavailable, 120)),
            (503, "202", wait(Code::WebpushUnavailable, 1)),
            (503, "null", wait(Code::WebpushUnavailable, 120)),
            (301, "null", misconfigured(Code::WebpushRedirected)),
        ]
    }

    /// Apple's `reason` under each status that was seen with it.
    fn apples() -> Vec<(u16, &'static str, Outcome)> {
        vec![
            (400, "BadTtl", misconfigured(Code::WebpushTtlRejected)),
            (400, "BadUrgency", misconfigured(Code::WebpushUrgencyRejected)),
            (400, "BadWebPushTopic", misconfigured(Code::WebpushTopicRejected)),
            (400, "BadWebPushRequest", refused(Code::WebpushCryptoRejected)),
            (400, "BadAuthorizationHeader", misconfigured(Code::WebpushVapidRejected)),
            (400, "BadVapidPublicKey", misconfigured(Code::WebpushVapidRejected)),
            (400, "IdleTimeout", wait(Code::WebpushIdleTimeout, 1)),
            (400, "BadWebPushToken", gone(Code::WebpushSubscriptionUnknown)),
            (400, "BadDeviceToken", gone(Code::WebpushSubscriptionUnknown)),
            (400, "VapidPkHashMismatch", misconfigured(Code::WebpushVapidKeyMismatch)),
            (403, "VapidPkHashMismatch", misconfigured(Code::WebpushVapidKeyMismatch)),
            (403, "BadJwtToken", misconfigured(Code::WebpushVapidRejected)),
            (404, "BadPath", misconfigured(Code::WebpushPathRejected)),
            (410, "BadPath", misconfigured(Code::WebpushPathRejected)),
            (405, "MethodNotAllowed", misconfigured(Code::WebpushMethodRejected)),
            (410, "Unregistered", gone(Code::WebpushSubscriptionExpired)),
            (413, "PayloadTooLarge", refused(Code::WebpushPayloadTooLarge)),
            (429, "TooManyRequests", wait(Code::WebpushThrottled, 60)),
            (500, "InternalServerError", wait(Code::WebpushServerError, 30)),
            (500, "Shutdown", wait(Code::WebpushShutdown, 10)),
            (503, "ServiceUnavailable", wait(Code::WebpushUnavailable, 120)),
            (503, "Shutdown", wait(Code::WebpushShutdown, 10)),
        ]
    }

    /// What a status alone says, and Google's plain sentences.
    fn plain() -> Vec<(u16, &'static str, Outcome)> {
        let present = "the VAPID credentials in the authorization header do not correspond to the \
                       credentials used to create the subscriptions.";
        let older = "the key in the authorization header does not correspond to the sender ID";
        vec![
            (301, "", misconfigured(Code::WebpushRedirected)),
            (307, "", misconfigured(Code::WebpushRedirected)),
            (400, "", rejected()),
            (400, "UnauthorizedRegistration", misconfigured(Code::WebpushVapidRejected)),
            (401, "", misconfigured(Code::WebpushVapidRejected)),
            (403, "", misconfigured(Code::WebpushVapidRejected)),
            (403, present, misconfigured(Code::WebpushVapidKeyMismatch)),
            (403, older, misconfigured(Code::WebpushVapidKeyMismatch)),
            (404, "", gone(Code::WebpushSubscriptionUnknown)),
            (405, "", misconfigured(Code::WebpushMethodRejected)),
            (406, "", wait(Code::WebpushThrottled, 60)),
            (
                410,
                "push subscription has unsubscribed or expired.\n",
                gone(Code::WebpushSubscriptionExpired),
            ),
            (413, "", refused(Code::WebpushPayloadTooLarge)),
            (418, "", misconfigured(Code::WebpushOtherRejection)),
            (429, "", wait(Code::WebpushThrottled, 60)),
            (500, "", wait(Code::WebpushServerError, 30)),
            (502, "<html>", wait(Code::WebpushServerError, 30)),
            (503, "", wait(Code::WebpushUnavailable, 120)),
            (504, "", wait(Code::WebpushServerError, 30)),
        ]
    }

    fn errno(number: &str) -> String {
        format!(r#"{{"code":400,"errno":{number},"error":"x","message":"y","more_info":"z"}}"#)
    }

    fn check(status: u16, header: Option<(&'static str, &str)>, body: &str, expected: &Outcome) {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, value.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        let outcome = read(status, &headers, body.as_bytes(), NOW);
        assert_eq!(&outcome, expected, "{status} {header:?} {body}");
    }

    #[test]
    fn every_errno_of_mozillas_has_its_row() {
        for (status, number, expected) in mozillas() {
            check(status, None, &errno(number), &expected);
        }
    }

    #[test]
    fn every_reason_of_apples_has_its_row() {
        for (status, reason, expected) in apples() {
            check(status, None, &format!(r#"{{"reason":"{reason}"}}"#), &expected);
        }
    }

    #[test]
    fn every_status_has_its_row() {
        for (status, body, expected) in plain() {
            check(status, None, body, &expected);
        }
    }

    #[test]
    fn only_three_statuses_ever_say_that_a_subscription_is_dead() {
        let reasons: Vec<_> =
            apples().iter().map(|row| format!(r#"{{"reason":"{}"}}"#, row.1)).collect();
        let numbers: Vec<_> = mozillas().iter().map(|row| errno(row.1)).collect();
        for status in [301, 401, 402, 403, 405, 406, 409, 413, 422, 429, 500, 502, 503, 504] {
            let status = StatusCode::from_u16(status).unwrap();
            for body in reasons.iter().chain(&numbers) {
                let outcome = read(status, &HeaderMap::new(), body.as_bytes(), NOW);
                assert!(!matches!(outcome, Outcome::Gone { .. }), "{status} {body}");
            }
        }
    }

    #[test]
    fn microsofts_headers_are_read() {
        let description = "Ttl value conflicts with X-WNS-Cache-Policy";
        let ttl = misconfigured(Code::WebpushTtlRejected);
        check(400, Some(("x-wns-error-description", description)), "", &ttl);
        check(400, Some(("x-wns-error-description", "Other")), "", &rejected());
        let throttled = |seconds| wait(Code::WebpushThrottled, seconds);
        check(406, Some(("x-wns-continue-after", "7")), "", &throttled(7));
        check(429, Some(("x-wns-continue-after", "0")), "", &throttled(1));
        check(406, Some(("x-wns-continue-after", "soon")), "", &throttled(60));
    }

    #[test]
    fn a_services_own_wait_is_kept() {
        let retry_after = |text| Some(("retry-after", text));
        check(429, retry_after("5"), "", &wait(Code::WebpushThrottled, 5));
        check(503, retry_after("300"), &errno("201"), &wait(Code::WebpushUnavailable, 300));
        let date = retry_after("Tue, 14 Nov 2023 22:14:20 GMT");
        check(500, date, "", &wait(Code::WebpushServerError, 60));
    }

    #[test]
    fn any_success_is_accepted_with_its_resource() {
        let location = "https://push.example/message/1";
        for status in [200, 201, 202, 204] {
            let expected = Outcome::Accepted { provider_message_id: Some(location.to_owned()) };
            check(status, Some(("location", location)), "", &expected);
            check(status, None, "", &Outcome::Accepted { provider_message_id: None });
        }
    }

    #[test]
    fn every_code_of_web_push_is_given_by_a_row() {
        let rows = [mozillas(), apples(), plain()].concat();
        let given: Vec<Code> = rows.iter().map(|row| row.2.code()).collect();
        for code in Code::ALL.iter().filter(|code| code.label().starts_with("webpush_")) {
            assert!(given.contains(code), "{}", code.label());
        }
    }
}
