//! The push services' answers: each is read, and a good device is never reported gone by chance.
//!
//! The input is written as HTTP/1.1 has it: the status on a line, header fields, an empty line, the
//! body.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::Value;
use sns_relay::outcome::Outcome;
use sns_relay::provider::{apns, fcm, webpush};
use sns_relay::reply;

use crate::NOW_UNIX_S;

/// An answer of a push service.
struct Answer<'a> {
    status: StatusCode,
    headers: HeaderMap,
    body: &'a [u8],
}

/// Checks one answer of Apple's.
pub fn apns_answer(data: &[u8]) {
    let Some(answer) = Answer::parse(data) else { return };
    let outcome = apns::answer::read(answer.status, &answer.headers, answer.body);
    answer.check(&outcome, "apns_");
    let Outcome::Gone { since_unix_ms, .. } = outcome else { return };
    let body = answer.json();
    let reasons: &[&str] = match answer.status.as_u16() {
        400 => &["BadDeviceToken"],
        410 => &["Unregistered", "ExpiredToken"],
        _ => &[],
    };
    assert!(reasons.iter().any(|reason| body["reason"] == *reason), "gone without a reason");
    assert!(since_unix_ms.is_none() || since_unix_ms == body["timestamp"].as_u64());
}

/// Checks one answer of Google's.
pub fn fcm_answer(data: &[u8]) {
    let Some(answer) = Answer::parse(data) else { return };
    let outcome = fcm::answer::read(answer.status, &answer.headers, answer.body, NOW_UNIX_S);
    answer.check(&outcome, "fcm_");
    if let Outcome::NotNow { retry_after, .. } = outcome {
        assert!(retry_after.as_secs() >= 10, "Google: never sooner than ten seconds");
    }
    if matches!(outcome, Outcome::Gone { .. }) {
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        let body = answer.json();
        let mut details = body["error"]["details"].as_array().into_iter().flatten();
        let named = details.any(|detail| detail["errorCode"] == "UNREGISTERED");
        assert!(named, "gone without a code");
    }
}

/// Checks one answer of a browser's service.
pub fn webpush_answer(data: &[u8]) {
    let Some(answer) = Answer::parse(data) else { return };
    let outcome = webpush::answer::read(answer.status, &answer.headers, answer.body, NOW_UNIX_S);
    answer.check(&outcome, "webpush_");
    let Outcome::Gone { since_unix_ms, .. } = outcome else { return };
    assert_eq!(since_unix_ms, None, "no browser's service says when");
    let reason = &answer.json()["reason"];
    match answer.status.as_u16() {
        400 => assert!(reason == "BadWebPushToken" || reason == "BadDeviceToken"),
        404 | 410 => assert!(reason != "BadPath", "Apple blames our path, not the device"),
        other => panic!("gone by the status {other}"),
    }
}

// === impl Answer ===

impl<'a> Answer<'a> {
    fn parse(data: &'a [u8]) -> Option<Self> {
        let (status, mut rest) = split_line(data)?;
        let status = StatusCode::from_bytes(status).ok()?;
        let mut headers = HeaderMap::new();
        while let Some((line, after)) = split_line(rest) {
            rest = after;
            if line.is_empty() {
                break;
            }
            let colon = line.iter().position(|byte| *byte == b':')?;
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
            headers.append(name, value);
        }
        Some(Self { status, headers, body: rest })
    }

    /// What holds for every push service.
    fn check(&self, outcome: &Outcome, prefix: &str) {
        let code = outcome.code();
        assert_eq!(outcome.kind(), reply::row(code).kind, "{} is of another kind", code.label());
        let accepted = matches!(outcome, Outcome::Accepted { .. });
        assert_eq!(accepted, self.status.is_success(), "accepted by the status alone");
        assert!(accepted || code.label().starts_with(prefix), "{} is foreign", code.label());
        match outcome {
            Outcome::Accepted { provider_message_id: Some(id) } => assert!(self.gave(id)),
            Outcome::NotNow { retry_after, .. } => {
                assert!((1..=86_400).contains(&retry_after.as_secs()), "{retry_after:?}");
            }
            Outcome::Refused(refusal) => assert_eq!(refusal.field, None, "no words of others"),
            Outcome::Unknown { .. } => panic!("an answer came"),
            _ => {}
        }
    }

    /// Tells whether the push service gave that id.
    fn gave(&self, id: &str) -> bool {
        let names = [HeaderName::from_static("apns-id"), header::LOCATION];
        let mut of_headers = names.iter().filter_map(|name| self.headers.get(name));
        of_headers.any(|value| value == id) || self.json()["name"] == id
    }

    fn json(&self) -> Value {
        serde_json::from_slice(self.body).unwrap_or_default()
    }
}

/// Gives a line without its end, and what follows it.
fn split_line(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    let line = &data[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &data[end + 1..]))
}
