//! From an outcome's row to gRPC: a status with details, or a result inside an answer.

use std::collections::HashMap;
use std::time::Duration;

use prost_types::Timestamp;
use sns_proto::v1;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

use super::super::answer;
use crate::outcome::{Kind, Outcome};
use crate::relay::Settled;
use crate::reply;

/// Where the details of a status travel.
pub(super) const STATUS_DETAILS: &str = "grpc-status-details-bin";

/// The domain of our codes.
const DOMAIN: &str = "sns-relay";

/// Gives the status of an outcome that is not accepted: `ErrorInfo` with our code, `RetryInfo`
/// where there is a wait, `BadRequest` where there is a field.
pub(super) fn status_of(outcome: &Outcome, renewed_handle: Option<String>) -> Status {
    let code = outcome.code();
    let row = reply::row(code);
    let field = answer::field(outcome);
    let mut metadata = HashMap::from([("outcome".to_owned(), row.kind.label().to_owned())]);
    let further = [
        ("field", field.clone()),
        ("gone_since", answer::gone_since(outcome)),
        ("renewed_handle", renewed_handle),
    ];
    for (name, value) in further {
        if let Some(value) = value {
            metadata.insert(name.to_owned(), value);
        }
    }
    let mut details = ErrorDetails::new();
    details.set_error_info(code.label(), DOMAIN, metadata);
    if let Some(retry_after_s) = answer::retry_after_s(outcome) {
        details.set_retry_info(Some(Duration::from_secs(retry_after_s)));
    }
    if let Some(field) = field {
        details.add_bad_request_violation(field, row.text);
    }
    Status::with_error_details(tonic::Code::from_i32(row.grpc() as i32), row.text, details)
}

/// Gives the result of one message for one device.
pub(super) fn result_of(settled: Settled) -> v1::Result {
    let Settled { outcome, renewed_handle, .. } = settled;
    let accepted = matches!(outcome, Outcome::Accepted { .. });
    v1::Result {
        outcome: kind(outcome.kind()).into(),
        reason: if accepted { String::new() } else { outcome.code().label().to_owned() },
        field: answer::field(&outcome).unwrap_or_default(),
        retry_after_s: answer::retry_after_s(&outcome).unwrap_or_default(),
        gone_since: match &outcome {
            Outcome::Gone { since_unix_ms: Some(since), .. } => Some(timestamp(since / 1000)),
            _ => None,
        },
        renewed_handle: renewed_handle.unwrap_or_default(),
        provider_message_id: match outcome {
            Outcome::Accepted { provider_message_id } => provider_message_id.unwrap_or_default(),
            _ => String::new(),
        },
    }
}

/// Gives a time of the protocol's.
pub(super) fn timestamp(unix_s: u64) -> Timestamp {
    Timestamp { seconds: i64::try_from(unix_s).unwrap_or(i64::MAX), nanos: 0 }
}

const fn kind(kind: Kind) -> v1::Outcome {
    match kind {
        Kind::Accepted => v1::Outcome::Accepted,
        Kind::Gone => v1::Outcome::Gone,
        Kind::NotNow => v1::Outcome::NotNow,
        Kind::Refused => v1::Outcome::Refused,
        Kind::Misconfigured => v1::Outcome::Misconfigured,
        Kind::Unknown => v1::Outcome::Unknown,
    }
}
