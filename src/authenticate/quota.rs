//! Pressure: who may send how much, and who is turned away first when it is too much.
//!
//! In: a verified sender or a device, and a message's [`Class`]. Out: a [`Permit`], given back on
//! drop, or the outcome with the time to wait. Rates are GCRA: one arrival time for each key. The
//! keyed state is bounded, and keys long idle are forgotten first. Nothing here waits.
//! Source: ITU-T I.371 Annex A (GCRA); `RateLimit` as in draft-ietf-httpapi-ratelimit-headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

use crate::config::{self, Limits, RatePair};
use crate::outcome::{Code, Outcome};
use crate::push::Class;

/// A sender that met a full relay comes back after this.
const CROWDED_WAIT: Duration = Duration::from_secs(2);

/// Lets messages in, class by class.
pub struct Quota {
    started: Instant,
    everybody: Pair<AtomicU64>,
    sender: Pair<Cache<[u8; 32], Arc<AtomicU64>>>,
    device: Pair<Cache<[u8; 32], Arc<AtomicU64>>>,
    proofs: (Rate, AtomicU64),
    proofs_of: (Rate, Cache<[u8; 32], Arc<AtomicU64>>),
    in_flight: AtomicUsize,
    in_flight_max: usize,
}

/// The right to be in work; dropping it makes room.
pub struct Permit<'a> {
    quota: &'a Quota,
}

/// What a sender may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Messages that may be sent at once.
    pub remaining: u64,
    /// Until the whole budget is there again.
    pub reset: Duration,
}

/// A rate as GCRA counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    interval_ns: u64,
    burst: u64,
}

/// The two rate classes with their state: alarms have one that nothing else can use up.
struct Pair<S> {
    ordinary: (Rate, S),
    alarm: (Rate, S),
}

// === impl Quota ===

impl Quota {
    /// Takes the limits from the configuration.
    pub fn new(limits: &Limits, pairing: &config::Pairing) -> Self {
        let memory = || Cache::new(limits.keys_max);
        let keyed = |rates: &RatePair| Pair::new(rates, memory);
        let per_minute = pairing.proofs_per_minute;
        let proofs = Rate::new(config::Rate { per_minute, burst: per_minute });
        let per_address = Rate::per_hour(pairing.proofs_per_address_per_hour);
        Self {
            started: Instant::now(),
            everybody: Pair::new(&limits.everybody, AtomicU64::default),
            sender: keyed(&limits.sender),
            device: keyed(&limits.device),
            proofs: (proofs, AtomicU64::default()),
            proofs_of: (per_address, memory()),
            in_flight: AtomicUsize::new(0),
            in_flight_max: limits.messages_in_flight_max,
        }
    }

    /// Lets a sender's message into the relay and charges for it.
    /// Errors: `overloaded` when its class has no room left, or everybody together sends too fast;
    /// `sender_rate_exceeded`.
    pub fn enter(
        &self,
        class: Class,
        sender: &[u8; 32],
        now: Instant,
    ) -> Result<(Permit<'_>, Budget), Outcome> {
        let permit = Permit { quota: self };
        let in_flight = self.in_flight.fetch_add(1, Ordering::Relaxed);
        if in_flight >= class.share_of(self.in_flight_max) {
            return Err(not_now(Code::Overloaded, CROWDED_WAIT));
        }
        // The sender first: what it sends beyond its own rate costs the others nothing.
        let now_ns = self.ns_at(now);
        let charged = charge(&self.sender, class, sender, now_ns);
        let budget = charged.map_err(|wait| not_now(Code::SenderRateExceeded, wait))?;
        let (rate, arrival) = self.everybody.of(class);
        match rate.decide(arrival, now_ns) {
            Ok(_) => Ok((permit, budget)),
            Err(wait) => Err(not_now(Code::Overloaded, wait)),
        }
    }

    /// Charges a device for a message.
    /// Errors: `device_rate_exceeded`.
    pub fn charge_device(
        &self,
        class: Class,
        device: &[u8; 32],
        now: Instant,
    ) -> Result<Budget, Outcome> {
        let charged = charge(&self.device, class, device, self.ns_at(now));
        charged.map_err(|wait| not_now(Code::DeviceRateExceeded, wait))
    }

    /// Charges an address for a mail that brings a new handle: anybody may ask for one.
    /// Errors: `device_rate_exceeded`; `overloaded` when too many are asked for altogether.
    pub fn charge_proof(&self, address: &[u8; 32], now: Instant) -> Result<(), Outcome> {
        let now_ns = self.ns_at(now);
        let (rate, arrivals) = &self.proofs_of;
        let charged = rate.decide(&arrival_of(arrivals, address), now_ns);
        charged.map_err(|wait| not_now(Code::DeviceRateExceeded, wait))?;
        let (rate, arrival) = &self.proofs;
        let charged = rate.decide(arrival, now_ns);
        charged.map(|_| ()).map_err(|wait| not_now(Code::Overloaded, wait))
    }

    fn ns_at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

fn charge(
    keyed: &Pair<Cache<[u8; 32], Arc<AtomicU64>>>,
    class: Class,
    key: &[u8; 32],
    now_ns: u64,
) -> Result<Budget, Duration> {
    let (rate, arrivals) = keyed.of(class);
    rate.decide(&arrival_of(arrivals, key), now_ns)
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.quota.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Pair ===

impl<S> Pair<S> {
    fn new(rates: &RatePair, state: impl Fn() -> S) -> Self {
        Self {
            ordinary: (Rate::new(rates.ordinary), state()),
            alarm: (Rate::new(rates.alarm), state()),
        }
    }

    fn of(&self, class: Class) -> (Rate, &S) {
        let (rate, state) = match class {
            Class::Low | Class::Ordinary => &self.ordinary,
            Class::Alarm => &self.alarm,
        };
        (*rate, state)
    }
}

// === impl Rate ===

impl Rate {
    fn new(rate: config::Rate) -> Self {
        // Both are at least 1, or the configuration had not been read.
        Self { interval_ns: 60_000_000_000 / rate.per_minute.max(1), burst: rate.burst.max(1) }
    }

    fn per_hour(per_hour: u64) -> Self {
        let per_hour = per_hour.max(1);
        Self { interval_ns: 3_600_000_000_000 / per_hour, burst: per_hour }
    }

    /// Counts one message, or says how long until one may come.
    /// Shape: `arrival` is the theoretical arrival time; times are nanoseconds on one clock.
    /// Source: ITU-T I.371 Annex A, virtual scheduling.
    fn decide(self, arrival: &AtomicU64, now_ns: u64) -> Result<Budget, Duration> {
        let depth_ns = self.interval_ns.saturating_mul(self.burst);
        let mut seen = arrival.load(Ordering::Relaxed);
        loop {
            let next = seen.max(now_ns).saturating_add(self.interval_ns);
            let used_ns = next - now_ns;
            if used_ns > depth_ns {
                return Err(Duration::from_nanos(used_ns - depth_ns));
            }
            match arrival.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    let remaining = (depth_ns - used_ns) / self.interval_ns.max(1);
                    return Ok(Budget { remaining, reset: Duration::from_nanos(used_ns) });
                }
                Err(other) => seen = other,
            }
        }
    }
}

/// Gives the arrival time of a key, a new one for a key that is not known or forgotten.
fn arrival_of(arrivals: &Cache<[u8; 32], Arc<AtomicU64>>, key: &[u8; 32]) -> Arc<AtomicU64> {
    let new = || Ok::<_, std::convert::Infallible>(Arc::default());
    arrivals.get_or_insert_with(key, new).unwrap_or_default()
}

const fn not_now(code: Code, retry_after: Duration) -> Outcome {
    Outcome::NotNow { code, retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND_NS: u64 = 1_000_000_000;

    fn per_minute(per_minute: u64, burst: u64) -> config::Rate {
        config::Rate { per_minute, burst }
    }

    fn limits() -> Limits {
        let pair = |ordinary, alarm| RatePair { ordinary, alarm };
        let wide = per_minute(1_000_000, 1_000_000);
        Limits {
            messages_in_flight_max: 20,
            everybody: pair(wide, wide),
            sender: pair(per_minute(60, 3), per_minute(60, 2)),
            device: pair(wide, wide),
            keys_max: 100,
        }
    }

    fn pairing() -> config::Pairing {
        config::Pairing {
            handle_lifetime: Duration::from_secs(1),
            proofs_per_address_per_hour: 2,
            proofs_per_minute: 3,
        }
    }

    /// A sender that has not sent yet.
    fn stranger() -> [u8; 32] {
        let mut key = [0; 32];
        key[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        key
    }

    #[test]
    fn a_burst_passes_and_then_the_sustained_rate() {
        let rate = Rate::new(per_minute(60, 3));
        let arrival = AtomicU64::new(0);
        let at = |now_ns| rate.decide(&arrival, now_ns).map(|budget| budget.remaining);
        assert_eq!([at(0), at(0), at(0)], [Ok(2), Ok(1), Ok(0)]);
        assert_eq!(at(0), Err(Duration::from_secs(1)));
        assert_eq!(at(SECOND_NS - 1), Err(Duration::from_nanos(1)));
        assert_eq!(at(SECOND_NS), Ok(0));
        assert_eq!(at(100 * SECOND_NS), Ok(2), "idle time fills the burst and no more");
    }

    #[test]
    fn whoever_obeys_the_wait_is_let_in() {
        let rate = Rate::new(per_minute(7, 2));
        let arrival = AtomicU64::new(0);
        let mut now_ns = 0;
        for _ in 0..50 {
            match rate.decide(&arrival, now_ns) {
                Ok(_) => {}
                Err(wait) => {
                    now_ns += u64::try_from(wait.as_nanos()).unwrap();
                    assert!(rate.decide(&arrival, now_ns).is_ok());
                }
            }
        }
    }

    #[tokio::test]
    async fn ordinary_messages_cannot_use_up_the_alarms_of_a_sender() {
        let quota = Quota::new(&limits(), &pairing());
        let sender = [1; 32];
        let charge = |class| quota.enter(class, &sender, Instant::now()).is_ok();
        assert_eq!([0; 4].map(|_| charge(Class::Ordinary)), [true, true, true, false]);
        assert!(!charge(Class::Low));
        assert_eq!([0; 3].map(|_| charge(Class::Alarm)), [true, true, false]);
        assert!(
            quota.enter(Class::Ordinary, &[2; 32], Instant::now()).is_ok(),
            "others are not touched"
        );
    }

    #[tokio::test]
    async fn the_lowest_class_is_turned_away_first_and_room_comes_back() {
        let quota = Quota::new(&limits(), &pairing());
        let fill = |class, permits: &mut Vec<_>| {
            while let Ok((permit, _)) = quota.enter(class, &stranger(), Instant::now()) {
                permits.push(permit);
            }
        };
        let mut permits = Vec::new();
        fill(Class::Low, &mut permits);
        assert_eq!(permits.len(), 12);
        fill(Class::Ordinary, &mut permits);
        assert_eq!(permits.len(), 17);
        fill(Class::Alarm, &mut permits);
        assert_eq!(permits.len(), 20);
        permits.clear();
        assert!(quota.enter(Class::Low, &stranger(), Instant::now()).is_ok());
    }

    /// One sender sends a hundred, of which its own rate lets three through; then the others come.
    #[tokio::test]
    async fn what_a_sender_sends_beyond_its_rate_costs_the_others_nothing() {
        let everybody = RatePair { ordinary: per_minute(60, 5), alarm: per_minute(60, 5) };
        let quota = Quota::new(&Limits { everybody, ..limits() }, &pairing());
        let passed = (0..100)
            .filter(|_| quota.enter(Class::Ordinary, &[1; 32], Instant::now()).is_ok())
            .count();
        assert_eq!(passed, 3);
        assert!(quota.enter(Class::Ordinary, &[2; 32], Instant::now()).is_ok());
        assert!(quota.enter(Class::Ordinary, &[2; 32], Instant::now()).is_ok());
        assert!(
            quota.enter(Class::Ordinary, &[2; 32], Instant::now()).is_err(),
            "five is what all may send"
        );
    }

    #[tokio::test]
    async fn nobody_is_sent_more_than_a_few_mails_that_others_asked_for() {
        let quota = Quota::new(&limits(), &pairing());
        let ask = |address| {
            quota.charge_proof(&[address; 32], Instant::now()).map_err(|outcome| outcome.code())
        };
        assert_eq!([ask(1), ask(1)], [Ok(()), Ok(())]);
        assert_eq!(ask(1), Err(Code::DeviceRateExceeded));
        assert_eq!(ask(2), Ok(()));
        assert_eq!(ask(3), Err(Code::Overloaded), "three a minute are all that there are");
    }

    #[tokio::test]
    async fn the_memory_of_senders_is_bounded() {
        let quota = Quota::new(&limits(), &pairing());
        for _ in 0..10_000 {
            let _ = quota.enter(Class::Ordinary, &stranger(), Instant::now());
        }
        assert!(quota.sender.ordinary.1.len() <= 100);
    }
}
