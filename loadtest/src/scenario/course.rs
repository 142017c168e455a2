//! What happens in a scenario, from its first message to its last answer.
//!
//! In: settings, the push services, a drive. Out: the books are full. Afterwards every push service
//! is as it was.

use std::time::Duration;

use tokio::time::sleep_until;

use super::drive::{Drive, Errands};
use super::knee::{self, STEP_S, Step};
use super::options::{Arrivals, Name, Settings};
use super::timetable::{even, poisson, rising, scattered, spread};
use crate::device::DeviceKind;
use crate::measure::MeasureError;
use crate::sim::script::{GoAway, Random};
use crate::stage::Stage;

/// Alarms of each NAS in a power cut.
const ALARMS: u32 = 5;
const SEED: u64 = 1;

/// Tells the push services what they must know before the first connection.
pub(super) fn prepare(settings: &Settings, stage: &Stage) {
    if let Some(every) = settings.goaway_every {
        let script = &stage.controls(DeviceKind::Ios).script;
        script.go_away_after(every, GoAway::cutting());
    }
}

/// Plays a scenario; gives the steps of a ramp.
/// Errors: the clock's thread.
pub(super) async fn run(
    settings: &Settings,
    stage: &Stage,
    drive: &Drive,
    errands: &Errands,
) -> Result<Vec<Step>, MeasureError> {
    let apple = &stage.controls(DeviceKind::Ios).script;
    let mut steps = Vec::new();
    match (settings.apple_latency_ms, settings.p99_ms_max) {
        (Some(latency_ms), _) => {
            let latency = Duration::from_millis(u64::from(latency_ms));
            let third = settings.time() / 3;
            let acts = async {
                sleep_until(drive.begin + third).await;
                apple.latency(latency);
                sleep_until(drive.begin + third * 2).await;
                apple.latency(Duration::ZERO);
                Ok(())
            };
            tokio::try_join!(load(settings, drive, errands), acts)?;
        }
        (None, Some(p99_ms_max)) => steps = ramp(settings, p99_ms_max, drive, errands).await?,
        (None, None) => load(settings, drive, errands).await?,
    }
    apple.reset();
    Ok(steps)
}

async fn load(settings: &Settings, drive: &Drive, errands: &Errands) -> Result<(), MeasureError> {
    let (time, count) = (settings.time(), count(settings));
    let mut random = Random::new(SEED);
    let moments = match (settings.arrivals, settings.rate_per_s, count) {
        (Arrivals::Closed, _, _) => {
            let in_flight = settings.in_flight.unwrap_or(1) as usize;
            let count = count.unwrap_or(usize::MAX);
            return drive.closed_loop(errands, in_flight, time, count).await;
        }
        (Arrivals::Poisson, Some(rate), None) => poisson(rate, time, &mut random),
        (Arrivals::Constant, Some(rate), None) => even(rate, time),
        (Arrivals::Poisson, _, count) => scattered(count.unwrap_or(0), time, &mut random),
        (Arrivals::Constant, _, count) => spread(count.unwrap_or(0), time),
    };
    let moments = match settings.scenario {
        Name::Fleet => rising(&moments, time),
        _ => moments,
    };
    drive.open_loop(errands, moments, Duration::ZERO).await
}

/// Gives how many errands there are, where that follows from the population.
fn count(settings: &Settings) -> Option<usize> {
    match settings.scenario {
        Name::Storm => Some((settings.nas * ALARMS) as usize),
        Name::Fleet => Some(settings.nas as usize),
        _ => None,
    }
}

/// Raises the rate until a step is bad, each step when the one before is answered.
async fn ramp(
    settings: &Settings,
    p99_ms_max: u32,
    drive: &Drive,
    errands: &Errands,
) -> Result<Vec<Step>, MeasureError> {
    let time = Duration::from_secs(u64::from(STEP_S.min(settings.seconds)));
    let first = settings.rate_per_s.unwrap_or(1);
    let mut random = Random::new(SEED);
    let mut steps = Vec::new();
    for rate in knee::rates(first, settings.seconds / STEP_S) {
        let from_s = drive.begin.elapsed().as_secs() + u64::from(!steps.is_empty());
        let from = Duration::from_secs(from_s);
        let moments = match settings.arrivals {
            Arrivals::Poisson => poisson(rate, time, &mut random),
            _ => even(rate, time),
        };
        drive.open_loop(errands, moments, from).await?;
        let took = drive.begin.elapsed().saturating_sub(from);
        let from_s = usize::try_from(from_s).unwrap_or(0);
        let seconds = from_s..from_s + STEP_S as usize;
        let figures = drive.books.figures(seconds, None);
        let step = Step::of(rate, took.max(time).as_secs_f64(), &figures, p99_ms_max);
        let is_good = step.is_good;
        steps.push(step);
        if !is_good || drive.begin.elapsed() >= settings.time() {
            break;
        }
    }
    Ok(steps)
}
