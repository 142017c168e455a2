//! Apple's answers: status and reason become an outcome, a row for each documented reason.
//!
//! The status is read first, the reason second: a reason counts only under its own status.
//! What is not in the table goes by the status class, and is never guessed as gone.
//! Source: Apple, "Handling notification responses from APNs".

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::outcome::{Code, Outcome, Refusal};

/// Apple: a server error may be retried after 15 minutes.
const SERVER_ERROR_WAIT: Duration = Duration::from_secs(15 * 60);

/// Apple names no time for its throttles.
const THROTTLE_WAIT: Duration = Duration::from_secs(60);

/// Another server takes over.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

const RECONNECT_WAIT: Duration = Duration::from_secs(1);

/// The last millisecond of 9999, the last year that RFC 3339 can write.
const TIMESTAMP_MS_MAX: u64 = 253_402_300_799_999;

/// Reads one answer.
/// Shape: no body with 200, else `{"reason": "…"}`, with 410 also `timestamp` in ms since 1970.
pub fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Outcome {
    if status.is_success() {
        let id = headers.get("apns-id").and_then(|id| id.to_str().ok());
        return Outcome::Accepted { provider_message_id: id.map(str::to_owned) };
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let reason = body["reason"].as_str().unwrap_or_default();
    let since_unix_ms = body["timestamp"].as_u64().filter(|since| *since <= TIMESTAMP_MS_MAX);
    let gone = |code| Outcome::Gone { code, since_unix_ms };
    match (status.as_u16(), reason) {
        // Malformed, or of the other environment; the pairing said which one it is of.
        (400, "BadDeviceToken") => {
            Outcome::Gone { code: Code::ApnsBadDeviceToken, since_unix_ms: None }
        }
        (400, "IdleTimeout") => not_now(Code::ApnsIdleTimeout, RECONNECT_WAIT),
        (400, reason) => misconfigured(bad_request(reason)),
        (403, reason) => misconfigured(forbidden(reason)),
        (404, "BadPath") => misconfigured(Code::ApnsBadPath),
        (405, "MethodNotAllowed") => misconfigured(Code::ApnsMethodNotAllowed),
        (410, "Unregistered") => gone(Code::ApnsUnregistered),
        (410, "ExpiredToken") => gone(Code::ApnsExpiredToken),
        (413, "PayloadTooLarge") => Refusal::new(Code::ApnsPayloadTooLarge).into(),
        (429, "TooManyProviderTokenUpdates") => {
            not_now(Code::ApnsTooManyProviderTokenUpdates, THROTTLE_WAIT)
        }
        (429, "TooManyRequests") => not_now(Code::ApnsTooManyRequests, THROTTLE_WAIT),
        (429, _) => not_now(Code::ApnsOtherThrottle, THROTTLE_WAIT),
        (500, "InternalServerError") => not_now(Code::ApnsInternalServerError, SERVER_ERROR_WAIT),
        (503, "ServiceUnavailable") => not_now(Code::ApnsServiceUnavailable, SERVER_ERROR_WAIT),
        (503, "Shutdown") => not_now(Code::ApnsShutdown, SHUTDOWN_WAIT),
        (500..=599, _) => not_now(Code::ApnsOtherServerError, SERVER_ERROR_WAIT),
        _ => misconfigured(Code::ApnsOtherRejection),
    }
}

/// Our headers, or the app's setting up: never the device, never the sender.
fn bad_request(reason: &str) -> Code {
    match reason {
        "BadCollapseId" => Code::ApnsBadCollapseId,
        "BadExpirationDate" => Code::ApnsBadExpirationDate,
        "BadMessageId" => Code::ApnsBadMessageId,
        "BadPriority" => Code::ApnsBadPriority,
        "BadTopic" => Code::ApnsBadTopic,
        "DeviceTokenNotForTopic" => Code::ApnsDeviceTokenNotForTopic,
        "DuplicateHeaders" => Code::ApnsDuplicateHeaders,
        "InvalidPushType" => Code::ApnsInvalidPushType,
        "MissingDeviceToken" => Code::ApnsMissingDeviceToken,
        "MissingTopic" => Code::ApnsMissingTopic,
        "PayloadEmpty" => Code::ApnsPayloadEmpty,
        "TopicDisallowed" => Code::ApnsTopicDisallowed,
        _ => Code::ApnsOtherRejection,
    }
}

/// Our key or certificate.
fn forbidden(reason: &str) -> Code {
    match reason {
        "BadCertificate" => Code::ApnsBadCertificate,
        "BadCertificateEnvironment" => Code::ApnsBadCertificateEnvironment,
        "ExpiredProviderToken" => Code::ApnsExpiredProviderToken,
        "Forbidden" => Code::ApnsForbidden,
        "InvalidProviderToken" => Code::ApnsInvalidProviderToken,
        "MissingProviderToken" => Code::ApnsMissingProviderToken,
        "UnrelatedKeyIdInToken" => Code::ApnsUnrelatedKeyIdInToken,
        // Documented so, and seen on the wire without "Id".
        "BadEnvironmentKeyIdInToken" | "BadEnvironmentKeyInToken" => {
            Code::ApnsBadEnvironmentKeyIdInToken
        }
        _ => Code::ApnsOtherRejection,
    }
}

const fn misconfigured(code: Code) -> Outcome {
    Outcome::Misconfigured { code }
}

const fn not_now(code: Code, retry_after: Duration) -> Outcome {
    Outcome::NotNow { code, retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(code: Code, since_unix_ms: Option<u64>) -> Outcome {
        Outcome::Gone { code, since_unix_ms }
    }

    fn wait(code: Code, seconds: u64) -> Outcome {
        not_now(code, Duration::from_secs(seconds))
    }

    /// Every reason of Apple's table under its own status.
    fn documented() -> Vec<(u16, &'static str, Outcome)> {
        let mut rows = vec![
            (400, "BadDeviceToken", gone(Code::ApnsBadDeviceToken, None)),
            (400, "IdleTimeout", wait(Code::ApnsIdleTimeout, 1)),
            (410, "Unregistered", gone(Code::ApnsUnregistered, None)),
            (410, "ExpiredToken", gone(Code::ApnsExpiredToken, None)),
            (413, "PayloadTooLarge", Refusal::new(Code::ApnsPayloadTooLarge).into()),
            (429, "TooManyProviderTokenUpdates", wait(Code::ApnsTooManyProviderTokenUpdates, 60)),
            (429, "TooManyRequests", wait(Code::ApnsTooManyRequests, 60)),
            (500, "InternalServerError", wait(Code::ApnsInternalServerError, 900)),
            (503, "ServiceUnavailable", wait(Code::ApnsServiceUnavailable, 900)),
            (503, "Shutdown", wait(Code::ApnsShutdown, 10)),
        ];
        let operators = [
            (400, "BadCollapseId", Code::ApnsBadCollapseId),
            (400, "BadExpirationDate", Code::ApnsBadExpirationDate),
            (400, "BadMessageId", Code::ApnsBadMessageId),
            (400, "BadPriority", Code::ApnsBadPriority),
            (400, "BadTopic", Code::ApnsBadTopic),
            (400, "DeviceTokenNotForTopic", Code::ApnsDeviceTokenNotForTopic),
            (400, "DuplicateHeaders", Code::ApnsDuplicateHeaders),
            (400, "InvalidPushType", Code::ApnsInvalidPushType),
            (400, "MissingDeviceToken", Code::ApnsMissingDeviceToken),
            (400, "MissingTopic", Code::ApnsMissingTopic),
            (400, "PayloadEmpty", Code::ApnsPayloadEmpty),
            (400, "TopicDisallowed", Code::ApnsTopicDisallowed),
            (403, "BadCertificate", Code::ApnsBadCertificate),
            (403, "BadCertificateEnvironment", Code::ApnsBadCertificateEnvironment),
            (403, "ExpiredProviderToken", Code::ApnsExpiredProviderToken),
            (403, "Forbidden", Code::ApnsForbidden),
            (403, "InvalidProviderToken", Code::ApnsInvalidProviderToken),
            (403, "MissingProviderToken", Code::ApnsMissingProviderToken),
            (403, "UnrelatedKeyIdInToken", Code::ApnsUnrelatedKeyIdInToken),
            (403, "BadEnvironmentKeyIdInToken", Code::ApnsBadEnvironmentKeyIdInToken),
            (403, "BadEnvironmentKeyInToken", Code::ApnsBadEnvironmentKeyIdInToken),
            (404, "BadPath", Code::ApnsBadPath),
            (405, "MethodNotAllowed", Code::ApnsMethodNotAllowed),
        ];
        rows.extend(operators.map(|(status, reason, code)| (status, reason, misconfigured(code))));
        rows
    }

    /// What a status alone says.
    fn by_class(status: u16) -> Outcome {
        match status {
            429 => wait(Code::ApnsOtherThrottle, 60),
            500..=599 => wait(Code::ApnsOtherServerError, 900),
            _ => misconfigured(Code::ApnsOtherRejection),
        }
    }

    fn check(status: u16, body: &str, expected: &Outcome) {
        let status = StatusCode::from_u16(status).unwrap();
        let outcome = read(status, &HeaderMap::new(), body.as_bytes());
        assert_eq!(&outcome, expected, "{status} {body}");
    }

    #[test]
    fn every_documented_reason_has_its_row() {
        for (status, reason, expected) in documented() {
            check(status, &format!(r#"{{"reason":"{reason}"}}"#), &expected);
        }
    }

    #[test]
    fn a_reason_under_another_status_goes_by_the_status() {
        let documented = documented();
        for (_, reason, _) in &documented {
            for status in [302, 400, 401, 403, 404, 405, 410, 413, 418, 429, 500, 502, 503] {
                let own = documented.iter().any(|row| row.0 == status && row.1 == *reason);
                if !own {
                    check(status, &format!(r#"{{"reason":"{reason}"}}"#), &by_class(status));
                }
            }
        }
    }

    #[test]
    fn unknown_reasons_and_strange_bodies_go_by_the_status() {
        let bodies =
            ["", "{}", "[]", "null", "<html>", r#"{"reason":7}"#, r#"{"reason":"New"}"#, "\u{0}"];
        for status in [304, 400, 401, 403, 404, 405, 410, 413, 418, 429, 500, 502, 503, 504, 599] {
            for body in bodies {
                check(status, body, &by_class(status));
            }
        }
    }

    #[test]
    fn a_dead_device_comes_with_the_time_of_its_death() {
        let unregistered =
            |timestamp: &str| format!(r#"{{"reason":"Unregistered","timestamp":{timestamp}}}"#);
        let code = Code::ApnsUnregistered;
        check(410, &unregistered("1629000000123"), &gone(code, Some(1_629_000_000_123)));
        check(410, &unregistered("253402300799999"), &gone(code, Some(TIMESTAMP_MS_MAX)));
        for strange in ["-1", "\"1629000000123\"", "null", "1e400", "{}", "253402300800000"] {
            let expected = match strange {
                // Not JSON at all for serde_json: a number out of range.
                "1e400" => by_class(410),
                _ => gone(code, None),
            };
            check(410, &unregistered(strange), &expected);
        }
    }

    #[test]
    fn an_accepted_message_has_apples_id() {
        let mut headers = HeaderMap::new();
        headers.insert("apns-id", "eabeae54-14a8-11e5-b60b-1697f925ec7b".parse().unwrap());
        let id = Some("eabeae54-14a8-11e5-b60b-1697f925ec7b".to_owned());
        let accepted = |provider_message_id| Outcome::Accepted { provider_message_id };
        assert_eq!(read(StatusCode::OK, &headers, b""), accepted(id));
        assert_eq!(read(StatusCode::OK, &HeaderMap::new(), b""), accepted(None));
    }

    #[test]
    fn every_code_of_apples_is_given_by_a_row() {
        let mut given: Vec<Code> = documented().iter().map(|row| row.2.code()).collect();
        given.extend([400, 429, 500].map(|status| by_class(status).code()));
        for code in Code::ALL.iter().filter(|code| code.label().starts_with("apns_")) {
            assert!(given.contains(code), "{}", code.label());
        }
    }
}
