//! Duplicates: a notification that is sent twice reaches its device once.
//!
//! In: who sends which id to which device. Out: [`Claim::First`] for the one that is to be sent, or
//! the outcome of the one that was. An acceptance is remembered *after* it happened, for a while
//! and in bounded memory; whatever else an attempt came to is told to its twins and forgotten, so
//! that a retry is a new try. Nothing here is written anywhere.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::config;
use crate::outcome::Outcome;
use crate::push::MessageId;

/// One message for one device: the id that the device's push service sees is derived from both.
type Key = ([u8; 32], MessageId);

/// What was accepted, and what is under way.
pub struct Duplicates {
    shards: [Mutex<Shard>; SHARDS],
    /// Acceptances that one shard remembers.
    accepted_max: usize,
    lifetime: Duration,
}

/// A share of the keys.
#[derive(Default)]
struct Shard {
    known: HashMap<Key, Known, RandomState>,
    /// The acceptances in the order of their ends, since all live equally long.
    accepted: VecDeque<(Instant, Key)>,
}

enum Known {
    /// Whoever waits for its outcome, hears of it here.
    UnderWay(Option<watch::Sender<Option<Outcome>>>),
    Accepted(Outcome, Instant),
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
    is_settled: bool,
}

/// What one lock guards stays small, so that nobody waits for a table that grows.
const SHARDS: usize = 16;

// === impl Duplicates ===

impl Duplicates {
    /// Takes the bounds of the memory.
    pub fn new(config: &config::Duplicates) -> Self {
        let entries_max = usize::try_from(config.entries_max).unwrap_or(usize::MAX);
        Self {
            shards: Default::default(),
            accepted_max: entries_max.div_ceil(SHARDS),
            lifetime: config.lifetime,
        }
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
            let mut first = match self.look(key, Instant::now()) {
                Ok(claim) => return Some(claim),
                Err(first) => first,
            };
            match timeout_at(deadline, first.wait_for(Option::is_some)).await {
                Ok(Ok(outcome)) => return outcome.clone().map(Claim::Twin),
                // The first was cancelled: somebody else's turn.
                Ok(Err(_)) => {}
                Err(_) => return None,
            }
        }
    }

    /// Claims a message, or gives where to hear of the one that is under way.
    fn look(&self, key: Key, now: Instant) -> Result<Claim<'_>, watch::Receiver<Option<Outcome>>> {
        let mut shard = self.shard(&key);
        shard.forget(now, self.accepted_max);
        match shard.known.entry(key) {
            Entry::Vacant(place) => {
                place.insert(Known::UnderWay(None));
                Ok(Claim::First(First { duplicates: self, key, is_settled: false }))
            }
            Entry::Occupied(mut known) => match known.get_mut() {
                Known::Accepted(outcome, _) => Ok(Claim::Twin(outcome.clone())),
                Known::UnderWay(Some(told)) => Err(told.subscribe()),
                Known::UnderWay(told) => {
                    let (teller, outcome) = watch::channel(None);
                    *told = Some(teller);
                    Err(outcome)
                }
            },
        }
    }

    fn shard(&self, (_, id): &Key) -> MutexGuard<'_, Shard> {
        // Ids are derived by SHA-256, so all bytes but those of the version are evenly spread.
        let place = usize::from(id.as_bytes()[0]) % SHARDS;
        self.shards[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends an attempt; only an acceptance is remembered.
    fn end(&self, key: Key, outcome: Option<&Outcome>) {
        let mut shard = self.shard(&key);
        let known = match outcome {
            Some(outcome @ Outcome::Accepted { .. }) => {
                let until = Instant::now() + self.lifetime;
                shard.accepted.push_back((until, key));
                shard.known.insert(key, Known::Accepted(outcome.clone(), until))
            }
            _ => shard.known.remove(&key),
        };
        drop(shard);
        // Without an outcome, those who wait see that nobody will tell.
        if let (Some(Known::UnderWay(Some(told))), Some(outcome)) = (known, outcome) {
            told.send_replace(Some(outcome.clone()));
        }
    }
}

// === impl Shard ===

impl Shard {
    /// Forgets what is too old, and the oldest where it is too much.
    fn forget(&mut self, now: Instant, accepted_max: usize) {
        while let Some((until, key)) = self.accepted.front().copied()
            && (until <= now || self.accepted.len() > accepted_max)
        {
            self.accepted.pop_front();
            let known = self.known.get(&key);
            if matches!(known, Some(Known::Accepted(_, its_end)) if *its_end == until) {
                self.known.remove(&key);
            }
        }
    }
}

// === impl First ===

impl First<'_> {
    /// Remembers an acceptance, and tells the twins what became of the message.
    pub fn settle(mut self, outcome: &Outcome) {
        self.is_settled = true;
        self.duplicates.end(self.key, Some(outcome));
    }
}

impl Drop for First<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.duplicates.end(self.key, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::outcome::Code;

    fn duplicates() -> Duplicates {
        let lifetime = Duration::from_secs(60);
        // One in each shard.
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
        assert!(duplicates.shard(&([1; 32], id())).known.is_empty());
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

    #[tokio::test(start_paused = true)]
    async fn an_acceptance_is_forgotten_in_time_and_the_oldest_one_first() {
        let duplicates = duplicates();
        first(&duplicates).await.settle(&accepted());
        tokio::time::advance(Duration::from_secs(59)).await;
        assert!(matches!(duplicates.claim([1; 32], id(), soon()).await, Some(Claim::Twin(_))));
        tokio::time::advance(Duration::from_secs(1)).await;
        first(&duplicates).await.settle(&accepted());
        // Another one of the same shard, which has room for one.
        match duplicates.claim([2; 32], id(), soon()).await {
            Some(Claim::First(another)) => another.settle(&accepted()),
            _ => panic!("somebody else is first"),
        }
        first(&duplicates).await.settle(&accepted());
        let shard = duplicates.shard(&([1; 32], id()));
        assert!(shard.known.len() <= 2 && shard.accepted.len() <= 2, "bounded");
    }
}
