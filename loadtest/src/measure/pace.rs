//! An open loop: messages leave at their moments, and each one's time counts from its moment.
//!
//! In: a crowd, letters, a rate. Out: a tally. A server that stalls thus shows in every message
//! that it kept waiting, not only in the one it stalled on ("coordinated omission"). Moments come
//! from a thread of their own, since the runtime's timer is no finer than a millisecond.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hdrhistogram::Histogram;
use http::StatusCode;
use rustix::thread::nanosleep;
use rustix::time::Timespec;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

use super::MeasureError;
use super::crowd::{Crowd, CrowdError, Told};
use super::letter::Letter;

/// How much, how long.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Messages in a second, evenly spread.
    pub rate_per_s: u32,
    /// Seconds.
    pub seconds: u32,
}

/// What became of the messages.
pub struct Tally {
    /// Messages sent.
    pub sent: u64,
    /// Answered 201.
    pub accepted: u64,
    /// The others, by status and code.
    pub others: BTreeMap<String, u64>,
    /// Microseconds from the intended moment to the whole answer; accepted messages alone.
    pub times_us: Histogram<u64>,
}

/// A message that has ended.
pub(super) struct Ended<T> {
    /// What was made along with its letter.
    pub(super) tag: T,
    /// Its intended moment, from the beginning.
    pub(super) due: Duration,
    /// From that moment to the whole answer.
    pub(super) time: Duration,
    /// The answer; missing where none came.
    pub(super) told: Option<Result<Told, CrowdError>>,
}

const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const TIME_US_MAX: u64 = 60_000_000;
const FIGURES: u8 = 3;
/// More than this in flight waits at the driver, its time running.
const IN_FLIGHT_MAX: usize = 100_000;
const MOMENTS_AHEAD: usize = 1_024;

// === impl Pace ===

impl Pace {
    /// Sends the letters in turn, again and again, and waits for the last answer.
    /// Errors: only where nothing could be counted; a failed message is a line of the tally.
    pub async fn drive(
        self,
        crowd: &Arc<Crowd>,
        letters: &Arc<[Letter]>,
    ) -> Result<Tally, MeasureError> {
        let mut tally = Tally::new()?;
        let heard = |_, time, told| tally.count(time, told);
        tally.sent = self.drive_each(crowd, letters, heard).await?;
        Ok(tally)
    }

    /// Does the same, and tells of each message as it ends: its number, its time and its answer,
    /// which is missing where none came. Gives how many were sent.
    /// Errors: the clock's thread.
    pub async fn drive_each(
        self,
        crowd: &Arc<Crowd>,
        letters: &Arc<[Letter]>,
        mut heard: impl FnMut(usize, Duration, Option<Result<Told, CrowdError>>),
    ) -> Result<u64, MeasureError> {
        let letters = Arc::clone(letters);
        let make = move |number: usize| (letters[number % letters.len()].clone(), number);
        let heard = |ended: Ended<usize>| heard(ended.tag, ended.time, ended.told);
        drive_steps(&[self], Instant::now(), crowd, make, heard).await
    }
}

/// Sends what `make` gives for each number, one pace after the other from `begin` on, and tells of
/// each message as it ends. Gives how many were sent.
/// Errors: the clock's thread.
pub(super) async fn drive_steps<T: Send + 'static>(
    steps: &[Pace],
    begin: Instant,
    crowd: &Arc<Crowd>,
    make: impl Fn(usize) -> (Letter, T) + Send + Sync + 'static,
    mut heard: impl FnMut(Ended<T>),
) -> Result<u64, MeasureError> {
    let mut sent = 0;
    let (mut due, clock) = moments(steps, begin);
    let make = Arc::new(make);
    let mut in_flight = JoinSet::new();
    let mut more = true;
    while more || !in_flight.is_empty() {
        tokio::select! {
            moment = due.recv(), if more && in_flight.len() < IN_FLIGHT_MAX => {
                let Some((number, moment)) = moment else {
                    more = false;
                    continue;
                };
                let (crowd, make) = (Arc::clone(crowd), Arc::clone(&make));
                sent += 1;
                in_flight.spawn(async move {
                    let (letter, tag) = make(number);
                    let told = timeout(ANSWER_LIMIT, crowd.post(&letter)).await.ok();
                    Ended { tag, due: moment - begin, time: moment.elapsed(), told }
                });
            }
            Some(Ok(ended)) = in_flight.join_next() => heard(ended),
        }
    }
    clock.await.map_err(io_error)?;
    Ok(sent)
}

/// Gives the number and the moment of each message when it has come, one pace after the other; and
/// the clock, which ends with the last one.
pub(super) fn moments(
    steps: &[Pace],
    begin: Instant,
) -> (mpsc::Receiver<(usize, Instant)>, JoinHandle<()>) {
    let (moments, due) = mpsc::channel(MOMENTS_AHEAD);
    let steps = steps.to_vec();
    (due, tokio::task::spawn_blocking(move || tick(&steps, begin, &moments)))
}

fn tick(steps: &[Pace], begin: Instant, moments: &mpsc::Sender<(usize, Instant)>) {
    let (mut start, mut number) = (begin, 0);
    for step in steps {
        let messages = u64::from(step.rate_per_s) * u64::from(step.seconds);
        for message in 0..messages {
            let after_ns = message * 1_000_000_000 / u64::from(step.rate_per_s.max(1));
            let moment = start + Duration::from_nanos(after_ns);
            let wait = moment.saturating_duration_since(Instant::now());
            if let Ok(wait) = Timespec::try_from(wait) {
                // A signal may end it early; the next moment makes up for it.
                let _ = nanosleep(&wait);
            }
            if moments.blocking_send((number, moment)).is_err() {
                return;
            }
            number += 1;
        }
        start += Duration::from_secs(u64::from(step.seconds));
    }
}

fn io_error(error: tokio::task::JoinError) -> MeasureError {
    MeasureError::Io(error.into())
}

// === impl Tally ===

impl Tally {
    pub(super) fn new() -> Result<Tally, MeasureError> {
        let times_us = Histogram::new_with_max(TIME_US_MAX, FIGURES)?;
        Ok(Tally { sent: 0, accepted: 0, others: BTreeMap::new(), times_us })
    }

    fn count(&mut self, time: Duration, told: Option<Result<Told, CrowdError>>) {
        let other = match told {
            Some(Ok(told)) if told.status == StatusCode::CREATED => None,
            Some(Ok(told)) => Some(label(&told)),
            Some(Err(_)) => Some("connection broke".to_owned()),
            None => Some("no answer".to_owned()),
        };
        self.note(time, other);
    }

    /// Counts a message that was accepted after this time, or what else became of it.
    pub(super) fn note(&mut self, time: Duration, other: Option<String>) {
        if let Some(label) = other {
            *self.others.entry(label).or_default() += 1;
            return;
        }
        self.accepted += 1;
        let time_us = u64::try_from(time.as_micros()).unwrap_or(TIME_US_MAX);
        self.times_us.saturating_record(time_us);
    }
}

/// Gives the status and the code of an answer that is not 201.
pub(crate) fn label(told: &Told) -> String {
    let problem: Option<serde_json::Value> = serde_json::from_slice(&told.body).ok();
    let code = problem.as_ref().and_then(|problem| problem.get("code")?.as_str());
    format!("{} {}", told.status.as_u16(), code.unwrap_or_default()).trim_end().to_owned()
}
