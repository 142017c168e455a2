//! What overload costs, for people and for programs, held to the bounds.

use std::io::{self, Write};
use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use super::super::mix::summary::percent;
use super::super::mix::{Course, Summary, Verified};
use super::super::report::{Judged, missed};
use super::cpu::Loop;
use super::{Phases, Plan, SAMPLE_EVERY, Seen};

/// The figures of one measurement.
#[derive(Debug, Serialize)]
pub struct Report {
    offered: String,
    peak_per_s: f64,
    overload_per_s: f64,
    overload_percent_of_peak: f64,
    /// Accepted answers in each second of the overload.
    time_line: Vec<u64>,
    stretches: Vec<Stretch>,
    /// Closed loops, where the machine is the limit.
    levels: Vec<Level>,
    /// The relay's memory every five seconds, from the beginning.
    memory_line_kib: Vec<u64>,
    memory_before_kib: u64,
    memory_peak_kib: u64,
    memory_after_kib: u64,
    normal_after_s: Option<usize>,
    verified: Verified,
    missed: Vec<String>,
}

/// One class in one phase.
#[derive(Debug, Serialize)]
struct Stretch {
    name: &'static str,
    summary: Summary,
}

/// A closed loop.
#[derive(Debug, Serialize)]
struct Level {
    senders: usize,
    accepted_per_s: f64,
    accepted_p99_ms: f64,
    turned_away: u64,
    /// CPU time of the relay for each accepted message, those turned away included.
    relay_cpu_us: f64,
    /// The same of the senders and the push services.
    others_cpu_us: f64,
}

const PEAK_PERCENT_MIN: f64 = 90.0;
const ALARMS_PERCENT_MIN: f64 = 99.0;
const NORMAL_AFTER_S_MAX: usize = 5;
/// So many good seconds in a row are normal.
const NORMAL_S: usize = 3;

// === impl Report ===

impl Report {
    pub(super) fn new(plan: &Plan, phases: Phases, seen: &Seen, verified: Verified) -> Report {
        let both = [&seen.ordinary, &seen.alarms];
        let throughput = Course::throughput(&both, phases.end());
        let time_line = throughput[phases.overload()].to_vec();
        let (peak, during) = (mean(&throughput[phases.peak()]), mean(&time_line));
        let stretches = vec![
            stretch("before, ordinary", &seen.ordinary, phases.before()),
            stretch("before, alarms", &seen.alarms, phases.before()),
            stretch("overload, ordinary", &seen.ordinary, phases.overload()),
            stretch("overload, alarms", &seen.alarms, phases.overload()),
            stretch("after, ordinary", &seen.ordinary, phases.after()),
            stretch("after, alarms", &seen.alarms, phases.after()),
        ];
        let memory = |range: Range<usize>| {
            let range = seconds(range.start)..seconds(range.end);
            let within = seen.memory.iter().filter(move |(at, _)| range.contains(at));
            within.map(|(_, kib)| *kib).max().unwrap_or(0)
        };
        let mut report = Report {
            offered: format!(
                "{} messages/s for {} s, {} times the capacity of {}/s, and {} % of it in alarms",
                plan.capacity_per_s() * plan.factor,
                plan.seconds,
                plan.factor,
                plan.capacity_per_s(),
                plan.alarm_percent
            ),
            peak_per_s: peak,
            overload_per_s: during,
            overload_percent_of_peak: 100.0 * during / peak.max(1.0),
            time_line,
            stretches,
            levels: Vec::new(),
            memory_line_kib: memory_line(&seen.memory),
            memory_before_kib: memory(phases.before()),
            memory_peak_kib: memory(0..phases.end()),
            memory_after_kib: seen.memory.last().map_or(0, |(_, kib)| *kib),
            normal_after_s: normal_after(&both, phases),
            verified,
            missed: Vec::new(),
        };
        let all = Course::sum(&both, 0..phases.end());
        let alarms = seen.alarms.summary(phases.overload());
        report.hold_to_bounds(plan, &all, &alarms);
        if report.normal_after_s.is_none_or(|s| s > NORMAL_AFTER_S_MAX) {
            report.missed.push(format!("back to normal within {NORMAL_AFTER_S_MAX} s"));
        }
        report
    }

    /// Puts the figures of a machine at its limit together: closed loops of rising size, of which
    /// the last is the flood.
    pub(super) fn at_the_machine(
        plan: &Plan,
        (loops, flood): (&[Loop], &Loop),
        alarms: &Course,
        memory: &[(Duration, u64)],
        verified: Verified,
    ) -> Report {
        let levels: Vec<Level> = loops.iter().chain([flood]).map(Level::of).collect();
        let peak = levels.iter().map(|level| level.accepted_per_s).fold(0.0, f64::max);
        let during = levels.last().map_or(0.0, |level| level.accepted_per_s);
        let mut report = Report {
            offered: format!("{} senders in a closed loop, and alarms", flood.senders),
            peak_per_s: peak,
            overload_per_s: during,
            overload_percent_of_peak: 100.0 * during / peak.max(1.0),
            time_line: Course::throughput(&[&flood.course], flood.seconds),
            stretches: vec![
                stretch("overload, ordinary", &flood.course, 0..usize::MAX),
                stretch("overload, alarms", alarms, 0..usize::MAX),
            ],
            levels,
            memory_line_kib: memory_line(memory),
            memory_before_kib: memory.first().map_or(0, |(_, kib)| *kib),
            memory_peak_kib: memory.iter().map(|(_, kib)| *kib).max().unwrap_or(0),
            memory_after_kib: memory.last().map_or(0, |(_, kib)| *kib),
            normal_after_s: None,
            verified,
            missed: Vec::new(),
        };
        let all = Course::sum(&[&flood.course, alarms], 0..usize::MAX);
        report.hold_to_bounds(plan, &all, &alarms.summary(0..usize::MAX));
        report
    }

    fn hold_to_bounds(&mut self, plan: &Plan, all: &Summary, alarms: &Summary) {
        let bounds = [
            (self.overload_percent_of_peak >= PEAK_PERCENT_MIN, "accepted >= 90 % of the peak"),
            (all.late == 0, "every answer inside its deadline"),
            (alarms.accepted_percent() >= ALARMS_PERCENT_MIN, "alarms >= 99 % accepted"),
            (self.memory_peak_kib <= plan.memory_mib_max * 1_024, "memory bounded"),
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
        writeln!(out, "{}", self.offered)?;
        writeln!(
            out,
            "accepted: peak {:.0}/s, in overload {:.0}/s ({:.1} %)",
            self.peak_per_s, self.overload_per_s, self.overload_percent_of_peak
        )?;
        writeln!(out, "second by second: {:?}", self.time_line)?;
        for stretch in &self.stretches {
            writeln!(out, "{}: {}", stretch.name, stretch.summary.line())?;
        }
        for level in &self.levels {
            writeln!(
                out,
                "{} senders: {:.0} accepted/s, p99 {:.1} ms, {} turned away; CPU for each accepted \
                 one: {:.0} µs in the relay, {:.0} µs around it",
                level.senders,
                level.accepted_per_s,
                level.accepted_p99_ms,
                level.turned_away,
                level.relay_cpu_us,
                level.others_cpu_us
            )?;
        }
        writeln!(
            out,
            "the relay's memory: before {} KiB, at most {} KiB, after {} KiB",
            self.memory_before_kib, self.memory_peak_kib, self.memory_after_kib
        )?;
        writeln!(out, "every five seconds, KiB: {:?}", self.memory_line_kib)?;
        if let Some(normal_after_s) = self.normal_after_s {
            writeln!(out, "as before {normal_after_s} s after the overload")?;
        }
        self.verified.write(out)
    }
}

// === impl Level ===

impl Level {
    fn of(closed: &Loop) -> Level {
        let summary = closed.course.summary(0..usize::MAX);
        let per_s = Course::throughput(&[&closed.course], closed.seconds);
        Level {
            senders: closed.senders,
            // The first second has the connections opened.
            accepted_per_s: mean(per_s.get(1..).unwrap_or_default()),
            accepted_p99_ms: summary.accepted_ms.p99,
            turned_away: summary.sent - summary.accepted,
            relay_cpu_us: percent(closed.relay_cpu_us, summary.accepted) / 100.0,
            others_cpu_us: percent(closed.others_cpu_us, summary.accepted) / 100.0,
        }
    }
}

fn stretch(name: &'static str, course: &Course, seconds: Range<usize>) -> Stretch {
    Stretch { name, summary: course.summary(seconds) }
}

/// The first second after the overload from which on all is accepted, and nearly all in not more
/// than twice the time that it took before.
fn normal_after(courses: &[&Course], phases: Phases) -> Option<usize> {
    let p99_ms_max = 2.0 * Course::sum(courses, phases.before()).accepted_ms.p99;
    let after = phases.after();
    let good: Vec<bool> = after
        .map(|second| Course::sum(courses, second..second + 1))
        .map(|second| second.is_whole() && second.accepted_ms.p99 <= p99_ms_max)
        .collect();
    good.windows(NORMAL_S).position(|seconds| seconds.iter().all(|good| *good))
}

fn memory_line(samples: &[(Duration, u64)]) -> Vec<u64> {
    let in_five_s = usize::try_from(5_000 / SAMPLE_EVERY.as_millis()).unwrap_or(1);
    samples.iter().step_by(in_five_s).map(|(_, kib)| *kib).collect()
}

fn seconds(seconds: usize) -> Duration {
    Duration::from_secs(seconds as u64)
}

fn mean(counts: &[u64]) -> f64 {
    percent(counts.iter().sum(), counts.len() as u64) / 100.0
}
