//! The parts of the whole measurement: which program, with which words, each a process of its own.
//!
//! In: a name. Out: the part's report as JSON, or why there is none. A part that fails does not end
//! the others.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::time::Instant;

/// A measurement of this program's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    words: &'static str,
    takes: Takes,
}

/// What a part takes beside its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// Nothing.
    Nothing,
    /// How much of others its turns bear.
    Calm,
    /// The same, and nginx.
    CalmAndNginx,
    /// valgrind.
    Valgrind,
}

/// What the operator told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    pub(crate) relay: Vec<String>,
    pub(crate) cores: Vec<String>,
    pub(crate) calm: Vec<String>,
    pub(crate) nginx: Vec<String>,
    pub(crate) valgrind: Vec<String>,
}

/// Every part, in the order in which they are measured.
pub(crate) const PARTS: [Part; 23] = [
    part("doors-apns", "doors", Takes::CalmAndNginx),
    part(
        "doors-fcm",
        "doors --service fcm --entries http1,http2,http2-tls,grpc-unary,grpc-stream,\
         grpc-stream-full,floor-http1,floor-http2,floor-http2-tls",
        Takes::Calm,
    ),
    part(
        "doors-webpush",
        "doors --service webpush --entries http1,http2,http2-tls,grpc-unary,grpc-stream,\
         grpc-stream-full,floor-http1,floor-http2,floor-http2-tls",
        Takes::Calm,
    ),
    part(
        "doors-slow",
        "doors --latency-ms 50 --in-flight 1024 --messages 40000 \
         --entries http1,http2-tls,grpc-stream,floor-http1,floor-http2-tls",
        Takes::Calm,
    ),
    part("held-http1", "held --kind http1", Takes::Nothing),
    part("held-http2", "held --kind http2", Takes::Nothing),
    part("idle-http1", "idle --kind http1 --callers 10000", Takes::Nothing),
    part("idle-http1-tls", "idle --kind http1 --callers 10000 --tls", Takes::Nothing),
    part("idle-http2", "idle --kind http2 --callers 10000", Takes::Nothing),
    part("idle-http2-tls", "idle --kind http2 --callers 10000 --tls", Takes::Nothing),
    part("idle-grpc-stream", "idle --kind grpc-stream --callers 5000", Takes::Nothing),
    part("idle-grpc-stream-tls", "idle --kind grpc-stream --callers 5000 --tls", Takes::Nothing),
    part("added-500", "added --rate-per-s 500 --seconds 3", Takes::CalmAndNginx),
    part("added-2000", "added --rate-per-s 2000 --seconds 2", Takes::CalmAndNginx),
    part(
        "added-2000-slow",
        "added --rate-per-s 2000 --seconds 2 --latency-ms 50",
        Takes::CalmAndNginx,
    ),
    part("start", "start", Takes::Nothing),
    part("cold", "cold", Takes::Nothing),
    part("scale-handles", "scale --of handles", Takes::Calm),
    part("scale-identities", "scale --of identities", Takes::Calm),
    part("workers", "workers", Takes::Calm),
    part("instructions-http1", "instructions --way http1", Takes::Valgrind),
    part("instructions-http2", "instructions --way http2", Takes::Valgrind),
    part("instructions-grpc-stream", "instructions --way grpc-stream", Takes::Valgrind),
];

const fn part(name: &'static str, words: &'static str, takes: Takes) -> Part {
    Part { name, words, takes }
}

/// Gives a part's name as it was told.
/// Errors: there is no such part.
pub(crate) fn named(name: &str) -> Result<String, String> {
    let names: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
    let known = names.contains(&name);
    if known { Ok(name.to_owned()) } else { Err(format!("one of {}", names.join(", "))) }
}

// === impl Part ===

impl Part {
    /// Measures it; gives what it was asked, how long it took, and its `report` or why it `failed`.
    /// Errors: this program cannot be started again.
    pub(crate) fn measure(self, program: &Path, told: &Told) -> io::Result<Value> {
        let begin = Instant::now();
        let mut command = Command::new(program);
        command.args(self.words.split_whitespace()).args(&told.relay).args(&told.cores);
        match self.takes {
            Takes::Nothing => {}
            Takes::Calm => drop(command.args(&told.calm)),
            Takes::CalmAndNginx => drop(command.args(&told.calm).args(&told.nginx)),
            Takes::Valgrind => drop(command.args(&told.valgrind)),
        }
        let output = command.arg("--json").stdin(Stdio::null()).output()?;
        let seconds = begin.elapsed().as_secs();
        // Bounds that did not hold are a report too.
        Ok(match serde_json::from_slice::<Value>(&output.stdout) {
            Ok(report) => json!({ "words": self.words, "seconds": seconds, "report": report }),
            Err(_) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let failed = said.lines().next().unwrap_or("it said nothing").to_owned();
                json!({ "words": self.words, "seconds": seconds, "failed": failed })
            }
        })
    }
}
