//! The same load on relays that differ in one thing, in turn.
//!
//! In: seats, the first of which is the base. Out: what a message costs each relay, and how that
//! compares with the base in the same round.

use std::io::{self, Write};

use clap::value_parser;
use comfy_table::{Table, presets};
use serde::Serialize;

use super::MeasureError;
use super::calm::Calm;
use super::doors::turn::{Load, Seat, Turn};
use super::report::missed;
use super::spread::{self, Spread};

/// What every relay carries in each round, by HTTP/1.1 to APNs.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Rounds {
    /// Messages of one turn.
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    pub(super) messages: u32,
    /// Messages in flight.
    #[arg(long, default_value_t = 64, value_parser = value_parser!(u32).range(1..=10_000))]
    pub(super) in_flight: u32,
    /// Rounds, after one that is not counted.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=1_000))]
    pub(super) rounds: u32,
    #[command(flatten)]
    calm: Calm,
}

/// A relay with what distinguishes it.
pub(super) struct Stand {
    pub(super) name: String,
    pub(super) seat: Seat,
    /// Requests that it has had; each turn goes on from there.
    pub(super) next: usize,
}

/// One relay.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: String,
    cpu_us: Option<Spread>,
    /// CPU per message ÷ that of the base in the same round.
    to_base: Option<Spread>,
    memory_kib: u64,
    turns: Vec<Turn>,
}

// === impl Rounds ===

impl Rounds {
    /// Lets the stands take turns.
    /// Errors: [`MeasureError`]; messages that fail are figures of the rows.
    pub(super) async fn compare(self, mut stands: Vec<Stand>) -> Result<Vec<Row>, MeasureError> {
        let mut all: Vec<Vec<Turn>> = stands.iter().map(|_| Vec::new()).collect();
        let count = stands.len();
        for round in 0..=self.rounds as usize {
            for turn in 0..count {
                // Nobody always follows the same one.
                let number = (turn + round) % count;
                let turn = self.turn(&mut stands[number]).await?;
                // The first round warms them up.
                if round > 0 {
                    all[number].push(turn);
                }
            }
        }
        let cpu = |turns: &[Turn]| turns.iter().map(Turn::cpu_us).collect::<Vec<_>>();
        let base = all.first().map(|turns| cpu(turns)).unwrap_or_default();
        let mut rows = Vec::new();
        for (number, (stand, turns)) in stands.into_iter().zip(all).enumerate() {
            let to_base = if number > 0 { Spread::of_ratios(&cpu(&turns), &base) } else { None };
            let (name, cpu_us) = (stand.name, Spread::of(cpu(&turns)));
            let memory_kib = stand.seat.house.process.memory_kib()?;
            rows.push(Row { name, cpu_us, to_base, memory_kib, turns });
            stand.seat.leave().await?;
        }
        Ok(rows)
    }

    async fn turn(&self, stand: &mut Stand) -> Result<Turn, MeasureError> {
        let Stand { seat, next, .. } = stand;
        let take = async || {
            let load = self.load(*next, self.messages as usize);
            *next += load.messages;
            seat.turn(load).await
        };
        self.calm.turn(take, Turn::others_cores).await
    }

    /// Gives the load of so many messages from number `first` on.
    pub(super) fn load(&self, first: usize, messages: usize) -> Load {
        let (in_flight, latency) = (self.in_flight as usize, std::time::Duration::ZERO);
        Load { first, messages, in_flight, connections: 1, latency }
    }
}

/// Names the bounds that do not hold.
pub(super) fn faults(rows: &[Row]) -> Vec<String> {
    let is_whole = rows.iter().flat_map(|row| &row.turns).all(Turn::is_whole);
    missed(&[(is_whole, "every message is accepted, and the push service counts as many")])
        .collect()
}

/// Writes a row for each relay.
/// Errors: what the writer says.
pub(super) fn write_table(rows: &[Row], out: &mut impl Write) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["relay", "CPU µs (least–most)", "÷ the first", "memory MiB"]);
    for row in rows {
        table.add_row([
            row.name.clone(),
            spread::text(row.cpu_us, 1),
            spread::text(row.to_base, 2),
            (row.memory_kib / 1_024).to_string(),
        ]);
    }
    writeln!(out, "{table}")
}
