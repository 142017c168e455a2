//! The ways in, driven by the load tester: each one carries every message, and idle callers stay.

use std::path::PathBuf;

use clap::Parser;
use serde_json::Value;
use sns_loadtest::measure::{doors, idle};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sns-relay");

/// A line as an operator types it.
#[derive(Parser)]
enum Line {
    Doors(doors::Plan),
    Idle(idle::Plan),
}

/// Gives the report; one core is enough, though it makes the figures worthless.
fn measured(line: &str) -> Value {
    let program = PathBuf::from(PROGRAM);
    let words = ["load"].into_iter().chain(line.split_whitespace());
    let rest = ["--relay", program.to_str().unwrap(), "--relay-core", "0", "--own-core", "0"];
    match Line::parse_from(words.chain(rest)) {
        Line::Doors(plan) => serde_json::to_value(plan.carry_out().unwrap()).unwrap(),
        Line::Idle(plan) => serde_json::to_value(plan.carry_out().unwrap()).unwrap(),
    }
}

/// More messages than devices, to each push service, with as many in flight as one stream takes.
#[test]
fn every_way_in_carries_every_message() {
    let entries = "http1,http2,http2-tls,grpc-unary,grpc-stream,grpc-stream-full";
    for service in ["apns", "fcm", "webpush"] {
        let line = format!(
            "doors --entries {entries} --service {service} --devices 20 --messages 300 --rounds 1 \
             --in-flight 16 --connections 2"
        );
        let report = measured(&line);
        assert_eq!(report["missed"], Value::Array(Vec::new()), "{service}: {report}");
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
        assert_eq!(report["missed"], Value::Array(Vec::new()), "{kind}: {report}");
        assert!(report["memory_held_kib"].as_u64() >= report["memory_before_kib"].as_u64());
    }
}
