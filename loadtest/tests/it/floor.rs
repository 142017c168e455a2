//! The bare forwarder, measured by the program itself as an operator does it.

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
