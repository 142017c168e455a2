//! One notification request, header by header and then its payload.
//!
//! In: a request and the topics that its sender may use. Out: the notification, or Apple's reason
//! against it. Stricter than Apple in one place: an expiration that can only be a relative time or
//! milliseconds is refused, since Apple would silently drop or keep the message.

use http::{HeaderMap, Method};
use serde_json::{Map, Value};

use super::super::script::Answer;
use super::super::server::Received;
use super::error;

/// A request that has passed every check.
pub(crate) struct Notification {
    pub(crate) token: String,
    pub(crate) topic: String,
    pub(crate) payload: Value,
}

/// Push types with the suffix that their topic carries.
const PUSH_TYPES: &[(&str, &str)] = &[
    ("alert", ""),
    ("background", ""),
    ("voip", ".voip"),
    ("complication", ".complication"),
    ("fileprovider", ".pushkit.fileprovider"),
    ("location", ".location-query"),
    ("liveactivity", ".push-type.liveactivity"),
    ("pushtotalk", ".voip-ptt"),
    ("widgets", ".push-type.widgets"),
    ("controls", ".push-type.controls"),
];

const DEVICE_PATH: &str = "/3/device/";
const TOKEN_DIGITS_MAX: usize = 200;
const COLLAPSE_ID_BYTES_MAX: usize = 64;
const PAYLOAD_BYTES_MAX: usize = 4096;
const VOIP_PAYLOAD_BYTES_MAX: usize = 5120;
const DAY_S: i64 = 86_400;
const EXPIRATION_AHEAD_MAX_S: i64 = 366 * DAY_S;

/// The device token in the path, lower case.
pub(crate) fn device_token(received: &Received) -> Result<String, Answer> {
    let token = received.path.strip_prefix(DEVICE_PATH).ok_or_else(|| error(404, "BadPath"))?;
    if received.method != Method::POST {
        return Err(error(405, "MethodNotAllowed"));
    }
    if token.is_empty() {
        return Err(error(400, "MissingDeviceToken"));
    }
    let is_hex = token.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex || token.len() % 2 == 1 || token.len() > TOKEN_DIGITS_MAX {
        return Err(error(400, "BadDeviceToken"));
    }
    Ok(token.to_lowercase())
}

/// Refuses a header of Apple's that is sent twice.
pub(crate) fn check_duplicates(headers: &HeaderMap) -> Result<(), Answer> {
    let is_ours = |name: &str| name.starts_with("apns-") || name == "authorization";
    let mut names = headers.keys().filter(|name| is_ours(name.as_str()));
    if names.any(|name| headers.get_all(name).iter().count() > 1) {
        return Err(error(400, "DuplicateHeaders"));
    }
    Ok(())
}

impl Notification {
    /// Checks headers, then payload; `own_topic` is the default that a client certificate gives.
    pub(crate) fn parse(
        token: String,
        received: &Received,
        topics: &[String],
        own_topic: Option<&String>,
        now_s: i64,
    ) -> Result<Notification, Answer> {
        let headers = &received.headers;
        let push_type = text(headers, "apns-push-type").unwrap_or_default();
        let suffix = PUSH_TYPES.iter().find(|(name, _)| *name == push_type);
        let (_, suffix) = suffix.ok_or_else(|| error(400, "InvalidPushType"))?;
        let topic = check_topic(headers, suffix, topics, own_topic)?;
        check_id(headers)?;
        check_expiration(headers, now_s)?;
        check_priority(headers, push_type)?;
        check_collapse_id(headers)?;
        let payload = check_payload(&received.body, push_type)?;
        Ok(Notification { token, topic, payload })
    }
}

fn check_topic(
    headers: &HeaderMap,
    suffix: &str,
    topics: &[String],
    own_topic: Option<&String>,
) -> Result<String, Answer> {
    let topic = match (text(headers, "apns-topic"), own_topic) {
        (Some(topic), _) => topic,
        (None, Some(own)) => return Ok(own.clone()),
        (None, None) => return Err(error(400, "MissingTopic")),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    if topic.is_empty() || !topic.bytes().all(is_name) {
        return Err(error(400, "BadTopic"));
    }
    let bundle = topic.strip_suffix(suffix).ok_or_else(|| error(400, "BadTopic"))?;
    if topics.iter().all(|known| known != bundle) {
        return Err(error(400, "TopicDisallowed"));
    }
    Ok(bundle.to_owned())
}

fn check_id(headers: &HeaderMap) -> Result<(), Answer> {
    let Some(value) = headers.get("apns-id") else { return Ok(()) };
    let id = value.to_str().unwrap_or_default();
    let is_canonical = uuid::Uuid::parse_str(id).is_ok_and(|uuid| uuid.to_string() == id);
    if is_canonical { Ok(()) } else { Err(error(400, "BadMessageId")) }
}

fn check_expiration(headers: &HeaderMap, now_s: i64) -> Result<(), Answer> {
    let Some(value) = headers.get("apns-expiration") else { return Ok(()) };
    let digits = value.to_str().unwrap_or_default();
    let is_digits = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = digits.parse::<i64>().ok().filter(|_| is_digits);
    let plausible = now_s - DAY_S..=now_s + EXPIRATION_AHEAD_MAX_S;
    match seconds {
        Some(seconds) if seconds == 0 || plausible.contains(&seconds) => Ok(()),
        _ => Err(error(400, "BadExpirationDate")),
    }
}

fn check_priority(headers: &HeaderMap, push_type: &str) -> Result<(), Answer> {
    let priority = match headers.get("apns-priority") {
        None => "10",
        Some(value) => value.to_str().unwrap_or_default(),
    };
    let is_good = match push_type {
        "background" => priority == "5",
        _ => matches!(priority, "1" | "5" | "10"),
    };
    if is_good { Ok(()) } else { Err(error(400, "BadPriority")) }
}

fn check_collapse_id(headers: &HeaderMap) -> Result<(), Answer> {
    let Some(value) = headers.get("apns-collapse-id") else { return Ok(()) };
    let bytes = value.as_bytes().len();
    if (1..=COLLAPSE_ID_BYTES_MAX).contains(&bytes) {
        Ok(())
    } else {
        Err(error(400, "BadCollapseId"))
    }
}

fn check_payload(body: &[u8], push_type: &str) -> Result<Value, Answer> {
    let bytes_max = if push_type == "voip" { VOIP_PAYLOAD_BYTES_MAX } else { PAYLOAD_BYTES_MAX };
    if body.len() > bytes_max {
        return Err(error(413, "PayloadTooLarge"));
    }
    let empty = || error(400, "PayloadEmpty");
    let payload: Value = serde_json::from_slice(body).map_err(|_| empty())?;
    let aps = payload.get("aps").and_then(Value::as_object).ok_or_else(empty)?;
    let fits = match push_type {
        "background" => is_background(aps),
        "alert" => ["alert", "badge", "sound"].iter().any(|key| aps.contains_key(*key)),
        _ => true,
    };
    if fits { Ok(payload) } else { Err(error(400, "InvalidPushType")) }
}

/// A background push holds `content-available: 1` and nothing that the user would notice.
fn is_background(aps: &Map<String, Value>) -> bool {
    aps.len() == 1 && aps.get("content-available").and_then(Value::as_i64) == Some(1)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default())
}
