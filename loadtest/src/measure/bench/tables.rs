//! The tables of docs/performance.md, by the name of their place there.
//!
//! In: the JSON of all parts. Out: Markdown. A part that could not be measured is a line that says
//! so; the same JSON always gives the same text.

use std::fmt::Write as _;

use serde_json::Value;

use super::figures::{Figure, of_turns, report, row, text};
use super::targets::TARGETS;

/// Writes one table.
type Table = fn(&Value) -> String;

/// Every table with its name.
pub(super) const TABLES: [(&str, Table); 12] = [
    ("taken", taken),
    ("targets", targets),
    ("doors-apns", |all| doors(all, "doors-apns")),
    ("doors-others", doors_others),
    ("doors-slow", |all| doors(all, "doors-slow")),
    ("added", added),
    ("held", held),
    ("idle", idle),
    ("start", start),
    ("cold", cold),
    ("scale", scale),
    ("instructions", instructions),
];

/// Columns of a table.
type Head<'a> = &'a [&'a str];

fn table(head: Head<'_>, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|", head.join(" | "));
    text += &" --- |".repeat(head.len());
    text.push('\n');
    for row in rows {
        // Writing to a String does not fail.
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// Says which parts are missing, behind a table.
fn not_measured(all: &Value, parts: &[&str]) -> String {
    let mut text = String::new();
    for part in parts {
        if let Err(why) = report(all, part) {
            let _ = writeln!(text, "\n`{part}` is missing: {why}.");
        }
    }
    text
}

fn rows_of(report: &Value) -> &[Value] {
    report["rows"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or("–").to_owned()
}

fn median(row: &Value, figure: &str, digits: usize) -> String {
    let figure = Figure::of(of_turns(row, figure));
    figure.map_or("–".to_owned(), |figure| format!("{:.digits$}", figure.median))
}

fn taken(all: &Value) -> String {
    let at = word(&all["taken"]["at"]);
    let seconds = all["taken"]["seconds"].as_u64().unwrap_or(0);
    let mut text = format!(
        "Taken {}, in {} minutes, on {} cores ({}), Linux {}, everything on loopback.\n",
        at.split('T').next().unwrap_or_default(),
        seconds.div_ceil(60),
        all["taken"]["cores"].as_u64().unwrap_or(0),
        word(&all["taken"]["processor"]),
        word(&all["taken"]["kernel"]),
    );
    for lack in all["lacks"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "Not there: {}.", word(lack));
    }
    text
}

fn targets(all: &Value) -> String {
    let rows = TARGETS.iter().map(|target| {
        let verdict = target.verdict(all);
        let held = verdict.held.text(target);
        let (number, what) = (target.number.to_owned(), target.what.to_owned());
        vec![number, what, verdict.must, verdict.aim, verdict.seen, held]
    });
    table(&["no.", "what", "must", "aim", "seen (least–most)", "held"], rows)
}

fn doors(all: &Value, part: &str) -> String {
    let head = [
        "entry",
        "messages/s",
        "CPU µs (least–most)",
        "core %",
        "senders' µs",
        "p50 · p99 ms",
        "÷ `http1`",
        "÷ its floor",
    ];
    let rows = report(all, part).map(rows_of).unwrap_or_default().iter().map(|row| {
        vec![
            format!("`{}`", word(&row["entry"])),
            median(row, "rate_per_s", 0),
            text(Figure::of(of_turns(row, "cpu_us")), 1),
            median(row, "busy_percent", 0),
            median(row, "own_cpu_us", 1),
            format!("{} · {}", median(row, "p50_ms", 1), median(row, "p99_ms", 1)),
            text(Figure::read(&row["to_base"]), 2),
            text(Figure::read(&row["to_floor"]), 2),
        ]
    });
    table(&head, rows) + &not_measured(all, &[part])
}

fn doors_others(all: &Value) -> String {
    let parts = ["doors-fcm", "doors-webpush"];
    let reports = parts.map(|part| report(all, part).unwrap_or(&Value::Null));
    let longest = reports.iter().map(|report| rows_of(report)).max_by_key(|rows| rows.len());
    let entries = longest.unwrap_or_default().iter().map(|row| word(&row["entry"]));
    let rows = entries.map(|entry| {
        let cells = reports.map(|report| {
            let row = row(report, "entry", &entry).unwrap_or(&Value::Null);
            let to_floor = text(Figure::read(&row["to_floor"]), 2);
            format!("{}; {to_floor}", median(row, "cpu_us", 1))
        });
        [vec![format!("`{entry}`")], cells.to_vec()].concat()
    });
    table(&["entry", "FCM: CPU µs; ÷ its floor", "Web Push: CPU µs; ÷ its floor"], rows)
        + &not_measured(all, &parts)
}

fn added(all: &Value) -> String {
    let parts = ["added-500", "added-2000", "added-2000-slow"];
    let reports = parts.iter().filter_map(|part| report(all, part).ok());
    let rows = reports.flat_map(|report| {
        let load = format!("{}/s, {} ms", report["rate_per_s"], report["latency_ms"]);
        rows_of(report).iter().map(move |row| {
            vec![
                load.clone(),
                word(&row["entry"]),
                text(Figure::read(&row["p50_ms"]), 2),
                text(Figure::read(&row["p99_ms"]), 2),
                text(Figure::read(&row["added_p50_ms"]), 2),
                text(Figure::read(&row["added_p99_ms"]), 2),
            ]
        })
    });
    let head = ["load, push service", "way", "p50 ms", "p99 ms", "added p50 ms", "added p99 ms"];
    table(&head, rows) + &not_measured(all, &parts)
}

fn held(all: &Value) -> String {
    let parts = ["held-http1", "held-http2"];
    let rows = parts.iter().filter_map(|part| report(all, part).ok()).map(|report| {
        vec![
            format!("`{}`", word(&report["kind"])),
            report["in_flight"].to_string(),
            report["connections"].to_string(),
            text(Figure::read(&report["mib_per_10000"]), 0),
        ]
    });
    table(&["callers", "in flight", "connections", "MiB for 10,000 in flight"], rows)
        + &not_measured(all, &parts)
}

fn idle(all: &Value) -> String {
    let kinds = ["http1", "http2", "grpc-stream"];
    let parts = kinds.map(|kind| [format!("idle-{kind}"), format!("idle-{kind}-tls")]);
    let rows = parts.iter().zip(kinds).map(|(parts, kind)| {
        let cell = |part: &String| {
            report(all, part).map_or("–".to_owned(), |report| {
                let kib = &report["kib_per_caller"];
                format!("{} of {}", text(Figure::read(kib), 1), report["callers"])
            })
        };
        [vec![format!("`{kind}`")], parts.iter().map(cell).collect()].concat()
    });
    let parts: Vec<&str> = parts.iter().flatten().map(String::as_str).collect();
    table(&["callers", "clear text, KiB each", "TLS, KiB each"], rows) + &not_measured(all, &parts)
}

fn start(all: &Value) -> String {
    let rows = report(all, "start").ok().into_iter().flat_map(|report| {
        let row = |count: String, ms: &str| vec![count, text(Figure::read(&report[ms]), 1)];
        let full = row(report["identities"].to_string(), "ready_ms");
        [full, row("0".to_owned(), "empty_ready_ms")]
    });
    table(&["identities", "ready after ms (least–most)"], rows) + &not_measured(all, &["start"])
}

fn cold(all: &Value) -> String {
    let rows = report(all, "cold").map(rows_of).unwrap_or_default().iter().map(|row| {
        vec![
            word(&row["push_service"]),
            text(Figure::read(&row["p50_ms"]), 1),
            text(Figure::read(&row["p99_ms"]), 1),
            row["tokens_max"].to_string(),
            row["connections_max"].to_string(),
            row["errors"].to_string(),
        ]
    });
    table(&["to", "p50 ms", "p99 ms", "access tokens", "connections", "not accepted"], rows)
        + &not_measured(all, &["cold"])
}

fn scale(all: &Value) -> String {
    let parts = ["scale-handles", "scale-identities", "workers"];
    let reports = parts.iter().filter_map(|part| report(all, part).ok());
    let rows = reports.flat_map(rows_of).map(|row| {
        let memory_kib = row["memory_kib"].as_u64().unwrap_or(0);
        vec![
            word(&row["name"]),
            text(Figure::read(&row["cpu_us"]), 1),
            text(Figure::read(&row["to_base"]), 2),
            (memory_kib / 1_024).to_string(),
        ]
    });
    let head = ["relay", "CPU µs (least–most)", "÷ the first of its kind", "memory MiB"];
    table(&head, rows) + &not_measured(all, &parts)
}

fn instructions(all: &Value) -> String {
    let parts = ["instructions-http1", "instructions-http2", "instructions-grpc-stream"];
    let rows = parts.iter().filter_map(|part| report(all, part).ok()).map(|report| {
        let counted = report["instructions_per_message"].to_string();
        vec![format!("`{}`", word(&report["way"])), counted, report["bound"].to_string()]
    });
    table(&["way", "instructions per message", "bound"], rows) + &not_measured(all, &parts)
}
