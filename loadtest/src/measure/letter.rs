//! Requests for an application door, signed and sealed beforehand, so that a load costs its driver
//! little: RFC 8030 with VAPID (RFC 8292) and a body for one device (RFC 8291).
//!
//! In: a device that is paired, or a browser's own subscription. Out: requests that may be sent any
//! number of times. Says nothing about connections.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use http_body_util::Full;
use sns_nas::base64url;
use sns_nas::client::RelayClient;
use sns_nas::client::message::{Channel, Environment, Pairing, Subscription};
use sns_nas::key::SenderKey;
use sns_nas::seal::{self, BodyCap};
use sns_nas::vapid::{self, Audience};

use super::MeasureError;
use crate::device::{Device, DeviceKind};
use crate::sim::journal::MessageKey;
use crate::sim::webpush::WebPushSim;
use crate::stage::{APP, Stage};

/// One request, ready to be sent to the origin that it was signed for.
#[derive(Clone)]
pub struct Letter {
    path: PathAndQuery,
    authorization: HeaderValue,
    form: Form,
    body: Bytes,
}

/// Which door it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A sealed body for a push resource.
    Push,
    /// JSON for the NAS door.
    Json,
}

/// Who signs, for which origin.
pub struct Sender {
    key: SenderKey,
    authorization: HeaderValue,
}

const SUBJECT: &str = "mailto:load@example.com";
const TTL: HeaderName = HeaderName::from_static("ttl");
const URGENCY: HeaderName = HeaderName::from_static("urgency");

// === impl Letter ===

impl Letter {
    pub(crate) fn new(
        path: PathAndQuery,
        authorization: HeaderValue,
        form: Form,
        body: Bytes,
    ) -> Letter {
        Letter { path, authorization, form, body }
    }

    /// Gives the length of the sealed body.
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// Gives the message's key in a push service's journal.
    pub fn key(&self) -> MessageKey {
        MessageKey::sealed(&self.body)
    }

    /// Gives the request for a connection of this version to this origin.
    pub(crate) fn request(&self, origin: &Uri, version: Version) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = Some(self.path.clone());
        if version == Version::HTTP_2 {
            parts.scheme = Some(origin.scheme().cloned().unwrap_or(Scheme::HTTP));
            parts.authority = origin.authority().cloned();
        }
        // Path, and scheme with authority, are each taken from a URI that was valid.
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *request.version_mut() = version;
        let headers = request.headers_mut();
        let host = origin.authority().map(|authority| HeaderValue::from_str(authority.as_str()));
        if let (false, Some(Ok(host))) = (version == Version::HTTP_2, host) {
            headers.insert(HOST, host);
        }
        headers.insert(AUTHORIZATION, self.authorization.clone());
        if self.form == Form::Json {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            return request;
        }
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("aes128gcm"));
        headers.insert(TTL, HeaderValue::from(60));
        headers.insert(URGENCY, HeaderValue::from_static("high"));
        request
    }
}

// === impl Sender ===

impl Sender {
    /// Makes a key, and a token for an origin that is good for half a day.
    /// Errors: the origin is no URL, or no key can be made.
    pub fn new(origin: &str) -> Result<Sender, MeasureError> {
        let key = SenderKey::generate()?;
        let audience = Audience::of_url(origin).map_err(|_| MeasureError::BadUrl)?;
        let now_unix_s =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let life_s = vapid::LIFE_S_DEFAULT;
        let token = vapid::authorization(&key, &audience, Some(SUBJECT), now_unix_s, life_s)?;
        let authorization =
            HeaderValue::from_str(&token).map_err(|_| MeasureError::Missing("a VAPID token"))?;
        Ok(Sender { key, authorization })
    }

    /// Gives the key.
    pub fn key(&self) -> &SenderKey {
        &self.key
    }

    /// Gives the signed `Authorization`.
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    /// Seals a message for a device and addresses it to a push resource.
    /// Errors: it is too long, or the endpoint is no URL.
    pub fn letter(
        &self,
        device: &Device,
        endpoint: &str,
        message: &[u8],
    ) -> Result<Letter, MeasureError> {
        let body = seal::seal(&device.keys().device(), message, BodyCap::default())?;
        let uri: Uri = endpoint.parse().map_err(|_| MeasureError::BadUrl)?;
        let path = uri.path_and_query().cloned().ok_or(MeasureError::BadUrl)?;
        Ok(Letter::new(path, self.authorization.clone(), Form::Push, body.into()))
    }

    /// Pairs a new device of a kind with the relay and seals a message for it.
    /// Errors: the relay does not pair it.
    pub async fn to_new_device(
        &self,
        relay: &RelayClient,
        stage: &Stage,
        kind: DeviceKind,
        message: &[u8],
    ) -> Result<Letter, MeasureError> {
        let (device, endpoint) = self.pair(relay, stage, kind).await?;
        self.letter(&device, &endpoint, message)
    }

    /// Pairs a new device of a kind with the relay; gives it and its push resource.
    /// Errors: the relay does not pair it.
    pub async fn pair(
        &self,
        relay: &RelayClient,
        stage: &Stage,
        kind: DeviceKind,
    ) -> Result<(Device, String), MeasureError> {
        let device = self.new_device(relay, stage, kind).await?;
        let paired = relay.pair(&self.pairing(&device)).await?.paired();
        let endpoint = paired.ok_or(MeasureError::Missing("a handle"))?.endpoint;
        Ok((device, endpoint))
    }

    /// Makes a device of a kind that is not paired yet.
    /// Errors: no key can be made, or the relay has none for browsers.
    pub(super) async fn new_device(
        &self,
        relay: &RelayClient,
        stage: &Stage,
        kind: DeviceKind,
    ) -> Result<Device, MeasureError> {
        Ok(match kind {
            DeviceKind::Ios => Device::new_ios()?,
            DeviceKind::Android => Device::new_android()?,
            DeviceKind::Browser => {
                let key = relay.app(APP).await?.application_server_key;
                let key = key.and_then(|key| base64url::decode(&key)?.try_into().ok());
                let key = key.ok_or(MeasureError::Missing("a key for browsers"))?;
                Device::new_browser(&stage.webpush, key)?
            }
        })
    }

    /// Gives what pairs a device with this sender.
    pub(super) fn pairing(&self, device: &Device) -> Pairing {
        self.pairing_by(channel(device))
    }

    /// Gives what pairs the iPhone of this device token with this sender.
    pub(super) fn pairing_of_ios(&self, token: String) -> Pairing {
        self.pairing_by(Channel::Apns { token, environment: Environment::Production })
    }

    fn pairing_by(&self, channel: Channel) -> Pairing {
        Pairing { app: APP.to_owned(), channel, client: None, sender_key: self.key.public() }
    }

    /// Subscribes a new browser with this sender's own key and seals a message for it: no relay.
    /// Errors: no key can be made.
    pub fn to_new_browser(
        &self,
        webpush: &WebPushSim,
        message: &[u8],
    ) -> Result<Letter, MeasureError> {
        let device = Device::new_browser(webpush, self.key.public())?;
        self.letter(&device, device.address(), message)
    }
}

fn channel(device: &Device) -> Channel {
    let address = device.address().to_owned();
    match device.kind() {
        DeviceKind::Ios => Channel::Apns { token: address, environment: Environment::Production },
        DeviceKind::Android => Channel::Fcm { token: address },
        DeviceKind::Browser => {
            Channel::WebPush { subscription: Subscription { endpoint: address, keys: None } }
        }
    }
}
