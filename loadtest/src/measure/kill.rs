//! The NAS's daemon or the relay, killed again and again while notifications go out.
//!
//! In: both real programs, three devices, a victim, a seed. The push services fail in turns
//! meanwhile, one after the other: 503, 429, answers that never come, before and after a message
//! has been processed. Out: what is lost (nothing), what came twice, what a device shows twice
//! (nothing), and what the NAS's journal says of each delivery.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::value_parser;
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use sns_nas::client::message::Level;
use sns_nas::event::Raised;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use super::arrived::Arrived;
use super::child::RelayChild;
use super::nas_child::{NasChild, hand_in_until_taken, nas_beside};
use super::{MeasureError, beside};
use crate::device::DeviceKind;
use crate::sim::apns;
use crate::sim::script::{Answer, Random, Step};
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
    /// Which of the two is killed.
    #[arg(long, value_enum, default_value_t = Victim::Daemon)]
    victim: Victim,
    /// How often, while notifications are handed in.
    #[arg(long, default_value_t = 20, value_parser = value_parser!(u32).range(1..=500))]
    kills: u32,
    /// Notifications, each to three devices.
    #[arg(long, default_value_t = 2_000, value_parser = value_parser!(u32).range(500..=3_000))]
    notifications: u32,
    /// Seconds over which they are handed in.
    #[arg(long, default_value_t = 40, value_parser = value_parser!(u32).range(5..=600))]
    seconds: u32,
    /// The seed of the moments of the kills.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// JSON instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Victim {
    /// The NAS's daemon, `sns-nas run`.
    Daemon,
    /// The relay, `sns-relay serve`.
    Relay,
}

/// The process that is killed, and started again.
enum Doomed<'a> {
    Daemon(&'a mut NasChild),
    Relay(&'a mut RelayChild),
}

/// The relay's `server.request_timeout_ms`: answers that never come end soon.
const REQUEST_TIMEOUT_MS: i64 = 2_000;
/// What a push service takes when nothing is wrong.
const LATENCY: Duration = Duration::from_millis(20);
/// The longest between a count of notifications that is reached and the kill.
const KILL_AFTER_MS_MAX: usize = 200;
/// Retries end well within it, once nothing fails any more.
const DONE_LIMIT: Duration = Duration::from_secs(180);
/// Beyond the hand-in and the retries: starts, kills, pairings.
const REST_LIMIT: Duration = Duration::from_secs(300);

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
        stage.set_key("server.request_timeout_ms", REQUEST_TIMEOUT_MS);
        let mut relay = RelayChild::start(&program, &mut stage).await?;
        let (mut nas, devices) = NasChild::start(&nas_program, &stage, relay.url()).await?;
        for kind in DeviceKind::ALL {
            stage.controls(kind).script.latency(LATENCY);
        }
        let socket = nas.socket();
        let doomed = match self.victim {
            Victim::Daemon => Doomed::Daemon(&mut nas),
            Victim::Relay => Doomed::Relay(&mut relay),
        };
        let begin = Instant::now();
        let (count, counted) = watch::channel(0);
        let (ids, away_ms, ()) = tokio::try_join!(
            self.hand_in(&socket, begin, count),
            self.kill(doomed, counted),
            self.fail_in_turns(&stage, begin),
        )?;
        let handed_in = begin.elapsed();
        nas.wait_until_done(DONE_LIMIT).await?;
        let all = begin.elapsed();
        relay.stop().await?;
        let arrived = Arrived::look(&stage, &devices, &ids, &nas.records()?)?;
        Ok(Report::new(self, (handed_in, all), away_ms, arrived))
    }

    /// Hands them in evenly, those that a kill held up as fast as they are taken.
    async fn hand_in(
        &self,
        socket: &Path,
        begin: Instant,
        count: watch::Sender<u32>,
    ) -> Result<BTreeSet<Uuid>, MeasureError> {
        let mut ids = BTreeSet::new();
        for number in 0..self.notifications {
            sleep_until(begin + self.lasts() * number / self.notifications).await;
            let raised = Raised {
                level: Some(Level::ALL[number as usize % Level::ALL.len()]),
                text: Some(format!("notification {number}")),
                ..Raised::default()
            };
            ids.insert(hand_in_until_taken(socket, raised).await?);
            count.send_replace(number + 1);
        }
        Ok(ids)
    }

    /// Kills at random moments, one in each of as many equal parts of the hand-in. Gives for each
    /// how long the process was away, in milliseconds.
    async fn kill(
        &self,
        mut doomed: Doomed<'_>,
        mut counted: watch::Receiver<u32>,
    ) -> Result<Vec<u64>, MeasureError> {
        let mut random = Random::new(self.seed);
        let part = self.notifications / self.kills.min(self.notifications);
        let mut away_ms = Vec::new();
        for kill in 0..self.kills {
            let within = u32::try_from(random.below(part as usize)).unwrap_or(0);
            // All are handed in when the other end is gone.
            let _ = counted.wait_for(|count| *count >= kill * part + within).await;
            sleep(Duration::from_millis(random.below(KILL_AFTER_MS_MAX) as u64)).await;
            let killed = Instant::now();
            match &mut doomed {
                Doomed::Daemon(nas) => nas.kill_and_start().await?,
                Doomed::Relay(relay) => {
                    relay.kill().await?;
                    relay.start_again().await?;
                }
            }
            away_ms.push(u64::try_from(killed.elapsed().as_millis()).unwrap_or(u64::MAX));
        }
        Ok(away_ms)
    }

    /// Gives each failure a turn at each push service, with as long a pause before it.
    async fn fail_in_turns(&self, stage: &Stage, begin: Instant) -> Result<(), MeasureError> {
        let mut turns = Vec::new();
        for place in 0..failures(DeviceKind::Ios).len() {
            let turn = |kind| (stage.controls(kind), failures(kind)[place].clone());
            turns.extend(DeviceKind::ALL.map(turn));
        }
        let half_turn = self.lasts() / u32::try_from(2 * turns.len()).unwrap_or(u32::MAX);
        let mut at = begin;
        for (controls, failure) in turns {
            sleep_until(at + half_turn).await;
            controls.script.standing(failure);
            sleep_until(at + 2 * half_turn).await;
            controls.script.relent();
            at += 2 * half_turn;
        }
        Ok(())
    }

    fn lasts(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds))
    }
}

/// What a push service does in its turns. Apple names no time; after a 503 without a reason it
/// wants to be left alone for a quarter of an hour, when it shuts down for 10 s.
fn failures(kind: DeviceKind) -> [Step; 4] {
    let soon = |status| Answer::empty(status).with_header(RETRY_AFTER, HeaderValue::from(1));
    let unavailable = match kind {
        DeviceKind::Ios => apns::error(503, "Shutdown"),
        DeviceKind::Android | DeviceKind::Browser => soon(StatusCode::SERVICE_UNAVAILABLE),
    };
    [
        Step::Answer(unavailable),
        Step::Answer(soon(StatusCode::TOO_MANY_REQUESTS)),
        Step::Stall,
        Step::AcceptThenStall,
    ]
}
