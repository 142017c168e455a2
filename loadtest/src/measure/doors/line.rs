//! Callers in a closed loop, so many requests in flight and for each that ends another one; or in
//! an open one, each request at its moment; or all at once.
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
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::super::MeasureError;
use super::super::pace::{Pace, Tally, moments};
use super::house::Way;
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

/// What all callers of one turn share.
struct Turn {
    mail: Arc<Mail>,
    /// Numbers of requests that nobody has taken yet.
    next: AtomicUsize,
    end: usize,
    tally: Mutex<Tally>,
}

/// Connections that a request takes one of.
enum Pool {
    Http1 { idle: Mutex<Vec<http1::SendRequest<Full<Bytes>>>>, free: Semaphore },
    Http2(Vec<SendRequest<Bytes>>),
}

/// The relay answers nothing that is longer.
const WINDOW_BYTES: u32 = 16 * 1024 * 1024;

// === impl Line ===

impl Line {
    /// Opens what so many messages in flight need; HTTP/2 takes `connections`.
    /// Errors: nobody answers.
    pub(crate) async fn open(
        way: &Way,
        form: Form,
        mail: &Mail,
        in_flight: usize,
        connections: usize,
    ) -> Result<Line, MeasureError> {
        Ok(match form {
            Form::Http1 => {
                let mut all = Vec::new();
                for _ in 0..in_flight {
                    all.push(open_http1(way).await?);
                }
                Line::Http1(all)
            }
            Form::Http2 | Form::GrpcUnary => {
                let mut all = Vec::new();
                for _ in 0..connections {
                    all.push(open_http2(way).await?);
                }
                Line::Http2(all)
            }
            Form::GrpcStream => {
                let sender = open_http2(way).await?;
                Line::Stream(Box::new(Stream::open(sender, mail.call()).await?))
            }
        })
    }

    /// Sends so many requests, from number `first` on, and waits for the last answer.
    /// Errors: a connection breaks, or an acknowledgement is not one of a message in flight.
    pub(crate) async fn carry(
        self,
        mail: &Arc<Mail>,
        first: usize,
        requests: usize,
        in_flight: usize,
    ) -> Result<Tally, MeasureError> {
        let turn = Turn::new(mail, first, requests)?;
        let mut loops = JoinSet::new();
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
                return stream.carry(&turn.mail, first, requests, in_flight).await;
            }
        }
        turn.counted(loops).await
    }

    /// Sends each request at its moment, and its time counts from that; gives what became of them.
    /// Errors: a connection breaks, or this is a stream.
    pub(crate) async fn keep_pace(
        self,
        mail: &Arc<Mail>,
        pace: Pace,
    ) -> Result<Tally, MeasureError> {
        let (turn, pool) = (Turn::new(mail, 0, 0)?, Arc::new(self.pool()?));
        let mut asking = JoinSet::new();
        let (mut due, clock) = moments(&[pace], Instant::now());
        while let Some((number, moment)) = due.recv().await {
            let (turn, pool) = (Arc::clone(&turn), Arc::clone(&pool));
            asking.spawn(async move { pool.ask(&turn, number, moment).await });
            while let Some(ended) = asking.try_join_next() {
                ended.map_err(std::io::Error::from)??;
            }
        }
        clock.await.map_err(std::io::Error::from)?;
        turn.counted(asking).await
    }

    /// Sends so many requests at once; the time of each counts from that one moment.
    /// Errors: a connection breaks, or this is a stream.
    pub(crate) async fn throw(
        self,
        mail: &Arc<Mail>,
        requests: usize,
    ) -> Result<Tally, MeasureError> {
        let (turn, pool) = (Turn::new(mail, 0, requests)?, Arc::new(self.pool()?));
        let (mut asking, begin) = (JoinSet::new(), Instant::now());
        for number in 0..requests {
            let (turn, pool) = (Arc::clone(&turn), Arc::clone(&pool));
            asking.spawn(async move { pool.ask(&turn, number, begin).await });
        }
        turn.counted(asking).await
    }

    fn pool(self) -> Result<Pool, MeasureError> {
        match self {
            Line::Http1(all) => {
                let free = Semaphore::new(all.len());
                Ok(Pool::Http1 { idle: Mutex::new(all), free })
            }
            Line::Http2(all) => Ok(Pool::Http2(all)),
            Line::Stream(_) => Err(MeasureError::Missing("a connection of HTTP")),
        }
    }
}

/// Opens a connection of HTTP/1.1.
/// Errors: nobody answers.
pub(crate) async fn open_http1(way: &Way) -> Result<http1::SendRequest<Full<Bytes>>, MeasureError> {
    let io = TokioIo::new(way.dial(Form::Http1.alpn()).await?);
    let (sender, connection) = http1::handshake(io).await?;
    // Its end shows at the next request.
    tokio::spawn(connection);
    Ok(sender)
}

/// Opens a connection of HTTP/2.
/// Errors: nobody answers.
pub(crate) async fn open_http2(way: &Way) -> Result<SendRequest<Bytes>, MeasureError> {
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES);
    let io = way.dial(Form::Http2.alpn()).await?;
    let (sender, connection) = builder.handshake(io).await?;
    tokio::spawn(connection);
    Ok(sender)
}

// === impl Turn ===

impl Turn {
    fn new(mail: &Arc<Mail>, first: usize, requests: usize) -> Result<Arc<Turn>, MeasureError> {
        let (mail, next) = (Arc::clone(mail), AtomicUsize::new(first));
        Ok(Arc::new(Turn { mail, next, end: first + requests, tally: Mutex::new(Tally::new()?) }))
    }

    /// Waits for all callers and gives what they counted.
    async fn counted(
        self: Arc<Self>,
        mut callers: JoinSet<Result<(), MeasureError>>,
    ) -> Result<Tally, MeasureError> {
        while let Some(ended) = callers.join_next().await {
            ended.map_err(std::io::Error::from)??;
        }
        let turn = Arc::into_inner(self).ok_or(MeasureError::Missing("every answer"))?;
        Ok(turn.tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    async fn by_http1(
        self: Arc<Self>,
        mut sender: http1::SendRequest<Full<Bytes>>,
    ) -> Result<(), MeasureError> {
        while let Some(number) = self.take() {
            self.ask_http1(&mut sender, number, Instant::now()).await?;
        }
        Ok(())
    }

    async fn by_http2(self: Arc<Self>, sender: SendRequest<Bytes>) -> Result<(), MeasureError> {
        while let Some(number) = self.take() {
            self.ask_http2(sender.clone(), number, Instant::now()).await?;
        }
        Ok(())
    }

    async fn ask_http1(
        &self,
        sender: &mut http1::SendRequest<Full<Bytes>>,
        number: usize,
        since: Instant,
    ) -> Result<(), MeasureError> {
        let (head, body) = self.mail.request(number);
        sender.ready().await?;
        let answer = sender.send_request(head.map(|()| Full::new(body))).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        self.count(since, status, &body, None);
        Ok(())
    }

    async fn ask_http2(
        &self,
        sender: SendRequest<Bytes>,
        number: usize,
        since: Instant,
    ) -> Result<(), MeasureError> {
        let (head, body) = self.mail.request(number);
        let (answer, mut stream) = sender.ready().await?.send_request(head, false)?;
        stream.send_data(body, true)?;
        let (status, body, trailers) = whole(answer.await?).await?;
        self.count(since, status, &body, trailers.as_ref());
        Ok(())
    }

    fn take(&self) -> Option<usize> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.end).then_some(number)
    }

    fn count(
        &self,
        since: Instant,
        status: StatusCode,
        body: &Bytes,
        trailers: Option<&HeaderMap>,
    ) {
        let (time, tally) = (since.elapsed(), &mut *lock(&self.tally));
        let grpc = trailers.and_then(grpc_status);
        self.mail.tell(status, grpc, body, |other| tally.note(time, other));
    }
}

// === impl Pool ===

impl Pool {
    async fn ask(&self, turn: &Turn, number: usize, since: Instant) -> Result<(), MeasureError> {
        match self {
            Pool::Http1 { idle, free } => {
                let none = || MeasureError::Missing("a connection");
                let _place = free.acquire().await.map_err(|_| none())?;
                let mut sender = lock(idle).pop().ok_or_else(none)?;
                turn.ask_http1(&mut sender, number, since).await?;
                lock(idle).push(sender);
                Ok(())
            }
            Pool::Http2(all) => {
                turn.ask_http2(all[number % all.len()].clone(), number, since).await
            }
        }
    }
}

/// Reads an answer to its end; what gRPC says of it is in the trailers, or where there is nothing
/// but a head, in that.
/// Errors: the stream breaks.
pub(super) async fn whole(
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
