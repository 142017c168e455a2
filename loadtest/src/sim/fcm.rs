//! FCM HTTP v1 and the OAuth token endpoint that goes with it, on one origin.
//!
//! `POST /token` takes the RFC 7523 grant of a service account, `POST
//! /v1/projects/<project>/messages:send` one message for one device under a token issued here.
//! Both speak HTTP/2 and HTTP/1.1. Where Google publishes no order the checks run: path, access
//! token, content type, message. Source: Firebase, "HTTP v1 API" and "ErrorCode"; the discovery
//! document `fcm:v1`; RFC 7523 §2.1, §3.

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::journal::{Acceptance, Delivered, MessageKey};
use super::jws::decode;
use super::script::{Answer, Script};
use super::server::{Controls, Peer, Received, Reply, Service, Simulator, Verdict, launch};
use super::{SimError, lock};
use crate::ca::TestCa;

mod credentials;

mod message;

mod oauth;

pub use credentials::FcmCredentials;

use message::Message;
use oauth::Tokens;

/// A running FCM simulator.
pub type FcmSim = Simulator<Fcm>;

/// The rules of FCM; made by `FcmSim::start`.
pub struct Fcm {
    config: FcmSimConfig,
    parts: Controls,
    oauth_script: Script,
    tokens: Tokens,
    devices: Mutex<HashSet<String>>,
}

/// How a simulator is set up.
#[derive(Clone)]
pub struct FcmSimConfig {
    /// How long an access token lives, in seconds.
    pub access_token_life_s: u32,
    /// The stream limit of each connection.
    pub stream_limit: u32,
    /// Whether only registered device tokens are taken; else any.
    pub registered_only: bool,
}

/// The path of the token endpoint.
const TOKEN_PATH: &str = "/token";

impl Default for FcmSimConfig {
    /// An hour, 100 streams, any device token.
    fn default() -> FcmSimConfig {
        FcmSimConfig { access_token_life_s: 3600, stream_limit: 100, registered_only: false }
    }
}

/// Google's error form; `fcm_code` becomes the `errorCode` of an `FcmError` detail.
pub fn error(code: u16, status: &str, fcm_code: Option<&str>) -> Answer {
    let detail = fcm_code
        .map(|fcm_code| detail("firebase.fcm.v1.FcmError", json!({ "errorCode": fcm_code })));
    error_with(code, status, detail.into_iter().collect())
}

/// An error of Google's gateway, before FCM: an `ErrorInfo` detail with this reason.
pub fn gateway_error(code: u16, status: &str, reason: &str) -> Answer {
    let info = json!({ "reason": reason, "domain": "googleapis.com",
        "metadata": { "service": "fcm.googleapis.com" } });
    error_with(code, status, vec![detail("rpc.ErrorInfo", info)])
}

/// 400 with a `BadRequest` detail: the request is malformed at this field.
pub fn bad_request(field: &str, description: &str) -> Answer {
    let violation = json!({ "field": field, "description": description });
    let detail = detail("rpc.BadRequest", json!({ "fieldViolations": [violation] }));
    error_with(400, "INVALID_ARGUMENT", vec![detail])
}

/// 401 `THIRD_PARTY_AUTH_ERROR`: the project's own APNs or Web Push credential is bad.
pub fn third_party_auth_error() -> Answer {
    let code = json!({ "errorCode": "THIRD_PARTY_AUTH_ERROR" });
    let apns = json!({ "statusCode": 403, "reason": "InvalidProviderToken" });
    let details =
        vec![detail("firebase.fcm.v1.FcmError", code), detail("firebase.fcm.v1.ApnsError", apns)];
    error_with(401, "UNAUTHENTICATED", details)
}

/// 429 for one device: `QUOTA_EXCEEDED` with a `QuotaFailure`.
pub fn device_quota_exceeded() -> Answer {
    let code = json!({ "errorCode": "QUOTA_EXCEEDED" });
    let violation = json!({ "subject": "device", "description": "Device message rate exceeded" });
    let quota = json!({ "violations": [violation] });
    let details = vec![detail("firebase.fcm.v1.FcmError", code), detail("rpc.QuotaFailure", quota)];
    error_with(429, "RESOURCE_EXHAUSTED", details)
}

/// 429 for the whole project: no `FcmError`, an `ErrorInfo` `RATE_LIMIT_EXCEEDED`.
pub fn project_quota_exceeded() -> Answer {
    let info = json!({ "reason": "RATE_LIMIT_EXCEEDED", "domain": "googleapis.com", "metadata": {
        "quota_metric": "fcm.googleapis.com/send_requests",
        "quota_limit": "SendsPerMinutePerProject", "service": "fcm.googleapis.com" } });
    error_with(429, "RESOURCE_EXHAUSTED", vec![detail("rpc.ErrorInfo", info)])
}

/// The OAuth endpoint's error form. RFC 6749 §5.2.
pub fn oauth_error(status: u16, code: &str) -> Answer {
    Answer::json(status_of(status), &json!({ "error": code, "error_description": "refused" }))
}

/// 400 by FCM itself; the message is what Google's own text says.
pub(crate) fn invalid_argument(message: &str) -> Answer {
    let code = json!({ "errorCode": "INVALID_ARGUMENT" });
    let details = vec![detail("firebase.fcm.v1.FcmError", code)];
    answer(400, "INVALID_ARGUMENT", message, details)
}

fn error_with(code: u16, status: &str, details: Vec<Value>) -> Answer {
    answer(code, status, "refused", details)
}

fn answer(code: u16, status: &str, message: &str, details: Vec<Value>) -> Answer {
    let mut error = json!({ "code": code, "message": message, "status": status });
    if !details.is_empty() {
        error["details"] = Value::Array(details);
    }
    Answer::json(status_of(code), &json!({ "error": error }))
}

fn detail(kind: &str, mut fields: Value) -> Value {
    fields["@type"] = Value::String(format!("type.googleapis.com/google.{kind}"));
    fields
}

fn status_of(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl Simulator<Fcm> {
    /// Starts on a free port; no service account is known yet.
    pub async fn start(ca: &TestCa, config: FcmSimConfig) -> Result<FcmSim, SimError> {
        Self::start_at(ca, config, 0).await
    }

    /// Does the same on a given port.
    pub async fn start_at(
        ca: &TestCa,
        config: FcmSimConfig,
        port: u16,
    ) -> Result<FcmSim, SimError> {
        let parts = Controls::default();
        launch((ca, port), &["h2", "http/1.1"], parts.clone(), |origin| Fcm {
            tokens: Tokens::new(&format!("{origin}{TOKEN_PATH}"), config.access_token_life_s),
            config,
            parts,
            oauth_script: Script::default(),
            devices: Mutex::default(),
        })
        .await
    }

    /// Makes a service account of a new project and makes it known here.
    pub fn credentials(&self) -> Result<FcmCredentials, SimError> {
        let credentials = FcmCredentials::generate(self.base_url())?;
        self.service.tokens.enter(&credentials);
        Ok(credentials)
    }

    /// Makes a service account known here that was made before, with the access tokens that it
    /// has from an earlier process.
    pub fn know(&self, credentials: &FcmCredentials) {
        self.service.tokens.enter(credentials);
        self.service.tokens.know_earlier();
    }

    /// What the token endpoint answers to a good grant.
    pub fn oauth_script(&self) -> &Script {
        &self.service.oauth_script
    }

    /// Makes every access token issued so far invalid.
    pub fn revoke_access_tokens(&self) {
        self.service.tokens.revoke();
    }

    /// Registers a device token.
    pub fn register(&self, token: &str) {
        lock(&self.service.devices).insert(token.to_owned());
    }
}

impl Fcm {
    fn token_endpoint(&self, received: &Received) -> Reply {
        self.parts.journal.token_fetch();
        let now_s = self.parts.clock.now_s();
        if self.parts.refuses_credentials() {
            return oauth_error(400, "invalid_grant").into();
        }
        let project = match self.tokens.check_grant(received, now_s) {
            Ok(project) => project,
            Err(answer) => return answer.into(),
        };
        self.oauth_script.take_step(None).reply(|| self.tokens.issue(project, now_s))
    }

    fn send(&self, received: &Received) -> Reply {
        let (project, message) = match self.check(received) {
            Ok(checked) => checked,
            Err(answer) => return answer.into(),
        };
        let name = format!("projects/{project}/messages/{}", uuid::Uuid::new_v4().simple());
        let success = || Answer::json(StatusCode::OK, &json!({ "name": name }));
        if message.validate_only {
            return success().into();
        }
        self.parts.play(&message.token.clone(), success, || message.accepted())
    }

    fn check(&self, received: &Received) -> Result<(String, Message), Answer> {
        let project = project_of(&received.path).ok_or_else(|| error(404, "NOT_FOUND", None))?;
        if received.method != Method::POST {
            return Err(error(404, "NOT_FOUND", None));
        }
        let now_s = self.parts.clock.now_s();
        if self.parts.refuses_credentials() {
            return Err(gateway_error(401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED"));
        }
        let access_token = self.tokens.check_bearer(&received.headers, project, now_s)?;
        self.parts.journal.credential(access_token);
        if !is_json(&received.headers) {
            return Err(bad_request("", "Content-Type must be application/json"));
        }
        let message = Message::parse(&received.body)?;
        if self.config.registered_only && !lock(&self.devices).contains(&message.token) {
            return Err(error(404, "NOT_FOUND", Some("UNREGISTERED")));
        }
        Ok((project.to_owned(), message))
    }
}

impl Service for Fcm {
    type Connection = ();

    fn connect(&self, _: Peer) {}

    fn first_limit(&self, (): &()) -> u32 {
        self.parts.connections.limit_or(self.config.stream_limit)
    }

    fn latency(&self, received: &Received) -> Duration {
        let is_token = received.path == TOKEN_PATH;
        let script = if is_token { &self.oauth_script } else { &self.parts.script };
        script.latency_now()
    }

    fn handle(&self, (): &(), received: &Received) -> Verdict {
        if received.path == TOKEN_PATH {
            self.token_endpoint(received).into()
        } else {
            self.send(received).into()
        }
    }
}

impl Message {
    fn accepted(self) -> Acceptance {
        let sealed = self.data.get("e").and_then(|text| decode(text));
        let data: BTreeMap<String, String> = self.data;
        Acceptance {
            token: self.token,
            id: None,
            sealed: sealed.map(|body| MessageKey::sealed(&body)),
            delivered: Delivered::Fcm { data, message: self.whole },
        }
    }
}

fn project_of(path: &str) -> Option<&str> {
    path.strip_prefix("/v1/projects/")?.strip_suffix("/messages:send")
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = value.map(|value| value.split(';').next().unwrap_or_default().trim());
    kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"))
}
