//! What a fault at one push service costs: its own messages, and those to the other two.
//!
//! In: the relay's own program, three push services that take 20 ms, an open loop to each. Out: for
//! each fault at each service what its senders hear, what is lost, doubled or called gone, and how
//! the other services' messages do during the fault, compared with just before it. Every message is
//! a new one, so that each can be looked up at its push service. Every second round the service
//! processes its messages before the fault hits their answers.

use std::path::PathBuf;
use std::time::Duration;

use sns_nas::client::RelayClient;
use tokio::time::{Instant, sleep};

use super::MeasureError;
use super::child::RelayChild;
use super::pace::Pace;
use crate::device::DeviceKind;
use crate::fault::Fault;
use crate::stage::Stage;
use party::{Heard, Party};
use report::{Report, Row};

mod party;

pub mod report;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The relay's program.
    pub relay: PathBuf,
    /// The faults; each must be one that a running push service can have.
    pub faults: Vec<Fault>,
    /// The load on each service, and the length of each window.
    pub pace: Pace,
    /// How often each fault is measured at each service; at least 1.
    pub rounds: u32,
}

/// One round of one fault at one service.
pub(crate) struct Round {
    /// The other services' messages just before.
    pub(crate) before: Heard,
    /// The other services' messages meanwhile.
    pub(crate) others: Heard,
    /// The service's own.
    pub(crate) own: Heard,
    /// From the end of the fault to the next accepted message; none within `PATIENCE`.
    pub(crate) back_after: Option<Duration>,
}

/// What a push service takes when nothing is wrong; below it, times are the machine's own noise.
const LATENCY: Duration = Duration::from_millis(20);
/// What each service allows when nothing is wrong.
const STREAM_LIMIT: u32 = 100;
const PATIENCE: Duration = Duration::from_secs(20);
const RETRY_EVERY: Duration = Duration::from_millis(20);
/// How long messages may wait here; a run with an operator's times would take hours.
const TIMES: [(&str, i64); 12] = [
    ("server.request_timeout_ms", 1_200),
    ("server.header_timeout_ms", 600_000),
    ("upstream.connect_timeout_ms", 500),
    ("upstream.ping_timeout_s", 1),
    ("upstream.wedge_ms", 1_000),
    ("upstream.patience_ms", 500),
    ("upstream.backoff_min_ms", 20),
    ("upstream.backoff_max_ms", 200),
    ("upstream.breaker_open_min_ms", 50),
    ("upstream.breaker_open_max_ms", 200),
    ("upstream.credential_probe_s", 1),
    ("feedback.hold_s_max", 1),
];

/// Reads the name of a fault that a running push service can have: `Stall`, `goawaystorm`.
/// Errors: what to tell whoever wrote it.
pub fn named(text: &str) -> Result<Fault, String> {
    let of_name = |fault: &Fault| format!("{fault:?}").eq_ignore_ascii_case(text);
    let found = Fault::ALL.into_iter().filter(|fault| fault.can_begin()).find(of_name);
    found.ok_or_else(|| "no fault that a running push service can have".to_owned())
}

// === impl Plan ===

impl Plan {
    /// Carries the plan out.
    /// Errors: [`MeasureError`]; messages that fail are figures of the report.
    pub async fn carry_out(&self) -> Result<Report, MeasureError> {
        let mut stage = Stage::set().await?;
        for (key, value) in TIMES {
            stage.set_key(key, value);
        }
        let relay = RelayChild::start(&self.relay, &mut stage).await?;
        let client = RelayClient::new(relay.url(), None)?;
        let mut parties = Vec::new();
        for kind in DeviceKind::ALL {
            let party = Party::gather(kind, &stage, &client, relay.url()).await?;
            party.controls().connections.set_stream_limit(STREAM_LIMIT);
            party.controls().script.latency(LATENCY);
            parties.push(party);
        }
        Party::all_send(&parties, self.pace).await?;
        let mut rows = Vec::new();
        for fault in &self.faults {
            rows.extend(self.measure(*fault, &parties).await?);
        }
        drop(parties);
        relay.stop().await?;
        Ok(Report::new(self.pace, self.rounds, rows))
    }

    /// Measures one fault: in each round one window before, and one at each of the services.
    async fn measure(&self, fault: Fault, parties: &[Party]) -> Result<Vec<Row>, MeasureError> {
        let mut rounds: Vec<Vec<Round>> = parties.iter().map(|_| Vec::new()).collect();
        for number in 0..self.rounds {
            let processed = number % 2 == 1;
            let before = Party::all_send(parties, self.pace).await?;
            for (place, party) in parties.iter().enumerate() {
                let ongoing = fault.begin(party.controls(), processed);
                let mut meanwhile = Party::all_send(parties, self.pace).await?;
                ongoing.end();
                let back_after = wait_until_accepted(party).await?;
                // Only now: what a hanging connection holds may arrive after the fault.
                for (party, heard) in parties.iter().zip(&mut meanwhile) {
                    heard.look_up(&party.controls().journal);
                }
                let own = meanwhile.swap_remove(place);
                let mut reference = before.clone();
                reference.swap_remove(place);
                let (before, others) = (Heard::join(reference), Heard::join(meanwhile));
                rounds[place].push(Round { before, others, own, back_after });
            }
        }
        let rows = parties.iter().zip(rounds);
        Ok(rows.map(|(party, rounds)| Row::new(fault, party.kind(), &rounds)).collect())
    }
}

/// Sends one message after the other until one is accepted; gives how long that took.
async fn wait_until_accepted(party: &Party) -> Result<Option<Duration>, MeasureError> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if party.send_one().await? {
            return Ok(Some(begun.elapsed()));
        }
        sleep(RETRY_EVERY).await;
    }
    Ok(None)
}
