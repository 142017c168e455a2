//! Reads a `messages:send` body as strictly as Google's proto3 JSON parser and FCM behind it.
//!
//! In: bytes. Out: one message for one token, or Google's refusal: `BadRequest` for malformed JSON
//! (unknown field, wrong type), `FcmError INVALID_ARGUMENT` for values that FCM refuses. Both
//! spellings of a field name are read. Source: discovery document `fcm:v1`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::super::script::Answer;
use super::{bad_request, invalid_argument};

/// A message that has passed every check.
pub(crate) struct Message {
    pub(crate) token: String,
    pub(crate) data: BTreeMap<String, String>,
    pub(crate) whole: Value,
    pub(crate) validate_only: bool,
}

const MESSAGE_FIELDS: &[&str] = &[
    "token",
    "fid",
    "topic",
    "condition",
    "data",
    "notification",
    "android",
    "apns",
    "webpush",
    "fcm_options",
];
const ANDROID_FIELDS: &[&str] = &[
    "collapse_key",
    "priority",
    "ttl",
    "restricted_package_name",
    "data",
    "notification",
    "fcm_options",
    "direct_boot_ok",
    "bandwidth_constrained_ok",
    "restricted_satellite_ok",
];
const TARGETS: [&str; 4] = ["token", "fid", "topic", "condition"];
const PRIORITIES: [&str; 4] = ["NORMAL", "HIGH", "normal", "high"];
const RESERVED_KEYS: [&str; 2] = ["from", "message_type"];
const RESERVED_PREFIXES: [&str; 2] = ["google", "gcm"];
const PAYLOAD_BYTES_MAX: usize = 4096;
const TTL_MAX_S: u64 = 2_419_200;

type Fields = BTreeMap<String, Value>;

impl Message {
    pub(crate) fn parse(body: &[u8]) -> Result<Message, Answer> {
        let root: Value =
            serde_json::from_slice(body).map_err(|_| bad_request("", "not a JSON document"))?;
        let mut root = fields("", &root, &["message", "validate_only"])?;
        let validate_only = root.remove("validate_only").unwrap_or(Value::Bool(false));
        let validate_only =
            validate_only.as_bool().ok_or_else(|| bad_request("validate_only", "not a boolean"))?;
        let whole = root.remove("message").ok_or_else(|| invalid_argument("message is missing"))?;
        let message = fields("message", &whole, MESSAGE_FIELDS)?;
        let token = token(&message)?;
        let mut data = strings("message.data", message.get("data"))?;
        if let Some(android) = message.get("android") {
            let android = fields("message.android", android, ANDROID_FIELDS)?;
            check_android(&android)?;
            let own = strings("message.android.data", android.get("data"))?;
            if !own.is_empty() {
                data = own;
            }
        }
        check_data(&data)?;
        let notification = message.get("notification").map_or(0, |value| value.to_string().len());
        let data_bytes: usize = data.iter().map(|(key, value)| key.len() + value.len()).sum();
        if data_bytes + notification > PAYLOAD_BYTES_MAX {
            return Err(invalid_argument("Message is too large. The maximum is 4K (4096 bytes)."));
        }
        Ok(Message { token, data, whole, validate_only })
    }
}

fn token(message: &Fields) -> Result<String, Answer> {
    let targets: Vec<_> = TARGETS.iter().filter_map(|name| message.get(*name)).collect();
    let [target] = targets.as_slice() else {
        return Err(invalid_argument("exactly one of token, fid, topic or condition is required"));
    };
    let target = target.as_str().ok_or_else(|| bad_request("message.token", "not a string"))?;
    let is_device = message.contains_key("token") || message.contains_key("fid");
    let is_token = !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_graphic());
    if is_device && !is_token {
        return Err(invalid_argument(
            "The registration token is not a valid FCM registration token",
        ));
    }
    Ok(target.to_owned())
}

fn check_data(data: &BTreeMap<String, String>) -> Result<(), Answer> {
    let is_reserved = |key: &str| {
        RESERVED_KEYS.contains(&key)
            || RESERVED_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
    };
    match data.keys().find(|key| is_reserved(key)) {
        Some(_) => Err(invalid_argument("Invalid data payload key")),
        None => Ok(()),
    }
}

fn check_android(android: &Fields) -> Result<(), Answer> {
    if let Some(ttl) = android.get("ttl") {
        let seconds = ttl.as_str().and_then(whole_seconds);
        let seconds =
            seconds.ok_or_else(|| bad_request("message.android.ttl", "not a duration"))?;
        if seconds > TTL_MAX_S {
            return Err(invalid_argument("Invalid value for TTL"));
        }
    }
    if let Some(priority) = android.get("priority")
        && !priority.as_str().is_some_and(|word| PRIORITIES.contains(&word))
    {
        return Err(bad_request("message.android.priority", "not a priority"));
    }
    for name in ["collapse_key", "restricted_package_name"] {
        if android.get(name).is_some_and(|value| !value.is_string()) {
            return Err(bad_request(&format!("message.android.{name}"), "not a string"));
        }
    }
    for name in ["direct_boot_ok", "bandwidth_constrained_ok", "restricted_satellite_ok"] {
        if android.get(name).is_some_and(|value| !value.is_boolean()) {
            return Err(bad_request(&format!("message.android.{name}"), "not a boolean"));
        }
    }
    Ok(())
}

/// Whole seconds of a proto3 JSON duration: digits, up to nine decimals, `s`; rounded down.
fn whole_seconds(text: &str) -> Option<u64> {
    let number = text.strip_suffix('s')?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    (is_digits(whole) && is_digits(decimals) && decimals.len() <= 9)
        .then(|| whole.parse().ok())
        .flatten()
}

fn strings(path: &str, value: Option<&Value>) -> Result<BTreeMap<String, String>, Answer> {
    let Some(value) = value else { return Ok(BTreeMap::new()) };
    let object = object(path, value)?;
    let entries = object.iter().enumerate().map(|(place, (key, value))| {
        let not_text = || bad_request(&format!("{path}[{place}].value"), "not a string");
        Ok((key.clone(), value.as_str().ok_or_else(not_text)?.to_owned()))
    });
    entries.collect()
}

/// The fields of an object under their snake_case names; an unknown one is refused.
fn fields(path: &str, value: &Value, known: &[&str]) -> Result<Fields, Answer> {
    let mut fields = Fields::new();
    for (name, value) in object(path, value)? {
        let snake = snake_case(name);
        if !known.contains(&snake.as_str()) {
            return Err(bad_request(path, "Unknown name: cannot find field"));
        }
        if fields.insert(snake, value.clone()).is_some() {
            return Err(bad_request(path, "field given twice"));
        }
    }
    Ok(fields)
}

fn object<'a>(path: &str, value: &'a Value) -> Result<&'a Map<String, Value>, Answer> {
    value.as_object().ok_or_else(|| bad_request(path, "not an object"))
}

fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 2);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
