//! Many senders at one door: connections that carry many requests at once.
//!
//! In: letters. Out: whole answers, in any order. Over HTTP/1.1 each connection carries one request
//! at a time and the others wait; over HTTP/2 a connection carries as many as the door allows.
//! Never retries: a connection that breaks is an error of its requests. A new one takes the place
//! of one that the door has closed, as any client does.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio_rustls::TlsConnector;

use super::MeasureError;
use super::letter::Letter;
use crate::ca::TestCa;
use crate::sim::lock;

/// Connections to one origin on this machine.
pub struct Crowd {
    origin: Uri,
    way: Way,
    lines: Lines,
}

/// How the crowd speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, kept alive.
    Http1,
    /// HTTP/2.
    Http2,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Told {
    /// The status.
    pub status: StatusCode,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CrowdError {
    /// HTTP itself failed: the connection broke, or the stream was reset.
    #[error("the connection or the stream broke")]
    Http(#[from] hyper::Error),
    /// The answer is longer than any of the relay's.
    #[error("the answer broke off or is longer than {ANSWER_BYTES_MAX} bytes")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A connection could not be opened.
    #[error("a connection cannot be opened")]
    Dial(#[from] io::Error),
    /// The crowd has no connection.
    #[error("there is no connection")]
    NoLine,
}

/// How to get there.
struct Way {
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

enum Lines {
    Http1 { idle: Mutex<VecDeque<http1::SendRequest<Full<Bytes>>>>, free: Semaphore },
    Http2 { all: Vec<AsyncMutex<http2::SendRequest<Full<Bytes>>>>, next: AtomicUsize },
}

const ANSWER_BYTES_MAX: usize = 64 * 1024;

// === impl Crowd ===

impl Crowd {
    /// Opens `connections` to an origin: `http://localhost:8080`, or `https://…` under this root.
    /// Errors: the origin is not of this form, or does not answer.
    pub async fn connect(
        origin: &str,
        ca: &TestCa,
        protocol: Protocol,
        connections: usize,
    ) -> Result<Crowd, MeasureError> {
        let origin: Uri = origin.parse().map_err(|_| MeasureError::BadUrl)?;
        let port = origin.port_u16().ok_or(MeasureError::BadUrl)?;
        let tls = match origin.scheme_str() {
            Some("https") => {
                let name = ServerName::try_from("localhost").map_err(|_| MeasureError::BadUrl)?;
                Some((connector(ca, protocol)?, name))
            }
            _ => None,
        };
        let way = Way { address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), tls };
        let lines = match protocol {
            Protocol::Http1 => {
                let mut idle = VecDeque::new();
                for _ in 0..connections {
                    idle.push_back(way.open_http1().await?);
                }
                Lines::Http1 { idle: Mutex::new(idle), free: Semaphore::new(connections) }
            }
            Protocol::Http2 => {
                let mut all = Vec::new();
                for _ in 0..connections {
                    all.push(AsyncMutex::new(way.open_http2().await?));
                }
                Lines::Http2 { all, next: AtomicUsize::new(0) }
            }
        };
        Ok(Crowd { origin, way, lines })
    }

    /// Sends a letter and waits for its answer.
    /// Errors: [`CrowdError`]; dropping the future gives the request up.
    pub async fn post(&self, letter: &Letter) -> Result<Told, CrowdError> {
        match &self.lines {
            Lines::Http1 { idle, free } => {
                let _turn = free.acquire().await.map_err(|_| CrowdError::NoLine)?;
                let line = lock(idle).pop_front().filter(|line| !line.is_closed());
                let mut line = match line {
                    Some(line) => line,
                    None => self.way.open_http1().await?,
                };
                line.ready().await?;
                let request = letter.request(&self.origin, Version::HTTP_11);
                let told = read(line.send_request(request).await?).await?;
                lock(idle).push_back(line);
                Ok(told)
            }
            Lines::Http2 { all, next } => {
                let turn = next.fetch_add(1, Ordering::Relaxed) % all.len().max(1);
                let place = all.get(turn).ok_or(CrowdError::NoLine)?;
                let mut line = {
                    let mut line = place.lock().await;
                    if line.is_closed() {
                        *line = self.way.open_http2().await?;
                    }
                    line.clone()
                };
                line.ready().await?;
                let request = letter.request(&self.origin, Version::HTTP_2);
                read(line.send_request(request).await?).await
            }
        }
    }
}

// === impl Way ===

impl Way {
    async fn open_http1(&self) -> Result<http1::SendRequest<Full<Bytes>>, CrowdError> {
        let (line, connection) = http1::handshake(TokioIo::new(self.dial().await?)).await?;
        // Its end shows at the next request.
        tokio::spawn(connection);
        Ok(line)
    }

    async fn open_http2(&self) -> Result<http2::SendRequest<Full<Bytes>>, CrowdError> {
        let io = TokioIo::new(self.dial().await?);
        let (line, connection) = http2::handshake(TokioExecutor::new(), io).await?;
        tokio::spawn(connection);
        Ok(line)
    }

    async fn dial(&self) -> io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect(self.address).await?;
        // Or the second small write of a request waits for the first one's acknowledgement.
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some((tls, name)) => Box::new(tls.connect(name.clone(), stream).await?),
        })
    }
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

fn connector(ca: &TestCa, protocol: Protocol) -> Result<TlsConnector, MeasureError> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn read(response: Response<Incoming>) -> Result<Told, CrowdError> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(CrowdError::Answer)?;
    Ok(Told { status: head.status, body: body.to_bytes() })
}
