//! Messages through the application door, one after the other or many at once, to one push service.
//!
//! In: a plan. Out: a report. `direct` leaves the relay out: the same messages from the same driver
//! straight to the simulated Web Push service, which is what the rest of the set-up costs.

use std::path::PathBuf;
use std::sync::Arc;

use sns_nas::client::RelayClient;

use super::MeasureError;
use super::child::RelayChild;
use super::crowd::{Crowd, Protocol};
use super::letter::{Letter, Sender};
use super::pace::Pace;
use super::report::{Report, Run};
use crate::device::DeviceKind;
use crate::stage::Stage;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The relay's program; nothing leaves it out.
    pub relay: Option<PathBuf>,
    /// What kind of device the messages go to.
    pub kind: DeviceKind,
    /// How the senders speak to the door.
    pub protocol: Protocol,
    /// Connections of the senders.
    pub connections: usize,
    /// Devices, paired beforehand; at least 1.
    pub devices: usize,
    /// Bytes of a message before it is sealed.
    pub message_bytes: usize,
    /// The load of one run.
    pub pace: Pace,
    /// Seconds of the same load before the first run, not counted.
    pub warmup_s: u32,
    /// Runs, one after the other.
    pub runs: u32,
}

// === impl Plan ===

impl Plan {
    /// Carries the plan out.
    /// Errors: [`MeasureError`]; messages that fail are figures of the report.
    pub async fn carry_out(&self) -> Result<Report, MeasureError> {
        let mut stage = Stage::set().await?;
        let relay = match &self.relay {
            Some(program) => Some(RelayChild::start(program, &mut stage).await?),
            None => None,
        };
        let origin = relay.as_ref().map_or(stage.webpush.base_url(), RelayChild::url).to_owned();
        let letters = self.letters(&stage, relay.as_ref(), &origin).await?;
        let crowd = Crowd::connect(&origin, &stage.ca, self.protocol, self.connections).await?;
        let crowd = Arc::new(crowd);
        let warm_up = Pace { seconds: self.warmup_s, ..self.pace };
        warm_up.drive(&crowd, &letters).await?;
        let mut runs = Vec::new();
        for _ in 0..self.runs {
            let before_us = relay.as_ref().map(RelayChild::cpu_us).transpose()?;
            let tally = self.pace.drive(&crowd, &letters).await?;
            let after_us = relay.as_ref().map(RelayChild::cpu_us).transpose()?;
            let cpu_us = after_us.zip(before_us).map(|(after, before)| after - before);
            runs.push(Run::new(&tally, cpu_us));
        }
        let memory_peak_kib = relay.as_ref().map(RelayChild::memory_peak_kib).transpose()?;
        drop(crowd);
        if let Some(relay) = relay {
            relay.stop().await?;
        }
        let body_bytes = letters.first().map_or(0, Letter::body_bytes);
        Ok(Report::new(self, body_bytes, runs, memory_peak_kib))
    }

    async fn letters(
        &self,
        stage: &Stage,
        relay: Option<&RelayChild>,
        origin: &str,
    ) -> Result<Arc<[Letter]>, MeasureError> {
        let sender = Sender::new(origin)?;
        let message = vec![b'm'; self.message_bytes];
        let mut letters = Vec::new();
        let client = relay.map(|relay| RelayClient::new(relay.url(), None)).transpose()?;
        for _ in 0..self.devices.max(1) {
            letters.push(match &client {
                Some(client) => sender.to_new_device(client, stage, self.kind, &message).await?,
                None => sender.to_new_browser(&stage.webpush, &message)?,
            });
        }
        Ok(letters.into())
    }
}
