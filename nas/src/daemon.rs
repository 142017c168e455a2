//! The daemon: the outbox between the programs of the NAS and the relay.
//!
//! In: requests on a Unix socket, and the journal as it was left. Out: deliveries, several at once
//! (one at a time while the relay cannot be reached), and their outcomes in the journal. One task
//! owns the journal; it never waits for the network, and what it cannot write down it writes later,
//! sending nothing twice for it. One daemon per journal. May be killed at any moment: what was on
//! its way goes out again under its id.

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{self, Instant};

use crate::client::message::{Outcome, TargetResult};
use crate::courier::{Courier, NotReached};
use crate::desk::Desk;
use crate::journal::JournalError;
use crate::outbox::{Delivery, Jitter, Knock, Outbox};

mod socket;

pub use socket::{Ask, Socket, SocketError, hand_in};

/// How the daemon works.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Deliveries on their way at once.
    pub in_flight_max: usize,
    /// How often what is seven days old is looked for.
    pub tend_every: Duration,
    /// How long it waits before it uses a journal again that failed.
    pub mend_after: Duration,
    /// How long it waits, when stopped, for the outcomes of what is on its way.
    pub drain: Duration,
}

/// Why a daemon does not run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// Another daemon has this journal.
    #[error("another sns-nas runs with this journal")]
    Running,
    /// The lock beside the journal.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Held by the one daemon of a journal; given back when dropped, and by the system when killed.
pub struct Lock {
    _file: File,
}

/// A clock below this (1 January 2026) has not yet been told the time.
const CLOCK_MS_MIN: u64 = 1_767_225_600_000;

/// What is due and was not given has ended, which is written down once a second.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Without anything to send it looks again after this, should another process have written.
const IDLE: Duration = Duration::from_secs(30);

/// Runs until `stop` is done; then waits a little for what is on its way.
/// Shape: `asks` comes from a [`Socket`]; `clock` gives milliseconds since 1970.
/// Errors: the journal could not be used at the start. Later it is tried again.
pub async fn run(
    desk: Desk,
    courier: Courier,
    pace: Pace,
    mut asks: mpsc::Receiver<Ask>,
    clock: impl Fn() -> u64,
    stop: impl Future<Output = ()>,
) -> Result<(), DaemonError> {
    let mut daemon = Daemon::new(desk, courier, pace, clock());
    daemon.desk.journal.erase(clock())?;
    let mut tend = time::interval(pace.tend_every);
    tend.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    tend.tick().await;
    tokio::pin!(stop);
    loop {
        let now_ms = daemon.follow(clock());
        daemon.settle(now_ms);
        let idle = daemon.send(now_ms);
        tokio::select! {
            biased;
            () = &mut stop => break,
            Some(sent) = daemon.sending.join_next() => daemon.arrived(sent),
            Some(ask) = asks.recv() => daemon.answer(ask, clock()),
            _ = tend.tick() => daemon.tend(clock()),
            () = time::sleep(idle) => {}
        }
        // What came meanwhile is taken before the next look into the journal.
        while let Some(sent) = daemon.sending.try_join_next() {
            daemon.arrived(sent);
        }
        while let Ok(ask) = asks.try_recv() {
            daemon.answer(ask, clock());
        }
    }
    let drained = async {
        while let Some(sent) = daemon.sending.join_next().await {
            daemon.arrived(sent);
        }
    };
    // What has no outcome by then is sent again by the next daemon.
    time::timeout(pace.drain, drained).await.unwrap_or_default();
    let now_ms = daemon.follow(clock());
    daemon.settle(now_ms);
    Ok(())
}

/// Takes the lock of a journal. Errors: `Running`, `Lock`.
pub fn lock(journal: &Path) -> Result<Lock, DaemonError> {
    let mut path = journal.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let opened = File::options().create(true).truncate(false).write(true).open(&path);
    let failed = |source| DaemonError::Lock { path: path.clone(), source };
    let file = opened.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(Lock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(DaemonError::Running),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// A delivery that is back, with what became of it.
type Sent = (Delivery, Result<TargetResult, NotReached>);

struct Daemon {
    desk: Desk,
    courier: Courier,
    outbox: Outbox,
    pace: Pace,
    knock: Knock,
    sending: JoinSet<Sent>,
    /// Outcomes that are not yet written down.
    told: Vec<(Delivery, TargetResult)>,
    journal_fails: bool,
    last_notice: String,
    started_ms: u64,
    looked_ms: u64,
}

// === impl Pace ===

impl Default for Pace {
    fn default() -> Self {
        Self {
            in_flight_max: 32,
            tend_every: Duration::from_secs(3600),
            mend_after: Duration::from_secs(5),
            drain: Duration::from_secs(10),
        }
    }
}

// === impl Daemon ===

impl Daemon {
    fn new(desk: Desk, courier: Courier, pace: Pace, now_ms: u64) -> Self {
        Self {
            desk,
            courier,
            outbox: Outbox::default(),
            pace,
            knock: Knock::default(),
            sending: JoinSet::new(),
            told: Vec::new(),
            journal_fails: false,
            last_notice: String::new(),
            started_ms: now_ms,
            looked_ms: now_ms,
        }
    }

    /// Sends what is due; gives how long nothing else will be.
    fn send(&mut self, now_ms: u64) -> Duration {
        // Outcomes that cannot be written must not pile up.
        let room = self.pace.in_flight_max.saturating_sub(self.sending.len() + self.told.len());
        if self.journal_fails {
            return self.pace.mend_after;
        }
        // What comes back makes room.
        if room == 0 {
            return IDLE;
        }
        let now = Instant::now();
        let room = self.knock.room(room, now);
        if room == 0 {
            return self.knock.wait(now).unwrap_or(IDLE);
        }
        let due = match self.outbox.due(&mut self.desk.journal, now_ms, room) {
            Ok(due) => due,
            Err(error) => return self.failed(&error),
        };
        for delivery in due {
            if let Err(error) = self.learn(&delivery) {
                return self.failed(&error);
            }
            self.knock.sent();
            let courier = self.courier.clone();
            self.sending.spawn(async move {
                let result = courier.send(&delivery, now_ms).await;
                (delivery, result)
            });
        }
        match self.outbox.next_ms(&self.desk.journal, now_ms) {
            Ok(Some(next_ms)) if self.sending.len() < self.pace.in_flight_max => {
                Duration::from_millis(next_ms.saturating_sub(now_ms)).clamp(LOOK_AGAIN, IDLE)
            }
            Ok(_) => IDLE,
            Err(error) => self.failed(&error),
        }
    }

    /// A sender that was added since the start.
    fn learn(&mut self, delivery: &Delivery) -> Result<(), JournalError> {
        let sender = &delivery.device.sender;
        if self.courier.knows(sender) {
            return Ok(());
        }
        if let Some(key) = self.desk.journal.sender_key(sender)? {
            self.courier.learn(sender.clone(), key);
        }
        Ok(())
    }

    fn arrived(&mut self, sent: Result<Sent, tokio::task::JoinError>) {
        match sent {
            Ok((delivery, Err(NotReached { reason }))) => {
                self.knock.missed(Instant::now(), Jitter::random());
                self.notice(&format!("the relay is not reached: {reason}"));
                let journal = &mut self.desk.journal;
                if let Err(error) = self.outbox.take_back(journal, &delivery, reason) {
                    self.failed(&error);
                }
            }
            Ok((delivery, Ok(result))) => {
                self.knock.reached();
                if matches!(result.outcome, Outcome::Misconfigured | Outcome::Unknown) {
                    let reason = result.reason.as_deref().unwrap_or("no reason");
                    self.notice(&format!("not delivered: {}: {reason}", result.outcome.label()));
                }
                self.told.push((delivery, result));
            }
            // Its place stays taken until the next start: a fault of this program.
            Err(error) if error.is_panic() => {
                self.knock.missed(Instant::now(), Jitter::random());
                self.notice("a delivery failed by a fault of sns-nas");
            }
            // The runtime is going.
            Err(_) => {}
        }
    }

    /// Writes down every outcome that is not yet, or keeps it for the next time.
    fn settle(&mut self, now_ms: u64) {
        if !self.told.is_empty() {
            let journal = &mut self.desk.journal;
            match self.outbox.settle(journal, &self.told, now_ms, Jitter::random) {
                Ok(()) => {
                    self.told.clear();
                    self.journal_works();
                }
                Err(error) => {
                    self.failed(&error);
                }
            }
        } else if self.journal_fails && self.desk.journal.counts().is_ok() {
            self.journal_works();
        }
    }

    fn answer(&mut self, ask: Ask, clock_ms: u64) {
        let now_ms = self.follow(clock_ms);
        let answer = self.desk.perform(&ask.request, now_ms);
        // Whoever asked and went away has it in the journal all the same.
        drop(ask.answer.send(answer));
    }

    fn tend(&mut self, clock_ms: u64) {
        let now_ms = self.follow(clock_ms);
        let journal = &mut self.desk.journal;
        let tended = match now_ms {
            CLOCK_MS_MIN.. => journal.redate(now_ms).and_then(|_| journal.erase(now_ms)),
            _ => Ok(0),
        };
        if let Err(error) = tended {
            self.failed(&error);
        }
    }

    /// A NAS whose clock has no battery starts in 1970 and is told the time some seconds later.
    /// Gives the time to go by: the old one, as long as the journal cannot follow.
    fn follow(&mut self, clock_ms: u64) -> u64 {
        if self.looked_ms < CLOCK_MS_MIN && clock_ms >= CLOCK_MS_MIN {
            let by_ms = i64::try_from(clock_ms - self.looked_ms).unwrap_or(i64::MAX);
            let shifted = self.desk.journal.shift(self.started_ms, self.looked_ms, by_ms);
            if let Err(error) = shifted {
                self.failed(&error);
                return self.looked_ms;
            }
        }
        self.looked_ms = clock_ms;
        clock_ms
    }

    fn failed(&mut self, error: &JournalError) -> Duration {
        self.journal_fails = true;
        self.notice(&error.to_string());
        self.pace.mend_after
    }

    fn journal_works(&mut self) {
        if std::mem::take(&mut self.journal_fails) {
            self.notice("the journal can be used again");
        }
    }

    /// Says a thing once, not for every delivery; no content, no handle, no name.
    fn notice(&mut self, text: &str) {
        if self.last_notice != text {
            self.last_notice = text.to_owned();
            // With stderr closed there is nobody to tell.
            writeln!(io::stderr(), "sns-nas: {text}").unwrap_or_default();
        }
    }
}
