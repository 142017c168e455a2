//! The real program, as a child process: what it logs, what it writes, and that it may be killed.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sns_loadtest::stage::Stage;
use sns_relay::clock::Clock;
use tokio::net::TcpStream;
use tokio::time;

use crate::house::free_address;
use crate::wire::{Ask, PATIENCE, ask_http1};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sns-relay");

/// A relay in a process of its own, on a stage.
pub(crate) struct Process {
    pub(crate) stage: Stage,
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    pub(crate) admin_address: SocketAddr,
    config_file: PathBuf,
    child: Option<Child>,
}

// === impl Process ===

impl Process {
    /// Starts a relay whose configuration a test has changed.
    pub(crate) async fn with(change: impl FnOnce(&mut Stage)) -> Self {
        let mut stage = Stage::set().await.unwrap();
        sns_relay::keys::init(&stage.keys_folder(), &Clock::system()).unwrap();
        change(&mut stage);
        let (address, admin_address) = (free_address(), free_address());
        let url = format!("http://localhost:{}", address.port());
        let config_file = stage.write_config(address, admin_address, &url).unwrap();
        let mut process = Self { stage, url, address, admin_address, config_file, child: None };
        process.start().await;
        process
    }

    /// Starts the program on the same files and ports, and waits until it answers.
    pub(crate) async fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let child = Command::new(PROGRAM)
            .args(["serve", "--config"])
            .arg(&self.config_file)
            .current_dir(self.stage.folder())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let up = async {
            while TcpStream::connect(self.admin_address).await.is_err()
                || TcpStream::connect(self.address).await.is_err()
            {
                let ended = self.child.as_mut().unwrap().try_wait().unwrap();
                assert!(ended.is_none(), "{ended:?}\n{}", self.log());
                time::sleep(Duration::from_millis(5)).await;
            }
        };
        time::timeout(PATIENCE, up).await.expect("the program binds its ports");
        let told = ask_http1(self.admin_address, &Ask::new("GET", "/readyz")).await;
        assert_eq!(told.status, 200);
    }

    /// Ends the program with SIGKILL: it learns of nothing and tidies nothing up.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Ends the program with SIGTERM, as an operator does, and waits until it has drained.
    pub(crate) fn terminate(&mut self) {
        let mut child = self.child.take().unwrap();
        let killed = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(killed.success());
        assert!(child.wait().unwrap().success());
    }

    /// Gives all that the program has printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap()
    }

    /// Runs another command of the program with this configuration; gives what it printed.
    pub(crate) fn run(config_file: &Path, arguments: &[&str]) -> String {
        let output = Self::command(arguments).arg("--config").arg(config_file).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs one that must fail; gives what it complained of.
    pub(crate) fn fail(config_file: &Path, arguments: &[&str]) -> String {
        let output = Self::command(arguments).arg("--config").arg(config_file).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs one with the configuration of this relay.
    pub(crate) fn operate(&self, arguments: &[&str]) -> String {
        Self::run(&self.config_file, arguments)
    }

    /// Gives a command of the program.
    pub(crate) fn command(arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments);
        command
    }

    fn log_file(&self) -> PathBuf {
        self.stage.folder().join("relay.log")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
