//! How long a push service thinks: a time, or a distribution with a seed, so that a run repeats.

use std::time::Duration;

/// The times that requests wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Latency {
    /// Always the same.
    Fixed(Duration),
    /// Anything in between, equally likely.
    Uniform {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// Half of them shorter than the median, one in a hundred longer than the 99th percentile; the
    /// shape of most services' answers.
    LogNormal {
        /// The median.
        median: Duration,
        /// The 99th percentile, not below the median.
        p99: Duration,
    },
}

/// A small generator with a seed (SplitMix64): a run with the same seed has the same times.
#[derive(Clone, Debug, Default)]
pub struct Random(u64);

/// The 99th percentile of the standard normal distribution.
const NORMAL_P99: f64 = 2.326_347_87;

// === impl Latency ===

impl Latency {
    /// Draws one time.
    pub fn draw(&self, random: &mut Random) -> Duration {
        match self {
            Latency::Fixed(time) => *time,
            Latency::Uniform { min, max } => {
                *min + max.saturating_sub(*min).mul_f64(random.fraction())
            }
            Latency::LogNormal { median, p99 } => {
                let ratio = p99.as_secs_f64() / median.as_secs_f64().max(f64::MIN_POSITIVE);
                let sigma = ratio.max(1.0).ln() / NORMAL_P99;
                median.mul_f64((sigma * random.normal()).exp())
            }
        }
    }
}

impl Default for Latency {
    fn default() -> Latency {
        Latency::Fixed(Duration::ZERO)
    }
}

impl From<Duration> for Latency {
    fn from(time: Duration) -> Latency {
        Latency::Fixed(time)
    }
}

// === impl Random ===

impl Random {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Gives the next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Gives a number below a bound, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.draw() % bound.max(1) as u64).unwrap_or(0)
    }

    /// Gives a fraction: at least 0, below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what an f64 holds")]
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.draw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Gives a standard normal deviate (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.fraction()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.fraction()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantile(latency: Latency, percent: usize) -> f64 {
        let mut random = Random::new(7);
        let mut times: Vec<f64> =
            (0..20_000).map(|_| latency.draw(&mut random).as_secs_f64() * 1_000.0).collect();
        times.sort_by(f64::total_cmp);
        times[times.len() * percent / 100]
    }

    #[test]
    fn a_log_normal_latency_has_its_median_and_its_99th_percentile() {
        let latency = Latency::LogNormal {
            median: Duration::from_millis(20),
            p99: Duration::from_millis(200),
        };
        assert!((19.0..21.0).contains(&quantile(latency, 50)), "{}", quantile(latency, 50));
        assert!((170.0..230.0).contains(&quantile(latency, 99)), "{}", quantile(latency, 99));
    }

    #[test]
    fn a_uniform_latency_stays_between_its_ends() {
        let (min, max) = (Duration::from_millis(10), Duration::from_millis(30));
        let latency = Latency::Uniform { min, max };
        assert!(quantile(latency, 0) >= 10.0 && quantile(latency, 99) <= 30.0);
        assert!((19.0..21.0).contains(&quantile(latency, 50)));
    }
}
