//! The doors' port: connections in, requests to the doors, nothing without a limit.
//!
//! Every connection has a place, a time to begin, a time to take its answers, a number of requests,
//! and HTTP/2 bounds of its own; on drain, HTTP/1.1 answers close their connection and HTTP/2 peers
//! get GOAWAY (RFC 9113 §6.8).

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{self, Instant};
use tokio_rustls::TlsAcceptor;

use crate::config;
use crate::ingress::Doors;
use crate::metrics::Metrics;

mod life;

mod line;

mod multiplex;

mod stall;

mod turns;

use life::Life;
use line::{Line, Protocol};
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
    http1: http1::Builder,
    http2: http2::Builder<TokioExecutor>,
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
        let mut http1 = http1::Builder::new();
        // How long a head may take is counted here, without a timer for each.
        http1.header_read_timeout(None).max_buf_size(limits.header_bytes_max as usize);
        let mut http2 = http2::Builder::new(TokioExecutor::new());
        http2
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
            http1,
            http2,
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
        // Boxed is what an idle connection must not hold room for.
        let Some(tls) = &self.tls else { return self.answer(stream, stop).await };
        let handshake = Box::pin(tls.accept(stream));
        let stream = match time::timeout(self.begin_timeout, handshake).await {
            Ok(Ok(stream)) => Box::new(stream),
            // A peer that does not finish its handshake is no event worth a line.
            Ok(Err(_)) | Err(_) => return,
        };
        self.answer(stream, stop).await;
    }

    /// Answers a connection's requests until it has had its number, is idle too long, or we stop.
    /// Between the requests of an HTTP/1.1 connection that is not busy, nothing is held but the
    /// stream.
    async fn answer<S>(&self, stream: S, mut stop: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let life = Life::new(self.requests_max);
        let mut line = Line::new(stream, Arc::clone(&life));
        let begin_by = Instant::now() + self.begin_timeout;
        let begun = poll_fn(|context| line.poll_protocol(context));
        let Some(protocol) = heard(begun, begin_by, &mut stop).await else { return };
        if protocol == Protocol::Http2 {
            return Box::pin(self.multiplex(line, &life, &mut stop)).await;
        }
        loop {
            line = match Box::pin(self.take_turns(line, &life, &mut stop)).await {
                Some(line) => line,
                None => return,
            };
            let now = Instant::now();
            let since = life.rests_since(now).unwrap_or(now);
            let more = poll_fn(|context| line.poll_more(context));
            self.metrics.connections_resting.inc();
            let heard = heard(more, since + self.silence_max(), &mut stop).await;
            self.metrics.connections_resting.dec();
            if heard.is_none() {
                // A TLS peer is told that this is the end, if it takes that at once.
                let _ = line.shutdown().await;
                return;
            }
        }
    }

    /// How long an HTTP/1.1 connection may be without a whole request.
    fn silence_max(&self) -> Duration {
        self.begin_timeout.min(self.idle_timeout)
    }
}

/// Waits for a caller's next bytes; gives nothing where they end, do not come, or we stop.
async fn heard<T>(
    bytes: impl Future<Output = io::Result<T>>,
    deadline: Instant,
    stop: &mut watch::Receiver<bool>,
) -> Option<T> {
    tokio::select! {
        biased;
        heard = bytes => heard.ok(),
        () = stopped(stop) => None,
        () = time::sleep_until(deadline) => None,
    }
}

/// Waits until we stop; whoever could say so being gone is no less a reason.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
