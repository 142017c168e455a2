//! A breaker that many tasks share, and that is counted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::breaker::{Breaker, Pass, Policy, Turn, Verdict};
use super::counts::{BreakerEvent, BreakerMetrics};

/// Stands before what may fail.
#[derive(Debug)]
pub(in crate::provider) struct Gate {
    breaker: Mutex<Breaker>,
    metrics: Arc<BreakerMetrics>,
}

// === impl Gate ===

impl Gate {
    pub(in crate::provider) fn new(policy: Policy, metrics: Arc<BreakerMetrics>) -> Self {
        Self { breaker: Mutex::new(Breaker::new(policy)), metrics }
    }

    /// Lets a call pass, or says after which time to come again.
    pub(in crate::provider) fn enter(&self) -> Result<Pass, Duration> {
        let entered = self.with(|breaker| breaker.admit(Instant::now()));
        match &entered {
            Ok(pass) if pass.is_probe() => self.metrics.events.count(BreakerEvent::Probed),
            Ok(_) => {}
            Err(_) => self.metrics.events.count(BreakerEvent::Refused),
        }
        entered
    }

    /// Takes in what a call said.
    pub(in crate::provider) fn leave(&self, pass: Pass, verdict: Verdict) {
        match self.with(|breaker| breaker.settle(pass, verdict, Instant::now())) {
            Some(Turn::Opened) => {
                self.metrics.open.inc();
                self.metrics.events.count(BreakerEvent::Opened);
            }
            Some(Turn::Closed) => self.closed(),
            None => {}
        }
    }

    /// Closes it, because what is guarded has changed.
    pub(in crate::provider) fn reset(&self) {
        if self.with(Breaker::reset) {
            self.closed();
        }
    }

    fn closed(&self) {
        self.metrics.open.dec();
        self.metrics.events.count(BreakerEvent::Closed);
    }

    fn with<R>(&self, work: impl FnOnce(&mut Breaker) -> R) -> R {
        work(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if self.with(|breaker| breaker.is_open()) {
            self.metrics.open.dec();
        }
    }
}
