//! `enrol` and `senders`: who this NAS is to a relay, and its applications' pseudonyms.

use std::path::PathBuf;

use clap::Subcommand;
use sns_nas::client::RelayClient;
use sns_nas::client::message::Enrolment;
use sns_nas::clock;
use sns_nas::journal::devices::NAS;
use sns_nas::journal::{Journal, Limits};
use sns_nas::key::SenderKey;

use super::{CommandError, Failure, Place, print, runtime};

/// Settings of the journal.
pub(super) const RELAY_URL: &str = "relay_url";
pub(super) const RELAY_CA: &str = "relay_ca_pem";
pub(super) const DS_ID: &str = "ds_id";
pub(super) const ENROLLED_AT: &str = "enrolled_at";

#[derive(clap::Args)]
pub(super) struct Enrol {
    /// The relay's public URL.
    #[arg(long, value_name = "URL")]
    relay: String,
    /// The model's name.
    #[arg(long)]
    model: String,
    /// The serial number; the relay keeps only a keyed hash of it.
    #[arg(long)]
    serial: String,
    /// The operator's one-time token, where the relay asks for one.
    #[arg(long, env = "SNS_NAS_ENROLMENT_TOKEN", hide_env_values = true)]
    enrolment_token: Option<String>,
    /// A PEM file of the CA that the relay's certificate is from, beside the machine's own.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// A PEM file with the key to enrol; without it the journal's own, made when there is none.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Subcommand)]
pub(super) enum Senders {
    /// Make a key for an application and print its public half, which its devices pair with.
    Add {
        /// The application's name.
        name: String,
    },
    /// Print the name and the public key of each sender.
    List,
}

// === impl Enrol ===

impl Enrol {
    pub(super) fn run(self, place: &Place) -> Result<(), Failure> {
        let ca = self.ca.as_ref().map(|path| {
            let read = std::fs::read_to_string(path);
            read.map_err(|source| CommandError::Read { path: path.clone(), source })
        });
        let ca = ca.transpose()?;
        let relay = RelayClient::new(&self.relay, ca.as_deref().map(str::as_bytes))?;
        let given = self.key.as_deref().map(SenderKey::load).transpose()?;
        let mut journal = Journal::open(&place.journal, Limits::default())?;
        // On disk before the relay knows it: a lost key is a lost identity.
        let key = match (journal.sender_key(NAS)?, given) {
            (Some(kept), Some(given)) if kept.public() != given.public() => {
                let fault = "the journal has another key already".to_owned();
                return Err(CommandError::Argument { name: "key", fault }.into());
            }
            (Some(kept), _) => kept,
            (None, given) => {
                let key = given.map_or_else(SenderKey::generate, Ok)?;
                journal.add_sender(NAS, &key, clock::now_unix_ms())?;
                key
            }
        };
        let enrolment = Enrolment {
            model: self.model,
            serial: self.serial,
            enrolment_token: self.enrolment_token,
            ..Enrolment::default()
        };
        let enrolled = runtime()?.block_on(relay.enrol(&key, &enrolment))?;
        journal.set_setting(RELAY_URL, &self.relay)?;
        journal.set_setting(RELAY_CA, ca.as_deref().unwrap_or_default())?;
        journal.set_setting(DS_ID, &enrolled.ds_id)?;
        journal.set_setting(ENROLLED_AT, &enrolled.enrolled_at)?;
        print(format!("{}\n", enrolled.ds_id))
    }
}

// === impl Senders ===

impl Senders {
    pub(super) fn run(self, place: &Place) -> Result<(), Failure> {
        let mut journal = place.journal()?;
        match self {
            Self::Add { name } => {
                let key = SenderKey::generate()?;
                journal.add_sender(&name, &key, clock::now_unix_ms())?;
                print(key.public_base64url() + "\n")
            }
            Self::List => {
                let mut text = String::new();
                for name in journal.senders()? {
                    if let Some(key) = journal.sender_key(&name)? {
                        text.push_str(&format!("{name}\t{}\n", key.public_base64url()));
                    }
                }
                print(text)
            }
        }
    }
}
