//! One connection in the books: its limit, its slots, and the signs of age and death.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::super::Limits;
use super::super::counts::CloseReason;

/// A connection.
#[derive(Clone, Debug)]
pub(in super::super) struct Entry<T> {
    pub(super) id: u64,
    /// None once the connection takes no more requests.
    transport: Option<T>,
    /// False for HTTP/1.1.
    pub(super) multiplexes: bool,
    control: Arc<Control>,
    pub(super) peer_limit: usize,
    pub(super) in_use: usize,
    /// Slots of cancelled streams, part of `in_use` until the peer confirms the resets.
    pub(super) resetting: usize,
    pub(super) answered: bool,
    opened_at: Instant,
    used_at: Instant,
    pub(super) expires_at: Instant,
    /// Slots given in all.
    pub(super) carried: u64,
    /// When the peer last ended a stream, or when requests began to wait after none had.
    silent_since: Instant,
    /// Patient requests in a row that missed their deadlines.
    pub(super) missed: u32,
    pub(super) doubted_at: Option<Instant>,
    /// It serves until a connection with this number or a later one has answered.
    pub(super) retiring: Option<(u64, CloseReason)>,
}

/// What the pool tells the task of a connection.
#[derive(Debug, Default)]
pub(in super::super) struct Control {
    /// Rung after `closing` was set or a slot was dropped with its stream open.
    pub(in super::super) bell: Notify,
    closing: OnceLock<CloseReason>,
}

/// What a slot was used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Use {
    pub(in super::super) fate: Fate,
    /// How long the answer took.
    pub(in super::super) elapsed: Option<Duration>,
    /// A patient request missed its deadline.
    pub(in super::super) missed: bool,
}

/// How the stream of a slot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fate {
    /// No stream was opened.
    Unused,
    /// The stream is open; dropping the slot means that it is being reset.
    Open { answered: bool },
    /// The stream is closed on the wire.
    Closed { answered: bool },
    /// The slot was taken back already.
    Void,
}

// === impl Entry ===

impl<T: Clone> Entry<T> {
    pub(super) fn new(
        id: u64,
        transport: T,
        multiplexes: bool,
        peer_limit: usize,
        expires_at: Instant,
        now: Instant,
    ) -> Self {
        Self {
            id,
            transport: Some(transport),
            multiplexes,
            control: Arc::new(Control::default()),
            peer_limit,
            in_use: 0,
            resetting: 0,
            answered: false,
            opened_at: now,
            used_at: now,
            expires_at,
            carried: 0,
            silent_since: now,
            missed: 0,
            doubted_at: None,
            retiring: None,
        }
    }

    pub(super) fn control(&self) -> Arc<Control> {
        self.control.clone()
    }

    pub(super) const fn is_open(&self) -> bool {
        self.transport.is_some()
    }

    /// Streams that may be in use; none once the connection drains.
    pub(super) fn limit(&self, limits: &Limits) -> usize {
        match self.transport {
            None => 0,
            Some(_) if self.answered => self.peer_limit.min(limits.streams_per_connection_max),
            Some(_) => {
                self.peer_limit.min(limits.start_streams).min(limits.streams_per_connection_max)
            }
        }
    }

    pub(super) fn is_unproven(&self, now: Instant, limits: &Limits) -> bool {
        !self.answered && self.multiplexes && now < self.opened_at + limits.connect()
    }

    pub(super) fn is_idle(&self, limits: &Limits, now: Instant) -> bool {
        self.in_use == 0 && now >= self.used_at + self.idle(limits)
    }

    /// Requests wait, and nothing is answered. HTTP/1.1 has one request, whose deadline decides.
    pub(super) fn is_wedged(&self, limits: &Limits, now: Instant) -> bool {
        self.multiplexes
            && self.in_use > self.resetting
            && now >= self.silent_since + limits.wedge()
    }

    /// When something can have become true of it.
    pub(super) fn review_at(&self, limits: &Limits, now: Instant) -> Instant {
        let idle = self.idle(limits);
        let idle_at = if self.in_use == 0 { self.used_at + idle } else { now + idle };
        let wedge = limits.wedge();
        let wedged_at = if self.in_use == 0 { now + wedge } else { self.silent_since + wedge };
        // Only the slots of reset streams are in use: their PONG is watched elsewhere.
        let wedged_at = if wedged_at <= now { now + wedge } else { wedged_at };
        // An old HTTP/1.1 connection closes after its request, or by idling.
        let ages = self.multiplexes && self.retiring.is_none();
        let old_at = if ages { self.expires_at } else { idle_at };
        idle_at.min(wedged_at).min(old_at)
    }

    fn idle(&self, limits: &Limits) -> Duration {
        if self.multiplexes { limits.idle() } else { Duration::from_secs(limits.http1_idle_s) }
    }

    /// Gives one slot; none once the connection drains.
    pub(super) fn take(&mut self, now: Instant) -> Option<T> {
        let transport = self.transport.clone()?;
        if self.in_use == self.resetting {
            self.silent_since = now;
        }
        self.in_use += 1;
        self.carried += 1;
        Some(transport)
    }

    /// Takes a slot back; true when the connection has failed by it.
    pub(super) fn give_back(&mut self, used: Use, now: Instant) -> bool {
        self.used_at = now;
        let mut failed = false;
        match used.fate {
            Fate::Open { answered } if self.multiplexes => {
                self.answered |= answered;
                self.resetting += 1;
                self.control.bell.notify_one();
            }
            Fate::Open { answered } => {
                // HTTP/1.1 cancels a request by closing the connection.
                self.answered |= answered;
                self.in_use = self.in_use.saturating_sub(1);
                failed = self.is_open() && !self.answered;
                self.close(CloseReason::Cancelled);
            }
            Fate::Closed { answered } => {
                self.answered |= answered;
                self.in_use = self.in_use.saturating_sub(1);
            }
            Fate::Unused | Fate::Void => self.in_use = self.in_use.saturating_sub(1),
        }
        if matches!(used.fate, Fate::Closed { .. } | Fate::Open { answered: true }) {
            self.silent_since = now;
            self.missed = 0;
        } else if used.missed {
            self.missed = self.missed.saturating_add(1);
        }
        if !self.multiplexes && now >= self.expires_at {
            self.close(CloseReason::Age);
        }
        failed
    }

    /// Lets no more requests in; true when it did until now.
    pub(super) fn stop(&mut self) -> bool {
        self.transport.take().is_some()
    }

    /// Lets no more requests in, and ends when those it has are done.
    pub(super) fn close(&mut self, reason: CloseReason) {
        self.transport = None;
        self.control.close(reason);
    }

    /// Serves until it is replaced by one that has this number or a later one.
    pub(super) fn retire(&mut self, successor_from: u64, reason: CloseReason) {
        if self.multiplexes && self.retiring.is_none() {
            self.retiring = Some((successor_from, reason));
        }
    }
}

// === impl Control ===

impl Control {
    /// Why the connection is to end.
    pub(in super::super) fn closing(&self) -> Option<CloseReason> {
        self.closing.get().copied()
    }

    fn close(&self, reason: CloseReason) {
        // The first reason stands.
        let _ = self.closing.set(reason);
        self.bell.notify_one();
    }
}

// === impl Use ===

impl Use {
    /// Says how a stream ended, and nothing more.
    pub(in super::super) const fn of(fate: Fate) -> Self {
        Self { fate, elapsed: None, missed: false }
    }
}
