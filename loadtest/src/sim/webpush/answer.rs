//! How each vendor says no.
//!
//! Mozilla sends JSON with `errno`, Apple JSON with `reason`, Google plain text. Sources: Mozilla,
//! autoendpoint error codes; Apple, "Sending web push notifications"; Google's answers as seen.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::script::Answer;

/// Whose refusals a simulator sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// `updates.push.services.mozilla.com`.
    Mozilla,
    /// `web.push.apple.com`.
    Apple,
    /// `fcm.googleapis.com` as a Web Push service.
    Google,
}

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    BadPath,
    MethodNotAllowed,
    UnknownSubscription,
    VapidMissing,
    VapidInvalid,
    VapidKeyMismatch,
    BadTtl,
    BadUrgency,
    BadTopic,
    BadEncryption,
    LengthMissing,
    TooLarge,
}

/// Mozilla's error form.
pub fn mozilla(status: u16, errno: u16) -> Answer {
    let status = status_of(status);
    let word = status.canonical_reason().unwrap_or_default();
    let errno = if errno == 0 { Value::Null } else { json!(errno) };
    Answer::json(
        status,
        &json!({ "code": status.as_u16(), "errno": errno, "error": word, "message": "refused",
            "more_info": "https://autopush.readthedocs.io/en/latest/http.html#error-codes" }),
    )
}

/// Apple's error form.
pub fn apple(status: u16, reason: &str) -> Answer {
    Answer::json(status_of(status), &json!({ "reason": reason }))
}

/// Google's error form: plain text.
pub fn google(status: u16, text: &str) -> Answer {
    Answer { body: text.to_owned().into(), ..Answer::empty(status_of(status)) }
}

/// The refusal of one vendor for one fault.
pub(crate) fn refusal(flavour: Flavour, fault: Fault) -> Answer {
    match flavour {
        Flavour::Mozilla => mozilla_refusal(fault),
        Flavour::Apple => apple_refusal(fault),
        Flavour::Google => google_refusal(fault),
    }
}

fn mozilla_refusal(fault: Fault) -> Answer {
    let (status, errno) = match fault {
        Fault::BadPath => (404, 0),
        Fault::MethodNotAllowed => (405, 0),
        Fault::UnknownSubscription => (404, 102),
        Fault::VapidMissing | Fault::VapidInvalid | Fault::VapidKeyMismatch => (401, 109),
        Fault::BadTtl => (400, 111),
        Fault::BadUrgency => (400, 0),
        Fault::BadTopic => (400, 113),
        Fault::BadEncryption => (400, 110),
        Fault::LengthMissing => (411, 0),
        Fault::TooLarge => (413, 104),
    };
    mozilla(status, errno)
}

fn apple_refusal(fault: Fault) -> Answer {
    let (status, reason) = match fault {
        Fault::BadPath => (404, "BadPath"),
        Fault::MethodNotAllowed => (405, "MethodNotAllowed"),
        Fault::UnknownSubscription => (400, "BadWebPushToken"),
        Fault::VapidMissing => (400, "BadAuthorizationHeader"),
        Fault::VapidInvalid => (403, "BadJwtToken"),
        Fault::VapidKeyMismatch => (400, "VapidPkHashMismatch"),
        Fault::BadTtl => (400, "BadTtl"),
        Fault::BadUrgency => (400, "BadUrgency"),
        Fault::BadTopic => (400, "BadWebPushTopic"),
        Fault::BadEncryption | Fault::LengthMissing => (400, "BadWebPushRequest"),
        Fault::TooLarge => (413, "PayloadTooLarge"),
    };
    apple(status, reason)
}

fn google_refusal(fault: Fault) -> Answer {
    let (status, text) = match fault {
        Fault::BadPath => (404, "not found"),
        Fault::MethodNotAllowed => (405, "method not allowed"),
        Fault::UnknownSubscription => (410, "push subscription has unsubscribed or expired."),
        Fault::VapidMissing => (401, "authorization header must be specified."),
        Fault::VapidInvalid => (403, "invalid JWT provided"),
        Fault::VapidKeyMismatch => (
            403,
            "the VAPID credentials in the authorization header do not correspond to the \
             credentials used to create the subscriptions.",
        ),
        Fault::BadTtl => (400, "invalid TTL"),
        Fault::BadUrgency => (400, "invalid Urgency"),
        Fault::BadTopic => (400, "invalid Topic"),
        Fault::BadEncryption => (400, "invalid encryption"),
        Fault::LengthMissing => (411, "length required"),
        Fault::TooLarge => (413, "payload too large"),
    };
    google(status, text)
}

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
