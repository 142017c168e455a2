//! One turn of one program: a closed loop of messages, and what they cost it meanwhile.
//!
//! In: a seat and a load. Out: the turn's figures. The push service must have counted as many as
//! the senders; whether it has is the report's to judge.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::super::MeasureError;
use super::super::calm::Calm;
use super::super::child::own_cpu_us;
use super::house::House;
use super::line::Line;
use super::mail::{Form, Mail};
use super::process::machine_cpu_us;
use crate::device::DeviceKind;

/// Callers of one kind, before the program that they call.
pub(crate) struct Seat {
    pub(crate) house: Arc<House>,
    pub(crate) mail: Arc<Mail>,
    pub(crate) form: Form,
    /// Whose push service the messages reach.
    pub(crate) kind: DeviceKind,
}

/// What a turn carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// The number of the first request.
    pub(crate) first: usize,
    pub(crate) messages: usize,
    pub(crate) in_flight: usize,
    /// Those of HTTP/2; HTTP/1.1 has one for each request in flight.
    pub(crate) connections: usize,
    /// Of the push service.
    pub(crate) latency: Duration,
}

/// What one turn gave.
#[derive(Debug, Serialize)]
pub(crate) struct Turn {
    pub(super) sent: u64,
    pub(super) accepted: u64,
    pub(super) others: BTreeMap<String, u64>,
    /// What the push service itself counts.
    pub(super) arrived: u64,
    pub(super) rate_per_s: f64,
    /// CPU time of the program for each message.
    pub(super) cpu_us: f64,
    /// The share of a core that it used.
    pub(super) busy_percent: f64,
    /// CPU time of the senders and the push services for each message.
    pub(super) own_cpu_us: f64,
    /// Cores that other programs used meanwhile.
    pub(super) others_cores: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
}

const LIMIT: Duration = Duration::from_secs(300);

// === impl Seat ===

impl Seat {
    /// Takes a turn that others disturb as little as can be had.
    /// Errors: [`MeasureError`]; messages that fail are figures of the turn.
    pub(crate) async fn calm_turn(&self, load: Load, calm: Calm) -> Result<Turn, MeasureError> {
        calm.turn(async || self.turn(load).await, Turn::others_cores).await
    }

    /// Takes a turn.
    /// Errors: as above.
    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    pub(crate) async fn turn(&self, load: Load) -> Result<Turn, MeasureError> {
        let Seat { house, mail, form, kind } = self;
        let controls = house.stage.controls(*kind);
        controls.script.latency(load.latency);
        let fan = mail.fan();
        let (requests, in_flight) = (load.messages.div_ceil(fan), load.in_flight.div_ceil(fan));
        let sent = (requests * fan) as f64;
        let line = Line::open(&house.way, *form, mail, in_flight, load.connections).await?;
        let journal = &controls.journal;
        let (arrived, cpu, own_us) = (journal.accepted(), house.process.cpu()?, own_cpu_us()?);
        let (machine_us, begin) = (machine_cpu_us()?, Instant::now());
        let carried = timeout(LIMIT, line.carry(mail, load.first, requests, in_flight)).await;
        let tally = carried.map_err(|_| MeasureError::Missing("every answer in time"))??;
        let time = begin.elapsed();
        let cpu_us = house.process.cpu()?.since_us(&cpu);
        let own_us = (own_cpu_us()? - own_us) as f64;
        let others_us = machine_cpu_us()? - machine_us - cpu_us - own_us;
        let quantile = |q| tally.times_us.value_at_quantile(q) as f64 / 1_000.0;
        Ok(Turn {
            sent: (requests * fan) as u64,
            accepted: tally.accepted,
            others: tally.others.clone(),
            arrived: journal.accepted() - arrived,
            rate_per_s: tally.accepted as f64 / time.as_secs_f64(),
            cpu_us: cpu_us / sent,
            busy_percent: cpu_us / time.as_micros() as f64 * 100.0,
            own_cpu_us: own_us / sent,
            others_cores: (others_us / time.as_micros() as f64).max(0.0),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
        })
    }

    /// Leaves, and stops the program where nobody else has a seat there.
    /// Errors: it does not stop.
    pub(crate) async fn leave(self) -> Result<(), MeasureError> {
        match Arc::into_inner(self.house) {
            Some(house) => house.process.stop().await,
            None => Ok(()),
        }
    }
}

// === impl Turn ===

impl Turn {
    /// Gives the CPU time of the program for each message, in microseconds.
    pub(crate) fn cpu_us(&self) -> f64 {
        self.cpu_us
    }

    /// Gives the cores that other programs used meanwhile.
    pub(crate) fn others_cores(&self) -> f64 {
        self.others_cores
    }

    /// Whether every message was accepted, and the push service counts as many as the senders.
    pub(crate) fn is_whole(&self) -> bool {
        self.accepted == self.sent && self.arrived == self.accepted
    }
}
