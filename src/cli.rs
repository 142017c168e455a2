//! The commands: what they take and what they print.
//!
//! Results go to standard output, faults and warnings to standard error. No secret is printed.

use std::error::Error;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sns_relay::clock::{Clock, format_rfc3339};
use sns_relay::config::{self, ApnsCredential, App, Config, Fault, Faults, files};
use sns_relay::keys::{self, HandleKeys, SerialPepper};
use sns_relay::store::StoreError;
use sns_relay::store::records::Records;
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

mod nas;

mod store;

mod token;

pub(crate) use nas::NasCommand;
pub(crate) use store::StoreCommand;
pub(crate) use token::TokenCommand;

/// Arguments or configuration with a fault (`EX_USAGE` of sysexits.h).
pub(crate) const EXIT_USAGE: u8 = 64;

/// Relays pushes from NAS boxes to APNs, FCM and Web Push.
#[derive(Parser)]
#[command(name = "sns-relay", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Serves until SIGTERM or SIGINT.
    Serve {
        /// The file; without it there are the defaults and the `SNS_RELAY__…` variables.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Reads the configuration, prints what it says or every fault, and binds nothing.
    CheckConfig {
        /// The file; without it there are the defaults and the `SNS_RELAY__…` variables.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Makes and rotates the keys that all replicas share.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Looks after the identity store; a relay may serve from it meanwhile.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Looks at the NAS identities, stops single ones and lets them go on.
    #[command(subcommand)]
    Nas(NasCommand),
    /// Makes the one-time tokens that enrol a NAS, and takes them back.
    #[command(subcommand)]
    EnrolmentToken(TokenCommand),
}

#[derive(Subcommand)]
pub(crate) enum KeysCommand {
    /// Makes handle keys, serial pepper and VAPID key; overwrites nothing.
    Init {
        /// The folder, made if there is none.
        dir: PathBuf,
    },
    /// Puts a new handle key in front; it seals five minutes later, when every replica knows it.
    Rotate {
        /// The folder.
        dir: PathBuf,
        /// Older keys that go on opening handles; a handle is lost with its key.
        #[arg(long, value_name = "COUNT", default_value_t = keys::KEPT_KEYS_DEFAULT)]
        keep: usize,
    },
}

/// Reads the configuration and looks into its folder of keys.
/// Errors: all faults of the configuration, or else all of the folder.
pub(crate) fn load(file: Option<&Path>) -> Result<Config, Faults> {
    let mut config = read(file)?;
    let ring = HandleKeys::load(&config.keys.directory).map(drop);
    let pepper = SerialPepper::load(&config.keys.directory).map(drop);
    let errors = [ring, pepper].into_iter().filter_map(Result::err);
    let faults: Vec<Fault> =
        errors.map(|error| Fault::new("keys.directory", with_causes(&error))).collect();
    if !faults.is_empty() {
        return Err(Faults(faults));
    }
    for name in [keys::HANDLE_KEYS_FILE, keys::SERIAL_PEPPER_FILE] {
        if files::is_open_to_others(&config.keys.directory.join(name)) {
            let text = format!("{name} is open to other users than its owner");
            config.warnings.push(Fault::new("keys.directory", text));
        }
    }
    Ok(config)
}

fn read(file: Option<&Path>) -> Result<Config, Faults> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
    Config::load(file, variables)
}

/// Runs `serve`.
pub(crate) fn serve(file: Option<&Path>, err: &mut impl Write) -> io::Result<ExitCode> {
    let config = match load(file) {
        Ok(config) => config,
        Err(faults) => return refuse(&faults, err),
    };
    start_log(&config.log);
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    match sns_relay::serve::run(config) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => fail(&error, err),
    }
}

/// Only this program's own lines: a library's may hold what a sender sent.
fn start_log(log: &config::Log) {
    let own = Targets::new().with_target("sns_relay", log.level.parse().unwrap_or(Level::INFO));
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(false);
    let registry = tracing_subscriber::registry().with(own);
    if log.json {
        registry.with(lines.json()).init();
    } else {
        registry.with(lines).init();
    }
}

/// Runs `check-config`.
pub(crate) fn check_config(
    file: Option<&Path>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    let config = match load(file) {
        Ok(config) => config,
        Err(faults) => return refuse(&faults, err),
    };
    for warning in &config.warnings {
        writeln!(err, "warning: {warning}")?;
    }
    let tls = if config.server.tls.is_some() { "TLS" } else { "cleartext" };
    writeln!(out, "ok")?;
    writeln!(out, "doors: {} ({tls}), {}", config.server.listen, config.server.public_url.origin)?;
    writeln!(out, "admin: {}", config.admin.listen)?;
    writeln!(out, "store: {}", config.store.place.name())?;
    writeln!(out, "keys: {}", config.keys.directory.display())?;
    for app in config.apps.values() {
        writeln!(out, "app {}: {}", app.name, services(app).join(", "))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints all faults; gives the exit code for them.
pub(crate) fn refuse(faults: &Faults, err: &mut impl Write) -> io::Result<ExitCode> {
    writeln!(err, "{faults}")?;
    Ok(ExitCode::from(EXIT_USAGE))
}

/// Runs `keys init`.
pub(crate) fn init_keys(
    directory: &Path,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    if let Err(error) = keys::init(directory, &Clock::system()) {
        return fail(&error, err);
    }
    writeln!(out, "made the keys in {}", directory.display())?;
    Ok(ExitCode::SUCCESS)
}

/// Runs `keys rotate`.
pub(crate) fn rotate_keys(
    directory: &Path,
    kept_keys: usize,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<ExitCode> {
    match keys::rotate(directory, kept_keys, &Clock::system()) {
        Ok(seals_from) => {
            writeln!(out, "the new handle key seals from {} on", format_rfc3339(seals_from))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => fail(&error, err),
    }
}

/// Opens the records that a configuration names, and asks them.
/// Nothing but the section `store` is used, so the keys need not be there.
fn ask_records<T>(
    file: Option<&Path>,
    err: &mut impl Write,
    question: impl AsyncFnOnce(Records) -> Result<T, StoreError>,
) -> io::Result<Result<T, ExitCode>> {
    let config = match read(file) {
        Ok(config) => config,
        Err(faults) => return refuse(&faults, err).map(Err),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(async { question(Records::open(&config.store).await?).await });
    match answer {
        Ok(answer) => Ok(Ok(answer)),
        Err(error) => fail(&error, err).map(Err),
    }
}

/// Says that there is no such thing.
fn none_such(what: &str, err: &mut impl Write) -> io::Result<ExitCode> {
    writeln!(err, "there is no such {what}")?;
    Ok(ExitCode::FAILURE)
}

/// Prints a value as JSON, readable for people too.
fn print_json(value: &impl serde::Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

fn fail(error: &dyn Error, err: &mut impl Write) -> io::Result<ExitCode> {
    writeln!(err, "{}", with_causes(error))?;
    Ok(ExitCode::FAILURE)
}

fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn services(app: &App) -> Vec<&'static str> {
    let apns = app.apns.as_ref().map(|apns| match apns.credential {
        ApnsCredential::Token { .. } => "apns (token)",
        ApnsCredential::Certificate { .. } => "apns (certificate)",
    });
    let fcm = app.fcm.as_ref().map(|_| "fcm");
    let webpush = app.webpush.as_ref().map(|_| "webpush");
    [apns, fcm, webpush].into_iter().flatten().collect()
}
