//! The report as one HTML file to look at: what was run, the table, the plots.
//!
//! In: a report. Out: text that needs nothing from elsewhere, light or dark as the reader's system
//! is, and readable on a phone. It says what the report says and no more.

use std::fmt::Write as _;

use super::knee::Step;
use super::plot::{Line, Plot, Scale, bars};
use super::report::{Point, Report};

const STYLE: &str = "
:root { color-scheme: light dark; --paper: #fdfdfb; --ink: #1d2129; --soft: #626a76;
  --rule: #dfe2e6; --card: #fff; --c0: #1f6fd1; --c1: #d9730d; --c2: #18804b; --c3: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14161a; --ink: #e6e8eb; --soft: #9aa3af;
  --rule: #2e333b; --card: #1b1e24; --c0: #6cb0ff; --c1: #ffab57; --c2: #5fd195; --c3: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 1rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: .5rem 0 0; }
h2 { font-size: 1rem; margin: 0; }
.run { color: var(--soft); margin: 0 0 1rem; }
.verdict { font-weight: 600; color: var(--c2); }
.missed { color: var(--c3); }
.wide { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--rule); border-radius: 8px;
  background: var(--card); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }
tr:last-child td { border-bottom: 0; }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
.grid { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
figure { margin: 0; padding: .8rem; border: 1px solid var(--rule); border-radius: 8px;
  background: var(--card); min-width: 0; }
figcaption { display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: baseline; }
.options { margin-top: 1.5rem; }
.legend { margin: 0; font-size: .85rem; display: flex; flex-wrap: wrap; gap: 0 .9rem; }
.legend span::before { content: ''; display: inline-block; width: .9em; height: .25em;
  margin-right: .4em; vertical-align: middle; background: currentColor; border-radius: 2px; }
svg { width: 100%; height: auto; display: block; }
.t { font-size: 12px; fill: var(--soft); }
@media (max-width: 480px) { .t { font-size: 15px; } }
.g { stroke: var(--rule); fill: none; }
.a { stroke: var(--soft); fill: none; }
.l { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.l0 { stroke-width: 3.2; opacity: .75; }
.k0 { color: var(--c0); } .k1 { color: var(--c1); } .k2 { color: var(--c2); }
.l0 { stroke: var(--c0); } .l1 { stroke: var(--c1); } .l2 { stroke: var(--c2); }
.d0, .b0 { fill: var(--c0); } .d1 { fill: var(--c1); } .d2 { fill: var(--c2); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
footer { color: var(--soft); font-size: .85rem; margin: 1.5rem 0; }
";

const MEANING: &str = "Latency counts from the moment at which a message was due, so waiting at \
    the sender is in it. A notification to several devices counts as one message for each. CPU, \
    memory, files and sockets are those of the relay's process alone; the senders and the \
    simulated push services share the machine with it. Arrived is what the simulated push \
    services counted themselves.";

/// Writes the page.
pub(super) fn page(report: &Report) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n");
    // Writing to a String cannot fail, here and below.
    let _ = write!(
        page,
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>sns-relay: {scenario}</title>\n<style>{STYLE}</style>\n\
         <h1>sns-relay: {scenario}</h1>\n<p class=\"run\">{}; {}, {} cores</p>\n",
        escaped(&report.title()),
        escaped(&report.relay),
        report.machine_cores,
        scenario = report.settings.scenario.label()
    );
    page += &match &report.missed[..] {
        [] => "<p class=\"verdict\">Every bound held.</p>\n".to_owned(),
        missed => {
            format!("<p class=\"verdict missed\">Missed: {}</p>\n", escaped(&missed.join("; ")))
        }
    };
    page += &table(&Report::head(), report.rows());
    for remark in report.remarks() {
        let _ = writeln!(page, "<p>{}</p>", escaped(&remark));
    }
    page += "<div class=\"grid\">\n";
    for figure in figures(report) {
        page += &figure;
    }
    page += "</div>\n";
    if let Some(knee) = &report.knee {
        page += &table(&["offered/s", "accepted/s", "p99 ms", "good"], steps(&knee.steps));
    }
    page += &options(report);
    let _ = writeln!(page, "<footer>{MEANING}</footer>\n</html>");
    page
}

fn figures(report: &Report) -> Vec<String> {
    let line = |name, value: &dyn Fn(&Point) -> Option<f64>| Line {
        name,
        points: report.points.iter().map(|point| (seconds(point), value(point))).collect(),
    };
    let of = |title, y_label, scale, lines| Plot { title, y_label, scale, lines }.figure();
    let (log, linear) = (Scale::Logarithmic, Scale::Linear);
    let latency = vec![
        line("p50", &|point| point.p50_ms),
        line("p99", &|point| point.p99_ms),
        line("max", &|point| point.max_ms),
    ];
    let last = report.points.iter().rev().find(|point| point.offered > 0);
    let last = last.map_or(0, |point| point.second);
    let rate = vec![
        // Then answers still come, and nothing is offered any more.
        line("offered", &|point| (point.second <= last).then_some(float(point.offered))),
        line("answered otherwise", &|point| Some(float(point.other_answers))),
        line("accepted", &|point| Some(float(point.accepted_answers))),
    ];
    let service = |place: usize| move |point: &Point| point.services_p50_ms[place];
    let services =
        vec![line("APNs", &service(0)), line("FCM", &service(1)), line("Web Push", &service(2))];
    let files = vec![
        line("open files", &|point| point.files.map(float)),
        line("of them sockets", &|point| point.sockets.map(float)),
    ];
    let cpu = vec![line("CPU", &|point| point.cpu_us_per_message)];
    let memory = vec![line("resident", &|point| point.memory_mib)];
    let distribution: Vec<(f64, f64)> =
        report.distribution.iter().map(|bar| (bar.up_to_ms, float(bar.messages))).collect();
    let ratio = 10_f64.powf(1.0 / super::books::BARS_PER_TENFOLD);
    vec![
        of("Latency", "ms, logarithmic", log, latency),
        bars("Distribution of latency", "ms, logarithmic", "messages", &distribution, ratio),
        of("Rate", "messages per second", linear, rate),
        of("Median latency by push service", "ms, logarithmic", log, services),
        of("CPU time per message", "µs of the relay", linear, cpu),
        of("Memory", "MiB of the relay", linear, memory),
        of("Open files and connections", "count", linear, files),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
fn seconds(point: &Point) -> f64 {
    point.second as f64
}

fn steps(steps: &[Step]) -> Vec<Vec<String>> {
    let row = |step: &Step| {
        vec![
            step.rate_per_s.to_string(),
            format!("{:.0}", step.accepted_per_s),
            step.p99_ms.map_or("–".to_owned(), |ms| format!("{ms:.2}")),
            if step.is_good { "yes" } else { "no" }.to_owned(),
        ]
    };
    steps.iter().map(row).collect()
}

fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = String::from("<div class=\"wide\"><table><tr>");
    for name in head {
        let _ = write!(table, "<th>{name}</th>");
    }
    for row in rows {
        table += "</tr>\n<tr>";
        for cell in row {
            let _ = write!(table, "<td>{}</td>", escaped(&cell));
        }
    }
    table + "</tr></table></div>\n"
}

/// Lists every option that was in force, as the JSON names it.
fn options(report: &Report) -> String {
    let settings = serde_json::to_value(report.settings).unwrap_or_default();
    let mut list = String::from("<h2 class=\"options\">Options</h2>\n<dl>");
    for (name, value) in settings.as_object().into_iter().flatten() {
        if !value.is_null() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let _ = write!(list, "<dt>{name}</dt><dd>{}</dd>", escaped(&text));
        }
    }
    list + "</dl>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
