//! What an outcome means for a delivery: done, or wait so long. Pure.
//!
//! | outcome | then |
//! | --- | --- |
//! | `accepted` | done |
//! | `not_now` | after `retry_after_s` or a quarter later; without one, 5 s doubling to 15 min |
//! | `unknown` | the same id again: 2 s doubling to 5 min |
//! | `misconfigured` | slowly: 15 min doubling to 6 h |
//! | `refused` | never again |
//! | `gone` | never again, unless the device was paired after it was gone: then slowly |

use aws_lc_rs::rand;

use crate::client::message::{Outcome, TargetResult};
use crate::clock;

/// No wait is longer, in milliseconds: a wait that is was set under another clock.
pub const WAIT_MS_MAX: u64 = RETRY_AFTER_MS_MAX + RETRY_AFTER_MS_MAX / 4;

/// Spreads retries: 0 for none, `u16::MAX` for a quarter of the wait more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Jitter(pub u16);

/// What to do with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It ended so.
    Done(End),
    /// It is sent again, in so many milliseconds.
    Wait(u64),
}

/// How a delivery ends by its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The push service took it.
    Accepted,
    /// The device is dead.
    Gone,
    /// The relay will not have it.
    Refused,
}

/// Judges an outcome.
/// Shape: `attempts` were made before this one; `paired_ms` is when the device was paired.
pub fn judge(result: &TargetResult, attempts: u64, paired_ms: u64, jitter: Jitter) -> Verdict {
    let wait =
        |first_ms, last_ms| Verdict::Wait(jitter.later(doubled(first_ms, last_ms, attempts)));
    match result.outcome {
        Outcome::Accepted => Verdict::Done(End::Accepted),
        Outcome::Refused => Verdict::Done(End::Refused),
        Outcome::Gone if paired_since(result, paired_ms) => wait(15 * MINUTE_MS, 6 * HOUR_MS),
        Outcome::Gone => Verdict::Done(End::Gone),
        Outcome::NotNow => match result.retry_after_s {
            Some(after_s) => {
                let after_ms = after_s.max(1).saturating_mul(1000).min(RETRY_AFTER_MS_MAX);
                Verdict::Wait(jitter.later(after_ms))
            }
            None => wait(5_000, 15 * MINUTE_MS),
        },
        Outcome::Unknown => wait(2_000, 5 * MINUTE_MS),
        Outcome::Misconfigured => wait(15 * MINUTE_MS, 6 * HOUR_MS),
    }
}

const MINUTE_MS: u64 = 60_000;
const HOUR_MS: u64 = 60 * MINUTE_MS;
const RETRY_AFTER_MS_MAX: u64 = 24 * HOUR_MS;

/// A word that is no time says nothing against the device, but neither does it speak for it.
fn paired_since(result: &TargetResult, paired_ms: u64) -> bool {
    let since_ms = result.gone_since.as_deref().and_then(clock::parse_rfc3339);
    since_ms.is_some_and(|since_ms| since_ms < paired_ms)
}

pub(super) fn doubled(first_ms: u64, last_ms: u64, attempts: u64) -> u64 {
    let factor = 1u64 << attempts.min(20);
    first_ms.saturating_mul(factor).min(last_ms)
}

// === impl Jitter ===

impl Jitter {
    /// Draws one. A machine without randomness retries without it.
    pub fn random() -> Self {
        let mut bytes = [0; 2];
        match rand::fill(&mut bytes) {
            Ok(()) => Self(u16::from_le_bytes(bytes)),
            Err(_) => Self(0),
        }
    }

    /// Never sooner, since the relay named the soonest time.
    pub(super) fn later(self, wait_ms: u64) -> u64 {
        wait_ms + (wait_ms / 4) * u64::from(self.0) / u64::from(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(outcome: Outcome) -> TargetResult {
        TargetResult { outcome, ..TargetResult::accepted() }
    }

    #[track_caller]
    fn waits(result: &TargetResult, attempts: u64, from_ms: u64, to_ms: u64) {
        let judge = |jitter| judge(result, attempts, 0, Jitter(jitter));
        assert_eq!(judge(0), Verdict::Wait(from_ms));
        assert_eq!(judge(u16::MAX), Verdict::Wait(to_ms));
    }

    #[test]
    fn each_outcome_has_its_wait() {
        let not_now = |retry_after_s| TargetResult {
            retry_after_s: Some(retry_after_s),
            ..result(Outcome::NotNow)
        };
        waits(&not_now(60), 0, 60_000, 75_000);
        waits(&not_now(60), 9, 60_000, 75_000);
        waits(&not_now(0), 0, 1_000, 1_250);
        waits(&not_now(u64::MAX), 0, 86_400_000, WAIT_MS_MAX);
        waits(&result(Outcome::NotNow), 0, 5_000, 6_250);
        waits(&result(Outcome::NotNow), 99, 900_000, 1_125_000);
        waits(&result(Outcome::Unknown), 0, 2_000, 2_500);
        waits(&result(Outcome::Unknown), 3, 16_000, 20_000);
        waits(&result(Outcome::Misconfigured), 0, 900_000, 1_125_000);
        waits(&result(Outcome::Misconfigured), 99, 21_600_000, 27_000_000);
        for (outcome, end) in [
            (Outcome::Accepted, End::Accepted),
            (Outcome::Refused, End::Refused),
            (Outcome::Gone, End::Gone),
        ] {
            assert_eq!(judge(&result(outcome), 0, 0, Jitter(7)), Verdict::Done(end));
        }
    }

    #[test]
    fn a_device_that_was_paired_after_it_was_gone_is_kept() {
        let gone = |since: &str| TargetResult {
            gone_since: Some(since.to_owned()),
            ..result(Outcome::Gone)
        };
        let paired_ms = clock::parse_rfc3339("2026-11-24T10:00:00Z").unwrap();
        let judge = |since: &str| judge(&gone(since), 0, paired_ms, Jitter(0));
        assert_eq!(judge("2026-11-24T09:59:59Z"), Verdict::Wait(900_000));
        assert_eq!(judge("2026-11-24T10:00:00Z"), Verdict::Done(End::Gone));
        assert_eq!(judge("2026-11-24T10:00:01Z"), Verdict::Done(End::Gone));
        assert_eq!(judge("some time ago"), Verdict::Done(End::Gone));
    }
}
