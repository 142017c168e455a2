//! The port of one simulator: what meets those who come to it, from TLS to a black hole.
//!
//! In: TCP connections. Out: HTTP/2 or HTTP/1.1 by ALPN, unless the `Welcome` is another. What can
//! go wrong with ALPN: rustls never chooses a protocol that the client has not offered, nor does a
//! client of it accept one; so a server either refuses by an alert, or is silent about ALPN.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::super::ledger::Ledger;
use super::super::{SimError, lock};
use super::{Controls, Link, Peer, Service, Simulator, http1, http2};
use crate::ca::TestCa;

/// What meets a new connection; live ones stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Welcome {
    /// The service.
    #[default]
    Open,
    /// The connection is closed at once: the service is down.
    TurnAway,
    /// The connection is taken, and nothing more happens: a black hole.
    Silence,
    /// A TLS alert in place of a ServerHello: handshake_failure (RFC 8446 §6.2).
    TlsAlert,
    /// A server that speaks none of the protocols that a client of ours asks for: the alert
    /// no_application_protocol (RFC 7301 §3.2).
    WrongAlpn,
    /// A server that knows nothing of ALPN, as behind an old balancer; it speaks HTTP/1.1.
    NoAlpn,
    /// A certificate of the right authority and name whose time is over.
    ExpiredCertificate,
}

/// One TLS configuration for each welcome that has a handshake.
struct Faces {
    good: TlsAcceptor,
    wrong_alpn: TlsAcceptor,
    no_alpn: TlsAcceptor,
    expired: TlsAcceptor,
}

const UNHEARD_OF_ALPN: &str = "spdy/3.1";
/// Record type alert, TLS 1.2, 2 bytes: fatal, handshake_failure.
const TLS_ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Binds a port, 0 for a free one, and serves until dropped.
/// `build` gets the origin (`https://localhost:…`).
pub(crate) async fn launch<S: Service>(
    (ca, port): (&TestCa, u16),
    alpn: &[&str],
    parts: Controls,
    build: impl FnOnce(&str) -> S,
) -> Result<Simulator<S>, SimError> {
    let faces = Faces::make(ca, alpn)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(SimError::Bind)?;
    let port = listener.local_addr().map_err(SimError::Bind)?.port();
    let base_url = format!("https://localhost:{port}");
    let service = Arc::new(build(&base_url));
    let accept = accept(listener, faces, service.clone(), parts.clone());
    let accepting = tokio::spawn(accept).abort_handle();
    Ok(Simulator { service, parts, base_url, accepting })
}

async fn accept<S: Service>(listener: TcpListener, faces: Faces, service: Arc<S>, parts: Controls) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                parts.connections.state.met.fetch_add(1, Ordering::Relaxed);
                let welcome = *lock(&parts.connections.state.welcome);
                let tls = match welcome {
                    Welcome::TurnAway => continue,
                    Welcome::Silence => {
                        connections.spawn(ignore(stream));
                        continue;
                    }
                    Welcome::TlsAlert => {
                        connections.spawn(alert(stream));
                        continue;
                    }
                    Welcome::Open => &faces.good,
                    Welcome::WrongAlpn => &faces.wrong_alpn,
                    Welcome::NoAlpn => &faces.no_alpn,
                    Welcome::ExpiredCertificate => &faces.expired,
                };
                connections.spawn(serve(stream, tls.clone(), service.clone(), parts.clone()));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

/// Reads on, says nothing, and ends when the peer does.
async fn ignore(mut stream: TcpStream) {
    let _ended = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
}

/// Answers a ClientHello with a fatal alert, and lets the peer hang up, lest a reset overtakes it.
async fn alert(mut stream: TcpStream) {
    let mut hello = [0; 1024];
    if stream.read(&mut hello).await.is_ok() && stream.write_all(&TLS_ALERT).await.is_ok() {
        let _ended = tokio::time::timeout(HANDSHAKE_MAX, ignore(stream)).await;
    }
}

async fn serve<S: Service>(stream: TcpStream, tls: TlsAcceptor, service: Arc<S>, parts: Controls) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let handshake = tokio::time::timeout(HANDSHAKE_MAX, tls.accept(stream)).await;
    let Ok(Ok(io)) = handshake else { return };
    let session = io.get_ref().1;
    let certificate = session.peer_certificates().and_then(|chain| chain.first());
    let peer = Peer { certificate: certificate.map(|der| der.to_vec()) };
    let is_http2 = session.alpn_protocol() == Some(b"h2".as_slice());

    let connection = service.connect(peer);
    let number = parts.connections.state.opened.fetch_add(1, Ordering::Relaxed) + 1;
    let limit = if is_http2 { service.first_limit(&connection) } else { 1 };
    let ledger = Arc::new(Ledger::new(number, limit));
    parts.connections.enter(ledger.clone());
    let link = Arc::new(Link { service, parts, number, ledger, connection });
    if is_http2 {
        http2::serve(io, link).await;
    } else {
        http1::serve(io, link).await;
    }
}

// === impl Faces ===

impl Faces {
    fn make(ca: &TestCa, alpn: &[&str]) -> Result<Faces, SimError> {
        let tls = |config| TlsAcceptor::from(Arc::new(config));
        Ok(Faces {
            good: tls(ca.server_config(alpn)?),
            wrong_alpn: tls(ca.server_config(&[UNHEARD_OF_ALPN])?),
            no_alpn: tls(ca.server_config(&[])?),
            expired: tls(ca.expired_server_config(alpn)?),
        })
    }
}
