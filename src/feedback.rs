//! Feedback: what the push services' answers tell us about the next message.
//!
//! In: outcomes, one by one. Out: a hold, that is an outcome given without asking the push service
//! again, or a second look at "gone". A device that is throttled is left alone; a project or
//! credential that is throttled is left alone as a whole; and a sudden mass of dead devices is not
//! believed, because a wrong environment or key looks just like that (docs/privacy.md, promise 5).
//! Bounded memory; everything is forgotten.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::Expiry;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::time::Instant;

use crate::config;
use crate::outcome::{Code, Outcome};

pub mod complaints;

pub mod guard;

use guard::Guard;

/// What was learnt of one credential: an app's lane at a push service.
pub struct Feedback {
    devices: Cache<[u8; 32], Hold>,
    holds: Mutex<Holds>,
    hold_max: Duration,
    guard: Guard,
}

#[derive(Debug, Clone, Copy, Default)]
struct Holds {
    credential: Option<Hold>,
    /// From then on no device is held.
    devices_until: Option<Instant>,
}

/// An outcome that stands until a time.
#[derive(Debug, Clone, Copy)]
struct Hold {
    code: Code,
    until: Instant,
}

/// Whom an outcome tells something about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Device,
    Credential,
    Nobody,
}

// === impl Feedback ===

impl Feedback {
    /// Takes the bounds of the memory.
    pub fn new(config: &config::Feedback) -> Self {
        let devices = Cache::builder()
            .max_capacity(config.device_holds_max)
            .eviction_policy(EvictionPolicy::lru())
            .expire_after(UntilItsTime)
            .build();
        let guard = Guard::new(config);
        Self { devices, holds: Mutex::default(), hold_max: config.hold_max, guard }
    }

    /// Gives the hold that a device or its credential is under, as an outcome.
    pub fn hold(&self, device: &[u8; 32], now: Instant) -> Option<Outcome> {
        let holds = *self.lock();
        let some_are_held = holds.devices_until.is_some_and(|until| now < until);
        let of_device = || some_are_held.then(|| self.devices.get(device)).flatten();
        let held = holds.credential.filter(|hold| now < hold.until);
        let held = held.or_else(|| of_device().filter(|hold| now < hold.until))?;
        Some(Outcome::NotNow { code: held.code, retry_after: held.until - now })
    }

    /// Learns from an outcome, and gives it back as it is to be told: "gone" only if credible.
    pub fn learn(&self, device: &[u8; 32], outcome: Outcome, now: Instant) -> Outcome {
        if let Outcome::NotNow { code, retry_after } = &outcome {
            let hold = Hold { code: *code, until: now + (*retry_after).min(self.hold_max) };
            match scope(*code) {
                Scope::Device => {
                    self.devices.insert(*device, hold);
                    let mut holds = self.lock();
                    holds.devices_until = holds.devices_until.max(Some(hold.until));
                }
                Scope::Credential => self.lock().credential = Some(hold),
                Scope::Nobody => {}
            }
        }
        self.guard.review(outcome, now)
    }

    /// Tells whether "gone" answers are disbelieved at present.
    pub fn is_suspicious(&self) -> bool {
        self.guard.is_suspicious()
    }

    fn lock(&self) -> MutexGuard<'_, Holds> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Apple, Google and the browsers' services name the throttled party in their reasons.
const fn scope(code: Code) -> Scope {
    match code {
        Code::ApnsTooManyRequests | Code::FcmQuotaExceeded | Code::WebpushThrottled => {
            Scope::Device
        }
        Code::FcmProjectQuotaExceeded | Code::FcmOtherThrottle | Code::ApnsOtherThrottle => {
            Scope::Credential
        }
        _ => Scope::Nobody,
    }
}

/// A hold leaves the memory when its time is up.
struct UntilItsTime;

impl Expiry<[u8; 32], Hold> for UntilItsTime {
    fn expire_after_create(
        &self,
        _device: &[u8; 32],
        hold: &Hold,
        _now: std::time::Instant,
    ) -> Option<Duration> {
        Some(hold.until.saturating_duration_since(Instant::now()))
    }

    fn expire_after_update(
        &self,
        _device: &[u8; 32],
        hold: &Hold,
        _now: std::time::Instant,
        _left: Option<Duration>,
    ) -> Option<Duration> {
        Some(hold.until.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feedback() -> Feedback {
        Feedback::new(&config::Feedback {
            hold_max: Duration::from_secs(3600),
            device_holds_max: 10,
            gone_burst_max: 20,
            gone_share_percent_max: 50,
        })
    }

    fn throttled(code: Code) -> Outcome {
        Outcome::NotNow { code, retry_after: Duration::from_secs(60) }
    }

    #[test]
    fn a_throttled_device_is_left_alone_and_the_others_are_not() {
        let feedback = feedback();
        let now = Instant::now();
        feedback.learn(&[1; 32], throttled(Code::ApnsTooManyRequests), now);
        let later = now + Duration::from_secs(20);
        let expected = Outcome::NotNow {
            code: Code::ApnsTooManyRequests,
            retry_after: Duration::from_secs(40),
        };
        assert_eq!(feedback.hold(&[1; 32], later), Some(expected));
        assert_eq!(feedback.hold(&[2; 32], later), None);
        assert_eq!(feedback.hold(&[1; 32], now + Duration::from_secs(60)), None);
    }

    #[test]
    fn a_throttled_project_is_left_alone_as_a_whole() {
        let feedback = feedback();
        let now = Instant::now();
        feedback.learn(&[1; 32], throttled(Code::FcmProjectQuotaExceeded), now);
        assert!(feedback.hold(&[2; 32], now).is_some());
        assert!(feedback.hold(&[2; 32], now + Duration::from_secs(60)).is_none());
    }

    #[test]
    fn an_outage_holds_nobody() {
        let feedback = feedback();
        let now = Instant::now();
        feedback.learn(&[1; 32], throttled(Code::ApnsServiceUnavailable), now);
        assert!(feedback.hold(&[1; 32], now).is_none(), "that is the breaker's business");
    }
}
