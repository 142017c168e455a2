//! A real SMTP server on loopback: `loadtest/smtp/server.py`, which is aiosmtpd.
//!
//! It runs as a process under the Python that `make` has put beside the build's own output. What it
//! does with a mail is in the recipient's name; what it took can be read here, parsed by Python's
//! own mail parser.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::time;

use super::{SimError, lock};
use crate::ca::TestCa;

/// How the server's connections are protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// STARTTLS, and no mail without it.
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// None.
    Cleartext,
}

/// The server; it ends when this is dropped.
pub struct SmtpServer {
    child: Child,
    port: u16,
    seen: Arc<Mutex<Seen>>,
    _files: TempDir,
}

/// A mail that the server took.
#[derive(Clone, Debug, Deserialize)]
pub struct ReceivedMail {
    /// MAIL FROM.
    pub sender: String,
    /// RCPT TO.
    pub recipients: Vec<String>,
    /// Whether it came over TLS.
    pub tls: bool,
    /// Who had logged in.
    pub login: Option<String>,
    /// The headers, decoded, in order.
    pub headers: Vec<(String, String)>,
    /// What the parser found wrong with it.
    pub defects: Vec<String>,
    /// The plain-text part, decoded.
    pub text: Option<String>,
    /// The HTML part, decoded.
    pub html: Option<String>,
    /// The mail as it came.
    pub raw: String,
}

#[derive(Default)]
struct Seen {
    mails: Vec<ReceivedMail>,
    connections: usize,
    closed: usize,
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Event {
    Port { port: u16 },
    Connection,
    Closed,
    Mail(Box<ReceivedMail>),
}

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/smtp/server.py");
const POLL: Duration = Duration::from_millis(5);
const LIMIT: Duration = Duration::from_secs(20);

// === impl SmtpServer ===

impl SmtpServer {
    /// Starts a server for `localhost` under a certificate of this authority, with a login that it
    /// asks for, if any.
    /// Errors: [`SimError::Smtp`] where `make` has not fetched the server.
    pub fn start(
        ca: &TestCa,
        security: Security,
        login: Option<(&str, &str)>,
    ) -> Result<Self, SimError> {
        let python = python().ok_or(SimError::Smtp("aiosmtpd is missing: run `make smtp`"))?;
        let files = tempfile::tempdir()?;
        let certificate = ca.issue_server()?;
        let file = |name: &str, pem: &str| {
            let path = files.path().join(name);
            fs::write(&path, pem).map(|()| path)
        };
        let mut command = Command::new(python);
        command
            .arg(SERVER)
            .args(["--security", security.label(), "--certificate"])
            .arg(file("smtp.pem", &certificate.certificate_pem)?)
            .arg("--key")
            .arg(file("smtp.key", &certificate.key_pem)?);
        if let Some((username, password)) = login {
            command.args(["--username", username, "--password", password]);
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or(SimError::Smtp("it has no output"))?;
        let mut lines = BufReader::new(stdout);
        let mut first = String::new();
        lines.read_line(&mut first)?;
        let Ok(Event::Port { port }) = serde_json::from_str(&first) else {
            return Err(SimError::Smtp("it does not start; its own words are above"));
        };
        let seen = Arc::<Mutex<Seen>>::default();
        let writer = Arc::clone(&seen);
        std::thread::spawn(move || take_down(lines, &writer));
        Ok(Self { child, port, seen, _files: files })
    }

    /// Gives its port on 127.0.0.1.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Gives the mails that it took so far.
    pub fn mails(&self) -> Vec<ReceivedMail> {
        self.seen().mails.clone()
    }

    /// Gives how many connections it has had.
    pub fn connections(&self) -> usize {
        self.seen().connections
    }

    /// Waits until it has taken so many mails; gives all of them.
    /// Errors: [`SimError::Smtp`] where that takes more than 20 seconds.
    pub async fn wait_for(&self, mails: usize) -> Result<Vec<ReceivedMail>, SimError> {
        self.until(|seen| seen.mails.len() >= mails, "the mail does not come").await?;
        Ok(self.mails())
    }

    /// Waits until so many connections have been closed.
    /// Errors: [`SimError::Smtp`] where that takes more than 20 seconds.
    pub async fn wait_for_closed(&self, connections: usize) -> Result<(), SimError> {
        self.until(|seen| seen.closed >= connections, "the connection is not closed").await
    }

    /// Stops the process in its tracks, connections and all; [`Self::resume`] lets it go on.
    /// Errors: the system's.
    pub fn freeze(&self) -> Result<(), SimError> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen process go on.
    /// Errors: the system's.
    pub fn resume(&self) -> Result<(), SimError> {
        self.signal(Signal::CONT)
    }

    async fn until(
        &self,
        has_come: impl Fn(&Seen) -> bool,
        else_say: &'static str,
    ) -> Result<(), SimError> {
        let come = async {
            while !has_come(&self.seen()) {
                time::sleep(POLL).await;
            }
        };
        time::timeout(LIMIT, come).await.map_err(|_| SimError::Smtp(else_say))
    }

    fn signal(&self, signal: Signal) -> Result<(), SimError> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).map_err(|error| SimError::Io(error.into()))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

impl Drop for SmtpServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

// === impl Security ===

impl Security {
    /// Gives the word of the configuration.
    pub const fn label(self) -> &'static str {
        match self {
            Self::StartTls => "starttls",
            Self::Tls => "tls",
            Self::Cleartext => "cleartext",
        }
    }
}

// === impl ReceivedMail ===

impl ReceivedMail {
    /// Gives a header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let same = |(have, _): &&(String, String)| have.eq_ignore_ascii_case(name);
        self.headers.iter().find(same).map(|(_, value)| value.as_str())
    }
}

fn take_down(lines: BufReader<ChildStdout>, seen: &Mutex<Seen>) {
    for line in lines.lines().map_while(Result::ok) {
        let mut seen = lock(seen);
        match serde_json::from_str(&line) {
            Ok(Event::Mail(mail)) => seen.mails.push(*mail),
            Ok(Event::Connection) => seen.connections += 1,
            Ok(Event::Closed) => seen.closed += 1,
            Ok(Event::Port { .. }) | Err(_) => {}
        }
    }
}

/// Finds the Python that `make smtp` made: in the folder of the build's output, wherever that is.
fn python() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let python = |folder: &Path| folder.join("python/bin/python");
    program.ancestors().map(python).find(|python| python.exists())
}
