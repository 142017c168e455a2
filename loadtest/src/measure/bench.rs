//! All figures of docs/performance.md: every part in turn, in one file of JSON, and the tables.
//!
//! In: a plan. Out: the JSON of every part, the document with its tables, and how the targets were
//! met. A part that cannot be measured, for want of nginx, say, is a row that tells so; the others
//! go on. With `--from` the tables come from an earlier file, and only the parts of `--only` are
//! measured anew.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};
use sns_nas::clock;

use super::MeasureError;
use super::document::{Place, write_into};
use super::doors::process::Cores;
use super::doors::yardstick::nginx;
use super::report::Judged;
use parts::{PARTS, Part, Told};
use tables::TABLES;
use targets::{Held, TARGETS};

mod figures;

mod parts;

mod tables;

mod targets;

/// What to measure, and where it goes.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// The relay's program; sns-relay beside this one unless told otherwise.
    #[arg(long)]
    relay: Option<PathBuf>,
    /// The program nginx; that of the system unless told otherwise.
    #[arg(long)]
    nginx: Option<PathBuf>,
    /// The program valgrind.
    #[arg(long, default_value = "/usr/bin/valgrind")]
    valgrind: PathBuf,
    /// The parts to measure; all unless told otherwise.
    #[arg(long, value_delimiter = ',', value_parser = parts::named)]
    only: Vec<String>,
    /// Parts of an earlier file that are not measured now; without --only, all of them.
    #[arg(long)]
    from: Option<PathBuf>,
    /// The file for the JSON of all parts.
    #[arg(long, required_unless_present = "from")]
    json: Option<PathBuf>,
    /// A document to put the tables into, such as docs/performance.md.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Cores that other programs may use during a turn: above it the turn is repeated.
    #[arg(long, default_value = "0.35")]
    others_max: String,
    /// How often a turn is taken at most.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    tries_max: u32,
    #[command(flatten)]
    cores: Cores,
}

/// What was measured.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct Report {
    all: Value,
    #[serde(skip)]
    missed: Vec<String>,
}

const END: &str = "<!-- /measured -->";

// === impl Plan ===

impl Plan {
    /// Carries the plan out; each part is a process of its own.
    /// Errors: `Io`, `Json`, or `NoPlace` where the document has no place for a table. What fails
    /// in a part is that part's row.
    pub fn carry_out(&self) -> Result<Report, MeasureError> {
        let earlier = self.from.as_ref().map(|file| read(file)).transpose()?;
        let is_measured = |part: &&Part| match (&earlier, &self.only[..]) {
            (Some(_), []) => false,
            (None, []) => true,
            (_, only) => only.iter().any(|name| name == part.name),
        };
        let parts: Vec<&Part> = PARTS.iter().filter(is_measured).collect();
        let mut all = earlier.unwrap_or_else(|| json!({ "parts": {} }));
        if !parts.is_empty() {
            self.measure(&parts, &mut all)?;
        }
        self.keep(&all)?;
        if let Some(document) = &self.write {
            write(&all, document)?;
        }
        Ok(Report { missed: missed(&all), all })
    }

    fn measure(&self, parts: &[&Part], all: &mut Value) -> Result<(), MeasureError> {
        let (program, told) = (std::env::current_exe()?, self.told());
        let mut err = io::stderr();
        for part in parts {
            write!(err, "{:<26}", part.name)?;
            let measured = part.measure(&program, &told)?;
            let failed = measured["failed"].as_str().unwrap_or_default();
            writeln!(err, "{:>4} s {failed}", measured["seconds"])?;
            all["parts"][part.name] = measured;
            let parts = all["parts"].as_object().into_iter().flat_map(|parts| parts.values());
            all["taken"] = taken(parts.filter_map(|part| part["seconds"].as_u64()).sum());
            // What breaks off later is not lost: --from and --only go on from here.
            self.keep(all)?;
        }
        let mut lacks = Vec::new();
        if nginx(self.nginx.as_ref()).is_none() {
            lacks.push("nginx (sudo apt install nginx-light)");
        }
        if !self.valgrind.is_file() {
            lacks.push("valgrind (sudo apt install valgrind)");
        }
        all["lacks"] = json!(lacks);
        Ok(())
    }

    fn keep(&self, all: &Value) -> Result<(), MeasureError> {
        match &self.json {
            Some(file) => Ok(fs::write(file, serde_json::to_string_pretty(all)? + "\n")?),
            None => Ok(()),
        }
    }

    fn told(&self) -> Told {
        let pair = |name: &str, value: String| vec![name.to_owned(), value];
        let path = |name: &str, path: &Path| pair(name, path.display().to_string());
        let core = |name: &str, core: usize| pair(name, core.to_string());
        let tries = pair("--tries-max", self.tries_max.to_string());
        Told {
            relay: self.relay.as_ref().map_or_else(Vec::new, |relay| path("--relay", relay)),
            cores: [
                core("--relay-core", self.cores.relay_core),
                core("--own-core", self.cores.own_core),
            ]
            .concat(),
            calm: [pair("--others-max", self.others_max.clone()), tries].concat(),
            nginx: self.nginx.as_ref().map_or_else(Vec::new, |nginx| path("--nginx", nginx)),
            valgrind: path("--valgrind", &self.valgrind),
        }
    }
}

fn read(file: &Path) -> Result<Value, MeasureError> {
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

/// Puts every table into its place.
fn write(all: &Value, document: &Path) -> Result<(), MeasureError> {
    let place = |name: &str| Place { start: format!("<!-- measured: {name} -->"), end: END };
    let tables: Vec<_> = TABLES.iter().map(|(name, table)| (place(name), table(all))).collect();
    write_into(document, &tables)
}

/// Tells when and where the figures were taken.
fn taken(seconds: u64) -> Value {
    let first = |file: &str, field: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(field).map(str::to_owned));
        line.map_or(String::new(), |line| line.trim_matches([':', ' ', '\t']).to_owned())
    };
    json!({
        "at": clock::rfc3339(clock::now_unix_ms()),
        "seconds": seconds,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "processor": first("/proc/cpuinfo", "model name"),
        "kernel": first("/proc/sys/kernel/osrelease", ""),
    })
}

/// Names the targets that were not held.
fn missed(all: &Value) -> Vec<String> {
    let verdicts = TARGETS.iter().map(|target| (target, target.verdict(all)));
    let not_held = verdicts.filter_map(|(target, verdict)| match verdict.held {
        Held::Aim | Held::Must => None,
        Held::No => Some(format!("{} {}: {}", target.number, target.what, verdict.seen)),
        Held::NotMeasured(why) => {
            Some(format!("{} {}: not measured, {why}", target.number, target.what))
        }
    });
    not_held.collect()
}

// === impl Report ===

impl Judged for Report {
    fn missed(&self) -> &[String] {
        &self.missed
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let targets: BTreeMap<&str, _> = TABLES.into_iter().collect();
        match targets.get("targets") {
            Some(table) => out.write_all(table(&self.all).as_bytes()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rounds of a few parts, as the programs write them; the others are missing or failed.
    fn sample() -> Value {
        let turns = |cpu_us: [f64; 2]| {
            json!(cpu_us.map(|cpu_us| json!({ "cpu_us": cpu_us, "rate_per_s": 19_456.0 })))
        };
        let spread = |median: f64| json!({ "median": median, "min": 0.5, "max": 2.0 });
        let doors = json!({
            "in_flight": 1024, "latency_ms": 50,
            "rows": [
                { "entry": "http1", "to_floor": spread(1.2), "turns": turns([20.0, 22.0]) },
                { "entry": "nas-fanout", "to_base": spread(0.6), "turns": turns([10.0, 12.1]) },
            ],
        });
        let cold = json!({ "rows": [
            { "push_service": "APNs", "errors": 0, "tokens_max": 1, "connections_max": 4,
              "p99_ms": spread(60.0) },
            { "push_service": "FCM", "errors": 0, "tokens_max": 2, "connections_max": 4,
              "p99_ms": spread(40.0) },
        ] });
        let part = |report: &Value| json!({ "words": "x", "seconds": 1, "report": report });
        json!({
            "parts": {
                "doors-apns": part(&doors),
                "doors-slow": part(&doors),
                "cold": part(&cold),
                "start": { "words": "start", "seconds": 0, "failed": "error: no relay" },
            },
            "lacks": ["nginx"],
        })
    }

    /// What a target's row says of the sample.
    fn held(what: &str) -> Vec<String> {
        let all = sample();
        let rows = TARGETS.iter().filter(|target| target.what.contains(what));
        rows.map(|target| target.verdict(&all).held.text(target)).collect()
    }

    #[test]
    fn a_target_is_judged_by_its_median_on_the_right_side() {
        for (what, expected) in [
            ("HTTP/1.1 to APNs ÷ bare", vec!["held", "held"]),
            ("the same ÷ nginx", vec!["not measured: nginx is not installed"]),
            ("CPU per device", vec!["held"]),
            ("÷ ideal", vec!["aim reached"]),
            ("not accepted", vec!["held"]),
            ("access tokens", vec!["**missed**"]),
            ("p99 of them to APNs", vec!["aim missed"]),
            ("p99 of them to FCM", vec!["aim reached"]),
            ("p99 of them to Web Push", vec!["not measured: no figure"]),
            ("start until ready", vec!["not measured: error: no relay"]),
            ("HTTP/1.1 to FCM", vec!["not measured: not measured"]),
        ] {
            assert_eq!(held(what), expected, "{what}");
        }
    }

    /// The fifteen are all there, in their order, and each names a part that is measured.
    #[test]
    fn every_target_is_found_in_a_part() {
        let mut numbers: Vec<u32> =
            TARGETS.iter().map(|target| target.number.parse().unwrap()).collect();
        assert!(numbers.is_sorted());
        numbers.dedup();
        assert_eq!(numbers, (1..=15).collect::<Vec<_>>());
        for target in &TARGETS {
            assert!(parts::named(target.part()).is_ok(), "{}", target.what);
        }
    }

    /// From JSON to the document and again, with and without figures: the same text each time.
    #[test]
    fn a_document_takes_every_table_and_keeps_its_own_text() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("document.md");
        let mut text = "# Title\n".to_owned();
        for (name, _) in TABLES {
            text += &format!("by hand {name}\n<!-- measured: {name} -->\nold\n{END}\n");
        }
        fs::write(&file, &text).unwrap();
        write(&sample(), &file).unwrap();
        let first = fs::read_to_string(&file).unwrap();
        assert!(!first.contains("\nold\n"));
        assert!(first.contains("| `http1` | 19456 | 22.0 (20.0–22.0) |"), "{first}");
        assert!(first.contains("`start` is missing: error: no relay."), "{first}");
        let text = serde_json::to_string(&sample()).unwrap();
        write(&serde_json::from_str(&text).unwrap(), &file).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), first);
        write(&json!({}), &file).unwrap();
        for (name, _) in TABLES {
            assert!(fs::read_to_string(&file).unwrap().contains(&format!("by hand {name}\n")));
        }
    }

    #[test]
    fn a_document_that_lacks_a_place_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("document.md");
        let text = format!("<!-- measured: targets -->\nold\n{END}\n");
        fs::write(&file, &text).unwrap();
        assert!(matches!(write(&sample(), &file), Err(MeasureError::NoPlace(..))));
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
}
