//! Who may use which stream: the one lock, and what follows from the ledger's decisions.
//!
//! A slot is the right to open one stream on one connection. One mutex, held for microseconds and
//! never across an await, guards the ledger; after every change it settles. So no wake-up is lost:
//! a slot that is dropped anywhere, even inside the channel to a waiter that has gone, comes back
//! here and goes on to the next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::counts::{CloseReason, FaultKind, PoolMetrics, ShedReason};
use super::dial::{Dialler, dial, dice};
use super::gradient::Gradient;
use super::http1::Lane;
use super::http2::Line;
use super::ledger::{Control, Fate, Grant, Hands, Ledger, Place, Review, Turn, Use};
use super::{DialFault, Limits, PoolStatus, SendError};

/// A pool's state, shared with its connections and slots.
#[derive(Debug)]
pub(super) struct Inner {
    dialler: Dialler,
    limits: Limits,
    metrics: Arc<PoolMetrics>,
    runtime: Handle,
    state: Mutex<Books>,
}

type Books = Ledger<Transport, Waiter>;

/// Where a waiting request hears of its slot.
type Waiter = oneshot::Sender<Result<Slot, DialFault>>;

/// The way to write a request to a connection.
#[derive(Clone, Debug)]
pub(super) enum Transport {
    Http2(Arc<Line>),
    Http1(Arc<Lane>),
}

/// The right to one stream; dropping it gives the right back.
#[derive(Debug)]
pub(super) struct Slot {
    inner: Arc<Inner>,
    id: u64,
    transport: Option<Transport>,
    used: Use,
}

/// Leaves the queue on drop.
struct Wait<'a> {
    inner: &'a Inner,
    turn: Turn,
}

// === impl Inner ===

impl Inner {
    pub(super) fn new(dialler: Dialler, limits: Limits, metrics: Arc<PoolMetrics>) -> Arc<Self> {
        let ceiling = limits.connections_max.saturating_mul(limits.streams_per_connection_max);
        let gradient = limits.adaptive_floor.map(|floor| Gradient::new(floor, ceiling));
        let state = Mutex::new(Ledger::new(gradient));
        Arc::new(Self { dialler, limits, metrics, runtime: Handle::current(), state })
    }

    pub(super) fn dialler(&self) -> &Dialler {
        &self.dialler
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn metrics(&self) -> &PoolMetrics {
        &self.metrics
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(self: &Arc<Self>, state: &mut Books, now: Instant) {
        let mut hands: &Arc<Self> = self;
        state.settle(&mut hands, &self.limits, now);
    }

    pub(super) fn shed(&self, reason: ShedReason) -> SendError {
        self.metrics.sheds.count(reason);
        SendError::Shed(reason)
    }

    /// Waits for a slot until its turn has come.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        turn: Turn,
        deadline: Instant,
    ) -> Result<Slot, SendError> {
        let mut queue = None;
        let grant = || {
            let (grant, waits) = oneshot::channel();
            queue = Some(waits);
            grant
        };
        {
            let mut state = self.lock();
            let now = Instant::now();
            match state.reserve(turn, grant, &self.limits, now) {
                Place::Granted(grant) => {
                    self.settle(&mut state, now);
                    return Ok(self.slot(grant));
                }
                Place::CutOff(fault) => return Err(SendError::NotSent(fault)),
                Place::Full => return Err(self.shed(ShedReason::QueueFull)),
                Place::Slow => return Err(self.shed(ShedReason::QueueSlow)),
                Place::Queued => self.metrics.waiting.inc(),
            }
            self.settle(&mut state, now);
        }
        let _wait = Wait { inner: self, turn };
        let Some(queue) = queue else { return Err(self.shed(ShedReason::QueueFull)) };
        match timeout_at(deadline, queue).await {
            Ok(Ok(Ok(slot))) if deadline < Instant::now() + self.lock().usual() => {
                // Sent now, it would be processed and its answer come too late: better unsent.
                drop(slot);
                Err(self.shed(ShedReason::Deadline))
            }
            Ok(Ok(Ok(slot))) => Ok(slot),
            Ok(Ok(Err(fault))) => Err(SendError::NotSent(fault)),
            Ok(Err(_)) | Err(_) => Err(self.shed(ShedReason::Deadline)),
        }
    }

    /// Opens connections in advance, unless a dial has just failed.
    pub(super) fn want(self: &Arc<Self>, connections: usize) {
        let mut state = self.lock();
        let now = Instant::now();
        state.want(connections, &self.limits, now);
        self.settle(&mut state, now);
    }

    pub(super) fn status(&self) -> PoolStatus {
        self.lock().status(&self.limits)
    }

    pub(super) fn shut_down(&self) {
        self.lock().shut_down();
    }

    /// Takes in a new connection that allows `peer_limit` streams so far.
    pub(super) fn admit(
        self: &Arc<Self>,
        transport: Transport,
        peer_limit: usize,
    ) -> (u64, Arc<Control>) {
        self.metrics.opened.inc();
        self.metrics.connections.inc();
        let multiplexes = matches!(transport, Transport::Http2(_));
        let lifetime = self.limits.age(dice());
        let mut state = self.lock();
        let now = Instant::now();
        let admitted = state.admit(transport, multiplexes, peer_limit, lifetime, now);
        self.settle(&mut state, now);
        admitted
    }

    /// The peer changed its limit.
    pub(super) fn follow(self: &Arc<Self>, id: u64, peer_limit: usize) {
        let mut state = self.lock();
        state.follow(id, peer_limit);
        self.settle(&mut state, Instant::now());
    }

    /// The connection takes no new requests; those it has go on.
    pub(super) fn drain(self: &Arc<Self>, id: u64) {
        let mut state = self.lock();
        let now = Instant::now();
        let failed = state.drain(id, &self.limits, now);
        self.conclude(&mut state, failed, now);
    }

    /// Notes a doubt about a connection; the second one replaces it.
    pub(super) fn doubt(self: &Arc<Self>, id: u64, sent_at: Instant) {
        let mut state = self.lock();
        let now = Instant::now();
        if state.doubt(id, sent_at, now) {
            let failed = state.discard(id, CloseReason::Distrusted, &self.limits, now);
            self.conclude(&mut state, failed, now);
        }
    }

    /// Looks whether a connection is idle, old or wedged; says when to look again.
    pub(super) fn review(self: &Arc<Self>, id: u64) -> Review {
        let mut state = self.lock();
        let now = Instant::now();
        let (review, failed) = state.review(id, &self.limits, now);
        self.conclude(&mut state, failed, now);
        review
    }

    /// How many slots wait for the peer to confirm a reset.
    pub(super) fn resetting(&self, id: u64) -> usize {
        self.lock().resetting(id)
    }

    /// The peer has seen the resets of so many slots.
    pub(super) fn confirm_resets(self: &Arc<Self>, id: u64, count: usize) {
        let mut state = self.lock();
        state.confirm_resets(id, count);
        self.settle(&mut state, Instant::now());
    }

    /// Looks again whether to dial: a new connection had its time to prove itself.
    pub(super) fn reconsider(self: &Arc<Self>) {
        let mut state = self.lock();
        self.settle(&mut state, Instant::now());
    }

    /// The connection is closed.
    pub(super) fn end(self: &Arc<Self>, id: u64, reason: CloseReason) {
        self.metrics.connections.dec();
        self.metrics.closed.count(reason);
        let mut state = self.lock();
        let failed = state.end(id);
        self.conclude(&mut state, failed, Instant::now());
    }

    fn give_back(self: &Arc<Self>, id: u64, used: Use) {
        self.metrics.streams_in_use.dec();
        let mut state = self.lock();
        let now = Instant::now();
        let failed = state.give_back(id, used, &self.limits, now);
        self.conclude(&mut state, failed, now);
    }

    /// Notes that a connection was lost before its first answer, and settles.
    fn conclude(self: &Arc<Self>, state: &mut Books, failed: bool, now: Instant) {
        if failed {
            self.fail(state, FaultKind::Lost, now);
        }
        self.settle(state, now);
    }

    fn fail(self: &Arc<Self>, state: &mut Books, kind: FaultKind, now: Instant) {
        self.metrics.dial_failures.count(kind);
        if let Some(until) = state.fail(kind, dice(), &self.limits, now) {
            // Those who wait through the pause are served after it, though nobody else comes.
            let inner = Arc::clone(self);
            self.runtime.spawn(async move {
                sleep_until(until).await;
                inner.reconsider();
            });
        }
    }

    fn slot(self: &Arc<Self>, grant: Grant<Transport>) -> Slot {
        self.metrics.streams_in_use.inc();
        let used = Use::of(Fate::Unused);
        Slot { inner: self.clone(), id: grant.id, transport: Some(grant.transport), used }
    }
}

impl Hands<Transport, Waiter> for &Arc<Inner> {
    fn grant(&mut self, waiter: Waiter, grant: Grant<Transport>) -> bool {
        let Err(Ok(mut slot)) = waiter.send(Ok(self.slot(grant))) else { return true };
        // Dropping it as it is would lock again.
        slot.used = Use::of(Fate::Void);
        self.metrics.streams_in_use.dec();
        false
    }

    fn refuse(&mut self, waiter: Waiter, fault: DialFault) {
        // A waiter that has gone needs no fault.
        let _ = waiter.send(Err(fault));
    }

    fn dial(&mut self) {
        let inner = self.clone();
        self.runtime.spawn(async move {
            let dialled = dial(&inner).await;
            let mut state = inner.lock();
            let now = Instant::now();
            state.dialled();
            if let Err(kind) = dialled {
                inner.fail(&mut state, kind, now);
            }
            inner.settle(&mut state, now);
        });
    }
}

// === impl Slot ===

impl Slot {
    /// The number of its connection.
    pub(super) fn connection(&self) -> u64 {
        self.id
    }

    pub(super) fn take_transport(&mut self) -> Option<Transport> {
        self.transport.take()
    }

    pub(super) fn set_fate(&mut self, fate: Fate) {
        self.used.fate = fate;
    }

    /// The answer's header fields came after this time.
    pub(super) fn set_elapsed(&mut self, elapsed: Duration) {
        self.used.elapsed = Some(elapsed);
    }

    /// The deadline passed without an answer; true when that speaks against the peer.
    pub(super) fn miss(&mut self, waited: Duration) -> bool {
        self.used.missed = waited >= self.inner.limits.patience();
        self.used.missed
    }

    /// Keeps every other request off this connection.
    pub(super) fn drain_connection(&self) {
        self.inner.drain(self.id);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.used.fate != Fate::Void {
            self.inner.give_back(self.id, self.used);
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.inner.metrics.waiting.dec();
        self.inner.lock().leave(self.turn);
    }
}
