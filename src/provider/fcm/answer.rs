//! Google's answers: status and error code become an outcome, a row for each documented code.
//!
//! The status is read first; then `FcmError.errorCode`, `ErrorInfo.reason` and `status`, in this
//! order. A code counts only under its own status; what is not in the table, and what is not JSON
//! (a gateway's page), goes by the status class, and is never guessed as gone.
//! Source: Google, FCM v1 `ErrorCode`, and "Handle errors" on waiting.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::outcome::{Code, Outcome, Refusal};
use crate::provider::retry_after;

/// Google: without `Retry-After`, a minute after 429.
const THROTTLE_WAIT: Duration = Duration::from_secs(60);

/// Google: never sooner than ten seconds.
const WAIT_MIN: Duration = Duration::from_secs(10);

/// The parts of Google's error that decide.
struct Fault<'a> {
    /// `FcmError.errorCode`, or nothing.
    code: &'a str,
    /// `ErrorInfo.reason`, or nothing.
    reason: &'a str,
    /// The canonical status, or nothing.
    status: &'a str,
    /// Whether Google names fields of ours that are malformed.
    names_fields: bool,
}

/// Reads one answer.
/// Shape: `{"name": "…"}`, or `{"error": {"status": "…", "details": [{"@type": "…", …}]}}`.
pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8], now_unix_s: u64) -> Outcome {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    if status.is_success() {
        let name = body["name"].as_str().map(str::to_owned);
        return Outcome::Accepted { provider_message_id: name };
    }
    let fault = Fault::of(&body["error"]);
    let wait = |code, default: Duration| {
        let retry_after = retry_after(headers, now_unix_s).unwrap_or(default).max(WAIT_MIN);
        Outcome::NotNow { code, retry_after }
    };
    let misconfigured = |code| Outcome::Misconfigured { code };
    match (status.as_u16(), fault.code) {
        // A wrong token format, another app's package, too large: Google does not say which.
        (400, "INVALID_ARGUMENT") => Refusal::new(Code::FcmInvalidArgument).into(),
        (400, "") if fault.names_fields || fault.status == "INVALID_ARGUMENT" => {
            misconfigured(Code::FcmBadRequest)
        }
        // The project's own key for Apple or for browsers; our access token is good.
        (401, "THIRD_PARTY_AUTH_ERROR" | "APNS_AUTH_ERROR") => {
            misconfigured(Code::FcmThirdPartyAuthError)
        }
        (401, "") => misconfigured(Code::FcmUnauthenticated),
        (403, "SENDER_ID_MISMATCH") => misconfigured(Code::FcmSenderIdMismatch),
        (403, "") => misconfigured(Code::FcmPermissionDenied),
        (404, "UNREGISTERED") => Outcome::Gone { code: Code::FcmUnregistered, since_unix_ms: None },
        // A wrong project or URL: the device may well live.
        (404, "") => misconfigured(Code::FcmProjectNotFound),
        (429, "QUOTA_EXCEEDED") => wait(Code::FcmQuotaExceeded, THROTTLE_WAIT),
        (429, "") if fault.reason == "RATE_LIMIT_EXCEEDED" => {
            wait(Code::FcmProjectQuotaExceeded, THROTTLE_WAIT)
        }
        (429, _) => wait(Code::FcmOtherThrottle, THROTTLE_WAIT),
        (500, "INTERNAL") => wait(Code::FcmInternal, WAIT_MIN),
        (500, "") if fault.status == "INTERNAL" => wait(Code::FcmInternal, WAIT_MIN),
        (503, "UNAVAILABLE") => wait(Code::FcmUnavailable, WAIT_MIN),
        (503, "") if fault.status == "UNAVAILABLE" => wait(Code::FcmUnavailable, WAIT_MIN),
        (500..=599, _) => wait(Code::FcmOtherServerError, WAIT_MIN),
        _ => misconfigured(Code::FcmOtherRejection),
    }
}

// === impl Fault ===

impl<'a> Fault<'a> {
    fn of(error: &'a Value) -> Self {
        let details = error["details"].as_array().map_or(&[][..], Vec::as_slice);
        let of_type = |name: &str| {
            let full = format!("type.googleapis.com/{name}");
            details.iter().find(|detail| detail["@type"] == full.as_str())
        };
        let text = |detail: Option<&'a Value>, member: &str| {
            detail.and_then(|detail| detail[member].as_str()).unwrap_or_default()
        };
        Self {
            code: text(of_type("google.firebase.fcm.v1.FcmError"), "errorCode"),
            reason: text(of_type("google.rpc.ErrorInfo"), "reason"),
            status: error["status"].as_str().unwrap_or_default(),
            names_fields: of_type("google.rpc.BadRequest").is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header;
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn misconfigured(code: Code) -> Outcome {
        Outcome::Misconfigured { code }
    }

    fn wait(code: Code, seconds: u64) -> Outcome {
        Outcome::NotNow { code, retry_after: Duration::from_secs(seconds) }
    }

    fn body(status: &str, details: &Value) -> String {
        json!({"error": {"code": 0, "message": "text", "status": status, "details": details}})
            .to_string()
    }

    fn fcm_error(code: &str) -> Value {
        json!([
            {"@type": "type.googleapis.com/google.rpc.Help"},
            {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": code},
            {"@type": "type.googleapis.com/google.firebase.fcm.v1.ApnsError",
             "statusCode": 403, "reason": "InvalidProviderToken"},
        ])
    }

    fn error_info(reason: &str) -> Value {
        json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}])
    }

    fn bad_request() -> Value {
        let field = json!([{"field": "message.data[0].value", "description": "text"}]);
        json!([{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": field}])
    }

    /// Every `FcmError` code of Google's table: HTTP status, canonical status, code.
    fn coded() -> Vec<(u16, &'static str, &'static str, Outcome)> {
        vec![
            (
                400,
                "INVALID_ARGUMENT",
                "INVALID_ARGUMENT",
                Refusal::new(Code::FcmInvalidArgument).into(),
            ),
            (
                401,
                "UNAUTHENTICATED",
                "THIRD_PARTY_AUTH_ERROR",
                misconfigured(Code::FcmThirdPartyAuthError),
            ),
            (
                401,
                "UNAUTHENTICATED",
                "APNS_AUTH_ERROR",
                misconfigured(Code::FcmThirdPartyAuthError),
            ),
            (
                403,
                "PERMISSION_DENIED",
                "SENDER_ID_MISMATCH",
                misconfigured(Code::FcmSenderIdMismatch),
            ),
            (
                404,
                "NOT_FOUND",
                "UNREGISTERED",
                Outcome::Gone { code: Code::FcmUnregistered, since_unix_ms: None },
            ),
            (429, "RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED", wait(Code::FcmQuotaExceeded, 60)),
            (500, "INTERNAL", "INTERNAL", wait(Code::FcmInternal, 10)),
            (503, "UNAVAILABLE", "UNAVAILABLE", wait(Code::FcmUnavailable, 10)),
        ]
    }

    /// Errors of Google's gateway, before FCM.
    fn uncoded() -> Vec<(u16, String, Outcome)> {
        let none = json!([]);
        let body = |status, details: &Value| body(status, details);
        vec![
            (400, body("INVALID_ARGUMENT", &bad_request()), misconfigured(Code::FcmBadRequest)),
            (400, body("INVALID_ARGUMENT", &none), misconfigured(Code::FcmBadRequest)),
            (400, body("FAILED_PRECONDITION", &none), misconfigured(Code::FcmOtherRejection)),
            (401, body("UNAUTHENTICATED", &none), misconfigured(Code::FcmUnauthenticated)),
            (
                401,
                body("UNAUTHENTICATED", &error_info("ACCESS_TOKEN_EXPIRED")),
                misconfigured(Code::FcmUnauthenticated),
            ),
            (
                403,
                body("PERMISSION_DENIED", &error_info("SERVICE_DISABLED")),
                misconfigured(Code::FcmPermissionDenied),
            ),
            (404, body("NOT_FOUND", &none), misconfigured(Code::FcmProjectNotFound)),
            (
                429,
                body("RESOURCE_EXHAUSTED", &error_info("RATE_LIMIT_EXCEEDED")),
                wait(Code::FcmProjectQuotaExceeded, 60),
            ),
            (429, body("RESOURCE_EXHAUSTED", &none), wait(Code::FcmOtherThrottle, 60)),
            (500, body("INTERNAL", &none), wait(Code::FcmInternal, 10)),
            (503, body("UNAVAILABLE", &none), wait(Code::FcmUnavailable, 10)),
            (502, body("UNAVAILABLE", &none), wait(Code::FcmOtherServerError, 10)),
        ]
    }

    /// What a status says whose body is no JSON at all.
    fn by_status(status: u16) -> Outcome {
        match status {
            401 => misconfigured(Code::FcmUnauthenticated),
            403 => misconfigured(Code::FcmPermissionDenied),
            404 => misconfigured(Code::FcmProjectNotFound),
            _ => by_class(status),
        }
    }

    /// What a status says with a code that does not belong to it.
    fn by_class(status: u16) -> Outcome {
        match status {
            429 => wait(Code::FcmOtherThrottle, 60),
            500..=599 => wait(Code::FcmOtherServerError, 10),
            _ => misconfigured(Code::FcmOtherRejection),
        }
    }

    fn check(status: u16, retry_after: Option<&str>, body: &str, expected: &Outcome) {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        let outcome = read(status, &headers, body.as_bytes(), NOW);
        assert_eq!(&outcome, expected, "{status} {body}");
    }

    #[test]
    fn every_documented_code_has_its_row() {
        for (status, canonical, code, expected) in coded() {
            check(status, None, &body(canonical, &fcm_error(code)), &expected);
        }
        for (status, body, expected) in uncoded() {
            check(status, None, &body, &expected);
        }
        // Some of Google's samples write the code into the status as well.
        let (_, _, _, gone) = &coded()[4];
        check(404, None, &body("UNREGISTERED", &fcm_error("UNREGISTERED")), gone);
    }

    #[test]
    fn a_code_under_another_status_goes_by_the_status() {
        let coded = coded();
        let unknown = [(0, "", "UNSPECIFIED_ERROR"), (0, "", "NEW")];
        let codes = coded.iter().map(|row| (row.0, row.1, row.2)).chain(unknown);
        for (_, _, code) in codes {
            for status in [302, 400, 401, 403, 404, 405, 410, 429, 500, 502, 503, 504] {
                if !coded.iter().any(|row| row.0 == status && row.2 == code) {
                    check(status, None, &body("X", &fcm_error(code)), &by_class(status));
                }
            }
        }
    }

    #[test]
    fn bodies_that_are_not_googles_go_by_the_status() {
        let bodies = ["", "<html>", "[]", r#"{"error":"x"}"#, r#"{"error":{"details":7}}"#];
        for status in [302, 400, 401, 403, 404, 405, 410, 413, 429, 500, 502, 503, 504] {
            for body in bodies {
                check(status, None, body, &by_status(status));
            }
        }
        // The word UNREGISTERED alone, without FcmError, kills no device.
        check(404, None, &body("UNREGISTERED", &json!([])), &by_status(404));
        check(410, None, &body("NOT_FOUND", &json!([])), &by_class(410));
    }

    #[test]
    fn googles_own_wait_is_kept_but_never_below_ten_seconds() {
        let quota = body("RESOURCE_EXHAUSTED", &fcm_error("QUOTA_EXCEEDED"));
        check(429, Some("90"), &quota, &wait(Code::FcmQuotaExceeded, 90));
        check(429, Some("1"), &quota, &wait(Code::FcmQuotaExceeded, 10));
        let down = body("UNAVAILABLE", &fcm_error("UNAVAILABLE"));
        check(503, Some("120"), &down, &wait(Code::FcmUnavailable, 120));
        let date = Some("Tue, 14 Nov 2023 22:14:20 GMT");
        check(503, date, &down, &wait(Code::FcmUnavailable, 60));
        check(502, Some("soon"), "", &wait(Code::FcmOtherServerError, 10));
    }

    #[test]
    fn an_accepted_message_has_googles_name() {
        let accepted =
            |name: Option<&str>| Outcome::Accepted { provider_message_id: name.map(str::to_owned) };
        let name = "projects/p/messages/0:1";
        check(200, None, &json!({ "name": name }).to_string(), &accepted(Some(name)));
        check(200, None, "", &accepted(None));
    }

    #[test]
    fn every_code_of_googles_is_given_by_a_row() {
        let mut given: Vec<Code> = coded().iter().map(|row| row.3.code()).collect();
        given.extend(uncoded().iter().map(|row| row.2.code()));
        for code in Code::ALL.iter().filter(|code| code.label().starts_with("fcm_")) {
            assert!(given.contains(code), "{}", code.label());
        }
    }
}
