//! What has arrived at the devices of a NAS, and what its journal says of it.
//!
//! In: the push services' deliveries, the ids that were handed in, the journal's records. Out: for
//! each device what is lost, what came more than once and what would be shown more than once, as
//! the device itself finds them when it opens what it got.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde::Serialize;
use sns_nas::content::Content;
use sns_nas::journal::recall::Record;
use uuid::Uuid;

use super::MeasureError;
use crate::device::{Device, Effect, Inbox};
use crate::fault::service_name;
use crate::stage::Stage;

/// What a NAS's devices have, and what the NAS believes.
#[derive(Debug, Default, Serialize)]
pub(super) struct Arrived {
    devices: Vec<AtDevice>,
    /// Deliveries by state in the journal.
    journal: BTreeMap<String, u64>,
    /// Attempts over all deliveries.
    attempts: u64,
    attempts_max: u64,
}

#[derive(Debug, Default, Serialize)]
struct AtDevice {
    push_service: &'static str,
    pushes: u64,
    doubles: u64,
    lost: u64,
    shown: u64,
    shown_twice: u64,
}

/// Gives what a device finds in the pushes that it got, in their order.
/// Errors: one does not open.
pub(super) fn contents(stage: &Stage, device: &Device) -> Result<Vec<Content>, MeasureError> {
    let delivered = stage.controls(device.kind()).journal.delivered_to(device.address());
    let content = |opened: &[u8]| {
        Content::decode(opened).map_err(|_| MeasureError::Missing("a content that can be read"))
    };
    delivered.iter().map(|delivered| content(&device.open(delivered)?)).collect()
}

// === impl Arrived ===

impl Arrived {
    /// Opens all that the devices got, and reads the journal.
    /// Errors: a push that its device cannot read.
    pub(super) fn look(
        stage: &Stage,
        devices: &[Device],
        ids: &BTreeSet<Uuid>,
        records: &[Record],
    ) -> Result<Arrived, MeasureError> {
        let mut arrived = Arrived::default();
        for device in devices {
            arrived.devices.push(AtDevice::look(stage, device, ids)?);
        }
        for fate in records.iter().flat_map(|record| &record.deliveries) {
            *arrived.journal.entry(fate.state.clone()).or_default() += 1;
            arrived.attempts += fate.attempts;
            arrived.attempts_max = arrived.attempts_max.max(fate.attempts);
        }
        Ok(arrived)
    }

    /// Says of each bound whether it holds, for so many notifications.
    pub(super) fn bounds(&self, notifications: usize) -> [(bool, &'static str); 3] {
        let (notifications, devices) = (notifications as u64, self.devices.len() as u64);
        let accepted = self.journal.get("accepted").copied().unwrap_or(0);
        let each = |holds: fn(&AtDevice, u64) -> bool| {
            devices > 0 && self.devices.iter().all(|device| holds(device, notifications))
        };
        [
            (each(|device, all| device.lost == 0 && device.shown == all), "nothing is lost"),
            (each(|device, _| device.shown_twice == 0), "nothing is shown twice"),
            (
                accepted == notifications * devices && self.journal.len() == 1,
                "the journal says accepted of every delivery",
            ),
        ]
    }

    /// Writes a line for each device, and one for the journal.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for at in &self.devices {
            writeln!(
                out,
                "{}: {} pushes, {} of them doubles; {} shown, lost {}, shown twice {}",
                at.push_service, at.pushes, at.doubles, at.shown, at.lost, at.shown_twice
            )?;
        }
        let states: Vec<String> =
            self.journal.iter().map(|(state, count)| format!("{count} {state}")).collect();
        let states = states.join(", ");
        let Arrived { attempts, attempts_max, .. } = self;
        writeln!(out, "the journal: {states}; {attempts} attempts, at most {attempts_max} for one")
    }
}

// === impl AtDevice ===

impl AtDevice {
    fn look(
        stage: &Stage,
        device: &Device,
        ids: &BTreeSet<Uuid>,
    ) -> Result<AtDevice, MeasureError> {
        let mut at = AtDevice { push_service: service_name(device.kind()), ..AtDevice::default() };
        let mut inbox = Inbox::default();
        let mut shown: BTreeMap<Uuid, u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for content in contents(stage, device)? {
            at.pushes += 1;
            at.doubles += u64::from(!seen.insert(content.id));
            let encoded = content.encode_within(usize::MAX);
            let effect = encoded.and_then(|encoded| inbox.take(&encoded));
            let effect = effect.map_err(|_| MeasureError::Missing("a content that can be read"))?;
            if matches!(effect, Effect::Shown | Effect::Replaced) {
                *shown.entry(content.id).or_default() += 1;
            }
        }
        let on_screen: BTreeSet<Uuid> = inbox.shown().iter().map(|content| content.id).collect();
        at.lost = ids.difference(&on_screen).count() as u64;
        at.shown = on_screen.len() as u64;
        at.shown_twice = shown.values().map(|times| times.saturating_sub(1)).sum();
        Ok(at)
    }
}
