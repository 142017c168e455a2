//! What the faults cost, for docs/reliability.md and for programs.
//!
//! In: the rounds. Out: a Markdown table, a row for each fault at each push service, or JSON with
//! the same figures. A ratio of times is taken within each round, and the median of the rounds
//! counts, since the machine's own noise hits a window and its neighbour alike.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::super::MeasureError;
use super::super::document::{Place, write_into};
use super::super::pace::Pace;
use super::Round;
use crate::device::DeviceKind;
use crate::fault::{Fault, service_name};

/// The figures of one measurement, with what they were taken at.
#[derive(Debug, Serialize)]
pub struct Report {
    rate_per_s: u32,
    seconds: u32,
    rounds: u32,
    rows: Vec<Row>,
}

/// The figures of one fault at one push service.
#[derive(Debug, Serialize)]
pub struct Row {
    fault: &'static str,
    push_service: &'static str,
    /// What the service's own senders heard, and how often.
    heard: BTreeMap<String, u64>,
    lost: u64,
    doubled: u64,
    gone: u64,
    others_sent: u64,
    others_accepted: u64,
    others_p99_before_ms: Option<f64>,
    others_p99_during_ms: Option<f64>,
    others_p99_ratio: Option<f64>,
    back_after_ms: Option<u64>,
}

/// Where the table stands in a document.
const START: &str = "<!-- generated: fault-figures -->";
const END: &str = "<!-- end -->";

const OTHERS_ACCEPTED_MIN: f64 = 0.999;
const P99_RATIO_MAX: f64 = 1.5;

// === impl Report ===

impl Report {
    /// Puts the rows of a plan together.
    pub fn new(pace: Pace, rounds: u32, rows: Vec<Row>) -> Report {
        Report { rate_per_s: pace.rate_per_s, seconds: pace.seconds, rounds, rows }
    }

    /// Whether nothing was lost, doubled or disowned, every service came back, and no fault cost
    /// the other services more than one message in a thousand or half their time.
    pub fn holds(&self) -> bool {
        self.rows.iter().all(Row::holds)
    }

    /// Writes one JSON object.
    /// Errors: what the writer says.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }

    /// Writes the table.
    /// Errors: what the writer says.
    pub fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(self.table().as_bytes())
    }

    /// Puts the table into its place in a document.
    /// Errors: `Io`, or `NoPlace` where the document has none.
    pub fn write_into(&self, file: &Path) -> Result<(), MeasureError> {
        let place = Place { start: START.to_owned(), end: END };
        write_into(file, &[(place, self.table())])
    }

    fn table(&self) -> String {
        let mut table = format!(
            "{} messages/s to each push service, windows of {} s, {} rounds.\n\n\
             | fault | at | its senders hear | lost | doubled | gone | back after ms \
             | others accepted % | others' p99 before ms | during ms | ratio | holds |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
            self.rate_per_s, self.seconds, self.rounds
        );
        for row in &self.rows {
            table.push_str(&row.line());
        }
        table
    }
}

// === impl Row ===

impl Row {
    /// Puts the rounds of one fault at one push service together.
    pub(crate) fn new(fault: Fault, kind: DeviceKind, rounds: &[Round]) -> Row {
        let mut heard = BTreeMap::new();
        for (code, count) in rounds.iter().flat_map(|round| &round.own.codes) {
            *heard.entry(code.clone()).or_default() += *count;
        }
        let sum = |figure: fn(&Round) -> u64| rounds.iter().map(figure).sum();
        let middle =
            |figure: fn(&Round) -> Option<f64>| median(rounds.iter().filter_map(figure).collect());
        // One round that does not come back is what counts, not those that do.
        let back_after = rounds.iter().map(|round| round.back_after).collect::<Option<Vec<_>>>();
        let longest = back_after.and_then(|times| times.into_iter().max());
        Row {
            fault: fault.name(),
            push_service: service_name(kind),
            heard,
            lost: sum(|round| round.own.lost + round.others.lost),
            doubled: sum(|round| round.own.doubled + round.others.doubled),
            gone: sum(|round| round.own.gone + round.others.gone),
            others_sent: sum(|round| round.others.sent()),
            others_accepted: sum(|round| round.others.accepted()),
            others_p99_before_ms: middle(|round| round.before.p99_ms()),
            others_p99_during_ms: middle(|round| round.others.p99_ms()),
            others_p99_ratio: middle(|round| Some(round.others.p99_ms()? / round.before.p99_ms()?)),
            back_after_ms: longest.and_then(|time| u64::try_from(time.as_millis()).ok()),
        }
    }

    fn holds(&self) -> bool {
        self.lost + self.doubled + self.gone == 0
            && self.back_after_ms.is_some()
            && self.others_ratio() >= OTHERS_ACCEPTED_MIN
            && self.others_p99_ratio.is_some_and(|ratio| ratio <= P99_RATIO_MAX)
    }

    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    fn others_ratio(&self) -> f64 {
        self.others_accepted as f64 / self.others_sent.max(1) as f64
    }

    fn line(&self) -> String {
        let figure = |figure: Option<f64>, digits: usize| {
            figure.map_or("–".to_owned(), |figure| format!("{figure:.digits$}"))
        };
        let sent: u64 = self.heard.values().sum();
        let mut heard = String::new();
        for (place, (code, count)) in self.heard.iter().enumerate() {
            let comma = if place > 0 { ", " } else { "" };
            // To the nearest percent, and never so that a message seems to be none.
            let percent = match (*count * 100 + sent / 2) / sent.max(1) {
                0 => "< 1".to_owned(),
                percent => percent.to_string(),
            };
            // Writing to a String does not fail.
            let _ = write!(heard, "{comma}{code} {percent} %");
        }
        format!(
            "| {} | {} | {heard} | {} | {} | {} | {} | {:.2} | {} | {} | {} | {} |\n",
            self.fault,
            self.push_service,
            self.lost,
            self.doubled,
            self.gone,
            self.back_after_ms.map_or("never".to_owned(), |ms| ms.to_string()),
            self.others_ratio() * 100.0,
            figure(self.others_p99_before_ms, 1),
            figure(self.others_p99_during_ms, 1),
            figure(self.others_p99_ratio, 2),
            if self.holds() { "yes" } else { "no" },
        )
    }
}

fn median(mut figures: Vec<f64>) -> Option<f64> {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::party::{ACCEPTED, Heard};
    use super::*;

    fn heard(codes: &[(&str, u64)], time_ms: u64) -> Heard {
        let codes = codes.iter().map(|(code, count)| ((*code).to_owned(), *count)).collect();
        let mut heard = Heard::default();
        (heard.codes, heard.times_us) = (codes, vec![time_ms * 1_000; 10]);
        heard
    }

    fn round(during_ms: u64) -> Round {
        Round {
            before: heard(&[(ACCEPTED, 1_000)], 20),
            others: heard(&[(ACCEPTED, 1_000)], during_ms),
            own: heard(&[("504 no_answer", 5)], 0),
            back_after: Some(Duration::from_millis(40)),
        }
    }

    fn row(rounds: &[Round]) -> Row {
        Row::new(Fault::Stall, DeviceKind::Ios, rounds)
    }

    #[test]
    fn a_row_holds_only_within_every_bound() {
        assert!(row(&[round(30)]).holds());
        let breaches: [fn(&mut Round); 6] = [
            |round| round.own.lost = 1,
            |round| round.own.doubled = 1,
            |round| round.own.gone = 1,
            |round| round.back_after = None,
            |round| round.others = heard(&[(ACCEPTED, 998), ("503 overloaded", 2)], 20),
            |round| round.others = heard(&[(ACCEPTED, 1_000)], 31),
        ];
        for (number, breach) in breaches.into_iter().enumerate() {
            let mut breached = round(20);
            breach(&mut breached);
            assert!(!row(&[breached]).holds(), "breach {number}");
        }
    }

    #[test]
    fn the_median_of_the_rounds_counts_for_times_and_every_round_for_coming_back() {
        let noisy = [round(20), round(400), round(22)];
        assert_eq!(row(&noisy).others_p99_ratio, Some(1.1));
        let stuck = [round(20), Round { back_after: None, ..round(20) }];
        assert_eq!(row(&stuck).back_after_ms, None);
    }
}
