//! Random lives of an outbox: whatever is told, in whatever order, over any crash, nothing is lost.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sns_nas::client::message::{Level, Outcome, TargetResult};
use sns_nas::journal::recall::Query;
use sns_nas::outbox::{Delivery, Jitter, Outbox};
use uuid::Uuid;

use crate::{Desk, NOW_MS, event};

#[derive(Clone, Debug)]
enum Step {
    Take { level: usize, key: usize, devices: usize, ttl_s: u32 },
    Withdraw { which: usize },
    Due { count_max: usize },
    Settle { which: usize, outcome: usize, retry_after_s: Option<u64> },
    TakeBack { which: usize },
    Pass { ms: u64 },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize, 0..4usize, 1..8usize, prop_oneof![Just(1u32), Just(60), Just(86_400)])
            .prop_map(|(level, key, devices, ttl_s)| Step::Take { level, key, devices, ttl_s }),
        1 => any::<usize>().prop_map(|which| Step::Withdraw { which }),
        5 => (1..6usize).prop_map(|count_max| Step::Due { count_max }),
        6 => (any::<usize>(), 0..5usize, proptest::option::of(0..100u64)).prop_map(
            |(which, outcome, retry_after_s)| Step::Settle { which, outcome, retry_after_s }
        ),
        1 => any::<usize>().prop_map(|which| Step::TakeBack { which }),
        3 => prop_oneof![0..5_000u64, 0..2_000_000u64].prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Crash),
    ]
}

/// What must be true of a life, kept beside the journal.
#[derive(Default)]
struct Model {
    taken: BTreeMap<Uuid, usize>,
    accepted: BTreeSet<(Uuid, i64)>,
    refused: BTreeSet<(Uuid, i64)>,
    sent_last: BTreeMap<(i64, Option<String>), u64>,
}

struct Life {
    desk: Desk,
    outbox: Outbox,
    travelling: Vec<Delivery>,
    now_ms: u64,
    model: Model,
}

const OUTCOMES: [Outcome; 5] = [
    Outcome::Accepted,
    Outcome::NotNow,
    Outcome::Unknown,
    Outcome::Misconfigured,
    Outcome::Refused,
];

impl Life {
    fn step(&mut self, step: &Step) {
        match *step {
            Step::Take { level, key, devices, ttl_s } => {
                let key = ["", "disk", "volume", "fan"][key];
                let mut draft =
                    event(Level::ALL[level], "text", Some(key).filter(|key| !key.is_empty()));
                draft.ttl_s = ttl_s;
                let chosen = |(n, id): (usize, &i64)| (devices >> n & 1 == 1).then_some(*id);
                let devices: Vec<i64> =
                    self.desk.devices.iter().enumerate().filter_map(chosen).collect();
                let taken = self.desk.journal.take(&draft, &devices, self.now_ms).unwrap();
                self.model.taken.insert(taken.id, devices.len());
            }
            Step::Withdraw { which } => {
                if let Some(id) = nth(self.model.taken.keys(), which).copied() {
                    let taken = self.desk.journal.withdraw(id, self.now_ms).unwrap();
                    self.model.taken.insert(taken.id, taken.devices as usize);
                }
            }
            Step::Due { count_max } => self.send(count_max),
            Step::Settle { which, outcome, retry_after_s } => {
                if !self.travelling.is_empty() {
                    let delivery = self.travelling.swap_remove(which % self.travelling.len());
                    self.settle(&delivery, OUTCOMES[outcome], retry_after_s);
                }
            }
            Step::TakeBack { which } => {
                if !self.travelling.is_empty() {
                    let delivery = self.travelling.swap_remove(which % self.travelling.len());
                    let journal = &mut self.desk.journal;
                    self.outbox.take_back(journal, &delivery, "relay_unreachable").unwrap();
                }
            }
            Step::Pass { ms } => self.now_ms += ms,
            Step::Crash => {
                self.desk.reopen();
                self.outbox = Outbox::default();
                self.travelling.clear();
            }
        }
    }

    fn send(&mut self, count_max: usize) {
        let due = self.outbox.due(&mut self.desk.journal, self.now_ms, count_max).unwrap();
        assert!(due.len() <= count_max);
        for delivery in due {
            let name = (delivery.content.id, delivery.device.id);
            assert!(!self.model.accepted.contains(&name), "accepted and sent again");
            assert!(!self.model.refused.contains(&name), "refused and sent again");
            assert!(delivery.expires_ms > self.now_ms, "sent after its time");
            let key = delivery.content.body.collapse_key().map(str::to_owned);
            if key.is_some() {
                let last = self.model.sent_last.entry((delivery.device.id, key)).or_default();
                assert!(delivery.content.sequence >= *last, "an older one after a newer");
                *last = delivery.content.sequence;
            }
            self.travelling.push(delivery);
        }
        let mut places = BTreeSet::new();
        for delivery in &self.travelling {
            if let Some(key) = delivery.content.body.collapse_key() {
                assert!(places.insert((delivery.device.id, key)), "two of one key at once");
            }
        }
    }

    fn settle(&mut self, delivery: &Delivery, outcome: Outcome, retry_after_s: Option<u64>) {
        let result = TargetResult { outcome, retry_after_s, ..TargetResult::accepted() };
        let told = [(delivery.clone(), result)];
        let jitter = || Jitter(u16::MAX / 2);
        self.outbox.settle(&mut self.desk.journal, &told, self.now_ms, jitter).unwrap();
        let name = (delivery.content.id, delivery.device.id);
        match outcome {
            Outcome::Accepted => self.model.accepted.insert(name),
            Outcome::Refused => self.model.refused.insert(name),
            _ => true,
        };
    }

    /// Lets everything arrive that still can.
    fn finish(mut self) {
        self.desk.reopen();
        self.outbox = Outbox::default();
        self.travelling.clear();
        for _ in 0..500 {
            self.send(50);
            for delivery in std::mem::take(&mut self.travelling) {
                self.settle(&delivery, Outcome::Accepted, None);
            }
            match self.outbox.next_ms(&self.desk.journal, self.now_ms).unwrap() {
                Some(next_ms) => self.now_ms = self.now_ms.max(next_ms),
                None => break,
            }
        }
        let records = self.desk.journal.recall(&Query::default(), self.now_ms).unwrap();
        assert_eq!(records.len(), self.model.taken.len(), "every record is there");
        for record in records {
            let id = record.content.id;
            assert_eq!(record.deliveries.len(), self.model.taken[&id]);
            for fate in record.deliveries {
                let device = self.desk.journal.device(&fate.device).unwrap().unwrap().id;
                let accepted = self.model.accepted.contains(&(id, device));
                match fate.state.as_str() {
                    "accepted" => assert!(accepted, "called accepted, and nobody accepted it"),
                    "refused" => assert!(self.model.refused.contains(&(id, device))),
                    "expired" => assert!(!accepted && record.expires_ms <= self.now_ms),
                    "superseded" | "withdrawn" => assert!(!accepted, "accepted, and not so called"),
                    other => panic!("{other} at the end"),
                }
            }
        }
    }
}

fn nth<T>(mut things: impl ExactSizeIterator<Item = T>, which: usize) -> Option<T> {
    let count = things.len();
    if count == 0 { None } else { things.nth(which % count) }
}

/// 60 lives of 20 to 120 steps: takings, withdrawals, outcomes in any order, crashes, time.
#[test]
fn nothing_is_lost_doubled_or_turned_round_whatever_is_told_and_whenever_it_crashes() {
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let lives = proptest::collection::vec(step(), 20..120);
    TestRunner::new(config)
        .run(&lives, |steps| {
            let mut life = Life {
                desk: Desk::new(),
                outbox: Outbox::default(),
                travelling: Vec::new(),
                now_ms: NOW_MS,
                model: Model::default(),
            };
            for step in &steps {
                life.step(step);
            }
            life.finish();
            Ok(())
        })
        .unwrap();
}
