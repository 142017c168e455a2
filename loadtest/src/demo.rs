//! The demo: the real relay between one NAS, three devices and a mailbox, and all that each saw.
//!
//! In: the relay's binary beside this program's own. Out: tables, and whether every device read its
//! text and every search for what must not be there found nothing. Apple, Google and Mozilla are
//! simulated on loopback; the relay is a process of its own, started and stopped as an operator
//! does.

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitStatus;

use sns_nas::client::ClientError;
use sns_nas::key::KeyError;
use sns_nas::seal::SealError;

use crate::device::DeviceError;
use crate::sim::SimError;
use crate::sim::smtp::{Security, SmtpServer};
use crate::stage::{Stage, StageError};

mod cast;

mod act;

mod day;

mod sight;

mod search;

mod kept;

mod relay_process;

mod page;

mod encore;

mod stop_signals;

pub use encore::LINES;

use act::Scene;
use cast::Cast;
use day::Day;
use kept::Kept;
use relay_process::RelayProcess;
use search::Search;
use stop_signals::StopSignals;

/// Why the demo could not be played to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The relay was not built.
    #[error("{} is missing: build it with cargo build --release --workspace", .0.display())]
    NoRelay(PathBuf),
    /// The relay's process did not do what it was started for.
    #[error("{what}")]
    Relay {
        /// What it did not do.
        what: String,
        /// Its log, last lines.
        log: String,
    },
    /// The simulated push services.
    #[error("the stage cannot be set")]
    Stage(#[from] StageError),
    /// The SMTP server.
    #[error("the SMTP server does not do its part")]
    Smtp(#[from] SimError),
    /// A command of the NAS.
    #[error("sns-nas {command} ends with {status}: {words}")]
    Nas {
        /// Its first word.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        words: String,
    },
    /// A device.
    #[error("a device cannot play")]
    Device(#[from] DeviceError),
    /// The relay's answer to the NAS.
    #[error("the relay does not answer as it must")]
    Client(#[from] ClientError),
    /// A sender key.
    #[error("a sender key cannot be made")]
    Key(#[from] KeyError),
    /// A message.
    #[error("a message cannot be sealed")]
    Seal(#[from] SealError),
    /// The identity store.
    #[error("the identity store cannot be read")]
    Store(#[from] rusqlite::Error),
    /// A file, a process or the terminal.
    #[error("a file, a process or the terminal fails")]
    Io(#[from] io::Error),
    /// Ctrl-C or a signal, before the end.
    #[error("stopped before the end")]
    Stopped,
    /// An answer that lacks a part.
    #[error("{0}")]
    Missing(&'static str),
}

/// Plays the demo; with `keep` it stays up until Ctrl-C or SIGTERM.
/// Gives whether every device read its text and nothing was found where it must not be.
/// Errors: [`DemoError`]; the relay is stopped all the same.
pub async fn run(keep: bool, out: &mut (impl Write + Send)) -> Result<bool, DemoError> {
    let mut stop = StopSignals::new()?;
    let mut stage = Stage::set().await?;
    let smtp = SmtpServer::start(&stage.ca, Security::StartTls, None)?;
    stage.serve_mail(&smtp, Security::StartTls, None)?;
    let mut relay = RelayProcess::start(&mut stage).await?;
    let played = tokio::select! {
        played = play(&stage, &smtp, &relay, out) => played,
        () = stop.asked() => Err(DemoError::Stopped),
    };
    let played = match played {
        Ok((cast, good)) if keep => tokio::select! {
            error = encore::play(&stage, &mut relay, &cast, out) => Err(error),
            // The terminal has written its ^C into the line.
            () = stop.asked() => writeln!(out).map(|()| good).map_err(DemoError::from),
        },
        played => played.map(|(_, good)| good),
    };
    let stopped = relay.stop().await;
    let good = played.map_err(|error| relay.with_log(error))?;
    stopped?;
    writeln!(out, "The relay has drained and stopped; its files are gone with the demo's folder.")?;
    Ok(good)
}

async fn play(
    stage: &Stage,
    smtp: &SmtpServer,
    relay: &RelayProcess,
    out: &mut (impl Write + Send),
) -> Result<(Cast, bool), DemoError> {
    let cast = Cast::gather(stage, relay.url()).await?;
    page::opening(out, relay, &cast)?;
    let mut scenes = act::chat(stage, &cast).await?;
    scenes.extend(act::alert(stage, &cast).await?);
    page::messages(out, &scenes)?;
    page::sights(out, &scenes)?;
    let day = Day::live(stage, smtp, relay, &cast).await?;
    page::day(out, &day)?;
    let kept = Kept::read(stage, &cast).await?;
    page::kept(out, &kept)?;
    page::metrics(out, &relay.metrics().await?)?;
    let searches = search::all(stage, relay, &cast, &scenes)?;
    let good = scenes.iter().all(Scene::is_good) && day.is_good() && kept.is_good();
    let good = good && searches.iter().all(Search::is_good);
    page::verdict(out, &scenes, &day, &kept, &searches)?;
    Ok((cast, good))
}

/// Writes an error and its causes on one line.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
