//! A push service that is away for a while under load, and comes back.
//!
//! In: the relay's own program, the same load to each of three push services, one fault at one of
//! them. Out: what its senders hear meanwhile, how often it is knocked at, how long after its
//! return the first message is accepted, whether all come at once then, and what the others' own
//! messages notice of it.

use std::path::PathBuf;
use std::time::Duration;

use clap::value_parser;
use tokio::time::{Instant, sleep_until};

use super::child::RelayChild;
use super::crowd::Protocol;
use super::mix::{Access, Class, Flow, soon};
use super::pace::Pace;
use super::{MeasureError, beside};
use crate::device::DeviceKind;
use crate::fault::Fault;
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
    /// Which push service goes.
    #[arg(long, value_enum, default_value_t = Service::Apns)]
    service: Service,
    /// How it is away: Down, BlackHole, ConnectionsFrozen, Stall, Unavailable and so on.
    #[arg(long, default_value = "Down", value_parser = super::faults::named)]
    fault: Fault,
    /// Messages in a second to each push service.
    #[arg(long, default_value_t = 200, value_parser = value_parser!(u32).range(1..=10_000))]
    rate_per_s: u32,
    /// Seconds that it is away.
    #[arg(long, default_value_t = 30, value_parser = value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// The relay's server.request_timeout_ms: when an answer is due.
    #[arg(long, default_value_t = 5_000, value_parser = value_parser!(u32).range(100..=20_000))]
    request_timeout_ms: u32,
    /// JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// The push services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Service {
    /// Apple.
    Apns,
    /// Google.
    Fcm,
    /// Mozilla.
    Webpush,
}

/// What a push service saw until one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sight {
    /// Attempts to connect, whatever met them.
    pub(super) met: u64,
    /// Whole requests.
    pub(super) requests: u64,
    /// Connections that are open.
    pub(super) live: usize,
}

pub(super) const BEFORE_S: usize = 10;
pub(super) const AFTER_S: usize = 20;
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// What a push service takes when nothing is wrong.
const LATENCY: Duration = Duration::from_millis(20);
/// What each service allows when nothing is wrong, as a fault that ends restores it.
const STREAM_LIMIT: u32 = 100;
/// All of a service's messages within their deadline have room.
const ACCESS: Access = Access { protocol: Protocol::Http2, connections: 16 };

// === impl Plan ===

impl Plan {
    /// Carries the plan out.
    /// Errors: [`MeasureError`]; what was missed is in the report.
    pub async fn carry_out(&self) -> Result<Report, MeasureError> {
        let program = self.relay.clone().map_or_else(beside, Ok)?;
        let mut stage = Stage::set().await?;
        stage.set_key("server.request_timeout_ms", i64::from(self.request_timeout_ms));
        let relay = RelayChild::start(&program, &mut stage).await?;
        let mut flows = Vec::new();
        for kind in DeviceKind::ALL {
            let flow = Flow::gather(kind, Class::Ordinary, &stage, relay.url(), ACCESS).await?;
            flow.controls().connections.set_stream_limit(STREAM_LIMIT);
            flow.controls().script.latency(LATENCY);
            flows.push(flow);
        }
        let [one, two, three] = flows.as_slice() else {
            return Err(MeasureError::Missing("three push services"));
        };
        let steps = [Pace { rate_per_s: self.rate_per_s, seconds: self.end_s() as u32 }];
        let limit = Duration::from_millis(u64::from(self.request_timeout_ms));
        let begin = soon();
        let controls = flows[self.service as usize].controls();
        let (one, two, three, sights, ()) = tokio::try_join!(
            one.run(&steps, begin, limit),
            two.run(&steps, begin, limit),
            three.run(&steps, begin, limit),
            look(controls, begin, self.end_s()),
            self.be_away(controls, begin),
        )?;
        let courses = vec![one, two, three];
        let mut verified = super::mix::Verified::default();
        for (flow, course) in flows.iter().zip(&courses) {
            verified += course.verify(&flow.controls().journal);
        }
        drop(flows);
        relay.stop().await?;
        Ok(Report::new(self, &courses, &sights, verified))
    }

    async fn be_away(&self, controls: &Controls, begin: Instant) -> Result<(), MeasureError> {
        sleep_until(begin + Duration::from_secs(BEFORE_S as u64)).await;
        let ongoing = self.fault.begin(controls, false);
        sleep_until(begin + Duration::from_secs(self.back_s() as u64)).await;
        ongoing.end();
        controls.script.latency(LATENCY);
        Ok(())
    }

    /// When it is back, in seconds from the beginning.
    pub(super) fn back_s(&self) -> usize {
        BEFORE_S + self.seconds as usize
    }

    pub(super) fn end_s(&self) -> usize {
        self.back_s() + AFTER_S
    }
}

// === impl Service ===

impl Service {
    /// Gives its name, as the reports show it.
    pub(super) fn name(self) -> &'static str {
        crate::fault::service_name(DeviceKind::ALL[self as usize])
    }
}

/// Looks at a push service now and then, for so many seconds from `begin` on.
async fn look(
    controls: &Controls,
    begin: Instant,
    seconds: usize,
) -> Result<Vec<Sight>, MeasureError> {
    let end = begin + Duration::from_secs(seconds as u64);
    let mut sights = Vec::new();
    let mut at = begin;
    while at <= end {
        sleep_until(at).await;
        let (connections, journal) = (&controls.connections, &controls.journal);
        let (met, live) = (connections.met(), connections.live());
        sights.push(Sight { met, requests: journal.requests(), live });
        at += LOOK_EVERY;
    }
    Ok(sights)
}
