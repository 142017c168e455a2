//! What a connection has been through: told apart from the protocol, which does not show it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::ingress::{Body, Handling};

/// The requests of one connection, and whether it is at rest.
pub(super) struct Life {
    requests: AtomicU64,
    requests_max: u64,
    in_work: AtomicU64,
    has_unsent: AtomicBool,
    rests_since: Mutex<Instant>,
}

/// A request of a connection, while it is in work.
struct InWork(Arc<Life>);

/// A request on its way to its answer.
pub(super) struct Answering {
    handling: Handling,
    visit: Option<InWork>,
}

/// The body of an answer; its request is in work until the body has gone out.
pub(super) struct Busy {
    body: Body,
    _visit: Option<InWork>,
}

// === impl Life ===

impl Life {
    pub(super) fn new(requests_max: u64) -> Arc<Self> {
        Arc::new(Self {
            requests: AtomicU64::new(0),
            requests_max,
            in_work: AtomicU64::new(0),
            has_unsent: AtomicBool::new(false),
            rests_since: Mutex::new(Instant::now()),
        })
    }

    /// Counts a request, which is in work until its answer has gone out.
    pub(super) fn enter(self: &Arc<Self>, handling: Handling) -> Answering {
        self.in_work.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        Answering { handling, visit: Some(InWork(Arc::clone(self))) }
    }

    /// Notes whether bytes wait to be written.
    pub(super) fn note_unsent(&self, has_unsent: bool) {
        self.has_unsent.store(has_unsent, Ordering::Relaxed);
    }

    /// Gives how many requests there have been.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Tells whether the connection has had its number of requests.
    pub(super) fn is_worn_out(&self) -> bool {
        self.requests() >= self.requests_max
    }

    /// Gives since when the connection has had no request, from its beginning on; nothing where it
    /// has one now, or an answer that still waits to be written.
    pub(super) fn rests_since(&self, now: Instant) -> Option<Instant> {
        if self.has_unsent.load(Ordering::Relaxed) {
            self.rest_from(now);
            return None;
        }
        let busy = self.in_work.load(Ordering::Relaxed) > 0;
        (!busy).then(|| *self.rests_since.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn rest_from(&self, now: Instant) {
        *self.rests_since.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        self.0.rest_from(Instant::now());
        self.0.in_work.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Answering ===

impl Future for Answering {
    type Output = Result<Response<Busy>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = self.handling.as_mut().poll(context);
        answered.map(|answer| {
            let visit = self.visit.take();
            Ok(answer.map(|body| Busy { body, _visit: visit }))
        })
    }
}

// === impl Busy ===

impl http_body::Body for Busy {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
