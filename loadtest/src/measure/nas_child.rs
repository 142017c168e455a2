//! A NAS before the relay: a journal with a device of each kind, and its daemon as a process of its
//! own, which may be killed and started again.
//!
//! In: the daemon's program, a relay that serves. Out: where requests are handed in, and what the
//! journal says became of them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sns_nas::client::RelayClient;
use sns_nas::client::message::Enrolment;
use sns_nas::clock::now_unix_ms;
use sns_nas::daemon::{SocketError, hand_in};
use sns_nas::desk::Request;
use sns_nas::event::Raised;
use sns_nas::journal::devices::{NAS, NewDevice};
use sns_nas::journal::recall::{Query, Record};
use sns_nas::journal::{Journal, Limits};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::child::with_log;
use super::letter::Sender;
use super::{MeasureError, beside};
use crate::device::{Device, DeviceKind};
use crate::fault::service_name;
use crate::stage::Stage;

/// The daemon and its journal; it is killed when this is dropped.
pub(super) struct NasChild {
    program: PathBuf,
    file: PathBuf,
    log_file: PathBuf,
    child: Child,
}

const START_LIMIT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(2);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Within it a daemon that was killed is back and takes what is handed in.
const TAKEN_LIMIT: Duration = Duration::from_secs(60);
const BODY_BYTES_MAX: usize = 2_744;

// === impl NasChild ===

impl NasChild {
    /// Makes a journal, enrols, pairs a device of each kind, and starts the daemon.
    /// Errors: [`MeasureError`].
    pub(super) async fn start(
        program: &Path,
        stage: &Stage,
        relay_url: &str,
    ) -> Result<(NasChild, Vec<Device>), MeasureError> {
        if !program.is_file() {
            return Err(MeasureError::NoRelay(program.to_owned()));
        }
        let file = stage.folder().join("nas.sqlite3");
        let devices = set_up(&file, stage, relay_url).await?;
        let log_file = stage.folder().join("nas.log");
        let child = spawn(program, &file, &log_file)?;
        let mut nas = NasChild { program: program.to_owned(), file, log_file, child };
        nas.wait_until_it_listens().await?;
        Ok((nas, devices))
    }

    /// Ends it with SIGKILL and starts it again on the same file at once.
    /// Errors: it does not come back.
    pub(super) async fn kill_and_start(&mut self) -> Result<(), MeasureError> {
        self.child.kill().await?;
        self.child = spawn(&self.program, &self.file, &self.log_file)?;
        self.wait_until_it_listens().await
    }

    /// Gives where requests are handed in.
    pub(super) fn socket(&self) -> PathBuf {
        self.file.with_extension("sock")
    }

    /// Waits until nothing waits any more.
    /// Errors: `Overdue`.
    pub(super) async fn wait_until_done(&self, limit: Duration) -> Result<(), MeasureError> {
        let done = async {
            while self.journal()?.counts()?.oldest_pending_ms.is_some() {
                sleep(LOOK_EVERY).await;
            }
            Ok(())
        };
        timeout(limit, done).await.unwrap_or(Err(MeasureError::Overdue("all to have an outcome")))
    }

    /// Gives all that the journal has.
    pub(super) fn records(&self) -> Result<Vec<Record>, MeasureError> {
        Ok(self.journal()?.recall(&Query::default(), now_unix_ms())?)
    }

    fn journal(&self) -> Result<Journal, MeasureError> {
        Ok(Journal::open_existing(&self.file, Limits::default())?)
    }

    async fn wait_until_it_listens(&mut self) -> Result<(), MeasureError> {
        let socket = self.socket();
        let listens = async {
            while UnixStream::connect(&socket).await.is_err() {
                if let Some(status) = self.child.try_wait()? {
                    return Ok::<_, std::io::Error>(Some(status));
                }
                sleep(POLL).await;
            }
            Ok(None)
        };
        match timeout(START_LIMIT, listens).await {
            Ok(ended) => match ended? {
                None => Ok(()),
                Some(status) => {
                    Err(with_log(format!("the daemon ended with {status}"), &self.log_file))
                }
            },
            Err(_) => Err(with_log("the daemon does not listen".to_owned(), &self.log_file)),
        }
    }
}

/// Gives the NAS's program where all were built: beside this one.
/// Errors: this program's own place is not known.
pub(super) fn nas_beside() -> std::io::Result<PathBuf> {
    Ok(beside()?.with_file_name("sns-nas"))
}

/// Hands an event in under one id until it is taken, also by a daemon that is killed meanwhile.
/// Errors: `Overdue`, and what the daemon says against it.
pub(super) async fn hand_in_until_taken(
    socket: &Path,
    raised: Raised,
) -> Result<Uuid, MeasureError> {
    let request = Request::Notify(Raised { id: Some(Uuid::new_v4()), ..raised });
    let taken = async {
        loop {
            match hand_in(socket, &request).await {
                Ok(taken) => break Ok(taken.id),
                // Killed before, during or after: the same id again tells which.
                Err(SocketError::Absent { .. } | SocketError::Io { .. }) => sleep(POLL).await,
                Err(error) => break Err(error.into()),
            }
        }
    };
    let overdue = MeasureError::Overdue("the daemon to take a notification");
    timeout(TAKEN_LIMIT, taken).await.unwrap_or(Err(overdue))
}

async fn set_up(file: &Path, stage: &Stage, relay_url: &str) -> Result<Vec<Device>, MeasureError> {
    let client = RelayClient::new(relay_url, None)?;
    let sender = Sender::new(relay_url)?;
    let (model, serial) = ("DS923+".to_owned(), "LOAD".to_owned());
    let enrolment = Enrolment { model, serial, ..Enrolment::default() };
    client.enrol(sender.key(), &enrolment).await?;
    let mut journal = Journal::open(file, Limits::default())?;
    journal.add_sender(NAS, sender.key(), now_unix_ms())?;
    journal.set_setting("relay_url", relay_url)?;
    let mut devices = Vec::new();
    for kind in DeviceKind::ALL {
        let (device, endpoint) = sender.pair(&client, stage, kind).await?;
        let new = NewDevice {
            name: service_name(kind).to_owned(),
            sender: NAS.to_owned(),
            handle: endpoint,
            keys: Some((device.p256dh(), device.auth())),
            body_bytes_max: BODY_BYTES_MAX,
        };
        journal.add_device(&new, now_unix_ms())?;
        devices.push(device);
    }
    Ok(devices)
}

fn spawn(program: &Path, file: &Path, log_file: &Path) -> std::io::Result<Child> {
    Command::new(program)
        .arg("run")
        .env("SNS_NAS_JOURNAL", file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::options().create(true).append(true).open(log_file)?)
        .kill_on_drop(true)
        .spawn()
}
