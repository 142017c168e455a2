//! The first messages of a relay that has sent none: many at once, before it has a connection.
//!
//! In: a plan. Out: for each push service and round, with a new relay each time, how many access
//! tokens it fetched or signed, how many connections it opened, and the times from the one moment
//! at which all messages were sent. The relay opens nothing beforehand (`upstream.prewarm` is 0).

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::value_parser;
use comfy_table::{Table, presets};
use serde::Serialize;
use tokio::time::timeout;

use super::doors::house::House;
use super::doors::line::Line;
use super::doors::mail::{Form, Mail};
use super::doors::process::Cores;
use super::report::{Judged, missed};
use super::spread::{self, Spread};
use super::{MeasureError, beside};
use crate::device::DeviceKind;
use crate::fault::service_name;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// Messages at once, to as many devices.
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(1..=2_000))]
    messages: u32,
    /// HTTP/2 connections of the senders.
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// Rounds, each with new relays.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    #[command(flatten)]
    cores: Cores,
    /// JSON instead of a table.
    #[arg(long)]
    pub json: bool,
}

/// The figures of one measurement, with what they were taken at.
#[derive(Debug, Serialize)]
pub struct Report {
    messages: u32,
    connections: u32,
    rounds: u32,
    rows: Vec<Row>,
    missed: Vec<String>,
}

/// One push service.
#[derive(Debug, Serialize)]
struct Row {
    push_service: &'static str,
    p50_ms: Option<Spread>,
    p99_ms: Option<Spread>,
    tokens_max: u64,
    connections_max: u64,
    errors: u64,
    turns: Vec<Turn>,
}

/// What the first messages of one relay gave.
#[derive(Debug, Serialize)]
struct Turn {
    accepted: u64,
    others: BTreeMap<String, u64>,
    /// Fetched from FCM's token service, or seen by the other push services.
    tokens: u64,
    /// Those that carry messages.
    connections: u64,
    p50_ms: f64,
    p99_ms: f64,
}

const CONNECTIONS_MAX: u64 = 4;
const LIMIT: Duration = Duration::from_secs(60);
/// 800 become 1,024 once they are sealed and padded.
const MESSAGE: [u8; 800] = [b'm'; 800];

// === impl Plan ===

impl Plan {
    /// Carries the plan out on this thread, which it keeps to the senders' core from then on.
    /// Errors: [`MeasureError`]; messages that fail are figures of the report.
    pub fn carry_out(&self) -> Result<Report, MeasureError> {
        self.cores.work(self.measure())
    }

    async fn measure(&self) -> Result<Report, MeasureError> {
        let mut all: Vec<Vec<Turn>> = DeviceKind::ALL.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.rounds {
            for (kind, turns) in DeviceKind::ALL.into_iter().zip(&mut all) {
                turns.push(self.turn(kind).await?);
            }
        }
        let rows = DeviceKind::ALL.into_iter().zip(all);
        let rows: Vec<Row> = rows.map(|(kind, turns)| self.row(kind, turns)).collect();
        let holds = |bound: fn(&Row) -> bool| rows.iter().all(bound);
        let missed = missed(&[
            (holds(|row| row.errors == 0), "every message is accepted"),
            (holds(|row| row.tokens_max == 1), "one access token"),
            (holds(|row| row.connections_max <= CONNECTIONS_MAX), "at most 4 connections"),
        ])
        .collect();
        let Plan { messages, connections, rounds, .. } = *self;
        Ok(Report { messages, connections, rounds, rows, missed })
    }

    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    async fn turn(&self, kind: DeviceKind) -> Result<Turn, MeasureError> {
        let program = self.relay.clone().map_or_else(beside, Ok)?;
        let streams = i64::from(self.messages.div_ceil(self.connections).max(256));
        let keys = [("upstream.prewarm", 0), ("server.streams_per_connection_max", streams)];
        let house = House::of_relay(&program, false, &keys, self.cores).await?;
        let messages = self.messages as usize;
        let post = house.post(kind, messages, &MESSAGE).await?;
        let mail = Arc::new(Mail::to_relay(Form::Http2, &house.origin, &post)?);
        let connections = self.connections as usize;
        let line = Line::open(&house.way, Form::Http2, &mail, messages, connections).await?;
        let thrown = timeout(LIMIT, line.throw(&mail, messages)).await;
        let tally = thrown.map_err(|_| MeasureError::Missing("every answer in time"))??;
        let controls = house.stage.controls(kind);
        let stats = controls.connections.stats();
        // Google's token service shares FCM's origin here, but no connection with it.
        let is_fcm = kind == DeviceKind::Android;
        let (tokens, beside) = match is_fcm {
            true => (controls.journal.token_fetches(), 1),
            false => (controls.journal.credentials_seen() as u64, 0),
        };
        let turn = Turn {
            accepted: tally.accepted,
            others: tally.others.clone(),
            tokens,
            connections: (stats.len() as u64).saturating_sub(beside),
            p50_ms: tally.times_us.value_at_quantile(0.5) as f64 / 1_000.0,
            p99_ms: tally.times_us.value_at_quantile(0.99) as f64 / 1_000.0,
        };
        house.process.stop().await?;
        Ok(turn)
    }

    fn row(&self, kind: DeviceKind, turns: Vec<Turn>) -> Row {
        let most = |figure: fn(&Turn) -> u64| turns.iter().map(figure).max().unwrap_or(0);
        let sent = u64::from(self.messages);
        Row {
            push_service: service_name(kind),
            p50_ms: Spread::of(turns.iter().map(|turn| turn.p50_ms)),
            p99_ms: Spread::of(turns.iter().map(|turn| turn.p99_ms)),
            tokens_max: most(|turn| turn.tokens),
            connections_max: most(|turn| turn.connections),
            errors: turns.iter().map(|turn| sent - turn.accepted).sum(),
            turns,
        }
    }
}

// === impl Report ===

impl Judged for Report {
    fn missed(&self) -> &[String] {
        &self.missed
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { messages, rounds, .. } = self;
        writeln!(out, "{messages} first messages at once, {rounds} rounds, medians")?;
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(["to", "p50 ms", "p99 ms", "tokens", "connections", "not accepted"]);
        for row in &self.rows {
            table.add_row([
                row.push_service.to_owned(),
                spread::text(row.p50_ms, 1),
                spread::text(row.p99_ms, 1),
                row.tokens_max.to_string(),
                row.connections_max.to_string(),
                row.errors.to_string(),
            ]);
        }
        writeln!(out, "{table}")
    }
}
