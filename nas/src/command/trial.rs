//! `devices test`: one push at once, and for each thing that can be wrong a code and a sentence.

use std::collections::BTreeMap;

use sns_nas::client::message::{Level, Outcome, Source, TargetResult};
use sns_nas::clock;
use sns_nas::content::{Body, Content, Event};
use sns_nas::courier::reason;
use sns_nas::journal::JournalError;
use sns_nas::outbox::Delivery;
use thiserror::Error;
use uuid::Uuid;

use super::{Failure, Place, courier, hostname, print, runtime};

/// The test came back with this.
#[derive(Debug, Error)]
#[error("{outcome}: {advice} ({reason})")]
struct Trouble {
    outcome: &'static str,
    advice: &'static str,
    reason: String,
}

const TTL_MS: u64 = 300_000;

/// Sends a test to a device. Nothing of it is kept; a renewed handle is taken.
pub(super) fn run(place: &Place, name: &str) -> Result<u8, Failure> {
    let mut journal = place.journal()?;
    let device = journal.device(name)?.ok_or(JournalError::Unknown { what: "device" })?;
    let courier = courier(&journal)?;
    let now_ms = clock::now_unix_ms();
    let host = hostname();
    let event = Event {
        source: Source::Dsm,
        level: Level::Warn,
        tag: "TestPush".to_owned(),
        category: "test".to_owned(),
        app: "sns-nas".to_owned(),
        title: format!("Test from {host}"),
        text: format!("Notifications from {host} reach this device."),
        vars: BTreeMap::from([("%HOSTNAME%".to_owned(), host)]),
        collapse_key: None,
    };
    let id = Uuid::new_v4();
    let body = Body::Notification(event);
    let content = Content { id, sequence: now_ms, written_at_unix_ms: now_ms, body };
    let (id, handle) = (device.id, device.handle.clone());
    let delivery = Delivery::once(content, device, Level::Warn, now_ms + TTL_MS);
    let sent = runtime()?.block_on(courier.send(&delivery, now_ms));
    let result = sent.unwrap_or_else(|not_reached| TargetResult {
        outcome: Outcome::NotNow,
        reason: Some(not_reached.reason.to_owned()),
        ..TargetResult::accepted()
    });
    if let Some(renewed) = &result.renewed_handle {
        journal.renew_handle(id, &handle, renewed)?;
    }
    let (code, advice) = verdict(&result);
    if code == 0 {
        let provider_id = result.provider_message_id.map(|id| format!(" as {id}"));
        print(format!("{advice}{}\n", provider_id.unwrap_or_default()))?;
        return Ok(0);
    }
    let outcome = result.outcome.label();
    let reason = result.reason.unwrap_or_else(|| "no code".to_owned());
    let error = Trouble { outcome, advice, reason };
    Err(Failure { code, error: Box::new(error) })
}

/// Gives the exit code and what to do, by the code of docs/errors.md and the courier's own reasons.
fn verdict(result: &TargetResult) -> (u8, &'static str) {
    let reason = result.reason.as_deref().unwrap_or_default();
    match (result.outcome, reason) {
        (Outcome::Accepted, _) => (0, "the push service accepted it"),
        (Outcome::Gone, _) => (10, "the device is gone: pair it anew"),
        (_, "handle_invalid") => {
            (11, "the handle has expired or is another key's: pair the device anew")
        }
        (_, "nas_not_enrolled") => (12, "the relay does not know this NAS: sns-nas enrol"),
        (_, "nas_suspended") => (13, "the operator has suspended this NAS: ask there"),
        (_, "vapid_expired" | "vapid_lifetime_too_long") => (14, "the clock of this NAS is wrong"),
        (_, "vapid_audience_wrong") => (15, "the relay is called otherwise: enrol with its URL"),
        (_, reason::RELAY_UNREACHABLE) => {
            (16, "the relay cannot be reached: see URL, network and --ca")
        }
        (_, reason::RELAY_TIMED_OUT) => (17, "the relay does not answer"),
        (_, reason::NOT_THE_RELAY) => (18, "what answers is not a relay: see the URL, and proxies"),
        (_, reason::NOT_SEALED) => (19, "it cannot be sealed: see the device's keys and sender"),
        (_, "plain_not_allowed" | "sealed_missing") => {
            (20, "the app takes sealed content only: add the device with its keys")
        }
        (_, "content_too_large") => (21, "max_body_bytes is smaller than the journal says"),
        (_, "sender_rate_exceeded" | "device_rate_exceeded") => (22, "too many messages: wait"),
        (_, reason::NO_KEY) => (23, "there is no usable key of the device's sender"),
        (Outcome::NotNow, _) => (24, "the relay or the push service is busy or down: try later"),
        (Outcome::Misconfigured, _) => (25, "the operator of the relay must mend something"),
        (Outcome::Unknown, _) => (26, "sent, and nobody answered: it may have arrived"),
        (Outcome::Refused, _) => (27, "the relay refuses it"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_code_and_words() {
        let causes = [
            (Outcome::Accepted, ""),
            (Outcome::Gone, "apns_unregistered"),
            (Outcome::Refused, "handle_invalid"),
            (Outcome::Misconfigured, "nas_not_enrolled"),
            (Outcome::Misconfigured, "nas_suspended"),
            (Outcome::Misconfigured, "vapid_expired"),
            (Outcome::Misconfigured, "vapid_audience_wrong"),
            (Outcome::Unknown, reason::RELAY_UNREACHABLE),
            (Outcome::Unknown, reason::RELAY_TIMED_OUT),
            (Outcome::Unknown, reason::NOT_THE_RELAY),
            (Outcome::Refused, reason::NOT_SEALED),
            (Outcome::Refused, "plain_not_allowed"),
            (Outcome::Refused, "content_too_large"),
            (Outcome::NotNow, "device_rate_exceeded"),
            (Outcome::Misconfigured, reason::NO_KEY),
            (Outcome::NotNow, "push_service_unreachable"),
            (Outcome::Misconfigured, "credential_unavailable"),
            (Outcome::Unknown, "no_answer"),
            (Outcome::Refused, "member_invalid"),
        ];
        let mut seen = std::collections::BTreeSet::new();
        for (outcome, code) in causes {
            let reason = Some(code.to_owned());
            let result = TargetResult { outcome, reason, ..TargetResult::accepted() };
            assert!(seen.insert(verdict(&result)), "{code}");
        }
        let codes: std::collections::BTreeSet<u8> = seen.iter().map(|(code, _)| *code).collect();
        assert_eq!(codes.len(), causes.len());
    }
}
