//! The daemon as a process of its own, before a relay that a test plays: kills, bad input, full
//! disks.

#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test may fail that way")]

mod away;
mod clock;
mod command;
mod kill;
mod relay;
mod space;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use sns_nas::base64url;
use sns_nas::clock::now_unix_ms;
use sns_nas::journal::devices::{NAS, NewDevice};
use sns_nas::journal::recall::{Counts, Query, Record};
use sns_nas::journal::{Journal, Limits};
use sns_nas::key::SenderKey;
use sns_nas::seal::ReceiverKeys;
use tempfile::TempDir;
use tokio::time;

/// Far longer than anything here takes; what is waited for comes or the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A NAS: a folder with a journal, and perhaps a daemon.
pub(crate) struct Nas {
    folder: TempDir,
    daemon: Option<Child>,
}

impl Nas {
    /// A NAS that is set up for a relay, with these devices; gives their keys in order.
    pub(crate) fn new(relay_url: &str, devices: &[&str]) -> (Self, Vec<ReceiverKeys>) {
        let nas = Self::empty();
        let mut journal = Journal::open(&nas.file(), Limits::default()).unwrap();
        journal.add_sender(NAS, &SenderKey::generate().unwrap(), now_unix_ms()).unwrap();
        journal.set_setting("relay_url", relay_url).unwrap();
        let mut keys = Vec::new();
        for name in devices {
            let receiver = ReceiverKeys::generate().unwrap();
            let device = NewDevice {
                name: (*name).to_owned(),
                sender: NAS.to_owned(),
                handle: base64url::encode(name),
                keys: Some((
                    base64url::encode(receiver.p256dh()),
                    base64url::encode(receiver.auth()),
                )),
                body_bytes_max: 2744,
            };
            journal.add_device(&device, now_unix_ms()).unwrap();
            keys.push(receiver);
        }
        (nas, keys)
    }

    /// A folder without a journal, in memory where the machine has such a place.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Self { folder, daemon: None }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("nas.sqlite3")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("nas.sock")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sns-nas"));
        command.args(args).env("SNS_NAS_JOURNAL", self.file()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed; gives what it printed.
    pub(crate) fn says(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail with this code and these words.
    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str], code: i32, words: &str) {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }

    /// Starts the daemon and waits until its socket answers.
    pub(crate) async fn start(&mut self) {
        let command = self.command(&["run"]);
        self.start_as(command).await;
    }

    /// Starts the daemon by a command that becomes it.
    pub(crate) async fn start_as(&mut self, mut command: Command) {
        self.daemon = Some(command.stderr(Stdio::null()).spawn().unwrap());
        let up = async {
            while tokio::net::UnixStream::connect(self.socket()).await.is_err() {
                let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
                assert!(ended.is_none(), "{ended:?}");
                time::sleep(Duration::from_millis(2)).await;
            }
        };
        time::timeout(PATIENCE, up).await.expect("the daemon listens");
    }

    /// Ends the daemon with SIGKILL: it learns of nothing.
    pub(crate) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    /// Ends the daemon with SIGTERM; it must go in good order.
    pub(crate) fn terminate(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        let told = Command::new("kill").arg(daemon.id().to_string()).status().unwrap();
        assert!(told.success());
        assert!(daemon.wait().unwrap().success());
    }

    pub(crate) fn journal(&self) -> Journal {
        Journal::open_existing(&self.file(), Limits::default()).unwrap()
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        self.journal().recall(&Query::default(), now_unix_ms()).unwrap()
    }

    /// Waits until the journal's counts are as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&Counts) -> bool) {
        let reached = async {
            while !wanted(&self.journal().counts().unwrap()) {
                time::sleep(Duration::from_millis(10)).await;
            }
        };
        let reached = time::timeout(PATIENCE, reached).await;
        assert!(reached.is_ok(), "{:?}", self.journal().counts().unwrap());
    }
}

impl Drop for Nas {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether nothing waits any more.
pub(crate) fn is_done(counts: &Counts) -> bool {
    counts.oldest_pending_ms.is_none()
}
