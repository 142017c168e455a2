//! Overload: many times what the push service can take, for a while, and then as before.
//!
//! In: the relay's own program and an Apple whose connections carry few streams, each answer taking
//! its time: so the capacity is known, and a tenfold of it can be offered on a small machine. Out:
//! what was accepted against the peak, who waited how long, who was turned away how fast, the
//! relay's memory, and how soon all was as before. `--cpu` takes those limits away: then the
//! machine itself is the limit, and senders who are told to come again do so after a second.

use std::path::PathBuf;
use std::time::Duration;

use clap::value_parser;
use tokio::time::{Instant, sleep_until};

use super::child::RelayChild;
use super::crowd::Protocol;
use super::mix::{Access, Class, Course, Flow, soon};
use super::pace::Pace;
use super::{MeasureError, beside};
use crate::device::DeviceKind;
use crate::stage::Stage;
use report::Report;

mod cpu;

pub mod report;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// Milliseconds that the push service takes.
    #[arg(long, default_value_t = 40, value_parser = value_parser!(u32).range(1..=60_000))]
    latency_ms: u32,
    /// Streams that it allows on each of the relay's four connections.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=1_000))]
    streams: u32,
    /// How many times the capacity is offered.
    #[arg(long, default_value_t = 10, value_parser = value_parser!(u32).range(2..=100))]
    factor: u32,
    /// Seconds of that.
    #[arg(long, default_value_t = 60, value_parser = value_parser!(u32).range(5..=3_600))]
    seconds: u32,
    /// Alarms, in percent of the capacity, throughout.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=50))]
    alarm_percent: u32,
    /// The relay's server.request_timeout_ms: when an answer is due.
    #[arg(long, default_value_t = 5_000, value_parser = value_parser!(u32).range(100..=20_000))]
    request_timeout_ms: u32,
    /// MiB that the relay may have resident at most.
    #[arg(long, default_value_t = 256)]
    memory_mib_max: u64,
    /// The senders speak HTTP/1.1 instead of HTTP/2.
    #[arg(long)]
    http1: bool,
    /// No limits at the push service: the machine is the limit.
    #[arg(long, conflicts_with_all = ["latency_ms", "streams"])]
    cpu: bool,
    /// JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// The phases, each a range of seconds from the beginning.
#[derive(Clone, Copy, Debug)]
pub(super) struct Phases {
    overload_s: usize,
}

/// What was seen of one run.
pub(super) struct Seen {
    pub(super) ordinary: Course,
    pub(super) alarms: Course,
    /// The relay's memory in KiB, with the time from the beginning.
    pub(super) memory: Vec<(Duration, u64)>,
}

/// The relay's `upstream.connections_max`.
const UPSTREAM_CONNECTIONS: u32 = 4;
const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// More than the relay lets wait and be under way together.
const HTTP1_CONNECTIONS: usize = 2_500;
const HTTP2_CONNECTIONS: usize = 16;

// === impl Plan ===

impl Plan {
    /// Carries the plan out.
    /// Errors: [`MeasureError`]; what was missed is in the report.
    pub async fn carry_out(&self) -> Result<Report, MeasureError> {
        let program = self.relay.clone().map_or_else(beside, Ok)?;
        let mut stage = Stage::set().await?;
        stage.set_key("server.request_timeout_ms", i64::from(self.request_timeout_ms));
        stage.set_key("upstream.connections_max", i64::from(UPSTREAM_CONNECTIONS));
        let relay = RelayChild::start(&program, &mut stage).await?;
        if self.cpu {
            let report = cpu::measure(self, &relay, &stage).await?;
            relay.stop().await?;
            return Ok(report);
        }
        stage.apns.script().latency(Duration::from_millis(u64::from(self.latency_ms)));
        stage.apns.connections().set_stream_limit(self.streams);
        let gather =
            |class| Flow::gather(DeviceKind::Ios, class, &stage, relay.url(), self.access());
        let (ordinary, alarms) = (gather(Class::Ordinary).await?, gather(Class::Alarm).await?);
        let phases = Phases { overload_s: self.seconds as usize };
        let seen = self.overload(&relay, &ordinary, &alarms, phases).await?;
        let mut verified = seen.ordinary.verify(stage.apns.journal());
        verified += seen.alarms.verify(stage.apns.journal());
        drop((ordinary, alarms));
        relay.stop().await?;
        Ok(Report::new(self, phases, &seen, verified))
    }

    async fn overload(
        &self,
        relay: &RelayChild,
        ordinary: &Flow,
        alarms: &Flow,
        phases: Phases,
    ) -> Result<Seen, MeasureError> {
        let capacity = self.capacity_per_s();
        let step = |rate_per_s, seconds: usize| Pace { rate_per_s, seconds: seconds as u32 };
        let steps = [
            step(capacity / 2, Phases::WARM_S + Phases::BEFORE_S),
            step(capacity + capacity / 5, Phases::PEAK_S),
            step(capacity * self.factor, phases.overload_s),
            step(capacity / 2, Phases::AFTER_S),
        ];
        let alarm_rate = (capacity * self.alarm_percent / 100).max(1);
        let alarm_steps = [step(alarm_rate, phases.end())];
        let (begin, limit) = (soon(), self.limit());
        let (ordinary, alarms, memory) = tokio::try_join!(
            ordinary.run(&steps, begin, limit),
            alarms.run(&alarm_steps, begin, limit),
            sample(relay, begin, phases.end()),
        )?;
        Ok(Seen { ordinary, alarms, memory })
    }

    fn access(&self) -> Access {
        match self.http1 {
            true => Access { protocol: Protocol::Http1, connections: HTTP1_CONNECTIONS },
            false => Access { protocol: Protocol::Http2, connections: HTTP2_CONNECTIONS },
        }
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(u64::from(self.request_timeout_ms))
    }

    fn capacity_per_s(&self) -> u32 {
        (UPSTREAM_CONNECTIONS * self.streams * 1_000 / self.latency_ms).max(2)
    }
}

// === impl Phases ===

impl Phases {
    const WARM_S: usize = 3;
    const BEFORE_S: usize = 10;
    const PEAK_S: usize = 10;
    const AFTER_S: usize = 15;
    /// The queue fills first.
    const RISE_S: usize = 2;

    fn before(self) -> std::ops::Range<usize> {
        Self::WARM_S..Self::WARM_S + Self::BEFORE_S
    }

    fn peak(self) -> std::ops::Range<usize> {
        let from = Self::WARM_S + Self::BEFORE_S;
        from + Self::RISE_S..from + Self::PEAK_S
    }

    fn overload(self) -> std::ops::Range<usize> {
        let from = self.peak().end;
        from..from + self.overload_s
    }

    fn after(self) -> std::ops::Range<usize> {
        let from = self.overload().end;
        from..from + Self::AFTER_S
    }

    fn end(self) -> usize {
        self.after().end
    }
}

/// Reads the relay's memory now and then, for so many seconds from `begin` on.
async fn sample(
    relay: &RelayChild,
    begin: Instant,
    seconds: usize,
) -> Result<Vec<(Duration, u64)>, MeasureError> {
    let end = begin + Duration::from_secs(seconds as u64);
    let mut samples = Vec::new();
    let mut at = begin;
    while at < end {
        sleep_until(at).await;
        samples.push((at - begin, relay.memory_now_kib()?));
        at += SAMPLE_EVERY;
    }
    Ok(samples)
}
