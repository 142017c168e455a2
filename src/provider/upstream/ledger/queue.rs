//! The requests that wait for a stream: the highest class first, in each the oldest first.
//!
//! Bounded in number and, by class, in time: whoever would only wait longer than is of use is told
//! so at once, the lowest class first. Alarms wait to their own deadlines.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use tokio::time::Instant;

use super::super::Limits;
use crate::push::Class;

/// A request's place in line: the highest class first, then the oldest ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Turn {
    class: Reverse<Class>,
    ticket: u64,
}

/// Who waits.
#[derive(Clone, Debug)]
pub(super) struct Queue<W> {
    /// By turn, so the head is who goes first and a cancelled request is found at once.
    waiters: BTreeMap<Turn, Waiting<W>>,
}

/// Why a request may not wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crowded {
    /// Too many wait already.
    Full,
    /// The first of its class has waited too long already.
    Slow,
}

#[derive(Clone, Debug)]
struct Waiting<W> {
    since: Instant,
    waiter: W,
}

// === impl Turn ===

impl Turn {
    /// Tickets are given in the order of arrival.
    pub(in super::super) const fn new(class: Class, ticket: u64) -> Self {
        Self { class: Reverse(class), ticket }
    }

    pub(super) const fn class(self) -> Class {
        self.class.0
    }
}

// === impl Queue ===

impl<W> Queue<W> {
    pub(super) const fn new() -> Self {
        Self { waiters: BTreeMap::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiters.len()
    }

    /// Lets a request wait, which `waiter` then makes.
    pub(super) fn join(
        &mut self,
        turn: Turn,
        waiter: impl FnOnce() -> W,
        limits: &Limits,
        now: Instant,
    ) -> Result<(), Crowded> {
        if self.waiters.len() >= turn.class().share_of(limits.waiting_max) {
            return Err(Crowded::Full);
        }
        if self.is_slow_for(turn, limits, now) {
            return Err(Crowded::Slow);
        }
        self.waiters.insert(turn, Waiting { since: now, waiter: waiter() });
        Ok(())
    }

    /// Takes a request out, if it is there still.
    pub(super) fn leave(&mut self, turn: Turn) {
        self.waiters.remove(&turn);
    }

    /// Takes out who goes first.
    pub(super) fn pop(&mut self) -> Option<W> {
        self.waiters.pop_first().map(|(_, waiting)| waiting.waiter)
    }

    #[cfg(test)]
    pub(super) fn turns(&self) -> impl Iterator<Item = &Turn> {
        self.waiters.keys()
    }

    /// Whether the first of its class has waited so long that another behind it would only wait
    /// longer. A replay is exempt: its turn is before the queue's.
    fn is_slow_for(&self, turn: Turn, limits: &Limits, now: Instant) -> bool {
        let first = Turn::new(turn.class(), 0);
        let ahead = self.waiters.range(first..turn).next();
        turn.class() < Class::Alarm
            && ahead.is_some_and(|(_, waiting)| now > waiting.since + limits.waiting())
    }
}
