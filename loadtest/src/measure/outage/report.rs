//! What an outage costs, for people and for programs, held to the bounds.

use std::io::{self, Write};
use std::ops::Range;

use serde::Serialize;

use super::super::mix::{Course, Summary, Verified};
use super::super::report::{Judged, missed};
use super::{AFTER_S, BEFORE_S, LOOK_EVERY, Plan, Sight};

/// The figures of one measurement.
#[derive(Debug, Serialize)]
pub struct Report {
    what: String,
    before: Summary,
    away: Summary,
    back: Summary,
    others_away: Summary,
    others_back: Summary,
    /// Attempts to connect in each second, from the one before the outage on.
    knocks_per_s: Vec<u64>,
    /// Requests that reached the service, likewise.
    requests_per_s: Vec<u64>,
    /// The most connections that were open, likewise.
    connections: Vec<usize>,
    accepted_per_s: Vec<u64>,
    knocks_mean_per_s: f64,
    first_accepted_after_ms: Option<u32>,
    /// Until the first second whose messages were all accepted.
    all_accepted_after_s: Option<usize>,
    verified: Verified,
    missed: Vec<String>,
}

/// `upstream.connections_max`.
const CONNECTIONS_MAX: usize = 4;
/// `upstream.breaker_open_max_ms`, and a second for the connection.
const FIRST_ACCEPTED_MS_MAX: u32 = 11_000;
const KNOCKS_MEAN_MAX: f64 = 2.0;
const OTHERS_PERCENT_MIN: f64 = 99.9;
const BURST_PERCENT_MAX: u64 = 120;

// === impl Report ===

impl Report {
    pub(super) fn new(
        plan: &Plan,
        courses: &[Course],
        sights: &[Sight],
        verified: Verified,
    ) -> Report {
        let place = plan.service as usize;
        let own = &courses[place];
        let others: Vec<&Course> =
            courses.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, c)| c).collect();
        let (away, back) = (BEFORE_S..plan.back_s(), plan.back_s()..plan.end_s());
        let shown = BEFORE_S - 1..plan.end_s();
        let per_s = |figure: fn(&Sight) -> u64| -> Vec<u64> {
            shown.clone().map(|second| grown(sights, second, figure)).collect()
        };
        let knocks = per_s(|sight| sight.met);
        // The first second has the connections that broke dialled again.
        let probes = &knocks[2..1 + plan.seconds as usize];
        let probes_s = probes.len().max(1);
        let back_ms = u32::try_from(plan.back_s() * 1_000).unwrap_or(u32::MAX);
        let first = own.first_accepted_ms(back_ms).map(|at_ms| at_ms - back_ms);
        let whole = |second: &usize| own.summary(*second..second + 1).is_whole();
        let mut report = Report {
            what: format!(
                "{} for {} s at {}, with {} messages/s to each push service",
                plan.fault.name(),
                plan.seconds,
                plan.service.name(),
                plan.rate_per_s
            ),
            before: own.summary(1..BEFORE_S),
            away: own.summary(away.clone()),
            back: own.summary(back.clone()),
            others_away: Course::sum(&others, away),
            others_back: Course::sum(&others, back.clone()),
            requests_per_s: per_s(|sight| sight.requests),
            connections: shown.clone().map(|second| most_live(sights, second)).collect(),
            accepted_per_s: Course::throughput(&[own], plan.end_s())[shown].to_vec(),
            knocks_mean_per_s: probes.iter().sum::<u64>() as f64 / probes_s as f64,
            knocks_per_s: knocks,
            first_accepted_after_ms: first,
            all_accepted_after_s: back.clone().find(whole).map(|second| second - back.start),
            verified,
            missed: Vec::new(),
        };
        report.hold_to_bounds(u64::from(plan.rate_per_s));
        report
    }

    fn hold_to_bounds(&mut self, rate_per_s: u64) {
        let after = self.requests_per_s.len() - AFTER_S;
        let burst = self.requests_per_s[after..].iter().max().copied().unwrap_or(0);
        let connections = self.connections.iter().max().copied().unwrap_or(0);
        let late = self.away.late + self.back.late + self.others_away.late;
        let bounds = [
            (
                self.first_accepted_after_ms.is_some_and(|ms| ms <= FIRST_ACCEPTED_MS_MAX),
                "first accepted within the longest pause between two probes",
            ),
            (self.knocks_mean_per_s <= KNOCKS_MEAN_MAX, "at most two knocks a second"),
            (burst * 100 <= rate_per_s * BURST_PERCENT_MAX, "no burst above the offered rate"),
            (connections <= CONNECTIONS_MAX, "no more connections than upstream.connections_max"),
            (late == 0, "every answer inside its deadline"),
            (
                self.others_away.accepted_percent() >= OTHERS_PERCENT_MIN
                    && self.others_back.accepted_percent() >= OTHERS_PERCENT_MIN,
                "the others' messages accepted",
            ),
            (self.verified == Verified::default(), "nothing lost, doubled or called gone"),
        ];
        self.missed.extend(missed(&bounds));
    }
}

impl Judged for Report {
    fn missed(&self) -> &[String] {
        &self.missed
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", self.what)?;
        writeln!(out, "before: {}", self.before.line())?;
        writeln!(out, "while it is away: {}", self.away.line())?;
        writeln!(out, "after its return: {}", self.back.line())?;
        writeln!(out, "the others meanwhile: {}", self.others_away.line())?;
        writeln!(out, "the others afterwards: {}", self.others_back.line())?;
        writeln!(out, "second by second, from the last one before the outage on:")?;
        writeln!(out, "  attempts to connect {:?}", self.knocks_per_s)?;
        writeln!(out, "  connections open    {:?}", self.connections)?;
        writeln!(out, "  requests at it      {:?}", self.requests_per_s)?;
        writeln!(out, "  accepted answers    {:?}", self.accepted_per_s)?;
        writeln!(out, "attempts to connect while it is away: {:.2}/s", self.knocks_mean_per_s)?;
        match (self.first_accepted_after_ms, self.all_accepted_after_s) {
            (Some(first_ms), Some(all_s)) => writeln!(
                out,
                "after its return: first accepted {first_ms} ms, all from second {all_s} on"
            )?,
            _ => writeln!(out, "it did not come back")?,
        }
        self.verified.write(out)
    }
}

/// How much a counter grew in one second.
fn grown(sights: &[Sight], second: usize, figure: impl Fn(&Sight) -> u64) -> u64 {
    let Range { start, end } = looks(second);
    let at = |place: usize| sights.get(place).or(sights.last()).map_or(0, &figure);
    at(end).saturating_sub(at(start))
}

fn most_live(sights: &[Sight], second: usize) -> usize {
    let within = sights.iter().skip(looks(second).start).take(looks(second).len());
    within.map(|sight| sight.live).max().unwrap_or(0)
}

/// The places of one second's looks.
fn looks(second: usize) -> Range<usize> {
    let in_one = usize::try_from(1_000 / LOOK_EVERY.as_millis()).unwrap_or(1);
    second * in_one..(second + 1) * in_one
}
