//! Every order of calls, answers and pauses up to a depth, and the claims one by one.

use std::collections::BTreeSet;

use super::*;

const MIN: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(10);

fn policy() -> Policy {
    Policy { failures: 3, failure_percent: 50, span: MIN, open_min: MIN, open_max: MAX }
}

/// A breaker and a clock.
struct Bench {
    breaker: Breaker,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self { breaker: Breaker::new(policy()), now: Instant::now() }
    }

    fn pass_ms(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
    }

    fn call(&mut self, verdict: Verdict) -> Option<Turn> {
        let pass = self.breaker.admit(self.now).unwrap();
        self.breaker.settle(pass, verdict, self.now)
    }

    fn open(&mut self) {
        while self.call(Verdict::Failing).is_none() {
            self.pass_ms(400);
        }
        assert!(self.breaker.is_open());
    }
}

#[test]
fn failures_in_a_row_open_it_and_a_sign_of_life_breaks_the_row() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        for verdict in [Verdict::Failing, Verdict::Failing, Verdict::Alive, Verdict::Alive] {
            assert_eq!(bench.call(verdict), None);
            bench.pass_ms(900);
        }
        bench.call(Verdict::Alive);
    }
    assert_eq!(bench.call(Verdict::Failing), None);
    bench.pass_ms(500);
    assert_eq!(bench.call(Verdict::Failing), None);
    bench.pass_ms(500);
    assert_eq!(bench.call(Verdict::Failing), Some(Turn::Opened));
    assert_eq!(bench.breaker.admit(bench.now).unwrap_err(), MIN);
}

/// One broken connection fails a thousand requests in one moment.
#[test]
fn failures_of_one_moment_do_not_open_it() {
    let mut bench = Bench::new();
    for _ in 0..1_000 {
        assert_eq!(bench.call(Verdict::Failing), None);
    }
    bench.pass_ms(900);
    for _ in 0..1_100 {
        assert_eq!(bench.call(Verdict::Alive), None);
    }
    bench.pass_ms(200);
    assert_eq!(bench.call(Verdict::Failing), None);
    assert!(!bench.breaker.is_open());
}

#[test]
fn half_of_the_calls_failing_opens_it_though_the_others_live() {
    let mut bench = Bench::new();
    let mut opened = None;
    for turn in 0..200 {
        let verdict = if turn % 2 == 0 { Verdict::Alive } else { Verdict::Failing };
        opened = bench.call(verdict);
        if opened.is_some() {
            break;
        }
        bench.pass_ms(60);
    }
    assert_eq!(opened, Some(Turn::Opened));
}

#[test]
fn a_third_of_the_calls_failing_does_not_open_it_for_an_hour() {
    let mut bench = Bench::new();
    for turn in 0..60_000 {
        let verdict = if turn % 3 == 0 { Verdict::Failing } else { Verdict::Alive };
        assert_eq!(bench.call(verdict), None);
        bench.pass_ms(60);
    }
}

/// A thousand callers a second for a minute, and a service that stays dead.
#[test]
fn probes_come_one_by_one_with_growing_pauses() {
    let mut bench = Bench::new();
    bench.open();
    let opened_at = bench.now;
    let mut probes = Vec::new();
    for _ in 0..60_000 {
        if let Ok(pass) = bench.breaker.admit(bench.now) {
            assert!(pass.is_probe());
            probes.push((bench.now - opened_at).as_secs());
            bench.breaker.settle(pass, Verdict::Failing, bench.now);
        }
        bench.pass_ms(1);
    }
    assert_eq!(probes, [1, 3, 7, 15, 25, 35, 45, 55]);
}

#[test]
fn the_first_probe_that_shows_life_closes_it_and_the_next_opening_starts_small() {
    let mut bench = Bench::new();
    bench.open();
    for ms in [1_000, 2_000, 4_000] {
        bench.pass_ms(ms);
        assert_eq!(bench.call(Verdict::Failing), None);
    }
    bench.pass_ms(8_000);
    assert_eq!(bench.call(Verdict::Alive), Some(Turn::Closed));
    assert!(!bench.breaker.admit(bench.now).unwrap().is_probe());
    bench.open();
    assert_eq!(bench.breaker.admit(bench.now).unwrap_err(), MIN);
}

#[test]
fn a_probe_that_comes_to_nothing_leaves_the_next_one_to_the_clock() {
    let mut bench = Bench::new();
    bench.open();
    bench.pass_ms(1_000);
    assert_eq!(bench.call(Verdict::Nothing), None);
    assert_eq!(bench.breaker.admit(bench.now).unwrap_err(), 2 * MIN);
    bench.pass_ms(2_000);
    assert_eq!(bench.call(Verdict::Alive), Some(Turn::Closed));
}

/// Calls that began before it turned say nothing about what is now.
#[test]
fn late_answers_neither_close_nor_open_it() {
    let mut bench = Bench::new();
    let early = bench.breaker.admit(bench.now).unwrap();
    bench.open();
    assert_eq!(bench.breaker.settle(early, Verdict::Alive, bench.now), None);
    assert!(bench.breaker.is_open());
    bench.pass_ms(1_000);
    let probe = bench.breaker.admit(bench.now).unwrap();
    bench.pass_ms(2_000);
    assert_eq!(bench.call(Verdict::Alive), Some(Turn::Closed));
    for _ in 0..10 {
        bench.pass_ms(500);
        assert_eq!(bench.breaker.settle(probe, Verdict::Failing, bench.now), None);
        assert_eq!(bench.breaker.settle(early, Verdict::Failing, bench.now), None);
    }
    assert!(!bench.breaker.is_open());
}

/// Every order of twelve things: what it says must be what a plain reading of the rules says.
#[test]
fn every_order_of_a_few_things_keeps_the_rules() {
    let start = Instant::now();
    let model = Model { probe_at: None, pause: MIN, seen: BTreeSet::new() };
    let mut orders = 0;
    walk(&Breaker::new(policy()), &[], &model, start, 12, &mut orders);
    assert!(orders > 200_000, "{orders}");
}

/// What a reader of the rules knows of an open breaker.
#[derive(Clone)]
struct Model {
    /// None while it is closed.
    probe_at: Option<Instant>,
    pause: Duration,
    /// Epochs so far: they only grow.
    seen: BTreeSet<u64>,
}

fn walk(
    breaker: &Breaker,
    passes: &[Pass],
    model: &Model,
    now: Instant,
    depth: u32,
    orders: &mut u64,
) {
    if depth == 0 {
        *orders += 1;
        return;
    }
    // Time passes, a little or much.
    for ms in [600, 2_500] {
        let later = now + Duration::from_millis(ms);
        // Two waits in a row are one.
        if depth.is_multiple_of(2) {
            walk(breaker, passes, model, later, depth - 1, orders);
        }
    }
    let (mut next, mut known) = (breaker.clone(), model.clone());
    match (next.admit(now), known.probe_at) {
        (Ok(pass), None) => {
            assert!(!pass.is_probe());
            let passes = [passes, &[pass]].concat();
            walk(&next, &passes, &known, now, depth - 1, orders);
        }
        (Ok(pass), Some(probe_at)) => {
            assert!(pass.is_probe() && now >= probe_at);
            known.pause = (2 * known.pause).min(MAX);
            known.probe_at = Some(now + known.pause);
            let passes = [passes, &[pass]].concat();
            walk(&next, &passes, &known, now, depth - 1, orders);
        }
        (Err(wait), Some(probe_at)) => assert_eq!(now + wait, probe_at),
        (Err(_), None) => panic!("refused though it is closed"),
    }
    let Some((pass, rest)) = passes.split_first() else { return };
    for verdict in [Verdict::Alive, Verdict::Failing] {
        let (mut next, mut known) = (breaker.clone(), model.clone());
        match next.settle(*pass, verdict, now) {
            Some(Turn::Opened) => {
                assert!(verdict == Verdict::Failing && known.probe_at.is_none());
                known.pause = MIN;
                known.probe_at = Some(now + MIN);
                assert!(known.seen.insert(pass.epoch), "one opening for each epoch");
            }
            Some(Turn::Closed) => {
                assert!(verdict == Verdict::Alive && known.probe_at.is_some() && pass.is_probe());
                known.probe_at = None;
            }
            None => {}
        }
        assert_eq!(next.is_open(), known.probe_at.is_some());
        walk(&next, rest, &known, now, depth - 1, orders);
    }
}
