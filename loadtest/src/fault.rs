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
    /// Answers take a fifth of a second more, and a few of them far longer.
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
    /// The server refuses all of our protocols.
    WrongAlpn,
    /// The server knows nothing of ALPN, and speaks HTTP/1.1.
    NoAlpn,
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
    /// Every credential of ours is refused, as one that was revoked is.
    CredentialRefused,
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
    fault: Fault,
    controls: Controls,
    storm: Option<AbortHandle>,
    /// The numbers of the connections that were live when it began.
    met: Vec<u64>,
    stream_limit: u32,
    clock_ahead_s: i64,
}

/// A mebibyte.
const HUGE_BYTES: usize = 1024 * 1024;
const STORM_EVERY: Duration = Duration::from_millis(50);
const BYTE_EVERY: Duration = Duration::from_millis(100);
const SKEW_S: i64 = 25 * 3600;
/// One in a hundred takes more than half a second, one in fifty thousand more than a second.
const SLOW: Latency =
    Latency::LogNormal { median: Duration::from_millis(200), p99: Duration::from_millis(500) };
/// The stream limit that comes back where nobody had set one.
const STREAM_LIMIT: u32 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(2);

// === impl Fault ===

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 26] = [
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
        Fault::NoAlpn,
        Fault::CertificateExpired,
        Fault::NameUnresolved,
        Fault::GatewayPage,
        Fault::HugePage,
        Fault::SlowAnswer,
        Fault::HalfAnswerThenDrop,
        Fault::HalfAnswerThenSilence,
        Fault::Unavailable,
        Fault::Throttled,
        Fault::CredentialRefused,
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
            Fault::WrongAlpn => "no protocol in common: an ALPN alert",
            Fault::NoAlpn => "no ALPN: HTTP/1.1 alone",
            Fault::CertificateExpired => "the certificate has expired",
            Fault::NameUnresolved => "the name does not resolve",
            Fault::GatewayPage => "502 with a page that is not JSON",
            Fault::HugePage => "502 with a page of 1 MiB",
            Fault::SlowAnswer => "400 that comes byte by byte",
            Fault::HalfAnswerThenDrop => "half an answer, then the connection breaks",
            Fault::HalfAnswerThenSilence => "half an answer, then silence",
            Fault::Unavailable => "503",
            Fault::Throttled => "429",
            Fault::CredentialRefused => "every credential is refused",
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
        let live = connections.stats().into_iter().filter(|connection| connection.live);
        let mut ongoing = Ongoing {
            fault: self,
            controls: controls.clone(),
            storm: None,
            met: live.map(|connection| connection.number).collect(),
            stream_limit: connections.stream_limit().unwrap_or(STREAM_LIMIT),
            clock_ahead_s: controls.clock_ahead_s(),
        };
        if let Some(step) = self.step(processed) {
            controls.script.standing(step);
        }
        match self {
            Fault::Slow => controls.script.answer_delay(SLOW),
            Fault::ConnectionsDropped => connections.drop_all(),
            Fault::ConnectionsFrozen => connections.freeze_all(),
            Fault::OneStream => connections.set_stream_limit(1),
            Fault::CredentialRefused => controls.refuse_credentials(true),
            Fault::ClockAhead => controls.set_clock_ahead_s(ongoing.clock_ahead_s + SKEW_S),
            Fault::ClockBehind => controls.set_clock_ahead_s(ongoing.clock_ahead_s - SKEW_S),
            _ => {}
        }
        if let Some(welcome) = self.welcome() {
            connections.welcome(welcome);
            connections.drop_all();
        }
        if let Some(go_away) = self.go_away() {
            let connections = connections.clone();
            let storm = async move {
                loop {
                    connections.go_away(&go_away);
                    tokio::time::sleep(STORM_EVERY).await;
                }
            };
            ongoing.storm = Some(tokio::spawn(storm).abort_handle());
        }
        ongoing
    }

    /// Whether it takes away the connections that are live when it begins.
    fn breaks_connections(self) -> bool {
        self == Fault::ConnectionsDropped || self.keeps_connections_away()
    }

    /// Whether it meets those who connect anew.
    pub fn keeps_connections_away(self) -> bool {
        self.welcome().is_some()
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
            Fault::NoAlpn => Welcome::NoAlpn,
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
    /// Waits until each connection that was live when it began is closed, or has its GOAWAY; at
    /// once where the fault is another.
    pub async fn felt(&self) {
        let breaks = self.fault.breaks_connections();
        while (breaks || self.storm.is_some()) && self.spares_one() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn spares_one(&self) -> bool {
        let connections = self.controls.connections.stats();
        let mut met = connections.iter().filter(|known| self.met.contains(&known.number));
        met.any(|known| known.live && !(self.storm.is_some() && known.going_away))
    }

    /// Takes the fault away. What it did not touch stays, such as the service's latency.
    pub fn end(self) {
        let Ongoing { fault, controls, storm, stream_limit, clock_ahead_s, .. } = self;
        if let Some(storm) = storm {
            storm.abort();
        }
        controls.script.relent();
        match fault {
            Fault::ConnectionsFrozen => controls.connections.thaw_all(),
            Fault::OneStream => controls.connections.set_stream_limit(stream_limit),
            Fault::CredentialRefused => controls.refuse_credentials(false),
            Fault::ClockAhead | Fault::ClockBehind => controls.set_clock_ahead_s(clock_ahead_s),
            fault if fault.keeps_connections_away() => controls.connections.welcome(Welcome::Open),
            _ => {}
        }
    }
}

/// Gives a push service's name, as the tables show it.
pub const fn service_name(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Ios => "APNs",
        DeviceKind::Android => "FCM",
        DeviceKind::Browser => "Web Push",
    }
}
