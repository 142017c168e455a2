//! What a second worker thread costs a message: the relay with one and with two, on two cores.
//!
//! In: a plan. Out: the CPU per message of both, in turn. The senders and the push services stay on
//! their core; on a machine of two cores the relay's second thread shares that one with them, so
//! the rate says nothing here.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::value_parser;
use serde::Serialize;

use super::compared::{Rounds, Row, Stand, faults, write_table};
use super::doors::house::House;
use super::doors::mail::{Form, Mail};
use super::doors::process::Cores;
use super::doors::turn::Seat;
use super::report::Judged;
use super::{MeasureError, beside};
use crate::device::DeviceKind;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// Devices, paired beforehand; each message goes to the next one.
    #[arg(long, default_value_t = 10_000, value_parser = value_parser!(u32).range(1..=1_000_000))]
    devices: u32,
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    cores: Cores,
    /// JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// The figures of one measurement, with what they were taken at.
#[derive(Debug, Serialize)]
pub struct Report {
    devices: u32,
    messages: u32,
    in_flight: u32,
    /// Threads of each relay when it was new.
    threads: Vec<u64>,
    rows: Vec<Row>,
    missed: Vec<String>,
}

/// 800 become 1,024 once they are sealed and padded.
const MESSAGE: [u8; 800] = [b'm'; 800];
const WORKERS: [u32; 2] = [1, 2];

// === impl Plan ===

impl Plan {
    /// Carries the plan out on this thread, which it keeps to the senders' core from then on.
    /// Errors: [`MeasureError`]; messages that fail are figures of the report.
    pub fn carry_out(&self) -> Result<Report, MeasureError> {
        self.cores.work(self.measure())
    }

    async fn measure(&self) -> Result<Report, MeasureError> {
        let program = self.relay.clone().map_or_else(beside, Ok)?;
        let (mut stands, mut threads) = (Vec::new(), Vec::new());
        for workers in WORKERS {
            let cores = Cores { workers: Some(workers), ..self.cores };
            let house = House::of_relay(&program, false, &[], cores).await?;
            threads.push(house.process.threads()?);
            let post = house.post(DeviceKind::Ios, self.devices as usize, &MESSAGE).await?;
            let mail = Arc::new(Mail::to_relay(Form::Http1, &house.origin, &post)?);
            let (house, form, kind) = (Arc::new(house), Form::Http1, DeviceKind::Ios);
            let name = if workers == 1 { "one worker thread" } else { "two worker threads" };
            let seat = Seat { house, mail, form, kind };
            stands.push(Stand { name: name.to_owned(), seat, next: 0 });
        }
        let rows = self.rounds.compare(stands).await?;
        let Plan { devices, rounds: Rounds { messages, in_flight, .. }, .. } = *self;
        let missed = faults(&rows);
        Ok(Report { devices, messages, in_flight, threads, rows, missed })
    }
}

// === impl Report ===

impl Judged for Report {
    fn missed(&self) -> &[String] {
        &self.missed
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { messages, in_flight, .. } = self;
        writeln!(out, "{messages} messages a turn, {in_flight} in flight, medians")?;
        write_table(&self.rows, out)
    }
}
