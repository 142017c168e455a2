//! A relay's place before it stands there: its files are written, and nothing runs yet.
//!
//! In: a program, and what its configuration differs in. Out: a relay that is started, and started
//! again, on the same files; or one that is open for callers.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::super::MeasureError;
use super::super::child::free_address;
use super::super::letter::Sender;
use super::house::{House, Way, origin_of, text, text_of};
use super::process::{Cores, Process};
use crate::ca::ServerCertificate;
use crate::stage::{APP, Stage, StageError};

/// A relay that is not started yet: its files are written, its store is not made.
pub(crate) struct Site {
    pub(crate) stage: Stage,
    admin: SocketAddr,
    program: PathBuf,
    config: String,
    origin: Uri,
    way: Way,
    cores: Cores,
}

/// HTTP/1.1 callers that are idle, or wait for their turn, stay.
const HEADER_TIMEOUT_MS: i64 = 600_000;
const CONNECTIONS_MAX: i64 = 100_000;
const READY_LIMIT: Duration = Duration::from_secs(60);
/// The runtime's timer is no finer.
const READY_POLL: Duration = Duration::from_millis(1);

// === impl Site ===

impl Site {
    /// Writes the files of a relay, with TLS at its doors or without, and with these keys of its
    /// configuration.
    /// Errors: `NoRelay`, `Relay` with the end of its log.
    pub(crate) async fn prepare(
        program: &Path,
        is_tls: bool,
        keys: &[(&str, i64)],
        cores: Cores,
    ) -> Result<Site, MeasureError> {
        let mut stage = Stage::set().await?;
        stage.make_room();
        stage.set_key("server.connections_max", CONNECTIONS_MAX);
        stage.set_key("server.header_timeout_ms", HEADER_TIMEOUT_MS);
        for (key, value) in keys {
            stage.set_key(key, *value);
        }
        let (listen, admin) = (free_address()?, free_address()?);
        if is_tls {
            let ServerCertificate { certificate_pem, key_pem } =
                stage.ca.issue_server().map_err(StageError::from)?;
            fs::write(stage.folder().join("door.pem"), certificate_pem)?;
            fs::write(stage.folder().join("door.key"), key_pem)?;
            stage.set_key("server.tls.certificate_file", "door.pem");
            stage.set_key("server.tls.key_file", "door.key");
        }
        let origin = origin_of(is_tls, listen)?;
        let config_file = stage.write_config(listen, admin, &text_of(&origin))?;
        let (folder, config) = (text(&stage.keys_folder())?, text(&config_file)?);
        let log_file = stage.folder().join("init.log");
        Process::start(program, &["keys", "init", &folder], log_file, cores)?.ended().await?;
        let way = Way::new(&stage, listen, is_tls)?;
        Ok(Site { stage, admin, program: program.to_owned(), config, origin, way, cores })
    }

    /// Makes a sender that is known to the relay's doors.
    /// Errors: no key can be made.
    pub(crate) fn sender(&self) -> Result<Sender, MeasureError> {
        Sender::new(&text_of(&self.origin))
    }

    /// Starts the relay, and does not wait for it.
    /// Errors: the system's.
    pub(crate) fn start(&self) -> Result<Process, MeasureError> {
        let log_file = self.stage.folder().join("relay.log");
        Process::start(&self.program, &["serve", "--config", &self.config], log_file, self.cores)
    }

    /// Waits until /readyz answers 200, and gives how long that took from `since` on.
    /// Errors: it does not, with the end of the relay's log.
    pub(crate) async fn ready(
        &self,
        relay: &mut Process,
        since: Instant,
    ) -> Result<Duration, MeasureError> {
        while !is_ready(self.admin).await.unwrap_or(false) {
            relay.check()?;
            if since.elapsed() > READY_LIMIT {
                return Err(relay.fault("the relay does not become ready".to_owned()));
            }
            sleep(READY_POLL).await;
        }
        Ok(since.elapsed())
    }

    /// Starts the relay and waits until its doors answer.
    /// Errors: `Relay` with the end of its log.
    pub(crate) async fn open(self) -> Result<House, MeasureError> {
        let process = self.start()?;
        let Site { stage, origin, way, .. } = self;
        let mut house = House { stage, process, origin, way };
        let client = house.client()?;
        house.until(async || client.app(APP).await.is_ok()).await?;
        Ok(house)
    }
}

async fn is_ready(admin: SocketAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect(admin).await?;
    let request = "GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.starts_with("HTTP/1.1 200 "))
}
