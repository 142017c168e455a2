//! How many requests may be in flight, learnt from the latency.
//!
//! In: the time of each answer and how many were in flight then. Out: a limit between a floor and a
//! ceiling. It is the algorithm Gradient2 of Netflix's `concurrency-limits` (`Gradient2Limit.java`)
//! with its constants: a short average is held against a long one; while the short one is no more
//! than half as long again, the limit grows by a few, else it shrinks in proportion.
//! It starts at the ceiling, and a limit that is not even half used is left alone: at a steady
//! latency nothing is ever held back.

use std::time::Duration;

use tokio::time::Instant;

/// How much slower than the long average the short one may be.
const TOLERANCE: f64 = 1.5;

/// Requests by which the limit grows while the latency holds.
const HEADROOM: f64 = 4.0;

/// The part of the new limit in the smoothed one.
const SMOOTHING: f64 = 0.2;

/// Windows that the long average spans, and its first ones, which are averaged evenly.
const LONG_WINDOWS: f64 = 600.0;
const WARMUP_WINDOWS: f64 = 10.0;

/// A window ends after this time, but not before it has this many answers.
const WINDOW: Duration = Duration::from_secs(1);
const WINDOW_ANSWERS_MIN: u32 = 10;

/// The limit and what it is learnt from.
#[derive(Clone, Debug)]
pub(super) struct Gradient {
    floor: f64,
    ceiling: f64,
    limit: f64,
    long_ms: f64,
    windows: f64,
    window: Window,
}

#[derive(Clone, Debug, Default)]
struct Window {
    started_at: Option<Instant>,
    sum_ms: f64,
    answers: u32,
    in_flight_max: usize,
}

// === impl Gradient ===

impl Gradient {
    #[expect(clippy::cast_precision_loss, reason = "counts of requests are small")]
    pub(super) fn new(floor: usize, ceiling: usize) -> Self {
        let floor = floor.clamp(1, ceiling.max(1)) as f64;
        let ceiling = ceiling.max(1) as f64;
        let window = Window::default();
        Self { floor, ceiling, limit: ceiling, long_ms: 0.0, windows: 0.0, window }
    }

    /// Requests that may be in flight.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it lies between the floor and the ceiling"
    )]
    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Takes in one answer: how long it took, and how many requests were in flight then.
    pub(super) fn record(&mut self, elapsed: Duration, in_flight: usize, now: Instant) {
        let window = &mut self.window;
        let started_at = *window.started_at.get_or_insert(now);
        window.sum_ms += elapsed.as_secs_f64() * 1_000.0;
        window.answers += 1;
        window.in_flight_max = window.in_flight_max.max(in_flight);
        if now < started_at + WINDOW || window.answers < WINDOW_ANSWERS_MIN {
            return;
        }
        let window = std::mem::take(window);
        self.learn(window.sum_ms / f64::from(window.answers), window.in_flight_max);
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of requests are small")]
    fn learn(&mut self, short_ms: f64, in_flight: usize) {
        self.windows += 1.0;
        let share = if self.windows <= WARMUP_WINDOWS {
            1.0 / self.windows
        } else {
            2.0 / (LONG_WINDOWS + 1.0)
        };
        self.long_ms += (short_ms - self.long_ms) * share;
        // After a long slow time the old average must not let the next slow time pass.
        if self.long_ms > 2.0 * short_ms {
            self.long_ms *= 0.95;
        }
        if (in_flight as f64) < self.limit / 2.0 {
            return;
        }
        let gradient = (TOLERANCE * self.long_ms / short_ms.max(0.001)).clamp(0.5, 1.0);
        let next = self.limit * gradient + HEADROOM;
        let smoothed = self.limit * (1.0 - SMOOTHING) + next * SMOOTHING;
        self.limit = smoothed.clamp(self.floor, self.ceiling);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many windows of one latency, at a load that uses the limit up.
    async fn pass(gradient: &mut Gradient, windows: u32, ms: u64) {
        for _ in 0..windows * 20 {
            tokio::time::advance(Duration::from_millis(53)).await;
            let in_flight = gradient.limit();
            gradient.record(Duration::from_millis(ms), in_flight, Instant::now());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_steady_latency_leaves_the_limit_at_its_ceiling() {
        let mut gradient = Gradient::new(20, 1_000);
        for turn in 0..200 {
            // Up and down by a fifth is steady.
            pass(&mut gradient, 1, 100 + (turn % 5) * 5).await;
            assert_eq!(gradient.limit(), 1_000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_latency_ten_times_as_long_shrinks_the_limit_to_its_floor_and_no_further() {
        let mut gradient = Gradient::new(20, 1_000);
        pass(&mut gradient, 60, 50).await;
        pass(&mut gradient, 10, 500).await;
        assert!(gradient.limit() < 500, "{}", gradient.limit());
        pass(&mut gradient, 40, 500).await;
        assert!((20..100).contains(&gradient.limit()), "{}", gradient.limit());
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_comes_back_with_the_latency() {
        let mut gradient = Gradient::new(20, 200);
        pass(&mut gradient, 60, 50).await;
        pass(&mut gradient, 30, 500).await;
        assert!(gradient.limit() < 60);
        pass(&mut gradient, 400, 50).await;
        assert_eq!(gradient.limit(), 200);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_not_half_used_is_left_alone() {
        let mut gradient = Gradient::new(20, 1_000);
        for ms in [50, 5_000] {
            for _ in 0..500 {
                tokio::time::advance(Duration::from_millis(50)).await;
                gradient.record(Duration::from_millis(ms), 400, Instant::now());
            }
        }
        assert_eq!(gradient.limit(), 1_000);
    }

    #[test]
    fn floor_and_ceiling_hold_whatever_is_asked() {
        assert_eq!(Gradient::new(0, 0).limit(), 1);
        assert_eq!(Gradient::new(500, 100).limit(), 100);
    }
}
