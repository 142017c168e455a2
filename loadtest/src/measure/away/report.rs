//! What a relay's absence came to, for people and for programs, held to the bounds.

use std::io::{self, Write};

use serde::Serialize;
use sns_nas::client::message::Level;

use super::super::arrived::Arrived;
use super::super::report::{Judged, missed};
use super::{Height, Plan, Seen};

/// The figures of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    what: String,
    /// Connections tried in each second while the relay was away.
    knocks_per_s: Vec<u64>,
    /// The most of them in one second, but for the first.
    knocks_per_s_max: u64,
    first_accepted_after_ms: u64,
    /// When the last delivery of each level had been accepted, after the relay was started again.
    all_accepted_after_ms: u64,
    /// The most that were accepted within any second, and any tenth of one.
    accepted_in_1000_ms_max: usize,
    accepted_in_100_ms_max: usize,
    /// What is not an alarm and came before the last alarm, over all devices.
    before_the_last_alarm: usize,
    /// Likewise what is no more than an info, before the last that is more.
    infos_before_the_last_warning: usize,
    relay: Height,
    arrived: Arrived,
    missed: Vec<String>,
}

/// The daemon's deliveries on their way at once.
const IN_FLIGHT_MAX: usize = 32;
/// The longest pause between two knocks, 15 s and a quarter, and a second for the connection.
const FIRST_ACCEPTED_MS_MAX: u64 = 19_750;

// === impl Report ===

impl Report {
    pub(super) fn new(plan: &Plan, seen: Seen, arrived: Arrived) -> Report {
        let Seen { knocks, accepted_ms, levels, height } = seen;
        let mut knocks_per_s = vec![0; plan.seconds as usize];
        for knock in knocks {
            let second = usize::try_from(knock.as_secs()).unwrap_or(usize::MAX);
            if let Some(count) = knocks_per_s.get_mut(second) {
                *count += 1;
            }
        }
        let overtaken = |least| levels.iter().map(|levels| overtaken(levels, least)).sum();
        let mut report = Report {
            what: format!(
                "the relay is away for {} s while {} notifications are handed in",
                plan.seconds, plan.notifications
            ),
            knocks_per_s_max: knocks_per_s.iter().skip(1).max().copied().unwrap_or(0),
            knocks_per_s,
            first_accepted_after_ms: accepted_ms.first().copied().unwrap_or(u64::MAX),
            all_accepted_after_ms: accepted_ms.last().copied().unwrap_or(u64::MAX),
            accepted_in_1000_ms_max: most_within(&accepted_ms, 1_000),
            accepted_in_100_ms_max: most_within(&accepted_ms, 100),
            before_the_last_alarm: overtaken(Level::Error),
            infos_before_the_last_warning: overtaken(Level::Warn),
            relay: height,
            arrived,
            missed: Vec::new(),
        };
        report.hold_to_bounds(plan.notifications as usize);
        report
    }

    fn hold_to_bounds(&mut self, notifications: usize) {
        let bounds = [
            (self.knocks_per_s_max <= 1, "at most one knock a second"),
            (
                self.first_accepted_after_ms <= FIRST_ACCEPTED_MS_MAX,
                "first accepted within the longest pause between two knocks",
            ),
            (
                self.before_the_last_alarm < IN_FLIGHT_MAX,
                "alarms first, but for what is on its way with the last of them",
            ),
            (self.infos_before_the_last_warning < IN_FLIGHT_MAX, "warnings before infos, likewise"),
            (self.relay.connections <= 1, "one connection to the relay"),
            // The call itself may be one.
            (self.relay.in_flight <= IN_FLIGHT_MAX as u64 + 1, "no more on the way than may be"),
        ];
        self.missed.extend(missed(&bounds));
        self.missed.extend(missed(&self.arrived.bounds(notifications)));
    }
}

impl Judged for Report {
    fn missed(&self) -> &[String] {
        &self.missed
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let tried: u64 = self.knocks_per_s.iter().sum();
        writeln!(out, "{}", self.what)?;
        writeln!(
            out,
            "connections tried meanwhile: {tried}, by the second {:?}",
            self.knocks_per_s
        )?;
        writeln!(
            out,
            "after its start: first accepted {} ms, all {} ms",
            self.first_accepted_after_ms, self.all_accepted_after_ms
        )?;
        writeln!(
            out,
            "accepted in any second at most {}, in any 100 ms at most {}",
            self.accepted_in_1000_ms_max, self.accepted_in_100_ms_max
        )?;
        writeln!(
            out,
            "before the last alarm {} others; before the last warning {} infos",
            self.before_the_last_alarm, self.infos_before_the_last_warning
        )?;
        let Height { connections, in_flight } = self.relay;
        writeln!(out, "at the relay at most {connections} connections, {in_flight} in flight")?;
        self.arrived.write(out)
    }
}

/// Counts what is less grave than `least` and came before the last that is not.
fn overtaken(levels: &[Level], least: Level) -> usize {
    let last = levels.iter().rposition(|level| *level >= least).unwrap_or(0);
    levels[..last].iter().filter(|level| **level < least).count()
}

/// Gives the most of these sorted times that lie within so many milliseconds.
fn most_within(times_ms: &[u64], window_ms: u64) -> usize {
    let from = |(first, at_ms): (usize, &u64)| {
        times_ms.partition_point(|other_ms| *other_ms < at_ms + window_ms) - first
    };
    times_ms.iter().enumerate().map(from).max().unwrap_or(0)
}
