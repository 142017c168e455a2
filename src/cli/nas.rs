//! `nas`: what an operator may see and do of single NAS identities.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use base64::Engine as _;
use clap::{Args, Subcommand};
use serde::Serialize;
use sns_relay::clock::format_rfc3339;
use sns_relay::push::BASE64URL;
use sns_relay::store::{NasIdentity, NasStatus};

use super::{ask_records, none_such, print_json};

#[derive(Subcommand)]
pub(crate) enum NasCommand {
    /// Prints every NAS, a line each.
    List {
        /// The file; without it there are the defaults and the `SNS_RELAY__…` variables.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Prints the whole records as a JSON list.
        #[arg(long)]
        json: bool,
    },
    /// Prints the whole record of one NAS.
    Show {
        #[command(flatten)]
        which: Which,
        /// Prints it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Stops a NAS: within two seconds every relay refuses it, until it is restored.
    Revoke(Which),
    /// Lets a NAS that was stopped send again.
    Restore(Which),
    /// Removes the record of a NAS for good; its key may enrol anew like any other.
    Erase(Which),
}

#[derive(Args)]
pub(crate) struct Which {
    /// Its id, like ds_… in the list.
    ds_id: String,
    /// The file; without it there are the defaults and the `SNS_RELAY__…` variables.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A record as the contract tells it too.
#[derive(Serialize)]
struct Shown {
    ds_id: String,
    enrolled_at: String,
    key_thumbprint: String,
    model: String,
    public_key: String,
    serial_tag: String,
    status: &'static str,
}

// === impl NasCommand ===

impl NasCommand {
    pub(crate) fn run(self, out: &mut impl Write, err: &mut impl Write) -> io::Result<ExitCode> {
        match self {
            Self::List { config, json } => list(config.as_deref(), json, out, err),
            Self::Show { which, json } => show(&which, json, out, err),
            Self::Revoke(which) => set_status(&which, NasStatus::Suspended, out, err),
            Self::Restore(which) => set_status(&which, NasStatus::Active, out, err),
            Self::Erase(Which { ds_id, config }) => {
                let asked = ask_records(config.as_deref(), err, async |records| {
                    records.erase(&ds_id).await
                });
                told(asked?, &format!("{ds_id} erased"), out, err)
            }
        }
    }
}

fn list(
    config: Option<&Path>,
    json: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    let asked = ask_records(config, err, async |records| {
        let (mut shown, mut pages) = (Vec::new(), records.all());
        while let Some(page) = pages.recv().await {
            shown.extend(page?.iter().map(Shown::of));
        }
        Ok(shown)
    });
    let shown = match asked? {
        Ok(shown) => shown,
        Err(code) => return Ok(code),
    };
    if json {
        print_json(&shown, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{:29}  {:9}  {:20}  model", "ds_id", "status", "enrolled_at")?;
    for nas in shown {
        let Shown { ds_id, status, enrolled_at, model, .. } = nas;
        writeln!(out, "{ds_id:29}  {status:9}  {enrolled_at:20}  {model}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show(
    which: &Which,
    json: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    let asked = ask_records(which.config.as_deref(), err, async |records| {
        records.nas_by_id(&which.ds_id).await
    });
    let shown = match asked? {
        Ok(Some(identity)) => Shown::of(&identity),
        Ok(None) => return none_such("NAS", err),
        Err(code) => return Ok(code),
    };
    if json {
        print_json(&shown, out)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (name, value) in [
        ("ds_id", shown.ds_id.as_str()),
        ("status", shown.status),
        ("enrolled_at", &shown.enrolled_at),
        ("model", &shown.model),
        ("key_thumbprint", &shown.key_thumbprint),
        ("public_key", &shown.public_key),
        ("serial_tag", &shown.serial_tag),
    ] {
        writeln!(out, "{name:14}  {value}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn set_status(
    which: &Which,
    status: NasStatus,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    let asked = ask_records(which.config.as_deref(), err, async |records| {
        records.set_status(&which.ds_id, status).await
    });
    told(asked?, &format!("{} {}", which.ds_id, status.label()), out, err)
}

fn told(
    asked: Result<bool, ExitCode>,
    text: &str,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    match asked {
        Ok(true) => writeln!(out, "{text}").map(|()| ExitCode::SUCCESS),
        Ok(false) => none_such("NAS", err),
        Err(code) => Ok(code),
    }
}

// === impl Shown ===

impl Shown {
    fn of(identity: &NasIdentity) -> Self {
        Self {
            ds_id: identity.ds_id.clone(),
            enrolled_at: format_rfc3339(identity.enrolled_at_unix_s),
            key_thumbprint: BASE64URL.encode(identity.key.thumbprint().as_bytes()),
            model: identity.model.clone(),
            public_key: BASE64URL.encode(identity.key.as_bytes()),
            serial_tag: BASE64URL.encode(identity.serial_tag),
            status: identity.status.label(),
        }
    }
}
