//! What a program on the NAS says, before it is rendered: the three ways of saying it.
//!
//! In: arguments, the argument form of `synonotify <Tag> '{"%VAR%": "…"}'`, or a line of JSON. Out:
//! a [`Raised`] whose every member is within its bounds. Unknown members are refused by name; no
//! error holds a value.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use crate::client::message::{Level, Source};
use crate::journal::record::TTL_S_MAX;

/// One event as it was raised; what is left out comes from the catalogue.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Raised {
    /// The caller's own id: raised twice, it is sent once.
    pub id: Option<Uuid>,
    /// Which system speaks.
    pub source: Option<Source>,
    /// How grave it is.
    pub level: Option<Level>,
    /// The event's category.
    pub category: Option<String>,
    /// The package that speaks.
    pub app: Option<String>,
    /// The event's name.
    pub tag: Option<String>,
    /// The headline.
    pub title: Option<String>,
    /// The text.
    pub text: Option<String>,
    /// The event's variables: `%HOSTNAME%` or `HOSTNAME` to a text, a number or a truth.
    pub vars: BTreeMap<String, Value>,
    /// Takes the place of the last one with the same key.
    pub collapse_key: Option<String>,
    /// How long it is worth sending, in seconds.
    pub ttl_s: Option<u32>,
    /// Whether the device may make a sound; it may unless told otherwise.
    pub sound: Option<bool>,
    /// The devices by name, in place of what the rules say.
    pub devices: Vec<String>,
}

/// Why what was said is not an event. Blame: the caller.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventError {
    /// It is not a JSON object of this form.
    #[error("not an event in JSON: {fault}")]
    Json {
        /// What is wrong, and where; never a value.
        fault: String,
    },
    /// A member is out of bounds.
    #[error("{name} is not {expected}")]
    Member {
        /// Which member.
        name: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// Neither tag nor text: there is nothing to say.
    #[error("neither tag nor title nor text is given: there is nothing to say")]
    Empty,
}

const NAME_BYTES_MAX: usize = 128;
const TITLE_BYTES_MAX: usize = 256;
const TEXT_BYTES_MAX: usize = 8192;
const VARS_MAX: usize = 64;
const VAR_NAME_BYTES_MAX: usize = 64;
const VAR_BYTES_MAX: usize = 1024;
const COLLAPSE_KEY_BYTES_MAX: usize = 64;

// === impl Raised ===

impl Raised {
    /// Reads one line of JSON. Errors: [`EventError`].
    pub fn of_json(line: &str) -> Result<Self, EventError> {
        // serde would take a list for the members in their order.
        if line.trim_start().starts_with('[') {
            return Err(EventError::Json { fault: "a list, not an object".to_owned() });
        }
        let raised: Self = serde_json::from_str(line).map_err(json)?;
        raised.check()?;
        Ok(raised)
    }

    /// Reads the variables of `synonotify <Tag> '{"%VAR%": "…"}'`. Errors: [`EventError`].
    pub fn vars_of_json(text: &str) -> Result<BTreeMap<String, Value>, EventError> {
        serde_json::from_str(text).map_err(json)
    }

    /// Checks what was put together from arguments. Errors: `Member`, `Empty`.
    pub fn check(&self) -> Result<(), EventError> {
        let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        if !given(&self.tag) && !given(&self.title) && !given(&self.text) {
            return Err(EventError::Empty);
        }
        let texts = [
            ("tag", &self.tag, NAME_BYTES_MAX, "at most 128 bytes"),
            ("category", &self.category, NAME_BYTES_MAX, "at most 128 bytes"),
            ("app", &self.app, NAME_BYTES_MAX, "at most 128 bytes"),
            ("title", &self.title, TITLE_BYTES_MAX, "at most 256 bytes"),
            ("text", &self.text, TEXT_BYTES_MAX, "at most 8192 bytes"),
        ];
        for (name, text, bytes_max, expected) in texts {
            if text.as_ref().is_some_and(|text| text.len() > bytes_max) {
                return Err(EventError::Member { name, expected });
            }
        }
        if self.collapse_key.as_ref().is_some_and(|key| !fits(key, COLLAPSE_KEY_BYTES_MAX)) {
            return Err(EventError::Member { name: "collapse_key", expected: "1 to 64 bytes" });
        }
        if self.ttl_s.is_some_and(|ttl_s| !(1..=TTL_S_MAX).contains(&ttl_s)) {
            return Err(EventError::Member { name: "ttl_s", expected: "1 to 604800" });
        }
        let expected = "at most 64 of 64 bytes of name and 1024 of text, number or truth each";
        let bad_var = |(name, value): (&String, &Value)| {
            !fits(name, VAR_NAME_BYTES_MAX)
                || text_of(value).is_none_or(|text| text.len() > VAR_BYTES_MAX)
        };
        if self.vars.len() > VARS_MAX || self.vars.iter().any(bad_var) {
            return Err(EventError::Member { name: "vars", expected });
        }
        Ok(())
    }

    /// Gives the variables by their names in per cent signs.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let named = |(name, value): (&String, &Value)| {
            let name = format!("%{}%", name.trim_matches('%'));
            Some((name, text_of(value)?))
        };
        self.vars.iter().filter_map(named).collect()
    }
}

fn fits(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len())
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null => Some(String::new()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// What serde says of a wrong value repeats it, so only the place and the kind are told; the name
/// of an unknown member is.
fn json(error: serde_json::Error) -> EventError {
    let text = error.to_string();
    let unknown = text.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next());
    let fault = match (unknown, error.classify()) {
        (Some(name), _) if name.len() <= VAR_NAME_BYTES_MAX => format!("unknown member {name}"),
        (_, serde_json::error::Category::Eof) => "it ends too early".to_owned(),
        (_, serde_json::error::Category::Data) => {
            format!("a member of a wrong kind before column {}", error.column())
        }
        _ => format!("no JSON at column {}", error.column()),
    };
    EventError::Json { fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_json_is_read() {
        let line = r#"{"tag": "DDNSFail", "level": "warn", "source": "srm", "sound": false,
            "vars": {"%EXTERNAL_IP%": "192.0.2.1", "TRIES": 3, "LAST": true}, "ttl_s": 60}"#;
        let raised = Raised::of_json(line).unwrap();
        assert_eq!((raised.level, raised.source), (Some(Level::Warn), Some(Source::Srm)));
        let vars = raised.variables();
        assert_eq!(vars["%EXTERNAL_IP%"], "192.0.2.1");
        assert_eq!((vars["%TRIES%"].as_str(), vars["%LAST%"].as_str()), ("3", "true"));
    }

    #[test]
    fn what_is_no_event_is_refused_by_name_and_never_repeated() {
        let check = |line: &str, expect: &str| {
            let error = Raised::of_json(line).err().unwrap().to_string();
            assert!(error.contains(expect), "{line}: {error}");
            assert!(!error.contains("secret"), "{error}");
        };
        check("", "it ends too early");
        check("{", "it ends too early");
        check("hello", "no JSON at column 1");
        check(r#"["secret"]"#, "a list, not an object");
        check(r#"{"tag": "x", "colour": "secret"}"#, "unknown member colour");
        check(r#"{"tag": "x", "level": "secret"}"#, "a member of a wrong kind");
        check(r#"{"tag": "x", "ttl_s": "secret"}"#, "a member of a wrong kind");
        check(r#"{"tag": "x", "ttl_s": 0}"#, "ttl_s is not 1 to 604800");
        check(r#"{"tag": "x", "vars": {"A": {"secret": 1}}}"#, "vars is not");
        check(r#"{"tag": "x", "vars": {"": "secret"}}"#, "vars is not");
        check(r#"{"level": "info"}"#, "there is nothing to say");
        check(r#"{"tag": "x", "collapse_key": ""}"#, "collapse_key is not");
        check(&format!(r#"{{"title": "{}"}}"#, "x".repeat(257)), "title is not at most 256");
        check(&format!(r#"{{"text": "{}"}}"#, "x".repeat(8193)), "text is not at most 8192");
        check(&format!(r#"{{"tag": "{}"}}"#, "x".repeat(129)), "tag is not at most 128");
    }

    #[test]
    fn the_variables_of_synonotify_are_read() {
        let vars = Raised::vars_of_json(r#"{"%HOSTNAME%": "nas", "%VOLUME_NAME%": "1"}"#).unwrap();
        assert_eq!(vars.len(), 2);
        assert!(Raised::vars_of_json("[1]").is_err());
    }
}
