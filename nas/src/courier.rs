//! The way to the relay: sends one delivery and tells what became of it.
//!
//! In: a delivery of the outbox. Out: a `TargetResult`: what cannot be sealed, or gets no answer,
//! is an outcome too; or that the relay was not reached and the delivery never left. Seals anew for
//! every attempt, under the same id. Notifications go under the key of the NAS; messages under
//! their application's own key, which says nothing about the NAS. Each key has one gRPC stream, all
//! of them one connection. One attempt; never logs.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use sns_proto::v1::stream_request::Message;
use sns_proto::v1::{self, NotifyRequest, PushRequest};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::base64url;
use crate::client::message::{Level, Outcome, Source, TargetResult};
use crate::client::{ClientError, Line, LineError, RelayClient};
use crate::clock;
use crate::content::Body;
use crate::journal::devices::NAS;
use crate::journal::{Journal, JournalError};
use crate::key::SenderKey;
use crate::outbox::Delivery;
use crate::seal::seal;

/// One relay, and the keys that sign for it; cheap to clone.
#[derive(Clone)]
pub struct Courier {
    relay: Arc<RelayClient>,
    senders: HashMap<String, Arc<Sender>>,
}

/// A key with its line, which opens when it is first used.
struct Sender {
    key: Arc<SenderKey>,
    line: OnceLock<Line>,
}

/// The relay was not reached: the delivery never left, and that says nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotReached {
    /// One of [`reason`].
    pub reason: &'static str,
}

/// The reasons that are the NAS's own, beside the codes of docs/errors.md.
pub mod reason {
    /// The relay could not be reached, or the connection broke.
    pub const RELAY_UNREACHABLE: &str = "relay_unreachable";
    /// The relay did not answer in time.
    pub const RELAY_TIMED_OUT: &str = "relay_timed_out";
    /// What answered is not the relay, or not one that this program understands.
    pub const NOT_THE_RELAY: &str = "not_the_relay";
    /// The content does not fit into the app's body, the device's keys do not serve, or it has none
    /// and this content must not go out in plain text.
    pub const NOT_SEALED: &str = "not_sealed";
    /// There is no key of the device's sender.
    pub const NO_KEY: &str = "no_key";
}

/// Codes that are about the sender as a whole: no word against the notification, which waits until
/// the clock, the key or the enrolment is mended.
const SENDER_CODES: [&str; 10] = [
    "vapid_missing",
    "vapid_malformed",
    "vapid_key_invalid",
    "vapid_signature_invalid",
    "vapid_expired",
    "vapid_lifetime_too_long",
    "vapid_audience_wrong",
    "vapid_subject_invalid",
    "nas_not_enrolled",
    "nas_suspended",
];

// === impl Courier ===

impl Courier {
    /// Makes a courier with the keys of the journal.
    pub fn new(relay: RelayClient, journal: &Journal) -> Result<Self, JournalError> {
        let mut courier = Self { relay: Arc::new(relay), senders: HashMap::new() };
        for name in journal.senders()? {
            if let Some(key) = journal.sender_key(&name)? {
                courier.learn(name, key);
            }
        }
        Ok(courier)
    }

    /// Whether it has the key of this sender: one may have been added since.
    pub fn knows(&self, sender: &str) -> bool {
        self.senders.contains_key(sender)
    }

    /// Takes a sender's key.
    pub fn learn(&mut self, sender: String, key: SenderKey) {
        let known = Sender { key: Arc::new(key), line: OnceLock::new() };
        self.senders.insert(sender, Arc::new(known));
    }

    /// Sends one delivery. Must be called within a tokio runtime.
    /// Errors: [`NotReached`]; every other failure is a result.
    pub async fn send(&self, delivery: &Delivery, now_ms: u64) -> Result<TargetResult, NotReached> {
        let Some(sender) = self.senders.get(&delivery.device.sender) else {
            return Ok(failed(Outcome::Misconfigured, reason::NO_KEY));
        };
        let left_s = delivery.expires_ms.saturating_sub(now_ms) / 1000;
        let ttl_s = u32::try_from(left_s).unwrap_or(u32::MAX).max(1);
        let sealed = match sealed(delivery) {
            Ok(sealed) => sealed,
            Err(result) => return Ok(result),
        };
        let message = match (sealed, delivery.device.sender == NAS) {
            // A mail cannot be taken back.
            (None, true) if delivery.content.body.event().is_none() => {
                return Ok(failed(Outcome::Refused, reason::NOT_SEALED));
            }
            (sealed, true) => Message::Notify(notify(delivery, ttl_s, sealed)),
            (Some(body), false) => Message::Push(push(delivery, ttl_s, body)),
            (None, false) => return Ok(failed(Outcome::Refused, reason::NOT_SEALED)),
        };
        match sender.line(&self.relay) {
            Ok(line) => match line.send(message).await {
                Ok(results) => match results.into_iter().next() {
                    Some(result) => Ok(result_of(result)),
                    None => Ok(failed(Outcome::Unknown, reason::NOT_THE_RELAY)),
                },
                Err(error) => told(&error),
            },
            Err(_) => Ok(failed(Outcome::Misconfigured, reason::NO_KEY)),
        }
    }
}

// === impl Sender ===

impl Sender {
    fn line(&self, relay: &RelayClient) -> Result<&Line, ClientError> {
        if let Some(line) = self.line.get() {
            return Ok(line);
        }
        let line = relay.line(&self.key)?;
        Ok(self.line.get_or_init(|| line))
    }
}

fn notify(delivery: &Delivery, ttl_s: u32, sealed: Option<Bytes>) -> NotifyRequest {
    let content = if sealed.is_some() { None } else { plain(&delivery.content.body) };
    let source = delivery.content.body.event().map_or(Source::Dsm, |event| event.source);
    let source = match source {
        Source::Dsm => v1::Source::Dsm,
        Source::Srm => v1::Source::Srm,
        Source::Surveillance => v1::Source::Surveillance,
    };
    let level = match delivery.level {
        Level::Info => v1::Level::Info,
        Level::Warn => v1::Level::Warn,
        Level::Error => v1::Level::Error,
    };
    NotifyRequest {
        id: delivery.content.id.to_string(),
        source: source.into(),
        level: level.into(),
        ttl_s,
        collapse_key: delivery.content.body.collapse_key().unwrap_or_default().to_owned(),
        silent: !delivery.sound,
        content,
        targets: vec![v1::Target {
            handle: delivery.device.handle.clone(),
            sealed: sealed.unwrap_or_default().to_vec(),
        }],
    }
}

fn push(delivery: &Delivery, ttl_s: u32, body: Bytes) -> PushRequest {
    // The key itself would tell the relay more than that two messages have the same.
    let alias = |key: &str| base64url::encode(&digest(&SHA256, key.as_bytes()).as_ref()[..24]);
    let urgency = match delivery.level {
        Level::Info => v1::Urgency::Normal,
        Level::Warn | Level::Error => v1::Urgency::High,
    };
    PushRequest {
        handle: delivery.device.handle.clone(),
        ttl_s,
        urgency: urgency.into(),
        topic: delivery.content.body.collapse_key().map(alias).unwrap_or_default(),
        sealed: body.to_vec(),
    }
}

fn sealed(delivery: &Delivery) -> Result<Option<Bytes>, TargetResult> {
    let Some(keys) = &delivery.device.keys else { return Ok(None) };
    let cap = delivery.device.cap;
    let content = delivery.content.encode_within(cap.message_bytes_max());
    let content = content.map_err(|_| failed(Outcome::Refused, reason::NOT_SEALED))?;
    match seal(keys, &content, cap) {
        Ok(body) => Ok(Some(body.into())),
        Err(_) => Err(failed(Outcome::Refused, reason::NOT_SEALED)),
    }
}

/// For an app that takes plain text: the operator allows it, and the relay reads it.
fn plain(body: &Body) -> Option<v1::Content> {
    let event = body.event()?;
    Some(v1::Content {
        tag: event.tag.clone(),
        category: event.category.clone(),
        app: event.app.clone(),
        title: event.title.clone(),
        text: event.text.clone(),
        vars: event.vars.clone().into_iter().collect(),
    })
}

fn result_of(result: v1::Result) -> TargetResult {
    let outcome = match result.outcome() {
        v1::Outcome::Accepted => Outcome::Accepted,
        v1::Outcome::Gone => Outcome::Gone,
        v1::Outcome::NotNow => Outcome::NotNow,
        v1::Outcome::Refused => Outcome::Refused,
        v1::Outcome::Misconfigured => Outcome::Misconfigured,
        v1::Outcome::Unknown | v1::Outcome::Unspecified => Outcome::Unknown,
    };
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    let reason = some(result.reason);
    let since_ms = |seconds: i64| u64::try_from(seconds).unwrap_or_default().saturating_mul(1000);
    TargetResult {
        outcome: outcome_of(outcome, reason.as_deref()),
        reason,
        provider_message_id: some(result.provider_message_id),
        retry_after_s: Some(result.retry_after_s).filter(|seconds| *seconds > 0),
        gone_since: result.gone_since.map(|since| clock::rfc3339(since_ms(since.seconds))),
        renewed_handle: some(result.renewed_handle),
    }
}

/// What a message without results has come to.
fn told(error: &LineError) -> Result<TargetResult, NotReached> {
    // Where a message may have been heard it is `unknown`.
    let unknown = |reason| failed(Outcome::Unknown, reason);
    match error {
        LineError::NotOpened(status) => said(status).ok_or(match status.code() {
            Code::DeadlineExceeded => NotReached { reason: reason::RELAY_TIMED_OUT },
            _ => NotReached { reason: reason::RELAY_UNREACHABLE },
        }),
        LineError::Ended(status) => {
            Ok(said(status).unwrap_or_else(|| unknown(reason::RELAY_UNREACHABLE)))
        }
        LineError::Unacknowledged => Ok(unknown(reason::RELAY_UNREACHABLE)),
        LineError::TimedOut => Ok(unknown(reason::RELAY_TIMED_OUT)),
        LineError::NoToken => Ok(failed(Outcome::Misconfigured, reason::NO_KEY)),
    }
}

/// The relay's own statuses name their code and outcome; others come of a broken connection.
fn said(status: &Status) -> Option<TargetResult> {
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == "sns-relay")?;
    let outcome = match info.metadata.get("outcome").map(String::as_str) {
        Some("not_now") => Outcome::NotNow,
        Some("refused") => outcome_of(Outcome::Refused, Some(&info.reason)),
        Some("misconfigured") => Outcome::Misconfigured,
        _ => Outcome::Unknown,
    };
    let retry = details.retry_info().and_then(|retry| retry.retry_delay);
    Some(TargetResult {
        retry_after_s: retry.map(|delay| delay.as_secs()),
        ..failed(outcome, &info.reason)
    })
}

fn outcome_of(outcome: Outcome, code: Option<&str>) -> Outcome {
    match outcome {
        Outcome::Refused if code.is_some_and(|code| SENDER_CODES.contains(&code)) => {
            Outcome::Misconfigured
        }
        other => other,
    }
}

fn failed(outcome: Outcome, reason: &str) -> TargetResult {
    TargetResult { outcome, reason: Some(reason.to_owned()), ..TargetResult::accepted() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    #[test]
    fn a_call_that_the_relay_ends_is_an_outcome_of_its_delivery() {
        let check = |code: &str, said: &str, outcome: Outcome| {
            let metadata = [("outcome".to_owned(), said.to_owned())];
            let mut details = ErrorDetails::with_error_info(code, "sns-relay", metadata);
            details.set_retry_info(Some(std::time::Duration::from_secs(7)));
            let status = Status::with_error_details(Code::Unavailable, "text", details);
            for error in [LineError::NotOpened(status.clone()), LineError::Ended(status)] {
                let result = told(&error).ok().unwrap();
                assert_eq!((result.outcome, result.reason.as_deref()), (outcome, Some(code)));
                assert_eq!(result.retry_after_s, Some(7));
            }
        };
        check("member_invalid", "refused", Outcome::Refused);
        check("vapid_expired", "refused", Outcome::Misconfigured);
        check("nas_not_enrolled", "refused", Outcome::Misconfigured);
        check("too_many_streams", "not_now", Outcome::NotNow);
        check("draining", "not_now", Outcome::NotNow);
        check("internal_fault", "misconfigured", Outcome::Misconfigured);
        for error in [
            LineError::Ended(Status::unavailable("connection reset")),
            LineError::Unacknowledged,
            LineError::TimedOut,
        ] {
            assert_eq!(told(&error).ok().unwrap().outcome, Outcome::Unknown);
        }
        for (status, reason) in [
            (Status::unavailable("connection refused"), reason::RELAY_UNREACHABLE),
            (Status::deadline_exceeded("no answer"), reason::RELAY_TIMED_OUT),
        ] {
            let error = LineError::NotOpened(status);
            assert_eq!(told(&error).err(), Some(NotReached { reason }));
        }
    }
}
