//! Callers in a closed loop: so many messages in flight, and for each that ends another one.
//!
//! In: mail. Out: a tally. The connections are opened beforehand and are not part of what is
//! measured. One that breaks is an error of the whole turn: nothing here breaks any.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::MeasureError;
use super::super::crowd::Told;
use super::super::pace::{Tally, label};
use super::house::House;
use super::mail::{Form, Mail};
use super::stream::Stream;
use crate::sim::lock;

/// Open connections, with all that a turn needs.
pub(crate) enum Line {
    /// A connection for each message in flight.
    Http1(Vec<http1::SendRequest<Full<Bytes>>>),
    /// A few connections; each message is a stream.
    Http2(Vec<SendRequest<Bytes>>),
    /// One call.
    Stream(Box<Stream>),
}

/// What the loops of one turn share.
struct Turn {
    mail: Arc<Mail>,
    messages: usize,
    next: AtomicUsize,
    tally: Mutex<Tally>,
}

/// The relay answers nothing that is longer.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;

// === impl Line ===

impl Line {
    /// Opens what so many messages in flight need; HTTP/2 takes `connections`.
    /// Errors: nobody answers.
    pub(crate) async fn open(
        house: &House,
        form: Form,
        mail: &Mail,
        in_flight: usize,
        connections: usize,
    ) -> Result<Line, MeasureError> {
        Ok(match form {
            Form::Http1 => {
                let mut all = Vec::new();
                for _ in 0..in_flight {
                    all.push(open_http1(house).await?);
                }
                Line::Http1(all)
            }
            Form::Http2 | Form::GrpcUnary => {
                let mut all = Vec::new();
                for _ in 0..connections {
                    all.push(open_http2(house).await?);
                }
                Line::Http2(all)
            }
            Form::GrpcStream => {
                let sender = open_http2(house).await?;
                Line::Stream(Box::new(Stream::open(sender, mail.call()).await?))
            }
        })
    }

    /// Sends so many messages and waits for the last answer.
    /// Errors: a connection breaks, or an acknowledgement is not one of a message in flight.
    pub(crate) async fn carry(
        self,
        mail: &Arc<Mail>,
        messages: usize,
        in_flight: usize,
    ) -> Result<Tally, MeasureError> {
        let (next, mail) = (AtomicUsize::new(0), Arc::clone(mail));
        let mut loops = JoinSet::new();
        let tally = Mutex::new(Tally::new()?);
        let turn = Arc::new(Turn { mail, messages, next, tally });
        match self {
            Line::Http1(all) => {
                for sender in all {
                    loops.spawn(Arc::clone(&turn).by_http1(sender));
                }
            }
            Line::Http2(all) => {
                for number in 0..in_flight {
                    let sender = all[number % all.len()].clone();
                    loops.spawn(Arc::clone(&turn).by_http2(sender));
                }
            }
            Line::Stream(mut stream) => {
                return stream.carry(&turn.mail, messages, in_flight).await;
            }
        }
        while let Some(ended) = loops.join_next().await {
            ended.map_err(std::io::Error::from)??;
        }
        let turn = Arc::into_inner(turn).ok_or(MeasureError::Missing("every answer"))?;
        Ok(turn.tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Opens a connection of HTTP/1.1.
/// Errors: nobody answers.
pub(crate) async fn open_http1(
    house: &House,
) -> Result<http1::SendRequest<Full<Bytes>>, MeasureError> {
    let io = TokioIo::new(house.dial(Form::Http1.alpn()).await?);
    let (sender, connection) = http1::handshake(io).await?;
    // Its end shows at the next request.
    tokio::spawn(connection);
    Ok(sender)
}

/// Opens a connection of HTTP/2.
/// Errors: nobody answers.
pub(crate) async fn open_http2(house: &House) -> Result<SendRequest<Bytes>, MeasureError> {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let io = house.dial(Form::Http2.alpn()).await?;
    let (sender, connection) = builder.handshake(io).await?;
    tokio::spawn(connection);
    Ok(sender)
}

// === impl Turn ===

impl Turn {
    async fn by_http1(
        self: Arc<Self>,
        mut sender: http1::SendRequest<Full<Bytes>>,
    ) -> Result<(), MeasureError> {
        while let Some(number) = self.take() {
            let (head, body) = self.mail.request(number);
            let sent_at = Instant::now();
            sender.ready().await?;
            let answer = sender.send_request(head.map(|()| Full::new(body))).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            self.count(sent_at, status, body, None);
        }
        Ok(())
    }

    async fn by_http2(self: Arc<Self>, mut sender: SendRequest<Bytes>) -> Result<(), MeasureError> {
        while let Some(number) = self.take() {
            let (head, body) = self.mail.request(number);
            let sent_at = Instant::now();
            sender = sender.ready().await?;
            let (answer, mut stream) = sender.send_request(head, false)?;
            stream.send_data(body, true)?;
            let (status, body, trailers) = whole(answer.await?).await?;
            self.count(sent_at, status, body, trailers.as_ref());
        }
        Ok(())
    }

    fn take(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.messages).then_some(number)
    }

    fn count(&self, at: Instant, status: StatusCode, body: Bytes, trailers: Option<&HeaderMap>) {
        let grpc = trailers.and_then(grpc_status);
        let other = match (self.mail.is_accepted(status, grpc), grpc) {
            (true, _) => None,
            (false, Some(grpc)) => Some(format!("grpc-status {grpc}")),
            (false, None) => Some(label(&Told { status, body })),
        };
        lock(&self.tally).note(at.elapsed(), other);
    }
}

/// Reads an answer to its end; what gRPC says of it is in the trailers, or where there is nothing
/// but a head, in that.
async fn whole(
    answer: Response<h2::RecvStream>,
) -> Result<(StatusCode, Bytes, Option<HeaderMap>), h2::Error> {
    let (head, mut body) = answer.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    let mut trailers = body.trailers().await?;
    if trailers.is_none() && head.headers.contains_key("grpc-status") {
        trailers = Some(head.headers);
    }
    Ok((head.status, bytes.freeze(), trailers))
}

/// Gives what gRPC says of a call at its end.
pub(super) fn grpc_status(trailers: &HeaderMap) -> Option<&str> {
    trailers.get("grpc-status").and_then(|value| value.to_str().ok())
}
