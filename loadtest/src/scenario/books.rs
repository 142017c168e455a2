//! What became of every message, second by second and push service by push service.
//!
//! In: each message as it ends. Out: figures of any stretch of time. A message belongs to the
//! second in which it was due; answers are counted in the second in which they came.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use serde::Serialize;

use super::lanes::Words;
use super::population::Mailbox;
use crate::device::DeviceKind;
use crate::sim::lock;

/// The shared books of one run.
#[derive(Default)]
pub(super) struct Books {
    state: Mutex<State>,
}

/// What a stretch of time came to; times are those of accepted messages.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    pub(super) sent: u64,
    pub(super) accepted: u64,
    /// The others, by code.
    pub(super) others: BTreeMap<String, u64>,
    pub(super) p50_ms: Option<f64>,
    pub(super) p90_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) max_ms: Option<f64>,
}

/// What has ended since the last look.
#[derive(Clone, Debug, Default)]
pub(super) struct Glance {
    pub(super) accepted: usize,
    pub(super) others: u64,
    pub(super) p50_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
}

/// A bar of the distribution: messages whose time is at most this, and above the bar's before.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Bucket {
    pub(super) up_to_ms: f64,
    pub(super) messages: u64,
}

#[derive(Default)]
struct State {
    seconds: Vec<Second>,
    glance_us: Vec<u32>,
    glance_others: u64,
}

#[derive(Default)]
struct Second {
    /// APNs, FCM, Web Push.
    services: [Cell; 3],
    accepted_answers: u64,
    answers: u64,
}

#[derive(Default)]
struct Cell {
    sent: u64,
    accepted_us: Vec<u32>,
    others: BTreeMap<String, u64>,
}

// === impl Books ===

impl Books {
    /// Counts an errand that was due then and took so long, device by device.
    pub(super) fn count(&self, due: Duration, time: Duration, to: &[Mailbox], words: Words) {
        let state = &mut *lock(&self.state);
        let (due_s, answered_s) = (second_of(due), second_of(due + time));
        let last = due_s.max(answered_s);
        if state.seconds.len() <= last {
            state.seconds.resize_with(last + 1, Second::default);
        }
        let time_us = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        for (mailbox, word) in to.iter().zip(words) {
            let cell = &mut state.seconds[due_s].services[place_of(mailbox.kind)];
            cell.sent += 1;
            let accepted = word.is_none();
            match word {
                None => {
                    cell.accepted_us.push(time_us);
                    state.glance_us.push(time_us);
                }
                Some(code) => {
                    *cell.others.entry(code).or_default() += 1;
                    state.glance_others += 1;
                }
            }
            let answered = &mut state.seconds[answered_s];
            answered.answers += 1;
            answered.accepted_answers += u64::from(accepted);
        }
    }

    /// Gives what has ended since the last look, and forgets it.
    pub(super) fn glance(&self) -> Glance {
        let (mut times_us, others) = {
            let state = &mut *lock(&self.state);
            (std::mem::take(&mut state.glance_us), std::mem::take(&mut state.glance_others))
        };
        times_us.sort_unstable();
        let (p50_ms, p99_ms) = (quantile_ms(&times_us, 0.5), quantile_ms(&times_us, 0.99));
        Glance { accepted: times_us.len(), others, p50_ms, p99_ms }
    }

    /// Gives how many seconds there are.
    pub(super) fn seconds(&self) -> usize {
        lock(&self.state).seconds.len()
    }

    /// Sums up the messages of these seconds to one push service, or to all.
    pub(super) fn figures(&self, seconds: Range<usize>, kind: Option<DeviceKind>) -> Figures {
        let state = lock(&self.state);
        let mut figures = Figures::default();
        let mut times_us = Vec::new();
        for cell in cells(&state, seconds, kind) {
            figures.sent += cell.sent;
            times_us.extend_from_slice(&cell.accepted_us);
            for (code, count) in &cell.others {
                *figures.others.entry(code.clone()).or_default() += count;
            }
        }
        times_us.sort_unstable();
        figures.accepted = times_us.len() as u64;
        figures.p50_ms = quantile_ms(&times_us, 0.5);
        figures.p90_ms = quantile_ms(&times_us, 0.9);
        figures.p99_ms = quantile_ms(&times_us, 0.99);
        figures.max_ms = quantile_ms(&times_us, 1.0);
        figures
    }

    /// Gives the answers that came in a second: all, and those that accepted.
    pub(super) fn answers(&self, second: usize) -> (u64, u64) {
        let state = lock(&self.state);
        let second = state.seconds.get(second);
        second.map_or((0, 0), |second| (second.answers, second.accepted_answers))
    }

    /// Gives the distribution of all accepted messages' times, five bars to a tenfold, from the
    /// first one that holds a message to the last.
    pub(super) fn distribution(&self) -> Vec<Bucket> {
        let state = lock(&self.state);
        let mut counts: BTreeMap<i32, u64> = BTreeMap::new();
        for cell in cells(&state, 0..usize::MAX, None) {
            for time_us in &cell.accepted_us {
                *counts.entry(bar_of(*time_us)).or_default() += 1;
            }
        }
        let (Some(first), Some(last)) = (counts.keys().next(), counts.keys().next_back()) else {
            return Vec::new();
        };
        let bucket = |bar: i32| Bucket {
            up_to_ms: 10_f64.powf(f64::from(bar + 1) / BARS_PER_TENFOLD) / 1_000.0,
            messages: counts.get(&bar).copied().unwrap_or(0),
        };
        (*first..=*last).map(bucket).collect()
    }
}

pub(super) const BARS_PER_TENFOLD: f64 = 5.0;

#[expect(clippy::cast_possible_truncation, reason = "a logarithm of a u32 is small")]
fn bar_of(time_us: u32) -> i32 {
    (f64::from(time_us.max(1)).log10() * BARS_PER_TENFOLD).floor() as i32
}

fn cells(
    state: &State,
    seconds: Range<usize>,
    kind: Option<DeviceKind>,
) -> impl Iterator<Item = &Cell> {
    let end = seconds.end.min(state.seconds.len());
    let of = move |second: &'_ Second| match kind {
        Some(kind) => place_of(kind)..place_of(kind) + 1,
        None => 0..second.services.len(),
    };
    let seconds = &state.seconds[seconds.start.min(end)..end];
    seconds.iter().flat_map(move |second| &second.services[of(second)])
}

fn second_of(time: Duration) -> usize {
    usize::try_from(time.as_secs()).unwrap_or(0)
}

/// The order of `DeviceKind::ALL`.
fn place_of(kind: DeviceKind) -> usize {
    match kind {
        DeviceKind::Ios => 0,
        DeviceKind::Android => 1,
        DeviceKind::Browser => 2,
    }
}

/// Gives the least time that this share of all does not exceed.
#[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
fn quantile_ms(sorted_us: &[u32], share: f64) -> Option<f64> {
    let rank = (sorted_us.len() as f64 * share).ceil() as usize;
    let time_us = sorted_us.get(rank.max(1) - 1)?;
    Some(f64::from(*time_us) / 1_000.0)
}

// === impl Figures ===

impl Figures {
    /// Gives the share that was accepted; all of nothing.
    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    pub(super) fn accepted_share(&self) -> f64 {
        if self.sent == 0 { 1.0 } else { self.accepted as f64 / self.sent as f64 }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::uri::PathAndQuery;

    use super::*;

    fn to(kind: DeviceKind) -> Mailbox {
        let path = PathAndQuery::from_static("/");
        Mailbox { kind, handle: String::new(), path, sealed: Bytes::new() }
    }

    /// A notification to two devices, due in second 0 and answered in second 2.
    #[test]
    fn a_message_belongs_to_the_second_in_which_it_was_due() {
        let books = Books::default();
        let devices = [to(DeviceKind::Ios), to(DeviceKind::Browser)];
        let (due, time) = (Duration::from_millis(900), Duration::from_millis(1_500));
        books.count(due, time, &devices, vec![None, Some("busy".to_owned())]);
        let figures = books.figures(0..1, None);
        assert_eq!((figures.sent, figures.accepted), (2, 1));
        assert_eq!((figures.p50_ms, figures.max_ms), (Some(1_500.0), Some(1_500.0)));
        assert_eq!(figures.others, BTreeMap::from([("busy".to_owned(), 1)]));
        assert_eq!(books.figures(0..9, Some(DeviceKind::Browser)).accepted, 0);
        assert_eq!(books.figures(1..9, None), Figures::default());
        assert_eq!([0, 1, 2].map(|second| books.answers(second)), [(0, 0), (0, 0), (2, 1)]);
        assert_eq!(books.glance().others, 1);
        assert_eq!(books.glance().others, 0);
    }

    #[test]
    fn quantiles_are_times_that_were_seen() {
        let times_us: Vec<u32> = (1..=100).map(|time| time * 1_000).collect();
        let rows = [(0.5, 50.0), (0.9, 90.0), (0.99, 99.0), (1.0, 100.0), (0.0, 1.0)];
        for (share, time_ms) in rows {
            assert_eq!(quantile_ms(&times_us, share), Some(time_ms));
        }
        assert_eq!(quantile_ms(&[], 0.5), None);
    }

    /// 1 ms begins a bar, 9.9 ms is in the last one below 10 ms.
    #[test]
    fn a_distribution_holds_every_message_once() {
        let books = Books::default();
        for time_us in [1_000, 1_001, 9_900] {
            let time = Duration::from_micros(time_us);
            books.count(Duration::ZERO, time, &[to(DeviceKind::Ios)], vec![None]);
        }
        let bars = books.distribution();
        let counts: Vec<u64> = bars.iter().map(|bar| bar.messages).collect();
        assert_eq!(counts, [2, 0, 0, 0, 1]);
        assert!((bars[4].up_to_ms - 10.0).abs() < 1e-9);
    }
}
