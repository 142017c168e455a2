//! One push service of a measurement: its devices, a sender of its own, and what that hears.
//!
//! In: a pace. Out: what became of each message, by the sender's answers and by the push service's
//! journal. Each service has a sender of its own, so that none uses up the permits of another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use sns_nas::client::RelayClient;

use super::super::MeasureError;
use super::super::crowd::{Crowd, CrowdError, Protocol, Told};
use super::super::letter::{Letter, Sender};
use super::super::pace::{Pace, label};
use crate::device::{Device, DeviceKind};
use crate::sim::journal::{Journal, MessageKey};
use crate::sim::server::Controls;
use crate::stage::Stage;

/// A push service with those who write to it.
pub(crate) struct Party {
    kind: DeviceKind,
    controls: Controls,
    sender: Sender,
    devices: Vec<(Device, String)>,
    crowd: Arc<Crowd>,
}

/// What became of the messages of one window.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// How often the sender heard what; `accepted` is one of them.
    pub(crate) codes: BTreeMap<String, u64>,
    /// Times of the accepted messages, in microseconds, in no order.
    pub(crate) times_us: Vec<u64>,
    /// Called accepted, and not at the push service.
    pub(crate) lost: u64,
    /// Accepted by the push service more than once.
    pub(crate) doubled: u64,
    /// Whose device was called gone.
    pub(crate) gone: u64,
    messages: Vec<(MessageKey, bool)>,
}

pub(crate) const ACCEPTED: &str = "accepted";
const DEVICES: usize = 10;
/// More than a second's messages wait at a service that answers none.
const CONNECTIONS: usize = 200;
const MESSAGE: &[u8] = &[b'm'; 400];

// === impl Party ===

impl Party {
    pub(crate) async fn gather(
        kind: DeviceKind,
        stage: &Stage,
        client: &RelayClient,
        url: &str,
    ) -> Result<Party, MeasureError> {
        let controls = stage.controls(kind);
        let sender = Sender::new(url)?;
        let mut devices = Vec::new();
        for _ in 0..DEVICES {
            devices.push(sender.pair(client, stage, kind).await?);
        }
        let crowd = Crowd::connect(url, &stage.ca, Protocol::Http1, CONNECTIONS).await?;
        Ok(Party { kind, controls: controls.clone(), sender, devices, crowd: Arc::new(crowd) })
    }

    pub(crate) fn kind(&self) -> DeviceKind {
        self.kind
    }

    pub(crate) fn controls(&self) -> &Controls {
        &self.controls
    }

    /// Lets all parties send at once; gives what each heard, in their order.
    pub(crate) async fn all_send(
        parties: &[Party],
        pace: Pace,
    ) -> Result<Vec<Heard>, MeasureError> {
        let [one, two, three] = parties else {
            return Err(MeasureError::Missing("three push services"));
        };
        // Sealed before the first moment, or the sealing would count.
        let count = (pace.rate_per_s * pace.seconds) as usize;
        let mut letters = Vec::new();
        for party in parties {
            letters.push(party.letters(count)?);
        }
        let (one, two, three) = tokio::try_join!(
            one.send(pace, &letters[0]),
            two.send(pace, &letters[1]),
            three.send(pace, &letters[2]),
        )?;
        Ok(vec![one, two, three])
    }

    /// Sends one new message; gives whether it was accepted.
    pub(crate) async fn send_one(&self) -> Result<bool, MeasureError> {
        let letters = self.letters(1)?;
        let told = self.crowd.post(&letters[0]).await;
        Ok(told.is_ok_and(|told| told.status == StatusCode::CREATED))
    }

    async fn send(&self, pace: Pace, letters: &Arc<[Letter]>) -> Result<Heard, MeasureError> {
        let mut heard = Heard::default();
        let each = |number: usize, time, told| heard.count(letters[number].key(), time, told);
        pace.drive_each(&self.crowd, letters, each).await?;
        Ok(heard)
    }

    fn letters(&self, count: usize) -> Result<Arc<[Letter]>, MeasureError> {
        let devices = self.devices.iter().cycle().take(count);
        devices.map(|(device, endpoint)| self.sender.letter(device, endpoint, MESSAGE)).collect()
    }
}

// === impl Heard ===

impl Heard {
    fn count(&mut self, key: MessageKey, time: Duration, told: Option<Result<Told, CrowdError>>) {
        let accepted = matches!(&told, Some(Ok(told)) if told.status == StatusCode::CREATED);
        let code = match told {
            Some(Ok(_)) if accepted => {
                self.times_us.push(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
                ACCEPTED.to_owned()
            }
            Some(Ok(told)) => {
                self.gone += u64::from(told.status == StatusCode::GONE);
                label(&told)
            }
            Some(Err(_)) => "the relay's connection broke".to_owned(),
            None => "no answer of the relay".to_owned(),
        };
        *self.codes.entry(code).or_default() += 1;
        self.messages.push((key, accepted));
    }

    /// Looks the messages up at their push service.
    pub(crate) fn look_up(&mut self, journal: &Journal) {
        let acceptances = journal.acceptances();
        for (key, accepted) in self.messages.drain(..) {
            let times = acceptances.get(&key).copied().unwrap_or(0);
            self.lost += u64::from(accepted && times == 0);
            self.doubled += u64::from(times > 1);
        }
    }

    pub(crate) fn join(parts: Vec<Heard>) -> Heard {
        let mut whole = Heard::default();
        for part in parts {
            for (code, count) in part.codes {
                *whole.codes.entry(code).or_default() += count;
            }
            whole.times_us.extend(part.times_us);
            whole.messages.extend(part.messages);
            whole.lost += part.lost;
            whole.doubled += part.doubled;
            whole.gone += part.gone;
        }
        whole
    }

    pub(crate) fn sent(&self) -> u64 {
        self.codes.values().sum()
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.codes.get(ACCEPTED).copied().unwrap_or(0)
    }

    /// Gives the 99th percentile of the accepted messages' times, in milliseconds.
    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    pub(crate) fn p99_ms(&self) -> Option<f64> {
        let mut times = self.times_us.clone();
        times.sort_unstable();
        let place = (times.len() * 99).div_ceil(100).checked_sub(1)?;
        times.get(place).map(|us| *us as f64 / 1_000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(times_ms: impl IntoIterator<Item = u64>) -> Heard {
        let times_us = times_ms.into_iter().map(|ms| ms * 1_000).collect();
        Heard { times_us, ..Heard::default() }
    }

    #[test]
    fn the_99th_percentile_is_the_time_that_99_of_a_hundred_do_not_exceed() {
        assert_eq!(times([]).p99_ms(), None);
        assert_eq!(times([7]).p99_ms(), Some(7.0));
        assert_eq!(times((1..=100).rev()).p99_ms(), Some(99.0));
        assert_eq!(times(1..=1_000).p99_ms(), Some(990.0));
    }
}
