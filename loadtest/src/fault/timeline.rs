//! Faults over time: a script for a run, written by hand or by the dice.
//!
//! In: the controls of some push services. Out: faults that begin and end at their moments. A seed
//! gives the same timeline again.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Fault;
use crate::sim::script::Random;
use crate::sim::server::Controls;

/// Faults with their times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    acts: Vec<Act>,
}

/// One fault at one push service for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act {
    /// When it begins, from the start of the timeline.
    pub at: Duration,
    /// How long it lasts.
    pub lasts: Duration,
    /// What goes wrong.
    pub fault: Fault,
    /// Where: a place in the list of push services.
    pub service: usize,
    /// Whether messages are processed before it hits their answers.
    pub processed: bool,
}

// === impl Timeline ===

impl Timeline {
    /// Puts acts in the order of their beginnings; one ends before the next begins.
    pub fn new(mut acts: Vec<Act>) -> Timeline {
        acts.sort_by_key(|act| act.at);
        Timeline { acts }
    }

    /// Draws one act after the other until the time is over, each of a fault, a service and a
    /// length between the two given, with pauses of the same range in between.
    pub fn random(
        seed: u64,
        services: usize,
        (shortest, longest): (Duration, Duration),
        total: Duration,
    ) -> Timeline {
        let mut random = Random::new(seed);
        let faults: Vec<Fault> = Fault::ALL.into_iter().filter(|f| f.can_begin()).collect();
        let draw_time = |random: &mut Random| {
            let span_ms = usize::try_from((longest - shortest).as_millis()).unwrap_or(0);
            shortest + Duration::from_millis(random.below(span_ms + 1) as u64)
        };
        let mut acts = Vec::new();
        let mut at = draw_time(&mut random);
        loop {
            let lasts = draw_time(&mut random);
            if at + lasts > total {
                return Timeline { acts };
            }
            let fault = faults[random.below(faults.len())];
            let (service, processed) = (random.below(services), random.below(2) == 1);
            acts.push(Act { at, lasts, fault, service, processed });
            at += lasts + draw_time(&mut random);
        }
    }

    /// Gives the acts in their order.
    pub fn acts(&self) -> &[Act] {
        &self.acts
    }

    /// Plays the acts from now on; `services` are told apart by their places.
    pub async fn play(&self, services: &[Controls]) {
        let begun = Instant::now();
        for act in &self.acts {
            sleep_until(begun + act.at).await;
            let Some(controls) = services.get(act.service) else { continue };
            let ongoing = act.fault.begin(controls, act.processed);
            sleep_until(begun + act.at + act.lasts).await;
            ongoing.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_seed_gives_the_same_timeline_again_within_its_time() {
        let draw = |seed| Timeline::random(seed, 3, (SECOND, SECOND * 5), SECOND * 600);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let acts = draw(1).acts;
        assert!(acts.len() > 60);
        assert!(acts.iter().all(|act| act.at + act.lasts <= SECOND * 600 && act.service < 3));
        let apart = |pair: &[Act]| pair[0].at + pair[0].lasts < pair[1].at;
        assert!(acts.windows(2).all(apart));
    }
}
