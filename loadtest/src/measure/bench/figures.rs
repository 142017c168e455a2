//! The figures of the parts, read back from their JSON: fresh from the programs or out of a file.
//!
//! In: what was measured. Out: one figure with its spread, or why there is none. Nothing here
//! measures or judges.

use serde_json::Value;

/// A figure: the median of the rounds, with the least and the greatest, or one alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) median: f64,
    /// Missing where there was one measurement.
    pub(super) range: Option<(f64, f64)>,
}

/// A part's report, or why it has none.
pub(super) type Read<'a, T> = Result<T, &'a str>;

const NOT_THERE: &str = "not measured";

/// Gives the report of a part.
pub(super) fn report<'a>(all: &'a Value, part: &str) -> Read<'a, &'a Value> {
    let part = all.pointer("/parts").and_then(|parts| parts.get(part)).ok_or(NOT_THERE)?;
    match part.get("report") {
        Some(report) => Ok(report),
        None => Err(part["failed"].as_str().unwrap_or(NOT_THERE)),
    }
}

/// Gives the row of a report whose member `key` is this.
pub(super) fn row<'a>(report: &'a Value, key: &str, name: &str) -> Option<&'a Value> {
    report.get("rows")?.as_array()?.iter().find(|row| row[key] == name)
}

/// Gives one of the figures of a row's turns, in the order of the rounds.
pub(super) fn of_turns(row: &Value, figure: &str) -> Vec<f64> {
    let turns = row["turns"].as_array().map(Vec::as_slice).unwrap_or_default();
    turns.iter().filter_map(|turn| turn[figure].as_f64()).collect()
}

// === impl Figure ===

impl Figure {
    /// Reads one figure, or a spread.
    pub(super) fn read(value: &Value) -> Option<Figure> {
        if let Some(median) = value.as_f64() {
            return Some(Figure { median, range: None });
        }
        let part = |name: &str| value.get(name)?.as_f64();
        Some(Figure { median: part("median")?, range: Some((part("min")?, part("max")?)) })
    }

    /// Puts the figures of all rounds together; of an even number the median is the greater of the
    /// two in the middle.
    pub(super) fn of(mut figures: Vec<f64>) -> Option<Figure> {
        figures.sort_by(f64::total_cmp);
        let median = *figures.get(figures.len() / 2)?;
        Some(Figure { median, range: Some((*figures.first()?, *figures.last()?)) })
    }

    /// Multiplies it.
    #[must_use]
    pub(super) fn times(self, factor: f64) -> Figure {
        let range = self.range.map(|(min, max)| (min * factor, max * factor));
        Figure { median: self.median * factor, range }
    }

    /// Writes it with so many digits, its range in brackets.
    pub(super) fn text(self, digits: usize) -> String {
        let median = self.median;
        match self.range {
            None => format!("{median:.digits$}"),
            Some((min, max)) => format!("{median:.digits$} ({min:.digits$}–{max:.digits$})"),
        }
    }
}

/// Writes a figure, or a dash where there is none.
pub(super) fn text(figure: Option<Figure>, digits: usize) -> String {
    figure.map_or("–".to_owned(), |figure| figure.text(digits))
}
