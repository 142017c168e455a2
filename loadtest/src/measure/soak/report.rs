//! What a soak came to, for people and for programs, held to the bounds.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;

use super::super::mix::{Course, Summary, Verified};
use super::super::report::{Judged, missed};
use super::{Plan, Sample};
use crate::device::DeviceKind;
use crate::fault::service_name;
use crate::fault::timeline::Timeline;

/// The figures of one soak.
#[derive(Debug, Serialize)]
pub struct Report {
    what: String,
    faults: BTreeMap<&'static str, u64>,
    stretches: Vec<(String, Summary)>,
    samples: Vec<Sample>,
    start: Sample,
    end: Sample,
    verified: Verified,
    missed: Vec<String>,
}

/// So many samples at either end, of which the middle one counts.
const SAMPLES: usize = 3;
/// What memory may grow by: caches that remember for minutes fill meanwhile.
const MEMORY_GROWTH_PERCENT_MAX: u64 = 25;
/// What else may grow by: a connection to a push service more, a task that ends just now.
const GROWTH_MAX: u64 = 16;

// === impl Report ===

impl Report {
    pub(super) fn new(
        plan: &Plan,
        (messages, alarms): (&[Course], &[Course]),
        timeline: &Timeline,
        samples: Vec<Sample>,
        verified: Verified,
    ) -> Report {
        let mut faults = BTreeMap::new();
        for act in timeline.acts() {
            *faults.entry(act.fault.name()).or_default() += 1;
        }
        let mut stretches = Vec::new();
        for (class, courses) in [("messages", messages), ("alarms", alarms)] {
            for (kind, course) in DeviceKind::ALL.iter().zip(courses) {
                let name = format!("{class} to {}", service_name(*kind));
                stretches.push((name, course.summary(0..usize::MAX)));
            }
        }
        let warm = samples.iter().position(|sample| sample.at_s >= u64::from(plan.quiet_s));
        let warm = warm.unwrap_or(0);
        let start = middle(&samples[warm..(warm + SAMPLES).min(samples.len())]);
        let end = middle(&samples[samples.len().saturating_sub(SAMPLES)..]);
        let mut report = Report {
            what: format!(
                "{} minutes, {} messages/s over three push services, {} % of them alarms, \
                 {} faults with seed {}",
                plan.minutes,
                plan.rate_per_s,
                plan.alarm_percent,
                timeline.acts().len(),
                plan.seed
            ),
            faults,
            stretches,
            samples,
            start,
            end,
            verified,
            missed: Vec::new(),
        };
        report.hold_to_bounds();
        report
    }

    fn hold_to_bounds(&mut self) {
        let (start, end) = (self.start, self.end);
        let growth = start.memory_kib * MEMORY_GROWTH_PERCENT_MAX / 100;
        let late: u64 = self.stretches.iter().map(|(_, summary)| summary.late).sum();
        let bounds = [
            (end.memory_kib <= start.memory_kib + growth, "memory flat"),
            (end.open_files <= start.open_files + GROWTH_MAX, "file descriptors flat"),
            (end.tasks <= start.tasks + GROWTH_MAX, "tasks flat"),
            (late == 0, "every answer inside its deadline"),
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
        for (fault, count) in &self.faults {
            writeln!(out, "  {count} × {fault}")?;
        }
        for (name, summary) in &self.stretches {
            writeln!(out, "{name}: {}", summary.line())?;
        }
        for sample in &self.samples {
            writeln!(out, "{}", sample.line())?;
        }
        writeln!(out, "start: {}", self.start.line())?;
        writeln!(out, "end:   {}", self.end.line())?;
        self.verified.write(out)
    }
}

// === impl Sample ===

impl Sample {
    fn line(&self) -> String {
        format!(
            "{:>6} s: memory {} KiB, {} file descriptors, {} tasks, CPU {} %",
            self.at_s, self.memory_kib, self.open_files, self.tasks, self.cpu_percent
        )
    }
}

/// Gives the median of each figure, at the time of the last sample.
fn middle(samples: &[Sample]) -> Sample {
    let median = |figure: fn(&Sample) -> u64| {
        let mut figures: Vec<u64> = samples.iter().map(figure).collect();
        figures.sort_unstable();
        figures.get(figures.len() / 2).copied().unwrap_or(0)
    };
    Sample {
        at_s: samples.last().map_or(0, |sample| sample.at_s),
        memory_kib: median(|sample| sample.memory_kib),
        open_files: median(|sample| sample.open_files),
        tasks: median(|sample| sample.tasks),
        cpu_percent: median(|sample| sample.cpu_percent),
    }
}
