//! When messages leave: moments from the beginning on, in order.
//!
//! In: a rate or a number, and a time. Out: moments. What is drawn has a seed, so a run repeats.

use std::time::Duration;

use crate::sim::script::Random;

/// Gives moments at one rate, evenly spread.
pub(super) fn even(rate_per_s: u32, time: Duration) -> Vec<Duration> {
    let gap = Duration::from_secs(1) / rate_per_s.max(1);
    let mut moments = Vec::new();
    let mut number = 0;
    loop {
        let moment = gap.saturating_mul(number);
        if moment >= time {
            return moments;
        }
        moments.push(moment);
        number += 1;
    }
}

/// Gives moments that are independent of each other, at one rate in the mean: a Poisson process,
/// whose gaps are exponential.
pub(super) fn poisson(rate_per_s: u32, time: Duration, random: &mut Random) -> Vec<Duration> {
    let mean_s = 1.0 / f64::from(rate_per_s.max(1));
    let mut moments = Vec::new();
    let mut moment = Duration::ZERO;
    loop {
        // 1 less a fraction is above 0.
        moment += Duration::from_secs_f64(-(1.0 - random.fraction()).ln() * mean_s);
        if moment >= time {
            return moments;
        }
        moments.push(moment);
    }
}

/// Gives so many moments, each anywhere in the time: what a Poisson process looks like whose number
/// is known.
pub(super) fn scattered(count: usize, time: Duration, random: &mut Random) -> Vec<Duration> {
    let mut moments: Vec<Duration> = (0..count).map(|_| time.mul_f64(random.fraction())).collect();
    moments.sort_unstable();
    moments
}

/// Gives so many moments, evenly spread.
#[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
pub(super) fn spread(count: usize, time: Duration) -> Vec<Duration> {
    (0..count).map(|number| time.mul_f64(number as f64 / count as f64)).collect()
}

/// Gives the same moments, moved so that their rate rises from nothing to twice the mean.
pub(super) fn rising(moments: &[Duration], time: Duration) -> Vec<Duration> {
    let whole_s = time.as_secs_f64().max(f64::MIN_POSITIVE);
    moments.iter().map(|at| time.mul_f64((at.as_secs_f64() / whole_s).sqrt())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(100);

    /// 100 s at 200/s: 20,000 in the mean, with a standard deviation of 141.
    #[test]
    fn a_poisson_pace_has_its_rate_in_the_mean_and_gaps_that_vary() {
        let moments = poisson(200, TIME, &mut Random::new(3));
        assert!((19_400..20_600).contains(&moments.len()), "{}", moments.len());
        let gaps: Vec<f64> =
            moments.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        assert!((0.0049..0.0051).contains(&mean), "{mean}");
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        let spread = variance.sqrt() / mean;
        assert!((0.95..1.05).contains(&spread), "exponential gaps spread as wide as their mean");
    }

    #[test]
    fn an_even_pace_has_each_moment_and_none_at_its_end() {
        assert_eq!(even(4, Duration::from_secs(1)), [0, 250, 500, 750].map(Duration::from_millis));
    }

    /// Half of the time has a quarter of the moments, where the rate rises from nothing.
    #[test]
    fn a_rising_pace_has_most_of_its_moments_late() {
        let moments = rising(&spread(1_000, TIME), TIME);
        let early = moments.iter().filter(|at| **at < TIME / 2).count();
        assert_eq!((moments.len(), early), (1_000, 250));
        assert!(moments.is_sorted());
    }

    #[test]
    fn scattered_moments_are_in_order_and_within_the_time() {
        let moments = scattered(5_000, TIME, &mut Random::new(3));
        assert_eq!(moments.len(), 5_000);
        assert!(moments.is_sorted());
        assert!(moments.iter().all(|at| *at < TIME));
        let early = moments.iter().filter(|at| **at < TIME / 2).count();
        assert!((2_350..2_650).contains(&early), "{early}");
    }
}
