//! What the doors share: one request's way in and its answer's way out.
//!
//! In: a request with its headers read. Out: an answer, always, within the named limits. This room
//! translates: bytes become the corridor's words, an outcome's row becomes a status and a body.
//! It decides nothing about a message, and nothing that a sender sent is written to a log.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, timeout};

use crate::config;
use crate::metrics::Door;
use crate::outcome::{Code, Outcome, Refusal};
use crate::relay::{Relay, Timing};

pub mod answer;

pub mod body;

pub mod farewell;

pub mod grpc;

pub mod http_door;

pub mod json;

mod notice;

pub mod openapi;

mod pairing;

pub mod webpush;

pub mod wire;

use answer::Answer;

/// Both doors, over HTTP and gRPC.
pub struct Doors {
    relay: Arc<Relay>,
    limits: config::Server,
    in_flight: Semaphore,
    draining: watch::Sender<bool>,
    streams: grpc::Streams,
    reflection: grpc::Reflection,
}

/// The body of an answer: all at once over HTTP, message by message over gRPC.
pub type Body = Either<Full<Bytes>, tonic::body::Body>;

/// A request on its way to its answer. It is on the heap, so that no idle connection holds room for
/// it.
pub type Handling = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// Why the relay should get no traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotReady {
    /// It is stopping.
    Draining,
    /// The identity store does not answer.
    StoreAway,
}

/// One request on its way through a door. It is on the heap, and gone before its answer is.
pub struct Visit<'a> {
    doors: &'a Doors,
    request: Box<Request<Incoming>>,
}

/// How long the sender waits itself.
const REQUEST_TIMEOUT_MS: HeaderName = HeaderName::from_static("request-timeout-ms");

/// A sender that meets our own limit comes back after this.
const OVERLOADED_WAIT: Duration = Duration::from_secs(1);

/// The store is asked whether it is there, and no longer than this.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

// === impl Doors ===

impl Doors {
    /// Opens the doors of a relay.
    pub fn new(relay: Arc<Relay>, limits: config::Server) -> Self {
        let in_flight = Semaphore::new(limits.in_flight_max.min(Semaphore::MAX_PERMITS));
        Self {
            relay,
            limits,
            in_flight,
            draining: watch::Sender::new(false),
            streams: grpc::Streams::default(),
            reflection: grpc::Reflection::new(),
        }
    }

    /// Tells whether the relay should get traffic.
    /// Errors: [`NotReady`].
    pub async fn readiness(&self) -> Result<(), NotReady> {
        if self.is_draining() {
            return Err(NotReady::Draining);
        }
        match timeout(STORE_TIMEOUT, self.relay.store.readiness()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(NotReady::StoreAway),
        }
    }

    /// Turns new requests away from now on; those in work go on.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Tells whether the doors are closing.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Answers one request.
    pub fn handle(self: &Arc<Self>, request: Request<Incoming>) -> Handling {
        let doors = Arc::clone(self);
        if grpc::is_call(request.headers()) {
            return Box::pin(grpc::answer(doors, request));
        }
        Box::pin(doors.answer_http(Box::new(request)))
    }

    async fn answer_http(self: Arc<Self>, request: Box<Request<Incoming>>) -> Response<Body> {
        let door = door_of(request.uri().path());
        let answer = pin!(self.route(door, Visit { doors: &self, request }));
        let answer = caught(answer).await.unwrap_or_else(|Panicked| {
            self.relay.metrics.panics.inc();
            Answer::problem(&Outcome::Misconfigured { code: Code::InternalFault })
        });
        self.relay.metrics.answered(door, answer.code());
        answer.into_response().map(Either::Left)
    }

    /// Says from now on until when an answer must be out: our own limit, or the sender's if sooner.
    fn timing(&self, sender_timeout: Option<Duration>) -> Timing {
        let own = self.limits.request_timeout;
        let started = Instant::now();
        let deadline = started + sender_timeout.map_or(own, |timeout| timeout.min(own));
        Timing { started, deadline }
    }

    /// Takes a request into work.
    /// Errors: `overloaded`, `draining`.
    fn admit(&self) -> Result<InFlight<'_>, Outcome> {
        let in_flight = self.occupy()?;
        if self.is_draining() {
            return Err(not_now(Code::Draining));
        }
        Ok(in_flight)
    }

    /// Takes one of the places for requests in work; a drain does not turn away what had begun.
    /// Errors: `overloaded`.
    fn occupy(&self) -> Result<InFlight<'_>, Outcome> {
        let place = self.in_flight.try_acquire().map_err(|_| not_now(Code::Overloaded))?;
        let gauge = &self.relay.metrics.requests_in_flight;
        gauge.inc();
        Ok(InFlight { gauge, _place: place })
    }

    async fn route(&self, door: Door, visit: Visit<'_>) -> Answer {
        let answer = self.answer(door, visit).await;
        let answer = answer.unwrap_or_else(|outcome| Answer::problem(&outcome));
        // Browsers pair from the NAS's own pages; no cookie or credential is involved.
        let cross_origin = matches!(door, Door::Pairings | Door::App);
        if cross_origin { answer.for_any_origin() } else { answer }
    }

    /// The resources, one line each; all but messages are rare, and have no room in their futures.
    async fn answer(&self, door: Door, visit: Visit<'_>) -> Result<Answer, Outcome> {
        let _in_work = self.admit()?;
        let is = |method: Method| *visit.request.method() == method;
        let (post, get, put) = (is(Method::POST), is(Method::GET), is(Method::PUT));
        let options = is(Method::OPTIONS);
        match door {
            Door::Push if post => webpush::push(visit).await,
            Door::Notifications if post => Box::pin(http_door::notify(visit)).await,
            Door::Pairings if post => Box::pin(http_door::pair(visit)).await,
            Door::Enrolment if post => Box::pin(http_door::enrol(visit)).await,
            Door::Identity if get => Box::pin(http_door::identity(visit)).await,
            Door::KeyRotation if put => Box::pin(http_door::rotate_key(visit)).await,
            Door::App if get => http_door::app(&visit),
            Door::Unsubscribe if get => farewell::ask(&visit),
            Door::Unsubscribe if post => Box::pin(farewell::take(visit)).await,
            Door::OpenApi if get => Ok(Answer::ready(openapi::json())),
            Door::Pairings | Door::App if options => Ok(Answer::preflight()),
            Door::Other => Err(Refusal::new(Code::RouteUnknown).into()),
            _ => Ok(Answer::method_not_allowed(methods(door))),
        }
    }
}

/// A request's handling panicked; the panic is counted and goes no further.
struct Panicked;

/// Runs a future, and ends it where it panics. What it borrowed is not looked at again.
fn caught<F: Future>(mut future: Pin<&mut F>) -> impl Future<Output = Result<F::Output, Panicked>> {
    poll_fn(move |context| {
        let poll = AssertUnwindSafe(|| future.as_mut().poll(context));
        match catch_unwind(poll) {
            Ok(poll) => poll.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    })
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
        _ if is_child(path, "/unsubscribe/") => Door::Unsubscribe,
        _ => Door::Other,
    }
}

const fn methods(door: Door) -> &'static str {
    match door {
        Door::Identity | Door::OpenApi => "GET",
        Door::KeyRotation => "PUT",
        Door::Pairings => "POST, OPTIONS",
        Door::App => "GET, OPTIONS",
        Door::Unsubscribe => "GET, POST",
        _ => "POST",
    }
}

fn is_child(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| !rest.is_empty() && !rest.contains('/'))
}

const fn not_now(code: Code) -> Outcome {
    Outcome::NotNow { code, retry_after: OVERLOADED_WAIT }
}

// === impl Visit ===

impl Visit<'_> {
    fn relay(&self) -> &Arc<Relay> {
        &self.doors.relay
    }

    /// Gives what stands after the last slash of the path.
    fn last_segment(&self) -> &str {
        let path = self.request.uri().path();
        path.rsplit_once('/').map_or(path, |(_, last)| last)
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
        let mut values = self.request.headers().get_all(name).iter();
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(Refusal::of_field(Code::HeaderDuplicate, field)),
        }
    }

    /// Gives the sender's own time limit.
    /// Units: milliseconds, 1 to 10 digits, not 0.
    /// Errors: `timeout_invalid`, `header_duplicate`.
    fn timeout(&self) -> Result<Option<Duration>, Refusal> {
        const NAME: &str = "Request-Timeout-Ms";
        let Some(value) = self.header(&REQUEST_TIMEOUT_MS, NAME)? else { return Ok(None) };
        let digits = value.to_str().ok().filter(|text| {
            (1..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
        });
        match digits.and_then(|text| text.parse().ok()) {
            Some(timeout_ms @ 1_u64..) => Ok(Some(Duration::from_millis(timeout_ms))),
            _ => Err(Refusal::of_field(Code::TimeoutInvalid, NAME)),
        }
    }

    /// Reads a JSON body into its wire struct.
    /// Errors: `content_type_invalid`, `body_too_large`, `body_timeout` and those of
    /// [`json::read`].
    async fn json<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Refusal> {
        let content_type = self.header(&header::CONTENT_TYPE, "Content-Type")?;
        let essence = content_type.and_then(|value| value.to_str().ok());
        let essence = essence.and_then(|value| value.split(';').next()).unwrap_or_default();
        if !essence.trim().eq_ignore_ascii_case("application/json") {
            return Err(Refusal::of_field(Code::ContentTypeInvalid, "Content-Type"));
        }
        let body = self.read(self.doors.limits.body_bytes_max).await?;
        json::read(&body)
    }

    /// Reads the body, once.
    /// Errors: those of [`body::read`].
    async fn read(&mut self, bytes_max: usize) -> Result<Bytes, Refusal> {
        let timeout = self.doors.limits.body_timeout;
        body::read(self.request.body_mut(), bytes_max, timeout).await
    }
}

/// A request in work, which is counted; dropping it gives its place back, however it ends.
struct InFlight<'a> {
    gauge: &'a prometheus::IntGauge,
    _place: SemaphorePermit<'a>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
