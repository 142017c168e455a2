//! The vocabulary out: what became of a message, in exactly one of six ways.
//!
//! Every room that can fail gives an [`Outcome`] or a [`Refusal`]; only `reply` turns them into
//! answers. A [`Code`] is stable, closed and documented in docs/errors.md: it is what senders,
//! metrics and logs see.
//! Invariant: nothing that a sender sent is ever inside an outcome, but for the name of an unknown
//! member.

use std::borrow::Cow;
use std::time::Duration;

pub mod code;

pub mod retry;

pub use code::Code;

/// What became of one message for one device (design §5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The push service took it; with the id that the service gave it, where it gives one.
    Accepted {
        /// `apns-id`, FCM's `name`, or the push resource of Web Push.
        provider_message_id: Option<String>,
    },
    /// That device is dead for that app.
    Gone {
        /// Why.
        code: Code,
        /// When the push service saw it die, in milliseconds since 1970, where it says so.
        since_unix_ms: Option<u64>,
    },
    /// Throttled, down, overloaded or shed: the sender keeps the message and tries again.
    NotNow {
        /// Why.
        code: Code,
        /// How long the sender waits at least.
        retry_after: Duration,
    },
    /// The sender's fault: mend it, do not retry.
    Refused(Refusal),
    /// The operator's fault.
    Misconfigured {
        /// Why.
        code: Code,
    },
    /// Sent, but no answer came: retry with the same id.
    Unknown {
        /// Why.
        code: Code,
    },
}

/// A fault of the sender's: a code and the name of the field it lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub code: Code,
    /// The header or JSON member at fault, as a path (`targets[2].handle`).
    pub field: Option<Cow<'static, str>>,
}

/// The six outcomes without their data: a label for answers and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The push service took it.
    Accepted,
    /// The device is dead.
    Gone,
    /// Later.
    NotNow,
    /// The sender's fault.
    Refused,
    /// The operator's fault.
    Misconfigured,
    /// Sent, no answer.
    Unknown,
}

// === impl Outcome ===

impl Outcome {
    /// Gives the outcome's kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Accepted { .. } => Kind::Accepted,
            Self::Gone { .. } => Kind::Gone,
            Self::NotNow { .. } => Kind::NotNow,
            Self::Refused(_) => Kind::Refused,
            Self::Misconfigured { .. } => Kind::Misconfigured,
            Self::Unknown { .. } => Kind::Unknown,
        }
    }

    /// Gives the code; an accepted message has [`Code::Accepted`].
    pub const fn code(&self) -> Code {
        match self {
            Self::Accepted { .. } => Code::Accepted,
            Self::Gone { code, .. }
            | Self::NotNow { code, .. }
            | Self::Misconfigured { code }
            | Self::Unknown { code } => *code,
            Self::Refused(refusal) => refusal.code,
        }
    }
}

impl From<Refusal> for Outcome {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

// === impl Refusal ===

impl Refusal {
    /// Refuses the request as a whole.
    pub const fn new(code: Code) -> Self {
        Self { code, field: None }
    }

    /// Refuses because of one header or member.
    pub fn of_field(code: Code, field: impl Into<Cow<'static, str>>) -> Self {
        Self { code, field: Some(field.into()) }
    }

    /// Puts the field into an outer one: `handle` in `targets[2]` is `targets[2].handle`.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        let field = match self.field {
            Some(inner) => format!("{outer}.{inner}"),
            None => outer.to_owned(),
        };
        Self { code: self.code, field: Some(field.into()) }
    }
}

// === impl Kind ===

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Accepted,
        Self::Gone,
        Self::NotNow,
        Self::Refused,
        Self::Misconfigured,
        Self::Unknown,
    ];

    /// Gives the label that answers and metrics use.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Gone => "gone",
            Self::NotNow => "not_now",
            Self::Refused => "refused",
            Self::Misconfigured => "misconfigured",
            Self::Unknown => "unknown",
        }
    }
}
