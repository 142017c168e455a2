//! `enrolment-token`: one-time tokens that enrol a NAS each.
//!
//! The store holds their hashes alone, so a token is seen once, when it is minted; after that it
//! has the first 16 hexadecimal digits of its hash for a name.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use sns_relay::enrol;
use sns_relay::keys::KeysError;
use sns_relay::store::records::Token;

use super::{ask_records, fail, none_such, print_json};

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Makes tokens and prints them, one a line.
    Mint {
        /// The file; without it there are the defaults and the `SNS_RELAY__…` variables.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// How many, 1 to 10000.
        #[arg(long, value_name = "COUNT", default_value_t = 1,
              value_parser = clap::value_parser!(u16).range(1..=10_000))]
        count: u16,
        /// Prints a JSON list, each token with its name.
        #[arg(long)]
        json: bool,
    },
    /// Prints the names of the tokens that are not used yet.
    List {
        /// The file; without it there are the defaults and the `SNS_RELAY__…` variables.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Prints a JSON list.
        #[arg(long)]
        json: bool,
    },
    /// Takes a token back, so that it enrols nothing.
    Cancel {
        /// The token, or its name from the list.
        token: String,
        /// The file; without it there are the defaults and the `SNS_RELAY__…` variables.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Serialize)]
struct Minted {
    name: String,
    token: String,
}

#[derive(Serialize)]
struct Listed {
    name: String,
}

// === impl TokenCommand ===

impl TokenCommand {
    pub(crate) fn run(self, out: &mut impl Write, err: &mut impl Write) -> io::Result<ExitCode> {
        match self {
            Self::Mint { config, count, json } => mint(config.as_deref(), count, json, out, err),
            Self::List { config, json } => list(config.as_deref(), json, out, err),
            Self::Cancel { token, config } => cancel(config.as_deref(), &token, out, err),
        }
    }
}

fn mint(
    config: Option<&Path>,
    count: u16,
    json: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    let tokens: Option<Vec<String>> = (0..count).map(|_| enrol::random_enrolment_token()).collect();
    let Some(tokens) = tokens else { return fail(&KeysError::Generate, err) };
    let hashes: Vec<Token> =
        tokens.iter().map(|token| enrol::hash_enrolment_token(token)).collect();
    let names: Vec<String> = hashes.iter().map(name).collect();
    let asked =
        ask_records(config, err, async |records| records.add_enrolment_tokens(hashes).await);
    if let Err(code) = asked? {
        return Ok(code);
    }
    if json {
        let minted = names.into_iter().zip(tokens).map(|(name, token)| Minted { name, token });
        print_json(&minted.collect::<Vec<_>>(), out)?;
        return Ok(ExitCode::SUCCESS);
    }
    for token in tokens {
        writeln!(out, "{token}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn list(
    config: Option<&Path>,
    json: bool,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    let asked = ask_records(config, err, async |records| records.enrolment_tokens().await);
    let names: Vec<String> = match asked? {
        Ok(hashes) => hashes.iter().map(name).collect(),
        Err(code) => return Ok(code),
    };
    if json {
        let listed = names.into_iter().map(|name| Listed { name });
        print_json(&listed.collect::<Vec<_>>(), out)?;
        return Ok(ExitCode::SUCCESS);
    }
    for name in names {
        writeln!(out, "{name}")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn cancel(
    config: Option<&Path>,
    token: &str,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    let whole = enrol::hash_enrolment_token(token);
    let asked = ask_records(config, err, async |records| {
        let hashes = records.enrolment_tokens().await?;
        let meant = hashes.into_iter().find(|hash| *hash == whole || name(hash) == token);
        match meant {
            Some(hash) => Ok(records.cancel_enrolment_token(hash).await?.then(|| name(&hash))),
            None => Ok(None),
        }
    });
    match asked? {
        Ok(Some(name)) => writeln!(out, "{name} cancelled").map(|()| ExitCode::SUCCESS),
        Ok(None) => none_such("token", err),
        Err(code) => Ok(code),
    }
}

fn name(hash: &Token) -> String {
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
