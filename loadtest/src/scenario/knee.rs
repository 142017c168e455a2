//! The knee: the highest rate at which answers still come in time.
//!
//! In: steps of ever higher rates with what each came to. Out: the last good one and the first bad
//! one. A step is bad when its 99th percentile is above the bound, when less than 99 % were
//! accepted, or when nothing was.

use serde::Serialize;

use super::books::Figures;

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Step {
    pub(super) rate_per_s: u32,
    pub(super) accepted_per_s: f64,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) accepted_percent: f64,
    pub(super) is_good: bool,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Knee {
    /// The highest rate that was good; none where the first step was bad already.
    pub(super) good_per_s: Option<u32>,
    /// The first that was not; none where the time was over before.
    pub(super) bad_per_s: Option<u32>,
    pub(super) steps: Vec<Step>,
}

/// Seconds of one step.
pub(super) const STEP_S: u32 = 4;

const ACCEPTED_MIN: f64 = 0.99;
/// Each step offers so many times the rate of the one before.
const FACTOR_TENTHS: u64 = 14;
const RATE_MAX: u64 = 1_000_000;

/// Gives the rates of so many steps.
pub(super) fn rates(first_per_s: u32, steps: u32) -> Vec<u32> {
    let mut rate = u64::from(first_per_s);
    let mut rates = Vec::new();
    for _ in 0..steps.max(1) {
        rates.push(u32::try_from(rate).unwrap_or(u32::MAX));
        rate = (rate * FACTOR_TENTHS).div_ceil(10).min(RATE_MAX);
    }
    rates
}

// === impl Step ===

impl Step {
    /// Judges what a step came to.
    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    pub(super) fn of(rate_per_s: u32, took_s: f64, figures: &Figures, p99_ms_max: u32) -> Step {
        let share = figures.accepted_share();
        let in_time = figures.p99_ms.is_some_and(|p99| p99 <= f64::from(p99_ms_max));
        Step {
            rate_per_s,
            accepted_per_s: figures.accepted as f64 / took_s.max(f64::MIN_POSITIVE),
            p50_ms: figures.p50_ms,
            p99_ms: figures.p99_ms,
            accepted_percent: share * 100.0,
            is_good: in_time && share >= ACCEPTED_MIN,
        }
    }
}

// === impl Knee ===

impl Knee {
    /// Finds it; the steps end with the first bad one, if there was any.
    pub(super) fn of(steps: Vec<Step>) -> Knee {
        let bad = steps.iter().position(|step| !step.is_good);
        let good = &steps[..bad.unwrap_or(steps.len())];
        Knee {
            good_per_s: good.last().map(|step| step.rate_per_s),
            bad_per_s: bad.map(|place| steps[place].rate_per_s),
            steps,
        }
    }

    /// Says it in words.
    pub(super) fn words(&self) -> String {
        match (self.good_per_s, self.bad_per_s) {
            (Some(good), Some(bad)) => format!("the knee is between {good}/s and {bad}/s"),
            (Some(good), None) => format!("no knee up to {good}/s: the time was over"),
            (None, Some(bad)) => format!("the first step, {bad}/s, is behind the knee already"),
            (None, None) => "no step was measured".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(rate: u32, accepted: u64, p99_ms: Option<f64>) -> Step {
        let figures = Figures { sent: 1_000, accepted, p99_ms, ..Figures::default() };
        Step::of(rate, 4.0, &figures, 100)
    }

    /// A table of courses, each with the last good rate and the first bad one.
    #[test]
    fn the_knee_is_between_the_last_good_step_and_the_first_bad_one() {
        let rows = [
            (
                vec![step(100, 1_000, Some(5.0)), step(140, 1_000, Some(101.0))],
                Some(100),
                Some(140),
            ),
            (vec![step(100, 990, Some(100.0)), step(140, 989, Some(5.0))], Some(100), Some(140)),
            (vec![step(100, 1_000, Some(5.0))], Some(100), None),
            (vec![step(100, 0, None)], None, Some(100)),
            (vec![], None, None),
        ];
        for (steps, good, bad) in rows {
            let knee = Knee::of(steps);
            assert_eq!((knee.good_per_s, knee.bad_per_s), (good, bad), "{knee:?}");
        }
    }

    #[test]
    fn each_step_offers_more_than_the_one_before() {
        assert_eq!(rates(500, 4), [500, 700, 980, 1_372]);
        assert_eq!(rates(1, 3), [1, 2, 3]);
    }
}
