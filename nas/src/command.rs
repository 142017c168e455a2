//! The commands: arguments in, one library call each, what was asked for out.

use std::error::Error;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use sns_nas::catalogue::{Catalogue, CatalogueError};
use sns_nas::client::{ClientError, RelayClient};
use sns_nas::clock;
use sns_nas::courier::Courier;
use sns_nas::daemon::{DaemonError, SocketError};
use sns_nas::desk::{Desk, DeskError};
use sns_nas::event::EventError;
use sns_nas::journal::{Journal, JournalError, Limits};
use sns_nas::seal::SealError;
use sns_nas::vapid::VapidError;
use thiserror::Error;

mod daemon;
mod devices;
mod enrol;
mod keys;
mod recall;
mod rules;
mod say;
mod trial;

/// The NAS side of sns-relay.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

/// Where this NAS keeps what it has.
#[derive(clap::Args)]
struct Place {
    /// The journal: keys, devices, notifications, in one file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "SNS_NAS_JOURNAL",
        default_value = "/var/lib/sns-nas/nas.sqlite3"
    )]
    journal: PathBuf,
    /// The socket of the daemon; beside the journal unless told otherwise.
    #[arg(long, global = true, value_name = "FILE", env = "SNS_NAS_SOCKET")]
    socket: Option<PathBuf>,
    /// A table of events, over the built-in one.
    #[arg(long, global = true, value_name = "FILE", env = "SNS_NAS_CATALOGUE")]
    catalogue: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Enrol this NAS at a relay; makes the journal and the key where there is none.
    Enrol(enrol::Enrol),
    /// The keys that sign: the enrolled one, and a pseudonym for each application.
    #[command(subcommand)]
    Senders(enrol::Senders),
    /// The paired devices.
    #[command(subcommand)]
    Devices(devices::Devices),
    /// Which notifications go to which device.
    #[command(subcommand)]
    Rules(rules::Rules),
    /// Notify the devices of an event. Prints its id once it is in the journal.
    Notify(say::Notify),
    /// Send a message of an application, under the application's own key.
    Message(say::Message),
    /// Take back what was sent.
    Withdraw(say::Withdraw),
    /// Put an event in the place of what was sent.
    Replace(say::Replace),
    /// List what was sent in the last seven days, to which devices, with what outcome.
    Recall(recall::Recall),
    /// Tell what this NAS is, what waits and what the journal holds.
    Status(recall::Status),
    /// Run the daemon: sends what is in the journal and takes requests on its socket.
    Run(daemon::Run),
    #[command(flatten)]
    Keys(keys::Keys),
}

/// What went wrong, and the exit code that says whose fault it is.
pub(crate) struct Failure {
    pub(crate) code: u8,
    pub(crate) error: Box<dyn Error>,
}

/// What a command itself refuses.
#[derive(Debug, Error)]
enum CommandError {
    #[error("--{name}: {fault}")]
    Argument { name: &'static str, fault: String },
    #[error("{fault}")]
    Input { fault: String },
    #[error("this NAS is not enrolled: sns-nas enrol")]
    NotEnrolled,
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
}

pub(crate) const EXIT_USAGE: u8 = 64;
const EXIT_INPUT: u8 = 65;
const EXIT_RELAY: u8 = 69;
const EXIT_JOURNAL: u8 = 74;
const EXIT_RUNNING: u8 = 75;

/// Does what was asked; gives the exit code.
pub(crate) fn run(args: Args) -> Result<u8, Failure> {
    let place = &args.place;
    match args.command {
        Command::Enrol(enrol) => enrol.run(place)?,
        Command::Senders(senders) => senders.run(place)?,
        Command::Devices(devices) => return devices.run(place),
        Command::Rules(rules) => rules.run(place)?,
        Command::Notify(notify) => return notify.run(place),
        Command::Message(message) => return message.run(place),
        Command::Withdraw(withdraw) => return withdraw.run(place),
        Command::Replace(replace) => return replace.run(place),
        Command::Recall(recall) => recall.run(place)?,
        Command::Status(status) => status.run(place)?,
        Command::Run(run) => run.run(place)?,
        Command::Keys(keys) => keys.run()?,
    }
    Ok(0)
}

fn print(bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes.as_ref())?;
    Ok(stdout.flush()?)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

// === impl Place ===

impl Place {
    fn journal(&self) -> Result<Journal, Failure> {
        Ok(Journal::open_existing(&self.journal, Limits::default())?)
    }

    fn desk(&self) -> Result<Desk, Failure> {
        let catalogue = Catalogue::load(self.catalogue.as_deref())?;
        Ok(Desk::new(self.journal()?, catalogue, hostname()))
    }

    fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.journal.with_extension("sock"))
    }
}

/// Sets up the way to the relay that the journal names.
fn courier(journal: &Journal) -> Result<Courier, Failure> {
    Ok(Courier::new(relay(journal)?, journal)?)
}

fn relay(journal: &Journal) -> Result<RelayClient, Failure> {
    let url = journal.setting(enrol::RELAY_URL)?.ok_or(CommandError::NotEnrolled)?;
    let ca = journal.setting(enrol::RELAY_CA)?.filter(|pem| !pem.is_empty());
    Ok(RelayClient::new(&url, ca.as_deref().map(str::as_bytes))?)
}

fn hostname() -> String {
    let read = |path| std::fs::read_to_string(Path::new(path)).ok();
    let name = read("/proc/sys/kernel/hostname").or_else(|| read("/etc/hostname"));
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    name.unwrap_or_else(|| "NAS".to_owned())
}

/// Reads "90s", "15m", "36h", "7d" before now, or a time in RFC 3339.
fn parse_since(text: &str) -> Result<u64, String> {
    if let Some(unix_ms) = clock::parse_rfc3339(text) {
        return Ok(unix_ms);
    }
    let unit_ms = match text.as_bytes().last() {
        Some(b's') => 1000,
        Some(b'm') => 60_000,
        Some(b'h') => 3_600_000,
        Some(b'd') => clock::DAY_MS,
        _ => 0,
    };
    let count = text.get(..text.len().saturating_sub(1)).and_then(|n| n.parse::<u64>().ok());
    match count {
        Some(count) if unit_ms > 0 => {
            Ok(clock::now_unix_ms().saturating_sub(count.saturating_mul(unit_ms)))
        }
        _ => Err("not a time like 2h, 7d or 2026-11-24T10:00:00Z".to_owned()),
    }
}

// === impl Failure ===

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: Box<dyn Error> = Box::new(error);
        // The library's own words name the member; the shell knows it as an argument.
        let argument = match (error.downcast_ref(), error.downcast_ref()) {
            (Some(SealError::BadKey { field, .. }), _) => Some(*field),
            (_, Some(VapidError::BadSubject)) => Some("subject"),
            _ => None,
        };
        if let Some(name) = argument {
            return Self { code: EXIT_USAGE, error: format!("--{name}: {error}").into() };
        }
        Self { code: code_of(&*error), error }
    }
}

fn code_of(error: &(dyn Error + 'static)) -> u8 {
    if let Some(error) = error.downcast_ref::<CommandError>() {
        return match error {
            CommandError::Argument { .. } | CommandError::Read { .. } => EXIT_USAGE,
            CommandError::Input { .. } => EXIT_INPUT,
            CommandError::NotEnrolled => EXIT_JOURNAL,
        };
    }
    if let Some(error) = error.downcast_ref::<JournalError>() {
        return match error {
            JournalError::BadArgument { .. }
            | JournalError::Unknown { .. }
            | JournalError::Exists { .. } => EXIT_USAGE,
            _ => EXIT_JOURNAL,
        };
    }
    match error.downcast_ref::<DeskError>() {
        Some(DeskError::Journal(error)) => return code_of(error),
        Some(_) => return EXIT_INPUT,
        None => {}
    }
    match error.downcast_ref::<SocketError>() {
        Some(SocketError::Refused { is_callers: true, .. }) => return EXIT_INPUT,
        Some(_) => return EXIT_JOURNAL,
        None => {}
    }
    match error.downcast_ref::<DaemonError>() {
        Some(DaemonError::Running) => return EXIT_RUNNING,
        Some(_) => return EXIT_JOURNAL,
        None => {}
    }
    if error.is::<EventError>() || error.is::<CatalogueError>() {
        return EXIT_INPUT;
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::BadArgument { .. } | ClientError::BadCa) => EXIT_USAGE,
        Some(_) => EXIT_RELAY,
        None => 1,
    }
}
