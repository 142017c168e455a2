//! What the doors share: one request's way in and its answer's way out.
//!
//! In: a request with its headers read. Out: an answer, always, within the named limits. This room
//! translates: bytes become the corridor's words, an outcome's row becomes a status and a body.
//! It decides nothing about a message, and nothing that a sender sent is written to a log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config;
use crate::metrics::Door;
use crate::outcome::{Code, Outcome, Refusal};
use crate::relay::Relay;

pub mod answer;

pub mod body;

pub mod http_door;

pub mod json;

pub mod openapi;

pub mod webpush;

pub mod wire;

use answer::Answer;

/// Both doors over HTTP.
pub struct Doors {
    relay: Arc<Relay>,
    limits: config::Server,
    in_flight: Semaphore,
    draining: AtomicBool,
}

/// One request on its way through a door.
pub struct Visit<'a> {
    doors: &'a Doors,
    headers: &'a HeaderMap,
    body: Incoming,
}

/// A sender that meets our own limit comes back after this.
const OVERLOADED_WAIT: Duration = Duration::from_secs(1);

// === impl Doors ===

impl Doors {
    /// Opens the doors of a relay.
    pub fn new(relay: Arc<Relay>, limits: config::Server) -> Self {
        let in_flight = Semaphore::new(limits.in_flight_max.min(Semaphore::MAX_PERMITS));
        Self { relay, limits, in_flight, draining: AtomicBool::new(false) }
    }

    /// Turns new requests away from now on; those in work go on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Tells whether the doors are closing.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Answers one request.
    pub async fn handle(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let visit = Visit { doors: self, headers: &head.headers, body };
        let (door, answer) = self.route(&head.method, head.uri.path(), visit).await;
        self.relay.metrics.answered(door, answer.code());
        answer.into_response()
    }

    /// Gives the time by which an answer must be out.
    fn deadline(&self) -> Instant {
        Instant::now() + self.limits.request_timeout
    }

    async fn route(&self, method: &Method, path: &str, visit: Visit<'_>) -> (Door, Answer) {
        let door = door_of(path);
        let answer = self.answer(door, method, path, visit).await;
        let answer = answer.unwrap_or_else(|outcome| Answer::problem(&outcome));
        // Browsers pair from the NAS's own pages; no cookie or credential is involved.
        let cross_origin = matches!(door, Door::Pairings | Door::App);
        (door, if cross_origin { answer.for_any_origin() } else { answer })
    }

    /// The resources, one line each.
    async fn answer(
        &self,
        door: Door,
        method: &Method,
        path: &str,
        visit: Visit<'_>,
    ) -> Result<Answer, Outcome> {
        let Ok(_permit) = self.in_flight.try_acquire() else {
            return Err(not_now(Code::Overloaded));
        };
        if self.is_draining() {
            return Err(not_now(Code::Draining));
        }
        let _in_flight = InFlight::enter(&self.relay.metrics.requests_in_flight);
        let (post, get, put) = (Method::POST, Method::GET, Method::PUT);
        match door {
            Door::Push if *method == post => webpush::push(visit, last_segment(path)).await,
            Door::Notifications if *method == post => http_door::notify(visit).await,
            Door::Pairings if *method == post => http_door::pair(visit).await,
            Door::Enrolment if *method == post => http_door::enrol(visit).await,
            Door::Identity if *method == get => http_door::identity(&visit).await,
            Door::KeyRotation if *method == put => http_door::rotate_key(visit).await,
            Door::App if *method == get => http_door::app(&visit, last_segment(path)),
            Door::OpenApi if *method == get => Ok(Answer::ready(openapi::json())),
            Door::Pairings | Door::App if *method == Method::OPTIONS => Ok(Answer::preflight()),
            Door::Other => Err(Refusal::new(Code::RouteUnknown).into()),
            _ => Ok(Answer::method_not_allowed(methods(door))),
        }
    }
}

fn door_of(path: &str) -> Door {
    match path {
        "/v1/notifications" => Door::Notifications,
        "/v1/pairings" => Door::Pairings,
        "/v1/nas" => Door::Enrolment,
        "/v1/nas/self" => Door::Identity,
        "/v1/nas/self/key" => Door::KeyRotation,
        "/openapi.json" => Door::OpenApi,
        _ if is_child(path, "/push/") => Door::Push,
        _ if is_child(path, "/v1/apps/") => Door::App,
        _ => Door::Other,
    }
}

const fn methods(door: Door) -> &'static str {
    match door {
        Door::Identity | Door::OpenApi => "GET",
        Door::KeyRotation => "PUT",
        Door::Pairings => "POST, OPTIONS",
        Door::App => "GET, OPTIONS",
        _ => "POST",
    }
}

fn is_child(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
}

fn last_segment(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

const fn not_now(code: Code) -> Outcome {
    Outcome::NotNow { code, retry_after: OVERLOADED_WAIT }
}

// === impl Visit ===

impl Visit<'_> {
    fn relay(&self) -> &Arc<Relay> {
        &self.doors.relay
    }

    /// Gives the `Authorization` header as it came.
    /// Errors: `header_duplicate`.
    fn authorization(&self) -> Result<Option<&[u8]>, Refusal> {
        Ok(self.header(&header::AUTHORIZATION, "Authorization")?.map(HeaderValue::as_bytes))
    }

    /// Gives a header that may stand once.
    /// Errors: `header_duplicate` with the header's name.
    fn header(
        &self,
        name: &HeaderName,
        field: &'static str,
    ) -> Result<Option<&HeaderValue>, Refusal> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(Refusal::of_field(Code::HeaderDuplicate, field)),
        }
    }

    /// Reads a JSON body into its wire struct.
    /// Errors: `content_type_invalid`, `body_too_large`, `body_timeout` and those of
    /// [`json::read`].
    async fn json<T: serde::de::DeserializeOwned>(self) -> Result<T, Refusal> {
        let content_type = self.header(&header::CONTENT_TYPE, "Content-Type")?;
        let essence = content_type.and_then(|value| value.to_str().ok());
        let essence = essence.and_then(|value| value.split(';').next()).unwrap_or_default();
        if !essence.trim().eq_ignore_ascii_case("application/json") {
            return Err(Refusal::of_field(Code::ContentTypeInvalid, "Content-Type"));
        }
        let bytes_max = self.doors.limits.body_bytes_max;
        let body = body::read(self.body, bytes_max, self.doors.limits.body_timeout).await?;
        json::read(&body)
    }
}

/// Counts a request while it is in work, however it ends.
struct InFlight<'a>(&'a prometheus::IntGauge);

impl<'a> InFlight<'a> {
    fn enter(gauge: &'a prometheus::IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}
