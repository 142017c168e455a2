//! The targets themselves: the bound that must hold, the one that is aimed at, and where the figure
//! is found.
//!
//! In: a part's report. Out: the figure. A ratio is taken within each round.

use serde_json::Value;

use super::super::figures::{Figure, of_turns, row};
use super::{Sense, Target};

/// Every target, in their order.
pub(in super::super) const TARGETS: [Target; 28] = [
    Target {
        number: "1",
        what: "CPU per message, HTTP/1.1 to APNs ÷ bare forwarder",
        part: "doors-apns",
        must: Some(1.25),
        aim: Some(0.9),
        sense: Sense::AtMost,
        digits: 2,
        unit: "",
        find: |all| to_floor(all, "http1"),
    },
    Target {
        number: "1",
        what: "the same ÷ nginx",
        part: "doors-apns",
        must: Some(1.0),
        aim: None,
        sense: Sense::AtMost,
        digits: 2,
        unit: "",
        find: |all| ratio(all, "http1", "nginx-http1"),
    },
    Target {
        number: "2",
        what: "CPU per message, HTTP/2 over TLS to APNs ÷ bare forwarder",
        part: "doors-apns",
        must: Some(1.25),
        aim: Some(0.9),
        sense: Sense::AtMost,
        digits: 2,
        unit: "",
        find: |all| to_floor(all, "http2-tls"),
    },
    Target {
        number: "3",
        what: "CPU per message, HTTP/1.1 to FCM ÷ bare forwarder",
        part: "doors-fcm",
        must: Some(1.35),
        aim: Some(1.0),
        sense: Sense::AtMost,
        digits: 2,
        unit: "",
        find: |all| to_floor(all, "http1"),
    },
    Target {
        number: "4",
        what: "CPU per message, HTTP/1.1 to Web Push ÷ bare forwarder",
        part: "doors-webpush",
        must: Some(1.4),
        aim: Some(1.0),
        sense: Sense::AtMost,
        digits: 2,
        unit: "",
        find: |all| to_floor(all, "http1"),
    },
    Target {
        number: "5",
        what: "CPU per message, gRPC `Stream` with 256 in flight ÷ HTTP/2 over TLS",
        part: "doors-apns",
        must: Some(1.0),
        aim: Some(0.8),
        sense: Sense::AtMost,
        digits: 2,
        unit: "",
        find: |all| ratio(all, "grpc-stream-full", "http2-tls"),
    },
    Target {
        number: "6",
        what: "CPU per device, NAS door, 20 devices a notification ÷ HTTP/1.1 to APNs",
        part: "doors-apns",
        must: Some(0.7),
        aim: Some(0.5),
        sense: Sense::AtMost,
        digits: 2,
        unit: "",
        find: |all| ratio(all, "nas-fanout", "http1"),
    },
    Target {
        number: "7",
        what: "messages/s at 50 ms with 1,024 in flight ÷ ideal, on 4 connections",
        part: "doors-slow",
        must: Some(0.92),
        aim: Some(0.95),
        sense: Sense::AtLeast,
        digits: 2,
        unit: "",
        find: to_ideal,
    },
    Target {
        number: "7",
        what: "CPU per message there, HTTP/1.1 to APNs ÷ bare forwarder",
        part: "doors-slow",
        must: Some(1.25),
        aim: Some(0.85),
        sense: Sense::AtMost,
        digits: 2,
        unit: "",
        find: |all| to_floor(all, "http1"),
    },
    Target {
        number: "8",
        what: "memory for 10,000 messages in flight, HTTP/1.1",
        part: "held-http1",
        must: Some(200.0),
        aim: Some(120.0),
        sense: Sense::AtMost,
        digits: 0,
        unit: " MiB",
        find: |all| Figure::read(&all["mib_per_10000"]),
    },
    Target {
        number: "8",
        what: "memory for 10,000 messages in flight, HTTP/2",
        part: "held-http2",
        must: Some(60.0),
        aim: Some(33.0),
        sense: Sense::AtMost,
        digits: 0,
        unit: " MiB",
        find: |all| Figure::read(&all["mib_per_10000"]),
    },
    Target {
        number: "9",
        what: "memory of 10,000 idle callers, HTTP/1.1",
        part: "idle-http1",
        must: Some(100.0),
        aim: Some(36.0),
        sense: Sense::AtMost,
        digits: 0,
        unit: " MiB",
        find: idle_mib,
    },
    Target {
        number: "9",
        what: "memory of 10,000 idle callers, HTTP/2 over TLS",
        part: "idle-http2-tls",
        must: Some(250.0),
        aim: Some(150.0),
        sense: Sense::AtMost,
        digits: 0,
        unit: " MiB",
        find: idle_mib,
    },
    Target {
        number: "9",
        what: "memory of 10,000 idle callers, gRPC `Stream`",
        part: "idle-grpc-stream",
        must: Some(300.0),
        aim: Some(180.0),
        sense: Sense::AtMost,
        digits: 0,
        unit: " MiB",
        find: idle_mib,
    },
    Target {
        number: "10",
        what: "added p99 at 500/s",
        part: "added-500",
        must: Some(0.5),
        aim: Some(0.2),
        sense: Sense::AtMost,
        digits: 2,
        unit: " ms",
        find: added_p99,
    },
    Target {
        number: "10",
        what: "added p99 at 2,000/s",
        part: "added-2000",
        must: Some(0.5),
        aim: Some(0.2),
        sense: Sense::AtMost,
        digits: 2,
        unit: " ms",
        find: added_p99,
    },
    Target {
        number: "11",
        what: "added p99 at 2,000/s and a push service of 50 ms",
        part: "added-2000-slow",
        must: Some(0.5),
        aim: Some(0.2),
        sense: Sense::AtMost,
        digits: 2,
        unit: " ms",
        find: added_p99,
    },
    Target {
        number: "12",
        what: "start until ready with 1,000,000 identities",
        part: "start",
        must: Some(100.0),
        aim: Some(30.0),
        sense: Sense::AtMost,
        digits: 1,
        unit: " ms",
        find: |all| Figure::read(&all["ready_ms"]),
    },
    Target {
        number: "13",
        what: "1,000 first messages at once: not accepted",
        part: "cold",
        must: Some(0.0),
        aim: None,
        sense: Sense::AtMost,
        digits: 0,
        unit: "",
        find: |all| most(all, "errors"),
    },
    Target {
        number: "13",
        what: "access tokens that they take",
        part: "cold",
        must: Some(1.0),
        aim: None,
        sense: Sense::AtMost,
        digits: 0,
        unit: "",
        find: |all| most(all, "tokens_max"),
    },
    Target {
        number: "13",
        what: "connections that they take",
        part: "cold",
        must: Some(4.0),
        aim: None,
        sense: Sense::AtMost,
        digits: 0,
        unit: "",
        find: |all| most(all, "connections_max"),
    },
    Target {
        number: "13",
        what: "p99 of them to APNs",
        part: "cold",
        must: None,
        aim: Some(50.0),
        sense: Sense::AtMost,
        digits: 1,
        unit: " ms",
        find: |all| Figure::read(&row(all, "push_service", "APNs")?["p99_ms"]),
    },
    Target {
        number: "13",
        what: "p99 of them to FCM",
        part: "cold",
        must: None,
        aim: Some(50.0),
        sense: Sense::AtMost,
        digits: 1,
        unit: " ms",
        find: |all| Figure::read(&row(all, "push_service", "FCM")?["p99_ms"]),
    },
    Target {
        number: "13",
        what: "p99 of them to Web Push",
        part: "cold",
        must: None,
        aim: Some(50.0),
        sense: Sense::AtMost,
        digits: 1,
        unit: " ms",
        find: |all| Figure::read(&row(all, "push_service", "Web Push")?["p99_ms"]),
    },
    Target {
        number: "14",
        what: "CPU per message, 1,000,000 handles ÷ 1,000",
        part: "scale-handles",
        must: Some(1.1),
        aim: Some(1.03),
        sense: Sense::AtMost,
        digits: 2,
        unit: "",
        find: |all| of_place(all, 1),
    },
    Target {
        number: "14",
        what: "CPU per message, 1,000 NAS send, 1,000,000 in the store ÷ 1,000",
        part: "scale-identities",
        must: Some(1.1),
        aim: Some(1.03),
        sense: Sense::AtMost,
        digits: 2,
        unit: "",
        find: |all| of_place(all, 1),
    },
    Target {
        number: "14",
        what: "CPU per message, 1,000,000 NAS send in turn ÷ 1,000",
        part: "scale-identities",
        must: Some(1.1),
        aim: Some(1.03),
        sense: Sense::AtMost,
        digits: 2,
        unit: "",
        find: |all| of_place(all, 2),
    },
    Target {
        number: "15",
        what: "CPU per message, two worker threads ÷ one",
        part: "workers",
        must: Some(1.1),
        aim: Some(1.05),
        sense: Sense::AtMost,
        digits: 2,
        unit: "",
        find: |all| of_place(all, 1),
    },
];

/// CPU per message ÷ that of the forwarder that is asked in the same way.
fn to_floor(report: &Value, entry: &str) -> Option<Figure> {
    Figure::read(&row(report, "entry", entry)?["to_floor"])
}

/// CPU per message of one entry ÷ that of another.
fn ratio(report: &Value, entry: &str, other: &str) -> Option<Figure> {
    let cpu = |entry: &str| Some(of_turns(row(report, "entry", entry)?, "cpu_us"));
    let rounds = cpu(entry)?.into_iter().zip(cpu(other)?);
    Figure::of(rounds.map(|(one, other)| one / other).collect())
}

/// Messages a second of HTTP/1.1 ÷ what the push service's latency allows.
fn to_ideal(report: &Value) -> Option<Figure> {
    let ideal = report["in_flight"].as_f64()? * 1_000.0 / report["latency_ms"].as_f64()?;
    let rates = of_turns(row(report, "entry", "http1")?, "rate_per_s");
    Some(Figure::of(rates)?.times(1.0 / ideal))
}

fn idle_mib(report: &Value) -> Option<Figure> {
    Some(Figure::read(&report["kib_per_caller"])?.times(10_000.0 / 1_024.0))
}

fn added_p99(report: &Value) -> Option<Figure> {
    Figure::read(&row(report, "entry", "relay")?["added_p99_ms"])
}

/// The most of any push service.
fn most(report: &Value, figure: &str) -> Option<Figure> {
    let rows = report["rows"].as_array()?.iter();
    let median = rows.filter_map(|row| row[figure].as_f64()).reduce(f64::max)?;
    Some(Figure { median, range: None })
}

/// CPU per message of this row ÷ that of the first one.
fn of_place(report: &Value, place: usize) -> Option<Figure> {
    Figure::read(&report["rows"].get(place)?["to_base"])
}
