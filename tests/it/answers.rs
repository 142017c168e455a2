//! The answer tables over the wire: what a push service says, and what the sender hears.
//!
//! A simulator is told what to answer; a sealed message goes through the application door of a
//! running relay, over TLS and HTTP/2 to the simulator; and status, problem, `Retry-After` and the
//! number of requests upstream are compared with the row. A closing claim holds each table to every
//! code.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION,
    RETRY_AFTER,
};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use sns_loadtest::device::{Device, DeviceKind};
use sns_loadtest::sim::journal::{Journal, StreamOutcome};
use sns_loadtest::sim::script::{Answer, Script, Step};
use sns_loadtest::sim::server::{ConnectionStats, Connections};
use sns_loadtest::stage::Stage;
use sns_nas::key::SenderKey;
use sns_nas::seal::{self, BodyCap};
use sns_nas::vapid::{self, Audience};
use sns_relay::clock::Clock;
use sns_relay::outcome::Code;
use tokio::task::JoinSet;

use crate::house::House;

mod apns;
mod fcm;
mod silence;
mod told;
mod webpush;

/// A relay with one device of a push service, and a sender that may push to it.
struct Line {
    house: House,
    kind: DeviceKind,
    device: Device,
    sender: SenderKey,
    endpoint: String,
    authorization: String,
    http: Client<HttpConnector, Full<Bytes>>,
}

/// What a push service says, and what comes of it.
struct Row {
    says: Answer,
    heard: Heard,
    /// Requests that the push service sees while it says the same each time.
    requests: usize,
}

/// What the sender hears.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Heard {
    http: u16,
    outcome: String,
    code: String,
    retry_after_s: Option<u64>,
    gone_since: Option<String>,
}

const TTL: HeaderName = HeaderName::from_static("ttl");
const URGENCY: HeaderName = HeaderName::from_static("urgency");

// === impl Line ===

impl Line {
    async fn to(kind: DeviceKind) -> Self {
        Self::with(kind, |_| {}).await
    }

    async fn with(kind: DeviceKind, change: impl FnOnce(&mut Stage)) -> Self {
        let house = House::with(change).await;
        let sender = SenderKey::generate().unwrap();
        let (device, endpoint) = house.paired(kind, &sender).await;
        let audience = Audience::of_url(&house.url).unwrap();
        let now_unix_s = Clock::system().unix_s();
        let life_s = vapid::LIFE_S_DEFAULT;
        let authorization = vapid::authorization(&sender, &audience, None, now_unix_s, life_s);
        let authorization = authorization.unwrap();
        let http = Client::builder(TokioExecutor::new()).build_http();
        Self { house, kind, device, sender, endpoint, authorization, http }
    }

    fn script(&self) -> &Script {
        match self.kind {
            DeviceKind::Ios => self.house.stage.apns.script(),
            DeviceKind::Android => self.house.stage.fcm.script(),
            DeviceKind::Browser => self.house.stage.webpush.script(),
        }
    }

    fn journal(&self) -> &Journal {
        match self.kind {
            DeviceKind::Ios => self.house.stage.apns.journal(),
            DeviceKind::Android => self.house.stage.fcm.journal(),
            DeviceKind::Browser => self.house.stage.webpush.journal(),
        }
    }

    fn connections(&self) -> &Connections {
        match self.kind {
            DeviceKind::Ios => self.house.stage.apns.connections(),
            DeviceKind::Android => self.house.stage.fcm.connections(),
            DeviceKind::Browser => self.house.stage.webpush.connections(),
        }
    }

    /// Gives what became of the messages that arrived, without requests for an access token.
    fn arrived(&self) -> Vec<StreamOutcome> {
        let entries = self.journal().entries();
        let messages = entries.into_iter().filter(|entry| entry.path != "/token");
        messages.map(|entry| entry.outcome).collect()
    }

    /// Pushes one message through the application door.
    async fn push(&self) -> Heard {
        let keys = self.device.keys().device();
        let body = seal::seal(&keys, b"hello from the NAS", BodyCap::default()).unwrap();
        let request = Request::post(&self.endpoint)
            .header(AUTHORIZATION, &self.authorization)
            .header(TTL, 60)
            .header(URGENCY, "high")
            .header(CONTENT_ENCODING, "aes128gcm")
            .body(Full::from(body))
            .unwrap();
        let answer = self.http.request(request).await.unwrap();
        let (head, body) = answer.into_parts();
        Heard::read(head.status, &head.headers, &body.collect().await.unwrap().to_bytes())
    }

    /// Pushes so many messages at once.
    async fn push_at_once(self: &Arc<Self>, count: usize) -> Vec<Heard> {
        let mut pushes = JoinSet::new();
        for _ in 0..count {
            let line = Arc::clone(self);
            pushes.spawn(async move { line.push().await });
        }
        pushes.join_all().await
    }

    /// The push service says the same to every request; the sender hears what the row says.
    async fn check(&self, row: &Row) {
        let name = row.name();
        self.script().standing(Step::Answer(row.says.clone()));
        let before = self.arrived().len();
        assert_eq!(self.push().await, row.heard, "{name}");
        assert_eq!(self.arrived().len() - before, row.requests, "requests of {name}");
    }

    /// The push service says it once and then accepts; the sender hears 201 after two requests.
    async fn check_second_try(&self, says: Answer) {
        let name = name(&says);
        self.script().next(1, Step::Answer(says));
        let (before, read) = (self.arrived().len(), self.house.read_by(&self.device).len());
        assert_eq!(self.push().await, accepted(), "{name}");
        assert_eq!(self.arrived().len() - before, 2, "requests of {name}");
        assert_eq!(self.house.read_by(&self.device).len() - read, 1, "deliveries of {name}");
    }

    /// Plays a whole table, and then one message more that the push service accepts.
    async fn play(&self, rows: &[Row]) {
        for row in rows {
            self.check(row).await;
        }
        self.script().reset();
        assert_eq!(self.push().await, accepted());
        let spoke_http2 =
            |figures: &ConnectionStats| figures.stream_limit > 1 || figures.streams_opened == 0;
        assert!(self.connections().stats().iter().all(spoke_http2), "HTTP/1.1 has one stream");
    }
}

// === impl Row ===

impl Row {
    fn new(says: Answer, heard: Heard) -> Self {
        Self { says, heard, requests: 1 }
    }

    /// The relay asks a second time.
    fn twice(self) -> Self {
        Self { requests: 2, ..self }
    }

    fn name(&self) -> String {
        name(&self.says)
    }
}

/// Names an answer by its status and the beginning of its body.
fn name(answer: &Answer) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    format!("{} {}", answer.status.as_u16(), body.chars().take(200).collect::<String>())
}

// === impl Heard ===

impl Heard {
    /// Reads an answer of the application door, whose parts must agree.
    fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        if status == StatusCode::CREATED {
            let location: Uri = headers[LOCATION].to_str().unwrap().parse().unwrap();
            assert!(location.path().starts_with("/messages/") && location.query().is_none());
            assert!(body.is_empty());
            return accepted();
        }
        assert_eq!(headers[CONTENT_TYPE], "application/problem+json");
        let problem: Value = serde_json::from_slice(body).unwrap();
        let text = |member: &str| problem[member].as_str().map(str::to_owned);
        let code = text("code").unwrap();
        assert_eq!(problem["status"], status.as_u16());
        assert_eq!(problem["type"], format!("urn:sns-relay:problem:{code}"));
        let retry_after_s = problem.get("retry_after_s").map(|wait| wait.as_u64().unwrap());
        let header = headers.get(RETRY_AFTER).map(|wait| wait.to_str().unwrap().parse().unwrap());
        assert_eq!(header, retry_after_s, "Retry-After of {code}");
        Self {
            http: status.as_u16(),
            outcome: text("outcome").unwrap(),
            code,
            retry_after_s,
            gone_since: text("gone_since"),
        }
    }

    fn new(http: u16, outcome: &str, code: &str) -> Self {
        let (outcome, code) = (outcome.to_owned(), code.to_owned());
        Self { http, outcome, code, retry_after_s: None, gone_since: None }
    }
}

fn accepted() -> Heard {
    Heard::new(201, "accepted", "accepted")
}

fn gone(code: &str) -> Heard {
    Heard::new(410, "gone", code)
}

fn gone_since(code: &str, since: &str) -> Heard {
    Heard { gone_since: Some(since.to_owned()), ..gone(code) }
}

fn not_now(http: u16, code: &str, retry_after_s: u64) -> Heard {
    Heard { retry_after_s: Some(retry_after_s), ..Heard::new(http, "not_now", code) }
}

fn refused(http: u16, code: &str) -> Heard {
    Heard::new(http, "refused", code)
}

fn misconfigured(code: &str) -> Heard {
    Heard::new(502, "misconfigured", code)
}

fn unknown() -> Heard {
    Heard::new(504, "unknown", "no_answer")
}

// === answers of no vendor ===

/// An answer whose body is just this text.
fn page(status: u16, text: impl Into<Bytes>) -> Answer {
    Answer { body: text.into(), ..Answer::empty(StatusCode::from_u16(status).unwrap()) }
}

/// Bodies that no push service documents: a gateway's page, nothing, JSON of another form, 1 MiB.
fn strange_bodies() -> Vec<Bytes> {
    let huge = format!("<html>{}</html>", "x".repeat(1 << 20));
    let texts = [
        "",
        "<html><head><title>502 Bad Gateway</title></head></html>",
        "null",
        "[]",
        "7",
        "\"Unregistered\"",
        "{}",
        "{\"reason\":7}",
        "{\"reason\":{\"reason\":\"Unregistered\"}}",
        "{\"error\":\"x\"}",
        "{\"error\":{\"details\":7}}",
        "{\"error\":{\"details\":[7,null,{\"@type\":7}]}}",
        "{\"errno\":\"103\"}",
        "{\"reason\":\"Unregistered\"",
        "\u{0}",
    ];
    let mut bodies: Vec<Bytes> = texts.into_iter().map(Bytes::from).collect();
    bodies.extend([Bytes::from(huge), Bytes::from_static(b"\xff\xfe")]);
    bodies
}

/// The same with a wait that the push service names.
fn after(answer: Answer, wait: &'static str) -> Answer {
    answer.with_header(RETRY_AFTER, HeaderValue::from_static(wait))
}

/// Every code of a push service must be heard in its tables.
fn assert_complete<'a>(prefix: &str, tables: impl IntoIterator<Item = &'a Row>) {
    let heard: Vec<&str> = tables.into_iter().map(|row| row.heard.code.as_str()).collect();
    for code in Code::ALL.iter().map(|code| code.label()).filter(|code| code.starts_with(prefix)) {
        assert!(heard.contains(&code), "no row is answered with {code}");
    }
}
