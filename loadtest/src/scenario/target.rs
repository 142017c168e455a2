//! The relay that is loaded: one of our own with fresh keys, or one that runs already.
//!
//! In: a plan. Out: the push services behind the relay, its URL, and its process where that is to
//! be measured. A relay of our own is ended with SIGTERM; another one is left as it is.

use std::time::Duration;

use sns_nas::client::RelayClient;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::house;
use super::options::{Plan, Settings};
use crate::measure::child::RelayChild;
use crate::measure::{MeasureError, beside};
use crate::stage::{APP, Stage};

/// A relay that serves.
pub(super) struct Target {
    pub(super) stage: Stage,
    pub(super) url: String,
    pub(super) pid: Option<u32>,
    pub(super) version: String,
    child: Option<RelayChild>,
}

/// It may be starting at this moment.
const START_LIMIT: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(100);

// === impl Target ===

impl Target {
    /// Starts a relay, or goes to the one that runs.
    /// Errors: it does not start, or does not answer.
    pub(super) async fn find(plan: &Plan, settings: &Settings) -> Result<Target, MeasureError> {
        if let Some(folder) = &plan.running {
            let (stage, url) = house::open(folder).await?;
            if url.starts_with("https:") != settings.tls {
                let why = format!("the relay of --running is {url}");
                return Err(MeasureError::BadOption { option: "--tls", why });
            }
            let version = "sns-relay, running already".to_owned();
            let target = Target { stage, url, pid: plan.pid, version, child: None };
            target.wait_until_it_answers().await?;
            return Ok(target);
        }
        let program = plan.relay.clone().map_or_else(beside, Ok)?;
        let mut stage = Stage::set().await?;
        make_room(&mut stage);
        let child = RelayChild::start_speaking(&program, &mut stage, settings.tls).await?;
        let said = Command::new(&program).arg("--version").output().await?.stdout;
        let version = String::from_utf8_lossy(&said).trim().to_owned();
        let (url, pid) = (child.url().to_owned(), Some(child.pid()?));
        Ok(Target { stage, url, pid, version, child: Some(child) })
    }

    async fn wait_until_it_answers(&self) -> Result<(), MeasureError> {
        let client = self.client()?;
        let end = Instant::now() + START_LIMIT;
        loop {
            match client.app(APP).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > end => return Err(error.into()),
                Err(_) => sleep(START_POLL).await,
            }
        }
    }

    /// Makes a client that trusts the relay's doors.
    pub(super) fn client(&self) -> Result<RelayClient, MeasureError> {
        Ok(RelayClient::new(&self.url, Some(self.stage.ca.pem().as_bytes()))?)
    }

    /// Ends a relay of our own.
    /// Errors: it does not stop in time.
    pub(super) async fn leave(self) -> Result<(), MeasureError> {
        match self.child {
            Some(child) => child.stop().await,
            None => Ok(()),
        }
    }
}

/// Lets many callers in, keeps those that are quiet, and takes notifications to 64 devices.
pub(super) fn make_room(stage: &mut Stage) {
    stage.make_room();
    stage.set_key("server.connections_max", 200_000);
    stage.set_key("server.header_timeout_ms", 600_000);
    stage.set_key("server.body_bytes_max", 1024 * 1024);
}
