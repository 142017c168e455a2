//! The measuring programs as an operator runs them, as far as they need no relay: the bare
//! forwarder, and the whole suite where the relay is missing.

use std::fs;
use std::process::Command;

use serde_json::Value;

/// Its three doors take turns, no relay among them, and one core is enough.
#[test]
fn the_forwarder_carries_every_message_through_each_of_its_doors() {
    let arguments = "doors --entries floor-http1,floor-http2,floor-http2-tls --base floor-http1 \
                     --messages 200 --in-flight 16 --rounds 2 --relay-core 0 --own-core 0 --json";
    let program = env!("CARGO_BIN_EXE_sns-loadtest");
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let entries: Vec<&str> = rows.iter().map(|row| row["entry"].as_str().unwrap()).collect();
    assert_eq!(entries, ["floor-http1", "floor-http2", "floor-http2-tls"]);
    for row in rows {
        let turns = row["turns"].as_array().unwrap();
        assert_eq!(turns.len(), 2, "the first round is not counted");
        for turn in turns {
            assert_eq!(
                (turn["accepted"].as_u64(), turn["arrived"].as_u64()),
                (Some(200), Some(200))
            );
            assert!(turn["cpu_us"].as_f64().unwrap() > 0.0, "{row}");
        }
    }
}

/// The time that it adds to that of no relay.
#[test]
fn the_forwarder_is_measured_beside_no_relay() {
    let arguments = "added --entries floor --rate-per-s 200 --seconds 1 --rounds 1 \
                     --connections 8 --relay-core 0 --own-core 0 --json";
    let program = env!("CARGO_BIN_EXE_sns-loadtest");
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (row, entry) in report["rows"].as_array().unwrap().iter().zip(["direct", "floor"]) {
        assert_eq!(row["entry"], entry);
        assert_eq!(row["turns"][0]["accepted"].as_u64(), Some(200), "{row}");
    }
}

/// One part fails and another as well; the file and the document say so, and an earlier file is
/// kept where nothing is measured.
#[test]
fn a_part_that_cannot_be_measured_is_told_in_the_file_and_in_the_document() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (file, document) = (at("bench.json"), at("document.md"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/performance.md");
    fs::copy(source, &document).unwrap();
    let run = |words: &[&str]| {
        let program = env!("CARGO_BIN_EXE_sns-loadtest");
        let output = Command::new(program).arg("bench").args(words).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read_to_string(&document).unwrap()
    };
    let first = run(&[
        "--relay",
        "/nonexistent/relay",
        "--only",
        "start,held-http2",
        "--json",
        &file,
        "--write",
        &document,
    ]);
    for part in ["start", "held-http2"] {
        assert!(first.contains(&format!("`{part}` is missing: error: ")), "{first}");
    }
    let all: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(all["parts"].as_object().unwrap().len(), 2);
    assert_eq!(run(&["--from", &file, "--write", &document]), first);
}
