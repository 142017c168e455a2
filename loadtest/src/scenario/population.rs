//! The senders and their devices: each NAS enrolled with a key of its own, each device paired, each
//! message sealed beforehand, so that a load costs its driver little.
//!
//! In: a relay, a number of NAS, a mix. Out: addresses that a message may be sent to any number of
//! times. Never prints what it holds.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use sns_nas::client::RelayClient;
use sns_nas::client::message::Enrolment;
use sns_nas::key::SenderKey;
use sns_nas::seal::{self, BodyCap};

use super::options::Settings;
use crate::device::DeviceKind;
use crate::measure::MeasureError;
use crate::measure::letter::Sender;
use crate::stage::Stage;

/// All NAS of a load.
pub(super) struct Population {
    pub(super) nas: Vec<Nas>,
    devices_per_nas: usize,
}

/// One NAS.
pub(super) struct Nas {
    pub(super) key: Arc<SenderKey>,
    pub(super) authorization: HeaderValue,
    pub(super) mailboxes: Vec<Mailbox>,
}

/// One device, with a message for it.
pub(super) struct Mailbox {
    pub(super) kind: DeviceKind,
    pub(super) handle: String,
    pub(super) path: PathAndQuery,
    pub(super) sealed: Bytes,
}

const MESSAGE: &[u8] = &[b'm'; 800];

// === impl Population ===

impl Population {
    /// Enrols and pairs everybody; tells of each device.
    /// Errors: the relay does not enrol or pair one.
    pub(super) async fn gather(
        settings: &Settings,
        stage: &Stage,
        url: &str,
        client: &RelayClient,
        mut paired: impl FnMut(),
    ) -> Result<Population, MeasureError> {
        let (count, devices_per_nas) = (settings.nas as usize, settings.devices_per_nas as usize);
        let kinds = settings.mix.kinds(count * devices_per_nas);
        let mut nas = Vec::with_capacity(count);
        for number in 0..count {
            let sender = Sender::new(url)?;
            let serial = format!("LOAD{number:06}");
            let model = "DS923+".to_owned();
            let enrolment = Enrolment { model, serial, ..Enrolment::default() };
            client.enrol(sender.key(), &enrolment).await?;
            let mut mailboxes = Vec::with_capacity(devices_per_nas);
            for place in 0..devices_per_nas {
                // In the order in which messages go out, all push services take turns.
                let kind = kinds[place * count + number];
                mailboxes.push(Mailbox::pair(&sender, client, stage, kind).await?);
                paired();
            }
            let key = Arc::new(SenderKey::from_pem(sender.key().pem()?.as_bytes())?);
            nas.push(Nas { key, authorization: sender.authorization().clone(), mailboxes });
        }
        Ok(Population { nas, devices_per_nas })
    }

    /// Gives the NAS and the device that a message of this number goes to.
    pub(super) fn address(&self, number: usize) -> (usize, usize) {
        let nas = number % self.nas.len();
        (nas, number / self.nas.len() % self.devices_per_nas)
    }
}

// === impl Mailbox ===

impl Mailbox {
    async fn pair(
        sender: &Sender,
        client: &RelayClient,
        stage: &Stage,
        kind: DeviceKind,
    ) -> Result<Mailbox, MeasureError> {
        let (device, endpoint) = sender.pair(client, stage, kind).await?;
        let sealed = seal::seal(&device.keys().device(), MESSAGE, BodyCap::default())?.into();
        let handle = endpoint.rsplit('/').next().unwrap_or_default().to_owned();
        let uri: Uri = endpoint.parse().map_err(|_| MeasureError::BadUrl)?;
        let path = uri.path_and_query().cloned().ok_or(MeasureError::BadUrl)?;
        Ok(Mailbox { kind, handle, path, sealed })
    }
}
