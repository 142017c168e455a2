//! The listener and the connections of one simulator: TLS, then HTTP/2 or HTTP/1.1 by ALPN.
//!
//! In: connections on 127.0.0.1. Out: each whole request to the `Service`, its verdict back to the
//! client. Answers surplus streams with REFUSED_STREAM, carries out faults (latency, stalls,
//! resets, GOAWAY, dropped or frozen connections) and settles each request in the journal. Knows
//! nothing of any vendor.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::task::AbortHandle;

use super::journal::{Acceptance, Delivered, Journal};
use super::ledger::{Command, Ledger};
use super::script::{Answer, GoAway, Script, Step};
use super::{Clock, lock};

mod door;

mod http1;

mod http2;

pub use door::Welcome;

pub(crate) use door::launch;

/// A running simulated push service; dropping it closes the port and every connection.
pub struct Simulator<S> {
    pub(crate) service: Arc<S>,
    pub(crate) parts: Controls,
    base_url: String,
    accepting: AbortHandle,
}

/// The live connections of one simulator; clones steer the same ones.
#[derive(Clone, Default)]
pub struct Connections {
    state: Arc<ConnectionsState>,
}

/// The figures of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// The connection's number, from 1.
    pub number: u64,
    /// Whether it is still open.
    pub live: bool,
    /// The last SETTINGS_MAX_CONCURRENT_STREAMS sent; on HTTP/1.1 always 1.
    pub stream_limit: u32,
    /// Streams open now.
    pub streams_open: usize,
    /// Streams opened so far.
    pub streams_opened: u64,
    /// The most streams that were open at once within the limit.
    pub streams_max: usize,
    /// Streams opened beyond a limit that the client had acknowledged.
    pub excess_streams: u64,
    /// Streams beyond a limit that the client had not acknowledged yet; refused as well.
    pub early_streams: u64,
    /// Streams opened after a GOAWAY was written.
    pub streams_after_go_away: u64,
    /// PING frames of the client.
    pub pings: u64,
    /// Whether a GOAWAY was written.
    pub going_away: bool,
}

/// What every service shares with its tests, whichever it is; clones steer the same simulator.
#[derive(Clone, Default)]
pub struct Controls {
    /// What it answers.
    pub script: Script,
    /// What it saw.
    pub journal: Journal,
    /// Its connections and their faults.
    pub connections: Connections,
    pub(crate) clock: Clock,
    refusing_credentials: Arc<AtomicBool>,
}

/// What a service learns of a new connection.
pub(crate) struct Peer {
    pub(crate) certificate: Option<Vec<u8>>,
}

/// A whole request.
pub(crate) struct Received {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What a service decides on one request.
pub(crate) struct Verdict {
    pub(crate) reply: Reply,
    /// A new stream limit for this connection, from the answer on.
    pub(crate) limit_after: Option<u32>,
}

/// How a request ends.
pub(crate) enum Reply {
    Answer(Answer),
    Stall,
    Reset(h2::Reason),
    Drop,
}

/// One vendor's rules.
pub(crate) trait Service: Send + Sync + 'static {
    /// What the service remembers per connection.
    type Connection: Send + Sync + 'static;

    fn connect(&self, peer: Peer) -> Self::Connection;

    /// The stream limit that a new connection begins with.
    fn first_limit(&self, connection: &Self::Connection) -> u32;

    fn latency(&self, received: &Received) -> Duration;

    fn handle(&self, connection: &Self::Connection, received: &Received) -> Verdict;
}

/// One connection's view of its simulator.
pub(crate) struct Link<S: Service> {
    pub(crate) service: Arc<S>,
    pub(crate) parts: Controls,
    pub(crate) number: u64,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) connection: S::Connection,
}

#[derive(Default)]
struct ConnectionsState {
    ledgers: Mutex<VecDeque<Arc<Ledger>>>,
    limit: Mutex<Option<u32>>,
    opened: AtomicU64,
    met: AtomicU64,
    welcome: Mutex<Welcome>,
}

const LEDGERS_MAX: usize = 10_000;
const REQUEST_BYTES_MAX: usize = 64 * 1024;

impl<S> Simulator<S> {
    /// `https://localhost:<port>`, without a slash at the end.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// What it answers.
    pub fn script(&self) -> &Script {
        &self.parts.script
    }

    /// What it saw.
    pub fn journal(&self) -> &Journal {
        &self.parts.journal
    }

    /// Its connections and their faults.
    pub fn connections(&self) -> &Connections {
        &self.parts.connections
    }

    /// All that steers it, whichever service it is.
    pub fn controls(&self) -> &Controls {
        &self.parts
    }

    /// What was accepted for this device token (Web Push: endpoint), oldest first.
    pub fn delivered_to(&self, token: &str) -> Vec<Delivered> {
        self.parts.journal.delivered_to(token)
    }

    /// Moves the simulator's clock forward, so that credentials age.
    pub fn advance_clock(&self, by: Duration) {
        self.parts.clock.advance(by);
    }
}

impl<S> Drop for Simulator<S> {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Connections {
    /// The figures of every connection, oldest first, at most the last 10,000.
    pub fn stats(&self) -> Vec<ConnectionStats> {
        lock(&self.state.ledgers).iter().map(|ledger| ledger.stats()).collect()
    }

    /// How many connections were opened.
    pub fn opened(&self) -> u64 {
        self.state.opened.load(Ordering::Relaxed)
    }

    /// How many connections are open.
    pub fn live(&self) -> usize {
        self.stats().iter().filter(|stats| stats.live).count()
    }

    /// Streams opened beyond an acknowledged limit, over all connections.
    pub fn excess_streams(&self) -> u64 {
        self.stats().iter().map(|stats| stats.excess_streams).sum()
    }

    /// Streams opened beyond a limit not yet acknowledged, over all connections.
    pub fn early_streams(&self) -> u64 {
        self.stats().iter().map(|stats| stats.early_streams).sum()
    }

    /// The most streams that one connection had open at once.
    pub fn streams_max(&self) -> usize {
        self.stats().iter().map(|stats| stats.streams_max).max().unwrap_or(0)
    }

    /// Gives the limit that was set with [`Connections::set_stream_limit`], if one was.
    pub fn stream_limit(&self) -> Option<u32> {
        *lock(&self.state.limit)
    }

    /// Changes the stream limit of live connections now, up or down, and where later ones begin.
    /// APNs token connections still begin at 1, and then go to this limit.
    pub fn set_stream_limit(&self, limit: u32) {
        *lock(&self.state.limit) = Some(limit);
        self.each(|ledger| ledger.set_limit(limit));
    }

    /// Sends GOAWAY on every live HTTP/2 connection; HTTP/1.1 has nothing like it.
    pub fn go_away(&self, go_away: &GoAway) {
        self.each(|ledger| ledger.go_away(go_away.clone()));
    }

    /// Drops every live connection without GOAWAY or TLS closure.
    pub fn drop_all(&self) {
        self.each(|ledger| ledger.command(Command::Drop));
    }

    /// Lets every live connection hang: nothing is read, answered or acknowledged, PING included.
    pub fn freeze_all(&self) {
        self.each(|ledger| ledger.command(Command::Freeze));
    }

    /// Lets frozen connections go on.
    pub fn thaw_all(&self) {
        self.each(|ledger| ledger.command(Command::Serve));
    }

    /// How many times somebody came to the port, whatever met them.
    pub fn met(&self) -> u64 {
        self.state.met.load(Ordering::Relaxed)
    }

    /// Sets what meets new connections.
    pub fn welcome(&self, welcome: Welcome) {
        *lock(&self.state.welcome) = welcome;
    }

    /// While true, new connections are accepted and closed at once: the service is down.
    pub fn turn_away(&self, turning_away: bool) {
        self.welcome(if turning_away { Welcome::TurnAway } else { Welcome::Open });
    }

    /// The limit that a test has set, else this default.
    pub(crate) fn limit_or(&self, default: u32) -> u32 {
        lock(&self.state.limit).unwrap_or(default)
    }

    fn each(&self, act: impl Fn(&Ledger)) {
        let ledgers = lock(&self.state.ledgers);
        ledgers.iter().filter(|ledger| ledger.stats().live).for_each(|ledger| act(ledger));
    }

    fn enter(&self, ledger: Arc<Ledger>) {
        let mut ledgers = lock(&self.state.ledgers);
        if ledgers.len() == LEDGERS_MAX {
            ledgers.pop_front();
        }
        ledgers.push_back(ledger);
    }
}

impl ConnectionStats {
    pub(crate) fn new(number: u64, stream_limit: u32) -> ConnectionStats {
        ConnectionStats {
            number,
            live: true,
            stream_limit,
            streams_open: 0,
            streams_opened: 0,
            streams_max: 0,
            excess_streams: 0,
            early_streams: 0,
            streams_after_go_away: 0,
            pings: 0,
            going_away: false,
        }
    }
}

impl Controls {
    /// Sets the simulator's clock so many seconds ahead of the machine's, or behind it.
    pub fn set_clock_ahead_s(&self, ahead_s: i64) {
        self.clock.set_ahead_s(ahead_s);
    }

    /// How many seconds the simulator's clock is ahead of the machine's; behind it when negative.
    pub fn clock_ahead_s(&self) -> i64 {
        self.clock.ahead_s()
    }

    /// While true, every credential is refused as the service refuses one that was revoked.
    pub fn refuse_credentials(&self, refusing: bool) {
        self.refusing_credentials.store(refusing, Ordering::Relaxed);
    }

    pub(crate) fn refuses_credentials(&self) -> bool {
        self.refusing_credentials.load(Ordering::Relaxed)
    }

    /// Plays the script's step for a request that has passed the checks.
    pub(crate) fn play(
        &self,
        token: &str,
        success: impl FnOnce() -> Answer,
        acceptance: impl FnOnce() -> Acceptance,
    ) -> Reply {
        let step = self.script.take_step(Some(token));
        let accepted = match &step {
            Step::Accept
            | Step::AcceptIn(_)
            | Step::AcceptThenAnswer(_)
            | Step::AcceptThenStall
            | Step::AcceptThenReset(_)
            | Step::AcceptThenDrop => true,
            Step::Answer(answer) => answer.status.is_success(),
            Step::Stall | Step::RefuseStream | Step::ResetStream(_) | Step::DropConnection => false,
        };
        if accepted {
            self.journal.accept(acceptance());
        }
        step.reply(success)
    }
}

impl Step {
    pub(crate) fn reply(self, success: impl FnOnce() -> Answer) -> Reply {
        match self {
            Step::Accept => Reply::Answer(success()),
            Step::AcceptIn(manner) => Reply::Answer(success().in_manner(manner)),
            Step::Answer(answer) | Step::AcceptThenAnswer(answer) => Reply::Answer(answer),
            Step::Stall | Step::AcceptThenStall => Reply::Stall,
            Step::RefuseStream => Reply::Reset(h2::Reason::REFUSED_STREAM),
            Step::ResetStream(reason) | Step::AcceptThenReset(reason) => Reply::Reset(reason),
            Step::DropConnection | Step::AcceptThenDrop => Reply::Drop,
        }
    }
}

impl From<Reply> for Verdict {
    fn from(reply: Reply) -> Verdict {
        Verdict { reply, limit_after: None }
    }
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Reply {
        Reply::Answer(answer)
    }
}
