//! What a simulator answers to requests that have passed its checks; a test may change it any time.
//!
//! Order for each request: the queue of one-shot steps, else the step of its device token, else the
//! standing step (at first: accept). Latency passes before the request is processed. Faults of the
//! connection itself (GOAWAY, limits, freezing) are with `server::Connections`; only "after so many
//! requests" is here, since it follows from counting requests.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use tokio::sync::watch;

use super::lock;

mod latency;

pub use latency::{Latency, Random};

/// One answer, as it goes on the wire.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Headers beside those that the simulator always sends.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, possibly empty.
    pub body: Bytes,
    /// How it goes out.
    pub manner: Manner,
}

/// How an answer goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// At once.
    Whole,
    /// Its head and half of its body, then the connection drops.
    HalfThenDrop,
    /// Its head and half of its body, then silence.
    HalfThenSilence,
    /// Its head, then a byte every so often; an empty body gets a blank for each.
    Trickle(Duration),
}

/// What happens to one request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Step {
    /// Processed, delivered and answered with the service's success.
    Accept,
    /// This answer; a 2xx counts as accepted and is delivered.
    Answer(Answer),
    /// Processed and delivered, and its success goes out in this manner.
    AcceptIn(Manner),
    /// Processed and delivered, and yet answered like this: a gateway's page, say.
    AcceptThenAnswer(Answer),
    /// Not processed and never answered.
    Stall,
    /// Processed and delivered, but never answered.
    AcceptThenStall,
    /// RST_STREAM REFUSED_STREAM: not processed. On HTTP/1.1 the connection drops.
    RefuseStream,
    /// RST_STREAM with this reason, not processed. On HTTP/1.1 the connection drops.
    ResetStream(h2::Reason),
    /// The connection drops, the request was not processed.
    DropConnection,
    /// Processed and delivered, then the connection drops without an answer.
    AcceptThenDrop,
    /// Processed and delivered, then RST_STREAM with this reason. On HTTP/1.1 the connection drops.
    AcceptThenReset(h2::Reason),
}

/// A GOAWAY frame; the connection closes once the streams it kept have ended.
#[derive(Clone, Debug)]
pub struct GoAway {
    /// The error code.
    pub reason: h2::Reason,
    /// Opaque debug data; APNs writes JSON with a `reason`.
    pub debug: Bytes,
    /// Which streams it keeps.
    pub cut: Cut,
}

/// What a GOAWAY's last stream identifier is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The highest stream seen: every open stream still gets its answer.
    AfterSeen,
    /// The highest stream processed: later ones are disowned, never answered, safe to send again.
    AfterProcessed,
}

/// Where requests can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// They have arrived, and are not processed.
    Requests,
    /// They are processed, and their answers are not out.
    Answers,
}

/// The shared handle; clones steer the same simulator.
#[derive(Clone, Default)]
pub struct Script {
    state: Arc<Mutex<State>>,
    hold: Arc<watch::Sender<Option<Hold>>>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Step>,
    by_token: HashMap<String, Step>,
    standing: Option<Step>,
    latency: Latency,
    answer_delay: Latency,
    random: Random,
    go_away_after: Option<(u32, GoAway)>,
}

impl Answer {
    /// An answer without body.
    pub fn empty(status: StatusCode) -> Answer {
        Answer { status, headers: Vec::new(), body: Bytes::new(), manner: Manner::Whole }
    }

    /// An answer with a JSON body.
    pub fn json(status: StatusCode, body: &serde_json::Value) -> Answer {
        let answer = Answer { body: Bytes::from(body.to_string()), ..Answer::empty(status) };
        answer.with_header(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=UTF-8"),
        )
    }

    /// What a gateway in front of the service says: a page for people, not JSON.
    pub fn page(status: StatusCode) -> Answer {
        let body = format!("<html><h1>{status}</h1>The server is having a bad day.</html>\n");
        let answer = Answer { body: Bytes::from(body), ..Answer::empty(status) };
        answer.with_header(http::header::CONTENT_TYPE, HeaderValue::from_static("text/html"))
    }

    /// The same answer, going out in this manner.
    #[must_use]
    pub fn in_manner(self, manner: Manner) -> Answer {
        Answer { manner, ..self }
    }

    /// The same answer with one header more, such as `Retry-After`.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Answer {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn into_response(self) -> Response<Bytes> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers.into_iter().collect();
        response
    }
}

impl GoAway {
    /// NO_ERROR, no debug data, every open stream is still answered.
    pub fn graceful() -> GoAway {
        GoAway { reason: h2::Reason::NO_ERROR, debug: Bytes::new(), cut: Cut::AfterSeen }
    }

    /// NO_ERROR, no debug data, streams not yet processed are disowned.
    pub fn cutting() -> GoAway {
        GoAway { cut: Cut::AfterProcessed, ..GoAway::graceful() }
    }

    /// The same with this reason and debug data.
    #[must_use]
    pub fn saying(self, reason: h2::Reason, debug: impl Into<Bytes>) -> GoAway {
        GoAway { reason, debug: debug.into(), ..self }
    }
}

impl Script {
    /// Queues a step for the next `count` requests, behind what is queued already.
    pub fn next(&self, count: usize, step: Step) {
        lock(&self.state).queue.extend(std::iter::repeat_n(step, count));
    }

    /// Sets the step for requests to one device token (Web Push: the whole endpoint).
    pub fn for_token(&self, token: &str, step: Step) {
        lock(&self.state).by_token.insert(token.to_owned(), step);
    }

    /// Sets the step for every request that neither queue nor token map decides.
    pub fn standing(&self, step: Step) {
        lock(&self.state).standing = Some(step);
    }

    /// Sets how long each request waits before it is processed: a `Duration`, or a distribution.
    pub fn latency(&self, latency: impl Into<Latency>) {
        lock(&self.state).latency = latency.into();
    }

    /// Sets how long the answer to a processed request waits, in the same way.
    pub fn answer_delay(&self, delay: impl Into<Latency>) {
        lock(&self.state).answer_delay = delay.into();
    }

    /// Holds every request, or every answer, until `let_go`: a moment that a test can act in.
    pub fn hold(&self, hold: Hold) {
        self.hold.send_replace(Some(hold));
    }

    /// Lets go what is held, and what comes.
    pub fn let_go(&self) {
        self.hold.send_replace(None);
    }

    /// Sets the seed of the latencies that are drawn from now on.
    pub fn seed(&self, seed: u64) {
        lock(&self.state).random = Random::new(seed);
    }

    /// Sends this GOAWAY on each connection once it has processed `requests` requests.
    pub fn go_away_after(&self, requests: u32, go_away: GoAway) {
        lock(&self.state).go_away_after = Some((requests, go_away));
    }

    /// Accepts what neither queue nor token map decides, and answers without delay, as at first.
    /// Latency, queue and token map stay.
    pub fn relent(&self) {
        let state = &mut *lock(&self.state);
        state.standing = None;
        state.answer_delay = Latency::default();
    }

    /// Back to the beginning: accept everything at once.
    pub fn reset(&self) {
        *lock(&self.state) = State::default();
        self.let_go();
    }

    pub(crate) fn take_step(&self, token: Option<&str>) -> Step {
        let state = &mut *lock(&self.state);
        if let Some(step) = state.queue.pop_front() {
            return step;
        }
        let by_token = token.and_then(|token| state.by_token.get(token));
        by_token.or(state.standing.as_ref()).cloned().unwrap_or(Step::Accept)
    }

    pub(crate) fn latency_now(&self) -> Duration {
        let state = &mut *lock(&self.state);
        state.latency.draw(&mut state.random)
    }

    pub(crate) fn answer_delay_now(&self) -> Duration {
        let state = &mut *lock(&self.state);
        state.answer_delay.draw(&mut state.random)
    }

    /// Waits for a time, and then while requests, or answers, are held.
    pub(crate) async fn wait(&self, hold: Hold, latency: Duration) {
        // A sleep of no time still lasts to the timer's next tick, a millisecond.
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        // An error would say that the sender is gone, and this handle has it.
        let _ = self.hold.subscribe().wait_for(|held| *held != Some(hold)).await;
    }

    pub(crate) fn go_away_due(&self, processed: u32) -> Option<GoAway> {
        let state = lock(&self.state);
        let (after, go_away) = state.go_away_after.as_ref()?;
        (processed == *after).then(|| go_away.clone())
    }
}
