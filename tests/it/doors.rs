//! The measuring programs, each with little to do: the ways in carry every message, idle callers
//! stay, and every figure that docs/performance.md shows is there.

use std::path::PathBuf;

use clap::Parser;
use serde_json::Value;
use sns_loadtest::measure::report::Judged;
use sns_loadtest::measure::{MeasureError, added, cold, doors, held, idle, scale, start, workers};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sns-relay");

/// A line as an operator types it.
#[derive(Parser)]
enum Line {
    Doors(doors::Plan),
    Idle(idle::Plan),
    Held(held::Plan),
    Added(added::Plan),
    Start(start::Plan),
    Cold(cold::Plan),
    Scale(scale::Plan),
    Workers(workers::Plan),
}

/// Gives the report; one core is enough, though it makes the figures worthless.
fn measured(line: &str) -> Value {
    let program = PathBuf::from(PROGRAM);
    let words = ["load"].into_iter().chain(line.split_whitespace());
    let rest = ["--relay", program.to_str().unwrap(), "--relay-core", "0", "--own-core", "0"];
    match Line::parse_from(words.chain(rest)) {
        Line::Doors(plan) => json(plan.carry_out()),
        Line::Idle(plan) => json(plan.carry_out()),
        Line::Held(plan) => json(plan.carry_out()),
        Line::Added(plan) => json(plan.carry_out()),
        Line::Start(plan) => json(plan.carry_out()),
        Line::Cold(plan) => json(plan.carry_out()),
        Line::Scale(plan) => json(plan.carry_out()),
        Line::Workers(plan) => json(plan.carry_out()),
    }
}

/// Gives the report as the programs write it; every bound must have held.
fn json(report: Result<impl Judged, MeasureError>) -> Value {
    let report = report.unwrap();
    let (mut text, mut told) = (Vec::new(), Vec::new());
    let holds = report.write(true, &mut text).unwrap();
    report.write(false, &mut told).unwrap();
    assert!(holds, "{}", String::from_utf8_lossy(&told));
    serde_json::from_slice(&text).unwrap()
}

/// More messages than devices, to each push service, with as many in flight as one stream takes.
#[test]
fn every_way_in_carries_every_message() {
    let entries = "http1,http2,http2-tls,grpc-unary,grpc-stream,grpc-stream-full,nas-fanout";
    for service in ["apns", "fcm", "webpush"] {
        let line = format!(
            "doors --entries {entries} --service {service} --devices 20 --messages 300 --rounds 1 \
             --in-flight 16 --connections 2"
        );
        let report = measured(&line);
        let rows = report["rows"].as_array().unwrap();
        assert_eq!(rows.len(), entries.split(',').count());
        for row in rows {
            let turn = &row["turns"][0];
            let counted = (turn["accepted"].as_u64(), turn["arrived"].as_u64());
            assert_eq!(counted, (Some(300), Some(300)), "{service}: {row}");
        }
    }
}

/// More callers than one sender may have streams, of each kind, in clear text and over TLS.
#[test]
fn idle_callers_of_each_kind_stay_and_are_counted() {
    for kind in ["http1", "http2", "grpc-stream", "grpc-stream --tls"] {
        let report = measured(&format!("idle --callers 40 --kind {kind}"));
        assert!(report["memory_held_kib"].as_u64() >= report["memory_before_kib"].as_u64());
    }
}

/// As many connections as messages, and a few connections with many streams each.
#[test]
fn messages_in_flight_are_all_there_when_they_are_counted() {
    for kind in ["http1", "http2 --connections 3"] {
        let line = format!("held --kind {kind} --in-flight 90 --latency-ms 800");
        let report = measured(&line);
        assert_eq!((report["accepted"].as_u64(), report["at_once"].as_u64()), (Some(90), Some(90)));
        assert!(report["memory_held_kib"].as_u64() >= report["memory_before_kib"].as_u64());
    }
}

/// A push service of 20 ms: the direct way takes that long at least, and the relay as well.
#[test]
fn the_time_of_no_relay_is_taken_beside_that_of_the_relay() {
    let report = measured(
        "added --entries relay --rate-per-s 100 --seconds 1 --latency-ms 20 --rounds 2 \
         --connections 20 --devices 10",
    );
    let rows = report["rows"].as_array().unwrap();
    let entries: Vec<&str> = rows.iter().map(|row| row["entry"].as_str().unwrap()).collect();
    assert_eq!(entries, ["direct", "relay"]);
    for row in rows {
        assert!(row["p50_ms"]["median"].as_f64().unwrap() >= 20.0, "{row}");
        for turn in row["turns"].as_array().unwrap() {
            assert_eq!(turn["accepted"].as_u64(), Some(100), "{row}");
        }
    }
    assert!(rows[0]["added_p99_ms"].is_null() && rows[1]["added_p99_ms"].is_object());
}

#[test]
fn a_relay_is_started_on_a_store_that_was_filled() {
    let report = measured("start --identities 500 --starts 2");
    for figure in ["ready_ms", "empty_ready_ms"] {
        assert!(report[figure]["min"].as_f64().unwrap() > 0.0, "{report}");
    }
}

#[test]
fn first_messages_are_counted_at_each_push_service() {
    let report = measured("cold --messages 60 --connections 2 --rounds 1");
    let rows = report["rows"].as_array().unwrap();
    let services: Vec<&str> =
        rows.iter().map(|row| row["push_service"].as_str().unwrap()).collect();
    assert_eq!(services, ["APNs", "FCM", "Web Push"]);
    for row in rows {
        assert_eq!(row["tokens_max"].as_u64(), Some(1), "{row}");
        assert!((1..=4).contains(&row["connections_max"].as_u64().unwrap()), "{row}");
    }
}

/// More handles, and more NAS, than a turn has messages; and fewer.
#[test]
fn few_and_many_are_compared_in_turn() {
    for (line, rows) in [
        ("scale --of handles --few 5 --many 40", 2),
        ("scale --of identities --few 5 --many 40", 3),
        ("workers --devices 10", 2),
    ] {
        let line = format!("{line} --messages 30 --in-flight 4 --rounds 2");
        let report = measured(&line);
        assert_eq!(report["rows"].as_array().unwrap().len(), rows);
        for row in report["rows"].as_array().unwrap() {
            assert!(row["cpu_us"]["min"].as_f64().unwrap() > 0.0, "{row}");
            assert_eq!(row["turns"].as_array().unwrap().len(), 2);
        }
    }
}

/// What is out of range is bad usage, before anything starts.
#[test]
fn options_have_bounds() {
    for line in [
        "held --in-flight 0",
        "held --latency-ms 20000",
        "added --rate-per-s 0",
        "added --others-max -1",
        "start --starts 0",
        "cold --messages 2001",
        "scale --few 0",
        "scale --of devices",
        "workers --rounds 0",
        "workers --tries-max 0",
        "doors --others-max NaN",
    ] {
        let words = ["load"].into_iter().chain(line.split_whitespace());
        assert!(Line::try_parse_from(words).is_err(), "{line}");
    }
}
