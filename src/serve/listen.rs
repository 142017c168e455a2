//! The doors' port: connections in, requests to the doors, nothing without a limit.
//!
//! Every connection has a place, a time to begin, a time to take its answers, and HTTP/2 bounds of
//! its own; on drain, HTTP/1.1 answers close their connection and HTTP/2 peers get GOAWAY (RFC 9113
//! §6.8).

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time;
use tokio_rustls::TlsAcceptor;

use crate::config;
use crate::ingress::Doors;
use crate::metrics::Metrics;

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
        let graceful = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, _)) => self.admit(stream, graceful.watcher()),
                Err(_) => time::sleep(ACCEPT_PAUSE).await,
            }
        }
        drop(listener);
        if time::timeout(grace, graceful.shutdown()).await.is_err() {
            tracing::warn!("requests were still in work at the end of the drain");
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, watcher: Watcher) {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            self.metrics.connections_refused.inc();
            return;
        };
        let port = Arc::clone(self);
        tokio::spawn(async move {
            port.metrics.connections.inc();
            port.converse(stream, place, watcher).await;
            port.metrics.connections.dec();
        });
    }

    async fn converse(&self, stream: TcpStream, _place: OwnedSemaphorePermit, watcher: Watcher) {
        // Answers are small; Nagle's algorithm would hold the second of two back.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        let stream = StallGuard::new(stream, self.stall_max);
        match &self.tls {
            None => self.answer(stream, watcher).await,
            Some(tls) => {
                let handshake = time::timeout(self.begin_timeout, tls.accept(stream)).await;
                // A peer that does not finish its handshake is no event worth a line.
                if let Ok(Ok(stream)) = handshake {
                    self.answer(stream, watcher).await;
                }
            }
        }
    }

    async fn answer<S>(&self, stream: S, watcher: Watcher)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let begun = Arc::new(AtomicBool::new(false));
        let service = service_fn(|request: Request<Incoming>| {
            begun.store(true, Ordering::Relaxed);
            let doors = Arc::clone(&self.doors);
            async move { Ok::<_, Infallible>(doors.handle(request).await) }
        });
        let connection = self.protocol.serve_connection(TokioIo::new(stream), service);
        let connection = watcher.watch(connection);
        tokio::pin!(connection);
        let first = time::timeout(self.begin_timeout, &mut connection).await;
        // hyper waits for ever for the bytes that tell HTTP/1.1 from HTTP/2.
        if first.is_err() && begun.load(Ordering::Relaxed) {
            let _ended_by_the_peer = connection.await;
        }
    }
}
