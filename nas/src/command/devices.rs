//! `devices`: what was paired, and whether it can be reached.

use std::io::{self, Read as _};

use clap::Subcommand;
use serde::Deserialize;
use serde_json::json;
use sns_nas::client::message::{Channel, Pairing};
use sns_nas::clock;
use sns_nas::journal::JournalError;
use sns_nas::journal::devices::{Device, NAS, NewDevice};

use super::{CommandError, Failure, Place, print, relay, runtime, trial};

#[derive(Subcommand)]
pub(super) enum Devices {
    /// Keep a device that its app has paired with a key of this NAS.
    Add(Add),
    /// Ask the relay to mail a handle to an address, for `add --plain`.
    Mail {
        /// The address whose owner is to read the handle.
        address: String,
        /// The app's name at the relay; it must have e-mail.
        #[arg(long)]
        app: String,
        /// Whose key it is for: this NAS's, or an application's.
        #[arg(long, default_value = NAS)]
        sender: String,
    },
    /// List the devices.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Send a test to one device, at once; the exit code says what is wrong.
    Test {
        /// The device's name.
        name: String,
    },
    /// Forget a device; what waits for it is not sent.
    Remove {
        /// The device's name.
        name: String,
    },
}

#[derive(clap::Args)]
pub(super) struct Add {
    /// What to call it.
    name: String,
    /// The handle of the pairing, or its endpoint.
    #[arg(long, required_unless_present = "stdin")]
    handle: Option<String>,
    /// The device's public key in base64url; without keys the app must take plain text.
    #[arg(long, value_name = "BASE64URL", requires = "auth")]
    p256dh: Option<String>,
    /// The device's auth secret in base64url.
    #[arg(long, value_name = "BASE64URL", requires = "p256dh", allow_hyphen_values = true)]
    auth: Option<String>,
    /// The app takes plain text, which the relay reads; there are no keys.
    #[arg(long, conflicts_with = "p256dh")]
    plain: bool,
    /// The app's max_body_bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 2744)]
    max_body_bytes: usize,
    /// Whose key it was paired with: this NAS's, or an application's.
    #[arg(long, default_value = NAS)]
    sender: String,
    /// The device is known by this name and was paired anew.
    #[arg(long)]
    again: bool,
    /// Read {"handle" or "endpoint", "p256dh", "auth", "max_body_bytes"} as JSON from standard
    /// input, where no other user of this machine sees it.
    #[arg(long, conflicts_with_all = ["handle", "p256dh", "plain"])]
    stdin: bool,
}

/// What an app hands over; the relay's own answer to a pairing with the device's keys.
#[derive(Deserialize)]
struct Handed {
    #[serde(alias = "endpoint")]
    handle: String,
    p256dh: Option<String>,
    auth: Option<String>,
    max_body_bytes: Option<usize>,
}

const HANDED_BYTES_MAX: u64 = 64 * 1024;

// === impl Devices ===

impl Devices {
    pub(super) fn run(self, place: &Place) -> Result<u8, Failure> {
        let now_ms = clock::now_unix_ms();
        match self {
            Self::Add(add) => {
                let again = add.again;
                let new = add.device()?;
                let mut journal = place.journal()?;
                match again {
                    true => journal.pair_again(&new, now_ms)?,
                    false => journal.add_device(&new, now_ms)?,
                };
            }
            Self::Mail { address, app, sender } => mail(place, address, app, &sender)?,
            Self::List { json } => print(listed(&place.journal()?.devices()?, json))?,
            Self::Remove { name } => place.journal()?.remove_device(&name, now_ms)?,
            Self::Test { name } => return trial::run(place, &name),
        }
        Ok(0)
    }
}

// === impl Add ===

impl Add {
    fn device(self) -> Result<NewDevice, Failure> {
        if self.stdin {
            let mut text = String::new();
            io::stdin().lock().take(HANDED_BYTES_MAX).read_to_string(&mut text)?;
            // serde's own words may repeat a key.
            let handed: Handed = serde_json::from_str(&text).map_err(|error| {
                let fault = format!("not a device in JSON: column {}", error.column());
                CommandError::Input { fault }
            })?;
            return Ok(NewDevice {
                name: self.name,
                sender: self.sender,
                handle: handed.handle,
                keys: handed.p256dh.zip(handed.auth),
                body_bytes_max: handed.max_body_bytes.unwrap_or(self.max_body_bytes),
            });
        }
        let keys = self.p256dh.zip(self.auth);
        if keys.is_none() && !self.plain {
            let fault = "give --p256dh and --auth, or --plain for an app that takes plain text";
            return Err(CommandError::Argument { name: "p256dh", fault: fault.to_owned() }.into());
        }
        Ok(NewDevice {
            name: self.name,
            sender: self.sender,
            handle: self.handle.unwrap_or_default(),
            keys,
            body_bytes_max: self.max_body_bytes,
        })
    }
}

fn mail(place: &Place, address: String, app: String, sender: &str) -> Result<(), Failure> {
    let journal = place.journal()?;
    let sender = journal.sender_key(sender)?.ok_or(JournalError::Unknown { what: "sender" })?;
    let channel = Channel::Email { address };
    let pairing = Pairing { app, channel, client: None, sender_key: sender.public() };
    runtime()?.block_on(relay(&journal)?.pair(&pairing))?;
    print("the handle is on its way to that address: sns-nas devices add NAME --plain --handle …\n")
}

/// Handles and keys are capabilities: they are not shown.
fn listed(devices: &[Device], as_json: bool) -> String {
    if as_json {
        let row = |device: &Device| {
            json!({
                "name": device.name, "sender": device.sender,
                "content": if device.keys.is_some() { "sealed" } else { "plain" },
                "paired_at": clock::rfc3339(device.paired_ms),
                "gone_at": device.gone_ms.map(clock::rfc3339),
            })
        };
        return format!("{}\n", json!(devices.iter().map(row).collect::<Vec<_>>()));
    }
    let row = |device: &Device| {
        let content = if device.keys.is_some() { "sealed" } else { "plain" };
        let state = device.gone_ms.map_or("paired".to_owned(), |gone_ms| {
            format!("gone since {}", clock::rfc3339(gone_ms))
        });
        let paired = clock::rfc3339(device.paired_ms);
        format!("{}\t{}\t{content}\t{paired}\t{state}\n", device.name, device.sender)
    };
    devices.iter().map(row).collect()
}
