//! Duplicates: a notification that is sent twice reaches its device once.
//!
//! In: who sends which id to which device. Out: [`Claim::First`] for the one that is to be sent, or
//! the outcome of the one that was. An acceptance is remembered *after* it happened, for a while
//! and in bounded memory; whatever else an attempt came to is told to its twins and forgotten, so
//! that a retry is a new try. Nothing here is written anywhere.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::config;
use crate::outcome::Outcome;
use crate::push::MessageId;

/// One message for one device: the id that the device's push service sees is derived from both.
type Key = ([u8; 32], MessageId);

/// What was accepted, and what is under way.
pub struct Duplicates {
    accepted: Cache<Key, Outcome>,
    under_way: Mutex<HashMap<Key, watch::Receiver<Option<Outcome>>>>,
}

/// Whether a message is to be sent.
pub enum Claim<'a> {
    /// It is; the outcome goes to [`First::settle`].
    First(First<'a>),
    /// It was, and this is what became of it.
    Twin(Outcome),
}

/// The one attempt that is under way. Dropped without an outcome, a twin takes its place.
pub struct First<'a> {
    duplicates: &'a Duplicates,
    key: Key,
    told: watch::Sender<Option<Outcome>>,
}

// === impl Duplicates ===

impl Duplicates {
    /// Takes the bounds of the memory.
    pub fn new(config: &config::Duplicates) -> Self {
        let accepted = Cache::builder()
            .max_capacity(config.entries_max)
            .time_to_live(config.lifetime)
            .eviction_policy(EvictionPolicy::lru())
            .build();
        Self { accepted, under_way: Mutex::default() }
    }

    /// Claims a message of a sender; a twin waits for the first one's outcome, until its deadline.
    /// Gives nothing when the deadline comes first: then nobody knows yet.
    pub async fn claim(
        &self,
        sender: [u8; 32],
        id: MessageId,
        deadline: Instant,
    ) -> Option<Claim<'_>> {
        let key = (sender, id);
        loop {
            let mut first = {
                let mut under_way = self.lock();
                if let Some(outcome) = self.accepted.get(&key) {
                    return Some(Claim::Twin(outcome));
                }
                match under_way.get(&key) {
                    Some(first) => first.clone(),
                    None => {
                        let (told, outcome) = watch::channel(None);
                        under_way.insert(key, outcome);
                        return Some(Claim::First(First { duplicates: self, key, told }));
                    }
                }
            };
            match timeout_at(deadline, first.wait_for(Option::is_some)).await {
                Ok(Ok(outcome)) => return outcome.clone().map(Claim::Twin),
                // The first was cancelled: somebody else's turn.
                Ok(Err(_)) => {}
                Err(_) => return None,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, watch::Receiver<Option<Outcome>>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl First ===

impl First<'_> {
    /// Remembers an acceptance, and tells the twins what became of the message.
    pub fn settle(self, outcome: &Outcome) {
        if matches!(outcome, Outcome::Accepted { .. }) {
            self.duplicates.accepted.insert(self.key, outcome.clone());
        }
        self.told.send_replace(Some(outcome.clone()));
    }
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        self.duplicates.lock().remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::outcome::Code;

    fn duplicates() -> Duplicates {
        let lifetime = Duration::from_secs(60);
        Duplicates::new(&config::Duplicates { entries_max: 10, lifetime })
    }

    fn id() -> MessageId {
        MessageId::parse("123e4567-e89b-12d3-a456-426614174000").unwrap()
    }

    fn accepted() -> Outcome {
        Outcome::Accepted { provider_message_id: Some("x".to_owned()) }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(1)
    }

    async fn first(duplicates: &Duplicates) -> First<'_> {
        match duplicates.claim([1; 32], id(), soon()).await {
            Some(Claim::First(first)) => first,
            _ => panic!("somebody else is first"),
        }
    }

    #[tokio::test]
    async fn what_was_accepted_is_not_sent_again() {
        let duplicates = duplicates();
        first(&duplicates).await.settle(&accepted());
        let again = duplicates.claim([1; 32], id(), soon()).await;
        assert!(matches!(again, Some(Claim::Twin(outcome)) if outcome == accepted()));
        let another_sender = duplicates.claim([2; 32], id(), soon()).await;
        assert!(matches!(another_sender, Some(Claim::First(_))));
    }

    #[tokio::test]
    async fn what_failed_may_be_tried_again() {
        let duplicates = duplicates();
        first(&duplicates).await.settle(&Outcome::Unknown { code: Code::NoAnswer });
        first(&duplicates).await.settle(&accepted());
    }

    #[tokio::test]
    async fn a_twin_waits_for_the_first_ones_outcome() {
        let duplicates = duplicates();
        let one = first(&duplicates).await;
        let outcome = Outcome::Unknown { code: Code::NoAnswer };
        let (twin, ()) = tokio::join!(duplicates.claim([1; 32], id(), soon()), async {
            tokio::task::yield_now().await;
            one.settle(&outcome);
        });
        assert!(matches!(twin, Some(Claim::Twin(told)) if told == outcome));
        assert!(duplicates.lock().is_empty());
    }

    #[tokio::test]
    async fn a_twin_of_a_cancelled_first_becomes_the_first() {
        let duplicates = duplicates();
        let one = first(&duplicates).await;
        let (twin, ()) = tokio::join!(duplicates.claim([1; 32], id(), soon()), async {
            tokio::task::yield_now().await;
            drop(one);
        });
        assert!(matches!(twin, Some(Claim::First(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_twin_waits_no_longer_than_its_deadline() {
        let duplicates = duplicates();
        let _one = first(&duplicates).await;
        assert!(duplicates.claim([1; 32], id(), soon()).await.is_none());
    }
}
