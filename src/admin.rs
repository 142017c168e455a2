//! The operator's own port: `/metrics`, `/livez`, `/readyz`; cleartext HTTP/1.1, not for senders.
//!
//! `/livez` says that the process answers; `/readyz` that it should get traffic: the store answers
//! and the relay does not drain. Credentials are read before the port is bound.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::time;

use crate::ingress::{Doors, NotReady};
use crate::relay::Relay;

/// Connections at once: a scraper, a probe, a person.
const CONNECTIONS_MAX: usize = 64;

const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the admin port tells about.
pub struct Admin {
    /// The rooms.
    pub relay: Arc<Relay>,
    /// The doors, which know whether they drain.
    pub doors: Arc<Doors>,
}

// === impl Admin ===

impl Admin {
    /// Answers until `stop` turns true; it outlives the drain, so that probes see it.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let Ok((stream, _)) = accepted else {
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let admin = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let admin = Arc::clone(&admin);
                    async move { Ok::<_, Infallible>(admin.answer(request.uri().path()).await) }
                });
                let _ended_by_the_peer = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                drop(place);
            });
        }
    }

    async fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        match path {
            "/metrics" => match self.relay.metrics.text() {
                Ok(text) => respond(StatusCode::OK, "text/plain; version=0.0.4", text),
                Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be written\n"),
            },
            "/livez" => plain(StatusCode::OK, "ok\n"),
            "/readyz" => match self.doors.readiness().await {
                Ok(()) => plain(StatusCode::OK, "ok\n"),
                Err(NotReady::Draining) => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
                Err(NotReady::StoreAway) => {
                    plain(StatusCode::SERVICE_UNAVAILABLE, "the identity store does not answer\n")
                }
            },
            _ => plain(StatusCode::NOT_FOUND, "there are /metrics, /livez and /readyz\n"),
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    respond(status, "text/plain", text)
}

fn respond(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
