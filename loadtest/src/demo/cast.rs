//! Who plays: a NAS with its two keys, and three devices, each paired with both keys.
//!
//! Chat signs with a key of its own that says nothing about the NAS; alerts are signed with the key
//! that the NAS enrolled.

use sns_nas::base64url;
use sns_nas::client::RelayClient;
use sns_nas::client::message::{
    Channel, Enrolled, Enrolment, Environment, Paired, Pairing, Subscription,
};
use sns_nas::key::SenderKey;

use super::DemoError;
use crate::device::{Device, DeviceKind};
use crate::sim::journal::Delivered;
use crate::stage::{APP, Stage};

/// The players.
pub(super) struct Cast {
    /// The NAS's view of the relay.
    pub(super) client: RelayClient,
    /// The key that the NAS enrolled.
    pub(super) nas_key: SenderKey,
    /// The key of the NAS's Chat, a pseudonym.
    pub(super) chat_key: SenderKey,
    /// What the relay answered to the enrolment.
    pub(super) enrolled: Enrolled,
    /// The devices.
    pub(super) devices: Vec<PairedDevice>,
}

/// One device and its two pairings.
pub(super) struct PairedDevice {
    /// What people call it.
    pub(super) name: &'static str,
    /// The device.
    pub(super) device: Device,
    /// Its pairing with Chat's key.
    pub(super) chat: Paired,
    /// Its pairing with the NAS's key.
    pub(super) alerts: Paired,
}

/// The NAS's model.
pub(super) const MODEL: &str = "DS923+";

/// The NAS's serial number, which the relay must forget.
pub(super) const SERIAL: &str = "2290QWR8K3M1T";

const DEVICES: [(&str, DeviceKind); 3] = [
    ("iPhone", DeviceKind::Ios),
    ("Android phone", DeviceKind::Android),
    ("Firefox", DeviceKind::Browser),
];

// === impl Cast ===

impl Cast {
    /// Enrols the NAS and pairs the devices.
    pub(super) async fn gather(stage: &Stage, relay_url: &str) -> Result<Self, DemoError> {
        let client = RelayClient::new(relay_url, None)?;
        let (nas_key, chat_key) = (SenderKey::generate()?, SenderKey::generate()?);
        let enrolment = Enrolment {
            model: MODEL.to_owned(),
            serial: SERIAL.to_owned(),
            ..Enrolment::default()
        };
        let enrolled = client.enrol(&nas_key, &enrolment).await?;
        let mut devices = Vec::new();
        for (name, kind) in DEVICES {
            let device = make(kind, stage, &client).await?;
            let chat = pair(&client, &device, &chat_key).await?;
            let alerts = pair(&client, &device, &nas_key).await?;
            devices.push(PairedDevice { name, device, chat, alerts });
        }
        Ok(Self { client, nas_key, chat_key, enrolled, devices })
    }
}

// === impl PairedDevice ===

impl PairedDevice {
    /// Gives who reaches it.
    pub(super) fn push_service(&self) -> &'static str {
        match self.device.kind() {
            DeviceKind::Ios => "Apple",
            DeviceKind::Android => "Google",
            DeviceKind::Browser => "Mozilla",
        }
    }

    /// Gives what its push service delivered to it so far.
    pub(super) fn delivered(&self, stage: &Stage) -> Vec<Delivered> {
        let address = self.device.address();
        match self.device.kind() {
            DeviceKind::Ios => stage.apns.delivered_to(address),
            DeviceKind::Android => stage.fcm.delivered_to(address),
            DeviceKind::Browser => stage.webpush.delivered_to(address),
        }
    }

    /// Opens one delivery as the app on the device does.
    /// Errors: what the device shows in place of the text.
    pub(super) fn read(&self, delivered: &Delivered) -> Result<String, String> {
        let opened = self.device.open(delivered).map_err(|error| error.to_string())?;
        String::from_utf8(opened).map_err(|_| "not a text".to_owned())
    }
}

async fn make(kind: DeviceKind, stage: &Stage, client: &RelayClient) -> Result<Device, DemoError> {
    Ok(match kind {
        DeviceKind::Ios => Device::new_ios()?,
        DeviceKind::Android => Device::new_android()?,
        DeviceKind::Browser => {
            let key = client.app(APP).await?.application_server_key;
            let key = key.and_then(|key| base64url::decode(&key)?.try_into().ok());
            let key = key.ok_or(DemoError::Missing("the app has no key for browsers"))?;
            Device::new_browser(&stage.webpush, key)?
        }
    })
}

/// The device's own app does this: the NAS never sees the token.
async fn pair(
    client: &RelayClient,
    device: &Device,
    sender: &SenderKey,
) -> Result<Paired, DemoError> {
    let address = device.address().to_owned();
    let channel = match device.kind() {
        DeviceKind::Ios => Channel::Apns { token: address, environment: Environment::Production },
        DeviceKind::Android => Channel::Fcm { token: address },
        DeviceKind::Browser => {
            Channel::WebPush { subscription: Subscription { endpoint: address, keys: None } }
        }
    };
    let pairing =
        Pairing { app: APP.to_owned(), channel, client: None, sender_key: sender.public() };
    let paired = client.pair(&pairing).await?.paired();
    paired.ok_or(DemoError::Missing("the relay gives no handle"))
}
