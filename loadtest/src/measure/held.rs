//! What messages cost that are in flight: many at once at a push service that takes its time.
//!
//! In: a plan. Out: how much the relay's memory grows by them and their callers' connections
//! together. The growth is between a relay that has carried a few messages and the moment at which
//! the push service has all of them.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ValueEnum, value_parser};
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::doors::house::House;
use super::doors::line::Line;
use super::doors::mail::{Form, Mail};
use super::doors::process::Cores;
use super::idle::{OTHER_FILES, allow_files, settled};
use super::report::{Judged, missed};
use super::{MeasureError, beside};
use crate::device::DeviceKind;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// What the callers speak, in clear text.
    #[arg(long, value_enum, default_value_t = Kind::Http1)]
    kind: Kind,
    /// Messages in flight; the relay's pool has room for them.
    #[arg(long, default_value_t = 5_000, value_parser = value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// Connections of HTTP/2; HTTP/1.1 has one for each message.
    #[arg(long, default_value_t = 50, value_parser = value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// Milliseconds that the push service takes for each message.
    #[arg(long, default_value_t = 4_000, value_parser = value_parser!(u32).range(100..=15_000))]
    latency_ms: u32,
    #[command(flatten)]
    cores: Cores,
    /// JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// What the callers speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A connection for each message.
    Http1,
    /// A stream for each message.
    Http2,
}

/// The figures of one measurement.
#[derive(Debug, Serialize)]
pub struct Report {
    kind: Kind,
    in_flight: u32,
    connections: u32,
    latency_ms: u32,
    /// The most that the push service had at one look.
    at_once: usize,
    accepted: u64,
    memory_before_kib: u64,
    memory_held_kib: u64,
    mib_per_10000: f64,
    missed: Vec<String>,
}

const WARM_UP: usize = 64;
const MESSAGE: [u8; 800] = [b'm'; 800];
const POLL: Duration = Duration::from_millis(100);
const LIMIT: Duration = Duration::from_secs(60);
/// No rate and no share of the relay's is what is measured.
const ROOM: i64 = 100_000;

// === impl Plan ===

impl Plan {
    /// Carries the plan out on this thread, which it keeps to the senders' core from then on.
    /// Errors: [`MeasureError`], also where the system allows too few files.
    pub fn carry_out(&self) -> Result<Report, MeasureError> {
        allow_files(u64::from(self.in_flight) + OTHER_FILES)?;
        self.cores.work(self.measure())
    }

    async fn measure(&self) -> Result<Report, MeasureError> {
        let program = self.relay.clone().map_or_else(beside, Ok)?;
        let house = House::of_relay(&program, false, &self.room(), self.cores).await?;
        let in_flight = self.in_flight as usize;
        let post = house.post(DeviceKind::Ios, in_flight, &MESSAGE).await?;
        let form = self.kind.form();
        let mail = Arc::new(Mail::to_relay(form, &house.origin, &post)?);
        let controls = house.stage.controls(DeviceKind::Ios);
        controls.connections.set_stream_limit(self.in_flight);
        let warm_up = Line::open(&house.way, form, &mail, 1, 1).await?;
        warm_up.carry(&mail, 0, WARM_UP, 1).await?;
        let memory_before_kib = settled(&house).await?;
        controls.script.latency(Duration::from_millis(u64::from(self.latency_ms)));
        let connections = self.connections as usize;
        let line = Line::open(&house.way, form, &mail, in_flight, connections).await?;
        let (mut at_once, mut memory_held_kib) = (0, memory_before_kib);
        let looks = async {
            loop {
                sleep(POLL).await;
                let now = controls.connections.stats().iter().map(|one| one.streams_open).sum();
                let memory_kib = house.process.memory_kib();
                at_once = at_once.max(now);
                memory_held_kib = memory_held_kib.max(memory_kib.unwrap_or(0));
            }
        };
        let tally = tokio::select! {
            tally = timeout(LIMIT, line.carry(&mail, 0, in_flight, in_flight)) => tally,
            never = looks => never,
        };
        let tally = tally.map_err(|_| MeasureError::Missing("every answer in time"))??;
        house.process.stop().await?;
        let growth_kib = memory_held_kib.saturating_sub(memory_before_kib);
        let is_whole = tally.accepted == u64::from(self.in_flight);
        Ok(Report {
            kind: self.kind,
            in_flight: self.in_flight,
            connections: if self.kind == Kind::Http1 { self.in_flight } else { self.connections },
            latency_ms: self.latency_ms,
            at_once,
            accepted: tally.accepted,
            memory_before_kib,
            memory_held_kib,
            #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
            mib_per_10000: growth_kib as f64 * 10_000.0 / f64::from(self.in_flight) / 1_024.0,
            missed: missed(&[
                (is_whole, "every message is accepted"),
                (at_once >= in_flight, "the push service has all of them at once"),
            ])
            .collect(),
        })
    }

    /// What the relay must allow: all of them at its doors and at the push service.
    fn room(&self) -> [(&'static str, i64); 5] {
        [
            ("server.in_flight_max", ROOM),
            ("server.streams_per_connection_max", i64::from(self.in_flight.max(100))),
            ("limits.messages_in_flight_max", ROOM),
            ("upstream.streams_per_connection_max", i64::from(self.in_flight)),
            ("upstream.waiting_max", ROOM),
        ]
    }
}

// === impl Kind ===

impl Kind {
    const fn form(self) -> Form {
        match self {
            Self::Http1 => Form::Http1,
            Self::Http2 => Form::Http2,
        }
    }
}

// === impl Report ===

impl Judged for Report {
    fn missed(&self) -> &[String] {
        &self.missed
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let kind = self.kind.to_possible_value();
        writeln!(
            out,
            "{} messages in flight, {} over {} connections: {} KiB before, {} KiB with them",
            self.at_once,
            kind.as_ref().map_or("", |kind| kind.get_name()),
            self.connections,
            self.memory_before_kib,
            self.memory_held_kib
        )?;
        writeln!(out, "{:.1} MiB for each 10,000", self.mib_per_10000)
    }
}
