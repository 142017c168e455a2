//! The scenarios, played by the program itself as an operator does it, against the relay beside it.
//!
//! The relay's own tests build that program; where it is not built these tests build it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_sns-loadtest");

/// Gives the relay's program, built from this tree; once for all tests.
fn relay() -> &'static Path {
    static RELAY: OnceLock<PathBuf> = OnceLock::new();
    RELAY.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--offline", "--package", "sns-relay", "--bin", "sns-relay"]);
        build.args((!cfg!(debug_assertions)).then_some("--release"));
        let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Path::new(PROGRAM).with_file_name("sns-relay")
    })
}

fn play(line: &str) -> Output {
    let words = line.split_whitespace();
    Command::new(PROGRAM).arg("scenario").args(words).arg("--json").output().unwrap()
}

/// Plays against a relay of its own and gives the JSON; every bound must hold.
fn report(line: &str) -> Value {
    let output = play(&format!("{line} --relay {}", relay().display()));
    let (out, err) = (&output.stdout, &output.stderr);
    let said = || format!("{}{}", String::from_utf8_lossy(err), String::from_utf8_lossy(out));
    assert!(output.status.success(), "{line}: {}", said());
    assert!(output.stderr.is_empty(), "no progress where there is no terminal: {}", said());
    serde_json::from_slice(out).unwrap()
}

fn count(report: &Value, pointer: &str) -> u64 {
    report.pointer(pointer).and_then(Value::as_u64).unwrap()
}

/// Two seconds each way, with TLS or without, one message or one notification at a time.
#[test]
fn every_way_in_carries_every_message_and_the_push_services_count_as_many() {
    let rows = [
        ("steady --way http1", 2),
        ("steady --way http2 --tls", 2),
        ("steady --way grpc-unary --tls", 2),
        ("steady --way grpc-stream", 2),
        ("steady --arrivals closed --in-flight 4", 1),
        ("fanout --way http1 --devices-per-nas 5", 1),
        ("fanout --way grpc-unary --devices-per-nas 5", 1),
        ("fanout --way grpc-stream --devices-per-nas 5 --tls", 1),
    ];
    for (line, seconds) in rows {
        let report = report(&format!("{line} --nas 2 --seconds {seconds}"));
        let services = report["services"].as_array().unwrap();
        assert_eq!(services.len(), 3, "{line}");
        for service in services {
            let [sent, accepted, arrived] =
                ["/sent", "/accepted", "/arrived"].map(|figure| count(service, figure));
            assert!(sent > 0 && sent == accepted && accepted == arrived, "{line}: {service}");
        }
        assert!(report["process"]["cpu_us_per_message"].as_f64().unwrap() > 0.0, "{line}");
        assert!(report["whole"]["p99_ms"].as_f64().unwrap() > 0.0, "{line}");
        let points = report["points"].as_array().unwrap();
        let offered: u64 = points.iter().map(|point| count(point, "/offered")).sum();
        assert_eq!(offered, count(&report, "/whole/sent"), "{line}: each message is in one second");
    }
}

/// A power cut: five alarms of each NAS, to each of its devices. An update: one of each.
#[test]
fn the_population_says_how_many_messages_a_storm_and_a_fleet_have() {
    let storm = report("storm --nas 6 --devices-per-nas 3 --seconds 1");
    assert_eq!(count(&storm, "/whole/accepted"), 6 * 3 * 5);
    let fleet = report("fleet --nas 20 --devices-per-nas 2 --seconds 2");
    assert_eq!(count(&fleet, "/whole/accepted"), 20 * 2);
    let early = count(&fleet, "/points/0/offered");
    assert_eq!(early, 10, "half of the time has a quarter of a rate that rises from nothing");
}

/// The middle third of the messages to Apple waits; nobody else's does.
#[test]
fn a_slow_apple_holds_up_its_own_messages_alone() {
    let line = "slow-apple --seconds 3 --nas 4 --rate-per-s 60 --apple-latency-ms 700";
    let report = report(line);
    for third in report["thirds"].as_array().unwrap() {
        let is_slow = third["push_service"] == "APNs" && third["third"] == "slow";
        let p50_ms = third["p50_ms"].as_f64().unwrap();
        assert_eq!(p50_ms >= 700.0, is_slow, "{third}");
    }
}

#[test]
fn connections_that_go_away_again_and_again_lose_and_double_nothing() {
    let report = report("goaway --seconds 2 --nas 2 --rate-per-s 100 --goaway-every 10");
    assert!(count(&report, "/apns_connections_opened") >= 5, "{report}");
}

#[test]
fn quiet_connections_are_there_and_have_their_cost_in_memory() {
    let report = report("idle --seconds 1 --nas 2 --connections 300");
    assert_eq!(report["quiet"]["are_all_there"], true);
    assert!(report["quiet"]["kib_per_connection"].as_f64().unwrap() > 0.0, "{report}");
    assert!(count(&report, "/process/sockets_max") >= 300);
}

/// A bound of one millisecond is soon broken by a push service that takes longer.
#[test]
fn a_ramp_ends_at_its_knee() {
    let report = report("ramp --nas 2 --rate-per-s 50 --seconds 4 --p99-ms-max 30000");
    assert_eq!(report["knee"]["good_per_s"], 50);
    let report = self::report("ramp --nas 2 --rate-per-s 200 --seconds 60 --p99-ms-max 1");
    assert!(count(&report, "/knee/bad_per_s") >= 200, "{report}");
}

/// Reads the file, which must stand by itself and tell nothing that is secret.
#[test]
fn the_page_has_every_plot_and_needs_nothing_from_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    let report = report(&format!("steady --nas 2 --seconds 2 --report {}", file.display()));
    let page = std::fs::read_to_string(file).unwrap();
    let titles = [
        "Latency",
        "Distribution of latency",
        "Rate",
        "Median latency by push service",
        "CPU time per message",
        "Memory",
        "Open files and connections",
    ];
    for title in titles {
        assert!(page.contains(&format!("<h2>{title}</h2>")), "{title}");
    }
    assert_eq!(page.matches("<svg").count(), titles.len());
    for word in ["prefers-color-scheme", "µs of the relay", "Every bound held", "machine"] {
        assert!(page.contains(word), "{word}");
    }
    for text in [&page, &report.to_string()] {
        for foreign in ["http://", "https://", "<script", "@import", "url(", "vapid", "APA91b"] {
            assert!(!text.contains(foreign), "{foreign}");
        }
        let longest = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let longest = longest.max_by_key(|word| word.len()).unwrap();
        assert!(longest.len() < 32, "nothing is as long as a key, a handle or a token: {longest}");
    }
}

/// A relay that is ended when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself; then the test has failed already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two scenarios one after the other: the relay stays, and meets the same push services again.
#[test]
fn a_relay_that_runs_already_is_used_as_it_is_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let house = folder.path().join("house");
    let made = Command::new(PROGRAM).arg("house").arg(&house).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    assert!(String::from_utf8_lossy(&made.stdout).contains("--running"));
    let keys = Command::new(relay()).args(["keys", "init"]).arg(house.join("keys")).output();
    assert!(keys.unwrap().status.success());
    let mut serve = Command::new(relay());
    serve.args(["serve", "--config"]).arg(house.join("relay.toml"));
    serve.stdout(Stdio::null()).stderr(Stdio::null());
    let mut relay = Running(serve.spawn().unwrap());
    let line = format!("steady --nas 2 --seconds 1 --running {}", house.display());
    let pid = relay.0.id();
    for (line, has_figures) in [(format!("{line} --pid {pid}"), true), (line, false)] {
        let output = play(&line);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["process"].is_object(), has_figures);
        assert!(count(&report, "/whole/accepted") > 0);
    }
    assert!(relay.0.try_wait().unwrap().is_none(), "it still runs");
}

/// What the command line cannot mean ends with the exit code of bad usage, before anything starts.
#[test]
fn bad_values_are_refused_by_name() {
    let rows = [
        ("storm --rate-per-s 5", "--rate-per-s"),
        ("steady --mix apns=1,sms=2", "--mix"),
        ("steady --running /nowhere", "--running"),
        ("steady --report /nowhere/report.html", "--report"),
    ];
    for (line, option) in rows {
        let output = play(line);
        assert_eq!(output.status.code(), Some(64), "{line}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(option), "{line}");
    }
}
