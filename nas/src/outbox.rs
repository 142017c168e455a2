//! What is due, and what becomes of it: the state machine of deliveries, over the journal.
//!
//! In: the time, and the outcome of each delivery. Out: the next deliveries: alarms first, then the
//! oldest; of one device and lane never two at once and never an older one after a newer. A
//! delivery is on its way only in memory: after a crash it is due again, under the same id. Sends
//! nothing.

use std::collections::HashMap;

use crate::client::message::{Level, TargetResult};
use crate::content::Content;
use crate::journal::devices::Device;
use crate::journal::{Journal, JournalError};

mod knock;

mod retry;

pub use knock::Knock;

pub use retry::{End, Jitter, Verdict, WAIT_MS_MAX, judge};

/// The deliveries that are on their way.
#[derive(Default)]
pub struct Outbox {
    in_flight: HashMap<Place, u64>,
    expired_ms: u64,
}

/// One content for one device, to be sent now.
#[derive(Clone)]
pub struct Delivery {
    /// What is sent.
    pub content: Content,
    /// To whom, as the journal knows it at this moment.
    pub device: Device,
    /// How grave it is.
    pub level: Level,
    /// Whether the device may make a sound.
    pub sound: bool,
    /// When it stops being worth sending, in milliseconds since 1970.
    pub expires_ms: u64,
    /// How often it was sent before.
    pub attempts: u64,
    pub(crate) lane: String,
}

const EXPIRE_EVERY_MS: u64 = 1000;

/// One device, one lane.
type Place = (i64, String);

// === impl Delivery ===

impl Delivery {
    /// Gives a delivery that is no journal's: sent once, as a test.
    pub fn once(content: Content, device: Device, level: Level, expires_ms: u64) -> Self {
        Self { content, device, level, sound: true, expires_ms, attempts: 0, lane: String::new() }
    }
}

// === impl Outbox ===

impl Outbox {
    /// Gives at most `count_max` deliveries, which are on their way from then on.
    /// Ends those whose time is over.
    pub fn due(
        &mut self,
        journal: &mut Journal,
        now_ms: u64,
        count_max: usize,
    ) -> Result<Vec<Delivery>, JournalError> {
        let on_the_way = |sequence: u64, device: i64| {
            self.in_flight.iter().any(|((other, _), seq)| *other == device && *seq == sequence)
        };
        // What waits is many rows to look through, and no lifetime is shorter than a second.
        let expired = if now_ms.abs_diff(self.expired_ms) >= EXPIRE_EVERY_MS {
            self.expired_ms = now_ms;
            journal.expire(now_ms, on_the_way)
        } else {
            Ok(())
        };
        let mut due = Vec::new();
        let in_flight = &mut self.in_flight;
        journal.each_due(now_ms, |delivery| {
            if due.len() >= count_max {
                return false;
            }
            let place = (delivery.device.id, delivery.lane.clone());
            if let std::collections::hash_map::Entry::Vacant(free) = in_flight.entry(place) {
                free.insert(delivery.content.sequence);
                due.push(delivery);
            }
            true
        })?;
        // On a disk that is full what is due goes out all the same.
        if due.is_empty() {
            expired?;
        }
        Ok(due)
    }

    /// Writes down what became of deliveries; durable when it returns, and all of it or nothing.
    /// Shape: `jitter` is asked once for each.
    /// Errors: the journal's; they are then still on their way and may be settled again.
    pub fn settle(
        &mut self,
        journal: &mut Journal,
        told: &[(Delivery, TargetResult)],
        now_ms: u64,
        jitter: impl Fn() -> Jitter,
    ) -> Result<(), JournalError> {
        let verdict = |delivery: &Delivery, result: &TargetResult| {
            judge(result, delivery.attempts, delivery.device.paired_ms, jitter())
        };
        journal.settle(told, verdict, now_ms)?;
        for (delivery, _) in told {
            self.in_flight.remove(&(delivery.device.id, delivery.lane.clone()));
        }
        Ok(())
    }

    /// Takes a delivery back that never left: it is due as before, and this was no attempt.
    /// Errors: the journal's, which then does not say why it waits.
    pub fn take_back(
        &mut self,
        journal: &mut Journal,
        delivery: &Delivery,
        reason: &str,
    ) -> Result<(), JournalError> {
        self.in_flight.remove(&(delivery.device.id, delivery.lane.clone()));
        journal.explain(delivery, reason)
    }

    /// Gives how many deliveries are on their way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Gives when the next delivery is due that is not on its way, in milliseconds since 1970.
    pub fn next_ms(&self, journal: &Journal, now_ms: u64) -> Result<Option<u64>, JournalError> {
        journal
            .next_ms(now_ms, |device, lane| self.in_flight.contains_key(&(device, lane.to_owned())))
    }
}
