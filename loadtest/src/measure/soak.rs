//! A soak: an ordinary load for a long time, while one fault after the other strikes a push
//! service at random.
//!
//! In: the relay's own program, messages and alarms to three push services, a seed. Out: the
//! relay's memory, file descriptors and tasks at the start (after a warm-up) and at the end (after
//! a quiet minute), and what the push services' journals say of every single message. In the
//! warm-up all push services fall silent at once: an allocator keeps what a process once needed,
//! so only memory beyond that height is growth.

use std::path::PathBuf;
use std::time::Duration;

use clap::value_parser;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::child::RelayChild;
use super::crowd::Protocol;
use super::mix::{Access, Class, Course, Flow, Verified, soon};
use super::pace::Pace;
use super::{MeasureError, beside};
use crate::device::DeviceKind;
use crate::fault::Fault;
use crate::fault::timeline::Timeline;
use crate::sim::server::Controls;
use crate::stage::Stage;
use report::Report;

pub mod report;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// Minutes in all, warm-up and the quiet end included.
    #[arg(long, default_value_t = 20, value_parser = value_parser!(u32).range(1..=10_000))]
    minutes: u32,
    /// Messages in a second, over all push services.
    #[arg(long, default_value_t = 500, value_parser = value_parser!(u32).range(10..=100_000))]
    rate_per_s: u32,
    /// Alarms among them, in percent.
    #[arg(long, default_value_t = 5, value_parser = value_parser!(u32).range(1..=50))]
    alarm_percent: u32,
    /// Seconds of the warm-up, and after the last fault.
    #[arg(long, default_value_t = 60, value_parser = value_parser!(u32).range(20..=600))]
    quiet_s: u32,
    /// Seconds of a fault, and between two, at most.
    #[arg(long, default_value_t = 15, value_parser = value_parser!(u32).range(2..=600))]
    fault_s_max: u32,
    /// The seed of the faults: the same gives the same again.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The relay's server.request_timeout_ms.
    #[arg(long, default_value_t = 5_000, value_parser = value_parser!(u32).range(100..=20_000))]
    request_timeout_ms: u32,
    /// JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// The relay's process at one moment.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Sample {
    at_s: u64,
    memory_kib: u64,
    open_files: u64,
    tasks: u64,
    /// CPU time since the sample before, in percent of one core.
    cpu_percent: u64,
}

const SAMPLE_EVERY: Duration = Duration::from_secs(10);
const FAULT_MIN: Duration = Duration::from_secs(1);
const LATENCY: Duration = Duration::from_millis(20);
/// What each service allows when nothing is wrong, as a fault that ends restores it.
const STREAM_LIMIT: u32 = 100;
const ACCESS: Access = Access { protocol: Protocol::Http2, connections: 8 };

// === impl Plan ===

impl Plan {
    /// Carries the plan out.
    /// Errors: [`MeasureError`]; what was missed is in the report.
    pub async fn carry_out(&self) -> Result<Report, MeasureError> {
        let program = self.relay.clone().map_or_else(beside, Ok)?;
        let mut stage = Stage::set().await?;
        stage.set_key("server.request_timeout_ms", i64::from(self.request_timeout_ms));
        let relay = RelayChild::start(&program, &mut stage).await?;
        let (mut messages, mut alarms) = (Vec::new(), Vec::new());
        for kind in DeviceKind::ALL {
            let gather = |class| Flow::gather(kind, class, &stage, relay.url(), ACCESS);
            messages.push(gather(Class::Ordinary).await?);
            alarms.push(gather(Class::Alarm).await?);
        }
        let controls: Vec<Controls> = messages.iter().map(|flow| flow.controls().clone()).collect();
        for controls in &controls {
            controls.connections.set_stream_limit(STREAM_LIMIT);
            controls.script.latency(LATENCY);
        }
        let timeline = self.timeline();
        let begin = soon();
        let (messages, alarms, samples, ()) = tokio::try_join!(
            self.run(&messages, self.each_per_s(100 - self.alarm_percent), begin),
            self.run(&alarms, self.each_per_s(self.alarm_percent), begin),
            sample(&relay, begin, self.total()),
            self.strike(&timeline, &controls, begin),
        )?;
        let mut verified = Verified::default();
        for (place, controls) in controls.iter().enumerate() {
            verified += messages[place].verify(&controls.journal);
            verified += alarms[place].verify(&controls.journal);
        }
        relay.stop().await?;
        Ok(Report::new(self, (&messages, &alarms), &timeline, samples, verified))
    }

    async fn run(
        &self,
        flows: &[Flow],
        rate_per_s: u32,
        begin: Instant,
    ) -> Result<Vec<Course>, MeasureError> {
        let [one, two, three] = flows else {
            return Err(MeasureError::Missing("three push services"));
        };
        let steps = [Pace { rate_per_s, seconds: self.minutes * 60 }];
        let limit = self.limit();
        let (one, two, three) = tokio::try_join!(
            one.run(&steps, begin, limit),
            two.run(&steps, begin, limit),
            three.run(&steps, begin, limit),
        )?;
        Ok(vec![one, two, three])
    }

    /// One silence of all push services at once in the warm-up, and the faults after it.
    async fn strike(
        &self,
        timeline: &Timeline,
        services: &[Controls],
        begin: Instant,
    ) -> Result<(), MeasureError> {
        sleep_until(begin + self.quiet() / 4).await;
        let silences: Vec<_> =
            services.iter().map(|controls| Fault::Stall.begin(controls, false)).collect();
        sleep_until(begin + self.quiet() / 4 + self.limit()).await;
        for (silence, controls) in silences.into_iter().zip(services) {
            silence.end();
            controls.script.latency(LATENCY);
        }
        play(timeline, services, begin + self.quiet()).await;
        Ok(())
    }

    /// Faults from the end of the warm-up on, until the quiet end.
    fn timeline(&self) -> Timeline {
        let total = self.total().saturating_sub(2 * self.quiet());
        let longest = Duration::from_secs(u64::from(self.fault_s_max));
        Timeline::random(self.seed, DeviceKind::ALL.len(), (FAULT_MIN, longest), total)
    }

    /// The messages of one class in a second to each push service.
    fn each_per_s(&self, percent: u32) -> u32 {
        (self.rate_per_s * percent / 100 / 3).max(1)
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(u64::from(self.request_timeout_ms))
    }

    fn quiet(&self) -> Duration {
        Duration::from_secs(u64::from(self.quiet_s))
    }

    fn total(&self) -> Duration {
        Duration::from_secs(u64::from(self.minutes) * 60)
    }
}

/// Plays the faults; each leaves its service as it was, its latency included.
async fn play(timeline: &Timeline, services: &[Controls], begin: Instant) {
    for act in timeline.acts() {
        let Some(controls) = services.get(act.service) else { continue };
        sleep_until(begin + act.at).await;
        let ongoing = act.fault.begin(controls, act.processed);
        sleep_until(begin + act.at + act.lasts).await;
        ongoing.end();
        controls.script.latency(LATENCY);
    }
}

/// Looks at the relay's process now and then, until `total` after `begin`.
async fn sample(
    relay: &RelayChild,
    begin: Instant,
    total: Duration,
) -> Result<Vec<Sample>, MeasureError> {
    let mut samples = Vec::new();
    let mut before_us = relay.cpu_us()?;
    let mut at = begin + SAMPLE_EVERY;
    while at <= begin + total {
        sleep_until(at).await;
        let now_us = relay.cpu_us()?;
        samples.push(Sample {
            at_s: (at - begin).as_secs(),
            memory_kib: relay.memory_now_kib()?,
            open_files: relay.open_files()?,
            tasks: relay.metric("sns_tasks", "").await?,
            cpu_percent: (now_us - before_us) / (SAMPLE_EVERY.as_secs() * 10_000),
        });
        before_us = now_us;
        at += SAMPLE_EVERY;
    }
    Ok(samples)
}
