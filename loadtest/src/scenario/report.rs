//! What a scenario came to, for people and for programs.
//!
//! In: books and samples. Out: a table, or JSON with the same figures and those of each second, the
//! unit in each name. Holds numbers and codes alone: no handle, token, endpoint or key.

use std::io::{self, Write};
use std::time::Duration;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::books::{Books, Bucket, Figures};
use super::knee::{Knee, Step};
use super::options::{Name, Settings};
use super::quiet::{Cost, Quiet};
use super::watch::Sample;
use crate::device::DeviceKind;
use crate::measure::report::{Judged, missed};
use crate::stage::Stage;

/// The figures of one run, with what they were taken at.
#[derive(Debug, Serialize)]
pub struct Report {
    pub(super) settings: Settings,
    pub(super) relay: String,
    pub(super) machine_cores: usize,
    pub(super) took_s: f64,
    pub(super) whole: Figures,
    pub(super) services: Vec<Service>,
    /// slow-apple: each third by itself.
    pub(super) thirds: Vec<Third>,
    pub(super) process: Option<Process>,
    pub(super) quiet: Option<Cost>,
    /// goaway: connections that the relay opened to APNs.
    pub(super) apns_connections_opened: Option<u64>,
    pub(super) knee: Option<Knee>,
    pub(super) points: Vec<Point>,
    pub(super) distribution: Vec<Bucket>,
    pub(super) missed: Vec<String>,
}

/// One push service.
#[derive(Debug, Serialize)]
pub(super) struct Service {
    pub(super) push_service: &'static str,
    /// What its simulator counted as accepted.
    pub(super) arrived: u64,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

/// A third of the time.
#[derive(Debug, Serialize)]
pub(super) struct Third {
    pub(super) third: &'static str,
    pub(super) push_service: &'static str,
    #[serde(flatten)]
    pub(super) figures: Figures,
}

/// The relay's process.
#[derive(Debug, Serialize)]
pub(super) struct Process {
    pub(super) cpu_us_per_message: f64,
    pub(super) cpu_cores: f64,
    pub(super) memory_peak_mib: f64,
    pub(super) files_max: u64,
    pub(super) sockets_max: u64,
}

/// One second. Messages and their times belong to the second in which they were due.
#[derive(Debug, Default, Serialize)]
pub(super) struct Point {
    pub(super) second: usize,
    pub(super) offered: u64,
    pub(super) accepted_answers: u64,
    pub(super) other_answers: u64,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) max_ms: Option<f64>,
    /// APNs, FCM, Web Push.
    pub(super) services_p50_ms: [Option<f64>; 3],
    pub(super) cpu_us_per_message: Option<f64>,
    pub(super) memory_mib: Option<f64>,
    pub(super) files: Option<u64>,
    pub(super) sockets: Option<u64>,
}

/// What was seen beside the books.
pub(super) struct Seen {
    pub(super) samples: Vec<Sample>,
    pub(super) first: Option<Sample>,
    pub(super) last: Option<Sample>,
    pub(super) took: Duration,
    pub(super) steps: Vec<Step>,
    version: String,
    quiet: Option<Cost>,
    arrived_before: [u64; 3],
    apns_connections_before: u64,
}

const SERVICES: [&str; 3] = ["APNs", "FCM", "Web Push"];
const THIRDS: [&str; 3] = ["before", "slow", "after"];
const HEAD: [&str; 9] =
    ["", "sent", "accepted", "arrived", "others", "p50 ms", "p90 ms", "p99 ms", "max ms"];

// === impl Seen ===

impl Seen {
    /// Notes what the push services count before the first message.
    pub(super) fn before(stage: &Stage, version: String, quiet: Option<&Quiet>) -> Seen {
        Seen {
            samples: Vec::new(),
            first: None,
            last: None,
            took: Duration::ZERO,
            steps: Vec::new(),
            version,
            quiet: quiet.map(|quiet| quiet.cost),
            arrived_before: arrived(stage),
            apns_connections_before: stage.apns.connections().opened(),
        }
    }
}

fn arrived(stage: &Stage) -> [u64; 3] {
    DeviceKind::ALL.map(|kind| stage.controls(kind).journal.accepted())
}

// === impl Report ===

impl Report {
    pub(super) fn new(settings: Settings, stage: &Stage, books: &Books, seen: Seen) -> Report {
        let whole = books.figures(0..usize::MAX, None);
        let arrived = arrived(stage);
        let services = DeviceKind::ALL.into_iter().enumerate().map(|(place, kind)| Service {
            push_service: SERVICES[place],
            arrived: arrived[place] - seen.arrived_before[place],
            figures: books.figures(0..usize::MAX, Some(kind)),
        });
        let services: Vec<Service> = services.filter(|service| service.figures.sent > 0).collect();
        let goes_away = settings.goaway_every.is_some();
        let opened = stage.apns.connections().opened() - seen.apns_connections_before;
        let knee = (settings.scenario == Name::Ramp).then(|| Knee::of(seen.steps.clone()));
        Report {
            missed: judge(&settings, &whole, &services, &seen),
            settings,
            machine_cores: std::thread::available_parallelism().map_or(0, usize::from),
            took_s: seen.took.as_secs_f64(),
            thirds: thirds(&settings, books),
            process: Process::of(&seen, whole.sent),
            quiet: seen.quiet,
            apns_connections_opened: goes_away.then_some(opened),
            knee,
            points: points(books, &seen.samples),
            distribution: books.distribution(),
            relay: seen.version,
            whole,
            services,
        }
    }

    /// Gives the rows of the final table: all, each push service, and the thirds where they tell.
    pub(super) fn rows(&self) -> Vec<Vec<String>> {
        let arrived: u64 = self.services.iter().map(|service| service.arrived).sum();
        let mut rows = vec![cells("all".to_owned(), Some(arrived), &self.whole)];
        for Service { push_service, arrived, figures } in &self.services {
            rows.push(cells((*push_service).to_owned(), Some(*arrived), figures));
        }
        for Third { third, push_service, figures } in &self.thirds {
            rows.push(cells(format!("{push_service}, {third}"), None, figures));
        }
        rows
    }

    /// Gives the head of the final table.
    pub(super) fn head() -> [&'static str; 9] {
        HEAD
    }

    /// Says what the table does not.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(Process { cpu_us_per_message, cpu_cores, memory_peak_mib, .. }) = &self.process
        {
            remarks.push(format!(
                "The relay: {cpu_us_per_message:.1} µs of CPU per message, {cpu_cores:.2} cores, \
                 at most {memory_peak_mib:.1} MiB of memory"
            ));
        }
        if let Some(Process { files_max, sockets_max, .. }) = &self.process {
            remarks.push(format!("At most {files_max} open files, {sockets_max} of them sockets"));
        }
        if let Some(Cost { connections, kib_per_connection: Some(kib), .. }) = &self.quiet {
            remarks.push(format!("{connections} quiet connections: {kib:.1} KiB each"));
        }
        if let Some(opened) = self.apns_connections_opened {
            remarks.push(format!("The relay opened {opened} new connections to APNs"));
        }
        remarks.extend(self.knee.as_ref().map(|knee| format!("Ramp: {}", knee.words())));
        remarks
    }

    /// Says what was run.
    pub(super) fn title(&self) -> String {
        let Settings { scenario, way, tls, arrivals, nas, devices_per_nas, .. } = self.settings;
        let tls = if tls { " over TLS" } else { "" };
        let rate = self.settings.rate_per_s.map_or(String::new(), |rate| format!(" at {rate}/s"));
        let in_flight = self.settings.in_flight.map(|count| format!(" ({count} in flight)"));
        format!(
            "{}: {nas} NAS with {devices_per_nas} devices each, {}{tls}, {}{}{rate}, {:.0} s",
            scenario.label(),
            way.label(),
            arrivals.label(),
            in_flight.unwrap_or_default(),
            self.took_s
        )
    }
}

/// Names what a relay that does as it promises would not have let happen.
fn judge(settings: &Settings, whole: &Figures, services: &[Service], seen: &Seen) -> Vec<String> {
    let is_whole = whole.accepted == whole.sent && whole.sent > 0;
    // What ended otherwise may have arrived all the same: its outcome is unknown.
    let is_true = services.iter().all(|Service { arrived, figures, .. }| {
        (figures.accepted..=figures.sent).contains(arrived)
            && (*arrived == figures.accepted || figures.accepted < figures.sent)
    });
    let are_there = seen.quiet.and_then(|cost| cost.are_all_there).unwrap_or(true);
    let has_limit = settings.scenario == Name::Ramp;
    missed(&[
        (is_whole || has_limit, "every message is accepted"),
        (is_true, "what is accepted has arrived at its push service, once"),
        (are_there, "every quiet connection is there"),
    ])
    .collect()
}

fn thirds(settings: &Settings, books: &Books) -> Vec<Third> {
    if settings.apple_latency_ms.is_none() {
        return Vec::new();
    }
    let third_s = settings.seconds as usize / 3;
    let mut thirds = Vec::new();
    for (service, kind) in SERVICES.into_iter().zip(DeviceKind::ALL) {
        for (place, third) in THIRDS.into_iter().enumerate() {
            let end = if place == 2 { usize::MAX } else { third_s * (place + 1) };
            let figures = books.figures(third_s * place..end, Some(kind));
            thirds.push(Third { third, push_service: service, figures });
        }
    }
    thirds.retain(|third| third.figures.sent > 0);
    thirds
}

#[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1_024.0
}

#[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
fn points(books: &Books, samples: &[Sample]) -> Vec<Point> {
    let point = |second: usize| {
        let figures = books.figures(second..second + 1, None);
        let (answers, accepted_answers) = books.answers(second);
        let of = |kind| books.figures(second..second + 1, Some(kind)).p50_ms;
        let (sample, next) = (samples.get(second), samples.get(second + 1));
        let cpu_us = sample.zip(next).map(|(from, to)| to.cpu_us.saturating_sub(from.cpu_us));
        Point {
            second,
            offered: figures.sent,
            accepted_answers,
            other_answers: answers - accepted_answers,
            p50_ms: figures.p50_ms,
            p99_ms: figures.p99_ms,
            max_ms: figures.max_ms,
            services_p50_ms: DeviceKind::ALL.map(of),
            cpu_us_per_message: cpu_us
                .filter(|_| answers > 0)
                .map(|cpu_us| cpu_us as f64 / answers as f64),
            memory_mib: sample.map(|sample| mib(sample.memory_kib)),
            files: sample.map(|sample| sample.files),
            sockets: sample.map(|sample| sample.sockets),
        }
    };
    (0..books.seconds()).map(point).collect()
}

fn cells(name: String, arrived: Option<u64>, figures: &Figures) -> Vec<String> {
    let others: Vec<String> =
        figures.others.iter().map(|(code, count)| format!("{count} × {code}")).collect();
    let ms = |time: Option<f64>| time.map_or("–".to_owned(), |ms| format!("{ms:.2}"));
    vec![
        name,
        figures.sent.to_string(),
        figures.accepted.to_string(),
        arrived.map_or(String::new(), |arrived| arrived.to_string()),
        if others.is_empty() { "–".to_owned() } else { others.join(", ") },
        ms(figures.p50_ms),
        ms(figures.p90_ms),
        ms(figures.p99_ms),
        ms(figures.max_ms),
    ]
}

impl Judged for Report {
    fn missed(&self) -> &[String] {
        &self.missed
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "{}", self.title())?;
        writeln!(out, "{}, {} cores, all programs on them", self.relay, self.machine_cores)?;
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN);
        table.set_header(Report::head());
        self.rows().into_iter().for_each(|row| {
            table.add_row(row);
        });
        writeln!(out, "{table}")?;
        if let Some(knee) = &self.knee {
            writeln!(out, "{}", steps_table(&knee.steps))?;
        }
        self.remarks().iter().try_for_each(|remark| writeln!(out, "{remark}"))
    }
}

fn steps_table(steps: &[Step]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["offered/s", "accepted/s", "accepted %", "p50 ms", "p99 ms", "good"]);
    let ms = |time: Option<f64>| time.map_or("–".to_owned(), |ms| format!("{ms:.2}"));
    for step in steps {
        table.add_row([
            step.rate_per_s.to_string(),
            format!("{:.0}", step.accepted_per_s),
            format!("{:.2}", step.accepted_percent),
            ms(step.p50_ms),
            ms(step.p99_ms),
            if step.is_good { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table
}

// === impl Process ===

impl Process {
    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    fn of(seen: &Seen, messages: u64) -> Option<Process> {
        let (first, last) = (seen.first?, seen.last?);
        let cpu_us = last.cpu_us.saturating_sub(first.cpu_us) as f64;
        let all = || seen.samples.iter().chain([&first, &last]);
        Some(Process {
            cpu_us_per_message: cpu_us / messages.max(1) as f64,
            cpu_cores: cpu_us / (seen.took.as_micros() as f64).max(1.0),
            memory_peak_mib: mib(last.memory_peak_kib),
            files_max: all().map(|sample| sample.files).max().unwrap_or(0),
            sockets_max: all().map(|sample| sample.sockets).max().unwrap_or(0),
        })
    }
}
