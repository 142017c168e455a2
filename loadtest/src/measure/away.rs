//! A relay that is away for a while, and what its NAS does meanwhile and afterwards.
//!
//! In: both real programs, three devices; the relay is killed, and notifications of all levels are
//! handed in until it is started again. Out: how often the NAS knocks meanwhile, whether the alarms
//! go first afterwards, how many messages come in one second and in a tenth of one, how many are
//! under way at once and over how many connections, and whether anything is lost.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::value_parser;
use sns_nas::client::message::Level;
use sns_nas::clock::now_unix_ms;
use sns_nas::content::Content;
use sns_nas::event::Raised;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use uuid::Uuid;

use super::arrived::{Arrived, contents};
use super::child::RelayChild;
use super::nas_child::{NasChild, hand_in_until_taken, nas_beside};
use super::{MeasureError, beside};
use crate::device::{Device, DeviceKind};
use crate::stage::Stage;
use report::Report;

pub mod report;

/// What to measure.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// The NAS's program; sns-nas beside this one unless told otherwise.
    #[arg(long)]
    nas: Option<PathBuf>,
    /// Seconds that the relay is away.
    #[arg(long, default_value_t = 60, value_parser = value_parser!(u32).range(2..=3_600))]
    seconds: u32,
    /// Notifications handed in meanwhile, each to three devices; every tenth is an alarm.
    #[arg(long, default_value_t = 1_000, value_parser = value_parser!(u32).range(10..=3_000))]
    notifications: u32,
    /// JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// What is seen of one run.
pub(super) struct Seen {
    /// When somebody came to the relay's port while it was away.
    pub(super) knocks: Vec<Duration>,
    /// When deliveries were accepted, in milliseconds after the relay was started again; sorted.
    pub(super) accepted_ms: Vec<u64>,
    /// For each device the levels of what it got, in that order.
    pub(super) levels: Vec<Vec<Level>>,
    pub(super) height: Height,
}

/// The most that the relay said of itself after its return.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(super) struct Height {
    /// `sns_connections`.
    pub(super) connections: u64,
    /// `sns_requests_in_flight`.
    pub(super) in_flight: u64,
}

/// What a push service takes.
const LATENCY: Duration = Duration::from_millis(20);
/// The longest wait between two knocks is 19 s.
const DONE_LIMIT: Duration = Duration::from_secs(120);
const REST_LIMIT: Duration = Duration::from_secs(180);
const LOOK_EVERY: Duration = Duration::from_millis(20);

// === impl Plan ===

impl Plan {
    /// Carries the plan out, in bounded time.
    /// Errors: [`MeasureError`]; what was missed is in the report.
    pub async fn carry_out(&self) -> Result<Report, MeasureError> {
        let limit = self.lasts() + DONE_LIMIT + REST_LIMIT;
        let overdue = MeasureError::Overdue("the whole run");
        timeout(limit, self.run()).await.unwrap_or(Err(overdue))
    }

    async fn run(&self) -> Result<Report, MeasureError> {
        let program = self.relay.clone().map_or_else(beside, Ok)?;
        let nas_program = self.nas.clone().map_or_else(nas_beside, Ok)?;
        let mut stage = Stage::set().await?;
        let mut relay = RelayChild::start(&program, &mut stage).await?;
        let (nas, devices) = NasChild::start(&nas_program, &stage, relay.url()).await?;
        for kind in DeviceKind::ALL {
            stage.controls(kind).script.latency(LATENCY);
        }
        relay.kill().await?;
        let begin = Instant::now();
        let port = TcpListener::bind(relay.address()).await?;
        let socket = nas.socket();
        let (knocks, ids) =
            tokio::try_join!(turn_away(port, begin, self.lasts()), self.hand_in(&socket, begin),)?;
        let back_ms = now_unix_ms();
        relay.start_again().await?;
        let mut height = Height::default();
        tokio::select! {
            done = nas.wait_until_done(DONE_LIMIT) => done?,
            failed = height.watch(&relay) => failed?,
        }
        relay.stop().await?;
        let records = nas.records()?;
        let fates = records.iter().flat_map(|record| &record.deliveries);
        let settled_ms = fates.filter_map(|fate| fate.settled_ms);
        let mut accepted_ms: Vec<u64> =
            settled_ms.map(|at_ms| at_ms.saturating_sub(back_ms)).collect();
        accepted_ms.sort_unstable();
        let arrived = Arrived::look(&stage, &devices, &ids, &records)?;
        let levels =
            devices.iter().map(|device| levels(&stage, device)).collect::<Result<_, _>>()?;
        Ok(Report::new(self, Seen { knocks, accepted_ms, levels, height }, arrived))
    }

    /// Hands them in evenly over nine tenths of the time.
    async fn hand_in(&self, socket: &Path, begin: Instant) -> Result<BTreeSet<Uuid>, MeasureError> {
        let mut ids = BTreeSet::new();
        for number in 0..self.notifications {
            sleep_until(begin + self.lasts() * 9 * number / self.notifications / 10).await;
            let level = match number % 10 {
                9 => Level::Error,
                0 | 3 | 6 => Level::Warn,
                _ => Level::Info,
            };
            let text = format!("notification {number}");
            let raised = Raised { level: Some(level), text: Some(text), ..Raised::default() };
            ids.insert(hand_in_until_taken(socket, raised).await?);
        }
        Ok(ids)
    }

    fn lasts(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds))
    }
}

// === impl Height ===

impl Height {
    /// Looks at the relay now and then, until it cannot be looked at.
    async fn watch(&mut self, relay: &RelayChild) -> Result<(), MeasureError> {
        loop {
            let connections = relay.metric("sns_connections", "").await?;
            let in_flight = relay.metric("sns_requests_in_flight", "").await?;
            self.connections = self.connections.max(connections);
            self.in_flight = self.in_flight.max(in_flight);
            sleep(LOOK_EVERY).await;
        }
    }
}

/// Stands where the relay was and closes every connection at once; gives when each came.
async fn turn_away(
    port: TcpListener,
    begin: Instant,
    lasts: Duration,
) -> Result<Vec<Duration>, MeasureError> {
    let mut knocks = Vec::new();
    while let Ok(accepted) = timeout_at(begin + lasts, port.accept()).await {
        drop(accepted?);
        knocks.push(begin.elapsed());
    }
    Ok(knocks)
}

/// Gives the levels of what a device got, in that order.
fn levels(stage: &Stage, device: &Device) -> Result<Vec<Level>, MeasureError> {
    let contents = contents(stage, device)?;
    let level = |content: &Content| content.body.event().map_or(Level::Info, |event| event.level);
    Ok(contents.iter().map(level).collect())
}
