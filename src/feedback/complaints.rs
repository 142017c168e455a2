//! What the operator is told, and how often: a fault that every message meets is one line a minute.
//!
//! In: each message that failed for a fault of the operator's. Out: whether to say so now, with how
//! many went before unsaid. Keyed by app, push service and code, which are closed sets, so the
//! memory is bounded by the configuration.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::outcome::Code;
use crate::push::{AppName, PushService};

/// Remembers what was said when.
pub struct Complaints {
    repeat: Duration,
    said: Mutex<HashMap<(AppName, PushService, Code), Said>>,
}

#[derive(Debug, Clone, Copy)]
struct Said {
    at: Instant,
    since: u64,
}

// === impl Complaints ===

impl Complaints {
    /// The same complaint comes again after `repeat` at the soonest.
    pub fn new(repeat: Duration) -> Self {
        Self { repeat, said: Mutex::default() }
    }

    /// Notes a failed message; gives how many there were since the last word, this one included,
    /// when it is time for another.
    pub fn due(
        &self,
        app: &AppName,
        service: PushService,
        code: Code,
        now: Instant,
    ) -> Option<u64> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (app.clone(), service, code);
        let Some(last) = said.get_mut(&key) else {
            said.insert(key, Said { at: now, since: 0 });
            return Some(1);
        };
        last.since += 1;
        if now < last.at + self.repeat {
            return None;
        }
        let messages = last.since;
        *last = Said { at: now, since: 0 };
        Some(messages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: Code = Code::ApnsInvalidProviderToken;

    #[test]
    fn a_fault_that_every_message_meets_is_said_once_a_while_with_their_number() {
        let complaints = Complaints::new(Duration::from_secs(60));
        let app = AppName::parse("chat").unwrap();
        let begin = Instant::now();
        let due = |after_s| {
            complaints.due(&app, PushService::Apns, CODE, begin + Duration::from_secs(after_s))
        };
        assert_eq!(due(0), Some(1));
        assert!((0..60).all(|after_s| due(after_s).is_none()));
        assert_eq!(due(60), Some(61));
        assert_eq!(due(61), None);
        assert_eq!(due(600), Some(2));
    }

    #[test]
    fn another_app_service_or_code_is_another_complaint() {
        let complaints = Complaints::new(Duration::from_secs(60));
        let now = Instant::now();
        let (chat, mail) = (AppName::parse("chat").unwrap(), AppName::parse("mail").unwrap());
        for (app, service, code) in [
            (&chat, PushService::Apns, CODE),
            (&mail, PushService::Apns, CODE),
            (&chat, PushService::Fcm, CODE),
            (&chat, PushService::Apns, Code::InternalFault),
        ] {
            assert_eq!(complaints.due(app, service, code, now), Some(1));
            assert_eq!(complaints.due(app, service, code, now), None);
        }
    }
}
