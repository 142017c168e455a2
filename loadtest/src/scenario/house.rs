//! A folder for a relay that somebody else starts, as often as they like: its configuration, its
//! credentials, and all that the simulated push services need to be the same ones each time.
//!
//! In: a folder. Out: files, and again a stage made of them. The relay may be there before a
//! scenario and after it; it meets its push services while one runs. Everything in the folder is
//! for tests: none of its keys opens anything else.

use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::Table;

use super::target::make_room;
use crate::ca::TestCa;
use crate::measure::MeasureError;
use crate::sim::SimError;
use crate::sim::apns::ApnsCredentials;
use crate::sim::fcm::FcmCredentials;
use crate::stage::{Props, Stage, StageError};

/// What to prepare.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// The folder; it must not be there yet.
    folder: PathBuf,
    /// The relay's doors speak TLS.
    #[arg(long)]
    tls: bool,
}

/// What the push services must remember.
#[derive(Serialize, Deserialize)]
struct Memory {
    ports: [u16; 4],
    apple_key_id: String,
    apple_team_id: String,
    apple_topic: String,
    ca_key_pem: String,
}

const MEMORY: &str = "push-services.json";
const CONFIG: &str = "relay.toml";
const APPLE_KEY: &str = "AuthKey.p8";
const GOOGLE_FILE: &str = "service-account.json";

// === impl Plan ===

impl Plan {
    /// Makes the folder and says what comes next.
    /// Errors: the folder is there already, or cannot be written.
    pub async fn carry_out(&self) -> Result<(), MeasureError> {
        let folder = std::path::absolute(&self.folder)?;
        fs::create_dir(&folder).map_err(|error| MeasureError::BadOption {
            option: "the folder",
            why: error.to_string(),
        })?;
        let ports = free_ports::<6>()?;
        let [listen, admin, apple, sandbox, google, mozilla] = ports;
        let props = Props { ports: [apple, sandbox, google, mozilla], ..Props::new()? };
        let memory = Memory {
            ports: props.ports,
            apple_key_id: props.apple.key_id.clone(),
            apple_team_id: props.apple.team_id.clone(),
            apple_topic: props.apple.topic.clone(),
            ca_key_pem: props.ca.key_pem(),
        };
        let mut stage = Stage::set_in(folder.clone(), props).await?;
        make_room(&mut stage);
        if self.tls {
            stage.serve_tls()?;
        }
        let scheme = if self.tls { "https" } else { "http" };
        let url = format!("{scheme}://localhost:{listen}");
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        stage.write_config(at(listen), at(admin), &url)?;
        private_file(&folder.join(MEMORY), &serde_json::to_string_pretty(&memory)?)?;
        let place = folder.display();
        let tls = if self.tls { " --tls" } else { "" };
        let words = format!(
            "A relay for sns-loadtest. Once:\n  sns-relay keys init {place}/keys\nThen:\n  \
             sns-relay serve --config {place}/{CONFIG}\nand, while it runs:\n  \
             sns-loadtest scenario steady{tls} --running {place} --pid <its process>\n"
        );
        fs::write(folder.join("README"), &words)?;
        Ok(io::stdout().write_all(words.as_bytes())?)
    }
}

/// Sets the push services of a folder; gives them and the URL of its relay.
/// Errors: a file is missing or is not what `carry_out` wrote.
pub(super) async fn open(folder: &Path) -> Result<(Stage, String), MeasureError> {
    let read = |name: &str| {
        fs::read_to_string(folder.join(name)).map_err(|error| MeasureError::BadOption {
            option: "--running",
            why: format!("{name}: {error}"),
        })
    };
    let config: Table = read(CONFIG)?.parse().map_err(|_| MeasureError::BadOption {
        option: "--running",
        why: format!("{CONFIG} is not TOML"),
    })?;
    let server = config.get("server");
    let url = server.and_then(|server| server.get("public_url")?.as_str());
    let url = url.ok_or(MeasureError::Missing("server.public_url in relay.toml"))?;
    let memory: Memory = serde_json::from_str(&read(MEMORY)?)?;
    let Memory { ports, apple_key_id, apple_team_id, apple_topic, ca_key_pem } = memory;
    let apple =
        ApnsCredentials::of_key(&read(APPLE_KEY)?, &apple_key_id, &apple_team_id, &apple_topic);
    let google = FcmCredentials::of_file(&read(GOOGLE_FILE)?);
    let bad = |error: SimError| MeasureError::Stage(StageError::Sim(error));
    let props = Props {
        ca: TestCa::of_key_pem(&ca_key_pem).map_err(StageError::from)?,
        apple: apple.map_err(bad)?,
        google: Some(google.map_err(bad)?),
        ports,
    };
    Ok((Stage::set_in(folder.to_owned(), props).await?, url.trim_end_matches('/').to_owned()))
}

/// Gives ports that are free at this moment, all different.
fn free_ports<const COUNT: usize>() -> io::Result<[u16; COUNT]> {
    let mut held = Vec::new();
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn private_file(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
