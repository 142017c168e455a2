//! One HTTP/2 connection: the task that drives it, and one exchange on it.
//!
//! The exchange runs in the sender's own task, straight on the `h2` handle. The driver polls the
//! connection, publishes the peer's stream limit after every poll, notices GOAWAY before any
//! request meets it, and sends PINGs. It knows nothing about requests.
//!
//! A cancelled stream's slot is given back by the next PONG only: the PING left after the
//! RST_STREAM, so the peer has seen both. On a dead connection no slot comes back to lure others.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{Connection, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::counts::{CloseReason, FaultKind, GoAwayReason, Label as _, ReplayReason};
use super::ledger::{Control, Fate, Review};
use super::rest::Rest;
use super::slots::{Inner, Slot, Transport};
use super::{Answer, ConnectionId, Miss};

/// RFC 9113 sets no limit before the peer's SETTINGS; what is then too much comes back refused.
const STREAMS_BEFORE_SETTINGS: usize = 1;

/// Bytes that all answers of a connection together may have under way.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// Header bytes of an answer; a Web Push server may be anybody's.
const ANSWER_HEAD_BYTES_MAX: u32 = 16 * 1_024;

/// How long late frames for a cancelled stream are expected.
const RESET_MEMORY: Duration = Duration::from_secs(30);

/// The connection with what is published of it.
struct Driver<I> {
    connection: Connection<I, Bytes>,
    /// Shows GOAWAY; None once seen, because a handle keeps the connection open.
    probe: Option<SendRequest<Bytes>>,
    /// Why it is coming to an end.
    ending: Option<CloseReason>,
    peer_limit: usize,
    rest: Rest,
    id: u64,
    inner: Arc<Inner>,
}

/// When to do what next.
struct Schedule {
    ping_at: Instant,
    review_at: Instant,
    proven_at: Option<Instant>,
    /// A PING is under way, and its PONG confirms so many resets.
    awaiting_pong: Option<usize>,
}

/// Shakes hands over secured bytes and lets a task drive the connection.
pub(super) async fn start<I>(inner: &Arc<Inner>, io: I) -> Result<(), FaultKind>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = inner.limits();
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_max_send_streams(STREAMS_BEFORE_SETTINGS)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(ANSWER_HEAD_BYTES_MAX)
        .max_concurrent_reset_streams(limits.streams_per_connection_max)
        .reset_stream_duration(RESET_MEMORY);
    let handshake = builder.handshake(io);
    let shaken = timeout(limits.connect(), handshake).await;
    let (sender, mut connection) =
        shaken.map_err(|_| FaultKind::Lost)?.map_err(|_| FaultKind::Lost)?;
    let Some(pings) = connection.ping_pong() else { return Err(FaultKind::Lost) };
    let probe = Some(sender.clone());
    let (id, control) = inner.admit(Transport::Http2(sender), STREAMS_BEFORE_SETTINGS);
    let inner = inner.clone();
    let runtime = inner.runtime().clone();
    let peer_limit = STREAMS_BEFORE_SETTINGS;
    let ending = None;
    let driver = Driver { connection, probe, ending, peer_limit, rest: Rest::default(), id, inner };
    runtime.spawn(async move {
        let (inner, id) = (driver.inner.clone(), driver.id);
        let reason = driver.run(pings, &control).await;
        inner.end(id, reason);
    });
    Ok(())
}

/// Sends one request on its slot's connection and reads the answer.
pub(super) async fn exchange(
    slot: &mut Slot,
    mut sender: SendRequest<Bytes>,
    request: Request<()>,
    body: Bytes,
    deadline: Instant,
    answer_bytes_max: usize,
) -> Result<Answer, Miss> {
    let sent_at = Instant::now();
    let Ok((response, mut stream)) = sender.send_request(request, body.is_empty()) else {
        // Refused before HEADERS were queued: after GOAWAY, or when the connection is gone.
        slot.drain_connection();
        return Err(Miss::Stale);
    };
    slot.set_fate(Fate::Open { answered: false });
    drop(sender);
    if !body.is_empty() {
        // When this fails the stream has ended, and the response says how.
        let _ = stream.send_data(body, true);
    }
    let response = match timeout_at(deadline, response).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            slot.set_fate(Fate::Closed { answered: false });
            return Err(miss(slot, &error));
        }
        Err(_) => return Err(Miss::Late { counts: slot.miss(sent_at.elapsed()) }),
    };
    let elapsed = sent_at.elapsed();
    slot.set_elapsed(elapsed);
    slot.set_fate(Fate::Open { answered: true });
    let (parts, mut stream) = response.into_parts();
    let (body, end) = read(&mut stream, deadline, answer_bytes_max).await;
    if end != BodyEnd::Cut {
        slot.set_fate(Fate::Closed { answered: true });
    }
    let complete = end == BodyEnd::Whole;
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body,
        complete,
        sent_at,
        elapsed,
        connection: ConnectionId(slot.connection()),
    })
}

/// What a failed stream means for its request.
fn miss(slot: &Slot, error: &h2::Error) -> Miss {
    if error.is_go_away() && error.is_remote() {
        // h2 ends a single stream with the peer's GOAWAY only above last-stream-id; the others
        // stay open, and end with an I/O error if the connection breaks before their answers.
        slot.drain_connection();
        return Miss::Unprocessed(ReplayReason::GoAway);
    }
    if error.is_reset() && error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM) {
        return Miss::Unprocessed(ReplayReason::Refused);
    }
    Miss::Unknown
}

/// How the reading of a body ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyEnd {
    Whole,
    /// The peer broke it off: the stream is closed.
    Broken,
    /// We stop reading: the stream is still open.
    Cut,
}

async fn read(stream: &mut RecvStream, deadline: Instant, bytes_max: usize) -> (Bytes, BodyEnd) {
    let mut body = BytesMut::new();
    loop {
        let chunk = match timeout_at(deadline, stream.data()).await {
            Ok(Some(Ok(chunk))) => chunk,
            Ok(None) => return (body.freeze(), BodyEnd::Whole),
            Ok(Some(Err(_))) => return (body.freeze(), BodyEnd::Broken),
            Err(_) => return (body.freeze(), BodyEnd::Cut),
        };
        let room = bytes_max - body.len();
        body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if chunk.len() > room {
            return (body.freeze(), BodyEnd::Cut);
        }
        // Fails only when the stream has ended, which the next read tells.
        let _ = stream.flow_control().release_capacity(chunk.len());
    }
}

// === impl Driver ===

impl<I: AsyncRead + AsyncWrite + Unpin> Driver<I> {
    /// Runs until the connection is closed, and says why.
    async fn run(mut self, mut pings: PingPong, control: &Control) -> CloseReason {
        let inner = self.inner.clone();
        let mut schedule = Schedule::new(&inner);
        loop {
            let awaiting_pong = schedule.awaiting_pong.is_some();
            tokio::select! {
                // The connection first: it writes a reset before the PING that confirms it.
                biased;
                () = poll_fn(|context| self.poll_rested(context)) => {
                    return self.ending.unwrap_or(CloseReason::Error);
                }
                pong = poll_fn(|context| pings.poll_pong(context)), if awaiting_pong => {
                    // An error means that the connection is ending; the next poll sees it.
                    if pong.is_ok() {
                        let confirmed = schedule.awaiting_pong.unwrap_or(0);
                        schedule.pong(&inner);
                        inner.confirm_resets(self.id, confirmed);
                    } else {
                        schedule.awaiting_pong = None;
                    }
                    if inner.resetting(self.id) > 0 {
                        self.ping(&mut schedule, &mut pings).await;
                    }
                }
                () = control.bell.notified() => {
                    self.heed(control);
                    if !awaiting_pong && inner.resetting(self.id) > 0 {
                        self.ping(&mut schedule, &mut pings).await;
                    }
                }
                () = sleep_until(schedule.next()) => {
                    let now = Instant::now();
                    if schedule.proven_at.is_some_and(|at| at <= now) {
                        schedule.proven_at = None;
                        inner.reconsider();
                    }
                    if schedule.review_at <= now {
                        schedule.review_at = match inner.review(self.id) {
                            Review::Again(at) => at,
                            Review::Closing => now + inner.limits().idle(),
                        };
                        self.heed(control);
                    }
                    if schedule.ping_at <= now {
                        if awaiting_pong {
                            return self.ending.unwrap_or(CloseReason::PingTimeout);
                        }
                        self.ping(&mut schedule, &mut pings).await;
                    }
                }
            }
        }
    }

    /// Begins to close when the pool says so.
    fn heed(&mut self, control: &Control) {
        if self.ending.is_none()
            && let Some(reason) = control.closing()
        {
            // Without handles h2 says GOAWAY and ends once its streams are done.
            self.ending = Some(reason);
            self.probe = None;
        }
    }

    /// Sends a PING; its PONG will confirm the resets queued so far.
    async fn ping(&mut self, schedule: &mut Schedule, pings: &mut PingPong) {
        let resetting = self.inner.resetting(self.id);
        // h2 writes a PING before resets that are queued still: let it write those first.
        poll_fn(|context| Poll::Ready(self.poll(context).is_ready())).await;
        // Fails only when the connection is ending, and then the timeout ends it for certain.
        let _ = pings.send_ping(Ping::opaque());
        schedule.awaiting_pong = Some(resetting);
        let patience = Duration::from_secs(self.inner.limits().ping_timeout_s);
        schedule.ping_at = Instant::now() + patience;
    }

    /// Moves the connection on, after every message that is ready to go.
    fn poll_rested(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.rest.is_due(context) { Poll::Pending } else { self.poll(context) }
    }

    /// Moves the connection on; ready when it is closed.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let ended = Pin::new(&mut self.connection).poll(context).is_ready();
        let peer_limit = self.connection.max_concurrent_send_streams();
        if peer_limit != self.peer_limit {
            self.peer_limit = peer_limit;
            self.inner.follow(self.id, peer_limit);
        }
        if let Some(probe) = &mut self.probe
            && let Poll::Ready(Err(error)) = probe.poll_ready(context)
        {
            let is_goaway = error.is_go_away() && error.is_remote();
            if is_goaway {
                let reason = GoAwayReason::of(&error);
                self.inner.metrics().goaways.count(reason);
                tracing::info!(reason = reason.label(), "a push service sent GOAWAY");
            }
            // Else it is broken; either way it ends once its streams do.
            let reason = if is_goaway { CloseReason::GoAway } else { CloseReason::Error };
            self.ending.get_or_insert(reason);
            self.probe = None;
            self.inner.drain(self.id);
        }
        if ended { Poll::Ready(()) } else { Poll::Pending }
    }
}

// === impl Schedule ===

impl Schedule {
    fn new(inner: &Inner) -> Self {
        let now = Instant::now();
        let interval = Duration::from_secs(inner.limits().ping_interval_s);
        Self {
            ping_at: now + interval,
            review_at: now,
            proven_at: Some(now + inner.limits().connect()),
            awaiting_pong: None,
        }
    }

    fn next(&self) -> Instant {
        let next = self.ping_at.min(self.review_at);
        self.proven_at.map_or(next, |at| at.min(next))
    }

    fn pong(&mut self, inner: &Inner) {
        self.awaiting_pong = None;
        self.ping_at = Instant::now() + Duration::from_secs(inner.limits().ping_interval_s);
    }
}
