//! What is measured, where it stands: a relay or a yardstick, on a core of its own, with simulated
//! push services in this process.
//!
//! In: a program. Out: a place that callers dial, and the messages that they have for it, sealed
//! beforehand. A relay has room for a load, and connections that last as long as it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Uri};
use rustls::client::WantsClientCert;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use sns_nas::client::{Enrolment, Paired, Pairing, RelayClient};
use sns_nas::seal::{self, BodyCap};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::super::MeasureError;
use super::super::floor::{certificates, key};
use super::super::letter::Sender;
use super::line::{open_http2, whole};
use super::process::{Cores, Process};
use super::site::Site;
use crate::device::DeviceKind;
use crate::stage::Stage;

/// A program that serves at one address, and the push services behind it.
pub(crate) struct House {
    pub(crate) stage: Stage,
    pub(crate) process: Process,
    pub(crate) origin: Uri,
    pub(crate) way: Way,
}

/// How to get to an address.
pub(crate) struct Way {
    address: SocketAddr,
    tls: Option<ClientConfig>,
}

/// Messages of one sender to devices that are all different.
pub(crate) struct Post {
    pub(crate) authorization: HeaderValue,
    pub(crate) parcels: Vec<Parcel>,
}

/// One message, sealed.
pub(crate) struct Parcel {
    pub(crate) endpoint: Uri,
    pub(crate) sealed: Bytes,
}

/// A connection, with TLS or without.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

const MODEL: &str = "DS923+";
const SERIAL: &str = "2230ABC";
const START_LIMIT: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(20);

/// Pairings on the way at once: the relay has its own core.
const PAIRINGS_AT_ONCE: usize = 32;
/// More than those at once, so that they never wait for the last of a batch for long.
const PAIRINGS_OF_BATCH: usize = 1_024;
const PAIRINGS: &str = "/v1/pairings";
const DEVICE_TOKEN_BYTES: usize = 32;

// === impl House ===

impl House {
    /// Starts a relay: [`Site::prepare`] and [`Site::open`].
    /// Errors: theirs.
    pub(crate) async fn of_relay(
        program: &Path,
        is_tls: bool,
        keys: &[(&str, i64)],
        cores: Cores,
    ) -> Result<House, MeasureError> {
        Site::prepare(program, is_tls, keys, cores).await?.open().await
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
        let way = Way::new(&stage, address, is_tls)?;
        let mut house = House { stage, process, origin, way };
        house.until(async || TcpStream::connect(address).await.is_ok()).await?;
        Ok(house)
    }

    /// Makes a sender that is known to the relay's doors.
    /// Errors: no key can be made.
    pub(crate) fn sender(&self) -> Result<Sender, MeasureError> {
        Sender::new(&text_of(&self.origin))
    }

    /// Enrols a NAS, pairs so many devices with it and seals a message for each.
    /// Errors: the relay does not pair one.
    pub(crate) async fn post(
        &self,
        kind: DeviceKind,
        devices: usize,
        message: &[u8],
    ) -> Result<Post, MeasureError> {
        let (client, sender) = (self.client()?, self.sender()?);
        // The NAS door takes nothing from others.
        let enrolment = Enrolment { model: MODEL.to_owned(), ..Enrolment::default() };
        let enrolment = Enrolment { serial: SERIAL.to_owned(), ..enrolment };
        client.enrol(sender.key(), &enrolment).await?;
        let (mut sealed, mut pairings) = (Vec::new(), Vec::new());
        for _ in 0..devices {
            let device = sender.new_device(&client, &self.stage, kind).await?;
            let body = seal::seal(&device.keys().device(), message, BodyCap::default())?;
            sealed.push(Bytes::from(body));
            pairings.push(sender.pairing(&device));
        }
        let endpoints = self.paired(pairings).await?;
        let parcels = endpoints.into_iter().zip(sealed);
        Ok(Post {
            authorization: sender.authorization().clone(),
            parcels: parcels.map(|(endpoint, sealed)| Parcel { endpoint, sealed }).collect(),
        })
    }

    /// Pairs so many iPhones for each sender, all with one and the same sealed message, which no
    /// relay can tell from another: sealing a million would take longer than all else.
    /// Errors: the relay does not pair one.
    pub(crate) async fn many_posts(
        &self,
        senders: &[Sender],
        devices_each: usize,
        sealed: &Bytes,
    ) -> Result<Vec<Post>, MeasureError> {
        let mut posts = Vec::with_capacity(senders.len());
        let mut pairings = Vec::new();
        let count = senders.len() * devices_each;
        let mut endpoints = Vec::with_capacity(count);
        for number in 0..count {
            let sender = &senders[number / devices_each];
            pairings.push(sender.pairing_of_ios(random_token()?));
            if pairings.len() == PAIRINGS_OF_BATCH || number + 1 == count {
                endpoints.extend(self.paired(std::mem::take(&mut pairings)).await?);
            }
        }
        let mut endpoints = endpoints.into_iter();
        for sender in senders {
            let parcel = |endpoint| Parcel { endpoint, sealed: sealed.clone() };
            let parcels = endpoints.by_ref().take(devices_each).map(parcel).collect();
            posts.push(Post { authorization: sender.authorization().clone(), parcels });
        }
        Ok(posts)
    }

    /// Gives the push resources of pairings, in their order; by HTTP/2 without a client's pool,
    /// since a million of them should take a minute.
    async fn paired(&self, pairings: Vec<Pairing>) -> Result<Vec<Uri>, MeasureError> {
        let sender = open_http2(&self.way).await?;
        let mut head = Request::new(());
        *head.method_mut() = Method::POST;
        let uri = format!("{}{PAIRINGS}", text_of(&self.origin));
        *head.uri_mut() = uri.parse().map_err(|_| MeasureError::BadUrl)?;
        head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let mut endpoints: Vec<Option<Uri>> = pairings.iter().map(|_| None).collect();
        let mut under_way = JoinSet::new();
        let mut pairings = pairings.into_iter().enumerate();
        loop {
            while under_way.len() < PAIRINGS_AT_ONCE
                && let Some((number, pairing)) = pairings.next()
            {
                let (sender, head) = (sender.clone(), head.clone());
                let body = serde_json::to_vec(&pairing)?;
                under_way.spawn(async move { (number, pair(sender, head, body).await) });
            }
            let Some(ended) = under_way.join_next().await else { break };
            let (number, endpoint) = ended.map_err(io::Error::from)?;
            endpoints[number] = Some(endpoint?);
        }
        endpoints.into_iter().collect::<Option<_>>().ok_or(MeasureError::Missing("a handle"))
    }

    /// Makes a client that trusts the relay's certificate.
    /// Errors: TLS.
    pub(crate) fn client(&self) -> Result<RelayClient, MeasureError> {
        let ca_pem = self.way.tls.is_some().then(|| self.stage.ca.pem().as_bytes());
        Ok(RelayClient::new(&text_of(&self.origin), ca_pem)?)
    }

    /// Waits until it is up.
    /// Errors: it ends, or is not up in time, with the end of its log.
    pub(super) async fn until(
        &mut self,
        mut is_up: impl AsyncFnMut() -> bool,
    ) -> Result<(), MeasureError> {
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

// === impl Parcel ===

impl Parcel {
    /// Gives the handle, which is the end of the endpoint.
    pub(crate) fn handle(&self) -> &str {
        self.endpoint.path().rsplit('/').next().unwrap_or_default()
    }
}

// === impl Way ===

impl Way {
    /// Leads to an address, over TLS under the stage's authority or without.
    /// Errors: TLS.
    pub(super) fn new(
        stage: &Stage,
        address: SocketAddr,
        is_tls: bool,
    ) -> Result<Way, MeasureError> {
        let config = || Ok::<_, MeasureError>(trusting(stage)?.with_no_client_auth());
        Ok(Way { address, tls: is_tls.then(config).transpose()? })
    }

    /// Leads to the simulated APNs itself, with a client certificate in these files.
    /// Errors: TLS, or a file.
    pub(crate) fn to_apns(stage: &Stage, identity: &Path) -> Result<Way, MeasureError> {
        let port = stage.apns.base_url().rsplit(':').next().and_then(|port| port.parse().ok());
        let port: u16 = port.ok_or(MeasureError::BadUrl)?;
        let certificates = certificates(identity)?;
        let tls = trusting(stage)?.with_client_auth_cert(certificates, key(identity)?)?;
        Ok(Way { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), tls: Some(tls) })
    }

    /// Opens a connection that speaks this protocol.
    /// Errors: nobody answers, or TLS fails.
    pub(crate) async fn dial(&self, alpn: &str) -> Result<Box<dyn Io>, MeasureError> {
        let stream = TcpStream::connect(self.address).await?;
        // Or the second small write of a request waits for the first one's acknowledgement.
        stream.set_nodelay(true)?;
        let Some(config) = &self.tls else { return Ok(Box::new(stream)) };
        let mut config = config.clone();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let name = ServerName::try_from("localhost").map_err(|_| MeasureError::BadUrl)?;
        Ok(Box::new(TlsConnector::from(Arc::new(config)).connect(name, stream).await?))
    }
}

/// Begins the TLS of a caller that trusts the stage's authority.
fn trusting(
    stage: &Stage,
) -> Result<rustls::ConfigBuilder<ClientConfig, WantsClientCert>, MeasureError> {
    let mut roots = RootCertStore::empty();
    roots.add(stage.ca.der().clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots))
}

/// Asks for one handle and gives its push resource.
async fn pair(
    sender: SendRequest<Bytes>,
    head: Request<()>,
    body: Vec<u8>,
) -> Result<Uri, MeasureError> {
    let (answer, mut stream) = sender.ready().await?.send_request(head, false)?;
    stream.send_data(body.into(), true)?;
    let (_, body, _) = whole(answer.await?).await?;
    let paired: Option<Paired> = serde_json::from_slice(&body).ok();
    let paired = paired.ok_or(MeasureError::Missing("a handle"))?;
    paired.endpoint.parse().map_err(|_| MeasureError::BadUrl)
}

fn random_token() -> Result<String, MeasureError> {
    let mut bytes = [0; DEVICE_TOKEN_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| MeasureError::Missing("random bytes"))?;
    Ok(bytes.iter().fold(String::new(), |token, byte| token + &format!("{byte:02x}")))
}

pub(super) fn origin_of(is_tls: bool, address: SocketAddr) -> Result<Uri, MeasureError> {
    let scheme = if is_tls { "https" } else { "http" };
    let origin = format!("{scheme}://localhost:{}", address.port());
    origin.parse().map_err(|_| MeasureError::BadUrl)
}

/// As a relay's public URL and a token's audience are written.
pub(super) fn text_of(origin: &Uri) -> String {
    origin.to_string().trim_end_matches('/').to_owned()
}

/// Gives a path as an argument.
/// Errors: it is not UTF-8.
pub(super) fn text(path: &Path) -> Result<String, MeasureError> {
    path.to_str().map(str::to_owned).ok_or(MeasureError::Missing("a folder with a plain name"))
}
