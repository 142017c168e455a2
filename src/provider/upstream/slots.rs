//! Who may use which stream: the one place that counts.
//!
//! A slot is the right to open one stream on one connection. One mutex, held for microseconds and
//! never across an await, guards connections, counts and the queue; after every change `settle`
//! hands free slots to the head of the queue and decides whether to dial. So no wake-up is lost:
//! a slot that is dropped anywhere, even inside the channel to a waiter that has gone, comes back
//! here and goes on to the next.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::counts::{CloseReason, FaultKind, PoolMetrics, ShedReason};
use super::dial::{Dialler, dial, jitter};
use super::http1::Lane;
use super::ledger::Ledger;
use super::{AddressGuard, DialFault, Limits, Origin, PoolStatus, SendError};

/// A pool's state, shared with its connections and slots.
#[derive(Debug)]
pub(super) struct Inner {
    dialler: Dialler,
    limits: Limits,
    metrics: Arc<PoolMetrics>,
    runtime: Handle,
    state: Mutex<Ledger>,
}

/// The way to write a request to a connection.
#[derive(Clone, Debug)]
pub(super) enum Transport {
    Http2(SendRequest<Bytes>),
    Http1(Arc<Lane>),
}

/// What the pool tells the task of a connection.
#[derive(Debug, Default)]
pub(super) struct Control {
    /// Rung after `closing` was set or a slot was dropped with its stream open.
    pub(super) bell: Notify,
    /// Takes no new requests: finish and end.
    pub(super) closing: AtomicBool,
}

/// The right to one stream; dropping it gives the right back.
#[derive(Debug)]
pub(super) struct Slot {
    inner: Arc<Inner>,
    id: u64,
    transport: Option<Transport>,
    fate: Fate,
}

/// How the stream of a slot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// No stream was opened.
    Unused,
    /// The stream is open; dropping the slot means that it is being reset.
    Open { answered: bool },
    /// The stream is closed on the wire.
    Closed { answered: bool },
    /// The slot was taken back already.
    Void,
}

/// Leaves the queue on drop.
struct Wait<'a> {
    inner: &'a Inner,
    ticket: u64,
}

// === impl Inner ===

impl Inner {
    pub(super) fn new(
        origin: Origin,
        tls: Arc<rustls::ClientConfig>,
        guard: AddressGuard,
        limits: Limits,
        metrics: Arc<PoolMetrics>,
    ) -> Arc<Self> {
        let dialler = Dialler::new(origin, &tls, guard, &limits);
        let runtime = Handle::current();
        Arc::new(Self { dialler, limits, metrics, runtime, state: Mutex::default() })
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.dialler.origin
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

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn shed(&self, reason: ShedReason) -> SendError {
        self.metrics.sheds.count(reason);
        SendError::Shed(reason)
    }

    /// Waits for a slot, first come first served; an older ticket goes first.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        ticket: u64,
        deadline: Instant,
    ) -> Result<Slot, SendError> {
        let (grant, queue) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.waiters.is_empty()
                && let Some(slot) = self.take_slot(&mut state)
            {
                self.settle(&mut state);
                return Ok(slot);
            }
            if let Some(fault) = state.hopeless(Instant::now()) {
                let kind = FaultKind::BackingOff;
                return Err(SendError::NotSent(DialFault { kind, ..fault }));
            }
            if state.waiters.len() >= self.limits.waiting_max {
                return Err(self.shed(ShedReason::QueueFull));
            }
            state.waiters.insert(ticket, grant);
            self.metrics.waiting.inc();
            self.settle(&mut state);
        }
        let _wait = Wait { inner: self, ticket };
        match timeout_at(deadline, queue).await {
            Ok(Ok(Ok(slot))) => Ok(slot),
            Ok(Ok(Err(fault))) => Err(SendError::NotSent(fault)),
            Ok(Err(_)) | Err(_) => Err(self.shed(ShedReason::Deadline)),
        }
    }

    pub(super) fn warm(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.may_dial_first() {
            self.start_dial(&mut state);
        }
    }

    pub(super) fn status(&self) -> PoolStatus {
        self.lock().status(&self.limits)
    }

    pub(super) fn shut_down(&self) {
        let mut state = self.lock();
        state.shut_down = true;
        for entry in &mut state.connections {
            entry.close();
        }
    }

    /// Takes in a new connection that allows `peer_limit` streams so far.
    pub(super) fn admit(
        self: &Arc<Self>,
        transport: Transport,
        peer_limit: usize,
    ) -> (u64, Arc<Control>) {
        self.metrics.opened.inc();
        self.metrics.connections.inc();
        let mut state = self.lock();
        let admitted = state.admit(transport, peer_limit);
        self.settle(&mut state);
        admitted
    }

    /// The peer changed its limit.
    pub(super) fn follow(self: &Arc<Self>, id: u64, peer_limit: usize) {
        let mut state = self.lock();
        if let Some(entry) = state.entry(id) {
            entry.peer_limit = peer_limit;
        }
        self.settle(&mut state);
    }

    /// The connection takes no new requests; those it has go on.
    pub(super) fn drain(self: &Arc<Self>, id: u64) {
        let mut state = self.lock();
        if let Some(entry) = state.entry(id)
            && entry.transport.take().is_some()
        {
            if !entry.answered {
                self.fail(&mut state, FaultKind::Lost);
            } else if entry.in_use > 0 && state.may_dial_first() {
                // Under load the replacement need not wait for the next request.
                self.start_dial(&mut state);
            }
        }
        self.settle(&mut state);
    }

    /// Closes the connection if it has been idle for `idle`, else says when to look again.
    pub(super) fn close_idle(&self, id: u64, idle: Duration) -> Option<Instant> {
        let mut state = self.lock();
        let now = Instant::now();
        let entry = state.entry(id)?;
        let due = if entry.in_use > 0 { now + idle } else { entry.used_at + idle };
        if now < due {
            return Some(due);
        }
        entry.close();
        None
    }

    /// How many slots wait for the peer to confirm a reset.
    pub(super) fn resetting(&self, id: u64) -> usize {
        self.lock().entry(id).map_or(0, |entry| entry.resetting)
    }

    /// The peer has seen the resets of so many slots.
    pub(super) fn confirm_resets(self: &Arc<Self>, id: u64, count: usize) {
        let mut state = self.lock();
        if let Some(entry) = state.entry(id) {
            entry.resetting = entry.resetting.saturating_sub(count);
            entry.in_use = entry.in_use.saturating_sub(count);
        }
        self.settle(&mut state);
    }

    /// Looks again whether to dial: a new connection had its time to prove itself, or a pause is
    /// over.
    pub(super) fn reconsider(self: &Arc<Self>) {
        let mut state = self.lock();
        self.settle(&mut state);
    }

    /// The connection is closed.
    pub(super) fn end(self: &Arc<Self>, id: u64, reason: CloseReason) {
        self.metrics.connections.dec();
        self.metrics.closed.count(reason);
        let mut state = self.lock();
        let Some(place) = state.connections.iter().position(|entry| entry.id == id) else {
            return;
        };
        let entry = state.connections.remove(place);
        if entry.transport.is_some() && !entry.answered {
            self.fail(&mut state, FaultKind::Lost);
        }
        self.settle(&mut state);
    }

    fn fail(self: &Arc<Self>, state: &mut Ledger, kind: FaultKind) {
        self.metrics.dial_failures.count(kind);
        let doublings = state.failures.min(20);
        state.failures += 1;
        // A refused client certificate ends each connection before its first answer (TLS 1.3), and
        // dialling on would hammer the push service; a GOAWAY may do so once.
        if kind == FaultKind::Lost && doublings == 0 {
            return;
        }
        let longest = self.limits.backoff_ms_max.max(1);
        let pause_ms = self.limits.backoff_ms_min.saturating_mul(1 << doublings).min(longest);
        let pause_ms = pause_ms - jitter(pause_ms / 2 + 1);
        let until = Instant::now() + Duration::from_millis(pause_ms);
        state.quiet_until = Some((until, kind));
        // Those who wait through the pause are served after it, though nobody else comes.
        let inner = Arc::clone(self);
        self.runtime.spawn(async move {
            sleep_until(until).await;
            inner.reconsider();
        });
    }

    /// Hands free slots to the head of the queue, dials if that is called for, and tells the queue
    /// when there is nothing to wait for.
    fn settle(self: &Arc<Self>, state: &mut Ledger) {
        while !state.waiters.is_empty() {
            let Some(slot) = self.take_slot(state) else { break };
            let Some((_, waiter)) = state.waiters.pop_first() else {
                self.take_back(state, slot);
                break;
            };
            if let Err(Ok(slot)) = waiter.send(Ok(slot)) {
                // Dropping it here would lock again.
                self.take_back(state, slot);
            }
        }
        if state.wants_dial(&self.limits) {
            self.start_dial(state);
        }
        if !state.waiters.is_empty()
            && let Some(fault) = state.hopeless(Instant::now())
        {
            for (_, waiter) in std::mem::take(&mut state.waiters) {
                // A waiter that has gone needs no fault.
                let _ = waiter.send(Err(fault));
            }
        }
    }

    fn take_slot(self: &Arc<Self>, state: &mut Ledger) -> Option<Slot> {
        let place = state.pick(&self.limits)?;
        let entry = state.connections.get_mut(place)?;
        entry.in_use += 1;
        self.metrics.streams_in_use.inc();
        let transport = entry.transport.clone();
        Some(Slot { inner: self.clone(), id: entry.id, transport, fate: Fate::Unused })
    }

    fn take_back(&self, state: &mut Ledger, mut slot: Slot) {
        slot.fate = Fate::Void;
        self.metrics.streams_in_use.dec();
        if let Some(entry) = state.entry(slot.id) {
            entry.in_use = entry.in_use.saturating_sub(1);
        }
    }

    fn start_dial(self: &Arc<Self>, state: &mut Ledger) {
        state.dialling = true;
        let inner = self.clone();
        self.runtime.spawn(async move {
            let dialled = dial(&inner).await;
            let mut state = inner.lock();
            state.dialling = false;
            if let Err(kind) = dialled {
                inner.fail(&mut state, kind);
            }
            inner.settle(&mut state);
        });
    }

    fn give_back(self: &Arc<Self>, id: u64, fate: Fate) {
        self.metrics.streams_in_use.dec();
        let mut state = self.lock();
        let Some(entry) = state.entry(id) else { return };
        entry.used_at = Instant::now();
        let answered = match fate {
            Fate::Open { answered } | Fate::Closed { answered } => answered,
            Fate::Unused | Fate::Void => false,
        };
        let is_first_answer = answered && !entry.answered;
        entry.answered |= answered;
        let mut is_lost = false;
        match fate {
            Fate::Open { .. } if entry.multiplexes => {
                entry.resetting += 1;
                entry.control.bell.notify_one();
            }
            Fate::Open { .. } => {
                // HTTP/1.1 cancels a request by closing the connection.
                entry.in_use = entry.in_use.saturating_sub(1);
                is_lost = !entry.answered;
                entry.close();
            }
            Fate::Unused | Fate::Closed { .. } | Fate::Void => {
                entry.in_use = entry.in_use.saturating_sub(1);
            }
        }
        if is_first_answer {
            // Not each answer: those on old connections say nothing about new ones.
            state.failures = 0;
            state.quiet_until = None;
        }
        if is_lost {
            self.fail(&mut state, FaultKind::Lost);
        }
        self.settle(&mut state);
    }
}

// === impl Slot ===

impl Slot {
    pub(super) fn take_transport(&mut self) -> Option<Transport> {
        self.transport.take()
    }

    pub(super) fn set_fate(&mut self, fate: Fate) {
        self.fate = fate;
    }

    /// Keeps every other request off this connection.
    pub(super) fn drain_connection(&self) {
        self.inner.drain(self.id);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if self.fate != Fate::Void {
            self.inner.give_back(self.id, self.fate);
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.inner.metrics.waiting.dec();
        self.inner.lock().waiters.remove(&self.ticket);
    }
}
