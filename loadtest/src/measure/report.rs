//! What was measured, for people and for programs.
//!
//! In: tallies. Out: a table, or JSON with the same figures, the unit in each name.

use std::collections::BTreeMap;
use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::crowd::Protocol;
use super::pace::Tally;
use super::push::Plan;
use crate::device::DeviceKind;

/// The figures of one measurement, with what they were taken at.
#[derive(Debug, Serialize)]
pub struct Report {
    push_service: &'static str,
    through_relay: bool,
    http: &'static str,
    connections: usize,
    rate_per_s: u32,
    seconds: u32,
    body_bytes: usize,
    runs: Vec<Run>,
    memory_peak_mib: Option<f64>,
}

/// The figures of one run.
#[derive(Debug, Serialize)]
pub struct Run {
    sent: u64,
    accepted: u64,
    others: BTreeMap<String, u64>,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    cpu_us_per_message: Option<f64>,
}

/// A report that is held to bounds.
pub trait Judged: Serialize {
    /// Names the bounds that did not hold.
    fn missed(&self) -> &[String];

    /// Writes lines of figures.
    /// Errors: what the writer says.
    fn write_text(&self, out: &mut impl Write) -> io::Result<()>;

    /// Writes the figures, as one JSON object or as text; true when every bound held.
    /// Errors: what the writer says.
    fn write(&self, json: bool, out: &mut impl Write) -> io::Result<bool> {
        if json {
            serde_json::to_writer_pretty(&mut *out, self)?;
            writeln!(out)?;
        } else {
            self.write_text(out)?;
            match self.missed() {
                [] => writeln!(out, "every bound held")?,
                missed => writeln!(out, "MISSED: {}", missed.join("; "))?,
            }
        }
        Ok(self.missed().is_empty())
    }
}

/// Names the bounds that do not hold.
pub(crate) fn missed(bounds: &[(bool, &str)]) -> impl Iterator<Item = String> {
    bounds.iter().filter(|(holds, _)| !holds).map(|(_, bound)| (*bound).to_owned())
}

// === impl Run ===

impl Run {
    /// Takes a tally and the CPU time that the relay used meanwhile, in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    pub fn new(tally: &Tally, cpu_us: Option<u64>) -> Run {
        let quantile = |q| tally.times_us.value_at_quantile(q) as f64 / 1_000.0;
        Run {
            sent: tally.sent,
            accepted: tally.accepted,
            others: tally.others.clone(),
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            max_ms: tally.times_us.max() as f64 / 1_000.0,
            cpu_us_per_message: cpu_us.map(|us| us as f64 / tally.sent.max(1) as f64),
        }
    }

    fn cells(&self) -> [String; 8] {
        let others: Vec<String> =
            self.others.iter().map(|(what, count)| format!("{count} × {what}")).collect();
        let ms = |figure: f64| format!("{figure:.2}");
        [
            self.sent.to_string(),
            self.accepted.to_string(),
            if others.is_empty() { "–".to_owned() } else { others.join(", ") },
            ms(self.p50_ms),
            ms(self.p90_ms),
            ms(self.p99_ms),
            ms(self.max_ms),
            self.cpu_us_per_message.map_or("–".to_owned(), |us| format!("{us:.1}")),
        ]
    }
}

// === impl Report ===

impl Report {
    /// Puts the runs of a plan together.
    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    pub fn new(
        plan: &Plan,
        body_bytes: usize,
        runs: Vec<Run>,
        memory_peak_kib: Option<u64>,
    ) -> Report {
        Report {
            push_service: match (&plan.relay, plan.kind) {
                (None, _) | (_, DeviceKind::Browser) => "Web Push",
                (_, DeviceKind::Ios) => "APNs",
                (_, DeviceKind::Android) => "FCM",
            },
            through_relay: plan.relay.is_some(),
            http: match plan.protocol {
                Protocol::Http1 => "HTTP/1.1",
                Protocol::Http2 => "HTTP/2",
            },
            connections: plan.connections,
            rate_per_s: plan.pace.rate_per_s,
            seconds: plan.pace.seconds,
            body_bytes,
            runs,
            memory_peak_mib: memory_peak_kib.map(|kib| kib as f64 / 1_024.0),
        }
    }

    /// Whether every message was accepted.
    pub fn all_accepted(&self) -> bool {
        self.runs.iter().all(|run| run.accepted == run.sent)
    }

    /// Writes one JSON object.
    /// Errors: what the writer says.
    pub fn write_json(&self, out: &mut impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *out, self)?;
        writeln!(out)
    }

    /// Writes a table, a row for each run and one for the medians.
    /// Errors: what the writer says.
    pub fn write_table(&self, out: &mut impl Write) -> io::Result<()> {
        let way = if self.through_relay { "through the relay" } else { "without a relay" };
        writeln!(
            out,
            "{} messages/s for {} s to {} {way}, {} over {} connections, bodies of {} bytes",
            self.rate_per_s,
            self.seconds,
            self.push_service,
            self.http,
            self.connections,
            self.body_bytes
        )?;
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        let head = ["run", "sent", "accepted", "others", "p50 ms", "p90 ms", "p99 ms", "max ms"];
        table.set_header(head.into_iter().chain(["CPU µs/message"]));
        for (number, run) in self.runs.iter().enumerate() {
            table.add_row(std::iter::once((number + 1).to_string()).chain(run.cells()));
        }
        if self.runs.len() > 1 {
            table.add_row(self.median_cells());
        }
        writeln!(out, "{table}")?;
        match self.memory_peak_mib {
            Some(mib) => writeln!(out, "The relay's memory at its peak: {mib:.1} MiB"),
            None => Ok(()),
        }
    }

    fn median_cells(&self) -> Vec<String> {
        let median = |figure: fn(&Run) -> Option<f64>| {
            let mut figures: Vec<f64> = self.runs.iter().filter_map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied()
        };
        let cell = |figure: Option<f64>, digits: usize| {
            figure.map_or("–".to_owned(), |figure| format!("{figure:.digits$}"))
        };
        let mut cells = vec!["median".to_owned(), String::new(), String::new(), String::new()];
        let times: [fn(&Run) -> Option<f64>; 4] = [
            |run| Some(run.p50_ms),
            |run| Some(run.p90_ms),
            |run| Some(run.p99_ms),
            |run| Some(run.max_ms),
        ];
        cells.extend(times.into_iter().map(|time| cell(median(time), 2)));
        cells.push(cell(median(|run| run.cpu_us_per_message), 1));
        cells
    }
}
