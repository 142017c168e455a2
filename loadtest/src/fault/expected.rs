//! What a sender hears of a message that meets a fault: the one table that the tests hold the relay
//! to and that docs/reliability.md shows.

use super::{Fault, Moment};
use crate::device::DeviceKind;

const ACCEPTED: &[&str] = &["accepted"];
const NO_ANSWER: &[&str] = &["no_answer"];

/// Gives the codes that a message may end with; `accepted` is one of them. Two where it is a race:
/// whether the relay sees that a connection is gone before it writes on it, for one.
pub fn expected(fault: Fault, kind: DeviceKind, moment: Moment) -> &'static [&'static str] {
    let before = moment == Moment::Before;
    let after = moment == Moment::After;
    match fault {
        Fault::Slow | Fault::GoAwayStorm | Fault::OneStream => ACCEPTED,
        Fault::Stall
        | Fault::StreamsReset
        | Fault::ConnectionsDropped
        | Fault::ConnectionsFrozen => NO_ANSWER,
        Fault::StreamsRefused if before => &["push_service_busy"],
        Fault::StreamsRefused if after => NO_ANSWER,
        Fault::StreamsRefused => &["push_service_busy", "no_answer"],
        // It waits longer than the storm's pauses, and each GOAWAY disowns it anew.
        Fault::GoAwayStormWithReason if moment == Moment::During => &["push_service_busy"],
        Fault::GoAwayStormWithReason => ACCEPTED,
        // A browser's service that does not choose HTTP/2 is spoken to in HTTP/1.1.
        Fault::WrongAlpn if before && kind == DeviceKind::Browser => &["accepted", "no_answer"],
        Fault::Down
        | Fault::BlackHole
        | Fault::TlsFails
        | Fault::WrongAlpn
        | Fault::CertificateExpired
            if before =>
        {
            &["push_service_unreachable", "no_answer"]
        }
        Fault::Down
        | Fault::BlackHole
        | Fault::TlsFails
        | Fault::WrongAlpn
        | Fault::CertificateExpired => NO_ANSWER,
        Fault::NameUnresolved => &["push_service_unreachable"],
        Fault::HalfAnswerThenDrop
        | Fault::HalfAnswerThenSilence
        | Fault::SlowAnswer
        | Fault::ClockAhead
        | Fault::ClockBehind
            if after =>
        {
            ACCEPTED
        }
        Fault::GatewayPage
        | Fault::HugePage
        | Fault::HalfAnswerThenDrop
        | Fault::HalfAnswerThenSilence => of_service(
            kind,
            [&["apns_other_server_error"], &["fcm_other_server_error"], &["webpush_server_error"]],
        ),
        Fault::SlowAnswer => of_service(
            kind,
            [&["apns_other_rejection"], &["fcm_other_rejection"], &["webpush_request_rejected"]],
        ),
        Fault::Unavailable => of_service(
            kind,
            [&["apns_other_server_error"], &["fcm_other_server_error"], &["webpush_unavailable"]],
        ),
        Fault::Throttled => of_service(
            kind,
            [&["apns_other_throttle"], &["fcm_other_throttle"], &["webpush_throttled"]],
        ),
        Fault::ClockAhead => of_service(
            kind,
            [&["apns_expired_provider_token"], &["fcm_unauthenticated"], VAPID_REJECTED],
        ),
        // An access token of Google's own is good by Google's own clock.
        Fault::ClockBehind => {
            of_service(kind, [&["apns_expired_provider_token"], ACCEPTED, VAPID_REJECTED])
        }
    }
}

const VAPID_REJECTED: &[&str] = &["webpush_vapid_rejected"];

/// In the order APNs, FCM, Web Push.
const fn of_service(
    kind: DeviceKind,
    [apns, fcm, webpush]: [&'static [&'static str]; 3],
) -> &'static [&'static str] {
    match kind {
        DeviceKind::Ios => apns,
        DeviceKind::Android => fcm,
        DeviceKind::Browser => webpush,
    }
}
