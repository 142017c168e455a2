//! What is measured, where it stands: a relay or a yardstick, on a core of its own, with simulated
//! push services in this process.
//!
//! In: a program. Out: a place that callers dial, and the messages that they have for it, sealed
//! beforehand. A relay has room for a load, and connections that last as long as it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Uri};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use sns_nas::client::RelayClient;
use sns_nas::seal::{self, BodyCap};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::super::MeasureError;
use super::super::child::free_address;
use super::super::letter::Sender;
use super::process::{Cores, Process};
use crate::ca::ServerCertificate;
use crate::device::DeviceKind;
use crate::stage::{APP, Stage, StageError};

/// A program that serves at one address, and the push services behind it.
pub(crate) struct House {
    pub(crate) stage: Stage,
    pub(crate) process: Process,
    pub(crate) origin: Uri,
    is_tls: bool,
    address: SocketAddr,
}

/// Messages of one sender to devices that are all different.
pub(crate) struct Post {
    pub(crate) authorization: HeaderValue,
    pub(crate) parcels: Vec<Parcel>,
}

/// One message, sealed.
pub(crate) struct Parcel {
    pub(crate) handle: String,
    pub(crate) endpoint: Uri,
    pub(crate) sealed: Bytes,
}

/// A connection, with TLS or without.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

const START_LIMIT: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(20);
/// HTTP/1.1 callers that are idle, or wait for their turn, stay.
const HEADER_TIMEOUT_MS: i64 = 600_000;
const CONNECTIONS_MAX: i64 = 100_000;

// === impl House ===

impl House {
    /// Starts a relay, with TLS at its doors or without, and with these keys of its configuration.
    /// Errors: `NoRelay`, `Relay` with the end of its log.
    pub(crate) async fn of_relay(
        program: &Path,
        is_tls: bool,
        keys: &[(&str, i64)],
        cores: Cores,
    ) -> Result<House, MeasureError> {
        let mut stage = Stage::set().await?;
        stage.make_room();
        for (key, value) in keys {
            stage.set_key(key, *value);
        }
        stage.set_key("server.connections_max", CONNECTIONS_MAX);
        stage.set_key("server.header_timeout_ms", HEADER_TIMEOUT_MS);
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
        let log_file = |name: &str| stage.folder().join(name);
        let mut init =
            Process::start(program, &["keys", "init", &folder], log_file("init.log"), cores)?;
        init.ended().await?;
        let args = ["serve", "--config", &config];
        let process = Process::start(program, &args, log_file("relay.log"), cores)?;
        let mut house = House { stage, process, origin, is_tls, address: listen };
        let client = house.client()?;
        house.until(async || client.app(APP).await.is_ok()).await?;
        Ok(house)
    }

    /// Puts a program that is starting where it will stand, and waits until it takes connections.
    /// Errors: it does not start, with the end of its log.
    pub(super) async fn with(
        stage: Stage,
        process: Process,
        is_tls: bool,
        address: SocketAddr,
    ) -> Result<House, MeasureError> {
        let origin = origin_of(is_tls, address)?;
        let mut house = House { stage, process, origin, is_tls, address };
        house.until(async || TcpStream::connect(address).await.is_ok()).await?;
        Ok(house)
    }

    /// Opens a connection that speaks this protocol.
    /// Errors: nobody answers, or TLS fails.
    pub(crate) async fn dial(&self, alpn: &str) -> Result<Box<dyn Io>, MeasureError> {
        let stream = TcpStream::connect(self.address).await?;
        // Or the second small write of a request waits for the first one's acknowledgement.
        stream.set_nodelay(true)?;
        if !self.is_tls {
            return Ok(Box::new(stream));
        }
        let mut roots = RootCertStore::empty();
        roots.add(self.stage.ca.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let name = ServerName::try_from("localhost").map_err(|_| MeasureError::BadUrl)?;
        Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
    }

    /// Makes a sender that is known to the relay's doors.
    /// Errors: no key can be made.
    pub(crate) fn sender(&self) -> Result<Sender, MeasureError> {
        Sender::new(&text_of(&self.origin))
    }

    /// Pairs so many devices with the relay and seals a message for each.
    /// Errors: the relay does not pair one.
    pub(crate) async fn post(
        &self,
        kind: DeviceKind,
        devices: usize,
        message: &[u8],
    ) -> Result<Post, MeasureError> {
        let (client, sender) = (self.client()?, self.sender()?);
        let mut parcels = Vec::with_capacity(devices);
        for _ in 0..devices {
            let (device, endpoint) = sender.pair(&client, &self.stage, kind).await?;
            let sealed = seal::seal(&device.keys().device(), message, BodyCap::default())?;
            let handle = endpoint.rsplit('/').next().unwrap_or_default().to_owned();
            let endpoint = endpoint.parse().map_err(|_| MeasureError::BadUrl)?;
            parcels.push(Parcel { handle, endpoint, sealed: sealed.into() });
        }
        Ok(Post { authorization: sender.authorization().clone(), parcels })
    }

    fn client(&self) -> Result<RelayClient, MeasureError> {
        let ca_pem = self.is_tls.then(|| self.stage.ca.pem().as_bytes());
        Ok(RelayClient::new(&text_of(&self.origin), ca_pem)?)
    }

    async fn until(&mut self, mut is_up: impl AsyncFnMut() -> bool) -> Result<(), MeasureError> {
        let process = &mut self.process;
        let up = async {
            while !is_up().await {
                process.check()?;
                sleep(START_POLL).await;
            }
            Ok(())
        };
        match timeout(START_LIMIT, up).await {
            Ok(up) => up,
            Err(_) => Err(self.process.fault("the program does not answer".to_owned())),
        }
    }
}

fn origin_of(is_tls: bool, address: SocketAddr) -> Result<Uri, MeasureError> {
    let scheme = if is_tls { "https" } else { "http" };
    let origin = format!("{scheme}://localhost:{}", address.port());
    origin.parse().map_err(|_| MeasureError::BadUrl)
}

/// As a relay's public URL and a token's audience are written.
fn text_of(origin: &Uri) -> String {
    origin.to_string().trim_end_matches('/').to_owned()
}

/// Gives a path as an argument.
/// Errors: it is not UTF-8.
pub(super) fn text(path: &Path) -> Result<String, MeasureError> {
    path.to_str().map(str::to_owned).ok_or(MeasureError::Missing("a folder with a plain name"))
}
