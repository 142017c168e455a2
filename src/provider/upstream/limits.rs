//! The limits of one pool, each with its default.

use std::time::Duration;

use super::breaker::Policy;

/// The limits of one pool.
#[derive(Clone, Debug)]
pub struct Limits {
    /// HTTP/2 connections open at once. Default 4.
    pub connections_max: usize,
    /// Connections that [`super::Pool::warm`] opens. Default 1.
    pub prewarm_connections: usize,
    /// Streams in use per connection, whatever more the peer allows. Default 1,000.
    pub streams_per_connection_max: usize,
    /// Streams in use per connection before its first answer. Default 1,000; APNs: 1.
    pub start_streams: usize,
    /// Requests that wait for a free stream; low ones may fill 60 % of it, ordinary ones 85 %,
    /// alarms all. Default 2,000.
    pub waiting_max: usize,
    /// While the first of a class has waited longer than so many milliseconds, no more are let into
    /// the queue; alarms are. Default 2,000.
    pub waiting_ms_max: u64,
    /// Replays of one request after GOAWAY or REFUSED_STREAM. Default 3.
    pub replays_max: u32,
    /// From the DNS question to the end of the TLS handshake, in milliseconds. Default 5,000.
    pub connect_ms: u64,
    /// An HTTP/2 connection without a request closes after so many seconds. Default 3,600.
    pub idle_s: u64,
    /// A connection is replaced at the latest after so many seconds, at the soonest after three
    /// quarters of them. Default 3,600.
    pub connection_age_s_max: u64,
    /// A connection is replaced after so many requests. Default 1,000,000,000: HTTP/2 has numbers
    /// for 73 million more (RFC 9113 §5.1.1).
    pub requests_per_connection_max: u64,
    /// A connection on which requests wait, and that answers nothing for so many milliseconds, is
    /// replaced. Default 10,000.
    pub wedge_ms: u64,
    /// A connection that lets so many patient requests in a row miss their deadlines is replaced.
    /// Default 5.
    pub wedge_misses_max: u32,
    /// A request without an answer speaks against the peer only when it waited so many
    /// milliseconds: a sender's short deadline proves nothing. Default 2,000.
    pub patience_ms: u64,
    /// A PING leaves every so many seconds. Default 60.
    pub ping_interval_s: u64,
    /// The connection is given up when no PONG comes in so many seconds. Default 10.
    pub ping_timeout_s: u64,
    /// Pause after a first failed dial, in milliseconds; doubles with each. Default 200.
    pub backoff_ms_min: u64,
    /// Longest pause after a failed dial, in milliseconds. Default 2,000.
    pub backoff_ms_max: u64,
    /// The breaker opens after so many failures in a row. Default 10.
    pub breaker_failures: u32,
    /// The breaker opens when so many of a hundred requests fail. Default 50.
    pub breaker_failure_percent: u32,
    /// Time from the breaker's opening to its first probe, in milliseconds; doubles with each
    /// probe. Default 1,000.
    pub breaker_open_ms_min: u64,
    /// Longest time between two probes, in milliseconds. Default 5,000.
    pub breaker_open_ms_max: u64,
    /// The least that the measured latency may leave of the requests in flight; none does not
    /// measure. Default none.
    pub adaptive_floor: Option<usize>,
    /// Bytes of an answer's body that are kept; the rest is cut. Default 16,384.
    pub answer_bytes_max: usize,
    /// Whether an origin that knows no HTTP/2 is served by HTTP/1.1. Default false.
    pub http1_allowed: bool,
    /// HTTP/1.1 connections open at once, one request each. Default 8.
    pub http1_connections_max: usize,
    /// An HTTP/1.1 connection without a request closes after so many seconds. Default 15, because
    /// a request that meets the peer's own idle close ends as [`super::SendError::Unknown`].
    pub http1_idle_s: u64,
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4,
            prewarm_connections: 1,
            streams_per_connection_max: 1_000,
            start_streams: 1_000,
            waiting_max: 2_000,
            waiting_ms_max: 2_000,
            replays_max: 3,
            connect_ms: 5_000,
            idle_s: 3_600,
            connection_age_s_max: 3_600,
            requests_per_connection_max: 1_000_000_000,
            wedge_ms: 10_000,
            wedge_misses_max: 5,
            patience_ms: 2_000,
            ping_interval_s: 60,
            ping_timeout_s: 10,
            backoff_ms_min: 200,
            backoff_ms_max: 2_000,
            breaker_failures: 10,
            breaker_failure_percent: 50,
            breaker_open_ms_min: 1_000,
            breaker_open_ms_max: 5_000,
            adaptive_floor: None,
            answer_bytes_max: 16 * 1_024,
            http1_allowed: false,
            http1_connections_max: 8,
            http1_idle_s: 15,
        }
    }
}

impl Limits {
    pub(super) fn connect(&self) -> Duration {
        Duration::from_millis(self.connect_ms)
    }

    pub(super) fn waiting(&self) -> Duration {
        Duration::from_millis(self.waiting_ms_max)
    }

    pub(super) fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_s.max(1))
    }

    pub(super) fn wedge(&self) -> Duration {
        Duration::from_millis(self.wedge_ms.max(1))
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms)
    }

    /// Three quarters of the maximum and, by the dice, up to the other one: connections that were
    /// opened together do not end together.
    pub(super) fn age(&self, dice: u64) -> Duration {
        let longest_ms = self.connection_age_s_max.saturating_mul(1_000);
        let quarter_ms = longest_ms / 4;
        Duration::from_millis(longest_ms - quarter_ms + dice % (quarter_ms + 1))
    }

    pub(in crate::provider) fn breaker(&self) -> Policy {
        Policy {
            failures: self.breaker_failures,
            failure_percent: self.breaker_failure_percent,
            span: Duration::from_secs(1),
            open_min: Duration::from_millis(self.breaker_open_ms_min),
            open_max: Duration::from_millis(self.breaker_open_ms_max),
        }
    }

    /// Open and draining connections together: a peer that sends GOAWAY after GOAWAY while its old
    /// streams hang must not make us open without end.
    pub(super) fn connections_total_max(&self) -> usize {
        2 * self.connections_max.max(self.http1_connections_max)
    }
}
