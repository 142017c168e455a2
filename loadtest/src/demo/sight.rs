//! What a push service saw of one message: the request itself, from its own journal.

use http::HeaderMap;
use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT,
};
use serde_json::Value;
use sns_nas::base64url;

use super::cast::PairedDevice;
use crate::device::DeviceKind;
use crate::sim::journal::{Entry, StreamOutcome};
use crate::stage::Stage;

/// One request as the push service received it.
pub(super) struct Sight {
    /// Who saw it.
    pub(super) push_service: &'static str,
    /// Method and path, long parts shortened.
    pub(super) request: String,
    /// The headers that carry meaning, long values shortened.
    pub(super) headers: Vec<String>,
    /// The body, long parts shortened.
    pub(super) body: String,
    /// What it answered.
    pub(super) status: Option<u16>,
}

/// What every HTTP request carries, which says nothing about a push.
const PLUMBING: [http::HeaderName; 5] =
    [ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT];

/// A UUID and a collapse key are shown whole.
const WHOLE_CHARS: usize = 44;
const SHOWN_CHARS: usize = 14;

// === impl Sight ===

impl Sight {
    /// Finds the last request for a device.
    pub(super) fn of_last(stage: &Stage, to: &PairedDevice) -> Option<Self> {
        let address = to.device.address();
        let (entries, name) = match to.device.kind() {
            DeviceKind::Ios => (stage.apns.journal().entries(), address),
            DeviceKind::Android => (stage.fcm.journal().entries(), address),
            DeviceKind::Browser => (
                stage.webpush.journal().entries(),
                address.strip_prefix(stage.webpush.base_url()).unwrap_or(address),
            ),
        };
        let is_for = |entry: &&Entry| entry.path.contains(name) || holds(&entry.body, name);
        let entry = entries.iter().rev().find(is_for)?;
        let status = match entry.outcome {
            StreamOutcome::Answered(status) => Some(status),
            _ => None,
        };
        Some(Self {
            push_service: to.push_service(),
            request: format!("{} {}", entry.method, shortened_path(&entry.path)),
            headers: headers(&entry.headers),
            body: body(&entry.body),
            status,
        })
    }
}

/// Whether bytes hold a text.
pub(super) fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len().max(1)).any(|window| window == text.as_bytes())
}

fn shortened_path(path: &str) -> String {
    let parts: Vec<String> = path.split('/').map(|part| brief(part, SHOWN_CHARS, 24)).collect();
    parts.join("/")
}

fn brief(text: &str, shown_chars: usize, from_chars: usize) -> String {
    if text.chars().count() < from_chars {
        return text.to_owned();
    }
    text.chars().take(shown_chars).chain(['…']).collect()
}

fn headers(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<String> = headers
        .iter()
        .filter(|(name, _)| !PLUMBING.contains(*name))
        .map(|(name, value)| {
            let from_chars = if name == AUTHORIZATION { 20 } else { WHOLE_CHARS };
            let value = String::from_utf8_lossy(value.as_bytes());
            let words: Vec<String> =
                value.split(' ').map(|word| brief(word, SHOWN_CHARS, from_chars)).collect();
            format!("{name}: {}", words.join(" "))
        })
        .collect();
    lines.sort();
    lines
}

fn body(bytes: &[u8]) -> String {
    let Ok(mut json) = serde_json::from_slice::<Value>(bytes) else {
        let shown = base64url::encode(&bytes[..bytes.len().min(24)]);
        return format!("{shown}… ({} bytes of ciphertext)", bytes.len());
    };
    shorten_json(&mut json, "");
    // With spaces, lines break between members and not within them.
    json.to_string().replace(",\"", ", \"").replace("\":", "\": ")
}

fn shorten_json(json: &mut Value, member: &str) {
    match json {
        Value::Object(members) => {
            for (name, value) in members {
                shorten_json(value, name);
            }
        }
        Value::String(text) if member == "e" => {
            let ciphertext_bytes = base64url::decode(text).map_or(0, |bytes| bytes.len());
            *text = format!("{} ({ciphertext_bytes} bytes of ciphertext)", brief(text, 32, 0));
        }
        Value::String(text) => *text = brief(text, SHOWN_CHARS, WHOLE_CHARS),
        _ => {}
    }
}
