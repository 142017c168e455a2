//! The JSON of the doors: what a body may hold, and nothing behind the doors knows.
//!
//! Every request refuses unknown members. The OpenAPI description is generated from these structs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/nas`: a NAS enrols the key that signed the request.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrolRequest {
    /// The model's name, 1 to 64 bytes of printable ASCII.
    #[schema(example = "DS923+")]
    pub model: String,
    /// The serial number, 1 to 64 bytes of printable ASCII; only its keyed hash is stored.
    pub serial: String,
    /// Read and dropped.
    #[serde(default)]
    pub os_version: Option<String>,
    /// Read and dropped.
    #[serde(default)]
    pub unique_ids: Option<Vec<String>>,
    /// A one-time token of the operator's, where the enrolment policy is `token`.
    #[serde(default)]
    pub enrolment_token: Option<String>,
}

/// The answer to an enrolment.
#[derive(Serialize, ToSchema)]
pub struct EnrolAnswer {
    /// The NAS's permanent id.
    pub ds_id: String,
    /// RFC 3339, UTC.
    pub enrolled_at: String,
}

/// `GET /v1/nas/self`: the record exactly as stored.
#[derive(Serialize, ToSchema)]
pub struct NasRecord {
    /// The NAS's permanent id.
    pub ds_id: String,
    /// SHA-256 of the public key, base64url.
    pub key_thumbprint: String,
    /// The public key, base64url.
    pub public_key: String,
    /// HMAC-SHA-256 of the serial number, base64url.
    pub serial_tag: String,
    /// The model's name.
    pub model: String,
    /// RFC 3339, UTC.
    pub enrolled_at: String,
    /// `active` or `suspended`.
    pub status: &'static str,
}

/// `PUT /v1/nas/self/key`: a NAS changes its key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyRequest {
    /// The new public key: uncompressed P-256 point, base64url.
    pub new_key: String,
    /// A VAPID authorization by the new key: `vapid t=…, k=…`.
    pub proof: String,
}

/// `POST /v1/pairings`: an app or browser pairs its device with a sender's key.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PairRequest {
    /// The app's name at this relay.
    #[schema(example = "chat")]
    pub app: String,
    /// `apns`, `fcm`, `webpush` or `email`.
    #[schema(example = "fcm")]
    pub service: String,
    /// The device token, for `apns` and `fcm`.
    #[serde(default)]
    pub token: Option<String>,
    /// The subscription, for `webpush`.
    #[serde(default)]
    pub subscription: Option<Subscription>,
    /// The mail address, for `email`: its handle is mailed to it.
    #[serde(default)]
    pub address: Option<String>,
    /// `production` or `sandbox`, for `apns`; production by default.
    #[serde(default)]
    pub environment: Option<String>,
    /// Of the app and its system; read and dropped.
    #[serde(default)]
    pub client: Option<Client>,
    /// The only key that may use the handle: uncompressed P-256 point, base64url.
    pub sender_key: String,
}

/// A Web Push subscription, as `PushSubscription.toJSON()` gives it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// The push resource.
    pub endpoint: String,
    /// Read and dropped.
    #[serde(default, rename = "expirationTime")]
    pub expiration_time: Option<u64>,
    /// The sender's business, not the relay's: read and dropped.
    #[serde(default)]
    pub keys: Option<SubscriptionKeys>,
}

/// The keys of a subscription.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionKeys {
    /// The browser's public key.
    #[serde(default)]
    pub p256dh: Option<String>,
    /// The browser's secret.
    #[serde(default)]
    pub auth: Option<String>,
}

/// What the client says of itself.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Client {
    /// The app's name.
    #[serde(default)]
    pub name: Option<String>,
    /// The app's version.
    #[serde(default)]
    pub version: Option<String>,
    /// The system and its version.
    #[serde(default)]
    pub os: Option<String>,
    /// The app's own word for the device.
    #[serde(default)]
    pub device_id: Option<String>,
    /// The browser's name.
    #[serde(default)]
    pub browser: Option<String>,
}

/// The answer to a pairing.
#[derive(Serialize, ToSchema)]
pub struct PairAnswer {
    /// The device, sealed: opaque. Missing where it travels through the channel that it opens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handle: Option<String>,
    /// Where the application door takes messages for it. Missing with the handle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// RFC 3339, UTC.
    pub expires_at: String,
    /// Bytes of the largest sealed body for this device.
    pub max_body_bytes: usize,
}

/// `GET /v1/apps/{app}`: what an app and its senders must know.
#[derive(Serialize, ToSchema)]
pub struct AppAnswer {
    /// The app's name.
    pub app: String,
    /// What a browser subscribes with: base64url; null where the app has no Web Push.
    pub application_server_key: Option<String>,
    /// The push services that the app has credentials for.
    pub services: BTreeMap<&'static str, ServiceAnswer>,
}

/// One push service of an app.
#[derive(Serialize, ToSchema)]
pub struct ServiceAnswer {
    /// Bytes of the largest sealed body.
    pub max_body_bytes: usize,
}

/// `POST /v1/notifications`: a NAS notifies several devices.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifyRequest {
    /// A UUID; the same for every retry.
    pub id: String,
    /// Which system speaks.
    pub source: Source,
    /// How bad it is; `error` is urgent.
    pub level: Level,
    /// Seconds that it is worth keeping.
    pub ttl_s: u64,
    /// Notifications of one key replace each other; 1 to 64 bytes.
    #[serde(default)]
    pub collapse_key: Option<String>,
    /// Whether the device may make a sound; true by default.
    #[serde(default)]
    pub sound: Option<bool>,
    /// Plain text, only for apps that allow it.
    #[serde(default)]
    pub content: Option<PlainContent>,
    /// The devices.
    pub targets: Vec<Target>,
}

/// Which system speaks.
#[derive(Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// DiskStation Manager.
    Dsm,
    /// Synology Router Manager.
    Srm,
    /// Surveillance Station.
    Surveillance,
}

/// How bad it is.
#[derive(Deserialize, ToSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Good to know.
    Info,
    /// Look into it.
    Warn,
    /// Act now.
    Error,
}

/// The plain text of a notification.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlainContent {
    /// The event's name.
    pub tag: String,
    /// The event's category; for rules on the device.
    #[serde(default)]
    pub category: Option<String>,
    /// The package that speaks.
    #[serde(default)]
    pub app: Option<String>,
    /// The headline.
    pub title: String,
    /// The text.
    pub text: String,
    /// The event's variables.
    #[serde(default)]
    pub vars: Option<BTreeMap<String, String>>,
}

/// One device of a notification.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// From the pairing.
    pub handle: String,
    /// An aes128gcm body, base64url.
    #[serde(default)]
    pub sealed: Option<String>,
}

/// One result for each target, in order.
#[derive(Serialize, ToSchema)]
pub struct NotifyAnswer {
    /// The results.
    pub results: Vec<TargetResult>,
}

/// What became of one target.
#[derive(Serialize, ToSchema)]
pub struct TargetResult {
    /// One of the six.
    pub outcome: &'static str,
    /// The stable code, unless accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The member at fault, where it is the sender's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The push service's own id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_message_id: Option<String>,
    /// Seconds to wait at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// RFC 3339, UTC: when the push service saw the device die.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<String>,
    /// Take it in place of the old handle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewed_handle: Option<String>,
}

/// RFC 9457, with our members.
#[derive(Serialize, ToSchema)]
pub struct Problem {
    /// `urn:sns-relay:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the code means.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What the code means, with the field's name.
    pub detail: String,
    /// Stable; listed in docs/errors.md.
    pub code: &'static str,
    /// One of the six.
    pub outcome: &'static str,
    /// The header or member at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Seconds to wait at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_s: Option<u64>,
    /// RFC 3339, UTC: when the push service saw the device die.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone_since: Option<String>,
}
