//! When to knock at a relay that cannot be reached. Pure.
//!
//! In: whether attempts reached it. Out: how many deliveries may go now. While the relay is away
//! one alone goes, the gravest, after 1 s, doubling to 15 s, up to a quarter later: many a NAS
//! knocks at the same relay. Once one has got through all may go, the gravest first.

use std::time::Duration;

use tokio::time::Instant;

use super::Jitter;

/// Whether the relay is there, as far as is known.
#[derive(Debug, Default)]
pub struct Knock {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// It was reached the last time.
    #[default]
    Open,
    /// It was not; nothing goes before `until`.
    Closed { misses: u32, until: Instant },
    /// One delivery is on its way to see whether it is back.
    Knocking { misses: u32 },
}

const FIRST_MS: u64 = 1_000;
const LAST_MS: u64 = 15_000;

// === impl Knock ===

impl Knock {
    /// Gives how many deliveries may go now, of as many as there is room for.
    pub fn room(&self, room: usize, now: Instant) -> usize {
        match self.state {
            State::Open => room,
            State::Closed { until, .. } if now >= until => room.min(1),
            State::Closed { .. } | State::Knocking { .. } => 0,
        }
    }

    /// Gives how long nothing may go, if that is a matter of time.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Closed { until, .. } => Some(until.saturating_duration_since(now)),
            State::Open | State::Knocking { .. } => None,
        }
    }

    /// Notes that deliveries are on their way.
    pub fn sent(&mut self) {
        if let State::Closed { misses, .. } = self.state {
            self.state = State::Knocking { misses };
        }
    }

    /// Notes that an attempt reached the relay. One that left before says nothing while it waits.
    pub fn reached(&mut self) {
        if let State::Knocking { .. } = self.state {
            self.state = State::Open;
        }
    }

    /// Notes that one did not. Those that left together count as one.
    pub fn missed(&mut self, now: Instant, jitter: Jitter) {
        let misses = match self.state {
            State::Open => 0,
            State::Knocking { misses } => misses + 1,
            State::Closed { .. } => return,
        };
        let wait_ms = jitter.later(super::retry::doubled(FIRST_MS, LAST_MS, u64::from(misses)));
        self.state = State::Closed { misses, until: now + Duration::from_millis(wait_ms) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLY: Jitter = Jitter(0);

    #[tokio::test]
    async fn one_alone_knocks_ever_more_seldom_until_it_gets_through() {
        let mut knock = Knock::default();
        let mut now = Instant::now();
        assert_eq!((knock.room(32, now), knock.wait(now)), (32, None));
        for wait_ms in [1_000, 2_000, 4_000, 8_000, 15_000, 15_000] {
            knock.missed(now, EARLY);
            // The others that left with it.
            knock.missed(now, EARLY);
            knock.reached();
            assert_eq!(knock.wait(now), Some(Duration::from_millis(wait_ms)));
            now += Duration::from_millis(wait_ms - 1);
            assert_eq!(knock.room(32, now), 0);
            now += Duration::from_millis(1);
            assert_eq!((knock.room(32, now), knock.room(0, now)), (1, 0));
            knock.sent();
            assert_eq!((knock.room(32, now), knock.wait(now)), (0, None));
        }
        knock.reached();
        assert_eq!(knock.room(32, now), 32);
        knock.missed(now, Jitter(u16::MAX));
        assert_eq!(knock.wait(now), Some(Duration::from_millis(1_250)), "it begins anew");
    }
}
