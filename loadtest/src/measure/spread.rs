//! What the rounds of a measurement say together: a median, with the least and the greatest.
//!
//! In: a figure of each round, or the figures of two things that took turns. Out: their spread. A
//! ratio or a difference is taken within each round and never between two, so that whatever else
//! the machine does meets both.

use serde::Serialize;

/// A median with the least and the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

// === impl Spread ===

impl Spread {
    /// Of an even number of figures the median is the greater of the two in the middle; of none
    /// there is no spread.
    pub(super) fn of(figures: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut figures: Vec<f64> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        let median = *figures.get(figures.len() / 2)?;
        Some(Spread { median, min: *figures.first()?, max: *figures.last()? })
    }

    /// Divides the figures of each round.
    pub(super) fn of_ratios(ones: &[f64], others: &[f64]) -> Option<Spread> {
        Spread::of(ones.iter().zip(others).map(|(one, other)| one / other))
    }

    /// Subtracts the figures of each round.
    pub(super) fn of_differences(ones: &[f64], others: &[f64]) -> Option<Spread> {
        Spread::of(ones.iter().zip(others).map(|(one, other)| one - other))
    }

    /// Gives the median.
    pub(super) fn median(self) -> f64 {
        self.median
    }

    /// Writes the median, and the least and the greatest in brackets.
    pub(super) fn text(self, digits: usize) -> String {
        let Spread { median, min, max } = self;
        format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
    }
}

/// Writes a spread, or a dash where there is none.
pub(super) fn text(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or("–".to_owned(), |spread| spread.text(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_and_differences_are_taken_within_each_round() {
        let (ones, others) = ([4.0, 9.0, 2.0], [2.0, 3.0, 2.0]);
        assert_eq!(Spread::of_ratios(&ones, &others).unwrap().text(1), "2.0 (1.0–3.0)");
        assert_eq!(Spread::of_differences(&ones, &others).unwrap().text(0), "2 (0–6)");
        assert_eq!(text(Spread::of([]), 2), "–");
    }
}
