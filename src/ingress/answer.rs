//! From an outcome's row to HTTP: status, problem details, headers.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ALLOW, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION,
    REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::wire::Problem;
use crate::authenticate::quota::Budget;
use crate::clock;
use crate::outcome::{Code, Outcome, Refusal};
use crate::relay::Settled;
use crate::reply;

/// The header that carries a fresh handle on the application door.
pub const RENEWED_HANDLE: HeaderName = HeaderName::from_static("sns-renewed-handle");

/// What the sender may still send.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// RFC 8030 §5.2: the lifetime that was taken.
const TTL: HeaderName = HeaderName::from_static("ttl");

/// What an accepted push is answered with, and hyper's own two.
const HEADERS_USUAL: usize = 6;

/// An answer, with the code that it is counted under.
pub struct Answer {
    code: Code,
    response: Response<Full<Bytes>>,
}

impl Answer {
    /// Answers with JSON.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::new(Code::Accepted, status, "application/json", body.into()),
            Err(_) => Self::problem(&Outcome::Misconfigured { code: Code::InternalFault }),
        }
    }

    /// Answers with JSON that was written before.
    pub fn ready(json: Bytes) -> Self {
        Self::new(Code::Accepted, StatusCode::OK, "application/json", json)
    }

    /// Answers a person with a page that loads nothing and runs nothing.
    pub fn page(status: StatusCode, body: &'static str) -> Self {
        let page = format!(
            "<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width\"><title>E-mail notifications</title>{body}</html>"
        );
        let mut answer =
            Self::new(Code::Accepted, status, "text/html; charset=utf-8", Bytes::from(page));
        let policy = "default-src 'none'; form-action 'self'; frame-ancestors 'none'";
        let headers = answer.response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        answer
    }

    /// Answers a browser that asks whether it may.
    /// Source: Fetch standard, "CORS-preflight request".
    pub fn preflight() -> Self {
        let mut answer = Self::empty(StatusCode::NO_CONTENT);
        let headers = answer.response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("Content-Type"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
        answer
    }

    /// Answers with a problem, as the outcome's row has it.
    /// Source: RFC 9457; RFC 9110 §10.2.3 (`Retry-After`), §11.6.1 (`WWW-Authenticate`).
    pub fn problem(outcome: &Outcome) -> Self {
        Self::problem_with(outcome, None)
    }

    /// Answers a method that the resource does not know with those that it knows.
    /// Source: RFC 9110 §15.5.6.
    pub fn method_not_allowed(allowed: &'static str) -> Self {
        let mut answer = Self::problem(&Refusal::new(Code::MethodNotAllowed).into());
        answer.response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        answer
    }

    /// Answers a push: 201 with the message's resource, or a problem.
    /// Source: RFC 8030 §5 and §5.2.
    pub fn settled(settled: Settled, public_origin: &str, ttl_asked_s: u32) -> Self {
        let Settled { outcome, renewed_handle, ttl_s, budget } = settled;
        let Outcome::Accepted { provider_message_id } = &outcome else {
            return Self::problem_with(&outcome, renewed_handle).with_budget(budget);
        };
        let mut answer = Self::empty(StatusCode::CREATED);
        let headers = answer.response.headers_mut();
        let id = provider_message_id.as_deref().map(last_segment).unwrap_or_default();
        const PATH: &str = "/messages/";
        let mut location = String::with_capacity(public_origin.len() + PATH.len() + id.len());
        location.extend([public_origin, PATH, id]);
        if let Ok(location) = HeaderValue::try_from(location) {
            headers.insert(LOCATION, location);
        }
        if let Some(ttl_s) = ttl_s {
            headers.insert(TTL, HeaderValue::from(ttl_s.min(ttl_asked_s)));
        }
        insert_renewed(headers, renewed_handle);
        answer.with_budget(budget)
    }

    /// Tells the sender what it may still send.
    /// Shape: `"sender";r=<messages>;t=<seconds until all of the budget is back>`.
    /// Source: draft-ietf-httpapi-ratelimit-headers.
    #[must_use]
    pub fn with_budget(mut self, budget: Option<Budget>) -> Self {
        if let Some(Budget { remaining, reset }) = budget
            && let Ok(value) =
                HeaderValue::try_from(format!(r#""sender";r={remaining};t={}"#, whole_s(reset)))
        {
            self.response.headers_mut().insert(RATE_LIMIT, value);
        }
        self
    }

    /// Lets any web page read the answer.
    #[must_use]
    pub fn for_any_origin(mut self) -> Self {
        let headers = self.response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        self
    }

    /// Gives the code.
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Gives the response.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        self.response
    }

    fn problem_with(outcome: &Outcome, renewed_handle: Option<String>) -> Self {
        let code = outcome.code();
        let row = reply::row(code);
        let field = field(outcome);
        let retry_after_s = retry_after_s(outcome);
        let problem = Problem {
            kind: format!("urn:sns-relay:problem:{}", code.label()),
            title: row.text,
            status: row.http,
            detail: match &field {
                Some(field) => format!("{field}: {}", row.text),
                None => row.text.to_owned(),
            },
            code: code.label(),
            outcome: row.kind.label(),
            field,
            retry_after_s,
            gone_since: gone_since(outcome),
        };
        let status = StatusCode::from_u16(row.http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut answer = Self::new(code, status, "application/problem+json", body.into());
        let headers = answer.response.headers_mut();
        if let Some(seconds) = retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("vapid"));
        }
        insert_renewed(headers, renewed_handle);
        answer
    }

    fn empty(status: StatusCode) -> Self {
        Self { code: Code::Accepted, response: response(status, Bytes::new()) }
    }

    fn new(code: Code, status: StatusCode, content_type: &'static str, body: Bytes) -> Self {
        let mut response = response(status, body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Self { code, response }
    }
}

fn response(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = HeaderMap::with_capacity(HEADERS_USUAL);
    response
}

/// Gives the header or member at fault.
pub fn field(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Refused(refusal) => refusal.field.as_ref().map(|field| field.clone().into_owned()),
        _ => None,
    }
}

/// Gives the whole seconds to wait at least, rounded up.
pub fn retry_after_s(outcome: &Outcome) -> Option<u64> {
    match outcome {
        Outcome::NotNow { retry_after, .. } => Some(whole_s(*retry_after).max(1)),
        _ => None,
    }
}

const fn whole_s(time: Duration) -> u64 {
    time.as_secs() + (time.subsec_nanos() > 0) as u64
}

/// Gives when the push service saw the device die, as RFC 3339.
pub fn gone_since(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Gone { since_unix_ms: Some(since), .. } => {
            Some(clock::format_rfc3339(since / 1000))
        }
        _ => None,
    }
}

fn insert_renewed(headers: &mut HeaderMap, renewed_handle: Option<String>) {
    if let Some(Ok(handle)) = renewed_handle.map(HeaderValue::try_from) {
        headers.insert(RENEWED_HANDLE, handle);
    }
}

/// FCM's ids are paths and Web Push's are URLs; what is no segment of a path gives none.
/// Source: RFC 3986 §3.3 (`pchar`).
fn last_segment(id: &str) -> &str {
    let pchar = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@".contains(&byte);
    id.rsplit('/').next().filter(|id| id.bytes().all(pchar)).unwrap_or_default()
}
