//! One HTTP/1.1 connection: the same services, one request at a time.
//!
//! Stream faults have no counterpart here: a refused or reset stream drops the connection. A GOAWAY
//! after so many requests becomes the end of keep-alive (`Connection: close`).

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::super::journal::StreamOutcome;
use super::super::ledger::{Command, Presence};
use super::super::script::{Hold, Manner};
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
) -> Result<Response<Doled>, Dropped> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, REQUEST_BYTES_MAX).collect().await.map_err(|_| Dropped)?;
    let path = head.uri.path_and_query().map_or("", |path| path.as_str()).to_owned();
    let received =
        Received { method: head.method, path, headers: head.headers, body: body.to_bytes() };
    let journal = &link.parts.journal;
    let entry = journal.record(entry_of(link.number, &received));
    let script = &link.parts.script;
    script.wait(Hold::Requests, link.service.latency(&received)).await;
    let processed = link.ledger.process(0).unwrap_or(0);
    let verdict = link.service.handle(&link.connection, &received);
    script.wait(Hold::Answers, script.answer_delay_now()).await;
    match verdict.reply {
        Reply::Answer(answer) => {
            journal.settle(entry, StreamOutcome::Answered(answer.status.as_u16()));
            let manner = answer.manner;
            let mut response = answer.into_response().map(|body| Doled::new(body, manner));
            if script.go_away_due(processed).is_some() {
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

/// A body that goes out in its answer's manner.
struct Doled {
    rest: Bytes,
    manner: Manner,
    pause: Pin<Box<Sleep>>,
}

/// Time for what was written to reach the wire before the connection drops.
const ON_THE_WIRE: Duration = Duration::from_millis(20);

impl Doled {
    fn new(body: Bytes, manner: Manner) -> Doled {
        let rest = match manner {
            Manner::Whole => body,
            Manner::HalfThenDrop | Manner::HalfThenSilence => body.slice(..body.len() / 2),
            Manner::Trickle(_) if body.is_empty() => Bytes::from_static(&[b' '; 256]),
            Manner::Trickle(_) => body,
        };
        let pause = match manner {
            Manner::Trickle(every) => every,
            _ => Duration::ZERO,
        };
        Doled { rest, manner, pause: Box::pin(sleep(pause)) }
    }
}

impl Body for Doled {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        if let Manner::Trickle(every) = self.manner {
            ready!(self.pause.as_mut().poll(cx));
            self.pause.as_mut().reset(Instant::now() + every);
            let end = self.rest.len().min(1);
            let next = self.rest.split_to(end);
            return Poll::Ready((!next.is_empty()).then(|| Ok(Frame::data(next))));
        }
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() {
            self.pause.as_mut().reset(Instant::now() + ON_THE_WIRE);
            return Poll::Ready(Some(Ok(Frame::data(rest))));
        }
        match self.manner {
            Manner::HalfThenSilence => Poll::Pending,
            Manner::HalfThenDrop => {
                ready!(self.pause.as_mut().poll(cx));
                Poll::Ready(Some(Err(Dropped)))
            }
            Manner::Whole | Manner::Trickle(_) => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.manner {
            Manner::Whole => SizeHint::with_exact(self.rest.len() as u64),
            _ => SizeHint::default(),
        }
    }
}
