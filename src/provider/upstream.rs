//! Connections to one push service.
//!
//! A request and a deadline come in; an answer goes out, or the reason why there is none. One pool
//! serves one (push service, origin, environment, credential). It opens several HTTP/2 connections,
//! follows each peer's `MAX_CONCURRENT_STREAMS` up and down, queues what finds no free stream, and
//! replays only what the push service provably did not process (RFC 9113 §6.8, §8.7).
//! It never repeats a request that may have been processed, never sends more than the peer allows,
//! never queues without a limit, and never looks into a request. A push service that keeps failing
//! is left alone but for a probe now and then: its senders are told so at once.

mod breaker;
mod counts;
mod dial;
mod egress;
mod gate;
mod gradient;
mod http1;
mod http2;
mod ledger;
mod limits;
mod proxy;
mod request;
mod rest;
mod slots;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, StatusCode};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

pub use counts::{
    BreakerEvent, BreakerMetrics, CloseReason, Counters, FaultKind, GoAwayReason, Label,
    PoolMetrics, ReplayReason, ShedReason,
};
pub use egress::{AddressGuard, Egress, NameTable, Names};
pub use limits::Limits;
pub use request::{Decimal, Fields, Keep, Post};
pub use rest::Rest;

pub(in crate::provider) use breaker::{Policy, Verdict};
pub(in crate::provider) use gate::Gate;

use dial::Dialler;
use ledger::Turn;
use slots::{Inner, Slot, Transport};

use crate::push::Class;

/// The connections to one push service under one credential.
/// Share it in an `Arc`; dropping it closes every connection and fails nobody else's.
#[derive(Debug)]
pub struct Pool {
    inner: Arc<Inner>,
    gate: Gate,
    tickets: AtomicU64,
}

/// Where a push service listens: https, a host, a port.
/// `:authority` keeps a port other than 443 (RFC 9113 §8.3.1).
#[derive(Clone, Debug)]
pub struct Origin {
    host: String,
    port: u16,
    authority: Authority,
    server_name: ServerName<'static>,
}

/// The host is neither a DNS name nor an IP address.
#[derive(Debug, thiserror::Error)]
#[error("the host of an origin must be a DNS name or an IP address")]
pub struct OriginError;

/// What the push service answered. Its `Debug` shows neither header fields nor body.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body, at most `answer_bytes_max` bytes.
    pub body: Bytes,
    /// False when the body is cut: too long, broken off, or not there by the deadline.
    pub complete: bool,
    /// When the (last) attempt was handed to its connection.
    pub sent_at: Instant,
    /// From `sent_at` to the answer's header fields: the push service's part of the latency.
    pub elapsed: Duration,
    /// Which connection it came on.
    pub connection: ConnectionId,
}

/// One connection of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Not processed: no stream came free, or the push service refused each attempt.
    #[error("the pool is too busy")]
    Shed(ShedReason),
    /// Never sent: there is no connection.
    #[error("the push service cannot be reached")]
    NotSent(DialFault),
    /// Sent or perhaps sent, and no answer. The push service may have processed it.
    #[error("sent, and no answer came")]
    Unknown,
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DialFault {
    /// What failed.
    pub kind: FaultKind,
    /// The next dial starts no sooner than after this time.
    pub retry_after: Duration,
}

/// A snapshot of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// Connections that take new requests.
    pub connections: usize,
    /// Connections that only finish what they have.
    pub draining: usize,
    /// Streams in use, those whose reset the peer has not confirmed included.
    pub streams_in_use: usize,
    /// Streams that the peers allow at present.
    pub streams_allowed: usize,
    /// Requests that wait for a free stream.
    pub waiting: usize,
}

/// More than a wait for a connection can take: the caller's own deadline ends it first.
const LATER: Duration = Duration::from_secs(1);

/// Why one attempt gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Miss {
    /// The connection took no new request: nothing was written.
    Stale,
    /// Written, and provably not processed.
    Unprocessed(ReplayReason),
    /// Written, and perhaps processed.
    Unknown,
    /// Written, and no answer by the deadline; whether that speaks against the push service.
    Late { counts: bool },
}

// === impl Pool ===

impl Pool {
    /// Makes a pool; nothing is dialled yet.
    /// `tls` brings roots, client certificate and versions; the pool sets ALPN itself.
    /// Must be called within a tokio runtime, which then carries the connections.
    pub fn new(
        origin: Origin,
        tls: Arc<rustls::ClientConfig>,
        egress: Egress,
        limits: Limits,
        metrics: Arc<PoolMetrics>,
    ) -> Arc<Self> {
        let gate = Gate::new(limits.breaker(), metrics.breakers.clone());
        let dialler = Dialler::new(origin, &tls, egress, &limits);
        let inner = Inner::new(dialler, limits, metrics);
        Arc::new(Self { inner, gate, tickets: AtomicU64::new(0) })
    }

    /// Sends a request and waits for its answer; where requests wait, the highest class goes first.
    /// Errors: [`SendError`]; the deadline covers waiting, sending and reading.
    /// Dropping the future cancels: the stream is reset, the slot comes back.
    pub async fn send(
        &self,
        post: &Post<'_>,
        class: Class,
        deadline: Instant,
    ) -> Result<Answer, SendError> {
        let pass = self.gate.enter().map_err(|retry_after| {
            SendError::NotSent(DialFault { kind: FaultKind::BreakerOpen, retry_after })
        })?;
        let (result, verdict) = self.carry(post, class, deadline).await;
        self.gate.leave(pass, verdict);
        result
    }

    async fn carry(
        &self,
        post: &Post<'_>,
        class: Class,
        deadline: Instant,
    ) -> (Result<Answer, SendError>, Verdict) {
        let shed = |reason| (Err(self.inner.shed(reason)), Verdict::Nothing);
        let turn = self.turn(class);
        let mut replays = 0;
        let mut stale = 0;
        loop {
            let mut slot = match self.inner.reserve(turn, deadline).await {
                Ok(slot) => slot,
                Err(error) => return (Err(error), error.verdict()),
            };
            if Instant::now() >= deadline {
                return shed(ShedReason::Deadline);
            }
            match self.attempt(&mut slot, post, deadline).await {
                Ok(answer) => {
                    // Any other answer shows that the push service lives.
                    let failing = answer.status.is_server_error();
                    let verdict = if failing { Verdict::Failing } else { Verdict::Alive };
                    return (Ok(answer), verdict);
                }
                Err(Miss::Unknown) => return (Err(SendError::Unknown), Verdict::Failing),
                Err(Miss::Late { counts }) => {
                    let verdict = if counts { Verdict::Failing } else { Verdict::Nothing };
                    return (Err(SendError::Unknown), verdict);
                }
                Err(Miss::Stale) if stale < self.inner.limits().connections_total_max() => {
                    stale += 1;
                }
                Err(Miss::Unprocessed(reason)) if replays < self.inner.limits().replays_max => {
                    replays += 1;
                    self.inner.metrics().replays.count(reason);
                }
                Err(Miss::Stale | Miss::Unprocessed(_)) => return shed(ShedReason::Refused),
            }
        }
    }

    /// One for all attempts: a replay goes to the head of its class, where it was before.
    fn turn(&self, class: Class) -> Turn {
        Turn::new(class, self.tickets.fetch_add(1, Ordering::Relaxed))
    }

    async fn attempt(
        &self,
        slot: &mut Slot,
        post: &Post<'_>,
        deadline: Instant,
    ) -> Result<Answer, Miss> {
        let bytes_max = self.inner.limits().answer_bytes_max;
        let origin = &self.inner.dialler().origin;
        match slot.take_transport() {
            Some(Transport::Http2(line)) => {
                let authority = origin.authority();
                http2::exchange(slot, &line, post, authority, deadline, bytes_max).await
            }
            Some(Transport::Http1(lane)) => {
                let request = post.http1(&origin.authority);
                // Rare, and large.
                Box::pin(http1::exchange(slot, &lane, request, deadline, bytes_max)).await
            }
            None => Err(Miss::Stale),
        }
    }

    /// Opens `prewarm_connections` in advance and waits for the first of them, or for its failure.
    pub async fn warm(&self, deadline: Instant) {
        let connections = self.inner.limits().prewarm_connections;
        if connections > 0 {
            self.inner.want(connections);
            // A slot that is not used; whoever sends first will hear of a fault.
            let turn = self.turn(Class::Alarm);
            let _ = timeout_at(deadline, self.inner.reserve(turn, deadline + LATER)).await;
        }
    }

    /// Says that an answer is such that a new connection may mend it. The second such answer on a
    /// connection, to a request that was sent after the first, replaces the connection.
    pub fn doubt(&self, answer: &Answer) {
        self.inner.doubt(answer.connection.0, answer.sent_at);
    }

    /// Counts connections, streams and waiting requests.
    pub fn status(&self) -> PoolStatus {
        self.inner.status()
    }

    /// Adds an HTTP/2 connection over bytes that somebody else has dialled and secured.
    pub fn adopt<I>(&self, io: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        http2::start(&self.inner, io);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.inner.shut_down();
    }
}

// === impl Origin ===

impl Origin {
    /// Makes an origin; IPv6 addresses come without brackets.
    /// Errors: [`OriginError`] for a host that TLS could not name.
    pub fn new(host: &str, port: u16) -> Result<Self, OriginError> {
        let server_name = ServerName::try_from(host.to_owned()).map_err(|_| OriginError)?;
        let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let authority = match port {
            443 => bracketed,
            _ => format!("{bracketed}:{port}"),
        };
        let authority = authority.parse().map_err(|_| OriginError)?;
        Ok(Self { host: host.to_owned(), port, authority, server_name })
    }

    /// The host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as in `:authority`: without the port when it is 443.
    pub fn authority(&self) -> &str {
        self.authority.as_str()
    }
}

// === impl Answer ===

impl fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Answer")
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .field("complete", &self.complete)
            .field("elapsed", &self.elapsed)
            .finish_non_exhaustive()
    }
}

// === impl SendError ===

impl SendError {
    /// What a request that was never written says about the push service.
    const fn verdict(self) -> Verdict {
        match self {
            // One dial speaks for itself, not for all that come in the pause after it.
            Self::NotSent(DialFault { kind: FaultKind::BackingOff, .. }) | Self::Shed(_) => {
                Verdict::Nothing
            }
            Self::NotSent(_) | Self::Unknown => Verdict::Failing,
        }
    }
}
