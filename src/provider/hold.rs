//! Holds a credential that its push service refuses.
//!
//! In: what became of each message under one credential. When the push service has refused the
//! credential itself several times in a row, the messages that follow are told so at once, with
//! the same code; one each while tries again. It never holds for the fault of one device, one
//! message or the push service, and a credential that was renewed starts afresh.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::upstream::{BreakerMetrics, Gate, Policy, Verdict};
use super::{Attempt, Dialling};
use crate::outcome::{Code, Outcome};

/// Refusals in a row before messages are held: one may be a hiccup.
const REFUSALS: u32 = 3;

/// Stands before the attempts under one credential.
pub(super) struct Hold {
    gate: Gate,
    /// Place in `Code::ALL` of the last refusal.
    code: AtomicUsize,
}

// === impl Hold ===

impl Hold {
    pub(super) fn new(dialling: &Dialling) -> Self {
        Self::with(dialling.credential_probe, Arc::clone(&dialling.holds))
    }

    fn with(probe: Duration, metrics: Arc<BreakerMetrics>) -> Self {
        let policy = Policy {
            failures: REFUSALS,
            failure_percent: 101,
            span: Duration::ZERO,
            open_min: probe,
            open_max: probe,
        };
        Self { gate: Gate::new(policy, metrics), code: AtomicUsize::new(0) }
    }

    /// Makes the attempt, unless the credential is held.
    pub(super) async fn attempt<F>(&self, make: impl FnOnce() -> F + Send) -> Attempt
    where
        F: Future<Output = Attempt> + Send,
    {
        let Ok(pass) = self.gate.enter() else {
            let code = Code::ALL.get(self.code.load(Ordering::Relaxed)).copied();
            let code = code.unwrap_or(Code::CredentialUnavailable);
            return Attempt::unsent(Outcome::Misconfigured { code });
        };
        let attempt = make().await;
        let verdict = verdict(&attempt);
        if verdict == Verdict::Failing {
            self.code.store(attempt.outcome.code() as usize, Ordering::Relaxed);
        }
        self.gate.leave(pass, verdict);
        attempt
    }

    /// There is another credential now.
    pub(super) fn lift(&self) {
        self.gate.reset();
    }
}

/// What an attempt says about its credential.
fn verdict(attempt: &Attempt) -> Verdict {
    match &attempt.outcome {
        Outcome::Misconfigured { code } if is_credential(*code) => Verdict::Failing,
        Outcome::Accepted { .. } | Outcome::Gone { .. } | Outcome::Refused(_)
            if attempt.upstream.is_some() =>
        {
            Verdict::Alive
        }
        // A throttle, a fault of the service or of one device: who we are was not in question.
        _ => Verdict::Nothing,
    }
}

/// Whether the credential itself was refused, whichever the device and the message.
const fn is_credential(code: Code) -> bool {
    matches!(
        code,
        Code::ApnsBadCertificate
            | Code::ApnsBadCertificateEnvironment
            | Code::ApnsBadEnvironmentKeyIdInToken
            | Code::ApnsExpiredProviderToken
            | Code::ApnsForbidden
            | Code::ApnsInvalidProviderToken
            | Code::ApnsMissingProviderToken
            | Code::ApnsUnrelatedKeyIdInToken
            | Code::FcmUnauthenticated
            | Code::FcmPermissionDenied
            | Code::FcmProjectNotFound
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Refusal;
    use crate::provider::tests::breaker_metrics;

    const PROBE: Duration = Duration::from_secs(30);

    fn hold() -> Hold {
        Hold::with(PROBE, breaker_metrics())
    }

    fn answered(outcome: Outcome) -> Attempt {
        Attempt { outcome, upstream: Some(Duration::from_millis(1)), credential: None }
    }

    fn refused(code: Code) -> Outcome {
        Outcome::Misconfigured { code }
    }

    /// Sends so many messages that end in `outcome`; gives how many were really made.
    async fn send(hold: &Hold, count: u32, outcome: &Outcome) -> u32 {
        let made = AtomicUsize::new(0);
        for _ in 0..count {
            let make = || async {
                made.fetch_add(1, Ordering::Relaxed);
                answered(outcome.clone())
            };
            hold.attempt(make).await;
        }
        u32::try_from(made.into_inner()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_credential_is_told_at_once_and_tried_again_each_while() {
        let hold = hold();
        let invalid = refused(Code::ApnsInvalidProviderToken);
        assert_eq!(send(&hold, 100, &invalid).await, 3);
        let told = hold.attempt(|| async { unreachable!("it is held") }).await;
        assert_eq!((told.outcome, told.upstream), (invalid.clone(), None));
        for _ in 0..5 {
            tokio::time::advance(PROBE).await;
            assert_eq!(send(&hold, 100, &invalid).await, 1);
        }
        tokio::time::advance(PROBE).await;
        assert_eq!(send(&hold, 1, &Outcome::Accepted { provider_message_id: None }).await, 1);
        assert_eq!(send(&hold, 2, &invalid).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_credential_is_tried_at_once() {
        let hold = hold();
        let expired = refused(Code::ApnsExpiredProviderToken);
        assert_eq!(send(&hold, 10, &expired).await, 3);
        hold.lift();
        assert_eq!(send(&hold, 10, &expired).await, 3);
    }

    /// Faults of a device, of a message and of the service, however many, hold nobody.
    #[tokio::test(start_paused = true)]
    async fn nothing_but_the_credential_holds_it() {
        let hold = hold();
        for outcome in [
            refused(Code::ApnsDeviceTokenNotForTopic),
            refused(Code::FcmSenderIdMismatch),
            refused(Code::FcmThirdPartyAuthError),
            refused(Code::OauthRefused),
            refused(Code::InternalFault),
            Outcome::Gone { code: Code::ApnsBadDeviceToken, since_unix_ms: None },
            Outcome::NotNow { code: Code::ApnsTooManyRequests, retry_after: PROBE },
            Outcome::Unknown { code: Code::NoAnswer },
            Outcome::Refused(Refusal::new(Code::FcmInvalidArgument)),
        ] {
            assert_eq!(send(&hold, 50, &outcome).await, 50, "{outcome:?}");
        }
        // Between refusals, a message that was taken shows that the credential is good.
        for _ in 0..10 {
            let denied = refused(Code::FcmPermissionDenied);
            assert_eq!(send(&hold, 2, &denied).await, 2);
            assert_eq!(send(&hold, 1, &Outcome::Accepted { provider_message_id: None }).await, 1);
        }
    }
}
