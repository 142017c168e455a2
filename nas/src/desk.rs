//! Where programs on the NAS hand in what they have to say.
//!
//! In: a request, from the command line or the daemon's socket. Out: what was taken, durable in the
//! journal. Renders, asks the rules, writes. Sends nothing.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::catalogue::Catalogue;
use crate::client::message::Level;
use crate::content::{Body, Letter};
use crate::event::{EventError, Raised};
use crate::journal::record::{Draft, TTL_S_DEFAULT, Taken};
use crate::journal::{Journal, JournalError};
use crate::rules;

/// The journal, and what is needed to write into it.
pub struct Desk {
    /// The open journal.
    pub journal: Journal,
    catalogue: Catalogue,
    hostname: String,
}

/// What can be handed in; one line of JSON each on the socket: `{"notify": {"tag": "…"}}`.
#[derive(Clone, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// An event, to the devices that the rules say.
    Notify(Raised),
    /// A message of an application, to the devices of its sender.
    Message(Said),
    /// Takes back what was handed in.
    Withdraw {
        /// Its id.
        id: Uuid,
    },
    /// Puts an event in the place of what was handed in.
    Replace {
        /// The id of that.
        id: Uuid,
        /// The event.
        event: Raised,
    },
}

/// A message of an application.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Said {
    /// The caller's own id: said twice, it is sent once.
    pub id: Option<Uuid>,
    /// The application's name.
    pub app: String,
    /// Under whose key it goes; the application's own unless told otherwise.
    pub sender: Option<String>,
    /// The headline.
    pub title: String,
    /// The text.
    pub text: String,
    /// Takes the place of the last one with the same key.
    pub collapse_key: Option<String>,
    /// How long it is worth sending, in seconds.
    pub ttl_s: Option<u32>,
    /// Whether it is a call or an alarm.
    pub urgent: bool,
    /// The devices by name; all of the sender's unless told otherwise.
    pub devices: Vec<String>,
}

/// Why nothing was taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DeskError {
    /// The caller's fault.
    #[error(transparent)]
    Event(#[from] EventError),
    /// The caller's fault: there is no such device, or it is another sender's.
    #[error("the sender has no device named {name:?}")]
    NoDevice {
        /// The name.
        name: String,
    },
    /// The caller's fault: an application without devices.
    #[error("the sender {sender:?} has no device: pair one with sns-nas devices add --sender")]
    NoDevices {
        /// The sender.
        sender: String,
    },
    /// The journal's.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

// === impl Desk ===

impl Desk {
    /// Sets up the desk.
    pub fn new(journal: Journal, catalogue: Catalogue, hostname: String) -> Self {
        Self { journal, catalogue, hostname }
    }

    /// Does what was asked; durable when it returns.
    /// Errors: [`DeskError`]; nothing was taken then.
    pub fn perform(&mut self, request: &Request, now_ms: u64) -> Result<Taken, DeskError> {
        match request {
            Request::Notify(raised) => self.notify(raised, now_ms),
            Request::Message(said) => self.message(said, now_ms),
            Request::Withdraw { id } => Ok(self.journal.withdraw(*id, now_ms)?),
            Request::Replace { id, event } => {
                event.check()?;
                let sound = event.sound.unwrap_or(true);
                let event = self.catalogue.render(event, &self.hostname);
                Ok(self.journal.replace(*id, &event, sound, now_ms)?)
            }
        }
    }

    fn notify(&mut self, raised: &Raised, now_ms: u64) -> Result<Taken, DeskError> {
        raised.check()?;
        let event = self.catalogue.render(raised, &self.hostname);
        let devices = self.journal.devices()?;
        let targets = if raised.devices.is_empty() {
            rules::targets(&self.journal.rules()?, &devices, &event)
        } else {
            let named = |name: &String| {
                let device = devices.iter().find(|device| device.name == *name);
                device
                    .map(|device| device.id)
                    .ok_or_else(|| DeskError::NoDevice { name: name.clone() })
            };
            raised.devices.iter().map(named).collect::<Result<_, _>>()?
        };
        let draft = Draft {
            id: raised.id,
            ttl_s: raised.ttl_s.unwrap_or(TTL_S_DEFAULT),
            sound: raised.sound.unwrap_or(true),
            ..Draft::of_event(event)
        };
        Ok(self.journal.take(&draft, &targets, now_ms)?)
    }

    fn message(&mut self, said: &Said, now_ms: u64) -> Result<Taken, DeskError> {
        said.check()?;
        let sender = said.sender.as_ref().unwrap_or(&said.app);
        let mut devices = self.journal.devices()?;
        devices.retain(|device| device.sender == *sender);
        let named = |name: &String| {
            let device = devices.iter().find(|device| device.name == *name);
            device.map(|device| device.id).ok_or_else(|| DeskError::NoDevice { name: name.clone() })
        };
        let targets: Vec<i64> = if said.devices.is_empty() {
            devices.iter().map(|device| device.id).collect()
        } else {
            said.devices.iter().map(named).collect::<Result<_, _>>()?
        };
        if targets.is_empty() {
            return Err(DeskError::NoDevices { sender: sender.clone() });
        }
        let letter = Letter {
            app: said.app.clone(),
            title: said.title.clone(),
            text: said.text.clone(),
            collapse_key: said.collapse_key.clone(),
        };
        let draft = Draft {
            id: said.id,
            body: Body::Message(letter),
            level: if said.urgent { Level::Error } else { Level::Info },
            ttl_s: said.ttl_s.unwrap_or(TTL_S_DEFAULT),
            sound: true,
        };
        Ok(self.journal.take(&draft, &targets, now_ms)?)
    }
}

// === impl Said ===

impl Said {
    /// Has the bounds of an event. Errors: `Member`, `Empty`.
    fn check(&self) -> Result<(), EventError> {
        if self.app.is_empty() {
            return Err(EventError::Member { name: "app", expected: "an application's name" });
        }
        let bounds = Raised {
            app: Some(self.app.clone()),
            title: Some(self.title.clone()),
            text: Some(self.text.clone()),
            collapse_key: self.collapse_key.clone(),
            ttl_s: self.ttl_s,
            ..Raised::default()
        };
        bounds.check()
    }
}

// === impl DeskError ===

impl DeskError {
    /// Whether it is the caller's fault, who must mend it.
    pub fn is_callers(&self) -> bool {
        match self {
            Self::Event(_) | Self::NoDevice { .. } | Self::NoDevices { .. } => true,
            Self::Journal(error) => {
                matches!(error, JournalError::BadArgument { .. } | JournalError::Unknown { .. })
            }
        }
    }
}
