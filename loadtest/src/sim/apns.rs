//! APNs: `POST /3/device/<token>` over HTTP/2, with a provider token or a client certificate.
//!
//! One stream per connection until the first request with a valid provider token is answered, then
//! the configured limit. A connection is bound to its first key. Where Apple publishes no order the
//! checks run: path, duplicate headers, authority, device token, headers, payload.
//! Source: Apple, "Sending notification requests to APNs", "Establishing a token-based connection",
//! "Handling notification responses from APNs".

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::journal::{Acceptance, Delivered, MessageKey};
use super::jws::decode;
use super::script::Answer;
use super::server::{Controls, Peer, Received, Reply, Service, Simulator, Verdict, launch};
use super::{SimError, lock};
use crate::ca::TestCa;

mod authority;

mod credentials;

mod request;

pub(crate) use credentials::pem;
pub use credentials::{ApnsCredentials, RegisteredKey};

use authority::{Authority, Binding};
use request::Notification;

/// A running APNs simulator.
pub type ApnsSim = Simulator<Apns>;

/// The rules of APNs; made by `ApnsSim::start`.
pub struct Apns {
    config: ApnsSimConfig,
    ca: TestCa,
    parts: Controls,
    authority: Authority,
    devices: Mutex<HashMap<String, Registration>>,
}

/// How a simulator is set up.
#[derive(Clone)]
pub struct ApnsSimConfig {
    /// Which of Apple's two environments it is.
    pub environment: Environment,
    /// The bundle identifiers that the keys may push to.
    pub topics: Vec<String>,
    /// The keys that it knows.
    pub keys: Vec<RegisteredKey>,
    /// The stream limit after the first answer; at once with a client certificate.
    pub stream_limit: u32,
    /// Whether only registered device tokens are taken; else any well-formed one.
    pub registered_only: bool,
}

/// Apple's environments; a device token belongs to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// `api.push.apple.com`.
    Production,
    /// `api.sandbox.push.apple.com`.
    Sandbox,
}

#[derive(Clone)]
struct Registration {
    environment: Environment,
    topic: Option<String>,
}

/// The stream limit seen in the field.
const STREAM_LIMIT: u32 = 1000;

/// Apple's error form: `{"reason": …}`.
pub fn error(status: u16, reason: &str) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Answer::json(status, &json!({ "reason": reason }))
}

/// 410 `Unregistered` with the time, in milliseconds, at which the token was found inactive.
pub fn gone(timestamp_ms: u64) -> Answer {
    Answer::json(StatusCode::GONE, &json!({ "reason": "Unregistered", "timestamp": timestamp_ms }))
}

impl ApnsSimConfig {
    /// Production, one key and topic, 1000 streams, any well-formed device token.
    pub fn new(credentials: &ApnsCredentials) -> ApnsSimConfig {
        ApnsSimConfig {
            environment: Environment::Production,
            topics: vec![credentials.topic.clone()],
            keys: vec![credentials.registered()],
            stream_limit: STREAM_LIMIT,
            registered_only: false,
        }
    }
}

impl Simulator<Apns> {
    /// Starts on a free port; speaks HTTP/2 only.
    pub async fn start(ca: &TestCa, config: ApnsSimConfig) -> Result<ApnsSim, SimError> {
        Self::start_at(ca, config, 0).await
    }

    /// Does the same on a given port.
    pub async fn start_at(
        ca: &TestCa,
        config: ApnsSimConfig,
        port: u16,
    ) -> Result<ApnsSim, SimError> {
        let parts = Controls::default();
        launch((ca, port), &["h2"], parts.clone(), |_| Apns {
            authority: Authority::new(config.environment, config.keys.clone()),
            config,
            ca: ca.clone(),
            parts,
            devices: Mutex::default(),
        })
        .await
    }

    /// Registers a device token of this environment, for any topic.
    pub fn register(&self, token: &str) {
        let environment = self.service.config.environment;
        self.service.enter(token, Registration { environment, topic: None });
    }

    /// Registers a device token of this environment that belongs to one app.
    pub fn register_for(&self, token: &str, topic: &str) {
        let environment = self.service.config.environment;
        self.service.enter(token, Registration { environment, topic: Some(topic.to_owned()) });
    }

    /// Registers a device token of the other environment: it gets 400 `BadDeviceToken`.
    pub fn register_foreign(&self, token: &str) {
        let environment = self.service.config.environment.other();
        self.service.enter(token, Registration { environment, topic: None });
    }
}

impl Environment {
    fn other(self) -> Environment {
        match self {
            Environment::Production => Environment::Sandbox,
            Environment::Sandbox => Environment::Production,
        }
    }
}

impl Apns {
    fn enter(&self, token: &str, registration: Registration) {
        lock(&self.devices).insert(token.to_lowercase(), registration);
    }

    fn check_device(&self, token: &str, topic: &str) -> Result<(), Answer> {
        match lock(&self.devices).get(token) {
            Some(known) if known.environment != self.config.environment => {
                Err(error(400, "BadDeviceToken"))
            }
            Some(Registration { topic: Some(own), .. }) if own != topic => {
                Err(error(400, "DeviceTokenNotForTopic"))
            }
            None if self.config.registered_only => Err(error(400, "BadDeviceToken")),
            _ => Ok(()),
        }
    }

    fn check(&self, binding: &Binding, received: &Received) -> Result<Notification, Answer> {
        let token = request::device_token(received)?;
        request::check_duplicates(&received.headers)?;
        let now_s = self.parts.clock.now_s();
        if self.parts.refuses_credentials() {
            return Err(error(403, "InvalidProviderToken"));
        }
        if binding.certificate_topic().is_none() {
            let provider_token = self.authority.check(binding, &received.headers, now_s)?;
            self.parts.journal.credential(provider_token);
        }
        let own_topic = binding.certificate_topic();
        let topics = own_topic.map_or(self.config.topics.as_slice(), std::slice::from_ref);
        let notification = Notification::parse(token, received, topics, own_topic, now_s)?;
        self.check_device(&notification.token, &notification.topic)?;
        Ok(notification)
    }

    fn dress(&self, answer: &mut Answer, id: &str) {
        let mut put = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                answer.headers.push((HeaderName::from_static(name), value));
            }
        };
        put("apns-id", id);
        if self.config.environment == Environment::Sandbox {
            put("apns-unique-id", &Uuid::new_v4().to_string());
        }
    }
}

impl Service for Apns {
    type Connection = Binding;

    fn connect(&self, peer: Peer) -> Binding {
        Binding::new(peer.certificate.and_then(|der| self.ca.common_name_of(&der)))
    }

    fn first_limit(&self, binding: &Binding) -> u32 {
        match binding.certificate_topic() {
            Some(_) => self.parts.connections.limit_or(self.config.stream_limit),
            None => 1,
        }
    }

    fn latency(&self, _: &Received) -> Duration {
        self.parts.script.latency_now()
    }

    fn handle(&self, binding: &Binding, received: &Received) -> Verdict {
        let given = received.headers.get("apns-id").and_then(|id| id.to_str().ok());
        let id = given.map_or_else(|| Uuid::new_v4().to_string().to_uppercase(), str::to_owned);
        let mut reply = match self.check(binding, received) {
            Err(answer) => Reply::Answer(answer),
            Ok(notification) => self.parts.play(
                &notification.token.clone(),
                || Answer::empty(StatusCode::OK),
                || notification.accepted(&id, received),
            ),
        };
        if let Reply::Answer(answer) = &mut reply {
            self.dress(answer, &id);
        }
        let first_answer = matches!(reply, Reply::Answer(_)) && binding.open_up();
        let limit_after =
            first_answer.then(|| self.parts.connections.limit_or(self.config.stream_limit));
        Verdict { reply, limit_after }
    }
}

impl Notification {
    fn accepted(self, id: &str, received: &Received) -> Acceptance {
        let sealed = self.payload.get("e").and_then(Value::as_str).and_then(decode);
        let headers = received.headers.clone();
        Acceptance {
            id: Uuid::parse_str(id).ok().map(MessageKey::uuid),
            sealed: sealed.map(|body| MessageKey::sealed(&body)),
            token: self.token,
            delivered: Delivered::Apns { id: id.to_owned(), payload: self.payload, headers },
        }
    }
}
