//! Opens one connection: DNS, the address guard, TCP, maybe a proxy, TLS, ALPN.
//!
//! Names are resolved afresh for each dial, and the address that was checked is the one dialled,
//! by the proxy too where there is one. Only a name of the operator's own is left to the proxy.
//! It never follows a redirect, never retries and never caches an address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::counts::FaultKind;
use super::proxy::{self, Destination};
use super::slots::Inner;
use super::{Egress, Limits, Origin, http1, http2};
use crate::config::Proxy;

/// What the dials of one pool need.
#[derive(Debug)]
pub(super) struct Dialler {
    pub(super) origin: Origin,
    tls: Arc<ClientConfig>,
    egress: Egress,
    connect: Duration,
    http1_allowed: bool,
}

/// A secured byte stream, by the protocol that ALPN chose.
enum Wire {
    Http2(TlsStream<TcpStream>),
    Http1(TlsStream<TcpStream>),
}

/// Dials once and hands the connection to the pool.
pub(super) async fn dial(inner: &Arc<Inner>) -> Result<(), FaultKind> {
    match inner.dialler().wire().await? {
        Wire::Http2(io) => {
            http2::start(inner, io);
            Ok(())
        }
        Wire::Http1(io) => http1::start(inner, io).await,
    }
}

/// A number that differs from call to call.
pub(super) fn dice() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness all throws are the same, and nothing worse comes of it.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

// === impl Dialler ===

impl Dialler {
    pub(super) fn new(origin: Origin, tls: &ClientConfig, egress: Egress, limits: &Limits) -> Self {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        if limits.http1_allowed {
            tls.alpn_protocols.push(b"http/1.1".to_vec());
        }
        Self {
            origin,
            tls: Arc::new(tls),
            egress,
            connect: limits.connect(),
            http1_allowed: limits.http1_allowed,
        }
    }

    async fn wire(&self) -> Result<Wire, FaultKind> {
        let end = Instant::now() + self.connect;
        let tcp = match &self.egress.proxy {
            Some(proxy) => self.connect_through(proxy, end).await?,
            None => connect(&self.addresses(end).await?, end).await.ok_or(FaultKind::Connect)?,
        };
        let connector = TlsConnector::from(self.tls.clone());
        let handshake = connector.connect(self.origin.server_name.clone(), tcp);
        let tls = timeout_at(end, handshake).await;
        let tls = tls.map_err(|_| FaultKind::Tls)?.map_err(|error| fault_of_tls(&error))?;
        match tls.get_ref().1.alpn_protocol() {
            Some(b"h2") => Ok(Wire::Http2(tls)),
            Some(b"http/1.1") | None if self.http1_allowed => Ok(Wire::Http1(tls)),
            _ => Err(FaultKind::Alpn),
        }
    }

    /// Asks the proxy for one destination after the other.
    async fn connect_through(&self, proxy: &Proxy, end: Instant) -> Result<TcpStream, FaultKind> {
        let port = self.origin.port();
        let destinations = if self.egress.guard.is_open() {
            vec![Destination::Name(self.origin.host().to_owned(), port)]
        } else {
            let checked = self.addresses(end).await?;
            checked.iter().map(|address| Destination::Address(address.ip(), port)).collect()
        };
        let found = timeout_at(end, self.egress.names.look_up(&proxy.host)).await;
        let found = found.map_err(|_| FaultKind::Proxy)?.map_err(|_| FaultKind::Proxy)?;
        let proxies = rotated(found, proxy.port);
        let mut fault = FaultKind::ProxyRefused;
        for (end, destination) in shares(end, &destinations) {
            let Some(mut tcp) = connect(&proxies, end).await else { return Err(FaultKind::Proxy) };
            match timeout_at(end, proxy::connect(&mut tcp, proxy, destination)).await {
                Ok(Ok(())) => return Ok(tcp),
                Ok(Err(FaultKind::ProxyAuthentication)) => {
                    return Err(FaultKind::ProxyAuthentication);
                }
                Ok(Err(kind)) => fault = kind,
                Err(_) => fault = FaultKind::ProxyRefused,
            }
        }
        Err(fault)
    }

    /// The addresses of the push service, each of them checked.
    async fn addresses(&self, end: Instant) -> Result<Vec<SocketAddr>, FaultKind> {
        let found = timeout_at(end, self.egress.names.look_up(self.origin.host())).await;
        let found = found.map_err(|_| FaultKind::Dns)??;
        if !found.iter().all(|address| self.egress.guard.permits(*address)) {
            return Err(FaultKind::Address);
        }
        Ok(rotated(found, self.origin.port()))
    }
}

/// Each dial starts at another address, so that connections spread over the peer's hosts.
fn rotated(found: Vec<IpAddr>, port: u16) -> Vec<SocketAddr> {
    let mut addresses: Vec<_> = found.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
    let turn = dice().checked_rem(addresses.len() as u64).unwrap_or(0);
    addresses.rotate_left(usize::try_from(turn).unwrap_or(0));
    addresses
}

/// Tries one address after the other; small requests must not wait for delayed acknowledgements.
async fn connect(addresses: &[SocketAddr], end: Instant) -> Option<TcpStream> {
    for (end, address) in shares(end, addresses) {
        if let Ok(Ok(tcp)) = timeout_at(end, TcpStream::connect(address)).await
            && tcp.set_nodelay(true).is_ok()
        {
            return Some(tcp);
        }
    }
    None
}

/// Gives each try its share of the time that is left when its turn comes.
fn shares<T>(end: Instant, tries: &[T]) -> impl Iterator<Item = (Instant, &T)> {
    tries.iter().enumerate().map(move |(place, item)| {
        let left = u32::try_from(tries.len() - place).unwrap_or(u32::MAX);
        let now = Instant::now();
        (now + end.saturating_duration_since(now) / left, item)
    })
}

/// A peer that knows no common protocol may say so by an alert (RFC 7301 §3.2).
fn fault_of_tls(error: &std::io::Error) -> FaultKind {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => {
            FaultKind::Alpn
        }
        Some(rustls::Error::NoApplicationProtocol) => FaultKind::Alpn,
        _ => FaultKind::Tls,
    }
}
