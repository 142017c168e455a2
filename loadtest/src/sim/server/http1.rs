//! One HTTP/1.1 connection: the same services, one request at a time.
//!
//! Stream faults have no counterpart here: a refused or reset stream drops the connection. A GOAWAY
//! after so many requests becomes the end of keep-alive (`Connection: close`).

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::super::journal::StreamOutcome;
use super::super::ledger::{Command, Presence};
use super::http2::entry_of;
use super::{Link, REQUEST_BYTES_MAX, Received, Reply, Service};

/// Why a request gets no answer: the connection drops.
#[derive(Debug, thiserror::Error)]
#[error("the simulator drops this connection")]
struct Dropped;

/// Serves the connection until either side closes it.
pub(crate) async fn serve<S: Service>(io: TlsStream<TcpStream>, link: Arc<Link<S>>) {
    let service = service_fn(|request| respond(link.clone(), request));
    let mut builder = hyper::server::conn::http1::Builder::new();
    let mut serving =
        pin!(builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(io), service));
    let _presence = Presence(link.ledger.clone());
    loop {
        tokio::select! {
            _ = serving.as_mut() => return,
            () = link.ledger.changed.notified() => {}
        }
        while link.ledger.commanded() == Command::Freeze {
            link.ledger.changed.notified().await;
        }
        if link.ledger.commanded() == Command::Drop {
            return;
        }
    }
}

async fn respond<S: Service>(
    link: Arc<Link<S>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Dropped> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await.map_err(|_| Dropped)?;
    let path = head.uri.path_and_query().map_or("", |path| path.as_str()).to_owned();
    let received =
        Received { method: head.method, path, headers: head.headers, body: body.to_bytes() };
    let journal = &link.parts.journal;
    let entry = journal.record(entry_of(link.number, &received));
    let latency = link.service.latency(&received);
    // A sleep of no time still lasts to the timer's next tick, a millisecond.
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let processed = link.ledger.process(0).unwrap_or(0);
    match link.service.handle(&link.connection, &received).reply {
        Reply::Answer(answer) => {
            journal.settle(entry, StreamOutcome::Answered(answer.status.as_u16()));
            let mut response = answer.into_response().map(Full::new);
            if link.parts.script.go_away_due(processed).is_some() {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        }
        Reply::Stall => {
            journal.settle(entry, StreamOutcome::Stalled);
            let never: Infallible = std::future::pending().await;
            match never {}
        }
        Reply::Reset(_) => {
            journal.settle(entry, StreamOutcome::Reset);
            Err(Dropped)
        }
        Reply::Drop => {
            journal.settle(entry, StreamOutcome::Dropped);
            Err(Dropped)
        }
    }
}
