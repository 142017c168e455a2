//! What a pool knows of its connections and its queue, and every decision on it: which stream a
//! request gets, when to dial, when a connection is to go.
//!
//! Plain counting with time and dice passed in: no lock, no task, no I/O. What follows from a
//! decision is done by the [`Hands`] that the caller brings. After every change the caller settles:
//! then nobody waits while a stream is free, and the head of the queue is the oldest request of the
//! highest class.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::counts::{CloseReason, FaultKind};
use super::gradient::Gradient;
use super::{DialFault, Limits, PoolStatus};

mod entry;
mod queue;

pub(super) use entry::{Control, Entry, Fate, Use};
pub(super) use queue::Turn;

use queue::{Crowded, Queue};

/// A pause after a lost connection that requests wait through.
const LOST_PATIENCE: Duration = Duration::from_secs(1);

/// The books of one pool: `T` writes to a connection, `W` is a waiting request.
#[derive(Clone, Debug)]
pub(super) struct Ledger<T, W> {
    /// In order of age: the pick fills the oldest first, so that surplus ones fall idle.
    connections: Vec<Entry<T>>,
    queue: Queue<W>,
    next_id: u64,
    dialling: bool,
    shut_down: bool,
    /// What the last dial negotiated.
    speaks_http1: bool,
    failures: u32,
    /// No dial before this time, because of that fault.
    quiet_until: Option<(Instant, FaultKind)>,
    /// Connections to open whether they are needed or not.
    wanted: usize,
    gradient: Option<Gradient>,
    /// How long answers take at present: a moving average over the last dozen or so.
    usual: Duration,
}

/// The right to one stream of a connection.
#[derive(Clone, Debug)]
pub(super) struct Grant<T> {
    pub(super) id: u64,
    pub(super) transport: T,
}

/// What becomes of a request that asks for a stream.
pub(super) enum Place<T> {
    Granted(Grant<T>),
    Queued,
    /// There is no connection, and no dial for a while.
    CutOff(DialFault),
    /// Too many wait already.
    Full,
    /// Those of its class have waited too long already.
    Slow,
}

/// What to do with a connection that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Review {
    /// It was told to close, or is closing.
    Closing,
    /// Look again then.
    Again(Instant),
}

/// Does what the ledger decides.
pub(super) trait Hands<T, W> {
    /// Hands a stream to a waiting request; false when it has gone.
    fn grant(&mut self, waiter: W, grant: Grant<T>) -> bool;

    /// Tells a waiting request that there is nothing to wait for.
    fn refuse(&mut self, waiter: W, fault: DialFault);

    /// Starts the one dial; its end comes back by `dialled`.
    fn dial(&mut self);
}

// === impl Ledger ===

impl<T: Clone, W> Ledger<T, W> {
    pub(super) fn new(gradient: Option<Gradient>) -> Self {
        Self {
            connections: Vec::new(),
            queue: Queue::new(),
            next_id: 0,
            dialling: false,
            shut_down: false,
            speaks_http1: false,
            failures: 0,
            quiet_until: None,
            wanted: 0,
            gradient,
            usual: Duration::ZERO,
        }
    }

    /// Gives a stream, or a place in the queue, which `waiter` then makes.
    pub(super) fn reserve(
        &mut self,
        turn: Turn,
        waiter: impl FnOnce() -> W,
        limits: &Limits,
        now: Instant,
    ) -> Place<T> {
        if self.queue.is_empty()
            && let Some(grant) = self.take(limits, now)
        {
            return Place::Granted(grant);
        }
        if let Some(fault) = self.hopeless(now) {
            return Place::CutOff(DialFault { kind: FaultKind::BackingOff, ..fault });
        }
        match self.queue.join(turn, waiter, limits, now) {
            Ok(()) => Place::Queued,
            Err(Crowded::Full) => Place::Full,
            Err(Crowded::Slow) => Place::Slow,
        }
    }

    /// Takes a request out of the queue, if it is there still.
    pub(super) fn leave(&mut self, turn: Turn) {
        self.queue.leave(turn);
    }

    /// Hands free streams to the head of the queue, dials if that is called for, and tells the
    /// queue when there is nothing to wait for.
    pub(super) fn settle(&mut self, hands: &mut impl Hands<T, W>, limits: &Limits, now: Instant) {
        self.release_replaced();
        while !self.queue.is_empty() {
            let Some(grant) = self.take(limits, now) else { break };
            let id = grant.id;
            let Some(waiter) = self.queue.pop() else { break };
            if !hands.grant(waiter, grant) {
                self.put_back(id);
            }
        }
        if self.wants_dial(limits, now) {
            self.dialling = true;
            hands.dial();
        }
        if let Some(fault) = self.hopeless(now) {
            while let Some(waiter) = self.queue.pop() {
                hands.refuse(waiter, fault);
            }
        }
    }

    /// Asks for so many open connections, unless a dial has just failed.
    pub(super) fn want(&mut self, connections: usize, limits: &Limits, now: Instant) {
        if self.quiet(now).is_none() {
            self.wanted = self.wanted.max(connections.min(limits.connections_max));
        }
    }

    /// The dial has ended; a fault starts a pause.
    pub(super) fn dialled(&mut self) {
        self.dialling = false;
    }

    /// Takes in a new connection that allows `peer_limit` streams so far.
    pub(super) fn admit(
        &mut self,
        transport: T,
        multiplexes: bool,
        peer_limit: usize,
        lifetime: Duration,
        now: Instant,
    ) -> (u64, Arc<Control>) {
        let id = self.next_id;
        self.next_id += 1;
        self.speaks_http1 = !multiplexes;
        let mut entry = Entry::new(id, transport, multiplexes, peer_limit, now + lifetime, now);
        if self.shut_down {
            entry.close(CloseReason::Shutdown);
        }
        let control = entry.control();
        self.connections.push(entry);
        if self.open().count() >= self.wanted {
            self.wanted = 0;
        }
        (id, control)
    }

    /// The peer changed its limit.
    pub(super) fn follow(&mut self, id: u64, peer_limit: usize) {
        if let Some(entry) = self.entry(id) {
            entry.peer_limit = peer_limit;
        }
    }

    /// The connection takes no new requests; those it has go on. True when it never answered:
    /// then it has failed.
    pub(super) fn drain(&mut self, id: u64, limits: &Limits, now: Instant) -> bool {
        let Some(entry) = self.entry(id) else { return false };
        if !entry.stop() {
            return false;
        }
        let (failed, busy) = (!entry.answered, entry.in_use > 0);
        if busy && !failed {
            self.replace_at_once(limits, now);
        }
        failed
    }

    /// Closes a connection that is not to be trusted: it takes no new requests, those it has may
    /// still end. True when it never answered.
    pub(super) fn discard(
        &mut self,
        id: u64,
        reason: CloseReason,
        limits: &Limits,
        now: Instant,
    ) -> bool {
        let failed = self.drain(id, limits, now);
        if let Some(entry) = self.entry(id) {
            entry.close(reason);
        }
        self.replace_at_once(limits, now);
        failed
    }

    /// Notes a doubt about a connection; true when it is the second one, to a request that was
    /// sent after the first.
    pub(super) fn doubt(&mut self, id: u64, sent_at: Instant, now: Instant) -> bool {
        self.entry(id).is_some_and(|entry| match entry.doubted_at {
            Some(doubted_at) => sent_at >= doubted_at,
            None => {
                entry.doubted_at = Some(now);
                false
            }
        })
    }

    /// Looks whether a connection is idle, old or wedged, and says when to look again.
    /// The second part is true when it has failed.
    pub(super) fn review(&mut self, id: u64, limits: &Limits, now: Instant) -> (Review, bool) {
        let successor_from = self.next_id;
        let Some(entry) = self.entry(id).filter(|entry| entry.is_open()) else {
            return (Review::Closing, false);
        };
        if entry.is_idle(limits, now) {
            entry.close(CloseReason::Idle);
            return (Review::Closing, false);
        }
        if entry.is_wedged(limits, now) {
            let failed = self.discard(id, CloseReason::Wedged, limits, now);
            return (Review::Closing, failed);
        }
        if now >= entry.expires_at {
            entry.retire(successor_from, CloseReason::Age);
        }
        (Review::Again(entry.review_at(limits, now)), false)
    }

    /// The connection is closed; true when it never answered and was to take requests still.
    pub(super) fn end(&mut self, id: u64) -> bool {
        let Some(place) = self.connections.iter().position(|entry| entry.id == id) else {
            return false;
        };
        let entry = self.connections.remove(place);
        entry.is_open() && !entry.answered
    }

    /// How many slots wait for the peer to confirm a reset.
    pub(super) fn resetting(&self, id: u64) -> usize {
        let entry = self.connections.iter().find(|entry| entry.id == id);
        entry.map_or(0, |entry| entry.resetting)
    }

    /// The peer has seen the resets of so many slots.
    pub(super) fn confirm_resets(&mut self, id: u64, count: usize) {
        if let Some(entry) = self.entry(id) {
            entry.resetting = entry.resetting.saturating_sub(count);
            entry.in_use = entry.in_use.saturating_sub(count);
        }
    }

    /// Takes a slot back; true when the connection has failed by it.
    pub(super) fn give_back(&mut self, id: u64, used: Use, limits: &Limits, now: Instant) -> bool {
        let in_flight = self.in_use();
        let Some(entry) = self.entry(id) else { return false };
        let was_answered = entry.answered;
        let mut failed = entry.give_back(used, now);
        let is_wedged = entry.multiplexes && entry.missed >= limits.wedge_misses_max;
        let answers_now = !was_answered && entry.answered;
        if is_wedged && entry.is_open() {
            failed |= self.discard(id, CloseReason::Wedged, limits, now);
        }
        if answers_now {
            // Not each answer: those on old connections say nothing about new ones.
            self.failures = 0;
            self.quiet_until = None;
        }
        if let Some(elapsed) = used.elapsed {
            let last = if self.usual.is_zero() { elapsed } else { self.usual };
            self.usual = (last * 15 + elapsed) / 16;
            if let Some(gradient) = &mut self.gradient {
                gradient.record(elapsed, in_flight, now);
            }
        }
        failed
    }

    /// A dial failed, or a connection before its first answer: the next dial waits until the time
    /// that is given, if any.
    pub(super) fn fail(
        &mut self,
        kind: FaultKind,
        dice: u64,
        limits: &Limits,
        now: Instant,
    ) -> Option<Instant> {
        let doublings = self.failures.min(20);
        self.failures = self.failures.saturating_add(1);
        self.wanted = 0;
        // A refused client certificate ends each connection before its first answer (TLS 1.3), and
        // dialling on would hammer the push service; a GOAWAY may do so once.
        if kind == FaultKind::Lost && doublings == 0 {
            return None;
        }
        let longest_ms = limits.backoff_ms_max.max(1);
        let pause_ms = limits.backoff_ms_min.saturating_mul(1 << doublings).min(longest_ms);
        let pause_ms = pause_ms - dice % (pause_ms / 2 + 1);
        let until = now + Duration::from_millis(pause_ms);
        self.quiet_until = Some((until, kind));
        Some(until)
    }

    /// How long an answer takes at present.
    pub(super) const fn usual(&self) -> Duration {
        self.usual
    }

    pub(super) fn shut_down(&mut self) {
        self.shut_down = true;
        for entry in &mut self.connections {
            entry.close(CloseReason::Shutdown);
        }
    }

    pub(super) fn status(&self, limits: &Limits) -> PoolStatus {
        PoolStatus {
            connections: self.open().count(),
            draining: self.connections.len() - self.open().count(),
            streams_in_use: self.in_use(),
            streams_allowed: self.open().map(|entry| entry.limit(limits)).sum(),
            waiting: self.queue.len(),
        }
    }

    fn open(&self) -> impl Iterator<Item = &Entry<T>> {
        self.connections.iter().filter(|entry| entry.is_open())
    }

    fn entry(&mut self, id: u64) -> Option<&mut Entry<T>> {
        self.connections.iter_mut().find(|entry| entry.id == id)
    }

    fn in_use(&self) -> usize {
        self.connections.iter().map(|entry| entry.in_use).sum()
    }

    /// Whether the measured latency allows no more requests in flight. Those on connections that
    /// are on their way out do not count: they may hang.
    fn is_at_cap(&self) -> bool {
        let Some(gradient) = &self.gradient else { return false };
        self.open().map(|entry| entry.in_use).sum::<usize>() >= gradient.limit()
    }

    /// The fault of the last dial, while the pause after it runs.
    fn quiet(&self, now: Instant) -> Option<DialFault> {
        let (until, kind) = self.quiet_until?;
        let retry_after = until.saturating_duration_since(now);
        (!retry_after.is_zero()).then_some(DialFault { kind, retry_after })
    }

    /// Why there is nothing to wait for: no stream is there or on its way, and none will be soon.
    /// A connection that was lost before its first answer is no reason to give up, when the next
    /// dial is near: a GOAWAY does that to a push service in its best health.
    fn hopeless(&self, now: Instant) -> Option<DialFault> {
        let fault = self.quiet(now).filter(|_| self.is_cut_off())?;
        let is_near = fault.kind == FaultKind::Lost && fault.retry_after <= LOST_PATIENCE;
        (!is_near).then_some(fault)
    }

    /// Whether no stream is there, or on its way.
    fn is_cut_off(&self) -> bool {
        self.open().next().is_none() && !self.dialling
    }

    /// Under load the replacement of a connection need not wait for the next request.
    fn replace_at_once(&mut self, limits: &Limits, now: Instant) {
        if self.is_cut_off() {
            self.want(1, limits, now);
        }
    }

    /// Closes what is to be replaced once its successor has answered.
    fn release_replaced(&mut self) {
        let proven = |entry: &&Entry<T>| entry.answered || !entry.multiplexes;
        let Some(newest) = self.open().filter(proven).map(|entry| entry.id).max() else { return };
        for entry in &mut self.connections {
            if let Some((successor_from, reason)) = entry.retiring
                && newest >= successor_from
            {
                entry.close(reason);
            }
        }
    }

    fn take(&mut self, limits: &Limits, now: Instant) -> Option<Grant<T>> {
        let successor_from = self.next_id;
        let place = self.pick(limits)?;
        let entry = self.connections.get_mut(place)?;
        let transport = entry.take(now)?;
        if entry.carried >= limits.requests_per_connection_max {
            entry.retire(successor_from, CloseReason::StreamIds);
        }
        Some(Grant { id: entry.id, transport })
    }

    fn put_back(&mut self, id: u64) {
        if let Some(entry) = self.entry(id) {
            entry.in_use = entry.in_use.saturating_sub(1);
        }
    }

    /// The oldest connection below 70 % of its streams, else the least used one with a free stream.
    /// One that is to be replaced, or has unconfirmed resets and may be dead, is no first choice.
    fn pick(&self, limits: &Limits) -> Option<usize> {
        if self.is_at_cap() {
            return None;
        }
        let mut best: Option<(usize, usize, usize)> = None;
        for (place, entry) in self.connections.iter().enumerate() {
            let limit = entry.limit(limits);
            if entry.in_use >= limit {
                continue;
            }
            let is_airy = entry.in_use.saturating_mul(10) < limit.saturating_mul(7);
            if is_airy && entry.resetting == 0 && entry.retiring.is_none() {
                return Some(place);
            }
            let less = best.is_none_or(|(_, in_use, of)| entry.in_use * of < in_use * limit);
            if less {
                best = Some((place, entry.in_use, limit));
            }
        }
        best.map(|(place, _, _)| place)
    }

    /// Whether one more connection is called for: requests wait, or 70 % of all streams are used,
    /// or one is to be replaced, or so many were asked for.
    fn wants_dial(&self, limits: &Limits, now: Instant) -> bool {
        if self.dialling || self.shut_down || self.quiet(now).is_some() {
            return false;
        }
        let (mut open, mut staying, mut in_use, mut allowed) = (0, 0, 0, 0_usize);
        let (mut unproven, mut successor_from) = (false, 0);
        for entry in self.open() {
            open += 1;
            staying += usize::from(entry.retiring.is_none());
            in_use += entry.in_use;
            allowed = allowed.saturating_add(entry.limit(limits));
            unproven |= entry.is_unproven(now, limits);
            successor_from = successor_from.max(entry.retiring.map_or(0, |(from, _)| from));
        }
        let most =
            if self.speaks_http1 { limits.http1_connections_max } else { limits.connections_max };
        if staying >= most || self.connections.len() >= limits.connections_total_max() {
            return false;
        }
        let unreplaced = successor_from > 0 && self.open().all(|entry| entry.id < successor_from);
        if open < self.wanted || unreplaced {
            return true;
        }
        // With a few streams only, 70 % is one request and no sign of load.
        let crowded = allowed >= 4 && in_use * 10 >= allowed.saturating_mul(7);
        // A limit that is still about to rise says nothing about the need: one at a time. And where
        // the latency is the limit, more streams are no help.
        (crowded || !self.queue.is_empty()) && !unproven && !self.is_at_cap()
    }
}

#[cfg(test)]
mod tests;
