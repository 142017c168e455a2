//! Connections to one push service.
//!
//! A request and a deadline come in; an answer goes out, or the reason why there is none. One pool
//! serves one (push service, origin, environment, credential). It opens several HTTP/2 connections,
//! follows each peer's `MAX_CONCURRENT_STREAMS` up and down, queues what finds no free stream, and
//! replays only what the push service provably did not process (RFC 9113 §6.8, §8.7).
//! It never repeats a request that may have been processed, never sends more than the peer allows,
//! never queues without a limit, and never looks into a request.

mod counts;
mod dial;
mod http1;
mod http2;
mod ledger;
mod slots;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, header, request};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

pub use counts::{
    CloseReason, Counters, FaultKind, GoAwayReason, Label, PoolMetrics, ReplayReason, ShedReason,
};

use slots::{Inner, Slot, Transport};

/// The connections to one push service under one credential.
/// Share it in an `Arc`; dropping it closes every connection and fails nobody else's.
#[derive(Debug)]
pub struct Pool {
    inner: Arc<Inner>,
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

/// Which addresses may be dialled.
#[derive(Clone, Copy, Debug)]
pub enum AddressGuard {
    /// Any address: the origin comes from the operator.
    Any,
    /// Only addresses for which the function says "public": the origin comes from a caller.
    /// One address that is not refuses the whole dial.
    PublicOnly(fn(IpAddr) -> bool),
}

/// The limits of one pool.
#[derive(Clone, Debug)]
pub struct Limits {
    /// HTTP/2 connections open at once. Default 4.
    pub connections_max: usize,
    /// Streams in use per connection, whatever more the peer allows. Default 1,000.
    pub streams_per_connection_max: usize,
    /// Streams in use per connection before its first answer. Default 1,000; APNs: 1.
    pub start_streams: usize,
    /// Requests that wait for a free stream. Default 2,000.
    pub waiting_max: usize,
    /// Replays of one request after GOAWAY or REFUSED_STREAM. Default 3.
    pub replays_max: u32,
    /// From the DNS question to the end of the TLS handshake, in milliseconds. Default 5,000.
    pub connect_ms: u64,
    /// An HTTP/2 connection without a request closes after so many seconds. Default 3,600.
    pub idle_s: u64,
    /// A PING leaves every so many seconds. Default 60.
    pub ping_interval_s: u64,
    /// The connection is given up when no PONG comes in so many seconds. Default 10.
    pub ping_timeout_s: u64,
    /// Pause after a first failed dial, in milliseconds; doubles with each. Default 200.
    pub backoff_ms_min: u64,
    /// Longest pause after a failed dial, in milliseconds. Default 30,000.
    pub backoff_ms_max: u64,
    /// Bytes of an answer's body that are kept; the rest is cut. Default 16,384.
    pub answer_bytes_max: usize,
    /// Whether an origin that knows no HTTP/2 is served by HTTP/1.1. Default false.
    pub http1_allowed: bool,
    /// HTTP/1.1 connections open at once, one request each. Default 8.
    pub http1_connections_max: usize,
    /// An HTTP/1.1 connection without a request closes after so many seconds. Default 15, because
    /// a request that meets the peer's own idle close ends as [`SendError::Unknown`].
    pub http1_idle_s: u64,
}

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
}

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

/// The head of a request as it goes on the wire, kept for replays.
struct Head {
    parts: request::Parts,
    authority: Authority,
}

/// Why one attempt gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Miss {
    /// The connection took no new request: nothing was written.
    Stale,
    /// Written, and provably not processed.
    Unprocessed(ReplayReason),
    /// Written, and perhaps processed.
    Unknown,
}

// === impl Pool ===

impl Pool {
    /// Makes a pool; nothing is dialled yet.
    /// `tls` brings roots, client certificate and versions; the pool sets ALPN itself.
    /// Must be called within a tokio runtime, which then carries the connections.
    pub fn new(
        origin: Origin,
        tls: Arc<rustls::ClientConfig>,
        guard: AddressGuard,
        limits: Limits,
        metrics: Arc<PoolMetrics>,
    ) -> Arc<Self> {
        let inner = Inner::new(origin, tls, guard, limits, metrics);
        Arc::new(Self { inner, tickets: AtomicU64::new(0) })
    }

    /// Sends a request and waits for its answer.
    /// Of the URI only path and query count; `content-length` and `:authority` are set here.
    /// Errors: [`SendError`]; the deadline covers waiting, sending and reading.
    /// Dropping the future cancels: the stream is reset, the slot comes back.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        deadline: Instant,
    ) -> Result<Answer, SendError> {
        let (head, body) = Head::split(request, self.inner.origin());
        // One ticket for all attempts: a replay goes to the head of the queue, where it was before.
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let mut replays = 0;
        let mut stale = 0;
        loop {
            let mut slot = self.inner.reserve(ticket, deadline).await?;
            if Instant::now() >= deadline {
                return Err(self.inner.shed(ShedReason::Deadline));
            }
            match self.attempt(&mut slot, &head, &body, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(Miss::Unknown) => return Err(SendError::Unknown),
                Err(Miss::Stale) if stale < self.inner.limits().connections_total_max() => {
                    stale += 1;
                }
                Err(Miss::Unprocessed(reason)) if replays < self.inner.limits().replays_max => {
                    replays += 1;
                    self.inner.metrics().replays.count(reason);
                }
                Err(Miss::Stale | Miss::Unprocessed(_)) => {
                    return Err(self.inner.shed(ShedReason::Refused));
                }
            }
        }
    }

    async fn attempt(
        &self,
        slot: &mut Slot,
        head: &Head,
        body: &Bytes,
        deadline: Instant,
    ) -> Result<Answer, Miss> {
        let bytes_max = self.inner.limits().answer_bytes_max;
        match slot.take_transport() {
            Some(Transport::Http2(sender)) => {
                let request = head.http2();
                http2::exchange(slot, sender, request, body.clone(), deadline, bytes_max).await
            }
            Some(Transport::Http1(lane)) => {
                let request = head.http1(body.clone());
                http1::exchange(slot, &lane, request, deadline, bytes_max).await
            }
            None => Err(Miss::Stale),
        }
    }

    /// Dials one connection in advance, unless there is one, or a dial runs or has just failed.
    pub fn warm(&self) {
        self.inner.warm();
    }

    /// Counts connections, streams and waiting requests.
    pub fn status(&self) -> PoolStatus {
        self.inner.status()
    }

    /// Adds an HTTP/2 connection over bytes that somebody else has dialled and secured.
    /// Errors: the preface could not be written; the pool is unchanged.
    pub async fn adopt<I>(&self, io: I) -> Result<(), SendError>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let adopted = http2::start(&self.inner, io).await;
        adopted.map_err(|kind| SendError::NotSent(DialFault { kind, retry_after: Duration::ZERO }))
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

// === impl AddressGuard ===

impl AddressGuard {
    fn permits(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::PublicOnly(is_public) => is_public(address),
        }
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

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4,
            streams_per_connection_max: 1_000,
            start_streams: 1_000,
            waiting_max: 2_000,
            replays_max: 3,
            connect_ms: 5_000,
            idle_s: 3_600,
            ping_interval_s: 60,
            ping_timeout_s: 10,
            backoff_ms_min: 200,
            backoff_ms_max: 30_000,
            answer_bytes_max: 16 * 1_024,
            http1_allowed: false,
            http1_connections_max: 8,
            http1_idle_s: 15,
        }
    }
}

impl Limits {
    fn connect(&self) -> Duration {
        Duration::from_millis(self.connect_ms)
    }

    /// Open and draining connections together: a peer that sends GOAWAY after GOAWAY while its old
    /// streams hang must not make us open without end.
    fn connections_total_max(&self) -> usize {
        2 * self.connections_max.max(self.http1_connections_max)
    }
}

// === impl Head ===

impl Head {
    fn split(request: Request<Bytes>, origin: &Origin) -> (Self, Bytes) {
        let (mut parts, body) = request.into_parts();
        // Connection-specific fields are malformed in HTTP/2 (RFC 9113 §8.2.2).
        for name in ["connection", "keep-alive", "proxy-connection", "te", "upgrade"] {
            parts.headers.remove(name);
        }
        parts.headers.remove(header::TRANSFER_ENCODING);
        parts.headers.remove(header::HOST);
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        (Self { parts, authority: origin.authority.clone() }, body)
    }

    fn path(&self) -> PathAndQuery {
        let path = self.parts.uri.path_and_query().cloned();
        path.unwrap_or_else(|| PathAndQuery::from_static("/"))
    }

    fn http2(&self) -> Request<()> {
        let mut uri = http::uri::Parts::default();
        uri.scheme = Some(Scheme::HTTPS);
        uri.authority = Some(self.authority.clone());
        uri.path_and_query = Some(self.path());
        let mut request = Request::new(());
        *request.method_mut() = self.parts.method.clone();
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = self.parts.headers.clone();
        // All three parts are there and valid each for itself, so the sum is.
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        request
    }

    fn http1(&self, body: Bytes) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = self.parts.method.clone();
        *request.headers_mut() = self.parts.headers.clone();
        *request.uri_mut() = Uri::from(self.path());
        if let Ok(host) = HeaderValue::from_str(self.authority.as_str()) {
            request.headers_mut().insert(header::HOST, host);
        }
        request
    }
}
