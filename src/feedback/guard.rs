//! The mass-gone guard: "gone" is told only while the credential that it came by is seen to work.
//!
//! A wrong environment or key makes good devices look dead, all of them at once. So:
//! - Apple's `BadDeviceToken`, which tokens of the other environment earn, is believed only where
//!   the same credential had a message accepted within the window;
//! - no "gone" is believed while more than an ordinary share of the window's answers are "gone".
//!
//! What is not believed becomes `mass_gone_suspected`, the operator's to look at; the sender keeps
//! its device and tries again much later. Pure but for its lock: the time is passed in.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config;
use crate::outcome::{Code, Outcome};

/// What is looked at: the last ten minutes, in parts.
const PART: Duration = Duration::from_secs(60);
const PARTS: usize = 10;

/// Watches one credential's answers.
pub struct Guard {
    burst_max: u32,
    share_percent_max: u32,
    window: Mutex<Window>,
    suspicious: AtomicBool,
}

#[derive(Default)]
struct Window {
    parts: [Part; PARTS],
    /// The part that is being counted, and when it ends.
    current: usize,
    ends: Option<Instant>,
}

#[derive(Clone, Copy, Default)]
struct Part {
    accepted: u32,
    gone: u32,
}

// === impl Guard ===

impl Guard {
    /// Takes what is ordinary from the configuration.
    pub fn new(config: &config::Feedback) -> Self {
        Self {
            burst_max: config.gone_burst_max,
            share_percent_max: config.gone_share_percent_max,
            window: Mutex::default(),
            suspicious: AtomicBool::new(false),
        }
    }

    /// Counts an outcome, and turns a "gone" that is not credible into `mass_gone_suspected`.
    pub fn review(&self, outcome: Outcome, now: Instant) -> Outcome {
        let code = outcome.code();
        let is_gone = match outcome {
            Outcome::Accepted { .. } => false,
            Outcome::Gone { .. } => true,
            _ => return outcome,
        };
        let seen = {
            let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
            window.count(is_gone, now)
        };
        let share = u64::from(seen.gone) * 100 / u64::from(seen.gone + seen.accepted).max(1);
        let massive = seen.gone > self.burst_max && share > u64::from(self.share_percent_max);
        self.suspicious.store(massive, Ordering::Relaxed);
        if is_gone && (massive || (needs_proof(code) && seen.accepted == 0)) {
            return Outcome::Misconfigured { code: Code::MassGoneSuspected };
        }
        outcome
    }

    /// Tells whether the last look found a mass.
    pub fn is_suspicious(&self) -> bool {
        self.suspicious.load(Ordering::Relaxed)
    }
}

/// Apple says so of every token of the other environment; its 410s it says of dead tokens alone.
const fn needs_proof(code: Code) -> bool {
    matches!(code, Code::ApnsBadDeviceToken)
}

// === impl Window ===

impl Window {
    fn count(&mut self, is_gone: bool, now: Instant) -> Part {
        let mut ends = *self.ends.get_or_insert(now + PART);
        let mut steps = 0;
        while ends <= now && steps < PARTS {
            self.current = (self.current + 1) % PARTS;
            self.parts[self.current] = Part::default();
            ends += PART;
            steps += 1;
        }
        self.ends = Some(if ends <= now { now + PART } else { ends });
        let part = &mut self.parts[self.current];
        let counter = if is_gone { &mut part.gone } else { &mut part.accepted };
        *counter = counter.saturating_add(1);
        let sum = |of: fn(&Part) -> u32| self.parts.iter().map(of).fold(0, u32::saturating_add);
        Part { accepted: sum(|part| part.accepted), gone: sum(|part| part.gone) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard::new(&config::Feedback {
            hold_max: Duration::from_secs(3600),
            device_holds_max: 10,
            gone_burst_max: 20,
            gone_share_percent_max: 50,
        })
    }

    fn accepted() -> Outcome {
        Outcome::Accepted { provider_message_id: None }
    }

    fn gone(code: Code) -> Outcome {
        Outcome::Gone { code, since_unix_ms: None }
    }

    fn told(guard: &Guard, code: Code, now: Instant) -> Code {
        guard.review(gone(code), now).code()
    }

    #[test]
    fn a_single_dead_device_is_told_at_once() {
        let guard = guard();
        let now = Instant::now();
        assert_eq!(told(&guard, Code::ApnsUnregistered, now), Code::ApnsUnregistered);
        assert!(!guard.is_suspicious());
    }

    #[test]
    fn a_wrong_environment_never_reports_a_device_gone() {
        let guard = guard();
        let now = Instant::now();
        for _ in 0..1000 {
            assert_eq!(told(&guard, Code::ApnsBadDeviceToken, now), Code::MassGoneSuspected);
        }
        assert!(guard.is_suspicious());
    }

    #[test]
    fn a_bad_token_beside_working_ones_is_gone() {
        let guard = guard();
        let now = Instant::now();
        guard.review(accepted(), now);
        assert_eq!(told(&guard, Code::ApnsBadDeviceToken, now), Code::ApnsBadDeviceToken);
    }

    #[test]
    fn a_mass_is_disbelieved_until_ordinary_answers_are_back() {
        let guard = guard();
        let now = Instant::now();
        (0..10).for_each(|_| drop(guard.review(accepted(), now)));
        for _ in 0..20 {
            assert_eq!(told(&guard, Code::FcmUnregistered, now), Code::FcmUnregistered);
        }
        assert_eq!(told(&guard, Code::FcmUnregistered, now), Code::MassGoneSuspected);
        assert!(guard.is_suspicious());
        (0..30).for_each(|_| drop(guard.review(accepted(), now)));
        assert!(!guard.is_suspicious());
        assert_eq!(told(&guard, Code::FcmUnregistered, now), Code::FcmUnregistered);
    }

    #[test]
    fn what_is_older_than_the_window_is_forgotten() {
        let guard = guard();
        let now = Instant::now();
        (0..30).for_each(|_| drop(guard.review(gone(Code::FcmUnregistered), now)));
        let later = now + PART * 9;
        assert_eq!(told(&guard, Code::FcmUnregistered, later), Code::MassGoneSuspected);
        let much_later = now + PART * 25;
        assert_eq!(told(&guard, Code::FcmUnregistered, much_later), Code::FcmUnregistered);
    }

    #[test]
    fn other_outcomes_pass_as_they_are() {
        let outcome = Outcome::Unknown { code: Code::NoAnswer };
        assert_eq!(guard().review(outcome.clone(), Instant::now()), outcome);
    }
}
