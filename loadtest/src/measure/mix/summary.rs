//! A stretch of a load in figures.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::AddAssign;

use serde::Serialize;

use super::Second;

/// The figures of the messages that were due in a stretch of time.
#[derive(Clone, Debug, Default, Serialize)]
pub(in super::super) struct Summary {
    pub(in super::super) sent: u64,
    pub(in super::super) accepted: u64,
    /// The others, by status and code.
    pub(in super::super) others: BTreeMap<String, u64>,
    /// Answers that came after their deadline.
    pub(in super::super) late: u64,
    /// From the intended moment to the answer, accepted messages.
    pub(in super::super) accepted_ms: Times,
    /// The same for all others: how long a sender waits to hear that it is not now.
    pub(in super::super) others_ms: Times,
}

/// Quantiles in milliseconds; all 0 where there was no message.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(in super::super) struct Times {
    pub(in super::super) p50: f64,
    pub(in super::super) p99: f64,
    pub(in super::super) max: f64,
}

/// What the push services' journals say of what senders were told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(in super::super) struct Verified {
    /// Called accepted, and not at the push service.
    pub(in super::super) lost: u64,
    /// Accepted by the push service more than once, though sent to the relay once.
    pub(in super::super) doubled: u64,
    /// Whose device was called gone.
    pub(in super::super) gone: u64,
}

// === impl Summary ===

impl Summary {
    pub(super) fn of<'a>(seconds: impl Iterator<Item = &'a Second>) -> Summary {
        let mut whole = Summary::default();
        let (mut accepted_us, mut others_us) = (Vec::new(), Vec::new());
        for second in seconds {
            whole.sent += second.sent;
            whole.late += second.late;
            for (code, count) in &second.others {
                *whole.others.entry(code.clone()).or_default() += count;
            }
            accepted_us.extend_from_slice(&second.accepted_us);
            others_us.extend_from_slice(&second.others_us);
        }
        whole.accepted = accepted_us.len() as u64;
        whole.accepted_ms = Times::of(accepted_us);
        whole.others_ms = Times::of(others_us);
        whole
    }

    /// Gives the accepted messages of a hundred; 100 where none was sent.
    pub(in super::super) fn accepted_percent(&self) -> f64 {
        if self.sent == 0 { 100.0 } else { percent(self.accepted, self.sent) }
    }

    /// Whether every message was accepted.
    pub(in super::super) fn is_whole(&self) -> bool {
        self.accepted == self.sent
    }

    /// Gives one line of figures for people.
    pub(in super::super) fn line(&self) -> String {
        let others: Vec<String> =
            self.others.iter().map(|(code, count)| format!("{count} × {code}")).collect();
        let mut line = format!(
            "{} sent, {} accepted ({:.2} %), {} late; accepted {}",
            self.sent,
            self.accepted,
            self.accepted_percent(),
            self.late,
            self.accepted_ms.line()
        );
        if !others.is_empty() {
            line.push_str(&format!("; others {}: {}", self.others_ms.line(), others.join(", ")));
        }
        line
    }
}

// === impl Times ===

impl Times {
    fn of(mut times_us: Vec<u32>) -> Times {
        times_us.sort_unstable();
        let at = |percent: usize| {
            let place = (times_us.len() * percent).div_ceil(100).saturating_sub(1);
            f64::from(times_us.get(place).copied().unwrap_or(0)) / 1_000.0
        };
        Times { p50: at(50), p99: at(99), max: at(100) }
    }

    fn line(self) -> String {
        format!("p50 {:.1} p99 {:.1} max {:.1} ms", self.p50, self.p99, self.max)
    }
}

// === impl Verified ===

impl Verified {
    /// Writes a line for people.
    pub(in super::super) fn write(self, out: &mut impl Write) -> io::Result<()> {
        let Verified { lost, doubled, gone } = self;
        writeln!(out, "lost {lost}, doubled {doubled}, called gone {gone}")
    }
}

impl AddAssign for Verified {
    fn add_assign(&mut self, other: Verified) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.gone += other.gone;
    }
}

/// Gives so many of so many in percent.
#[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
pub(in super::super) fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}
