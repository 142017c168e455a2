//! The words of the relay's contract as the NAS says and hears them: what goes out, what comes in.
//!
//! Names and units are those of the JSON members. Unknown members in an answer are let pass, so
//! that an older NAS understands a newer relay. What holds content, handles or tokens has no
//! `Debug`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::base64url;

/// What a NAS says of itself when it enrols.
#[derive(Clone, Default, Serialize)]
pub struct Enrolment {
    /// The product's name.
    pub model: String,
    /// The serial number; the relay keeps only a keyed hash of it.
    pub serial: String,
    /// The system's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Further ids of the hardware.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unique_ids: Vec<String>,
    /// The operator's one-time token, where the relay asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enrolment_token: Option<String>,
}

/// What the relay knows an enrolled NAS by.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Enrolled {
    /// The permanent id.
    pub ds_id: String,
    /// RFC 3339, UTC.
    pub enrolled_at: String,
    /// Whether this call made the identity; false when the key was enrolled before.
    #[serde(skip)]
    pub created: bool,
}

/// The relay's record of a NAS, exactly as stored.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Identity {
    /// The permanent id.
    pub ds_id: String,
    /// RFC 3339, UTC.
    pub enrolled_at: String,
    /// Every other member of the record.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// A request to pair a device: made by the app or browser itself.
#[derive(Clone, Serialize)]
pub struct Pairing {
    /// The published app's name.
    pub app: String,
    /// Where the device is reached.
    #[serde(flatten)]
    pub channel: Channel,
    /// What the client is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Client>,
    /// The only key that may use the handle, an uncompressed P-256 point.
    #[serde(serialize_with = "as_base64url")]
    pub sender_key: [u8; 65],
}

/// Where a device is reached, by push service.
#[derive(Clone, Serialize)]
#[serde(tag = "service", rename_all = "lowercase")]
pub enum Channel {
    /// Apple Push Notification service.
    Apns {
        /// The device token, in hex.
        token: String,
        /// Which of Apple's services knows the token.
        environment: Environment,
    },
    /// Firebase Cloud Messaging.
    Fcm {
        /// The registration token.
        token: String,
    },
    /// A browser's push service.
    WebPush {
        /// The browser's subscription.
        subscription: Subscription,
    },
    /// Electronic mail.
    Email {
        /// The mail address.
        address: String,
    },
}

/// The APNs environment that a token belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// App Store and TestFlight builds.
    Production,
    /// Development builds.
    Sandbox,
}

/// A browser's `PushSubscription`.
#[derive(Clone, Serialize)]
pub struct Subscription {
    /// The push resource.
    pub endpoint: String,
    /// The keys: needed only where the relay asks for a proof of possession.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<SubscriptionKeys>,
}

/// The keys of a `PushSubscription`, in base64url as the browser gives them.
#[derive(Clone, Serialize)]
pub struct SubscriptionKeys {
    /// The device's public key.
    pub p256dh: String,
    /// The device's auth secret.
    pub auth: String,
}

/// What a client says of itself; used for pairing and dropped.
#[derive(Clone, Default, Serialize)]
pub struct Client {
    /// The app's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The app's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The operating system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// The device's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// The browser.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub browser: Option<String>,
}

/// How a pairing was answered.
#[derive(Clone, PartialEq, Eq)]
pub enum PairAnswer {
    /// Done: here is the handle.
    Paired(Paired),
    /// The relay wants a proof: the handle travels through the channel that it opens.
    TravelsToDevice,
}

/// A pairing. The handle and the endpoint are capabilities.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Paired {
    /// The device, sealed by the relay.
    pub handle: String,
    /// The push resource of the application door.
    pub endpoint: String,
    /// RFC 3339, UTC.
    pub expires_at: String,
    /// The largest body that this app and service take, in bytes.
    pub max_body_bytes: usize,
}

/// What the relay says of an app.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AppInfo {
    /// The app's name.
    pub app: String,
    /// The key that browsers subscribe with, in base64url; `None` without Web Push.
    pub application_server_key: Option<String>,
    /// The configured push services, by name.
    pub services: BTreeMap<String, ServiceInfo>,
}

/// What the relay says of one push service of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ServiceInfo {
    /// The largest body, in bytes.
    pub max_body_bytes: usize,
}

/// One message for the application door (RFC 8030 §5).
#[derive(Clone)]
pub struct Message {
    /// How long the push service keeps it for a device that is offline, in seconds.
    pub ttl_s: u32,
    /// How soon the device must see it.
    pub urgency: Urgency,
    /// Messages of one topic replace each other.
    pub topic: Option<String>,
    /// The sealed body, an `aes128gcm` coding.
    pub body: Bytes,
}

/// RFC 8030 §5.3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Urgency {
    /// On power and Wi-Fi.
    VeryLow,
    /// On either power or Wi-Fi.
    Low,
    /// On neither.
    #[default]
    Normal,
    /// Also on low battery.
    High,
}

/// What became of a message at the application door.
#[derive(Clone, PartialEq, Eq)]
pub struct PushAnswer {
    /// The HTTP status.
    pub status: u16,
    /// What it means.
    pub outcome: Outcome,
    /// The stable code; `None` when accepted.
    pub code: Option<String>,
    /// The header or member at fault, when refused.
    pub field: Option<String>,
    /// Where the accepted message is.
    pub location: Option<String>,
    /// How long to wait before the next try, in seconds.
    pub retry_after_s: Option<u64>,
    /// Since when the device is gone, RFC 3339: a pairing made later is good.
    pub gone_since: Option<String>,
    /// The handle that takes the place of the one used.
    pub renewed_handle: Option<String>,
}

/// The six ways in which a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The push service took it: done.
    Accepted,
    /// The device is dead for that app: drop the pairing, unless it was made since.
    Gone,
    /// Try again later.
    NotNow,
    /// The sender's fault: mend it, do not retry.
    Refused,
    /// The operator's fault: retry much later.
    Misconfigured,
    /// Sent, no answer: retry with the same id.
    Unknown,
}

/// One notification for the NAS door.
#[derive(Clone, Serialize)]
pub struct Notification {
    /// The same over every retry, which makes a retry harmless.
    pub id: Uuid,
    /// Which system speaks.
    pub source: Source,
    /// How grave it is.
    pub level: Level,
    /// How long the push services keep it, in seconds.
    pub ttl_s: u32,
    /// Notifications of one key replace each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collapse_key: Option<String>,
    /// Whether the device may make a sound.
    pub sound: bool,
    /// The plain text, where the app allows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Content>,
    /// The devices.
    pub targets: Vec<Target>,
}

/// Which system a notification comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// DiskStation Manager.
    Dsm,
    /// Synology Router Manager.
    Srm,
    /// Surveillance Station.
    Surveillance,
}

/// How grave a notification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Good to know.
    Info,
    /// Look at it.
    Warn,
    /// Act now.
    Error,
}

/// A notification's plain text.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Content {
    /// The event's name, a key into the app's own strings.
    pub tag: String,
    /// The event's category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The NAS application that speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The headline.
    pub title: String,
    /// The text.
    pub text: String,
    /// What the app's own strings are filled with (`%HOSTNAME%`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vars: BTreeMap<String, String>,
}

/// One device that a notification goes to.
#[derive(Clone, Serialize)]
pub struct Target {
    /// The device.
    pub handle: String,
    /// The body sealed for it.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_as_base64url")]
    pub sealed: Option<Bytes>,
}

/// What became of a notification for one device.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct TargetResult {
    /// What it means.
    pub outcome: Outcome,
    /// The stable code.
    #[serde(default)]
    pub reason: Option<String>,
    /// The push service's own id of the message.
    #[serde(default)]
    pub provider_message_id: Option<String>,
    /// How long to wait before the next try, in seconds.
    #[serde(default)]
    pub retry_after_s: Option<u64>,
    /// Since when the device is gone, RFC 3339: a pairing made later is good.
    #[serde(default)]
    pub gone_since: Option<String>,
    /// The handle that takes the place of the one used.
    #[serde(default)]
    pub renewed_handle: Option<String>,
}

// === impl TargetResult ===

impl TargetResult {
    /// Gives the plain good outcome.
    pub const fn accepted() -> Self {
        Self {
            outcome: Outcome::Accepted,
            reason: None,
            provider_message_id: None,
            retry_after_s: None,
            gone_since: None,
            renewed_handle: None,
        }
    }
}

// === impl Source ===

impl Source {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Dsm, Self::Srm, Self::Surveillance];

    /// Gives the name that the contract has for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Dsm => "dsm",
            Self::Srm => "srm",
            Self::Surveillance => "surveillance",
        }
    }

    /// Finds a source by its name.
    pub fn of(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.label() == label)
    }
}

// === impl Level ===

impl Level {
    /// All of them, the least grave first.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warn, Self::Error];

    /// Gives the name that the contract has for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// Finds a level by its name.
    pub fn of(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.label() == label)
    }

    /// Gives how grave it is as a number: 0, 1, 2.
    pub const fn rank(self) -> i64 {
        match self {
            Self::Info => 0,
            Self::Warn => 1,
            Self::Error => 2,
        }
    }

    /// Finds a level by its rank; what is out of range is as near as can be.
    pub const fn of_rank(rank: i64) -> Self {
        match rank {
            ..=0 => Self::Info,
            1 => Self::Warn,
            2.. => Self::Error,
        }
    }
}

// === impl PairAnswer ===

impl PairAnswer {
    /// Gives the pairing, if it is done.
    pub fn paired(self) -> Option<Paired> {
        match self {
            Self::Paired(paired) => Some(paired),
            Self::TravelsToDevice => None,
        }
    }
}

// === impl Urgency ===

impl Urgency {
    /// Gives the value of the header `Urgency`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::VeryLow => "very-low",
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// Gives the name that the contract has for it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Gone => "gone",
            Self::NotNow => "not_now",
            Self::Refused => "refused",
            Self::Misconfigured => "misconfigured",
            Self::Unknown => "unknown",
        }
    }

    /// Reads the outcome from the application door's status; `None` for one it never gives.
    pub const fn of_status(status: u16) -> Option<Self> {
        match status {
            201 => Some(Self::Accepted),
            410 => Some(Self::Gone),
            429 | 503 => Some(Self::NotNow),
            400..=499 => Some(Self::Refused),
            502 => Some(Self::Misconfigured),
            504 => Some(Self::Unknown),
            _ => None,
        }
    }
}

fn as_base64url<S: Serializer>(bytes: &[u8; 65], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&base64url::encode(bytes))
}

fn some_as_base64url<S: Serializer>(bytes: &Option<Bytes>, to: S) -> Result<S::Ok, S::Error> {
    bytes.as_ref().map(base64url::encode).serialize(to)
}
