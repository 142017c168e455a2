//! The doors' port: connections in, requests to the doors, nothing without a limit.
//!
//! Every connection has a place, a time to begin, a time to take its answers, a number of requests,
//! and HTTP/2 bounds of its own; on drain, HTTP/1.1 answers close their connection and HTTP/2 peers
//! get GOAWAY (RFC 9113 §6.8).

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::{self, Instant};
use tokio_rustls::TlsAcceptor;

use crate::config;
use crate::ingress::{Body, Doors};
use crate::metrics::Metrics;
use crate::provider::upstream::Rest;

mod stall;

use stall::StallGuard;

/// The pause after an accept that failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A quiet HTTP/2 sender is pinged this often, and dropped when it does not answer.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(60);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Streams that a peer may open and reset before it is sent away (CVE-2023-44487, "rapid reset").
const HTTP2_PENDING_RESETS_MAX: usize = 20;

/// Resets of ours that a peer's faults may cause before it is sent away (CVE-2025-8671, "made you
/// reset").
const HTTP2_LOCAL_RESETS_MAX: usize = 100;

/// Answers of one HTTP/2 connection that wait to be written, in bytes for each stream.
const HTTP2_SEND_BUFFER_BYTES: usize = 64 * 1024;

/// The door's listener with its limits.
pub(super) struct Port {
    doors: Arc<Doors>,
    metrics: Arc<Metrics>,
    tls: Option<TlsAcceptor>,
    places: Arc<Semaphore>,
    protocol: Builder<TokioExecutor>,
    begin_timeout: Duration,
    stall_max: Duration,
    idle_timeout: Duration,
    requests_max: u64,
}

// === impl Port ===

impl Port {
    /// Takes the limits from the configuration.
    pub(super) fn new(
        doors: Arc<Doors>,
        metrics: Arc<Metrics>,
        tls: Option<TlsAcceptor>,
        limits: &config::Server,
    ) -> Self {
        let mut protocol = Builder::new(TokioExecutor::new());
        protocol
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_buf_size(limits.header_bytes_max as usize);
        protocol
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.streams_per_connection_max)
            .max_header_list_size(limits.header_bytes_max)
            .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS_MAX)
            .max_local_error_reset_streams(HTTP2_LOCAL_RESETS_MAX)
            .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
            .keep_alive_interval(HTTP2_PING_INTERVAL)
            .keep_alive_timeout(HTTP2_PING_TIMEOUT);
        Self {
            doors,
            metrics,
            tls,
            places: Arc::new(Semaphore::new(limits.connections_max)),
            protocol,
            begin_timeout: limits.header_timeout,
            stall_max: limits.body_timeout,
            idle_timeout: limits.idle_timeout,
            requests_max: limits.requests_per_connection_max,
        }
    }

    /// Accepts until `stop` turns true, then drains: waits for the requests in work, at most
    /// `grace`.
    pub(super) async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
        grace: Duration,
    ) {
        // Nothing is ever sent: the channel ends when the last connection has.
        let (open, mut all_closed) = mpsc::channel::<Infallible>(1);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, _)) => self.admit(stream, stop.clone(), open.clone()),
                Err(_) => time::sleep(ACCEPT_PAUSE).await,
            }
        }
        drop((listener, open));
        if time::timeout(grace, all_closed.recv()).await.is_err() {
            tracing::warn!("requests were still in work at the end of the drain");
        }
    }

    fn admit(
        self: &Arc<Self>,
        stream: TcpStream,
        stop: watch::Receiver<bool>,
        open: mpsc::Sender<Infallible>,
    ) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.connections_refused.inc();
            return;
        };
        let port = Arc::clone(self);
        tokio::spawn(async move {
            port.metrics.connections.inc();
            port.converse(stream, stop).await;
            port.metrics.connections.dec();
            drop((place, open));
        });
    }

    async fn converse(&self, stream: TcpStream, stop: watch::Receiver<bool>) {
        // Answers are small; Nagle's algorithm would hold the second of two back.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let stream = StallGuard::new(stream, self.stall_max);
        match &self.tls {
            // Boxed both: a task that serves one sort holds no room for the other.
            None => Box::pin(self.answer(stream, stop)).await,
            Some(tls) => {
                let handshake = time::timeout(self.begin_timeout, tls.accept(stream)).await;
                // A peer that does not finish its handshake is no event worth a line.
                if let Ok(Ok(stream)) = handshake {
                    Box::pin(self.answer(stream, stop)).await;
                }
            }
        }
    }

    /// Answers a connection's requests until it has had its number, is idle too long, or we stop.
    async fn answer<S>(&self, stream: S, mut stop: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let life = Arc::new(Life::new(self.requests_max));
        let service = service_fn(|request: Request<Incoming>| {
            let visit = life.enter(request.version() == Version::HTTP_2);
            let doors = Arc::clone(&self.doors);
            async move {
                let response = doors.handle(request).await;
                Ok::<_, Infallible>(response.map(|body| Busy { body, _visit: visit }))
            }
        });
        let connection = self.protocol.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let mut look_at = Instant::now() + self.begin_timeout;
        let mut leaving = false;
        let mut rest = Rest::default();
        loop {
            // Answers that are ready leave together: on HTTP/2 every task that is ready goes first.
            let moved_on = poll_fn(|context| {
                if life.multiplexes() && rest.is_due(context) {
                    return Poll::Pending;
                }
                connection.as_mut().poll(context)
            });
            tokio::select! {
                biased;
                _ended = moved_on => return,
                () = life.worn_out.notified(), if !leaving => leaving = true,
                _ = stop.wait_for(|stop| *stop), if !leaving => leaving = true,
                () = time::sleep_until(look_at) => match life.idle_since() {
                    // hyper waits for ever for the bytes that tell HTTP/1.1 from HTTP/2.
                    None if !life.has_begun() => return,
                    None => look_at = Instant::now() + self.idle_timeout,
                    Some(since) if since + self.idle_timeout > Instant::now() => {
                        look_at = since + self.idle_timeout;
                    }
                    Some(_) if leaving => return,
                    Some(_) => {
                        leaving = true;
                        look_at = Instant::now() + self.begin_timeout;
                    }
                },
            }
            if leaving {
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// What a connection has been through: told apart from the protocol, which does not show it.
struct Life {
    requests: AtomicU64,
    requests_max: u64,
    in_work: AtomicU64,
    multiplexes: AtomicBool,
    idle_since: Mutex<Instant>,
    worn_out: Notify,
}

/// A request of a connection, while it is in work.
struct InWork(Arc<Life>);

/// The body of an answer; its request is in work until the body has gone out.
struct Busy {
    body: Body,
    _visit: InWork,
}

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

impl Life {
    fn new(requests_max: u64) -> Self {
        Self {
            requests: AtomicU64::new(0),
            requests_max,
            in_work: AtomicU64::new(0),
            multiplexes: AtomicBool::new(false),
            idle_since: Mutex::new(Instant::now()),
            worn_out: Notify::new(),
        }
    }

    fn enter(self: &Arc<Self>, multiplexes: bool) -> InWork {
        if multiplexes {
            self.multiplexes.store(true, Ordering::Relaxed);
        }
        self.in_work.fetch_add(1, Ordering::Relaxed);
        if self.requests.fetch_add(1, Ordering::Relaxed) + 1 == self.requests_max {
            self.worn_out.notify_one();
        }
        InWork(Arc::clone(self))
    }

    fn multiplexes(&self) -> bool {
        self.multiplexes.load(Ordering::Relaxed)
    }

    fn has_begun(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Gives since when the connection has had no request, unless it has one now or never had any.
    fn idle_since(&self) -> Option<Instant> {
        let busy = self.in_work.load(Ordering::Relaxed) > 0;
        let since = *self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        (!busy && self.has_begun()).then_some(since)
    }
}

impl Drop for InWork {
    fn drop(&mut self) {
        let now = Instant::now();
        *self.0.idle_since.lock().unwrap_or_else(PoisonError::into_inner) = now;
        self.0.in_work.fetch_sub(1, Ordering::Relaxed);
    }
}
