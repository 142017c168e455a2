//! Reads the relay's answers, and types what can go wrong by blame.
//!
//! In: a whole answer. Out: the value that the call is for, or a [`ClientError`]. An answer that
//! is not the relay's own (a proxy's page, say) is never taken for the relay's word: with it no
//! device is given up. No error text holds a handle, a token or content.

use std::error::Error;

use http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::transport::Answer;
use crate::vapid::VapidError;

/// Why a call came to nothing.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The caller's fault: this argument cannot be sent.
    #[error("{name} is not {expected}")]
    BadArgument {
        /// Which argument.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// The caller's fault: the CA file holds no certificate, or a broken one.
    #[error("the extra CA is not one or more certificates in PEM")]
    BadCa,
    /// The caller's fault: the key cannot sign.
    #[error("cannot sign the request")]
    Vapid(#[from] VapidError),
    /// The network's or the relay's: no connection, or it broke. Retry later.
    #[error("cannot reach the relay")]
    Unreachable {
        /// What the connection said.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The network's or the relay's: no answer in time. It may have been heard.
    #[error("no answer within {timeout_s} s")]
    TimedOut {
        /// The limit, in seconds.
        timeout_s: f32,
    },
    /// The relay says no, and why.
    #[error("the relay refuses: {0}")]
    Problem(Problem),
    /// The answer is not the relay's, or of a relay that this NAS does not understand.
    #[error("the answer with status {status} is not {expected}")]
    Malformed {
        /// The HTTP status.
        status: u16,
        /// What it should be.
        expected: &'static str,
    },
}

/// The relay's reason for a no (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Error)]
#[error("{status} {code}{}", field.as_ref().map(|name| format!(" ({name})")).unwrap_or_default())]
pub struct Problem {
    /// The HTTP status.
    #[serde(skip)]
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// The header or JSON member at fault.
    #[serde(default)]
    pub field: Option<String>,
    /// What to do about it, for a person.
    #[serde(default)]
    pub detail: Option<String>,
    /// How long to wait before the next try, in seconds.
    #[serde(default)]
    pub retry_after_s: Option<u64>,
    /// Since when the device is gone, RFC 3339.
    #[serde(default)]
    pub gone_since: Option<String>,
}

// === impl Answer ===

impl Answer {
    /// Reads the body of a good answer. Errors: `Malformed`; `Problem` unless 2xx.
    pub(super) fn json<T: DeserializeOwned>(
        &self,
        expected: &'static str,
    ) -> Result<T, ClientError> {
        self.check()?;
        serde_json::from_slice(&self.body).map_err(|_| self.malformed(expected))
    }

    /// Errors: `Problem` unless 2xx; `Malformed` where it is not even that.
    pub(super) fn check(&self) -> Result<(), ClientError> {
        if self.status.is_success() {
            return Ok(());
        }
        Err(ClientError::Problem(self.problem()?))
    }

    /// Reads the body as a problem. Errors: `Malformed`.
    pub(super) fn problem(&self) -> Result<Problem, ClientError> {
        let is_problem =
            self.header(&CONTENT_TYPE).is_some_and(|kind| kind.starts_with(PROBLEM_JSON));
        let problem = if is_problem { serde_json::from_slice(&self.body).ok() } else { None };
        let mut problem: Problem =
            problem.ok_or_else(|| self.malformed("application/problem+json with a code"))?;
        problem.status = self.status.as_u16();
        let header = self.header(&RETRY_AFTER).and_then(|seconds| seconds.parse().ok());
        problem.retry_after_s = problem.retry_after_s.or(header);
        Ok(problem)
    }

    pub(super) fn header(&self, name: &HeaderName) -> Option<String> {
        self.headers.get(name)?.to_str().ok().map(str::to_owned)
    }

    pub(super) fn malformed(&self, expected: &'static str) -> ClientError {
        ClientError::Malformed { status: self.status.as_u16(), expected }
    }
}

const PROBLEM_JSON: &str = "application/problem+json";
