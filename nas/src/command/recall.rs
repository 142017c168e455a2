//! `recall` and `status`: what was sent, what became of it, what waits.

use serde_json::{Value, json};
use sns_nas::client::message::{Level, Source};
use sns_nas::clock;
use sns_nas::content::{Body, Event};
use sns_nas::journal::recall::{Fate, Query, Record};
use uuid::Uuid;

use super::say::{parse_level, parse_source};
use super::{Failure, Place, enrol, parse_since, print};

#[derive(clap::Args)]
pub(super) struct Recall {
    /// Sent since then: 2h, 7d, or a time in RFC 3339.
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<u64>,
    /// From this system: dsm, srm or surveillance.
    #[arg(long, value_parser = parse_source)]
    source: Option<Source>,
    /// As grave as this, or graver: info, warn or error.
    #[arg(long, value_parser = parse_level)]
    level: Option<Level>,
    /// With these words in it.
    #[arg(long, value_name = "WORDS")]
    search: Option<String>,
    /// This one alone, with what withdrew or replaced it.
    #[arg(long, value_name = "UUID")]
    id: Option<Uuid>,
    /// The newest so many; 0 for all.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    count: usize,
    /// As JSON, one object per line.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(super) struct Status {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

// === impl Recall ===

impl Recall {
    pub(super) fn run(self, place: &Place) -> Result<(), Failure> {
        let query = Query {
            since_ms: self.since.unwrap_or(0),
            source: self.source,
            level_min: self.level,
            search: self.search,
            id: self.id,
            count_max: self.count,
        };
        let records = place.journal()?.recall(&query, clock::now_unix_ms())?;
        let line = |record: &Record| {
            if self.json { format!("{}\n", json_of(record)) } else { text_of(record) }
        };
        print(records.iter().map(line).collect::<String>())
    }
}

// === impl Status ===

impl Status {
    pub(super) fn run(self, place: &Place) -> Result<(), Failure> {
        let journal = place.journal()?;
        let counts = journal.counts()?;
        let devices = journal.devices()?;
        let gone = devices.iter().filter(|device| device.gone_ms.is_some()).count();
        let runs = std::os::unix::net::UnixStream::connect(place.socket()).is_ok();
        let deliveries: serde_json::Map<String, Value> =
            counts.deliveries.iter().map(|(state, n)| (state.clone(), json!(n))).collect();
        let status = json!({
            "ds_id": journal.setting(enrol::DS_ID)?,
            "enrolled_at": journal.setting(enrol::ENROLLED_AT)?,
            "relay": journal.setting(enrol::RELAY_URL)?,
            "daemon": if runs { "runs" } else { "does not run" },
            "devices": devices.len(),
            "devices_gone": gone,
            "notifications": counts.notifications,
            "deliveries": deliveries,
            "oldest_waiting": counts.oldest_pending_ms.map(clock::rfc3339),
            "dropped_for_graver": counts.dropped,
            "file_bytes": journal.file_bytes(),
        });
        if self.json {
            return print(format!("{status}\n"));
        }
        let mut text = String::new();
        for (name, value) in status.as_object().into_iter().flatten() {
            let value = match value {
                Value::Null => "-".to_owned(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            text.push_str(&format!("{name}\t{value}\n"));
        }
        print(text)
    }
}

fn json_of(record: &Record) -> Value {
    let mut value = json!({
        "id": record.content.id,
        "kind": record.content.body.kind(),
        "level": record.level.label(),
        "written_at": clock::rfc3339(record.written_ms),
        "expires_at": clock::rfc3339(record.expires_ms),
        "deliveries": record.deliveries.iter().map(fate_of).collect::<Vec<_>>(),
    });
    match &record.content.body {
        Body::Message(letter) => {
            value["app"] = json!(letter.app);
            value["title"] = json!(letter.title);
            value["text"] = json!(letter.text);
        }
        Body::Notification(event) => add_event(&mut value, event),
        Body::Withdraw(original) => value["original"] = json!(original),
        Body::Replace(original, event) => {
            value["original"] = json!(original);
            add_event(&mut value, event);
        }
    }
    value
}

fn add_event(value: &mut Value, event: &Event) {
    value["source"] = json!(event.source.label());
    value["tag"] = json!(event.tag);
    value["category"] = json!(event.category);
    value["app"] = json!(event.app);
    value["title"] = json!(event.title);
    value["text"] = json!(event.text);
    value["vars"] = json!(event.vars);
}

fn fate_of(fate: &Fate) -> Value {
    json!({
        "device": fate.device, "state": fate.state, "attempts": fate.attempts,
        "outcome": fate.outcome, "reason": fate.reason, "provider_message_id": fate.provider_id,
        "settled_at": fate.settled_ms.map(clock::rfc3339),
        "next_at": fate.next_ms.map(clock::rfc3339),
    })
}

fn text_of(record: &Record) -> String {
    let content = &record.content;
    let (headline, text) = match &content.body {
        Body::Message(letter) => (format!("{}: {}", letter.app, letter.title), &*letter.text),
        Body::Notification(event) => (event.title.clone(), &*event.text),
        Body::Withdraw(original) => (format!("withdraws {original}"), ""),
        Body::Replace(original, event) => {
            (format!("{} (replaces {original})", event.title), &*event.text)
        }
    };
    let (written, level) = (clock::rfc3339(record.written_ms), record.level.label());
    let mut lines = format!("{written} {level} {} {}\n", content.id, one_line(&headline));
    if !text.is_empty() {
        lines.push_str(&format!("    {}\n", one_line(text)));
    }
    for fate in &record.deliveries {
        let reason = fate.reason.as_ref().map(|reason| format!(" ({reason})"));
        let reason = reason.unwrap_or_default();
        lines.push_str(&format!("    {}: {}{reason}\n", one_line(&fate.device), fate.state));
    }
    lines
}

/// What came from elsewhere must not move the cursor of whoever reads it.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
