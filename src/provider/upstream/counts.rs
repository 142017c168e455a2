//! What a pool counts, in closed sets of labels.
//!
//! Handles are resolved once by whoever names the metrics; here is no metric name and no lookup.
//! No label comes from a peer: an unknown GOAWAY reason is "other".

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use prometheus::{IntCounter, IntGauge};

/// The handles of one push service; pools of the same push service share them.
#[derive(Debug)]
pub struct PoolMetrics {
    /// Open connections, draining ones included.
    pub connections: IntGauge,
    /// Requests that hold a stream.
    pub streams_in_use: IntGauge,
    /// Requests that wait for a stream.
    pub waiting: IntGauge,
    /// Connections opened.
    pub opened: IntCounter,
    /// Connections closed.
    pub closed: Counters<CloseReason>,
    /// Requests given up before they were processed.
    pub sheds: Counters<ShedReason>,
    /// Requests sent again.
    pub replays: Counters<ReplayReason>,
    /// GOAWAY frames received: one per connection.
    pub goaways: Counters<GoAwayReason>,
    /// Dials that failed, and connections that ended before their first answer.
    pub dial_failures: Counters<FaultKind>,
    /// The breakers of the pools.
    pub breakers: Arc<BreakerMetrics>,
}

/// The handles of breakers of one sort.
#[derive(Debug)]
pub struct BreakerMetrics {
    /// How many are open.
    pub open: IntGauge,
    /// What they did.
    pub events: Counters<BreakerEvent>,
}

/// One counter for each value of a closed set.
pub struct Counters<L> {
    handles: Vec<IntCounter>,
    labels: PhantomData<L>,
}

/// A closed set of metric labels.
pub trait Label: Copy + 'static {
    /// Every value, in the order of `index`.
    const ALL: &'static [Self];

    /// The value's place in `ALL`.
    fn index(self) -> usize;

    /// The label as the metric shows it.
    fn label(self) -> &'static str;
}

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$about:meta])* $variant:ident => $label:literal,)* })
    => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$about])* $variant,)*
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant,)*];

            fn index(self) -> usize {
                self as usize
            }

            fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }
        }
    };
}

labels! {
    /// Why a connection closed.
    CloseReason {
        /// No request for `idle_s`.
        Idle => "idle",
        /// The peer sent GOAWAY and the open streams are done.
        GoAway => "goaway",
        /// Broken, or ended by the peer without GOAWAY.
        Error => "error",
        /// No PONG.
        PingTimeout => "ping_timeout",
        /// Older than its jittered maximum, and replaced.
        Age => "age",
        /// It had carried so many requests that its stream numbers ran out, and was replaced.
        StreamIds => "stream_ids",
        /// Requests waited and nothing was answered.
        Wedged => "wedged",
        /// Its answers were such that only a new connection could mend them.
        Distrusted => "distrusted",
        /// An HTTP/1.1 request was cancelled.
        Cancelled => "cancelled",
        /// The pool was dropped.
        Shutdown => "shutdown",
    }
}

labels! {
    /// Why a request was given up before the push service processed it.
    ShedReason {
        /// `waiting_max` requests wait already.
        QueueFull => "queue_full",
        /// The first in the queue has waited `waiting_ms_max` already.
        QueueSlow => "queue_slow",
        /// The deadline passed while it waited.
        Deadline => "deadline",
        /// The push service refused it `replays_max` times more than once.
        Refused => "refused",
    }
}

labels! {
    /// Why a request was sent again.
    ReplayReason {
        /// Its stream was above the last-stream-id of a GOAWAY.
        GoAway => "goaway",
        /// Its stream was reset with REFUSED_STREAM.
        Refused => "refused",
    }
}

labels! {
    /// Why there is no connection.
    FaultKind {
        /// The name did not resolve.
        Dns => "dns",
        /// The name resolved to an address that is not public.
        Address => "address",
        /// No TCP connection.
        Connect => "connect",
        /// No TCP connection to the proxy.
        Proxy => "proxy",
        /// The proxy wants other credentials.
        ProxyAuthentication => "proxy_authentication",
        /// The proxy does not connect us, or does not speak its protocol.
        ProxyRefused => "proxy_refused",
        /// No TLS session.
        Tls => "tls",
        /// The peer negotiated neither HTTP/2 nor a permitted HTTP/1.1.
        Alpn => "alpn",
        /// The connection ended before its first answer.
        Lost => "lost",
        /// A dial failed a moment ago and the pause still runs; no dial was made.
        BackingOff => "backing_off",
        /// The breaker is open; no dial was made.
        BreakerOpen => "breaker_open",
    }
}

labels! {
    /// What a breaker did.
    BreakerEvent {
        /// It opened.
        Opened => "opened",
        /// It let one message through to see whether things are better.
        Probed => "probed",
        /// It closed.
        Closed => "closed",
        /// It refused a message.
        Refused => "refused",
    }
}

/// The reason of a GOAWAY: one of APNs's own if its debug data names one, else the error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GoAwayReason(usize);

/// Error codes of RFC 9113 §7 by number, then the reasons that APNs documents, then the rest.
const GOAWAY_LABELS: &[&str] = &[
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
    "BadCertificate",
    "BadCertificateEnvironment",
    "BadEnvironmentKeyIdInToken",
    "ExpiredProviderToken",
    "Forbidden",
    "IdleTimeout",
    "InternalServerError",
    "InvalidProviderToken",
    "MissingProviderToken",
    "ServiceUnavailable",
    "Shutdown",
    "TooManyProviderTokenUpdates",
    "TooManyRequests",
    "UnrelatedKeyIdInToken",
    "other",
];
const CODES: usize = 14;

// === impl Counters ===

impl<L: Label> Counters<L> {
    /// Resolves one handle for each value of the set.
    pub fn resolve(mut handle: impl FnMut(L) -> IntCounter) -> Self {
        let handles = L::ALL.iter().map(|label| handle(*label)).collect();
        Self { handles, labels: PhantomData }
    }

    /// The handle of one value.
    pub fn of(&self, label: L) -> Option<&IntCounter> {
        self.handles.get(label.index())
    }

    pub(super) fn count(&self, label: L) {
        if let Some(handle) = self.of(label) {
            handle.inc();
        }
    }
}

impl<L> fmt::Debug for Counters<L> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.handles.iter().map(IntCounter::get)).finish()
    }
}

// === impl GoAwayReason ===

impl Label for GoAwayReason {
    const ALL: &'static [Self] = &{
        let mut all = [Self(0); GOAWAY_LABELS.len()];
        let mut index = 0;
        while index < all.len() {
            all[index] = Self(index);
            index += 1;
        }
        all
    };

    fn index(self) -> usize {
        self.0
    }

    fn label(self) -> &'static str {
        GOAWAY_LABELS.get(self.0).copied().unwrap_or("other")
    }
}

impl GoAwayReason {
    /// Reads the reason from a GOAWAY's error code and its debug data, such as Apple's
    /// `{"reason":"Shutdown"}`.
    pub fn of(code: u32, debug: &[u8]) -> Self {
        let other = GOAWAY_LABELS.len() - 1;
        let documented = GOAWAY_LABELS.iter().skip(CODES).take(other - CODES);
        let text = String::from_utf8_lossy(debug);
        let named = documented.enumerate().find_map(|(place, reason)| {
            text.contains(&format!("\"{reason}\"")).then_some(CODES + place)
        });
        let coded = usize::try_from(code).ok().filter(|code| *code < CODES);
        Self(named.or(coded).unwrap_or(other))
    }
}
