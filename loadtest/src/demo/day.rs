//! A day of the NAS: `sns-nas` as its owner runs it, with its daemon, a mailbox and a recall.
//!
//! The journal is in the demo's folder; the key is the one that the cast has enrolled, so it stays
//! one NAS. The mailbox's handle is taken from the mail that brought it, as its owner would.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time;

use super::DemoError;
use super::cast::{Cast, MODEL, PairedDevice, SERIAL};
use super::relay_process::{RelayProcess, beside_this_program};
use crate::device::Inbox;
use crate::sim::smtp::{ReceivedMail, SmtpServer};
use crate::stage::{PLAIN_APP, Stage};

/// What happened.
pub(super) struct Day {
    /// The commands that are shown, with what they printed.
    pub(super) commands: Vec<(String, String)>,
    /// What the iPhone shows before the withdrawal and after it.
    pub(super) screens: [Vec<String>; 2],
    /// The mail with the notification.
    pub(super) mail: Option<ReceivedMail>,
    recalled: Vec<Value>,
}

/// `sns-nas` with its journal.
struct Nas {
    program: PathBuf,
    journal: PathBuf,
}

const OWNER: &str = "owner@example.com";
const MAILBOX: &str = "owner-mail";
const MISTAKE: &str = "Volume 2 is full, or so it seemed";

const POLL: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(20);

// === impl Day ===

impl Day {
    /// Lives through it.
    /// Errors: a command that fails, or something that does not happen in time.
    pub(super) async fn live(
        stage: &Stage,
        smtp: &SmtpServer,
        relay: &RelayProcess,
        cast: &Cast,
    ) -> Result<Self, DemoError> {
        let nas = Nas {
            program: beside_this_program("sns-nas")?,
            journal: stage.folder().join("nas.sqlite3"),
        };
        nas.settle_in(smtp, relay, cast).await?;
        let mut daemon = nas.command(&["run"]).kill_on_drop(true).spawn()?;
        let lived = nas.live(stage, smtp, cast).await;
        stop(&mut daemon).await?;
        lived
    }

    /// Whether the mistake was on the screen, and then was not.
    pub(super) fn withdrawn(&self) -> bool {
        let [before, after] = &self.screens;
        let shows = |texts: &[String]| texts.iter().any(|text| text == MISTAKE);
        shows(before) && !shows(after) && !after.is_empty()
    }

    /// Whether the journal has all three, and each device its outcome.
    pub(super) fn recalled(&self) -> bool {
        let told = |record: &Value| {
            let fates = record["deliveries"].as_array();
            fates.is_some_and(|fates| {
                !fates.is_empty() && fates.iter().all(|fate| fate["state"] == "accepted")
            })
        };
        self.recalled.len() == 3 && self.recalled.iter().all(told)
    }

    /// Whether all of it came as it should.
    pub(super) fn is_good(&self) -> bool {
        self.withdrawn() && self.recalled() && self.mail.is_some()
    }
}

// === impl Nas ===

impl Nas {
    /// Enrols, and keeps the devices and the mailbox.
    async fn settle_in(
        &self,
        smtp: &SmtpServer,
        relay: &RelayProcess,
        cast: &Cast,
    ) -> Result<(), DemoError> {
        let key = self.journal.with_extension("pem");
        tokio::fs::write(&key, cast.nas_key.pem()?.as_bytes()).await?;
        let key = key.to_string_lossy();
        self.run(&[
            "enrol",
            "--relay",
            relay.url(),
            "--model",
            MODEL,
            "--serial",
            SERIAL,
            "--key",
            &key,
        ])
        .await?;
        for device in &cast.devices {
            self.say(&["devices", "add", device.name, "--stdin"], &handed_over(device)).await?;
        }
        self.run(&["devices", "mail", OWNER, "--app", PLAIN_APP]).await?;
        let mails = smtp.wait_for(1).await?;
        let words = mails[0].text.as_deref().unwrap_or_default().split_whitespace();
        let handle = words.max_by_key(|word| word.len());
        let handle = handle.ok_or(DemoError::Missing("the mail has no handle"))?;
        self.run(&["devices", "add", MAILBOX, "--plain", "--handle", handle]).await?;
        Ok(())
    }

    async fn live(&self, stage: &Stage, smtp: &SmtpServer, cast: &Cast) -> Result<Day, DemoError> {
        let mut commands = Vec::new();
        let crash = ["notify", "StgMgrVolumeCrash", r#"{"%VOLUME_NAME%": "1"}"#];
        commands
            .push((format!("notify StgMgrVolumeCrash '{}'", crash[2]), self.run(&crash).await?));
        let mut mistake = vec!["notify", "--level", "warn", "--title", "Storage"];
        mistake.extend(["--text", MISTAKE]);
        for device in &cast.devices {
            mistake.extend(["--device", device.name]);
        }
        let id = self.run(&mistake).await?;
        let told = format!("notify --level warn --text '{MISTAKE}' --device …");
        commands.push((told, id.clone()));
        self.settled(2).await?;
        let before = screen(stage, &cast.devices[0]);
        commands
            .push((format!("withdraw {}", id.trim()), self.run(&["withdraw", id.trim()]).await?));
        let recalled = self.settled(3).await?;
        let after = screen(stage, &cast.devices[0]);
        let recall = self.run(&["recall", "--since", "1h"]).await?;
        commands.push(("recall --since 1h".to_owned(), recall));
        let mail = smtp.wait_for(2).await?.pop();
        Ok(Day { commands, screens: [before, after], mail, recalled })
    }

    /// Waits until the journal has so many records, each with an outcome for every device.
    async fn settled(&self, records: usize) -> Result<Vec<Value>, DemoError> {
        let settled = async {
            loop {
                let lines = self.run(&["recall", "--json"]).await?;
                let recalled: Vec<Value> =
                    lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
                if recalled.len() == records && !lines.contains("\"pending\"") {
                    return Ok(recalled);
                }
                time::sleep(POLL).await;
            }
        };
        let limit = DemoError::Missing("the daemon does not send what it has");
        time::timeout(LIMIT, settled).await.unwrap_or(Err(limit))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--journal").arg(&self.journal).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C in the terminal is for the demo.
        command.process_group(0);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Result<String, DemoError> {
        self.say(arguments, "").await
    }

    /// Runs a command with something on its standard input; gives what it printed.
    async fn say(&self, arguments: &[&str], input: &str) -> Result<String, DemoError> {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        let ended = child.wait_with_output().await?;
        if ended.status.success() {
            return Ok(String::from_utf8_lossy(&ended.stdout).into_owned());
        }
        let words = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
        let command = arguments.first().copied().unwrap_or_default().to_owned();
        Err(DemoError::Nas { command, status: ended.status, words })
    }
}

/// What a device's app hands over to its NAS.
fn handed_over(device: &PairedDevice) -> String {
    let handed = json!({
        "endpoint": device.alerts.endpoint,
        "p256dh": device.device.p256dh(),
        "auth": device.device.auth(),
        "max_body_bytes": device.alerts.max_body_bytes,
    });
    handed.to_string()
}

/// Gives what the device shows of the NAS's notifications; Chat's texts are another app's.
fn screen(stage: &Stage, device: &PairedDevice) -> Vec<String> {
    let mut inbox = Inbox::default();
    for delivered in device.delivered(stage) {
        if let Ok(opened) = device.device.open(&delivered) {
            let _ = inbox.take(&opened);
        }
    }
    inbox.texts().into_iter().map(str::to_owned).collect()
}

async fn stop(daemon: &mut Child) -> Result<(), DemoError> {
    if let Some(pid) = daemon.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
        kill_process(pid, Signal::TERM).map_err(std::io::Error::from)?;
    }
    let stopped = time::timeout(LIMIT, daemon.wait()).await;
    stopped.map_err(|_| DemoError::Missing("the daemon does not stop on SIGTERM"))??;
    Ok(())
}
