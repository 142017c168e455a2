//! `sns-nas`: keys, tokens and sealed bodies for the shell, so that curl can speak to a relay.
//!
//! Exit codes: 0 done, 64 bad usage (an argument), 1 anything else. Writes to stdout only what
//! was asked for.

use std::error::Error;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use sns_nas::key::SenderKey;
use sns_nas::seal::{BodyCap, DeviceKeys, SealError, seal};
use sns_nas::vapid::{self, Audience, VapidError};

/// The NAS side of sns-relay.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make a sender key in a new file that only its owner can read.
    Keygen {
        /// The PEM file to make; one that exists is never overwritten.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Print the public key in base64url.
    Public {
        /// The sender key's PEM file.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Print an Authorization header for one relay: curl -H "$(sns-nas token …)".
    Token {
        /// The sender key's PEM file.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// The relay's public URL, or any URL under it.
        #[arg(long, value_name = "URL", value_parser = Audience::of_url)]
        audience: Audience,
        /// Whom the relay's operator may ask: a mailto: or https: URI.
        #[arg(long, value_name = "URI")]
        subject: Option<String>,
        /// How long the token is good, in seconds.
        #[arg(long, value_name = "SECONDS", default_value_t = vapid::LIFE_S_DEFAULT,
            value_parser = clap::value_parser!(u64).range(1..=vapid::LIFE_S_MAX))]
        life_s: u64,
    },
    /// Seal standard input for one device and write the body to standard output.
    Seal {
        /// The device's public key in base64url.
        #[arg(long, value_name = "BASE64URL")]
        p256dh: String,
        /// The device's auth secret in base64url.
        #[arg(long, value_name = "BASE64URL", allow_hyphen_values = true)]
        auth: String,
        /// The largest body that the app takes (its max_body_bytes), in bytes.
        #[arg(long, value_name = "BYTES", value_parser = parse_cap, default_value = "2744")]
        cap_bytes: BodyCap,
    },
}

/// What went wrong, by blame: the caller's arguments, or anything else.
enum Failure {
    Usage(Box<dyn Error>),
    Other(Box<dyn Error>),
}

const EXIT_USAGE: u8 = 64;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Asking for help is no fault. With stdout or stderr closed, the exit code remains.
            let code = if error.use_stderr() { EXIT_USAGE } else { 0 };
            return error.print().map_or(ExitCode::FAILURE, |()| ExitCode::from(code));
        }
    };
    match run(args.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(error)) => report(&*error, ExitCode::from(EXIT_USAGE)),
        Err(Failure::Other(error)) => report(&*error, ExitCode::FAILURE),
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Keygen { key } => Ok(SenderKey::generate()?.save(&key)?),
        Command::Public { key } => print(SenderKey::load(&key)?.public_base64url() + "\n"),
        Command::Token { key, audience, subject, life_s } => {
            let key = SenderKey::load(&key)?;
            let now_unix_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
            let token =
                vapid::authorization(&key, &audience, subject.as_deref(), now_unix_s, life_s)?;
            print(format!("Authorization: {token}\n"))
        }
        Command::Seal { p256dh, auth, cap_bytes } => {
            let device = DeviceKeys::parse(&p256dh, &auth)?;
            let mut message = Vec::new();
            // One byte more than fits is enough to refuse it.
            let limit = cap_bytes.message_bytes_max() as u64 + 1;
            io::stdin().lock().take(limit).read_to_end(&mut message)?;
            print(seal(&device, &message, cap_bytes)?)
        }
    }
}

fn parse_cap(text: &str) -> Result<BodyCap, Box<dyn Error + Send + Sync>> {
    Ok(BodyCap::new(text.parse()?)?)
}

fn print(bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes.as_ref())?;
    Ok(stdout.flush()?)
}

/// Writes the error and its causes on one line; with stderr closed, the exit code remains.
fn report(error: &dyn Error, code: ExitCode) -> ExitCode {
    let mut text = format!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    writeln!(io::stderr(), "{text}").map_or(ExitCode::FAILURE, |()| code)
}

// === impl Failure ===

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: Box<dyn Error> = Box::new(error);
        let argument = match (error.downcast_ref(), error.downcast_ref()) {
            (Some(SealError::BadKey { field, .. }), _) => Some(*field),
            (_, Some(VapidError::BadSubject)) => Some("subject"),
            _ => None,
        };
        match argument {
            Some(name) => Self::Usage(format!("--{name}: {error}").into()),
            None => Self::Other(error),
        }
    }
}
