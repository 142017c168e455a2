//! The relay as a process of its own: `keys init`, `serve`, SIGTERM, SIGKILL; its CPU time and its
//! memory.
//!
//! In: a program and a stage. Out: where it listens, and what the kernel says it has used.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sns_nas::client::RelayClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::MeasureError;
use crate::stage::{APP, Stage};

/// A relay that serves; it is killed when this is dropped.
pub struct RelayChild {
    child: Child,
    program: PathBuf,
    config_file: PathBuf,
    url: String,
    ca_pem: Option<String>,
    address: SocketAddr,
    admin: SocketAddr,
    log_file: PathBuf,
}

const ADMIN_LIMIT: Duration = Duration::from_secs(5);
const START_LIMIT: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(20);
const STOP_LIMIT: Duration = Duration::from_secs(40);
const LOG_LINES_SHOWN: usize = 30;

// === impl RelayChild ===

impl RelayChild {
    /// Makes keys, starts the program on free ports and waits until it answers.
    /// Errors: `NoRelay`, `Relay` with the end of its log.
    pub async fn start(program: &Path, stage: &mut Stage) -> Result<RelayChild, MeasureError> {
        RelayChild::start_speaking(program, stage, false).await
    }

    /// Does the same, with TLS at the doors where it says so.
    /// Errors: as above.
    pub async fn start_speaking(
        program: &Path,
        stage: &mut Stage,
        is_tls: bool,
    ) -> Result<RelayChild, MeasureError> {
        if !program.is_file() {
            return Err(MeasureError::NoRelay(program.to_owned()));
        }
        let mut keys = Command::new(program);
        let made = keys.args(["keys", "init"]).arg(stage.keys_folder()).output().await?;
        if !made.status.success() {
            let log = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(MeasureError::Relay { what: "it makes no keys".to_owned(), log });
        }
        // The public URL is in the configuration before the port is bound.
        let (listen, admin) = (free_address()?, free_address()?);
        let scheme = if is_tls { "https" } else { "http" };
        let url = format!("{scheme}://localhost:{}", listen.port());
        stage.make_room();
        if is_tls {
            stage.serve_tls()?;
        }
        let ca_pem = is_tls.then(|| stage.ca.pem().to_owned());
        let config_file = stage.write_config(listen, admin, &url)?;
        let log_file = stage.folder().join("relay.log");
        let child = serve(program, &config_file, &log_file)?;
        let program = program.to_owned();
        let address = listen;
        let mut relay =
            RelayChild { child, program, config_file, url, ca_pem, address, admin, log_file };
        relay.wait_until_it_answers().await?;
        Ok(relay)
    }

    /// Ends it with SIGKILL: it learns of nothing.
    pub async fn kill(&mut self) -> Result<(), MeasureError> {
        Ok(self.child.kill().await?)
    }

    /// Starts it again after a kill, on the same files and ports, and waits until it answers.
    /// Errors: `Relay` with the end of its log.
    pub async fn start_again(&mut self) -> Result<(), MeasureError> {
        self.child = serve(&self.program, &self.config_file, &self.log_file)?;
        self.wait_until_it_answers().await
    }

    /// Gives where its doors are.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives its public URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Gives its process number.
    /// Errors: it has ended.
    pub fn pid(&self) -> Result<u32, MeasureError> {
        self.child.id().ok_or_else(|| self.fault("the relay has ended".to_owned()))
    }

    /// Gives the CPU time that it has used, user and system, in microseconds.
    /// Source: proc(5), /proc/pid/stat, fields 14 and 15; in steps of one clock tick.
    pub fn cpu_us(&self) -> Result<u64, MeasureError> {
        cpu_us(&self.proc("stat")?)
    }

    /// Gives the most memory that it has had resident, in KiB.
    /// Source: proc(5), /proc/pid/status, `VmHWM`.
    pub fn memory_peak_kib(&self) -> Result<u64, MeasureError> {
        self.memory_kib("VmHWM:")
    }

    /// Gives the memory that it has resident now, in KiB.
    /// Source: proc(5), /proc/pid/status, `VmRSS`.
    pub fn memory_now_kib(&self) -> Result<u64, MeasureError> {
        self.memory_kib("VmRSS:")
    }

    /// Gives how many file descriptors it has open.
    /// Source: proc(5), /proc/pid/fd.
    pub fn open_files(&self) -> Result<u64, MeasureError> {
        Ok(fs::read_dir(self.proc_path("fd")?)?.count() as u64)
    }

    /// Gives the sum of a metric's series whose labels all hold this text; 0 where there is none.
    /// Errors: its admin port does not answer.
    pub async fn metric(&self, name: &str, label: &str) -> Result<u64, MeasureError> {
        let text = timeout(ADMIN_LIMIT, self.metrics()).await;
        let text = text.map_err(|_| MeasureError::Missing("its metrics"))??;
        let series = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        let own = series.filter(|(labels, _)| {
            (labels.is_empty() || labels.starts_with('{')) && labels.contains(label)
        });
        Ok(own.filter_map(|(_, figure)| figure.parse::<u64>().ok()).sum())
    }

    async fn metrics(&self) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.admin).await?;
        let request = "GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }

    fn memory_kib(&self, field: &str) -> Result<u64, MeasureError> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
        kib.ok_or(MeasureError::Missing("its memory"))
    }

    /// Asks it to drain and stop, and waits until it has.
    /// Errors: it does not stop in time, or not with exit code 0.
    pub async fn stop(mut self) -> Result<(), MeasureError> {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            kill_process(pid, Signal::TERM).map_err(std::io::Error::from)?;
        }
        match timeout(STOP_LIMIT, self.child.wait()).await {
            Ok(status) => match status? {
                status if status.success() => Ok(()),
                status => Err(self.fault(format!("the relay ended with {status}"))),
            },
            Err(_) => Err(self.fault("the relay does not stop on SIGTERM".to_owned())),
        }
    }

    async fn wait_until_it_answers(&mut self) -> Result<(), MeasureError> {
        let ca_pem = self.ca_pem.as_ref().map(String::as_bytes);
        let client = RelayClient::new(&self.url, ca_pem)?;
        let answers = async {
            while client.app(APP).await.is_err() {
                if let Some(status) = self.child.try_wait()? {
                    return Ok::<_, std::io::Error>(Some(status));
                }
                sleep(START_POLL).await;
            }
            Ok(None)
        };
        match timeout(START_LIMIT, answers).await {
            Ok(ended) => match ended? {
                None => Ok(()),
                Some(status) => Err(self.fault(format!("the relay ended with {status}"))),
            },
            Err(_) => Err(self.fault("the relay does not answer".to_owned())),
        }
    }

    fn proc(&self, file: &str) -> Result<String, MeasureError> {
        Ok(fs::read_to_string(self.proc_path(file)?)?)
    }

    fn proc_path(&self, file: &str) -> Result<String, MeasureError> {
        Ok(format!("/proc/{}/{file}", self.pid()?))
    }

    fn fault(&self, what: String) -> MeasureError {
        with_log(what, &self.log_file)
    }
}

fn serve(program: &Path, config_file: &Path, log_file: &Path) -> std::io::Result<Child> {
    Command::new(program)
        .args(["serve", "--config"])
        .arg(config_file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::options().create(true).append(true).open(log_file)?)
        .kill_on_drop(true)
        .spawn()
}

/// Says what a process did not do, with the end of its log.
pub(super) fn with_log(what: String, log_file: &Path) -> MeasureError {
    let log = fs::read(log_file).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let first = lines.len().saturating_sub(LOG_LINES_SHOWN);
    MeasureError::Relay { what, log: lines[first..].join("\n") }
}

/// Gives a port that is free at this moment.
/// Errors: there is none.
pub(super) fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

/// Gives the CPU time of this process, with its senders and its push services, in microseconds.
/// Errors: there is no /proc.
pub fn own_cpu_us() -> Result<u64, MeasureError> {
    cpu_us(&fs::read_to_string("/proc/self/stat")?)
}

fn cpu_us(stat: &str) -> Result<u64, MeasureError> {
    // The second field is the program's name, which may hold blanks.
    let (_, fields) = stat.rsplit_once(')').ok_or(MeasureError::Missing("its CPU time"))?;
    let ticks: Option<u64> = fields
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().ok())
        .sum();
    let ticks = ticks.ok_or(MeasureError::Missing("its CPU time"))?;
    Ok(ticks * 1_000_000 / rustix::param::clock_ticks_per_second())
}
