//! The one table: what each code means to the sender, in HTTP, in gRPC and in words.
//!
//! In: a [`Code`]. Out: its [`Row`]. Both doors answer from here, docs/errors.md is checked against
//! it, and no other place knows a status. Exhaustive on purpose: a new code does not compile
//! without its row.

use crate::outcome::{Code, Kind};

mod table;

/// What one code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The outcome that carries the code.
    pub kind: Kind,
    /// HTTP status of the application door and of problem details.
    pub http: u16,
    /// For people: what happened, never with anything of the sender's in it.
    pub text: &'static str,
}

/// The gRPC statuses that we answer with (<https://grpc.io/docs/guides/status-codes/>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grpc {
    /// OK.
    Ok = 0,
    /// The request's form.
    InvalidArgument = 3,
    /// The deadline passed, the fate is unknown.
    DeadlineExceeded = 4,
    /// No such thing, or no more.
    NotFound = 5,
    /// Known, but may not.
    PermissionDenied = 7,
    /// Throttled or shed.
    ResourceExhausted = 8,
    /// The operator's fault.
    FailedPrecondition = 9,
    /// No such method.
    Unimplemented = 12,
    /// A fault of this relay's.
    Internal = 13,
    /// Down for now.
    Unavailable = 14,
    /// Not known.
    Unauthenticated = 16,
}

// === impl Row ===

impl Row {
    /// Gives the gRPC status: it follows from the HTTP status, so that the doors cannot drift
    /// apart.
    pub const fn grpc(&self) -> Grpc {
        match self.http {
            201 => Grpc::Ok,
            401 => Grpc::Unauthenticated,
            403 => Grpc::PermissionDenied,
            404 | 410 => Grpc::NotFound,
            405 => Grpc::Unimplemented,
            429 => Grpc::ResourceExhausted,
            500 => Grpc::Internal,
            502 => Grpc::FailedPrecondition,
            503 => Grpc::Unavailable,
            504 => Grpc::DeadlineExceeded,
            _ => Grpc::InvalidArgument,
        }
    }
}

/// Gives a code's row.
pub const fn row(code: Code) -> Row {
    table::row(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_answers_with_the_statuses_that_the_contract_gives_it() {
        for code in Code::ALL.iter().copied() {
            let row = row(code);
            let fits: &[u16] = match row.kind {
                Kind::Accepted => &[201],
                Kind::Gone => &[410],
                Kind::NotNow => &[429, 503],
                Kind::Refused => &[400, 401, 403, 404, 405, 408, 413, 415],
                Kind::Misconfigured => &[500, 502],
                Kind::Unknown => &[504],
            };
            assert!(fits.contains(&row.http), "{} answers {}", code.label(), row.http);
        }
    }

    #[test]
    fn labels_are_unique_and_in_snake_case() {
        let labels: std::collections::BTreeSet<_> = Code::ALL.iter().map(|c| c.label()).collect();
        assert_eq!(labels.len(), Code::ALL.len());
        let snake =
            |label: &str| label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        assert!(labels.into_iter().all(snake));
    }
}
