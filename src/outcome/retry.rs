//! What the corridor may do again at once, as a pure function.
//!
//! In: an outcome and how many attempts were made. Out: settle, or try once more.
//! Only what certainly did no harm is tried again inside a request; all else goes back to the
//! sender with `retry_after_s`, and nothing ever sleeps in a handler (design §7).

use super::{Code, Outcome};

/// Attempts that one message may take inside one request: the first, and one more.
pub const ATTEMPTS_MAX: u32 = 2;

/// What to do with an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Tell the sender.
    Settle,
    /// Send once more: the push service certainly did not process it.
    Again,
    /// Send once more under a fresh provider token or access token.
    AgainWithNewCredential,
}

/// Decides after attempt number `attempt` (1 is the first).
/// Source: reference "Client timeouts and retries": Apple's and Google's rules for an expired
/// token.
pub const fn decide(outcome: &Outcome, attempt: u32) -> Decision {
    if attempt >= ATTEMPTS_MAX {
        return Decision::Settle;
    }
    match outcome.code() {
        Code::ApnsExpiredProviderToken | Code::FcmUnauthenticated => {
            Decision::AgainWithNewCredential
        }
        // The service closed an idle connection or is going down, and says that it did not process.
        Code::ApnsIdleTimeout | Code::ApnsShutdown | Code::WebpushIdleTimeout => Decision::Again,
        _ => Decision::Settle,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_token_is_renewed_once_and_then_settled() {
        let outcome = Outcome::Misconfigured { code: Code::ApnsExpiredProviderToken };
        assert_eq!(decide(&outcome, 1), Decision::AgainWithNewCredential);
        assert_eq!(decide(&outcome, 2), Decision::Settle);
    }

    #[test]
    fn an_unknown_fate_is_never_sent_again() {
        assert_eq!(decide(&Outcome::Unknown { code: Code::NoAnswer }, 1), Decision::Settle);
    }

    #[test]
    fn an_accepted_message_is_settled() {
        let outcome = Outcome::Accepted { provider_message_id: None };
        assert_eq!(decide(&outcome, 1), Decision::Settle);
    }
}
