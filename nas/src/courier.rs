//! The way to the relay: sends one delivery and tells what became of it.
//!
//! In: a delivery of the outbox. Out: a `TargetResult`, always: what cannot be sent, or gets no
//! answer, is an outcome too. Seals anew for every attempt, under the same id. Notifications go
//! through the NAS door; messages through the application door, under their application's own key,
//! which says nothing about the NAS. One attempt; keeps nothing; never logs.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

use crate::base64url;
use crate::client::message::{
    Content as Plain, Level, Message, Notification, Outcome, Source, Target, TargetResult, Urgency,
};
use crate::client::{ClientError, RelayClient};
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
    relay_url: String,
    keys: HashMap<String, Arc<SenderKey>>,
}

/// The reasons that are the NAS's own, beside the codes of docs/errors.md.
pub mod reason {
    /// The relay could not be reached, or the connection broke.
    pub const RELAY_UNREACHABLE: &str = "relay_unreachable";
    /// The relay did not answer in time.
    pub const RELAY_TIMED_OUT: &str = "relay_timed_out";
    /// What answered is not the relay, or not one that this program understands.
    pub const NOT_THE_RELAY: &str = "not_the_relay";
    /// The content does not fit into the app's body, or the device's keys do not serve.
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
    pub fn new(
        relay: RelayClient,
        relay_url: &str,
        journal: &Journal,
    ) -> Result<Self, JournalError> {
        let mut keys = HashMap::new();
        for name in journal.senders()? {
            if let Some(key) = journal.sender_key(&name)? {
                keys.insert(name, Arc::new(key));
            }
        }
        let relay_url = relay_url.trim_end_matches('/').to_owned();
        Ok(Self { relay: Arc::new(relay), relay_url, keys })
    }

    /// Whether it has the key of this sender: one may have been added since.
    pub fn knows(&self, sender: &str) -> bool {
        self.keys.contains_key(sender)
    }

    /// Takes a sender's key.
    pub fn learn(&mut self, sender: String, key: SenderKey) {
        self.keys.insert(sender, Arc::new(key));
    }

    /// Sends one delivery.
    pub async fn send(&self, delivery: &Delivery, now_ms: u64) -> TargetResult {
        let Some(key) = self.keys.get(&delivery.device.sender) else {
            return failed(Outcome::Misconfigured, reason::NO_KEY);
        };
        let left_s = delivery.expires_ms.saturating_sub(now_ms) / 1000;
        let ttl_s = u32::try_from(left_s).unwrap_or(u32::MAX).max(1);
        let sealed = match sealed(delivery) {
            Ok(sealed) => sealed,
            Err(result) => return result,
        };
        match (sealed, delivery.device.sender == NAS) {
            (sealed, true) => self.notify(key, delivery, ttl_s, sealed).await,
            (Some(body), false) => self.push(key, delivery, ttl_s, body).await,
            (None, false) => failed(Outcome::Refused, reason::NOT_SEALED),
        }
    }

    async fn notify(
        &self,
        key: &SenderKey,
        delivery: &Delivery,
        ttl_s: u32,
        sealed: Option<Bytes>,
    ) -> TargetResult {
        let content = if sealed.is_some() { None } else { plain(&delivery.content.body) };
        let notification = Notification {
            id: delivery.content.id,
            source: delivery.content.body.event().map_or(Source::Dsm, |event| event.source),
            level: delivery.level,
            ttl_s,
            collapse_key: delivery.content.body.collapse_key().map(str::to_owned),
            sound: delivery.sound,
            content,
            targets: vec![Target { handle: delivery.device.handle.clone(), sealed }],
        };
        match self.relay.notify(key, &notification).await {
            Ok(mut results) => match results.pop() {
                Some(result) => result,
                None => failed(Outcome::Unknown, reason::NOT_THE_RELAY),
            },
            Err(error) => told(error),
        }
    }

    async fn push(
        &self,
        key: &SenderKey,
        delivery: &Delivery,
        ttl_s: u32,
        body: Bytes,
    ) -> TargetResult {
        // The key itself would tell the relay more than that two messages have the same.
        let topic = delivery
            .content
            .body
            .collapse_key()
            .map(|key| base64url::encode(&digest(&SHA256, key.as_bytes()).as_ref()[..24]));
        let urgency = match delivery.level {
            Level::Info => Urgency::Normal,
            Level::Warn | Level::Error => Urgency::High,
        };
        let endpoint = format!("{}/push/{}", self.relay_url, delivery.device.handle);
        let message = Message { ttl_s, urgency, topic, body };
        match self.relay.push(&endpoint, key, &message).await {
            Ok(answer) => TargetResult {
                outcome: outcome_of(answer.outcome, answer.code.as_deref()),
                reason: answer.code,
                provider_message_id: None,
                retry_after_s: answer.retry_after_s,
                gone_since: answer.gone_since,
                renewed_handle: answer.renewed_handle,
            },
            Err(error) => told(error),
        }
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
fn plain(body: &Body) -> Option<Plain> {
    let event = body.event()?;
    let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    Some(Plain {
        tag: event.tag.clone(),
        category: some(&event.category),
        app: some(&event.app),
        title: event.title.clone(),
        text: event.text.clone(),
        vars: event.vars.clone(),
    })
}

/// What a call that came to nothing says of its one delivery.
fn told(error: ClientError) -> TargetResult {
    match error {
        ClientError::Problem(problem) => TargetResult {
            outcome: match problem.status {
                400..=499 if problem.status != 429 => {
                    outcome_of(Outcome::Refused, Some(&problem.code))
                }
                429 | 503 => Outcome::NotNow,
                500 | 502 => Outcome::Misconfigured,
                _ => Outcome::Unknown,
            },
            retry_after_s: problem.retry_after_s,
            gone_since: problem.gone_since,
            ..failed(Outcome::Unknown, &problem.code)
        },
        // It may have been heard.
        ClientError::Unreachable { .. } => failed(Outcome::Unknown, reason::RELAY_UNREACHABLE),
        ClientError::TimedOut { .. } => failed(Outcome::Unknown, reason::RELAY_TIMED_OUT),
        ClientError::Malformed { .. } => failed(Outcome::Unknown, reason::NOT_THE_RELAY),
        ClientError::BadArgument { .. } | ClientError::BadCa | ClientError::Vapid(_) => {
            failed(Outcome::Misconfigured, reason::NO_KEY)
        }
    }
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
    use crate::client::Problem;

    #[test]
    fn a_call_that_came_to_nothing_is_an_outcome_of_its_delivery() {
        let check = |status: u16, code: &str, outcome: Outcome| {
            let problem = Problem {
                status,
                code: code.to_owned(),
                field: None,
                detail: None,
                retry_after_s: Some(7),
                gone_since: None,
            };
            let result = told(ClientError::Problem(problem));
            assert_eq!((result.outcome, result.reason.as_deref()), (outcome, Some(code)));
            assert_eq!(result.retry_after_s, Some(7));
        };
        check(400, "member_invalid", Outcome::Refused);
        check(413, "body_too_large", Outcome::Refused);
        check(401, "vapid_expired", Outcome::Misconfigured);
        check(403, "nas_not_enrolled", Outcome::Misconfigured);
        check(403, "plain_not_allowed", Outcome::Refused);
        check(429, "sender_rate_exceeded", Outcome::NotNow);
        check(503, "draining", Outcome::NotNow);
        check(500, "internal_fault", Outcome::Misconfigured);
        check(504, "no_answer", Outcome::Unknown);
        let timed_out = told(ClientError::TimedOut { timeout_s: 1.0 });
        assert_eq!(timed_out.outcome, Outcome::Unknown);
        let malformed = told(ClientError::Malformed { status: 200, expected: "x" });
        assert_eq!(malformed.reason.as_deref(), Some(reason::NOT_THE_RELAY));
    }
}
