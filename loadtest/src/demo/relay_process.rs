//! The relay as an operator runs it: `keys init`, `serve`, SIGTERM.
//!
//! Its log goes to a file of the stage and is shown only with an error.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time;

use super::DemoError;
use crate::stage::Stage;

/// A relay that serves, in a process of its own.
pub(super) struct RelayProcess {
    child: Child,
    url: String,
    admin_url: String,
    log_file: PathBuf,
    http: Client<HttpConnector, Full<Bytes>>,
}

const START_LIMIT: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(20);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// The relay's own limit is 30 seconds.
const STOP_LIMIT: Duration = Duration::from_secs(40);
const LOG_LINES_SHOWN: usize = 30;

// === impl RelayProcess ===

impl RelayProcess {
    /// Makes keys, starts the relay on free ports and waits until it is ready.
    pub(super) async fn start(stage: &mut Stage) -> Result<Self, DemoError> {
        let program = beside_this_program("sns-relay")?;
        make_keys(&program, &stage.keys_folder()).await?;
        // The public URL is written before the port is bound, so a free port is found first.
        let (listen, admin) = (free_address()?, free_address()?);
        let url = format!("http://localhost:{}", listen.port());
        let config_file = stage.write_config(listen, admin, &url)?;
        let log_file = stage.folder().join("relay.log");
        let child = Command::new(&program)
            .args(["serve", "--config"])
            .arg(&config_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log_file)?)
            // Ctrl-C in the terminal is for the demo, which stops the relay in its own time.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let http = Client::builder(TokioExecutor::new()).build_http();
        let mut relay = Self { child, url, admin_url: format!("http://{admin}"), log_file, http };
        relay.wait_until_ready().await?;
        Ok(relay)
    }

    /// Gives its public URL.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Gives the URL of its admin port.
    pub(super) fn admin_url(&self) -> &str {
        &self.admin_url
    }

    /// Gives the number of its process.
    pub(super) fn process_id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    /// Gives all that it has logged.
    pub(super) fn log(&self) -> Vec<u8> {
        fs::read(&self.log_file).unwrap_or_default()
    }

    /// Fetches its metrics.
    pub(super) async fn metrics(&self) -> Result<String, DemoError> {
        let answer = self.admin("/metrics").await.filter(|(status, _)| *status == StatusCode::OK);
        answer.map(|(_, text)| text).ok_or(DemoError::Missing("the relay gives no metrics"))
    }

    /// Waits until it ends by itself, which it must not.
    pub(super) async fn ended(&mut self) -> Result<ExitStatus, DemoError> {
        Ok(self.child.wait().await?)
    }

    /// Asks it to drain and stop, and waits until it has.
    /// Errors: it did not stop in time, or not with exit code 0.
    pub(super) async fn stop(&mut self) -> Result<(), DemoError> {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            kill_process(pid, Signal::TERM).map_err(std::io::Error::from)?;
        }
        match time::timeout(STOP_LIMIT, self.child.wait()).await {
            Ok(status) if status.as_ref().is_ok_and(ExitStatus::success) => Ok(()),
            Ok(status) => Err(self.fault(format!("the relay ended with {}", status?))),
            Err(_) => {
                self.child.kill().await?;
                Err(self.fault("the relay did not stop on SIGTERM".to_owned()))
            }
        }
    }

    /// Adds the log to an error that has none.
    pub(super) fn with_log(&self, error: DemoError) -> DemoError {
        match error {
            error @ (DemoError::Relay { .. } | DemoError::Stopped) => error,
            error => self.fault(crate::demo::with_causes(&error)),
        }
    }

    async fn wait_until_ready(&mut self) -> Result<(), DemoError> {
        let ready = async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    return Ok(Some(status));
                }
                if self.admin("/readyz").await.is_some_and(|(status, _)| status == StatusCode::OK) {
                    return Ok(None);
                }
                time::sleep(START_POLL).await;
            }
        };
        let ready: Result<Result<Option<ExitStatus>, std::io::Error>, _> =
            time::timeout(START_LIMIT, ready).await;
        match ready {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(status))) => Err(self.fault(format!("the relay ended with {status}"))),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(self.fault("the relay is not ready".to_owned())),
        }
    }

    async fn admin(&self, path: &str) -> Option<(StatusCode, String)> {
        let fetch = async {
            let uri = format!("{}{path}", self.admin_url).parse().ok()?;
            let response = self.http.get(uri).await.ok()?;
            let status = response.status();
            let body = response.into_body().collect().await.ok()?.to_bytes();
            Some((status, String::from_utf8_lossy(&body).into_owned()))
        };
        time::timeout(ANSWER_LIMIT, fetch).await.ok().flatten()
    }

    /// Makes an error of it, with the end of the log.
    pub(super) fn fault(&self, what: String) -> DemoError {
        let log = String::from_utf8_lossy(&self.log()).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        let first = lines.len().saturating_sub(LOG_LINES_SHOWN);
        DemoError::Relay { what, log: lines[first..].join("\n") }
    }
}

/// Gives the path of a program built together with this one.
/// Errors: it is not there.
pub(super) fn beside_this_program(name: &str) -> Result<PathBuf, DemoError> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.is_file() { Ok(path) } else { Err(DemoError::NoRelay(path)) }
}

async fn make_keys(program: &Path, folder: &Path) -> Result<(), DemoError> {
    let made = Command::new(program).args(["keys", "init"]).arg(folder).output().await?;
    if made.status.success() {
        return Ok(());
    }
    let log = String::from_utf8_lossy(&made.stderr).into_owned();
    Err(DemoError::Relay { what: "sns-relay keys init makes no keys".to_owned(), log })
}

fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}
