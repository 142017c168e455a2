//! Asks a proxy for a connection to a push service: HTTP CONNECT or SOCKS5.
//!
//! In: a byte stream to the proxy and a destination, a name or an address. Out: the same stream,
//! which now leads to the destination. TLS to the push service runs inside it, so the proxy sees
//! the destination and nothing else. hyper-util's tunnels are not used: their errors are types
//! without a name, and a wrong password must be told from a refusal.
//! Sources: RFC 9110 §9.3.6, RFC 7617 (CONNECT, Basic); RFC 1928, RFC 1929 (SOCKS5).

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::counts::FaultKind;
use crate::config::{Proxy, ProxyKind, ProxyLogin};

/// Where the proxy is to connect us.
#[derive(Clone, Debug)]
pub(super) enum Destination {
    /// The proxy looks the name up.
    Name(String, u16),
    /// The very address that was checked.
    Address(IpAddr, u16),
}

/// Bytes of the answer to CONNECT.
const ANSWER_BYTES_MAX: usize = 8 * 1_024;

/// Connects through the proxy.
/// Errors: `ProxyAuthentication`, `ProxyRefused`.
pub(super) async fn connect<I>(
    io: &mut I,
    proxy: &Proxy,
    destination: &Destination,
) -> Result<(), FaultKind>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let login = proxy.login.as_ref();
    match proxy.kind {
        ProxyKind::Http => tunnel(io, login, destination).await,
        ProxyKind::Socks5 => socks5(io, login, destination).await,
    }
}

async fn tunnel<I>(
    io: &mut I,
    login: Option<&ProxyLogin>,
    destination: &Destination,
) -> Result<(), FaultKind>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = Zeroizing::new(String::with_capacity(1_024));
    request.push_str(&format!("CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n"));
    if let Some(login) = login {
        let pair = Zeroizing::new(format!("{}:{}", login.user, login.password.expose()));
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&Zeroizing::new(STANDARD.encode(pair.as_bytes())));
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    io.write_all(request.as_bytes()).await.map_err(refused)?;
    match answer_status(io).await? {
        200..=299 => Ok(()),
        407 => Err(FaultKind::ProxyAuthentication),
        _ => Err(FaultKind::ProxyRefused),
    }
}

/// Reads the head of an answer, byte by byte: what follows it belongs to TLS.
async fn answer_status<I: AsyncRead + Unpin>(io: &mut I) -> Result<u16, FaultKind> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= ANSWER_BYTES_MAX {
            return Err(FaultKind::ProxyRefused);
        }
        head.push(io.read_u8().await.map_err(refused)?);
    }
    let status = head.strip_prefix(b"HTTP/1.").and_then(|rest| rest.get(2..5));
    let status = status.and_then(|digits| std::str::from_utf8(digits).ok());
    status.and_then(|digits| digits.parse().ok()).ok_or(FaultKind::ProxyRefused)
}

async fn socks5<I>(
    io: &mut I,
    login: Option<&ProxyLogin>,
    destination: &Destination,
) -> Result<(), FaultKind>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    const NONE: u8 = 0;
    const PASSWORD: u8 = 2;
    let greeting: &[u8] = if login.is_some() { &[5, 2, NONE, PASSWORD] } else { &[5, 1, NONE] };
    io.write_all(greeting).await.map_err(refused)?;
    let mut choice = [0; 2];
    io.read_exact(&mut choice).await.map_err(refused)?;
    match (choice, login) {
        ([5, NONE], _) => {}
        ([5, PASSWORD], Some(login)) => log_in(io, login).await?,
        ([5, _], _) => return Err(FaultKind::ProxyAuthentication),
        _ => return Err(FaultKind::ProxyRefused),
    }
    io.write_all(&destination.socks5()?).await.map_err(refused)?;
    let mut reply = [0; 4];
    io.read_exact(&mut reply).await.map_err(refused)?;
    let bound_bytes = match reply {
        [5, 0, _, 1] => 4,
        [5, 0, _, 4] => 16,
        [5, 0, _, 3] => usize::from(io.read_u8().await.map_err(refused)?),
        _ => return Err(FaultKind::ProxyRefused),
    };
    // The address that the proxy dials from, and its port: of no use here.
    let mut bound = [0; 255 + 2];
    let bound = bound.get_mut(..bound_bytes + 2).ok_or(FaultKind::ProxyRefused)?;
    io.read_exact(bound).await.map_err(refused)?;
    Ok(())
}

async fn log_in<I>(io: &mut I, login: &ProxyLogin) -> Result<(), FaultKind>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut request = Zeroizing::new(vec![1]);
    for part in [&login.user, login.password.expose()] {
        // The configuration takes no longer ones.
        request.push(u8::try_from(part.len()).map_err(|_| FaultKind::ProxyAuthentication)?);
        request.extend_from_slice(part.as_bytes());
    }
    io.write_all(&request).await.map_err(refused)?;
    let mut reply = [0; 2];
    io.read_exact(&mut reply).await.map_err(|_| FaultKind::ProxyAuthentication)?;
    if reply == [1, 0] { Ok(()) } else { Err(FaultKind::ProxyAuthentication) }
}

fn refused(_: std::io::Error) -> FaultKind {
    FaultKind::ProxyRefused
}

// === impl Destination ===

impl Destination {
    fn socks5(&self) -> Result<Vec<u8>, FaultKind> {
        let mut request = vec![5, 1, 0];
        let port = match self {
            Self::Name(name, port) => {
                request.push(3);
                request.push(u8::try_from(name.len()).map_err(|_| FaultKind::ProxyRefused)?);
                request.extend_from_slice(name.as_bytes());
                port
            }
            Self::Address(IpAddr::V4(address), port) => {
                request.push(1);
                request.extend_from_slice(&address.octets());
                port
            }
            Self::Address(IpAddr::V6(address), port) => {
                request.push(4);
                request.extend_from_slice(&address.octets());
                port
            }
        };
        request.extend_from_slice(&port.to_be_bytes());
        Ok(request)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address), port) => write!(formatter, "[{address}]:{port}"),
            Self::Address(IpAddr::V4(address), port) => write!(formatter, "{address}:{port}"),
            Self::Name(name, port) if name.contains(':') => write!(formatter, "[{name}]:{port}"),
            Self::Name(name, port) => write!(formatter, "{name}:{port}"),
        }
    }
}
