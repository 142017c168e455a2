//! What goes wrong at push services: one closed list of faults, each of which any simulator can
//! have, and what a sender hears of a message that meets it.
//!
//! Three moments count. *Before*: the fault is there when the message comes, beside connections
//! that are open already. *During*: the message has reached the push service, which has not
//! processed it when the fault strikes. *After*: the push service has processed and delivered it,
//! and its answer is not out yet. Tests, the load tester and a soak play the same list.

use std::time::Duration;

use h2::Reason;
use http::StatusCode;
use tokio::task::AbortHandle;

use crate::device::DeviceKind;
use crate::sim::script::{Answer, GoAway, Latency, Manner, Step};
use crate::sim::server::{Controls, Welcome};

mod expected;

pub mod timeline;

pub use expected::expected;

/// Something that goes wrong at a push service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Requests are taken and never answered.
    Stall,
    /// Messages take a fifth of a second, and a few of them far longer; processed ones wait a fifth
    /// of a second for their answers.
    Slow,
    /// RST_STREAM with REFUSED_STREAM; after a message is processed it is INTERNAL_ERROR.
    StreamsRefused,
    /// RST_STREAM with INTERNAL_ERROR.
    StreamsReset,
    /// Connections break without a word.
    ConnectionsDropped,
    /// Connections hang: nothing is read, answered or acknowledged.
    ConnectionsFrozen,
    /// GOAWAY on every connection, every fifty milliseconds.
    GoAwayStorm,
    /// The same, with Apple's reason in the debug data and streams cut off.
    GoAwayStormWithReason,
    /// One stream on each connection.
    OneStream,
    /// Nobody serves: connections are closed as soon as they come.
    Down,
    /// Connections are taken, and nobody answers the TLS handshake.
    BlackHole,
    /// The TLS handshake fails.
    TlsFails,
    /// The server speaks none of our protocols.
    WrongAlpn,
    /// The server's certificate is over.
    CertificateExpired,
    /// The host's name does not resolve; it is the relay's configuration that says so.
    NameUnresolved,
    /// A gateway's 502 page.
    GatewayPage,
    /// A gateway's 502 page of a mebibyte.
    HugePage,
    /// A refusal that comes byte by byte.
    SlowAnswer,
    /// Half of an answer, then the connection breaks.
    HalfAnswerThenDrop,
    /// Half of an answer, then silence.
    HalfAnswerThenSilence,
    /// 503.
    Unavailable,
    /// 429.
    Throttled,
    /// The service's clock is a day and an hour ahead: every token of ours is over.
    ClockAhead,
    /// The service's clock is a day and an hour behind: every token of ours is from the future.
    ClockBehind,
}

/// When a fault strikes, seen from one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Moment {
    /// It is there when the message comes.
    Before,
    /// The message is there, and not processed.
    During,
    /// The message is processed, and its answer is not out.
    After,
}

/// A fault that has begun; dropping it leaves it in place, `end` takes it away.
#[must_use]
pub struct Ongoing {
    controls: Controls,
    storm: Option<AbortHandle>,
}

/// A mebibyte.
const HUGE_BYTES: usize = 1024 * 1024;
const STORM_EVERY: Duration = Duration::from_millis(50);
const BYTE_EVERY: Duration = Duration::from_millis(100);
const SKEW_S: i64 = 25 * 3600;
const SLOW_MORE: Duration = Duration::from_millis(200);
/// One in a hundred takes more than half a second, one in fifty thousand more than a second.
const SLOW: Latency = Latency::LogNormal { median: SLOW_MORE, p99: Duration::from_millis(500) };

// === impl Fault ===

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 24] = [
        Fault::Stall,
        Fault::Slow,
        Fault::StreamsRefused,
        Fault::StreamsReset,
        Fault::ConnectionsDropped,
        Fault::ConnectionsFrozen,
        Fault::GoAwayStorm,
        Fault::GoAwayStormWithReason,
        Fault::OneStream,
        Fault::Down,
        Fault::BlackHole,
        Fault::TlsFails,
        Fault::WrongAlpn,
        Fault::CertificateExpired,
        Fault::NameUnresolved,
        Fault::GatewayPage,
        Fault::HugePage,
        Fault::SlowAnswer,
        Fault::HalfAnswerThenDrop,
        Fault::HalfAnswerThenSilence,
        Fault::Unavailable,
        Fault::Throttled,
        Fault::ClockAhead,
        Fault::ClockBehind,
    ];

    /// Gives its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Fault::Stall => "requests are never answered",
            Fault::Slow => "answers are slow, a few of them very",
            Fault::StreamsRefused => "streams are refused",
            Fault::StreamsReset => "streams are reset",
            Fault::ConnectionsDropped => "connections break",
            Fault::ConnectionsFrozen => "connections hang",
            Fault::GoAwayStorm => "a GOAWAY storm",
            Fault::GoAwayStormWithReason => "a GOAWAY storm with debug data, streams cut off",
            Fault::OneStream => "one stream for each connection",
            Fault::Down => "down: connections are closed at once",
            Fault::BlackHole => "a black hole: no TLS handshake",
            Fault::TlsFails => "the TLS handshake fails",
            Fault::WrongAlpn => "no protocol in common (ALPN)",
            Fault::CertificateExpired => "the certificate has expired",
            Fault::NameUnresolved => "the name does not resolve",
            Fault::GatewayPage => "502 with a page that is not JSON",
            Fault::HugePage => "502 with a page of 1 MiB",
            Fault::SlowAnswer => "400 that comes byte by byte",
            Fault::HalfAnswerThenDrop => "half an answer, then the connection breaks",
            Fault::HalfAnswerThenSilence => "half an answer, then silence",
            Fault::Unavailable => "503",
            Fault::Throttled => "429",
            Fault::ClockAhead => "its clock is 25 hours ahead",
            Fault::ClockBehind => "its clock is 25 hours behind",
        }
    }

    /// Whether a running simulator can have it.
    pub const fn can_begin(self) -> bool {
        !matches!(self, Fault::NameUnresolved)
    }

    /// Whether it hits single requests or their answers, rather than connections.
    pub fn hits_answers(self) -> bool {
        self.step(true).is_some()
    }

    /// Begins at a push service. With `processed`, messages are processed first where that makes a
    /// difference: the fault then hits their answers.
    /// Must be called within a tokio runtime, which carries a storm.
    pub fn begin(self, controls: &Controls, processed: bool) -> Ongoing {
        let connections = &controls.connections;
        if let Some(step) = self.step(processed) {
            controls.script.standing(step);
        }
        match self {
            Fault::Slow if processed => controls.script.answer_delay(SLOW_MORE),
            Fault::Slow => controls.script.latency(SLOW),
            Fault::ConnectionsDropped => connections.drop_all(),
            Fault::ConnectionsFrozen => connections.freeze_all(),
            Fault::OneStream => connections.set_stream_limit(1),
            Fault::ClockAhead => controls.set_clock_ahead_s(SKEW_S),
            Fault::ClockBehind => controls.set_clock_ahead_s(-SKEW_S),
            _ => {}
        }
        if let Some(welcome) = self.welcome() {
            connections.welcome(welcome);
            connections.drop_all();
        }
        let storm = self.go_away().map(|go_away| {
            let connections = connections.clone();
            let storm = async move {
                loop {
                    connections.go_away(&go_away);
                    tokio::time::sleep(STORM_EVERY).await;
                }
            };
            tokio::spawn(storm).abort_handle()
        });
        Ongoing { controls: controls.clone(), storm }
    }

    /// What becomes of single requests.
    fn step(self, processed: bool) -> Option<Step> {
        let bad_gateway = StatusCode::BAD_GATEWAY;
        let answer = |answer| match processed {
            true => Step::AcceptThenAnswer(answer),
            false => Step::Answer(answer),
        };
        let half = |manner| match processed {
            true => Step::AcceptIn(manner),
            false => Step::Answer(Answer::page(bad_gateway).in_manner(manner)),
        };
        Some(match self {
            Fault::Stall if processed => Step::AcceptThenStall,
            Fault::Stall => Step::Stall,
            Fault::StreamsRefused if !processed => Step::RefuseStream,
            Fault::StreamsReset if !processed => Step::ResetStream(Reason::INTERNAL_ERROR),
            Fault::StreamsRefused | Fault::StreamsReset => {
                Step::AcceptThenReset(Reason::INTERNAL_ERROR)
            }
            Fault::ConnectionsDropped if processed => Step::AcceptThenDrop,
            Fault::ConnectionsDropped => Step::DropConnection,
            Fault::GatewayPage => answer(Answer::page(bad_gateway)),
            Fault::HugePage => {
                let page = Answer::page(bad_gateway);
                answer(Answer { body: vec![b'x'; HUGE_BYTES].into(), ..page })
            }
            Fault::SlowAnswer if processed => Step::AcceptIn(Manner::Trickle(BYTE_EVERY)),
            Fault::SlowAnswer => {
                let page = Answer::page(StatusCode::BAD_REQUEST);
                Step::Answer(page.in_manner(Manner::Trickle(BYTE_EVERY)))
            }
            Fault::HalfAnswerThenDrop => half(Manner::HalfThenDrop),
            Fault::HalfAnswerThenSilence => half(Manner::HalfThenSilence),
            Fault::Unavailable => answer(Answer::empty(StatusCode::SERVICE_UNAVAILABLE)),
            Fault::Throttled => answer(Answer::empty(StatusCode::TOO_MANY_REQUESTS)),
            _ => return None,
        })
    }

    fn welcome(self) -> Option<Welcome> {
        Some(match self {
            Fault::Down => Welcome::TurnAway,
            Fault::BlackHole => Welcome::Silence,
            Fault::TlsFails => Welcome::TlsAlert,
            Fault::WrongAlpn => Welcome::WrongAlpn,
            Fault::CertificateExpired => Welcome::ExpiredCertificate,
            _ => return None,
        })
    }

    fn go_away(self) -> Option<GoAway> {
        match self {
            Fault::GoAwayStorm => Some(GoAway::graceful()),
            Fault::GoAwayStormWithReason => {
                Some(GoAway::cutting().saying(Reason::NO_ERROR, r#"{"reason":"Shutdown"}"#))
            }
            _ => None,
        }
    }
}

// === impl Moment ===

impl Moment {
    /// Every moment.
    pub const ALL: [Moment; 3] = [Moment::Before, Moment::During, Moment::After];

    /// Gives its name.
    pub const fn name(self) -> &'static str {
        match self {
            Moment::Before => "before",
            Moment::During => "during",
            Moment::After => "after",
        }
    }
}

// === impl Ongoing ===

impl Ongoing {
    /// Takes the fault away: the push service is as it was at first, its latency included.
    pub fn end(self) {
        if let Some(storm) = self.storm {
            storm.abort();
        }
        self.controls.script.reset();
        self.controls.set_clock_ahead_s(0);
        let connections = &self.controls.connections;
        connections.welcome(Welcome::Open);
        connections.thaw_all();
        connections.set_stream_limit(STREAM_LIMIT);
    }
}

/// The stream limit that a service has when nothing is wrong with it.
const STREAM_LIMIT: u32 = 100;

/// Gives a push service's name, as the tables show it.
pub const fn service_name(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Ios => "APNs",
        DeviceKind::Android => "FCM",
        DeviceKind::Browser => "Web Push",
    }
}
