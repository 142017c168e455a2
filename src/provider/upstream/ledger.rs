//! What a pool knows of its connections and its queue, and the two decisions on it: which stream
//! a request gets, and whether to dial. Plain counting: no lock, no task, no I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::counts::FaultKind;
use super::slots::{Control, Slot, Transport};
use super::{DialFault, Limits, PoolStatus};

/// What a waiting request is told.
pub(super) type Grant = Result<Slot, DialFault>;

/// A pause after a lost connection that requests wait through.
const LOST_PATIENCE: Duration = Duration::from_secs(1);

/// The books of one pool.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// In order of age: the pick fills the oldest first, so that surplus ones fall idle.
    pub(super) connections: Vec<Entry>,
    /// By ticket, so the head is the oldest request and a cancelled one is found at once.
    pub(super) waiters: BTreeMap<u64, oneshot::Sender<Grant>>,
    pub(super) next_id: u64,
    pub(super) dialling: bool,
    pub(super) shut_down: bool,
    /// What the last dial negotiated.
    pub(super) speaks_http1: bool,
    pub(super) failures: u32,
    /// No dial before this time, because of that fault.
    pub(super) quiet_until: Option<(Instant, FaultKind)>,
}

/// One connection in the books.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: u64,
    /// None once the connection drains.
    pub(super) transport: Option<Transport>,
    /// False for HTTP/1.1.
    pub(super) multiplexes: bool,
    pub(super) control: Arc<Control>,
    pub(super) peer_limit: usize,
    pub(super) in_use: usize,
    /// Slots of cancelled streams, part of `in_use` until the peer confirms the resets.
    pub(super) resetting: usize,
    pub(super) answered: bool,
    pub(super) opened_at: Instant,
    pub(super) used_at: Instant,
}

// === impl Ledger ===

impl Ledger {
    pub(super) fn open(&self) -> impl Iterator<Item = &Entry> {
        self.connections.iter().filter(|entry| entry.transport.is_some())
    }

    pub(super) fn entry(&mut self, id: u64) -> Option<&mut Entry> {
        self.connections.iter_mut().find(|entry| entry.id == id)
    }

    /// The fault of the last dial, while the pause after it runs.
    pub(super) fn quiet(&self, now: Instant) -> Option<DialFault> {
        let (until, kind) = self.quiet_until?;
        let retry_after = until.saturating_duration_since(now);
        (!retry_after.is_zero()).then_some(DialFault { kind, retry_after })
    }

    /// Why there is nothing to wait for: no stream is there or on its way, and none will be soon.
    /// A connection that was lost before its first answer is no reason to give up, when the next
    /// dial is near: a GOAWAY does that to a push service in its best health.
    pub(super) fn hopeless(&self, now: Instant) -> Option<DialFault> {
        let fault = self.quiet(now).filter(|_| self.is_cut_off())?;
        let is_near = fault.kind == FaultKind::Lost && fault.retry_after <= LOST_PATIENCE;
        (!is_near).then_some(fault)
    }

    /// Whether no stream is there, or on its way.
    pub(super) fn is_cut_off(&self) -> bool {
        self.open().next().is_none() && !self.dialling
    }

    /// Whether a dial without need is right: there is no connection and no reason against one.
    pub(super) fn may_dial_first(&self) -> bool {
        self.is_cut_off() && !self.shut_down && self.quiet(Instant::now()).is_none()
    }

    pub(super) fn admit(&mut self, transport: Transport, peer_limit: usize) -> (u64, Arc<Control>) {
        let id = self.next_id;
        self.next_id += 1;
        let multiplexes = matches!(transport, Transport::Http2(_));
        self.speaks_http1 = !multiplexes;
        let control = Arc::new(Control::default());
        let now = Instant::now();
        let mut entry = Entry {
            id,
            transport: Some(transport),
            multiplexes,
            control: control.clone(),
            peer_limit,
            in_use: 0,
            resetting: 0,
            answered: false,
            opened_at: now,
            used_at: now,
        };
        if self.shut_down {
            entry.close();
        }
        self.connections.push(entry);
        (id, control)
    }

    pub(super) fn status(&self, limits: &Limits) -> PoolStatus {
        PoolStatus {
            connections: self.open().count(),
            draining: self.connections.len() - self.open().count(),
            streams_in_use: self.connections.iter().map(|entry| entry.in_use).sum(),
            streams_allowed: self.open().map(|entry| entry.limit(limits)).sum(),
            waiting: self.waiters.len(),
        }
    }

    /// The oldest connection below 70 % of its streams, else the least used one with a free stream.
    /// One with unconfirmed resets may be dead: it is not among the first choices.
    pub(super) fn pick(&self, limits: &Limits) -> Option<usize> {
        let mut best: Option<(usize, usize, usize)> = None;
        for (place, entry) in self.connections.iter().enumerate() {
            let limit = entry.limit(limits);
            if entry.in_use >= limit {
                continue;
            }
            let is_airy = entry.in_use.saturating_mul(10) < limit.saturating_mul(7);
            if is_airy && entry.resetting == 0 {
                return Some(place);
            }
            let less = best.is_none_or(|(_, in_use, of)| entry.in_use * of < in_use * limit);
            if less {
                best = Some((place, entry.in_use, limit));
            }
        }
        best.map(|(place, _, _)| place)
    }

    /// Whether one more connection is called for: requests wait, or 70 % of all streams are used.
    pub(super) fn wants_dial(&self, limits: &Limits) -> bool {
        if self.dialling || self.shut_down {
            return false;
        }
        let (mut open, mut in_use, mut allowed) = (0, 0, 0_usize);
        let now = Instant::now();
        for entry in self.open() {
            // A limit that is still about to rise says nothing about the need: one at a time.
            if entry.is_unproven(now, limits) {
                return false;
            }
            open += 1;
            in_use += entry.in_use;
            allowed = allowed.saturating_add(entry.limit(limits));
        }
        // With a few streams only, 70 % is one request and no sign of load.
        let crowded = allowed >= 4 && in_use * 10 >= allowed.saturating_mul(7);
        let most =
            if self.speaks_http1 { limits.http1_connections_max } else { limits.connections_max };
        (crowded || !self.waiters.is_empty())
            && open < most
            && self.connections.len() < limits.connections_total_max()
            && self.quiet(now).is_none()
    }
}

// === impl Entry ===

impl Entry {
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

    pub(super) fn close(&mut self) {
        self.transport = None;
        self.control.closing.store(true, Ordering::Release);
        self.control.bell.notify_one();
    }
}
