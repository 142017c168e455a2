//! A turn while other programs leave the machine alone, as far as that can be had.
//!
//! In: how to take a turn, and what others used meanwhile. Out: the first turn that they left
//! alone, or the one that they disturbed least. A shared machine is calm for half a second more
//! often than for minutes.

use std::time::Duration;

use clap::value_parser;
use tokio::time::sleep;

use super::MeasureError;

/// How much of others a turn bears.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Calm {
    /// Cores that other programs may use during a turn: above it the turn is repeated.
    #[arg(long, value_parser = cores)]
    others_max: Option<f64>,
    /// How often a turn is taken at most; of those the calmest counts.
    #[arg(long, default_value_t = 30, value_parser = value_parser!(u32).range(1..=1_000))]
    tries_max: u32,
}

const PAUSE: Duration = Duration::from_millis(500);
const CORES_MAX: f64 = 1_000.0;

// === impl Calm ===

impl Calm {
    /// Takes a turn as often as it must; `others` tells the cores that others used during it.
    /// Errors: the turn's.
    pub(super) async fn turn<T>(
        self,
        mut take: impl AsyncFnMut() -> Result<T, MeasureError>,
        others: impl Fn(&T) -> f64,
    ) -> Result<T, MeasureError> {
        let mut best = take().await?;
        for _ in 1..self.tries_max {
            if self.others_max.is_none_or(|max| others(&best) <= max) {
                break;
            }
            sleep(PAUSE).await;
            let next = take().await?;
            if others(&next) < others(&best) {
                best = next;
            }
        }
        Ok(best)
    }
}

fn cores(text: &str) -> Result<f64, String> {
    let cores: f64 = text.parse().map_err(|_| "a number of cores".to_owned())?;
    let is_one = (0.0..=CORES_MAX).contains(&cores);
    if is_one { Ok(cores) } else { Err(format!("0 to {CORES_MAX}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes turns that others disturb as much as the list says; gives which one counts.
    async fn counted(others_max: Option<f64>, disturbed: [f64; 3]) -> f64 {
        let mut turns = disturbed.into_iter();
        let calm = Calm { others_max, tries_max: 3 };
        calm.turn(async || Ok(turns.next().unwrap()), |turn| *turn).await.unwrap()
    }

    /// On a paused clock, so the pauses cost nothing.
    #[tokio::test(start_paused = true)]
    async fn the_first_calm_turn_counts_or_else_the_calmest() {
        assert_eq!(counted(None, [0.9, 0.1, 0.0]).await, 0.9);
        assert_eq!(counted(Some(0.2), [0.9, 0.1, 0.0]).await, 0.1);
        assert_eq!(counted(Some(0.2), [0.9, 0.3, 0.5]).await, 0.3);
    }

    #[test]
    fn cores_are_a_number_that_a_machine_may_have() {
        for (text, is_good) in [
            ("0", true),
            ("0.2", true),
            ("-1", false),
            ("NaN", false),
            ("inf", false),
            ("x", false),
        ] {
            assert_eq!(cores(text).is_ok(), is_good, "{text}");
        }
    }
}
