//! What the kills came to, for people and for programs, held to the bounds.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use super::super::arrived::Arrived;
use super::super::report::{Judged, missed};
use super::{Plan, Victim};

/// The figures of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    what: String,
    kills: usize,
    /// How long the process was away each time, the shortest first.
    away_ms: Vec<u64>,
    handed_in_after_s: f64,
    all_accepted_after_s: f64,
    arrived: Arrived,
    missed: Vec<String>,
}

// === impl Report ===

impl Report {
    pub(super) fn new(
        plan: &Plan,
        (handed_in, all): (Duration, Duration),
        mut away_ms: Vec<u64>,
        arrived: Arrived,
    ) -> Report {
        away_ms.sort_unstable();
        let victim = match plan.victim {
            Victim::Daemon => "the NAS's daemon",
            Victim::Relay => "the relay",
        };
        let missed = missed(&arrived.bounds(plan.notifications as usize)).collect();
        Report {
            what: format!("{victim} is killed while {} go out", plan.notifications),
            kills: away_ms.len(),
            away_ms,
            handed_in_after_s: handed_in.as_secs_f64(),
            all_accepted_after_s: all.as_secs_f64(),
            arrived,
            missed,
        }
    }
}

impl Judged for Report {
    fn missed(&self) -> &[String] {
        &self.missed
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", self.what)?;
        let middle = self.away_ms.get(self.away_ms.len() / 2).copied().unwrap_or(0);
        let longest = self.away_ms.last().copied().unwrap_or(0);
        writeln!(out, "{} kills; away for {middle} ms, at most {longest} ms", self.kills)?;
        self.arrived.write(out)?;
        writeln!(
            out,
            "handed in after {:.1} s, all accepted after {:.1} s",
            self.handed_in_after_s, self.all_accepted_after_s
        )
    }
}
