//! Opens one connection: DNS, the address guard, TCP, TLS, ALPN.
//!
//! Names are resolved afresh for each dial, and the address that was checked is the one dialled.
//! It never follows a redirect, never retries and never caches an address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::counts::FaultKind;
use super::slots::Inner;
use super::{AddressGuard, Limits, Origin, http1, http2};

/// What the dials of one pool need.
#[derive(Debug)]
pub(super) struct Dialler {
    pub(super) origin: Origin,
    tls: Arc<ClientConfig>,
    guard: AddressGuard,
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
        Wire::Http2(io) => http2::start(inner, io).await,
        Wire::Http1(io) => http1::start(inner, io).await,
    }
}

/// A number below `bound` that differs from call to call; zero when `bound` is.
pub(super) fn jitter(bound: u64) -> u64 {
    let mut bytes = [0; 8];
    match aws_lc_rs::rand::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes).checked_rem(bound).unwrap_or(0),
        Err(_) => 0,
    }
}

// === impl Dialler ===

impl Dialler {
    pub(super) fn new(
        origin: Origin,
        tls: &ClientConfig,
        guard: AddressGuard,
        limits: &Limits,
    ) -> Self {
        let mut tls = tls.clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        if limits.http1_allowed {
            tls.alpn_protocols.push(b"http/1.1".to_vec());
        }
        Self {
            origin,
            tls: Arc::new(tls),
            guard,
            connect: limits.connect(),
            http1_allowed: limits.http1_allowed,
        }
    }

    async fn wire(&self) -> Result<Wire, FaultKind> {
        let end = Instant::now() + self.connect;
        let addresses = timeout_at(end, self.resolve()).await.map_err(|_| FaultKind::Dns)??;
        let tcp = connect(&addresses, end).await?;
        // Small requests must not wait for the peer's delayed acknowledgement.
        tcp.set_nodelay(true).map_err(|_| FaultKind::Connect)?;
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

    async fn resolve(&self) -> Result<Vec<SocketAddr>, FaultKind> {
        let name = (self.origin.host(), self.origin.port());
        let found = tokio::net::lookup_host(name).await.map_err(|_| FaultKind::Dns)?;
        let mut addresses: Vec<_> = found.collect();
        if addresses.is_empty() {
            return Err(FaultKind::Dns);
        }
        if !addresses.iter().all(|address| self.guard.permits(address.ip())) {
            return Err(FaultKind::Address);
        }
        // Each dial starts at another address, so that connections spread over the peer's hosts.
        let turn = usize::try_from(jitter(addresses.len() as u64)).unwrap_or(0);
        addresses.rotate_left(turn);
        Ok(addresses)
    }
}

/// Tries one address after the other; each may use its share of the time that is left.
async fn connect(addresses: &[SocketAddr], end: Instant) -> Result<TcpStream, FaultKind> {
    let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
    for address in addresses {
        let now = Instant::now();
        let share = end.saturating_duration_since(now) / left.max(1);
        if let Ok(Ok(tcp)) = timeout_at(now + share, TcpStream::connect(address)).await {
            return Ok(tcp);
        }
        left = left.saturating_sub(1);
    }
    Err(FaultKind::Connect)
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
