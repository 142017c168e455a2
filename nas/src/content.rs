//! What is inside a sealed body, version 1: `message`, `notification`, `withdraw`, `replace`.
//!
//! In: what a NAS says to a device. Out: the bytes that are sealed, short enough for the app's body
//! cap, and back. The text is cut before anything is refused, because a shortened alarm is better
//! than none. The contract is `sns/device/v1/content.proto`; docs/content.md explains it. What
//! holds content has no `Debug`.

use std::collections::BTreeMap;

use prost::Message as _;
use sns_proto::device::v1 as wire;
use thiserror::Error;
use uuid::Uuid;

use crate::client::message::{Level, Source};

/// The version that this program writes, and the greatest that it reads.
pub const VERSION: u32 = 1;

/// One thing that a NAS says to its devices.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// The same however often it is sent: a device takes it once.
    pub id: Uuid,
    /// Greater than that of every content which this NAS wrote before.
    pub sequence: u64,
    /// When it was written, in milliseconds since 1970.
    pub written_at_unix_ms: u64,
    /// What it says.
    pub body: Body,
}

/// What a content says.
#[derive(Clone, PartialEq, Eq)]
pub enum Body {
    /// A message of an application.
    Message(Letter),
    /// An event of the NAS.
    Notification(Event),
    /// Takes the content with this id back.
    Withdraw(Uuid),
    /// Puts an event in the place of the content with this id.
    Replace(Uuid, Event),
}

/// A message of an application.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Letter {
    /// The application's name.
    pub app: String,
    /// The headline.
    pub title: String,
    /// The text.
    pub text: String,
    /// Takes the place of the last one with the same key; `None` for none.
    pub collapse_key: Option<String>,
}

/// An event of the NAS, ready to be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// Which system speaks.
    pub source: Source,
    /// How grave it is.
    pub level: Level,
    /// The event's name, a key into the app's own strings.
    pub tag: String,
    /// The event's category.
    pub category: String,
    /// The package that speaks.
    pub app: String,
    /// The headline.
    pub title: String,
    /// The text.
    pub text: String,
    /// The event's variables.
    pub vars: BTreeMap<String, String>,
    /// Takes the place of the last one with the same key; `None` for none.
    pub collapse_key: Option<String>,
}

/// Why a content could not be written or read.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContentError {
    /// It does not fit, even with its text cut and its variables left out.
    #[error("the content has {content_bytes} bytes without its text, {content_bytes_max} fit")]
    TooLong {
        /// What is left of it, in bytes.
        content_bytes: usize,
        /// The most that fits, in bytes.
        content_bytes_max: usize,
    },
    /// It is of a later contract.
    #[error("the content has version {version}, this program reads up to {VERSION}")]
    Newer {
        /// The version found.
        version: u32,
    },
    /// It says nothing that this version knows.
    #[error("the content is not one of version {VERSION}")]
    Unreadable,
}

// === impl Content ===

impl Content {
    /// Writes a content in at most `bytes_max` bytes.
    /// Shape: a text that does not fit is cut and ends in "…"; then the variables are left out.
    /// Errors: `TooLong`.
    pub fn encode_within(&self, bytes_max: usize) -> Result<Vec<u8>, ContentError> {
        let mut content = self.to_wire();
        if content.encoded_len() <= bytes_max {
            return Ok(content.encode_to_vec());
        }
        let excess = content.encoded_len() - bytes_max;
        // Half a text with its variables is worth less than the text.
        if let Some(event) = event_of(&mut content)
            && event.text.len() < excess + TEXT_BYTES_MIN
        {
            event.vars.clear();
        }
        let excess = content.encoded_len().saturating_sub(bytes_max);
        if let Some(text) = text_of(&mut content) {
            cut(text, excess);
        }
        match content.encoded_len() {
            content_bytes if content_bytes > bytes_max => {
                Err(ContentError::TooLong { content_bytes, content_bytes_max: bytes_max })
            }
            _ => Ok(content.encode_to_vec()),
        }
    }

    /// Reads a content.
    /// Errors: `Newer`; `Unreadable` for everything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, ContentError> {
        let content = wire::Content::decode(bytes).map_err(|_| ContentError::Unreadable)?;
        if content.version > VERSION {
            return Err(ContentError::Newer { version: content.version });
        }
        if content.version == 0 {
            return Err(ContentError::Unreadable);
        }
        let body = match content.body.ok_or(ContentError::Unreadable)? {
            wire::content::Body::Message(message) => Body::Message(Letter {
                app: message.app,
                title: message.title,
                text: message.text,
                collapse_key: some(message.collapse_key),
            }),
            wire::content::Body::Notification(event) => Body::Notification(event_from(event)),
            wire::content::Body::Withdraw(withdraw) => Body::Withdraw(uuid(&withdraw.id)?),
            wire::content::Body::Replace(replace) => {
                let event = replace.notification.ok_or(ContentError::Unreadable)?;
                Body::Replace(uuid(&replace.id)?, event_from(event))
            }
        };
        let id = uuid(&content.id)?;
        let (sequence, written_at_unix_ms) = (content.sequence, content.written_at_unix_ms);
        Ok(Self { id, sequence, written_at_unix_ms, body })
    }

    fn to_wire(&self) -> wire::Content {
        let body = match self.body.clone() {
            Body::Message(letter) => wire::content::Body::Message(wire::Message {
                app: letter.app,
                title: letter.title,
                text: letter.text,
                collapse_key: letter.collapse_key.unwrap_or_default(),
            }),
            Body::Notification(event) => wire::content::Body::Notification(event_to(event)),
            Body::Withdraw(id) => {
                wire::content::Body::Withdraw(wire::Withdraw { id: id.into_bytes().to_vec() })
            }
            Body::Replace(id, event) => wire::content::Body::Replace(wire::Replace {
                id: id.into_bytes().to_vec(),
                notification: Some(event_to(event)),
            }),
        };
        wire::Content {
            version: VERSION,
            id: self.id.into_bytes().to_vec(),
            sequence: self.sequence,
            written_at_unix_ms: self.written_at_unix_ms,
            body: Some(body),
        }
    }
}

// === impl Body ===

impl Body {
    /// Gives the key under which a later content takes the place of this one.
    pub fn collapse_key(&self) -> Option<&str> {
        match self {
            Self::Message(letter) => letter.collapse_key.as_deref(),
            Self::Notification(event) | Self::Replace(_, event) => event.collapse_key.as_deref(),
            Self::Withdraw(_) => None,
        }
    }

    /// Gives the event, where it is one.
    pub fn event(&self) -> Option<&Event> {
        match self {
            Self::Notification(event) | Self::Replace(_, event) => Some(event),
            Self::Message(_) | Self::Withdraw(_) => None,
        }
    }
}

/// A text shorter than this says too little: the variables go first.
const TEXT_BYTES_MIN: usize = 200;

const ELLIPSIS: &str = "…";

fn event_of(content: &mut wire::Content) -> Option<&mut wire::Notification> {
    match content.body.as_mut()? {
        wire::content::Body::Notification(event) => Some(event),
        wire::content::Body::Replace(replace) => replace.notification.as_mut(),
        _ => None,
    }
}

fn text_of(content: &mut wire::Content) -> Option<&mut String> {
    match content.body.as_mut()? {
        wire::content::Body::Message(message) => Some(&mut message.text),
        wire::content::Body::Notification(event) => Some(&mut event.text),
        wire::content::Body::Replace(replace) => Some(&mut replace.notification.as_mut()?.text),
        wire::content::Body::Withdraw(_) => None,
    }
}

/// Shortens a text by `excess` bytes at least, whole characters only.
fn cut(text: &mut String, excess: usize) {
    if excess == 0 {
        return;
    }
    let mut end = text.len().saturating_sub(excess + ELLIPSIS.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    if end > 0 {
        text.push_str(ELLIPSIS);
    }
}

fn event_to(event: Event) -> wire::Notification {
    wire::Notification {
        source: match event.source {
            Source::Dsm => wire::Source::Dsm,
            Source::Srm => wire::Source::Srm,
            Source::Surveillance => wire::Source::Surveillance,
        }
        .into(),
        level: match event.level {
            Level::Info => wire::Level::Info,
            Level::Warn => wire::Level::Warn,
            Level::Error => wire::Level::Error,
        }
        .into(),
        tag: event.tag,
        category: event.category,
        app: event.app,
        title: event.title,
        text: event.text,
        vars: event.vars.into_iter().collect(),
        collapse_key: event.collapse_key.unwrap_or_default(),
    }
}

fn event_from(event: wire::Notification) -> Event {
    Event {
        source: match event.source() {
            wire::Source::Srm => Source::Srm,
            wire::Source::Surveillance => Source::Surveillance,
            wire::Source::Unspecified | wire::Source::Dsm => Source::Dsm,
        },
        level: match event.level() {
            wire::Level::Error => Level::Error,
            wire::Level::Warn => Level::Warn,
            wire::Level::Unspecified | wire::Level::Info => Level::Info,
        },
        tag: event.tag,
        category: event.category,
        app: event.app,
        title: event.title,
        text: event.text,
        vars: event.vars.into_iter().collect(),
        collapse_key: some(event.collapse_key),
    }
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

fn uuid(bytes: &[u8]) -> Result<Uuid, ContentError> {
    Uuid::from_slice(bytes).map_err(|_| ContentError::Unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str, vars: usize) -> Event {
        let var = |n: usize| (format!("%VAR_{n}%"), "value".to_owned());
        Event {
            source: Source::Surveillance,
            level: Level::Error,
            tag: "CameraLost".into(),
            category: "camera".into(),
            app: "SurveillanceStation".into(),
            title: "Camera lost".into(),
            text: text.into(),
            vars: (0..vars).map(var).collect(),
            collapse_key: Some("camera1".into()),
        }
    }

    fn content(body: Body) -> Content {
        let id = Uuid::from_bytes([7; 16]);
        Content { id, sequence: 1_800_000_000_000, written_at_unix_ms: 1_800_000_000_000, body }
    }

    #[test]
    fn each_kind_of_content_comes_back_as_it_was() {
        let letter = Letter { app: "chat".into(), text: "hello".into(), ..Letter::default() };
        let other = Uuid::from_bytes([9; 16]);
        for body in [
            Body::Message(letter),
            Body::Notification(event("door", 3)),
            Body::Withdraw(other),
            Body::Replace(other, event("window", 0)),
        ] {
            let content = content(body);
            let read = Content::decode(&content.encode_within(2641).unwrap()).unwrap();
            assert!(read == content);
        }
    }

    #[test]
    fn a_text_that_does_not_fit_is_cut_between_characters_and_keeps_the_rest() {
        for bytes_max in 400..480 {
            let content = content(Body::Notification(event(&"für Elise ".repeat(90), 2)));
            let bytes = content.encode_within(bytes_max).unwrap();
            assert!((bytes_max - 10..=bytes_max).contains(&bytes.len()), "{}", bytes.len());
            let read = Content::decode(&bytes).unwrap();
            let Body::Notification(event) = read.body else { panic!("another kind") };
            assert!(event.text.starts_with("für Elise f") && event.text.ends_with('…'));
            assert_eq!((event.title.as_str(), event.level), ("Camera lost", Level::Error));
        }
    }

    #[test]
    fn variables_go_before_the_text_does() {
        let text = "the camera at the door does not answer";
        let content = content(Body::Notification(event(text, 100)));
        let read = Content::decode(&content.encode_within(300).unwrap()).unwrap();
        let event = read.body.event().unwrap();
        assert_eq!((event.text.as_str(), event.vars.len()), (text, 0));
    }

    #[test]
    fn what_does_not_fit_at_all_is_refused() {
        let body = Body::Notification(event("text", 1));
        let error = content(body).encode_within(100).unwrap_err();
        assert!(matches!(error, ContentError::TooLong { content_bytes_max: 100, .. }), "{error}");
        let withdraw = content(Body::Withdraw(Uuid::nil()));
        assert!(withdraw.encode_within(20).is_err());
    }

    #[test]
    fn what_is_not_a_content_of_this_version_is_refused() {
        let good = content(Body::Withdraw(Uuid::nil())).to_wire();
        let decode = |change: fn(&mut wire::Content)| {
            let mut content = good.clone();
            change(&mut content);
            Content::decode(&content.encode_to_vec()).err().unwrap()
        };
        assert_eq!(decode(|c| c.version = 2), ContentError::Newer { version: 2 });
        assert_eq!(decode(|c| c.version = 0), ContentError::Unreadable);
        assert_eq!(decode(|c| c.body = None), ContentError::Unreadable);
        assert_eq!(decode(|c| c.id = vec![1; 15]), ContentError::Unreadable);
        let withdraw = wire::Withdraw { id: Vec::new() };
        let body = wire::content::Body::Withdraw(withdraw);
        let mut content = good.clone();
        content.body = Some(body);
        assert!(Content::decode(&content.encode_to_vec()).is_err());
        assert!(Content::decode(b"hello").is_err());
        assert!(Content::decode(b"").is_err());
    }
}
