//! What a sender hears of a message that meets a fault: the one table that the tests hold the relay
//! to and that docs/reliability.md shows.

use super::{Fault, Moment};
use crate::device::DeviceKind;

const ACCEPTED: &[&str] = &["accepted"];
const NO_ANSWER: &[&str] = &["no_answer"];
const BUSY: &[&str] = &["push_service_busy"];
const UNREACHABLE: &[&str] = &["push_service_unreachable"];

/// Gives the codes that a message may end with; `accepted` is one of them. Two where it is a race:
/// whether a storm's next GOAWAY comes before a message is processed.
pub fn expected(fault: Fault, kind: DeviceKind, moment: Moment) -> &'static [&'static str] {
    let before = moment == Moment::Before;
    let after = moment == Moment::After;
    match fault {
        Fault::Slow | Fault::GoAwayStorm | Fault::OneStream => ACCEPTED,
        Fault::Stall
        | Fault::StreamsReset
        | Fault::ConnectionsDropped
        | Fault::ConnectionsFrozen => NO_ANSWER,
        Fault::StreamsRefused if after => NO_ANSWER,
        Fault::StreamsRefused => BUSY,
        Fault::GoAwayStormWithReason if after => ACCEPTED,
        Fault::GoAwayStormWithReason => &["accepted", "push_service_busy"],
        // A browser's service may speak HTTP/1.1.
        Fault::NoAlpn if before && kind == DeviceKind::Browser => ACCEPTED,
        Fault::Down
        | Fault::BlackHole
        | Fault::TlsFails
        | Fault::WrongAlpn
        | Fault::NoAlpn
        | Fault::CertificateExpired => {
            if before {
                UNREACHABLE
            } else {
                NO_ANSWER
            }
        }
        Fault::NameUnresolved => UNREACHABLE,
        Fault::HalfAnswerThenDrop
        | Fault::HalfAnswerThenSilence
        | Fault::SlowAnswer
        | Fault::CredentialRefused
        | Fault::ClockAhead
        | Fault::ClockBehind
            if after =>
        {
            ACCEPTED
        }
        _ => of_service(kind, refusals(fault)),
    }
}

/// Gives what is told of the push service's own answers, in the order APNs, FCM, Web Push.
const fn refusals(fault: Fault) -> [&'static [&'static str]; 3] {
    match fault {
        Fault::SlowAnswer => {
            [&["apns_other_rejection"], &["fcm_other_rejection"], &["webpush_request_rejected"]]
        }
        Fault::Unavailable => {
            [&["apns_other_server_error"], &["fcm_other_server_error"], &["webpush_unavailable"]]
        }
        Fault::Throttled => {
            [&["apns_other_throttle"], &["fcm_other_throttle"], &["webpush_throttled"]]
        }
        Fault::CredentialRefused => {
            [&["apns_invalid_provider_token"], &["fcm_unauthenticated"], VAPID_REJECTED]
        }
        Fault::ClockAhead => {
            [&["apns_expired_provider_token"], &["fcm_unauthenticated"], VAPID_REJECTED]
        }
        // An access token of Google's own is good by Google's own clock.
        Fault::ClockBehind => [&["apns_expired_provider_token"], ACCEPTED, VAPID_REJECTED],
        // 502, whole or half.
        _ => [&["apns_other_server_error"], &["fcm_other_server_error"], &["webpush_server_error"]],
    }
}

const VAPID_REJECTED: &[&str] = &["webpush_vapid_rejected"];

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
