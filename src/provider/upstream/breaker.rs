//! Whether to try at all: a breaker that opens when what it guards keeps failing.
//!
//! Closed, everything passes. It opens after so many failures in a row, or when too many of the
//! last ten seconds' calls fail; open, everything is refused at once but one probe each pause, and
//! a probe is a real message. The pauses double from probe to probe; the first probe that proves
//! life closes it. Failures must span a second, so that one broken connection with all its
//! requests does not open it.
//! Plain counting with the time passed in: no lock, no task. A call that comes to nothing, or is
//! cancelled, need not be told: the next probe comes by the clock.

use std::time::Duration;

use tokio::time::Instant;

/// When a breaker opens, and for how long.
#[derive(Clone, Copy, Debug)]
pub(in crate::provider) struct Policy {
    /// Failures in a row.
    pub(in crate::provider) failures: u32,
    /// Failures of a hundred calls; above 100 none do.
    pub(in crate::provider) failure_percent: u32,
    /// The failures lie at least so far apart.
    pub(in crate::provider) span: Duration,
    /// Pause before the first probe.
    pub(in crate::provider) open_min: Duration,
    /// Longest pause between two probes.
    pub(in crate::provider) open_max: Duration,
}

/// What a call said about what is guarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provider) enum Verdict {
    /// It works.
    Alive,
    /// It does not.
    Failing,
    /// Nothing.
    Nothing,
}

/// Leave to make one call; says in which state of the breaker it was given.
#[derive(Clone, Copy, Debug)]
pub(in crate::provider) struct Pass {
    epoch: u64,
    is_probe: bool,
}

/// What a verdict changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::provider) enum Turn {
    Opened,
    Closed,
}

/// A breaker.
#[derive(Clone, Debug)]
pub(in crate::provider) struct Breaker {
    policy: Policy,
    /// Counts the turns: a call that began before one says nothing after it.
    epoch: u64,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Closed(Tally),
    Open { pause: Duration, probe_at: Instant },
}

/// The calls of a closed breaker.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    row: u32,
    row_since: Option<Instant>,
    /// The half window that runs, and the one before it.
    now: Half,
    before: Half,
}

#[derive(Clone, Copy, Debug, Default)]
struct Half {
    started_at: Option<Instant>,
    calls: u32,
    failures: u32,
    failing_since: Option<Instant>,
}

/// Calls are counted over one to two times this.
const HALF_WINDOW: Duration = Duration::from_secs(5);

/// Fewer calls than this have no ratio.
const WINDOW_CALLS_MIN: u32 = 20;

// === impl Breaker ===

impl Breaker {
    pub(in crate::provider) fn new(policy: Policy) -> Self {
        Self { policy, epoch: 0, state: State::Closed(Tally::default()) }
    }

    /// Lets a call pass, or says after which time to come again.
    pub(in crate::provider) fn admit(&mut self, now: Instant) -> Result<Pass, Duration> {
        let epoch = self.epoch;
        let State::Open { pause, probe_at } = &mut self.state else {
            return Ok(Pass { epoch, is_probe: false });
        };
        let wait = probe_at.saturating_duration_since(now);
        if !wait.is_zero() {
            return Err(wait);
        }
        *pause = pause.saturating_mul(2).min(self.policy.open_max);
        *probe_at = now + *pause;
        Ok(Pass { epoch, is_probe: true })
    }

    /// Takes in what a call said.
    pub(in crate::provider) fn settle(
        &mut self,
        pass: Pass,
        verdict: Verdict,
        now: Instant,
    ) -> Option<Turn> {
        if pass.epoch != self.epoch || verdict == Verdict::Nothing {
            return None;
        }
        let failing = verdict == Verdict::Failing;
        match &mut self.state {
            State::Closed(tally) => {
                tally.count(failing, now);
                if !failing || !tally.is_bad(&self.policy, now) {
                    return None;
                }
                let pause = self.policy.open_min;
                self.turn(State::Open { pause, probe_at: now + pause });
                Some(Turn::Opened)
            }
            State::Open { .. } if failing => None,
            State::Open { .. } => {
                self.turn(State::Closed(Tally::default()));
                Some(Turn::Closed)
            }
        }
    }

    /// Closes it, because what is guarded has changed; true when it was open.
    pub(in crate::provider) fn reset(&mut self) -> bool {
        let was_open = self.is_open();
        self.turn(State::Closed(Tally::default()));
        was_open
    }

    pub(in crate::provider) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    fn turn(&mut self, state: State) {
        self.epoch += 1;
        self.state = state;
    }
}

// === impl Pass ===

impl Pass {
    /// Whether the breaker was open.
    pub(in crate::provider) const fn is_probe(self) -> bool {
        self.is_probe
    }
}

// === impl Tally ===

impl Tally {
    fn count(&mut self, failing: bool, now: Instant) {
        let started_at = *self.now.started_at.get_or_insert(now);
        if now >= started_at + HALF_WINDOW {
            let is_old = now >= started_at + 2 * HALF_WINDOW;
            self.before = if is_old { Half::default() } else { self.now };
            self.now = Half { started_at: Some(now), ..Half::default() };
        }
        self.now.calls = self.now.calls.saturating_add(1);
        if failing {
            self.now.failures = self.now.failures.saturating_add(1);
            self.now.failing_since.get_or_insert(now);
            self.row = self.row.saturating_add(1);
            self.row_since.get_or_insert(now);
        } else {
            self.row = 0;
            self.row_since = None;
        }
    }

    fn is_bad(&self, policy: &Policy, now: Instant) -> bool {
        let spans = |since: Option<Instant>| since.is_some_and(|at| now >= at + policy.span);
        let row = self.row >= policy.failures && spans(self.row_since);
        let calls = u64::from(self.before.calls) + u64::from(self.now.calls);
        let failures = u64::from(self.before.failures) + u64::from(self.now.failures);
        let ratio = calls >= u64::from(WINDOW_CALLS_MIN)
            && failures * 100 >= calls * u64::from(policy.failure_percent)
            && spans(self.before.failing_since.or(self.now.failing_since));
        row || ratio
    }
}

#[cfg(test)]
mod tests;
