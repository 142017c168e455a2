//! Simulated phones and browsers: where pushes end, and where they are opened.
//!
//! A device has RFC 8291 receiver keys and an address: a device token (APNs, FCM) or a subscription
//! (Web Push). Given what its push service delivered it finds the sealed body, as an app's
//! notification extension would, and opens it; an [`Inbox`] is what it then shows. Never talks to
//! the relay itself.

use aws_lc_rs::rand;
use serde_json::Value;
use sns_nas::base64url;
use sns_nas::seal::{self, ReceiverKeys, SealError};

use crate::sim::journal::Delivered;
use crate::sim::webpush::WebPushSim;

mod inbox;

pub use inbox::{Effect, Inbox};

/// One app on one phone, or one browser.
pub struct Device {
    kind: DeviceKind,
    address: String,
    keys: ReceiverKeys,
}

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Reached by APNs.
    Ios,
    /// Reached by FCM.
    Android,
    /// Reached by Web Push.
    Browser,
}

/// Why a device could not be made or could not open what it got.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Keys or a token could not be made.
    #[error("a device's keys could not be made")]
    Key,
    /// What was delivered came from the wrong push service or carries no sealed body.
    #[error("what was delivered carries no sealed body for this device")]
    NotSealed,
    /// The sealed body does not open.
    #[error("the sealed body does not open")]
    Seal(#[from] SealError),
}

/// The root key of a payload, or the data key, that carries the sealed body.
const SEALED_MEMBER: &str = "e";
const TOKEN_BYTES: usize = 32;

impl DeviceKind {
    /// Every kind, in the order APNs, FCM, Web Push.
    pub const ALL: [DeviceKind; 3] = [DeviceKind::Ios, DeviceKind::Android, DeviceKind::Browser];
}

impl Device {
    /// An iPhone with a new device token, 64 hexadecimal digits.
    pub fn new_ios() -> Result<Device, DeviceError> {
        let token: String = random()?.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Device::with_keys(DeviceKind::Ios, &token, ReceiverKeys::generate()?))
    }

    /// An Android phone with a new opaque registration token.
    pub fn new_android() -> Result<Device, DeviceError> {
        let token = format!(
            "{}:APA91b{}",
            base64url::encode(&random()?[..16]),
            base64url::encode([random()?, random()?, random()?].concat())
        );
        Ok(Device::with_keys(DeviceKind::Android, &token, ReceiverKeys::generate()?))
    }

    /// A browser with a new subscription for this application server key.
    pub fn new_browser(
        sim: &WebPushSim,
        application_server_key: [u8; 65],
    ) -> Result<Device, DeviceError> {
        let endpoint = sim.subscribe(application_server_key);
        Ok(Device::with_keys(DeviceKind::Browser, &endpoint, ReceiverKeys::generate()?))
    }

    /// A device with given keys, for test vectors.
    pub fn with_keys(kind: DeviceKind, address: &str, keys: ReceiverKeys) -> Device {
        Device { kind, address: address.to_owned(), keys }
    }

    /// What kind of device it is.
    pub fn kind(&self) -> DeviceKind {
        self.kind
    }

    /// The device token, or the endpoint of a browser; what `delivered_to` takes.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The receiver keys, for whoever seals to this device.
    pub fn keys(&self) -> &ReceiverKeys {
        &self.keys
    }

    /// The public key as a browser writes it, base64url.
    pub fn p256dh(&self) -> String {
        base64url::encode(self.keys.p256dh())
    }

    /// The auth secret as a browser writes it, base64url.
    pub fn auth(&self) -> String {
        base64url::encode(self.keys.auth())
    }

    /// Finds the sealed body in what was delivered and opens it.
    /// Errors: `NotSealed` for another service's delivery or none in it; `Seal` for a body that is
    /// not for this device.
    pub fn open(&self, delivered: &Delivered) -> Result<Vec<u8>, DeviceError> {
        let body = self.sealed_body(delivered).ok_or(DeviceError::NotSealed)?;
        Ok(seal::open(&self.keys, &body)?)
    }

    fn sealed_body(&self, delivered: &Delivered) -> Option<Vec<u8>> {
        match (self.kind, delivered) {
            (DeviceKind::Ios, Delivered::Apns { payload, .. }) => {
                // Without these two iOS shows the placeholder and never runs the extension.
                let aps = payload.get("aps")?;
                aps.get("alert")?;
                aps.get("mutable-content").filter(|flag| flag.as_i64() == Some(1))?;
                base64url::decode(payload.get(SEALED_MEMBER).and_then(Value::as_str)?)
            }
            (DeviceKind::Android, Delivered::Fcm { data, message }) => {
                // A notification message is shown without running the app.
                if message.get("notification").is_some() {
                    return None;
                }
                base64url::decode(data.get(SEALED_MEMBER)?)
            }
            (DeviceKind::Browser, Delivered::WebPush { body, .. }) => Some(body.to_vec()),
            _ => None,
        }
    }
}

fn random() -> Result<[u8; TOKEN_BYTES], DeviceError> {
    let mut bytes = [0; TOKEN_BYTES];
    rand::fill(&mut bytes).map_err(|_| DeviceError::Key)?;
    Ok(bytes)
}
