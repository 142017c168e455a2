//! The ledger against a model of everything around it: requests, connections, dials, the clock.
//!
//! All that touches the ledger holds one lock, so an order of these operations is an order of
//! everything that can happen. Every order of a few operations is tried, and a great many random
//! orders of many. A million of these, in a minute or two of one core:
//! `SNS_SCHEDULES=1000000 cargo test -p sns-relay --lib random_schedule`.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::push::Class;

/// A request that holds a stream.
#[derive(Clone, Copy, Debug)]
struct Held {
    connection: u64,
    turn: Turn,
}

/// What is around a ledger, and what it must come to.
#[derive(Clone)]
struct Model {
    ledger: Ledger<(), Turn>,
    limits: Limits,
    now: Instant,
    held: Vec<Held>,
    /// Slots of cancelled streams whose reset the peer has not confirmed, by connection.
    resetting: BTreeMap<u64, usize>,
    waiting: BTreeSet<Turn>,
    /// Waiting requests that hear nothing any more, but are in the queue still.
    gone: BTreeSet<Turn>,
    dialling: bool,
    next_ticket: u64,
}

/// What the ledger decided in one go.
#[derive(Default)]
struct Deeds {
    gone: BTreeSet<Turn>,
    granted: Vec<Held>,
    missed: Vec<Turn>,
    refused: Vec<Turn>,
    dials: u32,
}

impl Hands<(), Turn> for Deeds {
    fn grant(&mut self, waiter: Turn, grant: Grant<()>) -> bool {
        if self.gone.contains(&waiter) {
            self.missed.push(waiter);
            return false;
        }
        self.granted.push(Held { connection: grant.id, turn: waiter });
        true
    }

    fn refuse(&mut self, waiter: Turn, _: DialFault) {
        self.refused.push(waiter);
    }

    fn dial(&mut self) {
        self.dials += 1;
    }
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Reserve { class: Class },
    GiveBack { place: usize, fate: Fate, missed: bool },
    Confirm { place: usize },
    Limit { place: usize, limit: usize },
    Drain { place: usize },
    Discard { place: usize },
    Review { place: usize },
    End { place: usize },
    Dialled { well: bool },
    Pass { ms: u64 },
    Abandon { place: usize },
    Leave,
}

// === impl Model ===

impl Model {
    fn new(limits: Limits) -> Self {
        Self {
            ledger: Ledger::new(None),
            limits,
            now: Instant::now(),
            held: Vec::new(),
            resetting: BTreeMap::new(),
            waiting: BTreeSet::new(),
            gone: BTreeSet::new(),
            dialling: false,
            next_ticket: 0,
        }
    }

    fn id(&self, place: usize) -> Option<u64> {
        self.ledger.connections.get(place).map(|entry| entry.id)
    }

    /// Does one thing if it can be done now, and checks all that must hold after it.
    fn step(&mut self, deed: Deed) -> bool {
        let possible = self.act(deed);
        if possible {
            self.settle();
            self.check();
        }
        possible
    }

    fn act(&mut self, deed: Deed) -> bool {
        let failed = match deed {
            Deed::Reserve { class } => {
                self.reserve(class);
                false
            }
            Deed::GiveBack { place, fate, missed } => {
                if place >= self.held.len() {
                    return false;
                }
                self.give_back(place, fate, missed)
            }
            Deed::Confirm { place } => {
                let Some(id) = self.id(place) else { return false };
                let Some(count) = self.resetting.remove(&id) else { return false };
                self.ledger.confirm_resets(id, count);
                false
            }
            Deed::Limit { place, limit } => {
                let Some(id) = self.id(place) else { return false };
                self.ledger.follow(id, limit);
                false
            }
            Deed::Drain { place } => {
                let Some(id) = self.id(place) else { return false };
                self.ledger.drain(id, &self.limits, self.now)
            }
            Deed::Discard { place } => {
                let Some(id) = self.id(place) else { return false };
                self.ledger.discard(id, CloseReason::Distrusted, &self.limits, self.now)
            }
            Deed::Review { place } => {
                let Some(id) = self.id(place) else { return false };
                self.ledger.review(id, &self.limits, self.now).1
            }
            Deed::End { place } => {
                let Some(id) = self.id(place) else { return false };
                self.resetting.remove(&id);
                self.ledger.end(id)
            }
            Deed::Dialled { well } => {
                if !self.dialling {
                    return false;
                }
                self.dialled(well);
                false
            }
            Deed::Pass { ms } => {
                self.now += Duration::from_millis(ms);
                false
            }
            Deed::Abandon { place } => {
                let hearing = self.waiting.difference(&self.gone).nth(place).copied();
                let Some(turn) = hearing else { return false };
                self.gone.insert(turn);
                false
            }
            Deed::Leave => {
                let Some(turn) = self.gone.pop_first() else { return false };
                self.ledger.leave(turn);
                self.waiting.remove(&turn);
                false
            }
        };
        if failed {
            self.ledger.fail(FaultKind::Lost, self.next_ticket, &self.limits, self.now);
        }
        true
    }

    fn reserve(&mut self, class: Class) {
        let turn = Turn::new(class, self.next_ticket);
        self.next_ticket += 1;
        match self.ledger.reserve(turn, || turn, &self.limits, self.now) {
            Place::Granted(grant) => {
                assert!(self.waiting.is_empty(), "somebody was passed over");
                self.take(Held { connection: grant.id, turn });
            }
            Place::Queued => assert!(self.waiting.insert(turn)),
            Place::CutOff(fault) => assert!(!fault.retry_after.is_zero()),
            Place::Full => {
                assert!(self.waiting.len() >= class.share_of(self.limits.waiting_max));
            }
            Place::Slow => {
                assert!(class < Class::Alarm, "an alarm was shed for others' waiting");
                assert!(self.waiting.iter().any(|waiting| waiting.class() == class));
            }
        }
    }

    fn take(&mut self, held: Held) {
        self.held.push(held);
        let entry = self.ledger.entry(held.connection).unwrap();
        assert!(entry.in_use <= entry.limit(&self.limits), "more than the peer allows");
    }

    fn give_back(&mut self, place: usize, fate: Fate, missed: bool) -> bool {
        let held = self.held.remove(place);
        let multiplexes = self.ledger.entry(held.connection).map(|entry| entry.multiplexes);
        if matches!(fate, Fate::Open { .. }) && multiplexes == Some(true) {
            *self.resetting.entry(held.connection).or_default() += 1;
        }
        let used = Use { missed, ..Use::of(fate) };
        self.ledger.give_back(held.connection, used, &self.limits, self.now)
    }

    fn dialled(&mut self, well: bool) {
        if well {
            // Every third connection is HTTP/1.1.
            let multiplexes = self.ledger.next_id % 3 != 2;
            let life = Duration::from_secs(10);
            self.ledger.admit((), multiplexes, 1, life, self.now);
            self.settle();
        }
        self.dialling = false;
        self.ledger.dialled();
        if !well {
            self.ledger.fail(FaultKind::Connect, self.next_ticket, &self.limits, self.now);
        }
    }

    fn settle(&mut self) {
        let mut deeds = Deeds { gone: self.gone.clone(), ..Deeds::default() };
        self.ledger.settle(&mut deeds, &self.limits, self.now);
        for held in &deeds.granted {
            assert!(self.waiting.remove(&held.turn), "{:?} did not wait", held.turn);
            self.take(*held);
        }
        for turn in deeds.missed.iter().chain(&deeds.refused) {
            assert!(self.waiting.remove(turn), "{turn:?} did not wait");
            self.gone.remove(turn);
        }
        let turns: Vec<Turn> = deeds.granted.iter().map(|held| held.turn).collect();
        assert!(turns.is_sorted(), "out of order");
        let passed_over = self.waiting.first().zip(turns.last());
        assert!(passed_over.is_none_or(|(first, last)| last < first), "somebody was passed over");
        assert!(deeds.dials == 0 || (deeds.dials == 1 && !self.dialling), "two dials at once");
        self.dialling |= deeds.dials > 0;
    }

    fn check(&self) {
        let ledger = &self.ledger;
        for entry in &ledger.connections {
            let held = self.held.iter().filter(|held| held.connection == entry.id).count();
            let resetting = self.resetting.get(&entry.id).copied().unwrap_or(0);
            assert_eq!((entry.in_use, entry.resetting), (held + resetting, resetting));
        }
        assert!(ledger.queue.turns().eq(&self.waiting), "the queue is not who waits");
        assert_eq!(ledger.dialling, self.dialling);
        if !self.waiting.is_empty() {
            assert!(ledger.pick(&self.limits).is_none(), "a stream is free while requests wait");
            // With the bound of draining connections reached, they wait for one of those to end.
            let is_bound = ledger.connections.len() == self.limits.connections_total_max();
            // After a lost connection they wait through a short pause, and look again after it.
            let lost = |fault: DialFault| fault.kind == FaultKind::Lost;
            let pauses = ledger.quiet(self.now).is_some_and(lost);
            assert!(!ledger.is_cut_off() || is_bound || pauses, "requests wait for nothing");
        }
        assert!(ledger.connections.len() <= self.limits.connections_total_max());
        let staying = ledger.open().filter(|entry| entry.retiring.is_none()).count();
        assert!(staying <= self.limits.connections_max.max(self.limits.http1_connections_max));
    }

    /// Lets everything come to its end: then everybody has been served or told, and no slot is out.
    fn finish(&mut self) {
        for _ in 0..200 {
            while !self.held.is_empty() {
                let fate = Fate::Closed { answered: true };
                assert!(self.step(Deed::GiveBack { place: 0, fate, missed: false }));
            }
            for place in 0..self.ledger.connections.len() {
                self.step(Deed::Confirm { place });
                self.step(Deed::Limit { place, limit: 2 });
            }
            // What takes no more requests and has none ends.
            let done = |entry: &Entry<()>| !entry.is_open() && entry.in_use == 0;
            while let Some(place) = self.ledger.connections.iter().position(done) {
                self.step(Deed::End { place });
            }
            self.step(Deed::Dialled { well: true });
            self.step(Deed::Pass { ms: 100 });
            if self.waiting.is_empty() && self.held.is_empty() && self.resetting.is_empty() {
                break;
            }
        }
        assert!(self.waiting.is_empty(), "they wait for ever: {:?}", self.waiting);
        assert_eq!(self.ledger.in_use(), 0);
    }
}

const FATES: [Fate; 5] = [
    Fate::Closed { answered: true },
    Fate::Open { answered: false },
    Fate::Open { answered: true },
    Fate::Closed { answered: false },
    Fate::Unused,
];

fn limits() -> Limits {
    Limits {
        connections_max: 2,
        http1_connections_max: 2,
        streams_per_connection_max: 3,
        start_streams: 1,
        waiting_max: 5,
        waiting_ms_max: 100,
        connect_ms: 50,
        idle_s: 5,
        wedge_ms: 2_000,
        wedge_misses_max: 2,
        requests_per_connection_max: 20,
        backoff_ms_min: 10,
        backoff_ms_max: 100,
        ..Limits::default()
    }
}

/// A small generator with a seed (SplitMix64), so that a failing schedule can be run again.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn deed(&mut self) -> Deed {
        let place = self.below(3);
        match self.below(40) {
            0..=12 => {
                let class = [Class::Low, Class::Ordinary, Class::Alarm][self.below(3)];
                Deed::Reserve { class }
            }
            13..=20 => {
                let fate = FATES[self.below(8).min(4)];
                Deed::GiveBack { place, fate, missed: self.below(2) == 0 }
            }
            21..=22 => Deed::Confirm { place },
            23..=24 => Deed::Limit { place, limit: self.below(5) },
            25 => Deed::Drain { place },
            26 => Deed::Discard { place },
            27..=28 => Deed::Review { place },
            29 => Deed::End { place },
            30..=34 => Deed::Dialled { well: self.below(4) > 0 },
            35..=37 => Deed::Pass { ms: 1 << self.below(13) },
            38 => Deed::Abandon { place },
            _ => Deed::Leave,
        }
    }
}

fn check_schedule(seed: u64) -> u64 {
    let mut random = Random(seed);
    let mut model = Model::new(limits());
    let mut steps = 0;
    for _ in 0..60 {
        steps += u64::from(model.step(random.deed()));
    }
    model.finish();
    steps
}

#[test]
fn no_random_schedule_loses_a_wake_up_or_a_slot() {
    let schedules = std::env::var("SNS_SCHEDULES").map_or(100_000, |text| text.parse().unwrap());
    let mut steps = 0;
    for seed in 0..schedules {
        match std::panic::catch_unwind(|| check_schedule(seed)) {
            Ok(more) => steps += more,
            Err(_) => panic!("schedule {seed} fails"),
        }
    }
    assert!(steps > schedules * 20, "{steps} steps are too few to mean anything");
}

/// Every order of a few things, from an empty pool and from one that is full.
#[test]
fn no_order_of_a_few_things_loses_a_wake_up_or_a_slot() {
    let menu = menu();
    let mut orders = 0;
    for begun in [&[][..], &BUSY] {
        let mut model = Model::new(limits());
        for deed in begun {
            assert!(model.step(*deed), "{deed:?}");
        }
        orders += try_all(&model, &menu, 5, &mut Vec::new());
    }
    assert!(orders > 100_000, "{orders}");
}

/// Two connections, all their streams in use, and requests that wait.
const BUSY: [Deed; 8] = [
    Deed::Reserve { class: Class::Ordinary },
    Deed::Dialled { well: true },
    Deed::GiveBack { place: 0, fate: Fate::Closed { answered: true }, missed: false },
    Deed::Reserve { class: Class::Ordinary },
    Deed::Reserve { class: Class::Ordinary },
    Deed::Dialled { well: true },
    Deed::Reserve { class: Class::Ordinary },
    Deed::Reserve { class: Class::Ordinary },
];

fn menu() -> Vec<Deed> {
    let mut menu = vec![
        Deed::Reserve { class: Class::Ordinary },
        Deed::Reserve { class: Class::Alarm },
        Deed::Dialled { well: true },
        Deed::Dialled { well: false },
        Deed::Pass { ms: 150 },
        Deed::Abandon { place: 0 },
        Deed::Leave,
        Deed::Confirm { place: 0 },
        Deed::Limit { place: 0, limit: 0 },
        Deed::Limit { place: 0, limit: 2 },
        Deed::Drain { place: 0 },
        Deed::Discard { place: 1 },
        Deed::End { place: 0 },
    ];
    menu.extend(FATES.map(|fate| Deed::GiveBack { place: 0, fate, missed: true }));
    menu
}

fn try_all(model: &Model, menu: &[Deed], depth: usize, done: &mut Vec<Deed>) -> u64 {
    if depth == 0 {
        model.clone().finish();
        return 1;
    }
    let mut orders = 0;
    for deed in menu {
        let mut next = model.clone();
        if next.step(*deed) {
            done.push(*deed);
            orders += try_all(&next, menu, depth - 1, done);
            done.pop();
        }
    }
    orders
}
