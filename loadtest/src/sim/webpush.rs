//! Web Push: `POST /wpush/v2/<id>` with an encrypted body, in the flavour of one vendor's answers.
//!
//! Every flavour makes the same checks, those of RFC 8030, 8188, 8291 and 8292 read strictly; only
//! the refusals differ. Where nothing fixes an order the checks run: path, subscription, VAPID,
//! headers, body. HTTP/2, or HTTP/1.1 alone to test senders without it.
//! Sources: the RFCs; Mozilla, autoendpoint; Apple, "Sending web push notifications"; FCM as seen.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use http::header::LOCATION;
use http::{HeaderName, HeaderValue, StatusCode};
use uuid::Uuid;

use super::journal::{Acceptance, Delivered, MessageKey};
use super::script::Answer;
use super::server::{Controls, Peer, Received, Reply, Service, Simulator, Verdict, launch};
use super::{SimError, lock};
use crate::ca::TestCa;

mod answer;

mod check;

mod vapid;

pub use answer::{Flavour, apple, google, mozilla};

use answer::Fault;
use check::Accepted;
use vapid::Vapid;

/// A running Web Push simulator.
pub type WebPushSim = Simulator<WebPush>;

/// The rules of Web Push; made by `WebPushSim::start`.
pub struct WebPush {
    origin: String,
    config: WebPushSimConfig,
    parts: Controls,
    vapid: Vapid,
    subscriptions: Mutex<HashMap<String, [u8; 65]>>,
}

/// How a simulator is set up.
#[derive(Clone)]
pub struct WebPushSimConfig {
    /// Whose refusals it sends.
    pub flavour: Flavour,
    /// Which HTTP it offers.
    pub protocol: Protocol,
    /// The stream limit of each HTTP/2 connection.
    pub stream_limit: u32,
}

/// The HTTP versions offered by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2, else HTTP/1.1.
    Both,
    /// HTTP/1.1 alone.
    Http1,
}

const PATH: &str = "/wpush/v2/";

impl Default for WebPushSimConfig {
    /// Mozilla's answers, both protocols, 100 streams.
    fn default() -> WebPushSimConfig {
        WebPushSimConfig { flavour: Flavour::Mozilla, protocol: Protocol::Both, stream_limit: 100 }
    }
}

impl Simulator<WebPush> {
    /// Starts on a free port, without subscriptions.
    pub async fn start(ca: &TestCa, config: WebPushSimConfig) -> Result<WebPushSim, SimError> {
        Self::start_at(ca, config, 0).await
    }

    /// Does the same on a given port.
    pub async fn start_at(
        ca: &TestCa,
        config: WebPushSimConfig,
        port: u16,
    ) -> Result<WebPushSim, SimError> {
        let alpn: &[&str] = match config.protocol {
            Protocol::Both => &["h2", "http/1.1"],
            Protocol::Http1 => &["http/1.1"],
        };
        let parts = Controls::default();
        launch((ca, port), alpn, parts.clone(), |origin| WebPush {
            origin: origin.to_owned(),
            config,
            parts,
            vapid: Vapid::new(origin),
            subscriptions: Mutex::default(),
        })
        .await
    }

    /// Makes a subscription for this application server key and gives its endpoint.
    /// Shape: the key is the uncompressed P-256 point that the sender signs VAPID tokens with.
    pub fn subscribe(&self, application_server_key: [u8; 65]) -> String {
        let id = Uuid::new_v4().simple().to_string();
        lock(&self.service.subscriptions).insert(id.clone(), application_server_key);
        format!("{}{PATH}{id}", self.base_url())
    }

    /// Ends a subscription: its endpoint is unknown from now on.
    pub fn unsubscribe(&self, endpoint: &str) {
        if let Some((_, id)) = endpoint.rsplit_once('/') {
            lock(&self.service.subscriptions).remove(id);
        }
    }
}

impl WebPush {
    fn check(&self, received: &Received) -> Result<Accepted, Fault> {
        let id = received.path.strip_prefix(PATH).ok_or(Fault::BadPath)?;
        if received.method != http::Method::POST {
            return Err(Fault::MethodNotAllowed);
        }
        let subscriptions = lock(&self.subscriptions);
        let key = *subscriptions.get(id).ok_or(Fault::UnknownSubscription)?;
        drop(subscriptions);
        if self.parts.refuses_credentials() {
            return Err(Fault::VapidInvalid);
        }
        let token = self.vapid.check(&received.headers, &key, self.parts.clock.now_s())?;
        self.parts.journal.credential(token);
        check::check(received)
    }

    fn created(&self, ttl_s: u64) -> Answer {
        let location = format!("{}/m/{}", self.origin, Uuid::new_v4().simple());
        let mut answer = Answer::empty(StatusCode::CREATED);
        if let Ok(location) = HeaderValue::from_str(&location) {
            answer.headers.push((LOCATION, location));
        }
        answer.with_header(HeaderName::from_static("ttl"), HeaderValue::from(ttl_s))
    }
}

impl Service for WebPush {
    type Connection = ();

    fn connect(&self, _: Peer) {}

    fn first_limit(&self, (): &()) -> u32 {
        self.parts.connections.limit_or(self.config.stream_limit)
    }

    fn latency(&self, _: &Received) -> Duration {
        self.parts.script.latency_now()
    }

    fn handle(&self, (): &(), received: &Received) -> Verdict {
        let accepted = match self.check(received) {
            Ok(accepted) => accepted,
            Err(fault) => {
                return Verdict::from(Reply::Answer(answer::refusal(self.config.flavour, fault)));
            }
        };
        let endpoint = format!("{}{}", self.origin, received.path);
        let acceptance = || Acceptance {
            token: endpoint.clone(),
            id: None,
            sealed: Some(MessageKey::sealed(&received.body)),
            delivered: Delivered::WebPush {
                body: received.body.clone(),
                headers: received.headers.clone(),
            },
        };
        self.parts.play(&endpoint, || self.created(accepted.ttl_s), acceptance).into()
    }
}
