//! What each way in cost, for people and for programs.
//!
//! In: the turns of each round. Out: the median of each figure, and of the ratios within each round
//! to the base and to the bare forwarder, with the least and the greatest of them.

use std::collections::BTreeMap;
use std::io::{self, Write};

use comfy_table::{Table, presets};
use serde::Serialize;

use super::super::report::{Judged, missed};
use super::super::spread::{self, Spread};
use super::{Entry, Plan, Turn};

/// The figures of one measurement, with what they were taken at.
#[derive(Debug, Serialize)]
pub struct Report {
    push_service: String,
    base: Entry,
    devices: u32,
    messages: u32,
    in_flight: u32,
    latency_ms: u32,
    stream_in_flight: u32,
    connections: u32,
    relay_core: usize,
    own_core: usize,
    rows: Vec<Row>,
    missed: Vec<String>,
}

/// One entry.
#[derive(Debug, Serialize)]
struct Row {
    entry: Entry,
    /// CPU per message ÷ that of the base in the same round.
    to_base: Option<Spread>,
    /// The same ÷ that of the forwarder that is asked in the same way.
    to_floor: Option<Spread>,
    turns: Vec<Turn>,
}

// === impl Report ===

impl Report {
    pub(super) fn new(plan: &Plan, entries: Vec<Entry>, rounds: Vec<Vec<Turn>>) -> Report {
        let mut all: Vec<Vec<Turn>> = entries.iter().map(|_| Vec::new()).collect();
        for round in rounds {
            for (turns, turn) in all.iter_mut().zip(round) {
                turns.push(turn);
            }
        }
        let cpu = |entry: Entry| -> Option<Vec<f64>> {
            let place = entries.iter().position(|own| *own == entry)?;
            Some(all[place].iter().map(|turn| turn.cpu_us).collect())
        };
        let ratio = |entry: Entry, to: Entry| {
            (entry != to).then(|| Spread::of_ratios(&cpu(entry)?, &cpu(to)?)).flatten()
        };
        let ratios: Vec<_> = entries
            .iter()
            .map(|entry| (ratio(*entry, plan.base), ratio(*entry, entry.floor())))
            .collect();
        let is_whole = all.iter().flatten().all(|turn| turn.accepted == turn.sent);
        let is_true = all.iter().flatten().all(|turn| turn.arrived == turn.accepted);
        let rows = entries.into_iter().zip(ratios).zip(all);
        Report {
            push_service: format!("{:?}", plan.service),
            base: plan.base,
            devices: plan.devices,
            messages: plan.messages,
            in_flight: plan.in_flight,
            latency_ms: plan.latency_ms,
            stream_in_flight: plan.stream_in_flight,
            connections: plan.connections,
            relay_core: plan.cores.relay_core,
            own_core: plan.cores.own_core,
            rows: rows
                .map(|((entry, (to_base, to_floor)), turns)| Row {
                    entry,
                    to_base,
                    to_floor,
                    turns,
                })
                .collect(),
            missed: missed(&[
                (is_whole, "every message is accepted"),
                (is_true, "the push service counts as many as the senders"),
            ])
            .collect(),
        }
    }
}

impl Judged for Report {
    fn missed(&self) -> &[String] {
        &self.missed
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(
            out,
            "{} messages a turn to {} devices ({}), {} in flight ({} of grpc-stream-full), medians",
            self.messages, self.devices, self.push_service, self.in_flight, self.stream_in_flight
        )?;
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header([
            "entry".to_owned(),
            "accepted".to_owned(),
            "messages/s".to_owned(),
            "CPU µs (least–most)".to_owned(),
            "core %".to_owned(),
            "senders' µs".to_owned(),
            "others' cores".to_owned(),
            "p50 ms".to_owned(),
            "p99 ms".to_owned(),
            format!("÷ {}", self.base.label()),
            "÷ its floor".to_owned(),
        ]);
        for row in &self.rows {
            table.add_row(row.cells());
        }
        writeln!(out, "{table}")
    }
}

// === impl Row ===

impl Row {
    fn cells(&self) -> Vec<String> {
        let figures = |figure: fn(&Turn) -> f64| Spread::of(self.turns.iter().map(figure));
        let median = |figure: fn(&Turn) -> f64, digits: usize| {
            let median = figures(figure).map_or(f64::NAN, Spread::median);
            format!("{median:.digits$}")
        };
        let mut others: BTreeMap<&str, u64> = BTreeMap::new();
        for (other, count) in self.turns.iter().flat_map(|turn| &turn.others) {
            *others.entry(other).or_default() += count;
        }
        let mut accepted = self.turns.iter().map(|turn| turn.accepted).sum::<u64>().to_string();
        for (other, count) in others {
            accepted += &format!(", {count} × {other}");
        }
        vec![
            self.entry.label(),
            accepted,
            median(|turn| turn.rate_per_s, 0),
            spread::text(figures(|turn| turn.cpu_us), 1),
            median(|turn| turn.busy_percent, 0),
            median(|turn| turn.own_cpu_us, 1),
            median(|turn| turn.others_cores, 2),
            median(|turn| turn.p50_ms, 2),
            median(|turn| turn.p99_ms, 2),
            spread::text(self.to_base, 2),
            spread::text(self.to_floor, 2),
        ]
    }
}
