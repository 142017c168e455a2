//! One HTTP/2 connection: the task that drives it, and one exchange on it.
//!
//! The exchange runs in the sender's own task and writes straight into the connection's
//! [`Session`]. The driver moves bytes between that and the socket, publishes the peer's stream
//! limit and its GOAWAY before any request meets them, and sends PINGs. It knows nothing about
//! requests.
//!
//! A cancelled stream's slot is given back by the next PONG only: the PING left after the
//! RST_STREAM, so the peer has seen both. On a dead connection no slot comes back to lure others.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::counts::{CloseReason, Label as _};
use super::ledger::{Control, Fate, Review};
use super::request::Post;
use super::rest::Rest;
use super::slots::{Inner, Slot, Transport};
use super::{Answer, ConnectionId, Miss};

mod frame;

mod hpack;

mod session;

mod stream;

use frame::{HEAD_BYTES, PAYLOAD_BYTES, Reason};
use session::{NotOpened, STREAMS_BEFORE_SETTINGS, Session};
use stream::{End, Parts};

/// The way to write requests to a connection.
pub(super) struct Line {
    session: Mutex<Session>,
    driver: AtomicWaker,
}

/// A stream in use; dropping it resets the stream unless it has ended.
struct Open<'a> {
    line: &'a Line,
    id: u32,
    is_let_go: bool,
}

/// The socket with what goes out and what comes in.
struct Driver<I> {
    io: I,
    line: Arc<Line>,
    /// What is being written, and how much of it is.
    out: Vec<u8>,
    written: usize,
    /// What has come and is not read, between two places; one frame fits in.
    input: Box<[u8]>,
    begin: usize,
    end: usize,
    /// Why it is coming to an end.
    ending: Option<CloseReason>,
    has_gone: bool,
    streams_max: usize,
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

/// What a connection has come to.
enum Turn {
    Pong,
    Closed,
}

/// A buffer that grew with a burst goes with it.
const OUT_BYTES_KEPT: usize = 256 * 1_024;

/// Lets a task drive a connection over secured bytes.
pub(super) fn start<I>(inner: &Arc<Inner>, io: I)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let line = Arc::new(Line { session: Mutex::new(Session::new()), driver: AtomicWaker::new() });
    let (id, control) = inner.admit(Transport::Http2(line.clone()), STREAMS_BEFORE_SETTINGS);
    let driver = Driver {
        io,
        line,
        out: Vec::new(),
        written: 0,
        input: vec![0; HEAD_BYTES + PAYLOAD_BYTES].into_boxed_slice(),
        begin: 0,
        end: 0,
        ending: None,
        has_gone: false,
        streams_max: STREAMS_BEFORE_SETTINGS,
        rest: Rest::default(),
        id,
        inner: inner.clone(),
    };
    let inner = inner.clone();
    inner.runtime().clone().spawn(async move {
        let reason = driver.run(&control).await;
        inner.end(id, reason);
    });
}

/// Sends one request on its slot's connection and reads the answer.
pub(super) async fn exchange(
    slot: &mut Slot,
    line: &Line,
    post: &Post<'_>,
    authority: &str,
    deadline: Instant,
    answer_bytes_max: usize,
) -> Result<Answer, Miss> {
    let opened = line.open(authority, post, answer_bytes_max, deadline).await;
    let sent_at = Instant::now();
    // Nothing was written: after GOAWAY, when the connection is gone, or by the deadline.
    let mut open = match opened {
        Ok(open) => open,
        Err(NotOpened::Closing) => {
            slot.drain_connection();
            return Err(Miss::Stale);
        }
        Err(NotOpened::Full) => return Err(Miss::Stale),
    };
    slot.set_fate(Fate::Open { answered: false });
    let parts = match timeout_at(deadline, open.head()).await {
        Ok(Ok(parts)) => parts,
        Ok(Err(end)) => {
            slot.set_fate(Fate::Closed { answered: false });
            return Err(match end {
                End::Refused(reason) => Miss::Unprocessed(reason),
                End::Whole | End::Broken => Miss::Unknown,
            });
        }
        Err(_) => return Err(Miss::Late { counts: slot.miss(sent_at.elapsed()) }),
    };
    let elapsed = sent_at.elapsed();
    slot.set_elapsed(elapsed);
    slot.set_fate(Fate::Open { answered: true });
    let end = timeout_at(deadline, open.end()).await.ok().flatten();
    let (body, is_closed) = open.let_go();
    if is_closed {
        slot.set_fate(Fate::Closed { answered: true });
    }
    Ok(Answer {
        status: parts.status,
        headers: parts.headers,
        body: Bytes::from(body),
        complete: end == Some(End::Whole),
        sent_at,
        elapsed,
        connection: ConnectionId(slot.connection()),
    })
}

// === impl Line ===

impl Line {
    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a request, as soon as the peer allows a stream: the slot was given for one, and the
    /// limit may have gone down since.
    async fn open(
        &self,
        authority: &str,
        post: &Post<'_>,
        answer_bytes_max: usize,
        deadline: Instant,
    ) -> Result<Open<'_>, NotOpened> {
        loop {
            let opened = self.session().open(authority, post, answer_bytes_max);
            match opened {
                Ok(id) => {
                    self.driver.wake();
                    return Ok(Open { line: self, id, is_let_go: false });
                }
                Err(NotOpened::Full) => {
                    let room = poll_fn(|context| self.session().poll_room(context));
                    timeout_at(deadline, room).await.map_err(|_| NotOpened::Full)?;
                }
                Err(NotOpened::Closing) => return Err(NotOpened::Closing),
            }
        }
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Line").finish_non_exhaustive()
    }
}

// === impl Open ===

impl Open<'_> {
    async fn head(&self) -> Result<Parts, End> {
        poll_fn(|context| self.line.session().poll_head(self.id, context)).await
    }

    async fn end(&self) -> Option<End> {
        poll_fn(|context| self.line.session().poll_end(self.id, context)).await
    }

    fn let_go(&mut self) -> (Vec<u8>, bool) {
        self.is_let_go = true;
        let (body, is_closed) = self.line.session().let_go(self.id);
        if !is_closed {
            self.line.driver.wake();
        }
        (body, is_closed)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if !self.is_let_go {
            self.let_go();
        }
    }
}

// === impl Driver ===

impl<I: AsyncRead + AsyncWrite + Unpin> Driver<I> {
    /// Runs until the connection is closed, and says why.
    async fn run(mut self, control: &Control) -> CloseReason {
        let inner = self.inner.clone();
        let mut schedule = Schedule::new(&inner);
        let reason = loop {
            let awaiting_pong = schedule.awaiting_pong.is_some();
            tokio::select! {
                biased;
                turn = poll_fn(|context| self.poll_rested(context)) => match turn {
                    Turn::Closed => break self.ending.unwrap_or(CloseReason::Error),
                    Turn::Pong => {
                        let confirmed = schedule.awaiting_pong.take().unwrap_or(0);
                        schedule.pong(&inner);
                        inner.confirm_resets(self.id, confirmed);
                        if inner.resetting(self.id) > 0 {
                            self.ping(&mut schedule);
                        }
                    }
                },
                () = control.bell.notified() => {
                    self.heed(control);
                    if !awaiting_pong && inner.resetting(self.id) > 0 {
                        self.ping(&mut schedule);
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
                            break self.ending.unwrap_or(CloseReason::PingTimeout);
                        }
                        self.ping(&mut schedule);
                    }
                }
            }
        };
        // Whatever is open still is lost.
        self.line.session().end(Reason::NO_ERROR);
        reason
    }

    /// Begins to close when the pool says so.
    fn heed(&mut self, control: &Control) {
        if self.ending.is_none()
            && let Some(reason) = control.closing()
        {
            // It ends once its streams are done.
            self.ending = Some(reason);
            self.line.session().close();
        }
    }

    /// Sends a PING; its PONG will confirm the resets so far, which were written before it.
    fn ping(&self, schedule: &mut Schedule) {
        schedule.awaiting_pong = Some(self.inner.resetting(self.id));
        let patience = Duration::from_secs(self.inner.limits().ping_timeout_s);
        schedule.ping_at = Instant::now() + patience;
        self.line.session().ping();
    }

    /// Moves the connection on, after every message that is ready to go.
    fn poll_rested(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        if self.rest.is_due(context) { Poll::Pending } else { self.poll(context) }
    }

    /// Moves the connection on, and publishes what the peer has said.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Turn> {
        self.line.driver.register(context.waker());
        let moved = self.poll_io(context);
        let (streams_max, goaway) = {
            let session = self.line.session();
            (session.streams_max(), session.goaway())
        };
        if streams_max != self.streams_max {
            self.streams_max = streams_max;
            self.inner.follow(self.id, streams_max);
        }
        if let Some(reason) = goaway.filter(|_| !self.has_gone) {
            self.has_gone = true;
            self.inner.metrics().goaways.count(reason);
            tracing::info!(reason = reason.label(), "a push service sent GOAWAY");
            self.ending.get_or_insert(CloseReason::GoAway);
            self.inner.drain(self.id);
        }
        match moved {
            Poll::Ready(Ok(turn)) => Poll::Ready(turn),
            Poll::Ready(Err(_)) => Poll::Ready(Turn::Closed),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Writes and reads as long as either goes on.
    fn poll_io(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Turn>> {
        loop {
            let written = self.poll_write(context)?;
            if self.line.session().take_pong() {
                return Poll::Ready(Ok(Turn::Pong));
            }
            if written.is_ready() && self.line.session().is_done() {
                self.line.session().end(Reason::NO_ERROR);
                ready!(self.poll_write(context))?;
                ready!(Pin::new(&mut self.io).poll_shutdown(context))?;
                return Poll::Ready(Ok(Turn::Closed));
            }
            if ready!(self.poll_read(context))? == 0 {
                return Poll::Ready(Ok(Turn::Closed));
            }
            let received = self.line.session().receive(&self.input[self.begin..self.end]);
            match received {
                Ok(length) => self.begin += length,
                Err(reason) => {
                    self.line.session().end(reason);
                    // The peer may hear why; it has broken off either way.
                    let _ = self.poll_write(context)?;
                    return Poll::Ready(Ok(Turn::Closed));
                }
            }
        }
    }

    /// Ready once all is written.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while let Some(rest @ [_, ..]) = self.out.get(self.written..) {
                let written = ready!(Pin::new(&mut self.io).poll_write(context, rest))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.written += written;
            }
            self.out.clear();
            self.out.shrink_to(OUT_BYTES_KEPT);
            self.written = 0;
            self.out = self.line.session().take_out(std::mem::take(&mut self.out));
            if self.out.is_empty() {
                return Pin::new(&mut self.io).poll_flush(context);
            }
        }
    }

    /// Reads more behind what is there; gives the bytes that came.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // What is there is less than a frame, so there is always room behind it.
        self.input.copy_within(self.begin..self.end, 0);
        (self.begin, self.end) = (0, self.end - self.begin);
        let mut free = ReadBuf::new(&mut self.input[self.end..]);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut free))?;
        let length = free.filled().len();
        self.end += length;
        Poll::Ready(Ok(length))
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
