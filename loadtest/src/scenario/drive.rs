//! Sends errands: at their moments whether or not the ones before are done, or so many at once.
//!
//! In: moments, or a number in flight. Out: the books. In an open loop the time of a message counts
//! from its intended moment, so a relay that stalls shows in every message that it kept waiting.
//! Moments come from a thread of their own, since the runtime's timer is no finer than a
//! millisecond.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::thread::nanosleep;
use rustix::time::Timespec;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::books::Books;
use super::lanes::{Errand, Lanes};
use crate::measure::MeasureError;

/// Who sends, and where it is written down.
#[derive(Clone)]
pub(super) struct Drive {
    pub(super) lanes: Arc<Lanes>,
    pub(super) books: Arc<Books>,
    /// The beginning of the books.
    pub(super) begin: Instant,
}

/// The errand of each number.
pub(super) type Errands = Arc<dyn Fn(usize) -> Errand + Send + Sync>;

/// More than this in flight waits at the driver, its time running.
const IN_FLIGHT_MAX: usize = 100_000;
const MOMENTS_AHEAD: usize = 1_024;

// === impl Drive ===

impl Drive {
    /// Sends an errand at each moment, counted from `from` after the beginning on, and waits for
    /// the last answer.
    /// Errors: the clock's thread.
    pub(super) async fn open_loop(
        &self,
        errands: &Errands,
        moments: Vec<Duration>,
        from: Duration,
    ) -> Result<(), MeasureError> {
        let (tell, mut due) = mpsc::channel(MOMENTS_AHEAD);
        let start = self.begin + from;
        let clock = tokio::task::spawn_blocking(move || tick(&moments, start, &tell));
        let mut in_flight = JoinSet::new();
        let mut more = true;
        while more || !in_flight.is_empty() {
            tokio::select! {
                next = due.recv(), if more && in_flight.len() < IN_FLIGHT_MAX => {
                    let Some((number, moment)) = next else {
                        more = false;
                        continue;
                    };
                    let (drive, errand) = (self.clone(), errands(number));
                    in_flight.spawn(async move { drive.carry(errand, moment).await });
                }
                Some(ended) = in_flight.join_next() => ended.map_err(std::io::Error::from)?,
            }
        }
        Ok(clock.await.map_err(std::io::Error::from)?)
    }

    /// Keeps so many errands in flight for a time, or until so many are done.
    pub(super) async fn closed_loop(
        &self,
        errands: &Errands,
        in_flight: usize,
        time: Duration,
        count: usize,
    ) -> Result<(), MeasureError> {
        let next = Arc::new(AtomicUsize::new(0));
        let end = self.begin + time;
        let mut loops = JoinSet::new();
        for _ in 0..in_flight {
            let (drive, errands, next) = (self.clone(), Arc::clone(errands), Arc::clone(&next));
            loops.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let now = Instant::now();
                    if number >= count || now >= end {
                        return;
                    }
                    drive.carry(errands(number), now.max(drive.begin)).await;
                }
            });
        }
        while let Some(ended) = loops.join_next().await {
            ended.map_err(std::io::Error::from)?;
        }
        Ok(())
    }

    async fn carry(&self, errand: Errand, moment: Instant) {
        let words = self.lanes.send(errand).await;
        let (due, time) = (moment.saturating_duration_since(self.begin), moment.elapsed());
        self.books.count(due, time, self.lanes.mailboxes(errand), words);
    }
}

/// Gives each moment when it has come.
fn tick(moments: &[Duration], start: Instant, tell: &mpsc::Sender<(usize, Instant)>) {
    for (number, moment) in moments.iter().enumerate() {
        let moment = start + *moment;
        let wait = moment.saturating_duration_since(Instant::now());
        if let Ok(wait) = Timespec::try_from(wait) {
            // A signal may end it early; the next moment makes up for it.
            let _ = nanosleep(&wait);
        }
        if tell.blocking_send((number, moment)).is_err() {
            return;
        }
    }
}
