//! Speaks to the relay over HTTP: enrols, pairs, pushes, notifies.
//!
//! In: the relay's URL, a key, and what to say. Out: the relay's answer as a value, or a
//! [`ClientError`] typed by blame. One attempt per call: whoever calls owns the retry. Signs a
//! token per key and origin and keeps it (`vapid::Tokens`). Never logs.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, LOCATION};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::key::SenderKey;
use crate::vapid::{Audience, Tokens};

pub mod answer;

pub mod line;

pub mod message;

mod transport;

pub use answer::{ClientError, Problem};
pub use line::{Line, LineError};
pub use message::{
    AppInfo, Channel, Enrolled, Enrolment, Identity, Message, Notification, Outcome, PairAnswer,
    Paired, Pairing, PushAnswer, TargetResult,
};

use transport::{Answer, Transport};

/// The longest that a call takes unless told otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// One relay, with pooled connections and kept tokens.
pub struct RelayClient {
    base_url: String,
    audience: Audience,
    timeout: Duration,
    transport: Transport,
    tokens: Arc<Tokens>,
}

const RENEWED_HANDLE: HeaderName = HeaderName::from_static("sns-renewed-handle");
const TOPIC: HeaderName = HeaderName::from_static("topic");
const TTL: HeaderName = HeaderName::from_static("ttl");
const URGENCY: HeaderName = HeaderName::from_static("urgency");

const BAD_URL: &str = "an http or https URL";

/// The answer of the NAS door: one result per target, in order.
#[derive(Deserialize)]
struct Results {
    results: Vec<TargetResult>,
}

// === impl RelayClient ===

impl RelayClient {
    /// Makes a client for the relay at `base_url`, its `public_url`; connects to nothing yet.
    /// Shape: trusts the machine's own CAs and those in `extra_ca_pem`.
    /// Errors: `BadArgument`, `BadCa`.
    pub fn new(base_url: &str, extra_ca_pem: Option<&[u8]>) -> Result<Self, ClientError> {
        let bad_url = ClientError::BadArgument { name: "base_url", expected: BAD_URL };
        Ok(Self {
            base_url: base_url.trim_end_matches('/').to_owned(),
            audience: Audience::of_url(base_url).map_err(|_| bad_url)?,
            timeout: DEFAULT_TIMEOUT,
            transport: Transport::new(extra_ca_pem)?,
            tokens: Arc::default(),
        })
    }

    /// Sets the longest that a call takes, connection included.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Enrols a key as a NAS; the same key again gives the same identity.
    pub async fn enrol(
        &self,
        key: &SenderKey,
        enrolment: &Enrolment,
    ) -> Result<Enrolled, ClientError> {
        let answer = self.call(Method::POST, "/v1/nas", Some(key), Some(enrolment)).await?;
        let enrolled: Enrolled = answer.json("an enrolled identity")?;
        Ok(Enrolled { created: answer.status == StatusCode::CREATED, ..enrolled })
    }

    /// Reads the relay's record of this NAS.
    pub async fn identity(&self, key: &SenderKey) -> Result<Identity, ClientError> {
        self.call::<()>(Method::GET, "/v1/nas/self", Some(key), None).await?.json("an identity")
    }

    /// Puts `new` in the place of `old`; the NAS keeps its `ds_id`.
    /// Keep `new` on disk beforehand: once this returns, `old` is worth nothing.
    pub async fn rotate_key(&self, old: &SenderKey, new: &SenderKey) -> Result<(), ClientError> {
        let proof = self.tokens.authorization(new, &self.audience, now_unix_s())?;
        let body = json!({"new_key": new.public_base64url(), "proof": proof});
        self.call(Method::PUT, "/v1/nas/self/key", Some(old), Some(&body)).await?.check()
    }

    /// Pairs a device with a sender key.
    pub async fn pair(&self, pairing: &Pairing) -> Result<PairAnswer, ClientError> {
        let answer = self.call(Method::POST, "/v1/pairings", None, Some(pairing)).await?;
        if answer.status == StatusCode::ACCEPTED {
            return Ok(PairAnswer::TravelsToDevice);
        }
        answer.json("a pairing").map(PairAnswer::Paired)
    }

    /// Asks what an app takes: its push services, body sizes and Web Push key.
    pub async fn app(&self, name: &str) -> Result<AppInfo, ClientError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(ClientError::BadArgument { name: "app", expected: "an app's name" });
        }
        let path = format!("/v1/apps/{name}");
        self.call::<()>(Method::GET, &path, None, None).await?.json("an app")
    }

    /// Pushes one sealed message to a handle's endpoint (the application door, RFC 8030 §5).
    /// Shape: every outcome is an answer; an error means that the relay said nothing about it.
    /// Errors: `Malformed` also when a refusal is not the relay's own.
    pub async fn push(
        &self,
        endpoint: &str,
        key: &SenderKey,
        message: &Message,
    ) -> Result<PushAnswer, ClientError> {
        let bad_url = || ClientError::BadArgument { name: "endpoint", expected: BAD_URL };
        let uri: Uri = endpoint.parse().map_err(|_| bad_url())?;
        let audience = Audience::of_uri(&uri).ok_or_else(bad_url)?;
        let mut request = request(Method::POST, uri, message.body.clone());
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.authorization(key, &audience)?);
        headers.insert(TTL, message.ttl_s.into());
        headers.insert(URGENCY, HeaderValue::from_static(message.urgency.label()));
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("aes128gcm"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if let Some(topic) = &message.topic {
            headers.insert(TOPIC, header_value("topic", topic)?);
        }
        push_answer(&self.transport.send(request, self.timeout).await?)
    }

    /// Sends one notification to its targets (the NAS door).
    /// Shape: one result per target, in order.
    pub async fn notify(
        &self,
        key: &SenderKey,
        notification: &Notification,
    ) -> Result<Vec<TargetResult>, ClientError> {
        let path = "/v1/notifications";
        let answer = self.call(Method::POST, path, Some(key), Some(notification)).await?;
        let results = answer.json::<Results>("a list of results")?.results;
        if results.len() != notification.targets.len() {
            return Err(answer.malformed("one result per target"));
        }
        Ok(results)
    }

    /// Makes a line for a key: many messages over one gRPC call.
    /// Must be called within a tokio runtime.
    /// Errors: `BadArgument`.
    pub fn line(&self, key: &Arc<SenderKey>) -> Result<Line, ClientError> {
        let bad_url = |_| ClientError::BadArgument { name: "base_url", expected: BAD_URL };
        let origin = self.base_url.parse().map_err(bad_url)?;
        let (tokens, audience) = (Arc::clone(&self.tokens), self.audience.clone());
        let key = Arc::clone(key);
        let signer = move || {
            let token = tokens.authorization(&key, &audience, now_unix_s()).ok()?;
            token.parse().ok()
        };
        Ok(Line::new(self.transport.calls(), origin, Arc::new(signer), self.timeout))
    }

    async fn call<T: Serialize>(
        &self,
        method: Method,
        path: &str,
        key: Option<&SenderKey>,
        body: Option<&T>,
    ) -> Result<Answer, ClientError> {
        let uri = format!("{}{path}", self.base_url).parse();
        let uri =
            uri.map_err(|_| ClientError::BadArgument { name: "base_url", expected: BAD_URL })?;
        let json = body.map(serde_json::to_vec).transpose();
        let json = json
            .map_err(|_| ClientError::BadArgument { name: "body", expected: "JSON" })?
            .unwrap_or_default();
        let mut request = request(method, uri, json.into());
        let headers = request.headers_mut();
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(key) = key {
            headers.insert(AUTHORIZATION, self.authorization(key, &self.audience)?);
        }
        self.transport.send(request, self.timeout).await
    }

    fn authorization(
        &self,
        key: &SenderKey,
        audience: &Audience,
    ) -> Result<HeaderValue, ClientError> {
        let token = self.tokens.authorization(key, audience, now_unix_s())?;
        let mut value = header_value("authorization", &token)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

fn push_answer(answer: &Answer) -> Result<PushAnswer, ClientError> {
    let status = answer.status.as_u16();
    let outcome = Outcome::of_status(status)
        .ok_or_else(|| answer.malformed("one that the application door gives"))?;
    let problem = match outcome {
        Outcome::Accepted => None,
        _ => Some(answer.problem()?),
    };
    let problem = problem.as_ref();
    Ok(PushAnswer {
        status,
        outcome,
        code: problem.map(|problem| problem.code.clone()),
        field: problem.and_then(|problem| problem.field.clone()),
        location: answer.header(&LOCATION),
        retry_after_s: problem.and_then(|problem| problem.retry_after_s),
        gone_since: problem.and_then(|problem| problem.gone_since.clone()),
        renewed_handle: answer.header(&RENEWED_HANDLE),
    })
}

fn request(method: Method, uri: Uri, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    request
}

fn header_value(name: &'static str, text: &str) -> Result<HeaderValue, ClientError> {
    let expected = "fit for an HTTP header";
    HeaderValue::from_str(text).map_err(|_| ClientError::BadArgument { name, expected })
}

/// A clock before 1970 is as wrong as one at 1970: either way the relay says so.
fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
