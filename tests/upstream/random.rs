//! Random schedules: whatever happens, no slot is lost, none is given twice, nothing is doubled.
//! More of them, about one a second: `SNS_SEEDS=400 cargo test --test upstream random`.

use std::collections::BTreeMap;
use std::time::Duration;

use sns_relay::provider::upstream::{Limits, SendError};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::peer::{Order, REFUSED_STREAM, Reply, answer};
use super::{Rig, send};

/// A small generator with a seed, so that a failing schedule can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn reply(seen: &super::Seen, number: u64) -> Reply {
    match number % 23 {
        0 => Reply::Hold,
        1 | 2 if seen.times(number) == 1 => Reply::Reset(REFUSED_STREAM),
        3 => Reply::Reset(2),
        4 => Reply::Answer { after: Duration::ZERO, status: 503, body: vec![b'x'; 30_000] },
        other => answer(other % 6),
    }
}

fn order(random: &mut Random) -> Order {
    match random.below(10) {
        0 => Order::GoAway { last: None, code: 0, debug: "" },
        1 => Order::Kill,
        _ => Order::MaxStreams(1 + random.below(40) as u32),
    }
}

async fn check_schedule(seed: u64) {
    let mut random = Random(seed);
    let limits = Limits {
        waiting_max: 100,
        connections_max: 3,
        backoff_ms_min: 1,
        backoff_ms_max: 5,
        ..Limits::default()
    };
    let rig = Rig::start(limits, 5, reply).await;
    let mut sends = JoinSet::new();
    for number in 0..1_500_u64 {
        let pool = rig.pool.clone();
        let deadline_ms = 5 + random.below(200);
        let send = sends.spawn(async move { (number, send(&pool, number, deadline_ms).await) });
        if random.below(8) == 0 {
            let after = Duration::from_micros(random.below(30_000));
            tokio::spawn(async move {
                sleep(after).await;
                send.abort();
            });
        }
        if random.below(40) == 0 {
            rig.peer.order(order(&mut random));
        }
        if random.below(4) == 0 {
            sleep(Duration::from_micros(random.below(2_000))).await;
        }
    }
    let mut results = BTreeMap::new();
    while let Some(joined) = sends.join_next().await {
        if let Ok((number, result)) = joined {
            results.insert(number, result);
        }
    }
    let mut processed = BTreeMap::new();
    for number in rig.peer.processed() {
        *processed.entry(number).or_insert(0) += 1;
    }
    assert_eq!(rig.peer.count(|seen| &seen.violations), 0, "seed {seed}");
    assert!(processed.values().all(|times| *times == 1), "seed {seed}: processed twice");
    for (number, result) in results {
        match result {
            Ok(_) => assert!(processed.contains_key(&number), "seed {seed}: {number}"),
            Err(SendError::Shed(_) | SendError::NotSent(_)) => {
                assert!(!processed.contains_key(&number), "seed {seed}: {number}");
            }
            Err(SendError::Unknown) => {}
        }
    }
    rig.assert_rest().await;
    // A last order to kill may be under way, or the pause after one.
    sleep(Duration::from_millis(100)).await;
    let last = send(&rig.pool, 5, 10_000).await;
    assert!(last.is_ok(), "seed {seed}: the pool serves no more: {last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_schedules_lose_and_double_nothing() {
    let seeds = std::env::var("SNS_SEEDS").map_or(12, |text| text.parse().unwrap());
    for seed in 1..=seeds {
        check_schedule(seed * 0x9E37_79B9).await;
    }
}
