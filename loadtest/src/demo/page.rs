//! What the demo shows: every table and sentence, for a terminal of 100 to 120 columns.

use std::io::{self, Write};

use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, ContentLineStyle, Table, TableStyle,
    Width, presets,
};
use rustix::termios::tcgetwinsize;

use super::act::Scene;
use super::cast::{Cast, MODEL, SERIAL};
use super::day::Day;
use super::kept::{Kept, STORE_FILE};
use super::relay_process::RelayProcess;
use super::search::Search;

const WIDTH_MIN: u16 = 100;
const WIDTH_MAX: u16 = 120;

/// Vertical lines between columns, horizontal ones between rows, corners rounded.
const STYLE: TableStyle = presets::UTF8_FULL.with_rounded_corners().with_solid_inner_borders();

/// The same without lines between rows.
const STYLE_CONDENSED: TableStyle = presets::UTF8_FULL_CONDENSED
    .with_rounded_corners()
    .header_lines(ContentLineStyle::new('│', '│', '│'))
    .content_lines(ContentLineStyle::new('│', '│', '│'));

/// Whose numbers are shown, when they are not 0.
const METRICS: [&str; 6] = [
    "sns_outcomes_total",
    "sns_answers_total",
    "sns_own_seconds_sum",
    "sns_own_seconds_count",
    "sns_upstream_connections_opened_total",
    "process_resident_memory_bytes",
];

/// The headers of a mail that are shown.
const MAIL_HEADERS: [&str; 6] =
    ["From", "To", "Subject", "Message-ID", "Auto-Submitted", "List-Unsubscribe-Post"];

/// Says who plays.
pub(super) fn opening(out: &mut impl Write, relay: &RelayProcess, cast: &Cast) -> io::Result<()> {
    writeln!(
        out,
        "\nOne NAS, three devices and a mailbox; between them the relay: sns-relay serve,"
    )?;
    writeln!(
        out,
        "process {}, with keys made a moment ago. Apple, Google and Mozilla are",
        relay.process_id()
    )?;
    writeln!(out, "simulated on this machine; all the rest is what you would run.\n")?;
    writeln!(out, "  relay    {}   admin port {}", relay.url(), relay.admin_url())?;
    writeln!(
        out,
        "  NAS      {MODEL}, serial number {SERIAL}, enrolled as {}",
        cast.enrolled.ds_id
    )?;
    let names: Vec<&str> = cast.devices.iter().map(|player| player.name).collect();
    writeln!(
        out,
        "  devices  {}; each paired with the NAS's key and with Chat's own",
        names.join(", ")
    )
}

/// Shows what was sent, what the relay answered and what the devices read.
pub(super) fn messages(out: &mut impl Write, scenes: &[Scene]) -> io::Result<()> {
    heading(out, 1, "Sent, answered, read")?;
    let mut table =
        table(&["", "door", "device", "the sender wrote", "sealed", "answer", "the device read"]);
    for (place, scene) in scenes.iter().enumerate() {
        let read = match &scene.read {
            Ok(text) => text.clone(),
            Err(why) => format!("nothing: {why}"),
        };
        table.add_row([
            (place + 1).to_string(),
            scene.door.to_owned(),
            scene.device.to_owned(),
            scene.text.clone(),
            format!("{} bytes", scene.sealed.len()),
            scene.answer.clone(),
            read,
        ]);
    }
    fix(&mut table, &[(0, 1), (1, 11), (2, 13), (4, 9), (5, 12)]);
    writeln!(out, "{table}")
}

/// Shows what Apple, Google and Mozilla saw.
pub(super) fn sights(out: &mut impl Write, scenes: &[Scene]) -> io::Result<()> {
    heading(out, 2, "What Apple, Google and Mozilla saw (of headers, all but HTTP's own)")?;
    let mut table = table(&["", "who", "request and headers", "body"]);
    for (place, scene) in scenes.iter().enumerate() {
        let number = (place + 1).to_string();
        let Some(sight) = &scene.sight else {
            table.add_row([number, "nobody".to_owned(), String::new(), String::new()]);
            continue;
        };
        let status = sight.status.map_or("no answer".to_owned(), |status| status.to_string());
        let request = format!("{}\n{}", sight.request, sight.headers.join("\n"));
        let who = format!("{}\nanswers\n{status}", sight.push_service);
        table.add_row([number, who, request, sight.body.clone()]);
    }
    fix(&mut table, &[(0, 1), (1, 7), (2, 52)]);
    writeln!(out, "{table}")
}

/// Shows the NAS's own daemon at work: what it sent, took back and remembers.
pub(super) fn day(out: &mut impl Write, day: &Day) -> io::Result<()> {
    heading(out, 3, "The NAS's daemon: a journal, a mail, one taken back, a recall")?;
    for (command, said) in &day.commands {
        writeln!(out, "  $ sns-nas {command}")?;
        for line in said.lines() {
            writeln!(out, "    {line}")?;
        }
    }
    writeln!(out)?;
    let mut table = table(&["", "before the withdrawal", "after it"]);
    let [before, after] = day.screens.each_ref().map(|texts| texts.join("\n"));
    table.add_row(["the iPhone shows".to_owned(), before, after]);
    fix(&mut table, &[(0, 16)]);
    writeln!(out, "{table}")?;
    if let Some(mail) = &day.mail {
        writeln!(out, "\n  The mail that the SMTP server took, over TLS:\n")?;
        for name in MAIL_HEADERS {
            writeln!(out, "    {name}: {}", mail.header(name).unwrap_or("-"))?;
        }
        let text = mail.text.as_deref().unwrap_or_default();
        for line in text.lines().take_while(|line| *line != "-- ") {
            writeln!(out, "    {line}")?;
        }
    }
    Ok(())
}

/// Shows the whole identity store.
pub(super) fn kept(out: &mut impl Write, kept: &Kept) -> io::Result<()> {
    heading(out, 4, &format!("What the relay keeps: all of {STORE_FILE}"))?;
    let mut table = table(&["table", "row", "column", "value"]);
    for content in &kept.tables {
        if content.rows.is_empty() {
            table.add_row([content.table.as_str(), "none", "", ""]);
        }
        for (place, row) in content.rows.iter().enumerate() {
            let columns = content.columns.join("\n");
            let number = (place + 1).to_string();
            table.add_row([content.table.clone(), number, columns, row.join("\n")]);
        }
    }
    writeln!(out, "{table}")
}

/// Shows the metrics that the messages have moved.
pub(super) fn metrics(out: &mut impl Write, text: &str) -> io::Result<()> {
    heading(out, 5, "What the relay counted: a few of /metrics")?;
    let mut table = table(&["metric", "labels", "value"]);
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        if METRICS.contains(&name) && value != "0" {
            let labels = labels.trim_end_matches('}').replace('"', "").replace(',', " ");
            table.add_row(vec![
                Cell::new(name),
                Cell::new(labels),
                Cell::new(rounded(value)).set_alignment(CellAlignment::Right),
            ]);
        }
    }
    table.load_style(STYLE_CONDENSED);
    fix(&mut table, &[(0, 37), (2, 9)]);
    writeln!(out, "{table}")
}

/// Says what was proved and what was not.
pub(super) fn verdict(
    out: &mut impl Write,
    scenes: &[Scene],
    day: &Day,
    kept: &Kept,
    searches: &[Search],
) -> io::Result<()> {
    heading(out, 6, "What was looked for")?;
    let good = scenes.iter().filter(|scene| scene.is_good()).count();
    line(
        out,
        good == scenes.len(),
        &format!("{good} of {} messages accepted and read", scenes.len()),
    )?;
    line(out, day.withdrawn(), "one notification withdrawn: shown, and then no longer")?;
    line(out, day.mail.is_some(), "one mail received, after its address had proved itself")?;
    line(out, day.recalled(), "all of it recalled from the NAS's journal, with its outcomes")?;
    let told = if kept.is_told() { "and the NAS is told all of it" } else { "not all told" };
    let rows = kept.row_count();
    line(out, kept.is_good(), &format!("{rows} row kept: the NAS's identity, {told}"))?;
    for search in searches {
        let Search { place, bytes, wanted, found } = search;
        let found = match found.as_slice() {
            [] => "nothing found".to_owned(),
            found => format!("FOUND: {}", found.join(", ")),
        };
        line(out, search.is_good(), &format!("{place} ({bytes} bytes): {found}"))?;
        writeln!(out, "    of {wanted}")?;
    }
    writeln!(out)
}

/// To the microsecond: more digits are noise.
fn rounded(value: &str) -> String {
    match value.parse::<f64>() {
        Ok(number) if value.contains('.') => format!("{number:.6}"),
        _ => value.to_owned(),
    }
}

fn heading(out: &mut impl Write, number: usize, text: &str) -> io::Result<()> {
    writeln!(out, "\n{number}. {text}\n")
}

fn line(out: &mut impl Write, good: bool, text: &str) -> io::Result<()> {
    writeln!(out, "  {} {text}", if good { "✓" } else { "✗" })
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(STYLE)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(terminal_width())
        .set_header(header);
    table
}

/// Gives columns a width of so many characters.
fn fix(table: &mut Table, columns: &[(usize, u16)]) {
    for (place, chars) in columns {
        if let Some(column) = table.column_mut(*place) {
            let width = chars + column.padding_width();
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width)));
        }
    }
}

fn terminal_width() -> u16 {
    let size = tcgetwinsize(io::stdout()).map_or(WIDTH_MAX, |size| size.ws_col);
    size.clamp(WIDTH_MIN, WIDTH_MAX)
}
